//! The backend's side of a handshake: what it is asked, which answers count, and what becomes of the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::harness::head::KEY;
use crate::harness::manifests::{merge, route, secret, service, service_as, slice, text};
use crate::harness::{
    self, Answer, Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Manifests, Options, PATIENCE, Recorder,
    SOON, Setup, json, until,
};
use tokio::net::TcpListener;

/// Asks once; the answer must have this status, be counted once as a refusal for `reason`, and the upstream's
/// connection must be over, with nothing in it but our head.
async fn bad_answer(setup: &Setup, case: &str, status: u16, reasons: &[&str]) -> Answer {
    let mut counted = 0.0;
    for reason in reasons {
        counted -= setup.gateway.refusals(Some(reason)).await;
    }
    let connections = setup.recorder.count().0;
    let mut client = setup.client().connect().await;
    // The attack: what follows is meant for an upstream that is taken for an open tunnel.
    client.write(&Head::upgrade("/").then("GET /internal HTTP/1.1\r\nHost: internal\r\n\r\n").bytes()).await;
    let bytes = client.rest(PATIENCE, &format!("{case}: the end")).await;
    let answer = Answer::parse(&bytes).unwrap_or_else(|| panic!("{case}: no answer"));
    assert_eq!(answer.status(), status, "{case}: {answer:?}");
    let shown = format!("{} {:?} {}", answer.line, answer.fields, String::from_utf8_lossy(&answer.body));
    assert!(!shown.contains("leak"), "{case}: something of the backend's answer came through: {shown}");
    until(SOON, &format!("{case}: the refusal in the metrics"), async || {
        let mut now = counted;
        for reason in reasons {
            now += setup.gateway.refusals(Some(reason)).await;
        }
        (now > 0.5).then_some(())
    })
    .await;
    assert_eq!(setup.recorder.count().0, connections + 1, "{case}: connections of the upstream");
    let last = setup.recorder.last();
    until(SOON, &format!("{case}: the end of the upstream"), async || last.is_ended().then_some(())).await;
    assert_eq!(last.after(), b"", "{case}: bytes were relayed");
    answer
}

fn with_101(fields: &'static str) -> Behaviour {
    Behaviour::accepting(move |accept| {
        let fields = fields.replace("ACCEPT", accept);
        format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_does_not_switch_opens_no_tunnel_and_leaks_no_body() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::default()).await;
    for (status, expected) in [
        (200, 502),
        (204, 502),
        (301, 502),
        (302, 502),
        (307, 502),
        (308, 502),
        (400, 400),
        (401, 401),
        (403, 403),
        (404, 404),
        (409, 409),
        (426, 426),
        (429, 429),
        (500, 502),
        (503, 503),
    ] {
        setup.recorder.behave(Behaviour::accepting(move |accept| {
            format!(
                "HTTP/1.1 {status} leak\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
                 Location: wss://leak.test/\r\nSet-Cookie: leak=1\r\nX-Leak: leak\r\nContent-Length: 4\r\n\r\nleak"
            )
        }));
        let case = format!("B2/C14 the backend answers {status}");
        bad_answer(&setup, &case, expected, &["backend_refused"]).await;
    }
    // The log has what the client saw, and who was asked.
    let endpoint = format!("127.0.0.1:{}", setup.recorder.port());
    for status in [401, 502] {
        let refused = |line: &serde_json::Value| line["reason"] == "backend_refused" && line["status"] == status;
        let line = setup.gateway.access_line("a refusal with the status that was passed on", refused).await;
        assert_eq!(line["backend"], endpoint.as_str(), "{line}");
    }
    for (status, passed) in [(302, 502), (400, 400)] {
        let refused = |line: &serde_json::Value| line["backend_status"] == status;
        let line = setup.gateway.access_line("a refusal with the status of the backend", refused).await;
        assert_eq!(line["status"], passed, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_backend_says_when_to_come_again_and_how_to_authenticate() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::default()).await;
    let digest = "Digest realm=\"cam\", nonce=\"n\", qop=\"auth\"";
    for (status, fields) in [
        (401, vec![("www-authenticate", digest), ("www-authenticate", "Basic realm=\"cam\"")]),
        (429, vec![("retry-after", "7")]),
        (503, vec![("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]),
        (409, vec![]),
    ] {
        let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        setup.recorder.behave(Behaviour::bytes(format!("HTTP/1.1 {status} leak\r\n{lines}X-Leak: leak\r\n\r\nleak")));
        let answer = bad_answer(&setup, &format!("the backend answers {status}"), status, &["backend_refused"]).await;
        assert_eq!(answer.body, b"", "{answer:?}");
        let named = |(name, _): &&(String, String)| ["retry-after", "www-authenticate"].contains(&name.as_str());
        let passed: Vec<_> = answer.fields.iter().filter(named).map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(passed, fields, "{status}");
    }
    // A status that does not pass takes nothing along.
    setup.recorder.behave(Behaviour::bytes("HTTP/1.1 502 leak\r\nRetry-After: 99\r\nWWW-Authenticate: leak\r\n\r\n"));
    let answer = bad_answer(&setup, "the backend answers 502", 502, &["backend_refused"]).await;
    assert!(answer.field("retry-after").is_none() && answer.field("www-authenticate").is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_does_not_answer_our_own_key_is_none() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::default()).await;
    let for_clients_key = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        harness::head::accept(KEY)
    );
    let rows = [
        ("B3 no Accept", with_101("Upgrade: websocket\r\nConnection: Upgrade\r\n")),
        (
            "B3 a wrong Accept",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n",
            ),
        ),
        ("B3 the Accept of the client's key", Behaviour::bytes(for_clients_key)),
        ("B4 no Upgrade", with_101("Connection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n")),
        ("B4 another Upgrade", with_101("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n")),
        (
            "B4 two Upgrades",
            with_101("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n"),
        ),
        ("B4 no Connection", with_101("Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n")),
        (
            "B4 another Connection",
            with_101("Upgrade: websocket\r\nConnection: close\r\nSec-WebSocket-Accept: ACCEPT\r\n"),
        ),
        (
            "B4 the Accept twice",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT\r\n",
            ),
        ),
        (
            "B4 a length in a 101",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nContent-Length: 4\r\n",
            ),
        ),
        (
            "B4 an encoding in a 101",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nTransfer-Encoding: chunked\r\n",
            ),
        ),
        (
            "B4 a subprotocol that was not offered",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: leak\r\n",
            ),
        ),
        (
            "B4 an extension that was not offered",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
            ),
        ),
        (
            "B19 a bare CR in a value",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nX-A: leak\rX-B: leak\r\n",
            ),
        ),
        (
            "B19 a bare LF in a value",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: a\nX-Leak: leak\r\n",
            ),
        ),
        (
            "B19 a folded line",
            with_101(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\nX-A: a\r\n leak\r\n",
            ),
        ),
        ("no HTTP at all", Behaviour::bytes("SSH-2.0-leak\r\n\r\n")),
        (
            "HTTP/1.0",
            Behaviour::accepting(|accept| {
                format!(
                    "HTTP/1.0 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                )
            }),
        ),
        (
            "an endless head",
            Behaviour::bytes([b"HTTP/1.1 101 Switching\r\nX-Leak: ".to_vec(), vec![b'a'; 100_000]].concat()),
        ),
    ];
    for (case, behaviour) in rows {
        setup.recorder.behave(behaviour);
        bad_answer(&setup, case, 502, &["backend_handshake_invalid"]).await;
    }
    let lacking = |line: &serde_json::Value| line["detail"] == "accept";
    let line = setup.gateway.access_line("what the first 101 lacked", lacking).await;
    assert_eq!(line["reason"], "backend_handshake_invalid", "{line}");
    // B18: no connection is used twice; the next client gets its own.
    setup.recorder.behave(Behaviour::Echo);
    let before = setup.recorder.count().0;
    setup.open().await.echo(&Frame::text("a connection of its own")).await;
    assert_eq!(setup.recorder.count().0, before + 1, "B18");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_chooses_among_what_was_offered_once() {
    let setup = Setup::new(&json!({})).await;
    for (case, chosen) in
        [("C13 another one", "c"), ("C13 the same twice", "a, a"), ("C13 both", "a, b"), ("C13 another case", "A")]
    {
        setup.recorder.behave(Behaviour::accepting(move |accept| {
            format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n")
        }));
        let (answer, _) = setup.client().ask(&Head::upgrade("/").add("Sec-WebSocket-Protocol", "a, b")).await;
        assert_eq!(answer.status(), 502, "{case}: {answer:?}");
    }
    setup.recorder.behave(Behaviour::accepting(|accept| {
        format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\nsec-websocket-accept: {accept}\r\nSet-Cookie: a=b\r\nServer: own\r\n\r\n")
    }));
    let (answer, _) = setup.client().ask(&Head::upgrade("/").add("Sec-WebSocket-Protocol", "a, b")).await;
    assert_eq!(answer.status(), 101, "C13 none is a choice: {answer:?}");
    for name in ["sec-websocket-protocol", "set-cookie", "server"] {
        assert_eq!(answer.field(name), None, "of the 101 only the subprotocol returns: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_request_to_the_backend_is_built_anew() {
    let setup = Setup::new(&json!({})).await;
    let head = Head::upgrade("/room/7?a=b")
        .set("Host", "chat.example.com:8443")
        .set("Connection", "Upgrade, X-Forwarded-For, X-Own, X-Auth-User")
        .add("Origin", "https://chat.example.com:8443")
        .add("Cookie", "sid=1")
        .add("Authorization", "Bearer abc")
        .add("X-Own", "named by Connection")
        .add("X-Other", "kept")
        .add("User-Agent", "test")
        .add("Sec-WebSocket-Protocol", "a, b")
        .add("Sec-WebSocket-Extensions", "permessage-deflate")
        .add("Sec-WebSocket-Smuggled", "1")
        .add("X-Forwarded-For", "192.0.2.1")
        .add("X_Forwarded_For", "192.0.2.2")
        .add("x-forwarded-proto", "http")
        .add("X-Forwarded-Host", "evil.test")
        .add("X-Forwarded-Prefix", "/evil")
        .add("X-Forwarded-Port", "1")
        .add("X-Forwarded-Client-Cert", "evil")
        .add("Forwarded", "for=192.0.2.3;host=evil.test")
        .add("X-Real-IP", "192.0.2.4")
        .add("X_Real_Ip", "192.0.2.5")
        .add("Proxy-Authorization", "Basic abc")
        .add("Keep-Alive", "300");
    let mut peer = setup.client().open(&head).await;
    peer.echo(&Frame::text("through")).await;
    let seen = setup.recorder.last().head();
    assert_eq!(seen.line, "GET /room/7?a=b HTTP/1.1");
    for (name, value) in [
        ("host", "chat.example.com:8443"),
        ("origin", "https://chat.example.com:8443"),
        ("cookie", "sid=1"),
        ("authorization", "Bearer abc"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "a, b"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-other", "kept"),
        ("user-agent", "test"),
    ] {
        assert_eq!(seen.field(name).as_deref(), Some(value), "C9/C10/C11 {name}: {seen:#?}");
        assert_eq!(seen.count(name), 1, "C11 {name}: {seen:#?}");
    }
    assert!(seen.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "C10: {seen:#?}");
    let forwarded = seen.field("forwarded").expect("Forwarded, rebuilt");
    assert!(forwarded.contains("for=127.0.0.1") && !forwarded.contains("evil"), "C9: {forwarded}");
    for name in [
        "sec-websocket-extensions",
        "sec-websocket-smuggled",
        "x_forwarded_for",
        "x-forwarded-prefix",
        "x-forwarded-client-cert",
        "x_real_ip",
        "proxy-authorization",
        "keep-alive",
        "http2-settings",
        "x-own",
    ] {
        assert_eq!(seen.field(name), None, "C9/C11 {name} reached the upstream: {seen:#?}");
    }
    for (name, value) in &seen.fields {
        assert!(!value.contains("192.0.2.") && !value.contains("evil"), "C9 {name}: {value}");
    }
    let key = seen.field("sec-websocket-key").expect("a key");
    assert!(key != KEY && key.len() == 24, "B3: the client's key was passed on");
    let again = setup.client().open(&head).await;
    assert_ne!(setup.recorder.last().head().field("sec-websocket-key"), Some(key), "B3: a key is used once");
    drop(again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_cannot_be_reached_is_passed_over() {
    let options = Options { env: vec![("WSSGATE_LOG".into(), "debug".into())], ..Options::default() };
    let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
    // A port that nobody listens on: it was ours, and is not any more.
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    setup.gateway.edit("service.yaml", &text(&service("chat", &[dead, setup.recorder.port()]))).await;
    for _ in 0..6 {
        setup.open().await.echo(&Frame::text("somewhere")).await;
    }
    assert!(setup.gateway.log_text().contains("backend not reached"), "WSSGATE_LOG=debug says more");
    setup.gateway.edit("service.yaml", &text(&service("chat", &[dead]))).await;
    setup.refused("nobody listens", &Head::upgrade("/"), &[502], &["backend_connect_failed"]).await;
    setup.gateway.edit("service.yaml", &text(&service("chat", &[]))).await;
    setup.refused("no endpoint", &Head::upgrade("/"), &[503], &["no_endpoints"]).await;
    let not_ready = json!({"ready": false, "serving": false, "terminating": false});
    let mut objects = service("chat", &[]);
    objects.push(slice("chat", 0, setup.recorder.port(), &not_ready));
    setup.gateway.write("service.yaml", &text(&objects));
    setup.refused("no endpoint is ready", &Head::upgrade("/"), &[503], &["no_endpoints"]).await;
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let mut objects = service("chat", &[]);
    objects.push(slice("chat", 0, setup.recorder.port(), &leaving));
    setup.gateway.edit("service.yaml", &text(&objects)).await;
    setup.open().await.echo(&Frame::text("still serving, though leaving")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_resets_or_says_nothing_is_given_up() {
    let setup = Setup::with(Behaviour::Reset, &json!({}), &Options::default()).await;
    let (answer, _) = setup.client().ask(&Head::upgrade("/")).await;
    assert_eq!(answer.status(), 502, "reset: {answer:?}");
    setup.recorder.behave(Behaviour::Unanswered);
    let mut client = setup.client().connect().await;
    client.write(&Head::upgrade("/").bytes()).await;
    let mut upstream = setup.recorder.peer().await;
    let answer = client.head().await.expect("an answer when time is up");
    assert_eq!(answer.status(), 504, "silent: {answer:?}");
    upstream.ended(SOON, "the end of a silent upstream").await;
    setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "backend_upgrade_timeout")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_spread_over_the_endpoints() {
    let setup = Setup::new(&json!({})).await;
    let second = Recorder::start(Behaviour::Echo).await;
    setup.gateway.edit("service.yaml", &text(&service("chat", &[setup.recorder.port(), second.port()]))).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(setup.open().await);
    }
    assert_eq!((setup.recorder.count().0, second.count().0), (5, 5), "the fewest connections");
}

/// A gateway in front of a wss backend that shows `pair` and is expected to be `backend.test` of `trusted`.
async fn wss_backend(trusted: &Authority, backend: rustls::ServerConfig) -> (Recorder, Gateway, Client) {
    wss_backend_of(trusted, Recorder::start_tls(Behaviour::Echo, backend).await).await
}

/// The same with any backend.
async fn wss_backend_of(trusted: &Authority, recorder: Recorder) -> (Recorder, Gateway, Client) {
    let authority = Authority::new();
    let mut spec = json!({});
    let tls = json!({"hostname": "backend.test", "caCertificateRefs": [{"name": "backend-ca"}]});
    merge(
        &mut spec,
        &json!({"rules": [{
            "name": "all", "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": "chat", "port": 8080}], "backendTLS": tls,
        }]}),
    );
    let bundle = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "backend-ca", "namespace": "shop"},
        "data": {"ca.crt": trusted.pem()},
    });
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST])), bundle])
        .with("service.yaml", &service_as("chat", "kubernetes.io/wss", &[recorder.port()]))
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &spec)]);
    let gateway = Gateway::start(&manifests).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    (recorder, gateway, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wss_backend_must_prove_its_name_and_is_never_reached_in_plain() {
    let trusted = Authority::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let expired =
        trusted.leaf_with(&["backend.test"], &key, |params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
    for (case, pair) in [
        ("D14 another authority", Authority::new().leaf(&["backend.test"])),
        ("D14 another name", trusted.leaf(&["other.test", HOST])),
        ("D14 expired", expired),
    ] {
        let (recorder, gateway, client) = wss_backend(&trusted, pair.server()).await;
        let (answer, _) = client.ask(&Head::upgrade("/")).await;
        assert_eq!(answer.status(), 502, "{case}: {answer:?}");
        gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "backend_tls_failed")], 1.0).await;
        assert!(recorder.seen().iter().all(|seen| seen.bytes.lock().unwrap().is_empty()), "{case}: a request in plain");
    }
    // One that speaks no TLS at all gets a ClientHello, and nothing else.
    let (recorder, gateway, client) = wss_backend_of(&trusted, Recorder::start(Behaviour::Echo).await).await;
    let (answer, _) = client.ask(&Head::upgrade("/")).await;
    assert!(matches!(answer.status(), 502 | 504), "D14 no TLS: {answer:?}");
    let (connections, seen) = (recorder.count().0, recorder.last());
    assert_eq!((connections, seen.bytes.lock().unwrap().first()), (1, Some(&22)), "D14 no TLS: a request in plain");
    drop(gateway);
    let (recorder, gateway, client) = wss_backend(&trusted, trusted.leaf(&["backend.test"]).server()).await;
    let mut peer = client.open(&Head::upgrade("/")).await;
    for frame in [Frame::text("é"), Frame::binary(vec![4; 60_000]), Frame::text("a").more(), Frame::continuation("b")]
    {
        peer.echo(&frame).await;
    }
    assert_eq!(recorder.last().head().field("host").as_deref(), Some(HOST), "the client's Host, whatever the SNI");
    assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000));
    gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_right_behind_the_backends_101_are_not_lost() {
    let setup = Setup::new(&json!({})).await;
    setup.recorder.behave(Behaviour::Answer(Arc::new(|head| {
        [
            harness::recorder::switching(head).into_bytes(),
            Frame::text("welcome").bytes(None),
            Frame::binary("2").bytes(None),
        ]
        .concat()
    })));
    let mut peer = setup.open().await;
    peer.expect(&Frame::text("welcome")).await;
    peer.expect(&Frame::binary("2")).await;
    // Keys of many handshakes differ.
    setup.recorder.behave(Behaviour::Echo);
    for _ in 0..5 {
        drop(setup.open().await);
    }
    let keys: BTreeSet<_> = setup.recorder.seen().iter().map(|seen| seen.head().field("sec-websocket-key")).collect();
    assert_eq!(keys.len(), 6);
}
