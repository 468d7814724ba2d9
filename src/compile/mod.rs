//! COMPILE: every object at once to one snapshot, and a status per route.
//!
//! Pure: no client, no clock (`now` is passed in), no socket; the same input gives the same output. The only
//! exceptions are what cannot be derived: session ticket keys, and the keys of `--dev`. What is kept of the compile
//! before serves two ends: parts that did not change keep their `Arc`, and what was good stands in for what is broken,
//! within what may be kept. Knows Kubernetes objects and the snapshot; not who reads objects or serves connections.
//!
//! Each room knows one thing: [`ownership`] whose a route and a hostname are, [`spec`] what a route wants, [`resolve`] what
//! it names in other objects, [`tls`] the certificates of hosts, [`status`] what is said of it; [`assembly`] puts all
//! together.

pub mod assembly;
pub mod guard;
pub mod options;
pub mod ownership;
pub mod problem;
pub mod provider;
pub mod resolve;
pub mod spec;
pub mod status;
pub mod tls;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::api::objects::Objects;
use crate::api::route::{Defaults, RouteSpec, SecureWebSocketRoute};
use crate::api::route_id::RouteId;
use crate::api::status::{ConditionReason, ConditionType, RouteStatus};
use crate::policy::authentication::{Kind, Method};
use crate::snapshot::Snapshot;
use assembly::Placed;
pub use options::Options;
use ownership::candidate::{Candidate, Candidates, Drafts};
use ownership::suffix::Suffixes;
use problem::Problem;
use resolve::reference::Grants;
use resolve::rule::{Clients, Resolver};
use status::condition::{Facet, Verdict};
use tls::host_certificates::Vault;
use tls::issuance::Wanted;

/// What is said of a Certificate that the gateway made and no longer keeps.
const UNWANTED: &str = "no route asks for it any more; it is left as it is until its route is deleted; delete it if its \
                        Secret is not needed";

/// The outcome of a compile, and what the next one needs of it.
pub struct Compiled {
    /// What the data plane serves. Its version is that of the compile before if nothing in it changed.
    pub snapshot: Snapshot,
    /// What is said of each route of ours.
    pub statuses: BTreeMap<RouteId, RouteStatus>,
    /// What is wrong with objects that have no status of ours, for the log: the object, and a sentence.
    pub remarks: BTreeMap<String, String>,
    /// What cert-manager shall be asked for.
    pub wanted: Wanted,
    /// The moment, in seconds since the Unix epoch, from which another compile says something else although no object
    /// changed: a certificate becomes valid, or is near its end, or past it.
    pub due: Option<i64>,
    kept: Kept,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, statuses, remarks, wanted, due, kept: _ } = self;
        f.debug_struct("Compiled")
            .field("snapshot", snapshot)
            .field("statuses", statuses)
            .field("remarks", remarks)
            .field("wanted", wanted)
            .field("due", due)
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// How many routes are accepted.
    pub fn accepted(&self) -> usize {
        status::route::accepted(&self.statuses)
    }

    /// Last good specs that serve in place of what their routes say now.
    pub fn standing_in(&self) -> impl Iterator<Item = (&RouteId, &RouteSpec)> {
        self.kept.drafts.standing_in()
    }
}

/// What is kept of a compile.
struct Kept {
    defaults: Defaults,
    drafts: Drafts,
    certificates: tls::host_certificates::Kept,
    clients: Clients,
}

/// Compiles all objects at `now` (seconds since the Unix epoch), with the compile before, if there was one.
///
/// Never fails: what is wrong with an object is said in the status of the routes that it concerns, and no other route
/// notices.
pub fn compile(objects: &Objects, options: &Options, now: i64, previous: Option<&Compiled>) -> Compiled {
    let kept = previous.map(|previous| &previous.kept);
    let same_defaults = kept.is_some_and(|kept| kept.defaults == options.defaults);
    let candidates = ownership::candidate::collect(objects, options, kept.map(|kept| &kept.drafts), same_defaults);
    let Candidates { routes, lost, drafts } = candidates;
    let claims: Vec<_> = routes.iter().map(Candidate::claim).collect();
    let mut holdings = ownership::host::settle(&claims);
    holdings.spared = Suffixes(&options.hostname_suffixes).spared(&holdings);
    let index: HashMap<&RouteId, usize> = routes.iter().enumerate().map(|(place, route)| (&route.id, place)).collect();

    let grants = Grants::new(objects);
    let fence = resolve::blocked_addresses::around(&options.fence, options.own_service.as_ref(), objects);
    let mut resolver = Resolver::new(objects, &grants, &fence, kept.map(|kept| &kept.clients), options.standalone);
    let mut keys = resolve::jwks::Reader::new(objects, &grants, previous.map(|previous| &previous.snapshot.keys));
    let mut verdicts = Vec::with_capacity(routes.len());
    let mut placed: Vec<Placed> = Vec::with_capacity(routes.len());
    for candidate in &routes {
        let mut verdict = begin(candidate, options.unshared);
        verdict.accepted.problems.extend(holdings.conflicts.get(&candidate.id).into_iter().flatten().cloned());
        let rules = candidate.effective().rules.iter().enumerate();
        let mut rules: Vec<_> =
            rules.map(|(place, rule)| resolver.rule(&candidate.id.namespace, place, rule)).collect();
        for resolved in &mut rules {
            verdict.resolved.problems.append(&mut resolved.problems);
            verdict.resolved.notes.append(&mut resolved.notes);
        }
        if let Some(policy) = &candidate.effective().policy {
            let authentication = &policy.handshake.authentication;
            let (home, counted) = (&candidate.id.namespace, policy.connection.per_subject.is_some());
            verdict.warnings.extend(status::dependency::warnings(home, authentication, counted, &options.outage));
            let outcome = keys.route(&candidate.id.namespace, authentication);
            verdict.resolved.problems.extend(outcome.problems);
            let asked = resolve::external::resolve(&candidate.id.namespace, policy, &grants, &mut resolver);
            verdict.resolved.problems.extend(asked.problems);
            verdict.resolved.notes.extend(asked.notes);
            rules.iter_mut().for_each(|rule| rule.refuses |= outcome.refuses || asked.refuses);
        }
        placed.push(assembly::place(candidate, rules));
        verdicts.push(verdict);
    }

    let (wanted, issues) = tls::issuance::plan(objects, options, &routes, &holdings);
    let mut vault = Vault::new(objects, &grants, options, now, kept.map(|kept| &kept.certificates));
    let mut hosts = Vec::with_capacity(holdings.hosts.len());
    for (name, holding) in &holdings.hosts {
        let Some(first) = holding.routes.first() else { continue };
        let owner = holding.owner.and_then(|owner| index.get(owner)).and_then(|place| routes.get(*place));
        let tls = owner.and_then(|owner| owner.effective().tls.as_ref());
        let issue = owner.and_then(|owner| issues.get(&owner.id));
        let outcome = vault.host(name, &first.namespace, tls, issue);
        hosts.push(assembly::host(name, holding, &outcome, &index, &placed, &mut verdicts));
    }

    let default_tls = vault.default_identity().map(|identity| Arc::clone(&identity.tls));
    let (certificates, due) = vault.keep();
    let (challenges, mut remarks) = tls::acme::collect(objects, options, &holdings, &mut resolver);
    remarks.extend(wanted.unwanted.iter().map(|key| (format!("Certificate {key}"), UNWANTED.to_owned())));
    let (backends, clients) = resolver.finish();
    let (keys, spared) = (keys.finish(), std::mem::take(&mut holdings.spared));
    let shared = assembly::Shared { backends, keys, default_tls, challenges, spared, fence: fence.clone() };
    let snapshot = assembly::snapshot(hosts, shared, previous.map(|previous| &previous.snapshot));

    let mut statuses = BTreeMap::new();
    let mut say = |id: RouteId, route: &SecureWebSocketRoute, verdict: Verdict| {
        let before = previous.and_then(|previous| previous.statuses.get(&id)).or(route.status.as_ref());
        let findings = verdict.findings();
        statuses.insert(id, status::route::of(&route.metadata, &options.controller_name, findings, before, now));
    };
    for (candidate, verdict) in routes.iter().zip(verdicts) {
        say(candidate.id.clone(), candidate.route, end(verdict));
    }
    for (id, route, text) in lost {
        let problem = Problem::new(ConditionReason::NoMatchingClass, text);
        let accepted = Facet { problems: vec![problem], ..Facet::default() };
        let unjudged = || Facet { unjudged: Some("not judged: no class of ours"), ..Facet::default() };
        say(id, route, Verdict { accepted, resolved: unjudged(), certificate: unjudged(), ..Verdict::default() });
    }
    let kept = Kept { defaults: options.defaults.clone(), drafts, certificates, clients };
    Compiled { snapshot, statuses, remarks, wanted, due, kept }
}

/// What is known of a route before anything else is looked at.
fn begin(candidate: &Candidate<'_>, unshared: Option<NonZeroUsize>) -> Verdict {
    let mut verdict = Verdict { last_good: candidate.is_last_good(), ..Verdict::default() };
    verdict.accepted.problems.clone_from(&candidate.draft.problems);
    verdict.accepted.problems.extend(candidate.forbidden.iter().cloned());
    let effective = candidate.effective();
    if let Some(policy) = &effective.policy {
        verdict.warnings.clone_from(&effective.warnings);
        let sells = |method: &Method| matches!(method.kind, Kind::Ticket(_));
        if let Some(replicas) = unshared
            && policy.handshake.authentication.methods().iter().any(sells)
        {
            let text = format!(
                "spec.handshake.authentication: of {replicas} replicas only the one that sold a ticket redeems it: set \
                 sharedStore in the gateway's settings, or run one replica"
            );
            verdict.warnings.push((ConditionType::TicketsUnshared, Problem::new(ConditionReason::NoSharedStore, text)));
        }
    }
    verdict
}

/// What is known only after everything was looked at.
fn end(mut verdict: Verdict) -> Verdict {
    if verdict.serving + verdict.refusing == 0 {
        verdict.certificate.unjudged = Some("not judged: the route has no host and path");
        // Every path belongs to older routes: that is no longer a note.
        verdict.accepted.problems.append(&mut verdict.accepted.notes);
    }
    verdict
}
