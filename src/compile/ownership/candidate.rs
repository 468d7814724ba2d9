//! The routes that are ours, each with the draft that counts: its own, or the last good one in place of one that does
//! not compile. Knows routes and drafts; not what they refer to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::api::objects::{Key, Objects};
use crate::api::route::{RouteSpec, SecureWebSocketRoute};
use crate::api::route_id::RouteId;
use crate::api::status::ConditionReason as Reason;
use crate::api::violation::SchemaViolation;
use crate::compile::options::Options;
use crate::compile::ownership::ceilings;
use crate::compile::ownership::class::{self, Class};
use crate::compile::ownership::host::{Claim, Rank};
use crate::compile::ownership::suffix::Suffixes;
use crate::compile::problem::{Problem, quote};
use crate::compile::spec::ceiling::NamespaceCeilings;
use crate::compile::spec::draft::Draft;

/// A route of ours.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Its identity.
    pub id: RouteId,
    /// The object.
    pub route: &'a Arc<SecureWebSocketRoute>,
    /// The draft of the spec as it is now.
    pub draft: Arc<Draft>,
    /// The last draft without mistakes, if there ever was one: the same one if the spec is right.
    good: Option<Arc<Draft>>,
    /// Hostnames of the draft that counts and that the namespace may use.
    pub(super) hostnames: Vec<Box<str>>,
    /// Hostnames that it may not use, and why it is not served at all.
    pub forbidden: Vec<Problem>,
    /// Key sets that it may not use.
    pub refused_keys: Vec<Problem>,
    /// The ceilings of its namespace.
    pub(super) ceilings: Arc<NamespaceCeilings>,
}

impl Candidate<'_> {
    /// The draft that counts.
    pub fn effective(&self) -> &Arc<Draft> {
        self.good.as_ref().unwrap_or(&self.draft)
    }

    /// Whether the last good draft stands in for the spec.
    pub fn is_last_good(&self) -> bool {
        self.draft.policy.is_none() && self.good.is_some()
    }

    /// Whether it is being deleted: then nothing is created, applied or kept for it, and it is served until it is gone.
    pub fn is_being_deleted(&self) -> bool {
        self.route.metadata.deletion_timestamp.is_some()
    }

    /// Its place among the routes that want the same.
    pub(super) fn rank(&self) -> Rank<'_> {
        let created = self.route.metadata.creation_timestamp.as_ref();
        let created = created.map_or(i64::MAX, |time| time.0.as_second());
        Rank { never_good: self.good.is_none(), created, id: &self.id }
    }

    /// What it wants of hostnames.
    pub fn claim(&self) -> Claim<'_> {
        Claim { rank: self.rank(), hostnames: &self.hostnames, tls: self.effective().tls.is_some() }
    }
}

/// Drafts of the compile before.
#[derive(Debug, Default)]
pub struct Drafts {
    by_route: BTreeMap<RouteId, KeptDraft>,
}

/// What is kept of one route.
#[derive(Debug)]
struct KeptDraft {
    route: Arc<SecureWebSocketRoute>,
    violations: Option<Arc<[SchemaViolation]>>,
    draft: Arc<Draft>,
    good: Option<Arc<Draft>>,
    /// The route as it was when it was good.
    good_route: Option<Arc<SecureWebSocketRoute>>,
    /// The ceilings by which the drafts were read.
    ceilings: Arc<NamespaceCeilings>,
}

impl KeptDraft {
    /// The last good draft, by the ceilings that hold now. A spec that does not compile with the defaults and ceilings of
    /// now is not good any more: the draft of before could have more than the ceilings.
    fn good(&self, options: &Options, ceilings: &NamespaceCeilings) -> Option<Arc<Draft>> {
        if *self.ceilings == *ceilings {
            return self.good.clone();
        }
        let draft = Draft::read(&self.good_route.as_ref()?.spec, &[], &options.defaults, ceilings);
        draft.policy.is_some().then(|| Arc::new(draft))
    }
}

impl Drafts {
    /// Last good specs that stand in for what their routes say now.
    pub fn standing_in(&self) -> impl Iterator<Item = (&RouteId, &RouteSpec)> {
        let last_good = self.by_route.iter().filter(|(_, kept)| kept.draft.policy.is_none());
        last_good.filter_map(|(id, kept)| Some((id, &kept.good_route.as_ref()?.spec)))
    }
}

/// What there is of ours.
#[derive(Debug)]
pub struct Candidates<'a> {
    /// By identity.
    pub routes: Vec<Candidate<'a>>,
    /// Routes of a class that does not exist, and the problem.
    pub lost: Vec<(RouteId, &'a SecureWebSocketRoute, Problem)>,
    /// What the next compile needs.
    pub drafts: Drafts,
}

/// Reads every route of ours, or takes the draft of `before` where neither the route nor the defaults changed.
pub fn collect<'a>(
    objects: &'a Objects,
    options: &Options,
    before: Option<&Drafts>,
    same_defaults: bool,
) -> Candidates<'a> {
    let mut candidates = Candidates { routes: Vec::new(), lost: Vec::new(), drafts: Drafts::default() };
    let mut by_namespace: HashMap<&str, Arc<NamespaceCeilings>> = HashMap::new();
    for (key, route) in &objects.routes {
        let id = RouteId::secure_web_socket(&key.namespace, &key.name);
        match class::of(route, objects, options) {
            Class::Ours => {}
            Class::Foreign => continue,
            Class::Lost(problem) => {
                candidates.lost.push((id, route, problem));
                continue;
            }
        }
        let ceilings = by_namespace.entry(&key.namespace).or_insert_with_key(|namespace| {
            let labels = labels(objects, options, namespace);
            Arc::new(ceilings::of(&options.ceilings, namespace, labels))
        });
        // A route that was deleted and made anew is another route, whatever its name.
        let kept = before.and_then(|before| before.by_route.get(&id));
        let kept = kept.filter(|kept| kept.route.metadata.uid == route.metadata.uid);
        let violations = objects.violations.get(key);
        let same = kept.filter(|kept| {
            same_defaults
                && kept.ceilings == *ceilings
                && (Arc::ptr_eq(&kept.route, route) || kept.route.spec == route.spec)
                && kept.violations.as_deref() == violations.map(|violations| &**violations)
        });
        let draft = same.map_or_else(
            || {
                let violations = violations.map_or(&[][..], |all| all);
                Arc::new(Draft::read(&route.spec, violations, &options.defaults, ceilings))
            },
            |kept| Arc::clone(&kept.draft),
        );
        let good = match &draft.policy {
            Some(_) => Some(Arc::clone(&draft)),
            None => kept.and_then(|kept| kept.good(options, ceilings)),
        };
        let good_route = match &draft.policy {
            Some(_) => Some(Arc::clone(route)),
            None => kept.and_then(|kept| kept.good_route.clone()),
        };
        let effective = good.as_ref().unwrap_or(&draft);
        let (hostnames, forbidden) = permitted(&key.namespace, &effective.hostnames, options);
        let kept = KeptDraft {
            route: Arc::clone(route),
            violations: violations.cloned(),
            draft: Arc::clone(&draft),
            good: good.clone(),
            good_route,
            ceilings: Arc::clone(ceilings),
        };
        candidates.drafts.by_route.insert(id.clone(), kept);
        let (ceilings, refused_keys) = (Arc::clone(ceilings), Vec::new());
        let candidate = Candidate { id, route, draft, good, hostnames, forbidden, refused_keys, ceilings };
        candidates.routes.push(candidate);
    }
    candidates
}

/// The labels of a namespace; `None`: it cannot be read. Among files a namespace without a manifest has none.
fn labels<'a>(objects: &'a Objects, options: &Options, namespace: &str) -> Option<&'a BTreeMap<String, String>> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let found = objects.namespaces.get(&Key::new("", namespace));
    match found {
        Some(found) => Some(found.metadata.labels.as_ref().unwrap_or(&NONE)),
        None => options.standalone.then_some(&NONE),
    }
}

/// The hostnames that a namespace may use by the settings, and the problems of the others.
fn permitted(namespace: &str, hostnames: &[Box<str>], options: &Options) -> (Vec<Box<str>>, Vec<Problem>) {
    let suffixes = Suffixes(&options.hostname_suffixes);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for name in hostnames {
        match suffixes.permit(namespace, name) {
            Ok(()) => good.push(name.clone()),
            Err(instead) => {
                let text = format_args!(
                    "the settings of the gateway do not allow namespace {} to use {}; {instead}",
                    quote(namespace),
                    quote(name),
                );
                bad.push(Problem::new(Reason::HostnameNotPermitted, "spec.hostnames", text));
            }
        }
    }
    (good, bad)
}
