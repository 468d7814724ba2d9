//! What the data plane asks while it judges handshakes: reported back across the seam, so that the conditions of a route
//! can say that it cannot be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::api::route_id::RouteId;
use crate::policy::Policy;
use crate::policy::authentication::{Authentication, External, Jwt, KeySource, Kind};
use crate::snapshot::{BackendId, RouteState, Snapshot};

/// Something outside the gateway without which handshakes cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// The key set that is fetched from a URI, as the route writes it.
    KeySet(Box<str>),
    /// A Service that judges handshakes.
    Service(BackendId),
    /// The store that all replicas share.
    Store,
    /// A backend of the route, which leads back to the gateway.
    Loop(RouteId),
}

impl Dependency {
    /// The Service that a method of a route in the namespace `home` asks.
    pub fn service(home: &str, external: &External) -> BackendId {
        let namespace = external.namespace.as_deref().unwrap_or(home);
        BackendId { namespace: namespace.into(), service: external.service.clone(), port: external.port }
    }

    /// Those of the methods of a route in the namespace `home`, each with the index of its method.
    pub fn of<'a>(home: &'a str, authentication: &'a Authentication) -> impl Iterator<Item = (usize, Self)> + 'a {
        authentication.methods().iter().enumerate().filter_map(move |(index, method)| {
            let dependency = match &method.kind {
                Kind::Jwt(Jwt { keys: KeySource::Remote(uri), .. }) => Self::KeySet(uri.clone()),
                Kind::Jwt(_) => return None,
                Kind::External(external) => Self::Service(Self::service(home, external)),
                Kind::Ticket(_) => Self::Store,
            };
            Some((index, dependency))
        })
    }

    /// Its kind, as logs and metrics call it: `jwks`, `external`, `shared_store`, `loop`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::KeySet(_) => "jwks",
            Self::Service(_) => "external",
            Self::Store => "shared_store",
            Self::Loop(_) => "loop",
        }
    }
}

impl fmt::Display for Dependency {
    /// The name for logs, metrics and statuses: a URI without its query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeySet(uri) => f.write_str(uri.split('?').next().unwrap_or_default()),
            Self::Service(service) => service.fmt(f),
            Self::Store => f.write_str("shared"),
            Self::Loop(route) => f.write_str(route.label()),
        }
    }
}

impl Snapshot {
    /// Everything that the judging of handshakes depends on.
    pub fn dependencies(&self) -> BTreeSet<Dependency> {
        let mut found = BTreeSet::new();
        for (id, policy) in self.serving() {
            found.extend(Dependency::of(&id.namespace, &policy.handshake.authentication).map(|(_, one)| one));
            found.extend(policy.connection.per_subject.map(|_| Dependency::Store));
        }
        found
    }

    /// The key sets that are fetched, each with the namespaces of the routes that name it.
    pub fn key_sets(&self) -> BTreeMap<Box<str>, BTreeSet<Box<str>>> {
        let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (id, policy) in self.serving() {
            for (_, dependency) in Dependency::of(&id.namespace, &policy.handshake.authentication) {
                if let Dependency::KeySet(uri) = dependency {
                    found.entry(uri).or_default().insert(id.namespace.clone());
                }
            }
        }
        found
    }

    fn serving(&self) -> impl Iterator<Item = (&RouteId, &Policy)> {
        let routes = self.exact.values().chain(self.wildcard.values()).flat_map(|host| &host.routes);
        routes.filter_map(|route| match &route.state {
            RouteState::Serving(policy) => Some((&route.id, &**policy)),
            RouteState::Refusing(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_of_a_query() {
        let keys = Dependency::KeySet("https://idp.test/jwks?key=secret".into());
        assert_eq!((keys.to_string().as_str(), keys.kind()), ("https://idp.test/jwks", "jwks"));
        let service = BackendId { namespace: "shop".into(), service: "sessions".into(), port: 80 };
        assert_eq!(Dependency::Service(service).to_string(), "shop/sessions:80");
    }
}
