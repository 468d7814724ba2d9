//! How many routes, hostnames and key sets a namespace has: what is beyond its ceilings is refused, and the oldest routes
//! keep theirs. Knows candidates and ceilings only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use crate::api::status::ConditionReason as Reason;
use crate::compile::ownership::candidate::Candidate;
use crate::compile::problem::{Problem, quote};
use crate::compile::spec::ceiling::Ceiling;
use crate::policy::authentication::{KeySource, Kind};

/// Takes from the routes what is beyond the ceilings of their namespaces.
pub fn hold(routes: &mut [Candidate<'_>]) {
    let mut namespaces: BTreeMap<Box<str>, Vec<&mut Candidate<'_>>> = BTreeMap::new();
    for route in routes.iter_mut().filter(|route| route.ceilings.counts_objects()) {
        namespaces.entry(route.id.namespace.clone()).or_default().push(route);
    }
    for mut routes in namespaces.into_values() {
        // In the order in which routes of one namespace get a hostname.
        routes.sort_by(|one, other| one.rank().cmp(&other.rank()));
        let mut held = Held::default();
        for route in routes {
            held.add(route);
        }
    }
}

/// What the routes of one namespace have.
#[derive(Debug, Default)]
struct Held {
    routes: u32,
    hostnames: BTreeSet<Box<str>>,
    key_sets: BTreeSet<KeySource>,
}

impl Held {
    /// Adds a route with what it names, as far as the ceilings let it.
    fn add(&mut self, route: &mut Candidate<'_>) {
        let ceilings = route.ceilings.clone();
        if let Some(ceiling) = reached(ceilings.routes.as_ref(), self.routes as usize) {
            let fix = "delete another route of the namespace";
            route.forbidden.push(beyond("metadata.namespace", ceiling, "routes", fix));
            route.hostnames.clear();
            return;
        }
        self.routes += 1;
        for hostname in std::mem::take(&mut route.hostnames) {
            let full = reached(ceilings.hostnames.as_ref(), self.hostnames.len());
            match full.filter(|_| !self.hostnames.contains(&hostname)) {
                Some(ceiling) => {
                    let fix = format_args!("{} is not served; remove a hostname of the namespace", quote(&hostname));
                    route.forbidden.push(beyond("spec.hostnames", ceiling, "hostnames", fix));
                }
                None => {
                    self.hostnames.insert(hostname.clone());
                    route.hostnames.push(hostname);
                }
            }
        }
        let Some(policy) = route.effective().policy.clone() else { return };
        for (index, method) in policy.handshake.authentication.methods().iter().enumerate() {
            let Kind::Jwt(jwt) = &method.kind else { continue };
            let source = jwt.keys.within(&route.id.namespace);
            let full = reached(ceilings.key_sets.as_ref(), self.key_sets.len());
            match full.filter(|_| !self.key_sets.contains(&source)) {
                Some(ceiling) => {
                    let field = format_args!("spec.handshake.authentication.methods[{index}].jwt.jwks");
                    let fix = "name a key set that another route of the namespace names";
                    route.refused_keys.push(beyond(field, ceiling, "keySets", fix));
                }
                None => drop(self.key_sets.insert(source)),
            }
        }
    }
}

/// The ceiling, if so many are as many as it lets there be.
fn reached(ceiling: Option<&Ceiling<u32>>, held: usize) -> Option<&Ceiling<u32>> {
    ceiling.filter(|ceiling| held >= ceiling.most as usize)
}

fn beyond(field: impl Display, Ceiling { most, scope }: &Ceiling<u32>, key: &str, fix: impl Display) -> Problem {
    let text = format_args!(
        "the ceiling of {scope} ({key}: {most}) is reached; {fix}, or ask the operator of the gateway for a higher ceiling"
    );
    Problem::new(Reason::CeilingReached, field, text)
}
