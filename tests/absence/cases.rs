//! The cases of the page that are walked with manifests in a directory: what is there, what changes, and what is told.

use crate::harness::issuer::{self, Key, any_of, method, set};
use crate::harness::manifests::{config_map, merge, route, secret, service, service_as};
use crate::harness::setup::HOST;
use crate::harness::{Authority, Pair, json};
use serde_json::Value;

/// A finalizer holds the object.
const HELD: &str = "being deleted (finalizers)";
const ANOTHER: &str = "another one is named that does not exist";
const TYPE: &str = "replaced with another type";

/// What changes: a file with other objects, or without any.
pub(super) type Change = (&'static str, Vec<Value>);

/// How a change becomes known.
#[derive(Clone, Copy)]
pub(super) enum Told {
    /// The log has `condition=status/reason`.
    Logged(&'static str),
    /// The log has nothing, and a status of the directory has `condition=status/reason`.
    Shown(&'static str),
    /// Nothing is said.
    Not,
}

/// One row of the page.
pub(super) struct Case {
    pub(super) object: &'static str,
    pub(super) what: &'static str,
    /// Laid over the usual spec.
    pub(super) spec: Value,
    /// Beside the usual manifests.
    pub(super) files: Vec<Change>,
    pub(super) settings: Value,
    pub(super) change: Vec<Change>,
    pub(super) told: Told,
}

impl Case {
    fn of(object: &'static str, what: &'static str, change: Vec<Change>, told: Told) -> Self {
        Self { object, what, spec: json!({}), files: Vec::new(), settings: json!({}), change, told }
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
pub(super) struct World {
    pub(super) authority: Authority,
    /// The certificate of the host.
    pub(super) pair: Pair,
    pub(super) partners: Authority,
    pub(super) key: Key,
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
            Case {
                spec: json!({"tls": null}),
                settings: json!({"defaultCertificate": {"namespace": "shop", "name": "chat-tls"}}),
                ..Case::of(
                    "Secret with the default certificate",
                    "deleted",
                    vec![("secret.yaml", vec![])],
                    Told::Logged("CertificateReady=False/RefNotFound"),
                )
            },
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

    /// What a route names of its backends besides Services: `wss` is the port of one that speaks TLS, `asked` of one that
    /// lets everybody in.
    fn backend_references(&self, wss: u16, asked: u16) -> Vec<Case> {
        const CAS: &str = "ConfigMap with CAs of a backend";
        let bundle = |pem: &str| config_map("backend-ca", "ca.crt", pem);
        let tls = json!({"rules": [{
            "name": "all", "backendRefs": [{"name": "chat", "port": 8080}],
            "backendTLS": {"hostname": "backend.test", "caCertificateRefs": [{"name": "backend-ca"}]},
        }]});
        let of_cas = |what, bundles: Vec<Value>, told| {
            let files = [
                ("service.yaml", service_as("chat", "kubernetes.io/wss", &[wss])),
                ("ca.yaml", vec![bundle(self.authority.pem())]),
            ];
            Case::of(CAS, what, vec![("ca.yaml", bundles)], told).with(&tls, &files)
        };
        let sessions = service_as("sessions", "http", &[asked]);
        let external = any_of(&[issuer::external(&json!({}))]);
        let slice_alone = vec![("sessions.yaml", vec![sessions[1].clone()])];
        vec![
            of_cas("deleted", vec![], Told::Logged("ResolvedRefs=False/RefNotFound")),
            of_cas("broken", vec![bundle("broken")], Told::Logged("ResolvedRefs=False/InvalidCertificateRef")),
            of_cas(HELD, vec![held(&bundle(self.authority.pem()))], Told::Not),
            Case::of(
                "Service of an External method",
                "deleted",
                slice_alone,
                Told::Logged("ResolvedRefs=False/BackendNotFound"),
            )
            .with(&external, &[("sessions.yaml", sessions)]),
        ]
    }

    /// Schemas of messages. They let the echoes of the test pass and nothing else, so that what stays is judged.
    fn schemas() -> Vec<Case> {
        const MAP: &str = "ConfigMap with schemas of messages";
        const GRANT: &str = "ReferenceGrant for schemas of messages";
        let map = |text: &str| config_map("words", "word.json", text);
        let good = map(r#"{"enum": ["before", "after"]}"#);
        let twice = r##"{"properties": {"a": {"$ref": "#"}}}"##;
        let costly = map(&format!(r#"{{"anyOf": [{twice}, {twice}]}}"#));
        let by =
            |reference: &Value| json!({"messages": {"fromClient": {"schemas": [{"name": "word", "ref": reference}]}}});
        let usual = by(&json!({"name": "words", "key": "word.json"}));
        let of =
            |what, change, told| Case::of(MAP, what, change, told).with(&usual, &[("words.yaml", vec![good.clone()])]);
        let to = |maps: Vec<Value>| vec![("words.yaml", maps)];
        let another = by(&json!({"name": "others", "key": "word.json"}));
        // Under another name, so that no good one stands in.
        let mut more = usual.clone();
        let mut never = another["messages"]["fromClient"]["schemas"][0].clone();
        merge(&mut never, &json!({"name": "other", "selector": [{"pointer": "/type", "value": "other"}]}));
        more["messages"]["fromClient"]["schemas"].as_array_mut().unwrap().insert(0, never);
        let added = vec![("route.yaml", vec![route("chat", HOST, "chat-tls", "chat", &more)])];
        let infra = but(&good, &json!({"metadata": {"namespace": "infra"}}));
        let far = by(&json!({"name": "words", "namespace": "infra", "key": "word.json"}));
        let granted = |what, grants: Vec<Value>, told| {
            let files = [("words.yaml", vec![infra.clone()]), ("grant.yaml", vec![grant("ConfigMap")])];
            Case::of(GRANT, what, vec![("grant.yaml", grants)], told).with(&far, &files)
        };
        let (missing, invalid) =
            (Told::Logged("ResolvedRefs=False/RefNotFound"), Told::Logged("ResolvedRefs=False/InvalidSchema"));
        vec![
            of("deleted", to(vec![]), missing),
            of(ANOTHER, vec![("route.yaml", vec![route("chat", HOST, "chat-tls", "chat", &another)])], missing),
            of("broken", to(vec![map("{")]), invalid),
            of("replaced with one that costs too much", to(vec![costly]), invalid),
            of("one is added that was never readable", added, missing),
            of(HELD, to(vec![held(&good)]), Told::Not),
            granted("deleted", vec![], Told::Logged("ResolvedRefs=False/RefNotPermitted")),
            granted(HELD, vec![held(&grant("ConfigMap"))], Told::Not),
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

    /// All of them.
    pub(super) fn cases(&self, plain: u16, wss: u16, asked: u16) -> Vec<Case> {
        let mut cases = self.certificates();
        cases.extend(self.issuing());
        cases.extend(self.authorities());
        cases.extend(Self::backends(plain));
        cases.extend(self.backend_references(wss, asked));
        cases.extend(Self::schemas());
        cases.extend(self.routes(plain));
        cases
    }
}
