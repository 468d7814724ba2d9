//! How clients are authenticated: methods, of which any one admits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{KeyRef, ServiceRef};
use crate::api::scalar::Duration;
use crate::api::schema::{LABEL_PATTERN, PREFIX_PATTERN, TOKEN_PATTERN, path_rules, rules};

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    (
        "(self.mode == 'AnyOf') == has(self.methods)",
        "methods belong to mode AnyOf: give at least one, or write mode: Anonymous without methods",
    ),
    (
        "!has(self.methods) || self.methods.exists(m, m.type != 'Ticket')",
        "a ticket is issued for the credential of another method: add a method of type JWT or External",
    ),
    (
        "!has(self.methods) || self.methods.filter(m, m.type == 'Ticket').size() <= 1",
        "a route can have one method of type Ticket: remove the others",
    ),
])))]
pub struct Authentication {
    /// AnyOf: one of the methods must admit the client. Anonymous: the gateway authenticates nobody; the application
    /// must. A client certificate, where tls requires one, comes on top of either.
    pub mode: AuthenticationMode,
    /// Methods, for mode AnyOf; the first whose credential is present decides, an invalid one never falls through to
    /// the next, and two credentials at once are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub methods: Option<Vec<Method>>,
}

/// Whether clients are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum AuthenticationMode {
    /// By any one of the methods.
    AnyOf,
    /// Not by the gateway.
    Anonymous,
}

/// One way to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(self.type == 'JWT') == has(self.jwt) && (self.type == 'External') == has(self.external) && \
     (self.type == 'Ticket') == has(self.ticket)",
    "set exactly the member that type names: jwt for JWT, external for External, ticket for Ticket"
)])))]
pub struct Method {
    /// Name of the method, unique within the route; logs and metrics speak of it.
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub name: String,
    /// JWT: a signed token. External: a service of yours that judges the handshake. Ticket: a single-use ticket that was
    /// issued for the credential of another method.
    #[serde(rename = "type")]
    pub kind: MethodKind,
    /// Settings of type JWT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Settings of type External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Settings of type Ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
}

/// Types of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum MethodKind {
    /// A JSON Web Token (RFC 7519).
    #[serde(rename = "JWT")]
    Jwt,
    /// A service that judges a part of the handshake.
    External,
    /// A single-use ticket.
    Ticket,
}

/// JSON Web Tokens (RFC 7519). A token without exp, aud or iss is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// The issuer: what the token's iss must be, byte for byte.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// Audiences: one of them must be among the token's aud.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
    /// Where the keys that verify the token come from.
    pub jwks: Jwks,
    /// Values of the token's typ that are accepted beside JWT and at+jwt, without application/ and in any case, such as
    /// the one of a vendor. A token without typ is always accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 8),
        inner(length(min = 1, max = 64), pattern(TOKEN_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub types: Option<Vec<String>>,
    /// Where the token is looked for, in this order; the Authorization header with Bearer if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub extract_from: Option<Vec<ExtractFrom>>,
    /// Claims that the token must have besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub required_claims: Option<Vec<RequiredClaim>>,
    /// Claims that the backend gets as headers. Copies of these headers that clients send are always removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["header"])
    )]
    pub claim_to_headers: Option<Vec<ClaimToHeader>>,
    /// How far clocks may differ when exp and nbf are checked; 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew: Option<Duration>,
    /// Whether the backend gets the token too; false if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_credential: Option<bool>,
    /// What happens to open connections when the key that verified their token leaves its set: Keep or Close; Keep if
    /// absent. A set that cannot be fetched or read removes no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_key_removal: Option<OnKeyRemoval>,
}

/// What happens to a connection whose key is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum OnKeyRemoval {
    /// It lives on until its credential expires.
    Keep,
    /// It is closed with 1008.
    Close,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "(self.type == 'Local') == has(self.local) && (self.type == 'Remote') == has(self.remote)",
    "set exactly the member that type names: local for Local, remote for Remote"
)])))]
pub struct Jwks {
    /// Remote: fetched from a URI and refreshed. Local: read from a ConfigMap or Secret.
    #[serde(rename = "type")]
    pub kind: JwksKind,
    /// Settings of type Remote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<RemoteJwks>,
    /// Settings of type Local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalJwks>,
}

/// Where a key set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum JwksKind {
    /// From a URI.
    Remote,
    /// From an object of the cluster.
    Local,
}

/// A key set that is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "isURL(self.uri) && url(self.uri).getScheme() == 'https'", "uri is an https URL"
)])))]
pub struct RemoteJwks {
    /// The URI of the key set, https. Redirects are not followed.
    #[schemars(length(min = 1, max = 1024))]
    pub uri: String,
}

/// A key set in an object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalJwks {
    /// The key of a ConfigMap (public keys) or of a Secret of type wssgate.io/jwks (symmetric keys).
    #[serde(rename = "ref")]
    pub reference: KeyRef,
}

/// A place of the handshake where a token may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "self.type == 'Subprotocol' ? has(self.valuePrefix) != has(self.name) : has(self.name)",
    "Header, Query and Cookie need the name of the header, parameter or cookie; Subprotocol needs either valuePrefix or \
     name"
)])))]
pub struct ExtractFrom {
    /// Header, Query (a parameter of the query), Cookie, or Subprotocol (browsers can set no header): an offered
    /// subprotocol that begins with valuePrefix, or the one that follows the subprotocol called name.
    #[serde(rename = "type")]
    pub kind: ExtractFromKind,
    /// Name of the header, query parameter or cookie; for type Subprotocol the subprotocol before the token, as Bearer is
    /// in ["Bearer", TOKEN].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern(TOKEN_PATTERN))]
    pub name: Option<String>,
    /// What stands before the token and is cut off, such as "Bearer " with its space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), pattern(PREFIX_PATTERN))]
    pub value_prefix: Option<String>,
}

/// Places of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ExtractFromKind {
    /// A header.
    Header,
    /// A parameter of the query.
    Query,
    /// A cookie.
    Cookie,
    /// An offered subprotocol.
    Subprotocol,
}

/// A claim that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequiredClaim {
    /// Name of the claim.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// What the claim must contain: one of its words if it is text, as scope is, or one of its entries if it is a
    /// list. If absent the claim must be there with any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub contains: Option<String>,
}

/// A claim that becomes a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Name of the claim, or a JSON pointer to a value within one if it begins with a slash, such as
    /// /realm_access/roles.
    #[schemars(length(min = 1, max = 128))]
    pub claim: String,
    /// Name of the header that the backend gets. The value is the text, number or boolean of the claim, in UTF-8, or a
    /// list of them joined by commas. Anything else, control characters and more than 4 KiB are left out.
    #[schemars(length(min = 1, max = 64), pattern(TOKEN_PATTERN))]
    pub header: String,
    /// Whether a token is refused if its claim is absent or cannot be a header; false if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// A service of yours that judges a handshake that has one of the allowedHeaders and no credential of another method: any
/// 2xx admits, anything else refuses, and so does a service that cannot be reached. A 2xx is used for 3 seconds unless it
/// has Cache-Control: no-store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// The Service that judges.
    pub backend_ref: ServiceRef,
    /// The path of the GET request to the Service.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = path_rules()))]
    pub path: String,
    /// Headers of the handshake that the service gets, such as cookie; at least one. The backend does not get them. The
    /// service also gets Host, Origin, and the method and path as X-Forwarded-Method and X-Forwarded-Uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), pattern(TOKEN_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub allowed_headers: Option<Vec<String>>,
    /// Headers of the service's answer that the backend gets. None if absent. The first one names the subject that
    /// connection.limits.perSubject counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), pattern(TOKEN_PATTERN)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub allowed_response_headers: Option<Vec<String>>,
    /// How long an answer may take before the handshake is refused; 2s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How often the service is asked again about an open connection, from 10s to 24h; never if absent. A refusal closes
    /// the connection with 1008. Without a valid answer for three times as long the connection is closed with 1013. The
    /// gateway keeps the allowedHeaders of the handshake in memory for as long as the connection is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[(
        "duration(self) >= duration('10s') && duration(self) <= duration('24h')", "recheck is between 10s and 24h"
    )])))]
    pub recheck: Option<Duration>,
}

/// Single-use tickets: a POST without content to the path, with the credential of another method, returns one. The
/// handshake has it in the query parameter ticket or as a subprotocol ticket.TICKET. It is valid only on this route and for
/// the origin that requested it. Without sharedStore in the settings of the gateway, only the replica that issued a ticket
/// redeems it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// The path that answers POST with a ticket; one under the paths of the route's rules.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = path_rules()))]
    pub path: String,
    /// How long a ticket can be redeemed, from 1s to 60s; 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rules(&[(
        "duration(self) >= duration('1s') && duration(self) <= duration('60s')", "ttl is between 1s and 60s"
    )])))]
    pub ttl: Option<Duration>,
    /// Whether only the client address (IPv6: its /64) that requested a ticket can redeem it; false if absent, because
    /// addresses change behind NAT and with dual stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_address: Option<bool>,
}
