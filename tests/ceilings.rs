//! Ceilings of the settings: what a route sets beyond them is served at the ceiling, its status says so, and a change of the
//! settings is followed under open sockets.

use std::process::Command;

use serde_json::Value;

use crate::harness::gateway::configuration;
use crate::harness::issuer::{any_of, bearer, claims, config_map, method, set};
use crate::harness::manifests::{merge, route, secret, service, text};
use crate::harness::setup::{HOST, manifests};
use crate::harness::{
    Authority, Behaviour, Frame, Gateway, Head, Key, Options, PATIENCE, Peer, Recorder, Setup, json, until,
};

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

/// The host of another tenant.
const OTHER: &str = "other.example.com";

/// The usual route with a second one beside it at `/second`, and a route of namespace `bank` for a host of its own.
async fn three_routes(settings: &Value) -> Setup {
    let (authority, recorder) = (Authority::new(), Recorder::start(Behaviour::Echo).await);
    let rule = json!({"name": "second", "matches": [{"path": {"value": "/second"}}], "backendRefs": [{"name": "chat", "port": 8080}]});
    let second = route("second", HOST, "chat-tls", "chat", &json!({"tls": null, "rules": [rule]}));
    let mut others =
        vec![secret("own-tls", &authority.leaf(&[OTHER])), route("own", OTHER, "own-tls", "own", &json!({}))];
    others.extend(service("own", &[recorder.port()]));
    others.iter_mut().for_each(|object| object["metadata"]["namespace"] = json!("bank"));
    let manifests =
        manifests(&authority, &recorder, &json!({})).with("second.yaml", &[second]).with("bank.yaml", &others);
    let gateway = Gateway::start_with(&manifests, &Options::settings(settings)).await;
    Setup { authority, recorder, gateway }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routes_of_a_namespace_have_no_more_sockets_together_than_its_ceiling() {
    let shop =
        |sockets: u32| json!({"ceilings": {"namespaces": [{"names": ["shop"], "limits": {"sockets": sockets}}]}});
    let setup = three_routes(&shop(2)).await;
    let mut first = setup.open().await;
    let second = setup.client().open(&Head::upgrade("/second")).await;
    for path in ["/", "/second"] {
        let answer = setup.refused(path, &Head::upgrade(path), &[503], &["namespace_limit"]).await;
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    // Another tenant is not counted.
    let other = setup.client().named(OTHER);
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(other.open(&Head::upgrade("/").set("Host", OTHER)).await);
    }
    configure(&setup, &shop(1)).await;
    first.echo(&Frame::text("a lower ceiling closes nobody")).await;
    drop(second);
    setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/second")], 0.0).await;
    setup.refused("the second of one", &Head::upgrade("/second"), &[503], &["namespace_limit"]).await;
    configure(&setup, &shop(2)).await;
    until(PATIENCE, "a place by the higher ceiling", async || {
        (setup.client().ask(&Head::upgrade("/second")).await.0.status() == 101).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_beyond_the_number_of_its_namespace_is_not_served_and_its_connections_end() {
    let setup = three_routes(&json!({})).await;
    let mut peer = setup.client().open(&Head::upgrade("/second")).await;
    let mut kept = setup.open().await;
    let one = json!({"ceilings": {"default": {"routes": 1}}});
    configure(&setup, &one).await;
    let close = peer.close_code().await.map(|(code, _)| code);
    assert_eq!(close, Some(1012), "lost authority fails closed");
    kept.echo(&Frame::text("the first route is served")).await;
    let told = setup.gateway.log_line("the condition", |line| line["route"] == "shop/second").await;
    let problem = told["problem"].as_str().unwrap();
    assert!(problem.contains("the ceiling of every namespace (routes: 1) is reached"), "{told}");
    // Its paths belong to the route that is served.
    configure(&setup, &json!({})).await;
    setup.client().open(&Head::upgrade("/second")).await.echo(&Frame::text("back")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_no_more_outstanding_tickets_than_the_ceiling() {
    let key = Key::es256("a");
    let ticket = json!({"name": "ticket", "type": "Ticket", "ticket": {"path": "/ticket"}});
    let spec = any_of(&[method(&json!({})), ticket]);
    let keys = config_map("idp", &set(&[&key]));
    let options = Options::settings(&of_all(&json!({"ticketsPerSubject": 2})));
    let setup = Setup::beside(Behaviour::Echo, &spec, &options, |manifests| manifests.with("keys.yaml", &[keys])).await;
    let post = |subject: &str| {
        let token = key.sign(&claims(&json!({"sub": subject})));
        let head = Head::request("POST /ticket HTTP/1.1").add("Content-Length", "0");
        head.add("Authorization", format!("Bearer {token}"))
    };
    for number in 0..2 {
        assert_eq!(setup.client().ask(&post("ada")).await.0.status(), 200, "ticket {number}");
    }
    setup.refused("the third", &post("ada"), &[429], &["ticket_limit"]).await;
    assert_eq!(setup.client().ask(&post("bob")).await.0.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ceilings_follow_the_labels_of_a_namespace() {
    let namespace = |tier: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"tier": tier}}});
    let settings = json!({"ceilings": {"namespaces": [{"matchLabels": {"tier": "free"}, "limits": {"total": 1}}]}});
    let spec = json!({"connection": {"limits": {"total": 2}}});
    let with = [namespace("free")];
    let setup = Setup::beside(Behaviour::Echo, &spec, &Options::settings(&settings), |manifests| {
        manifests.with("namespace.yaml", &with)
    })
    .await;
    let mut first = setup.open().await;
    setup.refused("the second of one", &Head::upgrade("/"), &[503], &["total_limit"]).await;
    let (_, _, message) = condition(&setup, &settings, "CeilingApplied").unwrap();
    assert!(message.contains("2 is more than the ceiling of namespaces with tier=free, 1"), "{message}");
    setup.gateway.edit("namespace.yaml", &text(&[namespace("paid")])).await;
    let _second = setup.open().await;
    assert_eq!(condition(&setup, &settings, "CeilingApplied"), None);
    first.echo(&Frame::text("undisturbed")).await;
    setup.refused("the route's own limit", &Head::upgrade("/"), &[503], &["total_limit"]).await;
}
