//! Rates of messages: how many, how many bytes, and what happens beyond them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::scalar::{Duration, Size};
use crate::api::schema::{byte_rate_rules, rate_rules, size_rules};

/// A limit of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rate_rules()))]
pub struct RateLimit {
    /// Messages per interval.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: i32,
    /// The interval, from 1s to 1h.
    pub interval: Duration,
    /// Messages at once after a quiet time; at least count, and count if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<i32>,
    /// Connection: each connection has its own limit. Subject: all connections of one authenticated subject share it,
    /// over all replicas with a shared store, else on each replica; a connection without a subject has its own.
    /// Connection if absent.
    #[serde(default)]
    pub scope: RateScope,
    /// What happens to the first message beyond the limit, of which nothing goes on. Close: the connection is closed
    /// with 1008 (1011 for messages of a backend). Throttle: the peer is not read until the message may pass. Drop: the
    /// message is left out and counted; control frames pass. If absent, Close for clients and Throttle for backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exceeded: Option<OnExceeded>,
}

/// Who shares a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum RateScope {
    /// No other connection.
    #[default]
    Connection,
    /// The connections of one subject.
    Subject,
}

/// What happens beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum OnExceeded {
    /// The connection is closed.
    Close,
    /// The peer waits.
    Throttle,
    /// The message is left out.
    Drop,
}

/// A limit of payload bytes of messages, for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = byte_rate_rules()))]
pub struct ByteRateLimit {
    /// Bytes per interval, as a number or as 1Mi.
    #[schemars(extend("x-kubernetes-validations" = size_rules()))]
    pub size: Size,
    /// The interval, from 1s to 1h.
    pub interval: Duration,
    /// Bytes at once after a quiet time; at least size, and size if absent. A message that is larger passes when the
    /// whole burst is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = size_rules()))]
    pub burst: Option<Size>,
    /// What happens to the first message that does not fit, of which nothing goes on. Throttle: the peer is not read
    /// until there is room, also within a message. Close: the connection is closed with 1008 (1011 for messages of a
    /// backend). Drop: the message is left out and counted; control frames pass. Throttle if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exceeded: Option<OnExceeded>,
}
