//! A certificate that is away, on the node: nobody who is connected notices, and nobody who comes is refused.

use std::time::Duration;

use super::Test;
use super::clusters::Clusters;
use super::fleet::{Fleet, Prober};
use super::harness::until;
use super::install::run;
use super::release::{HOST, LIMIT, held, shown};
use super::rolling::with_route;

/// Sockets that are open while it is away.
const SOCKETS: usize = 300;
/// How long cert-manager does not run.
const STOPPED: Duration = Duration::from_secs(30);

fn a_secret_that_is_deleted_ends_no_socket_and_refuses_no_handshake(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let client = release.client(HOST);
        let fleet = Fleet::start(&client, "/echo", SOCKETS, false).await;
        let prober = Prober::start(&client, "/echo", Duration::from_millis(100));
        let secret = format!("{HOST}-tls");
        let before = held(&release.shop, &secret);
        release.stop_cert_manager();
        tokio::task::block_in_place(|| {
            release.shop.must(&["delete", "secret", &secret]);
            release.shop.wait("swsr/chat", "condition=CertificateReady=False", LIMIT);
        });
        let route = release.shop.get(&["swsr", "chat"]);
        let conditions = route["status"]["conditions"].as_array().unwrap();
        let of = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        let message = of("CertificateReady")["message"].as_str().unwrap();
        assert!(message.contains("its last good one") && message.contains(&secret), "{message}");
        assert_eq!(of("Programmed")["status"], "True", "{route:#}");
        // What is tested is the time in which nobody can issue.
        tokio::time::sleep(STOPPED).await;
        assert_eq!(shown(&client).await, Some(before.clone()));
        release.restart_cert_manager();
        let issued =
            until(LIMIT, "a new certificate to be served", async || shown(&client).await.filter(|now| *now != before))
                .await;
        tokio::task::block_in_place(|| release.shop.wait("swsr/chat", "condition=Ready", LIMIT));
        assert_eq!(issued, held(&release.shop, &secret));
        let count = prober.stop().await;
        assert!(count > 100, "{count} handshakes");
        fleet.all_live().await;
        assert_eq!(fleet.open(), SOCKETS);
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox: a_secret_that_is_deleted_ends_no_socket_and_refuses_no_handshake]
}
