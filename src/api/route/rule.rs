//! Rules of a route: which paths go to which Services, and how.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{BackendRef, ConfigMapRef};
use crate::api::scalar::Duration;
use crate::api::schema::{
    HOSTNAME_PATTERN, LABEL_PATTERN, TOKEN_PATTERN, backend_timeout_rules, path_rules, rules, without_defaults,
};

/// Paths and the Services that serve them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Name of the rule, unique within the route; status and logs speak of it.
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub name: String,
    /// Paths of the rule; any one matches. Every path if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Option<Vec<RouteMatch>>,
    /// Services that take the connections, by their weights.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backend_refs: Vec<BackendRef>,
    /// How an endpoint is chosen; LeastConnections if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// TLS toward the endpoints; needed where the Service's port has appProtocol kubernetes.io/wss.
    #[serde(default, rename = "backendTLS", skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<BackendTls>,
    /// How long an endpoint may take until the connection is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

/// How long an endpoint may take. The time for the whole handshake grows by what these exceed their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Until an endpoint accepts the TCP connection, from 100ms to 60s; then the next endpoint is tried. 3s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = backend_timeout_rules()))]
    pub connect: Option<Duration>,
    /// Until an endpoint answers the upgrade, from 100ms to 60s; then the client gets 504. 10s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = backend_timeout_rules()))]
    pub upgrade: Option<Duration>,
}

/// What a handshake must look like to belong to a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    /// The path of the request.
    pub path: PathMatch,
}

/// Paths, compared byte for byte. Exact before PathPrefix, longest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct PathMatch {
    /// Exact: this path only. PathPrefix: this path and whole segments below it, so that /chat takes /chat/room but
    /// not /chatter. PathPrefix if absent.
    #[serde(default, rename = "type")]
    pub kind: PathMatchKind,
    /// The path, as in /chat.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = path_rules()))]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum PathMatchKind {
    /// The whole path.
    Exact,
    /// Whole segments from the start.
    #[default]
    PathPrefix,
}

/// How an endpoint is chosen among those that are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(self.type == 'ConsistentHash') == has(self.consistentHash)",
    "consistentHash belongs to type ConsistentHash: set both or neither"
)])))]
pub struct LoadBalancer {
    /// LeastConnections: the endpoint with the fewest connections of this replica. RoundRobin: each in turn.
    /// ConsistentHash: the same client keeps its endpoint while it lives.
    #[serde(rename = "type")]
    pub kind: LoadBalancerKind,
    /// What is hashed, for type ConsistentHash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
}

/// Ways to choose an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum LoadBalancerKind {
    /// The fewest connections.
    LeastConnections,
    /// Each in turn.
    RoundRobin,
    /// By a hash of something of the client's.
    ConsistentHash,
}

/// What is hashed to choose an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(self.type == 'SourceIP') != has(self.name)",
    "name is the name of the cookie or header: set it for Cookie and Header, leave it out for SourceIP"
)])))]
pub struct ConsistentHash {
    /// SourceIP: the client's address. Cookie or Header: the value of the one that name names.
    #[serde(rename = "type")]
    pub kind: ConsistentHashKind,
    /// Name of the cookie or header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern(TOKEN_PATTERN))]
    pub name: Option<String>,
}

/// What of a client is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ConsistentHashKind {
    /// A cookie's value.
    Cookie,
    /// A header's value.
    Header,
    /// The address.
    #[serde(rename = "SourceIP")]
    SourceIp,
}

/// How the endpoints' certificates are verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0) != has(self.wellKnownCACertificates)",
    "set either caCertificateRefs (with at least one entry) or wellKnownCACertificates: System"
)])))]
pub struct BackendTls {
    /// The name that is sent as SNI and that the endpoint's certificate must be valid for.
    #[schemars(length(min = 1, max = 253), pattern(HOSTNAME_PATTERN), extend("x-kubernetes-validations" = rules(&[(
        "!self.startsWith('*')", "hostname is one name, without a star"
    )])))]
    pub hostname: String,
    /// ConfigMaps with the certificate authorities in PEM, key ca.crt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub ca_certificate_refs: Option<Vec<ConfigMapRef>>,
    /// System: the public certificate authorities that come with the gateway.
    #[serde(default, rename = "wellKnownCACertificates", skip_serializing_if = "Option::is_none")]
    pub well_known_ca_certificates: Option<WellKnownCaCertificates>,
}

/// Sets of certificate authorities that need no ConfigMap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum WellKnownCaCertificates {
    /// The public ones.
    System,
}
