//! Hosts, rules and certificates put together: the snapshot, in which everything that did not change is what it was.
//!
//! Knows what the other rooms found; decides only which route gets a path.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::api::route_id::RouteId;
use crate::api::status::ConditionReason as Reason;
use crate::compile::ownership::candidate::Candidate;
use crate::compile::ownership::host::HostOwnership;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::jwks::Sets;
use crate::compile::resolve::rule::ResolvedRule;
use crate::compile::status::condition::RouteReport;
use crate::compile::tls::acme::Challenges;
use crate::compile::tls::host_certificates::HostTls;
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::policy::{ClientRule, Content, OriginPattern, Policy};
use crate::reason;
use crate::snapshot::{self, Backend, BackendId, Host, PathMatch, Route, RouteState, Snapshot, TlsServerConfig};

/// One route with its references resolved, and its report as far as it is known.
#[derive(Debug)]
pub struct CompiledRoute {
    /// Every path of every rule.
    paths: Vec<Arc<Route>>,
    /// Whether the route or the defaults set what happens to a missing Origin.
    missing_origin_set: bool,
    /// The problems and warnings of the route, and how many of its paths are served.
    pub report: RouteReport,
}

impl CompiledRoute {
    /// The paths of a candidate, ready for the hosts that it has.
    pub fn new(candidate: &Candidate<'_>, rules: Vec<ResolvedRule>, content: Content, report: RouteReport) -> Self {
        let draft = candidate.effective();
        let policy = draft.policy.as_ref().map(|policy| with_content(policy, content));
        let mut paths = Vec::new();
        for (number, (rule, resolved)) in draft.rules.iter().zip(rules).enumerate() {
            let state = match &policy {
                Some(policy) if !resolved.resolution.refuses => RouteState::Serving(Arc::clone(policy)),
                _ => RouteState::Refusing(reason::Reason::RouteUnavailable),
            };
            for path in &rule.paths {
                paths.push(Arc::new(Route {
                    id: candidate.id.clone(),
                    path: path.clone(),
                    state: state.clone(),
                    backends: resolved.backends.clone(),
                    balance: rule.balance,
                    backend_tls: resolved.tls.clone(),
                    timeouts: rule.timeouts,
                    rule: number,
                }));
            }
        }
        Self { paths, missing_origin_set: draft.missing_origin_set, report }
    }
}

/// The policy of a route with what its schemas demand. Messages that are judged whole are held.
fn with_content(policy: &Arc<Policy>, content: Content) -> Arc<Policy> {
    if content == policy.content {
        return Arc::clone(policy);
    }
    let mut policy = Policy::clone(policy);
    policy.from_client.hold_text = content.from_client.is_some();
    policy.from_backend.hold_text = content.from_backend.is_some();
    policy.content = content;
    Arc::new(policy)
}

/// The route on a host that asks for client certificates. Browsers present those to whatever page asks (they are
/// ambient, as cookies are), so a missing Origin is refused unless the route says otherwise, and `*` is refused.
fn with_client(route: &Arc<Route>, rule: &ClientRule, missing_origin_set: bool) -> Result<Arc<Route>, &'static str> {
    let RouteState::Serving(policy) = &route.state else { return Ok(Arc::clone(route)) };
    let mut policy = Policy::clone(policy);
    if policy.handshake.origins.allow.contains(&OriginPattern::Any) {
        return Err("* cannot be used on a host with client certificates; list the origins");
    }
    policy.handshake.origins.require |= !missing_origin_set;
    policy.client_certificates = Some(rule.clone());
    Ok(Arc::new(Route { state: RouteState::Serving(Arc::new(policy)), ..Route::clone(route) }))
}

/// Puts the routes of one hostname together, and adds to their reports what each got.
///
/// `positions` finds a route among the compiled ones by its identity.
pub fn host(
    name: &str,
    ownership: &HostOwnership<'_>,
    tls: &HostTls,
    positions: &HashMap<&RouteId, usize>,
    compiled: &mut [CompiledRoute],
) -> Host {
    let mut taken: BTreeMap<PathMatch, Arc<Route>> = BTreeMap::new();
    for id in &ownership.routes {
        let Some(compiled) = positions.get(id).and_then(|position| compiled.get_mut(*position)) else { continue };
        let CompiledRoute { paths, missing_origin_set, report } = compiled;
        report.certificate.problems.extend(tls.certificate.problems.iter().cloned());
        report.certificate.notes.extend(tls.certificate.notes.iter().cloned());
        if ownership.owner == Some(*id) {
            report.resolved.problems.extend(tls.resolved.iter().cloned());
        }
        for route in &*paths {
            match taken.entry(route.path.clone()) {
                Entry::Occupied(other) => {
                    let (PathMatch::Exact(path) | PathMatch::Prefix(path)) = &route.path;
                    let text = format_args!(
                        "path {} of host {} belongs to the older route {}; choose another path",
                        quote(path),
                        quote(name),
                        other.get().id
                    );
                    report.accepted.notes.push(Problem::new(Reason::PathConflict, "spec.rules", text));
                }
                Entry::Vacant(free) => {
                    free.insert(on_host(name, route, tls, *missing_origin_set, report));
                }
            }
        }
    }
    let mut routes: Vec<Arc<Route>> = taken.into_values().collect();
    routes.sort_by(|a, b| order(&a.path).cmp(&order(&b.path)));
    let tls = match &tls.config {
        Some(built) => snapshot::HostTls::Own(Arc::clone(&built.config)),
        None if tls.available => snapshot::HostTls::Default,
        None => snapshot::HostTls::Missing,
    };
    Host { name: name.into(), tls, routes }
}

/// A route as it is on one host: it refuses where client certificates cannot be verified. A host without a certificate of
/// its own refuses nothing: nobody gets as far as the route, and who is connected needs none.
fn on_host(
    name: &str,
    route: &Arc<Route>,
    tls: &HostTls,
    missing_origin_set: bool,
    report: &mut RouteReport,
) -> Arc<Route> {
    let route = match &tls.client {
        _ if tls.locked => refusing(route),
        None => Arc::clone(route),
        Some(rule) => with_client(route, rule, missing_origin_set).unwrap_or_else(|why| {
            let text = format_args!("host {}: {why}", quote(name));
            report.accepted.problems.push(Problem::new(Reason::Invalid, "spec.handshake.origins.allow", text));
            refusing(route)
        }),
    };
    match route.state {
        RouteState::Refusing(_) => report.refusing += 1,
        RouteState::Serving(ref policy) if policy.content.incomplete => report.refusing += 1,
        RouteState::Serving(_) if !tls.available => report.unreachable += 1,
        RouteState::Serving(_) => report.serving += 1,
    }
    route
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
    /// The TLS of names that no host owns.
    pub default_tls: Option<Arc<TlsServerConfig>>,
    /// The ACME challenges that the plain port answers.
    pub challenges: Challenges,
    /// Names that no wildcard serves.
    pub reserved: HashSet<Box<str>>,
    /// Addresses to which the gateway never connects.
    pub blocked: BlockedAddresses,
    /// The gateway's own name among those that a request came through.
    pub hop: Arc<str>,
}

/// The next snapshot: parts that are equal to those of `before` are those of `before`, and if all are, so is the
/// version.
pub fn snapshot(hosts: Vec<Host>, shared: Shared, before: Option<&Snapshot>) -> Snapshot {
    let Shared { backends, keys, default_tls, challenges, reserved, blocked, hop } = shared;
    let mut next =
        Snapshot { version: 1, keys, default_tls, challenges, reserved, blocked, hop, ..Snapshot::default() };
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
            && before.reserved == next.reserved
            && before.blocked == next.blocked
            && before.hop == next.hop;
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
