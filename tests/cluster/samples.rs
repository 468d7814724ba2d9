//! The samples that judge messages, on the node: applied as they stand in `manifests/samples`, with certificates of the real
//! cert-manager, and used by the real clients and servers of `tests/messages_clients`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::harness::{Program, manifests};
use super::install::run;
use super::release::LIMIT;
use super::sandbox;

/// Each sample, its program, the cases that pass, and how many others there are, all of them refused.
const SAMPLES: [(&str, &str, &[&str], usize); 5] = [
    ("socket-io.yaml", "socket_io.js", &["good"], 3),
    ("signalr.yaml", "signalr.js", &["good"], 4),
    ("graphql.yaml", "graphql.js", &["subscription", "query"], 3),
    ("json-rpc.yaml", "mcp.js", &["good"], 3),
    ("ocpp.yaml", "ocpp1.6", &["good"], 26),
];

/// What a program learned of a case says that the gateway closed the connection for what a message says.
fn is_refused(case: &Value) -> bool {
    let code = if case["code"].is_null() { &case["client"] } else { &case["code"] };
    let text = code.to_string();
    text.contains("1008") || text.contains("1011")
}

fn the_samples_serve_real_clients(clusters: &Clusters) {
    let release = clusters.release();
    let SocketAddr::V4(gateway) = release.address(443) else { panic!("no IPv4 address") };
    let authority = tempfile::NamedTempFile::new().unwrap();
    fs::write(authority.path(), &release.authority).unwrap();
    release.own.apply("{apiVersion: v1, kind: Namespace, metadata: {name: apps}}");
    for (sample, program, good, others) in SAMPLES {
        let listen = sandbox::address();
        run(async {
            let mut program = Program::elsewhere(program, authority.path(), listen, *gateway.ip()).await;
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples").join(sample);
            let text = fs::read_to_string(&file).unwrap();
            let objects: Vec<Value> = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
            let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
            let (route, service) = (of_kind("SecureWebSocketRoute"), of_kind("Service"));
            let kubectl = release.own.in_namespace(route["metadata"]["namespace"].as_str().unwrap());
            let secret = route["spec"]["tls"]["certificateRefs"][0]["name"].as_str().unwrap();
            let host = route["spec"]["hostnames"][0].as_str().unwrap();
            let more = format!(
                "{}\n---\n{}",
                certificate(secret, host),
                slice(service["metadata"]["name"].as_str().unwrap(), listen, program.port)
            );
            kubectl.must(&["apply", "-f", file.to_str().unwrap()]);
            kubectl.apply(&more);
            let name = format!("swsr/{}", route["metadata"]["name"].as_str().unwrap());
            kubectl.wait(&name, "condition=Ready", LIMIT);

            let mut cases = program.cases(gateway.port()).await;
            for case in good {
                let passed = cases.remove(*case).unwrap();
                assert!(!is_refused(&passed), "{sample}: {passed}");
            }
            assert_eq!(cases.len(), others, "{sample}: {cases:?}");
            assert!(cases.values().all(is_refused), "{sample}: {cases:?}");
            kubectl.must(&["delete", "-f", file.to_str().unwrap()]);
        });
    }
}

fn certificate(secret: &str, host: &str) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": secret},
        "spec": {"secretName": secret, "dnsNames": [host], "issuerRef": {"name": "tests", "kind": "ClusterIssuer"}},
    })
}

/// The endpoint of a Service: the program, which is no pod.
fn slice(service: &str, address: Ipv4Addr, port: u16) -> Value {
    let mut slice = manifests::slice(service, 0, port, &json!({"ready": true}));
    slice["endpoints"][0]["addresses"] = json!([address.to_string()]);
    slice["metadata"].as_object_mut().unwrap().remove("namespace");
    slice
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        the_samples_serve_real_clients,
    ]
}
