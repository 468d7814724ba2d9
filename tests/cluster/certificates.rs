//! cert-manager as the tests run it: the ground that tests of `issuerRef` stand on.

use std::time::Duration;

use super::Test;
use super::cert_manager::{CertManager, decode, renew};
use super::clusters::Clusters;

const LIMIT: Duration = Duration::from_secs(60);

fn cert_manager_issues_and_renews_on_the_real_api_server(clusters: &Clusters) {
    let plane = clusters.another("cert-manager");
    let kubectl = plane.kubectl();
    let cert_manager = CertManager::start(&kubectl, &plane.folder().join("logs"), &[]);
    let authority = cert_manager.make_authority(&kubectl, "tests");
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"), "{authority}");

    let kubectl = kubectl.make_namespace("shop");
    kubectl.apply(
        "
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: chat}
spec:
  secretName: chat-tls
  dnsNames: [chat.example.com]
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {name: tests, kind: ClusterIssuer}
",
    );
    kubectl.wait("certificate/chat", "condition=Ready", LIMIT);
    let secret = || kubectl.get(&["secret", "chat-tls"]);
    let first = secret();
    assert_eq!(first["type"], "kubernetes.io/tls");
    assert_eq!(decode(first["data"]["ca.crt"].as_str().unwrap()), authority);

    renew(&kubectl, "chat");
    kubectl.until(LIMIT, &["secret", "chat-tls"], "to hold another certificate", |secret| {
        (secret["data"]["tls.crt"] != first["data"]["tls.crt"]).then_some(())
    });
    kubectl.wait("certificate/chat", "condition=Ready", LIMIT);
    cert_manager.process.must_run();
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox: cert_manager_issues_and_renews_on_the_real_api_server]
}
