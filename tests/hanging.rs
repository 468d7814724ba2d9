//! What a namespace depends on and what hangs costs this namespace alone: a victim beside it gets what it asks for, at its
//! first attempt.

use crate::harness::issuer::{any_of, bearer, claims, fixture_of, method, set};
use crate::harness::manifests::{route, secret, service_as, text};
use crate::harness::{Authority, Behaviour, Frame, Key, Options, PATIENCE, Recorder, json, until};
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
