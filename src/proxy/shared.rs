//! What all workers share: the snapshot, counters, telemetry, and what handshakes are judged with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::policy::client::TrustedProxies;
use crate::proxy::auth::Auth;
use crate::proxy::dependency_health::DependencyHealth;
use crate::proxy::drain::Drain;
use crate::proxy::io::socket_buffers::SocketBuffers;
use crate::proxy::limits::capacity::Capacity;
use crate::proxy::limits::connections::Connections;
use crate::proxy::limits::handshake_rate::HandshakeRates;
use crate::proxy::limits::round_robin::RoundRobin;
use crate::proxy::limits::subject_rate::SubjectRates;
use crate::proxy::relay::stage::HeldBytes;
use crate::proxy::store::Store;
use crate::snapshot::live::Live;
use crate::telemetry::metrics::Metrics;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Metrics,
    pub(crate) capacity: Capacity,
    /// The bound on the kernel's buffers of each socket.
    pub(crate) buffers: SocketBuffers,
    /// Connections that are open.
    pub(crate) connections: Connections,
    /// Handshakes per route and address.
    pub(crate) handshake_rates: HandshakeRates,
    /// What the connections of a subject share of a rate of messages.
    pub(crate) subject_rates: Arc<SubjectRates>,
    /// Whose turn it is among the backends of a route.
    pub(crate) turns: RoundRobin,
    /// Bytes of messages that are held until they are whole.
    pub(crate) held: Arc<HeldBytes>,
    /// What credentials are verified with.
    pub(crate) auth: Auth,
    /// Which of it gives no valid answers.
    pub(crate) health: Arc<DependencyHealth>,
    /// Proxies whose word is taken for who the client is.
    pub(crate) proxies: ArcSwap<TrustedProxies>,
    /// The store that replicas share; `None`: there is none.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) drain: watch::Receiver<Drain>,
    /// Counts the snapshots that were published.
    pub(crate) changed: watch::Receiver<u64>,
}

impl Shared {
    /// Whether a shutdown has gone so far that nothing new is let in.
    pub(crate) fn is_draining(&self) -> bool {
        *self.drain.borrow() != Drain::Serving
    }
}
