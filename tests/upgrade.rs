//! Group B: what is and what is not a WebSocket handshake, and what comes before and after one.

use crate::harness::{self, Answer, Behaviour, End, Frame, Head, PATIENCE, SOON, Setup, json, within};

/// Reasons for requests whose form is wrong: which of them is named first is the gateway's affair.
const FORM: &[&str] = &["malformed_request", "body_not_allowed"];

fn without_body() -> Head {
    Head::upgrade("/")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_version_13_is_spoken_and_the_refusal_names_it() {
    let setup = Setup::new(&json!({})).await;
    let version = |value: &str| Head::upgrade("/").set("Sec-WebSocket-Version", value);
    for (case, head) in [
        ("B1 version 777", version("777")),
        ("B1 no version", Head::upgrade("/").without("Sec-WebSocket-Version")),
        ("B1 a list", version("13, 8")),
        ("B1 twice", Head::upgrade("/").add("Sec-WebSocket-Version", "13")),
        ("B1 two versions", Head::upgrade("/").add("Sec-WebSocket-Version", "8")),
        ("B1 empty", version("")),
        ("B1 with zeros", version("013")),
        ("B1 version 8", version("8")),
        ("no upgrade at all", Head::request("GET / HTTP/1.1")),
        ("no Connection: Upgrade", Head::upgrade("/").set("Connection", "keep-alive")),
        ("no Upgrade", Head::upgrade("/").without("Upgrade")),
    ] {
        let reasons = &["upgrade_required", "malformed_request"];
        let answer = setup.refused(case, &head, &[426], reasons).await;
        assert_eq!(answer.field("sec-websocket-version").as_deref(), Some("13"), "{case}: {answer:?}");
        assert_eq!(answer.field("upgrade").as_deref(), Some("websocket"), "{case}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_is_a_get_and_nothing_else() {
    let setup = Setup::new(&json!({})).await;
    for method in ["POST", "PUT", "OPTIONS", "HEAD", "DELETE", "TRACE", "get", "FOO"] {
        let head = Head::upgrade("/").line(format!("{method} / HTTP/1.1"));
        let answer = setup.refused(&format!("B8 {method}"), &head, &[405], &["method_not_allowed"]).await;
        assert_eq!(answer.field("allow").as_deref(), Some("GET"), "{method}: {answer:?}");
    }
    for (case, line) in [
        ("B11 CONNECT with an authority", "CONNECT evil.test:22 HTTP/1.1"),
        ("B11 CONNECT with a path", "CONNECT / HTTP/1.1"),
    ] {
        let head = Head::upgrade("/").line(line).then(b"SSH-2.0-probe\r\n".as_slice());
        setup.refused(case, &head, &[405, 501, 400], &["method_not_allowed", "malformed_request", "bad_path"]).await;
    }
    let old = Head::upgrade("/").line("GET / HTTP/1.0");
    setup.refused("HTTP/1.0", &old, &[400, 426], &["malformed_request", "upgrade_required"]).await;
    for line in ["GET / HTTP/1.2", "GET / HTTP/2.0", "GET / http/1.1", "GET /", "GET  / HTTP/1.1", "GET / x HTTP/1.1"] {
        setup.refused(line, &Head::upgrade("/").line(line), &[400, 505], &["malformed_request", "bad_path"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_has_no_body_in_any_spelling() {
    let setup = Setup::new(&json!({})).await;
    let second = b"hello GET /admin HTTP/1.1\r\nHost: chat.example.com\r\n\r\n".as_slice();
    for (case, fields) in [
        ("B8 Content-Length", vec!["Content-Length: 5"]),
        ("B8 chunked", vec!["Transfer-Encoding: chunked"]),
        ("B8 both", vec!["Content-Length: 5", "Transfer-Encoding: chunked"]),
        ("B8 two lengths", vec!["Content-Length: 5", "Content-Length: 6"]),
        ("B8 one length twice", vec!["Content-Length: 5", "Content-Length: 5"]),
        ("B15 xchunked", vec!["Transfer-Encoding: xchunked"]),
        ("B15 a vertical tab", vec!["Transfer-Encoding: chunked\u{b}"]),
        ("B15 identity, chunked", vec!["Transfer-Encoding: identity, chunked"]),
        ("B15 identity", vec!["Transfer-Encoding: identity"]),
        ("B15 two encodings", vec!["Transfer-Encoding: chunked", "Transfer-Encoding: identity"]),
        ("B15 empty", vec!["Transfer-Encoding:"]),
        ("B16 an empty length", vec!["Content-Length:"]),
        ("B16 a sign", vec!["Content-Length: +5"]),
        ("B16 a list", vec!["Content-Length: 5,5"]),
        ("B16 too large", vec!["Content-Length: 18446744073709551621"]),
        ("B16 negative", vec!["Content-Length: -1"]),
        ("B16 hexadecimal", vec!["Content-Length: 0x5"]),
    ] {
        let head = fields.iter().fold(without_body(), |head, field| head.raw(*field)).then(second);
        setup.refused(case, &head, &[400], FORM).await;
    }
    let old = without_body().line("GET / HTTP/1.0").raw("Transfer-Encoding: chunked").then(second);
    setup.refused("B15 HTTP/1.0", &old, &[400], FORM).await;
    let post = without_body().line("POST / HTTP/1.1").raw("Content-Length: 5").then(second);
    setup.refused("B8 POST with a body", &post, &[400, 405], &["method_not_allowed", "body_not_allowed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_upgrade_is_the_single_token_websocket() {
    let setup = Setup::new(&json!({})).await;
    let h2c = |upgrade: &str| {
        Head::upgrade("/")
            .set("Upgrade", upgrade)
            .set("Connection", "Upgrade, HTTP2-Settings")
            .add("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
    };
    for (case, head) in [
        ("B9 h2c", h2c("h2c")),
        ("B9 websocket, h2c", h2c("websocket, h2c")),
        ("B9 h2c, websocket", h2c("h2c, websocket")),
        ("B9 two fields", Head::upgrade("/").add("Upgrade", "h2c")),
        ("B9 the same twice", Head::upgrade("/").add("Upgrade", "websocket")),
        ("B9 a version", Head::upgrade("/").set("Upgrade", "websocket/13")),
        ("B9 TLS", Head::upgrade("/").set("Upgrade", "TLS/1.0")),
        ("B9 quoted", Head::upgrade("/").set("Upgrade", "\"websocket\"")),
    ] {
        setup.refused(case, &head, &[400], &["upgrade_not_allowed", "malformed_request"]).await;
    }
    setup.admitted("any case", &Head::upgrade("/").set("Upgrade", "WebSocket")).await;
    setup.admitted("a list of options", &Head::upgrade("/").set("Connection", "keep-alive, upgrade")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_servers_read_differently_is_refused() {
    let setup = Setup::new(&json!({})).await;
    let raw = |line: &[u8]| Head::upgrade("/").raw(line);
    for (case, head) in [
        ("B14 a folded line", raw(b"X-A: 1\r\n folded")),
        ("B14 a folded line with a tab", raw(b"X-A: 1\r\n\tfolded")),
        ("B14 a space before the colon", raw(b"X-A : 1")),
        ("B14 an empty name", raw(b": 1")),
        ("B14 no colon", raw(b"X-A")),
        ("B14 a bare CR in a value", raw(b"X-A: 1\rX-B: 2")),
        ("B14 a bare LF between fields", raw(b"X-A: 1\nX-B: 2")),
        ("B14 NUL in a value", raw(b"X-A: 1\0")),
        ("B14 NUL in a name", raw(b"X\0A: 1")),
        ("B14 a space in a name", raw(b"X A: 1")),
        ("B14 a name in brackets", raw(b"X(A): 1")),
        ("B14 a name that is not ASCII", raw("X\u{e4}: 1".as_bytes())),
        ("B14 DEL in a value", raw(b"X-A: \x7f")),
        ("B14 a folded first line", Head::upgrade("/").raw_first(b" X-A: 1".as_slice())),
    ] {
        setup.refused(case, &head, &[400], &["malformed_request"]).await;
    }
    let lines = String::from_utf8(Head::upgrade("/").bytes()).unwrap().replace("\r\n", "\n");
    let (case, mut peer) = ("B14 bare LF everywhere", setup.client().connect().await);
    let seen = setup.recorder.count();
    peer.write(lines.as_bytes()).await;
    // Some of it is no request at all: then the connection ends at the latest with the time-out of the head.
    let answer = Answer::parse(&peer.rest(PATIENCE, case).await).unwrap_or_default();
    assert!([0, 400, 408].contains(&answer.status()), "{case}: {answer:?}");
    setup.recorder.saw_nothing_since(seen, case);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_is_sixteen_bytes_of_base64_once() {
    let setup = Setup::new(&json!({})).await;
    let key = |value: &str| Head::upgrade("/").set("Sec-WebSocket-Key", value);
    for (case, head) in [
        ("B22 15 bytes", key("AAAAAAAAAAAAAAAAAAAA")),
        ("B22 17 bytes", key("AAAAAAAAAAAAAAAAAAAAAAA=")),
        ("B22 not base64", key("*GhlIHNhbXBsZSBub25jZQ==")),
        ("B22 the URL alphabet", key("-_-_IHNhbXBsZSBub25jZQ==")),
        ("B22 no padding", key("dGhlIHNhbXBsZSBub25jZQ")),
        ("B22 empty", key("")),
        ("B22 missing", Head::upgrade("/").without("Sec-WebSocket-Key")),
        ("B22 twice", Head::upgrade("/").add("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")),
        ("B22 the same twice", Head::upgrade("/").add("sec-websocket-key", harness::head::KEY)),
    ] {
        setup.refused(case, &head, &[400], &["bad_key"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_serves_no_second_request() {
    let setup = Setup::new(&json!({})).await;
    let good = Head::upgrade("/");
    for (case, first) in [
        ("B17 after a wrong version", Head::upgrade("/").set("Sec-WebSocket-Version", "8")),
        ("B17 after a bad path", Head::upgrade("/../admin")),
        ("B17 after a foreign origin", Head::upgrade("/").add("Origin", "https://evil.test")),
        ("B17 after a plain request", Head::request("GET / HTTP/1.1").add("Connection", "keep-alive")),
        ("B17 after a wrong method", Head::upgrade("/").line("POST / HTTP/1.1")),
    ] {
        let head = first.then(good.bytes());
        let reasons = ["upgrade_required", "bad_path", "origin_denied", "method_not_allowed"];
        setup.refused(case, &head, &[426, 400, 403, 405], &reasons).await;
    }
    // The second request comes in a segment of its own, after the answer.
    let (answer, mut peer) = setup.client().ask(&Head::upgrade("/").set("Sec-WebSocket-Version", "8")).await;
    assert_eq!(answer.status(), 426);
    peer.write(&good.bytes()).await;
    let rest = peer.rest(SOON, "the end of a refused connection").await;
    assert!(Answer::parse(&rest).is_none_or(|second| second.status() == 0), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(setup.recorder.count(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_preface_opens_nothing() {
    let setup = Setup::new(&json!({})).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut peer = setup.client().connect().await;
    peer.write(preface).await;
    let bytes = peer.rest(SOON, "B10 the end after a preface").await;
    let answer = Answer::parse(&bytes).unwrap_or_default();
    assert!([0, 400, 405, 505].contains(&answer.status()), "B10: {answer:?}");
    assert_eq!(setup.recorder.count(), (0, 0), "B10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expectations_and_trailers_never_reach_the_backend() {
    let setup = Setup::new(&json!({})).await;
    for (case, name, value) in
        [("B21 Expect", "Expect", "100-continue"), ("B21 Trailer", "Trailer", "X-A"), ("B21 TE", "TE", "trailers")]
    {
        let seen = setup.recorder.count();
        let (answer, peer) = setup.client().ask(&Head::upgrade("/").add(name, value)).await;
        if answer.status() == 101 {
            let head = setup.recorder.last().head();
            assert_eq!(head.field(&name.to_ascii_lowercase()), None, "{case}: {head:?}");
            drop(peer.close(1000, "").await);
        } else {
            assert!([400, 417].contains(&answer.status()), "{case}: {answer:?}");
            setup.recorder.saw_nothing_since(seen, case);
        }
    }
}

/// Bytes that are no frames: whatever they are, they end the connection with 1002 and stay with the gateway.
const NO_FRAMES: &[(&str, &[u8])] = &[
    ("an HTTP request", b"GET /admin HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"),
    ("an SSH banner", b"SSH-2.0-OpenSSH_9.9\r\n"),
    ("a SOCKS greeting", b"\x05\x01\x00"),
    ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a TLS ClientHello", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
    ("a frame without mask", b"\x81\x05hello"),
    ("a close without mask", b"\x88\x02\x03\xe8"),
    ("a ping without mask", b"\x89\x00"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_before_the_101_is_judged_as_frames() {
    let setup = Setup::new(&json!({})).await;
    for (case, bytes) in NO_FRAMES {
        let (answer, mut peer) = setup.client().ask(&Head::upgrade("/").then(*bytes)).await;
        assert_eq!(answer.status(), 101, "B5 {case}");
        refused_bytes(&setup, &mut peer, &format!("B5 {case}")).await;
    }
    // A frame that is right is a frame like any other.
    let early = Frame::text("early").bytes(Some([1, 2, 3, 4]));
    let (answer, mut peer) = setup.client().ask(&Head::upgrade("/").then(early)).await;
    assert_eq!(answer.status(), 101);
    peer.expect(&Frame::text("early")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_frames_passes_through_an_open_connection() {
    let setup = Setup::new(&json!({})).await;
    for (case, bytes) in NO_FRAMES {
        let mut peer = setup.open().await;
        peer.echo(&Frame::text("before")).await;
        peer.write(bytes).await;
        let case = format!("B6/B7 {case}");
        let frames = refused_bytes(&setup, &mut peer, &case).await;
        assert!(frames[0].same(&Frame::text("before")), "{case}: {frames:?}");
    }
}

/// 1002 for the client; the upstream saw frames alone, and none of the bytes. Gives what the upstream saw.
async fn refused_bytes(setup: &Setup, peer: &mut harness::Peer, case: &str) -> Vec<Frame> {
    let (code, _) = peer.close_within(SOON).await.unwrap_or_else(|| panic!("{case}: no Close"));
    assert_eq!(code, 1002, "{case}");
    // The client answers, as clients do, and the connection is over at once.
    peer.send(&Frame::close(1002, "")).await;
    assert_ne!(peer.ended(SOON, case).await, End::Truncated, "{case}: no close_notify");
    let frames = setup.recorder.frames_of_last(case).await;
    for frame in &frames {
        assert!(frame.key.is_some(), "{case}: {frame:?} is not masked");
        let ours = frame.opcode == 8 && frame.code().0 == 1001;
        assert!(ours || frame.same(&Frame::text("before")), "{case}: the upstream saw {frame:?}");
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_the_101_takes_its_upstream_with_it() {
    let setup = Setup::with(Behaviour::Unanswered, &json!({}), &harness::Options::default()).await;
    let mut client = setup.client().connect().await;
    client.write(&Head::upgrade("/").bytes()).await;
    let mut upstream = setup.recorder.peer().await;
    drop(client);
    within(PATIENCE, "the upstream connection to end", async { while upstream.fill().await {} }).await;
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
}
