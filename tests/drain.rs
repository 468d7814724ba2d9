//! The end of the process: first nothing changes, then nobody new gets in, then everybody is asked to leave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::time::{Duration, Instant};

use harness::{Behaviour, Frame, Head, Options, PATIENCE, SOON, Setup, json, until};

fn drain(accept_grace: &str, window: &str, deadline: &str) -> Options {
    Options::settings(&json!({"drain": {"acceptGrace": accept_grace, "window": window, "deadline": deadline}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepting_goes_on_for_the_grace_then_closes_are_spread_and_the_exit_is_clean() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("2s", "2s", "10s")).await;
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(setup.open().await);
    }
    setup.gateway.sigterm();
    let start = Instant::now();
    // Within the grace: ready, and open for new connections.
    let mut late = setup.open().await;
    late.echo(&Frame::text("in the grace")).await;
    assert_eq!(setup.gateway.get("/readyz").await.0, 200, "ready while it accepts");
    assert_eq!(setup.gateway.get("/livez").await.0, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "the machine is too slow to see the grace");
    peers.push(late);
    let mut tasks = tokio::task::JoinSet::new();
    for mut peer in peers {
        tasks.spawn(async move {
            let close = peer.close_code().await;
            let at = start.elapsed();
            assert_eq!(close.map(|(code, _)| code), Some(1001));
            peer.send(&Frame::close(1001, "")).await;
            peer.ended(SOON, "the end after 1001").await;
            at
        });
    }
    until(PATIENCE, "readiness to fail", async || (setup.gateway.get("/readyz").await.0 != 200).then_some(())).await;
    assert!(start.elapsed() > Duration::from_millis(1800), "not before the grace is over");
    let refused = tokio::net::TcpStream::connect(setup.gateway.wss).await.is_err();
    assert!(refused, "nobody new gets in");
    let mut times = tasks.join_all().await;
    times.sort();
    let spread = times[times.len() - 1] - times[0];
    assert!(times[0] > Duration::from_millis(1800), "the first Close comes after the grace: {times:?}");
    assert!(spread > Duration::from_millis(800), "the closes are spread over the window: {times:?}");
    let status = setup.gateway.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(start.elapsed() < Duration::from_secs(9), "no connection was left to wait for");
    let ends = setup.gateway.access().iter().filter(|line| line["event"] == "end" && line["reason"] == "drain").count();
    assert_eq!(ends, 21, "every connection has its line in the access log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backends_are_told_as_well() {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &drain("0s", "1s", "5s")).await;
    let (mut client, mut upstream) = setup.pair().await;
    setup.gateway.sigterm();
    assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1001));
    client.send(&Frame::close(1001, "")).await;
    assert_eq!(upstream.close_code().await.map(|(code, _)| code), Some(1001));
    upstream.ended(SOON, "the upstream's end").await;
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_leave_is_dropped_at_the_deadline() {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &drain("0s", "1s", "2s")).await;
    let (mut client, mut upstream) = setup.pair().await;
    // Within a frame of the backend no Close can be written, and the backend never ends it.
    upstream.write(&Frame::binary(vec![1; 1000]).bytes(None)[..400]).await;
    let mut hanging = setup.client().connect().await;
    hanging.write(&Head::upgrade("/").bytes()[..20]).await;
    let start = Instant::now();
    setup.gateway.sigterm();
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "the deadline was not kept");
    client.ended(SOON, "the client's end").await;
    hanging.ended(SOON, "the end of a handshake").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("60s", "60s", "180s")).await;
    let mut peer = setup.open().await;
    setup.gateway.sigterm();
    peer.echo(&Frame::text("in the grace")).await;
    setup.gateway.sigterm();
    setup.gateway.exit(SOON).await;
    peer.ended(SOON, "the end with the process").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_connections_there_is_nothing_to_wait_for() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("0s", "60s", "120s")).await;
    setup.gateway.sigterm();
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
}
