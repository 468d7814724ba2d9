//! What is read and written back: the source and its faults, the snapshot that was compiled from it, statuses.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::label::Outcome;
use super::series::{Absent, Age, Timestamp, declare, unix_seconds};
use super::{Metrics, count};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Accepted {
    accepted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    outcome: Outcome,
}

/// Bounds of the buckets of compile times, in seconds.
const COMPILE_SECONDS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct Source {
    version: Gauge<u64, AtomicU64>,
    timestamp: Absent<Timestamp>,
    compile_duration: Histogram,
    routes: Family<Accepted, Gauge>,
    manifests_invalid: Gauge,
    manifests_skipped: Gauge,
    stale: Age,
    crd_outdated: Gauge,
    leader: Gauge,
    status_writes: Family<Write, Counter>,
}

impl Source {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        let version = declare(
            registry,
            "snapshot_version",
            "Version of the compiled configuration (snapshot) in use; rises with each change that takes effect, and starts \
             again with the process",
            Gauge::default(),
        );
        let timestamp = declare(
            registry,
            "snapshot_timestamp_seconds",
            "When all objects were last read and compiled, in seconds since the Unix epoch; absent until then",
            Absent::default(),
        );
        let compile_duration = declare(
            registry,
            "compile_duration_seconds",
            "Time to read and compile all objects",
            Histogram::new(COMPILE_SECONDS),
        );
        let routes =
            declare(registry, "routes", "Routes of this gateway, by whether they are accepted", Family::default());
        let manifests_invalid = declare(
            registry,
            "manifests_invalid",
            "Manifests that cannot be read or parsed; their last valid objects stay in use",
            Gauge::default(),
        );
        let manifests_skipped = declare(
            registry,
            "manifests_skipped",
            "Objects in manifests whose kind the gateway does not use",
            Gauge::default(),
        );
        let stale = declare(
            registry,
            "source_stale_seconds",
            "Time for which a part of the cluster could not be read; 0 while everything is read. What was read last \
             stays in use",
            Age::default(),
        );
        let crd_outdated = declare(
            registry,
            "crd_outdated",
            "1 if the CustomResourceDefinition in the cluster is not the one of this version; fields may then be lost",
            Gauge::default(),
        );
        let leader = declare(
            registry,
            "leader",
            "1 if this replica is the leader, which writes to the API server",
            Gauge::default(),
        );
        let status_writes = declare(
            registry,
            "status_writes",
            "Route statuses written to the API server, by outcome (success, failure)",
            Family::default(),
        );
        let source = Self {
            version,
            timestamp,
            compile_duration,
            routes,
            manifests_invalid,
            manifests_skipped,
            stale,
            crd_outdated,
            leader,
            status_writes,
        };
        // From the start, so that the first change of a count is one that a rate shows.
        source.routes(0, 0);
        for outcome in Outcome::ALL {
            source.status_write(outcome);
        }
        source
    }

    fn routes(&self, accepted: usize, not_accepted: usize) {
        for (accepted, routes) in [(true, accepted), (false, not_accepted)] {
            self.routes.get_or_create_owned(&Accepted { accepted }).set(count(routes));
        }
    }

    fn status_write(&self, outcome: Outcome) -> Counter {
        self.status_writes.get_or_create_owned(&Write { outcome })
    }
}

impl Metrics {
    /// All objects were read and compiled at that time, and this version serves; also to be called if nothing changed.
    pub fn published(&self, version: u64, at: SystemTime) {
        self.0.source.version.set(version);
        self.0.source.timestamp.get().set(unix_seconds(at));
    }

    /// A compilation found so many accepted and not accepted routes and took so long.
    pub fn compiled(&self, accepted: usize, not_accepted: usize, took: Duration) {
        self.0.source.compile_duration.observe(took.as_secs_f64());
        self.0.source.routes(accepted, not_accepted);
    }

    /// So many manifests cannot be read, and so many objects in manifests are of kinds that are not used.
    pub fn manifests(&self, invalid: usize, skipped: usize) {
        self.0.source.manifests_invalid.set(count(invalid));
        self.0.source.manifests_skipped.set(count(skipped));
    }

    /// A part of the source cannot be read since then; `None`: all is read.
    pub fn source_stale(&self, since: Option<Instant>) {
        self.0.source.stale.set(since);
    }

    /// Whether the cluster's CustomResourceDefinition is another one than that of this version.
    pub fn crd_outdated(&self, outdated: bool) {
        self.0.source.crd_outdated.set(outdated.into());
    }

    /// Whether this replica writes statuses.
    pub fn leader(&self, leads: bool) {
        self.0.source.leader.set(leads.into());
    }

    /// A status was written, or could not be.
    pub fn status_write(&self, written: bool) {
        self.0.source.status_write(Outcome::of(written)).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    #[test]
    fn the_time_of_the_snapshot_is_that_of_its_last_compilation() {
        let metrics = Metrics::new();
        assert!(!metrics.encode().contains("\nwssgate_snapshot_timestamp_seconds "));
        metrics.published(6, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        metrics.published(7, SystemTime::UNIX_EPOCH + Duration::from_secs(3600));
        has(&metrics, "wssgate_snapshot_version 7");
        has(&metrics, "wssgate_snapshot_timestamp_seconds 3600.0");
    }

    #[test]
    fn a_source_is_stale_for_as_long_as_a_part_of_it_cannot_be_read() {
        let metrics = Metrics::new();
        has(&metrics, "wssgate_source_stale_seconds 0.0");
        metrics.source_stale(Instant::now().checked_sub(Duration::from_secs(5)));
        assert!(metrics.encode().contains("\nwssgate_source_stale_seconds 5."));
        metrics.source_stale(None);
        has(&metrics, "wssgate_source_stale_seconds 0.0");
    }

    #[test]
    fn routes_are_counted_by_whether_they_are_accepted() {
        let metrics = Metrics::new();
        has(&metrics, r#"wssgate_routes{accepted="false"} 0"#);
        metrics.compiled(3, 1, Duration::from_millis(5));
        has(&metrics, r#"wssgate_routes{accepted="true"} 3"#);
        has(&metrics, r#"wssgate_routes{accepted="false"} 1"#);
    }
}
