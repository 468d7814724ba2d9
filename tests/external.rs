//! A service of the user's that judges handshakes: what it is asked, what becomes of its answer, and that nobody gets in
//! while it cannot be asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::issuer::{self, any_of, bearer, claims, config_map, fixture_with, method, set, unauthorized};
use crate::harness::manifests::{merge, route, service_as, text};
use crate::harness::{self, Answer, Behaviour, Frame, Head, Key, Recorder, Setup, json, until};
use serde_json::Value;

const SESSION: &str = "sid=canary-session-0123456789";

/// Admits ada's session, and says who she is.
fn sessions() -> Behaviour {
    Behaviour::Answer(Arc::new(|head: &Answer| {
        if head.field("cookie").is_some_and(|cookie| cookie.contains(SESSION)) {
            b"HTTP/1.1 204 No Content\r\nX-User: ada\r\nX-Role: admin\r\nSet-Cookie: a=b\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
    }))
}

/// The method of [`sessions`].
fn external(others: &Value) -> Value {
    let mut external = json!({"allowedResponseHeaders": ["x-user"]});
    merge(&mut external, others);
    issuer::external(&external)
}

async fn fixture(service: Behaviour, others: &Value) -> (Recorder, Setup) {
    let asked = Recorder::start(service).await;
    let objects = service_as("sessions", "http", &[asked.port()]);
    let setup = fixture_with(&any_of(&[external(others)]), &objects).await;
    (asked, setup)
}

fn page(path: &str, cookie: &str) -> Head {
    Head::upgrade(path).add("Origin", "https://chat.example.com").add("Cookie", cookie)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_judged_by_the_service_and_the_backend_gets_what_it_says() {
    let (asked, setup) = fixture(sessions(), &json!({})).await;
    let head = page("/room/caf%C3%A9?q=canary-query-0123456789", &format!("theme=dark; {SESSION}"));
    setup.admitted("ada", &head.add("X-User", "root").add("X_User", "root").add("X-Role", "root")).await;
    let question = asked.last().head();
    assert_eq!(question.line, "GET /check HTTP/1.1");
    for (name, value) in [
        ("host", "chat.example.com"),
        ("origin", "https://chat.example.com"),
        ("x-forwarded-method", "GET"),
        // E20: byte for byte what the backend sees.
        ("x-forwarded-uri", "/room/caf%C3%A9"),
        ("x-forwarded-host", "chat.example.com"),
        ("x-forwarded-for", "127.0.0.1"),
        ("cookie", &format!("theme=dark; {SESSION}")),
    ] {
        assert_eq!((question.count(name), question.field(name).as_deref()), (1, Some(value)), "{name}");
    }
    for never in ["x-user", "x-role", "upgrade", "sec-websocket-key", "authorization"] {
        assert_eq!(question.count(never), 0, "{never}");
    }
    let got = setup.recorder.last().head();
    assert_eq!(got.line, "GET /room/caf%C3%A9?q=canary-query-0123456789 HTTP/1.1");
    assert_eq!((got.count("x-user"), got.field("x-user").as_deref()), (1, Some("ada")));
    // x-role is not listed, so the answer's is not passed on; the client's own is an ordinary header.
    assert_eq!((got.count("cookie"), got.count("set-cookie")), (0, 0), "what the service judges stays here");
    let written = setup.gateway.log_text() + &setup.gateway.access_text() + &setup.gateway.get("/metrics").await.1;
    assert!(!written.contains("canary"), "a session or query was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_no_plain_yes_is_a_no() {
    let (asked, setup) = fixture(sessions(), &json!({})).await;
    let head = page("/", SESSION);
    unauthorized(&setup, "another session", &page("/", "sid=x"), "external_unauthorized").await;
    let before = asked.count();
    unauthorized(&setup, "no cookie at all", &page("/", "").without("Cookie"), "credential_missing").await;
    unauthorized(&setup, "A10 two of one name", &page("/", &format!("{SESSION}; sid=x")), "credential_ambiguous").await;
    unauthorized(&setup, "A10 two headers", &head.clone().add("Cookie", "a=b"), "credential_ambiguous").await;
    setup.refused("A1", &head.clone().set("Origin", "https://evil.test"), &[403], &["origin_denied"]).await;
    setup.refused("A3", &head.clone().without("Origin"), &[403], &["origin_missing"]).await;
    assert_eq!(asked.count(), before, "what is refused before it is not asked about");
    for (case, answer, status, reason) in [
        ("a redirect to log in", "302 Found\r\nLocation: /login", 401, "external_unauthorized"),
        ("forbidden", "403 Forbidden", 403, "external_denied"),
        ("not found", "404 Not Found", 403, "external_denied"),
        ("too many", "429 Too Many Requests", 503, "external_unavailable"),
        ("an error of its own", "500 Oops", 503, "external_unavailable"),
        ("two names of a user", "200 OK\r\nX-User: ada\r\nX-User: root", 503, "external_unavailable"),
        ("a name with a control", "200 OK\r\nX-User: a\tb", 503, "external_unavailable"),
    ] {
        asked.behave(Behaviour::bytes(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n")));
        setup.refused(case, &head, &[status], &[reason]).await;
    }
    for (case, behaviour) in [
        ("no HTTP", Behaviour::bytes("hello\r\n\r\n")),
        ("a reset", Behaviour::Reset),
        ("a 101", Behaviour::Echo),
        ("a large head", Behaviour::bytes(format!("HTTP/1.1 200 OK\r\nX-User: {}\r\n\r\n", "a".repeat(40_000)))),
    ] {
        asked.behave(behaviour);
        setup.refused(case, &head, &[503], &["external_unavailable"]).await;
    }
    asked.behave(sessions());
    setup.admitted("a no is not kept", &head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_hangs_or_is_gone_lets_nobody_in_and_takes_no_one_elses_places() {
    let (asked, setup) = fixture(Behaviour::Unanswered, &json!({"timeout": "1s"})).await;
    let open = route("open", "open.example.com", "open-tls", "chat", &json!({}));
    let leaf = harness::manifests::secret("open-tls", &setup.authority.leaf(&["open.example.com"]));
    setup.gateway.edit("open.yaml", &text(&[open, leaf])).await;
    let start = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for place in 0..100 {
        let (client, head) = (setup.client(), page("/", &format!("sid={place}")));
        waiting.spawn(async move { client.ask(&head).await.0.status() });
    }
    until(harness::PATIENCE, "the service to be asked", async || (asked.count().0 > 0).then_some(())).await;
    let client = setup.client().named("open.example.com");
    for _ in 0..20 {
        let (answer, _) = client.ask(&Head::upgrade("/").set("Host", "open.example.com")).await;
        assert_eq!(answer.status(), 101, "another route");
    }
    assert!(waiting.join_all().await.into_iter().all(|status| status == 503));
    assert!(start.elapsed() < Duration::from_secs(10));
    setup.gateway.edit("keys.yaml", &text(&service_as("sessions", "http", &[]))).await;
    let head = page("/", SESSION);
    setup.refused("no endpoint", &head, &[503], &["external_unavailable"]).await;
    setup.gateway.remove("keys.yaml").await;
    setup.refused("no Service", &head, &[503], &["external_unavailable"]).await;
    asked.behave(sessions());
    setup.gateway.edit("keys.yaml", &text(&service_as("sessions", "http", &[asked.port()]))).await;
    setup.admitted("mended", &head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yes_is_asked_for_once_in_a_short_while_unless_the_service_says_otherwise() {
    let (asked, setup) = fixture(sessions(), &json!({})).await;
    let head = page("/", SESSION);
    setup.admitted("first", &head).await;
    setup.admitted("again", &head).await;
    assert_eq!(asked.count().0, 1);
    setup.admitted("another path", &page("/other", SESSION)).await;
    assert_eq!(asked.count().0, 2, "a verdict is about one path");
    // Once it is over the service is asked again, and its word of now counts.
    asked.behave(Behaviour::bytes("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
    until(harness::PATIENCE, "the end of the verdict", async || {
        let (answer, peer) = setup.client().ask(&head).await;
        drop(peer);
        (answer.status() == 403).then_some(())
    })
    .await;
    let yes = "HTTP/1.1 200 OK\r\nCache-Control: private, no-store\r\nX-User: ada\r\nContent-Length: 0\r\n\r\n";
    let (asked, setup) = fixture(Behaviour::bytes(yes), &json!({})).await;
    for number in 1..=3 {
        setup.admitted("not to be kept", &head).await;
        assert_eq!(asked.count().0, number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_decides_before_a_service_is_asked_and_subjects_are_counted() {
    let key = Key::es256("one");
    let asked = Recorder::start(sessions()).await;
    let mut objects = service_as("sessions", "http", &[asked.port()]);
    objects.push(config_map("idp", &set(&[&key])));
    let mut spec = any_of(&[external(&json!({})), method(&json!({}))]);
    spec["connection"] = json!({"limits": {"perSubject": 1}});
    let setup = fixture_with(&spec, &objects).await;
    let with = |token: &str| bearer(token).add("Origin", "https://chat.example.com").add("Cookie", SESSION);
    setup.admitted("a token beside a session", &with(&key.sign(&claims(&json!({}))))).await;
    assert_eq!(setup.recorder.last().head().count("cookie"), 0, "what the service would judge stays here");
    let bad = Key::es256("one").sign(&claims(&json!({})));
    unauthorized(&setup, "a bad token beside a good session", &with(&bad), "token_untrusted").await;
    assert_eq!(asked.count().0, 0, "an invalid credential never falls through");
    let _ada = setup.client().open(&page("/", SESSION)).await;
    setup.refused("ada again", &page("/", SESSION), &[429], &["subject_limit"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_counts_only_while_the_route_asks_that_service() {
    let (_asked, setup) = fixture(sessions(), &json!({})).await;
    let mut peer = setup.client().open(&page("/", SESSION)).await;
    setup.respec(&any_of(&[external(&json!({"timeout": "3s"}))])).await;
    peer.echo(&Frame::text("the same service")).await;
    setup.respec(&any_of(&[external(&json!({"path": "/stricter"}))])).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008));
}
