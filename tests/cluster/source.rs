//! A cluster as the source: what the gateway reads of a real API server, what it keeps, and what it serves by it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::fixture::{Fixture, LIMIT, logged, run};
use super::harness::manifests::text;
use super::harness::{Authority, Behaviour, Client, Frame, Recorder, until};
use super::sandbox;

fn a_route_that_kubectl_applies_is_served_changed_and_taken_away(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "served", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        assert_eq!(fixture.status(&gateway, "served.example.com").await, 0);
        fixture.apply(&[fixture.route("chat", "served.example.com", &json!({}))]);
        let mut socket = fixture.open(&gateway, "served.example.com").await;
        socket.echo(&Frame::text("hello")).await;
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);

        // A change closes nobody whom it would let in.
        let changed = json!({"connection": {"maxDuration": "11h"}});
        fixture.apply(&[fixture.route("chat", "served.example.com", &changed)]);
        socket.echo(&Frame::text("still here")).await;
        // Another backend, by the slice alone: open sockets stay where they are.
        let other = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        fixture.apply(&[fixture.slice("chat", &other.address().ip().to_string(), other.port())]);
        until(LIMIT, "the other backend to be reached", async || {
            let mut peer = fixture.open(&gateway, "served.example.com").await;
            peer.echo(&Frame::text("who")).await;
            (other.count().0 > 0).then_some(())
        })
        .await;
        socket.echo(&Frame::text("and still")).await;

        fixture.kubectl.must(&["delete", "swsr", "chat"]);
        assert_eq!(socket.close_code().await.map(|(code, _)| code), Some(1012));
        fixture.becomes(&gateway, "served.example.com", 0).await;
    });
}

fn only_secrets_and_config_maps_that_routes_name_are_kept(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "kept", &json!({})).await;
        // 40 MB of Secrets that no route names.
        let filler = "x".repeat(1_000_000);
        let file = fixture.plane.folder().join("filler.yaml");
        let secret = |index: usize| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": format!("filler-{index}")},
                "stringData": {"tls.crt": "c", "tls.key": "k", "more": filler},
            })
        };
        std::fs::write(&file, text(&(0..40).map(secret).collect::<Vec<_>>())).unwrap();
        fixture.kubectl.must(&["create", "-f", file.to_str().unwrap()]);
        fixture.apply(&[fixture.route("chat", "kept.example.com", &json!({}))]);
        let gateway = fixture.gateway("wssgate-0").await;
        fixture.open(&gateway, "kept.example.com").await;
        // What passed by in pages and watches has to be given back, too.
        let modest = async || Some(gateway.resident()).filter(|resident| *resident < 90_000);
        let before = until(LIMIT, "the gateway to be as large as without those Secrets", modest).await;
        fixture.kubectl.must(&["annotate", "secrets", "--all", "wssgate.io/test=touched"]);
        // A Secret that is named later is fetched, although its watch has passed.
        fixture.apply(&[fixture.secret("later-tls", &fixture.authority.leaf(&["later.example.com"]))]);
        let spec = json!({"tls": {"certificateRefs": [{"name": "later-tls"}]}});
        fixture.apply(&[fixture.route("later", "later.example.com", &spec)]);
        fixture.open(&gateway, "later.example.com").await;
        let modest = async || Some(gateway.resident()).filter(|resident| *resident < before + 25_000);
        until(LIMIT, "the gateway to be as large as before", modest).await;
    });
}

/// A route `chat` for a host with all that it needs, for another namespace than the fixture's.
fn whole(fixture: &Fixture<'_>, host: &str) -> Vec<Value> {
    let mut objects = fixture.service("chat", &fixture.recorder);
    objects.push(fixture.secret("chat-tls", &fixture.authority.leaf(&["*.example.com"])));
    objects.push(fixture.route("chat", host, &json!({})));
    objects
}

fn a_list_of_namespaces_needs_no_cluster_role_and_sees_nothing_else(clusters: &Clusters) {
    run(async {
        // The namespace has to be there before it can be watched.
        let fixture = Fixture::new(clusters.control_plane(), "listed", &json!({})).await;
        let home = fixture.home.namespace();
        let second = fixture.plane.kubectl().make_namespace("listed-too");
        fixture.confine(&json!([fixture.kubectl.namespace(), second.namespace()]));
        let roles = fixture.home.get(&["clusterrolebindings"]);
        let ours = |role: &&Value| role["subjects"][0]["namespace"] == home;
        assert!(!roles["items"].as_array().unwrap().iter().any(|role| ours(&role)), "a right over the cluster is left");

        let elsewhere = fixture.plane.kubectl().make_namespace("unlisted");
        elsewhere.put(vec![fixture.route("chat", "unlisted.example.com", &json!({}))]);
        fixture.apply(&[fixture.route("chat", "listed.example.com", &json!({}))]);
        second.put(whole(&fixture, "second.example.com"));
        let gateway = fixture.gateway("wssgate-0").await;
        for (kubectl, host) in [(&fixture.kubectl, "listed.example.com"), (&second, "second.example.com")] {
            fixture.open(&gateway, host).await;
            kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        }
        assert_eq!(fixture.status(&gateway, "unlisted.example.com").await, 0);
        let said = elsewhere.get(&["swsr", "chat"]);
        assert!(said["status"]["controllerName"].is_null(), "{said:#}");
    });
}

fn a_host_that_brings_no_certificate_is_served_with_that_of_the_settings(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "bare", &json!({})).await;
        let home = fixture.home.namespace();
        fixture.install(&json!({"settings": {"defaultCertificate": {"namespace": home, "name": "fallback"}}}));
        let fallback = |authority: &Authority| {
            fixture.home.put(vec![fixture.secret("fallback", &authority.leaf(&["*.example.com"]))]);
        };
        fallback(&fixture.authority);
        fixture.apply(&[fixture.route("bare", "bare.example.com", &json!({"tls": null}))]);
        let gateway = fixture.gateway("wssgate-0").await;
        let mut socket = fixture.open(&gateway, "bare.example.com").await;
        fixture.kubectl.wait("swsr/bare", "condition=Ready", LIMIT);
        // Renewed, by another authority so that it can be told apart.
        let next = Authority::new();
        fallback(&next);
        let client = Client { config: Arc::new(next.client()), ..fixture.client(&gateway, "bare.example.com") };
        until(LIMIT, "the next one to be served", async || client.try_connect().await.ok().map(drop)).await;
        socket.echo(&Frame::text("undisturbed")).await;
    });
}

fn settings_change_what_is_read_under_open_sockets(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "reread", &json!({})).await;
        let home = fixture.home.namespace();
        fixture.home.put(vec![fixture.secret("fallback", &fixture.authority.leaf(&["*.example.com"]))]);
        let elsewhere = fixture.plane.kubectl().make_namespace("reread-elsewhere");
        elsewhere.put(whole(&fixture, "elsewhere.example.com"));
        fixture.apply(&[
            fixture.route("chat", "reread.example.com", &json!({})),
            fixture.route("bare", "nothing.example.com", &json!({"tls": null})),
        ]);
        let gateway = fixture.gateway("wssgate-0").await;
        let mut socket = fixture.open(&gateway, "reread.example.com").await;
        let mut other = fixture.open(&gateway, "elsewhere.example.com").await;
        assert_eq!(fixture.status(&gateway, "nothing.example.com").await, 0);

        let settings = json!({"defaultCertificate": {"namespace": home, "name": "fallback"}});
        fixture.install(&json!({"settings": settings}));
        fixture.open(&gateway, "nothing.example.com").await;
        fixture.kubectl.wait("swsr/bare", "condition=Ready", LIMIT);

        fixture.install(&json!({"settings": settings, "watchNamespaces": [fixture.kubectl.namespace(), home]}));
        assert!(other.close_within(LIMIT).await.is_some(), "what is read no longer is served no longer");
        assert_eq!(fixture.status(&gateway, "elsewhere.example.com").await, 404, "by the default certificate");
        for socket in [&mut socket, &mut fixture.open(&gateway, "nothing.example.com").await] {
            socket.echo(&Frame::text("undisturbed")).await;
        }

        // A class has one controller for its life.
        fixture.home.must(&["delete", "ingressclass", fixture.class()]);
        fixture.install(&json!({"settings": settings, "controllerName": "example.com/own"}));
        fixture.open(&gateway, "elsewhere.example.com").await;
        fixture.kubectl.until(LIMIT, &["swsr", "chat"], "to be spoken of by the new controller", |route| {
            (route["status"]["controllerName"] == "example.com/own").then_some(())
        });
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
    });
}

fn secrets_by_name_need_the_right_to_those_names_alone(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "named", &json!({})).await;
        let named = json!([{"namespace": fixture.kubectl.namespace(), "name": "chat-tls"}]);
        fixture.install(&json!({"secrets": {"mode": "Named", "names": named}}));
        let mut map = fixture.home.get(&["configmap", "wssgate"]);
        let settings = map["data"]["gateway.yaml"].as_str().unwrap().to_owned();
        if !settings.contains("secrets: Named") {
            map["data"]["gateway.yaml"] = format!("{settings}\ncluster: {{secrets: Named}}\n").into();
            fixture.home.apply(&map.to_string());
            fixture.project();
        }
        let refused = fixture.account.in_namespace(fixture.kubectl.namespace()).run(&["get", "secrets"]);
        assert!(refused.err.contains("forbidden"), "{refused:?}");
        let spec = json!({"tls": {"certificateRefs": [{"name": "other-tls"}]}});
        fixture.apply(&[
            fixture.secret("other-tls", &fixture.authority.leaf(&["other.example.com"])),
            fixture.route("chat", "named.example.com", &json!({})),
            fixture.route("other", "other.example.com", &spec),
        ]);
        let gateway = fixture.gateway("wssgate-0").await;
        fixture.open(&gateway, "named.example.com").await;
        // One that may not be read harms nobody else, and which right is lacking is said.
        let message = fixture.condition("other", "ResolvedRefs", "False", "RefNotReadable");
        for words in ["spec.tls.certificateRefs[0]", "Secret", "other-tls", "get, list and watch on secrets", "RBAC"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        assert_eq!(fixture.status(&gateway, "other.example.com").await, 0);
        // One that is not there although it could be read is another thing; with the right the first is one like any other.
        let missing = json!({"tls": {"certificateRefs": [{"name": "missing-tls"}]}});
        fixture.apply(&[fixture.route("missing", "missing.example.com", &missing)]);
        fixture.condition("missing", "ResolvedRefs", "False", "RefNotReadable");
        fixture.kubectl.apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: more}}
rules: [{{apiGroups: [''], resources: [secrets], resourceNames: [other-tls, missing-tls], verbs: [get, list, watch]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: more}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: more}}
subjects: [{{kind: ServiceAccount, name: wssgate, namespace: {}}}]
",
            fixture.home.namespace()
        ));
        fixture.open(&gateway, "other.example.com").await;
        fixture.condition("other", "ResolvedRefs", "True", "ResolvedRefs");
        fixture.condition("missing", "ResolvedRefs", "False", "RefNotFound");
        // A renewal is followed.
        let renewed = fixture.authority.leaf(&["named.example.com"]);
        fixture.apply(&[fixture.secret("chat-tls", &renewed)]);
        until(LIMIT, "the renewed certificate", async || {
            let peer = fixture.client(&gateway, "named.example.com").try_connect().await.ok()?;
            (peer.certificate()? == renewed.leaf()).then_some(())
        })
        .await;
    });
}

fn nothing_is_served_before_everything_was_read(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "start", &json!({})).await;
        fixture.apply(&[fixture.route("chat", "start.example.com", &json!({}))]);
        // Without the right to one kind the rest is read, and still nothing is served: half of what there is may let in
        // whom the other half would not.
        let role = format!("{}-wssgate", fixture.home.namespace());
        let whole = fixture.home.get(&["clusterrole", &role]);
        let mut part = whole.clone();
        part["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"][0] != "endpointslices");
        fixture.home.apply(&part.to_string());
        let mut gateway = fixture.launch("wssgate-0", &[], &[]).await;
        logged(&gateway, &["not allowed to list and watch endpointslices.discovery.k8s.io", "RBAC"]);
        assert_eq!(gateway.get("/readyz").await.0, 503);
        assert_eq!(gateway.get("/livez").await.0, 200);
        assert_eq!(gateway.listener("wss").or(gateway.listener("http")), None, "it accepts connections");
        // It would lead and have nothing to write.
        assert!(fixture.home.find(&["lease", "wssgate"]).is_none(), "it competes");
        let mut whole = whole;
        whole["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        fixture.home.apply(&whole.to_string());
        gateway.ready().await;
        fixture.open(&gateway, "start.example.com").await;
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        assert!(fixture.home.find(&["lease", "wssgate"]).is_some());
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_route_that_kubectl_applies_is_served_changed_and_taken_away,
        only_secrets_and_config_maps_that_routes_name_are_kept,
        a_list_of_namespaces_needs_no_cluster_role_and_sees_nothing_else,
        a_host_that_brings_no_certificate_is_served_with_that_of_the_settings,
        settings_change_what_is_read_under_open_sockets,
        secrets_by_name_need_the_right_to_those_names_alone,
        nothing_is_served_before_everything_was_read,
    ]
}
