//! What becomes of live connections when their credential expires or their route changes, and how many a subject may have.

use crate::harness::issuer::{
    any_of, bearer, claims, config_map, fixture, fixture_with, method, now, set, unauthorized,
};
use crate::harness::manifests::{merge, route, text};
use crate::harness::{self, Frame, Key, Peer, Setup, json};
use serde_json::Value;

async fn open(setup: &Setup, key: &Key, change: &Value) -> Peer {
    setup.client().open(&bearer(&key.sign(&claims(change)))).await
}

/// The connection is closed with 1008, for this reason.
async fn withdrawn(setup: &Setup, mut peer: Peer, case: &str, reason: &str) {
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008), "{case}");
    drop(peer);
    setup.gateway.access_line(case, |line| line["event"] == "closed" && line["reason"] == reason).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_credential_unless_the_route_keeps_it() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({})).await;
    let mut keeping = any_of(&[method(&json!({}))]);
    keeping["connection"] = json!({"onCredentialExpiry": "Keep"});
    keeping["rules"] = json!([{
        "name": "keep", "matches": [{"path": {"type": "PathPrefix", "value": "/keep"}}],
        "backendRefs": [{"name": "chat", "port": 8080}],
    }]);
    keeping["tls"] = Value::Null;
    let keep = route("keep", harness::HOST, "chat-tls", "chat", &keeping);
    setup.gateway.edit("keep.yaml", &text(&[keep])).await;
    let expires = now() + 3;
    let token = key.sign(&claims(&json!({"exp": expires})));
    let mut kept = setup.client().open(&bearer(&token).line("GET /keep HTTP/1.1")).await;
    let mut long = open(&setup, &key, &json!({})).await;
    let mut short = setup.client().open(&bearer(&token)).await;
    short.echo(&Frame::text("before")).await;
    withdrawn(&setup, short, "E17 expiry", "credential_expired").await;
    assert!(now() <= expires + 5, "E17: within 5 s of its time");
    kept.echo(&Frame::text("still here")).await;
    long.echo(&Frame::text("as is who has more time")).await;
    // Nothing is counted as an access that was withdrawn.
    let closes = [("reason", "credential_expired"), ("initiator", "gateway")];
    assert!((setup.gateway.metric("wssgate_connections_closed_total", &closes).await - 1.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_closes_those_whom_it_no_longer_admits_and_nobody_else() {
    let (key, next) = (Key::es256("one"), Key::es256("next"));
    let setup = fixture(&[&key], &json!({"audiences": ["chat", "voice"]})).await;
    let mut voice = open(&setup, &key, &json!({"aud": "voice", "scope": "chat"})).await;
    let mut reader = open(&setup, &key, &json!({"scope": "read"})).await;
    let mut chatter = open(&setup, &key, &json!({"scope": "chat read"})).await;
    // A rotation closes nobody: who came by the old key stays until the token is over.
    setup.gateway.edit("keys.yaml", &text(&[config_map("idp", &set(&[&next]))])).await;
    let old = bearer(&key.sign(&claims(&json!({}))));
    unauthorized(&setup, "the old key for new connections", &old, "token_untrusted").await;
    for peer in [&mut voice, &mut reader, &mut chatter] {
        peer.echo(&Frame::text("after the rotation")).await;
    }
    setup.respec(&any_of(&[method(&json!({"audiences": ["chat"]}))])).await;
    withdrawn(&setup, voice, "a narrower audience", "access_withdrawn").await;
    let required = json!({"requiredClaims": [{"name": "scope", "contains": "chat"}]});
    setup.respec(&any_of(&[method(&required)])).await;
    withdrawn(&setup, reader, "a claim that is now required", "access_withdrawn").await;
    chatter.echo(&Frame::text("has the claim")).await;
    // Another method of the name, which vouches for nobody who is here.
    let mut other = required.clone();
    merge(&mut other, &json!({"issuer": "https://other.example.com"}));
    setup.respec(&any_of(&[method(&other)])).await;
    withdrawn(&setup, chatter, "a removed issuer", "access_withdrawn").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_anonymous_is_not_admitted_by_a_route_that_begins_to_authenticate() {
    let key = Key::es256("one");
    let anonymous = json!({"handshake": {"authentication": {"mode": "Anonymous"}}});
    let setup = fixture_with(&anonymous, &[config_map("idp", &set(&[&key]))]).await;
    let peer = setup.open().await;
    setup.respec(&any_of(&[method(&json!({}))])).await;
    withdrawn(&setup, peer, "no proof", "access_withdrawn").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_gone_close_everyone_and_come_back_by_themselves() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({})).await;
    let peer = open(&setup, &key, &json!({})).await;
    setup.gateway.remove("keys.yaml").await;
    withdrawn(&setup, peer, "lost authority", "access_withdrawn").await;
    let head = bearer(&key.sign(&claims(&json!({}))));
    setup.refused("without its keys", &head, &[503], &["route_unavailable"]).await;
    setup.gateway.edit("keys.yaml", &text(&[config_map("idp", &set(&[&key]))])).await;
    setup.admitted("mended", &head).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_so_many_connections_and_is_one_only_with_its_issuer() {
    let (key, theirs) = (Key::es256("one"), Key::es256("two"));
    let partners = json!({"name": "partners", "type": "JWT", "jwt": {
        "issuer": "https://partners.example.com", "audiences": ["chat"],
        "jwks": {"type": "Local", "local": {"ref": {"name": "partners", "key": "jwks.json"}}},
    }});
    let mut spec = any_of(&[method(&json!({})), partners]);
    spec["connection"] = json!({"limits": {"perSubject": 2}});
    let objects = [config_map("idp", &set(&[&key])), config_map("partners", &set(&[&theirs]))];
    let setup = fixture_with(&spec, &objects).await;
    let (first, _second) = (open(&setup, &key, &json!({})).await, open(&setup, &key, &json!({"jti": "x"})).await);
    let ada = bearer(&key.sign(&claims(&json!({}))));
    let answer = setup.refused("the third", &ada, &[429], &["subject_limit"]).await;
    assert!(answer.field("retry-after").is_some());
    let _bob = open(&setup, &key, &json!({"sub": "bob"})).await;
    let _their_ada = open(&setup, &theirs, &json!({"iss": "https://partners.example.com"})).await;
    // A change of the route frees no place.
    spec["connection"]["maxDuration"] = json!("1h");
    setup.respec(&spec).await;
    setup.refused("after an edit", &ada, &[429], &["subject_limit"]).await;
    assert_eq!(first.close(1000, "").await.map(|(code, _)| code), Some(1000));
    setup.gateway.metric_becomes("wssgate_connections", &[], 3.0).await;
    setup.admitted("a place that is free again", &ada).await;
    let nobody = bearer(&key.sign(&claims(&json!({"sub": null}))));
    unauthorized(&setup, "who cannot be told apart cannot be counted", &nobody, "token_claims").await;
}
