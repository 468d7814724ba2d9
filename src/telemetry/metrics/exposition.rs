//! The metrics as they are scraped: every family of the catalogue, in its order.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::catalogue::*;
use super::{Metrics, NO_ROUTE, RouteMetrics, Traffic, held, millis};

impl Collector for Metrics {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let inner = &*self.0;
        let version = inner.version.load(Ordering::Relaxed);
        let age = millis(inner.started.elapsed()).saturating_sub(inner.compiled_at.load(Ordering::Relaxed));
        let mut routes: Vec<(Box<str>, Arc<RouteMetrics>)> = {
            let held = inner.routes.read().unwrap_or_else(PoisonError::into_inner);
            held.iter().map(|(name, metrics)| (name.clone(), Arc::clone(metrics))).collect()
        };
        routes.sort_by(|a, b| a.0.cmp(&b.0));
        let named = || routes.iter().filter(|(name, _)| &**name != NO_ROUTE);

        let mut family = begin(&mut out, &BUILD)?;
        family.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        gauge(&mut out, &WORKERS, inner.workers.get())?;
        let capacity = *held(&inner.capacity);
        for (descriptor, value) in [
            (&SOCKETS, capacity.sockets),
            (&SOCKETS_LIMIT, capacity.sockets_limit),
            (&MEMORY, capacity.resident),
            (&MEMORY_BUDGET, capacity.budget),
            (&ENDPOINT_CONNECTIONS, capacity.endpoint),
            (&ENDPOINT_LIMIT, capacity.endpoint_limit),
        ] {
            gauge(&mut out, descriptor, i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        gauge(&mut out, &SNAPSHOT_VERSION, i64::try_from(version).unwrap_or(i64::MAX))?;
        gauge(&mut out, &SNAPSHOT_AGE, Duration::from_millis(age).as_secs_f64())?;
        counter(&mut out, &COMPILES, inner.compiles.get())?;
        let took = Duration::from_micros(inner.compile_micros.load(Ordering::Relaxed));
        gauge(&mut out, &COMPILE_DURATION, took.as_secs_f64())?;
        let mut family = begin(&mut out, &ROUTES)?;
        for (accepted, number) in [("true", &inner.routes_accepted), ("false", &inner.routes_not_accepted)] {
            sample(&mut family, &ROUTES, [accepted], &ConstGauge::new(number.get()))?;
        }
        gauge(&mut out, &SETTINGS, i64::from(!inner.settings_broken.load(Ordering::Relaxed)))?;
        gauge(&mut out, &SOURCE_PROBLEMS, inner.source_problems.get())?;
        gauge(&mut out, &SOURCE_SKIPPED, inner.source_skipped.get())?;
        let stale = held(&inner.source_failing).map_or(Duration::ZERO, |since| since.elapsed());
        gauge(&mut out, &SOURCE_STALE, stale.as_secs_f64())?;
        gauge(&mut out, &DEFINITION_DIFFERS, inner.definition_differs.get())?;
        gauge(&mut out, &LEADER, inner.leader.get())?;
        let mut family = begin(&mut out, &STATUS_WRITES)?;
        for (outcome, counter) in [("written", &inner.statuses_written), ("failed", &inner.statuses_failed)] {
            sample(&mut family, &STATUS_WRITES, [outcome], &ConstCounter::new(counter.get()))?;
        }
        let mut family = begin(&mut out, &CERTIFICATE_EXPIRY)?;
        for one in &*held(&inner.certificates) {
            let value = ConstGauge::new(one.not_after);
            sample(&mut family, &CERTIFICATE_EXPIRY, [&one.secret, &one.host], &value)?;
        }
        let mut family = begin(&mut out, &CONNECTIONS)?;
        for (name, metrics) in named() {
            sample(&mut family, &CONNECTIONS, [name], &ConstGauge::new(metrics.connections.get()))?;
        }
        let mut family = begin(&mut out, &HANDSHAKES)?;
        for (name, metrics) in &routes {
            if &**name != NO_ROUTE {
                let value = ConstCounter::new(metrics.accepted.get());
                sample(&mut family, &HANDSHAKES, ["accepted", "none", name], &value)?;
            }
            for (reason, number) in &*held(&metrics.refused) {
                let value = ConstCounter::new(*number);
                sample(&mut family, &HANDSHAKES, ["refused", reason.label(), name], &value)?;
            }
        }
        let mut family = begin(&mut out, &AUDITED)?;
        for (name, metrics) in named() {
            for (reason, number) in &*held(&metrics.audited) {
                sample(&mut family, &AUDITED, [reason.label(), name], &ConstCounter::new(*number))?;
            }
        }
        let mut family = begin(&mut out, &TICKETS)?;
        for (name, metrics) in named() {
            for (outcome, count) in [("issued", &metrics.tickets_issued), ("redeemed", &metrics.tickets_redeemed)] {
                sample(&mut family, &TICKETS, [name, outcome], &ConstCounter::new(count.get()))?;
            }
        }
        for (descriptor, pick) in
            [(&MESSAGES, (|t| t.messages.get()) as fn(&Traffic) -> u64), (&BYTES, |t: &Traffic| t.bytes.get())]
        {
            let mut family = begin(&mut out, descriptor)?;
            for (name, metrics) in named() {
                for (way, traffic) in [("from_client", &metrics.from_client), ("from_backend", &metrics.from_backend)] {
                    sample(&mut family, descriptor, [name, way], &ConstCounter::new(pick(traffic)))?;
                }
            }
        }
        let mut family = begin(&mut out, &CLOSES)?;
        for (name, metrics) in named() {
            for ((reason, code, initiator), number) in &*held(&metrics.closes) {
                let labels = [name, reason.label(), code, initiator.label()];
                sample(&mut family, &CLOSES, labels, &ConstCounter::new(*number))?;
            }
        }
        let sets = held(&inner.key_sets).clone();
        let mut family = begin(&mut out, &KEY_SET_AGE)?;
        for (uri, set) in &sets {
            if let Some(fetched) = set.fetched {
                sample(&mut family, &KEY_SET_AGE, [uri], &ConstGauge::new(fetched.elapsed().as_secs_f64()))?;
            }
        }
        let mut family = begin(&mut out, &KEY_SET_FETCHES)?;
        for (uri, set) in &sets {
            for (outcome, number) in [("ok", set.ok), ("failed", set.failed)] {
                sample(&mut family, &KEY_SET_FETCHES, [uri, outcome], &ConstCounter::new(number))?;
            }
        }
        let connected = *held(&inner.shared_store);
        let mut family = begin(&mut out, &SHARED_STORE)?;
        if let Some(connected) = connected {
            sample(&mut family, &SHARED_STORE, [], &ConstGauge::new(i64::from(connected)))?;
        }
        let mut family = begin(&mut out, &SHARED_STORE_REQUESTS)?;
        for (outcome, counter) in [("ok", &inner.store_ok), ("failed", &inner.store_failed)] {
            if connected.is_some() {
                sample(&mut family, &SHARED_STORE_REQUESTS, [outcome], &ConstCounter::new(counter.get()))?;
            }
        }
        let mut family = begin(&mut out, &DEPENDENCY_FAILING)?;
        for ((kind, name), failing) in &*held(&inner.dependencies) {
            sample(&mut family, &DEPENDENCY_FAILING, [kind, name], &ConstGauge::new(i64::from(*failing)))?;
        }
        counter(&mut out, &ACCESS_LOG_DROPPED, inner.access_log_dropped.get())
    }
}

fn begin<'s>(out: &'s mut DescriptorEncoder<'_>, descriptor: &Descriptor) -> Result<MetricEncoder<'s>, fmt::Error> {
    let (kind, suffix) = match descriptor.kind {
        "counter" => (MetricType::Counter, "_total"),
        "info" => (MetricType::Info, "_info"),
        _ => (MetricType::Gauge, ""),
    };
    // The encoder adds the suffix to each sample by itself.
    let name = descriptor.name.strip_suffix(suffix).unwrap_or(descriptor.name);
    out.encode_descriptor(name, descriptor.help, None, kind)
}

fn sample<const N: usize>(
    family: &mut MetricEncoder<'_>,
    descriptor: &Descriptor,
    values: [&str; N],
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let labels: Vec<(&str, &str)> = descriptor.labels.iter().copied().zip(values).collect();
    metric.encode(family.encode_family(&labels)?)
}

fn gauge<V: EncodeGaugeValue>(out: &mut DescriptorEncoder<'_>, descriptor: &Descriptor, value: V) -> fmt::Result {
    begin(out, descriptor)?.encode_gauge(&value)
}

fn counter(out: &mut DescriptorEncoder<'_>, descriptor: &Descriptor, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(begin(out, descriptor)?)
}
