//! Every frame: sizes, types, rates, schemas, compression.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::content::{Format, MessageSchema, Unmatched};
use super::handshake::Mode;
use super::message_rate::{ByteRateLimit, RateLimit};
use crate::api::scalar::{Duration, Size};
use crate::api::schema::{backend_size_rules, client_size_rules, message_timeout_rules};

/// What is judged of every message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Messages {
    /// Enforce: refuse. Audit: count and log, but let through; sizes, framing and UTF-8 are enforced always. Enforce
    /// if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Messages that clients send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_client: Option<FromClient>,
    /// Messages that backends send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_backend: Option<FromBackend>,
    /// Compression toward clients (RFC 7692). Off if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// What clients may send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromClient {
    /// Types of messages that may pass, Text and Binary; both if absent. Another one closes with 1003.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub types: Option<Vec<MessageType>>,
    /// The largest message over all its fragments, in bytes or as 64Ki; at most 16Mi, 64Ki if absent. A larger one
    /// closes with 1009 before its content is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = client_size_rules()))]
    pub max_size: Option<Size>,
    /// The most frames of one message (RFC 6455 section 5.4). A message with more closes with 1008. If absent, one for
    /// each 256 bytes of maxSize, and 1024 at the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_fragments: Option<i32>,
    /// How long a message may take from its first byte to its last, from 1s to 1h, and a second more for each KiB of it
    /// that arrives. A slower one closes with 1008. 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = message_timeout_rules()))]
    pub message_timeout: Option<Duration>,
    /// Messages per interval. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Bytes per interval. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_rate_limit: Option<ByteRateLimit>,
    /// How JSON documents stand in text messages: JSON, JSONRecords (SignalR) or EngineIO (Socket.IO). If it or schemas is
    /// set, every text message is read whole before any of it goes on: another one closes with 1007. JSON if absent. Binary
    /// messages are not judged; types says whether they pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// JSON Schemas of text messages. The first whose selector holds judges a document; one that does not satisfy it closes
    /// with 1008 before any of it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub schemas: Option<Vec<MessageSchema>>,
    /// What happens to a document that no selector takes: Deny (close with 1008) or Allow; Deny if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<Unmatched>,
    /// What happens to a connection whose first messages are the beginning of a raw protocol such as SSH, TLS or HTTP: Deny
    /// (close with 1008), Audit (count and log) or Allow; Allow if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<Tunnels>,
    /// Protocols that the route is for: tunnels does not apply to them. None if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "set"))]
    pub allow_protocols: Option<Vec<Protocol>>,
}

/// What backends may send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromBackend {
    /// Types of messages that may pass, Text and Binary; both if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub types: Option<Vec<MessageType>>,
    /// The largest message over all its fragments, in bytes or as 16Mi; at most 1Gi, 16Mi if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = backend_size_rules()))]
    pub max_size: Option<Size>,
    /// The most frames of one message (RFC 6455 section 5.4). A message with more closes with 1011. If absent, one for
    /// each 256 bytes of maxSize, and 65536 at the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_fragments: Option<i32>,
    /// How long a message may take from its first byte to its last, from 1s to 1h, and a second more for each KiB of it
    /// that arrives. A slower one closes with 1011. 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = message_timeout_rules()))]
    pub message_timeout: Option<Duration>,
    /// Messages per interval. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Bytes per interval. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_rate_limit: Option<ByteRateLimit>,
    /// How JSON documents stand in text messages: JSON, JSONRecords (SignalR) or EngineIO (Socket.IO). If it or schemas is
    /// set, every text message is read whole before any of it goes on: another one closes with 1011. JSON if absent. Binary
    /// messages are not judged; types says whether they pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// JSON Schemas of text messages. The first whose selector holds judges a document; one that does not satisfy it closes
    /// with 1011 before any of it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub schemas: Option<Vec<MessageSchema>>,
    /// What happens to a document that no selector takes: Deny (close with 1011) or Allow; Deny if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<Unmatched>,
    /// What happens to a connection whose first messages are the beginning of a raw protocol such as SSH, TLS or HTTP: Deny
    /// (close with 1011), Audit (count and log) or Allow; Allow if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<Tunnels>,
    /// Protocols that the route is for: tunnels does not apply to them. None if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "set"))]
    pub allow_protocols: Option<Vec<Protocol>>,
}

/// A type of message (RFC 6455 section 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum MessageType {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

/// What happens to tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Tunnels {
    /// The connection is closed.
    Deny,
    /// It is counted and logged.
    Audit,
    /// Nothing.
    Allow,
}

/// A raw protocol that can be recognised in messages, and MQTT and STOMP, which are never taken for tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(description = "")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Amqp,
    Ftp,
    Http1,
    Http2,
    Imap,
    Mongodb,
    Mqtt,
    Mysql,
    Openvpn,
    Pop3,
    Postgresql,
    Rdp,
    Redis,
    Rfb,
    Smb,
    Smtp,
    Smux,
    Socks4,
    Socks5,
    Ssh,
    Stomp,
    Tls,
    Wireguard,
    Yamux,
}

/// Compression toward clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compression {
    /// "Off" (quotes needed by some tools) or PermessageDeflate (RFC 7692, without context takeover).
    pub mode: CompressionMode,
}

/// Kinds of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum CompressionMode {
    /// None: offers of clients are declined.
    Off,
    /// RFC 7692.
    PermessageDeflate,
}
