//! DECISIONS: the compiled policy of a route and the one place where a handshake is admitted.
//!
//! Everything here is pure: facts in, verdict out. No socket, no clock, no Kubernetes type. The order of judgement is
//! written in [`admit`] and [`screen`] and only there; live connections whose route changed are judged again by the same
//! function.

pub mod authentication;
pub mod blocked_addresses;
pub mod certificate;
pub mod claims;
pub mod client;
pub mod content;
pub mod credential;
pub mod facts;
pub mod message_rate;
pub mod rate;

pub mod keys;
pub mod network;
pub mod numeric_date;
pub mod origin;
pub mod question;
pub mod subprotocol;
pub mod token;
pub mod tunnel;

use std::time::Duration;

use crate::reason::Reason;
use crate::ws::message::Limits;
pub use crate::ws::upgrade::{LARGEST_HEAD, MAX_HEAD, Origin, withheld};
pub use authentication::{Authentication, Proof};
pub use certificate::{ClientCertificate, ClientRule};
pub use content::Content;
pub use facts::Facts;
pub use message_rate::Pacing;
pub use network::Networks;
pub use origin::{OriginPattern, Origins};
pub use rate::Rate;
pub use tunnel::{TunnelRule, Tunnels};

/// What one route demands, compiled: effective values only, no optional that means "look elsewhere".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What is judged before the 101.
    pub handshake: Handshake,
    /// What is judged while the connection lives.
    pub connection: Connection,
    /// What is judged of every frame that the client sends.
    pub from_client: Limits,
    /// What is judged of every frame that the backend sends.
    pub from_backend: Limits,
    /// How often and how slowly messages of the client may come.
    pub client_pacing: Pacing,
    /// The same of messages of the backend.
    pub backend_pacing: Pacing,
    /// What is judged of what messages say.
    pub content: Content,
    /// What happens to raw protocols in messages.
    pub tunnels: Tunnels,
    /// Messages that exceed a rate, break the rules of `content` or begin a tunnel are counted, logged and let through.
    pub audits_messages: bool,
    /// Clients may negotiate permessage-deflate (RFC 7692).
    pub compresses: bool,
    /// What the route's host asks of client certificates; `None`: nothing.
    pub client_certificates: Option<ClientRule>,
    /// What the settings let the route and its namespace have beyond what a route can set.
    pub ceilings: Ceilings,
}

/// What the settings of the gateway bound and no route sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceilings {
    /// Connections of all routes of the namespace on this replica at a time; `None`: no ceiling.
    pub sockets: Option<u32>,
    /// Outstanding tickets of one subject of the route; `None`: the gateway's own bound.
    pub tickets_per_subject: Option<u32>,
}

impl Policy {
    /// Whether the route counts something by subject.
    pub fn counts_subjects(&self) -> bool {
        let paced = self.client_pacing.counts_subjects() || self.backend_pacing.counts_subjects();
        self.connection.requires_subject || paced
    }
}

/// The policy of the HTTP upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Client networks, deny before allow.
    pub networks: Networks,
    /// Origins (RFC 6454).
    pub origins: Origins,
    /// Allowed subprotocols; empty: whatever is offered is passed on.
    pub subprotocols: Vec<String>,
    /// Who the client is.
    pub authentication: Authentication,
    /// Response headers of the route that replace or add to the default ones, lower-case names.
    pub response_headers: Vec<(String, String)>,
    /// Handshakes of one client address (IPv6: one /64) on this replica; `None`: no limit.
    pub rate_limit: Option<Rate>,
    /// Request headers that pass to the backend although such are withheld, lower-case names.
    pub request_headers: Vec<Box<str>>,
    /// Headers of the backend's 101 that pass to the client, lower-case names.
    pub from_backend: Vec<Box<str>>,
    /// The most bytes of a request's head.
    pub max_head_size: usize,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            networks: Networks::default(),
            origins: Origins::default(),
            subprotocols: Vec::new(),
            authentication: Authentication::default(),
            response_headers: Vec::new(),
            rate_limit: None,
            request_headers: Vec::new(),
            from_backend: Vec::new(),
            max_head_size: MAX_HEAD,
        }
    }
}

/// The policy of the live socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Connections of the route on this replica at a time.
    pub total: u32,
    /// Connections of one client address (IPv6: one /64) to the route on this replica; `None`: no limit.
    pub per_address: Option<u32>,
    /// Connections of one subject, with its issuer, to the route: on the replicas that share a store, else on this one;
    /// `None`: no limit.
    pub per_subject: Option<u32>,
    /// Whether the route sets a limit per subject, so that a client that has no subject is refused. Where only a ceiling of
    /// the settings limits subjects, it is not.
    pub requires_subject: bool,
    /// Whether a connection outlives the credential that opened it.
    pub outlives_credential: bool,
    /// Close after so long without a data frame in either direction; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Pings by the gateway; `None`: switched off.
    pub heartbeat: Option<Heartbeat>,
    /// Close when the connection is so old, less up to a tenth of jitter; `None`: never.
    pub max_duration: Option<Duration>,
}

/// Pings that the gateway sends of its own (RFC 6455 §5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which a ping is sent.
    pub interval: Duration,
    /// Pings without any byte in return after which the peer is given up.
    pub missed: u32,
    /// Whether the backend is pinged as well.
    pub backend: bool,
}

/// The proof that a handshake passed every check; only [`admit`] can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    offered: Box<[Box<str>]>,
    audited: Option<Reason>,
}

impl Admission {
    /// The subprotocols to offer to the backend: those of the client that the route allows, in the client's order.
    pub fn offered(&self) -> &[Box<str>] {
        &self.offered
    }

    /// What would have been refused were the route not in Audit mode.
    pub fn audited(&self) -> Option<Reason> {
        self.audited
    }
}

/// Judges what costs nothing, before a credential is looked at: networks, origin, handshake rate, subprotocol, client
/// certificate, in this order. `attempt` counts the handshake against the limit of its address; it is called once at
/// the most.
///
/// # Errors
/// The first reason that refuses it.
pub fn screen(policy: &Policy, facts: &Facts, attempt: impl FnOnce(&Rate) -> Result<(), Reason>) -> Result<(), Reason> {
    screened(policy, facts, attempt).map(drop)
}

fn screened(
    policy: &Policy,
    facts: &Facts,
    attempt: impl FnOnce(&Rate) -> Result<(), Reason>,
) -> Result<Admission, Reason> {
    let handshake = &policy.handshake;
    handshake.networks.judge(facts.address)?;
    let audited = match handshake.origins.judge(facts) {
        Ok(()) => None,
        Err(reason) if handshake.origins.audit => Some(reason),
        Err(reason) => return Err(reason),
    };
    if let Some(limit) = &handshake.rate_limit {
        attempt(limit)?;
    }
    let offered = subprotocol::judge(&handshake.subprotocols, &facts.subprotocols)?;
    if let Some(rule) = &policy.client_certificates {
        rule.judge(facts.client_certificate.as_deref())?;
    }
    Ok(Admission { offered, audited })
}

/// Judges a handshake that is well formed and has a route, at `now` (seconds since the Unix epoch): everything of
/// [`screen`], then what was proved of the client. Judges a live connection just so: nothing is verified, fetched or
/// counted.
///
/// # Errors
/// The first reason that refuses it.
pub fn admit(policy: &Policy, facts: &Facts, now: i64) -> Result<Admission, Reason> {
    let admission = screened(policy, facts, |_| Ok(()))?;
    let proof = facts.proof.as_deref();
    policy.handshake.authentication.judge(proof)?;
    let connection = &policy.connection;
    // Who cannot be told apart cannot be counted.
    if policy.counts_subjects() && proof.is_some_and(|proof| proof.subject.is_none()) {
        return Err(Reason::TokenClaims);
    }
    match proof.and_then(|proof| proof.expires) {
        Some(expires) if expires <= now && !connection.outlives_credential => Err(Reason::CredentialExpired),
        _ => Ok(admission),
    }
}
