//! Hosts, rules and certificates put together: the snapshot, in which everything that did not change is what it was.
//!
//! Knows what the other rooms found; decides only who gets a path.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::api::route_id::RouteId;
use crate::api::status::ConditionReason as Reason;
use crate::compile::ownership::candidate::Candidate;
use crate::compile::ownership::host::Holding;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::jwks::Sets;
use crate::compile::resolve::rule::Resolved;
use crate::compile::status::condition::Verdict;
use crate::compile::tls::acme::Challenges;
use crate::compile::tls::host_certificates::Outcome;
use crate::policy::fence::Fence;
use crate::policy::{ClientRule, OriginPattern, Policy};
use crate::reason;
use crate::snapshot::{Backend, BackendId, Host, PathMatch, Route, RouteState, Snapshot, TlsIdentity};

/// One route with its rules resolved, ready to be placed on hosts.
#[derive(Debug)]
pub struct Placed {
    routes: Vec<Arc<Route>>,
    missing_origin_said: bool,
}

/// The places of a candidate: every path of every rule.
pub fn place(candidate: &Candidate<'_>, rules: Vec<Resolved>) -> Placed {
    let draft = candidate.effective();
    let mut routes = Vec::new();
    for (rule, resolved) in draft.rules.iter().zip(rules) {
        let state = match &draft.policy {
            Some(policy) if !resolved.refuses => RouteState::Serving(Arc::clone(policy)),
            _ => RouteState::Refusing(reason::Reason::RouteUnavailable),
        };
        for path in &rule.paths {
            routes.push(Arc::new(Route {
                id: candidate.id.clone(),
                path: path.clone(),
                state: state.clone(),
                backends: resolved.backends.clone(),
                balance: rule.balance,
                backend_tls: resolved.tls.clone(),
            }));
        }
    }
    Placed { routes, missing_origin_said: draft.missing_origin_said }
}

/// The route on a host that asks for client certificates. Browsers present those to whatever page asks (they are
/// ambient, as cookies are), so a missing Origin is refused unless the route says otherwise, and `*` is refused.
fn with_client(route: &Arc<Route>, rule: &ClientRule, missing_origin_said: bool) -> Result<Arc<Route>, &'static str> {
    let RouteState::Serving(policy) = &route.state else { return Ok(Arc::clone(route)) };
    let mut policy = Policy::clone(policy);
    if policy.handshake.origins.allow.contains(&OriginPattern::Any) {
        return Err("* is refused on a host whose client certificates authenticate; list the origins");
    }
    policy.handshake.origins.require |= !missing_origin_said;
    policy.client_certificates = Some(rule.clone());
    Ok(Arc::new(Route { state: RouteState::Serving(Arc::new(policy)), ..Route::clone(route) }))
}

/// Puts the routes of one hostname together; says to each what it got.
///
/// `index` finds a candidate, and its placed routes and verdict, by identity.
pub fn host(
    name: &str,
    holding: &Holding<'_>,
    outcome: &Outcome,
    index: &HashMap<&RouteId, usize>,
    placed: &[Placed],
    verdicts: &mut [Verdict],
) -> Host {
    let mut taken: BTreeMap<&PathMatch, (&RouteId, Arc<Route>)> = BTreeMap::new();
    for id in &holding.routes {
        let Some((placed, verdict)) =
            index.get(id).and_then(|place| Some((placed.get(*place)?, verdicts.get_mut(*place)?)))
        else {
            continue;
        };
        verdict.certificate.problems.extend(outcome.certificate.problems.iter().cloned());
        verdict.certificate.notes.extend(outcome.certificate.notes.iter().cloned());
        if holding.owner == Some(*id) {
            verdict.resolved.problems.extend(outcome.resolved.iter().cloned());
        }
        for route in &placed.routes {
            match taken.entry(&route.path) {
                Entry::Occupied(other) => {
                    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &route.path;
                    let text = format!(
                        "spec.rules: path {} of host {} belongs to the older route {}; choose another path",
                        quote(path),
                        quote(name),
                        other.get().0
                    );
                    verdict.accepted.notes.push(Problem::new(Reason::PathConflict, text));
                }
                Entry::Vacant(free) => {
                    let route = match &outcome.client {
                        _ if !outcome.available || outcome.locked => refusing(route),
                        None => Arc::clone(route),
                        Some(rule) => with_client(route, rule, placed.missing_origin_said).unwrap_or_else(|why| {
                            let text = format!("spec.handshake.origins.allow: host {}: {why}", quote(name));
                            verdict.accepted.problems.push(Problem::new(Reason::Invalid, text));
                            refusing(route)
                        }),
                    };
                    match route.state {
                        RouteState::Serving(_) => verdict.serving += 1,
                        RouteState::Refusing(_) => verdict.refusing += 1,
                    }
                    free.insert((id, route));
                }
            }
        }
    }
    let mut routes: Vec<Arc<Route>> = taken.into_values().map(|(_, route)| route).collect();
    routes.sort_by(|a, b| order(&a.path).cmp(&order(&b.path)));
    let tls = outcome.identity.as_ref().map(|identity| Arc::clone(&identity.tls));
    Host { name: name.into(), tls, routes }
}

fn refusing(route: &Route) -> Arc<Route> {
    Arc::new(Route { state: RouteState::Refusing(reason::Reason::RouteUnavailable), ..route.clone() })
}

/// Exact before prefix, longest first, then by text.
fn order(path: &PathMatch) -> (bool, std::cmp::Reverse<usize>, &str) {
    match path {
        PathMatch::Exact(path) => (false, std::cmp::Reverse(path.len()), path),
        PathMatch::Prefix(path) => (true, std::cmp::Reverse(path.len()), path),
    }
}

/// What hosts share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Every Service port that a route names.
    pub backends: BTreeMap<BackendId, Arc<Backend>>,
    /// Every key set that a route names.
    pub keys: Sets,
    /// The identity of names that no host owns.
    pub default_tls: Option<Arc<TlsIdentity>>,
    /// What ACME asks of the plain port.
    pub challenges: Challenges,
    /// Names that no wildcard serves.
    pub spared: HashSet<Box<str>>,
    /// What is never dialled.
    pub fence: Fence,
}

/// The next snapshot: parts that are equal to those of `before` are those of `before`, and if all are, so is the
/// version.
pub fn snapshot(hosts: Vec<Host>, shared: Shared, before: Option<&Snapshot>) -> Snapshot {
    let Shared { backends, keys, default_tls, challenges, spared, fence } = shared;
    let mut next = Snapshot { version: 1, keys, default_tls, challenges, spared, fence, ..Snapshot::default() };
    for host in hosts {
        let wildcard: Option<Box<str>> = host.name.strip_prefix("*.").map(Into::into);
        let (map, name, old) = match wildcard {
            Some(rest) => {
                let old = before.and_then(|before| before.wildcard.get(&rest));
                (&mut next.wildcard, rest, old)
            }
            None => {
                let old = before.and_then(|before| before.exact.get(&host.name));
                (&mut next.exact, host.name.clone(), old)
            }
        };
        map.insert(name, reuse(host, old));
    }
    for (id, backend) in backends {
        let old = before.and_then(|before| before.backends.get(&id)).filter(|old| **old == backend).cloned();
        next.backends.insert(id, old.unwrap_or(backend));
    }
    if let Some(before) = before {
        let same = same_hosts(&before.exact, &next.exact)
            && same_hosts(&before.wildcard, &next.wildcard)
            && before.backends == next.backends
            && before.keys == next.keys
            && before.default_tls == next.default_tls
            && before.challenges == next.challenges
            && before.spared == next.spared
            && before.fence == next.fence;
        next.version = if same { before.version } else { before.version + 1 };
    }
    next
}

fn reuse(mut host: Host, old: Option<&Arc<Host>>) -> Arc<Host> {
    let Some(old) = old else { return Arc::new(host) };
    // Both lists are in the same order, so what did not move is found at once; the rest by its path.
    let by_path: HashMap<&PathMatch, &Arc<Route>> = if old.routes.len() > 8 {
        old.routes.iter().map(|route| (&route.path, route)).collect()
    } else {
        HashMap::new()
    };
    for route in &mut host.routes {
        let found = match by_path.is_empty() {
            true => old.routes.iter().find(|old| old.path == route.path),
            false => by_path.get(&route.path).copied(),
        };
        if let Some(old) = found.filter(|old| Arc::ptr_eq(old, route) || **old == *route) {
            *route = Arc::clone(old);
        }
    }
    let same = host.routes.len() == old.routes.len()
        && host.routes.iter().zip(&old.routes).all(|(new, old)| Arc::ptr_eq(new, old))
        && host.tls == old.tls;
    if same { Arc::clone(old) } else { Arc::new(host) }
}

fn same_hosts(old: &HashMap<Box<str>, Arc<Host>>, new: &HashMap<Box<str>, Arc<Host>>) -> bool {
    old.len() == new.len() && new.iter().all(|(name, host)| old.get(name).is_some_and(|old| Arc::ptr_eq(old, host)))
}
