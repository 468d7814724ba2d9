//! Answers: the backend's to our handshake, judged (RFC 6455 §4.1), and ours to the client's, written (§4.2.2).

use crate::ws::upgrade::accept::accept_key;
use crate::ws::upgrade::bounds::{MAX_FIELDS, MAX_HEAD};
use crate::ws::upgrade::head::{self, Single};

/// What a backend answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// A 101 that answers our key. What follows the head is frames.
    Switching {
        /// The subprotocol it chose, one of those offered.
        subprotocol: Option<Box<str>>,
        /// Its fields that pass to the client, lower-case names, in their order.
        passed: Vec<(Box<str>, Box<[u8]>)>,
    },
    /// A final status other than 101. Its body is not read, the connection must be closed.
    Refused(Box<BackendRefusal>),
}

/// A refusal of a backend: its status, and the fields of it that tell a client what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRefusal {
    /// 200 to 599.
    pub status: u16,
    /// `Retry-After` (RFC 9110 §10.2.3), if it is there once: seconds, or a date.
    pub retry_after: Option<Box<str>>,
    /// The fields `WWW-Authenticate` (RFC 9110 §11.6.1) in their order, the first [`MAX_CHALLENGES`] that are visible ASCII
    /// of at most [`MAX_CHALLENGE`] bytes.
    pub challenges: Vec<Box<str>>,
}

/// The most bytes of a `Retry-After` of a backend; a date has 29 (RFC 9110 §5.6.7).
const MAX_RETRY_AFTER: usize = 64;
/// The most fields `WWW-Authenticate` of a backend that are read.
const MAX_CHALLENGES: usize = 4;
/// The most bytes of one of them.
const MAX_CHALLENGE: usize = 1024;

impl BackendRefusal {
    fn read(status: u16, headers: &[httparse::Header<'_>]) -> Self {
        let mut retry_after = Single::default();
        let mut challenges = Vec::new();
        for header in headers {
            let value = head::trim(header.value);
            if header.name.eq_ignore_ascii_case("retry-after") {
                retry_after.add(value);
            } else if header.name.eq_ignore_ascii_case("www-authenticate") && challenges.len() < MAX_CHALLENGES {
                challenges.extend(printable(value, MAX_CHALLENGE));
            }
        }
        let retry_after = retry_after.one().and_then(|value| printable(value, MAX_RETRY_AFTER));
        // A number of seconds, or a date, which begins with the name of a day.
        let retry_after = retry_after.filter(|value| {
            value.bytes().all(|byte| byte.is_ascii_digit()) || value.starts_with(|c: char| c.is_ascii_alphabetic())
        });
        Self { status, retry_after, challenges }
    }
}

/// A value of visible ASCII, spaces and tabs, at most so long and not empty.
fn printable(value: &[u8], most: usize) -> Option<Box<str>> {
    let text = std::str::from_utf8(value).ok()?;
    let clear = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    (clear && !text.is_empty() && text.len() <= most).then(|| text.into())
}

/// Why an answer is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResponseError {
    /// Not HTTP/1.x as RFC 9112 writes it, or bytes that parsers read in different ways.
    Syntax,
    /// More than [`MAX_HEAD`] bytes or [`MAX_FIELDS`] fields.
    HeadTooLarge,
    /// A status that does not answer a handshake: another 1xx, or none that HTTP knows; a 101 in HTTP/1.0.
    Status,
    /// `Upgrade` is not once `websocket`, or `Connection` lacks `upgrade`.
    Upgrade,
    /// `Sec-WebSocket-Accept` is missing, repeated or does not answer our key.
    Accept,
    /// `Transfer-Encoding`, or a `Content-Length` that is not 0 once, on a 101.
    Body,
    /// An extension; none was offered.
    Extension,
    /// A subprotocol that was not offered, or several.
    Subprotocol,
}

impl ResponseError {
    /// What the answer lacks or has too much of, as the access log names it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::HeadTooLarge => "head_too_large",
            Self::Status => "status",
            Self::Upgrade => "upgrade",
            Self::Accept => "accept",
            Self::Body => "body",
            Self::Extension => "extension",
            Self::Subprotocol => "subprotocol",
        }
    }
}

/// Reads the head of the answer to a handshake with `key` and `offered` from the start of `bytes`: the answer and the
/// bytes it took, or `None` if it is not whole yet. `passes` are the lower-case names of fields that pass to the client.
///
/// # Errors
/// A fault in the order of [`ResponseError`]. The connection to the backend must be closed.
pub fn parse_response(
    bytes: &[u8],
    key: &str,
    offered: &[Box<str>],
    passes: &[Box<str>],
) -> Result<Option<(Response, usize)>, ResponseError> {
    let window = &bytes[..bytes.len().min(MAX_HEAD)];
    let end = head::end(window).map_err(|_| ResponseError::Syntax)?;
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut raw = httparse::Response::new(&mut storage);
    let parsed = raw.parse(&window[..end.unwrap_or(window.len())]).map_err(|error| match error {
        httparse::Error::TooManyHeaders => ResponseError::HeadTooLarge,
        _ => ResponseError::Syntax,
    })?;
    let Some(size) = end else {
        return match parsed {
            httparse::Status::Complete(_) => Err(ResponseError::Syntax),
            _ if window.len() == MAX_HEAD => Err(ResponseError::HeadTooLarge),
            _ => Ok(None),
        };
    };
    let (httparse::Status::Complete(_), Some(status), Some(version)) = (parsed, raw.code, raw.version) else {
        return Err(ResponseError::Syntax);
    };
    match status {
        101 if version == 1 => {}
        200..=599 => {
            let refusal = BackendRefusal::read(status, raw.headers);
            return Ok(Some((Response::Refused(Box::new(refusal)), size)));
        }
        // RFC 9110 §15.2 lets a server send other 1xx first; one that does so before a 101 could hide a second answer
        // from us, and none was asked for.
        _ => return Err(ResponseError::Status),
    }
    let subprotocol = check_switching(raw.headers, key, offered)?;
    let passed = if passes.is_empty() { Vec::new() } else { passed(raw.headers, passes) };
    Ok(Some((Response::Switching { subprotocol, passed }, size)))
}

/// The fields of these names, but those that `Connection` names: they end here (RFC 9110 §7.6.1). Their values are free of
/// controls but HTAB, as every value is that was read.
fn passed(headers: &[httparse::Header<'_>], passes: &[Box<str>]) -> Vec<(Box<str>, Box<[u8]>)> {
    let options: Vec<&[u8]> = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| head::elements(header.value))
        .collect();
    let ends_here = |name: &str| options.iter().any(|option| option.eq_ignore_ascii_case(name.as_bytes()));
    headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), head::trim(header.value)))
        .filter(|(name, _)| passes.iter().any(|one| **one == **name) && !ends_here(name))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// RFC 6455 §4.1, "once the client's opening handshake has been sent", items 2 to 6.
fn check_switching(
    headers: &[httparse::Header<'_>],
    key: &str,
    offered: &[Box<str>],
) -> Result<Option<Box<str>>, ResponseError> {
    let [mut upgrade, mut accept, mut protocol, mut length] = [Single::default(); 4];
    let (mut connection, mut body, mut extension) = (false, false, false);
    for header in headers {
        let value = head::trim(header.value);
        match header.name.to_ascii_lowercase().as_str() {
            "upgrade" => head::elements(value).for_each(|element| upgrade.add(element)),
            "connection" => connection |= head::elements(value).any(|o| o.eq_ignore_ascii_case(b"upgrade")),
            "sec-websocket-accept" => accept.add(value),
            "sec-websocket-protocol" => head::elements(value).for_each(|element| protocol.add(element)),
            "sec-websocket-extensions" => extension |= head::elements(value).next().is_some(),
            "content-length" => length.add(value),
            "transfer-encoding" => body = true,
            _ => {}
        }
    }
    // Items 2 and 3.
    if !upgrade.one().is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) || !connection {
        return Err(ResponseError::Upgrade);
    }
    // Item 4: without it, any server that echoes bytes could be made to answer 101.
    if accept.one() != Some(accept_key(key).as_bytes()) {
        return Err(ResponseError::Accept);
    }
    // RFC 9112 §6.1 and RFC 9110 §8.6: neither may be on a 1xx. A length of 0, which some frameworks write into every
    // answer, has no second reading: what follows is frames either way.
    if body || !(length.is_missing() || length.one() == Some(b"0")) {
        return Err(ResponseError::Body);
    }
    // Item 5.
    if extension {
        return Err(ResponseError::Extension);
    }
    // Item 6.
    if protocol.is_missing() {
        return Ok(None);
    }
    let chosen = protocol.one().and_then(|value| offered.iter().find(|name| name.as_bytes() == value));
    chosen.cloned().map(Some).ok_or(ResponseError::Subprotocol)
}

/// Appends our 101 to a client that sent `key`. `headers` and then those of the backend's 101 that pass come last; they must
/// be free of CR and LF and name none of the handshake's own fields.
pub fn write_switching(
    out: &mut Vec<u8>,
    key: &str,
    subprotocol: Option<&str>,
    headers: &[(&str, &str)],
    passed: &[(Box<str>, Box<[u8]>)],
) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    field(out, "Sec-WebSocket-Accept", &accept_key(key));
    if let Some(subprotocol) = subprotocol {
        field(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    for (name, value) in headers {
        field(out, name, value);
    }
    for (name, value) in passed {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a refusal, after which the connection must be closed. `headers` must be free of CR and LF. What a status
/// demands is added, and without a body no type of one: 405 has `Allow` (RFC 9110 §15.5.6), 426 has `Upgrade` (§15.5.22) and the version (RFC 6455 §4.4).
pub fn write_refusal(out: &mut Vec<u8>, status: u16, headers: &[(&str, &str)], body: &str) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", phrase(status)).as_bytes());
    match status {
        405 => field(out, "Allow", "GET"),
        426 => {
            field(out, "Upgrade", "websocket");
            field(out, "Sec-WebSocket-Version", "13");
        }
        _ => {}
    }
    // RFC 9110 §7.8: who sends Upgrade must name it in Connection.
    field(out, "Connection", if status == 426 { "close, Upgrade" } else { "close" });
    if !body.is_empty() {
        field(out, "Content-Type", "text/plain; charset=utf-8");
    }
    field(out, "Content-Length", &body.len().to_string());
    for (name, value) in headers {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}

/// Appends an answer to a call, after which the connection must be closed. `headers` must be free of CR and LF. A 204 has
/// no body (RFC 9110 §15.3.5).
pub fn write_answer(out: &mut Vec<u8>, status: u16, headers: &[(&str, &str)], body: &str) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", phrase(status)).as_bytes());
    field(out, "Connection", "close");
    if status != 204 {
        field(out, "Content-Length", &body.len().to_string());
    }
    for (name, value) in headers {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.as_bytes());
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// RFC 9110 §15, RFC 6585; empty where there is none, which RFC 9112 §4 allows.
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        402 => "Payment Required",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        508 => "Loop Detected",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const GOOD: &str = "Upgrade: WebSocket\r\nConnection: keep-alive, UPGRADE\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn parse(head: &str) -> Result<Option<Response>, ResponseError> {
        let offered: [Box<str>; 2] = ["a".into(), "b".into()];
        parse_response(head.as_bytes(), KEY, &offered, &[]).map(|found| found.map(|(response, _)| response))
    }

    fn switching(fields: &str) -> Result<Option<Response>, ResponseError> {
        parse(&format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n"))
    }

    #[test]
    fn a_true_answer_is_accepted_and_frames_behind_it_are_left() {
        let none = || Response::Switching { subprotocol: None, passed: Vec::new() };
        assert_eq!(switching(GOOD), Ok(Some(none())));
        let chosen = switching(&format!("{GOOD}Sec-WebSocket-Protocol: b\r\nSet-Cookie: x=y\r\n"));
        assert_eq!(chosen, Ok(Some(Response::Switching { subprotocol: Some("b".into()), passed: Vec::new() })));
        for empty in
            ["Content-Length: 0", "Sec-WebSocket-Protocol:", "Sec-WebSocket-Protocol: ,", "Sec-WebSocket-Extensions: "]
        {
            let answer = switching(&format!("{GOOD}{empty}\r\n"));
            assert_eq!(answer, Ok(Some(none())), "{empty}");
        }
        let head = format!("HTTP/1.1 101\r\n{GOOD}\r\n");
        let with_frame = [head.as_bytes(), b"\x81\x00\0\n"].concat();
        let (_, size) = parse_response(&with_frame, KEY, &[], &[]).unwrap().unwrap();
        assert_eq!(size, head.len());
        for short in 0..head.len() {
            assert_eq!(parse_response(&head.as_bytes()[..short], KEY, &[], &[]), Ok(None), "{short}");
        }
    }

    #[test]
    fn our_own_101_is_one_that_we_accept() {
        let mut out = Vec::new();
        let fields = [("set-cookie".into(), b"a=b; Path=/".as_slice().into()), ("x".into(), b"\xe9".as_slice().into())];
        write_switching(&mut out, KEY, Some("a"), &[("X-Frame-Options", "DENY")], &fields);
        let (response, size) = parse_response(&out, KEY, &["a".into()], &["set-cookie".into()]).unwrap().unwrap();
        let [cookie, _] = fields;
        assert_eq!(response, Response::Switching { subprotocol: Some("a".into()), passed: vec![cookie] });
        assert_eq!(size, out.len());
    }

    #[test]
    fn fields_of_a_101_pass_by_their_names_alone_and_never_what_connection_names() {
        let head = format!(
            "HTTP/1.1 101 X\r\n{GOOD}Set-Cookie: a=1\r\nX-Own: 1\r\nSET-COOKIE: b=2\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\n"
        );
        let passed = |names: &[&str]| -> Vec<String> {
            let names: Vec<Box<str>> = names.iter().map(|name| (*name).into()).collect();
            match parse_response(head.as_bytes(), KEY, &[], &names).unwrap().unwrap().0 {
                Response::Switching { passed, .. } => passed
                    .into_iter()
                    .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(&value)))
                    .collect(),
                Response::Refused(_) => Vec::new(),
            }
        };
        assert_eq!(passed(&["set-cookie", "x-hop", "x-absent"]), ["set-cookie=a=1", "set-cookie=b=2"]);
        assert_eq!(passed(&["x-own"]), ["x-own=1"]);
        assert_eq!(passed(&[]), [""; 0]);
    }

    #[test]
    fn a_101_that_does_not_answer_our_handshake_is_an_error() {
        let with = |extra: &str| switching(&format!("{GOOD}{extra}\r\n"));
        let without = |from: &str, to: &str| switching(&GOOD.replacen(from, to, 1));
        assert_eq!(without("Upgrade: WebSocket\r\n", ""), Err(ResponseError::Upgrade));
        assert_eq!(without("WebSocket", "h2c"), Err(ResponseError::Upgrade));
        assert_eq!(without("WebSocket", "websocket, h2c"), Err(ResponseError::Upgrade));
        assert_eq!(with("Upgrade: websocket"), Err(ResponseError::Upgrade));
        assert_eq!(without("UPGRADE", "close"), Err(ResponseError::Upgrade));
        assert_eq!(without("xOo=", "xOp="), Err(ResponseError::Accept));
        assert_eq!(without("s3pPL", "S3PPL"), Err(ResponseError::Accept));
        assert_eq!(without("Sec-WebSocket-Accept", "X"), Err(ResponseError::Accept));
        assert_eq!(with("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), Err(ResponseError::Accept));
        for length in ["1", "", "+0", "-0", "00", "0, 0", "0\r\nContent-Length: 0", "0\r\nTransfer-Encoding: chunked"] {
            assert_eq!(with(&format!("Content-Length: {length}")), Err(ResponseError::Body), "{length}");
        }
        assert_eq!(with("Transfer-Encoding: chunked"), Err(ResponseError::Body));
        assert_eq!(with("Sec-WebSocket-Extensions: permessage-deflate"), Err(ResponseError::Extension));
        for protocol in ["c", "A", "a, b", "a\r\nSec-WebSocket-Protocol: a"] {
            let answer = with(&format!("Sec-WebSocket-Protocol: {protocol}"));
            assert_eq!(answer, Err(ResponseError::Subprotocol), "{protocol}");
        }
        assert_eq!(parse(&format!("HTTP/1.0 101 x\r\n{GOOD}\r\n")), Err(ResponseError::Status));
    }

    #[test]
    fn other_statuses_are_refusals_and_other_interim_ones_errors() {
        for status in [200, 204, 301, 400, 401, 404, 426, 500, 503] {
            let refused = parse(&format!("HTTP/1.1 {status} X\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc"));
            let plain = BackendRefusal { status, retry_after: None, challenges: Vec::new() };
            assert_eq!(refused, Ok(Some(Response::Refused(Box::new(plain)))));
        }
        for status in [100, 102, 103, 199, 600, 999, 0] {
            let answer = parse(&format!("HTTP/1.1 {status:03} X\r\n{GOOD}\r\n"));
            assert_eq!(answer, Err(ResponseError::Status), "{status}");
        }
    }

    #[test]
    fn of_a_refusal_only_what_tells_the_client_what_to_do_is_kept_and_no_more_than_is_bounded() {
        let read = |fields: &str| match parse(&format!("HTTP/1.1 401 X\r\n{fields}\r\n")) {
            Ok(Some(Response::Refused(refusal))) => (refusal.retry_after, refusal.challenges),
            other => panic!("{fields}: {other:?}"),
        };
        let (retry, challenges) =
            read("Retry-After: 7\r\nWWW-Authenticate: Basic realm=\"a\"\r\nwww-authenticate:Digest x\r\nX: y\r\n");
        assert_eq!(retry.as_deref(), Some("7"));
        assert_eq!(challenges.join("|"), "Basic realm=\"a\"|Digest x");
        assert_eq!(
            read("Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n").0.as_deref(),
            Some("Fri, 31 Dec 1999 23:59:59 GMT")
        );
        let long = "9".repeat(MAX_RETRY_AFTER + 1);
        for bad in ["-1", "7\r\nRetry-After: 8", "\u{e9}", "1.5", "", &long] {
            assert_eq!(read(&format!("Retry-After: {bad}\r\n")).0, None, "{bad}");
        }
        let long = format!("WWW-Authenticate: {}\r\n", "x".repeat(MAX_CHALLENGE + 1));
        assert!(read(&format!("{long}WWW-Authenticate: \u{e9}\r\nWWW-Authenticate: \r\n")).1.is_empty());
        assert_eq!(read(&"WWW-Authenticate: a\r\n".repeat(MAX_CHALLENGES + 1)).1.len(), MAX_CHALLENGES);
    }

    #[test]
    fn heads_that_can_be_read_in_two_ways_are_errors() {
        for bad in [
            "HTTP/1.1 101 X\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 101 X\r\nUpgrade : websocket\r\n\r\n",
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n folded\r\n\r\n",
            "HTTP/1.1 101 X\r\nUpgrade: web\rsocket\r\n\r\n",
            "HTTP/1.1 101 X\r\nUpgrade: web\0socket\r\n\r\n",
            "HTTP/1.1 101 X\r\n: x\r\n\r\n",
            "HTTP/2 101 X\r\n\r\n",
            "SSH-2.0-x\r\n",
            "\r\nHTTP/1.1 101 X\r\n\r\n",
        ] {
            assert_eq!(parse(bad), Err(ResponseError::Syntax), "{bad:?}");
        }
        assert_eq!(switching(&"A: b\r\n".repeat(MAX_FIELDS + 1)), Err(ResponseError::HeadTooLarge));
        assert_eq!(switching(&format!("A: {}\r\n", "x".repeat(MAX_HEAD))), Err(ResponseError::HeadTooLarge));
    }

    #[test]
    fn refusals_carry_what_their_status_demands() {
        let written = |status| {
            let mut out = Vec::new();
            write_refusal(&mut out, status, &[("X-A", "b")], "no\n");
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(403),
            "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 3\r\nX-A: b\r\n\r\nno\n"
        );
        assert!(written(405).contains("\r\nAllow: GET\r\n"));
        let required = written(426);
        assert!(
            required.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: close, Upgrade\r\n")
        );
    }
}
