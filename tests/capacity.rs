//! What a replica carries: beyond it nobody gets in, those who are in stay, and it recovers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::gateway::configuration;
use crate::harness::{self, Behaviour, Frame, HOST, Head, Options, PATIENCE, Peer, SOON, Setup, json, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is ended before TLS: nothing comes, and the end does.
async fn turned_away(setup: &Setup) {
    let mut tcp = setup.client().tcp().await;
    let mut bytes = Vec::new();
    let _ = harness::within(SOON, "the end before TLS", tcp.read_to_end(&mut bytes)).await;
    assert!(bytes.is_empty(), "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_connections_as_files_allow_get_in_and_no_more() {
    let options = Options { files: Some(200), ..Options::default() };
    let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
    setup.gateway.metric_becomes("wssgate_client_sockets_limit", &[], 50.0).await;
    let mut peers = Vec::new();
    // One address on one route has eight sockets for each that is free.
    for _ in 0..45 {
        peers.push(setup.open().await);
    }
    setup.refused("G18 a part of the sockets", &Head::upgrade("/"), &[503], &["socket_share"]).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(setup.client().tcp().await);
    }
    setup.gateway.metric_becomes("wssgate_client_sockets", &[], 50.0).await;
    let before = setup.recorder.count();
    for _ in 0..20 {
        turned_away(&setup).await;
    }
    // A client sees its end before the gateway has counted it.
    until(SOON, "twenty refusals", async || {
        (setup.gateway.refusals(Some("connection_limit")).await as u64 == 20).then_some(())
    })
    .await;
    setup.recorder.saw_nothing_since(before, "G5 beyond the limit");
    let line = setup.gateway.access_line("the refusal", |line| line["reason"] == "connection_limit").await;
    assert!(line["client"].is_string() && line.get("status").is_none(), "{line}");
    setup.gateway.metric_becomes("wssgate_client_sockets", &[], 50.0).await;
    for peer in &mut peers {
        peer.echo(&Frame::text("still in")).await;
    }
    drop((peers, silent));
    until(PATIENCE, "places after the end", async || (setup.gateway.connections().await < 0.5).then_some(())).await;
    setup.open().await.echo(&Frame::text("in again")).await;
}

/// The ClientHello of a client that is never heard of again.
fn client_hello(setup: &Setup) -> Vec<u8> {
    let name = HOST.try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(setup.authority.client()), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_tls_handshakes_is_cut_short_and_live_connections_and_others_go_on() {
    // One worker: the flood meets the live connection.
    let options = Options { args: vec!["--workers".into(), "1".into()], ..Options::default() };
    let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
    let mut live = setup.open().await;
    let before = setup.recorder.count();
    let hello = client_hello(&setup);
    let client = setup.client();
    let mut flood = Vec::new();
    for _ in 0..3000 {
        flood.push(client.tcp().await);
    }
    for tcp in &mut flood {
        tcp.write_all(&hello).await.unwrap();
    }
    live.echo(&Frame::text("in the flood")).await;
    // The line is full of one address, which loses a place to another.
    let tcp = client.tcp_from("127.0.0.2").await;
    let neighbour = harness::within(PATIENCE, "G6: another address", client.connect_over(tcp)).await;
    assert!(neighbour.is_ok(), "G6: another address was shut out");
    let limit = Some("tls_queue_full");
    until(PATIENCE, "G6: the line was full", async || (setup.gateway.refusals(limit).await > 0.5).then_some(())).await;
    live.echo(&Frame::text("still in")).await;
    assert_eq!(setup.recorder.count().0, before.0, "G6: nothing of them reached the backend");
    let line = setup.gateway.access_line("the refusal", |line| line["reason"] == "tls_queue_full").await;
    assert!(line["client"].is_string() && line.get("status").is_none(), "{line}");
    drop(flood);
    setup.open().await.echo(&Frame::text("in again")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_descriptors_it_waits_without_a_busy_loop_and_recovers() {
    let options = Options { files: Some(160), ..Options::default() };
    let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
    let mut live = setup.open().await;
    // Visitors of the plain port who say nothing take what is kept for it, and more, and come again when they are ended.
    let target = setup.gateway.http;
    let silent = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(TcpStream::connect(target).await.unwrap());
            if held.len() > 200 {
                held.pop_front();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    until(PATIENCE, "G10: all descriptors in use", async || (setup.gateway.descriptors() >= 160).then_some(())).await;
    let mut waiting = setup.client().tcp().await;
    waiting.write_all(&[22]).await.unwrap();
    let (start, before) = (Instant::now(), setup.gateway.processor());
    let mut echoes = 0;
    while start.elapsed() < Duration::from_secs(2) {
        live.echo(&Frame::text("undisturbed")).await;
        echoes += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let spent = setup.gateway.processor() - before;
    assert!(spent < Duration::from_millis(700), "G10: {spent:?} of processor time in two seconds of waiting");
    assert!(echoes > 3, "G10: {echoes} echoes");
    silent.abort();
    drop(waiting);
    setup.gateway.metric_becomes("wssgate_connections", &[], 1.0).await;
    assert_eq!(setup.gateway.get("/readyz").await.0, 200, "G10");
    setup.open().await.echo(&Frame::text("in again")).await;
    live.echo(&Frame::text("still in")).await;
    let said = setup.gateway.log_text().matches("connections cannot be accepted").count();
    assert!(said <= 5, "G10: said {said} times");
}

async fn budget(setup: &Setup, bytes: u64) {
    setup.gateway.configure(&format!("{:#}", configuration(&json!({"memoryBudget": bytes}))));
    setup.gateway.metric_becomes("wssgate_memory_budget_bytes", &[], bytes as f64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_memory_budget_nobody_is_let_in_and_those_who_are_in_stay() {
    let settings = Options::settings(&json!({"memoryBudget": "1Gi"}));
    let setup = Setup::with(Behaviour::Echo, &json!({}), &settings).await;
    setup.gateway.metric_becomes("wssgate_memory_budget_bytes", &[], f64::from(1 << 30)).await;
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..20 {
        peers.push(setup.open().await);
    }
    let resident = setup.gateway.resident() * 1024;
    budget(&setup, resident + (2 << 20)).await;
    let full = async {
        loop {
            match setup.client().try_connect().await {
                Ok(mut peer) => {
                    peer.write(&Head::upgrade("/").bytes()).await;
                    match peer.head().await {
                        Some(answer) => assert_eq!(answer.status(), 101),
                        None => return,
                    }
                    peers.push(peer);
                }
                Err(_) => return,
            }
            assert!(peers.len() < 4000, "G11: {} connections in 2 MiB", peers.len());
        }
    };
    harness::within(Duration::from_secs(60), "the door to be shut", full).await;
    // Far below: the door stays shut until there is room.
    budget(&setup, resident / 2 + (1 << 20)).await;
    let (before, counted) = (setup.recorder.count().0, setup.gateway.refusals(Some("overloaded")).await);
    assert!(counted > 0.5, "G11: the refusal is counted");
    for _ in 0..3 {
        turned_away(&setup).await;
    }
    setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "overloaded")], counted + 3.0).await;
    assert_eq!(setup.recorder.count().0, before, "G11: nothing of them reached the backend");
    assert_eq!(setup.gateway.get("/readyz").await.0, 200);
    // Idle connections hold nothing, so nothing is won by ending them.
    for peer in &mut peers {
        peer.echo(&Frame::text("still in")).await;
    }
    budget(&setup, 1 << 30).await;
    setup.open().await.echo(&Frame::text("in again")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_beyond_the_budget_whoever_makes_us_hold_bytes_has_to_go() {
    let settings = Options::settings(&json!({"memoryBudget": "1Gi"}));
    let setup = Setup::with(Behaviour::Manual, &json!({}), &settings).await;
    let (mut idle, mut idle_upstream) = setup.pair().await;
    let (slow, mut upstream) = setup.pair().await;
    let chunk = Frame::binary(vec![3; 1000]).bytes(None).repeat(64);
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), upstream.wire.write_all(&chunk)).await {
        written.unwrap();
    }
    budget(&setup, 1 << 20).await;
    setup
        .gateway
        .metric_becomes("wssgate_connections_closed_total", &[("reason", "overloaded"), ("code", "1013")], 1.0)
        .await;
    upstream.ended(PATIENCE, "G11: the end of the slow one's upstream").await;
    drop(slow);
    idle.send(&Frame::text("still in")).await;
    idle_upstream.expect(&Frame::text("still in")).await;
    setup.gateway.metric_becomes("wssgate_connections", &[], 1.0).await;
    turned_away(&setup).await;
}
