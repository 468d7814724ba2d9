//! THE SEAM: everything the data plane knows, as plain immutable data, and the one cell that is swapped.
//!
//! `compile` makes snapshots, `proxy` reads them, and neither knows the other. A snapshot is replaced whole; parts that did
//! not change keep their `Arc`, so that session tickets survive and no connection of an unchanged route is judged again.

pub mod dependency;
pub mod live;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use crate::api::route_id::RouteId;
use crate::policy::authentication::KeySource;
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::policy::keys::KeySet;
use crate::policy::{ClientRule, LARGEST_HEAD, MAX_HEAD, Policy};
use crate::reason::Reason;
use crate::tls::{BackendTlsConfig, ServerTls};
use crate::ws::upgrade::readings;

/// Everything the data plane knows.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Counts up with every snapshot that differs from the one before.
    pub version: u64,
    /// Hosts by exact name, lower case.
    pub exact: HashMap<Box<str>, Arc<Host>>,
    /// Hosts of `*.rest` by `rest`; the star stands for exactly one label.
    pub wildcard: HashMap<Box<str>, Arc<Host>>,
    /// Names that no wildcard serves, because the settings reserve them for another namespace than the wildcard's.
    pub reserved: HashSet<Box<str>>,
    /// Where Services' endpoints are, apart from routes, so that endpoint churn never looks like a policy change.
    pub backends: BTreeMap<BackendId, Arc<Backend>>,
    /// Keys that objects of the cluster hold, apart from routes, so that their rotation never looks like a policy change.
    /// A source that is not here has no keys.
    pub keys: BTreeMap<KeySource, Arc<KeySet>>,
    /// The configuration for names that no host owns; without one such handshakes end in `unrecognized_name`.
    pub default_tls: Option<Arc<TlsServerConfig>>,
    /// ACME HTTP-01 challenges (RFC 8555 §8.3) that are answered on the plain port: by exact host, by whole path, the
    /// solver that knows the answer.
    pub challenges: BTreeMap<Box<str>, BTreeMap<Box<str>, BackendId>>,
    /// Addresses to which the gateway itself never connects. No backend has one of them.
    pub blocked: BlockedAddresses,
    /// The gateway's own name in `CDN-Loop` (RFC 8586), that of all replicas of its class; empty: it has none.
    pub hop: Arc<str>,
}

impl Snapshot {
    /// The host for a name (lower case, no port, no trailing dot): exact before wildcard.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts(name).next()
    }

    /// Every host that a name belongs to, as in [`Snapshot::host`], in the order in which they count.
    fn hosts(&self, name: &str) -> impl Iterator<Item = &Arc<Host>> {
        let rest = name.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, rest)| rest);
        let wildcard = move || rest.and_then(|rest| self.wildcard.get(rest)).filter(|_| !self.reserved.contains(name));
        self.exact.get(name).into_iter().chain(std::iter::once_with(wildcard).flatten())
    }

    /// The solver of the challenge at a host and path, both byte for byte.
    pub fn challenge(&self, host: &str, path: &str) -> Option<&BackendId> {
        self.challenges.get(host)?.get(path)
    }

    /// The most bytes of a request's head over TLS with this server name, until its Host is known.
    pub fn max_head(&self, name: Option<&str>) -> usize {
        name.and_then(|name| self.host(name)).map_or(LARGEST_HEAD, |host| host.max_head())
    }

    /// The TLS for a name of a ClientHello; the default one for unknown names.
    ///
    /// # Errors
    /// [`Reason::NoCertificate`] for a host that has none, also where there is a default one: that may ask less of clients
    /// than the host does. [`Reason::UnknownServerName`] for other names where there is no default one.
    pub fn tls(&self, name: &str) -> Result<&Arc<TlsServerConfig>, Reason> {
        match self.host(name).map(|host| &host.tls) {
            Some(HostTls::Own(tls)) => Ok(tls),
            Some(HostTls::Missing) => Err(Reason::NoCertificate),
            Some(HostTls::Default) | None => self.default_tls.as_ref().ok_or(Reason::UnknownServerName),
        }
    }
}

/// One hostname: its certificates and its routes.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The name as routes write it: `chat.example.com` or `*.example.com`.
    pub name: Box<str>,
    /// What its TLS handshakes are done with.
    pub tls: HostTls,
    /// Exact paths first, then prefixes, longest first: the first match wins.
    pub routes: Vec<Arc<Route>>,
}

/// Where the TLS of a host comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum HostTls {
    /// The host's own.
    Own(Arc<TlsServerConfig>),
    /// [`Snapshot::default_tls`].
    Default,
    /// No certificate is there for it: its TLS handshakes fail, and its open connections go on.
    Missing,
}

impl HostTls {
    /// The host's own TLS.
    pub fn own(&self) -> Option<&Arc<TlsServerConfig>> {
        match self {
            Self::Own(tls) => Some(tls),
            Self::Default | Self::Missing => None,
        }
    }
}

impl Host {
    /// Whether it is served on a connection whose TLS handshake named no host and was done with
    /// [`Snapshot::default_tls`], at TLS 1.3 if `tls13`. Not if it asks for client certificates, which nobody asked the
    /// client for, or for a later version; and not if its own TLS is missing, for then nobody knows what it asks.
    pub fn serves_unnamed(&self, tls13: bool) -> bool {
        match &self.tls {
            HostTls::Own(tls) => tls.client.is_none() && (tls13 || !tls.tls13_only),
            HostTls::Default => true,
            HostTls::Missing => false,
        }
    }

    /// The most bytes of a request's head that any route of the host takes.
    fn max_head(&self) -> usize {
        self.routes.iter().map(|route| route.max_head()).max().unwrap_or(MAX_HEAD)
    }

    /// The route for a path that [`check_path`](crate::ws::upgrade::check_path) lets through, byte for byte.
    ///
    /// # Errors
    /// [`Reason::RouteNotFound`], or [`Reason::BadPath`] where another reading of the path leads to another rule or to
    /// none: `/%61dmin` and `//admin` must not go around `/admin`.
    pub fn route(&self, path: &str) -> Result<&Arc<Route>, Reason> {
        let find = |path: &str| self.routes.iter().find(|route| route.path.matches(path));
        let found = find(path);
        let same = |reading: &str| match (found, find(reading)) {
            (Some(found), Some(other)) => found.id == other.id && found.rule == other.rule,
            (None, None) => true,
            _ => false,
        };
        if !readings::is_plain(path) && !readings::all(path, same) {
            return Err(Reason::BadPath);
        }
        found.ok_or(Reason::RouteNotFound)
    }
}

/// The TLS of a host, with its own certificates and session tickets.
#[derive(Debug)]
pub struct TlsServerConfig {
    /// What connections of this host are accepted with.
    pub config: ServerTls,
    /// What is known of each certificate, for metrics and for reuse.
    pub certificates: Vec<CertificateFacts>,
    /// What is asked of client certificates; part of `config`, and of the policy of every route of the host.
    pub client: Option<ClientRule>,
    /// Whether TLS 1.3 is the lowest version; part of `config`.
    pub tls13_only: bool,
}

impl PartialEq for TlsServerConfig {
    /// Equal only if they are the same configuration: tickets are bound to it.
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

/// What is known of one certificate that is served. Never its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
    /// SHA-256 of the leaf's DER, hexadecimal.
    pub fingerprint: String,
}

/// One path of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The object it comes from.
    pub id: RouteId,
    /// What it matches.
    pub path: PathMatch,
    /// Whether it serves.
    pub state: RouteState,
    /// Backends with their weights; a weight of 0 takes no new connection.
    pub backends: Vec<(BackendId, u32)>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// TLS toward the backend, where its protocol is wss.
    pub backend_tls: Option<BackendTls>,
    /// How long an endpoint may take.
    pub timeouts: Timeouts,
    /// Which rule of the object it is of, from 0.
    pub rule: usize,
}

impl Route {
    /// The most bytes of a request's head; that of the built-in bound where the route serves nobody.
    fn max_head(&self) -> usize {
        match &self.state {
            RouteState::Serving(policy) => policy.handshake.max_head_size,
            RouteState::Refusing(_) => MAX_HEAD,
        }
    }
}

/// How long an endpoint of a backend may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a TCP connection.
    pub connect: Duration,
    /// To answer the upgrade, from the end of the connect.
    pub upgrade: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: CONNECT, upgrade: UPGRADE }
    }
}

impl Timeouts {
    /// The longest that may be set.
    pub const LONGEST: Self = Self { connect: Duration::from_secs(60), upgrade: Duration::from_secs(60) };
    /// The shortest that may be set.
    pub const SHORTEST: Self = Self { connect: Duration::from_millis(100), upgrade: Duration::from_millis(100) };

    /// How much longer than the default the stages may take together.
    pub fn beyond_default(&self) -> Duration {
        self.connect.saturating_sub(CONNECT) + self.upgrade.saturating_sub(UPGRADE)
    }
}

/// Default: how long one endpoint may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Default: how long an endpoint may take to answer the upgrade.
const UPGRADE: Duration = Duration::from_secs(10);

/// Whether a route serves.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteState {
    /// It serves under this policy.
    Serving(Arc<Policy>),
    /// It refuses everything, for this reason.
    Refusing(Reason),
}

/// What part of the path space a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(Box<str>),
    /// The path or whole segments below it; `/` matches everything. Without trailing slash but for `/` itself.
    Prefix(Box<str>),
}

impl PathMatch {
    /// Whether the path, byte for byte, belongs to this match (Gateway API's `PathPrefix`: whole segments).
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) if &**prefix == "/" => true,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

/// How an endpoint is chosen among those that are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The fewest connections of this replica.
    #[default]
    LeastConnections,
    /// Each in turn.
    RoundRobin,
    /// By the client's address, so that an address keeps its endpoint.
    SourceIp,
}

/// TLS toward a backend.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendTls {
    /// What connections are made with.
    pub config: BackendTlsConfig,
    /// The name that is sent as SNI and verified.
    pub server_name: ServerName<'static>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    /// Namespace of the Service.
    pub namespace: Box<str>,
    /// Name of the Service.
    pub service: Box<str>,
    /// The Service's port number.
    pub port: u16,
}

impl BackendId {
    /// A port of a Service of its three parts.
    pub fn new(namespace: &str, service: &str, port: u16) -> Self {
        Self { namespace: namespace.into(), service: service.into(), port }
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// Where a port of a Service is served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backend {
    /// Endpoints that take new connections, sorted: ready ones, or where there are none those that still serve while
    /// terminating.
    pub endpoints: Vec<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments_only() {
        let chat = PathMatch::Prefix("/chat".into());
        assert!(chat.matches("/chat") && chat.matches("/chat/") && chat.matches("/chat/a"));
        assert!(!chat.matches("/chatter") && !chat.matches("/cha") && !chat.matches("/"));
        assert!(PathMatch::Prefix("/".into()).matches("/anything"));
        assert!(!PathMatch::Exact("/chat".into()).matches("/chat/"));
    }

    #[test]
    fn an_exact_host_wins_over_a_wildcard_and_a_star_is_one_label() {
        let host = |name: &str| Arc::new(Host { name: name.into(), tls: HostTls::Default, routes: vec![] });
        let snapshot = Snapshot {
            exact: [("a.example.com".into(), host("a.example.com"))].into(),
            wildcard: [("example.com".into(), host("*.example.com"))].into(),
            reserved: ["a.example.com".into(), "kept.example.com".into()].into(),
            ..Snapshot::default()
        };
        let found = |name: &str| snapshot.host(name).map(|h| h.name.to_string());
        assert_eq!(found("a.example.com").as_deref(), Some("a.example.com"));
        assert_eq!(found("b.example.com").as_deref(), Some("*.example.com"));
        assert_eq!(found("a.b.example.com"), None);
        assert_eq!(found("example.com"), None);
        assert_eq!(found(".example.com"), None);
        assert_eq!(found("kept.example.com"), None);
    }
}
