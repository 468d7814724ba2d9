//! What this process is and can carry: version, workers, settings, capacity, access log.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::series::declare;
use super::{Metrics, count};

/// What bounds the number of connections, and how far it is used, for [`Metrics::capacity`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Client sockets that are open.
    pub sockets: u64,
    /// The most of them.
    pub sockets_limit: u64,
    /// Resident bytes.
    pub resident: u64,
    /// Bytes of the kernel's socket buffers.
    pub buffered: u64,
    /// Bytes in use, by whichever figure is the larger.
    pub used: u64,
    /// Bytes in use above which new connections are refused; 0: no budget.
    pub budget: u64,
    /// Connections of the endpoint that has the most.
    pub endpoint: u64,
    /// The most that one endpoint can have.
    pub endpoint_limit: u64,
}

type Number = Gauge<u64, AtomicU64>;

#[derive(Debug)]
pub(super) struct Process {
    workers: Gauge,
    sockets: Number,
    sockets_limit: Number,
    memory: Number,
    buffered: Number,
    used: Number,
    memory_budget: Number,
    endpoint: Number,
    endpoint_limit: Number,
    held: Gauge,
    config_reloaded: Gauge,
    access_log_lines_dropped: Counter,
}

impl Process {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the running gateway", version);
        let process = Self {
            workers: declare(registry, "workers", "Worker threads that serve connections", Gauge::default()),
            sockets: declare(
                registry,
                "client_sockets",
                "Open client sockets, including those that are still in a handshake",
                Number::default(),
            ),
            sockets_limit: declare(
                registry,
                "client_sockets_limit",
                "Maximum of client sockets that the limit of open files allows",
                Number::default(),
            ),
            memory: declare(registry, "resident_memory_bytes", "Resident memory of the process", Number::default()),
            buffered: declare(
                registry,
                "socket_buffer_bytes",
                "Memory of the kernel's socket buffers, by the control group's count or else estimated",
                Number::default(),
            ),
            used: declare(
                registry,
                "memory_used_bytes",
                "Memory that the budget is compared with: resident memory and socket buffers, or the control group's count",
                Number::default(),
            ),
            memory_budget: declare(
                registry,
                "memory_budget_bytes",
                "Memory in use above which new connections are refused; 0 without a budget",
                Number::default(),
            ),
            endpoint: declare(
                registry,
                "busiest_endpoint_connections",
                "Connections of this replica to the endpoint that has the most",
                Number::default(),
            ),
            endpoint_limit: declare(
                registry,
                "endpoint_connections_limit",
                "Maximum of connections to one endpoint that the range of local ports allows",
                Number::default(),
            ),
            held: declare(
                registry,
                "held_message_bytes",
                "Payload of messages that are held until they are whole, because format or schemas judge them",
                Gauge::default(),
            ),
            config_reloaded: declare(
                registry,
                "config_last_reload_successful",
                "1 if the settings file was valid when it was last read, 0 if not; the last valid settings stay in use",
                Gauge::default(),
            ),
            access_log_lines_dropped: declare(
                registry,
                "access_log_lines_dropped",
                "Access-log lines lost because stdout was not read fast enough or could not be written",
                Counter::default(),
            ),
        };
        process.config_reloaded.set(1);
        process
    }
}

impl Metrics {
    /// So many threads serve connections.
    pub fn workers(&self, workers: usize) {
        self.0.process.workers.set(count(workers));
    }

    /// The settings file was read, and was valid or not.
    pub fn config_reloaded(&self, successful: bool) {
        self.0.process.config_reloaded.set(successful.into());
    }

    /// Replaces what is known of the capacity.
    pub fn capacity(&self, capacity: Capacity) {
        let process = &self.0.process;
        process.sockets.set(capacity.sockets);
        process.sockets_limit.set(capacity.sockets_limit);
        process.memory.set(capacity.resident);
        process.buffered.set(capacity.buffered);
        process.used.set(capacity.used);
        process.memory_budget.set(capacity.budget);
        process.endpoint.set(capacity.endpoint);
        process.endpoint_limit.set(capacity.endpoint_limit);
    }

    /// Where the bytes of messages are counted that are held until they are whole.
    pub fn held_message_bytes(&self) -> Gauge {
        self.0.process.held.clone()
    }

    /// So many access-log lines were lost.
    pub fn access_log_lines_dropped(&self, lines: u64) {
        self.0.process.access_log_lines_dropped.inc_by(lines);
    }
}
