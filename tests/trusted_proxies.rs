//! `trustedProxies`: who the client is when proxies stand in front, and that nobody else can say so (G7).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::harness::gateway::configuration;
use crate::harness::peer::Wire;
use crate::harness::{self, Answer, Behaviour, Frame, Head, Options, PATIENCE, Peer, SOON, Setup, json, until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A load balancer that speaks the PROXY protocol.
const BALANCER: &str = "127.0.0.7";
/// A proxy that writes `X-Forwarded-For`.
const PROXY: &str = "127.0.0.8";
/// Anybody else.
const STRANGER: &str = "127.0.0.9";
/// How long a PROXY header may take, with room for a busy machine.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

fn trusted() -> Value {
    json!({"trustedProxies": {
        "proxyProtocol": {"networks": ["127.0.0.7/32"]}, "forwardedFor": {"networks": ["127.0.0.8/32"]},
    }})
}

async fn setup(spec: &Value, settings: &Value) -> Setup {
    Setup::with(Behaviour::Echo, spec, &Options::settings(settings)).await
}

/// A header of version 2 by its parts.
fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, body].concat()
}

/// What a load balancer writes for a client.
fn of(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let ports = [client.port().to_be_bytes(), 443u16.to_be_bytes()].concat();
    match client.ip() {
        IpAddr::V4(ip) => header(0x21, 0x11, &[&ip.octets(), [10, 0, 0, 1].as_slice(), &ports].concat()),
        IpAddr::V6(ip) => header(0x21, 0x21, &[&ip.octets(), [0; 16].as_slice(), &ports].concat()),
    }
}

/// A handshake from `source` with these bytes before TLS: the answer, or `None` where TLS fails.
async fn ask(setup: &Setup, source: &str, before: &[u8], head: &Head) -> Option<(Answer, Peer)> {
    let client = setup.client();
    let mut tcp = client.tcp_from(source).await;
    tcp.write_all(before).await.unwrap();
    let mut peer = client.connect_over(tcp).await.ok()?;
    peer.write(&head.bytes()).await;
    Some((peer.head().await?, peer))
}

async fn status(setup: &Setup, source: &str, before: &[u8], head: &Head) -> Option<u16> {
    ask(setup, source, before, head).await.map(|(answer, _)| answer.status())
}

/// What the upstream saw when everything that was open is over.
async fn settled(setup: &Setup) -> (usize, usize) {
    until(PATIENCE, "the end of what was open", async || {
        setup.recorder.seen().iter().all(harness::recorder::Seen::is_ended).then_some(())
    })
    .await;
    setup.recorder.count()
}

fn forwarded(value: &str) -> Head {
    Head::upgrade("/").add("X-Forwarded-For", value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_a_proxy_header_is_judged_counted_told_and_logged() {
    let spec = json!({
        "handshake": {"networks": {"allow": ["203.0.113.0/24", "2001:db8::/32"]}},
        "connection": {"limits": {"perAddress": 1}},
    });
    let setup = setup(&spec, &trusted()).await;
    let head = Head::upgrade("/").add("X-Forwarded-For", "192.0.2.66");
    let (answer, mut first) = ask(&setup, BALANCER, &of("203.0.113.7:40000"), &head).await.unwrap();
    assert_eq!(answer.status(), 101);
    first.echo(&Frame::text("in")).await;
    assert_eq!(setup.recorder.last().head().field("x-forwarded-for").as_deref(), Some("203.0.113.7"), "told");
    let line = setup.gateway.access_line("the opening", |line| line["event"] == "opened").await;
    assert_eq!(line["client"], "203.0.113.7:40000");
    assert!(line["proxy"].as_str().unwrap().starts_with("127.0.0.7:"), "{line}");
    let before = setup.recorder.count();
    let again = status(&setup, BALANCER, &of("203.0.113.7:40001"), &Head::upgrade("/")).await;
    assert_eq!(again, Some(429), "counted by address");
    let line = setup.gateway.access_line("the refusal", |line| line["reason"] == "address_limit").await;
    assert_eq!(line["client"], "203.0.113.7:40001");
    let outside = status(&setup, BALANCER, &of("198.51.100.1:40000"), &Head::upgrade("/")).await;
    assert_eq!(outside, Some(403), "judged");
    setup.recorder.saw_nothing_since(before, "refused clients of the load balancer");
    // IPv6 counts by /64, whatever the family between load balancer and gateway.
    let (answer, six) = ask(&setup, BALANCER, &of("[2001:db8::1]:1"), &Head::upgrade("/")).await.unwrap();
    assert_eq!(answer.status(), 101);
    for (client, expected) in [("[2001:db8::ffff:2]:2", 429), ("[2001:db8:0:1::1]:3", 101), ("203.0.113.8:4", 101)] {
        let status = status(&setup, BALANCER, &of(client), &Head::upgrade("/")).await;
        assert_eq!(status, Some(expected), "{client}");
    }
    drop((first, six));
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_balancers_own_connections_are_its_own() {
    let setup = setup(&json!({"handshake": {"networks": {"allow": ["127.0.0.7/32"]}}}), &trusted()).await;
    for (case, bytes) in [("LOCAL", header(0x20, 0x00, &[])), ("a family it does not know", header(0x21, 0x00, &[]))] {
        assert_eq!(status(&setup, BALANCER, &bytes, &Head::upgrade("/")).await, Some(101), "{case}");
        assert_eq!(setup.recorder.last().head().field("x-forwarded-for").as_deref(), Some("127.0.0.7"), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_header_from_anybody_else_is_no_tls() {
    for settings in [trusted(), json!({})] {
        let setup = setup(&json!({"handshake": {"networks": {"allow": ["203.0.113.0/24"]}}}), &settings).await;
        let before = setup.recorder.count();
        for source in [STRANGER, PROXY] {
            for bytes in [of("203.0.113.7:40000"), b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n".to_vec()] {
                assert_eq!(status(&setup, source, &bytes, &Head::upgrade("/")).await, None, "G7 {source}: {bytes:?}");
            }
        }
        setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "tls_failed")], 4.0).await;
        let line = setup.gateway.access_line("the refusal", |line| line["reason"] == "tls_failed").await;
        assert!(!line.to_string().contains("203.0.113.7"), "G7: {line}");
        setup.recorder.saw_nothing_since(before, "G7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_without_a_right_header_does_not_get_in() {
    let setup = setup(&json!({}), &trusted()).await;
    let before = setup.recorder.count();
    let mut v4 = of("203.0.113.7:40000");
    v4[15] = 11;
    let cases = [
        ("no header", vec![]),
        ("version 1", b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n".to_vec()),
        ("a length that does not fit", v4),
        ("another version", header(0x31, 0x11, &of("203.0.113.7:40000")[16..])),
        ("datagrams", header(0x21, 0x12, &of("203.0.113.7:40000")[16..])),
        ("no address", of("0.0.0.0:40000")),
        ("far too long", header(0x21, 0x11, &[0; 60_000])),
    ];
    for (case, bytes) in &cases {
        assert_eq!(status(&setup, BALANCER, bytes, &Head::upgrade("/")).await, None, "{case}");
    }
    let invalid = [("reason", "proxy_header_invalid")];
    setup.gateway.metric_becomes("wssgate_handshakes_total", &invalid, cases.len() as f64).await;
    let line = setup.gateway.access_line("a refusal", |line| line["reason"] == "proxy_header_invalid").await;
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.7:"), "{line}");
    // A second header is the client's own word.
    let twice = [of("203.0.113.7:40000"), of("203.0.113.8:40000")].concat();
    assert_eq!(status(&setup, BALANCER, &twice, &Head::upgrade("/")).await, None, "two headers");
    setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "tls_failed")], 1.0).await;
    setup.recorder.saw_nothing_since(before, "broken headers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_does_not_arrive_is_given_up_and_hurts_nobody() {
    let setup = setup(&json!({}), &trusted()).await;
    let mut slow = tokio::task::JoinSet::new();
    for index in 0..100 {
        let client = setup.client();
        slow.spawn(async move {
            let mut tcp = client.tcp_from(BALANCER).await;
            tcp.write_all(&of("203.0.113.7:40000")[..index % 28]).await.unwrap();
            let ended = tokio::time::timeout(HEADER_TIMEOUT, tcp.read(&mut [0])).await;
            assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{index} bytes: {ended:?}");
        });
    }
    let client = setup.client();
    slow.spawn(async move {
        let (mut tcp, start) = (client.tcp_from(BALANCER).await, Instant::now());
        let bytes = header(0x21, 0x11, &[0; 4000]);
        for byte in bytes {
            if tcp.write_all(&[byte]).await.is_err() {
                return;
            }
            assert!(start.elapsed() < HEADER_TIMEOUT, "a byte at a time: still open");
            if tokio::time::timeout(Duration::from_millis(50), tcp.read(&mut [0])).await.is_ok() {
                return;
            }
        }
    });
    let (answer, mut peer) = ask(&setup, BALANCER, &of("203.0.113.8:1"), &Head::upgrade("/")).await.unwrap();
    assert_eq!(answer.status(), 101);
    peer.echo(&Frame::text("meanwhile")).await;
    setup.open().await.echo(&Frame::text("beside it")).await;
    while let Some(done) = slow.join_next().await {
        done.unwrap();
    }
    setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "proxy_header_timeout")], 101.0).await;
    assert_eq!(setup.recorder.count().0, 2, "only the whole ones reached the upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_in_many_pieces_is_read_and_not_a_byte_of_tls_with_it() {
    let setup = setup(&json!({}), &trusted()).await;
    let client = setup.client();
    let mut tcp = client.tcp_from(BALANCER).await;
    for byte in of("203.0.113.7:40000") {
        tcp.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut peer = client.connect_over(tcp).await.unwrap();
    peer.write(&Head::upgrade("/").bytes()).await;
    assert_eq!(peer.head().await.unwrap().status(), 101);
    peer.echo(&Frame::text("whole")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_is_the_entry_that_the_trusted_proxy_wrote() {
    let setup = setup(&json!({"handshake": {"networks": {"allow": ["203.0.113.0/24"]}}}), &trusted()).await;
    for (case, head) in [
        ("alone", forwarded("203.0.113.7")),
        ("behind what the client wrote", forwarded("198.51.100.1, 203.0.113.7")),
        ("in a line of its own", forwarded("198.51.100.1").add("x-forwarded-for", "203.0.113.7")),
        ("named by Connection", forwarded("203.0.113.7").set("Connection", "Upgrade, X-Forwarded-For")),
        ("beside other spellings", forwarded("203.0.113.7").add("X_Forwarded_For", "198.51.100.1")),
        ("beside other headers", forwarded("203.0.113.7").add("Forwarded", "for=198.51.100.1")),
    ] {
        let (answer, _peer) = ask(&setup, PROXY, &[], &head).await.unwrap();
        assert_eq!(answer.status(), 101, "{case}");
        let told = setup.recorder.last().head();
        assert_eq!(told.field("x-forwarded-for").as_deref(), Some("203.0.113.7"), "{case}");
        assert!(told.field("x_forwarded_for").is_none(), "{case}: {told:?}");
        assert!(told.fields.iter().all(|(_, value)| !value.contains("198.51.100.1")), "{case}: {told:?}");
    }
    let line = setup.gateway.access_line("an opening", |line| line["event"] == "opened").await;
    assert_eq!(line["client"], "203.0.113.7", "the port is not known");
    assert!(line["proxy"].as_str().unwrap().starts_with("127.0.0.8:"), "{line}");
    let before = settled(&setup).await;
    for (case, head, expected) in [
        ("spoofed to the left", forwarded("203.0.113.7, 198.51.100.1"), 403),
        ("spoofed above", forwarded("203.0.113.7").add("X-Forwarded-For", "198.51.100.1"), 403),
        ("another header", Head::upgrade("/").add("X-Real-IP", "203.0.113.7"), 403),
        ("another spelling", Head::upgrade("/").add("X_Forwarded_For", "203.0.113.7"), 403),
        ("no address", forwarded("203.0.113.7, unknown"), 400),
        ("nothing", forwarded(""), 400),
        ("an empty entry", forwarded("203.0.113.7,"), 400),
    ] {
        assert_eq!(status(&setup, PROXY, &[], &head).await, Some(expected), "G7 {case}");
    }
    for (source, case) in [(STRANGER, "a stranger"), ("127.0.0.1", "another stranger")] {
        assert_eq!(status(&setup, source, &[], &forwarded("203.0.113.7")).await, Some(403), "G7 {case}");
    }
    let behind = status(&setup, BALANCER, &of("198.51.100.1:1"), &forwarded("203.0.113.7")).await;
    assert_eq!(behind, Some(403), "G7 a client of the load balancer");
    setup.recorder.saw_nothing_since(before, "G7");
    setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "forwarded_for_invalid")], 3.0).await;
    let line = setup.gateway.access_line("a refusal", |line| line["reason"] == "forwarded_for_invalid").await;
    assert!(line["status"] == 400 && line["client"].as_str().unwrap().starts_with("127.0.0.8:"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_and_places_belong_to_the_client_behind_the_proxy() {
    let spec = json!({
        "handshake": {"rateLimit": {"count": 1, "interval": "1h", "burst": 2}},
        "connection": {"limits": {"perAddress": 5}},
    });
    let setup = setup(&spec, &trusted()).await;
    for client in ["203.0.113.7", "203.0.113.8", "2001:db8::7"] {
        for expected in [101, 101, 429] {
            assert_eq!(status(&setup, PROXY, &[], &forwarded(client)).await, Some(expected), "{client}");
        }
    }
    let before = settled(&setup).await;
    for (case, source, head) in [
        ("the same /64", PROXY, forwarded("2001:db8::8")),
        ("IPv4 written as IPv6", PROXY, forwarded("::ffff:203.0.113.7")),
        ("with a port", PROXY, forwarded("203.0.113.7:99")),
        ("with another written in front", PROXY, forwarded("192.0.2.1, 203.0.113.7")),
    ] {
        assert_eq!(status(&setup, source, &[], &head).await, Some(429), "{case}");
    }
    assert_eq!(
        status(&setup, BALANCER, &of("203.0.113.7:5"), &Head::upgrade("/")).await,
        Some(429),
        "the other way in"
    );
    setup.recorder.saw_nothing_since(before, "too many");
    // Neither the proxy itself nor a stranger used any.
    assert_eq!(status(&setup, PROXY, &[], &Head::upgrade("/")).await, Some(101));
    assert_eq!(status(&setup, STRANGER, &[], &forwarded("203.0.113.7")).await, Some(101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_proxies_are_counted_from_the_right_and_fewer_entries_are_refused() {
    let settings = json!({"trustedProxies": {
        "proxyProtocol": {"networks": ["127.0.0.7/32"]},
        "forwardedFor": {"networks": ["203.0.113.200/32"], "hops": 2},
    }});
    let setup = setup(&json!({"handshake": {"networks": {"allow": ["192.0.2.0/24"]}}}), &settings).await;
    let before = setup.recorder.count();
    // The load balancer says that its client is the proxy; the proxy says who the client is.
    let through = of("203.0.113.200:4000");
    for (case, head, expected) in [
        ("one entry", forwarded("192.0.2.7"), 400),
        ("another client", forwarded("192.0.2.7, 198.51.100.1, 203.0.113.199"), 403),
    ] {
        assert_eq!(status(&setup, BALANCER, &through, &head).await, Some(expected), "{case}");
    }
    let stranger = status(&setup, BALANCER, &of("203.0.113.201:4000"), &forwarded("192.0.2.7, 203.0.113.199")).await;
    assert_eq!(stranger, Some(403), "not the proxy");
    setup.recorder.saw_nothing_since(before, "hops");
    let good = forwarded("198.51.100.1, 192.0.2.7, 203.0.113.199");
    let (answer, _peer) = ask(&setup, BALANCER, &through, &good).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(setup.recorder.last().head().field("x-forwarded-for").as_deref(), Some("192.0.2.7"));
    let line = setup.gateway.access_line("the opening", |line| line["event"] == "opened").await;
    assert!(line["client"] == "192.0.2.7" && line["proxy"].as_str().unwrap().starts_with("127.0.0.7:"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plain_port_reads_the_header_too() {
    let setup = setup(&json!({}), &trusted()).await;
    let ask = async |source: &str, before: &[u8]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        let tcp: TcpStream = socket.connect(setup.gateway.http).await.unwrap();
        let mut peer = Peer::new(Wire::Plain(tcp), true);
        let head = Head::request("GET /a HTTP/1.1").add("Connection", "close").bytes();
        peer.write(&[before, &head].concat()).await;
        let bytes = peer.rest(HEADER_TIMEOUT, "the end of a plain connection").await;
        Answer::parse(&bytes).map(|answer| answer.status())
    };
    assert_eq!(ask(BALANCER, &of("203.0.113.7:40000")).await, Some(308));
    assert_eq!(ask(STRANGER, &[]).await, Some(308));
    assert_eq!(ask(STRANGER, &of("203.0.113.7:40000")).await, Some(400), "no HTTP");
    assert_eq!(ask(BALANCER, &[]).await, None, "no header");
    setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "proxy_header_invalid")], 1.0).await;
    // Whoever is slow holds one place, not the port.
    let silent: Vec<TcpStream> = {
        let mut silent = Vec::new();
        for _ in 0..50 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(BALANCER.parse().unwrap(), 0)).unwrap();
            silent.push(socket.connect(setup.gateway.http).await.unwrap());
        }
        silent
    };
    assert_eq!(ask(BALANCER, &of("203.0.113.7:40000")).await, Some(308), "meanwhile");
    for mut tcp in silent {
        let ended = tokio::time::timeout(HEADER_TIMEOUT, tcp.read(&mut [0])).await;
        assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_list_of_proxies_takes_effect_at_once_and_live_clients_stay_who_they_are() {
    let spec = json!({"handshake": {"networks": {"allow": ["203.0.113.0/24"]}}});
    let setup = setup(&spec, &trusted()).await;
    let (_, mut live) = ask(&setup, PROXY, &[], &forwarded("203.0.113.7")).await.unwrap();
    live.echo(&Frame::text("in")).await;
    let other = json!({"trustedProxies": {"forwardedFor": {"networks": ["127.0.0.9/32"]}}});
    setup.gateway.configure(&format!("{:#}", configuration(&other)));
    until(PATIENCE, "the other proxy to be trusted", async || {
        (status(&setup, STRANGER, &[], &forwarded("203.0.113.7")).await == Some(101)).then_some(())
    })
    .await;
    assert_eq!(status(&setup, PROXY, &[], &forwarded("203.0.113.7")).await, Some(403), "no longer");
    assert_eq!(status(&setup, BALANCER, &of("203.0.113.7:1"), &Head::upgrade("/")).await, None, "no longer");
    live.echo(&Frame::text("still in")).await;
    // A live client is judged by the address that it came with.
    setup.respec(&json!({"handshake": {"networks": {"allow": ["203.0.113.8/32"]}}})).await;
    let close = tokio::time::timeout(SOON, live.close_code()).await.unwrap();
    assert_eq!(close.map(|(code, _)| code), Some(1008));
}
