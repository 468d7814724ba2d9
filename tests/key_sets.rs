//! Key sets that are fetched: cached, one fetch at a time, bounded in size, time and number, never from where the gateway
//! may not go; and nobody else waits for an issuer that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::issuer::{any_of, bearer, claims, config_map, fixture_of, method, set, unauthorized};
use crate::harness::manifests::{route, text};
use crate::harness::{self, Authority, Behaviour, Frame, Key, Options, PATIENCE, Recorder, Setup, json, until};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::sync::watch;

/// An issuer with a server of its own, and a gateway that trusts it.
struct Fixture {
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

async fn fixture(behaviour: Behaviour) -> Fixture {
    let authority = Authority::new();
    let issuer = Recorder::start_tls(behaviour, authority.leaf(&["127.0.0.1"]).server()).await;
    let trusted = NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), authority.pem()).unwrap();
    let options =
        Options { env: vec![("SSL_CERT_FILE".into(), trusted.path().display().to_string())], ..Options::default() };
    let setup = fixture_of(&any_of(&[remote(issuer.port())]), &[], &options).await;
    Fixture { issuer, setup, _trusted: trusted }
}

fn token(key: &Key) -> harness::Head {
    bearer(&key.sign(&claims(&json!({}))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_of_several_keys_is_fetched_once_for_a_crowd_and_kept() {
    let (one, two, rsa) = (Key::es256("one"), Key::es256("two"), Key::rsa("three", "RS256"));
    let Fixture { issuer, setup, .. } = fixture(keys(&[&one, &two, &rsa])).await;
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
    assert!(asked.field("cdn-loop").is_some_and(|hop| hop.starts_with("wssgate-")), "{asked:?}");
    setup.gateway.metric_becomes("wssgate_jwks_fetches_total", &[("outcome", "success")], 1.0).await;
    let said = setup.gateway.log_text() + &setup.gateway.get("/metrics").await.1;
    assert!(!said.contains("canary"), "the query of a URI may be a secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_new_is_fetched_and_ids_that_nobody_knows_cause_one_fetch_in_a_while() {
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    let Fixture { issuer, setup, .. } = fixture(keys(&[&old])).await;
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
    let Fixture { issuer, setup, .. } = fixture(keys(&[&key])).await;
    setup.admitted("fetched", &token(&key)).await;
    issuer.behave(answer("500 Internal Server Error", ""));
    // Makes the gateway ask again, which fails.
    unauthorized(&setup, "E11 an unknown key", &token(&next), "token_untrusted").await;
    setup.gateway.metric_becomes("wssgate_jwks_fetches_total", &[("outcome", "failure")], 1.0).await;
    setup.admitted("E11 the last good keys", &token(&key)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_no_key_set_are_refused_whole() {
    let key = Key::es256("one");
    let good = set(&[&key]).to_string();
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{}", " ".repeat(400 * 1024));
    for (case, behaviour) in [
        ("another status", answer("203 Non-Authoritative Information", &good)),
        ("no JSON", answer("200 OK", "<html>")),
        ("a set without keys", answer("200 OK", r#"{"keys":[]}"#)),
        ("one key alone", answer("200 OK", &key.jwk().to_string())),
        ("E10 1 GB", Behaviour::bytes(large)),
        ("no HTTP", Behaviour::bytes("SSH-2.0-x\r\n")),
        ("a reset", Behaviour::Reset),
    ] {
        let Fixture { issuer, setup, .. } = fixture(behaviour).await;
        let answer = setup.refused(case, &token(&key), &[503], &["keys_unavailable"]).await;
        assert!(answer.field("www-authenticate").is_none() && answer.field("retry-after").is_some(), "{case}");
        assert_eq!(issuer.count().0, 1, "{case}: a source that fails is not asked again at once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_not_followed_and_a_body_that_does_not_end_is_given_up() {
    let key = Key::es256("one");
    let inside = Recorder::start(keys(&[&key])).await;
    let Fixture { issuer, setup, .. } = fixture(keys(&[&key])).await;
    setup.admitted("fetched", &token(&key)).await;
    for (case, status) in [("E10 moved", "301 Moved Permanently"), ("E10 see there", "307 Temporary Redirect")] {
        for scheme in ["http", "https"] {
            let place = format!("{scheme}://127.0.0.1:{}/jwks", inside.port());
            let moved = format!("HTTP/1.1 {status}\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n");
            let Fixture { issuer, setup, .. } = fixture(Behaviour::bytes(moved)).await;
            setup.refused(case, &token(&key), &[503], &["keys_unavailable"]).await;
            assert_eq!((issuer.count().0, inside.count().0), (1, 0), "{case} {scheme}: it was followed");
        }
    }
    issuer.behave(Behaviour::bytes("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"keys\":["));
    let start = Instant::now();
    let (answer, _) = setup.client().ask(&token(&Key::es256("next"))).await;
    assert_eq!(answer.status(), 401, "E10 an unknown key, and a body that does not end: {answer:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "E10: nobody waits for the end of it");
    setup.gateway.metric_becomes("wssgate_jwks_fetches_total", &[("outcome", "failure")], 1.0).await;
    assert_eq!(issuer.count().0, 2);
    setup.admitted("E10 the last good keys", &token(&key)).await;
}

/// The set that a provider of OpenID Connect publishes (as Keycloak, Entra ID and Google do): beside the keys that sign,
/// with their certificates, stand keys for encryption, of types and curves that are not ours, and members that nobody
/// here knows.
fn published(signing: &[&Key]) -> Value {
    let certified = |mut key: Value, members: Value| {
        let more = json!({
            "x5c": ["MIICnTCCAYUCBgGF", "MIIDBTCCAe2gAwIBAgIQ"], "x5t": "0HvOgdvDLnyzKgqXQCFWhGXCFzw",
            "x5t#S256": "bDXyFWRWpLDJGFvQrGBVvMLPzXbnGLbUZKCkQhqWyyI", "issuer": "https://login.example.com/{tenant}/v2.0",
            "nbf": 1_493_763_266, "exp": 2_000_000_000, "ext": true, "key_size": 2048, "cloud": {"instance": ["eu"]},
        });
        harness::manifests::merge(&mut key, &more);
        harness::manifests::merge(&mut key, &members);
        key
    };
    let encryption = Key::rsa("enc", "RS256").jwk();
    let mut list = vec![
        certified(encryption, json!({"use": "enc", "alg": "RSA-OAEP"})),
        json!({"kty": "EC", "kid": "p521", "use": "sig", "alg": "ES512", "crv": "P-521", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "kid": "k1", "use": "sig", "alg": "ES256K", "crv": "secp256k1", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "kid": "x25519", "use": "enc", "crv": "X25519", "x": "AA"}),
        json!({"kty": "AKP", "kid": "pq", "use": "sig", "alg": "ML-DSA-44", "pub": "AA"}),
        json!({"kty": "oct", "kid": "mac", "use": "sig", "alg": "HS256", "k": "A".repeat(43)}),
    ];
    for key in signing {
        let alg = key.header()["alg"].clone();
        list.push(certified(key.jwk(), json!({"use": "sig", "alg": alg, "key_ops": ["verify"]})));
    }
    json!({"keys": list, "issuer": "https://login.example.com", "cache_until": 2_000_000_000})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_rotates_its_keys_under_load_and_nobody_is_refused() {
    let (old, new) = (Arc::new(Key::rsa("2026-01", "RS256")), Arc::new(Key::rsa("2026-02", "RS256")));
    let publish = |keys: &[&Key]| answer("200 OK", &published(keys).to_string());
    let Fixture { issuer, setup, .. } = fixture(publish(&[&old])).await;
    let mut held = setup.client().open(&token(&old)).await;
    // Eight clients come and go all the while with tokens of the key that signs now.
    let (signer, done, stop) =
        (watch::Sender::new(old.clone()), Arc::new(AtomicUsize::new(0)), watch::Sender::new(false));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, signer, done, stop) = (setup.client(), signer.subscribe(), done.clone(), stop.subscribe());
        load.spawn(async move {
            while !*stop.borrow() {
                let head = token(&signer.borrow().clone());
                let (answer, peer) = client.ask(&head).await;
                assert_eq!(answer.status(), 101, "E9 {answer:?}");
                assert!(peer.close(1000, "").await.is_some());
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let forty_more = async |phase: &str| {
        let before = done.load(Ordering::SeqCst);
        until(PATIENCE, phase, async || (done.load(Ordering::SeqCst) >= before + 40).then_some(())).await;
    };
    forty_more("the old key alone").await;
    issuer.behave(publish(&[&old, &new]));
    forty_more("both published, the old one signs").await;
    signer.send_replace(new.clone());
    forty_more("the new one signs").await;
    setup.admitted("E9 a token that the old key signed a moment ago", &token(&old)).await;
    issuer.behave(publish(&[&new]));
    forty_more("the old one is withdrawn").await;
    stop.send_replace(true);
    load.join_all().await;
    assert_eq!(issuer.count().0, 2, "E9: one fetch at first, one for the new key");
    held.echo(&Frame::text("who came with the old key is still in")).await;
    for kid in ["enc", "p521", "mac", "pq"] {
        let mut header = new.header();
        header["kid"] = json!(kid);
        let head = bearer(&new.sign_as(&header, &claims(&json!({}))));
        unauthorized(&setup, &format!("the id of the key {kid}"), &head, "token_untrusted").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_is_not_trusted_or_at_a_blocked_address_is_never_asked() {
    let key = Key::es256("one");
    let authority = Authority::new();
    // No SSL_CERT_FILE: the public CAs, of which the issuer's is none.
    let issuer = Recorder::start_tls(keys(&[&key]), authority.leaf(&["127.0.0.1"]).server()).await;
    let setup = fixture_of(&any_of(&[remote(issuer.port())]), &[], &Options::default()).await;
    setup.refused("an unknown CA", &token(&key), &[503], &["keys_unavailable"]).await;
    assert_eq!(issuer.count().1, 0, "nothing was asked");
    for host in ["169.254.169.254", "[fe80::1]", "0.0.0.0", "224.0.0.1", "[::ffff:169.254.169.254]"] {
        let uri = format!("https://{host}/jwks");
        let jwt = method(&json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}}));
        let setup = fixture_of(&any_of(&[jwt]), &[], &Options::default()).await;
        let start = Instant::now();
        setup.refused(&format!("E10 {host}"), &token(&key), &[503], &["keys_unavailable"]).await;
        assert!(start.elapsed() < Duration::from_secs(3), "E10 {host}: it was dialled");
        let refused = setup.gateway.logs();
        let refused =
            refused.iter().any(|line| line["problem"] == "its host has no address that the gateway may connect to");
        assert!(refused, "E10 {host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_hangs_takes_no_places_of_others_and_a_bounded_time_of_its_own() {
    let key = Key::es256("one");
    let Fixture { issuer, setup, .. } = fixture(Behaviour::Unanswered).await;
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
