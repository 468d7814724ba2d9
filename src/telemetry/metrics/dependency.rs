//! What handshakes depend on outside the gateway: key sets (JWKS) that are fetched, the shared store, and External
//! services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::label::Outcome;
use super::series::{Absent, Table, Timestamp, declare, unix_seconds};
use super::{Metrics, held};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Jwks {
    uri: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetch {
    uri: Arc<str>,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Dependency {
    kind: &'static str,
    name: String,
}

#[derive(Debug)]
pub(super) struct Dependencies {
    jwks_last_success: Family<Jwks, Timestamp>,
    jwks_fetches: Family<Fetch, Counter>,
    /// The URIs that have series.
    jwks: Mutex<BTreeSet<Arc<str>>>,
    store_connected: Absent<Gauge>,
    store_requests: Family<Request, Counter>,
    store_memory: Absent<Gauge>,
    store_memory_limit: Absent<Gauge>,
    up: Table<Dependency>,
}

impl Dependencies {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        Self {
            jwks_last_success: declare(
                registry,
                "jwks_last_success_timestamp_seconds",
                "When a key set (JWKS) was last fetched successfully, in seconds since the Unix epoch; absent until then. \
                 uri is without the query",
                Family::default(),
            ),
            jwks_fetches: declare(
                registry,
                "jwks_fetches",
                "Fetches of key sets (JWKS), by outcome (success, failure). uri is without the query",
                Family::default(),
            ),
            jwks: Mutex::default(),
            store_connected: declare(
                registry,
                "shared_store_connected",
                "1 while the shared store answers and accepts writes, 0 while it does not; absent without a shared store",
                Absent::default(),
            ),
            store_requests: declare(
                registry,
                "shared_store_requests",
                "Requests to the shared store, by outcome (success, failure); absent without a shared store",
                Family::default(),
            ),
            store_memory: declare(
                registry,
                "shared_store_memory_bytes",
                "Memory that the shared store uses (`used_memory` of its server), read every 30 seconds; absent without a \
                 shared store",
                Absent::default(),
            ),
            store_memory_limit: declare(
                registry,
                "shared_store_memory_limit_bytes",
                "Memory that the shared store can use (`maxmemory` of its server), 0 for no limit; absent without a shared store",
                Absent::default(),
            ),
            up: declare(
                registry,
                "dependency_up",
                "1 while a dependency of handshakes (kind jwks, external, shared_store) answers, 0 while it gives no valid \
                 answer; absent until it is first asked",
                Table::default(),
            ),
        }
    }

    fn request(&self, outcome: Outcome) -> Counter {
        self.store_requests.get_or_create_owned(&Request { outcome })
    }
}

impl Metrics {
    /// The key set of a URI (without query) was fetched at that time, or could not be.
    pub fn jwks_fetched(&self, uri: &str, ok: bool, at: SystemTime) {
        let dependencies = &self.0.dependencies;
        let uri: Arc<str> = uri.into();
        // Held until the series are there, so that none is made behind the back of `retain_jwks`.
        let mut known = held(&dependencies.jwks);
        known.insert(Arc::clone(&uri));
        for outcome in Outcome::ALL {
            let fetches = dependencies.jwks_fetches.get_or_create_owned(&Fetch { uri: Arc::clone(&uri), outcome });
            fetches.inc_by((outcome == Outcome::of(ok)).into());
        }
        if ok {
            dependencies.jwks_last_success.get_or_create_owned(&Jwks { uri }).set(unix_seconds(at));
        }
    }

    /// Keeps the series of these URIs only.
    pub fn retain_jwks(&self, uris: &BTreeSet<String>) {
        let dependencies = &self.0.dependencies;
        held(&dependencies.jwks).retain(|uri| {
            let stays = uris.contains(&**uri);
            if !stays {
                dependencies.jwks_last_success.remove(&Jwks { uri: Arc::clone(uri) });
                for outcome in Outcome::ALL {
                    dependencies.jwks_fetches.remove(&Fetch { uri: Arc::clone(uri), outcome });
                }
            }
            stays
        });
    }

    /// There is a shared store, and it answers and takes writes, or not.
    pub fn shared_store(&self, connected: bool) {
        let dependencies = &self.0.dependencies;
        dependencies.store_connected.get().set(connected.into());
        drop(Outcome::ALL.map(|outcome| dependencies.request(outcome)));
    }

    /// The shared store uses so many bytes of memory, and may use at the most so many; `None`: as many as there are.
    pub fn store_memory(&self, used: u64, limit: Option<u64>) {
        let dependencies = &self.0.dependencies;
        for (gauge, bytes) in
            [(&dependencies.store_memory, used), (&dependencies.store_memory_limit, limit.unwrap_or(0))]
        {
            gauge.get().set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// The shared store was asked for a handshake or a call, and answered or not.
    pub fn store_asked(&self, answered: bool) {
        self.0.dependencies.request(Outcome::of(answered)).inc();
    }

    /// Replaces, whole, what is known of what handshakes are judged with: kind, name, whether it fails. Of several with
    /// one name it is enough that one fails.
    pub fn dependencies(&self, all: impl Iterator<Item = (&'static str, String, bool)>) {
        let mut table = BTreeMap::new();
        for (kind, name, failing) in all {
            *table.entry(Dependency { kind, name }).or_insert(1) &= i64::from(!failing);
        }
        self.0.dependencies.up.replace(table);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::tests::has;
    use super::*;

    #[test]
    fn a_key_set_has_a_time_once_it_was_fetched_and_no_series_once_nobody_needs_it() {
        let metrics = Metrics::new();
        metrics.jwks_fetched("https://idp.test/a", false, UNIX_EPOCH);
        has(&metrics, r#"wssgate_jwks_fetches_total{uri="https://idp.test/a",outcome="failure"} 1"#);
        assert!(!metrics.encode().contains("wssgate_jwks_last_success_timestamp_seconds{"));
        metrics.jwks_fetched("https://idp.test/a", true, UNIX_EPOCH + Duration::from_millis(1500));
        metrics.jwks_fetched("https://idp.test/b", true, UNIX_EPOCH);
        has(&metrics, r#"wssgate_jwks_fetches_total{uri="https://idp.test/a",outcome="success"} 1"#);
        has(&metrics, r#"wssgate_jwks_last_success_timestamp_seconds{uri="https://idp.test/a"} 1.5"#);
        metrics.retain_jwks(&["https://idp.test/b".to_owned()].into());
        let text = metrics.encode();
        assert!(!text.contains("idp.test/a") && text.contains("idp.test/b"), "{text}");
    }

    #[test]
    fn without_a_shared_store_nothing_is_said_of_one() {
        let metrics = Metrics::new();
        let samples = |metrics: &Metrics| {
            metrics.encode().lines().filter(|line| line.starts_with("wssgate_shared_store_")).count()
        };
        assert_eq!(samples(&metrics), 0);
        metrics.shared_store(false);
        has(&metrics, "wssgate_shared_store_connected 0");
        metrics.shared_store(true);
        metrics.store_asked(false);
        metrics.store_memory(1000, None);
        has(&metrics, "wssgate_shared_store_memory_bytes 1000");
        has(&metrics, "wssgate_shared_store_memory_limit_bytes 0");
        has(&metrics, "wssgate_shared_store_connected 1");
        has(&metrics, r#"wssgate_shared_store_requests_total{outcome="success"} 0"#);
        has(&metrics, r#"wssgate_shared_store_requests_total{outcome="failure"} 1"#);
    }

    #[test]
    fn dependencies_are_replaced_whole_and_one_that_fails_decides_for_its_name() {
        let metrics = Metrics::new();
        let of = |name: &str, failing| ("external", name.to_owned(), failing);
        metrics.dependencies([of("a", true), of("a", false), of("b", false)].into_iter());
        has(&metrics, r#"wssgate_dependency_up{kind="external",name="a"} 0"#);
        has(&metrics, r#"wssgate_dependency_up{kind="external",name="b"} 1"#);
        metrics.dependencies([of("b", false)].into_iter());
        assert!(!metrics.encode().contains(r#"name="a""#));
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        metrics.jwks_fetched("https://idp.test/\"\\\n# EOF", false, UNIX_EPOCH);
        let text = metrics.encode();
        assert!(text.contains(r#"{uri="https://idp.test/\"\\\n# EOF",outcome="failure"} 1"#), "{text}");
    }
}
