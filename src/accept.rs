//! The accept loop of every listener. Knows sockets, and nothing of what is said on them.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Pause after a failed accept. It mostly fails for want of file descriptors, which other connections give back.
const PAUSE: Duration = Duration::from_millis(50);
/// How long no accept must have failed until the failures before count as over: short of file descriptors, each that
/// becomes free makes one accept succeed.
const CALM: Duration = Duration::from_secs(10);

/// A listener whose sockets belong to no runtime yet. Tokio's own would register each with the runtime that accepts, to be
/// removed again on its way to another: two system calls for each connection.
pub(crate) struct Listener(AsyncFd<StdListener>);

impl Listener {
    /// A listener that does not block, on the runtime of the caller.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    #[expect(
        deprecated,
        reason = "unsound for a type that may close its descriptor early, which a listener of std cannot"
    )]
    pub(crate) fn new(listener: StdListener) -> io::Result<Self> {
        AsyncFd::with_interest(listener, Interest::READABLE).map(Self)
    }

    /// The next socket, which does not block, with the address of its peer.
    async fn accept(&self) -> io::Result<(StdStream, SocketAddr)> {
        self.0
            .async_io(Interest::READABLE, |listener| {
                let (socket, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
                // A peer that went in the meantime has no address.
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Ok((StdStream::from(socket), peer.ok_or(io::ErrorKind::ConnectionAborted)?))
            })
            .await
    }
}

/// Accepts until `end` is ready, and hands each socket to `serve` with the address of its peer. `serve` must not block:
/// it spawns what takes time, on whatever runtime it likes. `name` is what the log calls the listener.
pub(crate) async fn until(
    name: &'static str,
    listener: Listener,
    end: impl Future<Output = ()>,
    mut serve: impl FnMut(StdStream, SocketAddr),
) {
    let mut end = pin!(end);
    let mut failures = Failures::new(name);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return,
            (tcp, peer) = failures.outlast(|| listener.accept()) => serve(tcp, peer),
        }
    }
}

/// Accepts until dropped, and spawns what `serve` makes of a socket and the address of its peer; `None` ends the socket.
/// What is served ends with it.
pub(crate) async fn each<F>(
    name: &'static str,
    listener: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr) -> Option<F>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut failures = Failures::new(name);
    loop {
        while tasks.try_join_next().is_some() {}
        let (tcp, peer) = failures.outlast(|| listener.accept()).await;
        if let Some(served) = serve(tcp, peer) {
            tasks.spawn(served);
        }
    }
}

/// Accepts until dropped, and serves `connections` at a time; more wait in the backlog. What is served ends with it.
pub(crate) async fn bounded<F>(
    name: &'static str,
    listener: TcpListener,
    connections: usize,
    serve: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections));
    let mut tasks = JoinSet::new();
    let mut failures = Failures::new(name);
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (tcp, _) = failures.outlast(|| listener.accept()).await;
        let served = serve(tcp);
        tasks.spawn(async move {
            let _permit = permit;
            served.await;
        });
    }
}

/// The failures of one listener. Those that follow one another closely are one episode, which is logged once.
struct Failures {
    name: &'static str,
    /// The last failure of an episode that is not over.
    last: Option<Instant>,
}

impl Failures {
    const fn new(name: &'static str) -> Self {
        Self { name, last: None }
    }

    /// Accepts until it succeeds, with a pause after each failure. May be dropped at any point.
    async fn outlast<T, F: Future<Output = io::Result<T>>>(&mut self, mut accept: impl FnMut() -> F) -> T {
        loop {
            match accept().await {
                Ok(accepted) => {
                    if self.succeeded(Instant::now()) {
                        tracing::info!(listener = self.name, "connections are accepted again");
                    }
                    return accepted;
                }
                Err(error) => {
                    if self.failed(Instant::now()) {
                        tracing::warn!(listener = self.name, %error, "connections cannot be accepted; they wait in the backlog");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// An accept failed at `now`. Whether an episode begins.
    fn failed(&mut self, now: Instant) -> bool {
        self.last.replace(now).is_none_or(|last| now.duration_since(last) >= CALM)
    }

    /// An accept succeeded at `now`. Whether an episode ends.
    fn succeeded(&mut self, now: Instant) -> bool {
        self.last.take_if(|last| now.duration_since(*last) >= CALM).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use tokio::io::AsyncReadExt;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn each_socket_comes_with_its_peer_until_the_end() {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::new(listener).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let peers = Cell::new(Vec::new());
        // As a worker does it: nothing here can be sent to another thread.
        let serve = |tcp: StdStream, peer| {
            let blocking = tcp.peek(&mut [0]).map_err(|error| error.kind());
            assert_eq!(blocking, Err(io::ErrorKind::WouldBlock), "it does not block");
            peers.set([peers.take(), vec![peer]].concat());
        };
        let accepting = until("test", listener, async move { drop(ended.await) }, serve);
        let visiting = async move {
            let mut visitors = Vec::new();
            for _ in 0..3 {
                let mut tcp = TcpStream::connect(address).await.unwrap();
                visitors.push(tcp.local_addr().unwrap());
                assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0);
            }
            end.send(()).unwrap();
            visitors
        };
        let ((), visitors) = timeout(LIMIT, async { tokio::join!(accepting, visiting) }).await.unwrap();
        assert_eq!(peers.take(), visitors);
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn no_more_are_served_at_a_time_than_the_bound_allows() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (served, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let server = tokio::spawn(bounded("test", listener, 2, move |mut tcp| {
            served.send(()).unwrap();
            async move {
                let _ = tcp.read(&mut [0]).await;
            }
        }));
        let mut visitors = Vec::new();
        for _ in 0..3 {
            visitors.push(TcpStream::connect(address).await.unwrap());
        }
        for _ in 0..2 {
            timeout(LIMIT, begun.recv()).await.unwrap().unwrap();
        }
        tokio::task::yield_now().await;
        assert!(begun.try_recv().is_err(), "the third waits in the backlog");
        drop(visitors.remove(0));
        timeout(LIMIT, begun.recv()).await.unwrap().unwrap();
        server.abort();
        let mut rest = visitors.remove(1);
        assert_eq!(timeout(LIMIT, rest.read(&mut [0])).await.unwrap().unwrap_or(0), 0, "ends with the server");
    }

    #[tokio::test]
    async fn a_failed_accept_is_tried_again_after_a_pause() {
        let (mut failures, mut tries, start) = (Failures::new("test"), 0, Instant::now());
        let accepted = failures.outlast(|| {
            tries += 1;
            ready(if tries < 3 { Err(io::Error::other("no file descriptor")) } else { Ok(tries) })
        });
        assert_eq!(timeout(LIMIT, accepted).await.unwrap(), 3);
        assert!(start.elapsed() >= PAUSE * 2);
    }

    #[test]
    fn failures_that_follow_one_another_closely_are_one_episode() {
        let (mut failures, start) = (Failures::new("test"), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(!failures.succeeded(start));
        assert!(failures.failed(later(1)) && !failures.failed(later(2)));
        // One in between succeeds: nothing is said.
        assert!(!failures.succeeded(later(3)) && !failures.failed(later(4)));
        assert!(failures.succeeded(later(14)) && !failures.succeeded(later(15)));
        assert!(failures.failed(later(16)));
        // Nobody came meanwhile.
        assert!(failures.failed(later(100)));
    }
}
