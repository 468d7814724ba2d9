//! A connection after its 101: what passes, in which pieces, for how long, and how it ends.

use std::time::Duration;

use crate::harness::peer::Wire;
use crate::harness::{self, Behaviour, End, Frame, HOST, Head, Options, PATIENCE, Peer, SOON, Setup, json};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

/// The usual fixture with the upstream's end in the test's hands.
async fn manual(spec: &Value) -> Setup {
    Setup::with(Behaviour::Manual, spec, &Options::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_we_did_not_write_talks_through_it() {
    let setup = Setup::new(&json!({})).await;
    let Wire::Tls(tls) = setup.client().connect().await.wire else { panic!("no TLS") };
    let (mut socket, answer) = tokio_tungstenite::client_async(format!("wss://{HOST}/chat?a=b"), *tls).await.unwrap();
    assert_eq!(answer.status().as_u16(), 101);
    for size in [0, 1, 125, 126, 127, 1000, 65_535, 65_536] {
        let text = "é".repeat(size / 2);
        socket.send(Message::text(text.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
        let binary = vec![size as u8; size];
        socket.send(Message::binary(binary.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(binary));
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 0.0).await;
    for direction in ["from_client", "from_backend"] {
        let labels = [("route", "shop/chat"), ("direction", direction)];
        setup.gateway.metric_becomes("wssgate_messages_total", &labels, 16.0).await;
    }
    let accepted = setup.gateway.metric("wssgate_handshakes_total", &[("outcome", "accepted")]).await;
    assert!((accepted - 1.0).abs() < 0.1, "accepted: {accepted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_keep_their_boundaries_in_both_directions() {
    let setup = manual(&json!({})).await;
    let (mut client, mut upstream) = setup.pair().await;
    let frames = [
        Frame::text("one"),
        Frame::binary(vec![0; 300]),
        Frame::text("a").more(),
        Frame::continuation("").more(),
        Frame::continuation("b"),
        Frame::binary(""),
        Frame::binary(vec![1; 60_000]),
    ];
    for frame in &frames {
        client.send(frame).await;
        assert!(upstream.expect(frame).await.key.is_some(), "toward the backend we are the client");
        upstream.send(frame).await;
        assert!(client.expect(frame).await.key.is_none(), "toward the client we are the server");
    }
    // All at once, in one write.
    let mut bytes = Vec::new();
    for frame in &frames {
        bytes.extend(client.encode(frame));
    }
    client.write(&bytes).await;
    for frame in &frames {
        upstream.expect(frame).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_of_the_backend_streams_through() {
    const SIZE: usize = 16 * 1024 * 1024;
    let setup = manual(&json!({})).await;
    let (mut client, mut upstream) = setup.pair().await;
    let before = setup.gateway.resident();
    let bytes = Frame::binary((0..SIZE).map(|i| (i % 251) as u8).collect::<Vec<u8>>()).bytes(None);
    let (first, rest) = bytes.split_at(1024 * 1024);
    upstream.write(first).await;
    let begun = async {
        while client.pending().len() < first.len() {
            assert!(client.fill().await, "the connection ended");
        }
    };
    harness::within(PATIENCE, "the beginning of a message that is not whole yet", begun).await;
    let (_, frame) = tokio::join!(upstream.write(rest), client.frame());
    assert!(frame.is_some_and(|frame| frame.bytes(None) == bytes), "the message arrives as it was sent");
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more for a message of 16 MiB");
    upstream.write(&Frame::binary("").header(127, SIZE as u64 + 1, None)).await;
    assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1011), "a byte more than the limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_pongs_of_the_peers_pass_through() {
    let setup = manual(&json!({})).await;
    let (mut client, mut upstream) = setup.pair().await;
    client.send(&Frame::ping("from the client")).await;
    upstream.expect(&Frame::ping("from the client")).await;
    upstream.send(&Frame::pong("from the client")).await;
    client.expect(&Frame::pong("from the client")).await;
    upstream.send(&Frame::ping("from the backend")).await;
    client.expect(&Frame::ping("from the backend")).await;
    client.send(&Frame::pong("from the backend")).await;
    upstream.expect(&Frame::pong("from the backend")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_finds_the_dead_and_keeps_the_living() {
    let setup = manual(&json!({"connection": {"heartbeat": {"interval": "1s", "missed": 2}}})).await;
    let (mut living, mut upstream) = setup.pair().await;
    let mut nonces = Vec::new();
    for _ in 0..3 {
        let ping = living.frame().await.expect("a ping of the gateway");
        assert_eq!(ping.opcode, 9, "{ping:?}");
        assert!(ping.payload.len() >= 8, "a nonce: {ping:?}");
        living.send(&Frame::pong(ping.payload.clone())).await;
        nonces.push(ping.payload);
    }
    living.send(&Frame::text("alive")).await;
    upstream.expect(&Frame::text("alive")).await;
    // Nothing of the heartbeat reached the backend: the text was the first frame it saw.
    drop(living);
    let (mut dead, mut dead_upstream) = setup.pair().await;
    let mut pings = 0;
    let close = loop {
        match dead.frame().await {
            Some(frame) if frame.opcode == 9 => {
                assert!(!nonces.contains(&frame.payload), "a nonce of its own: {frame:?}");
                pings += 1;
            }
            Some(frame) if frame.opcode == 8 => break frame.code().0,
            other => panic!("expected pings and a Close, got {other:?}"),
        }
    };
    assert_eq!((pings, close), (2, 1001), "as many pings as may be missed, then the end");
    assert_eq!(dead_upstream.close_code().await.map(|(code, _)| code), Some(1001));
    dead_upstream.send(&Frame::close(1001, "")).await;
    dead_upstream.ended(SOON, "the end of a dead client's upstream").await;
    // The dead client never answers the Close: its place is free when the closing handshake has timed out.
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[("reason", "heartbeat_missed")], 1.0).await;
}

/// Writes to `from` until it blocks for a second: how many bytes went in.
async fn fill_up(from: &mut Peer, chunk: &[u8]) -> usize {
    const ENOUGH: usize = 64 * 1024 * 1024;
    let mut written = 0;
    while written < ENOUGH {
        match tokio::time::timeout(Duration::from_secs(1), from.wire.write(&chunk[written % chunk.len()..])).await {
            Ok(Ok(size)) => written += size,
            Ok(Err(error)) => panic!("the connection ended: {error}"),
            Err(_) => return written,
        }
    }
    panic!("{written} bytes were taken in for a peer that does not read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_stops_the_backend_and_costs_no_memory() {
    let setup = manual(&json!({})).await;
    let (mut client, mut upstream) = setup.pair().await;
    let before = setup.gateway.resident();
    // It may be cut off anywhere, within a frame as well as between two.
    let chunk = Frame::binary(vec![3; 1000]).bytes(None).repeat(64);
    let written = fill_up(&mut upstream, &chunk).await;
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 4 * 1024, "G3: {grown} KiB more for one slow reader");
    // Everything that was written arrives once it reads.
    let mut whole = written / 1004;
    while whole > 0 {
        let frame = client.frame().await.expect("the rest of what was written");
        assert!(frame.same(&Frame::binary(vec![3; 1000])), "{frame:?}");
        whole -= 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_does_not_read_stops_the_client_and_costs_no_memory() {
    let setup = manual(&json!({})).await;
    let (mut client, mut upstream) = setup.pair().await;
    let before = setup.gateway.resident();
    let chunk = Frame::binary(vec![3; 1000]).bytes(Some([9, 8, 7, 6])).repeat(64);
    let written = fill_up(&mut client, &chunk).await;
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 4 * 1024, "G4: {grown} KiB more for one slow backend");
    // TLS may hold the last record back: it is flushed with whatever comes next.
    let read = async {
        let mut whole = written / 1008 - 100;
        while whole > 0 {
            let frame = upstream.frame().await.expect("the rest of what was written");
            assert!(frame.same(&Frame::binary(vec![3; 1000])), "{frame:?}");
            whole -= 1;
        }
    };
    tokio::join!(read, async { client.wire.flush().await.unwrap() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_codes_and_reasons_are_carried_both_ways() {
    let setup = manual(&json!({})).await;
    for (code, reason) in [(1000, "done"), (1001, ""), (3001, "own"), (4999, "é")] {
        let close = Frame::close(code, reason);
        let (mut client, mut upstream) = setup.pair().await;
        client.send(&close).await;
        upstream.expect(&close).await;
        upstream.send(&close).await;
        client.expect(&close).await;
        assert_eq!(client.ended(SOON, "the client's end").await, End::Closed);
        let (mut client, mut upstream) = setup.pair().await;
        upstream.send(&close).await;
        client.expect(&close).await;
        client.send(&close).await;
        upstream.expect(&close).await;
        assert_eq!(client.ended(SOON, "the client's end").await, End::Closed);
        upstream.ended(SOON, "the upstream's end").await;
    }
    for (initiator, reason) in [("client", "client_closed"), ("backend", "backend_closed")] {
        let labels = [("initiator", initiator), ("reason", reason), ("code", "1000")];
        setup.gateway.metric_becomes("wssgate_connections_closed_total", &labels, 1.0).await;
    }
    // Both at once: each side gets exactly one Close.
    let (mut client, mut upstream) = setup.pair().await;
    let (ours, theirs) = (Frame::close(1000, "client"), Frame::close(1000, "backend"));
    tokio::join!(client.send(&ours), upstream.send(&theirs));
    let (at_client, at_upstream) = tokio::join!(client.rest(SOON, "F10"), upstream.rest(SOON, "F10"));
    for (side, bytes) in [("client", at_client), ("upstream", at_upstream)] {
        let frames = Frame::all(&bytes);
        assert!(frames.len() == 1 && frames[0].opcode == 8 && frames[0].code().0 == 1000, "F10 {side}: {frames:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_peer_is_told_to_the_other_side() {
    let setup = manual(&json!({})).await;
    for (case, reset) in [("F10 the backend's FIN", false), ("F10 the backend's reset", true)] {
        let (mut client, upstream) = setup.pair().await;
        if reset {
            upstream.reset()
        } else {
            drop(upstream)
        }
        assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1011), "{case}");
        client.send(&Frame::close(1011, "")).await;
        client.ended(SOON, case).await;
    }
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[("reason", "backend_lost")], 2.0).await;
    for (case, reset) in [("the client's FIN", false), ("the client's reset", true)] {
        let (client, mut upstream) = setup.pair().await;
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        assert_eq!(upstream.close_code().await.map(|(code, _)| code), Some(1001), "{case}");
        upstream.ended(SOON, case).await;
    }
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[("reason", "client_lost")], 2.0).await;
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_lost_within_a_frame_never_completes_it() {
    let setup = manual(&json!({})).await;
    let (mut client, mut upstream) = setup.pair().await;
    upstream.write(&Frame::binary(vec![1; 1000]).bytes(None)[..400]).await;
    let begun = async {
        while client.pending().len() < 100 {
            assert!(client.fill().await, "the connection ended");
        }
    };
    harness::within(PATIENCE, "the beginning of the frame", begun).await;
    drop(upstream);
    let bytes = client.rest(PATIENCE, "the end of the client").await;
    assert!(Frame::read(&bytes).is_none(), "the client got a whole frame: {:?}", Frame::read(&bytes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subprotocols_are_those_that_the_route_allows_and_the_backend_chooses() {
    let setup = Setup::new(&json!({"handshake": {"subprotocols": ["chat.v2", "chat.v1"]}})).await;
    let offer = |value: &str| Head::upgrade("/").add("Sec-WebSocket-Protocol", value);
    let (answer, _peer) = setup.client().ask(&offer("evil, chat.v1, chat.v2")).await;
    assert_eq!(answer.field("sec-websocket-protocol").as_deref(), Some("chat.v1"), "the backend's choice");
    let seen = setup.recorder.last().head();
    assert_eq!(seen.field("sec-websocket-protocol").as_deref(), Some("chat.v1, chat.v2"), "in the client's order");
    setup.gateway.access_line("the subprotocol", |line| line["subprotocol"] == "chat.v1").await;
    for (case, head) in [
        ("nothing allowed", offer("evil")),
        ("another case", offer("CHAT.V1")),
        ("nothing offered", Head::upgrade("/")),
    ] {
        setup.refused(case, &head, &[400], &["subprotocol_denied"]).await;
    }
    for (case, head) in [("no token", offer("chat v1")), ("the same twice", offer("chat.v1, chat.v1"))] {
        setup.refused(case, &head, &[400], &["subprotocol_denied", "malformed_request"]).await;
    }
    setup.admitted("an empty element", &offer("chat.v1,,chat.v2")).await;
    setup.respec(&json!({})).await;
    let head = Head::upgrade("/unlisted").add("Sec-WebSocket-Protocol", "anything");
    let (answer, _peer) = setup.client().ask(&head).await;
    assert_eq!(answer.field("sec-websocket-protocol").as_deref(), Some("anything"), "without a list");
    // What no route has written down may be a secret.
    let line = setup.gateway.access_line("the connection", |line| line["path"] == "/unlisted").await;
    assert!(line["subprotocol"].is_null(), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_carries_the_secure_headers_and_those_of_the_route() {
    let setup = Setup::new(&json!({"handshake": {"responseHeaders": {"set": [
        {"name": "Referrer-Policy", "value": "same-origin"}, {"name": "X-Own", "value": "yes"},
    ]}}}))
    .await;
    let (opened, _peer) = setup.client().ask(&Head::upgrade("/")).await;
    let refused =
        setup.refused("a refusal", &Head::upgrade("/").add("Origin", "null"), &[403], &["origin_denied"]).await;
    for answer in [&opened, &refused] {
        for name in [
            "content-security-policy",
            "x-frame-options",
            "x-content-type-options",
            "x-xss-protection",
            "strict-transport-security",
        ] {
            assert_eq!(answer.count(name), 1, "{name}: {answer:?}");
        }
        assert_eq!(answer.field("referrer-policy").as_deref(), Some("same-origin"), "{answer:?}");
        assert_eq!(answer.field("x-own").as_deref(), Some("yes"), "{answer:?}");
        assert_eq!(answer.field("x-powered-by").or(answer.field("server")), None, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_two_lines_joined_by_an_id_and_no_secret() {
    let setup = Setup::new(&json!({})).await;
    let head = Head::upgrade("/room/7?token=s3cr3t-query")
        .add("Cookie", "sid=s3cr3t-cookie")
        .add("Authorization", "Bearer s3cr3t-bearer");
    let mut peer = setup.client().open(&head).await;
    peer.echo(&Frame::text("s3cr3t-message")).await;
    peer.close(1000, "s3cr3t-reason").await;
    let end = setup.gateway.access_line("the end line", |line| line["event"] == "closed").await;
    let open = setup.gateway.access_line("the open line", |line| line["event"] == "opened").await;
    assert_eq!(open["connection_id"], end["connection_id"]);
    assert!(open["connection_id"].as_str().is_some_and(|id| id.len() >= 8), "{open}");
    assert_eq!(open["route"], "shop/chat", "{open}");
    assert_eq!(open["tls"], "TLSv1.3", "{open}");
    assert!(open.to_string().contains("/room/7"), "{open}");
    let bad = Head::upgrade("/x?token=s3cr3t-query").add("Origin", "https://evil.test\u{1b}[31m");
    setup.refused("a refusal", &bad, &[403, 400], &["origin_denied", "malformed_request"]).await;
    let refused = setup.gateway.access_line("the refusal", |line| line["event"] == "refused").await;
    assert!(refused["reason"].is_string(), "{refused}");
    for text in [setup.gateway.access_text(), setup.gateway.log_text()] {
        assert!(!text.contains("s3cr3t"), "a secret in a log: {text}");
        assert!(!text.contains('\u{1b}'), "an escape sequence in a log");
    }
}
