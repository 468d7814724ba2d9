//! Group E, tokens: who gets in, and what the backend sees of it. The oracle of every refusal is an upstream that saw
//! nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use harness::issuer::{ISSUER, any_of, claims, config_map, method, now, set};
use harness::setup::manifests;
use harness::{Answer, Authority, Behaviour, Gateway, Head, Key, Options, Recorder, Setup, json};
use serde_json::Value;

/// The usual scene with one method, whose keys are these.
async fn scene(keys: &[&Key], jwt: &Value) -> Setup {
    scene_with(&any_of(&[method(jwt)]), &[config_map("idp", &set(keys))]).await
}

/// The usual scene with more objects.
async fn scene_with(spec: &Value, objects: &[Value]) -> Setup {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let manifests = manifests(&authority, &recorder, spec).with("keys.yaml", objects);
    let gateway = Gateway::start_with(&manifests, &Options::default()).await;
    Setup { authority, recorder, gateway }
}

fn bearer(token: &str) -> Head {
    Head::upgrade("/").add("Authorization", format!("Bearer {token}"))
}

/// A 401 with its challenge, counted under one of the reasons.
async fn unauthorized(setup: &Setup, case: &str, head: &Head, reason: &str) -> Answer {
    let answer = setup.refused(case, head, &[401], &[reason]).await;
    let challenge = answer.field("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{case}: {answer:?}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_token_gets_in_and_everything_else_does_not() {
    let key = Key::es256("one");
    let setup = scene(&[&key], &json!({})).await;
    let good = key.sign(&claims(&json!({})));
    setup.admitted("a good token", &bearer(&good)).await;
    let answer = unauthorized(&setup, "no token", &Head::upgrade("/"), "credential_missing").await;
    assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer"));
    let foreign = Key::es256("one").sign(&claims(&json!({})));
    let answer = unauthorized(&setup, "another key", &bearer(&foreign), "token_untrusted").await;
    assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer error=\"invalid_token\""));
    let old = key.sign(&claims(&json!({"exp": now() - 31})));
    unauthorized(&setup, "expired", &bearer(&old), "token_expired").await;
    unauthorized(
        &setup,
        "an issuer that nobody knows",
        &bearer(&key.sign(&claims(&json!({"iss": "x"})))),
        "token_claims",
    )
    .await;
    assert_eq!(ISSUER, "https://idp.example.com");
}
