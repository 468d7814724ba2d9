//! What one direction of a relay writes down, apart from what it moves.

use std::time::Instant;

use crate::proxy::relay::activity::PeerActivity;
use crate::proxy::relay::session::Session;
use crate::reason::Reason;
use crate::telemetry::access::fields::{Audited, Detail, Id, Volume};
use crate::telemetry::access::worker::WorkerLog;
use crate::telemetry::metrics::RouteMetrics;

/// What a direction writes down while it moves bytes.
pub(super) struct Flow<'a> {
    /// What the sender does.
    pub(super) from: &'a PeerActivity,
    /// What the receiver does.
    pub(super) to: &'a PeerActivity,
    /// The connection.
    pub(super) session: &'a Session,
    /// The payload of our pings: a pong with it is for us.
    pub(super) nonce: &'a [u8; 8],
    /// The access log, and what its lines name.
    pub(super) log: &'a WorkerLog,
    pub(super) id: Id,
    pub(super) route: &'a str,
    /// Metrics of the route.
    pub(super) metrics: &'a RouteMetrics,
    /// When the connection began.
    pub(super) began: Instant,
    /// What the connection has carried in this direction.
    pub(super) volume: &'a mut Volume,
}

impl Flow<'_> {
    /// Counts and logs what passes because nothing is enforced.
    pub(super) fn audit(&self, reason: Reason, detail: &Detail) {
        self.metrics.audited(reason);
        self.log.audited(&Audited { id: self.id, route: self.route, reason, detail });
    }
}
