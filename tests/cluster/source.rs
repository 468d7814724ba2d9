//! A cluster as the source: what the gateway reads of a real API server, what it keeps, and what it serves by it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::harness::manifests::text;
use super::harness::{Authority, Behaviour, Client, Frame, Recorder, until};
use super::sandbox;
use super::scene::{LIMIT, Scene, logged, run};

fn a_route_that_kubectl_applies_is_served_changed_and_taken_away(clusters: &Clusters) {
    run(async {
        let scene = Scene::new(clusters.control_plane(), "served", &json!({})).await;
        let gateway = scene.gateway("wssgate-0").await;
        assert_eq!(scene.status(&gateway, "served.example.com").await, 0);
        scene.apply(&[scene.route("chat", "served.example.com", &json!({}))]);
        let mut socket = scene.open(&gateway, "served.example.com").await;
        socket.echo(&Frame::text("hello")).await;
        scene.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);

        // A change closes nobody whom it would let in.
        let changed = json!({"connection": {"maxDuration": "11h"}});
        scene.apply(&[scene.route("chat", "served.example.com", &changed)]);
        socket.echo(&Frame::text("still here")).await;
        // Another backend, by the slice alone: open sockets stay where they are.
        let other = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        scene.apply(&[scene.slice("chat", &other.address().ip().to_string(), other.port())]);
        until(LIMIT, "the other backend to be reached", async || {
            let mut peer = scene.open(&gateway, "served.example.com").await;
            peer.echo(&Frame::text("who")).await;
            (other.count().0 > 0).then_some(())
        })
        .await;
        socket.echo(&Frame::text("and still")).await;

        scene.kubectl.must(&["delete", "swsr", "chat"]);
        assert_eq!(socket.close_code().await.map(|(code, _)| code), Some(1012));
        scene.becomes(&gateway, "served.example.com", 0).await;
    });
}

fn only_secrets_and_config_maps_that_routes_name_are_kept(clusters: &Clusters) {
    run(async {
        let scene = Scene::new(clusters.control_plane(), "kept", &json!({})).await;
        // 40 MB of Secrets that no route names.
        let filler = "x".repeat(1_000_000);
        let file = scene.plane.folder().join("filler.yaml");
        let secret = |index: usize| {
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": format!("filler-{index}")},
                "stringData": {"tls.crt": "c", "tls.key": "k", "more": filler},
            })
        };
        std::fs::write(&file, text(&(0..40).map(secret).collect::<Vec<_>>())).unwrap();
        scene.kubectl.must(&["create", "-f", file.to_str().unwrap()]);
        scene.apply(&[scene.route("chat", "kept.example.com", &json!({}))]);
        let gateway = scene.gateway("wssgate-0").await;
        scene.open(&gateway, "kept.example.com").await;
        // What passed by in pages and watches has to be given back, too.
        let modest = async || Some(gateway.resident()).filter(|resident| *resident < 90_000);
        let before = until(LIMIT, "the gateway to be as large as without those Secrets", modest).await;
        scene.kubectl.must(&["annotate", "secrets", "--all", "wssgate.io/test=touched"]);
        // A Secret that is named later is fetched, although its watch has passed.
        scene.apply(&[scene.secret("later-tls", &scene.authority.leaf(&["later.example.com"]))]);
        let spec = json!({"tls": {"certificateRefs": [{"name": "later-tls"}]}});
        scene.apply(&[scene.route("later", "later.example.com", &spec)]);
        scene.open(&gateway, "later.example.com").await;
        let modest = async || Some(gateway.resident()).filter(|resident| *resident < before + 25_000);
        until(LIMIT, "the gateway to be as large as before", modest).await;
    });
}

/// A route `chat` for a host with all that it needs, for another namespace than the scene's.
fn whole(scene: &Scene<'_>, host: &str) -> Vec<Value> {
    let mut objects = scene.service("chat", &scene.recorder);
    objects.push(scene.secret("chat-tls", &scene.authority.leaf(&["*.example.com"])));
    objects.push(scene.route("chat", host, &json!({})));
    objects
}

fn a_list_of_namespaces_needs_no_cluster_role_and_sees_nothing_else(clusters: &Clusters) {
    run(async {
        // The namespace has to be there before it can be watched.
        let scene = Scene::new(clusters.control_plane(), "listed", &json!({})).await;
        let home = scene.home.namespace();
        let second = scene.plane.kubectl().make_namespace("listed-too");
        scene.confine(&json!([scene.kubectl.namespace(), second.namespace()]));
        let roles = scene.home.get(&["clusterrolebindings"]);
        let ours = |role: &&Value| role["subjects"][0]["namespace"] == home;
        assert!(!roles["items"].as_array().unwrap().iter().any(|role| ours(&role)), "a right over the cluster is left");

        let elsewhere = scene.plane.kubectl().make_namespace("unlisted");
        elsewhere.put(vec![scene.route("chat", "unlisted.example.com", &json!({}))]);
        scene.apply(&[scene.route("chat", "listed.example.com", &json!({}))]);
        second.put(whole(&scene, "second.example.com"));
        let gateway = scene.gateway("wssgate-0").await;
        for (kubectl, host) in [(&scene.kubectl, "listed.example.com"), (&second, "second.example.com")] {
            scene.open(&gateway, host).await;
            kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        }
        assert_eq!(scene.status(&gateway, "unlisted.example.com").await, 0);
        let said = elsewhere.get(&["swsr", "chat"]);
        assert!(said["status"]["controllerName"].is_null(), "{said:#}");
    });
}

fn a_host_that_brings_no_certificate_is_served_with_that_of_the_settings(clusters: &Clusters) {
    run(async {
        let scene = Scene::new(clusters.control_plane(), "bare", &json!({})).await;
        let home = scene.home.namespace();
        scene.install(&json!({"settings": {"defaultCertificate": {"namespace": home, "name": "fallback"}}}));
        let fallback = |authority: &Authority| {
            scene.home.put(vec![scene.secret("fallback", &authority.leaf(&["*.example.com"]))]);
        };
        fallback(&scene.authority);
        scene.apply(&[scene.route("bare", "bare.example.com", &json!({"tls": null}))]);
        let gateway = scene.gateway("wssgate-0").await;
        let mut socket = scene.open(&gateway, "bare.example.com").await;
        scene.kubectl.wait("swsr/bare", "condition=Ready", LIMIT);
        // Renewed, by another authority so that it can be told apart.
        let next = Authority::new();
        fallback(&next);
        let client = Client { config: Arc::new(next.client()), ..scene.client(&gateway, "bare.example.com") };
        until(LIMIT, "the next one to be served", async || client.try_connect().await.ok().map(drop)).await;
        socket.echo(&Frame::text("undisturbed")).await;
    });
}

fn settings_change_what_is_read_under_open_sockets(clusters: &Clusters) {
    run(async {
        let scene = Scene::new(clusters.control_plane(), "reread", &json!({})).await;
        let home = scene.home.namespace();
        scene.home.put(vec![scene.secret("fallback", &scene.authority.leaf(&["*.example.com"]))]);
        let elsewhere = scene.plane.kubectl().make_namespace("reread-elsewhere");
        elsewhere.put(whole(&scene, "elsewhere.example.com"));
        scene.apply(&[
            scene.route("chat", "reread.example.com", &json!({})),
            scene.route("bare", "nothing.example.com", &json!({"tls": null})),
        ]);
        let gateway = scene.gateway("wssgate-0").await;
        let mut socket = scene.open(&gateway, "reread.example.com").await;
        let mut other = scene.open(&gateway, "elsewhere.example.com").await;
        assert_eq!(scene.status(&gateway, "nothing.example.com").await, 0);

        let settings = json!({"defaultCertificate": {"namespace": home, "name": "fallback"}});
        scene.install(&json!({"settings": settings}));
        scene.open(&gateway, "nothing.example.com").await;
        scene.kubectl.wait("swsr/bare", "condition=Ready", LIMIT);

        scene.install(&json!({"settings": settings, "watchNamespaces": [scene.kubectl.namespace(), home]}));
        assert!(other.close_within(LIMIT).await.is_some(), "what is read no longer is served no longer");
        assert_eq!(scene.status(&gateway, "elsewhere.example.com").await, 404, "by the default certificate");
        for socket in [&mut socket, &mut scene.open(&gateway, "nothing.example.com").await] {
            socket.echo(&Frame::text("undisturbed")).await;
        }

        // A class has one controller for its life.
        scene.home.must(&["delete", "ingressclass", scene.class()]);
        scene.install(&json!({"settings": settings, "controllerName": "example.com/own"}));
        scene.open(&gateway, "elsewhere.example.com").await;
        scene.kubectl.until(LIMIT, &["swsr", "chat"], "to be spoken of by the new controller", |route| {
            (route["status"]["controllerName"] == "example.com/own").then_some(())
        });
        scene.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
    });
}

fn secrets_by_name_need_the_right_to_those_names_alone(clusters: &Clusters) {
    run(async {
        let scene = Scene::new(clusters.control_plane(), "named", &json!({})).await;
        let named = json!([{"namespace": scene.kubectl.namespace(), "name": "chat-tls"}]);
        scene.install(&json!({"secrets": {"mode": "Named", "names": named}}));
        let mut map = scene.home.get(&["configmap", "wssgate"]);
        let settings = map["data"]["gateway.yaml"].as_str().unwrap().to_owned();
        if !settings.contains("secrets: Named") {
            map["data"]["gateway.yaml"] = format!("{settings}\ncluster: {{secrets: Named}}\n").into();
            scene.home.apply(&map.to_string());
            scene.project();
        }
        let refused = scene.account.in_namespace(scene.kubectl.namespace()).run(&["get", "secrets"]);
        assert!(refused.err.contains("forbidden"), "{refused:?}");
        let spec = json!({"tls": {"certificateRefs": [{"name": "other-tls"}]}});
        scene.apply(&[
            scene.secret("other-tls", &scene.authority.leaf(&["other.example.com"])),
            scene.route("chat", "named.example.com", &json!({})),
            scene.route("other", "other.example.com", &spec),
        ]);
        let gateway = scene.gateway("wssgate-0").await;
        scene.open(&gateway, "named.example.com").await;
        // One that may not be read harms nobody else, and which right is lacking is said.
        let message = scene.condition("other", "ResolvedRefs", "False", "RefNotReadable");
        for words in ["spec.tls.certificateRefs[0]", "Secret", "other-tls", "get, list and watch on secrets", "RBAC"] {
            assert!(message.contains(words), "{words}: {message}");
        }
        assert_eq!(scene.status(&gateway, "other.example.com").await, 0);
        // One that is not there although it could be read is another thing; with the right the first is one like any other.
        let missing = json!({"tls": {"certificateRefs": [{"name": "missing-tls"}]}});
        scene.apply(&[scene.route("missing", "missing.example.com", &missing)]);
        scene.condition("missing", "ResolvedRefs", "False", "RefNotReadable");
        scene.kubectl.apply(&format!(
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
            scene.home.namespace()
        ));
        scene.open(&gateway, "other.example.com").await;
        scene.condition("other", "ResolvedRefs", "True", "ResolvedRefs");
        scene.condition("missing", "ResolvedRefs", "False", "RefNotFound");
        // A renewal is followed.
        let renewed = scene.authority.leaf(&["named.example.com"]);
        scene.apply(&[scene.secret("chat-tls", &renewed)]);
        until(LIMIT, "the renewed certificate", async || {
            let peer = scene.client(&gateway, "named.example.com").try_connect().await.ok()?;
            (peer.certificate()? == renewed.leaf()).then_some(())
        })
        .await;
    });
}

fn nothing_is_served_before_everything_was_read(clusters: &Clusters) {
    run(async {
        let scene = Scene::new(clusters.control_plane(), "start", &json!({})).await;
        scene.apply(&[scene.route("chat", "start.example.com", &json!({}))]);
        // Without the right to one kind the rest is read, and still nothing is served: half of what there is may let in
        // whom the other half would not.
        let role = format!("{}-wssgate", scene.home.namespace());
        let whole = scene.home.get(&["clusterrole", &role]);
        let mut part = whole.clone();
        part["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"][0] != "endpointslices");
        scene.home.apply(&part.to_string());
        let mut gateway = scene.launch("wssgate-0", &[], &[]).await;
        logged(&gateway, &["not allowed to list and watch endpointslices.discovery.k8s.io", "RBAC"]);
        assert_eq!(gateway.get("/readyz").await.0, 503);
        assert_eq!(gateway.get("/livez").await.0, 200);
        assert_eq!(gateway.listener("wss").or(gateway.listener("http")), None, "it accepts connections");
        // It would lead and have nothing to write.
        assert!(scene.home.find(&["lease", "wssgate"]).is_none(), "it competes");
        let mut whole = whole;
        whole["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        scene.home.apply(&whole.to_string());
        gateway.ready().await;
        scene.open(&gateway, "start.example.com").await;
        scene.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        assert!(scene.home.find(&["lease", "wssgate"]).is_some());
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
