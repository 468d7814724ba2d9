//! A newcomer's way, on the node: `helm install`, a route, a wss echo; and the release's later life.

use std::time::Duration;

use serde_json::json;

use super::Test;
use super::clusters::Clusters;
use super::fleet::{Fleet, Prober, open};
use super::harness::{Frame, until};
use super::image::WSSGATE;
use super::release::{
    CHART, HOST, LIMIT, NAME, NEW_VALUES, PREVIOUS, VALUES, certificate, certified, condition, route,
};
use super::rolling::with_route;
use super::sandbox::{self, call};

/// Runs what needs sockets.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// The same with all sockets outside of the node: those that its tasks open, not `future` itself.
pub fn run_outside<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().on_thread_start(sandbox::step_outside).build();
    runtime.unwrap().block_on(future)
}

/// The rules of the route that all tests see: one path to each backend.
pub const RULES: &str = "[{name: echo, matches: [{path: {type: PathPrefix, value: /echo}}], backendRefs: [{name: echo, port: 80}]}, \
                         {name: other, matches: [{path: {type: PathPrefix, value: /other}}], backendRefs: [{name: other, port: 80}]}]";

fn a_route_is_ready_and_echoes_over_wss_with_the_charts_rights_alone(clusters: &Clusters) {
    let release = clusters.release();
    release.shop.apply(&certified("chat", HOST, RULES));
    release.shop.wait("swsr/chat", "condition=Ready", LIMIT);
    run(async {
        // The client trusts cert-manager's authority and nobody else.
        let mut peer = open(&release.client(HOST), "/echo").await.unwrap();
        peer.echo(&Frame::text("through the cluster")).await;
        assert_eq!(peer.close(1000, "").await.map(|close| close.0), Some(1000));
    });
    let route = release.shop.get(&["swsr", "chat"]);
    for name in ["Accepted", "ResolvedRefs", "CertificateReady", "Programmed", "Ready"] {
        assert_eq!(condition(&route, name).unwrap().0, "True", "{name}: {route:#}");
    }
    // Where its host has to point, for people and external-dns.
    let address = release.balancer().to_string();
    assert_eq!(route["status"]["addresses"], json!([{"type": "IPAddress", "value": address}]));
    // The gateway's own Certificate, which goes with the route.
    let kept = release.shop.get(&["certificate", &format!("{HOST}-tls")]);
    assert_eq!(kept["spec"]["dnsNames"], json!([HOST]));
    assert_eq!(kept["spec"]["privateKey"]["rotationPolicy"], "Always");
    assert_eq!(kept["metadata"]["ownerReferences"][0]["name"], "chat");
    let row = release.shop.must(&["get", "swsr", "chat", "--no-headers"]);
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[..4], ["chat", "[\"chat.example.com\"]", "Anonymous", "True"]);
    let text = release.shop.must(&["explain", "swsr.spec.handshake"]);
    assert!(text.contains("What the gateway checks of the HTTP upgrade") && text.contains("authentication"), "{text}");
    // What Prometheus would scrape of each Pod.
    for pod in release.addresses(&release.own, NAME).into_values() {
        let text =
            call(&["curl", "--silent", "--fail", "--max-time", "10", &format!("http://{pod}:9900/metrics")]).unwrap();
        assert!(text.contains("\n# TYPE wssgate_connections gauge\n"), "{text}");
    }
    // Pods speak as the chart's account, and that may not even read what every reader of a cluster may.
    let account = format!("system:serviceaccount:{NAME}:{NAME}");
    for (verb, what) in [("get", "pods"), ("update", "secrets"), ("update", "swsr"), ("create", "swsr")] {
        let said = release.shop.run(&["auth", "can-i", verb, what, "--as", &account]);
        assert!(!said.ok && said.out.trim() == "no", "{verb} {what}: {said:?}");
    }
}

fn a_host_belongs_to_the_older_route_until_that_is_gone(clusters: &Clusters) {
    let release = clusters.release();
    let host = "taken.example.com";
    let kubectl = release.shop.make_namespace("rival");
    let rules = "[{name: all, backendRefs: [{name: echo, port: 80}]}]";
    release.shop.apply(&format!("{}---{}", certificate(host), route("first", host, rules)));
    release.shop.wait("swsr/first", "condition=Ready", LIMIT);
    // The age of objects counts in seconds.
    let made = release.shop.get(&["swsr", "first"])["metadata"]["creationTimestamp"].clone();
    kubectl.apply(&format!("{}---{}", super::release::backend("echo"), certificate(host)));
    release.rolled_out(&kubectl, "echo");
    kubectl.apply(&route("second", host, rules));
    let conflict = kubectl.until(LIMIT, &["swsr", "second"], "to be told of the conflict", |route| {
        condition(route, "Accepted").filter(|(status, _)| status == "False").map(|found| (found, route.clone()))
    });
    assert_eq!(conflict.0.1, "HostnameConflict", "{:#}", conflict.1);
    assert_ne!(conflict.1["metadata"]["creationTimestamp"], made);
    // Whose it is, is none of the other namespace's business.
    assert!(conflict.1["status"].to_string().contains("another namespace; use another name"), "{:#}", conflict.1);
    let (status, _) = condition(&release.shop.get(&["swsr", "first"]), "Ready").unwrap();
    assert_eq!(status, "True");

    release.shop.must(&["delete", "swsr", "first"]);
    kubectl.wait("swsr/second", "condition=Ready", LIMIT);
    run(async {
        let mut peer = open(&release.client(host), "/").await.unwrap();
        peer.echo(&Frame::text("mine now")).await;
    });
    kubectl.must(&["delete", "swsr", "second"]);
}

fn a_grant_that_is_deleted_ends_the_sockets_that_it_let_in(clusters: &Clusters) {
    let release = with_route(clusters);
    let host = "granted.example.com";
    let kubectl = release.shop.make_namespace("web");
    let namespace = kubectl.namespace();
    kubectl.apply(&certificate(host));
    kubectl.apply(&route("granted", host, "[{name: all, backendRefs: [{name: echo, namespace: shop, port: 80}]}]"));
    let refused = |route: &serde_json::Value| {
        condition(route, "ResolvedRefs").filter(|(status, reason)| status == "False" && reason == "RefNotPermitted")
    };
    kubectl.until(LIMIT, &["swsr", "granted"], "to lack the grant", refused);
    release.shop.apply(&format!(
        "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: web}}
spec:
  from: [{{group: wssgate.io, kind: SecureWebSocketRoute, namespace: {namespace}}}]
  to: [{{group: '', kind: Service}}]
"
    ));
    kubectl.wait("swsr/granted", "condition=Ready", LIMIT);
    run(async {
        let granted = Fleet::start(&release.client(host), "/", 10, false).await;
        let own = Fleet::start(&release.client(HOST), "/echo", 10, false).await;
        granted.all_live().await;
        release.shop.must(&["delete", "referencegrant", "web"]);
        granted.all_ended(LIMIT).await;
        for ending in granted.endings() {
            assert!(matches!(&ending[..], [Some((1008, _))]), "{ending:?}");
        }
        own.all_live().await;
        let error = open(&release.client(host), "/").await.map(drop).unwrap_err();
        assert!(error.starts_with("HTTP: ") || error.starts_with("TLS: "), "{error}");
    });
    kubectl.until(LIMIT, &["swsr", "granted"], "to say so", refused);
    kubectl.must(&["delete", "swsr", "granted"]);
}

/// Neither by its Service nor by a slice that somebody wrote: the plain and the admin port would be open by it.
fn the_gateway_is_no_backend_of_its_own(clusters: &Clusters) {
    let release = clusters.release();
    let all = |service: &str| format!("[{{name: all, backendRefs: [{{name: {service}, port: 443}}]}}]");
    release.own.apply(&certified("own", "own.example.com", &all(NAME)));
    let ports = "ports: [{name: wss, port: 443}]";
    release.shop.apply(&format!("{{apiVersion: v1, kind: Service, metadata: {{name: sneak}}, spec: {{{ports}}}}}"));
    let pods: Vec<String> = release.addresses(&release.own, NAME).values().map(ToString::to_string).collect();
    assert_eq!(pods.len(), 2);
    for (port, name) in [(8443, "sneak-wss"), (9900, "sneak-admin")] {
        release.shop.apply(&format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: sneak}}}}
addressType: IPv4
ports: [{{name: wss, port: {port}}}]
endpoints: [{{addresses: ['{}']}}, {{addresses: ['{}']}}]
",
            pods[0], pods[1]
        ));
    }
    release.shop.apply(&certified("sneak", "sneak.example.com", &all("sneak")));
    for (kubectl, route) in [(&release.own, "own"), (&release.shop, "sneak")] {
        kubectl.wait(&format!("swsr/{route}"), "condition=Ready", LIMIT);
        let host = format!("{route}.example.com");
        run(until(LIMIT, "every Pod to refuse", async || {
            for _ in 0..8 {
                let error = open(&release.client(&host), "/").await.map(drop).unwrap_err();
                (error == "HTTP: 503").then_some(())?;
            }
            Some(())
        }));
        let message = kubectl.get(&["swsr", route]).to_string();
        assert!(message.contains("blocked addresses: "), "{message}");
        kubectl.must(&["delete", "swsr", route]);
    }
    release.shop.must(&["delete", "service", "sneak"]);
}

/// The kubelet brings a ConfigMap that changed to the Pods that run.
fn settings_reach_running_pods_and_disturb_no_socket(clusters: &Clusters) {
    let release = with_route(clusters);
    let host = "chat.kept.example.com";
    release.shop.apply(&certified("kept", host, RULES));
    release.shop.wait("swsr/kept", "condition=Ready", LIMIT);
    let pods = release.pods(&release.own, NAME);
    run(async {
        let own = Fleet::start(&release.client(HOST), "/echo", 10, false).await;
        let kept = Fleet::start(&release.client(host), "/echo", 10, false).await;
        let suffix = "settings.hostnameSuffixes.elsewhere={kept.example.com}";
        release.must(&[&["upgrade", NAME, CHART, "--set", suffix][..], &VALUES].concat());
        release.shop.until(LIMIT * 2, &["swsr", "kept"], "to lose the name", |route| {
            condition(route, "Accepted").filter(|(_, reason)| reason == "HostnameNotPermitted")
        });
        kept.all_ended(LIMIT * 2).await;
        own.all_live().await;
    });
    assert_eq!(release.pods(&release.own, NAME), pods, "Pods were started anew");
    release.shop.must(&["delete", "swsr", "kept"]);
    release.must(&[&["upgrade", NAME, CHART][..], &VALUES].concat());
}

/// Who empties a node takes one Pod, and the next when that is back.
fn of_two_pods_one_can_be_evicted_at_a_time(clusters: &Clusters) {
    let release = clusters.release();
    let pods = release.pods(&release.own, NAME);
    let evict = |pod: &str| {
        let path = format!("/api/v1/namespaces/{NAME}/pods/{pod}/eviction");
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
        release.own.run_with(&["create", "--raw", &path, "-f", "-"], &body.to_string())
    };
    let said = evict(&pods[0]);
    assert!(said.ok, "{said:?}");
    let said = evict(&pods[1]);
    assert!(!said.ok && said.err.contains("disruption budget"), "{said:?}");
    release.rolled_out(&release.own, NAME);
    assert!(!release.pods(&release.own, NAME).contains(&pods[0]));
}

fn upgrade_rollback_and_uninstall_leave_what_they_should(clusters: &Clusters) {
    let release = clusters.release();
    let admin = release.own.clone();
    let level = || {
        let pods = admin.get(&["deployment", NAME]);
        let env = pods["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
        env.iter().find(|entry| entry["name"] == "WSSGATE_LOG").unwrap()["value"].as_str().unwrap().to_owned()
    };
    let serves = |text: &'static str| {
        run(async {
            let mut peer = open(&release.client(HOST), "/echo").await.unwrap();
            peer.echo(&Frame::text(text)).await;
        });
    };
    release.must(&[&["upgrade", NAME, CHART, "--set", "logLevel=debug"][..], &VALUES].concat());
    release.rolled_out(&admin, NAME);
    assert_eq!(level(), "debug");
    serves("upgraded");
    release.must(&["rollback", NAME, "1", "--wait", "--timeout=120s"]);
    release.rolled_out(&admin, NAME);
    assert_eq!(level(), "info");
    serves("rolled back");

    // What is the user's: uid, and where it must not be written, its version.
    let theirs = || {
        let secret = release.shop.get(&["secret", &format!("{HOST}-tls")])["metadata"].clone();
        let certificate = release.shop.get(&["certificate", &format!("{HOST}-tls")])["metadata"].clone();
        (
            secret["uid"].clone(),
            secret["resourceVersion"].clone(),
            certificate["uid"].clone(),
            certificate["generation"].clone(),
        )
    };
    let before = theirs();
    run(async {
        let mut peer = open(&release.client(HOST), "/echo").await.unwrap();
        tokio::task::block_in_place(|| release.must(&["uninstall", NAME, "--wait", "--timeout=120s"]));
        // By the drain, or since the class goes and with it the route, whichever is first.
        let code = peer.close_code().await.map(|(code, _)| code);
        assert!(matches!(code, Some(1001 | 1012)), "who is in is told: {code:?}");
    });
    // The Lease is the replicas' own. Where their rights go first nobody gives it up; its time ends it.
    assert!(release.lease().is_some());
    // crds.keep: the definition, and with it every route.
    admin.must(&["get", "crd", "securewebsocketroutes.wssgate.io"]);
    release.shop.must(&["get", "swsr", "chat"]);
    assert_eq!(theirs(), before);
    let kinds =
        "deployments,services,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,networkpolicies";
    let selector = format!("app.kubernetes.io/instance={NAME}");
    let left = admin.must(&["get", kinds, "-l", &selector, "-o", "name"]);
    assert_eq!(left, "", "left in the namespace");
    let left = admin.must(&["get", "ingressclasses,clusterroles,clusterrolebindings", "-l", &selector, "-o", "name"]);
    assert_eq!(left, "", "left in the cluster");

    // Who comes back finds the routes served again, even with the previous chart (tests/install/previous).
    let image = format!("image.tag={}", WSSGATE.split_once(':').unwrap().1);
    let values = [&VALUES[..VALUES.len() - NEW_VALUES], &["--set", &image]].concat();
    release.must(&[&["install", NAME, PREVIOUS][..], &values].concat());
    release.rolled_out(&admin, NAME);
    serves("back again");
    // And an upgrade from it to this one closes sockets as an ordinary one does, and refuses none.
    run(async {
        let client = release.client(HOST);
        let fleet = Fleet::start(&client, "/echo", 20, true).await;
        let prober = Prober::start(&client, "/echo", Duration::from_millis(50));
        let values = [&["--reset-then-reuse-values"], &VALUES[..]].concat();
        tokio::task::block_in_place(|| {
            release.must(&[&["upgrade", NAME, CHART][..], &values].concat());
            release.rolled_out(&admin, NAME);
        });
        fleet.all_returned(1, LIMIT).await;
        fleet.all_told(1001);
        fleet.all_echo().await;
        prober.stop().await;
    });
    let settings = admin.get(&["configmap", NAME])["data"]["gateway.yaml"].as_str().unwrap().to_owned();
    assert!(settings.contains("publishService"), "{settings}");
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        a_route_is_ready_and_echoes_over_wss_with_the_charts_rights_alone,
        a_host_belongs_to_the_older_route_until_that_is_gone,
        a_grant_that_is_deleted_ends_the_sockets_that_it_let_in,
        the_gateway_is_no_backend_of_its_own,
        settings_reach_running_pods_and_disturb_no_socket,
        of_two_pods_one_can_be_evicted_at_a_time,
    ]
}

/// What the other tests of the release come before: it is taken away, and installed anew.
pub fn life() -> Vec<Test> {
    crate::tests![node sandbox: upgrade_rollback_and_uninstall_leave_what_they_should]
}
