//! Group F: rates of messages and of bytes over real sockets, with what a route, the metrics and the log say of them.

use std::time::{Duration, Instant};

use crate::harness::{self, Behaviour, Frame, Head, Options, PATIENCE, Peer, SOON, Setup, json};
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
    let key = harness::Key::es256("one");
    let mut spec = harness::issuer::any_of(&[harness::issuer::method(&json!({}))]);
    let limit = json!({"count": 3, "interval": "1h", "scope": "Subject", "onExceeded": "Drop"});
    harness::manifests::merge(&mut spec, &json!({"messages": {"fromClient": {"rateLimit": limit}}}));
    let authority = harness::Authority::new();
    let recorder = harness::Recorder::start(Behaviour::Echo).await;
    let keys = [harness::issuer::config_map("idp", &harness::issuer::set(&[&key]))];
    let manifests = harness::setup::manifests(&authority, &recorder, &spec).with("keys.yaml", &keys);
    let gateway = harness::Gateway::start_with(&manifests, &Options::default()).await;
    let setup = Setup { authority, recorder, gateway };
    let open = async |subject: &str| {
        let token = key.sign(&harness::issuer::claims(&json!({"sub": subject})));
        setup.client().open(&Head::upgrade("/").add("Authorization", format!("Bearer {token}"))).await
    };
    /// How many of two messages come back before the answer to a ping.
    async fn passed(peer: &mut Peer) -> usize {
        peer.send(&Frame::text("a")).await;
        peer.send(&Frame::text("b")).await;
        peer.send(&Frame::ping("?")).await;
        for passed in 0.. {
            if peer.frame().await.expect("an answer").opcode == 10 {
                return passed;
            }
        }
        0
    }
    let (mut one, mut other, mut bob) = (open("ada").await, open("ada").await, open("bob").await);
    assert_eq!((passed(&mut one).await, passed(&mut other).await, passed(&mut bob).await), (2, 1, 2));
    drop((one, other));
    assert_eq!(passed(&mut open("ada").await).await, 0, "coming again gives nothing back");
    // An edit of the route counts on where it was.
    let other = json!({"connection": {"limits": {"total": 77}}});
    harness::manifests::merge(&mut spec, &other);
    setup.respec(&spec).await;
    assert_eq!(passed(&mut bob).await, 1);
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
