//! What a namespace depends on and what hangs costs this namespace alone: a victim beside it gets what it asks for, at its
//! first attempt.

use crate::harness::issuer::{any_of, bearer, claims, external, fixture_of, fixture_with, method, set};
use crate::harness::manifests::{route, secret, service_as, text};
use crate::harness::{Authority, Behaviour, Frame, Head, Key, Options, PATIENCE, Recorder, json, until};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

/// The namespace of the attacker; the victim's is `shop`.
const OTHER: &str = "mallory";
/// Key sets of one route.
const METHODS: usize = 8;

/// The same objects in the namespace of the attacker.
fn moved(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        object["metadata"]["namespace"] = json!(OTHER);
    }
    objects
}

fn keys(keys: &[&Key]) -> Behaviour {
    let set = set(keys).to_string();
    Behaviour::bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{set}", set.len()))
}

fn remote(uri: &str, others: &Value) -> Value {
    let mut jwt = json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}});
    crate::harness::manifests::merge(&mut jwt, others);
    method(&jwt)
}

/// Routes of the attacker that name so many key sets at a port.
fn hanging_sets(authority: &Authority, port: u16, routes: usize) -> String {
    let hosts: Vec<String> = (0..routes).map(|number| format!("r{number}.other.example.com")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut objects = vec![secret("other-tls", &authority.leaf(&names))];
    objects.extend(service_as("chat", "kubernetes.io/ws", &[port]));
    for (number, host) in hosts.iter().enumerate() {
        let methods: Vec<Value> = (0..METHODS)
            .map(|place| {
                let uri = format!("https://127.0.0.1:{port}/{number}/{place}");
                let mut method = remote(&uri, &json!({"issuer": format!("https://idp{place}.example.com")}));
                method["name"] = json!(format!("idp{place}"));
                method
            })
            .collect();
        objects.push(route(&format!("r{number}"), host, "other-tls", "chat", &any_of(&methods)));
    }
    text(&moved(objects))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_sets_of_one_namespace_that_hang_delay_no_route_and_no_rotation_of_another() {
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    let authority = Authority::new();
    let issuer = Recorder::start_tls(keys(&[&old]), authority.leaf(&["127.0.0.1"]).server()).await;
    let trusted = NamedTempFile::new().unwrap();
    std::fs::write(trusted.path(), authority.pem()).unwrap();
    let env = vec![("SSL_CERT_FILE".into(), trusted.path().display().to_string())];
    let uri = |name: &str| format!("https://127.0.0.1:{}/{name}", issuer.port());
    let spec = any_of(&[remote(&uri("one"), &json!({}))]);
    let setup = fixture_of(&spec, &[], &Options { env, ..Options::default() }).await;
    let token = |key: &Key| bearer(&key.sign(&claims(&json!({}))));
    setup.admitted("alone", &token(&old)).await;

    // The system connects, and nobody ever answers.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = hanging.local_addr().unwrap().port();
    setup.gateway.edit("other.yaml", &hanging_sets(&setup.authority, port, 40)).await;
    let failed = async || {
        let labels = [("outcome", "failure")];
        setup.gateway.samples("wssgate_jwks_fetches_total", &labels).await.into_iter().sum::<f64>()
    };
    until(PATIENCE, "the first sets to be given up", async || (failed().await >= 16.0).then_some(())).await;

    // Each of these has one attempt: were its fetch behind the others, it would be refused.
    issuer.behave(keys(&[&new]));
    setup.admitted("a rotation", &token(&new)).await;
    let spec = any_of(&[remote(&uri("two"), &json!({}))]);
    let objects = [
        route("fresh", "fresh.example.com", "fresh-tls", "chat", &spec),
        secret("fresh-tls", &setup.authority.leaf(&["fresh.example.com"])),
    ];
    setup.gateway.edit("fresh.yaml", &text(&objects)).await;
    let client = setup.client().named("fresh.example.com");
    let mut peer = client.open(&token(&new).set("Host", "fresh.example.com")).await;
    peer.echo(&Frame::text("a new route")).await;
    assert!(failed().await < 320.0, "the sets that hang are still waited for");
    drop(hanging);
}

/// A handshake whose cookie a Service judges.
fn page(host: &str, session: usize) -> Head {
    let head = Head::upgrade("/").set("Host", host).add("Origin", format!("https://{host}"));
    head.add("Cookie", format!("sid={session}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_hangs_costs_its_own_routes_and_of_two_that_ask_it_each_has_its_part() {
    let yes = || Behaviour::bytes("HTTP/1.1 204 No Content\r\n\r\n");
    let asked = Recorder::start(Behaviour::Unanswered).await;
    let healthy = Recorder::start(yes()).await;
    let spec = |service: &str| any_of(&[external(&json!({"timeout": "10s", "backendRef": {"name": service}}))]);
    let mut objects = service_as("sessions", "http", &[asked.port()]);
    objects.extend(service_as("healthy", "http", &[healthy.port()]));
    let setup = fixture_with(&spec("sessions"), &objects).await;
    let more = ["own", "shared"].map(|name| format!("{name}.example.com"));
    let leaf = setup.authority.leaf(&[&more[0], &more[1]]);
    let objects = [
        secret("more-tls", &leaf),
        route("own", &more[0], "more-tls", "chat", &spec("healthy")),
        route("shared", &more[1], "more-tls", "chat", &spec("sessions")),
    ];
    setup.gateway.edit("more.yaml", &text(&objects)).await;

    let mut waiting = tokio::task::JoinSet::new();
    for place in 0..256 {
        let client = setup.client();
        waiting.spawn(async move { client.ask(&page("chat.example.com", place)).await.0.status() });
    }
    until(PATIENCE, "every place of the Service to be taken", async || (asked.count().0 >= 256).then_some(())).await;
    let admitted = async |host: &str| {
        let mut peer = setup.client().named(host).open(&page(host, 1000)).await;
        peer.echo(&Frame::text("a neighbour")).await;
    };
    admitted(&more[0]).await;
    asked.behave(yes());
    // The places of the first route are held by what hangs: one of them gives way.
    admitted(&more[1]).await;
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), 503);
    assert!(asked.count().0 >= 257);
    waiting.abort_all();
}
