//! Group F: rates of messages and of bytes over real sockets, with what a route, the metrics and the log say of them.

use std::time::{Duration, Instant};

use crate::harness::{self, Behaviour, Frame, Head, Options, PATIENCE, Peer, Redis, SOON, Setup, json};
use serde_json::Value;

/// The usual fixture with the backend's end in the test's hands.
async fn manual(messages: &Value) -> Setup {
    Setup::with(Behaviour::Manual, &json!({"messages": messages}), &Options::default()).await
}

fn numbered(n: u32) -> Frame {
    Frame::text(format!("message {n}"))
}

async fn counted(setup: &Setup, metric: &str, reason: &str, count: f64) {
    setup.gateway.metric_becomes(metric, &[("route", "shop/chat"), ("reason", reason)], count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_or_byte_too_many_closes_and_sends_nothing_of_itself() {
    let hour = |limit: Value| {
        let mut limit = limit;
        harness::manifests::merge(&mut limit, &json!({"interval": "1h", "onExceeded": "Close"}));
        limit
    };
    let messages = json!({"rateLimit": hour(json!({"count": 2, "burst": 3}))});
    let bytes = json!({"byteRateLimit": hour(json!({"size": 20, "burst": 27}))});
    for (limits, client, backend) in [
        (messages, "message_rate_exceeded", "backend_message_rate_exceeded"),
        (bytes, "byte_rate_exceeded", "backend_byte_rate_exceeded"),
    ] {
        let setup = manual(&json!({"fromClient": limits, "fromBackend": limits})).await;
        let (mut peer, mut upstream) = setup.pair().await;
        let sent: Vec<u8> = (1..=4).flat_map(|n| peer.encode(&numbered(n))).collect();
        peer.write(&sent).await;
        for n in 1..=3 {
            upstream.expect(&numbered(n)).await;
        }
        assert_eq!(upstream.close_code().await.map(|close| close.0), Some(1001), "F20 {client}");
        assert_eq!(peer.close_code().await.map(|close| close.0), Some(1008), "F20 {client}");
        counted(&setup, "wssgate_connections_closed_total", client, 1.0).await;
        let (mut peer, mut upstream) = setup.pair().await;
        for n in 1..=4 {
            upstream.send(&numbered(n)).await;
        }
        for n in 1..=3 {
            peer.expect(&numbered(n)).await;
        }
        assert_eq!(peer.close_code().await.map(|close| close.0), Some(1011), "F20 {backend}");
        counted(&setup, "wssgate_connections_closed_total", backend, 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_dropped_are_counted_and_the_connection_goes_on() {
    let limit = json!({"count": 2, "interval": "1h", "onExceeded": "Drop"});
    let setup = manual(&json!({"fromClient": {"rateLimit": limit}, "fromBackend": {"rateLimit": limit}})).await;
    let (mut peer, mut upstream) = setup.pair().await;
    for n in 1..=5 {
        peer.send(&numbered(n)).await;
        upstream.send(&numbered(n)).await;
    }
    peer.send(&Frame::ping("still there")).await;
    upstream.send(&Frame::ping("still there")).await;
    for (end, other) in [(&mut upstream, "client"), (&mut peer, "backend")] {
        for n in 1..=2 {
            end.expect(&numbered(n)).await;
        }
        assert!(end.expect(&Frame::ping("still there")).await.fin, "of the {other}");
    }
    peer.close(1000, "").await;
    counted(&setup, "wssgate_messages_dropped_total", "message_rate_exceeded", 3.0).await;
    counted(&setup, "wssgate_messages_dropped_total", "backend_message_rate_exceeded", 3.0).await;
    let labels = [("route", "shop/chat"), ("direction", "from_client")];
    setup.gateway.metric_becomes("wssgate_messages_total", &labels, 2.0).await;
    let line = setup.gateway.access_line("the end", |line| line["event"] == "closed").await;
    for (field, number) in [
        ("messages_from_client", json!(2)),
        ("dropped_from_client", json!(3)),
        ("dropped_from_backend", json!(3)),
        ("throttled_from_client", Value::Null),
    ] {
        assert_eq!(line[field], number, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_peer_waits_and_then_goes_on_by_itself() {
    // Nobody sends anything that would wake the connection: its worker does, when the time has come.
    let limit = json!({"count": 2, "interval": "1s", "onExceeded": "Throttle"});
    let setup = manual(&json!({"fromClient": {"rateLimit": limit}, "fromBackend": {"rateLimit": limit}})).await;
    let (mut peer, mut upstream) = setup.pair().await;
    let began = Instant::now();
    for n in 1..=6 {
        peer.send(&numbered(n)).await;
        upstream.send(&numbered(n)).await;
    }
    for n in 1..=6 {
        upstream.expect(&numbered(n)).await;
        peer.expect(&numbered(n)).await;
    }
    // Two at once, four at two a second; the clock of the gateway goes in quarters.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    peer.send(&Frame::close(1000, "")).await;
    upstream.expect(&Frame::close(1000, "")).await;
    let line = |line: &Value| line["event"] == "closed" && line["throttled_from_backend"].as_u64() > Some(0);
    upstream.send(&Frame::close(1000, "")).await;
    let line = setup.gateway.access_line("the end", line).await;
    assert!(line["throttled_from_client"].as_u64() > Some(0), "{line}");
    assert_eq!(line["reason"], "client_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_read_at_the_pace_of_their_limit_and_the_sender_feels_it() {
    const SIZE: usize = 4 << 20;
    let limits = json!({"maxSize": "16Mi", "byteRateLimit": {"size": "1Mi", "interval": "1s"}});
    let setup = manual(&json!({"fromClient": limits})).await;
    let (mut peer, mut upstream) = setup.pair().await;
    let began = Instant::now();
    let frame = Frame::binary(vec![7; SIZE]);
    let sent = tokio::spawn(async move {
        peer.send(&frame).await;
        (peer, began.elapsed())
    });
    assert_eq!(upstream.frame_within(PATIENCE).await.map(|frame| frame.payload.len()), Some(SIZE));
    // A MiB at once and three more at one a second, but for what one read brings.
    assert!(began.elapsed() >= Duration::from_millis(2200), "{:?}", began.elapsed());
    let (peer, _) = sent.await.unwrap();
    counted_at_least(&setup, "wssgate_throttles_total", "byte_rate_exceeded", 4.0).await;
    drop(peer);
}

async fn counted_at_least(setup: &Setup, metric: &str, reason: &str, count: f64) {
    harness::until(SOON, metric, async || {
        (setup.gateway.metric(metric, &[("reason", reason)]).await >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connections_of_a_subject_share_their_rate_and_those_of_others_do_not() {
    let limit = json!({"count": 3, "interval": "1h", "scope": "Subject", "onExceeded": "Drop"});
    let mut replicas = Replicas::start(1, &limit, &json!({})).await;
    let (mut one, mut other, mut bob) =
        (replicas.open(0, "ada").await, replicas.open(0, "ada").await, replicas.open(0, "bob").await);
    assert_eq!((passed(&mut one, 2).await, passed(&mut other, 2).await, passed(&mut bob, 2).await), (2, 1, 2));
    drop((one, other));
    assert_eq!(passed(&mut replicas.open(0, "ada").await, 2).await, 0, "coming again gives nothing back");
    // An edit of the route counts on where it was.
    harness::manifests::merge(&mut replicas.spec, &json!({"connection": {"limits": {"total": 77}}}));
    replicas.gateways[0].edit("route.yaml", &harness::setup::route_text(&replicas.spec)).await;
    assert_eq!(passed(&mut bob, 2).await, 1);
}

/// Replicas of one gateway whose route limits the messages of subjects.
struct Replicas {
    authority: harness::Authority,
    _recorder: harness::Recorder,
    key: harness::Key,
    gateways: Vec<harness::Gateway>,
    spec: Value,
}

impl Replicas {
    async fn start(count: usize, limit: &Value, settings: &Value) -> Self {
        let key = harness::Key::es256("one");
        let mut spec = harness::issuer::any_of(&[harness::issuer::method(&json!({}))]);
        harness::manifests::merge(&mut spec, &json!({"messages": {"fromClient": {"rateLimit": limit}}}));
        let authority = harness::Authority::new();
        let recorder = harness::Recorder::start(Behaviour::Echo).await;
        let keys = [harness::issuer::config_map("idp", &harness::issuer::set(&[&key]))];
        let manifests = harness::setup::manifests(&authority, &recorder, &spec).with("keys.yaml", &keys);
        let mut gateways = Vec::new();
        for _ in 0..count {
            gateways.push(harness::Gateway::start_with(&manifests, &Options::settings(settings)).await);
        }
        Self { authority, _recorder: recorder, key, gateways, spec }
    }

    async fn shared(count: usize, limit: &Value, redis: &Redis) -> Self {
        let settings = json!({"sharedStore": {"url": redis.url(), "timeout": "500ms", "leaseDuration": "3s"}});
        let replicas = Self::start(count, limit, &settings).await;
        for gateway in &replicas.gateways {
            gateway.metric_becomes("wssgate_shared_store_connected", &[], 1.0).await;
        }
        replicas
    }

    async fn open(&self, replica: usize, subject: &str) -> Peer {
        let token = self.key.sign(&harness::issuer::claims(&json!({"sub": subject})));
        let address = self.gateways[replica].wss;
        let config = std::sync::Arc::new(self.authority.client());
        let client = harness::Client { address, config, name: harness::HOST.to_owned() };
        client.open(&Head::upgrade("/").add("Authorization", format!("Bearer {token}"))).await
    }
}

/// How many of so many messages come back before the answer to a ping.
async fn passed(peer: &mut Peer, messages: usize) -> usize {
    for _ in 0..messages {
        peer.send(&Frame::text("x")).await;
    }
    peer.send(&Frame::ping("?")).await;
    let mut passed = 0;
    while peer.frame().await.expect("an answer").opcode != 10 {
        passed += 1;
    }
    passed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_share_a_store_share_the_rate_of_a_subject() {
    let redis = Redis::start().await;
    let limit = json!({"count": 40, "interval": "1h", "scope": "Subject", "onExceeded": "Drop"});
    let replicas = Replicas::shared(3, &limit, &redis).await;
    // All at one replica: exactly the burst, and the others know.
    let mut first = replicas.open(0, "ada").await;
    assert_eq!(passed(&mut first, 100).await, 40, "F20 at one replica");
    for replica in 0..3 {
        assert_eq!(passed(&mut replicas.open(replica, "ada").await, 2).await, 0, "F20 at replica {replica}");
    }
    // In turn: never more than the burst, and what is borrowed and lapses is little.
    let mut peers = Vec::new();
    for replica in 0..3 {
        peers.push(replicas.open(replica, "bob").await);
    }
    let mut sum = 0;
    for _ in 0..40 {
        for peer in &mut peers {
            sum += passed(peer, 1).await;
        }
    }
    assert!((25..=40).contains(&sum), "F20 in turn: {sum} of 40");
    // The store knows nobody by name, and forgets by itself.
    assert!(!redis.dump().contains("ada") && !redis.dump().contains("bob"), "{}", redis.dump());
    for key in redis.keys() {
        assert!(redis.run::<i64>(&["PTTL", &key]) > 0, "{key} stays for good");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_subject_goes_on_at_the_pace_of_the_store() {
    let redis = Redis::start().await;
    let limit = json!({"count": 10, "interval": "1s", "scope": "Subject", "onExceeded": "Throttle"});
    let replicas = Replicas::shared(2, &limit, &redis).await;
    let (mut one, mut other) = (replicas.open(0, "ada").await, replicas.open(1, "ada").await);
    let began = Instant::now();
    let (first, second) = tokio::join!(passed(&mut one, 15), passed(&mut other, 15));
    assert_eq!((first, second), (15, 15));
    // Ten at once, and twenty at ten a second.
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_store_each_replica_counts_by_itself_and_nobody_is_ended() {
    let redis = Redis::start().await;
    let limit = json!({"count": 5, "interval": "1h", "scope": "Subject", "onExceeded": "Drop"});
    let replicas = Replicas::shared(2, &limit, &redis).await;
    let (mut one, mut other) = (replicas.open(0, "ada").await, replicas.open(1, "ada").await);
    assert_eq!(passed(&mut one, 1).await, 1);
    redis.hang();
    assert_eq!((passed(&mut one, 9).await, passed(&mut other, 9).await), (5, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_defaults_of_the_settings_limit_routes_that_say_nothing() {
    let limit = json!({"count": 1, "interval": "1h"});
    let defaults = json!({"defaults": {"messages": {"fromClient": {"rateLimit": limit, "maxFragments": 2}}}});
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::settings(&defaults)).await;
    let mut peer = setup.open().await;
    peer.echo(&Frame::text("one")).await;
    peer.send(&Frame::text("two")).await;
    assert_eq!(peer.close_code().await.map(|close| close.0), Some(1008));
    counted(&setup, "wssgate_connections_closed_total", "message_rate_exceeded", 1.0).await;
    let mut peer = setup.open().await;
    peer.send(&Frame::text("").more()).await;
    for _ in 0..2 {
        peer.send(&Frame::continuation("").more()).await;
    }
    let close = loop {
        let frame = peer.frame().await.expect("a Close");
        if frame.opcode == 8 {
            break frame;
        }
    };
    assert_eq!(close.code().0, 1008);
    counted(&setup, "wssgate_connections_closed_total", "too_many_fragments", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_many_frames_passes_where_its_size_allows_it_and_a_backend_hears_its_own_reason() {
    let setup = manual(&json!({"fromClient": {"maxSize": "1Mi"}, "fromBackend": {"maxFragments": 3}})).await;
    let (mut peer, mut upstream) = setup.pair().await;
    let mut bytes = peer.encode(&Frame::binary("x").more());
    for _ in 2..4096 {
        bytes.extend(peer.encode(&Frame::continuation("x").more()));
    }
    bytes.extend(peer.encode(&Frame::continuation("x")));
    peer.write(&bytes).await;
    for n in 1..=4096 {
        let frame = upstream.frame().await.unwrap_or_else(|| panic!("frame {n}"));
        assert_eq!(frame.fin, n == 4096);
    }
    upstream.send(&Frame::text("a").more()).await;
    for _ in 0..3 {
        upstream.send(&Frame::continuation("").more()).await;
    }
    // What the client has of the message is not whole, but ends between two frames: it gets a Close.
    for frame in [Frame::text("a"), Frame::continuation(""), Frame::continuation("")] {
        peer.expect(&frame.more()).await;
    }
    assert_eq!(peer.close_code().await.map(|close| close.0), Some(1011));
    counted(&setup, "wssgate_connections_closed_total", "backend_too_many_fragments", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_stops_is_late_after_the_time_of_the_route() {
    let timeout = json!({"messageTimeout": "1s"});
    let setup = manual(&json!({"fromClient": timeout, "fromBackend": timeout})).await;
    let (mut peer, upstream) = setup.pair().await;
    let frame = peer.encode(&Frame::text("never whole"));
    peer.write(&frame[..8]).await;
    assert_eq!(peer.close_within(PATIENCE).await.map(|close| close.0), Some(1008));
    counted(&setup, "wssgate_connections_closed_total", "message_timeout", 1.0).await;
    drop(upstream);
    let (mut peer, mut upstream) = setup.pair().await;
    upstream.send(&Frame::text("half").more()).await;
    peer.expect(&Frame::text("half").more()).await;
    assert_eq!(peer.close_within(PATIENCE).await.map(|close| close.0), Some(1011));
    counted(&setup, "wssgate_connections_closed_total", "backend_message_timeout", 1.0).await;
}
