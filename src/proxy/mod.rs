//! THE DATA PLANE: accepts wss connections, judges handshakes and frames, relays to backends.
//!
//! Read `handshake::connection` first: it is one connection from top to bottom. Workers are single-threaded runtimes, one per
//! core; what they share is [`Shared`]: the snapshot, counters, telemetry. Knows nothing of Kubernetes, files or compiling.

mod acceptor;
pub mod auth;
mod clock;
mod dependency_health;
pub mod drain;
mod handshake;
mod io;
mod limits;
mod plain;
mod relay;
mod shared;
pub mod store;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::policy::client::TrustedProxies;
use crate::snapshot::live::Live;
use crate::telemetry::access::log::AccessLog;
use crate::telemetry::metrics::Metrics;
use auth::Auth;
use auth::external::Externals;
use auth::fetch::Fetcher;
use auth::jwks::Keys;
use auth::rotation::Rotation;
use auth::tickets::{Memory, Tickets};
use dependency_health::DependencyHealth;
pub use dependency_health::Failing;
pub use drain::Drain;
pub use io::socket_buffers::SocketBuffers;
use limits::capacity::Capacity;
use limits::connections::Connections;
use limits::handshake_rate::HandshakeRates;
use limits::round_robin::RoundRobin;
use limits::subject_rate::SubjectRates;
use relay::stage::HeldBytes;
use shared::Shared;
use store::Store;
use store::lending::lend;

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
    /// The bound on the kernel's buffers of each socket to a backend; the listeners have it already ([`SocketBuffers::set`]).
    pub socket_buffers: SocketBuffers,
    /// Bytes in use above which new connections are refused; `None`: by the limit of the control group, if there is one.
    pub memory_budget: Option<u64>,
    /// Whose word is taken for who the client is.
    pub proxies: TrustedProxies,
    /// The store that replicas share; `None`: tickets and the limits of subjects are those of this replica.
    pub store: Option<store::Options>,
    /// The state of the shutdown.
    pub drain: watch::Receiver<Drain>,
    /// Changes with every snapshot that is published, to its version.
    pub changed: watch::Receiver<u64>,
    /// Learns which dependencies of handshakes give no valid answer.
    pub dependencies: watch::Sender<Failing>,
    /// Whom the gateway itself trusts when it fetches over https.
    pub trust: Arc<rustls::ClientConfig>,
    /// The runtime for what must not delay connections.
    pub control: Handle,
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
    pub fn start(options: Options) -> std::io::Result<Self> {
        let capacity = Capacity::new(options.memory_budget, options.socket_buffers.direction());
        let connections = capacity.sockets();
        let health = Arc::new(DependencyHealth::new(options.dependencies, options.metrics.clone()));
        let fetcher = Fetcher::new(options.trust, Arc::clone(&options.live));
        let store = options.store.map(|store| {
            let (metrics, health) = (options.metrics.clone(), Arc::clone(&health));
            Store::open(store, &options.control, metrics, health, options.drain.clone())
        });
        let subject_rates = match &store {
            Some(store) => {
                let (rates, asked) = SubjectRates::shared();
                options.control.spawn(lend(Arc::clone(store), asked));
                rates
            }
            None => SubjectRates::default(),
        };
        let (control, rotation) = (options.control.clone(), Rotation::default());
        let keys = Keys::new(fetcher, control, options.metrics.clone(), Arc::clone(&health), rotation.clone());
        let shared = Arc::new(Shared {
            auth: Auth {
                keys,
                rotation,
                externals: Externals::new(Arc::clone(&options.live), Arc::clone(&health)),
                tickets: store.clone().map_or_else(|| Tickets::Memory(Memory::default()), Tickets::Shared),
                live: Arc::clone(&options.live),
            },
            held: Arc::new(HeldBytes::new(options.metrics.held_message_bytes())),
            live: options.live,
            health,
            metrics: options.metrics,
            store,
            capacity,
            buffers: options.socket_buffers,
            connections: Connections::default(),
            handshake_rates: HandshakeRates::default(),
            subject_rates: Arc::new(subject_rates),
            turns: RoundRobin::default(),
            proxies: ArcSwap::from_pointee(options.proxies),
            drain: options.drain,
            changed: options.changed,
        });
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        tracing::info!(workers, connections, "data plane started");
        shared.metrics.workers(workers);
        options.control.spawn(follow(Arc::clone(&shared)));
        let threads = acceptor::start(&shared, &options.access, workers, options.wss, options.plain)?;
        Ok(Self { shared, threads })
    }

    /// Client connections that are open, handshakes included.
    pub fn open(&self) -> usize {
        self.shared.capacity.open()
    }

    /// Another memory budget from now on, as in [`Options::memory_budget`].
    pub fn set_memory_budget(&self, budget: Option<u64>) {
        self.shared.capacity.set_budget(budget);
    }

    /// Other trusted proxies for connections that begin from now on; live ones keep the client that they have.
    pub fn set_trusted_proxies(&self, proxies: TrustedProxies) {
        self.shared.proxies.store(Arc::new(proxies));
    }

    /// Waits for the workers, which end when the drain is over.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("worker ended by a panic");
            }
        }
    }
}

/// Keeps fetched key sets in step with the snapshot and with time, and tells what cannot be reached, until the drain is
/// over.
async fn follow(shared: Arc<Shared>) {
    let (mut changed, mut drain) = (shared.changed.clone(), shared.drain.clone());
    let mut keys = tokio::time::interval(auth::jwks::LOOK);
    let mut health = tokio::time::interval(dependency_health::LOOK);
    loop {
        tokio::select! {
            _ = keys.tick() => {}
            Ok(()) = changed.changed() => {}
            _ = health.tick() => {
                shared.health.look();
                continue;
            }
            _ = drain.wait_for(|drain| *drain == Drain::Over) => return,
        }
        let snapshot = shared.live.load();
        shared.health.follow(&snapshot.dependencies());
        let named = snapshot.key_sets();
        shared.auth.keys.follow(&named);
        shared.auth.rotation.follow(&snapshot.keys, |uri| named.contains_key(uri));
    }
}

/// Binds a listener; `[::]` takes IPv4 as well. Its connections send without delay (`TCP_NODELAY`): on Linux a socket has
/// the options of the listener that it was accepted from.
///
/// # Errors
/// The address is in use or not ours.
pub fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
