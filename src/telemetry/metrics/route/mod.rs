//! What is counted for each route: handshakes, connections, messages, tickets.
//!
//! A connection asks once for the metrics of its route and from then on does relaxed atomic adds. The series of a route
//! that was removed vanish after its last connection was scraped.

mod families;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::duration::Durations;
use super::label::{self, Direction, HandshakeOutcome, OrNone, Peer, Recheck, Verdict};
use crate::reason::Reason;
use crate::telemetry::initiator::Initiator;
use families::{Closed, Counters, Families, Handshake, Judged, Rechecked, Route, Sent, Tunnel, Violation};

/// Messages and bytes of one direction.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Whole data messages.
    pub messages: Counter,
    /// Payload bytes of data frames.
    pub bytes: Counter,
    /// Messages that were compressed between client and gateway.
    pub compressed: Counter,
}

/// The metrics of one route, shared by its connections. The fields are relaxed atomics; the methods, which are called once
/// for a handshake, a connection, a heartbeat or where a rate is exceeded, may take a short lock.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Connections that are open now.
    pub connections: Gauge,
    /// What clients sent.
    pub from_client: Traffic,
    /// What backends sent.
    pub from_backend: Traffic,
    /// Tickets that were issued.
    pub tickets_issued: Counter,
    /// Tickets that opened a connection.
    pub tickets_redeemed: Counter,
    /// Headers of claims and External services that the backend did not get.
    pub headers_left_out: Counter,
    backend_connect: Histogram,
    /// Those of all routes.
    durations: Arc<Durations>,
    accepted: Counter,
    handshakes: Counters<Handshake>,
    audited: Counters<Violation>,
    rechecks: Counters<Rechecked>,
    dropped: Counters<Violation>,
    throttled: Counters<Violation>,
    judged: Counters<Judged>,
    tunnels: Counters<Tunnel>,
    closes: Counters<Closed>,
    /// Whether the route was removed.
    gone: AtomicBool,
    route: Route,
}

impl RouteMetrics {
    fn new(families: &Families, route: Route, durations: &Arc<Durations>) -> Self {
        let traffic = |direction| {
            let labels = (route.clone(), Sent { direction });
            Traffic {
                messages: families.messages.get_or_create_owned(&labels),
                bytes: families.bytes.get_or_create_owned(&labels),
                compressed: families.compressed.get_or_create_owned(&labels),
            }
        };
        let handshakes = Counters::new(&families.handshakes, &route);
        Self {
            connections: families.connections.get_or_create_owned(&route),
            from_client: traffic(Direction::FromClient),
            from_backend: traffic(Direction::FromBackend),
            tickets_issued: families.tickets_issued.get_or_create_owned(&route),
            tickets_redeemed: families.tickets_redeemed.get_or_create_owned(&route),
            headers_left_out: families.headers_left_out.get_or_create_owned(&route),
            backend_connect: families.backend_connect.get_or_create_owned(&route),
            durations: Arc::clone(durations),
            accepted: handshakes.of(Handshake { outcome: HandshakeOutcome::Accepted, reason: OrNone(None) }),
            handshakes,
            audited: Counters::new(&families.audited, &route),
            rechecks: Counters::new(&families.rechecks, &route),
            dropped: Counters::new(&families.dropped, &route),
            throttled: Counters::new(&families.throttled, &route),
            judged: Counters::new(&families.judged, &route),
            tunnels: Counters::new(&families.tunnels, &route),
            closes: Counters::new(&families.closes, &route),
            gone: AtomicBool::new(false),
            route,
        }
    }

    /// Removes every series of a route that nobody counts for any more.
    fn remove_from(&self, families: &Families) {
        let route = &self.route;
        families.connections.remove(route);
        families.backend_connect.remove(route);
        families.tickets_issued.remove(route);
        families.tickets_redeemed.remove(route);
        families.headers_left_out.remove(route);
        for direction in [Direction::FromClient, Direction::FromBackend] {
            let labels = (route.clone(), Sent { direction });
            families.messages.remove(&labels);
            families.bytes.remove(&labels);
            families.compressed.remove(&labels);
        }
        self.handshakes.remove();
        self.audited.remove();
        self.rechecks.remove();
        self.dropped.remove();
        self.throttled.remove();
        self.judged.remove();
        self.tunnels.remove();
        self.closes.remove();
    }

    /// What was sent in a direction.
    pub const fn traffic(&self, direction: Direction) -> &Traffic {
        match direction {
            Direction::FromClient => &self.from_client,
            Direction::FromBackend => &self.from_backend,
        }
    }

    /// A handshake was answered with 101. Does not touch [`RouteMetrics::connections`].
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A handshake was refused.
    pub fn refused(&self, reason: Reason) {
        self.handshakes.inc(refusal(reason));
    }

    /// A handshake or a message was let through that Enforce would have refused.
    pub fn audited(&self, reason: Reason) {
        self.audited.inc(Violation { reason });
    }

    /// An External service was asked about an open connection.
    pub fn rechecked(&self, outcome: Recheck) {
        self.rechecks.inc(Rechecked { outcome });
    }

    /// So many messages were left out because of a rate.
    pub fn dropped(&self, reason: Reason, messages: u64) {
        self.dropped.of(Violation { reason }).inc_by(messages);
    }

    /// A peer is not read for a time because of a rate.
    pub fn throttled(&self, reason: Reason) {
        self.throttled.inc(Violation { reason });
    }

    /// Documents that were judged so by this schema; `None`: by none. Takes a short lock: keep what is counted often.
    pub fn judged(&self, direction: Direction, schema: Option<&Arc<str>>, verdict: Verdict) -> Counter {
        self.judged.of(Judged { direction, schema: OrNone(schema.cloned()), verdict })
    }

    /// A tunnel of this protocol began.
    pub fn tunnel(&self, direction: Direction, protocol: &'static str) {
        self.tunnels.inc(Tunnel { direction, protocol });
    }

    /// An endpoint of the backend accepted the TCP connection after so long.
    pub fn backend_connected(&self, took: Duration) {
        self.backend_connect.observe(took.as_secs_f64());
    }

    /// A connection that ends was open for so long.
    pub fn connection_lasted(&self, took: Duration) {
        self.durations.connection(took);
    }

    /// A peer answered a heartbeat after so long.
    pub fn heartbeat_answered(&self, peer: Peer, took: Duration) {
        self.durations.round_trip(peer, took);
    }

    /// A connection ended. `code` is the close code that was sent or received; `None`: no Close frame, or one without
    /// a code.
    pub fn ended(&self, reason: Reason, code: Option<u16>, initiator: Initiator) {
        self.closes.inc(Closed { reason, code: label::close_code(code), initiator });
    }
}

fn refusal(reason: Reason) -> Handshake {
    Handshake { outcome: HandshakeOutcome::Refused, reason: OrNone(Some(reason)) }
}

/// All routes: one entry for each that exists or whose last values were not scraped yet.
#[derive(Debug)]
pub(super) struct Routes {
    families: Families,
    durations: Arc<Durations>,
    held: RwLock<HashMap<Arc<str>, Arc<RouteMetrics>>>,
    /// Handshakes that were refused before a route was found.
    unrouted: Counters<Handshake>,
}

impl Routes {
    pub(super) fn declare(registry: &mut Registry, durations: &Arc<Durations>) -> Self {
        let families = Families::declare(registry);
        let unrouted = Counters::new(&families.handshakes, &Route { route: OrNone(None) });
        Self { families, durations: Arc::clone(durations), held: RwLock::default(), unrouted }
    }

    /// The removed routes whose values will not change any more.
    pub(super) fn over(&self) -> Vec<Arc<str>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|(_, metrics)| is_over(metrics)).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Forgets these routes, but those that came back meanwhile.
    pub(super) fn forget(&self, names: &[Arc<str>]) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if held.get(name).is_some_and(is_over)
                && let Some(metrics) = held.remove(name)
            {
                metrics.remove_from(&self.families);
            }
        }
    }
}

/// The route was removed, nobody holds its metrics, and no connection is open. Conclusive under the write lock alone:
/// nobody can begin to hold them then.
fn is_over(metrics: &Arc<RouteMetrics>) -> bool {
    metrics.gone.load(Ordering::Relaxed) && Arc::strong_count(metrics) == 1 && metrics.connections.get() == 0
}

impl Metrics {
    /// The metrics of a route (`namespace/name`). One look-up; hold the result.
    pub fn route(&self, route: &str) -> Arc<RouteMetrics> {
        let routes = &self.0.routes;
        if let Some(found) = routes.held.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            return Arc::clone(found);
        }
        let mut held = routes.held.write().unwrap_or_else(PoisonError::into_inner);
        let name: Arc<str> = route.into();
        let made = || {
            let label = Route { route: OrNone(Some(Arc::clone(&name))) };
            Arc::new(RouteMetrics::new(&routes.families, label, &routes.durations))
        };
        Arc::clone(held.entry(Arc::clone(&name)).or_insert_with(made))
    }

    /// A handshake was refused, before a route was found if `route` is `None`.
    pub fn refused(&self, reason: Reason, route: Option<&str>) {
        match route {
            Some(route) => self.route(route).refused(reason),
            None => self.0.routes.unrouted.inc(refusal(reason)),
        }
    }

    /// Keeps the series of these routes only. A route that left keeps its series for as long as somebody holds its
    /// metrics, and until the next scrape has seen their last values; without scrapes, until the next call.
    pub fn retain_routes(&self, routes: &BTreeSet<String>) {
        let mut over = self.0.routes.over();
        over.retain(|name| !routes.contains(&**name));
        self.0.routes.forget(&over);
        let held = self.0.routes.held.read().unwrap_or_else(PoisonError::into_inner);
        for (name, metrics) in &*held {
            metrics.gone.store(!routes.contains(&**name), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_a_connection_does_is_what_is_scraped() {
        let metrics = Metrics::new();
        let route = metrics.route("shop/chat");
        route.accepted();
        route.connections.inc();
        route.from_client.messages.inc_by(2);
        route.from_client.bytes.inc_by(10);
        route.from_backend.bytes.inc_by(7);
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 1"#);
        route.connections.dec();
        route.ended(Reason::MessageTooBig, Some(1009), Initiator::Gateway);
        metrics.refused(Reason::BadHost, None);
        metrics.refused(Reason::OriginDenied, Some("shop/chat"));
        route.audited(Reason::OriginMissing);
        route.dropped(Reason::MessageRateExceeded, 3);
        route.rechecked(Recheck::Denied);
        route.throttled(Reason::BackendByteRateExceeded);
        route.judged(Direction::FromClient, Some(&"say".into()), Verdict::Invalid).inc();
        route.judged(Direction::FromBackend, None, Verdict::Malformed).inc();
        route.tunnel(Direction::FromClient, "ssh");
        route.tickets_issued.inc();
        route.backend_connected(Duration::from_millis(5));
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 0"#);
        has(&metrics, r#"wssgate_handshakes_total{route="shop/chat",outcome="accepted",reason="none"} 1"#);
        has(&metrics, r#"wssgate_handshakes_total{route="none",outcome="refused",reason="bad_host"} 1"#);
        has(&metrics, r#"wssgate_handshakes_total{route="shop/chat",outcome="refused",reason="origin_denied"} 1"#);
        has(&metrics, r#"wssgate_audit_violations_total{route="shop/chat",reason="origin_missing"} 1"#);
        has(&metrics, r#"wssgate_external_rechecks_total{route="shop/chat",outcome="denied"} 1"#);
        has(&metrics, r#"wssgate_messages_dropped_total{route="shop/chat",reason="message_rate_exceeded"} 3"#);
        has(&metrics, r#"wssgate_throttles_total{route="shop/chat",reason="backend_byte_rate_exceeded"} 1"#);
        has(
            &metrics,
            r#"wssgate_documents_judged_total{route="shop/chat",direction="from_client",schema="say",verdict="invalid"} 1"#,
        );
        has(
            &metrics,
            r#"wssgate_documents_judged_total{route="shop/chat",direction="from_backend",schema="none",verdict="malformed"} 1"#,
        );
        has(&metrics, r#"wssgate_tunnels_total{route="shop/chat",direction="from_client",protocol="ssh"} 1"#);
        has(&metrics, r#"wssgate_tickets_issued_total{route="shop/chat"} 1"#);
        has(&metrics, r#"wssgate_backend_connect_duration_seconds_bucket{le="0.001",route="shop/chat"} 0"#);
        has(&metrics, r#"wssgate_backend_connect_duration_seconds_bucket{le="0.01",route="shop/chat"} 1"#);
        has(&metrics, r#"wssgate_messages_total{route="shop/chat",direction="from_client"} 2"#);
        has(&metrics, r#"wssgate_payload_bytes_total{route="shop/chat",direction="from_client"} 10"#);
        has(&metrics, r#"wssgate_payload_bytes_total{route="shop/chat",direction="from_backend"} 7"#);
        has(
            &metrics,
            r#"wssgate_connections_closed_total{route="shop/chat",reason="message_too_big",code="1009",initiator="gateway"} 1"#,
        );
    }

    #[test]
    fn what_happened_before_a_route_was_found_is_counted_among_the_handshakes_alone() {
        let metrics = Metrics::new();
        metrics.refused(Reason::BadHost, None);
        let text = metrics.encode();
        let unrouted: Vec<_> = text.lines().filter(|line| line.contains(r#"route="none""#)).collect();
        assert_eq!(unrouted, [r#"wssgate_handshakes_total{route="none",outcome="refused",reason="bad_host"} 1"#]);
    }

    #[test]
    fn a_route_that_left_keeps_its_series_until_its_last_connection_was_scraped() {
        let metrics = Metrics::new();
        let live = metrics.route("shop/chat");
        live.connections.inc();
        metrics.retain_routes(&set(&[]));
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 1"#);
        live.connections.dec();
        live.refused(Reason::Internal);
        live.audited(Reason::Internal);
        live.dropped(Reason::MessageRateExceeded, 1);
        live.rechecked(Recheck::Unavailable);
        live.throttled(Reason::MessageRateExceeded);
        live.judged(Direction::FromClient, None, Verdict::Matched).inc();
        live.tunnel(Direction::FromClient, "ssh");
        live.ended(Reason::Draining, None, Initiator::Gateway);
        drop(live);
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 0"#);
        assert!(!metrics.encode().contains("shop/chat"));
    }

    #[test]
    fn a_route_that_comes_back_keeps_its_counts() {
        let metrics = Metrics::new();
        metrics.route("shop/chat").accepted();
        metrics.retain_routes(&set(&[]));
        metrics.retain_routes(&set(&["shop/chat"]));
        metrics.route("shop/chat").accepted();
        drop(metrics.encode());
        has(&metrics, r#"wssgate_handshakes_total{route="shop/chat",outcome="accepted",reason="none"} 2"#);
    }

    #[test]
    fn routes_that_leave_are_forgotten_even_if_nobody_scrapes() {
        let metrics = Metrics::new();
        for n in 0..100 {
            metrics.route(&format!("shop/{n}")).accepted();
            metrics.retain_routes(&set(&[]));
        }
        assert!(metrics.0.routes.held.read().unwrap().len() <= 1);
        assert!(metrics.encode().matches("wssgate_connections{").count() <= 1);
    }
}
