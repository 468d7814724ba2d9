//! The live socket: how many, how long, how it is known to be alive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::Duration;

/// What is judged while a connection lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Close after this time without a text or binary message in either direction. Off if absent or 0s: the heartbeat
    /// finds dead peers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// Pings by the gateway, which find dead peers and keep NAT and load balancers from forgetting live ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// Close when a connection is so old, less a random tenth so that clients do not all return at once. Off if
    /// absent or 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,
    /// What happens when the credential that admitted the connection expires: Close or Keep; Close if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_credential_expiry: Option<OnCredentialExpiry>,
}

/// Connections of the route at a time, counted by each replica of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// All connections; 10000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub total: Option<i32>,
    /// Connections of one client address (IPv6: one /64). No limit if absent, because behind a load balancer that hides
    /// addresses all clients have one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub per_address: Option<i32>,
    /// Connections of one authenticated subject: that of the credential, else that of the client certificate. No limit if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub per_subject: Option<i32>,
}

/// Pings that the gateway sends of its own (RFC 6455 section 5.5.2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// Silence after which a ping is sent; 30s if absent, 0s switches the heartbeat off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Pings without any byte in return after which the connection is closed; 2 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub missed: Option<i32>,
    /// Whether the backend is pinged as well; false if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<bool>,
}

/// What happens to a connection whose credential expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum OnCredentialExpiry {
    /// It is closed with 1008.
    Close,
    /// It lives on.
    Keep,
}
