//! Counters that policies compare with: places per route, address, subject and endpoint. They belong to identities, live in
//! the data plane and survive every swap; a place is given back when its guard drops, exactly once.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::route_id::RouteId;
use crate::policy::network::limit_key;
use crate::proxy::limits::attempts::AttemptTable;
use crate::proxy::store::Store;
use crate::proxy::store::subject::Lease;
use crate::reason::Reason;

/// Keys that a table holds at the most; a full table refuses new keys rather than forget one.
const MAX_KEYS: usize = 1 << 20;

/// How many places each key has taken. Keys that have none are not in it.
#[derive(Debug)]
pub(crate) struct Table<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    /// Takes one place of `limit`; false if all are taken.
    pub(crate) fn take(&self, key: &K, limit: u32) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = counts.len() >= MAX_KEYS;
        match counts.get_mut(key) {
            Some(count) if *count >= limit => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if limit == 0 || full => false,
            None => {
                counts.insert(key.clone(), 1);
                true
            }
        }
    }

    /// Gives one back.
    pub(crate) fn give(&self, key: &K) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
                // After a flood the table gives its memory back.
                if counts.capacity() > 1024 && counts.len() < counts.capacity() / 8 {
                    counts.shrink_to_fit();
                }
            }
        }
    }

    fn count(&self, key: &K) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied().unwrap_or(0)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

/// All counters of the process.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    routes: Table<RouteId>,
    addresses: Table<(RouteId, IpAddr)>,
    endpoints: Table<SocketAddr>,
    /// Of handshakes, among the backends of their route.
    pub(crate) turns: Rotation,
    /// Of questions, among the endpoints of the services that judge handshakes of the route. Were these counted together,
    /// each handshake that is judged would take two turns, and every other backend would get none.
    pub(crate) questions: Rotation,
    /// Handshakes per route and address.
    pub(crate) attempts: AttemptTable,
    subjects: Table<(RouteId, Box<str>)>,
}

/// The places that one connection holds; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Places {
    meters: Arc<Meters>,
    route: RouteId,
    address: IpAddr,
    subject: Option<Box<str>>,
    /// The place of the subject over all replicas.
    lease: Option<Lease>,
}

impl Places {
    /// Takes a place of the subject (with its issuer) besides, once: one of this replica, and one of all replicas where
    /// they share a store and there is a limit.
    pub(crate) async fn subject(
        &mut self,
        identity: Box<str>,
        per_subject: Option<u32>,
        store: Option<&Arc<Store>>,
    ) -> Result<(), Reason> {
        let key = (self.route.clone(), identity);
        if !self.meters.subjects.take(&key, per_subject.unwrap_or(u32::MAX)) {
            return Err(Reason::SubjectLimit);
        }
        let identity = self.subject.insert(key.1);
        if let (Some(store), Some(limit)) = (store, per_subject) {
            self.lease = Some(store.take(&self.route, identity, limit).await?);
        }
        Ok(())
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.meters.routes.give(&self.route);
        self.meters.addresses.give(&(self.route.clone(), self.address));
        if let Some(subject) = self.subject.take() {
            self.meters.subjects.give(&(self.route.clone(), subject));
        }
    }
}

/// A connection's place at an endpoint; dropping gives it back.
#[derive(Debug)]
pub(crate) struct EndpointPlace {
    meters: Arc<Meters>,
    endpoint: SocketAddr,
}

impl Drop for EndpointPlace {
    fn drop(&mut self) {
        self.meters.endpoints.give(&self.endpoint);
    }
}

impl Meters {
    /// Takes a place of the route and one of the address (IPv6: of its /64) for one connection.
    pub(crate) fn place(
        self: &Arc<Self>,
        route: &RouteId,
        address: IpAddr,
        total: u32,
        per_address: Option<u32>,
    ) -> Result<Places, Reason> {
        if !self.routes.take(route, total) {
            return Err(Reason::TotalLimit);
        }
        let address = limit_key(address);
        if !self.addresses.take(&(route.clone(), address), per_address.unwrap_or(u32::MAX)) {
            self.routes.give(route);
            return Err(Reason::AddressLimit);
        }
        Ok(Places { meters: Arc::clone(self), route: route.clone(), address, subject: None, lease: None })
    }

    /// Counts a connection to an endpoint, from the dial on; `None` if it has `limit` already.
    pub(crate) fn dial(self: &Arc<Self>, endpoint: SocketAddr, limit: u32) -> Option<EndpointPlace> {
        let taken = self.endpoints.take(&endpoint, limit);
        taken.then(|| EndpointPlace { meters: Arc::clone(self), endpoint })
    }

    /// Connections of this replica to the endpoint that has the most.
    pub(crate) fn busiest(&self) -> u32 {
        self.endpoints.0.lock().unwrap_or_else(PoisonError::into_inner).values().copied().max().unwrap_or(0)
    }

    /// Connections of this replica to an endpoint.
    pub(crate) fn load(&self, endpoint: SocketAddr) -> u32 {
        self.endpoints.count(&endpoint)
    }
}

/// Whose turn it is, by route: connections of two routes that always come in pairs would otherwise each meet every other
/// backend only.
#[derive(Debug, Default)]
pub(crate) struct Rotation(Mutex<HashMap<RouteId, usize>>);

impl Rotation {
    /// The number of this one among those of the route.
    pub(crate) fn next(&self, route: &RouteId) -> usize {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get_mut(route) {
            *turn = turn.wrapping_add(1);
            return *turn;
        }
        // Full of routes that were: whose turn it is may be forgotten.
        if turns.len() >= MAX_KEYS {
            turns.clear();
        }
        turns.insert(route.clone(), 0);
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;

    #[test]
    fn places_are_given_back_exactly_once_and_all_counts_return_to_zero() {
        let meters = Arc::new(Meters::default());
        let route = RouteId::secure_web_socket("shop", "chat");
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let first = meters.place(&route, address, 2, Some(1)).unwrap();
        assert_eq!(meters.place(&route, address, 2, Some(1)).unwrap_err(), Reason::AddressLimit);
        let second = meters.place(&route, "192.0.2.2".parse().unwrap(), 2, Some(1)).unwrap();
        let third = meters.place(&route, "192.0.2.3".parse().unwrap(), 2, Some(1));
        assert_eq!(third.unwrap_err(), Reason::TotalLimit);
        drop((first, second));
        assert_eq!(meters.routes.count(&route), 0);
        assert!(meters.addresses.0.lock().unwrap().is_empty());
    }

    #[test]
    fn an_endpoint_has_no_more_connections_than_there_are_local_ports() {
        let meters = Arc::new(Meters::default());
        let (one, other) = ("192.0.2.1:80".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let places = [meters.dial(one, 2).unwrap(), meters.dial(one, 2).unwrap()];
        assert!(meters.dial(one, 2).is_none());
        assert!(meters.dial(other, 2).is_some());
        assert_eq!(meters.busiest(), 2);
        drop(places);
        assert_eq!((meters.load(one), meters.busiest()), (0, 0));
        assert!(meters.dial(one, 2).is_some());
    }

    #[tokio::test]
    async fn a_subject_has_so_many_places_and_a_refused_one_gives_all_back() {
        let meters = Arc::new(Meters::default());
        let route = RouteId::secure_web_socket("shop", "chat");
        let place = || meters.place(&route, "192.0.2.1".parse().unwrap(), 9, None).unwrap();
        let (mut first, mut second, mut third) = (place(), place(), place());
        assert_eq!(first.subject("1:aada".into(), Some(1), None).await, Ok(()));
        assert_eq!(second.subject("1:aada".into(), Some(1), None).await, Err(Reason::SubjectLimit));
        assert_eq!(third.subject("1:bada".into(), Some(1), None).await, Ok(()));
        drop((second, third));
        assert_eq!(meters.subjects.count(&(route.clone(), "1:aada".into())), 1);
        drop(first);
        assert!(meters.subjects.0.lock().unwrap().is_empty() && meters.routes.count(&route) == 0);
    }

    #[tokio::test]
    async fn routes_of_two_kinds_and_one_name_share_no_limit_and_no_rotation() {
        let meters = Arc::new(Meters::default());
        let own = RouteId::secure_web_socket("shop", "chat");
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut first = meters.place(&own, address, 1, Some(1)).unwrap();
        let mut second = meters.place(&other, address, 1, Some(1)).unwrap();
        assert_eq!(first.subject("1:aada".into(), Some(1), None).await, Ok(()));
        assert_eq!(second.subject("1:aada".into(), Some(1), None).await, Ok(()));
        assert_eq!((meters.routes.count(&own), meters.routes.count(&other)), (1, 1));
        for rotation in [&meters.turns, &meters.questions] {
            assert_eq!((rotation.next(&own), rotation.next(&own), rotation.next(&other)), (0, 1, 0));
        }
    }
}
