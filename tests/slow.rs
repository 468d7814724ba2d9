//! Peers that are slow on purpose. What ends them are time-outs of half a minute, so all of them wait at once.

use std::time::{Duration, Instant};

use crate::harness::issuer::{any_of, external, scene_with};
use crate::harness::manifests::{service, service_as};
use crate::harness::recorder::switching;
use crate::harness::{self, Behaviour, Frame, Head, Options, Peer, Recorder, SOON, Setup, json, until};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A frame, a message and a peer that does not read have half a minute each.
const TIME: Duration = Duration::from_secs(30);
/// That, the sweeper's second, the time for a Close to be answered, and room for a busy machine.
const LIMIT: Duration = Duration::from_secs(50);

async fn manual() -> Setup {
    // The built-in heartbeat stays on: it must not be what ends a slow peer.
    Setup::with(Behaviour::Manual, &json!({}), &Options::default()).await
}

/// Exactly one connection has ended, for this reason, by the gateway, and neither side's place is left.
async fn ended_for(setup: &Setup, reason: &str) {
    until(LIMIT, &format!("{reason} in the metrics"), async || {
        let labels = [("reason", reason), ("initiator", "gateway")];
        (setup.gateway.metric("wssgate_connections_closed_total", &labels).await > 0.5).then_some(())
    })
    .await;
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[], 1.0).await;
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
    let line = setup.gateway.access_line("its line in the access log", |line| line["event"] == "closed").await;
    assert_eq!(line["reason"], reason, "{line}");
}

/// The Close that a client gets, with the time it took; pings are not answered.
async fn close(client: &mut Peer, since: Instant) -> (u16, Duration) {
    let close = client.close_within(LIMIT).await.expect("a Close");
    (close.0, since.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_peers_are_given_up_after_half_a_minute() {
    tokio::join!(
        a_frame_header_byte_by_byte_is_given_up(),
        a_message_that_is_begun_and_not_ended_is_given_up(),
        a_backend_that_holds_half_a_frame_is_given_up(),
        a_client_that_stops_reading_is_given_up(),
        a_backend_that_stops_reading_is_given_up(),
        a_message_that_keeps_the_pace_is_not_slow(),
        a_handshake_that_keeps_each_time_out_is_given_up_all_the_same(),
    );
}

/// A port where connecting neither succeeds nor fails: its queue is full. It is so while these are kept.
async fn full_port() -> (u16, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(tcp) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queue.push(tcp.unwrap());
        assert!(queue.len() < 10, "the queue of a listener does not fill");
    }
    (address.port(), listener, queue)
}

/// Client, session service and backends stay below their own time-outs, each by a little. Together they do not.
async fn a_handshake_that_keeps_each_time_out_is_given_up_all_the_same() {
    let sessions = Recorder::start(Behaviour::Unanswered).await;
    let dead = [full_port().await, full_port().await];
    let mut spec = any_of(&[external(&json!({"timeout": "10s"}))]);
    // The first handshake takes the heavier one, and when nobody answers there, the other.
    spec["rules"] = json!([{
        "name": "chat",
        "backendRefs": [{"name": "dead", "port": 8080, "weight": 1000}, {"name": "chat", "port": 8080, "weight": 1}],
    }]);
    let mut objects = service_as("sessions", "http", &[sessions.port()]);
    objects.extend(service("dead", &[dead[0].0, dead[1].0]));
    let setup = scene_with(&spec, &objects).await;
    setup.recorder.behave(Behaviour::Unanswered);

    let client = setup.client();
    let tcp = client.tcp().await;
    let since = Instant::now();
    let wait = async |seconds: u64| tokio::time::sleep(Duration::from_secs(seconds)).await;
    wait(4).await;
    let mut client = client.connect_over(tcp).await.expect("TLS after four of its five seconds");
    wait(4).await;
    let head = Head::upgrade("/").add("Origin", "https://chat.example.com").add("Cookie", "sid=1");
    assert!(client.write(&head.bytes()).await);
    let mut question = sessions.peer().await;
    wait(9).await;
    assert!(question.write(b"HTTP/1.1 204 No Content\r\n\r\n").await);
    // Two endpoints that do not answer, three seconds each; then this one, which would be in time for its ten.
    let mut upstream = setup.recorder.peer().await;
    let reached = since.elapsed();
    assert!(reached > Duration::from_secs(22) && reached < TIME, "the backend was asked after {reached:?}");
    let answering = async {
        wait(9).await;
        upstream.write(switching(&setup.recorder.last().head()).as_bytes()).await
    };
    let refused = async {
        let status =
            harness::within(LIMIT, "the end of the handshake", client.head()).await.map(|answer| answer.status());
        (status, since.elapsed())
    };
    let ((status, elapsed), _) = tokio::join!(refused, answering);
    assert_eq!(status, Some(504), "after {elapsed:?}");
    assert!(elapsed > TIME - Duration::from_secs(1) && elapsed < TIME + SOON, "after {elapsed:?}");
    let line = setup.gateway.access_line("the refusal", |line| line["event"] == "refused").await;
    assert_eq!(line["reason"], "backend_upgrade_timeout", "{line}");
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
}

async fn a_frame_header_byte_by_byte_is_given_up() {
    let setup = manual().await;
    let (mut client, mut upstream) = setup.pair().await;
    let bytes = client.encode(&Frame::binary(vec![7; 1000]));
    let since = Instant::now();
    let dripping = async {
        for byte in &bytes[..7] {
            client.write(&[*byte]).await;
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        close(&mut client, since).await
    };
    let (code, elapsed) = dripping.await;
    assert_eq!(code, 1008, "G2: after {elapsed:?}");
    assert!(elapsed > TIME - Duration::from_secs(1), "G2: not before its time, but after {elapsed:?}");
    let frames = Frame::all(&upstream.rest(SOON, "G2: the upstream's end").await);
    assert!(frames.iter().all(|frame| frame.opcode == 8 && frame.code().0 == 1001), "G2: {frames:?}");
    ended_for(&setup, "frame_too_slow").await;
}

async fn a_message_that_is_begun_and_not_ended_is_given_up() {
    let setup = manual().await;
    let (mut client, mut upstream) = setup.pair().await;
    let since = Instant::now();
    client.send(&Frame::text("half").more()).await;
    upstream.expect(&Frame::text("half").more()).await;
    let (code, elapsed) = close(&mut client, since).await;
    assert_eq!(code, 1008, "G2: after {elapsed:?}");
    assert!(elapsed > TIME - Duration::from_secs(1), "G2: not before its time, but after {elapsed:?}");
    // The message is never completed: what follows its first fragment is the Close.
    let frames = Frame::all(&upstream.rest(SOON, "G2: the upstream's end").await);
    assert!(frames.iter().all(|frame| frame.opcode == 8 && frame.code().0 == 1001), "G2: {frames:?}");
    ended_for(&setup, "frame_too_slow").await;
}

async fn a_backend_that_holds_half_a_frame_is_given_up() {
    let setup = manual().await;
    let (mut client, mut upstream) = setup.pair().await;
    upstream.write(&Frame::binary(vec![1; 1000]).bytes(None)[..400]).await;
    let bytes = client.rest(LIMIT, "G2: the client's end").await;
    assert!(Frame::read(&bytes).is_none(), "G2: a whole frame of a half one: {:?}", Frame::read(&bytes));
    upstream.ended(LIMIT, "G2: the upstream's end").await;
    ended_for(&setup, "backend_protocol_error").await;
}

/// Writes frames until the connection ends; how many bytes went in.
async fn flood(peer: &mut Peer) -> usize {
    let bytes = peer.encode(&Frame::binary(vec![3; 1000])).repeat(64);
    let mut written = 0;
    let writing = async {
        while peer.wire.write_all(&bytes).await.is_ok() && peer.wire.flush().await.is_ok() {
            written += bytes.len();
        }
    };
    harness::within(LIMIT, "the end of a flood that nobody reads", writing).await;
    written
}

async fn a_client_that_stops_reading_is_given_up() {
    let setup = manual().await;
    let (mut client, mut upstream) = setup.pair().await;
    let since = Instant::now();
    let written = flood(&mut upstream).await;
    assert!(
        since.elapsed() > TIME - Duration::from_secs(1),
        "G3: not before its time, but after {:?}",
        since.elapsed()
    );
    assert!(written < 64 << 20, "G3: {written} bytes were taken in for a client that does not read");
    // What it finds when it reads at last is whole frames up to the end, which is no clean one within a frame.
    let bytes = client.rest(LIMIT, "G3: the client's end").await;
    let mut rest = bytes.as_slice();
    while let Some((frame, size)) = Frame::read(rest) {
        assert!(frame.opcode != 2 || frame.payload == vec![3; 1000], "G3: {frame:?}");
        rest = &rest[size..];
    }
    ended_for(&setup, "client_stalled").await;
}

async fn a_backend_that_stops_reading_is_given_up() {
    let setup = manual().await;
    let (mut client, _upstream) = setup.pair().await;
    let since = Instant::now();
    let bytes = client.encode(&Frame::binary(vec![3; 1000])).repeat(64);
    let mut written = 0;
    while let Ok(sent) = tokio::time::timeout(Duration::from_secs(1), client.wire.write_all(&bytes)).await {
        sent.expect("the connection is open");
        written += bytes.len();
        assert!(written < 64 << 20, "G4: {written} bytes were taken in for a backend that does not read");
    }
    // The pings of the gateway are left unanswered: its clock for them stands still while it cannot pass bytes on.
    let (code, elapsed) = close(&mut client, since).await;
    assert_eq!(code, 1011, "G4: after {elapsed:?}");
    assert!(elapsed > TIME - Duration::from_secs(1), "G4: not before its time, but after {elapsed:?}");
    ended_for(&setup, "backend_stalled").await;
}

/// The other side of the coin: 35 seconds for one message are no crime at 2 KiB a second.
async fn a_message_that_keeps_the_pace_is_not_slow() {
    let setup = manual().await;
    let (mut client, mut upstream) = setup.pair().await;
    let frame = Frame::binary(vec![5; 65_000]);
    let bytes = client.encode(&frame);
    let since = Instant::now();
    let writing = async {
        for piece in bytes.chunks(bytes.len() / 35) {
            client.write(piece).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let reading = async { upstream.frame_within(LIMIT).await.expect("the frame") };
    let (arrived, ()) = tokio::join!(reading, writing);
    assert!(arrived.same(&frame), "{arrived:?}");
    assert!(since.elapsed() > TIME, "too fast to say anything: {:?}", since.elapsed());
    upstream.send(&Frame::text("and back")).await;
    loop {
        let frame = client.frame().await.expect("a frame");
        if frame.opcode != 9 {
            assert!(frame.same(&Frame::text("and back")), "{frame:?}");
            break;
        }
    }
}
