//! What a ticket stands for, and what it is kept by: neither the ticket nor anything from which it could be made.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::ceilings::TICKETS_PER_SUBJECT;
use crate::api::route_id::RouteId;
use crate::policy::network::limit_key;
use crate::policy::{Facts, Origin, Proof};

/// Tickets of one subject of a route that are outstanding at the most.
pub(crate) const OF_SUBJECT: u32 = TICKETS_PER_SUBJECT;
/// The same of one address, whose clients have credentials that name no subject.
pub(crate) const OF_ADDRESS: u32 = 256;

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
    /// By whom it is counted while it is outstanding.
    pub(crate) holder: Holder,
}

/// What redeems a ticket: where it is kept, and by whom it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Redeemable {
    pub(crate) handle: Handle,
    pub(crate) holder: Holder,
}

/// A subject of a route (or an address, where nobody is known) as tickets are counted: a digest, from which nobody's name
/// is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Holder(pub(super) [u8; 16]);

impl Holder {
    pub(crate) fn new(route: &RouteId, identity: &str) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [route.kind.as_str(), &*route.namespace, &*route.name, identity] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(short(context.finish().as_ref()))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// The first half of a digest of SHA-256: 128 bits, which nobody meets by chance or by trying.
fn short(digest: &[u8]) -> [u8; 16] {
    digest.get(..16).and_then(|half| half.try_into().ok()).unwrap_or_default()
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle([u8; 16]);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl Handle {
    pub(crate) fn of(ticket: &[u8]) -> Self {
        Self(short(digest(&SHA256, ticket).as_ref()))
    }
}
