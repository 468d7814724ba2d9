//! Who owns a hostname, and who may join: the oldest route decides the namespace, at most one route of it carries
//! `tls`, its neighbours join by leaving `tls` out.
//!
//! Knows claims only: no certificate, no path, no object.

use std::collections::{BTreeMap, HashSet};

use crate::api::route_id::RouteId;
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::{Problem, quote};

/// What orders routes of one namespace that want the same thing: routes that compiled at least once, then age, then
/// namespace/name. A route that never compiled has served nobody, so it takes nothing from one that does.
///
/// Between namespaces age alone counts. Which routes once compiled is forgotten with the process, and a name must not
/// change hands because an older route does not compile when the gateway starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank<'a> {
    /// Whether no version of the route ever compiled.
    pub never_good: bool,
    /// `metadata.creationTimestamp`, seconds since the Unix epoch; the largest value where there is none.
    pub created: i64,
    /// Last resort, and unique.
    pub id: &'a RouteId,
}

/// A route's wish for its hostnames.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    /// Who, and how old.
    pub rank: Rank<'a>,
    /// The valid ones among `spec.hostnames`.
    pub hostnames: &'a [Box<str>],
    /// Whether the route carries `tls`.
    pub tls: bool,
}

/// One hostname after all claims were judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOwnership<'a> {
    /// The route whose `tls` the host has; `None`: the default certificate.
    pub owner: Option<&'a RouteId>,
    /// Every route of the host, the owner included, by rank.
    pub routes: Vec<&'a RouteId>,
}

/// Who owns every hostname, and which routes were refused one.
#[derive(Debug, Default)]
pub struct Ownership<'a> {
    /// By hostname as routes write it.
    pub hosts: BTreeMap<&'a str, HostOwnership<'a>>,
    /// Routes that do not get a hostname, and why.
    pub conflicts: BTreeMap<&'a RouteId, Vec<Problem>>,
    /// Names that no wildcard serves: the settings reserve them for other namespaces than the wildcard's.
    pub reserved: HashSet<Box<str>>,
}

/// Gives every hostname to the namespace of the oldest claim, and its TLS to the first of them by rank that carries it.
///
/// A name and a wildcard that includes it are two hostnames with an owner each; the exact one wins at look-up.
pub fn resolve<'a>(claims: &[Claim<'a>]) -> Ownership<'a> {
    let mut wanted: BTreeMap<&'a str, Vec<&Claim<'a>>> = BTreeMap::new();
    for claim in claims {
        for hostname in claim.hostnames {
            wanted.entry(hostname).or_default().push(claim);
        }
    }
    let mut ownership = Ownership::default();
    for (hostname, mut claims) in wanted {
        claims.sort_by_key(|claim| claim.rank);
        let Some(oldest) = claims.iter().min_by_key(|claim| (claim.rank.created, claim.rank.id)) else { continue };
        let namespace = &oldest.rank.id.namespace;
        let owner =
            claims.iter().find(|claim| claim.tls && claim.rank.id.namespace == *namespace).map(|claim| claim.rank.id);
        let mut routes = Vec::with_capacity(claims.len());
        for claim in claims {
            let id = claim.rank.id;
            let (field, text) = match owner {
                // Whose it is stays untold: that is another tenant's business.
                _ if id.namespace != *namespace => {
                    ("spec.hostnames", format!("{} belongs to another namespace; use another name", quote(hostname)))
                }
                Some(owner) if claim.tls && owner != id => (
                    "spec.tls",
                    format!(
                        "host {} already has tls from route {owner}; remove tls from one of the two",
                        quote(hostname)
                    ),
                ),
                _ => {
                    routes.push(id);
                    continue;
                }
            };
            let conflict = Problem::new(Reason::HostnameConflict, field, text);
            ownership.conflicts.entry(id).or_default().push(conflict);
        }
        ownership.hosts.insert(hostname, HostOwnership { owner, routes });
    }
    ownership
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> RouteId {
        let (namespace, name) = text.split_once('/').unwrap();
        RouteId::secure_web_socket(namespace, name)
    }

    struct Wish(RouteId, i64, bool, bool);

    fn wish(text: &str, created: i64, tls: bool) -> Wish {
        Wish(id(text), created, tls, false)
    }

    /// (owner, routes, turned away) of `a.test`, which all claim.
    fn outcome(wishes: &[Wish]) -> (Option<String>, Vec<String>, Vec<String>) {
        let hostnames = ["a.test".into()];
        let claims: Vec<Claim<'_>> = wishes
            .iter()
            .map(|Wish(id, created, tls, never_good)| Claim {
                rank: Rank { never_good: *never_good, created: *created, id },
                hostnames: &hostnames,
                tls: *tls,
            })
            .collect();
        let ownership = resolve(&claims);
        let host = &ownership.hosts["a.test"];
        let text = |ids: &[&RouteId]| ids.iter().map(ToString::to_string).collect();
        let away: Vec<&RouteId> = ownership.conflicts.keys().copied().collect();
        (host.owner.map(ToString::to_string), text(&host.routes), text(&away))
    }

    #[test]
    fn the_oldest_decides_the_namespace_even_without_tls() {
        let (owner, routes, away) = outcome(&[wish("a/young", 9, true), wish("z/old", 1, false)]);
        assert_eq!((owner, routes, away), (None, vec!["z/old".into()], vec!["a/young".into()]));
    }

    #[test]
    fn neighbours_join_and_a_second_tls_does_not() {
        let wishes = [wish("shop/b", 2, false), wish("shop/a", 1, true), wish("shop/c", 3, true)];
        let (owner, routes, away) = outcome(&wishes);
        assert_eq!(owner.as_deref(), Some("shop/a"));
        assert_eq!(routes, ["shop/a", "shop/b"]);
        assert_eq!(away, ["shop/c"]);
    }

    #[test]
    fn names_decide_between_routes_of_one_age() {
        let (owner, ..) = outcome(&[wish("b/a", 1, true), wish("a/z", 1, true)]);
        assert_eq!(owner.as_deref(), Some("a/z"));
    }

    #[test]
    fn a_route_that_never_compiled_takes_no_host_from_one_that_did() {
        let (owner, routes, _) = outcome(&[Wish(id("shop/broken"), 1, true, true), wish("shop/good", 2, true)]);
        assert_eq!((owner.as_deref(), routes.len()), (Some("shop/good"), 1));
    }

    #[test]
    fn no_other_namespace_gets_the_host_of_an_older_route_that_never_compiled() {
        let wishes = [Wish(id("z/broken"), 1, true, true), wish("a/good", 2, true), wish("z/good", 3, true)];
        let (owner, routes, away) = outcome(&wishes);
        assert_eq!(owner.as_deref(), Some("z/good"));
        assert_eq!((routes, away), (vec!["z/good".into()], vec!["a/good".into(), "z/broken".into()]));
    }
}
