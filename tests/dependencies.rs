//! What handshakes are judged with and cannot be reached: told once, by a condition of the route and a metric, and taken
//! back when it answers again. A single failure is no news.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::issuer::{any_of, bearer, claims, external, fixture_of, fixture_with, method, set};
use crate::harness::manifests::{service_as, text};
use crate::harness::{Authority, Behaviour, Frame, Gateway, Head, Key, Options, Recorder, Setup, json, until};
use serde_json::Value;
use tempfile::NamedTempFile;

/// The longest until something is told or taken back: two fetches ten seconds apart, and a look.
const LIMIT: Duration = Duration::from_secs(40);
const UP: &str = "wssgate_dependency_up";

/// Lines of the log that say that the route is degraded.
fn told(gateway: &Gateway) -> Vec<Value> {
    gateway.logs().into_iter().filter(|line| line["condition"] == "Degraded").collect()
}

fn taken_back(gateway: &Gateway) -> usize {
    let over = |line: &Value| line["message"] == "problem resolved" && line["subject"] == "route shop/chat Degraded";
    gateway.logs().into_iter().filter(over).count()
}

async fn becomes(gateway: &Gateway, labels: &[(&str, &str)], value: f64) {
    until(LIMIT, &format!("{UP}{labels:?} to be {value}"), async || {
        (gateway.samples(UP, labels).await == [value]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_set_that_cannot_be_fetched_is_told_and_taken_back_when_it_can() {
    let key = Key::es256("one");
    let broken = || Behaviour::bytes("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    let authority = Authority::new();
    let issuer = Recorder::start_tls(broken(), authority.leaf(&["127.0.0.1"]).server()).await;
    let trusted = NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), authority.pem()).unwrap();
    let env = vec![("SSL_CERT_FILE".into(), trusted.path().display().to_string())];
    let uri = format!("https://127.0.0.1:{}/jwks?key=canary-0123456789", issuer.port());
    let jwt = method(&json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}}));
    let setup = fixture_of(&any_of(&[jwt]), &[], &Options { env, ..Options::default() }).await;
    let gateway = &setup.gateway;
    let token = bearer(&key.sign(&claims(&json!({}))));
    setup.refused("no key yet", &token, &[503], &["keys_unavailable"]).await;
    assert!(told(gateway).is_empty(), "one failure says nothing");

    let name = format!("https://127.0.0.1:{}/jwks", issuer.port());
    let labels = [("kind", "jwks"), ("name", name.as_str())];
    becomes(gateway, &labels, 0.0).await;
    let line = until(LIMIT, "the line of the log", async || told(gateway).pop()).await;
    assert_eq!((&line["route"], &line["status"]), (&json!("shop/chat"), &json!("True")), "{line}");
    assert_eq!(line["reason"], "KeysUnavailable", "{line}");
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains("methods[0].jwt.jwks.remote.uri") && problem.contains(&name), "{problem}");
    assert!(!problem.contains("500"), "what answers there is none of a route's author's business: {problem}");
    let version = gateway.version().await;

    issuer.behave(Behaviour::bytes(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
        set(&[&key]).to_string().len(),
        set(&[&key])
    )));
    becomes(gateway, &labels, 1.0).await;
    until(LIMIT, "the end in the log", async || (taken_back(gateway) == 1).then_some(())).await;
    setup.admitted("the keys are there", &token).await;
    assert!((gateway.version().await - version).abs() < 0.1, "to say so changes nothing that serves");
    assert_eq!(told(gateway).len(), 1, "said once");
    let said = gateway.log_text() + &gateway.get("/metrics").await.1;
    assert!(!said.contains("canary"), "the query of a URI may be a secret");
}

fn page() -> Head {
    Head::upgrade("/").add("Origin", "https://chat.example.com").add("Cookie", "sid=1")
}

fn answer(status: &str) -> Behaviour {
    Behaviour::bytes(format!("HTTP/1.1 {status}\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n"))
}

/// Asks until `done`, as clients do that come back; the statuses that were seen last.
async fn knock(setup: &Setup, what: &str, done: impl AsyncFn() -> bool) -> u16 {
    let start = Instant::now();
    loop {
        let (answer, peer) = setup.client().ask(&page()).await;
        drop(peer);
        if done().await {
            return answer.status();
        }
        assert!(start.elapsed() < LIMIT, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_judges_is_told_when_it_gives_no_answer_and_not_when_it_says_no() {
    let asked = Recorder::start(answer("204 No Content")).await;
    let setup = fixture_with(&any_of(&[external(&json!({}))]), &service_as("sessions", "http", &[asked.port()])).await;
    let gateway = &setup.gateway;
    let labels = [("kind", "external"), ("name", "shop/sessions:8080")];
    let mut socket = setup.client().open(&page()).await;
    becomes(gateway, &labels, 1.0).await;

    // A no is an answer, and one failure among answers says nothing.
    asked.behave(answer("403 Forbidden"));
    let start = Instant::now();
    let fault = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&fault);
    knock(&setup, "eight seconds of answers", async || {
        let number = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        asked.behave(answer(if number % 4 == 3 { "500 Oops" } else { "403 Forbidden" }));
        start.elapsed() > Duration::from_secs(8)
    })
    .await;
    assert!(gateway.refusals(Some("external_unavailable")).await > 1.0);
    assert!(gateway.samples(UP, &[]).await == [1.0] && told(gateway).is_empty());

    asked.behave(answer("500 Oops"));
    let status = knock(&setup, "the outage to be told", async || !told(gateway).is_empty()).await;
    assert_eq!(status, 503);
    let line = told(gateway).pop().unwrap();
    assert_eq!(line["reason"], "ServiceUnavailable", "{line}");
    let problem = line["problem"].as_str().unwrap();
    assert!(problem.contains("methods[0].external.backendRef: Service shop/sessions:8080"), "{problem}");
    assert_eq!(gateway.samples(UP, &labels).await, [0.0]);
    socket.echo(&Frame::text("who is in stays")).await;

    // What flaps is not told each time: for ten seconds no failure may come.
    asked.behave(answer("204 No Content"));
    let calm = Instant::now();
    knock(&setup, "its end to be told", async || taken_back(gateway) == 1).await;
    assert!(calm.elapsed() > Duration::from_secs(9), "taken back after {:?}", calm.elapsed());
    becomes(gateway, &labels, 1.0).await;
    assert_eq!(told(gateway).len(), 1);

    // One without endpoints gives no answer either.
    gateway.edit("keys.yaml", &text(&service_as("sessions", "http", &[]))).await;
    let status = knock(&setup, "that there is nobody to ask", async || told(gateway).len() == 2).await;
    assert_eq!(status, 503);
    becomes(gateway, &labels, 0.0).await;

    // Nobody depends on it any more: neither does a metric speak of it.
    setup.respec(&json!({})).await;
    until(LIMIT, "the series to vanish", async || {
        (!gateway.get("/metrics").await.1.contains("shop/sessions")).then_some(())
    })
    .await;
}
