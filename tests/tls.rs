//! Group D: what TLS is spoken, to whom, and for how long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::manifests::{route, secret, service, text};
use crate::harness::peer::{OneName, Wire};
use crate::harness::{
    self, Answer, Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Manifests, PATIENCE, Peer, Recorder, SOON,
    Setup, json, until,
};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest that a TLS handshake may take, with room for a busy machine.
const TLS_TIMEOUT: Duration = Duration::from_secs(9);

/// A ClientHello by hand, as one handshake message.
fn hello(version: u16, suites: &[u16]) -> Vec<u8> {
    fn block16(bytes: Vec<u8>) -> Vec<u8> {
        [(bytes.len() as u16).to_be_bytes().to_vec(), bytes].concat()
    }
    fn extension(kind: u16, body: Vec<u8>) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), block16(body)].concat()
    }
    let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let name = [vec![0], block16(HOST.as_bytes().to_vec())].concat();
    let extensions = [
        extension(0, block16(name)),
        extension(10, block16(words(&[29, 23]))),
        extension(11, vec![1, 0]),
        extension(13, block16(words(&[0x0403, 0x0804, 0x0401, 0x0201, 0x0203]))),
        extension(23, vec![]),
    ]
    .concat();
    let body = [
        version.to_be_bytes().to_vec(),
        vec![0x5A; 32],
        vec![0],
        block16(words(suites)),
        vec![1, 0],
        block16(extensions),
    ]
    .concat();
    [vec![1], (body.len() as u32).to_be_bytes()[1..].to_vec(), body].concat()
}

/// A handshake message in one record.
fn record(version: u16, message: &[u8]) -> Vec<u8> {
    [vec![22], version.to_be_bytes().to_vec(), (message.len() as u16).to_be_bytes().to_vec(), message.to_vec()].concat()
}

/// Sends bytes on a new TCP connection and reads up to its end, or to the first `enough` bytes.
async fn probe(setup: &Setup, bytes: &[u8], enough: usize) -> Vec<u8> {
    let mut tcp = setup.client().tcp().await;
    tcp.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    harness::within(TLS_TIMEOUT, "an answer or the end", async {
        let mut chunk = [0; 4096];
        while got.len() < enough {
            match tcp.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(size) => got.extend_from_slice(&chunk[..size]),
            }
        }
    })
    .await;
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_protocols_and_weak_suites_are_refused() {
    let setup = Setup::new(&json!({})).await;
    let good = record(0x0301, &hello(0x0303, &[0xC02B]));
    let answer = probe(&setup, &good, 43).await;
    assert_eq!((answer[0], answer[5]), (22, 2), "the control row must be answered with a ServerHello");
    assert_eq!(answer[35..43], *b"DOWNGRD\x01", "D2: TLS 1.2 with a server of 1.3 carries the sentinel");
    // The control row broke off after the ServerHello: it failed as well.
    let mut rows = 1.0;
    for (case, version) in [("SSL 3.0", 0x0300), ("TLS 1.0", 0x0301), ("TLS 1.1", 0x0302)] {
        let answer = probe(&setup, &record(0x0300, &hello(version, &[0xC02B, 0xC009, 0x002F])), usize::MAX).await;
        assert_eq!(
            (answer.first(), answer.get(6)),
            (Some(&21), Some(&70)),
            "D1 {case}: {answer:?}, not protocol_version"
        );
        rows += 1.0;
    }
    for (case, suite) in [
        ("RC4", 0x0005),
        ("3DES", 0x000A),
        ("RSA key exchange, CBC", 0x002F),
        ("RSA key exchange, GCM", 0x009C),
        ("ECDHE, CBC", 0xC009),
        ("ECDHE, CBC, SHA-384", 0xC024),
        ("DHE", 0x009E),
        ("NULL", 0xC006),
        ("export", 0x0003),
        ("anonymous", 0xC018),
        ("pre-shared key", 0x00A8),
    ] {
        let answer = probe(&setup, &record(0x0301, &hello(0x0303, &[suite])), usize::MAX).await;
        assert_eq!(
            (answer.first(), answer.get(6)),
            (Some(&21), Some(&40)),
            "D1 {case}: {answer:?}, not handshake_failure"
        );
        rows += 1.0;
    }
    for (case, bytes) in [
        ("SSL 2.0", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80".as_slice()),
        ("D15 HTTP", b"GET / HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"),
        ("D15 a ws:// handshake", &Head::upgrade("/").bytes()),
        ("heartbeat", b"\x18\x03\x02\x00\x03\x01\x40\x00"),
        ("a data record first", b"\x17\x03\x03\x00\x01\x00"),
        ("an empty ClientHello", b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"),
    ] {
        let answer = probe(&setup, bytes, usize::MAX).await;
        let told =
            matches!(answer.first(), None | Some(&21)) || Answer::parse(&answer).is_some_and(|a| a.status() == 400);
        assert!(told, "D1/D15 {case}: {answer:?}");
        rows += 1.0;
    }
    let labels = [("outcome", "refused"), ("reason", "tls_failed")];
    setup.gateway.metric_becomes("wssgate_handshakes_total", &labels, rows).await;
    assert_eq!(setup.recorder.count(), (0, 0), "D1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hello_in_pieces_is_read_or_refused() {
    let setup = Setup::new(&json!({})).await;
    let pieces: Vec<u8> =
        hello(0x0303, &[0xC02B]).iter().flat_map(|byte| record(0x0301, std::slice::from_ref(byte))).collect();
    let answer = probe(&setup, &pieces, 6).await;
    assert!(matches!(answer.first(), Some(&21 | &22)), "D4: {answer:?}");
    setup.open().await.echo(&Frame::text("alive")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_does_not_go_on_is_ended_in_time_and_holds_no_memory() {
    let setup = Setup::new(&json!({})).await;
    setup.open().await.echo(&Frame::text("warm")).await;
    let before = setup.gateway.resident();
    let whole = record(0x0301, &hello(0x0303, &[0xC02B]));
    let acme = {
        let mut config = setup.authority.client();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let name = ServerName::try_from(HOST).unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes.truncate(bytes.len() - 1);
        bytes
    };
    let mut stalled = vec![
        ("D6 nothing", vec![]),
        ("D6 a record header", whole[..5].to_vec()),
        ("D6 half a ClientHello", whole[..whole.len() / 2].to_vec()),
        ("D6 no Finished", whole.clone()),
        ("D6 acme-tls/1", acme),
    ];
    // 16 MiB are announced, nine bytes are sent.
    let announced = [record(0x0301, &[1, 0xFF, 0xFF, 0xFF]), vec![22, 3, 1, 0, 9]].concat();
    (0..200).for_each(|_| stalled.push(("D5 16 MiB announced", announced.clone())));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (case, bytes) in stalled {
        let client = setup.client();
        tasks.spawn(async move {
            let mut tcp = client.tcp().await;
            tcp.write_all(&bytes).await.unwrap();
            let mut sink = Vec::new();
            harness::within(TLS_TIMEOUT, case, tcp.read_to_end(&mut sink)).await.ok();
        });
    }
    let client = setup.client();
    tasks.spawn(async move {
        let mut tcp = client.tcp().await;
        let mut chunk = [0; 64];
        for byte in whole {
            assert!(start.elapsed() < TLS_TIMEOUT, "D6 a byte at a time: still open");
            if tcp.write_all(&[byte]).await.is_err() {
                return;
            }
            let read = tokio::time::timeout(Duration::from_millis(150), tcp.read(&mut chunk)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                return;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 206 * 64, "D5: {grown} KiB for 206 stalled handshakes");
    // Others get in meanwhile.
    setup.open().await.echo(&Frame::text("meanwhile")).await;
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let labels = [("outcome", "refused"), ("reason", "tls_timeout")];
    until(SOON, "D6: the time-outs in the metrics", async || {
        (setup.gateway.metric("wssgate_handshakes_total", &labels).await >= 4.0).then_some(())
    })
    .await;
}

/// A broken record between the TLS handshake and the request, and the alert that it gets (RFC 8446 §6.2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_record_before_the_request_gets_its_alert() {
    let setup = Setup::new(&json!({})).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = setup.client().configured(setup.authority.client_of(&[version]));
        let broken = [&[23, 3, 3, 0, 40][..], &[0x5A; 40]].concat();
        for (case, record, alert) in
            [("a wrong MAC", broken.as_slice(), "BadRecordMac"), ("no such type", &[99, 3, 3, 0, 1, 0], "DecodeError")]
        {
            let Wire::Tls(mut tls) = client.connect().await.wire else { panic!("no TLS") };
            tls.get_mut().0.write_all(record).await.unwrap();
            let mut sink = Vec::new();
            let read = harness::within(PATIENCE, case, tls.read_to_end(&mut sink)).await;
            let error = read.expect_err(case).to_string();
            assert!(error.contains(alert), "{case}, {version:?}: {error}");
        }
    }
    assert_eq!(setup.recorder.count(), (0, 0));
}

fn kind(peer: &Peer) -> Option<HandshakeKind> {
    match &peer.wire {
        Wire::Tls(tls) => tls.get_ref().1.handshake_kind(),
        Wire::Plain(_) => None,
    }
}

/// A connection with a 101 and an echo behind it, so that tickets have arrived.
async fn visit(client: &Client) -> Option<HandshakeKind> {
    let mut peer = client.open(&Head::upgrade("/").set("Host", &client.name)).await;
    peer.echo(&Frame::text("tickets")).await;
    kind(&peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_versions_of_tls_carry_an_echo() {
    let setup = Setup::new(&json!({})).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = setup.client().configured(setup.authority.client_of(&[version]));
        let mut peer = client.open(&Head::upgrade("/")).await;
        for size in [0, 1, 1000, 60_000] {
            peer.echo(&Frame::binary(vec![7; size])).await;
        }
        assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_resumes_at_its_own_host_and_under_its_own_policy_only() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let pair = authority.leaf(&["a.test", "b.test"]);
    let host = |name: &str, spec: &serde_json::Value| {
        text(&[route(&format!("r-{name}"), &format!("{name}.test"), "both-tls", "chat", spec)])
    };
    let mut manifests = Manifests::default()
        .with("secret.yaml", &[secret("both-tls", &pair)])
        .with("service.yaml", &service("chat", &[recorder.port()]));
    manifests.files.insert("a.yaml".into(), host("a", &json!({})));
    manifests.files.insert("b.yaml".into(), host("b", &json!({})));
    let gateway = Gateway::start(&manifests).await;
    for (case, version) in [("TLS 1.2", &rustls::version::TLS12), ("TLS 1.3", &rustls::version::TLS13)] {
        let mut config = authority.client_of(&[version]);
        config.resumption = Resumption::store(Arc::new(OneName(ClientSessionMemoryCache::new(64))));
        config.enable_early_data = true;
        let config = Arc::new(config);
        let client = Client { address: gateway.wss, config: config.clone(), name: "a.test".into() };
        assert_ne!(visit(&client).await, Some(HandshakeKind::Resumed), "{case}: the first");
        assert_eq!(visit(&client).await, Some(HandshakeKind::Resumed), "{case}: a ticket is good for its host");
        let early = rustls::ClientConnection::new(config, ServerName::try_from("a.test").unwrap())
            .unwrap()
            .early_data()
            .is_some();
        assert!(!early, "D11 {case}: the ticket promises early data");
        let other = visit(&client.named("b.test")).await;
        assert_ne!(other, Some(HandshakeKind::Resumed), "D7 {case}: a ticket of another host");
    }
    let mut config = authority.client();
    config.resumption = Resumption::in_memory_sessions(64);
    let client = Client { address: gateway.wss, config: Arc::new(config), name: "a.test".into() };
    visit(&client).await;
    // Edits that leave TLS alone leave tickets alone; another minVersion does not.
    gateway.edit("a.yaml", &host("a", &json!({"connection": {"limits": {"total": 77}}}))).await;
    assert_eq!(visit(&client).await, Some(HandshakeKind::Resumed), "after an edit of something else");
    gateway.edit("a.yaml", &host("a", &json!({"tls": {"minVersion": "1.3"}}))).await;
    assert_ne!(visit(&client).await, Some(HandshakeKind::Resumed), "D7: after an edit of minVersion");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn min_version_and_alpn_are_enforced_and_the_hybrid_group_preferred() {
    let setup = Setup::new(&json!({"tls": {"minVersion": "1.3"}})).await;
    let group = match setup.client().connect().await.wire {
        Wire::Tls(tls) => tls.get_ref().1.negotiated_key_exchange_group().map(|group| group.name()),
        Wire::Plain(_) => None,
    };
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    let old = setup.client().configured(setup.authority.client_of(&[&rustls::version::TLS12]));
    let error = old.try_connect().await.err().expect("TLS 1.2 where 1.3 is the least");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let alpn = |names: &[&str]| {
        let mut config = setup.authority.client();
        config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        setup.client().configured(config)
    };
    for names in [["h2"].as_slice(), &["acme-tls/1"], &["h3", "h2"]] {
        let error = alpn(names).try_connect().await.err().unwrap_or_else(|| panic!("{names:?}: connected"));
        assert!(error.to_string().contains("NoApplicationProtocol"), "{names:?}: {error}");
    }
    for names in [[].as_slice(), &["http/1.1"], &["h2", "http/1.1"]] {
        alpn(names).open(&Head::upgrade("/")).await.echo(&Frame::text("hello")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_without_close_notify_invents_nothing() {
    let setup = Setup::new(&json!({})).await;
    // Between frames: the upstream is told that the client has gone.
    let mut peer = setup.open().await;
    peer.echo(&Frame::text("whole")).await;
    let held = peer.truncate();
    let frames = setup.recorder.frames_of_last("D13: the end of the upstream").await;
    assert!(frames[0].same(&Frame::text("whole")), "D13: {frames:?}");
    assert!(frames[1..].iter().all(|frame| frame.opcode == 8 && frame.code().0 == 1001), "D13: {frames:?}");
    drop(held);
    // Within a frame: the frame is never completed.
    let mut peer = setup.open().await;
    let bytes = peer.encode(&Frame::binary(vec![7; 1000]));
    peer.write(&bytes[..500]).await;
    let last = until(PATIENCE, "D13: the second connection", async || {
        let seen = setup.recorder.seen();
        (seen.len() == 2).then(|| seen[1].clone())
    })
    .await;
    let held = peer.truncate();
    until(PATIENCE, "D13: the end of the upstream", async || last.is_ended().then_some(())).await;
    let after = last.after();
    assert!(Frame::read(&after).is_none(), "D13: a frame that the client never finished: {:?}", Frame::read(&after));
    drop(held);
    let labels = [("reason", "client_lost")];
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &labels, 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_another_replica_costs_a_full_handshake_and_no_error() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let manifests = harness::setup::manifests(&authority, &recorder, &json!({}));
    // The other replica, or the same one after its restart: neither knows the keys of the first.
    let (first, second) = tokio::join!(Gateway::start(&manifests), Gateway::start(&manifests));
    for (case, version) in [("TLS 1.2", &rustls::version::TLS12), ("TLS 1.3", &rustls::version::TLS13)] {
        let mut config = authority.client_of(&[version]);
        config.resumption = Resumption::in_memory_sessions(64);
        let at =
            |gateway: &Gateway| Client { address: gateway.wss, config: Arc::new(config.clone()), name: HOST.into() };
        let (here, there) = (at(&first), at(&second));
        assert_ne!(visit(&here).await, Some(HandshakeKind::Resumed), "{case}: the first");
        assert_eq!(visit(&here).await, Some(HandshakeKind::Resumed), "{case}: a ticket is good where it is from");
        assert_ne!(visit(&there).await, Some(HandshakeKind::Resumed), "D8 {case}: a ticket of another replica");
        assert_eq!(visit(&there).await, Some(HandshakeKind::Resumed), "D8 {case}: and then one of its own");
    }
    for gateway in [&first, &second] {
        assert!(gateway.refusals(None).await < 0.5, "D8: no handshake failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hello_in_records_of_one_byte_completes_its_handshake() {
    let setup = Setup::new(&json!({})).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // A real client, whose first flight is cut into records of one byte each.
        let name = ServerName::try_from(HOST).unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(setup.authority.client_of(&[version])), name).unwrap();
        let mut flight = Vec::new();
        tls.write_tls(&mut flight).unwrap();
        let message = &flight[5..];
        let pieces: Vec<u8> = message.iter().flat_map(|byte| record(0x0301, std::slice::from_ref(byte))).collect();
        let mut tcp = setup.client().tcp().await;
        // In segments of their own as well.
        for piece in pieces.chunks(600) {
            tcp.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        harness::within(TLS_TIMEOUT, "D4: the handshake", async {
            let mut chunk = [0; 4096];
            while tls.is_handshaking() {
                let size = tcp.read(&mut chunk).await.unwrap();
                assert!(size > 0, "D4 {version:?}: the gateway gave up");
                tls.read_tls(&mut &chunk[..size]).unwrap();
                tls.process_new_packets().unwrap();
                let mut out = Vec::new();
                tls.write_tls(&mut out).unwrap();
                tcp.write_all(&out).await.unwrap();
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_sent_before_it_reset_its_connection_is_relayed() {
    let setup = Setup::new(&json!({})).await;
    for round in 0..50 {
        let mut peer = setup.open().await;
        peer.echo(&Frame::text("first")).await;
        let last = Frame::text(format!("last {round}"));
        let bytes = peer.encode(&last);
        peer.write(&bytes).await;
        peer.reset();
        let frames = setup.recorder.frames_of_last("the end of the upstream").await;
        assert!(frames.iter().any(|frame| frame.same(&last)), "round {round}: {frames:?}");
    }
}
