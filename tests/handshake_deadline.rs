//! The deadline of the whole handshake, over real sockets and in real time. Slow frames and peers that do not read are
//! tested with paused time: `src/proxy/relay/tests/time.rs`.

use std::time::{Duration, Instant};

use crate::harness::issuer::{any_of, external, fixture_with};
use crate::harness::manifests::{service, service_as};
use crate::harness::recorder::switching;
use crate::harness::{self, Behaviour, Head, Recorder, SOON, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A whole handshake has half a minute.
const TIME: Duration = Duration::from_secs(30);
/// That, and room for a busy machine.
const LIMIT: Duration = Duration::from_secs(50);

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

/// Client, session service and backends stay below their own timeouts, each by a little. Together they do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
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
    let setup = fixture_with(&spec, &objects).await;
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
