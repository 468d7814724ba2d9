//! cert-manager's own controllers, as a process beside the API server.
//!
//! Issuers of kinds CA, SelfSigned and ACME (HTTP-01) work; there is no webhook and no leader election. A Certificate
//! with `duration: 1h, renewBefore: 59m` is renewed every minute; setting its status condition `Issuing=True` renews it
//! at once ([`renew`]).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::clusters::install_definitions_of;
use super::kubectl::Kubectl;
use super::process::Process;
use super::programs;

/// cert-manager, running. Dropping it kills it.
pub struct CertManager {
    /// The controllers.
    pub process: Process,
    logs: PathBuf,
    arguments: Vec<String>,
}

impl CertManager {
    /// Installs the definitions and the namespace of its own, and starts the controllers as the user of `kubectl`, who
    /// must be an administrator. `arguments` may name the HTTP-01 solver's image and the name server of its self-checks:
    /// `--acme-http01-solver-image=REF`, `--acme-http01-solver-nameserver=HOST:PORT`.
    pub fn start(kubectl: &Kubectl, logs: &Path, arguments: &[&str]) -> Self {
        install_definitions_of(kubectl, "cert-manager");
        kubectl.apply("{apiVersion: v1, kind: Namespace, metadata: {name: cert-manager}}");
        let mut arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.push(format!("--kubeconfig={}", kubectl.kubeconfig().display()));
        Self { process: Self::run(logs, &arguments), logs: logs.to_owned(), arguments }
    }

    fn run(logs: &Path, arguments: &[String]) -> Process {
        Process::start("cert-manager", logs, Command::new(programs::path("cert-manager")).args(arguments))
    }

    /// Kills the controllers and starts them anew, as a Pod of theirs is that loses its Lease.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = Self::run(&self.logs, &self.arguments);
    }

    /// Makes a ClusterIssuer `NAME` of kind CA, with an authority of its own, and waits until it is ready. The
    /// authority's certificate, PEM.
    pub fn make_authority(&self, kubectl: &Kubectl, name: &str) -> String {
        kubectl.apply(&format!(
            "
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: {name}-root}}
spec: {{selfSigned: {{}}}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: {name}, namespace: cert-manager}}
spec:
  isCA: true
  commonName: {name}
  secretName: {name}
  privateKey: {{algorithm: ECDSA, size: 256}}
  issuerRef: {{name: {name}-root, kind: ClusterIssuer}}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: {name}}}
spec: {{ca: {{secretName: {name}}}}}
"
        ));
        kubectl.wait(&format!("clusterissuer/{name}"), "condition=Ready", Duration::from_secs(60));
        let secret = kubectl.get(&["secret", name, "--namespace", "cert-manager"]);
        decode(secret["data"]["tls.crt"].as_str().unwrap())
    }
}

/// Renews a Certificate at once.
pub fn renew(kubectl: &Kubectl, certificate: &str) {
    let patch = r#"{"status":{"conditions":[{"type":"Issuing","status":"True","reason":"Test","message":"renew"}]}}"#;
    // Conditions are a list without keys in this definition: a merge puts this one in place of all.
    kubectl.must(&["patch", "certificate", certificate, "--subresource=status", "--type=merge", "-p", patch]);
}

/// A value of a Secret.
pub fn decode(value: &str) -> String {
    use base64::Engine as _;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).unwrap()).unwrap()
}

/// A value as a Secret holds it.
pub fn encode(value: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(value)
}
