//! A request that comes back to the gateway is known by its `CDN-Loop` (RFC 8586) and ends there, before anything is dialled.

use std::sync::Arc;

use crate::harness::issuer::{any_of, external, fixture_with};
use crate::harness::manifests::{merge, route, secret, service_as, text};
use crate::harness::setup::HOST;
use crate::harness::{Authority, Behaviour, Client, Gateway, Head, Manifests, PATIENCE, Recorder, Setup, json, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_whose_route_leads_back_here_ends_at_its_second_visit() {
    let authority = Authority::new();
    let elsewhere = Recorder::start(Behaviour::Echo).await;
    let bundle = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "backend-ca", "namespace": "shop"},
        "data": {"ca.crt": authority.pem()},
    });
    let mut spec = json!({});
    merge(
        &mut spec,
        &json!({"rules": [{
            "name": "all", "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": "chat", "port": 8080}],
            "backendTLS": {"hostname": HOST, "caCertificateRefs": [{"name": "backend-ca"}]},
        }]}),
    );
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST])), bundle])
        .with("service.yaml", &service_as("chat", "kubernetes.io/wss", &[elsewhere.port()]))
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &spec)]);
    let gateway = Gateway::start(&manifests).await;
    gateway.edit("service.yaml", &text(&service_as("chat", "kubernetes.io/wss", &[gateway.wss.port()]))).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    for number in 1..=3 {
        let (answer, _) = client.ask(&Head::upgrade("/")).await;
        assert_eq!(answer.status(), 508, "{answer:?}");
        // It came in twice: from the client, and from the gateway itself.
        let all = f64::from(2 * number);
        until(PATIENCE, "both visits to be counted", async || {
            (gateway.refusals(Some("loop_detected")).await >= all).then_some(())
        })
        .await;
        assert!((gateway.refusals(None).await - all).abs() < 0.1, "no third visit");
    }
    let labels = [("route", "shop/chat"), ("reason", "loop_detected")];
    assert_eq!(gateway.samples("wssgate_handshakes_total", &labels).await.iter().sum::<f64>(), 6.0);
    gateway.metric_becomes("wssgate_client_sockets", &[], 0.0).await;
    let told = |line: &serde_json::Value| line["condition"] == "Degraded" && line["reason"] == "LoopDetected";
    until(PATIENCE, "the condition", async || gateway.logs().iter().any(told).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hops_of_others_go_on_with_ours_behind_them_and_ours_is_refused() {
    let setup = Setup::new(&json!({})).await;
    let list = async |head: &Head| {
        setup.admitted("another hop", head).await;
        let got = setup.recorder.last().head();
        assert_eq!(got.count("cdn-loop"), 1);
        got.field("cdn-loop").unwrap()
    };
    let own = list(&Head::upgrade("/")).await;
    assert!(own.starts_with("wssgate-") && own.len() > 16, "{own}");
    let foreign = Head::upgrade("/").add("CDN-Loop", "edge.example; v=1,other").add("cdn-loop", "third");
    assert_eq!(list(&foreign).await, format!("edge.example; v=1,other,third, {own}"));
    assert_eq!(list(&Head::upgrade("/").add("Connection", "CDN-Loop").add("CDN-Loop", "x")).await, format!("x, {own}"));
    for value in [own.clone(), format!("edge.example, {};v=2", own.to_uppercase()), format!("{own},other")] {
        setup.refused(&value, &Head::upgrade("/").add("CDN-Loop", value.clone()), &[508], &["loop_detected"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_judges_is_told_the_hops_too() {
    let asked = Recorder::start(Behaviour::bytes("HTTP/1.1 204 No Content\r\n\r\n")).await;
    let setup = fixture_with(&any_of(&[external(&json!({}))]), &service_as("sessions", "http", &[asked.port()])).await;
    let head = Head::upgrade("/").add("Origin", format!("https://{HOST}")).add("Cookie", "sid=1");
    setup.admitted("with a hop", &head.add("CDN-Loop", "edge.example")).await;
    let told = asked.last().head().field("cdn-loop").unwrap();
    assert!(told.starts_with("edge.example, wssgate-"), "{told}");
    assert_eq!(setup.recorder.last().head().field("cdn-loop"), Some(told));
}
