//! Kinds of metrics that the library lacks: gauges that are computed when they are scraped, tables of gauges that are
//! replaced whole, and metrics that are absent until they are set.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};

use super::held;

/// Declares a metric: the one place where its name (without `wssgate_`, and without `_total` or `_info`, which its type
/// adds) and its meaning stand. `help` ends without a full stop, which the registry adds.
pub(super) fn declare<M: Metric + Clone>(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    metric: M,
) -> M {
    registry.register(name, help, Described(metric.clone()));
    metric
}

/// A metric whose HELP and TYPE are scraped also while it has no series. The registry would leave them out.
#[derive(Debug)]
struct Described<M>(M);

impl<M: EncodeMetric> EncodeMetric for Described<M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}

/// A moment, in seconds since the Unix epoch.
pub(super) type Timestamp = Gauge<f64, AtomicU64>;

/// The value of a [`Timestamp`].
pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Seconds since a moment, as of the scrape; 0 without one.
#[derive(Debug, Clone, Default)]
pub(super) struct Age(Arc<Mutex<Option<Instant>>>);

impl Age {
    pub(super) fn set(&self, since: Option<Instant>) {
        *held(&self.0) = since;
    }
}

impl EncodeMetric for Age {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = held(&self.0).map_or(0.0, |since| since.elapsed().as_secs_f64());
        encoder.encode_gauge(&seconds)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// A table of gauges that is replaced whole: no scrape sees a part of the old one and a part of the new one.
#[derive(Debug, Clone)]
pub(super) struct Table<L>(Arc<Mutex<BTreeMap<L, i64>>>);

impl<L> Table<L> {
    pub(super) fn replace(&self, table: BTreeMap<L, i64>) {
        *held(&self.0) = table;
    }
}

impl<L> Default for Table<L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<L: EncodeLabelSet + Debug> EncodeMetric for Table<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, value) in &*held(&self.0) {
            ConstGauge::new(*value).encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// A metric that is absent until it is used.
#[derive(Debug, Clone)]
pub(super) struct Absent<M>(Arc<OnceLock<M>>);

impl<M: Default> Absent<M> {
    pub(super) fn get(&self) -> &M {
        self.0.get_or_init(M::default)
    }
}

impl<M> Default for Absent<M> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Absent<M> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.get().map_or(Ok(()), |metric| metric.encode(encoder))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
