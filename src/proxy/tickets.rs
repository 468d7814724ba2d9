//! Tickets of this replica: issued once, redeemed once. Bounded in number, bytes and time; when it is full nobody gets a
//! ticket, for a ticket that was forgotten would be one that was paid for.
//!
//! A ticket is kept by its digest, so that looking it up takes no longer for one that begins like another.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::policy::network::limit_key;
use crate::policy::{Facts, Origin, Proof};
use crate::reason::Reason;
use crate::snapshot::RouteId;

/// Tickets that are outstanding at the most.
const MAX_TICKETS: usize = 65_536;
/// Bytes that their proofs and headers take at the most.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of chance in a ticket.
const RANDOM: usize = 32;

/// What a ticket stands for.
pub(crate) struct Record {
    /// The route that issued it.
    pub(crate) route: RouteId,
    /// The origin of the page that bought it.
    pub(crate) origin: Origin,
    /// The address that alone can redeem it, as limits count addresses.
    pub(crate) address: Option<IpAddr>,
    /// What was proved when it was bought.
    pub(crate) proof: Box<Proof>,
    /// Headers for the backend.
    pub(crate) headers: Vec<(Box<str>, Box<[u8]>)>,
    /// When its time is over.
    pub(crate) until: Instant,
}

impl Record {
    /// Whether a handshake may redeem it.
    fn fits(&self, route: &RouteId, facts: &Facts) -> bool {
        self.route == *route
            && self.origin == facts.origin
            && self.address.is_none_or(|address| address == limit_key(facts.address))
    }

    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.proof.size() + size_of::<Self>()
    }
}

/// What a ticket is kept by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle([u8; 32]);

impl Handle {
    fn of(ticket: &[u8]) -> Self {
        Self(digest(&SHA256, ticket).as_ref().try_into().unwrap_or_default())
    }
}

#[derive(Default)]
struct Held {
    records: HashMap<Handle, Arc<Record>>,
    by_time: BTreeSet<(Instant, Handle)>,
    bytes: usize,
}

impl Held {
    fn remove(&mut self, handle: &Handle) -> Option<Arc<Record>> {
        let record = self.records.remove(handle)?;
        self.by_time.remove(&(record.until, *handle));
        self.bytes -= record.size();
        Some(record)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, handle)) = self.by_time.first().copied()
            && until <= now
        {
            self.remove(&handle);
        }
    }
}

/// All tickets of the process that are outstanding.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<Held>);

impl fmt::Debug for Tickets {
    /// Never what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl Tickets {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new ticket for a record.
    pub(crate) fn issue(&self, record: Record, now: Instant) -> Result<String, Reason> {
        let mut random = [0; RANDOM];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Reason::Internal)?;
        let ticket = URL_SAFE_NO_PAD.encode(random);
        let (handle, size) = (Handle::of(ticket.as_bytes()), record.size());
        let mut held = self.held();
        held.expire(now);
        if held.records.len() >= MAX_TICKETS || held.bytes + size > MAX_BYTES {
            return Err(Reason::TicketsUnavailable);
        }
        held.bytes += size;
        held.by_time.insert((record.until, handle));
        held.records.insert(handle, Arc::new(record));
        Ok(ticket)
    }

    /// What a ticket stands for, if this handshake may redeem it; it can still be redeemed.
    pub(crate) fn look(
        &self,
        ticket: &[u8],
        route: &RouteId,
        facts: &Facts,
        now: Instant,
    ) -> Option<(Handle, Arc<Record>)> {
        let handle = Handle::of(ticket);
        let record = Arc::clone(self.held().records.get(&handle)?);
        (now < record.until && record.fits(route, facts)).then_some((handle, record))
    }

    /// Redeems a ticket: true for one caller only.
    pub(crate) fn redeem(&self, handle: &Handle, now: Instant) -> bool {
        self.held().remove(handle).is_some_and(|record| now < record.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn facts(address: &str, origin: Origin) -> Facts {
        Facts {
            address: address.parse().unwrap(),
            host: "a.test".into(),
            port: None,
            path: "/".into(),
            origin,
            subprotocols: [].into(),
            client_certificate: None,
            proof: None,
        }
    }

    fn record(until: Instant) -> Record {
        let external = crate::policy::authentication::External {
            namespace: None,
            service: "s".into(),
            port: 80,
            path: "/".into(),
            headers: vec![],
            answers: vec![],
            timeout: Duration::from_secs(1),
        };
        Record {
            route: RouteId { namespace: "shop".into(), name: "chat".into() },
            origin: Origin::One("https://a.test".into()),
            address: None,
            proof: Box::new(external.proof("m", Some("ada"))),
            headers: vec![],
            until,
        }
    }

    #[test]
    fn a_ticket_fits_its_route_origin_and_address_until_its_time_is_over() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let until = now + Duration::from_secs(30);
        let bound = Record { address: Some(limit_key("2001:db8::1".parse().unwrap())), ..record(until) };
        let (free, bound) = (tickets.issue(record(until), now).unwrap(), tickets.issue(bound, now).unwrap());
        let route = record(until).route;
        let origin = || record(until).origin;
        let look = |ticket: &str, route: &RouteId, facts: &Facts, now| {
            tickets.look(ticket.as_bytes(), route, facts, now).is_some()
        };
        assert!(look(&free, &route, &facts("192.0.2.1", origin()), now));
        assert!(look(&bound, &route, &facts("2001:db8::2", origin()), now), "the same /64");
        assert!(!look(&bound, &route, &facts("192.0.2.1", origin()), now));
        assert!(!look(&free, &route, &facts("192.0.2.1", Origin::Missing), now));
        assert!(!look(&free, &RouteId { name: "other".into(), ..route.clone() }, &facts("192.0.2.1", origin()), now));
        assert!(!look(&free, &route, &facts("192.0.2.1", origin()), until));
        assert!(!look(&free.to_lowercase(), &route, &facts("192.0.2.1", origin()), now));
        let (handle, _) = tickets.look(free.as_bytes(), &route, &facts("192.0.2.1", origin()), now).unwrap();
        assert!(tickets.redeem(&handle, now) && !tickets.redeem(&handle, now));
    }

    #[test]
    fn a_full_store_sells_none_and_has_room_again_when_tickets_are_over() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let until = now + Duration::from_secs(1);
        for _ in 0..MAX_TICKETS {
            tickets.issue(record(until), now).unwrap();
        }
        assert_eq!(tickets.issue(record(until), now), Err(Reason::TicketsUnavailable));
        assert!(tickets.issue(record(until + Duration::from_secs(9)), until).is_ok());
        let held = tickets.held();
        assert_eq!((held.records.len(), held.by_time.len()), (1, 1));
        assert_eq!(held.bytes, record(until).size());
    }

    #[test]
    fn of_many_who_redeem_at_once_one_does() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        for _ in 0..50 {
            let ticket = tickets.issue(record(now + Duration::from_secs(30)), now).unwrap();
            let handle = Handle::of(ticket.as_bytes());
            let redeemed: usize = std::thread::scope(|scope| {
                let each = |_| scope.spawn(|| usize::from(tickets.redeem(&handle, now)));
                let all: Vec<_> = (0..8).map(each).collect();
                all.into_iter().map(|one| one.join().unwrap()).sum()
            });
            assert_eq!(redeemed, 1);
        }
    }
}
