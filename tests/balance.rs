//! Which backend and which endpoint a connection goes to.

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::harness::issuer::{any_of, external};
use crate::harness::manifests::{route, secret, service, slice, text};
use crate::harness::peer::Wire;
use crate::harness::{
    Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Manifests, Peer, Recorder, Setup, json,
};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

/// One rule for everything with these backends and this way of choosing.
fn rule(backends: &Value, balancer: &Value) -> Value {
    json!({"rules": [{
        "name": "all", "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": backends, "loadBalancer": balancer,
    }]})
}

fn balanced(balancer: &Value) -> Value {
    rule(&json!([{"name": "chat", "port": 8080}]), balancer)
}

async fn recorders(count: usize) -> Vec<Recorder> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Recorder::start(Behaviour::Echo).await);
    }
    all
}

fn counts(recorders: &[Recorder]) -> Vec<usize> {
    recorders.iter().map(|recorder| recorder.count().0).collect()
}

fn ports(recorders: &[Recorder]) -> Vec<u16> {
    recorders.iter().map(Recorder::port).collect()
}

/// A gateway with these Services behind one route.
async fn start(services: &[(&str, &[u16])], spec: &Value) -> (Gateway, Client) {
    let authority = Authority::new();
    let objects: Vec<Value> = services.iter().flat_map(|(name, ports)| service(name, ports)).collect();
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
        .with("service.yaml", &objects)
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", spec)]);
    let gateway = Gateway::start(&manifests).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    (gateway, client)
}

/// Opens, echoes and closes.
async fn visit(client: &Client, path: &str) {
    let mut peer = client.open(&Head::upgrade(path)).await;
    peer.echo(&Frame::text("visit")).await;
    peer.close(1000, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_share_new_connections_and_zero_takes_none() {
    let all = recorders(3).await;
    let [one, three, none] = [all[0].port(), all[1].port(), all[2].port()];
    let backends = json!([
        {"name": "one", "port": 8080, "weight": 50},
        {"name": "three", "port": 8080, "weight": 150},
        {"name": "none", "port": 8080, "weight": 0},
    ]);
    let services: &[(&str, &[u16])] = &[("one", &[one]), ("three", &[three]), ("none", &[none])];
    let (gateway, client) = start(services, &rule(&backends, &json!({"type": "RoundRobin"}))).await;
    for _ in 0..40 {
        visit(&client, "/").await;
    }
    let seen = counts(&all);
    assert_eq!(seen, [10, 30, 0], "1 : 3 : 0 of 40");
    // Where nobody else is left, 0 stays 0.
    let objects: Vec<Value> =
        [("one", &[][..]), ("three", &[][..]), ("none", &[none][..])].iter().flat_map(|(n, p)| service(n, p)).collect();
    gateway.edit("service.yaml", &text(&objects)).await;
    let (answer, _) = client.ask(&Head::upgrade("/")).await;
    assert_eq!((answer.status(), all[2].count()), (503, (0, 0)), "{answer:?}");
    gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "no_endpoints")], 1.0).await;
    // One that has no endpoints leaves its share to the others.
    let objects: Vec<Value> = [("one", &[one][..]), ("three", &[][..]), ("none", &[none][..])]
        .iter()
        .flat_map(|(n, p)| service(n, p))
        .collect();
    gateway.edit("service.yaml", &text(&objects)).await;
    for _ in 0..5 {
        visit(&client, "/").await;
    }
    assert_eq!(counts(&all)[0], seen[0] + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_robin_takes_turns_whoever_is_still_there_and_whatever_other_routes_do() {
    let (mine, other) = (recorders(3).await, recorders(2).await);
    let authority = Authority::new();
    let round = json!({"type": "RoundRobin"});
    let other_host = "other.example.com";
    let mut objects = service("chat", &ports(&mine));
    objects.extend(service("other", &ports(&other)));
    let other_rule = rule(&json!([{"name": "other", "port": 8080}]), &round);
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("tls", &authority.leaf(&[HOST, other_host]))])
        .with("service.yaml", &objects)
        .with(
            "route.yaml",
            &[
                route("chat", HOST, "tls", "chat", &balanced(&round)),
                route("other", other_host, "tls", "other", &other_rule),
            ],
        );
    let gateway = Gateway::start(&manifests).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    let mut held = Vec::new();
    for _ in 0..6 {
        // A page that opens both: the turns of one route must not depend on the other's.
        held.push(client.open(&Head::upgrade("/")).await);
        held.push(client.named(other_host).open(&Head::upgrade("/").set("Host", other_host)).await);
    }
    assert_eq!((counts(&mine), counts(&other)), (vec![2, 2, 2], vec![3, 3]));
    drop(held);
    for _ in 0..6 {
        visit(&client, "/").await;
    }
    assert_eq!(counts(&mine), [4, 4, 4]);
}

/// Each handshake is judged by a service: that is a turn of that service, not of the backends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_of_every_backend_has_its_turn_though_a_service_judges() {
    let (one, other) = (recorders(2).await, recorders(2).await);
    let yes = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    let sessions = Recorder::start(Behaviour::bytes(yes)).await;
    let backends = json!([{"name": "one", "port": 8080}, {"name": "other", "port": 8080}]);
    let mut spec = rule(&backends, &json!({"type": "RoundRobin"}));
    spec["handshake"] = any_of(&[external(&json!({}))])["handshake"].clone();
    let services: &[(&str, &[u16])] =
        &[("one", &ports(&one)), ("other", &ports(&other)), ("sessions", &[sessions.port()])];
    let (_gateway, client) = start(services, &spec).await;
    for session in 0..8 {
        let head = Head::upgrade("/").add("Origin", "https://chat.example.com").add("Cookie", format!("sid={session}"));
        client.open(&head).await.close(1000, "").await;
    }
    assert_eq!((counts(&one), counts(&other)), (vec![2, 2], vec![2, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_connections_fills_up_whoever_has_fewer() {
    let all = recorders(2).await;
    let spec = balanced(&json!({"type": "LeastConnections"}));
    let (gateway, client) = start(&[("chat", &[all[0].port()])], &spec).await;
    let mut held: Vec<Peer> = Vec::new();
    for _ in 0..4 {
        held.push(client.open(&Head::upgrade("/")).await);
    }
    gateway.edit("service.yaml", &text(&service("chat", &ports(&all)))).await;
    for _ in 0..4 {
        held.push(client.open(&Head::upgrade("/")).await);
    }
    assert_eq!(counts(&all), [4, 4], "the new one first");
    gateway.metric_becomes("wssgate_busiest_endpoint_connections", &[], 4.0).await;
    // Two leave the first: the next two go there.
    for peer in held.drain(..2) {
        peer.close(1000, "").await;
    }
    gateway.metric_becomes("wssgate_connections", &[], 6.0).await;
    for _ in 0..2 {
        held.push(client.open(&Head::upgrade("/")).await);
    }
    assert_eq!(counts(&all), [6, 4]);
}

/// A handshake from another address of loopback.
async fn from(client: &Client, last: u8) -> Peer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    let tcp = socket.connect(client.address).await.unwrap();
    let name = ServerName::try_from(client.name.clone()).unwrap();
    let tls = TlsConnector::from(client.config.clone()).connect(name, tcp).await.unwrap();
    let mut peer = Peer::new(Wire::Tls(Box::new(tls.into())), true);
    peer.write(&Head::upgrade("/").bytes()).await;
    assert_eq!(peer.head().await.expect("an answer").status(), 101);
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_of_the_address_keeps_clients_where_they_were() {
    let all = recorders(3).await;
    let spec = balanced(&json!({"type": "ConsistentHash", "consistentHash": {"type": "SourceIP"}}));
    let (gateway, client) = start(&[("chat", &ports(&all))], &spec).await;
    // Where each address goes: the recorder whose count grew.
    let place = async |last: u8| {
        let before = counts(&all);
        let mut peer = from(&client, last).await;
        peer.echo(&Frame::text("where")).await;
        let after = counts(&all);
        (0..all.len()).find(|at| after[*at] > before[*at]).expect("one of them")
    };
    let mut homes = Vec::new();
    for last in 1..=24 {
        homes.push(place(last).await);
    }
    for (last, home) in (1..=24).zip(&homes) {
        assert_eq!(place(last).await, *home, "127.0.0.{last} moved without a reason");
    }
    for at in 0..3 {
        assert!(homes.contains(&at), "24 addresses, and none for {at}: {homes:?}");
    }
    // Without the third only its own clients move.
    gateway.edit("service.yaml", &text(&service("chat", &ports(&all[..2])))).await;
    for (last, home) in (1..=24).zip(&homes) {
        let now = place(last).await;
        assert!(now != 2 && (*home == 2 || now == *home), "127.0.0.{last}: from {home} to {now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_leaves_takes_connections_only_while_there_is_no_other() {
    let setup = Setup::new(&balanced(&json!({"type": "RoundRobin"}))).await;
    let second = Recorder::start(Behaviour::Echo).await;
    let conditions = |ready: bool, serving: bool, terminating: bool| json!({"ready": ready, "serving": serving, "terminating": terminating});
    let objects = |first: Value, other: Value| {
        let mut objects = service("chat", &[]);
        objects.push(slice("chat", 0, setup.recorder.port(), &first));
        objects.push(slice("chat", 1, second.port(), &other));
        text(&objects)
    };
    let mut before = setup.open().await;
    setup.gateway.edit("service.yaml", &objects(conditions(false, true, true), conditions(true, true, false))).await;
    for _ in 0..4 {
        setup.open().await.echo(&Frame::text("elsewhere")).await;
    }
    assert_eq!((setup.recorder.count().0, second.count().0), (1, 4), "to the one that is ready");
    before.echo(&Frame::text("undisturbed")).await;
    setup.gateway.edit("service.yaml", &objects(conditions(false, true, true), conditions(false, false, true))).await;
    setup.open().await.echo(&Frame::text("back")).await;
    assert_eq!((setup.recorder.count().0, second.count().0), (2, 4), "the last that serves, though it leaves");
    setup.gateway.edit("service.yaml", &objects(conditions(false, false, true), conditions(false, false, true))).await;
    setup.refused("nobody serves", &Head::upgrade("/"), &[503], &["no_endpoints"]).await;
    before.echo(&Frame::text("still undisturbed")).await;
}
