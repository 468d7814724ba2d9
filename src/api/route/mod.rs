//! `SecureWebSocketRoute`: the custom resource, one file per layer that a connection passes.
//!
//! Field documentation is what `kubectl explain` shows. Numbers of policy have no schema defaults: a default that the
//! API server persists would look like the user's choice; the gateway's defaults are named in the text and live elsewhere.
//! Nothing below a list has a schema default: what the API server adds to an entry makes the list differ from the file.
//! Enumerations have an empty schema description of their own, because it would replace that of the field.
#![allow(clippy::duplicated_attributes, reason = "printer columns repeat the names of their settings")]

pub mod authentication;
pub mod connection;
pub mod content;
pub mod defaults;
pub mod handshake;
pub mod message_rate;
pub mod messages;
pub mod reference;
pub mod rule;
pub mod tls;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema::{HOSTNAME_PATTERN, NAME_PATTERN, rules};
use crate::api::status::RouteStatus;
pub use authentication::Authentication;
pub use connection::Connection;
pub use defaults::Defaults;
pub use handshake::Handshake;
pub use messages::Messages;
pub use rule::Rule;
pub use tls::Tls;

/// What a SecureWebSocketRoute asks for, by the layers that a connection passes: hostnames and tls, rules, handshake,
/// connection, messages.
#[derive(Debug, Clone, PartialEq, Eq, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "wssgate.io",
    version = "v1alpha1",
    kind = "SecureWebSocketRoute",
    plural = "securewebsocketroutes",
    shortname = "swsr",
    category = "wssgate",
    namespaced,
    status = "RouteStatus",
    derive = "PartialEq",
    doc = "A WebSocket endpoint: the hostnames and paths that clients open with wss, the Services behind them, and \
           what the gateway checks of every handshake and every message in between.",
    selectable = ".spec.ingressClassName",
    printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hostnames", description = "Hostnames"),
    printcolumn(
        name = "Auth",
        type_ = "string",
        json_path = ".spec.handshake.authentication.mode",
        description = "Whether the gateway authenticates clients"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the route serves as written"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Age"),
    printcolumn(
        name = "Secret",
        type_ = "string",
        json_path = ".spec.tls.certificateRefs[*].name",
        description = "Secrets with the certificates",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why the route is ready or not",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "!has(self.tls) || !has(self.tls.clientValidation) || !has(self.handshake.origins) || \
         !has(self.handshake.origins.allow) || !('*' in self.handshake.origins.allow)",
        "origin * is refused where client certificates authenticate, because any page could then use them: list the \
         origins in handshake.origins.allow",
    ),
    (
        "!has(self.connection) || !has(self.connection.limits) || !has(self.connection.limits.perSubject) || \
         self.handshake.authentication.mode == 'AnyOf' || (has(self.tls) && has(self.tls.clientValidation))",
        "connection.limits.perSubject needs an authenticated client: use mode AnyOf or tls.clientValidation, or \
         remove it",
    ),
])))]
pub struct RouteSpec {
    /// Name of the IngressClass (spec.controller wssgate.io/ingress-controller) whose gateway serves the route. If absent,
    /// the gateway of the cluster's default IngressClass does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub ingress_class_name: Option<String>,
    /// Hostnames that clients name in TLS (SNI) and in Host: exact, or with a star in place of the first label. A
    /// hostname belongs to one namespace; the oldest route wins.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253), pattern(HOSTNAME_PATTERN)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules(&[(
            "self.all(host, !isIP(host))", "hostnames are names, not addresses"
        )]))
    )]
    pub hostnames: Vec<String>,
    /// TLS of the hostnames: certificates, versions, client certificates. A route without it joins the hosts of
    /// another route of its namespace, or is served with the gateway's default certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Paths and the Services behind them. All rules share the policy below; use another route for another policy.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rules: Vec<Rule>,
    /// What the gateway checks of the HTTP upgrade, before a connection is opened.
    pub handshake: Handshake,
    /// What the gateway checks while a connection is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// What the gateway checks of every message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
}
