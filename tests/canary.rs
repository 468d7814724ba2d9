//! Nothing secret is written. The harness looks for every credential of every test in whatever its gateways write; here
//! is shown that it finds what is there, and that nothing is there when the log is as talkative as it can be.

use std::sync::Arc;

use crate::harness::issuer::{any_of, bearer, claims, config_map, external, fixture_of, method, set};
use crate::harness::manifests::service_as;
use crate::harness::{
    self, Answer, Behaviour, Canaries, Frame, Head, Key, Options, Recorder, SOON, Setup, canary, json, until,
};

fn noted(secrets: &[&str]) -> Canaries {
    let mut canaries = Canaries::default();
    secrets.iter().for_each(|secret| canaries.note(secret));
    canaries
}

#[test]
fn a_secret_is_found_wherever_it_stands_and_told_by_its_line() {
    let canaries =
        noted(&["0123456789abcdef", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlLW9mLWl0", "short", ""]);
    for (text, line) in [
        ("0123456789abcdef", Some("0123456789abcdef")),
        ("one\ntwo=x0123456789abcdefx\nthree", Some("two=x0123456789abcdefx")),
        ("claims alone: eyJzdWIiOiJhZGEifQ", Some("claims alone: eyJzdWIiOiJhZGEifQ")),
        ("a signature alone: c2lnbmF0dXJlLW9mLWl0\n", Some("a signature alone: c2lnbmF0dXJlLW9mLWl0")),
        ("x\nname=canary-7\n", Some("name=canary-7")),
        ("grüße 0123456789abcde", None),
        ("0123456789ABCDEF, short, eyJzdWIiOiJhZGEif", None),
        ("", None),
    ] {
        assert_eq!(canaries.found_in(text), line, "{text}");
    }
    let alike = noted(&["0123456789ab-one", "0123456789ab-two"]);
    assert!(alike.found_in("0123456789ab-two").is_some() && alike.found_in("0123456789ab-three").is_none());
}

#[test]
fn what_is_secret_in_a_request_is_noted_when_it_is_sent() {
    let head = Head::upgrade("/room?a=1&token=query-0123456789")
        .add("Authorization", "Bearer header-0123456789")
        .add("Cookie", "theme=dark; session=cookie-0123456789")
        .add("Sec-WebSocket-Protocol", "chat.v2, bearer.subprotocol-0123456789, ticket.ticket-0123456789")
        .add("X-Other", "no-secret-0123456789");
    head.bytes();
    for secret in ["query", "header", "cookie", "subprotocol", "ticket"] {
        let text = format!("it says {secret}-0123456789 here");
        assert_eq!(canary::found_in(&text), Some(text.as_str()));
    }
    assert_eq!(canary::found_in("no-secret-0123456789 /room chat.v2 chat.example.com"), None);
    let leaf = harness::Authority::new().leaf(&["a.test"]);
    assert!(leaf.key.lines().nth(1).is_some_and(|line| canary::found_in(line).is_some()), "a private key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_writes_is_found_in_its_logs_and_metrics() {
    let setup = Setup::new(&json!({})).await;
    setup
        .refused("a foreign page", &Head::upgrade("/").add("Origin", "https://evil.test"), &[403], &["origin_denied"])
        .await;
    setup.gateway.access_line("the refusal", |line| line["reason"] == "origin_denied").await;
    let admin = setup.gateway.admin.to_string();
    for (secret, places) in [
        ("wssgate_handshakes_total", vec!["metrics"]),
        (admin.as_str(), vec!["log"]),
        ("\"reason\":\"origin_denied\"", vec!["access log"]),
        ("something that nobody writes", vec![]),
    ] {
        assert_eq!(setup.gateway.has_written(&noted(&[secret])), places, "{secret}");
    }
}

/// A session is judged by a service, and the service says a secret to the backend.
fn judge(_: &Answer) -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nX-User: ada\r\nX-Session-Key: session-key-0123456789\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// What is asserted is at the end of the gateway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_even_the_most_talkative_log_holds_a_credential() {
    let key = Key::es256("one");
    let asked = Recorder::start(Behaviour::Answer(Arc::new(judge))).await;
    let places = json!({"extractFrom": [
        {"type": "Header", "name": "Authorization", "valuePrefix": "Bearer "}, {"type": "Query", "name": "token"},
        {"type": "Subprotocol", "valuePrefix": "bearer."}, {"type": "Cookie", "name": "token"},
    ]});
    let headers = json!({"allowedHeaders": ["x-session"], "allowedResponseHeaders": ["x-user", "x-session-key"]});
    let ticket = json!({"name": "ticket", "type": "Ticket", "ticket": {"path": "/ticket"}});
    let spec = any_of(&[method(&places), external(&headers), ticket]);
    let mut objects = service_as("sessions", "http", &[asked.port()]);
    objects.push(config_map("idp", &set(&[&key])));
    let options = Options { env: vec![("WSSGATE_LOG".into(), "trace".into())], ..Options::default() };
    let setup = fixture_of(&spec, &objects, &options).await;
    let page = |path: &str| Head::upgrade(path).add("Origin", "https://chat.example.com");
    for secret in ["session-0123456789", "session-key-0123456789", "payload-0123456789"] {
        canary::note(secret);
    }
    let (good, bad) = (key.sign(&claims(&json!({}))), Key::es256("one").sign(&claims(&json!({}))));
    for (token, status) in [(&good, 101), (&bad, 401)] {
        for head in [
            bearer(token).add("Origin", "https://chat.example.com"),
            page(&format!("/room?token={token}&other=query-of-the-page")),
            page("/").add("Sec-WebSocket-Protocol", format!("chat, bearer.{token}")),
            page("/").add("Cookie", format!("token={token}; other=another-cookie")),
        ] {
            let (answer, mut peer) = setup.client().ask(&head).await;
            assert_eq!(answer.status(), status, "{answer:?}");
            if status == 101 {
                peer.echo(&Frame::text("payload-0123456789")).await;
                assert!(peer.close(1000, "").await.is_some());
            }
        }
    }
    setup.admitted("a session", &page("/").add("X-Session", "session-0123456789")).await;
    let call = Head::request("POST /ticket HTTP/1.1")
        .add("Origin", "https://chat.example.com")
        .add("Content-Length", "0")
        .add("Authorization", format!("Bearer {good}"));
    let mut peer = setup.client().connect().await;
    peer.write(&call.bytes()).await;
    let answer = Answer::parse(&peer.rest(SOON, "the end of a call").await).expect("an answer to the call");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let redeem = page(&format!("/?ticket={}", body["ticket"].as_str().expect("a ticket")));
    setup.admitted("a ticket", &redeem).await;
    setup.refused("the same ticket", &redeem, &[401], &["ticket_invalid"]).await;
    setup.recorder.behave(Behaviour::bytes("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"));
    // A header that is withheld from the backend is named at level debug, without its value.
    canary::note("somebody-0123456789");
    let head = bearer(&good).add("Origin", "https://chat.example.com").add("X-Auth-Token", "somebody-0123456789");
    let (answer, _) = setup.client().ask(&head).await;
    assert_eq!(answer.status(), 502, "{answer:?}");
    let debug = async || setup.gateway.log_text().contains("\"level\":\"DEBUG\"").then_some(());
    until(SOON, "the log to say more than usual", debug).await;
}
