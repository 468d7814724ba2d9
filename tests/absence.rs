//! `docs/absence.md`, row by row: what open connections, new handshakes and conditions make of an object that is deleted,
//! renamed, broken, replaced or being deleted.

use std::fs;

use crate::harness::issuer::{self, Key, any_of, bearer, claims, method, set};
use crate::harness::manifests::{config_map, merge, route, secret, service, text};
use crate::harness::setup::{HOST, manifests};
use crate::harness::{Authority, Behaviour, Client, Frame, Gateway, Head, PATIENCE, Peer, Recorder, SOON, json, until};
use crate::root;
use serde_json::Value;

/// Rows that need a cluster, and the test of each.
const IN_A_CLUSTER: &[(&str, &str)] =
    &[("CustomResourceDefinition", "cluster/outage::the_definition_goes_under_500_sockets_and_no_pod_minds")];

/// What changes: a file with other objects, or without any.
type Change = (&'static str, Vec<Value>);

/// One row of the page.
struct Case {
    object: &'static str,
    what: &'static str,
    /// Laid over the usual spec.
    spec: Value,
    /// Beside the usual manifests.
    files: Vec<Change>,
    change: Vec<Change>,
    /// `condition=status/reason` in the log; `None`: nothing is said.
    told: Option<&'static str>,
}

impl Case {
    fn of(object: &'static str, what: &'static str, change: Vec<Change>, told: Option<&'static str>) -> Self {
        Self { object, what, spec: json!({}), files: Vec::new(), change, told }
    }

    fn with(mut self, spec: &Value, files: &[Change]) -> Self {
        merge(&mut self.spec, spec);
        self.files.extend_from_slice(files);
        self
    }
}

/// Everything that the cases share.
struct World {
    authority: Authority,
    partners: Authority,
    key: Key,
}

impl World {
    fn certificates(&self) -> Vec<Case> {
        const OBJECT: &str = "Secret with a server certificate";
        let broken = |change: Value| {
            let mut broken = secret("chat-tls", &self.authority.leaf(&[HOST]));
            merge(&mut broken, &change);
            vec![("secret.yaml", vec![broken])]
        };
        let renamed = route("chat", HOST, "new-tls", "chat", &json!({}));
        let mut infra = secret("shared", &self.authority.leaf(&[HOST]));
        merge(&mut infra, &json!({"metadata": {"namespace": "infra"}}));
        let grant = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
            "metadata": {"name": "shop", "namespace": "infra"},
            "spec": {
                "from": [{"group": "wssgate.io", "kind": "SecureWebSocketRoute", "namespace": "shop"}],
                "to": [{"group": "", "kind": "Secret"}],
            },
        });
        let shared = json!({"tls": {"certificateRefs": [{"name": "shared", "namespace": "infra"}]}});
        let last_good = Some("CertificateReady=False/LastGood");
        vec![
            Case::of(OBJECT, "deleted", vec![("secret.yaml", vec![])], last_good),
            Case::of(
                OBJECT,
                "another one is named that does not exist",
                vec![("route.yaml", vec![renamed])],
                last_good,
            ),
            Case::of(
                OBJECT,
                "broken",
                broken(json!({"data": {"tls.crt": "eA=="}})),
                Some("CertificateReady=False/InvalidCertificate"),
            ),
            Case::of(
                OBJECT,
                "replaced with another type",
                broken(json!({"type": "Opaque"})),
                Some("CertificateReady=False/InvalidCertificateRef"),
            ),
            Case::of(
                "ReferenceGrant for a server certificate",
                "deleted",
                vec![("grant.yaml", vec![])],
                Some("ResolvedRefs=False/RefNotPermitted"),
            )
            .with(&shared, &[("infra.yaml", vec![infra]), ("grant.yaml", vec![grant])]),
        ]
    }

    fn authorities(&self) -> Vec<Case> {
        let keys = issuer::config_map("idp", &set(&[&self.key]));
        let jwt = any_of(&[method(&json!({}))]);
        let mut no_keys = keys.clone();
        merge(&mut no_keys, &json!({"data": {"jwks.json": "{"}}));
        let bundle = |pem: &str| vec![config_map("partners", "ca.crt", pem)];
        let asks =
            json!({"tls": {"clientValidation": {"mode": "Required", "caCertificateRefs": [{"name": "partners"}]}}});
        let of_keys = |what, change, told| {
            Case::of("ConfigMap or Secret with keys (JWKS)", what, vec![("keys.yaml", change)], Some(told))
                .with(&jwt, &[("keys.yaml", vec![keys.clone()])])
        };
        let of_clients = |what, change, told| {
            Case::of("ConfigMap with client CAs or revocation lists", what, vec![("partners.yaml", change)], Some(told))
                .with(&asks, &[("partners.yaml", bundle(self.partners.pem()))])
        };
        vec![
            of_keys("deleted", vec![], "ResolvedRefs=False/RefNotFound"),
            of_keys("broken", vec![no_keys], "ResolvedRefs=False/InvalidKeySet"),
            of_clients("deleted", vec![], "ResolvedRefs=False/RefNotFound"),
            of_clients("broken", bundle("broken"), "ResolvedRefs=False/InvalidCertificateRef"),
        ]
    }

    fn others(&self, port: u16) -> Vec<Case> {
        let class = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "edge"},
            "spec": {"controller": "wssgate.io/ingress-controller"},
        });
        let of_class = json!({"ingressClassName": "edge"});
        let mut deleting = route("chat", HOST, "chat-tls", "chat", &json!({}));
        merge(
            &mut deleting,
            &json!({"metadata": {
                "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/held"], "labels": {"edited": "yes"},
            }}),
        );
        let mut objects = service("chat", &[port]);
        let service_alone = vec![objects.remove(0)];
        let slices = objects;
        vec![
            Case::of("Service", "deleted", vec![("service.yaml", slices)], Some("ResolvedRefs=False/BackendNotFound")),
            Case::of("EndpointSlice", "deleted", vec![("service.yaml", service_alone)], None),
            Case::of("SecureWebSocketRoute", "deleted", vec![("route.yaml", vec![])], None),
            Case::of("SecureWebSocketRoute", "being deleted (finalizers)", vec![("route.yaml", vec![deleting])], None),
            Case::of("IngressClass", "deleted", vec![("class.yaml", vec![])], Some("Accepted=False/NoMatchingClass"))
                .with(&of_class, &[("class.yaml", vec![class])]),
        ]
    }

    fn client(&self, gateway: &Gateway) -> Client {
        let config = self.partners.client_leaf("alice", 7, |_| {}).shown_by(self.authority.client());
        Client { address: gateway.wss, config: config.into(), name: HOST.to_owned() }
    }

    /// A handshake that every case lets in while nothing is missing.
    fn head(&self) -> Head {
        bearer(&self.key.sign(&claims(&json!({})))).add("Origin", format!("https://{HOST}"))
    }

    /// Makes a change, and says what became of an open connection, of a new handshake, and what was told.
    async fn observe(&self, recorder: &Recorder, case: &Case) -> (String, String) {
        let mut files = manifests(&self.authority, recorder, &case.spec);
        for (file, objects) in &case.files {
            files = files.with(file, objects);
        }
        let gateway = Gateway::start(&files).await;
        let (client, name) = (self.client(&gateway), format!("{}, {}", case.object, case.what));
        let mut open = client.open(&self.head()).await;
        open.echo(&Frame::text("before")).await;
        let shown = client.connect().await.certificate();
        let before = gateway.version().await;
        for (file, objects) in &case.change {
            match objects.as_slice() {
                [] => fs::remove_file(gateway.manifests().join(file)).unwrap(),
                objects => gateway.write(file, &text(objects)),
            }
        }
        match case.told {
            Some(told) => {
                gateway.log_line(&format!("{name}: {told}"), |line| said(line) == Some(told.to_owned())).await;
            }
            None if case.what.starts_with("being deleted") => {
                until(PATIENCE, &format!("{name}: another compile"), async || {
                    (gateway.metric("wssgate_compile_duration_seconds_count", &[]).await > 1.5).then_some(())
                })
                .await;
            }
            None => gateway.published_after(before).await,
        }
        let new = match client.try_connect().await {
            Err(_) => "the TLS alert `unrecognized_name`".to_owned(),
            Ok(mut peer) => {
                let same = peer.certificate() == shown;
                peer.write(&self.head().bytes()).await;
                match peer.head().await.map(|answer| answer.status()) {
                    Some(101) if same && case.object.starts_with("Secret with a server") => {
                        "the last good certificate".to_owned()
                    }
                    Some(101) => "served".to_owned(),
                    Some(status) => status.to_string(),
                    None => panic!("{name}: no answer"),
                }
            }
        };
        (fate(&mut open).await, new)
    }
}

/// What became of an open connection.
async fn fate(peer: &mut Peer) -> String {
    peer.send(&Frame::text("after")).await;
    match peer.frame_within(SOON).await {
        Some(frame) if frame.opcode == 8 => format!("closed with {}", frame.code().0),
        Some(frame) if frame.same(&Frame::text("after")) => "stay".to_owned(),
        other => panic!("{other:?}"),
    }
}

/// The condition that a line of the log tells.
fn said(line: &Value) -> Option<String> {
    let text = |name: &str| line[name].as_str().map(str::to_owned);
    Some(format!("{}={}/{}", text("condition")?, text("status")?, text("reason")?))
}

/// The rows of the page: object, what happened, open connections, new handshakes, condition.
fn rows() -> Vec<[String; 5]> {
    let page = fs::read_to_string(root().join("docs/absence.md")).unwrap();
    let mut object = String::new();
    let lines = page.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            let mut cells: [String; 5] = cells.try_into().unwrap_or_else(|cells| panic!("{cells:?}"));
            if cells[0].is_empty() {
                cells[0].clone_from(&object);
            }
            object.clone_from(&cells[0]);
            cells
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_the_page_is_what_happens() {
    let world = World { authority: Authority::new(), partners: Authority::new(), key: Key::es256("one") };
    let recorder = Recorder::start(Behaviour::Echo).await;
    let mut cases = world.certificates();
    cases.extend(world.authorities());
    cases.extend(world.others(recorder.port()));
    let mut wrong = Vec::new();
    for [object, what, open, new, condition] in rows() {
        if let Some((_, test)) = IN_A_CLUSTER.iter().find(|(of, _)| *of == object) {
            let (file, name) = test.split_once("::").unwrap();
            let text = fs::read_to_string(root().join(format!("tests/{file}.rs"))).unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{test} does not exist");
            continue;
        }
        let Some(at) = cases.iter().position(|case| case.object == object && case.what == what) else {
            wrong.push(format!("{object}, {what}: no case"));
            continue;
        };
        let case = cases.remove(at);
        let (fate, answer) = world.observe(&recorder, &case).await;
        if fate != open || !new.starts_with(&answer) {
            wrong.push(format!("{object}, {what}: open connections: {fate}; new handshakes: {answer}"));
        }
        if case.told.is_some_and(|told| !condition.starts_with(&format!("`{told}`"))) {
            wrong.push(format!("{object}, {what}: {:?} is told", case.told));
        }
    }
    wrong.extend(cases.iter().map(|case| format!("{}, {}: not on the page", case.object, case.what)));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
