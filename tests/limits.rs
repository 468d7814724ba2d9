//! Group G: who may connect, how often, how slowly; what is taken is given back.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Behaviour, Frame, Head, Options, PATIENCE, Peer, SOON, Setup, json, until};

/// The longest that a request head may take, with room for a busy machine.
const HEAD_TIMEOUT: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_takes_no_more_connections_than_its_total() {
    let setup = Setup::new(&json!({"connection": {"limits": {"total": 2}}})).await;
    let (first, mut second) = (setup.open().await, setup.open().await);
    let answer = setup.refused("the third", &Head::upgrade("/"), &[503], &["total_limit"]).await;
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    drop(first);
    // A place is given back when the connection is over, however it ended.
    let mut third = until(PATIENCE, "the place of the first", async || {
        let (answer, peer) = setup.client().ask(&Head::upgrade("/")).await;
        (answer.status() == 101).then_some(peer)
    })
    .await;
    third.echo(&Frame::text("in")).await;
    second.echo(&Frame::text("still in")).await;
    // An edit forgets nobody who is in.
    setup.respec(&json!({"connection": {"limits": {"total": 3}}})).await;
    let fourth = setup.open().await;
    setup.refused("the fourth of three", &Head::upgrade("/"), &[503], &["total_limit"]).await;
    setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 3.0).await;
    drop((second, third, fourth));
    setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_takes_no_more_than_its_share_whatever_it_claims_to_be() {
    let setup = Setup::new(&json!({"connection": {"limits": {"perAddress": 1}}})).await;
    let mut first = setup.open().await;
    let claims = Head::upgrade("/")
        .add("X-Forwarded-For", "192.0.2.9")
        .add("Forwarded", "for=192.0.2.9")
        .add("X-Real-IP", "192.0.2.9");
    for (case, head) in [("the second", Head::upgrade("/")), ("G7 with another address written in", claims)] {
        let answer = setup.refused(case, &head, &[429], &["address_limit"]).await;
        assert!(answer.field("retry-after").is_some(), "{case}: {answer:?}");
    }
    first.echo(&Frame::text("undisturbed")).await;
    first.close(1000, "").await;
    until(PATIENCE, "the place of the first", async || {
        (setup.client().ask(&Head::upgrade("/")).await.0.status() == 101).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_that_are_denied_or_not_allowed_do_not_get_in() {
    let networks = |lists: serde_json::Value| json!({"handshake": {"networks": lists}});
    let setup = Setup::new(&networks(json!({"allow": ["203.0.113.0/24"]}))).await;
    let claims = Head::upgrade("/").add("X-Forwarded-For", "203.0.113.7");
    setup.refused("not allowed", &Head::upgrade("/"), &[403], &["address_denied"]).await;
    setup.refused("G7 not allowed, but claimed", &claims, &[403], &["address_denied"]).await;
    setup.respec(&networks(json!({"allow": ["127.0.0.0/8"], "deny": ["127.0.0.1/32"]}))).await;
    setup.refused("denied within allowed", &Head::upgrade("/"), &[403], &["address_denied"]).await;
    // The address is judged before the origin is.
    let both = Head::upgrade("/").add("Origin", "https://evil.test");
    setup.refused("denied twice", &both, &[403], &["address_denied"]).await;
    setup.respec(&networks(json!({"allow": ["127.0.0.1/32"]}))).await;
    setup.admitted("allowed", &Head::upgrade("/")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_arrive_is_given_up_and_hurts_nobody() {
    let setup = Setup::new(&json!({})).await;
    let head = Head::upgrade("/").bytes();
    let mut slow = tokio::task::JoinSet::new();
    let cases =
        [("G1 nothing", 0), ("G1 one byte", 1), ("G1 half", head.len() / 2), ("G1 all but the end", head.len() - 2)];
    for (case, size) in cases.into_iter().chain((0..100).map(|_| ("G1 many", 30))) {
        let (client, bytes) = (setup.client(), head[..size].to_vec());
        slow.spawn(async move {
            let mut peer = client.connect().await;
            peer.write(&bytes).await;
            let answer = Answer::parse(&peer.rest(HEAD_TIMEOUT, case).await).map(|answer| answer.status());
            assert!(matches!(answer, None | Some(408)), "{case}: {answer:?}");
        });
    }
    let (client, bytes) = (setup.client(), head.clone());
    slow.spawn(async move {
        let (mut peer, start) = (client.connect().await, Instant::now());
        for byte in bytes.iter().cycle().take(2000) {
            assert!(start.elapsed() < HEAD_TIMEOUT, "G1 a byte at a time: still open");
            peer.write(&[if *byte == b'\n' { b'x' } else { *byte }]).await;
            if tokio::time::timeout(Duration::from_millis(100), peer.fill()).await == Ok(false) {
                return;
            }
        }
    });
    setup.open().await.echo(&Frame::text("meanwhile")).await;
    while let Some(done) = slow.join_next().await {
        done.unwrap();
    }
    until(SOON, "the time-outs in the metrics", async || {
        (setup.gateway.refusals(Some("head_timeout")).await >= 104.0).then_some(())
    })
    .await;
    assert_eq!(setup.recorder.count().0, 1, "G1: only the whole handshake reached the upstream");
}

/// Floods with one frame until the connection is closed: the code.
async fn flood(mut peer: Peer, frame: &Frame, times: usize) -> u16 {
    let bytes = peer.encode(frame).repeat(100);
    for _ in 0..times / 100 {
        if !peer.write(&bytes).await {
            break;
        }
    }
    loop {
        match peer.frame().await {
            Some(frame) if frame.opcode == 8 => return frame.code().0,
            Some(_) => {}
            None => panic!("the connection ended without a Close"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_control_frames_ends_the_connection() {
    let setup = Setup::new(&json!({})).await;
    for (case, frame) in
        [("F8 pings", Frame::ping("p")), ("F8 pongs", Frame::pong("p")), ("F8 empty pings", Frame::ping(""))]
    {
        assert_eq!(flood(setup.open().await, &frame, 5_000).await, 1008, "{case}");
    }
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[("reason", "control_flood")], 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_of_a_client_that_does_not_read_do_not_pile_up() {
    let setup = Setup::new(&json!({})).await;
    let mut peer = setup.open().await;
    let before = setup.gateway.resident();
    let bytes = Frame::ping(vec![1; 125]).bytes(Some([1, 2, 3, 4])).repeat(90);
    // 90 in a burst, once: within the allowance, and all answered when it reads.
    peer.write(&bytes).await;
    let mut answered = 0;
    while answered < 90 {
        let frame = peer.frame().await.expect("an answer to each ping");
        assert!(frame.same(&Frame::pong(vec![1; 125])), "F8: {frame:?}");
        answered += 1;
    }
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 4 * 1024, "F8: {grown} KiB more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_thousand_connections_took_is_given_back() {
    let setup = Setup::new(&json!({})).await;
    setup.open().await.echo(&Frame::text("warm")).await;
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
    let before = setup.gateway.descriptors();
    for round in 0..2 {
        let mut peers = Vec::new();
        for _ in 0..500 {
            peers.push(setup.open().await);
        }
        setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 500.0).await;
        for (index, peer) in peers.into_iter().enumerate() {
            match index % 3 {
                0 => peer.reset(),
                1 => drop(peer),
                _ => drop(peer.close(1000, "").await),
            }
        }
        setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
        until(PATIENCE, &format!("the descriptors of round {round}"), async || {
            (setup.gateway.descriptors() <= before + 8).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_hangs_at_the_backend_takes_no_one_elses_place() {
    let options = Options::default();
    let setup = Setup::with(Behaviour::Unanswered, &json!({"connection": {"limits": {"total": 50}}}), &options).await;
    let mut hanging = Vec::new();
    for _ in 0..20 {
        let mut peer = setup.client().connect().await;
        peer.write(&Head::upgrade("/").bytes()).await;
        hanging.push((peer, setup.recorder.peer().await));
    }
    setup.recorder.behave(Behaviour::Echo);
    setup.open().await.echo(&Frame::text("meanwhile")).await;
    drop(hanging);
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
}
