//! What breaks, on the node: the leading Pod's process, and the API server.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Test;
use super::clusters::Clusters;
use super::fleet::{Fleet, Prober};
use super::harness::Frame;
use super::install::run;
use super::process::until;
use super::release::{HOST, LIMIT, NAME, certified};
use super::rolling::{SOCKETS, with_route};

/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);

const ALL: &str = "[{name: all, backendRefs: [{name: echo, port: 80}]}]";

/// The process of the gateway in a Pod, seen from the node, if there is one.
fn process(pod: &str) -> Option<Pid> {
    let variable = format!("POD_NAME={pod}");
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes()).then(|| Pid::from_raw(pid))?
    })
}

/// A time of the Lease.
fn time(lease: &Value, field: &str) -> Timestamp {
    lease[field].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {field} in {lease}"))
}

/// A container that dies is started again at once, and might then win by another identity of the same Pod. So it is killed
/// as often as it starts: it is the other Pod that has to notice.
fn the_other_pod_leads_when_the_leaders_process_is_killed(clusters: &Clusters) {
    let release = with_route(clusters);
    let (pod, identity) = until(LIMIT, "a leader", || release.leader());
    let others: Vec<_> = release.pods(&release.own, NAME).into_iter().filter(|other| *other != pod).collect();
    assert_eq!(others.len(), 1, "{others:?} beside {pod}");
    kill_process(process(&pod).expect("a process of the leader"), Signal::KILL).unwrap();
    let last = release.lease().unwrap();
    assert_eq!(last["holderIdentity"], *identity);
    let (next, holder) = until(LIMIT, "another leader", || {
        if let Some(process) = process(&pod) {
            let _ = kill_process(process, Signal::KILL);
        }
        release.leader().filter(|(_, next)| *next != identity)
    });
    assert_eq!(next, others[0]);
    // By the Lease's own times: never two at once, and no later than it takes to see that nobody renews it. Whoever waits
    // looks every 2 to 4 seconds: once to see the last renewal, once after the Lease is over.
    let lease = release.lease().unwrap();
    let gap = time(&lease, "acquireTime").duration_since(time(&last, "renewTime")).unsigned_abs();
    let duration = Duration::from_secs(lease["leaseDurationSeconds"].as_u64().unwrap());
    assert!(gap >= duration, "{next} took the Lease {gap:?} after its renewal");
    assert!(gap < duration + Duration::from_secs(8 + 4), "{next} took the Lease only {gap:?} after its renewal");

    // What leads also writes.
    let host = "led.example.com";
    release.shop.apply(&certified("led", host, ALL));
    release.shop.wait("swsr/led", "condition=Ready", LIMIT);
    assert_eq!(release.leader().map(|(_, identity)| identity), Some(holder));
    release.shop.must(&["delete", "swsr", "led"]);
    // The kubelet would wait longer and longer before it starts that container again.
    release.own.must(&["delete", "pod", &pod]);
    release.rolled_out(&release.own, NAME);
}

fn sockets_and_handshakes_go_on_while_the_api_server_is_away_for_a_minute(clusters: &Clusters) {
    let release = with_route(clusters);
    let plane = clusters.node().plane();
    run(async {
        let client = release.client(HOST);
        let fleet = Fleet::start(&client, "/echo", 50, false).await;
        let prober = Prober::start(&client, "/echo", Duration::from_millis(500));
        plane.kill_api_server();
        tokio::time::sleep(AWAY).await;
        fleet.all_live().await;
        let count = prober.stop().await;
        assert!(count > 60, "only {count} handshakes in the time");
        tokio::task::block_in_place(|| plane.start_api_server());
        fleet.all_live().await;
    });
    let kubectl = plane.kubectl();
    kubectl.wait("node/node", "condition=Ready", LIMIT);
    // Its Pods would have lost their Lease and be started anew. Without, its informers take another minute to come back.
    release.restart_cert_manager();
    // What changes now is seen, served and written.
    let host = "after.example.com";
    release.shop.apply(&certified("after", host, ALL));
    release.shop.wait("swsr/after", "condition=Ready", LIMIT);
    release.rolled_out(&release.own, NAME);
    run(async {
        let client = release.client(host);
        let open = async || super::fleet::open(&client, "/").await.ok();
        let mut peer = super::harness::until(LIMIT, "the Service to have its Pods back", open).await;
        peer.echo(&Frame::text("back")).await;
    });
    release.shop.must(&["delete", "swsr", "after"]);
}

fn the_definition_goes_under_500_sockets_and_no_pod_minds(clusters: &Clusters) {
    let release = with_route(clusters);
    let restarts = || {
        let counts = "jsonpath={.items[*].metadata.name} {.items[*].status.containerStatuses[0].restartCount}";
        release.own.must(&["get", "pods", "-l", "app.kubernetes.io/name=wssgate", "-o", counts])
    };
    let before = restarts();
    run(async {
        let fleet = Fleet::start(&release.client(HOST), "/echo", SOCKETS, false).await;
        // No finalizer stands in the way.
        release.shop.must(&["delete", "crd", "securewebsocketroutes.wssgate.io", "--timeout=60s"]);
        fleet.all_ended(LIMIT).await;
        fleet.all_told(1012);
    });
    assert_eq!(restarts(), before);
    release.rolled_out(&release.own, NAME);
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox: the_other_pod_leads_when_the_leaders_process_is_killed]
}

/// What runs after all others: for a minute more, what runs of Kubernetes itself comes back to its API server by and by.
pub fn last() -> Vec<Test> {
    crate::tests![node sandbox:
        sockets_and_handshakes_go_on_while_the_api_server_is_away_for_a_minute,
        the_definition_goes_under_500_sockets_and_no_pod_minds,
    ]
}
