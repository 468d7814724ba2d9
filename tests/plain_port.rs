//! The port without TLS: it sends pages to https, tells WebSocket clients where to go, and never upgrades.

use crate::harness::peer::{Wire, connect_from};
use crate::harness::{Answer, End, Head, PATIENCE, Peer, Setup, json, until};
use tokio::net::TcpStream;

async fn ask(setup: &Setup, bytes: &[u8]) -> (Option<Answer>, End) {
    let tcp = TcpStream::connect(setup.gateway.http).await.unwrap();
    let mut peer = Peer::new(Wire::Plain(tcp), true);
    peer.write(bytes).await;
    let end = peer.ended(PATIENCE, "the end of a plain connection").await;
    (Answer::parse(peer.pending()), end)
}

async fn answer(setup: &Setup, head: &Head) -> Answer {
    let answer = ask(setup, &head.clone().add("Connection", "close").bytes()).await.0.expect("an answer");
    assert_eq!(answer.field("strict-transport-security"), None, "never HSTS over HTTP: {answer:?}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_is_refused_with_the_wss_url_in_its_place() {
    let setup = Setup::new(&json!({})).await;
    for (case, head) in [
        (
            "D15 a WebSocket handshake",
            Head::upgrade("/room/7?token=s3cr3t").without("Connection").add("Connection", "Upgrade"),
        ),
        ("D15 with an Origin", Head::upgrade("/room/7").add("Origin", "https://chat.example.com")),
    ] {
        let bytes = head.bytes();
        let answer = ask(&setup, &bytes).await.0.expect(case);
        assert_eq!(answer.status(), 400, "{case}: {answer:?}");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("wss://chat.example.com/room/7"), "{case}: {body}");
        assert!(!body.contains("s3cr3t"), "{case}: {body}");
        assert_eq!(answer.field("strict-transport-security"), None, "{case}: {answer:?}");
        assert_eq!(answer.field("sec-websocket-accept"), None, "{case}: {answer:?}");
    }
    let h2c = Head::request("GET / HTTP/1.1")
        .add("Connection", "Upgrade, HTTP2-Settings")
        .add("Upgrade", "h2c")
        .add("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA");
    assert_eq!(ask(&setup, &h2c.bytes()).await.0.map(|answer| answer.status()), Some(400), "B9");
    assert_eq!(setup.recorder.count(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_sent_to_https_of_the_same_host() {
    let setup = Setup::new(&json!({})).await;
    for method in ["GET", "HEAD"] {
        let answer = answer(&setup, &Head::request(&format!("{method} /a/b?c=d HTTP/1.1"))).await;
        assert_eq!(answer.status(), 308, "{method}: {answer:?}");
        assert_eq!(answer.field("location").as_deref(), Some("https://chat.example.com/a/b?c=d"), "{method}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
        let line = format!("{method} /a HTTP/1.1");
        let status = answer(&setup, &Head::request(&line)).await.status();
        assert!([400, 405, 404].contains(&status), "{method}: {status}");
    }
    // No open redirect: hosts that nobody serves are sent nowhere.
    for host in ["evil.test", "chat.example.com.evil.test", "chat.example.com@evil.test", "evil.test:80", ""] {
        let answer = answer(&setup, &Head::request("GET / HTTP/1.1").set("Host", host)).await;
        assert!([400, 404, 421].contains(&answer.status()), "{host}: {answer:?}");
        assert_eq!(answer.field("location"), None, "{host}: {answer:?}");
    }
    let two = Head::request("GET / HTTP/1.1").add("Host", "evil.test");
    assert_eq!(answer(&setup, &two).await.field("location"), None, "two hosts");
    for target in ["//evil.test/x", "https://evil.test/", "/\\evil.test"] {
        let answer = answer(&setup, &Head::request(&format!("GET {target} HTTP/1.1"))).await;
        let location = answer.field("location").unwrap_or_else(|| "https://chat.example.com/".to_owned());
        assert!(location.starts_with("https://chat.example.com/"), "{target}: {location}");
    }
    assert_eq!(setup.recorder.count(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acme_challenges_are_never_redirected() {
    let setup = Setup::new(&json!({})).await;
    let answer = answer(&setup, &Head::request("GET /.well-known/acme-challenge/token HTTP/1.1")).await;
    assert_eq!(
        (answer.status(), answer.field("location")),
        (404, None),
        "no solver, no redirect: it would dead-lock issuance"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http_is_ended() {
    let setup = Setup::new(&json!({})).await;
    for (case, bytes) in [
        ("D15 TLS", b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03\r\n\r\n".as_slice()),
        ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a bare CR", b"GET / HTTP/1.1\r\nHost: chat.example.com\r\nX: a\rb\r\n\r\n"),
        ("half a head", b"GET / HTTP/1.1\r\nHost: chat"),
    ] {
        let (answer, _) = ask(&setup, bytes).await;
        assert!(
            answer.as_ref().is_none_or(|answer| [400, 404, 408, 505].contains(&answer.status())),
            "{case}: {answer:?}"
        );
    }
    let first = Head::request("POST / HTTP/1.1")
        .add("Content-Length", "3")
        .then("abcGET /second HTTP/1.1\r\nHost: chat.example.com\r\n\r\n");
    let answer = ask(&setup, &first.bytes()).await.0.expect("an answer");
    assert!(!String::from_utf8_lossy(&answer.body).contains("/second"), "one answer and the end: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_hold_all_places_keep_nobody_out() {
    let setup = Setup::new(&json!({})).await;
    let head = Head::request("GET / HTTP/1.1").add("Connection", "close");
    let from = async |source: &str| {
        let mut peer = Peer::new(Wire::Plain(connect_from(source, setup.gateway.http).await), true);
        // It may be closed before it is written to.
        peer.write(&head.bytes()).await;
        peer.ended(PATIENCE, "the end of a plain connection").await;
        Answer::parse(peer.pending()).map(|answer| answer.status())
    };
    // Four addresses want more places than there are, and again when they lose some.
    let target = setup.gateway.http;
    let attackers: Vec<_> = (0..4)
        .map(|number| {
            tokio::spawn(async move {
                let mut held = std::collections::VecDeque::new();
                loop {
                    held.push_back(connect_from(&format!("127.0.0.{}", 10 + number), target).await);
                    if held.len() > 150 {
                        held.pop_front();
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    }
                }
            })
        })
        .collect();
    until(PATIENCE, "all places held", async || (setup.gateway.descriptors() > 256).then_some(())).await;
    let mut answers = Vec::new();
    for number in 0..18 {
        answers.push(from(&format!("127.0.1.{}", 1 + number)).await);
    }
    for attacker in attackers {
        attacker.abort();
    }
    assert_eq!(answers, [Some(308); 18]);
    until(PATIENCE, "a place for those who held them", async || from("127.0.0.10").await).await;
}
