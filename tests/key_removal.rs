//! A key that leaves its set ends what it admitted, where the route says so; and nothing else does.

use std::time::Duration;

use crate::harness::issuer::{any_of, bearer, claims, config_map, fixture_of, fixture_with, method, set};
use crate::harness::manifests::text;
use crate::harness::{Authority, Behaviour, Frame, Head, Key, Options, PATIENCE, Recorder, Setup, json, until};
use serde_json::Value;
use tempfile::NamedTempFile;

fn token(key: &Key) -> Head {
    bearer(&key.sign(&claims(&json!({}))))
}

async fn publish(setup: &Setup, set: &Value) {
    setup.gateway.edit("keys.yaml", &text(&[config_map("idp", set)])).await;
}

/// Connections that ended because their keys left.
async fn removed(setup: &Setup) -> f64 {
    let labels = [("reason", "key_removed")];
    setup.gateway.samples("wssgate_connections_closed_total", &labels).await.iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_leaves_its_set_closes_what_it_admitted_and_nothing_else() {
    let (one, two) = (Key::es256("one"), Key::es256("two"));
    let methods = any_of(&[method(&json!({"onKeyRemoval": "Close"}))]);
    let setup = fixture_with(&methods, &[config_map("idp", &set(&[&one, &two]))]).await;
    let mut first = setup.client().open(&token(&one)).await;
    let mut second = setup.client().open(&token(&two)).await;
    // Another order, another name of the same key, one more key, and a set that nobody can read.
    let mut renamed = set(&[&two, &one, &Key::es256("three")]);
    renamed["keys"][1]["kid"] = json!("uno");
    publish(&setup, &renamed).await;
    first.echo(&Frame::text("renamed")).await;
    // The set as it last could be read stays, so nothing newer is published for it: the log tells when it was read.
    setup.gateway.write("keys.yaml", &text(&[config_map("idp", &json!({"keys": "broken"}))]));
    let told = |line: &Value| line.to_string().contains("InvalidKeySet");
    setup.gateway.log_line("the broken set to be told", told).await;
    first.echo(&Frame::text("broken")).await;
    publish(&setup, &set(&[&one, &two])).await;
    first.echo(&Frame::text("as before")).await;

    publish(&setup, &set(&[&two])).await;
    assert_eq!(first.close_code().await.map(|(code, _)| code), Some(1008));
    second.echo(&Frame::text("the other key is still there")).await;
    until(PATIENCE, "the end to be counted", async || (removed(&setup).await == 1.0).then_some(())).await;

    // What a route says later counts for connections that are open.
    setup.respec(&any_of(&[method(&json!({}))])).await;
    publish(&setup, &set(&[&one])).await;
    second.echo(&Frame::text("kept")).await;
    setup.respec(&methods).await;
    assert_eq!(second.close_code().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_leaves_a_fetched_set_closes_and_an_issuer_that_fails_does_not() {
    let (one, two, three) = (Key::es256("one"), Key::es256("two"), Key::es256("three"));
    let answer = |status: &str, body: &str| {
        Behaviour::bytes(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    let authority = Authority::new();
    let all = answer("200 OK", &set(&[&one, &two]).to_string());
    let issuer = Recorder::start_tls(all, authority.leaf(&["127.0.0.1"]).server()).await;
    let trusted = NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), authority.pem()).unwrap();
    let env = vec![("SSL_CERT_FILE".into(), trusted.path().display().to_string())];
    let uri = format!("https://127.0.0.1:{}/jwks", issuer.port());
    let remote = json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}, "onKeyRemoval": "Close"});
    let setup = fixture_of(&any_of(&[method(&remote)]), &[], &Options { env, ..Options::default() }).await;
    let mut first = setup.client().open(&token(&one)).await;
    let mut second = setup.client().open(&token(&two)).await;
    // A token with an unknown id has the set fetched again; the fetch after one that failed begins within a minute.
    issuer.behave(answer("500 Oops", ""));
    setup.refused("no newer set", &token(&three), &[401], &["token_untrusted"]).await;
    first.echo(&Frame::text("the issuer fails")).await;
    issuer.behave(answer("200 OK", &set(&[&two, &three]).to_string()));
    assert_eq!(first.close_within(Duration::from_secs(90)).await.map(|(code, _)| code), Some(1008));
    second.echo(&Frame::text("its key is still there")).await;
    until(PATIENCE, "the end to be counted", async || (removed(&setup).await == 1.0).then_some(())).await;
}
