//! The handshake's golden table: raw request heads, the error each one earns, and the status the client sees.

use wssgate::reason::Reason;
use wssgate::ws::upgrade::{
    Forwarded, MAX_FIELDS, MAX_HEAD, MAX_SUBPROTOCOLS, Origin, Request, RequestError, accept_key, fresh_key,
    max_target, parse_request, write_request,
};

const LINE: &str = "GET /chat?room=1 HTTP/1.1\r\n";
const HOST: &str = "Host: App.example.com\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A good head with one of its parts replaced.
fn head(part: &str, by: &str) -> Vec<u8> {
    let good = [LINE, HOST, UPGRADE, VERSION, KEY, "\r\n"].concat();
    assert!(part.is_empty() || good.contains(part), "{part}");
    good.replacen(part, by, 1).into_bytes()
}

/// A good head with more fields.
fn with(fields: &str) -> Vec<u8> {
    head(HOST, &format!("{HOST}{fields}\r\n"))
}

/// A good head for another target.
fn at(target: &str) -> Vec<u8> {
    head("/chat?room=1", target)
}

fn good(bytes: &[u8]) -> Request {
    match parse_request(bytes, MAX_HEAD) {
        Ok(Some((request, size))) => {
            assert_eq!(size, bytes.len());
            request
        }
        other => panic!("{other:?} for {}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn every_bad_head_is_refused_with_its_own_status() {
    use RequestError::*;
    let host = |value: &str| head(HOST, &format!("Host: {value}\r\n"));
    let upgrade = |fields: &str| head(UPGRADE, fields);
    let version = |fields: &str| head(VERSION, fields);
    let key = |value: &str| head("dGhlIHNhbXBsZSBub25jZQ==", value);
    let table: Vec<(Vec<u8>, RequestError, u16)> = vec![
        // Form (RFC 9112): readers that disagree.
        (head("", "\r\n"), Syntax, 400),
        (head("HTTP/1.1\r\n", "HTTP/1.1\n"), Syntax, 400),
        (head("com\r\n", "com\n"), Syntax, 400),
        (with("X: a\rb"), Syntax, 400),
        (with("X: a\0b"), Syntax, 400),
        (with("X: a\x0bb"), Syntax, 400),
        (with("X: a\x7fb"), Syntax, 400),
        (with("X: a\r\n folded"), Syntax, 400),
        (with("X : a"), Syntax, 400),
        (with(": a"), Syntax, 400),
        (with("X"), Syntax, 400),
        (with("X(: a"), Syntax, 400),
        (head("GET /", "GET  /"), Syntax, 400),
        (head(" HTTP/1.1", "  HTTP/1.1"), Syntax, 400),
        (head("HTTP/1.1", "HTTP/1.2"), Syntax, 400),
        (head("HTTP/1.1", "http/1.1"), Syntax, 400),
        (head(" HTTP/1.1", ""), Syntax, 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Syntax, 400),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), Syntax, 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), Syntax, 400),
        (head("HTTP/1.1", "HTTP/1.0"), Version, 426),
        // Sizes.
        (with(&vec!["X: a"; MAX_FIELDS].join("\r\n")), HeadTooLarge, 431),
        (with(&format!("X: {}", "a".repeat(MAX_HEAD))), HeadTooLarge, 431),
        (with(&format!("Sec-WebSocket-Protocol: b{}x", " ".repeat(32_000))), HeadTooLarge, 431),
        (at(&format!("/{}", "a".repeat(max_target(MAX_HEAD)))), TargetTooLong, 414),
        (at(&format!("/?{}", "a".repeat(MAX_HEAD))), TargetTooLong, 414),
        // Method and body.
        (head("GET", "POST"), Method, 405),
        (head("GET", "get"), Method, 405),
        (head("GET /chat?room=1", "CONNECT evil.test:22"), Method, 405),
        (head("GET /chat?room=1", "OPTIONS *"), Method, 405),
        (with("Content-Length: 5"), Body, 400),
        (with("Content-Length: -0"), Body, 400),
        (with("Content-Length: 00"), Body, 400),
        (with("Content-Length: 0, 0"), Body, 400),
        (with("Content-Length: 0\r\nContent-Length: 0"), Body, 400),
        (with("Content-Length: 0\r\nTransfer-Encoding: chunked"), Body, 400),
        (with("Content-Length:"), Body, 400),
        (with("Content-Length: +5"), Body, 400),
        (with("Content-Length: 5\r\nContent-Length: 6"), Body, 400),
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked"), Body, 400),
        (with("Transfer-Encoding: chunked"), Body, 400),
        (with("Transfer-Encoding: xchunked"), Body, 400),
        (with("Transfer-Encoding: identity, chunked"), Body, 400),
        (with("Expect: 100-continue"), Expectation, 400),
        (with("Trailer: X"), Expectation, 400),
        // Target.
        (at("http://evil.test/ws"), Host, 400),
        (at("wss://app.example.com:8443/ws"), Host, 400),
        (at("wss://user@app.example.com/ws"), Host, 400),
        (at("wss:///ws"), Host, 400),
        (at("wss://app.example.com/a/../b"), Path, 400),
        (at("wss://app.example.com#/ws"), Path, 400),
        (at("ftp://app.example.com/ws"), TargetForm, 400),
        (at("*"), TargetForm, 400),
        (at("evil.test:22"), TargetForm, 400),
        (at("/public/%2e%2e/admin"), Path, 400),
        (at("/public/..;/admin"), Path, 400),
        (at("/public/../admin"), Path, 400),
        (at("/public/..%2fadmin"), Path, 400),
        (at("/ws/."), Path, 400),
        (at("/ws\\..\\admin"), Path, 400),
        (at("/ws%5c"), Path, 400),
        (at("/ws%00"), Path, 400),
        (at("/caf\u{e9}"), Path, 400),
        (at("/ws#admin"), Path, 400),
        (at("/ws?a#b"), Path, 400),
        // Host.
        (head(HOST, ""), Host, 400),
        (with("Host: app.example.com"), Host, 400),
        (host(""), Host, 400),
        (host("app.example.com.."), Host, 400),
        (host("user@app.example.com"), Host, 400),
        (host("[::1]"), Host, 400),
        (host("a b"), Host, 400),
        (host("a%2eb"), Host, 400),
        (host("a,b"), Host, 400),
        (host("a.test:x"), Host, 400),
        // Upgrade.
        (upgrade(""), UpgradeMissing, 426),
        (upgrade("Connection: Upgrade\r\n"), UpgradeMissing, 426),
        (upgrade("Upgrade: websocket\r\n"), UpgradeMissing, 426),
        (upgrade("Upgrade: websocket\r\nConnection: keep-alive\r\n"), UpgradeMissing, 426),
        (upgrade("Upgrade: websocket\r\nConnection: xupgrade\r\n"), UpgradeMissing, 426),
        (upgrade("Upgrade: websocket\r\nConnection: up grade\r\n"), Syntax, 400),
        (upgrade("Upgrade: h2c\r\nConnection: Upgrade\r\n"), UpgradeOther, 400),
        (upgrade("Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n"), UpgradeOther, 400),
        (upgrade("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n"), UpgradeOther, 400),
        (upgrade("Upgrade: websocket/13\r\nConnection: Upgrade\r\n"), UpgradeOther, 400),
        (upgrade("Upgrade:\r\nConnection: Upgrade\r\n"), UpgradeMissing, 426),
        (with("Upgrade: websocket"), UpgradeOther, 400),
        (with("HTTP2-Settings: AAMAAABkAAQAAP__"), UpgradeOther, 400),
        (version(""), UpgradeMissing, 426),
        (version("Sec-WebSocket-Version: 777\r\n"), UpgradeMissing, 426),
        (version("Sec-WebSocket-Version: 13, 8\r\n"), UpgradeMissing, 426),
        (version("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"), UpgradeMissing, 426),
        // Key.
        (head(KEY, ""), Key, 400),
        (with(KEY.trim_end()), Key, 400),
        (key(""), Key, 400),
        (key("dGhlIHNhbXBsZSBub25j"), Key, 400),
        (key("dGhlIHNhbXBsZSBub25jZWU="), Key, 400),
        (key("!!!!IHNhbXBsZSBub25jZQ=="), Key, 400),
        // Subprotocols.
        (with("Sec-WebSocket-Protocol: a b"), Subprotocols, 400),
        (with("Sec-WebSocket-Protocol: a, a"), Subprotocols, 400),
        (with("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, a"), Subprotocols, 400),
        (
            with(&format!(
                "Sec-WebSocket-Protocol: {}",
                (0..=MAX_SUBPROTOCOLS).map(|i| format!("p{i}")).collect::<Vec<_>>().join(",")
            )),
            TooManySubprotocols,
            431,
        ),
    ];
    for (bytes, error, status) in table {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        assert_eq!(parse_request(&bytes, MAX_HEAD).map(|r| r.is_some()), Err(error), "{shown}");
        assert_eq!(Reason::from(error).http_status(), Some(status), "{shown}");
    }
}

#[test]
fn a_good_head_is_read_and_what_follows_it_is_left() {
    let request = good(&head("", ""));
    assert_eq!(&*request.host, "app.example.com");
    assert_eq!((&*request.authority, request.port), ("App.example.com", None));
    assert_eq!((&*request.path, request.query.as_deref()), ("/chat", Some("room=1")));
    assert_eq!(request.origin, Origin::Missing);
    assert_eq!(accept_key(&request.key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(request.headers.is_empty() && request.subprotocols.is_empty());

    let alone = head("", "");
    let early = [&alone[..], b"GET /admin HTTP/1.1\n\0"].concat();
    assert_eq!(parse_request(&early, MAX_HEAD), Ok(Some((request, alone.len()))));
    for short in 0..alone.len() {
        assert_eq!(parse_request(&alone[..short], MAX_HEAD), Ok(None), "{short}");
    }
}

#[test]
fn spellings_that_the_rfc_leaves_open_are_accepted() {
    good(&head(UPGRADE, "uPgRaDe:\t WebSocket \r\nconnection: keep-alive, ,UPGRADE\r\n"));
    good(&head(UPGRADE, "Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: upgrade\r\n"));
    good(&with("TE: trailers"));
    good(&with("Content-Length: 0"));
    good(&head(UPGRADE, "Upgrade: , websocket,\r\nConnection: ,Upgrade,\r\n"));
    assert_eq!(good(&with("Sec-WebSocket-Protocol: , a,,b ,")).subprotocols.join(" "), "a b");
    assert!(good(&with("Sec-WebSocket-Protocol:")).subprotocols.is_empty());
    for target in [
        "wss://app.example.com/chat?room=1",
        "WS://APP.example.com:443/chat?room=1",
        "https://app.example.com./chat?room=1",
    ] {
        let request = good(&at(target));
        assert_eq!((&*request.path, request.query.as_deref()), ("/chat", Some("room=1")), "{target}");
    }
    assert_eq!(&*good(&at("http://app.example.com")).path, "/");
    let dot = good(&head(HOST, "Host: App.example.com.:443\r\n"));
    assert_eq!((&*dot.host, dot.port, &*dot.authority), ("app.example.com", Some(443), "App.example.com.:443"));
    good(&at(&format!("/{}", "a".repeat(max_target(MAX_HEAD) - 1))));
    let port = good(&head(HOST, "Host: a.test:8443\r\n"));
    assert_eq!((&*port.host, port.port, &*port.authority), ("a.test", Some(8443), "a.test:8443"));
}

#[test]
fn origins_are_read_as_none_one_or_several() {
    let origin = |fields: &[u8]| {
        let mut bytes = head("\r\n\r\n", "\r\n");
        bytes.extend_from_slice(fields);
        bytes.extend_from_slice(b"\r\n");
        good(&bytes).origin
    };
    assert_eq!(origin(b"Origin: https://a.test\r\n"), Origin::One("https://a.test".into()));
    assert_eq!(origin(b"Origin: null\r\n"), Origin::One("null".into()));
    for several in [
        &b"Origin: https://a.test\r\nOrigin: https://b.test\r\n"[..],
        b"Origin: https://a.test\r\nOrigin: https://a.test\r\n",
        b"Origin: https://a.test, https://b.test\r\n",
        b"Origin: https://a.test,https://b.test\r\n",
        b"Origin: https://a.test https://b.test\r\n",
        b"Origin:\r\n",
        b"Origin: https://b\xc3\xbccher.test\r\n",
    ] {
        assert_eq!(origin(several), Origin::Several);
    }
}

#[test]
fn the_backend_sees_only_what_was_understood_and_the_gateway_has_the_last_word() {
    let request = good(&with(
        "Origin: https://app.example.com\r\n\
         User-Agent: Test/1\r\n\
         Cookie: a=b\r\n\
         X-Once: gone\r\n\
         X-Forwarded-For: 6.6.6.6\r\n\
         X_Forwarded_For: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\n\
         X-Real-IP: 6.6.6.6\r\n\
         X-Auth-User: admin\r\n\
         X_Auth_User: admin\r\n\
         X-Forwarded-Client-Cert: Hash=0\r\n\
         Connection: X-Once, X-Forwarded-For, Host, Origin, Sec-WebSocket-Key\r\n\
         Keep-Alive: timeout=5\r\n\
         Proxy-Authorization: Basic eDp5\r\n\
         Sec-WebSocket-Protocol: chat, other\r\n\
         Sec-WebSocket-Protocol: third\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\
         Sec-WebSocket-Thing: x\r\n\
         Content-Type: text/plain\r\n\
         Authorization: Bearer t",
    ));
    assert_eq!(*request.subprotocols, [Box::<str>::from("chat"), Box::from("other"), Box::from("third")]);
    let mut out = Vec::new();
    let forwarded = Forwarded::of(&request, "2001:db8::1".parse().unwrap());
    write_request(&mut out, &request, &fresh_key([7; 16]), &["chat".into(), "third".into()], &forwarded);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "GET /chat?room=1 HTTP/1.1\r\n\
         Host: App.example.com\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: BwcHBwcHBwcHBwcHBwcHBw==\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: chat, third\r\n\
         Origin: https://app.example.com\r\n\
         user-agent: Test/1\r\n\
         cookie: a=b\r\n\
         authorization: Bearer t\r\n\
         X-Forwarded-For: 2001:db8::1\r\n\
         X-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: App.example.com\r\n\
         X-Forwarded-Port: 443\r\n\
         X-Real-IP: 2001:db8::1\r\n\
         Forwarded: for=\"[2001:db8::1]\";host=\"App.example.com\";proto=https\r\n\
         \r\n"
    );
}

#[test]
fn the_request_for_the_backend_is_one_that_we_would_read_alike() {
    let request = good(&with("Origin: https://a.test\r\nCookie: caf\u{e9}=1\r\nSec-WebSocket-Protocol: a, b"));
    let key = fresh_key([9; 16]);
    let mut out = Vec::new();
    let forwarded = Forwarded::of(&request, "::ffff:192.0.2.7".parse().unwrap());
    write_request(&mut out, &request, &key, &request.subprotocols, &forwarded);
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("\r\nX-Forwarded-For: 192.0.2.7\r\n") && text.contains("\r\nForwarded: for=192.0.2.7;"));
    // What the gateway says about the client would not be believed a second time, except from a trusted proxy.
    let withheld = vec![("x-real-ip".into(), b"192.0.2.7".as_slice().into())];
    let forwarded_for = Some(b"192.0.2.7".as_slice().into());
    assert_eq!(good(&out), Request { key: key.into(), withheld, forwarded_for, ..request });
}

#[test]
fn all_lines_of_cdn_loop_are_one_list_which_goes_on_once() {
    let request = good(&with("CDN-Loop: edge; v=\"1\"\r\nCDN_Loop: forged\r\ncdn-loop: other"));
    assert_eq!(request.cdn_loop.as_deref(), Some(b"edge; v=\"1\",other".as_slice()));
    assert!(request.headers.iter().all(|(name, _)| !name.contains("loop")), "{request:?}");
    let mut out = Vec::new();
    let forwarded = Forwarded { hop: "wssgate-1", ..Forwarded::of(&request, "192.0.2.7".parse().unwrap()) };
    write_request(&mut out, &request, "k", &[], &forwarded);
    let text = String::from_utf8_lossy(&out);
    assert_eq!(text.matches("CDN-Loop: ").count(), 1);
    assert!(text.contains("\r\nCDN-Loop: edge; v=\"1\",other, wssgate-1\r\n"), "{text}");
    assert_eq!(good(&with("CDN-Loop: ")).cdn_loop, None);
}

#[test]
fn all_lines_of_forwarded_for_are_one_list_and_none_goes_on() {
    let request = good(&with(
        "X-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 9.9.9.9\r\nx-forwarded-FOR: \r\nX-Forwarded-For: 5.6.7.8, 8.8.8.8",
    ));
    assert_eq!(request.forwarded_for.as_deref(), Some(b"1.2.3.4,,5.6.7.8, 8.8.8.8".as_slice()));
    assert!(request.headers.iter().all(|(name, _)| !name.contains("forwarded")), "{request:?}");
    assert_eq!(good(&with("X-Forwarded-Host: a")).forwarded_for, None);
    // It is the proxy's list, whatever the client writes into Connection.
    let line = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Forwarded-For\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                X-Forwarded-For: 1.2.3.4\r\n\r\n";
    assert_eq!(good(line.as_bytes()).forwarded_for.as_deref(), Some(b"1.2.3.4".as_slice()));
}

#[test]
fn an_ambiguous_origin_that_only_audit_let_through_is_null_for_the_backend() {
    let request = good(&with("Origin: https://a.test, https://b.test"));
    let mut out = Vec::new();
    write_request(&mut out, &request, "k", &[], &Forwarded::of(&request, "192.0.2.7".parse().unwrap()));
    assert!(String::from_utf8(out).unwrap().contains("\r\nOrigin: null\r\n"));
}

#[test]
fn debug_output_holds_no_secret() {
    let request = good(&with(
        "Cookie: sid=s3cret1\r\nAuthorization: Bearer s3cret2\r\nX-Auth-Token: s3cret4\r\n\
         Sec-WebSocket-Protocol: bearer.s3cret5",
    ));
    let request = Request { query: Some("ticket=s3cret3".into()), ..request };
    let shown = format!("{request:?}");
    assert!(!shown.contains("s3cret") && !shown.contains(&*request.key), "{shown}");
    assert!(shown.contains("cookie") && shown.contains("/chat"));
}
