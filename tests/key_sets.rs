//! Key sets that are fetched: cached, one fetch at a time, bounded in size, time and number, never from where the gateway
//! may not go; and nobody else waits for an issuer that does not answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::issuer::{any_of, bearer, claims, config_map, method, scene_of, set, unauthorized};
use harness::manifests::{route, text};
use harness::{Authority, Behaviour, Key, Options, PATIENCE, Recorder, Setup, json, until};
use serde_json::Value;
use tempfile::NamedTempFile;

/// An issuer with a server of its own, and a gateway that trusts it.
struct Scene {
    issuer: Recorder,
    setup: Setup,
    _trusted: NamedTempFile,
}

fn answer(status: &str, body: &str) -> Behaviour {
    Behaviour::bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

fn keys(keys: &[&Key]) -> Behaviour {
    answer("200 OK", &set(keys).to_string())
}

fn remote(port: u16) -> Value {
    let uri = format!("https://127.0.0.1:{port}/jwks?key=canary-0123456789");
    method(&json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}}))
}

async fn scene(behaviour: Behaviour) -> Scene {
    let authority = Authority::new();
    let issuer = Recorder::start_tls(behaviour, authority.leaf(&["127.0.0.1"]).server()).await;
    let trusted = NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), authority.pem()).unwrap();
    let options =
        Options { env: vec![("SSL_CERT_FILE".into(), trusted.path().display().to_string())], ..Options::default() };
    let setup = scene_of(&any_of(&[remote(issuer.port())]), &[], &options).await;
    Scene { issuer, setup, _trusted: trusted }
}

fn token(key: &Key) -> harness::Head {
    bearer(&key.sign(&claims(&json!({}))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_several_keys_is_fetched_once_for_a_crowd_and_kept() {
    let (one, two, rsa) = (Key::es256("one"), Key::es256("two"), Key::rsa("three", "RS256"));
    let Scene { issuer, setup, .. } = scene(keys(&[&one, &two, &rsa])).await;
    let mut crowd = tokio::task::JoinSet::new();
    for place in 0..60 {
        let (client, head) = (setup.client(), token([&one, &two, &rsa][place % 3]));
        crowd.spawn(async move { client.ask(&head).await.0.status() });
    }
    assert!(crowd.join_all().await.into_iter().all(|status| status == 101));
    assert_eq!(issuer.count().0, 1, "one fetch for all");
    let asked = issuer.last().head();
    assert_eq!(asked.line, "GET /jwks?key=canary-0123456789 HTTP/1.1");
    assert_eq!((asked.count("cookie"), asked.count("authorization")), (0, 0));
    setup.gateway.metric_becomes("wssgate_key_set_fetches_total", &[("outcome", "ok")], 1.0).await;
    let said = setup.gateway.log_text() + &setup.gateway.get("/metrics").await.1;
    assert!(!said.contains("canary"), "the query of a URI may be a secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_new_is_fetched_and_ids_that_nobody_knows_cause_one_fetch_in_a_while() {
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    let Scene { issuer, setup, .. } = scene(keys(&[&old])).await;
    setup.admitted("the first key", &token(&old)).await;
    issuer.behave(keys(&[&new]));
    // Rotation under load: whoever holds a token of the new key waits for the one fetch, and no one is refused.
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (client, head) = (setup.client(), token(&new));
        crowd.spawn(async move { client.open(&head).await.close(1000, "").await.is_some() });
    }
    assert!(crowd.join_all().await.into_iter().all(|closed| closed), "E9 rotation");
    assert_eq!(issuer.count().0, 2);
    unauthorized(&setup, "the withdrawn key", &token(&old), "token_untrusted").await;
    let mut storm = tokio::task::JoinSet::new();
    for place in 0..300 {
        let (client, head) = (setup.client(), token(&Key::es256(&format!("storm-{place}"))));
        storm.spawn(async move { client.ask(&head).await.0.status() });
    }
    assert!(storm.join_all().await.into_iter().all(|status| status == 401), "E9 storm");
    assert_eq!(issuer.count().0, 2, "E9 within the cool-down nobody causes a fetch");
    setup.admitted("the good key all the while", &token(&new)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_fails_leaves_the_last_good_keys() {
    let (key, next) = (Key::es256("one"), Key::es256("next"));
    let Scene { issuer, setup, .. } = scene(keys(&[&key])).await;
    setup.admitted("fetched", &token(&key)).await;
    issuer.behave(answer("500 Internal Server Error", ""));
    // Makes the gateway ask again, which fails.
    unauthorized(&setup, "E11 an unknown key", &token(&next), "token_untrusted").await;
    setup.gateway.metric_becomes("wssgate_key_set_fetches_total", &[("outcome", "failed")], 1.0).await;
    setup.admitted("E11 the last good keys", &token(&key)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_no_key_set_are_refused_whole() {
    let key = Key::es256("one");
    let good = set(&[&key]).to_string();
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{}", " ".repeat(400 * 1024));
    for (case, behaviour) in [
        (
            "E10 a redirect",
            Behaviour::bytes("HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("another status", answer("203 Non-Authoritative Information", &good)),
        ("no JSON", answer("200 OK", "<html>")),
        ("a set without keys", answer("200 OK", r#"{"keys":[]}"#)),
        ("one key alone", answer("200 OK", &key.jwk().to_string())),
        ("E10 1 GB", Behaviour::bytes(large)),
        ("no HTTP", Behaviour::bytes("SSH-2.0-x\r\n")),
        ("a reset", Behaviour::Reset),
    ] {
        let Scene { issuer, setup, .. } = scene(behaviour).await;
        let answer = setup.refused(case, &token(&key), &[503], &["keys_unavailable"]).await;
        assert!(answer.field("www-authenticate").is_none() && answer.field("retry-after").is_some(), "{case}");
        assert_eq!(issuer.count().0, 1, "{case}: a source that fails is not asked again at once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_not_trusted_or_not_to_be_dialled_is_never_asked() {
    let key = Key::es256("one");
    let authority = Authority::new();
    // No SSL_CERT_FILE: the public CAs, of which the issuer's is none.
    let issuer = Recorder::start_tls(keys(&[&key]), authority.leaf(&["127.0.0.1"]).server()).await;
    let setup = scene_of(&any_of(&[remote(issuer.port())]), &[], &Options::default()).await;
    setup.refused("an unknown CA", &token(&key), &[503], &["keys_unavailable"]).await;
    assert_eq!(issuer.count().1, 0, "nothing was asked");
    for host in ["169.254.169.254", "[fe80::1]", "0.0.0.0", "224.0.0.1", "[::ffff:169.254.169.254]"] {
        let uri = format!("https://{host}/jwks");
        let jwt = method(&json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}}));
        let setup = scene_of(&any_of(&[jwt]), &[], &Options::default()).await;
        let start = Instant::now();
        setup.refused(&format!("E10 {host}"), &token(&key), &[503], &["keys_unavailable"]).await;
        assert!(start.elapsed() < Duration::from_secs(3), "E10 {host}: it was dialled");
        let refused = setup.gateway.logs();
        let refused = refused.iter().any(|line| line["problem"] == "its host has no address that the gateway may dial");
        assert!(refused, "E10 {host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_hangs_takes_no_places_of_others_and_a_bounded_time_of_its_own() {
    let key = Key::es256("one");
    let Scene { issuer, setup, .. } = scene(Behaviour::Unanswered).await;
    let second = any_of(&[method(&json!({}))]);
    let mut other = route("local", "local.example.com", "local-tls", "chat", &second);
    other["metadata"]["name"] = json!("local");
    let leaf = harness::manifests::secret("local-tls", &setup.authority.leaf(&["local.example.com"]));
    setup.gateway.edit("local.yaml", &text(&[other, leaf, config_map("idp", &set(&[&key]))])).await;
    let start = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..280 {
        let (client, head) = (setup.client(), token(&key));
        waiting.spawn(async move { client.ask(&head).await.0.status() });
    }
    until(PATIENCE, "the fetch that hangs", async || (issuer.count().0 > 0).then_some(())).await;
    let client = setup.client().named("local.example.com");
    for _ in 0..20 {
        let began = Instant::now();
        let (answer, _) = client.ask(&token(&key).set("Host", "local.example.com")).await;
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "a route that does not use the issuer waited");
    }
    let statuses = waiting.join_all().await;
    assert!(statuses.into_iter().all(|status| status == 503));
    assert!(start.elapsed() < Duration::from_secs(10), "the wait is bounded");
    assert!(issuer.count().0 <= 2, "one fetch at a time");
}
