//! Metrics in the OpenMetrics text format, without global state.
//!
//! Labels come from routes and closed enums only; nothing a client sends becomes a label. A connection asks once for
//! the metrics of its route ([`Metrics::route`]) and from then on does nothing but relaxed atomic adds.

mod catalogue;
mod exposition;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Initiator;
use crate::reason::Reason;
pub use catalogue::{CATALOGUE, Descriptor};

/// The route label of what happened before a route was found. No route is called so: their labels hold a `/`.
pub const NO_ROUTE: &str = "none";

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Messages and bytes of one direction.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Whole data messages.
    pub messages: Counter,
    /// Payload bytes of data frames.
    pub bytes: Counter,
}

/// The metrics of one route. Shared by its connections; every counter is a relaxed atomic.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    /// Connections that are open now.
    pub connections: Gauge,
    /// What clients sent.
    pub from_client: Traffic,
    /// What backends sent.
    pub from_backend: Traffic,
    /// Tickets that were sold.
    pub tickets_issued: Counter,
    /// Tickets that opened a connection.
    pub tickets_redeemed: Counter,
    accepted: Counter,
    refused: Mutex<BTreeMap<Reason, u64>>,
    audited: Mutex<BTreeMap<Reason, u64>>,
    closes: Mutex<BTreeMap<(Reason, &'static str, Initiator), u64>>,
    gone: AtomicBool,
}

impl RouteMetrics {
    /// A handshake was answered with 101. Does not touch [`RouteMetrics::connections`].
    pub fn accepted(&self) {
        self.accepted.inc();
    }

    /// A handshake was refused.
    pub fn refused(&self, reason: Reason) {
        *held(&self.refused).entry(reason).or_default() += 1;
    }

    /// A handshake was let through that Enforce would have refused.
    pub fn audited(&self, reason: Reason) {
        *held(&self.audited).entry(reason).or_default() += 1;
    }

    /// A connection ended. `code` is the close code that was sent or received; `None`: no Close frame, or one without
    /// a code.
    pub fn ended(&self, reason: Reason, code: Option<u16>, initiator: Initiator) {
        *held(&self.closes).entry((reason, code_label(code), initiator)).or_default() += 1;
    }
}

/// All metrics of the process. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    routes: RwLock<HashMap<Box<str>, Arc<RouteMetrics>>>,
    certificates: Mutex<Vec<Certificate>>,
    workers: Gauge,
    capacity: Mutex<Capacity>,
    settings_broken: AtomicBool,
    version: AtomicU64,
    /// Milliseconds after `started` of the last whole compilation.
    compiled_at: AtomicU64,
    compiles: Counter,
    compile_micros: AtomicU64,
    routes_accepted: Gauge,
    routes_not_accepted: Gauge,
    source_problems: Gauge,
    source_skipped: Gauge,
    /// Since when a part of the source cannot be read.
    source_failing: Mutex<Option<Instant>>,
    definition_differs: Gauge,
    leader: Gauge,
    statuses_written: Counter,
    statuses_failed: Counter,
    key_sets: Mutex<BTreeMap<String, KeySetMetrics>>,
    /// Whether the shared store is connected; `None`: there is none.
    shared_store: Mutex<Option<bool>>,
    store_ok: Counter,
    store_failed: Counter,
    dependencies: Mutex<BTreeMap<(&'static str, String), bool>>,
    access_log_dropped: Counter,
}

/// What is known of one key set that is fetched.
#[derive(Debug, Clone, Default)]
struct KeySetMetrics {
    fetched: Option<Instant>,
    ok: u64,
    failed: u64,
}

/// One certificate that is served, for [`Metrics::certificates`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// The hostname as the route writes it.
    pub host: String,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// What bounds the number of connections, and how far it is used, for [`Metrics::capacity`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Client sockets that are open.
    pub sockets: u64,
    /// The most of them.
    pub sockets_limit: u64,
    /// Resident bytes.
    pub resident: u64,
    /// Resident bytes from which on nobody is let in; 0: no budget.
    pub budget: u64,
    /// Connections of the endpoint that has the most.
    pub endpoint: u64,
    /// The most that one endpoint can have.
    pub endpoint_limit: u64,
}

impl Metrics {
    /// Empty metrics; `snapshot_age_seconds` counts from now until the first compilation.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            started: Instant::now(),
            routes: RwLock::default(),
            certificates: Mutex::default(),
            workers: Gauge::default(),
            capacity: Mutex::default(),
            settings_broken: AtomicBool::new(false),
            version: AtomicU64::new(0),
            compiled_at: AtomicU64::new(0),
            compiles: Counter::default(),
            compile_micros: AtomicU64::new(0),
            routes_accepted: Gauge::default(),
            routes_not_accepted: Gauge::default(),
            source_problems: Gauge::default(),
            source_skipped: Gauge::default(),
            source_failing: Mutex::default(),
            definition_differs: Gauge::default(),
            leader: Gauge::default(),
            statuses_written: Counter::default(),
            statuses_failed: Counter::default(),
            key_sets: Mutex::default(),
            shared_store: Mutex::default(),
            store_ok: Counter::default(),
            store_failed: Counter::default(),
            dependencies: Mutex::default(),
            access_log_dropped: Counter::default(),
        }))
    }

    /// The metrics of a route (`namespace/name`, or [`NO_ROUTE`]). One look-up; hold the result.
    pub fn route(&self, route: &str) -> Arc<RouteMetrics> {
        if let Some(found) = self.0.routes.read().unwrap_or_else(PoisonError::into_inner).get(route) {
            return Arc::clone(found);
        }
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(route.into()).or_default())
    }

    /// A handshake of the route was answered with 101.
    pub fn accepted(&self, route: &str) {
        self.route(route).accepted();
    }

    /// A handshake was refused, before a route was found if `route` is `None`.
    pub fn refused(&self, reason: Reason, route: Option<&str>) {
        self.route(route.unwrap_or(NO_ROUTE)).refused(reason);
    }

    /// A connection of the route ended; see [`RouteMetrics::ended`].
    pub fn ended(&self, route: &str, reason: Reason, code: Option<u16>, initiator: Initiator) {
        self.route(route).ended(reason, code, initiator);
    }

    /// Keeps the series of these routes only. A route that left keeps its series for as long as somebody holds its
    /// metrics, and until the next scrape has seen their last values.
    pub fn retain_routes(&self, routes: &BTreeSet<String>) {
        let mut held = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        held.retain(|name, metrics| {
            let gone = &**name != NO_ROUTE && !routes.contains(&**name);
            let gone_before = metrics.gone.swap(gone, Ordering::Relaxed);
            !(gone && gone_before && is_over(metrics))
        });
    }

    /// All objects were read and compiled at `now`, and this version serves; also to be called if nothing changed.
    pub fn published(&self, version: u64, now: Instant) {
        let inner = &self.0;
        inner.version.store(version, Ordering::Relaxed);
        inner.compiled_at.store(millis(now.saturating_duration_since(inner.started)), Ordering::Relaxed);
    }

    /// A compilation found so many accepted and not accepted routes and took so long.
    pub fn compiled(&self, accepted: usize, not_accepted: usize, took: Duration) {
        self.0.compiles.inc();
        self.0.compile_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.routes_accepted.set(count(accepted));
        self.0.routes_not_accepted.set(count(not_accepted));
    }

    /// The source has so many manifests that cannot be read and so many objects of other kinds.
    pub fn source(&self, problems: usize, skipped: usize) {
        self.0.source_problems.set(count(problems));
        self.0.source_skipped.set(count(skipped));
    }

    /// A part of the source cannot be read since then; `None`: all is read.
    pub fn source_stale(&self, since: Option<Instant>) {
        *held(&self.0.source_failing) = since;
    }

    /// Whether the cluster's CustomResourceDefinition is another one than that of this version.
    pub fn definition_differs(&self, differs: bool) {
        self.0.definition_differs.set(differs.into());
    }

    /// Whether this replica writes statuses.
    pub fn leader(&self, leads: bool) {
        self.0.leader.set(leads.into());
    }

    /// A status was written, or could not be.
    pub fn status_write(&self, written: bool) {
        if written {
            self.0.statuses_written.inc()
        } else {
            self.0.statuses_failed.inc()
        };
    }

    /// Replaces, whole, what is known of the certificates that are served.
    pub fn certificates(&self, mut certificates: Vec<Certificate>) {
        // Two series of the same labels would spoil the scrape: of several leaves the one that ends first counts.
        certificates.sort_by(|a, b| (&a.secret, &a.host, a.not_after).cmp(&(&b.secret, &b.host, b.not_after)));
        certificates.dedup_by(|b, a| (&a.secret, &a.host) == (&b.secret, &b.host));
        *held(&self.0.certificates) = certificates;
    }

    /// The key set of a URI (without query) was fetched at `now`, or could not be.
    pub fn key_set_fetched(&self, uri: &str, ok: bool, now: Instant) {
        let mut sets = held(&self.0.key_sets);
        let set = sets.entry(uri.to_owned()).or_default();
        if ok {
            set.fetched = Some(now);
            set.ok += 1;
        } else {
            set.failed += 1;
        }
    }

    /// Keeps the series of these URIs only.
    pub fn retain_key_sets(&self, uris: &BTreeSet<String>) {
        held(&self.0.key_sets).retain(|uri, _| uris.contains(uri));
    }

    /// There is a shared store, and it answers and takes writes, or not.
    pub fn shared_store(&self, connected: bool) {
        *held(&self.0.shared_store) = Some(connected);
    }

    /// The shared store was asked for a handshake or a call, and answered or not.
    pub fn store_asked(&self, answered: bool) {
        if answered {
            self.0.store_ok.inc()
        } else {
            self.0.store_failed.inc()
        };
    }

    /// Replaces, whole, what is known of what handshakes are judged with: kind, name, whether it fails. Of several with
    /// one name it is enough that one fails.
    pub fn dependencies(&self, all: impl Iterator<Item = (&'static str, String, bool)>) {
        let mut next = BTreeMap::new();
        for (kind, name, failing) in all {
            *next.entry((kind, name)).or_default() |= failing;
        }
        *held(&self.0.dependencies) = next;
    }

    /// So many threads serve connections.
    pub fn workers(&self, workers: usize) {
        self.0.workers.set(count(workers));
    }

    /// Whether the settings file was read as it is now.
    pub fn settings(&self, current: bool) {
        self.0.settings_broken.store(!current, Ordering::Relaxed);
    }

    /// Replaces what is known of the capacity.
    pub fn capacity(&self, capacity: Capacity) {
        *held(&self.0.capacity) = capacity;
    }

    /// One access-log line was lost.
    pub fn access_log_dropped(&self) {
        self.0.access_log_dropped.inc();
    }

    /// The OpenMetrics text of all metrics.
    pub fn encode(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::with_capacity(8 * 1024);
        // Writing to a String cannot fail, and half a page is better than none.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        let mut routes = self.0.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|_, metrics| !(metrics.gone.load(Ordering::Relaxed) && is_over(metrics)));
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The close code as a label from a closed set: peers choose codes freely, labels must not.
fn code_label(code: Option<u16>) -> &'static str {
    match code {
        None => "none",
        Some(1000) => "1000",
        Some(1001) => "1001",
        Some(1002) => "1002",
        Some(1003) => "1003",
        Some(1005) => "1005",
        Some(1006) => "1006",
        Some(1007) => "1007",
        Some(1008) => "1008",
        Some(1009) => "1009",
        Some(1010) => "1010",
        Some(1011) => "1011",
        Some(1012) => "1012",
        Some(1013) => "1013",
        Some(1014) => "1014",
        Some(3000..=4999) => "private",
        Some(_) => "other",
    }
}

/// Nobody holds the metrics and no connection is open. Called under the write lock, so nobody can begin to hold them.
fn is_over(metrics: &Arc<RouteMetrics>) -> bool {
    Arc::strong_count(metrics) == 1 && metrics.connections.get() == 0
}

/// A panic elsewhere must not take the metrics with it: they are plain numbers and never half-written.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
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
        metrics.ended("shop/chat", Reason::MessageTooBig, Some(1009), Initiator::Gateway);
        metrics.refused(Reason::BadHost, None);
        metrics.refused(Reason::OriginDenied, Some("shop/chat"));
        route.audited(Reason::OriginMissing);
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 0"#);
        has(&metrics, r#"wssgate_handshakes_total{outcome="accepted",reason="none",route="shop/chat"} 1"#);
        has(&metrics, r#"wssgate_handshakes_total{outcome="refused",reason="bad_host",route="none"} 1"#);
        has(&metrics, r#"wssgate_handshakes_total{outcome="refused",reason="origin_denied",route="shop/chat"} 1"#);
        has(&metrics, r#"wssgate_audited_total{reason="origin_missing",route="shop/chat"} 1"#);
        has(&metrics, r#"wssgate_messages_total{route="shop/chat",direction="from_client"} 2"#);
        has(&metrics, r#"wssgate_bytes_total{route="shop/chat",direction="from_client"} 10"#);
        has(&metrics, r#"wssgate_bytes_total{route="shop/chat",direction="from_backend"} 7"#);
        has(
            &metrics,
            r#"wssgate_closes_total{route="shop/chat",reason="message_too_big",code="1009",initiator="gateway"} 1"#,
        );
    }

    #[test]
    fn a_route_that_left_keeps_its_series_until_its_last_connection_was_scraped() {
        let metrics = Metrics::new();
        let live = metrics.route("shop/chat");
        live.connections.inc();
        metrics.retain_routes(&set(&[]));
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 1"#);
        live.connections.dec();
        drop(live);
        has(&metrics, r#"wssgate_connections{route="shop/chat"} 0"#);
        assert!(!metrics.encode().contains("shop/chat"));
    }

    #[test]
    fn a_route_that_comes_back_keeps_its_counts() {
        let metrics = Metrics::new();
        metrics.accepted("shop/chat");
        metrics.retain_routes(&set(&[]));
        metrics.retain_routes(&set(&["shop/chat"]));
        metrics.accepted("shop/chat");
        drop(metrics.encode());
        has(&metrics, r#"wssgate_handshakes_total{outcome="accepted",reason="none",route="shop/chat"} 2"#);
    }

    #[test]
    fn routes_that_leave_are_forgotten_even_if_nobody_scrapes() {
        let metrics = Metrics::new();
        for n in 0..100 {
            metrics.accepted(&format!("shop/{n}"));
            metrics.retain_routes(&set(&[]));
        }
        assert!(metrics.0.routes.read().unwrap().len() <= 1);
    }

    #[test]
    fn a_close_code_of_the_peer_becomes_one_of_a_few_labels() {
        let labels: BTreeSet<_> = (0..=u16::MAX).map(|code| code_label(Some(code))).collect();
        assert!(labels.len() < 20, "{labels:?}");
        assert_eq!(code_label(Some(4001)), "private");
        assert_eq!(code_label(Some(999)), "other");
        assert_eq!(code_label(None), "none");
    }

    #[test]
    fn certificates_are_replaced_whole_and_never_twice() {
        let metrics = Metrics::new();
        let certificate =
            |secret: &str, not_after| Certificate { secret: secret.into(), host: "a.test".into(), not_after };
        metrics.certificates(vec![certificate("shop/a", 9), certificate("shop/a", 7), certificate("shop/b", 5)]);
        has(&metrics, r#"wssgate_certificate_expiry_timestamp_seconds{secret="shop/a",host="a.test"} 7"#);
        metrics.certificates(vec![certificate("shop/b", 6)]);
        assert!(!metrics.encode().contains("shop/a"));
        has(&metrics, r#"wssgate_certificate_expiry_timestamp_seconds{secret="shop/b",host="a.test"} 6"#);
    }

    #[test]
    fn the_age_of_the_snapshot_counts_from_its_last_compilation() {
        let metrics = Metrics::new();
        let later = metrics.0.started + Duration::from_secs(3600);
        metrics.published(7, later);
        has(&metrics, "wssgate_snapshot_version 7");
        has(&metrics, "wssgate_snapshot_age_seconds 0.0");
    }

    #[test]
    fn every_family_of_the_catalogue_is_scraped_with_its_type_and_its_labels() {
        let metrics = Metrics::new();
        let route = metrics.route("a/b");
        route.refused(Reason::Internal);
        route.audited(Reason::OriginDenied);
        route.ended(Reason::Draining, Some(1001), Initiator::Gateway);
        metrics.certificates(vec![Certificate { secret: "s".into(), host: "h".into(), not_after: 1 }]);
        metrics.key_set_fetched("https://idp.test/jwks", true, Instant::now());
        metrics.shared_store(true);
        metrics.dependencies([("store", "shared".to_owned(), false)].into_iter());
        let text = metrics.encode();
        for family in CATALOGUE {
            let base = family.name.trim_end_matches("_total").trim_end_matches("_info");
            assert!(text.contains(&format!("# TYPE {base} {}\n", family.kind)), "{base}\n{text}");
            let sample = text.lines().find(|line| {
                line.strip_prefix(family.name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            });
            let sample = sample.unwrap_or_else(|| panic!("{} is not scraped\n{text}", family.name));
            for label in family.labels {
                assert!(sample.contains(&format!("{label}=\"")), "{sample}");
            }
        }
        assert_eq!(text.matches("# TYPE").count(), CATALOGUE.len());
        assert!(text.ends_with("# EOF\n"));
    }
}
