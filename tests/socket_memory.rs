//! What the kernel holds for connections whose peers do not read: it is bounded for each socket, and counted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Behaviour, Frame, Head, Options, PATIENCE, Peer, Setup, json, until};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// The most bytes that one direction of a connection holds with the default of `socketBuffers`.
const DIRECTION: u64 = 1344 * 1024;

/// Bytes that wait in the gateway's sockets toward clients and backends.
fn in_kernel(setup: &Setup) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).ok();
    let (wss, backend) = (Some(setup.gateway.wss.port()), Some(setup.recorder.port()));
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // 0A: a listener, whose queue counts connections.
    let ours = rows.filter(|row| row[3] != "0A" && (port(row[1]) == wss || port(row[2]) == backend));
    let queued = |row: Vec<&str>| {
        let (sent, received) = row[4].split_once(':').unwrap();
        u64::from_str_radix(sent, 16).unwrap() + u64::from_str_radix(received, 16).unwrap()
    };
    ours.map(queued).sum()
}

/// Writes until nothing was taken for a while, and keeps the peer.
async fn filled(mut peer: Peer) -> Peer {
    let chunk = Frame::binary(vec![3; 1000]).bytes(None).repeat(64);
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(700), peer.wire.write_all(&chunk)).await {}
    peer
}

/// What the sockets hold before clients that do not read, while the backend sends.
async fn before_slow_readers(clients: usize, settings: &serde_json::Value) -> (Setup, u64, Vec<(Peer, Peer)>) {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &Options::settings(settings)).await;
    let mut filling = JoinSet::new();
    for _ in 0..clients {
        let (client, backend) = setup.pair().await;
        filling.spawn(async { (client, filled(backend).await) });
    }
    let pairs = filling.join_all().await;
    let held = in_kernel(&setup);
    (setup, held, pairs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_holds_a_bounded_number_of_bytes_for_clients_that_do_not_read() {
    let settings = json!({"memoryBudget": "1Gi"});
    let (setup, held, pairs) = before_slow_readers(60, &settings).await;
    assert!(held > 60 * 64 * 1024 && held < 60 * DIRECTION, "G11: {held} bytes in the sockets of 60 connections");
    // It is counted, by the control group or by the connections that hold it.
    let counted = async || (setup.gateway.metric("wssgate_socket_buffer_bytes", &[]).await > 1e6).then_some(());
    until(PATIENCE, "G11: the socket buffers are counted", counted).await;
    let (used, resident) = (
        setup.gateway.metric("wssgate_memory_used_bytes", &[]).await,
        setup.gateway.metric("wssgate_resident_memory_bytes", &[]).await,
    );
    assert!(used > resident, "G11: {used} in use, {resident} resident");
    drop(pairs);
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
    // A larger bound takes more: the bound is what was measured.
    let (_setup, more, _pairs) = before_slow_readers(20, &json!({"socketBuffers": "2Mi"})).await;
    assert!(more / 20 > 2 * held / 60, "G11: {} bytes each, and {} by the default", more / 20, held / 60);
}

/// A control group of its own with a limit of memory, removed with it.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// `None`: this machine or this user cannot have one.
    fn new(limit: u64) -> Option<Self> {
        let mount = Path::new("/sys/fs/cgroup/memory");
        let group = Self(mount.join(format!("wssgate-test-{}", std::process::id())));
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join("memory.limit_in_bytes"), limit.to_string()).ok()?;
        Some(group)
    }

    fn number(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(self.0.join(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_control_group_of_256_mib_slow_peers_are_refused_and_nothing_is_killed() {
    let limit = 256 << 20;
    let Some(group) = ControlGroup::new(limit) else {
        eprintln!("left out: needs root and a writable /sys/fs/cgroup/memory");
        return;
    };
    let options = Options { group: Some(group.0.clone()), ..Options::default() };
    let setup = Setup::with(Behaviour::Manual, &json!({}), &options).await;
    setup.gateway.metric_becomes("wssgate_memory_budget_bytes", &[], (limit / 5 * 4) as f64).await;
    let (mut live, mut live_backend) = setup.pair().await;
    let (tried, refused, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let attack = async {
        let mut flood = JoinSet::new();
        let start = Instant::now();
        while tried.load(Ordering::Relaxed) < 10_000 && start.elapsed() < Duration::from_secs(10) {
            let number = tried.fetch_add(1, Ordering::Relaxed);
            let opened = async {
                let mut client = setup.client().try_connect().await.ok()?;
                client.write(&Head::upgrade("/").bytes()).await;
                let answer = client.head().await?;
                (answer.status() == 101).then_some(client)
            };
            let Some(mut client) = opened.await else {
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut backend = setup.recorder.peer().await;
            // Every other one is a client that sends to a backend that does not read.
            flood.spawn(async move {
                let (sender, mask) =
                    if number % 2 == 0 { (&mut backend, None) } else { (&mut client, Some([9, 8, 7, 6])) };
                let chunk = Frame::binary(vec![3; 1000]).bytes(mask).repeat(64);
                while sender.wire.write_all(&chunk).await.is_ok() {}
                // Whoever was told to go still takes his time.
                tokio::time::sleep(Duration::from_secs(1)).await;
            });
        }
        over.store(true, Ordering::Relaxed);
        flood
    };
    let mut most = 0;
    let mut slowest = Duration::ZERO;
    let victim = async {
        while !over.load(Ordering::Relaxed) {
            let start = Instant::now();
            live.send(&Frame::text("still in")).await;
            live_backend.expect(&Frame::text("still in")).await;
            slowest = slowest.max(start.elapsed());
            most = most.max(in_kernel(&setup) + setup.gateway.resident() * 1024);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (flood, ()) = tokio::join!(attack, victim);
    let (tried, refused) = (tried.into_inner(), refused.into_inner());
    println!("{tried} tried, {refused} refused, at most {} MiB, slowest echo {slowest:?}", most >> 20);
    assert!(refused > 0, "G11: all of {tried} were let in");
    assert!(most < limit, "G11: {most} bytes resident and in sockets");
    assert_eq!(group.number("memory.oom_control", "oom_kill "), 0, "G11: something was killed");
    assert!(group.number("memory.max_usage_in_bytes", "") < limit, "G11: the limit was reached");
    assert!(setup.gateway.exited().is_none());
    assert!(setup.gateway.refusals(Some("overloaded")).await > 0.5);
    drop(flood);
    let again = async || setup.client().try_connect().await.ok().map(drop);
    until(PATIENCE, "G11: the door to open again", again).await;
    live.send(&Frame::text("still in")).await;
    live_backend.expect(&Frame::text("still in")).await;
    drop(setup);
}
