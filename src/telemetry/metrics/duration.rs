//! How long handshakes, connections and heartbeats take, over all routes.
//!
//! A gateway can have ten thousand routes, and a histogram has a dozen series: a `route` label would multiply them for a
//! question that the access log answers. Only the time to connect to a backend is kept for each route
//! ([`RouteMetrics::backend_connected`](super::RouteMetrics::backend_connected)), because nothing else shows whose
//! backend is slow. An observation takes a lock, so none is made for a frame or a message.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::label::{Peer, Stage};
use super::series::declare;

/// A family of histograms with bounds of its own.
pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Bounds in seconds, from a resumed TLS handshake on a fast machine to the longest time-outs.
const HANDSHAKE: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds in seconds: a second, ten, a minute, five, fifteen, an hour, four, twelve, a day.
const CONNECTION: [f64; 9] = [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// Bounds in seconds, from a peer in the same rack to a phone in a tunnel.
const ROUND_TRIP: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: Peer,
}

/// The histograms, each looked up once.
#[derive(Debug)]
pub(super) struct Durations {
    tls: Histogram,
    judgement: Histogram,
    backend: Histogram,
    connection: Histogram,
    client_round_trip: Histogram,
    backend_round_trip: Histogram,
}

impl Durations {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        let stages: Histograms<OfStage> = declare(
            registry,
            "handshake_duration_seconds",
            "Time that a completed stage of a handshake took: tls (the TLS handshake), judgement (request, policies and \
             credentials), backend (connecting and the backend's answer)",
            Family::new_with_constructor(|| Histogram::new(HANDSHAKE)),
        );
        let connection = declare(
            registry,
            "connection_duration_seconds",
            "Time for which a closed WebSocket connection was open",
            Histogram::new(CONNECTION),
        );
        let round_trips: Histograms<OfPeer> = declare(
            registry,
            "heartbeat_round_trip_seconds",
            "Time from a heartbeat's Ping to its Pong, by peer (client, backend)",
            Family::new_with_constructor(|| Histogram::new(ROUND_TRIP)),
        );
        let stage = |stage| stages.get_or_create_owned(&OfStage { stage });
        let round_trip = |peer| round_trips.get_or_create_owned(&OfPeer { peer });
        Self {
            tls: stage(Stage::Tls),
            judgement: stage(Stage::Judgement),
            backend: stage(Stage::Backend),
            connection,
            client_round_trip: round_trip(Peer::Client),
            backend_round_trip: round_trip(Peer::Backend),
        }
    }

    /// A connection was open for so long.
    pub(super) fn connection(&self, took: Duration) {
        self.connection.observe(took.as_secs_f64());
    }

    /// A peer answered a heartbeat after so long.
    pub(super) fn round_trip(&self, peer: Peer, took: Duration) {
        let histogram = match peer {
            Peer::Client => &self.client_round_trip,
            Peer::Backend => &self.backend_round_trip,
        };
        histogram.observe(took.as_secs_f64());
    }
}

impl Metrics {
    /// A stage of a handshake took so long. To be called once for each stage that was passed.
    pub fn handshake_stage(&self, stage: Stage, took: Duration) {
        let durations = &self.0.durations;
        let histogram = match stage {
            Stage::Tls => &durations.tls,
            Stage::Judgement => &durations.judgement,
            Stage::Backend => &durations.backend,
        };
        histogram.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    #[test]
    fn each_stage_of_a_handshake_has_its_own_buckets() {
        let metrics = Metrics::new();
        metrics.handshake_stage(Stage::Tls, Duration::from_micros(1500));
        metrics.handshake_stage(Stage::Tls, Duration::from_secs(60));
        metrics.handshake_stage(Stage::Backend, Duration::from_millis(1));
        has(&metrics, r#"wssgate_handshake_duration_seconds_bucket{le="0.001",stage="tls"} 0"#);
        has(&metrics, r#"wssgate_handshake_duration_seconds_bucket{le="0.0025",stage="tls"} 1"#);
        has(&metrics, r#"wssgate_handshake_duration_seconds_bucket{le="+Inf",stage="tls"} 2"#);
        has(&metrics, r#"wssgate_handshake_duration_seconds_count{stage="judgement"} 0"#);
        has(&metrics, r#"wssgate_handshake_duration_seconds_bucket{le="0.001",stage="backend"} 1"#);
        has(&metrics, r#"wssgate_handshake_duration_seconds_sum{stage="backend"} 0.001"#);
    }

    #[test]
    fn what_a_connection_took_is_counted_over_all_routes() {
        let metrics = Metrics::new();
        for route in ["shop/a", "shop/b"] {
            let route = metrics.route(route);
            route.connection_lasted(Duration::from_secs(100));
            route.heartbeat_answered(Peer::Client, Duration::from_millis(3));
        }
        has(&metrics, r#"wssgate_connection_duration_seconds_bucket{le="60.0"} 0"#);
        has(&metrics, r#"wssgate_connection_duration_seconds_bucket{le="300.0"} 2"#);
        has(&metrics, "wssgate_connection_duration_seconds_sum 200.0");
        has(&metrics, r#"wssgate_heartbeat_round_trip_seconds_count{peer="client"} 2"#);
        has(&metrics, r#"wssgate_heartbeat_round_trip_seconds_count{peer="backend"} 0"#);
    }
}
