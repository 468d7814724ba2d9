//! The only mutable cell of the control path: the current snapshot, and a counter of changes per route.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::reason::Reason;
use crate::snapshot::{PathMatch, Route, Snapshot};

/// Where a route is found: the host as written and the path it matches.
type Location = (Box<str>, PathMatch);
type Found = (Location, Arc<Route>);

/// The current snapshot. One per process, shared by all workers.
#[derive(Debug, Default)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    /// How often the route at a location changed, for every location that a lease holds.
    changes: Mutex<HashMap<Location, Arc<AtomicU64>>>,
}

/// A live connection's hold on its route: the route as it was admitted, and whether it changed since.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The route under which the connection was admitted last.
    pub route: Arc<Route>,
    changes: Arc<AtomicU64>,
    seen: u64,
}

impl Lease {
    /// Whether the route changed by value, or vanished, since this lease was taken.
    pub fn changed(&self) -> bool {
        self.changes.load(Ordering::Acquire) != self.seen
    }
}

impl Live {
    /// Replaces the snapshot and counts a change of every route that changed by value. Cannot fail: everything that can fail
    /// has failed in compile.
    pub fn publish(&self, next: Snapshot) {
        let next = Arc::new(next);
        // The lock spans swap and counters, so that two publishers cannot count changes of each other's snapshots.
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.snapshot.swap(Arc::clone(&next));
        let (old, new) = (routes(&before), routes(&next));
        // Which names a wildcard serves is no part of its routes.
        let wildcards = before.reserved != next.reserved;
        // A counter that no lease holds any more is forgotten.
        changes.retain(|(host, path), count| {
            let location = (&**host, path);
            let same = match (old.get(&location), new.get(&location)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
                (None, None) => true,
                _ => false,
            };
            if !same || (wildcards && host.starts_with("*.")) {
                count.fetch_add(1, Ordering::Release);
            }
            Arc::strong_count(count) > 1
        });
    }

    /// The current snapshot, for look-ups: ClientHello, connecting to a backend.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Looks a route up and holds it.
    ///
    /// # Errors
    /// Those of [`Host::route`](crate::snapshot::Host::route).
    pub fn lease(&self, host: &str, path: &str) -> Result<Lease, Reason> {
        self.hold(|snapshot| find(snapshot, host, path))
    }

    /// The lease of a live connection whose route changed. It stays with the location at which it was admitted, whatever a
    /// new handshake would find now, because only a route that no longer admits a connection closes it. Where that
    /// location is gone it moves to the location of the same route that takes its path now; `None`: there is none.
    pub fn renew(&self, lease: &Lease, host: &str, path: &str) -> Option<Lease> {
        let own = &lease.route;
        self.hold(|snapshot| {
            own_location(snapshot, own, host)
                .or_else(|| find(snapshot, host, path).ok().filter(|(_, found)| found.id == own.id))
                .ok_or(Reason::RouteNotFound)
        })
        .ok()
    }

    /// Subscribes first, then looks up, so that no change falls between.
    fn hold(&self, find: impl Fn(&Snapshot) -> Result<Found, Reason>) -> Result<Lease, Reason> {
        loop {
            let (location, _) = find(&self.snapshot.load())?;
            let changes = {
                let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(changes.entry(location.clone()).or_default())
            };
            let seen = changes.load(Ordering::Acquire);
            let (again, route) = find(&self.snapshot.load())?;
            if again == location {
                return Ok(Lease { route, changes, seen });
            }
        }
    }
}

fn find(snapshot: &Snapshot, host: &str, path: &str) -> Result<Found, Reason> {
    let host = snapshot.host(host).ok_or(Reason::RouteNotFound)?;
    let route = host.route(path)?;
    Ok(((host.name.clone(), route.path.clone()), Arc::clone(route)))
}

/// Where a route object still has the path that `own` matches, on the hosts that a name belongs to: exact before wildcard.
fn own_location(snapshot: &Snapshot, own: &Route, name: &str) -> Option<Found> {
    let mut hosts = snapshot.hosts(name);
    hosts.find_map(|host| {
        let route = host.routes.iter().find(|route| route.path == own.path && route.id == own.id)?;
        Some(((host.name.clone(), route.path.clone()), Arc::clone(route)))
    })
}

fn routes(snapshot: &Snapshot) -> HashMap<(&str, &PathMatch), &Arc<Route>> {
    snapshot
        .exact
        .values()
        .chain(snapshot.wildcard.values())
        .flat_map(|host| host.routes.iter().map(|route| ((&*host.name, &route.path), route)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteId;
    use crate::snapshot::{Balance, Host, HostTls, RouteState, Timeouts};

    fn route(path: &str, reason: Reason) -> Arc<Route> {
        Arc::new(Route {
            id: RouteId::secure_web_socket("shop", "chat"),
            path: PathMatch::Prefix(path.into()),
            state: RouteState::Refusing(reason),
            backends: vec![],
            balance: Balance::default(),
            backend_tls: None,
            timeouts: Timeouts::default(),
            rule: 0,
        })
    }

    fn snapshot(routes: Vec<Arc<Route>>) -> Snapshot {
        let host = Host { name: "a.test".into(), tls: HostTls::Default, routes };
        Snapshot { exact: [("a.test".into(), Arc::new(host))].into(), ..Snapshot::default() }
    }

    #[test]
    fn only_the_route_that_changed_by_value_is_judged_again() {
        let live = Live::default();
        live.publish(snapshot(vec![route("/a", Reason::NoEndpoints), route("/b", Reason::NoEndpoints)]));
        let (a, b) = (live.lease("a.test", "/a").unwrap(), live.lease("a.test", "/b/x").unwrap());
        live.publish(snapshot(vec![route("/a", Reason::NoEndpoints), route("/b", Reason::RouteUnavailable)]));
        assert!(!a.changed() && b.changed());
        assert!(!live.lease("a.test", "/b").unwrap().changed());
    }

    #[test]
    fn a_route_that_vanishes_rings_and_can_no_longer_be_leased() {
        let live = Live::default();
        live.publish(snapshot(vec![route("/a", Reason::NoEndpoints)]));
        let lease = live.lease("a.test", "/a").unwrap();
        live.publish(Snapshot::default());
        assert!(lease.changed());
        assert!(live.lease("a.test", "/a").is_err());
    }

    fn of(id: &str, path: &str, reason: Reason) -> Arc<Route> {
        let id = RouteId::secure_web_socket("shop", id);
        Arc::new(Route { id, ..Route::clone(&route(path, reason)) })
    }

    #[test]
    fn a_lease_stays_with_its_location_whatever_a_new_handshake_would_find() {
        let live = Live::default();
        live.publish(snapshot(vec![of("broad", "/", Reason::NoEndpoints)]));
        let lease = live.lease("a.test", "/chat").unwrap();
        live.publish(snapshot(vec![of("narrow", "/chat", Reason::NoEndpoints), of("broad", "/", Reason::NoEndpoints)]));
        assert!(!lease.changed());
        let broad = of("broad", "/", Reason::RouteUnavailable);
        live.publish(snapshot(vec![of("narrow", "/chat", Reason::NoEndpoints), Arc::clone(&broad)]));
        let renewed = lease.changed().then(|| live.renew(&lease, "a.test", "/chat").unwrap()).unwrap();
        assert!(Arc::ptr_eq(&renewed.route, &broad) && !renewed.changed());
        assert_eq!(&*live.lease("a.test", "/chat").unwrap().route.id.name, "narrow");
        live.publish(snapshot(vec![of("narrow", "/chat", Reason::NoEndpoints)]));
        assert!(renewed.changed() && live.renew(&renewed, "a.test", "/chat").is_none());
    }

    #[test]
    fn a_lease_whose_location_is_gone_moves_to_another_location_of_its_route_only() {
        let live = Live::default();
        live.publish(snapshot(vec![of("chat", "/chat", Reason::NoEndpoints)]));
        let lease = live.lease("a.test", "/chat").unwrap();
        live.publish(snapshot(vec![of("chat", "/", Reason::NoEndpoints)]));
        assert_eq!(live.renew(&lease, "a.test", "/chat").unwrap().route.path, PathMatch::Prefix("/".into()));
        live.publish(snapshot(vec![of("other", "/chat", Reason::NoEndpoints)]));
        assert!(live.renew(&lease, "a.test", "/chat").is_none());
    }

    #[test]
    fn a_lease_of_a_wildcard_stays_when_somebody_takes_the_exact_name() {
        let live = Live::default();
        let star = |routes| Arc::new(Host { name: "*.test".into(), tls: HostTls::Default, routes });
        let wildcard = || -> HashMap<Box<str>, Arc<Host>> {
            [("test".into(), star(vec![of("star", "/", Reason::NoEndpoints)]))].into()
        };
        live.publish(Snapshot { wildcard: wildcard(), ..Snapshot::default() });
        let lease = live.lease("a.test", "/").unwrap();
        let exact = snapshot(vec![of("exact", "/", Reason::NoEndpoints)]).exact;
        live.publish(Snapshot { exact, wildcard: wildcard(), ..Snapshot::default() });
        assert_eq!(&*live.renew(&lease, "a.test", "/").unwrap().route.id.name, "star");
        assert_eq!(&*live.lease("a.test", "/").unwrap().route.id.name, "exact");
    }

    #[test]
    fn a_lease_of_a_wildcard_ends_when_its_name_is_reserved_for_others() {
        let live = Live::default();
        let star = Arc::new(Host {
            name: "*.test".into(),
            tls: HostTls::Default,
            routes: vec![route("/", Reason::NoEndpoints)],
        });
        let snapshot = Snapshot { wildcard: [("test".into(), star)].into(), ..Snapshot::default() };
        live.publish(snapshot.clone());
        let (kept, other) = (live.lease("kept.test", "/").unwrap(), live.lease("other.test", "/").unwrap());
        live.publish(Snapshot { reserved: ["kept.test".into()].into(), ..snapshot });
        assert!(kept.changed() && live.renew(&kept, "kept.test", "/").is_none());
        assert!(live.renew(&other, "other.test", "/").is_some());
    }

    #[test]
    fn a_counter_that_no_lease_holds_is_forgotten() {
        let live = Live::default();
        live.publish(snapshot(vec![route("/a", Reason::NoEndpoints)]));
        drop(live.lease("a.test", "/a"));
        live.publish(snapshot(vec![route("/a", Reason::NoEndpoints)]));
        assert!(live.changes.lock().unwrap().is_empty());
    }
}
