//! `handshake.rateLimit`: how often an address may try, what the one too many hears, and whom it does not touch.

use crate::harness::{self, Answer, Client, Head, Options, SOON, Setup, json, until};

fn attempts(members: serde_json::Value) -> serde_json::Value {
    json!({"handshake": {"rateLimit": members}})
}

/// One handshake from an address of the test's own; the connection is dropped.
async fn ask_from(client: &Client, source: &str, head: &Head) -> Answer {
    let mut peer = client.connect_over(client.tcp_from(source).await).await.unwrap();
    peer.write(&head.bytes()).await;
    peer.head().await.expect("an answer to the handshake")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_burst_passes_and_the_next_is_told_when_to_come_again() {
    let setup = Setup::new(&attempts(json!({"count": 1, "interval": "30s", "burst": 3}))).await;
    for n in 0..3 {
        setup.admitted(&format!("attempt {n}"), &Head::upgrade("/")).await;
    }
    let answer = setup.refused("the fourth", &Head::upgrade("/"), &[429], &["handshake_rate_limit"]).await;
    let wait: u64 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((20..=30).contains(&wait), "{answer:?}");
    // What is refused does not count: the time to wait does not grow.
    let again = setup.refused("the fifth", &Head::upgrade("/"), &[429], &["handshake_rate_limit"]).await;
    assert!(again.field("retry-after").unwrap().parse::<u64>().unwrap() <= wait);
    let line = setup.gateway.access_line("the refusal", |line| line["reason"] == "handshake_rate_limit").await;
    assert_eq!((&line["status"], &line["route"]), (&json!(429), &json!("shop/chat")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_addresses_are_not_touched_and_none_is_believed() {
    let setup = Setup::new(&attempts(json!({"count": 1, "interval": "1h", "burst": 2}))).await;
    let client = setup.client();
    for source in ["127.0.0.2", "127.0.0.3"] {
        for expected in [101, 101, 429] {
            assert_eq!(ask_from(&client, source, &Head::upgrade("/")).await.status(), expected, "{source}");
        }
    }
    let claims = Head::upgrade("/").add("X-Forwarded-For", "192.0.2.9").add("Forwarded", "for=192.0.2.9");
    let before = setup.recorder.count();
    assert_eq!(ask_from(&client, "127.0.0.2", &claims).await.status(), 429, "G7");
    setup.recorder.saw_nothing_since(before, "G7");
    assert_eq!(ask_from(&client, "127.0.0.4", &Head::upgrade("/")).await.status(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_gives_attempts_back() {
    let setup = Setup::new(&attempts(json!({"count": 1, "interval": "1s"}))).await;
    setup.admitted("the first", &Head::upgrade("/")).await;
    let answer = setup.refused("at once again", &Head::upgrade("/"), &[429], &["handshake_rate_limit"]).await;
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    until(SOON, "the next attempt to be free", async || {
        (setup.client().ask(&Head::upgrade("/")).await.0.status() == 101).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_resets_nothing_and_judging_again_does_not_count() {
    let spec = |extra: serde_json::Value| {
        let mut spec = attempts(json!({"count": 1, "interval": "1h", "burst": 4}));
        harness::manifests::merge(&mut spec, &extra);
        spec
    };
    let setup = Setup::new(&spec(json!({}))).await;
    let (mut first, mut second) = (setup.open().await, setup.open().await);
    for total in [50, 51, 52] {
        setup.respec(&spec(json!({"connection": {"limits": {"total": total}}}))).await;
        first.echo(&harness::Frame::text("still in")).await;
        second.echo(&harness::Frame::text("still in")).await;
    }
    // Two of four were used, however often the two were judged since.
    setup.admitted("the third", &Head::upgrade("/")).await;
    setup.admitted("the fourth", &Head::upgrade("/")).await;
    setup.refused("the fifth", &Head::upgrade("/"), &[429], &["handshake_rate_limit"]).await;
    setup.respec(&spec(json!({"connection": {"limits": {"total": 53}}}))).await;
    setup.refused("after another swap", &Head::upgrade("/"), &[429], &["handshake_rate_limit"]).await;
    // A tighter limit ends nobody who is in.
    setup.respec(&attempts(json!({"count": 1, "interval": "1h", "burst": 1}))).await;
    first.echo(&harness::Frame::text("in for good")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_judged_after_the_origin_and_before_the_subprotocol() {
    let spec = json!({"handshake": {
        "rateLimit": {"count": 1, "interval": "1h", "burst": 2}, "subprotocols": ["chat.v2"],
    }});
    let setup = Setup::new(&spec).await;
    let foreign = Head::upgrade("/").add("Origin", "https://evil.test").add("Sec-WebSocket-Protocol", "chat.v2");
    for _ in 0..3 {
        setup.refused("a foreign page uses nobody's attempts", &foreign, &[403], &["origin_denied"]).await;
    }
    let wrong = Head::upgrade("/").add("Sec-WebSocket-Protocol", "chat.v1");
    for _ in 0..2 {
        setup.refused("no subprotocol, counted", &wrong, &[400], &["subprotocol_denied"]).await;
    }
    setup.refused("too many", &wrong, &[429], &["handshake_rate_limit"]).await;
    setup.refused("the origin comes first", &foreign, &[403], &["origin_denied"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_of_the_class_applies_to_routes_that_say_nothing() {
    let defaults = json!({"defaults": {"handshake": {"rateLimit": {"count": 1, "interval": "1h"}}}});
    let options = Options::settings(&defaults);
    let setup = Setup::with(harness::Behaviour::Echo, &json!({}), &options).await;
    setup.admitted("the first", &Head::upgrade("/")).await;
    setup.refused("the second", &Head::upgrade("/"), &[429], &["handshake_rate_limit"]).await;
    setup.respec(&attempts(json!({"count": 5, "interval": "1s"}))).await;
    // What was used up stays used, but comes back at the route's own pace.
    until(SOON, "the route's own limit to win", async || {
        (setup.client().ask(&Head::upgrade("/")).await.0.status() == 101).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_tokens_ends_soon_is_seen_and_does_not_touch_others() {
    let key = harness::Key::es256("one");
    let mut spec = harness::issuer::any_of(&[harness::issuer::method(&json!({}))]);
    harness::manifests::merge(&mut spec, &attempts(json!({"count": 1, "interval": "1h", "burst": 15})));
    let authority = harness::Authority::new();
    let recorder = harness::Recorder::start(harness::Behaviour::Echo).await;
    let keys = [harness::issuer::config_map("idp", &harness::issuer::set(&[&key]))];
    let manifests = harness::setup::manifests(&authority, &recorder, &spec).with("keys.yaml", &keys);
    let gateway = harness::Gateway::start_with(&manifests, &Options::default()).await;
    let setup = Setup { authority, recorder, gateway };
    let bearer = |key: &harness::Key| {
        let token = key.sign(&harness::issuer::claims(&json!({})));
        Head::upgrade("/").add("Authorization", format!("Bearer {token}"))
    };
    let (client, forger) = (setup.client(), harness::Key::es256("one"));
    for n in 0..40 {
        let status = ask_from(&client, "127.0.0.2", &bearer(&forger)).await.status();
        assert_eq!(status, if n < 15 { 401 } else { 429 }, "E18 guess {n}");
    }
    // Not even a good one any more from there; from elsewhere nobody notices.
    assert_eq!(ask_from(&client, "127.0.0.2", &bearer(&key)).await.status(), 429, "E18");
    assert_eq!(setup.recorder.count(), (0, 0), "E18: nothing reached the backend");
    assert_eq!(ask_from(&client, "127.0.0.3", &bearer(&key)).await.status(), 101, "E18");
    // One query shows it, by route and reason, and the log says from where, in a few lines.
    for (reason, count) in [("token_untrusted", 15.0), ("handshake_rate_limit", 26.0)] {
        let labels = [("route", "shop/chat"), ("outcome", "refused"), ("reason", reason)];
        setup.gateway.metric_becomes("wssgate_handshakes_total", &labels, count).await;
        let line = setup.gateway.access_line("the refusals", |line| line["reason"] == reason).await;
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.2:"), "{line}");
    }
}
