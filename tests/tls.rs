//! Group D: what TLS is spoken, to whom, for how long, and what happens to certificates that are wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::manifests::{route, secret, service, text};
use harness::peer::{OneName, Wire};
use harness::{
    Answer, Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Manifests, PATIENCE, Peer, Recorder, SOON, Setup,
    json, until,
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
async fn each_client_gets_the_certificate_that_it_can_read() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let rsa_key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let (rsa, ecdsa) = (authority.leaf_with(&[HOST], &rsa_key, |_| {}), authority.leaf(&[HOST]));
    let refs = json!({"tls": {"certificateRefs": [{"name": "rsa"}, {"name": "ecdsa"}]}});
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("rsa", &rsa), secret("ecdsa", &ecdsa)])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with("route.yaml", &[route("chat", HOST, "rsa", "chat", &refs)]);
    let gateway = Gateway::start(&manifests).await;
    for (case, word, expected) in [("RSA", "ECDHE_RSA", &rsa), ("ECDSA", "ECDHE_ECDSA", &ecdsa)] {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(word));
        let config = authority.client_with(Arc::new(provider), &[&rustls::version::TLS12]);
        let client = Client { address: gateway.wss, config: Arc::new(config), name: HOST.into() };
        assert_eq!(leaf(&client).await.unwrap(), expected.leaf().to_vec(), "{case}");
    }
}

/// The leaf that a new handshake shows.
async fn leaf(client: &Client) -> io::Result<Vec<u8>> {
    Ok(match client.try_connect().await?.wire {
        Wire::Tls(tls) => tls.get_ref().1.peer_certificates().unwrap()[0].to_vec(),
        Wire::Plain(_) => vec![],
    })
}

/// Waits until so many looks by [`leaf`] are counted, which they are when their end is seen: no refusal that follows is
/// taken for one of them.
async fn looked(gateway: &Gateway, times: u32) {
    until(SOON, "the looks at certificates to be counted", async || {
        (gateway.refusals(Some("client_lost")).await == f64::from(times)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_secret_keeps_the_last_good_certificate() {
    let setup = Setup::new(&json!({})).await;
    let client = setup.client();
    let mut live = setup.open().await;
    let (good, other) = (setup.authority.leaf(&[HOST]), setup.authority.leaf(&[HOST]));
    let key = || rcgen::KeyPair::generate().unwrap();
    let (expired_key, future_key) = (key(), key());
    let dated = |key: &rcgen::KeyPair, from: i32, to: i32| {
        setup.authority.leaf_with(&[HOST], key, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    let mut mismatch = good.clone();
    mismatch.key = other.key.clone();
    let mut truncated = good.clone();
    truncated.chain.truncate(good.chain.len() / 3);
    let mut no_key = good.clone();
    no_key.key = String::new();
    let mut reversed = good.clone();
    reversed.chain = format!("{}{}", setup.authority.pem(), good.chain.trim_end_matches(setup.authority.pem()));
    let weak = harness::Pair {
        chain: include_str!("harness/rsa1024.crt").to_owned(),
        key: include_str!("harness/rsa1024.key").to_owned(),
    };
    let rows = [
        ("D9 the key of another certificate", mismatch),
        ("D9 a truncated chain", truncated),
        ("D9 no key", no_key),
        ("D9 expired", dated(&expired_key, 2020, 2021)),
        ("D9 not yet valid", dated(&future_key, 2080, 2081)),
        ("D9 another name", setup.authority.leaf(&["other.example.com"])),
        ("D9 RSA of 1,024 bits", weak),
        ("D9 the issuer first", reversed),
    ];
    for (case, bad) in rows {
        let fresh = setup.authority.leaf(&[HOST]);
        setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &fresh)]));
        until(PATIENCE, &format!("{case}: the good certificate before it"), async || {
            (leaf(&client).await.expect(case) == fresh.leaf().to_vec()).then_some(())
        })
        .await;
        let said = setup.gateway.log_text().matches("chat-tls").count();
        setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &bad)]));
        until(PATIENCE, &format!("{case}: a log line that names the Secret"), async || {
            let shown = leaf(&client).await.unwrap_or_else(|error| panic!("{case}: a handshake failed: {error}"));
            assert_eq!(shown, fresh.leaf().to_vec(), "{case}: another certificate is shown");
            (setup.gateway.log_text().matches("chat-tls").count() > said).then_some(())
        })
        .await;
        for _ in 0..3 {
            assert_eq!(leaf(&client).await.expect(case), fresh.leaf().to_vec(), "{case}");
        }
        live.echo(&Frame::text(case)).await;
    }
    assert!(!setup.gateway.log_text().contains("PRIVATE KEY"), "a key in the log");
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
    setup.gateway.metric_becomes("wssgate_closes_total", &labels, 2.0).await;
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

/// A clock that stands still, for a client that does not mind.
#[derive(Debug)]
struct StoppedClock(rustls::pki_types::UnixTime);

impl rustls::time_provider::TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_while_it_is_served_is_served_on_and_told() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let expiry = std::time::SystemTime::now() + Duration::from_secs(5);
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = authority.leaf_with(&[HOST], &key, |params| params.not_after = expiry.into());
    let manifests =
        harness::setup::manifests(&authority, &recorder, &json!({})).with("secret.yaml", &[secret("chat-tls", &pair)]);
    let gateway = Gateway::start(&manifests).await;
    let mut config = authority.client();
    // Its clock stands at the test's beginning: what is tested is the gateway, not the client.
    config.time_provider = Arc::new(StoppedClock(rustls::pki_types::UnixTime::now()));
    let client = Client { address: gateway.wss, config: Arc::new(config), name: HOST.into() };
    let mut live = client.open(&Head::upgrade("/")).await;
    live.echo(&Frame::text("valid")).await;
    let seconds = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as f64;
    let told = gateway.metric("wssgate_certificate_expiry_timestamp_seconds", &[("host", HOST)]).await;
    assert!((told - seconds(expiry)).abs() < 1.5, "D10: {told}");
    // The condition says so by itself: nobody has touched a manifest.
    until(PATIENCE, "D10: the condition", async || {
        gateway.logs().into_iter().find(|line| line["condition"] == "CertificateReady" && line["reason"] == "Expired")
    })
    .await;
    assert!(std::time::SystemTime::now() > expiry, "D10: told before its time");
    live.echo(&Frame::text("still open")).await;
    assert_eq!(leaf(&client).await.unwrap(), pair.leaf().to_vec(), "D10: still served");
    client.open(&Head::upgrade("/")).await.echo(&Frame::text("new")).await;
    let judging = Client { config: Arc::new(authority.client()), ..client };
    assert!(judging.try_connect().await.is_err(), "D10: clients judge expiry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_becomes_valid_takes_over_without_another_edit() {
    let setup = Setup::new(&json!({})).await;
    let begin = std::time::SystemTime::now() + Duration::from_secs(5);
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = setup.authority.leaf_with(&[HOST], &key, |params| params.not_before = begin.into());
    setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &pair)]));
    let logged = |field: &str, value: &str| setup.gateway.logs().into_iter().find(|line| line[field] == value);
    until(PATIENCE, "the early certificate", async || logged("condition", "CertificateReady")).await;
    let kept = leaf(&setup.client()).await.unwrap();
    assert_ne!(kept, pair.leaf().to_vec(), "served before its time");
    until(PATIENCE, "its first moment", async || logged("message", "no longer a problem")).await;
    // A certificate counts whole seconds.
    assert!(std::time::SystemTime::now() + Duration::from_secs(1) >= begin, "told before its time");
    assert_eq!(leaf(&setup.client()).await.unwrap(), pair.leaf().to_vec());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_stands_for_one_label_and_exact_names_come_first() {
    let authority = Authority::new();
    let (wild, exact) = (Recorder::start(Behaviour::Echo).await, Recorder::start(Behaviour::Echo).await);
    let pair = authority.leaf(&["*.example.com", "example.com", "*.a.example.com"]);
    let exact_pair = authority.leaf(&[HOST]);
    let mut objects = service("wild", &[wild.port()]);
    objects.extend(service("exact", &[exact.port()]));
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("wild-tls", &pair), secret("exact-tls", &exact_pair)])
        .with("service.yaml", &objects)
        .with(
            "route.yaml",
            &[
                route("wild", "*.example.com", "wild-tls", "wild", &json!({})),
                route("exact", HOST, "exact-tls", "exact", &json!({})),
            ],
        );
    let gateway = Gateway::start(&manifests).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    let at = |name: &str| (client.named(name), Head::upgrade("/").set("Host", name));
    for name in ["any.example.com", "other.example.com"] {
        let (client, head) = at(name);
        client.open(&head).await.echo(&Frame::text(name)).await;
        assert_eq!(leaf(&client).await.unwrap(), pair.leaf().to_vec(), "{name}");
    }
    client.open(&Head::upgrade("/")).await.echo(&Frame::text("exact")).await;
    assert_eq!(leaf(&client).await.unwrap(), exact_pair.leaf().to_vec());
    assert_eq!((wild.count().0, exact.count().0), (2, 1));
    for name in ["example.com", "b.a.example.com", "example.org"] {
        let error = client.named(name).try_connect().await.err().unwrap_or_else(|| panic!("{name}: connected"));
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    looked(&gateway, 3).await;
    // One connection, one host: also below the same star.
    let any = client.named("any.example.com");
    let head = Head::upgrade("/").set("Host", "other.example.com");
    harness::setup::refused(&gateway, &wild, &any, "C6 below one star", &head, &[421], &["misdirected"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_certificate_is_for_whoever_has_no_other() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let (own, default) = (authority.leaf(&[HOST]), authority.leaf(&["bare.example.com", "nobody.example.com"]));
    let bare = json!({"tls": null});
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("chat-tls", &own), secret("default-tls", &default)])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with(
            "route.yaml",
            &[
                route("chat", HOST, "chat-tls", "chat", &json!({})),
                route("bare", "bare.example.com", "", "chat", &bare),
            ],
        );
    let options =
        harness::Options::settings(&json!({"defaultCertificate": {"namespace": "shop", "name": "default-tls"}}));
    let gateway = Gateway::start_with(&manifests, &options).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    assert_eq!(leaf(&client).await.unwrap(), own.leaf().to_vec());
    let bare = client.named("bare.example.com");
    assert_eq!(leaf(&bare).await.unwrap(), default.leaf().to_vec());
    bare.open(&Head::upgrade("/").set("Host", "bare.example.com")).await.echo(&Frame::text("served")).await;
    // A name that no route serves gets TLS and an HTTP answer, and reaches nobody.
    let nobody = client.named("nobody.example.com");
    assert_eq!(leaf(&nobody).await.unwrap(), default.leaf().to_vec());
    looked(&gateway, 3).await;
    let head = |host: &str| Head::upgrade("/").set("Host", host);
    let refused = async |case: &str, client: &Client, host: &str, status: u16, reason: &str| {
        harness::setup::refused(&gateway, &recorder, client, case, &head(host), &[status], &[reason]).await;
    };
    refused("C7 a name that nobody serves", &nobody, "nobody.example.com", 404, "route_not_found").await;
    refused("C6 another's name behind it", &nobody, HOST, 421, "misdirected").await;
    refused("C6 the bare host behind it", &nobody, "bare.example.com", 421, "misdirected").await;
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
