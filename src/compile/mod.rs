//! COMPILE: every object at once to one snapshot, and a status per route.
//!
//! Pure: no client, no clock (`now` is passed in), no socket; the same input gives the same output. The only
//! exceptions are what cannot be derived: session ticket keys, and the keys of `--dev`. What is carried over from the
//! compile before serves two ends: parts that did not change keep their `Arc`, and what was good stands in for what is
//! broken, within what may be kept. Knows Kubernetes objects and the snapshot; not who reads objects or serves connections.
//!
//! Each room knows one thing: [`spec`] what a route wants, [`ownership`] who owns a route and a hostname, [`resolve`] what
//! a route names in other objects, [`tls`] the certificates of hosts, [`status`] the conditions; [`assembly`] puts all
//! together.

pub mod assembly;
pub mod guard;
pub mod options;
pub mod ownership;
pub mod pem;
pub mod problem;
pub mod provider;
pub mod resolve;
pub mod spec;
pub mod status;
pub mod tls;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::api::objects::{Key, Objects};
use crate::api::route::{Defaults, RouteSpec, SecureWebSocketRoute};
use crate::api::route_id::RouteId;
use crate::api::status::{ConditionReason, ConditionType, RouteStatus};
use crate::content::schema::Digest;
use crate::policy::authentication::{Kind, Method};
use crate::snapshot::{Host, Snapshot, TlsServerConfig};
use assembly::CompiledRoute;
pub use options::Options;
use ownership::candidate::{Candidate, Candidates, Drafts};
use ownership::host::Ownership;
use ownership::suffix::Suffixes;
use problem::Problem;
use resolve::reference::Grants;
use resolve::resolution::Resolution;
use resolve::rule::{Clients, Resolver};
use resolve::schema::{LastGood, UnreadSchema};
use status::condition::{ConditionReport, RouteReport};
use tls::host_certificates::{CertificateCache, HostCertificates, Owner};
use tls::issuance::{Issue, Wanted};

/// The remark on a Certificate that the gateway made and no longer manages.
fn unwanted(key: &Key) -> String {
    let Key { namespace, name } = key;
    format!(
        "no route uses it any more; it stays until its route is deleted; if its Secret is not needed: kubectl delete \
         certificate -n {namespace} {name}"
    )
}

/// The result of a compile, and what the next one needs of it.
pub struct Compiled {
    /// What the data plane serves. Its version is that of the compile before if nothing in it changed.
    pub snapshot: Snapshot,
    /// The status of each route of ours.
    pub statuses: BTreeMap<RouteId, RouteStatus>,
    /// Problems of objects that have no status of ours, for the log: the object, and a sentence.
    pub remarks: BTreeMap<String, String>,
    /// The Certificates that cert-manager is to issue.
    pub wanted: Wanted,
    /// The moment, in seconds since the Unix epoch, from which another compile reports something else although no object
    /// changed: a certificate becomes valid, or is near its end, or past it.
    pub due: Option<i64>,
    /// The schemas of messages that routes name.
    pub schemas: BTreeSet<Digest>,
    /// Those of them that must be read before another compile can use them.
    pub unread_schemas: Vec<UnreadSchema>,
    carried: Carried,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, statuses, remarks, wanted, due, schemas, unread_schemas, carried: _ } = self;
        f.debug_struct("Compiled")
            .field("snapshot", snapshot)
            .field("statuses", statuses)
            .field("remarks", remarks)
            .field("wanted", wanted)
            .field("due", due)
            .field("schemas", &schemas.len())
            .field("unread_schemas", &unread_schemas.len())
            .finish_non_exhaustive()
    }
}

impl Compiled {
    /// How many routes are accepted.
    pub fn accepted(&self) -> usize {
        status::route::accepted(&self.statuses)
    }

    /// How many hosts are served with their last good certificate, because no Secret has one; the default certificate
    /// counts as one host.
    pub fn last_good_certificates(&self) -> usize {
        self.carried.certificates.standing_in()
    }

    /// Last good specs that serve in place of what their routes say now.
    pub fn standing_in(&self) -> impl Iterator<Item = (&RouteId, &RouteSpec)> {
        self.carried.drafts.standing_in()
    }
}

/// What the next compile takes over from this one.
struct Carried {
    defaults: Defaults,
    drafts: Drafts,
    certificates: CertificateCache,
    clients: Clients,
    schemas: LastGood,
}

/// Compiles all objects at `now` (seconds since the Unix epoch), with the compile before, if there was one.
///
/// Never fails: what is wrong with an object is reported in the status of the routes that it concerns, and no other route
/// is affected.
pub fn compile(objects: &Objects, options: &Options, now: i64, previous: Option<&Compiled>) -> Compiled {
    let carried = previous.map(|previous| &previous.carried);
    let same_defaults = carried.is_some_and(|carried| carried.defaults == options.defaults);
    let drafts = carried.map(|carried| &carried.drafts);
    let Candidates { mut routes, lost, drafts } =
        ownership::candidate::collect(objects, options, drafts, same_defaults);
    ownership::quota::hold(&mut routes);
    let claims: Vec<_> = routes.iter().map(Candidate::claim).collect();
    let mut ownership = ownership::host::resolve(&claims);
    ownership.reserved = Suffixes(&options.hostname_suffixes).reserved(&ownership);

    let grants = Grants::new(objects);
    let blocked = resolve::blocked_addresses::of_cluster(&options.blocked, options.own_service.as_ref(), objects);
    let clients = carried.map(|carried| &carried.clients);
    let mut resolver = Resolver::new(objects, &grants, &blocked, clients, options.standalone);
    let mut keys = resolve::jwks::Reader::new(objects, &grants, previous.map(|previous| &previous.snapshot.keys));
    let last_good = carried.map(|carried| &carried.schemas);
    let mut schemas = resolve::schema::Reader::new(objects, &grants, &options.schemas, last_good);
    let mut compiled: Vec<CompiledRoute> = Vec::with_capacity(routes.len());
    for candidate in &routes {
        let mut report = own_report(candidate, &ownership, options.unshared);
        let rules = references(candidate, options, &grants, &mut resolver, &mut keys, &mut report);
        let (content, problems) = schemas.route(&candidate.id, &candidate.effective().content);
        report.resolved.problems.extend(problems);
        compiled.push(CompiledRoute::new(candidate, rules, content, report));
    }
    let schemas = schemas.finish();

    let (wanted, issues) = tls::issuance::plan(objects, options, &routes, &ownership);
    let certificates = carried.map(|carried| &carried.certificates);
    let certificates = HostCertificates::new(objects, &grants, options, now, certificates);
    let served = serve(&ownership, &routes, &issues, certificates, &mut compiled);

    let (challenges, mut remarks) = tls::acme::collect(objects, options, &ownership, &mut resolver);
    remarks.extend(wanted.unwanted.iter().map(|key| (format!("Certificate {key}"), unwanted(key))));
    let (backends, clients) = resolver.finish();
    let (keys, reserved) = (keys.finish(), std::mem::take(&mut ownership.reserved));
    let default_tls = served.default_tls;
    let hop = ownership::class::hop(objects, options);
    let shared = assembly::Shared { backends, keys, default_tls, challenges, reserved, blocked: blocked.clone(), hop };
    let snapshot = assembly::snapshot(served.hosts, shared, previous.map(|previous| &previous.snapshot));

    let candidates = routes.iter().zip(compiled);
    let reports = candidates.map(|(route, compiled)| (route.id.clone(), &**route.route, finish(compiled.report)));
    let lost = lost.into_iter().map(|(id, route, problem)| (id, route, without_class(problem)));
    let statuses = statuses(reports.chain(lost), options, now, previous);
    let carried = Carried {
        defaults: options.defaults.clone(),
        drafts,
        certificates: served.certificates,
        clients,
        schemas: schemas.last_good,
    };
    let (schemas, unread_schemas) = (schemas.used, schemas.unread);
    Compiled { snapshot, statuses, remarks, wanted, due: served.due, schemas, unread_schemas, carried }
}

/// What a route reports of its own spec, before anything that it names is looked at.
fn own_report(candidate: &Candidate<'_>, ownership: &Ownership<'_>, unshared: Option<NonZeroUsize>) -> RouteReport {
    let mut report = RouteReport { last_good: candidate.is_last_good(), ..RouteReport::default() };
    let problems = &mut report.accepted.problems;
    problems.clone_from(&candidate.draft.problems);
    problems.extend(candidate.forbidden.iter().cloned());
    problems.extend(ownership.conflicts.get(&candidate.id).into_iter().flatten().cloned());
    let effective = candidate.effective();
    if let Some(policy) = &effective.policy {
        report.warnings.clone_from(&effective.warnings);
        let issues_tickets = |method: &Method| matches!(method.kind, Kind::Ticket(_));
        if let Some(replicas) = unshared
            && policy.handshake.authentication.methods().iter().any(issues_tickets)
        {
            let text = format_args!(
                "of {replicas} replicas only the one that issued a ticket redeems it; set sharedStore in the settings of the \
                 gateway, or run one replica"
            );
            let problem = Problem::new(ConditionReason::NoSharedStore, "spec.handshake.authentication", text);
            report.warnings.push((ConditionType::TicketsUnshared, problem));
        }
    }
    report
}

/// Resolves everything that a route names besides certificates: Services, CA bundles and keys.
fn references(
    candidate: &Candidate<'_>,
    options: &Options,
    grants: &Grants<'_>,
    resolver: &mut Resolver<'_>,
    keys: &mut resolve::jwks::Reader<'_>,
    report: &mut RouteReport,
) -> Vec<resolve::rule::ResolvedRule> {
    let home = &candidate.id.namespace;
    let rules = candidate.effective().rules.iter().enumerate();
    let mut rules: Vec<_> = rules.map(|(index, rule)| resolver.rule(home, index, rule)).collect();
    // What the policy names concerns every rule.
    let mut of_policy = Resolution::default();
    if let Some(policy) = &candidate.effective().policy {
        let authentication = &policy.handshake.authentication;
        let counted = policy.connection.per_subject.is_some();
        report.warnings.extend(status::dependency::warnings(&candidate.id, authentication, counted, &options.failing));
        candidate.refused_keys.iter().for_each(|problem| of_policy.refuse(problem.clone()));
        of_policy.add(keys.route(home, authentication));
        of_policy.add(resolve::external::resolve(home, policy, grants, resolver));
    }
    for rule in &mut rules {
        let Resolution { problems, notes, refuses } = &mut rule.resolution;
        report.resolved.problems.append(problems);
        report.resolved.notes.append(notes);
        *refuses |= of_policy.refuses;
    }
    report.resolved.problems.append(&mut of_policy.problems);
    report.resolved.notes.append(&mut of_policy.notes);
    rules
}

/// Every host with its TLS and its routes.
struct Served {
    hosts: Vec<Host>,
    default_tls: Option<Arc<TlsServerConfig>>,
    certificates: CertificateCache,
    due: Option<i64>,
}

/// Gives every host its certificates and its routes, and adds to the reports of the routes.
fn serve(
    ownership: &Ownership<'_>,
    routes: &[Candidate<'_>],
    issues: &BTreeMap<&RouteId, Issue>,
    mut certificates: HostCertificates<'_>,
    compiled: &mut [CompiledRoute],
) -> Served {
    let positions = routes.iter().enumerate().map(|(position, route)| (&route.id, position));
    let positions: HashMap<&RouteId, usize> = positions.collect();
    let mut hosts = Vec::with_capacity(ownership.hosts.len());
    for (name, host) in &ownership.hosts {
        let Some(first) = host.routes.first() else { continue };
        let owner = host.owner.and_then(|owner| positions.get(owner)).and_then(|position| routes.get(*position));
        let tls = owner.and_then(|owner| owner.effective().tls.as_ref());
        let issue = owner.and_then(|owner| issues.get(&owner.id));
        let owner = Owner { id: owner.map(|owner| &owner.id), namespace: &first.namespace };
        let tls = certificates.host(name, owner, tls, issue);
        hosts.push(assembly::host(name, host, &tls, &positions, compiled));
    }
    let default_tls = certificates.default_config().map(|built| Arc::clone(&built.config));
    let (certificates, due) = certificates.finish();
    Served { hosts, default_tls, certificates, due }
}

/// The report of a route after every host was looked at.
fn finish(mut report: RouteReport) -> RouteReport {
    if report.serving + report.refusing + report.unreachable == 0 {
        report.certificate.unjudged = Some("not checked, because no host and path belongs to the route");
        // Every path belongs to older routes: that is no longer a note.
        report.accepted.problems.append(&mut report.accepted.notes);
    }
    report
}

/// The report of a route whose class does not exist.
fn without_class(problem: Problem) -> RouteReport {
    let accepted = ConditionReport { problems: vec![problem], ..ConditionReport::default() };
    let unjudged = "not checked, because the IngressClass does not exist";
    let unjudged = || ConditionReport { unjudged: Some(unjudged), ..ConditionReport::default() };
    RouteReport { accepted, resolved: unjudged(), certificate: unjudged(), ..RouteReport::default() }
}

/// The status of every route by its report.
fn statuses<'a>(
    reports: impl Iterator<Item = (RouteId, &'a SecureWebSocketRoute, RouteReport)>,
    options: &Options,
    now: i64,
    previous: Option<&Compiled>,
) -> BTreeMap<RouteId, RouteStatus> {
    let status = |(id, route, report): (RouteId, &SecureWebSocketRoute, RouteReport)| {
        let before = previous.and_then(|previous| previous.statuses.get(&id)).or(route.status.as_ref());
        let conditions = report.conditions();
        let status = status::route::of(&route.metadata, &options.controller_name, conditions, before, now);
        (id, status)
    };
    reports.map(status).collect()
}
