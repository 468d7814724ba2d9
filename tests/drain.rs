//! The end of the process: first nothing changes, then nobody new gets in, then everybody is asked to leave.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Behaviour, End, Frame, Head, Options, PATIENCE, SOON, Setup, json, until};
use tokio::io::AsyncWriteExt;

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
    until(SOON, "the end of accepting", async || {
        tokio::net::TcpStream::connect(setup.gateway.wss).await.is_err().then_some(())
    })
    .await;
    let mut times = tasks.join_all().await;
    times.sort();
    let spread = times[times.len() - 1] - times[0];
    assert!(times[0] > Duration::from_millis(1800), "the first Close comes after the grace: {times:?}");
    assert!(spread > Duration::from_millis(800), "the closes are spread over the window: {times:?}");
    let status = setup.gateway.exit(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(start.elapsed() < Duration::from_secs(9), "no connection was left to wait for");
    let ends =
        setup.gateway.access().iter().filter(|line| line["event"] == "closed" && line["reason"] == "draining").count();
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
async fn what_changes_while_it_drains_takes_effect() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("0s", "60s", "180s")).await;
    let mut peers = Vec::new();
    for _ in 0..20 {
        peers.push(setup.open().await);
    }
    setup.gateway.sigterm();
    until(PATIENCE, "readiness to fail", async || (setup.gateway.get("/readyz").await.0 != 200).then_some(())).await;
    setup.respec(&json!({"handshake": {"networks": {"deny": ["127.0.0.0/8"]}}})).await;
    // Some may have had their turn within the window by then.
    let ended = |reason: &str| {
        setup.gateway.access().iter().filter(|line| line["event"] == "closed" && line["reason"] == reason).count()
    };
    let all = async || (ended("draining") + ended("access_withdrawn") == 20).then_some(());
    until(PATIENCE, "everybody to leave", all).await;
    assert!(ended("access_withdrawn") > 10, "{}", setup.gateway.access_text());
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("60s", "60s", "180s")).await;
    let mut peer = setup.open().await;
    setup.gateway.sigterm();
    peer.echo(&Frame::text("in the grace")).await;
    // Two signals that are not seen one by one are one.
    let stopping = |line: &serde_json::Value| line["message"].as_str().is_some_and(|text| text.starts_with("stopping"));
    setup.gateway.log_line("the first signal", stopping).await;
    setup.gateway.sigterm();
    assert_eq!(setup.gateway.exit(SOON).await.code(), Some(0));
    peer.ended(SOON, "the end with the process").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_connections_there_is_nothing_to_wait_for() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("0s", "60s", "120s")).await;
    setup.gateway.sigterm();
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
}

/// A handshake that is under way when accepting ends is told to come back; nothing of it reaches a backend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_during_the_drain_is_told_to_come_back() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &drain("0s", "1s", "10s")).await;
    // Connected before the signal: one up to the end of TLS, one with half a head, one with half a ClientHello.
    let mut silent = setup.client().connect().await;
    let mut half = setup.client().connect().await;
    let head = Head::upgrade("/").bytes();
    half.write(&head[..20]).await;
    let mut raw = setup.client().tcp().await;
    raw.write_all(&[22, 3, 1, 0, 200, 1, 0, 0]).await.unwrap();
    setup.gateway.sigterm();
    until(PATIENCE, "the drain", async || (setup.gateway.get("/readyz").await.0 == 503).then_some(())).await;
    silent.write(&head).await;
    half.write(&head[20..]).await;
    for (case, peer) in [("J3 a whole head", &mut silent), ("J3 the rest of a head", &mut half)] {
        let bytes = peer.rest(SOON, case).await;
        let answer = Answer::parse(&bytes).unwrap_or_else(|| panic!("{case}: no answer"));
        assert_eq!(answer.status(), 503, "{case}: {answer:?}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{case}: {answer:?}");
        let after: u64 = answer.field("retry-after").and_then(|value| value.parse().ok()).expect("Retry-After");
        assert!((1..=10).contains(&after), "{case}: {answer:?}");
    }
    assert_eq!(setup.gateway.refusals(Some("draining")).await as u64, 2);
    assert_eq!(setup.recorder.count(), (0, 0), "J3: nothing reached the backend");
    // The third never says who it is; it is given up before the deadline.
    let start = Instant::now();
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(9), "J3: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_within_a_message_breaks_no_frame_and_completes_no_message() {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &drain("0s", "1s", "8s")).await;
    // Between two fragments, and within a frame.
    let (mut client, mut upstream) = setup.pair().await;
    client.send(&Frame::text("half").more()).await;
    upstream.expect(&Frame::text("half").more()).await;
    let (mut other, mut other_upstream) = setup.pair().await;
    let bytes = other.encode(&Frame::binary(vec![9; 1000]));
    other.write(&bytes[..500]).await;
    while other_upstream.pending().len() < 300 {
        assert!(other_upstream.fill().await, "the upstream ended");
    }
    setup.gateway.sigterm();
    for (case, client, rest) in
        [("J3 between fragments", &mut client, &[][..]), ("J3 within a frame", &mut other, &bytes[500..])]
    {
        assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1001), "{case}");
        // Nobody can put a Close within a frame: it is ended first.
        client.write(rest).await;
        client.send(&Frame::close(1001, "")).await;
        client.ended(SOON, case).await;
    }
    let frames = Frame::all(&upstream.rest(PATIENCE, "J3: the upstream's end").await);
    assert!(frames.len() == 1 && frames[0].opcode == 8 && frames[0].code().0 == 1001, "J3: {frames:?}");
    let frames = Frame::all(&other_upstream.rest(PATIENCE, "J3: the other upstream's end").await);
    assert!(frames.len() <= 2 && frames[0].same(&Frame::binary(vec![9; 1000])), "J3: {frames:?}");
    assert!(frames[1..].iter().all(|frame| frame.opcode == 8), "J3: {frames:?}");
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_sends_behind_our_close_spoils_no_clean_end() {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &drain("0s", "1s", "8s")).await;
    let (mut client, mut upstream) = setup.pair().await;
    setup.gateway.sigterm();
    assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1001));
    // Half a frame, which goes nowhere: the client has had its Close.
    let bytes = upstream.encode(&Frame::binary(vec![9; 1000]));
    upstream.write(&bytes[..504]).await;
    setup.gateway.metric_becomes("wssgate_payload_bytes_total", &[("direction", "from_backend")], 500.0).await;
    client.send(&Frame::close(1001, "")).await;
    assert_ne!(client.ended(SOON, "the end").await, End::Truncated, "no close_notify");
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_within_a_closing_handshake_leaves_it_alone() {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &drain("0s", "1s", "10s")).await;
    let close = Frame::close(4001, "own");
    let (mut client, mut upstream) = setup.pair().await;
    client.send(&close).await;
    upstream.expect(&close).await;
    setup.gateway.sigterm();
    until(PATIENCE, "the drain", async || (setup.gateway.get("/readyz").await.0 == 503).then_some(())).await;
    // The whole window passes: a second Close would have to come within it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    upstream.send(&close).await;
    client.expect(&close).await;
    let (at_client, at_upstream) =
        (client.rest(PATIENCE, "J3: the client's end").await, upstream.rest(PATIENCE, "J3: the upstream's end").await);
    assert!(at_client.is_empty() && at_upstream.is_empty(), "J3: one Close each: {at_client:?} {at_upstream:?}");
    assert_eq!(setup.gateway.exit(PATIENCE).await.code(), Some(0));
    let end = setup.gateway.access_line("the end", |line| line["event"] == "closed").await;
    assert_eq!((&end["reason"], &end["close_code"]), (&json!("client_closed"), &json!(4001)), "J3: {end}");
}
