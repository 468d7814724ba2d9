//! ACME on the node: cert-manager's own solver as a pod, its Ingress of our class, and pebble that asks our plain port.

use super::Test;
use super::clusters::Clusters;
use super::fleet::open;
use super::harness::Frame;
use super::install::run;
use super::pebble::{self, Pebble};
use super::process::until;
use super::release::{LIMIT, certified, condition, held, shown};

const HOST: &str = "acme.example.com";
const RULES: &str = "[{name: all, backendRefs: [{name: echo, port: 80}]}]";
/// What cert-manager makes for a challenge.
const SOLVERS: &str = "acme.cert-manager.io/http01-solver=true";

fn acme_issues_by_a_solver_pod_that_is_asked_through_the_plain_port(clusters: &Clusters) {
    let release = clusters.release();
    let plane = clusters.node().plane();
    // Every name leads to the release's Service, for cert-manager as for pebble.
    let _names = pebble::names(release.logs(), release.resolver, release.address(80).ip());
    let pebble = Pebble::start(plane.folder(), release.resolver);
    plane.kubectl().apply(&pebble.issuer("acme"));

    let pods = "{.status.phase} {.spec.containers[0].image} {.status.podIP}";
    let pods = release.watch(&release.shop, "solver-pods", &["pods", "-l", SOLVERS], pods);
    let ingresses = "{.spec.ingressClassName} {.spec.rules[0].host} {.spec.rules[0].http.paths[0].path}";
    let ingresses = release.watch(&release.shop, "solver-ingresses", &["ingresses", "-l", SOLVERS], ingresses);
    release.shop.apply(&certified("acme", HOST, RULES).replace("name: tests,", "name: acme,"));
    release.shop.wait("swsr/acme", "condition=Ready", LIMIT);
    let ready = condition(&release.shop.get(&["swsr", "acme"]), "CertificateReady").unwrap();
    // Pebble's root is no public CA, and is not in the Secret.
    assert_eq!(ready, ("True".into(), "ChainIncomplete".into()));

    // The solver was a pod of the node, reached by an Ingress of our class.
    let pods = pods.log();
    assert!(pods.lines().any(|line| line.starts_with("Running localhost/acme-solver:1 10.244.")), "{pods}");
    let ingresses = ingresses.log();
    let path = format!("wssgate {HOST} /.well-known/acme-challenge/");
    assert!(ingresses.lines().any(|line| line.starts_with(&path)), "{ingresses}");
    run(async {
        let client = release.client_trusting(HOST, &pebble.root);
        assert_eq!(shown(&client).await, Some(held(&release.shop, &format!("{HOST}-tls"))));
        let mut peer = open(&client, "/").await.unwrap();
        peer.echo(&Frame::text("over a certificate of pebble's")).await;
    });
    release.shop.must(&["delete", "swsr", "acme"]);
    // Kubernetes collects what the route owned; the Secret is cert-manager's to keep.
    until(LIMIT, "the Certificate to be collected", || {
        release.shop.find(&["certificate", &format!("{HOST}-tls")]).is_none().then_some(())
    });
    plane.kubectl().must(&["delete", "clusterissuer", "acme"]);
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox: acme_issues_by_a_solver_pod_that_is_asked_through_the_plain_port]
}
