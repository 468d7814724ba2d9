//! Clients that read slowly, over the real binary and in real time. Peers that do not read at all are tested with paused
//! time: `src/proxy/relay/tests/time.rs`.

use std::time::{Duration, Instant};

use crate::harness::{Behaviour, Frame, Head, Options, PATIENCE, Setup, json, within};
use tokio::net::TcpSocket;

/// Bytes a second.
const PACE: f64 = 20_000.0;
/// Beyond the half minute after which a client that does not read is closed.
const LONG: Duration = Duration::from_secs(38);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_twenty_kilobytes_a_second_gets_a_message_that_takes_it_longer_than_a_stall() {
    // A message that is judged whole goes out at once, into a buffer that empties as slowly as the client reads.
    let spec = json!({"messages": {"fromBackend": {"format": "JSON"}}});
    let setup = Setup::with(Behaviour::Manual, &spec, &Options::default()).await;
    let client = setup.client();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut peer = client.connect_over(socket.connect(client.address).await.unwrap()).await.unwrap();
    assert!(peer.write(&Head::upgrade("/").bytes()).await);
    let (answer, mut backend) = tokio::join!(peer.head(), setup.recorder.peer());
    assert_eq!(answer.map(|answer| answer.status()), Some(101));
    let message = Frame::text(format!("\"{}\"", "x".repeat(2_000_000)));
    assert!(backend.send(&message).await);
    let began = Instant::now();
    while began.elapsed() < LONG {
        let before = peer.pending().len();
        assert!(peer.fill().await, "the connection ended after {:?}", began.elapsed());
        let read = (peer.pending().len() - before) as f64;
        tokio::time::sleep(Duration::from_secs_f64(read / PACE)).await;
    }
    assert!(peer.pending().len() < 1_500_000, "it read slowly: {}", peer.pending().len());
    let whole = within(PATIENCE, "the rest of the message", peer.frame()).await;
    assert!(whole.is_some_and(|frame| frame.same(&message)));
}
