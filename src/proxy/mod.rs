//! THE DATA PLANE: accepts wss connections, judges handshakes and frames, relays to backends.
//!
//! Read `connection` first: it is one connection from top to bottom. Workers are single-threaded runtimes, one per
//! core; what they share is [`Shared`]: the snapshot, the meters, telemetry. Knows nothing of Kubernetes, files or
//! compiling.

mod answer;
mod challenge;
mod connection;
pub mod drain;
mod meters;
mod plain;
mod relay;
mod scratch;
mod session;
mod tls;
mod upstream;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::snapshot::Live;
use crate::telemetry::{AccessLog, Metrics};
pub use drain::Drain;
use meters::Meters;

/// Sockets that are kept for everything but client connections: listeners, files, the admin port.
const RESERVED_SOCKETS: usize = 64;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    live: Arc<Live>,
    metrics: Metrics,
    access: AccessLog,
    meters: Arc<Meters>,
    /// Counts dials, for turns.
    turn: AtomicUsize,
    /// Client connections, from accept to end.
    open: AtomicUsize,
    /// The most of them: each needs two sockets.
    capacity: usize,
    drain: watch::Receiver<Drain>,
    changed: watch::Receiver<u64>,
}

/// One client connection's share of the capacity.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn slot(self: &Arc<Self>) -> Option<Slot> {
        let slot = Slot(Arc::clone(self));
        // Counted first, compared after: two workers cannot both take the last one.
        if self.open.fetch_add(1, Ordering::Relaxed) < self.capacity { Some(slot) } else { None }
    }
}

/// What the data plane is started with.
pub struct Options {
    /// Where routes are looked up.
    pub live: Arc<Live>,
    /// Where numbers go.
    pub metrics: Metrics,
    /// Where connections are written down.
    pub access: AccessLog,
    /// Listeners for wss.
    pub wss: Vec<std::net::TcpListener>,
    /// Listeners for the plain port; they redirect, never upgrade.
    pub plain: Vec<std::net::TcpListener>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// The state of the shutdown.
    pub drain: watch::Receiver<Drain>,
    /// Rings with the version of every snapshot that was published.
    pub changed: watch::Receiver<u64>,
}

/// The running data plane.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Starts the workers.
    ///
    /// # Errors
    /// A thread or runtime that cannot be created, or a listener that cannot be registered.
    pub fn start(options: Options) -> io::Result<Self> {
        let capacity = capacity();
        let shared = Arc::new(Shared {
            live: options.live,
            metrics: options.metrics,
            access: options.access,
            meters: Arc::default(),
            turn: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            capacity,
            drain: options.drain,
            changed: options.changed,
        });
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        tracing::info!(workers, connections = capacity, "data plane");
        shared.metrics.workers(workers);
        let threads = worker::start(&shared, workers, options.wss, options.plain)?;
        Ok(Self { shared, threads })
    }

    /// Client connections that are open, handshakes included.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Waits for the workers, which end when the drain is over.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker ended by a panic");
            }
        }
    }
}

/// Connections that the limit of open files allows: a client's socket and a backend's each.
fn capacity() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(1 << 20);
    (files.saturating_sub(RESERVED_SOCKETS) / 2).max(1)
}

/// Binds a listener; `[::]` takes IPv4 as well.
///
/// # Errors
/// The address is in use or not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
