//! Ceilings of the settings: what a route sets beyond them is served at the ceiling, its status says so, and a change of the
//! settings is followed under open sockets.

use std::process::Command;

use serde_json::Value;

use crate::harness::gateway::configuration;
use crate::harness::issuer::{any_of, bearer, claims, config_map, method, set};
use crate::harness::manifests::merge;
use crate::harness::{Behaviour, Frame, Head, Key, Options, PATIENCE, Peer, Setup, json, until};

/// Settings with these ceilings of every namespace.
fn of_all(limits: &Value) -> Value {
    json!({"ceilings": {"default": limits}})
}

/// Edits the settings and waits until the gateway serves by them.
async fn configure(setup: &Setup, members: &Value) {
    let before = setup.gateway.version().await;
    setup.gateway.configure(&format!("{:#}", configuration(members)));
    setup.gateway.published_after(before).await;
}

/// What `wssgate check` says of the manifests with these settings: status, reason and message of a condition.
fn condition(setup: &Setup, settings: &Value, wanted: &str) -> Option<(String, String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    std::fs::write(&file, format!("{:#}", configuration(settings))).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    check.env_clear().args(["check", "--output", "json", "--config"]).arg(file).arg(setup.gateway.manifests());
    let report: Value = serde_json::from_slice(&check.output().unwrap().stdout).unwrap();
    let conditions = report["items"][0]["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == wanted)?;
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

async fn code_of(peer: &mut Peer, size: usize) -> Option<u16> {
    peer.send(&Frame::binary(vec![1; size])).await;
    peer.close_code().await.map(|(code, _)| code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_beyond_a_ceiling_is_served_at_the_ceiling_and_its_status_says_so() {
    let spec = json!({
        "connection": {"limits": {"total": 50}}, "messages": {"fromClient": {"maxSize": 1000}, "fromBackend": {"maxSize": 900}},
    });
    let settings = of_all(&json!({"total": 2, "maxSize": {"fromClient": 100, "fromBackend": 50}}));
    let setup = Setup::with(Behaviour::Echo, &spec, &Options::settings(&settings)).await;
    let (mut first, mut second) = (setup.open().await, setup.open().await);
    setup.refused("the third", &Head::upgrade("/"), &[503], &["total_limit"]).await;
    first.echo(&Frame::binary(vec![1; 50])).await;
    // The echo of 51 bytes is more than the backend may send; 101 are more than the client may.
    assert_eq!(code_of(&mut first, 51).await, Some(1011));
    assert_eq!(code_of(&mut second, 101).await, Some(1009));
    let (status, reason, message) = condition(&setup, &settings, "CeilingApplied").unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AboveCeiling"));
    for said in [
        "spec.connection.limits.total: 50 is more than the ceiling of every namespace, 2",
        "spec.messages.fromClient.maxSize: 1000 is more than the ceiling of every namespace, 100",
        "spec.messages.fromBackend.maxSize: 900 is more than the ceiling of every namespace, 50",
    ] {
        assert!(message.contains(said), "{message}");
    }
    assert_eq!(condition(&setup, &settings, "Ready").unwrap().0, "True");
    assert_eq!(condition(&setup, &json!({}), "CeilingApplied"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_sets_no_limit_has_no_more_than_the_ceilings_of_its_namespace() {
    let key = Key::es256("a");
    let spec = any_of(&[method(&json!({}))]);
    let limits = |limits: &Value| json!({"ceilings": {"default": {"perSubject": 1}, "namespaces": [{"names": ["shop"], "limits": limits}]}});
    let options = Options::settings(&limits(&json!({"perSubject": 2})));
    let keys = config_map("idp", &set(&[&key]));
    let setup = Setup::beside(Behaviour::Echo, &spec, &options, |manifests| manifests.with("keys.yaml", &[keys])).await;
    let of = |subject: &str| bearer(&key.sign(&claims(&json!({"sub": subject}))));
    let peers = (setup.client().open(&of("ada")).await, setup.client().open(&of("ada")).await);
    setup.refused("the third of a subject", &of("ada"), &[429], &["subject_limit"]).await;
    setup.admitted("another subject", &of("bob")).await;
    configure(&setup, &limits(&json!({"perAddress": 2}))).await;
    setup.refused("the third of an address", &of("bob"), &[429], &["address_limit"]).await;
    assert_eq!(condition(&setup, &limits(&json!({"perAddress": 2})), "CeilingApplied"), None);
    let mut spec = spec.clone();
    merge(&mut spec, &json!({"connection": {"limits": {"perAddress": 1}}}));
    drop(peers);
    setup.respec(&spec).await;
    let _one = until(PATIENCE, "a place", async || {
        let (answer, peer) = setup.client().ask(&of("bob")).await;
        (answer.status() == 101).then_some(peer)
    })
    .await;
    setup.refused("more than the route's own limit", &of("eve"), &[429], &["address_limit"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ceilings_change_under_open_sockets_as_limits_of_a_route_do() {
    let ceilings = |total: u32, size: u32| of_all(&json!({"total": total, "maxSize": {"fromClient": size}}));
    let spec = json!({"connection": {"limits": {"total": 3}}});
    let setup = Setup::with(Behaviour::Echo, &spec, &Options::settings(&ceilings(5, 100))).await;
    let mut peers = [setup.open().await, setup.open().await, setup.open().await];
    setup.refused("the fourth of three", &Head::upgrade("/"), &[503], &["total_limit"]).await;
    configure(&setup, &ceilings(1, 10)).await;
    for peer in &mut peers {
        peer.echo(&Frame::text("still here")).await;
    }
    let [first, second, mut third] = peers;
    assert_eq!(code_of(&mut third, 11).await, Some(1009), "a live connection has the new size");
    drop((first, second));
    let mut one = until(PATIENCE, "the place of the last of three", async || {
        let (answer, peer) = setup.client().ask(&Head::upgrade("/")).await;
        (answer.status() == 101).then_some(peer)
    })
    .await;
    setup.refused("the second of one", &Head::upgrade("/"), &[503], &["total_limit"]).await;
    configure(&setup, &json!({})).await;
    one.echo(&Frame::binary(vec![1; 1000])).await;
    let _more = (setup.open().await, setup.open().await);
    setup.refused("the route's own limit", &Head::upgrade("/"), &[503], &["total_limit"]).await;
}
