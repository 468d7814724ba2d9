//! The client's request for an upgrade (RFC 6455 §4.1, §4.2.1), judged in its form. The order: bytes, sizes, method,
//! body, version, target, host, what may not be asked, upgrade, key, subprotocols.

use std::fmt;

use crate::ws::upgrade::bounds::{MAX_FIELDS, MAX_SUBPROTOCOLS, max_target};
use crate::ws::upgrade::head::{self, Single};
use crate::ws::upgrade::origin::Origin;
use crate::ws::upgrade::target::{self, TargetError};
use crate::ws::upgrade::{accept, fields, host};

/// A well-formed request to upgrade to WebSocket version 13.
///
/// `Debug` shows neither query, key, subprotocols nor the values of headers.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The name in `Host`: lower case, without port.
    pub host: Box<str>,
    /// The port in `Host`, if it has one.
    pub port: Option<u16>,
    /// `Host` as sent, for the backend.
    pub authority: Box<str>,
    /// The path, byte for byte; [`check_path`](super::check_path) holds for it.
    pub path: Box<str>,
    /// The query after `?`, byte for byte. May hold secrets: never for logs.
    pub query: Option<Box<str>>,
    /// The client's `Sec-WebSocket-Key`; it never goes to the backend.
    pub key: Box<str>,
    /// What `Origin` says.
    pub origin: Origin,
    /// The offered subprotocols in the client's order, without duplicates. May hold secrets until credentials are taken
    /// out: not for logs.
    pub subprotocols: Box<[Box<str>]>,
    /// The offers of `Sec-WebSocket-Extensions`, lines joined by commas (RFC 6455 §9.1); never for the backend.
    pub extensions: Option<Box<[u8]>>,
    /// The fields that may go on to the backend, in order; names in lower case. Values are opaque bytes without
    /// controls but HTAB: bytes from 0x80 are kept, as RFC 9110 §5.5 asks, since browsers send cookies that were set
    /// with them.
    pub headers: Vec<(Box<str>, Box<[u8]>)>,
    /// The values of `X-Forwarded-For`, in order, joined by commas; where there is none, `None`. For the gateway alone,
    /// which asks whether whoever sent it is to be believed.
    pub forwarded_for: Option<Box<[u8]>>,
    /// The values of `CDN-Loop`, in order, joined by commas; where there is none, `None` (RFC 8586).
    pub cdn_loop: Option<Box<[u8]>>,
    /// The other end-to-end fields, in order and in the same form: they stay here unless [`Request::let_pass`] names them,
    /// and may hold a credential for the gateway itself.
    pub withheld: Vec<(Box<str>, Box<[u8]>)>,
    /// The options of `Connection` but `upgrade`, lower case: fields of these names end here (RFC 9110 §7.6.1).
    pub hop_by_hop: Vec<String>,
}

impl Request {
    /// Lets fields of these names, lower case, go on to the backend that would stay here otherwise. One that `Connection`
    /// names stays.
    pub fn let_pass(&mut self, names: &[Box<str>]) {
        let passes = |name: &str| names.iter().any(|one| **one == *name) && !self.hop_by_hop.iter().any(|o| o == name);
        self.headers.extend(self.withheld.extract_if(.., |(name, _)| passes(name)));
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("authority", &self.authority)
            .field("path", &self.path)
            .field("query", &self.query.as_ref().map(|_| "..."))
            .field("origin", &self.origin)
            .field("subprotocols", &self.subprotocols.len())
            .field("headers", &self.headers.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Why a request is refused for its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestError {
    /// Not HTTP/1.x as RFC 9112 writes it, or bytes that parsers read in different ways.
    Syntax,
    /// More bytes than were allowed, or more than [`MAX_FIELDS`] fields.
    HeadTooLarge,
    /// A target of more bytes than [`max_target`].
    TargetTooLong,
    /// A method other than GET.
    Method,
    /// `Transfer-Encoding`, or a `Content-Length` that is not 0 once.
    Body,
    /// HTTP/1.0, which has no upgrades.
    Version,
    /// A target that is neither in origin form nor in absolute form.
    TargetForm,
    /// A path or query that can be read in two ways.
    Path,
    /// `Host` missing, repeated, not a plain name, or not the host that the target names.
    Host,
    /// `Expect` or `Trailer`, which only a request with a body has.
    Expectation,
    /// No `Upgrade`, no `Connection: upgrade`, or not exactly version 13.
    UpgradeMissing,
    /// An upgrade to something other than the one token `websocket`.
    UpgradeOther,
    /// `Sec-WebSocket-Key` missing, repeated or not 16 bytes of base64.
    Key,
    /// `Sec-WebSocket-Protocol` that is not a list of different tokens.
    Subprotocols,
    /// `Sec-WebSocket-Protocol` with more than [`MAX_SUBPROTOCOLS`] of them.
    TooManySubprotocols,
}

/// What is found in one pass over the fields.
#[derive(Default)]
struct Found<'a> {
    host: Single<'a>,
    /// The elements of `Upgrade`, over all its lines.
    upgrade: Single<'a>,
    key: Single<'a>,
    version: Single<'a>,
    origin: Single<'a>,
    length: Single<'a>,
    body: bool,
    expectation: bool,
    h2c: bool,
    /// Lower-case options of `Connection`.
    connection: Vec<String>,
    forwarded_for: Option<Vec<u8>>,
    cdn_loop: Option<Vec<u8>>,
    extensions: Option<Vec<u8>>,
    subprotocols: Vec<Box<str>>,
    subprotocols_bad: bool,
}

/// Reads a request head of at most `most` bytes from the start of `bytes`: the request and the bytes it took, or `None` if it is not whole yet.
/// What comes after the head is not looked at; it is the beginning of the frames, never part of a request.
///
/// A head is refused as soon as the bytes that are there cannot become a good one, except for what depends on its
/// fields. After any error the connection must be closed: where the next request would begin is not known.
///
/// # Errors
/// The first fault in the order of the module.
pub fn parse_request(bytes: &[u8], most: usize) -> Result<Option<(Request, usize)>, RequestError> {
    Ok(parse(bytes, most, false)?.map(|(_, request, size)| (request, size)))
}

/// A request that is no handshake: one that asks for something beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Whether it is only asked whether a page may (a preflight of the Fetch standard, OPTIONS), not done (POST).
    pub preflight: bool,
    /// What it asks; without key and subprotocols.
    pub request: Request,
    /// The bytes of its head.
    pub size: usize,
}

/// Reads the head of a POST without content, or of an OPTIONS, by the rules of [`parse_request`] but for those of the
/// upgrade.
///
/// # Errors
/// The first fault; [`RequestError::Method`] for every other method.
pub fn parse_call(bytes: &[u8], most: usize) -> Result<Option<Call>, RequestError> {
    let call = |(method, request, size): (Box<str>, _, _)| Call { preflight: &*method == "OPTIONS", request, size };
    Ok(parse(bytes, most, true)?.map(call))
}

/// `call`: not a handshake.
fn parse(bytes: &[u8], most: usize, call: bool) -> Result<Option<(Box<str>, Request, usize)>, RequestError> {
    let window = &bytes[..bytes.len().min(most)];
    let end = head::end(window).map_err(|_| RequestError::Syntax)?;
    let mut storage = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut raw = httparse::Request::new(&mut storage);
    let parsed = raw.parse(&window[..end.unwrap_or(window.len())]).map_err(|error| match error {
        httparse::Error::TooManyHeaders => RequestError::HeadTooLarge,
        // RFC 9112 §3 and §5: the request line and field lines, single spaces, no space before the colon, no empty
        // name. A version other than 1.x (the preface of HTTP/2 included) comes here too.
        _ => RequestError::Syntax,
    })?;
    let Some(size) = end else {
        return match parsed {
            // Two parsers that disagree about the end are the reason why this one exists.
            httparse::Status::Complete(_) => Err(RequestError::Syntax),
            // RFC 9110 §15.5.15. The rest of a request line needs less than 32 bytes.
            _ if window.len() > max_target(most) + 32 && !window.contains(&b'\n') => Err(RequestError::TargetTooLong),
            // RFC 6585 §5.
            _ if window.len() == most => Err(RequestError::HeadTooLarge),
            _ => Ok(None),
        };
    };
    let (httparse::Status::Complete(_), Some(method), Some(target), Some(version)) =
        (parsed, raw.method, raw.path, raw.version)
    else {
        return Err(RequestError::Syntax);
    };
    if target.len() > max_target(most) {
        return Err(RequestError::TargetTooLong);
    }
    let found = find(raw.headers)?;
    // RFC 6455 §4.1, item 2: the method must be GET. Methods are case-sensitive (RFC 9110 §9.1).
    if !(if call { ["POST", "OPTIONS"].contains(&method) } else { method == "GET" }) {
        return Err(RequestError::Method);
    }
    // RFC 9112 §6: either field announces a body; what follows a handshake is frames. RFC 9110 §8.6: a length of 0 says
    // that there is none; the JDK, Dart and browsers (in a POST) write it.
    if found.body || !(found.length.is_missing() || found.length.one() == Some(b"0")) {
        return Err(RequestError::Body);
    }
    // RFC 9110 §7.8: Upgrade in an HTTP/1.0 request must be ignored, and §15.2: no 1xx to HTTP/1.0.
    if version != 1 {
        return Err(RequestError::Version);
    }
    let (absolute, target) = target::split(target).ok_or(RequestError::TargetForm)?;
    let (path, query) = target::parse(&target).map_err(|error| match error {
        TargetError::Form => RequestError::TargetForm,
        TargetError::Path => RequestError::Path,
    })?;
    // RFC 9112 §3.2: 400 to a request with no Host, more than one, or an invalid one.
    let authority = found.host.one().ok_or(RequestError::Host)?;
    let named = host::parse(authority).ok_or(RequestError::Host)?;
    // RFC 9112 §3.2.2: the authority of the target would take the place of Host. They are one, or backends and the
    // gateway could take different ones.
    if absolute.is_some_and(|absolute| !host::parse(absolute).is_some_and(|absolute| absolute.is(&named))) {
        return Err(RequestError::Host);
    }
    // RFC 9110 §10.1.1 and §6.6.2: both speak of content, which a handshake has not.
    if found.expectation {
        return Err(RequestError::Expectation);
    }
    let key = if call {
        // Nobody who asks for an upgrade may take this for one.
        if found.h2c || !found.upgrade.is_missing() {
            return Err(RequestError::UpgradeOther);
        }
        ""
    } else {
        check_upgrade(&found)?;
        // RFC 6455 §4.2.1, item 5, and §11.3.1: once, 16 bytes when decoded.
        found.key.one().filter(|key| accept::is_key(key)).and_then(head::visible).ok_or(RequestError::Key)?
    };
    // RFC 6455 §4.1, item 10: unique tokens, none of them empty.
    if found.subprotocols_bad {
        let full = found.subprotocols.len() == MAX_SUBPROTOCOLS;
        return Err(if full { RequestError::TooManySubprotocols } else { RequestError::Subprotocols });
    }
    let (headers, withheld) = forwarded(raw.headers, &found.connection);
    let mut hop_by_hop = found.connection;
    hop_by_hop.retain(|option| option != "upgrade");
    let request = Request {
        host: named.host,
        port: named.port,
        authority: String::from_utf8_lossy(authority).into(),
        path: path.into(),
        query: query.map(Into::into),
        key: key.into(),
        origin: origin(found.origin),
        headers,
        withheld,
        hop_by_hop,
        forwarded_for: found.forwarded_for.map(Into::into),
        cdn_loop: found.cdn_loop.filter(|list| !list.is_empty()).map(Into::into),
        extensions: found.extensions.map(Into::into),
        subprotocols: found.subprotocols.into(),
    };
    Ok(Some((method.into(), request, size)))
}

/// Adds a line of a list to those before.
fn add(list: &mut Option<Vec<u8>>, line: &[u8]) {
    match list {
        Some(list) => list.extend([b",", line].concat()),
        None => *list = Some(line.to_vec()),
    }
}

fn find<'a>(headers: &[httparse::Header<'a>]) -> Result<Found<'a>, RequestError> {
    let mut found = Found::default();
    for header in headers {
        let value = head::trim(header.value);
        match header.name.to_ascii_lowercase().as_str() {
            "host" => found.host.add(value),
            // RFC 9110 §7.8 and §5.6.1.2: a list, whose empty elements are passed over.
            "upgrade" => head::elements(value).for_each(|element| found.upgrade.add(element)),
            "sec-websocket-key" => found.key.add(value),
            "sec-websocket-version" => found.version.add(value),
            "origin" => found.origin.add(value),
            "content-length" => found.length.add(value),
            "transfer-encoding" => found.body = true,
            "expect" | "trailer" => found.expectation = true,
            "http2-settings" => found.h2c = true,
            "connection" => {
                // RFC 9110 §7.6.1: a list of tokens.
                for option in head::elements(value) {
                    let option = head::token(option).ok_or(RequestError::Syntax)?;
                    found.connection.push(option.to_ascii_lowercase());
                }
            }
            "sec-websocket-protocol" => found.offer(value),
            // RFC 9110 §5.3: several lines of a list are one. That `Connection` may name it takes nothing from it: the
            // list is the proxy's, the options may be the client's.
            "x-forwarded-for" => add(&mut found.forwarded_for, value),
            "cdn-loop" => add(&mut found.cdn_loop, value),
            "sec-websocket-extensions" => add(&mut found.extensions, value),
            _ => {}
        }
    }
    Ok(found)
}

impl Found<'_> {
    fn offer(&mut self, value: &[u8]) {
        for element in head::elements(value) {
            match head::token(element) {
                Some(name)
                    if self.subprotocols.len() < MAX_SUBPROTOCOLS
                        && !self.subprotocols.iter().any(|o| **o == *name) =>
                {
                    self.subprotocols.push(name.into());
                }
                _ => {
                    self.subprotocols_bad = true;
                    return;
                }
            }
        }
    }
}

fn check_upgrade(found: &Found<'_>) -> Result<(), RequestError> {
    // RFC 9113 §3.1: h2c over Upgrade is gone, but backends that still know it would tunnel past every check.
    if found.h2c {
        return Err(RequestError::UpgradeOther);
    }
    // RFC 6455 §4.2.1, item 3, narrowed to the single token: a list lets the backend choose another protocol.
    match found.upgrade.one() {
        Some(upgrade) if upgrade.eq_ignore_ascii_case(b"websocket") => {}
        None if found.upgrade.is_missing() => return Err(RequestError::UpgradeMissing),
        _ => return Err(RequestError::UpgradeOther),
    }
    // RFC 6455 §4.2.1, item 4; RFC 9110 §7.8: Upgrade without the connection option is not for us.
    if !found.connection.iter().any(|option| option == "upgrade") {
        return Err(RequestError::UpgradeMissing);
    }
    // RFC 6455 §4.2.1, item 6, §4.4 and §11.3.5.
    if found.version.one() != Some(b"13") {
        return Err(RequestError::UpgradeMissing);
    }
    Ok(())
}

/// RFC 6454 §7.1 allows a list of origins separated by spaces; which of them counts is nobody's guess.
fn origin(found: Single<'_>) -> Origin {
    match found.one() {
        None if found.is_missing() => Origin::Missing,
        Some(value) if !value.contains(&b',') => {
            head::visible(value).map_or(Origin::Several, |one| Origin::One(one.into()))
        }
        _ => Origin::Several,
    }
}

/// A field of the client as it is kept.
type Field = (Box<str>, Box<[u8]>);

/// What goes on, and what does not: never what `Connection` names (RFC 9110 §7.6.1). What the gateway itself adds comes
/// later, so that no client can have it removed.
fn forwarded(headers: &[httparse::Header<'_>], connection: &[String]) -> (Vec<Field>, Vec<Field>) {
    headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), head::trim(header.value)))
        .filter(|(name, _)| !fields::is_ours(name))
        .map(|(name, value)| (name.into(), value.into()))
        .partition(|(name, _): &Field| fields::goes_on(name) && !connection.iter().any(|option| **option == **name))
}
