//! What a ticket stands for, and what it is kept by: neither the ticket nor anything from which it could be made.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::route_id::RouteId;
use crate::policy::network::limit_key;
use crate::policy::{Facts, Origin, Proof};

/// What a ticket stands for.
pub(crate) struct Record {
    /// The route that issued it.
    pub(crate) route: RouteId,
    /// The origin of the page that requested it.
    pub(crate) origin: Origin,
    /// The address that alone can redeem it, as limits count addresses.
    pub(crate) address: Option<IpAddr>,
    /// What was proved when it was issued.
    pub(crate) proof: Box<Proof>,
    /// Headers for the backend.
    pub(crate) headers: Vec<(Box<str>, Box<[u8]>)>,
}

impl Record {
    /// Whether a handshake may redeem it.
    pub(crate) fn fits(&self, route: &RouteId, facts: &Facts) -> bool {
        self.route == *route
            && self.origin == facts.origin
            && self.address.is_none_or(|address| address == limit_key(facts.address))
    }

    pub(crate) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.proof.size() + size_of::<Self>()
    }
}

/// What a ticket is kept by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle([u8; 32]);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Handle {
    pub(crate) fn of(ticket: &[u8]) -> Self {
        Self(digest(&SHA256, ticket).as_ref().try_into().unwrap_or_default())
    }
}
