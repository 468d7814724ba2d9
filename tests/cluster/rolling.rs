//! Changes below open sockets, on the node: a certificate's renewal, new Pods of the gateway, new Pods of a backend.

use std::time::{Duration, Instant};

use super::Test;
use super::cert_manager::renew;
use super::clusters::Clusters;
use super::fleet::{Fleet, Prober, open};
use super::harness::{Frame, until};
use super::install::{RULES, run};
use super::release::{HOST, LIMIT, NAME, Release, certified, held, shown};

/// The sockets of a test.
const SOCKETS: usize = 500;

/// The route that all tests see is there.
pub fn with_route(clusters: &Clusters) -> &Release {
    let release = clusters.release();
    release.shop.apply(&certified("chat", HOST, RULES));
    release.shop.wait("swsr/chat", "condition=Ready", LIMIT);
    release
}

fn a_renewed_certificate_is_served_and_drops_none_of_500_sockets(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let client = release.client(HOST);
        let fleet = Fleet::start(&client, "/echo", SOCKETS, false).await;
        let secret = format!("{HOST}-tls");
        let before = held(&release.shop, &secret);
        assert_eq!(shown(&client).await, Some(before.clone()));
        renew(&release.shop, &secret);
        let after = until(LIMIT, "cert-manager to renew", async || {
            Some(held(&release.shop, &secret)).filter(|after| *after != before)
        })
        .await;
        let issued = Instant::now();
        // Both Pods: several new connections in a row, of which each may reach either.
        until(LIMIT, "the new certificate to be served", async || {
            for _ in 0..16 {
                (shown(&client).await? == after).then_some(())?;
            }
            Some(())
        })
        .await;
        assert!(issued.elapsed() < Duration::from_secs(15), "it took {:?}", issued.elapsed());
        fleet.all_live().await;
        assert_eq!(fleet.open(), SOCKETS);
    });
}

fn a_rolling_update_closes_500_sockets_with_1001_and_refuses_no_handshake(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let client = release.client(HOST);
        let fleet = Fleet::start(&client, "/echo", SOCKETS, true).await;
        let prober = Prober::start(&client, "/echo", Duration::from_millis(50));
        let before = release.pods(&release.own, NAME);
        let _logs = before.iter().map(|pod| release.follow(pod)).collect::<Vec<_>>();
        tokio::task::block_in_place(|| release.restart(&release.own, NAME));
        assert!(release.pods(&release.own, NAME).iter().all(|pod| !before.contains(pod)), "no new Pods");
        fleet.all_returned(1, LIMIT).await;
        let others: Vec<_> =
            fleet.endings().into_iter().flatten().filter(|end| !matches!(end, Some((1001, _)))).collect();
        assert!(others.is_empty(), "{} endings were no Close with 1001, the first: {:?}", others.len(), others[0]);
        fleet.all_echo().await;
        let count = prober.stop().await;
        assert!(count > 50, "only {count} handshakes while the Pods changed");
    });
}

fn new_pods_of_a_backend_end_the_sockets_of_its_old_ones_alone(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let client = release.client(HOST);
        let echo = Fleet::start(&client, "/echo", 50, false).await;
        let other = Fleet::start(&client, "/other", 50, false).await;
        tokio::task::block_in_place(|| release.restart(&release.shop, "echo"));
        echo.all_ended(LIMIT).await;
        other.all_live().await;
        let mut peer = open(&client, "/echo").await.unwrap();
        peer.echo(&Frame::text("to a new Pod")).await;
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        a_renewed_certificate_is_served_and_drops_none_of_500_sockets,
        a_rolling_update_closes_500_sockets_with_1001_and_refuses_no_handshake,
        new_pods_of_a_backend_end_the_sockets_of_its_old_ones_alone,
    ]
}
