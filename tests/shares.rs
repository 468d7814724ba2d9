//! What all share: who takes all that he can leaves a part to others, beside whom he stands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::harness::manifests::{route, secret, service};
use crate::harness::peer::connect_from;
use crate::harness::setup::manifests;
use crate::harness::{
    Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Options, PATIENCE, Peer, Recorder, Setup, json, until,
};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

/// The host of another tenant.
const GREEDY: &str = "greedy.example.com";

/// The usual route, and beside it one of another namespace for a host of its own.
async fn two_tenants(options: &Options) -> Setup {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let in_namespace = |mut object: Value| {
        object["metadata"]["namespace"] = json!("greedy");
        object
    };
    let open = json!({"connection": {"limits": {"total": 10_000_000}}});
    let mut objects =
        vec![secret("own-tls", &authority.leaf(&[GREEDY])), route("own", GREEDY, "own-tls", "own", &open)];
    objects.extend(service("own", &[recorder.port()]));
    let objects: Vec<Value> = objects.into_iter().map(in_namespace).collect();
    let manifests = manifests(&authority, &recorder, &json!({})).with("greedy.yaml", &objects);
    let gateway = Gateway::start_with(&manifests, options).await;
    Setup { authority, recorder, gateway }
}

/// The status of a handshake from one address, and the connection if it is 101.
async fn from(client: &Client, source: &str) -> Option<(u16, Peer)> {
    let mut peer = client.connect_over(client.tcp_from(source).await).await.ok()?;
    peer.write(&Head::upgrade("/").set("Host", &client.name).bytes()).await;
    Some((peer.head().await?.status(), peer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_with_all_the_sockets_it_can_get_keeps_no_other_tenant_out() {
    let options = Options { files: Some(1024), ..Options::default() };
    let setup = two_tenants(&options).await;
    setup.gateway.metric_becomes("wssgate_client_sockets_limit", &[], 320.0).await;
    let greedy = setup.client().named(GREEDY);
    let mut held = Vec::new();
    let refused = loop {
        match from(&greedy, "127.0.0.66").await {
            Some((101, peer)) => held.push(peer),
            other => break other.map(|(status, _)| status),
        }
        assert!(held.len() < 320, "one client has all sockets");
    };
    assert_eq!((refused, held.len()), (Some(503), 285));
    assert!(setup.gateway.refusals(Some("socket_share")).await > 0.5);
    // The rest it holds before TLS, and takes again what it loses.
    let address = greedy.address;
    let silent: JoinHandle<()> = tokio::spawn(async move {
        let mut silent = VecDeque::new();
        loop {
            silent.push_back(connect_from("127.0.0.66", address).await);
            if silent.len() > 60 {
                silent.pop_front();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    setup.gateway.metric_becomes("wssgate_client_sockets", &[], 320.0).await;
    let mut victims = Vec::new();
    for number in 1..=18 {
        let victim = from(&setup.client(), &format!("127.0.1.{number}")).await;
        let (status, mut peer) = victim.unwrap_or_else(|| panic!("newcomer {number} was ended"));
        assert_eq!(status, 101, "newcomer {number}");
        peer.echo(&Frame::text("in")).await;
        victims.push(peer);
    }
    // Nobody who is in is closed for the sake of another.
    for peer in held.iter_mut().chain(&mut victims) {
        peer.echo(&Frame::text("still in")).await;
    }
    silent.abort();
    drop((held, victims));
    setup.gateway.metric_becomes("wssgate_client_sockets", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_begin_tls_handshakes_without_end_refuse_no_newcomer() {
    for attackers in [3u8, 8] {
        // One worker, so that all meet in one queue.
        let options = Options { args: vec!["--workers".into(), "1".into()], files: Some(4096), ..Options::default() };
        let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
        let mut hello = Vec::new();
        let name = HOST.try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(setup.authority.client()), name).unwrap();
        tls.write_tls(&mut hello).unwrap();
        let (hello, address) = (Arc::new(hello), setup.gateway.wss);
        let floods: Vec<JoinHandle<()>> = (0..attackers)
            .map(|number| {
                let hello = Arc::clone(&hello);
                tokio::spawn(async move {
                    let mut held = VecDeque::new();
                    loop {
                        let source = format!("127.0.2.{}", 1 + number);
                        let mut tcp = connect_from(&source, address).await;
                        // It may have been ended already.
                        let _ = tcp.write_all(&hello).await;
                        held.push_back(tcp);
                        if held.len() > 400 {
                            held.pop_front();
                            tokio::time::sleep(Duration::from_millis(2)).await;
                        }
                    }
                })
            })
            .collect();
        until(PATIENCE, "a flood", async || {
            (setup.gateway.metric("wssgate_client_sockets", &[]).await > 500.0).then_some(())
        })
        .await;
        for number in 1..=18 {
            let newcomer = from(&setup.client(), &format!("127.0.1.{number}")).await;
            assert_eq!(newcomer.map(|(status, _)| status), Some(101), "newcomer {number} of 18, {attackers} attackers");
        }
        for flood in floods {
            flood.abort();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_on_one_route_hides_none_of_another() {
    let setup = two_tenants(&Options::default()).await;
    let head = Head::upgrade("/").add("Origin", "https://evil.test");
    let flood = setup.client().named(GREEDY);
    for _ in 0..40 {
        flood.ask(&head.clone().set("Host", GREEDY)).await;
    }
    for _ in 0..3 {
        assert_eq!(setup.client().ask(&head).await.0.status(), 403);
    }
    until(PATIENCE, "the lines of the other route", async || {
        let lines = setup.gateway.access();
        let of = |route: &str| lines.iter().filter(|line| line["event"] == "refused" && line["route"] == route).count();
        (of("shop/chat") == 3 && of("greedy/own") >= 10).then_some(())
    })
    .await;
}
