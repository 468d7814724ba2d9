//! The status of a route: conditions in Gateway API's vocabulary.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The status of a route.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"conditions": [
    {
        "type": "Accepted",
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z"
    },
    {
        "type": "Ready",
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z"
    }
]}))]
pub struct RouteStatus {
    /// The metadata.generation that the status is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The controller that wrote the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub controller_name: Option<String>,
    /// Where clients reach the route: the addresses of the gateway's Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Option<Vec<Address>>,
    /// Conditions of the route: Accepted, ResolvedRefs, Programmed, CertificateReady, Ready (all of them), Stalled (only
    /// you can fix it) and warnings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Option<Vec<Condition>>,
}

/// An address of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// IPAddress or Hostname.
    #[serde(rename = "type")]
    pub kind: AddressKind,
    /// The address or name.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

/// Kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum AddressKind {
    /// An IPv4 or IPv6 address.
    #[serde(rename = "IPAddress")]
    IpAddress,
    /// A DNS name.
    Hostname,
}

/// Types of conditions, in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The spec is valid and the gateway takes the route.
    Accepted,
    /// Every object that the route names exists and may be named.
    ResolvedRefs,
    /// The data plane serves it.
    Programmed,
    /// Every certificate is there, valid and covers its hostnames.
    CertificateReady,
    /// The sum of those above, for `kubectl wait`.
    Ready,
    /// Only the user can fix it (kstatus).
    Stalled,
    /// Warning: a dependency of handshakes cannot be reached now.
    Degraded,
    /// Warning: no schema validates the messages of clients.
    MessagesUnvalidated,
    /// Warning: any page may open connections.
    AnyOrigin,
    /// Warning: the gateway does not authenticate clients.
    Anonymous,
    /// Warning: something is only audited, not enforced.
    AuditMode,
    /// Warning: a limit is wider than its default.
    LimitsRelaxed,
    /// Warning: a field sets more than a ceiling of the gateway's settings, which holds in its place.
    CeilingApplied,
    /// Warning: several replicas share no store, so that only the replica that issued a ticket redeems it.
    TicketsUnshared,
}

impl ConditionType {
    /// The text in `conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::CertificateReady => "CertificateReady",
            Self::Ready => "Ready",
            Self::Stalled => "Stalled",
            Self::Degraded => "Degraded",
            Self::MessagesUnvalidated => "MessagesUnvalidated",
            Self::AnyOrigin => "AnyOrigin",
            Self::Anonymous => "Anonymous",
            Self::AuditMode => "AuditMode",
            Self::LimitsRelaxed => "LimitsRelaxed",
            Self::CeilingApplied => "CeilingApplied",
            Self::TicketsUnshared => "TicketsUnshared",
        }
    }
}

/// Conditions that report a cause, each with the status that does; the others repeat them.
pub const CAUSES: [(ConditionType, &str); 4] = [
    (ConditionType::Accepted, "False"),
    (ConditionType::ResolvedRefs, "False"),
    (ConditionType::CertificateReady, "False"),
    (ConditionType::Degraded, "True"),
];

/// Reasons of conditions: Gateway API's words where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionReason {
    /// `Accepted=True`.
    Accepted,
    /// `ResolvedRefs=True`.
    ResolvedRefs,
    /// `Programmed=True`.
    Programmed,
    /// `Ready=True`, and `CertificateReady=True`.
    Ready,
    /// Not judged yet.
    Pending,
    /// A value that breaks a rule of the API; the message names the field and the fix.
    Invalid,
    /// A field or value that this build does not implement.
    UnsupportedValue,
    /// A field that the API does not have.
    UnknownField,
    /// Another route owns the hostname, or carries its tls.
    HostnameConflict,
    /// Another route has the same hostname and path.
    PathConflict,
    /// The namespace may not use this hostname.
    HostnameNotPermitted,
    /// The IngressClass does not exist or belongs to another controller.
    NoMatchingClass,
    /// A reference to another namespace without ReferenceGrant.
    RefNotPermitted,
    /// A kind that cannot be referred to here.
    InvalidKind,
    /// The Service or its port does not exist.
    BackendNotFound,
    /// The Service's port speaks a protocol that a WebSocket backend does not.
    UnsupportedProtocol,
    /// The Service has no endpoint that takes connections. In a cluster only where addresses were left out or every weight is
    /// 0: endpoints that come and go write no status.
    NoEndpoints,
    /// The Secret or ConfigMap does not exist.
    RefNotFound,
    /// The gateway has no right to read the Secret or ConfigMap; the message names the right.
    RefNotReadable,
    /// The Secret is not of the type, or lacks the key, that is needed.
    InvalidCertificateRef,
    /// The Secret's key does not belong to its certificate, or either cannot be read.
    InvalidCertificate,
    /// The key set cannot be read, has no key that verifies, or stands in an object of another type.
    InvalidKeySet,
    /// The schema of messages cannot be read, or could cost too much; the message says where.
    InvalidSchema,
    /// The certificate does not cover a hostname.
    HostnameMismatch,
    /// The certificate is not valid yet or any more; it is served anyway.
    Expired,
    /// The certificate is self-signed; it is served anyway.
    SelfSigned,
    /// The chain is not in order, or lacks an issuer; it is served anyway.
    ChainIncomplete,
    /// cert-manager is issuing the certificate, or has not begun.
    Issuing,
    /// cert-manager's temporary certificate; it is served until the real one is there.
    Temporary,
    /// The certificate is near its end, and nobody has renewed it.
    Expiring,
    /// The certificate is served, but cert-manager cannot renew it: its last attempt failed, or it has been issuing for
    /// minutes, as where the issuer does not exist.
    RenewalFailing,
    /// cert-manager could not issue the certificate, or is not there; it tries again.
    Failed,
    /// The Certificate or Secret belongs to another owner, or two routes want one Secret from different issuers.
    CertificateConflict,
    /// The certificate's key is weaker than the gateway accepts.
    WeakKey,
    /// The last good version keeps serving because the new one does not compile.
    LastGood,
    /// A key set cannot be fetched.
    KeysUnavailable,
    /// A Service that judges handshakes gives no valid answer.
    ServiceUnavailable,
    /// The store that all replicas share cannot be reached.
    StoreUnavailable,
    /// A backend leads back to the gateway.
    LoopDetected,
    /// A warning, chosen by the user.
    Configured,
    /// A field sets more than a ceiling of the gateway's settings.
    AboveCeiling,
    /// The namespace has as many routes, hostnames or key sets as a ceiling of the gateway's settings lets it have.
    CeilingReached,
    /// The gateway's settings have no `sharedStore`, and there are several replicas.
    NoSharedStore,
}

impl ConditionReason {
    /// The text in `conditions[].reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::Pending => "Pending",
            Self::Invalid => "Invalid",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::UnknownField => "UnknownField",
            Self::HostnameConflict => "HostnameConflict",
            Self::PathConflict => "PathConflict",
            Self::HostnameNotPermitted => "HostnameNotPermitted",
            Self::NoMatchingClass => "NoMatchingClass",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::BackendNotFound => "BackendNotFound",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::NoEndpoints => "NoEndpoints",
            Self::RefNotFound => "RefNotFound",
            Self::RefNotReadable => "RefNotReadable",
            Self::InvalidCertificateRef => "InvalidCertificateRef",
            Self::InvalidCertificate => "InvalidCertificate",
            Self::InvalidKeySet => "InvalidKeySet",
            Self::InvalidSchema => "InvalidSchema",
            Self::HostnameMismatch => "HostnameMismatch",
            Self::Expired => "Expired",
            Self::SelfSigned => "SelfSigned",
            Self::ChainIncomplete => "ChainIncomplete",
            Self::Issuing => "Issuing",
            Self::Temporary => "Temporary",
            Self::Expiring => "Expiring",
            Self::RenewalFailing => "RenewalFailing",
            Self::Failed => "Failed",
            Self::CertificateConflict => "CertificateConflict",
            Self::WeakKey => "WeakKey",
            Self::LastGood => "LastGood",
            Self::KeysUnavailable => "KeysUnavailable",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::LoopDetected => "LoopDetected",
            Self::Configured => "Configured",
            Self::AboveCeiling => "AboveCeiling",
            Self::CeilingReached => "CeilingReached",
            Self::NoSharedStore => "NoSharedStore",
        }
    }
}
