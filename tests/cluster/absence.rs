//! What is away, renamed, replaced or being deleted, on the node: nobody who is connected notices, nobody who comes is
//! refused, and nothing is made for what goes.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::fixture::condition;
use super::fleet::{Fleet, Prober};
use super::harness::until;
use super::install::{RULES, run};
use super::kubectl::Kubectl;
use super::process::Process;
use super::release::{HOST, LIMIT, NAME, Release, certified, held, shown};
use super::rolling::{every_pod_serves, serve, with_route};
use super::sandbox::call;

/// Sockets that are open to two hosts meanwhile.
const SOCKETS: usize = 300;
/// The second host and the route that has it.
const OTHER: (&str, &str) = ("news", "news.example.com");
/// How long cert-manager does not run.
const STOPPED: Duration = Duration::from_secs(30);
/// How long issuers fail.
const FAILING: Duration = Duration::from_secs(5);
/// Routes that are deleted at once.
const LEAVING: usize = 25;
/// How soon they are gone: nothing that they wait for is made anew.
const GONE: &str = "20s";

/// Clients of two hosts, who would notice anything.
struct Witnesses {
    clients: Vec<(Fleet, Prober)>,
}

impl Witnesses {
    async fn start(release: &Release) -> Self {
        let mut clients = Vec::new();
        for host in [HOST, OTHER.1] {
            let client = release.client(host);
            let fleet = Fleet::start(&client, "/echo", SOCKETS / 2, false).await;
            clients.push((fleet, Prober::start(&client, "/echo", Duration::from_millis(100))));
        }
        Self { clients }
    }

    /// No socket ended, and no handshake was refused.
    async fn saw_nothing(self) {
        for (fleet, prober) in self.clients {
            let count = prober.stop().await;
            assert!(count > 20, "{count} handshakes");
            fleet.all_live().await;
            assert_eq!(fleet.open(), SOCKETS / 2);
        }
    }
}

/// The same with another Secret and another issuer.
fn naming(route: (&str, &str), secret: &str, issuer: &str) -> String {
    let text = certified(route.0, route.1, RULES);
    let text = text.replace(&format!("[{{name: {}-tls}}]", route.1), &format!("[{{name: {secret}}}]"));
    text.replace("issuerRef: {name: tests,", &format!("issuerRef: {{name: {issuer},"))
}

/// Waits until a route's certificate is said to be like this; the route.
fn told(kubectl: &Kubectl, route: &str, status: &str, reason: &str, words: &[&str]) -> Value {
    let what = format!("to have CertificateReady={status}/{reason}: {words:?}");
    let route = kubectl.until(LIMIT, &["swsr", route], &what, |route| {
        let found = condition(route, "CertificateReady")?;
        let said = |word: &&str| found["message"].as_str().is_some_and(|message| message.contains(word));
        (found["status"] == status && found["reason"] == reason && words.iter().all(said)).then(|| route.clone())
    });
    // The data plane has a certificate in each of these cases.
    assert_eq!(condition(&route, "Programmed").unwrap()["status"], "True", "{route:#}");
    assert_eq!(condition(&route, "Ready").unwrap()["status"], status, "{route:#}");
    route
}

/// Waits until each Pod counts so many hosts that are served with their last good certificate: what the alert goes by.
async fn standing_in(release: &Release, hosts: usize) {
    let wanted = format!("\nwssgate_last_good_certificates {hosts}\n");
    let pods = release.addresses(&release.own, NAME);
    assert_eq!(pods.len(), 2, "{pods:?}");
    for pod in pods.into_values() {
        let url = format!("http://{pod}:9900/metrics");
        until(LIMIT, &format!("{pod} to count {hosts} hosts"), async || {
            let text = call(&["curl", "--silent", "--fail", "--max-time", "10", &url]).unwrap();
            text.contains(&wanted).then_some(())
        })
        .await;
    }
}

/// Both while nobody can issue: a deleted Secret, as people force a renewal, and another name in a route.
fn a_secret_that_is_deleted_or_renamed_ends_no_socket_and_refuses_no_handshake(clusters: &Clusters) {
    let release = with_route(clusters);
    serve(release, OTHER.0, OTHER.1);
    let (deleted, old, new) = (format!("{HOST}-tls"), format!("{}-tls", OTHER.1), "news-renamed");
    run(async {
        let witnesses = Witnesses::start(release).await;
        let before = [held(&release.shop, &deleted), held(&release.shop, &old)];
        release.stop_cert_manager();
        tokio::task::block_in_place(|| {
            release.shop.must(&["delete", "secret", &deleted]);
            release.shop.apply(&naming(OTHER, new, "tests"));
            told(&release.shop, "chat", "False", "Issuing", &["its last good one", &deleted]);
            told(&release.shop, OTHER.0, "False", "Issuing", &["its last good one", &old, new]);
        });
        standing_in(release, 2).await;
        // What is tested is the time in which nobody can issue.
        tokio::time::sleep(STOPPED).await;
        let clients = [release.client(HOST), release.client(OTHER.1)];
        for (client, before) in clients.iter().zip(&before) {
            assert_eq!(shown(client).await.as_ref(), Some(before));
        }
        release.restart_cert_manager();
        for ((client, before), secret) in clients.iter().zip(&before).zip([&*deleted, new]) {
            let changed = async || shown(client).await.filter(|now| now != before);
            let issued = until(LIMIT, "a new certificate to be served", changed).await;
            assert_eq!(issued, held(&release.shop, secret));
        }
        tokio::task::block_in_place(|| {
            for route in ["chat", OTHER.0] {
                told(&release.shop, route, "True", "Ready", &[]);
            }
        });
        standing_in(release, 0).await;
        witnesses.saw_nothing().await;
    });
    // What the route named before is left, and whoever reads the log is told how it goes.
    let command = format!("kubectl delete certificate -n shop {old}");
    let logs: String = release.pods(&release.own, NAME).iter().map(|pod| release.own.must(&["logs", pod])).collect();
    assert!(logs.contains(&command), "{logs}");
    release.shop.must(&["delete", "swsr", OTHER.0]);
}

/// An issuer that exists and cannot issue, for a Secret that is not there yet; and one that does not exist, while the
/// certificate is good.
fn an_issuer_that_fails_or_is_missing_ends_no_socket_and_is_told(clusters: &Clusters) {
    let release = with_route(clusters);
    serve(release, OTHER.0, OTHER.1);
    // Its authority is not there yet.
    release.shop.apply(
        "{apiVersion: cert-manager.io/v1, kind: ClusterIssuer, metadata: {name: late}, spec: {ca: {secretName: late}}}",
    );
    release.shop.wait("clusterissuer/late", "condition=Ready=False", LIMIT);
    let (kept, old, new) = (format!("{HOST}-tls"), format!("{}-tls", OTHER.1), "news-late");
    run(async {
        let witnesses = Witnesses::start(release).await;
        let before = [held(&release.shop, &kept), held(&release.shop, &old)];
        tokio::task::block_in_place(|| {
            release.shop.apply(&naming(OTHER, new, "late"));
            release.shop.apply(&naming(("chat", HOST), &kept, "nobody"));
            told(&release.shop, OTHER.0, "False", "Issuing", &["its last good one", &old, new]);
            let words = ["issuer exists and is ready", "valid until"];
            issuing_for_long(&release.shop, &kept);
            told(&release.shop, "chat", "True", "RenewalFailing", &words);
        });
        standing_in(release, 1).await;
        tokio::time::sleep(FAILING).await;
        let clients = [release.client(HOST), release.client(OTHER.1)];
        for (client, before) in clients.iter().zip(&before) {
            assert_eq!(shown(client).await.as_ref(), Some(before));
        }
        // Both are mended.
        tokio::task::block_in_place(|| {
            let home = release.shop.in_namespace("cert-manager");
            let mut authority = home.get(&["secret", "tests"]);
            authority["metadata"] = json!({"name": "late"});
            home.apply(&authority.to_string());
            release.shop.apply(&certified("chat", HOST, RULES));
            for route in ["chat", OTHER.0] {
                told(&release.shop, route, "True", "Ready", &[]);
            }
        });
        assert_eq!(shown(&clients[1]).await, Some(held(&release.shop, new)));
        standing_in(release, 0).await;
        witnesses.saw_nothing().await;
    });
    release.shop.must(&["delete", "swsr", OTHER.0]);
    release.shop.must(&["delete", "clusterissuer", "late"]);
}

/// Lets a Certificate that cert-manager is issuing have been issuing for ten minutes: it is told after five, and the test
/// does not wait for them.
fn issuing_for_long(kubectl: &Kubectl, certificate: &str) {
    let mut conditions = kubectl.until(LIMIT, &["certificate", certificate], "to be issuing", |certificate| {
        let conditions = &certificate["status"]["conditions"];
        let issuing = |one: &Value| one["type"] == "Issuing" && one["status"] == "True";
        conditions.as_array()?.iter().any(issuing).then(|| conditions.clone())
    });
    let long = (Timestamp::now() - Duration::from_secs(600)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for one in conditions.as_array_mut().unwrap().iter_mut().filter(|one| one["type"] == "Issuing") {
        one["lastTransitionTime"] = long.clone().into();
    }
    let patch = json!({"status": {"conditions": conditions}}).to_string();
    kubectl.must(&["patch", "certificate", certificate, "--subresource=status", "--type=merge", "-p", &patch]);
}

/// Certificates as a watch sees them.
struct Certificates<'a> {
    kubectl: &'a Kubectl,
    watch: Process,
}

impl<'a> Certificates<'a> {
    fn watch(release: &Release, kubectl: &'a Kubectl, name: &str) -> Self {
        let columns = "{.metadata.name} {.metadata.uid}";
        Self { kubectl, watch: release.watch(kubectl, name, &["certificates"], columns) }
    }

    /// Name and uid of each that was ever seen.
    fn seen(&self) -> BTreeSet<(String, String)> {
        let log = self.watch.log();
        // A line that is not one is kubectl's own.
        let pairs = log.lines().filter_map(|line| line.split_once(' ')).filter(|(_, uid)| uid.len() == 36);
        pairs.map(|(name, uid)| (name.to_owned(), uid.to_owned())).collect()
    }

    /// Waits until one of this name was seen.
    fn sees(&self, name: &str) {
        super::process::until(LIMIT, &format!("the watch to see Certificate {name}"), || {
            self.seen().iter().any(|(seen, _)| seen == name).then_some(())
        });
    }

    /// Waits until there are none of these names.
    fn gone(&self, names: &[String]) {
        super::process::until(LIMIT, "the Certificates to be gone", || {
            let left = self.kubectl.must(&["get", "certificates", "-o", "name"]);
            let left: BTreeSet<_> =
                left.lines().filter_map(|line| line.split_once('/')).map(|(_, name)| name).collect();
            names.iter().all(|name| !left.contains(&**name)).then_some(())
        });
    }
}

/// Under Kubernetes' own garbage collector, as Argo CD deletes; beside them a route that somebody else's finalizer holds,
/// whose Certificate is deleted.
fn routes_that_are_being_deleted_get_no_certificate_and_end_no_socket_of_others(clusters: &Clusters) {
    let release = with_route(clusters);
    serve(release, OTHER.0, OTHER.1);
    let host = |name: &str| format!("{name}.example.com");
    let leaving: Vec<String> = (0..LEAVING).map(|at| format!("leaving-{at:02}")).collect();
    let names: Vec<&str> = leaving.iter().map(String::as_str).chain(["held"]).collect();
    let routes: Vec<String> = names.iter().map(|name| certified(name, &host(name), RULES)).collect();
    release.shop.apply(&routes.join("---"));
    release.shop.must(&["wait", "swsr", "--all", "--for=condition=Ready", "--timeout=90s"]);
    names.iter().for_each(|name| every_pod_serves(release, &host(name)));
    let certificates: Vec<String> = names.iter().map(|name| format!("{}-tls", host(name))).collect();
    let watch = Certificates::watch(release, &release.shop, "certificates");
    certificates.iter().for_each(|name| watch.sees(name));
    let before = watch.seen();
    run(async {
        let witnesses = Witnesses::start(release).await;
        let mut ending = Vec::new();
        for name in &leaving {
            ending.push(Fleet::start(&release.client(&host(name)), "/echo", 4, false).await);
        }
        let client = release.client(&host("held"));
        let held = Fleet::start(&client, "/echo", 10, false).await;
        let prober = Prober::start(&client, "/echo", Duration::from_millis(200));
        tokio::task::block_in_place(|| {
            let hold = r#"{"metadata":{"finalizers":["example.com/held"]}}"#;
            release.shop.must(&["patch", "swsr", "held", "--type=merge", "-p", hold]);
            release.shop.must(&["delete", "swsr", "held", "--wait=false"]);
            let mut delete = vec!["delete", "swsr", "--cascade=foreground", "--timeout", GONE];
            delete.extend(leaving.iter().map(String::as_str));
            release.shop.must(&delete);
            release.shop.must(&["delete", "certificate", &certificates[LEAVING]]);
            watch.gone(&certificates);
            // The writer goes by name: what would come back, has come back before these.
            release.shop.must(&["delete", "certificate", &format!("{}-tls", OTHER.1)]);
            release.shop.apply(&certified("zz-last", &host("zz-last"), RULES));
            release.shop.wait("swsr/zz-last", "condition=Ready", LIMIT);
            told(&release.shop, "held", "True", "Ready", &[]);
        });
        for fleet in &ending {
            fleet.all_ended(LIMIT).await;
            fleet.all_told(1012);
        }
        held.all_live().await;
        prober.stop().await;
        tokio::task::block_in_place(|| {
            let let_go = r#"{"metadata":{"finalizers":null}}"#;
            release.shop.must(&["patch", "swsr", "held", "--type=merge", "-p", let_go]);
        });
        held.all_ended(LIMIT).await;
        held.all_told(1012);
        witnesses.saw_nothing().await;
    });
    release.shop.must(&["delete", "swsr", "zz-last", OTHER.0]);
    watch.sees(&format!("{}-tls", host("zz-last")));
    let new: Vec<_> =
        watch.seen().difference(&before).filter(|(name, _)| certificates.contains(name)).cloned().collect();
    assert!(new.is_empty(), "written after the deletion: {new:?}");
}

/// Kubernetes deletes what is in it, in an order of its own.
fn a_namespace_that_is_deleted_ends_its_own_sockets_alone(clusters: &Clusters) {
    let release = with_route(clusters);
    serve(release, OTHER.0, OTHER.1);
    let kubectl = clusters.node().kubectl().make_namespace("ending");
    let addresses: Vec<_> =
        release.addresses(&release.shop, "echo").values().map(|address| json!({"addresses": [address]})).collect();
    kubectl.apply("{apiVersion: v1, kind: Service, metadata: {name: echo}, spec: {ports: [{port: 80}]}}");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "echo-0", "labels": {"kubernetes.io/service-name": "echo"}},
        "ports": [{"port": 9000}], "endpoints": addresses,
    });
    kubectl.apply(&slice.to_string());
    let host = "ending.example.com";
    kubectl.apply(&certified("ending", host, "[{name: all, backendRefs: [{name: echo, port: 80}]}]"));
    kubectl.wait("swsr/ending", "condition=Ready", LIMIT);
    let watch = Certificates::watch(release, &kubectl, "ending-certificates");
    watch.sees(&format!("{host}-tls"));
    let before = watch.seen();
    let since = Timestamp::now().to_string();
    run(async {
        let witnesses = Witnesses::start(release).await;
        let ending = Fleet::start(&release.client(host), "/", 20, false).await;
        ending.all_live().await;
        tokio::task::block_in_place(|| {
            release.shop.must(&["delete", "namespace", kubectl.namespace(), "--timeout=60s"]);
        });
        ending.all_ended(LIMIT).await;
        ending.all_told(1012);
        witnesses.saw_nothing().await;
    });
    assert_eq!(watch.seen(), before, "written after the deletion");
    for pod in release.pods(&release.own, NAME) {
        let log = release.own.must(&["logs", &pod, "--since-time", &since]);
        assert!(!log.contains("could not be written"), "{log}");
    }
    release.shop.must(&["delete", "swsr", OTHER.0]);
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        a_secret_that_is_deleted_or_renamed_ends_no_socket_and_refuses_no_handshake,
        an_issuer_that_fails_or_is_missing_ends_no_socket_and_is_told,
        routes_that_are_being_deleted_get_no_certificate_and_end_no_socket_of_others,
        a_namespace_that_is_deleted_ends_its_own_sockets_alone,
    ]
}
