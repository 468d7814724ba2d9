//! The HTTP upgrade: who may open a connection, from where, and what the answer carries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authentication::Authentication;
use crate::api::scalar::{Duration, Size};
use crate::api::schema::{
    NETWORK_PATTERN, ORIGIN_PATTERN, TOKEN_PATTERN, VALUE_PATTERN, head_size_rules, rate_rules, rules,
};

/// What is judged before a connection is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "!has(self.origins) || !has(self.origins.allow) || !('*' in self.origins.allow) || \
     !has(self.authentication.methods) || self.authentication.methods.all(m, \
     !(has(m.jwt) && has(m.jwt.extractFrom) && m.jwt.extractFrom.exists(e, e.type == 'Cookie')) && \
     !(has(m.external) && has(m.external.allowedHeaders) && \
     m.external.allowedHeaders.exists(h, h.lowerAscii() == 'cookie')))",
    "origin * is refused where cookies authenticate, because any page could then use them: list the origins"
)])))]
pub struct Handshake {
    /// Networks from which clients may connect. Every network if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Networks>,
    /// Pages (RFC 6454 origins) that may open connections. If absent only pages of the route's own host may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origins: Option<Origins>,
    /// Subprotocols (Sec-WebSocket-Protocol) that may be used; a handshake that offers none of them is refused. If
    /// absent all that the client offers are passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 64), pattern(TOKEN_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub subprotocols: Option<Vec<String>>,
    /// How clients are authenticated. It must be set, even to mode Anonymous, so that an open route is a decision.
    #[schemars(required)]
    pub authentication: Option<Authentication>,
    /// Handshakes per client address (IPv6: one /64), counted by each replica. No limit if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Headers of the gateway's HTTP answers, in addition to its secure default headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<ResponseHeaders>,
    /// Headers of the request that reach the backend although the gateway withholds such by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<RequestHeaders>,
    /// The largest head of a request, with its target and all its headers, in bytes or as 32Ki; from 1Ki to 64Ki, 16Ki if
    /// absent. Beyond it 431. The target may take half of it, beyond which it is 414.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = head_size_rules()))]
    pub max_head_size: Option<Size>,
}

/// Headers of requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestHeaders {
    /// Names of headers that backends take for a statement about the client, such as X-Auth-Token. The gateway withholds
    /// them, because a client can write what it likes there: list one only if the backend verifies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), pattern(TOKEN_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allow: Option<Vec<String>>,
}

/// Networks of clients; deny wins over allow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Networks {
    /// Address ranges (CIDR) that may connect, such as 203.0.113.0/24 or 2001:db8::/32. Every address if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 128),
        inner(length(min = 1, max = 43), pattern(NETWORK_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = rules(&[(
            "self.all(network, isCIDR(network))", "each entry is an address range such as 203.0.113.0/24 or 2001:db8::/32"
        )]))
    )]
    pub allow: Option<Vec<String>>,
    /// Address ranges (CIDR) that may not connect, even where allow names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 128),
        inner(length(min = 1, max = 43), pattern(NETWORK_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = rules(&[(
            "self.all(network, isCIDR(network))", "each entry is an address range such as 203.0.113.0/24 or 2001:db8::/32"
        )]))
    )]
    pub deny: Option<Vec<String>>,
}

/// Origins: what a browser says of the page that opens the connection. This is what keeps a foreign page from using
/// your users' cookies (cross-site WebSocket hijacking).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origins {
    /// Origins such as https://app.example.com or https://*.example.com (one label), or the single entry * for any.
    /// If absent: https on the route's own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 300), pattern(ORIGIN_PATTERN)),
        extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = rules(&[(
            "!('*' in self) || size(self) == 1", "* allows every origin already: remove it or the other entries"
        )]))
    )]
    pub allow: Option<Vec<String>>,
    /// Whether a handshake without an Origin header, which no browser sends, is let through: Allow or Deny. If absent
    /// Allow, but Deny where cookies or client certificates authenticate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingOrigin>,
    /// Enforce: refuse. Audit: count and log, but let through. Enforce if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What is done with a handshake without Origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum MissingOrigin {
    /// The handshake goes on.
    Allow,
    /// The handshake is refused.
    Deny,
}

/// Whether something that is not allowed is refused, or only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It is counted and logged, but let through.
    Audit,
}

/// A limit of handshakes, of the shape of the limits of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rate_rules()))]
pub struct RateLimit {
    /// Handshakes per interval.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: i32,
    /// The interval, from 1s to 1h.
    pub interval: Duration,
    /// Handshakes at once after a quiet time; at least count, and count if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<i32>,
}

/// Headers of HTTP answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResponseHeaders {
    /// Headers to add, or to replace where the gateway sets the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub set: Option<Vec<Header>>,
    /// Names of headers of the backend's 101 that reach the client, such as Set-Cookie. None if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), pattern(TOKEN_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub from_backend: Option<Vec<String>>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "!(self.name.lowerAscii() in ['connection', 'upgrade', 'host', 'content-length', 'transfer-encoding', \
     'set-cookie']) && !self.name.lowerAscii().startsWith('sec-websocket-')",
    "this header belongs to the protocol or the application and cannot be set here: remove it"
)])))]
pub struct Header {
    /// Name of the header, in any case.
    #[schemars(length(min = 1, max = 64), pattern(TOKEN_PATTERN))]
    pub name: String,
    /// Value of the header: visible ASCII, spaces and tabs.
    #[schemars(length(max = 2048), pattern(VALUE_PATTERN))]
    pub value: String,
}
