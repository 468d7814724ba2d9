//! Group F: every rule of RFC 6455 §5 that a client can break, and every one that a backend can.

use crate::harness::{self, Behaviour, Frame, Head, Options, PATIENCE, Peer, SOON, Setup, json};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// Sends raw bytes on a new connection; the client must get `code`, and the upstream nothing but whole frames of
/// `allowed` and a Close with 1001.
async fn violation(setup: &Setup, case: &str, bytes: &[u8], codes: &[u16], allowed: &[Frame]) {
    let before = closes(setup, codes).await;
    let mut peer = setup.open().await;
    peer.write(bytes).await;
    let close = loop {
        match peer.frame_within(PATIENCE).await {
            Some(frame) if frame.opcode == 8 => break frame.code(),
            Some(_) => {}
            None => panic!("{case}: the connection ended without a Close"),
        }
    };
    assert!(codes.contains(&close.0), "{case}: expected {codes:?}, got {close:?}");
    peer.send(&Frame::close(close.0, "")).await;
    peer.ended(SOON, &format!("{case}: the end")).await;
    // Whoever keeps TCP open after that is waited for; this client does not.
    drop(peer);
    let last = setup.recorder.last();
    harness::until(SOON, &format!("{case}: the end of the upstream"), async || last.is_ended().then_some(())).await;
    let (after, mut at, mut seen) = (last.after(), 0, Vec::new());
    while let Some((frame, size)) = Frame::read(&after[at..]) {
        at += size;
        seen.push(frame);
    }
    for frame in &seen {
        let ours = frame.opcode == 8 && frame.code().0 == 1001;
        assert!(ours || allowed.iter().any(|a| a.same(frame)), "{case}: the upstream saw {frame:?}");
    }
    // A frame that was announced and refused while it streamed may leave its beginning, never its end.
    assert!(at == after.len() || !seen.iter().any(|frame| frame.opcode == 8), "{case}: bytes after a Close");
    harness::until(SOON, &format!("{case}: the close in the metrics"), async || {
        (closes(setup, codes).await > before).then_some(())
    })
    .await;
}

async fn closes(setup: &Setup, codes: &[u16]) -> f64 {
    let mut sum = 0.0;
    for code in codes {
        let code = code.to_string();
        sum += setup
            .gateway
            .metric("wssgate_connections_closed_total", &[("code", &code), ("initiator", "gateway")])
            .await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reserved_bits_and_opcodes_end_the_connection() {
    let setup = Setup::new(&json!({})).await;
    for bits in 1..8 {
        for (kind, frame) in [("text", Frame::text("x")), ("binary", Frame::binary("x")), ("ping", Frame::ping("x"))] {
            violation(&setup, &format!("F1 {kind} with RSV {bits}"), &frame.rsv(bits).bytes(Some(KEY)), &[1002], &[])
                .await;
        }
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        let frame = Frame::new(opcode, "x");
        violation(&setup, &format!("F1 opcode {opcode}"), &frame.bytes(Some(KEY)), &[1002], &[]).await;
    }
    let first = Frame::text("a").more();
    let second = Frame::continuation("b").rsv(4);
    let bytes = [first.bytes(Some(KEY)), second.bytes(Some(KEY))].concat();
    violation(&setup, "F12 RSV1 on a continuation", &bytes, &[1002], &[first]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_are_small_and_whole() {
    let setup = Setup::new(&json!({})).await;
    for (name, opcode) in [("close", 8), ("ping", 9), ("pong", 10)] {
        let long = Frame::new(opcode, vec![0; 126]);
        violation(&setup, &format!("F2 {name} of 126 bytes"), &long.bytes(Some(KEY)), &[1002], &[]).await;
        let header = long.header(127, 70_000, Some(KEY));
        violation(&setup, &format!("F2 {name} of 70,000 bytes"), &header, &[1002], &[]).await;
        let part = Frame::new(opcode, "").more();
        violation(&setup, &format!("F2 {name} in fragments"), &part.bytes(Some(KEY)), &[1002], &[]).await;
    }
    let mut peer = setup.open().await;
    peer.send(&Frame::ping(vec![7; 125])).await;
    peer.expect(&Frame::pong(vec![7; 125])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_are_minimal_and_bounded_before_anything_is_stored() {
    let setup = Setup::new(&json!({})).await;
    let before = setup.gateway.resident();
    let binary = Frame::binary("");
    for (case, form, len, codes) in [
        ("F3 5 in two bytes", 126, 5, [1002].as_slice()),
        ("F3 125 in two bytes", 126, 125, &[1002]),
        ("F3 5 in eight bytes", 127, 5, &[1002]),
        ("F3 65,535 in eight bytes", 127, 65_535, &[1002]),
        ("F3 the highest bit", 127, 1 << 63, &[1002]),
        ("F3 all bits", 127, u64::MAX, &[1002]),
        ("F3 2^63-1", 127, (1 << 63) - 1, &[1002, 1009]),
        ("F3 2^32", 127, 1 << 32, &[1009]),
        ("F3 a byte more than allowed", 127, 65_537, &[1009]),
    ] {
        violation(&setup, case, &binary.header(form, len, Some(KEY)), codes, &[]).await;
    }
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "F3: {grown} KiB more than before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_utf8_in_frames_and_across_them() {
    let setup = Setup::new(&json!({})).await;
    let whole = |bytes: &[u8]| Frame::text(bytes).bytes(Some(KEY));
    for (case, bytes) in [
        ("F4 a lone continuation byte", whole(b"a\x80")),
        ("F4 an overlong slash", whole(b"\xc0\xaf")),
        ("F4 a surrogate", whole(b"\xed\xa0\x80")),
        ("F4 above U+10FFFF", whole(b"\xf4\x90\x80\x80")),
        ("F4 cut off at the end", whole(b"abc\xe2\x82")),
        ("F4 0xFF", whole(b"\xff")),
    ] {
        violation(&setup, case, &bytes, &[1007], &[]).await;
    }
    let (first, bad) = (Frame::text(b"ok\xe2".as_slice()).more(), Frame::continuation(b"(".as_slice()));
    let bytes = [first.bytes(Some(KEY)), bad.bytes(Some(KEY))].concat();
    violation(&setup, "F4 across fragments", &bytes, &[1007], &[first]).await;
    // Refused as soon as it is wrong: the message never ends.
    let fast = [Frame::binary("").header(126, 1000, Some([0; 4])), b"\xff".to_vec()].concat();
    let fast = [vec![0x81], fast[1..].to_vec()].concat();
    violation(&setup, "F4 at the first wrong byte", &fast, &[1007], &[]).await;
    let mut peer = setup.open().await;
    peer.send(&Frame::text(b"\xe2".as_slice()).more()).await;
    peer.send(&Frame::continuation(b"\x82\xac".as_slice())).await;
    peer.expect(&Frame::text(b"\xe2".as_slice()).more()).await;
    peer.expect(&Frame::continuation(b"\x82\xac".as_slice())).await;
    peer.echo(&Frame::binary(b"\xff\xfe\x80".as_slice())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_come_in_order() {
    let setup = Setup::new(&json!({})).await;
    let (start, lone) = (Frame::text("a").more(), Frame::continuation("b"));
    violation(&setup, "F5 a continuation first", &lone.bytes(Some(KEY)), &[1002], &[]).await;
    violation(&setup, "F5 an open continuation first", &lone.clone().more().bytes(Some(KEY)), &[1002], &[]).await;
    for (case, second) in [("F5 text within text", Frame::text("b")), ("F5 binary within text", Frame::binary("b"))] {
        let bytes = [start.bytes(Some(KEY)), second.bytes(Some(KEY))].concat();
        violation(&setup, case, &bytes, &[1002], std::slice::from_ref(&start)).await;
    }
    let whole = Frame::text("w");
    let bytes = [whole.bytes(Some(KEY)), lone.bytes(Some(KEY))].concat();
    violation(&setup, "F5 a continuation after the end", &bytes, &[1002], &[whole]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_never_ends_is_cut_at_its_limits() {
    let setup = Setup::new(&json!({})).await;
    let before = setup.gateway.resident();
    let (first, next) = (Frame::binary(vec![1; 1024]).more(), Frame::continuation(vec![1; 1024]).more());
    let mut endless = first.bytes(Some(KEY));
    (0..200).for_each(|_| endless.extend(next.bytes(Some(KEY))));
    violation(&setup, "F6 an endless message", &endless, &[1009], &[first, next]).await;
    for (case, payload) in [("F7 fragments of one byte", "x"), ("F7 fragments of nothing", "")] {
        let (first, next) = (Frame::text(payload).more(), Frame::continuation(payload).more());
        let mut endless = first.bytes(Some(KEY));
        (0..20_000).for_each(|_| endless.extend(next.bytes(Some(KEY))));
        violation(&setup, case, &endless, &[1008, 1009], &[first, next]).await;
    }
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "F6/F7: {grown} KiB more than before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_frames_carry_codes_that_may_be_sent() {
    let setup = Setup::new(&json!({})).await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        violation(&setup, &format!("F9 code {code}"), &Frame::close(code, "").bytes(Some(KEY)), &[1002], &[]).await;
    }
    violation(&setup, "F9 one byte", &Frame::new(8, vec![3]).bytes(Some(KEY)), &[1002], &[]).await;
    let reason = Frame::new(8, vec![3, 0xE8, 0xFF]);
    violation(&setup, "F4 a reason that is not UTF-8", &reason.bytes(Some(KEY)), &[1007, 1002], &[]).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let answer = setup.open().await.close(code, "why").await;
        assert_eq!(answer.map(|(code, _)| code), Some(code), "F9: a code that may be sent comes back");
    }
    let mut empty = setup.open().await;
    empty.send(&Frame::new(8, "")).await;
    assert_eq!(empty.close_code().await.map(|(code, _)| code), Some(1005), "F9: a Close without a code");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes_after_a_close() {
    let setup = Setup::new(&json!({})).await;
    let mut peer = setup.open().await;
    let close = Frame::close(1000, "bye");
    let bytes = [close.bytes(Some(KEY)), Frame::text("late").bytes(Some(KEY)), close.bytes(Some(KEY))].concat();
    peer.write(&bytes).await;
    peer.ended(SOON, "F9: the end after a Close").await;
    let frames = setup.recorder.frames_of_last("F9: the end of the upstream").await;
    assert!(frames.len() == 1 && frames[0].same(&close), "F9: the upstream saw {frames:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_cut_at_every_byte_say_the_same() {
    let setup = Setup::new(&json!({})).await;
    let frames = [
        Frame::text("héllo"),
        Frame::binary(vec![9; 200]),
        Frame::text("a€").more(),
        Frame::continuation("").more(),
        Frame::continuation("€b"),
        Frame::binary(vec![]),
    ];
    let mut bytes: Vec<u8> = Vec::new();
    frames.iter().for_each(|frame| bytes.extend(frame.bytes(Some(KEY))));
    // Every byte a TLS record of its own.
    let mut single = setup.open().await;
    for byte in &bytes {
        single.write(std::slice::from_ref(byte)).await;
    }
    for frame in &frames {
        single.expect(frame).await;
    }
    // Two records, cut at every place.
    let mut cut = setup.open().await;
    for at in 1..bytes.len() {
        cut.write(&bytes[..at]).await;
        cut.write(&bytes[at..]).await;
        for frame in &frames {
            cut.expect(frame).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backend_sees_masks_that_the_client_did_not_choose() {
    let setup = Setup::new(&json!({})).await;
    let mut peer = setup.open().await;
    let poison = Frame::binary("GET /poison HTTP/1.1\r\nHost: victim\r\n\r\n");
    for _ in 0..8 {
        peer.write(&poison.bytes(Some([0; 4]))).await;
        peer.expect(&poison).await;
    }
    peer.close(1000, "").await;
    let frames = setup.recorder.frames_of_last("the end of the upstream").await;
    let mut keys: Vec<[u8; 4]> = frames.iter().map(|frame| frame.key.expect("F16: a frame without mask")).collect();
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() >= frames.len() - 1, "F16: masks repeat: {keys:?}");
    assert!(!keys.contains(&[0; 4]), "F16: the client's mask was used");
    let raw = setup.recorder.last().after();
    assert!(!raw.windows(11).any(|bytes| bytes == b"GET /poison"), "F16: the payload is readable on the wire");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_between_fragments_keep_their_place() {
    let setup = Setup::with(Behaviour::Manual, &json!({}), &Options::default()).await;
    let (mut client, mut upstream) = setup.pair().await;
    let frames = [
        Frame::text("a").more(),
        Frame::ping("p"),
        Frame::continuation("b").more(),
        Frame::pong("q"),
        Frame::continuation("c"),
    ];
    for (from, to) in [(&mut client, &mut upstream)] {
        exchange(from, to, &frames, "F17 from the client").await;
    }
    exchange(&mut upstream, &mut client, &frames, "F17 from the backend").await;
}

/// Sends frames one way; those that arrive are these in their order (a ping of ours may be answered on the way).
async fn exchange(from: &mut Peer, to: &mut Peer, frames: &[Frame], case: &str) {
    for frame in frames {
        from.send(frame).await;
    }
    for frame in frames {
        let got = to.frame().await.unwrap_or_else(|| panic!("{case}: ended before {frame:?}"));
        assert!(got.same(frame), "{case}: expected {frame:?}, got {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_takes_the_types_that_it_names() {
    let only = |kind: &str| json!({"messages": {"fromClient": {"types": [kind]}}});
    let setup = Setup::new(&only("Text")).await;
    setup.open().await.echo(&Frame::text("yes")).await;
    violation(&setup, "F18 binary to text", &Frame::binary("no").bytes(Some(KEY)), &[1003], &[]).await;
    violation(&setup, "F18 a binary fragment", &Frame::binary("no").more().bytes(Some(KEY)), &[1003], &[]).await;
    setup.respec(&only("Binary")).await;
    setup.open().await.echo(&Frame::binary("yes")).await;
    violation(&setup, "F18 text to binary", &Frame::text("no").bytes(Some(KEY)), &[1003], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_be_as_large_as_the_limit_and_no_larger() {
    let default = Setup::new(&json!({})).await;
    default.open().await.echo(&Frame::binary(vec![5; 64 * 1024])).await;
    let large = Frame::binary(vec![5; 64 * 1024 + 1]);
    violation(&default, "F19 the built-in limit and a byte", &large.bytes(Some(KEY)), &[1009], &[]).await;
    let setup = Setup::new(&json!({"messages": {"fromClient": {"maxSize": 1000}}})).await;
    setup.open().await.echo(&Frame::text("x".repeat(1000))).await;
    let over = Frame::text("x".repeat(1001));
    violation(&setup, "F19 limit and one", &over.bytes(Some(KEY)), &[1009], &[]).await;
    let mut peer = setup.open().await;
    let (first, second) = (Frame::text("x".repeat(600)).more(), Frame::continuation("x".repeat(400)));
    peer.send(&first).await;
    peer.send(&second).await;
    peer.expect(&first).await;
    peer.expect(&second).await;
    let bytes = [first.bytes(Some(KEY)), Frame::continuation("x".repeat(401)).bytes(Some(KEY))].concat();
    violation(&setup, "F19 limit and one in fragments", &bytes, &[1009], &[first]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_breaks_the_rules_ends_its_connection_alone() {
    let setup =
        Setup::with(Behaviour::Manual, &json!({"messages": {"fromBackend": {"maxSize": 2000}}}), &Options::default())
            .await;
    let (mut bystander, mut bystander_upstream) = setup.pair().await;
    for (case, bytes) in [
        ("F21 a masked frame", Frame::text("x").bytes(Some(KEY))),
        ("F21 a message too large", Frame::binary(vec![1; 2001]).bytes(None)),
        ("F21 not UTF-8", Frame::text(b"\xff".as_slice()).bytes(None)),
        ("F21 RSV1", Frame::text("x").rsv(4).bytes(None)),
        ("F21 a reserved opcode", Frame::new(3, "x").bytes(None)),
        ("F21 a continuation first", Frame::continuation("x").bytes(None)),
        ("F21 a long ping", Frame::ping(vec![0; 126]).bytes(None)),
        ("F21 a close code that may not be sent", Frame::close(1006, "").bytes(None)),
        ("F21 HTTP after the 101", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
    ] {
        let (mut client, mut upstream) = setup.pair().await;
        upstream.write(&bytes).await;
        let close = client.close_code().await.unwrap_or_else(|| panic!("{case}: no Close"));
        assert_eq!(close.0, 1011, "{case}: {close:?}");
        client.send(&Frame::close(1011, "")).await;
        client.ended(SOON, case).await;
        upstream.ended(SOON, case).await;
    }
    bystander.send(&Frame::text("still here")).await;
    bystander_upstream.expect(&Frame::text("still here")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_extension_is_negotiated_with_either_side() {
    let setup = Setup::new(&json!({})).await;
    for (case, offer) in [
        ("F12 deflate", "permessage-deflate"),
        ("F12 a window of 7", "permessage-deflate; server_max_window_bits=7"),
        ("F12 a window of a", "permessage-deflate; client_max_window_bits=a"),
        ("F12 a parameter twice", "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
        ("F12 unknown", "x-unknown; a=b"),
    ] {
        let (answer, peer) = setup.client().ask(&Head::upgrade("/").add("Sec-WebSocket-Extensions", offer)).await;
        assert_eq!(answer.status(), 101, "{case}");
        assert_eq!(answer.field("sec-websocket-extensions"), None, "{case}");
        assert_eq!(setup.recorder.last().head().field("sec-websocket-extensions"), None, "F14 {case}");
        drop(peer);
    }
}
