//! Metrics in the OpenMetrics text format, without global state.
//!
//! Each metric is declared once, in the file of its subject: name, type, labels and meaning. Labels come from objects of
//! the cluster and closed enums only; nothing a client sends becomes a label. A connection asks once for the metrics of
//! its route ([`Metrics::route`]) and from then on does nothing but relaxed atomic adds.

mod certificate;
mod dependency;
mod duration;
mod label;
mod message_size;
mod process;
mod route;
mod series;
mod source;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

pub use certificate::Certificate;
pub use label::{Direction, Peer, Recheck, Stage, Verdict};
pub use message_size::MessageSizes;
pub use process::Capacity;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use route::{RouteMetrics, Traffic};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    process: process::Process,
    source: source::Source,
    certificates: certificate::Certificates,
    durations: Arc<duration::Durations>,
    routes: route::Routes,
    message_sizes: message_size::Shards,
    dependencies: dependency::Dependencies,
}

impl Metrics {
    /// Empty metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("wssgate");
        // In the order in which they are scraped and documented.
        let process = process::Process::declare(&mut registry);
        let source = source::Source::declare(&mut registry);
        let certificates = certificate::Certificates::declare(&mut registry);
        let durations = Arc::new(duration::Durations::declare(&mut registry));
        let routes = route::Routes::declare(&mut registry, &durations);
        let message_sizes = message_size::Shards::declare(&mut registry);
        let dependencies = dependency::Dependencies::declare(&mut registry);
        Self(Arc::new(Inner {
            registry,
            process,
            source,
            certificates,
            durations,
            routes,
            message_sizes,
            dependencies,
        }))
    }

    /// The OpenMetrics text of all metrics: of every family HELP and TYPE, and its series.
    pub fn encode(&self) -> String {
        let over = self.0.routes.over();
        let mut page = String::with_capacity(8 * 1024);
        // Writing to a String cannot fail, and half a page is better than none.
        let _ = text::encode(&mut page, &self.0.registry);
        self.0.routes.forget(&over);
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A panic elsewhere must not take the metrics with it: they are plain numbers and never half-written.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn has(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }

    /// The families of a scrape: what follows `# TYPE ` or `# HELP `.
    fn described<'a>(text: &'a str, of: &str) -> Vec<&'a str> {
        text.lines().filter_map(|line| line.strip_prefix(of)).collect()
    }

    #[test]
    fn every_family_is_described_once_even_without_a_series() {
        let text = Metrics::new().encode();
        let names = |of| -> Vec<_> {
            described(&text, of).iter().filter_map(|rest| Some(rest.split_once(' ')?.0.to_owned())).collect()
        };
        let mut types = names("# TYPE ");
        assert_eq!(types, names("# HELP "));
        assert!(types.iter().any(|name| name == "wssgate_jwks_fetches"), "one without a series");
        types.sort();
        types.dedup();
        assert_eq!(types.len(), text.matches("# TYPE ").count(), "a name is declared twice");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_meaning_is_a_sentence_with_one_full_stop() {
        for help in described(&Metrics::new().encode(), "# HELP ") {
            assert!(help.ends_with('.') && !help.ends_with(".."), "{help}");
        }
    }
}
