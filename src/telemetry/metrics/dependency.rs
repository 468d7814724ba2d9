//! What handshakes depend on outside the gateway: key sets that are fetched, the shared store, and what of these and of
//! Services gives no valid answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::series::{Absent, Age, Table, declare};
use super::{Metrics, held};

const OK: &str = "ok";
const FAILED: &str = "failed";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeySet {
    uri: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetch {
    uri: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Dependency {
    kind: &'static str,
    name: String,
}

#[derive(Debug)]
pub(super) struct Dependencies {
    key_set_age: Family<KeySet, Age>,
    key_set_fetches: Family<Fetch, Counter>,
    /// The URIs that have series.
    key_sets: Mutex<BTreeSet<Arc<str>>>,
    store_connected: Absent<Gauge>,
    store_requests: Family<Request, Counter>,
    failing: Table<Dependency>,
}

impl Dependencies {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        Self {
            key_set_age: declare(
                registry,
                "key_set_age_seconds",
                "Seconds since a key set was last fetched, by its URI without query; absent until it was fetched once",
                Family::default(),
            ),
            key_set_fetches: declare(
                registry,
                "key_set_fetches",
                "Fetches of key sets by outcome (ok, failed)",
                Family::default(),
            ),
            key_sets: Mutex::default(),
            store_connected: declare(
                registry,
                "shared_store_connected",
                "1 while the shared store answers and takes writes, 0 while what needs it is refused; absent without one",
                Absent::default(),
            ),
            store_requests: declare(
                registry,
                "shared_store_requests",
                "Questions of handshakes and calls to the shared store, by outcome (ok, failed); absent without one",
                Family::default(),
            ),
            failing: declare(
                registry,
                "dependency_failing",
                "1 while what handshakes are judged with (kind key_set, service, store) gives no valid answer, else 0; \
                 absent until it was asked once",
                Table::default(),
            ),
        }
    }

    fn request(&self, outcome: &'static str) -> Counter {
        self.store_requests.get_or_create_owned(&Request { outcome })
    }
}

impl Metrics {
    /// The key set of a URI (without query) was fetched at `now`, or could not be.
    pub fn key_set_fetched(&self, uri: &str, ok: bool, now: Instant) {
        let dependencies = &self.0.dependencies;
        let uri: Arc<str> = uri.into();
        // Held until the series are there, so that none is made behind the back of `retain_key_sets`.
        let mut known = held(&dependencies.key_sets);
        known.insert(Arc::clone(&uri));
        let fetches = |outcome| {
            let labels = Fetch { uri: Arc::clone(&uri), outcome };
            dependencies.key_set_fetches.get_or_create_owned(&labels)
        };
        let (good, bad) = (fetches(OK), fetches(FAILED));
        if ok {
            good.inc()
        } else {
            bad.inc()
        };
        if ok {
            dependencies.key_set_age.get_or_create_owned(&KeySet { uri }).set(Some(now));
        }
    }

    /// Keeps the series of these URIs only.
    pub fn retain_key_sets(&self, uris: &BTreeSet<String>) {
        let dependencies = &self.0.dependencies;
        held(&dependencies.key_sets).retain(|uri| {
            let stays = uris.contains(&**uri);
            if !stays {
                dependencies.key_set_age.remove(&KeySet { uri: Arc::clone(uri) });
                for outcome in [OK, FAILED] {
                    dependencies.key_set_fetches.remove(&Fetch { uri: Arc::clone(uri), outcome });
                }
            }
            stays
        });
    }

    /// There is a shared store, and it answers and takes writes, or not.
    pub fn shared_store(&self, connected: bool) {
        let dependencies = &self.0.dependencies;
        dependencies.store_connected.get().set(connected.into());
        drop([OK, FAILED].map(|outcome| dependencies.request(outcome)));
    }

    /// The shared store was asked for a handshake or a call, and answered or not.
    pub fn store_asked(&self, answered: bool) {
        self.0.dependencies.request(if answered { OK } else { FAILED }).inc();
    }

    /// Replaces, whole, what is known of what handshakes are judged with: kind, name, whether it fails. Of several with
    /// one name it is enough that one fails.
    pub fn dependencies(&self, all: impl Iterator<Item = (&'static str, String, bool)>) {
        let mut table = BTreeMap::new();
        for (kind, name, failing) in all {
            *table.entry(Dependency { kind, name }).or_default() |= i64::from(failing);
        }
        self.0.dependencies.failing.replace(table);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    #[test]
    fn a_key_set_has_an_age_once_it_was_fetched_and_no_series_once_nobody_needs_it() {
        let metrics = Metrics::new();
        metrics.key_set_fetched("https://idp.test/a", false, Instant::now());
        has(&metrics, r#"wssgate_key_set_fetches_total{uri="https://idp.test/a",outcome="failed"} 1"#);
        assert!(!metrics.encode().contains("wssgate_key_set_age_seconds{"));
        metrics.key_set_fetched("https://idp.test/a", true, Instant::now());
        metrics.key_set_fetched("https://idp.test/b", true, Instant::now());
        has(&metrics, r#"wssgate_key_set_fetches_total{uri="https://idp.test/a",outcome="ok"} 1"#);
        assert!(metrics.encode().contains(r#"wssgate_key_set_age_seconds{uri="https://idp.test/a"} 0."#));
        metrics.retain_key_sets(&["https://idp.test/b".to_owned()].into());
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
        has(&metrics, "wssgate_shared_store_connected 1");
        has(&metrics, r#"wssgate_shared_store_requests_total{outcome="ok"} 0"#);
        has(&metrics, r#"wssgate_shared_store_requests_total{outcome="failed"} 1"#);
    }

    #[test]
    fn dependencies_are_replaced_whole_and_one_that_fails_decides_for_its_name() {
        let metrics = Metrics::new();
        let of = |name: &str, failing| ("service", name.to_owned(), failing);
        metrics.dependencies([of("a", true), of("a", false), of("b", false)].into_iter());
        has(&metrics, r#"wssgate_dependency_failing{kind="service",name="a"} 1"#);
        has(&metrics, r#"wssgate_dependency_failing{kind="service",name="b"} 0"#);
        metrics.dependencies([of("b", false)].into_iter());
        assert!(!metrics.encode().contains(r#"name="a""#));
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        metrics.key_set_fetched("https://idp.test/\"\\\n# EOF", false, Instant::now());
        let text = metrics.encode();
        assert!(text.contains(r#"{uri="https://idp.test/\"\\\n# EOF",outcome="failed"} 1"#), "{text}");
    }
}
