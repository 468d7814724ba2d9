//! The families of metrics that have a `route` label, and the labels beside it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::reason::Reason;
use crate::telemetry::initiator::Initiator;
use crate::telemetry::metrics::duration::Histograms;
use crate::telemetry::metrics::held;
use crate::telemetry::metrics::label::{Direction, HandshakeOutcome, OrNone, Recheck, Verdict};
use crate::telemetry::metrics::series::declare;

/// Bounds of the buckets of the time to connect to a backend, in seconds. Few, because each route has them: they tell a
/// slow backend from the others, no more.
const CONNECT: [f64; 4] = [0.001, 0.01, 0.1, 1.0];

/// `namespace/name` of a route; `none` before a route was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Route {
    pub(super) route: OrNone<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Handshake {
    pub(super) outcome: HandshakeOutcome,
    pub(super) reason: OrNone<Reason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Violation {
    pub(super) reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Closed {
    pub(super) reason: Reason,
    pub(super) code: &'static str,
    pub(super) initiator: Initiator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Sent {
    pub(super) direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Judged {
    pub(super) direction: Direction,
    pub(super) schema: OrNone<Arc<str>>,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Tunnel {
    pub(super) direction: Direction,
    pub(super) protocol: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Rechecked {
    pub(super) outcome: Recheck,
}

/// Counters of routes with further labels.
pub(super) type Counts<L> = Family<(Route, L), Counter>;

/// The families of all routes.
#[derive(Debug, Clone)]
pub(super) struct Families {
    pub(super) connections: Family<Route, Gauge>,
    pub(super) backend_connect: Histograms<Route>,
    pub(super) handshakes: Counts<Handshake>,
    pub(super) audited: Counts<Violation>,
    pub(super) tickets_issued: Family<Route, Counter>,
    pub(super) tickets_redeemed: Family<Route, Counter>,
    pub(super) headers_left_out: Family<Route, Counter>,
    pub(super) rechecks: Counts<Rechecked>,
    pub(super) messages: Counts<Sent>,
    pub(super) bytes: Counts<Sent>,
    pub(super) compressed: Counts<Sent>,
    pub(super) dropped: Counts<Violation>,
    pub(super) throttled: Counts<Violation>,
    pub(super) judged: Counts<Judged>,
    pub(super) tunnels: Counts<Tunnel>,
    pub(super) closes: Counts<Closed>,
}

impl Families {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        Self {
            connections: declare(registry, "connections", "Open WebSocket connections", Family::default()),
            handshakes: declare(
                registry,
                "handshakes",
                "TLS and WebSocket handshakes by outcome (accepted, refused) and reason (none if accepted)",
                Family::default(),
            ),
            backend_connect: declare(
                registry,
                "backend_connect_duration_seconds",
                "Time to open the TCP connection to a backend's endpoint",
                Family::new_with_constructor(|| Histogram::new(CONNECT)),
            ),
            audited: declare(
                registry,
                "audit_violations",
                "Handshakes and messages let through in Audit mode that Enforce mode would have refused",
                Family::default(),
            ),
            tickets_issued: declare(registry, "tickets_issued", "Single-use tickets issued", Family::default()),
            tickets_redeemed: declare(
                registry,
                "tickets_redeemed",
                "Single-use tickets redeemed by a handshake",
                Family::default(),
            ),
            headers_left_out: declare(
                registry,
                "identity_headers_left_out",
                "Headers left out of the request to the backend, because a claim or an answer of the External Service cannot be a header value",
                Family::default(),
            ),
            rechecks: declare(
                registry,
                "external_rechecks",
                "Questions to an External Service about an open connection (recheck), by outcome (admitted, denied, unavailable)",
                Family::default(),
            ),
            messages: declare(
                registry,
                "messages",
                "Complete data messages relayed, by direction (from_client, from_backend)",
                Family::default(),
            ),
            bytes: declare(
                registry,
                "payload_bytes",
                "Payload bytes of data messages relayed, by direction (from_client, from_backend)",
                Family::default(),
            ),
            compressed: declare(
                registry,
                "compressed_messages",
                "Data messages that were compressed between client and gateway (permessage-deflate), by direction (from_client, \
                 from_backend)",
                Family::default(),
            ),
            dropped: declare(
                registry,
                "messages_dropped",
                "Data messages left out because a rate with onExceeded Drop was exceeded, by reason",
                Family::default(),
            ),
            throttled: declare(
                registry,
                "throttles",
                "Pauses in reading a peer, by reason: a rate with onExceeded Throttle was exceeded, or memory for messages that \
                 are held is short (overloaded)",
                Family::default(),
            ),
            judged: declare(
                registry,
                "documents_judged",
                "JSON documents in messages, by direction, schema (none without one) and verdict (matched, invalid, \
                 unmatched, malformed); counted in Audit mode too",
                Family::default(),
            ),
            tunnels: declare(
                registry,
                "tunnels",
                "Connections whose first messages are the beginning of a raw protocol that the route does not allow, by \
                 direction and protocol; counted in Audit mode too",
                Family::default(),
            ),
            closes: declare(
                registry,
                "connections_closed",
                "WebSocket connections closed, by reason, close code (none, private for 3000-4999, other) and initiator \
                 (client, backend, gateway)",
                Family::default(),
            ),
        }
    }
}

/// The counters of one route in one family: made when they are first counted, and looked up without the family's lock
/// after that.
#[derive(Debug)]
pub(super) struct Counters<L> {
    family: Counts<L>,
    route: Route,
    made: Mutex<HashMap<L, Counter>>,
}

impl<L: Clone + Debug + Eq + Hash> Counters<L> {
    pub(super) fn new(family: &Counts<L>, route: &Route) -> Self {
        Self { family: family.clone(), route: route.clone(), made: Mutex::default() }
    }

    pub(super) fn of(&self, labels: L) -> Counter {
        let mut made = held(&self.made);
        let counter = made
            .entry(labels.clone())
            .or_insert_with(|| self.family.get_or_create_owned(&(self.route.clone(), labels)));
        counter.clone()
    }

    pub(super) fn inc(&self, labels: L) {
        self.of(labels).inc();
    }

    pub(super) fn remove(&self) {
        for labels in held(&self.made).drain().map(|(labels, _)| labels) {
            self.family.remove(&(self.route.clone(), labels));
        }
    }
}
