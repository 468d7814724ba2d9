//! Tickets: issued once, redeemed once; kept by this replica, or by the store that replicas share.
//!
//! Those of this replica are bounded in number, bytes and time; when it is full nobody gets a ticket, for a ticket that
//! was forgotten would be one that was paid for. The last quarter is for routes that have less than a quarter, so that
//! the clients of one route cannot take all. A subject has so many, so that one credential does not take those of its route:
//! beyond it gets no more, and none that was issued is taken back. A ticket is kept by its digest, so that looking it up takes no longer for
//! one that begins like another.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::api::route_id::RouteId;
use crate::policy::Facts;
use crate::proxy::store::Store;
use crate::proxy::store::record::{Handle, Holder, Record, Redeemable};
use crate::reason::Reason;

/// What is outstanding at the most: tickets, and bytes of their proofs and headers.
const MOST: Taken = Taken { tickets: 65_536, bytes: 64 << 20 };
/// Bytes of chance in a ticket.
const RANDOM: usize = 32;

/// All tickets that are outstanding.
#[derive(Debug)]
pub(crate) enum Tickets {
    /// Those of this replica.
    Memory(Memory),
    /// Those of all replicas.
    Shared(Arc<Store>),
}

impl Tickets {
    /// A new ticket for a record, to be redeemed within `ttl`, if its holder has fewer than `most`.
    pub(crate) async fn issue(&self, record: Record, ttl: Duration, most: u32) -> Result<String, Reason> {
        let mut random = [0; RANDOM];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Reason::Internal)?;
        let ticket = URL_SAFE_NO_PAD.encode(random);
        match self {
            Self::Memory(memory) => memory.issue(ticket.as_bytes(), record, ttl, most, Instant::now())?,
            Self::Shared(store) => store.issue(ticket.as_bytes(), &record, ttl, most).await?,
        }
        Ok(ticket)
    }

    /// What a ticket stands for, if this handshake may redeem it; it can still be redeemed.
    pub(crate) async fn look(
        &self,
        ticket: &[u8],
        route: &RouteId,
        facts: &Facts,
    ) -> Result<(Redeemable, Arc<Record>), Reason> {
        let record = match self {
            Self::Memory(memory) => memory.look(ticket, Instant::now()),
            Self::Shared(store) => store.look(ticket, route, &facts.origin).await?.map(Arc::new),
        };
        let record = record.filter(|record| record.fits(route, facts)).ok_or(Reason::TicketInvalid)?;
        Ok((Redeemable { handle: Handle::of(ticket), holder: record.holder }, record))
    }

    /// Redeems a ticket: for one caller only.
    pub(crate) async fn redeem(&self, ticket: &Redeemable, route: &RouteId) -> Result<(), Reason> {
        let redeemed = match self {
            Self::Memory(memory) => memory.redeem(&ticket.handle, Instant::now()),
            Self::Shared(store) => store.redeem(ticket, route).await?,
        };
        if redeemed { Ok(()) } else { Err(Reason::TicketInvalid) }
    }
}

/// What tickets take.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Taken {
    tickets: usize,
    bytes: usize,
}

impl Taken {
    fn with(self, record: &Record) -> Self {
        Self { tickets: self.tickets + 1, bytes: self.bytes + record.size() }
    }

    fn without(self, record: &Record) -> Self {
        Self { tickets: self.tickets - 1, bytes: self.bytes - record.size() }
    }

    /// Whether this is more than so many quarters of what there may be.
    fn exceeds(self, quarters: usize) -> bool {
        self.tickets > MOST.tickets / 4 * quarters || self.bytes > MOST.bytes / 4 * quarters
    }
}

#[derive(Default)]
struct Held {
    records: HashMap<Handle, (Arc<Record>, Instant)>,
    by_time: BTreeSet<(Instant, Handle)>,
    by_route: HashMap<RouteId, Taken>,
    by_holder: HashMap<Holder, u32>,
    taken: Taken,
}

impl Held {
    fn insert(&mut self, handle: Handle, record: Record, until: Instant, most: u32) -> Result<(), Reason> {
        let of_holder = self.by_holder.get(&record.holder).copied().unwrap_or(0);
        if of_holder >= most {
            return Err(Reason::TicketLimit);
        }
        let taken = self.taken.with(&record);
        let of_route = self.by_route.get(&record.route).copied().unwrap_or_default().with(&record);
        if taken.exceeds(4) || (taken.exceeds(3) && of_route.exceeds(1)) {
            return Err(Reason::TicketsUnavailable);
        }
        self.taken = taken;
        self.by_route.insert(record.route.clone(), of_route);
        self.by_holder.insert(record.holder, of_holder + 1);
        self.by_time.insert((until, handle));
        self.records.insert(handle, (Arc::new(record), until));
        Ok(())
    }

    fn remove(&mut self, handle: &Handle) -> Option<Instant> {
        let (record, until) = self.records.remove(handle)?;
        self.by_time.remove(&(until, *handle));
        self.taken = self.taken.without(&record);
        if let Entry::Occupied(mut of_route) = self.by_route.entry(record.route.clone()) {
            let left = of_route.get().without(&record);
            if left.tickets == 0 {
                of_route.remove();
            } else {
                of_route.insert(left);
            }
        }
        match self.by_holder.get_mut(&record.holder) {
            Some(left) if *left > 1 => *left -= 1,
            _ => drop(self.by_holder.remove(&record.holder)),
        }
        Some(until)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, handle)) = self.by_time.first().copied()
            && until <= now
        {
            self.remove(&handle);
        }
    }
}

/// Tickets that this process keeps.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Held>);

impl fmt::Debug for Memory {
    /// Never what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, ticket: &[u8], record: Record, ttl: Duration, most: u32, now: Instant) -> Result<(), Reason> {
        let mut held = self.held();
        held.expire(now);
        held.insert(Handle::of(ticket), record, now + ttl, most)
    }

    fn look(&self, ticket: &[u8], now: Instant) -> Option<Arc<Record>> {
        let held = self.held();
        let (record, until) = held.records.get(&Handle::of(ticket))?;
        (now < *until).then(|| Arc::clone(record))
    }

    fn redeem(&self, handle: &Handle, now: Instant) -> bool {
        self.held().remove(handle).is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;
    use crate::policy::Origin;
    use crate::policy::network::limit_key;
    use crate::proxy::store::record::OF_SUBJECT;

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

    fn record() -> Record {
        let external = crate::policy::authentication::External {
            namespace: None,
            service: "s".into(),
            port: 80,
            path: "/".into(),
            headers: vec![],
            answers: vec![],
            timeout: Duration::from_secs(1),
            recheck: None,
        };
        Record {
            route: RouteId::secure_web_socket("shop", "chat"),
            origin: Origin::One("https://a.test".into()),
            address: None,
            proof: Box::new(external.proof("m", Some("ada"))),
            headers: vec![],
            holder: Holder::new(&RouteId::secure_web_socket("shop", "chat"), "1:aada"),
        }
    }

    #[test]
    fn a_subject_has_so_many_and_another_gets_its_own_however_many_the_first_asks_for() {
        let (tickets, now, ttl) = (Memory::default(), Instant::now(), Duration::from_secs(30));
        let of = |name: &str| Record { holder: Holder::new(&record().route, name), ..record() };
        let issue = |number: u32, name: &str, now| tickets.issue(&number.to_be_bytes(), of(name), ttl, OF_SUBJECT, now);
        for number in 0..OF_SUBJECT {
            issue(number, "greedy", now).unwrap();
        }
        assert_eq!(issue(100, "greedy", now), Err(Reason::TicketLimit));
        issue(101, "modest", now).unwrap();
        // What was issued stays good, and makes room when it is redeemed or over.
        assert!(tickets.redeem(&Handle::of(&0_u32.to_be_bytes()), now));
        issue(102, "greedy", now).unwrap();
        assert_eq!(issue(103, "greedy", now), Err(Reason::TicketLimit));
        issue(104, "greedy", now + ttl).unwrap();
        assert_eq!(tickets.held().by_holder.len(), 1);
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        assert!(Holder::new(&record().route, "a") != Holder::new(&other, "a"));
    }

    #[test]
    fn a_ticket_fits_its_route_origin_and_address() {
        let (route, origin) = (record().route, || record().origin);
        let (free, bound) = (record(), Record { address: Some(limit_key("2001:db8::1".parse().unwrap())), ..record() });
        assert!(free.fits(&route, &facts("192.0.2.1", origin())));
        assert!(bound.fits(&route, &facts("2001:db8::2", origin())), "the same /64");
        assert!(!bound.fits(&route, &facts("192.0.2.1", origin())));
        assert!(!free.fits(&route, &facts("192.0.2.1", Origin::Missing)));
        assert!(!free.fits(&RouteId::secure_web_socket(&route.namespace, "other"), &facts("192.0.2.1", origin())));
    }

    #[test]
    fn a_ticket_is_redeemed_once_until_its_time_is_over() {
        let (tickets, now, ttl) = (Memory::default(), Instant::now(), Duration::from_secs(30));
        for ticket in [b"one", b"two"] {
            tickets.issue(ticket, record(), ttl, u32::MAX, now).unwrap();
        }
        assert!(tickets.look(b"one", now).is_some() && tickets.look(b"One", now).is_none());
        assert!(tickets.look(b"one", now + ttl).is_none());
        let (one, two) = (Handle::of(b"one"), Handle::of(b"two"));
        assert!(tickets.redeem(&one, now) && !tickets.redeem(&one, now) && tickets.look(b"one", now).is_none());
        assert!(!tickets.redeem(&two, now + ttl) && !tickets.redeem(&two, now));
    }

    #[test]
    fn a_full_store_issues_none_and_has_room_again_when_tickets_are_over() {
        let (tickets, now, ttl) = (Memory::default(), Instant::now(), Duration::from_secs(1));
        for number in 0..MOST.tickets {
            let route = RouteId::secure_web_socket("shop", &format!("r{}", number % 4));
            tickets.issue(&number.to_be_bytes(), Record { route, ..record() }, ttl, u32::MAX, now).unwrap();
        }
        assert_eq!(tickets.issue(b"more", record(), ttl, u32::MAX, now), Err(Reason::TicketsUnavailable));
        assert!(tickets.issue(b"more", record(), ttl, u32::MAX, now + ttl).is_ok());
        let held = tickets.held();
        assert_eq!((held.records.len(), held.by_time.len(), held.by_route.len()), (1, 1, 1));
        assert_eq!(held.taken, Taken { tickets: 1, bytes: record().size() });
    }

    #[test]
    fn what_one_route_takes_leaves_a_quarter_to_others() {
        let (tickets, now, ttl) = (Memory::default(), Instant::now(), Duration::from_secs(1));
        let issue = |number: usize, record: Record| tickets.issue(&number.to_be_bytes(), record, ttl, u32::MAX, now);
        let other = || Record { route: RouteId::secure_web_socket("shop", "other"), ..record() };
        let three = MOST.tickets / 4 * 3;
        for number in 0..three {
            issue(number, record()).unwrap();
        }
        assert_eq!(issue(three, record()), Err(Reason::TicketsUnavailable));
        for number in three..MOST.tickets {
            issue(number, other()).unwrap();
        }
        assert_eq!(issue(MOST.tickets, other()), Err(Reason::TicketsUnavailable));
        // What is redeemed is free again, for whoever has less than a quarter.
        assert!(tickets.redeem(&Handle::of(&0_usize.to_be_bytes()), now));
        assert_eq!(issue(MOST.tickets, other()), Err(Reason::TicketsUnavailable));
        let third = Record { route: RouteId::secure_web_socket("shop", "third"), ..record() };
        issue(MOST.tickets, third).unwrap();
    }

    #[test]
    fn of_many_who_redeem_at_once_one_does() {
        let (tickets, now) = (Memory::default(), Instant::now());
        for number in 0_u32..50 {
            let ticket = number.to_be_bytes();
            tickets.issue(&ticket, record(), Duration::from_secs(30), u32::MAX, now).unwrap();
            let redeemed: usize = std::thread::scope(|scope| {
                let each = |_| scope.spawn(|| usize::from(tickets.redeem(&Handle::of(&ticket), now)));
                let all: Vec<_> = (0..8).map(each).collect();
                all.into_iter().map(|one| one.join().unwrap()).sum()
            });
            assert_eq!(redeemed, 1);
        }
    }

    #[test]
    fn routes_of_two_kinds_and_one_name_share_no_tickets_and_no_room_for_them() {
        let (own, other) = (record().route, RouteId::new(RouteKind::HttpRoute, "shop", "chat"));
        let facts = facts("192.0.2.1", record().origin);
        assert!(record().fits(&own, &facts) && !record().fits(&other, &facts));
        let (tickets, now, ttl) = (Memory::default(), Instant::now(), Duration::from_secs(30));
        tickets.issue(b"one", record(), ttl, u32::MAX, now).unwrap();
        tickets.issue(b"two", Record { route: other, ..record() }, ttl, u32::MAX, now).unwrap();
        assert_eq!(tickets.held().by_route.len(), 2);
    }
}
