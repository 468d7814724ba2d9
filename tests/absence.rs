//! `docs/absence.md`, row by row: what open connections, new handshakes and conditions make of an object that is deleted,
//! renamed, broken, replaced or being deleted.

use std::fs;
use std::process::Command;

use crate::harness::issuer::{self, Key, any_of, bearer, claims, method, set};
use crate::harness::manifests::{config_map, merge, route, secret, service, text};
use crate::harness::setup::{HOST, manifests};
use crate::harness::{
    Authority, Behaviour, Client, Frame, Gateway, Head, PATIENCE, Pair, Peer, Recorder, SOON, json, until,
};
use crate::root;
use serde_json::Value;

/// Rows that need a cluster: object, what happened, open connections, new handshakes, condition, and the test that walks it.
const IN_A_CLUSTER: &[[&str; 6]] = &[
    [
        "Secret with a server certificate",
        "made by hand, and an `issuerRef` is added",
        "stay",
        "served",
        "`CertificateReady=False/CertificateConflict`",
        "cluster/hand_over::a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices",
    ],
    [
        "Certificate of cert-manager",
        "broken (its last attempt failed)",
        "stay",
        "served",
        "`CertificateReady=True/RenewalFailing`",
        "cluster/hand_over::a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices",
    ],
    [
        "Issuer or ClusterIssuer",
        "another one is named that does not exist",
        "stay",
        "served",
        "`CertificateReady=True/RenewalFailing`",
        "cluster/absence::an_issuer_that_fails_or_is_missing_ends_no_socket_and_is_told",
    ],
    [
        "Issuer or ClusterIssuer",
        "broken, and another Secret is named",
        "stay",
        "the last good certificate",
        "`CertificateReady=False/Issuing`",
        "cluster/absence::an_issuer_that_fails_or_is_missing_ends_no_socket_and_is_told",
    ],
    [
        "CustomResourceDefinitions of cert-manager",
        "deleted",
        "stay",
        "served",
        "`CertificateReady=True/Ready`",
        "cluster/hand_over::a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices",
    ],
    [
        "Namespace",
        "being deleted",
        "closed with 1012",
        "served",
        "as before",
        "cluster/absence::a_namespace_that_is_deleted_ends_its_own_sockets_alone",
    ],
    [
        "CustomResourceDefinition of routes",
        "deleted",
        "closed with 1012",
        "the TLS alert `unrecognized_name`",
        "gone",
        "cluster/outage::the_definition_goes_under_500_sockets_and_no_pod_minds",
    ],
];

/// A finalizer holds the object.
const HELD: &str = "being deleted (finalizers)";
const ANOTHER: &str = "another one is named that does not exist";
const TYPE: &str = "replaced with another type";

/// What changes: a file with other objects, or without any.
type Change = (&'static str, Vec<Value>);

/// How a change becomes known.
#[derive(Clone, Copy)]
enum Told {
    /// The log has `condition=status/reason`.
    Logged(&'static str),
    /// The log has nothing, and a status of the directory has `condition=status/reason`.
    Shown(&'static str),
    /// Nothing is said.
    Not,
}

/// One row of the page.
struct Case {
    object: &'static str,
    what: &'static str,
    /// Laid over the usual spec.
    spec: Value,
    /// Beside the usual manifests.
    files: Vec<Change>,
    change: Vec<Change>,
    told: Told,
}

impl Case {
    fn of(object: &'static str, what: &'static str, change: Vec<Change>, told: Told) -> Self {
        Self { object, what, spec: json!({}), files: Vec::new(), change, told }
    }

    fn with(mut self, spec: &Value, files: &[Change]) -> Self {
        merge(&mut self.spec, spec);
        self.files.extend_from_slice(files);
        self
    }
}

/// The object while a finalizer holds it.
fn held(object: &Value) -> Value {
    let mut held = object.clone();
    let metadata = json!({"metadata": {
        "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/held"], "labels": {"edited": "yes"},
    }});
    merge(&mut held, &metadata);
    held
}

/// The object with a change.
fn but(object: &Value, change: &Value) -> Value {
    let mut changed = object.clone();
    merge(&mut changed, change);
    changed
}

/// A grant for routes of `shop` to what is of this kind in `infra`.
fn grant(kind: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
        "metadata": {"name": "shop", "namespace": "infra"},
        "spec": {
            "from": [{"group": "wssgate.io", "kind": "SecureWebSocketRoute", "namespace": "shop"}],
            "to": [{"group": "", "kind": kind}],
        },
    })
}

/// Everything that the cases share.
struct World {
    authority: Authority,
    /// The certificate of the host.
    pair: Pair,
    partners: Authority,
    key: Key,
}

impl World {
    fn certificates(&self) -> Vec<Case> {
        const OBJECT: &str = "Secret with a server certificate";
        const GRANT: &str = "ReferenceGrant for a server certificate";
        let good = secret("chat-tls", &self.pair);
        let of = |what, secrets: Vec<Value>, told| Case::of(OBJECT, what, vec![("secret.yaml", secrets)], told);
        let another = route("chat", HOST, "new-tls", "chat", &json!({}));
        let infra = but(&secret("shared", &self.pair), &json!({"metadata": {"namespace": "infra"}}));
        let shared = json!({"tls": {"certificateRefs": [{"name": "shared", "namespace": "infra"}]}});
        let grants = |what, grants: Vec<Value>, told| {
            Case::of(GRANT, what, vec![("grant.yaml", grants)], told)
                .with(&shared, &[("infra.yaml", vec![infra.clone()]), ("grant.yaml", vec![grant("Secret")])])
        };
        let (last_good, lost) =
            (Told::Logged("CertificateReady=False/LastGood"), Told::Logged("ResolvedRefs=False/RefNotPermitted"));
        vec![
            of("deleted", vec![], last_good),
            Case::of(OBJECT, ANOTHER, vec![("route.yaml", vec![another])], last_good),
            of(
                "broken",
                vec![but(&good, &json!({"data": {"tls.crt": "eA=="}}))],
                Told::Logged("CertificateReady=False/InvalidCertificate"),
            ),
            of(
                TYPE,
                vec![but(&good, &json!({"type": "Opaque"}))],
                Told::Logged("CertificateReady=False/InvalidCertificateRef"),
            ),
            of(HELD, vec![held(&good)], Told::Not),
            grants("deleted", vec![], lost),
            grants("permits another kind", vec![grant("Service")], lost),
            grants("renamed", vec![but(&grant("Secret"), &json!({"metadata": {"name": "other"}}))], Told::Not),
            grants(HELD, vec![held(&grant("Secret"))], Told::Not),
        ]
    }

    /// cert-manager's Certificate beside a Secret that it has filled.
    fn issuing(&self) -> Vec<Case> {
        const OBJECT: &str = "Certificate of cert-manager";
        let good = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
            "metadata": {"name": "chat-tls", "namespace": "shop"},
            "spec": {"secretName": "chat-tls", "dnsNames": [HOST], "issuerRef": {"name": "ca"}},
        });
        let failing = Told::Shown("CertificateReady=True/RenewalFailing");
        let of = |what, certificates: Vec<Value>, told| {
            Case::of(OBJECT, what, vec![("certificate.yaml", certificates)], told)
                .with(&json!({"tls": {"issuerRef": {"name": "ca"}}}), &[("certificate.yaml", vec![good.clone()])])
        };
        vec![of("deleted", vec![], Told::Shown("CertificateReady=True/Ready")), of(HELD, vec![held(&good)], failing)]
    }

    fn authorities(&self) -> Vec<Case> {
        const KEYS: &str = "ConfigMap or Secret with keys (JWKS)";
        const CLIENTS: &str = "ConfigMap with client CAs or revocation lists";
        let keys = issuer::config_map("idp", &set(&[&self.key]));
        let jwt = |name: &str, kind: &str| {
            let local = json!({"ref": {"name": name, "kind": kind, "key": "jwks.json"}});
            any_of(&[method(&json!({"jwks": {"local": local}}))])
        };
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "wssgate.io/jwks",
            "metadata": {"name": "idp", "namespace": "shop"}, "stringData": {"jwks.json": set(&[&self.key]).to_string()},
        });
        let asks = |name: &str| json!({"tls": {"clientValidation": {"mode": "Required", "caCertificateRefs": [{"name": name}]}}});
        let another = |spec: &Value| vec![("route.yaml", vec![route("chat", HOST, "chat-tls", "chat", spec)])];
        let bundle = |pem: &str| config_map("partners", "ca.crt", pem);
        let with_keys = |what, change, told| {
            Case::of(KEYS, what, change, told).with(&jwt("idp", "ConfigMap"), &[("keys.yaml", vec![keys.clone()])])
        };
        let with_clients = |what, change, told| {
            let partners = vec![bundle(self.partners.pem())];
            Case::of(CLIENTS, what, change, told).with(&asks("partners"), &[("partners.yaml", partners)])
        };
        let to_keys = |keys: Vec<Value>| vec![("keys.yaml", keys)];
        let to_clients = |bundles: Vec<Value>| vec![("partners.yaml", bundles)];
        let missing = Told::Logged("ResolvedRefs=False/RefNotFound");
        let unreadable = Told::Logged("ResolvedRefs=False/InvalidKeySet");
        vec![
            with_keys("deleted", to_keys(vec![]), missing),
            with_keys(ANOTHER, another(&jwt("other", "ConfigMap")), missing),
            with_keys("broken", to_keys(vec![but(&keys, &json!({"data": {"jwks.json": "{"}}))]), unreadable),
            Case::of(KEYS, TYPE, to_keys(vec![but(&secret, &json!({"type": "Opaque"}))]), unreadable)
                .with(&jwt("idp", "Secret"), &[("keys.yaml", vec![secret.clone()])]),
            with_keys(HELD, to_keys(vec![held(&keys)]), Told::Not),
            with_clients("deleted", to_clients(vec![]), missing),
            with_clients(ANOTHER, another(&asks("other")), missing),
            with_clients(
                "broken",
                to_clients(vec![bundle("broken")]),
                Told::Logged("ResolvedRefs=False/InvalidCertificateRef"),
            ),
            with_clients(HELD, to_clients(vec![held(&bundle(self.partners.pem()))]), Told::Not),
        ]
    }

    fn backends(port: u16) -> Vec<Case> {
        const SERVICE: &str = "Service";
        const SLICE: &str = "EndpointSlice";
        const GRANT: &str = "ReferenceGrant for a Service";
        let [service, slice]: [Value; 2] = service("chat", &[port]).try_into().unwrap();
        let one = |object, what, service: Option<Value>, slice: Option<Value>, told| {
            let objects = service.into_iter().chain(slice).collect();
            Case::of(object, what, vec![("service.yaml", objects)], told)
        };
        let of_service = |what, service, told| one(SERVICE, what, service, Some(slice.clone()), told);
        let of_slice = |what, slice, told| one(SLICE, what, Some(service.clone()), slice, told);
        let missing = Told::Logged("ResolvedRefs=False/BackendNotFound");
        let another = route("chat", HOST, "chat-tls", "other", &json!({}));
        let external = json!({"spec": {"type": "ExternalName", "externalName": "chat.example.net", "clusterIP": null}});
        let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["chat.example.net"]}]});
        let infra = |object: &Value| but(object, &json!({"metadata": {"namespace": "infra"}}));
        let rule =
            json!({"rules": [{"name": "all", "backendRefs": [{"name": "chat", "namespace": "infra", "port": 8080}]}]});
        let granted = |what, grants: Vec<Value>, told| {
            Case::of(GRANT, what, vec![("grant.yaml", grants)], told).with(
                &rule,
                &[("infra.yaml", vec![infra(&service), infra(&slice)]), ("grant.yaml", vec![grant("Service")])],
            )
        };
        vec![
            of_service("deleted", None, missing),
            Case::of(SERVICE, ANOTHER, vec![("route.yaml", vec![another])], missing),
            of_service(
                "broken (has no such port)",
                Some(but(&service, &json!({"spec": {"ports": [{"name": "ws", "port": 8081}]}}))),
                missing,
            ),
            of_service(TYPE, Some(but(&service, &external)), Told::Logged("ResolvedRefs=False/InvalidKind")),
            of_service(HELD, Some(held(&service)), Told::Not),
            of_slice("deleted", None, Told::Not),
            of_slice("renamed", Some(but(&slice, &json!({"metadata": {"name": "other"}}))), Told::Not),
            of_slice(
                "broken (an address that no backend may have)",
                Some(but(&slice, &json!({"endpoints": [{"addresses": ["169.254.169.254"]}]}))),
                Told::Not,
            ),
            of_slice(TYPE, Some(but(&slice, &names)), Told::Not),
            of_slice(HELD, Some(held(&slice)), Told::Not),
            granted("deleted", vec![], Told::Logged("ResolvedRefs=False/RefNotPermitted")),
            granted(HELD, vec![held(&grant("Service"))], Told::Not),
        ]
    }

    fn routes(&self, port: u16) -> Vec<Case> {
        const ROUTE: &str = "SecureWebSocketRoute";
        const CLASS: &str = "IngressClass";
        let class = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "edge"},
            "spec": {"controller": "wssgate.io/ingress-controller"},
        });
        let edge = |name: &str| json!({"ingressClassName": name});
        let of_route = |what, routes: Vec<Value>, told| Case::of(ROUTE, what, vec![("route.yaml", routes)], told);
        let of_class = |what, classes: Vec<Value>, told| {
            Case::of(CLASS, what, vec![("class.yaml", classes)], told)
                .with(&edge("edge"), &[("class.yaml", vec![class.clone()])])
        };
        let usual = route("chat", HOST, "chat-tls", "chat", &json!({}));
        let mistake = route("chat", HOST, "chat-tls", "chat", &json!({"connection": {"idleTimeout": "soon"}}));
        let lost = Told::Logged("Accepted=False/NoMatchingClass");
        vec![
            of_route("deleted", vec![], Told::Not),
            of_route("renamed", vec![but(&usual, &json!({"metadata": {"name": "other"}}))], Told::Not),
            of_route("broken (a mistake in its spec)", vec![mistake], Told::Logged("Accepted=False/Invalid")),
            of_route(HELD, vec![held(&usual)], Told::Not),
            Case::of(
                ROUTE,
                "being deleted, and its Secret and Service with it",
                vec![
                    ("route.yaml", vec![held(&usual)]),
                    ("secret.yaml", vec![]),
                    ("service.yaml", service("other", &[port])),
                ],
                Told::Not,
            ),
            of_class("deleted", vec![], lost),
            Case::of(
                CLASS,
                ANOTHER,
                vec![("route.yaml", vec![route("chat", HOST, "chat-tls", "chat", &edge("other"))])],
                lost,
            )
            .with(&edge("edge"), &[("class.yaml", vec![class.clone()])]),
            of_class(
                "replaced with one of another controller",
                vec![but(&class, &json!({"spec": {"controller": "example.com/other"}}))],
                Told::Not,
            ),
            of_class(HELD, vec![held(&class)], Told::Not),
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

    /// Makes a change, and says what became of an open connection and of a new handshake.
    async fn observe(&self, recorder: &Recorder, case: &Case) -> (String, String) {
        let mut files = manifests(&self.authority, recorder, &case.spec);
        files = files.with("secret.yaml", &[secret("chat-tls", &self.pair)]);
        for (file, objects) in &case.files {
            files = files.with(file, objects);
        }
        let gateway = Gateway::start(&files).await;
        let (client, name) = (self.client(&gateway), format!("{}, {}", case.object, case.what));
        let mut open = client.open(&self.head()).await;
        open.echo(&Frame::text("before")).await;
        let shown = client.connect().await.certificate();
        for (file, objects) in &case.change {
            let before = looked(&gateway).await;
            match objects.as_slice() {
                [] => fs::remove_file(gateway.manifests().join(file)).unwrap(),
                objects => gateway.write(file, &text(objects)),
            }
            let what = format!("{name}: the change of {file} to be read");
            until(PATIENCE, &what, async || (looked(&gateway).await > before).then_some(())).await;
        }
        match case.told {
            Told::Logged(told) => {
                gateway.log_line(&format!("{name}: {told}"), |line| said(line) == Some(told.to_owned())).await;
            }
            Told::Shown(told) => {
                let all = conditions(&gateway);
                assert!(all.iter().any(|one| one == told), "{name}: {told} is not among {all:?}");
            }
            Told::Not => {}
        }
        if !matches!(case.told, Told::Logged(_)) {
            let lines = gateway.logs();
            let attention: Vec<_> = lines.iter().filter(|line| line["message"] == "route needs attention").collect();
            assert!(attention.is_empty(), "{name}: {attention:?}");
        }
        let new = match client.try_connect().await {
            Err(_) => "the TLS alert `unrecognized_name`".to_owned(),
            Ok(mut peer) => {
                assert_eq!(peer.certificate(), shown, "{name}");
                peer.write(&self.head().bytes()).await;
                match peer.head().await.map(|answer| answer.status()) {
                    Some(101) if matches!(case.told, Told::Logged(told) if told.starts_with("CertificateReady")) => {
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

/// When the gateway last read and compiled everything.
async fn looked(gateway: &Gateway) -> f64 {
    gateway.metric("wssgate_snapshot_timestamp_seconds", &[]).await
}

/// The conditions of the only route of a directory, as `wssgate check` has them.
fn conditions(gateway: &Gateway) -> Vec<String> {
    let mut check = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    let said = check.args(["check", "--output", "json"]).arg(gateway.manifests()).output().unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let text = |condition: &Value, name: &str| condition[name].as_str().unwrap().to_owned();
    let all = said["items"][0]["status"]["conditions"].as_array().unwrap();
    all.iter().map(|one| format!("{}={}/{}", text(one, "type"), text(one, "status"), text(one, "reason"))).collect()
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
    let authority = Authority::new();
    let pair = authority.leaf(&[HOST]);
    let world = World { authority, pair, partners: Authority::new(), key: Key::es256("one") };
    let recorder = Recorder::start(Behaviour::Echo).await;
    let mut cases = world.certificates();
    cases.extend(world.issuing());
    cases.extend(world.authorities());
    cases.extend(World::backends(recorder.port()));
    cases.extend(world.routes(recorder.port()));
    let mut elsewhere = IN_A_CLUSTER.to_vec();
    let mut wrong = Vec::new();
    for [object, what, open, new, condition] in rows() {
        if let Some(at) = elsewhere.iter().position(|row| row[0] == object && row[1] == what) {
            let [_, _, fate, answer, told, test] = elsewhere.remove(at);
            let (file, name) = test.split_once("::").unwrap();
            let text = fs::read_to_string(root().join(format!("tests/{file}.rs"))).unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{test} does not exist");
            if !open.starts_with(fate) || !new.starts_with(answer) || !condition.starts_with(told) {
                wrong.push(format!("{object}, {what}: {test} says {fate}; {answer}; {told}"));
            }
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
        let told = match case.told {
            Told::Logged(told) | Told::Shown(told) => format!("`{told}`"),
            Told::Not => String::new(),
        };
        if !condition.starts_with(&told) || (told.is_empty() && condition.starts_with('`')) {
            wrong.push(format!("{object}, {what}: {told:?} is told"));
        }
    }
    wrong.extend(cases.iter().map(|case| format!("{}, {}: not on the page", case.object, case.what)));
    wrong.extend(elsewhere.iter().map(|row| format!("{}, {}: not on the page", row[0], row[1])));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
