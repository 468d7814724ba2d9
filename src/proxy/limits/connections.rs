//! Connections that are open, by namespace, route, address, subject and endpoint, for the limits that routes set and for
//! the sockets that all of them share. They belong to identities, live in the data plane and survive every snapshot.
//!
//! A live connection is never closed for the sake of another, so what is free decides: an address on a route may have
//! [`OF_ADDRESS`] times as many sockets as are free, a route [`OF_ROUTE`] times, a namespace [`OF_NAMESPACE`] times.
//! Each bound leaves room for the next: other addresses of the route, other routes of the namespace, other namespaces.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::api::route_id::RouteId;
use crate::policy::network::limit_key;
use crate::proxy::limits::permits::{Count, Counted, Permit, Permits};
use crate::reason::Reason;

/// Sockets that one address has on one route at most, for each that is free.
const OF_ADDRESS: usize = 8;
/// Sockets that one route has at most, for each that is free.
const OF_ROUTE: usize = 16;
/// Sockets that the routes of one namespace have at most, for each that is free.
const OF_NAMESPACE: usize = 32;

/// The connections of this process.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    all: Arc<Count>,
    namespaces: Arc<Permits<Box<str>>>,
    routes: Arc<Permits<RouteId>>,
    addresses: Arc<Permits<(RouteId, IpAddr)>>,
    subjects: Arc<Permits<(RouteId, Box<str>)>>,
    endpoints: Arc<Permits<SocketAddr>>,
}

/// What one connection holds against the limits of its route.
#[derive(Debug)]
pub(crate) struct ConnectionPermits {
    _one: Counted,
    _namespace: Permit<Box<str>>,
    route: Permit<RouteId>,
    _address: Permit<(RouteId, IpAddr)>,
    subject: Option<Permit<(RouteId, Box<str>)>>,
}

impl Connections {
    /// A permit of the route and one of the address (IPv6: of its /64) for one connection, of which all routes together
    /// can have `sockets`, and those of the namespace `of_namespace`.
    ///
    /// # Errors
    /// [`Reason::NamespaceLimit`] of the namespace; [`Reason::TotalLimit`] or [`Reason::AddressLimit`] of the route; [`Reason::SocketShare`].
    pub(crate) fn acquire(
        &self,
        route: &RouteId,
        address: IpAddr,
        total: u32,
        per_address: Option<u32>,
        of_namespace: Option<u32>,
        sockets: usize,
    ) -> Result<ConnectionPermits, Reason> {
        let one = self.all.acquire(sockets).ok_or(Reason::SocketShare)?;
        // This one is counted already.
        let free = sockets.saturating_sub(self.all.get()) + 1;
        let share = |part: usize| u32::try_from(part * free).unwrap_or(u32::MAX);
        let namespace = route.namespace.as_ref().into();
        let within =
            |limit: u32, share: u32, reason| if share < limit { (share, Reason::SocketShare) } else { (limit, reason) };
        let (limit, reason) = within(of_namespace.unwrap_or(u32::MAX), share(OF_NAMESPACE), Reason::NamespaceLimit);
        let namespace = self.namespaces.acquire(namespace, limit).ok_or(reason)?;
        let (limit, reason) = within(total, share(OF_ROUTE), Reason::TotalLimit);
        let permit = self.routes.acquire(route.clone(), limit).ok_or(reason)?;
        let (limit, reason) = within(per_address.unwrap_or(u32::MAX), share(OF_ADDRESS), Reason::AddressLimit);
        let key = (route.clone(), limit_key(address));
        let address = self.addresses.acquire(key, limit).ok_or(reason)?;
        Ok(ConnectionPermits { _one: one, _namespace: namespace, route: permit, _address: address, subject: None })
    }

    /// A permit of the subject (with its issuer) on this replica besides.
    ///
    /// # Errors
    /// [`Reason::SubjectLimit`].
    pub(crate) fn acquire_subject(
        &self,
        permits: &mut ConnectionPermits,
        identity: Box<str>,
        per_subject: Option<u32>,
    ) -> Result<(), Reason> {
        let key = (permits.route.key().clone(), identity);
        let permit = self.subjects.acquire(key, per_subject.unwrap_or(u32::MAX)).ok_or(Reason::SubjectLimit)?;
        permits.subject = Some(permit);
        Ok(())
    }

    /// A permit of an endpoint, from before it is connected to; `None` if it has `limit` connections already.
    pub(crate) fn acquire_endpoint(&self, endpoint: SocketAddr, limit: u32) -> Option<Permit<SocketAddr>> {
        self.endpoints.acquire(endpoint, limit)
    }

    /// Connections of this replica to an endpoint.
    pub(crate) fn of_endpoint(&self, endpoint: SocketAddr) -> u32 {
        self.endpoints.count(&endpoint)
    }

    /// Connections of this replica to the endpoint that has the most.
    pub(crate) fn busiest_endpoint(&self) -> u32 {
        self.endpoints.most()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;

    /// More than any of these tests needs.
    const SOCKETS: usize = 1000;

    fn route() -> RouteId {
        RouteId::secure_web_socket("shop", "chat")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn permits_come_back_exactly_once_and_all_counts_return_to_zero() {
        let connections = Connections::default();
        let acquire = |from: &str| connections.acquire(&route(), address(from), 2, Some(1), None, SOCKETS);
        let first = acquire("192.0.2.1").unwrap();
        assert_eq!(acquire("192.0.2.1").unwrap_err(), Reason::AddressLimit);
        let second = acquire("192.0.2.2").unwrap();
        assert_eq!(acquire("192.0.2.3").unwrap_err(), Reason::TotalLimit);
        drop((first, second));
        assert!(connections.routes.is_empty() && connections.addresses.is_empty());
    }

    #[test]
    fn who_takes_all_the_sockets_he_can_leaves_some_for_others() {
        let connections = Connections::default();
        let most = |namespace: &str, name: &str, addresses: u8| {
            let id = RouteId::secure_web_socket(namespace, name);
            let mut held = Vec::new();
            for number in 0..addresses {
                let from = address(&format!("192.0.2.{number}"));
                while let Ok(permits) = connections.acquire(&id, from, u32::MAX, None, None, 320) {
                    held.push(permits);
                }
            }
            let refused = connections.acquire(&id, address("192.0.2.0"), u32::MAX, None, None, 320).unwrap_err();
            assert_eq!(refused, Reason::SocketShare);
            held
        };
        // One client of one route; then others of the route, of the namespace, and of another namespace.
        let held =
            [most("greedy", "one", 1), most("greedy", "one", 9), most("greedy", "two", 9), most("shop", "chat", 1)];
        assert_eq!(held.each_ref().map(Vec::len), [285, 17, 9, 8]);
        drop(held);
        assert!(connections.namespaces.is_empty() && connections.addresses.is_empty());
        assert_eq!(connections.all.get(), 0);
        // Sockets that are there for one are had by one.
        assert!(connections.acquire(&route(), address("192.0.2.1"), 9, None, None, 1).is_ok());
    }

    #[test]
    fn the_routes_of_a_namespace_have_no_more_connections_together_than_its_ceiling() {
        let connections = Connections::default();
        let acquire = |namespace: &str, name: &str| {
            let id = RouteId::secure_web_socket(namespace, name);
            connections.acquire(&id, address("192.0.2.1"), 9, None, Some(2), SOCKETS)
        };
        let held = [acquire("shop", "one").unwrap(), acquire("shop", "two").unwrap()];
        assert_eq!(acquire("shop", "one").unwrap_err(), Reason::NamespaceLimit);
        assert_eq!(acquire("shop", "three").unwrap_err(), Reason::NamespaceLimit);
        assert!(acquire("bank", "one").is_ok());
        drop(held);
        assert!(connections.routes.is_empty() && connections.namespaces.is_empty());
        assert_eq!(connections.all.get(), 0, "a refusal gives back what it took");
        assert!(acquire("shop", "one").is_ok());
    }

    #[test]
    fn an_endpoint_has_no_more_connections_than_there_are_local_ports() {
        let connections = Connections::default();
        let (one, other) = ("192.0.2.1:80".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let permits = [connections.acquire_endpoint(one, 2).unwrap(), connections.acquire_endpoint(one, 2).unwrap()];
        assert!(connections.acquire_endpoint(one, 2).is_none());
        assert!(connections.acquire_endpoint(other, 2).is_some());
        assert_eq!(connections.busiest_endpoint(), 2);
        drop(permits);
        assert_eq!((connections.of_endpoint(one), connections.busiest_endpoint()), (0, 0));
        assert!(connections.acquire_endpoint(one, 2).is_some());
    }

    #[test]
    fn a_subject_that_is_refused_returns_all_and_others_are_not_touched() {
        let connections = Connections::default();
        let acquire = || connections.acquire(&route(), address("192.0.2.1"), 9, None, None, SOCKETS).unwrap();
        let (mut first, mut second, mut third) = (acquire(), acquire(), acquire());
        let subject =
            |permits: &mut ConnectionPermits, name: &str| connections.acquire_subject(permits, name.into(), Some(1));
        assert_eq!(subject(&mut first, "1:aada"), Ok(()));
        assert_eq!(subject(&mut second, "1:aada"), Err(Reason::SubjectLimit));
        assert_eq!(subject(&mut third, "1:bada"), Ok(()));
        drop((second, third));
        assert_eq!(connections.subjects.count(&(route(), "1:aada".into())), 1);
        drop(first);
        assert!(connections.subjects.is_empty() && connections.routes.is_empty());
    }

    #[test]
    fn routes_of_two_kinds_and_one_name_share_no_limit() {
        let connections = Connections::default();
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        let acquire = |id: &RouteId| connections.acquire(id, address("192.0.2.1"), 1, Some(1), None, SOCKETS).unwrap();
        let (mut first, mut second) = (acquire(&route()), acquire(&other));
        for permits in [&mut first, &mut second] {
            assert_eq!(connections.acquire_subject(permits, "1:aada".into(), Some(1)), Ok(()));
        }
        assert_eq!((connections.routes.count(&route()), connections.routes.count(&other)), (1, 1));
    }
}
