//! Every family of metrics: its name, type, labels and what it says.

/// One family of metrics, as scraped and as documented.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// The whole name of its samples.
    pub name: &'static str,
    /// `gauge`, `counter` or `info`.
    pub kind: &'static str,
    /// Names of its labels, in their order.
    pub labels: &'static [&'static str],
    /// What it means, with its unit.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($constant:ident = $kind:literal $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(pub(super) const $constant: Descriptor =
            Descriptor { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*
        /// Every family that [`Metrics::encode`] writes, in its order.
        pub const CATALOGUE: &[Descriptor] = &[$($constant),*];
    };
}

catalogue! {
    BUILD = "info" "wssgate_build_info" ["version"] "The version that runs.";
    WORKERS = "gauge" "wssgate_workers" [] "Threads that serve connections.";
    SOCKETS = "gauge" "wssgate_sockets" [] "Client sockets that are open, handshakes included.";
    SOCKETS_LIMIT = "gauge" "wssgate_sockets_limit" [] "Client sockets that the limit of open files allows.";
    MEMORY = "gauge" "wssgate_memory_bytes" [] "Resident memory, as the budget counts it.";
    MEMORY_BUDGET = "gauge" "wssgate_memory_budget_bytes" []
        "Resident memory from which on no connection is let in; 0: no budget.";
    ENDPOINT_CONNECTIONS = "gauge" "wssgate_endpoint_connections_max" []
        "Connections of this replica to the endpoint that has the most of them.";
    ENDPOINT_LIMIT = "gauge" "wssgate_endpoint_connections_limit" []
        "Connections to one endpoint that the range of local ports allows.";
    SNAPSHOT_VERSION = "gauge" "wssgate_snapshot_version" []
        "Version of the snapshot that serves; counts up with every change that took effect in this process.";
    SNAPSHOT_AGE = "gauge" "wssgate_snapshot_age_seconds" []
        "Seconds since the source was last read whole and compiled; grows while the source cannot be read.";
    COMPILES = "counter" "wssgate_compiles_total" [] "Compilations of all objects into a snapshot.";
    COMPILE_DURATION = "gauge" "wssgate_compile_duration_seconds" [] "Seconds that the last compilation took.";
    ROUTES = "gauge" "wssgate_routes" ["accepted"] "Route objects of this gateway, by whether they are accepted.";
    SETTINGS = "gauge" "wssgate_settings_current" []
        "1; 0 while the settings file is broken and the last good settings stay.";
    SOURCE_PROBLEMS = "gauge" "wssgate_source_problems" []
        "Manifests that cannot be read or parsed; their last good objects keep serving.";
    SOURCE_SKIPPED = "gauge" "wssgate_source_skipped_objects" [] "Objects of kinds that the gateway does not read.";
    SOURCE_STALE = "gauge" "wssgate_source_stale_seconds" []
        "Seconds since a part of the cluster could last be read; 0 while all is read. What was read keeps serving.";
    DEFINITION_DIFFERS = "gauge" "wssgate_definition_differs" []
        "1 if the cluster's CustomResourceDefinition is not that of this version, so that fields may be lost.";
    LEADER = "gauge" "wssgate_leader" [] "1 if this replica writes statuses.";
    STATUS_WRITES = "counter" "wssgate_status_writes_total" ["outcome"]
        "Statuses written to the API server, by outcome (written, failed).";
    CERTIFICATE_EXPIRY = "gauge" "wssgate_certificate_expiry_timestamp_seconds" ["secret" "host"]
        "End of validity of each certificate that is served, seconds since the Unix epoch.";
    CONNECTIONS = "gauge" "wssgate_connections" ["route"] "WebSocket connections that are open now.";
    HANDSHAKES = "counter" "wssgate_handshakes_total" ["outcome" "reason" "route"]
        "Handshakes by outcome (accepted, refused) and reason (none where accepted).";
    AUDITED = "counter" "wssgate_audited_total" ["reason" "route"]
        "Handshakes let through in Audit mode that Enforce would have refused.";
    TICKETS = "counter" "wssgate_tickets_total" ["route" "outcome"]
        "Tickets by outcome (issued, redeemed); refusals are among the handshakes.";
    MESSAGES = "counter" "wssgate_messages_total" ["route" "direction"]
        "Whole data messages relayed, by direction (from_client, from_backend).";
    BYTES = "counter" "wssgate_bytes_total" ["route" "direction"]
        "Payload bytes of data frames relayed, by direction (from_client, from_backend).";
    CLOSES = "counter" "wssgate_closes_total" ["route" "reason" "code" "initiator"]
        "Connections that ended, by reason, close code (none, private for 3000-4999, other) and who ended them.";
    KEY_SET_AGE = "gauge" "wssgate_key_set_age_seconds" ["uri"]
        "Seconds since a key set was last fetched, by its URI without query; absent until it was fetched once.";
    KEY_SET_FETCHES = "counter" "wssgate_key_set_fetches_total" ["uri" "outcome"]
        "Fetches of key sets by outcome (ok, failed).";
    SHARED_STORE = "gauge" "wssgate_shared_store_connected" []
        "1 while the shared store answers and takes writes, 0 while what needs it is refused; absent without one.";
    SHARED_STORE_REQUESTS = "counter" "wssgate_shared_store_requests_total" ["outcome"]
        "Questions of handshakes and calls to the shared store, by outcome (ok, failed); absent without one.";
    DEPENDENCY_FAILING = "gauge" "wssgate_dependency_failing" ["kind" "name"]
        "1 while what handshakes are judged with (kind key_set, service, store) gives no valid answer, else 0; absent \
         until it was asked once.";
    ACCESS_LOG_DROPPED = "counter" "wssgate_access_log_dropped_total" []
        "Access-log lines lost because stdout was not read fast enough or could not be written.";
}
