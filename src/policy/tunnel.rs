//! What a route says of raw protocols that begin in its messages.

use crate::content::protocol::Protocols;

/// What happens to a tunnel in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelRule {
    /// It is counted and logged, and goes on.
    pub audits: bool,
    /// Protocols that the route is for.
    pub allowed: Protocols,
}

/// What happens to tunnels; `None`: the first bytes are not looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// In messages of clients.
    pub from_client: Option<TunnelRule>,
    /// In messages of backends.
    pub from_backend: Option<TunnelRule>,
}
