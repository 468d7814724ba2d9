//! Changes below open sockets, on the node: a certificate's renewal, new Pods of the gateway, new Pods of a backend.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::cert_manager::renew;
use super::clusters::Clusters;
use super::fleet::{Fleet, Prober, open};
use super::harness::{Client, Frame, until, within};
use super::install::{RULES, run, run_outside};
use super::release::{HOST, LIMIT, NAME, Release, certified, held, shown};
use super::{Test, sandbox};

/// The sockets of a test.
pub const SOCKETS: usize = 500;
/// How soon a certificate is served.
const SOON: Duration = Duration::from_secs(1);

/// The route that all tests see is there.
pub fn with_route(clusters: &Clusters) -> &Release {
    let release = clusters.release();
    serve(release, "chat", HOST);
    release
}

/// A route for a host, like the one that all tests see, which each Pod serves.
pub fn serve(release: &Release, name: &str, host: &str) {
    release.shop.apply(&certified(name, host, RULES));
    release.shop.wait(&format!("swsr/{name}"), "condition=Ready", LIMIT);
    every_pod_serves(release, host);
}

/// Waits for it where the route is ready: the leader says so, and the other Pod is a moment behind, or had another route
/// before.
pub fn every_pod_serves(release: &Release, host: &str) {
    let client = release.client(host);
    run(until(LIMIT, "every Pod to serve the route", async || {
        for _ in 0..16 {
            open(&client, "/echo").await.ok()?.close(1000, "").await?;
        }
        Some(())
    }));
}

/// Asks for the certificate without a pause worth the name until it is another one; when that was, and which.
async fn replaced(client: Client, before: CertificateDer<'static>) -> (Instant, CertificateDer<'static>) {
    loop {
        if let Some(now) = shown(&client).await.filter(|now| *now != before) {
            return (Instant::now(), now);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn a_renewed_certificate_is_served_within_a_second_and_drops_none_of_500_sockets(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let client = release.client(HOST);
        let fleet = Fleet::start(&client, "/echo", SOCKETS, false).await;
        let secret = format!("{HOST}-tls");
        let before = held(&release.shop, &secret);
        assert_eq!(shown(&client).await, Some(before.clone()));
        // Each Pod by its own address: the Service might lead to one of them only.
        let pods = release.addresses(&release.own, NAME);
        assert_eq!(pods.len(), 2, "{pods:?}");
        let served = pods.values().map(|pod| {
            let client = Client { address: SocketAddr::new(*pod, 8443), ..client.clone() };
            tokio::spawn(replaced(client, before.clone()))
        });
        let served: Vec<_> = served.collect();
        // When a watch sees the Secret change, as the gateway's own does.
        let watch = release.watch_secret(&release.shop, &secret);
        assert_eq!(watch.recv().expect("the watch to begin").1, before);
        let changed = tokio::task::spawn_blocking({
            let before = before.clone();
            move || watch.into_iter().find(|(_, now)| *now != before).expect("the watch to go on")
        });
        renew(&release.shop, &secret);
        let (changed, after) = within(LIMIT, "cert-manager to renew", changed).await.unwrap();
        for served in served {
            let (served, shown) = within(LIMIT, "the new certificate to be served", served).await.unwrap();
            assert_eq!(shown, after);
            let took = served.saturating_duration_since(changed);
            assert!(took < SOON, "it took {took:?}");
        }
        fleet.all_live().await;
        assert_eq!(fleet.open(), SOCKETS);
    });
}

/// Asks, until it shall stop, what clouds ask of each node: whether kube-proxy has a Pod there. The answers that were not
/// 200.
async fn unhealthy(node: SocketAddr, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut others = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let ask = async {
            let mut stream = TcpStream::connect(node).await?;
            stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        match ask.await {
            Ok(answer) if answer.split(' ').nth(1) == Some("200") => {}
            Ok(answer) => others.push(answer),
            Err(error) => others.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    others
}

/// Clients come from outside of the node to the address of a load balancer, as the chart has it unless somebody says
/// otherwise: `externalTrafficPolicy: Local`, by which a node has only its own Pods, and a Pod sees the client's address.
fn a_rolling_update_closes_500_sockets_with_1001_and_refuses_no_handshake(clusters: &Clusters) {
    let release = with_route(clusters);
    let service = release.own.get(&["service", NAME]);
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local", "{service:#}");
    let health = u16::try_from(service["spec"]["healthCheckNodePort"].as_u64().unwrap()).unwrap();
    run_outside(async {
        let client = release.client_outside(HOST);
        let fleet = Fleet::start(&client, "/echo/outside", SOCKETS, true).await;
        let prober = Prober::start(&client, "/echo", Duration::from_millis(50));
        let stop = Arc::new(AtomicBool::new(false));
        let unhealthy = tokio::spawn(unhealthy(SocketAddr::new(sandbox::NODE.into(), health), stop.clone()));
        let before = release.pods(&release.own, NAME);
        let logs = before.iter().map(|pod| release.follow(pod)).collect::<Vec<_>>();
        tokio::task::block_in_place(|| release.restart(&release.own, NAME));
        assert!(release.pods(&release.own, NAME).iter().all(|pod| !before.contains(pod)), "no new Pods");
        fleet.all_returned(1, LIMIT).await;
        fleet.all_told(1001);
        fleet.all_echo().await;
        let count = prober.stop().await;
        assert!(count > 50, "only {count} handshakes while the Pods changed");
        stop.store(true, Ordering::Relaxed);
        assert_eq!(unhealthy.await.unwrap(), [""; 0], "a cloud would have taken the node out");
        // Whom the old Pods saw.
        let lines = logs.iter().flat_map(|log| opened(&log.log(), "/echo/outside")).collect::<Vec<_>>();
        assert!(lines.len() >= SOCKETS, "{} lines", lines.len());
        for line in lines {
            let client = line["client"].as_str().and_then(|client| client.parse::<SocketAddr>().ok());
            assert_eq!(client.map(|client| client.ip()), Some(sandbox::CLIENT.into()), "{line}");
        }
    });
}

/// The lines of an access log that say who came to a path, or below it.
fn opened(log: &str, path: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let here = |line: &Value| line["event"] == "opened" && line["path"].as_str().is_some_and(|at| at.starts_with(path));
    lines.filter(here).collect()
}

/// The address of the Pod behind each socket of a fleet below `path`, once the access logs of the gateway's Pods have all.
fn backends(release: &Release, path: &str, count: usize) -> Option<Vec<IpAddr>> {
    let mut found = vec![None; count];
    for pod in release.pods(&release.own, NAME) {
        for line in opened(&release.own.must(&["logs", &pod]), path) {
            let index = line["path"].as_str().and_then(|at| at.strip_prefix(path)?.strip_prefix('/')?.parse().ok());
            let backend = line["backend"].as_str().and_then(|backend| backend.parse::<SocketAddr>().ok());
            if let (Some(index), Some(backend)) = (index, backend) {
                let index: usize = index;
                found[index] = Some(backend.ip());
            }
        }
    }
    found.into_iter().collect()
}

fn each_pod_of_a_backend_that_is_replaced_ends_its_own_sockets_alone(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let client = release.client(HOST);
        // Between one old Pod's end and the next one's there is time to look.
        let pace =
            r#"{"spec": {"minReadySeconds": 4, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}"#;
        release.shop.must(&["patch", "deployment", "echo", "-p", pace]);
        release.rolled_out(&release.shop, "echo");
        let echo = Fleet::start(&client, "/echo/each", 50, false).await;
        let other = Fleet::start(&client, "/other", 50, false).await;
        let behind = until(LIMIT, "the access logs to have every socket", async || backends(release, "/echo/each", 50));
        let behind = behind.await;
        let old = release.addresses(&release.shop, "echo");
        assert_eq!(old.values().copied().collect::<BTreeSet<_>>(), behind.iter().copied().collect());

        release.shop.must(&["rollout", "restart", "deployment/echo"]);
        let partly = Cell::new(0);
        until(LIMIT, "every socket of the old Pods to end", async || {
            // First the sockets, then the Pods: who ended had to have a Pod that had been told to end.
            let ended: Vec<bool> = echo.endings().iter().map(|endings| !endings.is_empty()).collect();
            let staying = release.staying(&release.shop, "echo");
            let wrong: Vec<_> = (0..50).filter(|at| ended[*at] && staying.contains(&behind[*at])).collect();
            assert!(wrong.is_empty(), "sockets {wrong:?} ended while their Pods stay");
            let live = ended.iter().filter(|ended| !**ended).count();
            partly.set(partly.get() + usize::from(live > 0 && live < 50));
            (live == 0).then_some(())
        })
        .await;
        assert!(partly.get() > 0, "the old Pods were never seen apart");
        other.all_live().await;
        tokio::task::block_in_place(|| release.rolled_out(&release.shop, "echo"));
        let mut peer = open(&client, "/echo").await.unwrap();
        peer.echo(&Frame::text("to a new Pod")).await;
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        a_renewed_certificate_is_served_within_a_second_and_drops_none_of_500_sockets,
        a_rolling_update_closes_500_sockets_with_1001_and_refuses_no_handshake,
        each_pod_of_a_backend_that_is_replaced_ends_its_own_sockets_alone,
    ]
}
