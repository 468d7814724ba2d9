//! What is told of a connection when it ends: one line in the access log, and the metrics of its route. Once, also where
//! the task is dropped in the middle.

use std::sync::Arc;
use std::time::Instant;

use crate::api::route_id::RouteId;
use crate::reason::Reason;
use crate::telemetry::access::fields::{Detail, Ended, Id, Volume};
use crate::telemetry::access::worker::WorkerLog;
use crate::telemetry::initiator::Initiator;
use crate::telemetry::metrics::RouteMetrics;

/// How a connection came to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) reason: Reason,
    /// The close code that the client saw or sent.
    pub(super) code: Option<u16>,
    pub(super) initiator: Initiator,
}

/// The report of one connection in the making.
pub(crate) struct Report {
    pub(crate) id: Id,
    /// The route, as it was admitted.
    pub(crate) route: RouteId,
    /// When the connection was accepted.
    pub(crate) began: Instant,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) log: WorkerLog,
    pub(super) ending: Option<Ending>,
    /// What was wrong with the message that ended it.
    pub(super) detail: Option<Box<Detail>>,
    pub(super) from_client: Volume,
    pub(super) from_backend: Volume,
    told: bool,
}

impl Report {
    /// A connection that is open from now on.
    pub(crate) fn new(id: Id, route: RouteId, began: Instant, metrics: Arc<RouteMetrics>, log: WorkerLog) -> Self {
        metrics.connections.inc();
        let nothing = Volume::default();
        Self {
            id,
            route,
            began,
            metrics,
            log,
            ending: None,
            detail: None,
            from_client: nothing,
            from_backend: nothing,
            told: false,
        }
    }

    /// Counts the end and writes it down, once: as soon as all is said, or when the task is dropped before that.
    pub(super) fn tell(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        // A task that is dropped without an end either panicked or outlived the drain.
        let reason = if std::thread::panicking() { Reason::Internal } else { Reason::Draining };
        let ending = self.ending.unwrap_or(Ending { reason, code: None, initiator: Initiator::Gateway });
        self.metrics.connections.dec();
        self.metrics.ended(ending.reason, ending.code, ending.initiator);
        let duration = self.began.elapsed();
        self.metrics.connection_lasted(duration);
        self.log.ended(&Ended {
            id: self.id,
            route: self.route.label(),
            duration,
            reason: ending.reason,
            code: ending.code,
            initiator: ending.initiator,
            detail: self.detail.as_deref(),
            from_client: self.from_client,
            from_backend: self.from_backend,
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.tell();
    }
}
