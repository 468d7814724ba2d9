//! What one namespace may do to another, to the gateway and to the API server, and what a class and the settings say.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::Test;
use super::clusters::{Clusters, install_definition, install_definitions_of};
use super::control_plane::ControlPlane;
use super::fixture::{Fixture, LIMIT, condition, run, upgrade};
use super::harness::manifests::{merge, text};
use super::harness::{Behaviour, Frame, Recorder};
use super::sandbox;

/// A control plane on which routes without a class, and definitions of others, may appear. The sandbox ends it.
fn apart(clusters: &Clusters) -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| {
        let plane = clusters.another("apart");
        install_definition(&plane.kubectl());
        plane
    })
}

/// A ReferenceGrant `far` for the routes of a fixture.
fn grant(fixture: &Fixture<'_>, to: &Value) -> Value {
    let from = json!({"group": "wssgate.io", "kind": "SecureWebSocketRoute", "namespace": fixture.kubectl.namespace()});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "far"},
        "spec": {"from": [from], "to": [to]},
    })
}

fn a_grant_lets_a_route_use_what_lies_elsewhere_until_it_is_revoked(clusters: &Clusters) {
    run(async {
        let plane = clusters.another("grants");
        install_definition(&plane.kubectl());
        let fixture = Fixture::new(&plane, "grants", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let vault = fixture.plane.kubectl().make_namespace("vault");
        vault.put(vec![fixture.secret("far-tls", &fixture.authority.leaf(&["far.example.com"]))]);
        let far = json!({"tls": {"certificateRefs": [{"name": "far-tls", "namespace": vault.namespace()}]}});
        fixture.apply(&[fixture.route("far", "far.example.com", &far)]);
        let message = fixture.condition("far", "ResolvedRefs", "False", "RefNotPermitted");
        // Whether it exists is none of the route's business.
        let other = json!({"tls": {"certificateRefs": [{"name": "no-such", "namespace": vault.namespace()}]}});
        fixture.apply(&[fixture.route("not", "not.example.com", &other)]);
        let absent = fixture.condition("not", "ResolvedRefs", "False", "RefNotPermitted");
        assert_eq!(message.replace("far-tls", "NAME"), absent.replace("no-such", "NAME"));
        assert_eq!(fixture.status(&gateway, "far.example.com").await, 0);

        // The kind itself appears later than the gateway, and in the older of its versions alone.
        assert!(fixture.plane.kubectl().find(&["crd", "referencegrants.gateway.networking.k8s.io"]).is_none());
        install_definitions_of(&fixture.plane.kubectl(), "gateway-api-v1beta1");
        let to = json!({"group": "", "kind": "Secret", "name": "far-tls"});
        vault.put(vec![grant(&fixture, &to)]);
        let mut socket = fixture.open(&gateway, "far.example.com").await;
        socket.echo(&Frame::text("granted")).await;
        fixture.kubectl.wait("swsr/far", "condition=Ready", LIMIT);
        fixture.condition("not", "ResolvedRefs", "False", "RefNotPermitted");

        vault.must(&["delete", "referencegrant", "far"]);
        fixture.becomes(&gateway, "far.example.com", 0).await;
        fixture.condition("far", "ResolvedRefs", "False", "RefNotPermitted");
        // The grant was for the certificate, and an open connection needs none.
        socket.still_echoes(&Frame::text("still in")).await;
    });
}

/// What of a route can name an object of another namespace: what is laid over a route for it, and the kind of the object.
fn reaches(namespace: &str) -> [(&'static str, Value, &'static str); 8] {
    let (own, map) = (json!([{"name": "near"}]), json!([{"name": "far", "namespace": namespace}]));
    let method = |method: &Value| json!({"handshake": {"authentication": {"mode": "AnyOf", "methods": [method]}}});
    let keys = |kind: &str| {
        let reference = json!({"kind": kind, "name": "far", "namespace": namespace, "key": "jwks"});
        let jwt = json!({"issuer": "a", "audiences": ["a"], "jwks": {"type": "Local", "local": {"ref": reference}}});
        method(&json!({"name": "keys", "type": "JWT", "jwt": jwt}))
    };
    let service = json!({"name": "far", "namespace": namespace, "port": 8080});
    let asked = json!({"backendRef": service, "path": "/", "allowedHeaders": ["cookie"]});
    let external = json!({"name": "judge", "type": "External", "external": asked});
    let rule = |more: Value| {
        let mut rule = json!({"name": "all", "backendRefs": [{"name": "chat", "port": 8080}]});
        merge(&mut rule, &more);
        json!({"rules": [rule]})
    };
    [
        ("certificate", json!({"tls": {"certificateRefs": map}}), "Secret"),
        (
            "revoked",
            json!({"tls": {"clientValidation": {"mode": "Optional", "caCertificateRefs": own, "crlRefs": map}}}),
            "ConfigMap",
        ),
        (
            "authority",
            json!({"tls": {"clientValidation": {"mode": "Optional", "caCertificateRefs": map}}}),
            "ConfigMap",
        ),
        ("mesh", rule(json!({"backendTLS": {"hostname": "a.example.com", "caCertificateRefs": map}})), "ConfigMap"),
        ("backend", rule(json!({"backendRefs": [service]})), "Service"),
        ("judge", method(&external), "Service"),
        ("secret-keys", keys("Secret"), "Secret"),
        ("public-keys", keys("ConfigMap"), "ConfigMap"),
    ]
}

/// Only a grant for its own kind opens each, and whoever has none is not told whether the object is there.
fn every_reference_of_a_route_needs_a_grant_for_its_kind(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(apart(clusters), "reaches", &json!({})).await;
        install_definitions_of(&fixture.plane.kubectl(), "gateway-api");
        let vault = fixture.plane.kubectl().make_namespace("reached");
        let _gateway = fixture.gateway("wssgate-0").await;
        let reaches = reaches(vault.namespace());
        let host = |name: &str| format!("{name}.example.com");
        let routes: Vec<Value> = reaches.iter().map(|(name, spec, _)| fixture.route(name, &host(name), spec)).collect();
        fixture.apply(&routes);
        let missing = |route: &Value| {
            let all = route["status"]["conditions"].as_array()?;
            let said = all.iter().filter_map(|condition| condition["message"].as_str());
            said.map(str::to_owned).find(|message| message.contains("no ReferenceGrant in namespace"))
        };
        let refused = |name: &str| fixture.kubectl.until(LIMIT, &["swsr", name], "to lack a grant", missing);
        let absent: Vec<String> = reaches.iter().map(|(name, ..)| refused(name)).collect();
        for ((name, _, kind), message) in reaches.iter().zip(&absent) {
            assert!(message.contains(kind) && message.contains(vault.namespace()), "{name}: {message}");
        }
        // They are there now; nothing else is said.
        let object = |kind: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "far"}});
        let mut service = object("Service");
        service["spec"] = json!({"ports": [{"port": 8080}]});
        vault.put(vec![object("Secret"), object("ConfigMap"), service]);
        // What is applied after them is seen after them.
        fixture.apply(&[fixture.route("last", "last.example.com", &json!({}))]);
        fixture.kubectl.wait("swsr/last", "condition=Ready", LIMIT);
        assert_eq!(reaches.iter().map(|(name, ..)| refused(name)).collect::<Vec<_>>(), absent);

        for kind in ["Secret", "ConfigMap", "Service"] {
            vault.put(vec![grant(&fixture, &json!({"group": "", "kind": kind}))]);
            for (name, _, of) in &reaches {
                let granted = |route: &Value| (missing(route).is_some() != (*of == kind)).then_some(());
                let what = format!("with a grant for {kind} to be refused, or not");
                fixture.kubectl.until(LIMIT, &["swsr", name], &what, granted);
            }
        }
    });
}

fn a_route_without_a_class_belongs_to_the_default_class_alone(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(apart(clusters), "classless", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let theirs = format!("{}-theirs", fixture.class());
        fixture.home.apply(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {{name: {theirs}}},
               spec: {{controller: example.com/other}}}}"
        ));
        fixture.apply(&[
            fixture.route("none", "none.example.com", &json!({"ingressClassName": null})),
            fixture.route("theirs", "theirs.example.com", &json!({"ingressClassName": theirs})),
            fixture.route("ours", "ours.example.com", &json!({})),
        ]);
        fixture.open(&gateway, "ours.example.com").await;
        assert_eq!(fixture.status(&gateway, "none.example.com").await, 0);
        let default = |yes: bool| {
            let mark = format!("ingressclass.kubernetes.io/is-default-class={yes}");
            fixture.home.must(&["annotate", "--overwrite", "ingressclass", fixture.class(), &mark]);
        };
        default(true);
        fixture.open(&gateway, "none.example.com").await;
        fixture.kubectl.wait("swsr/none", "condition=Ready", LIMIT);
        default(false);
        fixture.becomes(&gateway, "none.example.com", 0).await;
        fixture.kubectl.until(LIMIT, &["swsr", "none"], "to lose our conditions", |route| {
            condition(route, "Ready").is_none_or(|ready| ready["status"] == "Unknown").then_some(())
        });
        let route = fixture.kubectl.get(&["swsr", "theirs"]);
        assert!(route["status"]["controllerName"].is_null(), "{route:#}");
        assert_eq!(fixture.status(&gateway, "theirs.example.com").await, 0);
    });
}

fn settings_of_the_config_map_take_effect_under_open_sockets(clusters: &Clusters) {
    run(async {
        let strict = json!({"settings": {"defaults": {"handshake": {"origins": {"missing": "Deny"}}}}});
        let fixture = Fixture::new(clusters.control_plane(), "settings", &strict).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let own = json!({"handshake": {"origins": {"allow": ["https://app.example.com"], "missing": "Allow"}}});
        fixture.apply(&[
            fixture.route("silent", "silent.example.com", &json!({})),
            fixture.route("own", "own.example.com", &own),
        ]);
        // The class's defaults stand where the route says nothing, and only there.
        let mut socket = fixture.open(&gateway, "own.example.com").await;
        fixture.becomes(&gateway, "silent.example.com", 403).await;

        fixture.install(&json!({}));
        fixture.becomes(&gateway, "silent.example.com", 101).await;
        // A mistake changes nothing, and is said.
        let mut map = fixture.home.get(&["configmap", "wssgate"]);
        let text = map["data"]["gateway.yaml"].as_str().unwrap().to_owned();
        map["data"]["gateway.yaml"] = format!("{text}\nnoSuchSetting: true\n").into();
        fixture.home.apply(&map.to_string());
        fixture.project();
        super::fixture::logged(&gateway, &["settings file is not valid", "noSuchSetting"]);
        assert_eq!(fixture.status(&gateway, "silent.example.com").await, 101);

        // Suffixes bind a namespace, also what it has already.
        let suffixes = json!({fixture.kubectl.namespace(): ["own.example.com"]});
        fixture.install(&json!({"settings": {"hostnameSuffixes": suffixes}}));
        let message = fixture.condition("silent", "Accepted", "False", "HostnameNotPermitted");
        assert!(message.contains("silent.example.com") && message.contains("own.example.com"), "{message}");
        assert_ne!(fixture.status(&gateway, "silent.example.com").await, 101);
        fixture.open(&gateway, "own.example.com").await;
        socket.echo(&Frame::text("through all of it")).await;
        // And are nobody else's: kept for a namespace that has not come yet.
        fixture.install(&json!({"settings": {"hostnameSuffixes": {"later": ["own.example.com"]}}}));
        let message = fixture.condition("own", "Accepted", "False", "HostnameNotPermitted");
        assert!(message.contains("own.example.com") && !message.contains("later"), "{message}");
        fixture.becomes(&gateway, "silent.example.com", 101).await;
        // No wildcard serves them either, nor goes on to.
        fixture.apply(&[fixture.route("star", "*.example.com", &json!({}))]);
        let mut any = fixture.open(&gateway, "any.example.com").await;
        assert_eq!(fixture.status(&gateway, "own.example.com").await, 0);
        let kept = json!({"later": ["own.example.com", "any.example.com"]});
        fixture.install(&json!({"settings": {"hostnameSuffixes": kept}}));
        assert!(any.close_within(LIMIT).await.is_some());
        fixture.open(&gateway, "other.example.com").await;
    });
}

fn the_gateway_never_connects_to_the_api_server_itself_or_what_endpoints_may_not_be(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "fence", &json!({})).await;
        let own = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        let (ip, port) = (own.address().ip().to_string(), own.address().port());
        let gateway = fixture.gateway_with("wssgate-0", &[("POD_IP", &ip)], &[]).await;
        // The API server itself keeps out what must never be an endpoint.
        for never in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"] {
            fixture.kubectl.refused(&fixture.slice("chat", never, 80).to_string());
        }
        let server = fixture.kubectl.must(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
        let (host, at) = server.trim_start_matches("https://").split_once(':').unwrap();
        let service = fixture.plane.kubectl().get(&["service", "kubernetes", "--namespace", "default"]);
        let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap();
        let targets = [("own", ip.as_str(), port), ("server", host, at.parse().unwrap()), ("virtual", cluster_ip, 443)];
        for (name, address, port) in targets {
            let target = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
            let objects = [fixture.service(name, &target), vec![fixture.slice(name, address, port)]].concat();
            let host = format!("{name}.example.com");
            let spec = json!({"rules": [{"name": "all", "backendRefs": [{"name": name, "port": 8080}]}]});
            fixture.apply(&[objects, vec![fixture.route(name, &host, &spec)]].concat());
            fixture.becomes(&gateway, &host, 503).await;
            let route = fixture.kubectl.until(LIMIT, &["swsr", name], "to be judged", |route| {
                condition(route, "ResolvedRefs").filter(|c| c["reason"] == "NoEndpoints").map(|_| route.clone())
            });
            assert!(route.to_string().contains("blocked addresses: "), "{route:#}");
        }
        // Neither is anything fetched from there, whatever the port.
        for (name, address) in [("own", ip.as_str()), ("server", host), ("virtual", cluster_ip)] {
            let uri = format!("https://{address}:8443/{name}");
            let route = fixture.route(&format!("keys-{name}"), &format!("keys-{name}.example.com"), &fetching(&uri));
            fixture.apply(&[route]);
            let words = [uri.as_str(), "its host has no address that the gateway may connect to"];
            super::fixture::logged(&gateway, &words);
        }
        assert_eq!(own.count(), (0, 0));
        // A slice that says itself that it leads to another namespace.
        let target = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        let mut objects = fixture.service("foreign", &target);
        let spec = json!({"rules": [{"name": "all", "backendRefs": [{"name": "foreign", "port": 8080}]}]});
        objects.push(fixture.route("foreign", "foreign.example.com", &spec));
        fixture.apply(&objects);
        fixture.open(&gateway, "foreign.example.com").await;
        objects[1]["endpoints"][0]["targetRef"] = json!({"kind": "Pod", "name": "p", "namespace": "kube-system"});
        fixture.apply(&objects);
        fixture.becomes(&gateway, "foreign.example.com", 503).await;
        // To another gateway the same address is a backend like any other: it can be reached.
        let other = fixture.gateway_with("wssgate-1", &[("POD_IP", "10.89.1.255")], &[]).await;
        fixture.open(&other, "own.example.com").await.echo(&Frame::text("reached")).await;
    });
}

/// A spec whose keys are fetched.
fn fetching(uri: &str) -> Value {
    let jwt = json!({
        "issuer": "https://idp.example.com", "audiences": ["a"], "jwks": {"type": "Remote", "remote": {"uri": uri}},
        "extractFrom": [{"type": "Header", "name": "Authorization", "valuePrefix": "Bearer "}],
    });
    json!({"handshake": {"authentication": {"mode": "AnyOf", "methods": [{"name": "idp", "type": "JWT", "jwt": jwt}]}}})
}

fn a_gateway_of_single_namespaces_goes_around_the_api_server_as_far_as_it_may_see_it(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "around", &json!({})).await;
        let home = fixture.home.namespace().to_owned();
        fixture.confine(&json!([fixture.kubectl.namespace()]));
        let gateway = fixture.gateway("wssgate-0").await;
        let service = fixture.plane.kubectl().get(&["service", "kubernetes", "--namespace", "default"]);
        let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap();
        let slice = fixture.slice("chat", cluster_ip, 443);
        fixture.apply(&[fixture.route("chat", "around.example.com", &json!({})), slice]);
        // Nobody may read namespace default: all that is known is the address that the client itself uses.
        fixture.condition("chat", "ResolvedRefs", "True", "ResolvedRefs");
        fixture.plane.kubectl().apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {home}, namespace: default}}
rules:
- {{apiGroups: [''], resources: [services], resourceNames: [kubernetes], verbs: [get, list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], resourceNames: [kubernetes], verbs: [get, list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {home}, namespace: default}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {home}}}
subjects: [{{kind: ServiceAccount, name: wssgate, namespace: {home}}}]
"
        ));
        fixture.condition("chat", "ResolvedRefs", "True", "NoEndpoints");
        fixture.becomes(&gateway, "around.example.com", 503).await;
        fixture.apply(&[fixture.route("keys", "keys.example.com", &fetching(&format!("https://{cluster_ip}/jwks")))]);
        super::fixture::logged(&gateway, &["/jwks", "its host has no address that the gateway may connect to"]);
    });
}

fn names_that_point_anywhere_and_secrets_that_are_none_are_refused(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "hostile", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let external = fixture.here(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "anywhere"},
            "spec": {"type": "ExternalName", "externalName": "metadata.google.internal", "ports": [{"port": 8080}]},
        }));
        let to = |service: &str| json!({"rules": [{"name": "all", "backendRefs": [{"name": service, "port": 8080}]}]});
        let with = |secret: &str| json!({"tls": {"certificateRefs": [{"name": secret}]}});
        // A key that must never be seen again, in a certificate's place.
        let key = fixture.authority.leaf(&["x.example.com"]).key;
        let wrong = |name: &str, kind: &str, certificate: &str| {
            fixture.here(json!({
                "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name},
                "stringData": {"tls.crt": certificate, "tls.key": key, "filler": "x".repeat(900_000)},
            }))
        };
        let broken = wrong("broken-tls", "kubernetes.io/tls", &key);
        fixture.kubectl.must(&["create", "-f", &written(&fixture, "broken", &broken)]);
        let opaque = wrong("opaque-tls", "Opaque", "none");
        fixture.kubectl.must(&["create", "-f", &written(&fixture, "opaque", &opaque)]);
        let good = fixture.route("good", "good.example.com", &json!({}));
        fixture.apply(&[
            external,
            good,
            fixture.route("anywhere", "anywhere.example.com", &to("anywhere")),
            fixture.route("broken", "broken.example.com", &with("broken-tls")),
            fixture.route("opaque", "opaque.example.com", &with("opaque-tls")),
        ]);
        let message = fixture.condition("anywhere", "ResolvedRefs", "False", "InvalidKind");
        assert!(message.contains("ExternalName"), "{message}");
        fixture.becomes(&gateway, "anywhere.example.com", 503).await;
        let mut said = String::new();
        for (name, reason) in [("broken", "InvalidCertificate"), ("opaque", "InvalidCertificateRef")] {
            let message = fixture.condition(name, "CertificateReady", "False", reason);
            assert!(message.contains(&format!("{name}-tls")), "{message}");
            said += &fixture.kubectl.get(&["swsr", name])["status"].to_string();
            assert_eq!(fixture.status(&gateway, &format!("{name}.example.com")).await, 0);
        }
        fixture.open(&gateway, "good.example.com").await.echo(&Frame::text("not disturbed")).await;
        said += &gateway.log_text();
        said += &gateway.access_text();
        said += &fixture.kubectl.get(&["events.events.k8s.io"]).to_string();
        for line in key.lines().filter(|line| line.len() > 20 && !line.starts_with('-')) {
            assert!(!said.contains(line), "a line of the key is told");
        }
    });
}

/// A file with an object, for kubectl create, which does not copy it into an annotation.
fn written(fixture: &Fixture<'_>, name: &str, object: &Value) -> String {
    let file = fixture.plane.folder().join(format!("{}-{name}.yaml", fixture.class()));
    std::fs::write(&file, object.to_string()).unwrap();
    file.display().to_string()
}

fn what_clients_and_users_write_stays_data(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "data", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let hostile = "x\n{\"level\":\"ERROR\",\"forged\":true}\u{1b}[31m{{ .Values }} $(id) `id` ';--";
        let mut route = fixture.route("data", "data.example.com", &json!({}));
        route["metadata"]["annotations"] = json!({"example.com/note": hostile, "cert-manager.io/duration": hostile});
        let spec = json!({"ingressClassName": fixture.class(), "handshake": {"responseHeaders": {"set": [
            {"name": "x-note", "value": "{{ .Values }} $(id) `id` %0d%0a"},
        ]}}});
        let mut second = fixture.route("header", "header.example.com", &spec);
        second["metadata"]["annotations"] = json!({"example.com/note": hostile});
        fixture.kubectl.apply(&text(&[route, second]));
        let mut peer = fixture.open(&gateway, "data.example.com").await;
        peer.echo(&Frame::text("hello")).await;
        let (answer, _peer) = fixture.ask(&gateway, "header.example.com").await.unwrap();
        assert_eq!(answer.field("x-note").as_deref(), Some("{{ .Values }} $(id) `id` %0d%0a"));
        // What statuses and events quote is short and plain.
        let mut third = fixture.route("issued", "issued.example.com", &json!({"tls": {"issuerRef": {"name": "x"}}}));
        third["metadata"]["annotations"] = json!({"cert-manager.io/duration": hostile.repeat(1000)});
        fixture.apply(&[third]);
        let message = fixture.condition("issued", "CertificateReady", "False", "Invalid");
        let told = fixture.kubectl.until(LIMIT, &["events"], "to tell it", |events| {
            let all = events["items"].as_array()?.iter().filter_map(|event| event["message"].as_str());
            all.filter(|told| told.contains("duration")).map(str::to_owned).next()
        });
        for text in [message, told] {
            assert!(text.contains("cert-manager.io/duration") && text.contains("forged"), "{text}");
            assert!(text.len() < 1024 && !text.contains(char::is_control), "{text:?}");
        }
        let head = upgrade("data.example.com").add("User-Agent", "a \"b\" {\"forged\":true} \u{1b}[31m");
        fixture.client(&gateway, "data.example.com").ask(&head).await;
        for log in [gateway.log_text(), gateway.access_text()] {
            assert!(!log.contains('\u{1b}'), "a control character in a log");
            for line in log.lines() {
                let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(line["forged"].is_null(), "{line}");
            }
        }
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_grant_lets_a_route_use_what_lies_elsewhere_until_it_is_revoked,
        every_reference_of_a_route_needs_a_grant_for_its_kind,
        a_route_without_a_class_belongs_to_the_default_class_alone,
        settings_of_the_config_map_take_effect_under_open_sockets,
        the_gateway_never_connects_to_the_api_server_itself_or_what_endpoints_may_not_be,
        a_gateway_of_single_namespaces_goes_around_the_api_server_as_far_as_it_may_see_it,
        names_that_point_anywhere_and_secrets_that_are_none_are_refused,
        what_clients_and_users_write_stays_data,
    ]
}
