//! What is read and written back: the source and its faults, the snapshot that was compiled from it, statuses.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::series::{Age, declare};
use super::{Metrics, count};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Accepted {
    accepted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    outcome: &'static str,
}

#[derive(Debug)]
pub(super) struct Source {
    version: Gauge<u64, AtomicU64>,
    compiled: Age,
    compiles: Counter,
    compile_duration: Gauge<f64, AtomicU64>,
    routes: Family<Accepted, Gauge>,
    problems: Gauge,
    skipped: Gauge,
    stale: Age,
    definition_differs: Gauge,
    leader: Gauge,
    statuses_written: Counter,
    statuses_failed: Counter,
}

impl Source {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        let version = declare(
            registry,
            "snapshot_version",
            "Version of the snapshot that serves; counts up with every change that took effect in this process",
            Gauge::default(),
        );
        let compiled = declare(
            registry,
            "snapshot_age_seconds",
            "Seconds since the source was last read whole and compiled; grows while the source cannot be read",
            Age::default(),
        );
        compiled.set(Some(Instant::now()));
        let compiles = declare(registry, "compiles", "Compilations of all objects into a snapshot", Counter::default());
        let compile_duration =
            declare(registry, "compile_duration_seconds", "Seconds that the last compilation took", Gauge::default());
        let routes = declare(
            registry,
            "routes",
            "Route objects of this gateway, by whether they are accepted",
            Family::default(),
        );
        let problems = declare(
            registry,
            "source_problems",
            "Manifests that cannot be read or parsed; their last good objects keep serving",
            Gauge::default(),
        );
        let skipped = declare(
            registry,
            "source_skipped_objects",
            "Objects of kinds that the gateway does not read",
            Gauge::default(),
        );
        let stale = declare(
            registry,
            "source_stale_seconds",
            "Seconds since a part of the cluster could last be read; 0 while all is read. What was read keeps serving",
            Age::default(),
        );
        let definition_differs = declare(
            registry,
            "definition_differs",
            "1 if the cluster's CustomResourceDefinition is not that of this version, so that fields may be lost",
            Gauge::default(),
        );
        let leader = declare(registry, "leader", "1 if this replica writes statuses", Gauge::default());
        let writes: Family<Write, Counter> = declare(
            registry,
            "status_writes",
            "Statuses written to the API server, by outcome (written, failed)",
            Family::default(),
        );
        let source = Self {
            version,
            compiled,
            compiles,
            compile_duration,
            routes,
            problems,
            skipped,
            stale,
            definition_differs,
            leader,
            statuses_written: writes.get_or_create_owned(&Write { outcome: "written" }),
            statuses_failed: writes.get_or_create_owned(&Write { outcome: "failed" }),
        };
        source.routes(0, 0);
        source
    }

    fn routes(&self, accepted: usize, not_accepted: usize) {
        for (accepted, routes) in [(true, accepted), (false, not_accepted)] {
            self.routes.get_or_create_owned(&Accepted { accepted }).set(count(routes));
        }
    }
}

impl Metrics {
    /// All objects were read and compiled at `now`, and this version serves; also to be called if nothing changed.
    pub fn published(&self, version: u64, now: Instant) {
        self.0.source.version.set(version);
        self.0.source.compiled.set(Some(now));
    }

    /// A compilation found so many accepted and not accepted routes and took so long.
    pub fn compiled(&self, accepted: usize, not_accepted: usize, took: Duration) {
        self.0.source.compiles.inc();
        self.0.source.compile_duration.set(took.as_secs_f64());
        self.0.source.routes(accepted, not_accepted);
    }

    /// The source has so many manifests that cannot be read and so many objects of other kinds.
    pub fn source(&self, problems: usize, skipped: usize) {
        self.0.source.problems.set(count(problems));
        self.0.source.skipped.set(count(skipped));
    }

    /// A part of the source cannot be read since then; `None`: all is read.
    pub fn source_stale(&self, since: Option<Instant>) {
        self.0.source.stale.set(since);
    }

    /// Whether the cluster's CustomResourceDefinition is another one than that of this version.
    pub fn definition_differs(&self, differs: bool) {
        self.0.source.definition_differs.set(differs.into());
    }

    /// Whether this replica writes statuses.
    pub fn leader(&self, leads: bool) {
        self.0.source.leader.set(leads.into());
    }

    /// A status was written, or could not be.
    pub fn status_write(&self, written: bool) {
        if written {
            self.0.source.statuses_written.inc()
        } else {
            self.0.source.statuses_failed.inc()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    #[test]
    fn the_age_of_the_snapshot_counts_from_its_last_compilation() {
        let metrics = Metrics::new();
        let later = Instant::now() + Duration::from_secs(3600);
        metrics.published(7, later);
        has(&metrics, "wssgate_snapshot_version 7");
        has(&metrics, "wssgate_snapshot_age_seconds 0.0");
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
