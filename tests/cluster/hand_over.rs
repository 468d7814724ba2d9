//! The way of docs/certificates.md from a Secret made by hand to one that cert-manager renews, word by word, with the real
//! cert-manager; and what becomes of it when that fails and is removed.

use std::process::Command;
use std::time::Duration;

use super::Test;
use super::certificates::{Fixture, leaf, route};
use super::clusters::Clusters;
use super::fleet::{Fleet, Prober};
use super::harness::{Authority, manifests};
use super::install::run;
use super::kubectl::Kubectl;
use super::process::until;

const HOST: &str = "chat.example.com";
const LIMIT: Duration = Duration::from_secs(60);
const PAGE: &str = include_str!("../../docs/certificates.md");

/// The commands of the page, for the issuer and the namespace of the test.
fn commands(kubectl: &Kubectl) -> String {
    let (_, section) = PAGE.split_once("### Hand a Secret over to cert-manager").unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    let (commands, _) = block.split_once("```").unwrap();
    assert!(commands.contains("\"letsencrypt\"") && commands.contains(" -n shop"), "{commands}");
    commands.replace("\"letsencrypt\"", "\"tests\"").replace(" -n shop", &format!(" -n {}", kubectl.namespace()))
}

fn a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "hand-over");
    let kubectl = &fixture.kubectl;
    let cert_manager = fixture.cert_manager();
    let issuer = cert_manager.make_authority(&fixture.plane.kubectl(), "tests");
    let by_hand = Authority::new();
    let authorities = format!("{}{issuer}", by_hand.pem());
    kubectl.put(vec![manifests::secret("chat-tls", &by_hand.leaf(&[HOST]))]);
    let text = route(&format!("[{HOST}]"), "chat-tls");
    kubectl.apply(&text.replace("    issuerRef: {name: tests, kind: ClusterIssuer}\n", ""));
    kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
    let before = leaf(&kubectl.get(&["secret", "chat-tls"]));
    run(async {
        let client = fixture.client(HOST, &authorities);
        let fleet = Fleet::start(&client, "/", 50, false).await;
        let prober = Prober::start(&client, "/", Duration::from_millis(50));
        tokio::task::block_in_place(|| {
            // The first thing that comes to mind is a conflict, and costs nobody anything.
            kubectl.apply(&text);
            fixture.certificate_ready("chat", "CertificateConflict");
            assert_eq!(fixture.shown(HOST, &authorities), Some(before.clone()));
            let mut shell = Command::new("sh");
            shell.args(["-e", "-x", "-c", &commands(kubectl)]).env("KUBECONFIG", kubectl.kubeconfig());
            let said = shell.output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
            fixture.certificate_ready("chat", "Ready");
            assert!(kubectl.find(&["secret", "chat-tls"]).is_none());
            let issued = leaf(&kubectl.get(&["secret", "chat-tls-issued"]));
            assert_ne!(issued, before);
            assert_eq!(fixture.shown(HOST, &authorities), Some(issued.clone()));

            // What cert-manager writes when an attempt failed, written by the test: no issuer at hand refuses in earnest.
            let failed = r#"{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":""},
                {"type":"Issuing","status":"False","reason":"Failed","message":"refused by the CA"}]}}"#;
            cert_manager.process.kill();
            let certificate = ["patch", "certificate", "chat-tls-issued", "--subresource=status", "--type=merge", "-p"];
            kubectl.must(&[&certificate[..], &[failed]].concat());
            let message = fixture.certificate_ready("chat", "RenewalFailing");
            assert!(message.contains("refused by the CA"), "{message}");

            // It is uninstalled with all that it knew.
            kubectl.must(&["delete", "crd", "certificates.cert-manager.io", "--timeout=60s"]);
            until(LIMIT, "the route to say so", || {
                fixture.certificate_ready("chat", "Ready").contains("needs cert-manager").then_some(())
            });
            assert_eq!(fixture.shown(HOST, &authorities), Some(issued));
        });
        assert!(prober.stop().await > 10);
        fleet.all_live().await;
    });
    fixture.gateway.must_run();
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox: a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices]
}
