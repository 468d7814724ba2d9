//! The identity of a route object: its kind, namespace and name. Everything that is counted, kept or shown by route is
//! keyed by it, so that routes of two kinds share nothing even where they have one name.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A kind of route objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RouteKind {
    /// `wssgate.io` SecureWebSocketRoute.
    SecureWebSocketRoute,
    /// `gateway.networking.k8s.io` HTTPRoute. No source reads it yet: tests prove with it that kinds are kept apart.
    #[cfg(test)]
    HttpRoute,
}

impl RouteKind {
    /// The kind as manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecureWebSocketRoute => "SecureWebSocketRoute",
            #[cfg(test)]
            Self::HttpRoute => "HTTPRoute",
        }
    }

    /// What stands before the name of a route of this kind in logs and metrics; empty for the gateway's own kind.
    const fn prefix(self) -> &'static str {
        match self {
            Self::SecureWebSocketRoute => "",
            #[cfg(test)]
            Self::HttpRoute => "httproute/",
        }
    }
}

/// A route object. Clones share its parts: each connection is counted under several keys that have it.
#[derive(Clone)]
pub struct RouteId(Arc<Parts>);

/// The parts of a [`RouteId`].
pub struct Parts {
    /// Kind of the object.
    pub kind: RouteKind,
    /// Namespace of the object.
    pub namespace: Box<str>,
    /// Name of the object.
    pub name: Box<str>,
    label: Box<str>,
}

impl RouteId {
    /// The identity of its three parts.
    pub fn new(kind: RouteKind, namespace: &str, name: &str) -> Self {
        let label = format!("{}{namespace}/{name}", kind.prefix()).into();
        Self(Arc::new(Parts { kind, namespace: namespace.into(), name: name.into(), label }))
    }

    /// The name for logs, metrics and messages: `namespace/name`, and before that the kind for every kind but the
    /// gateway's own. No two routes have one label, because neither a namespace nor a name has a slash.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    fn key(&self) -> (RouteKind, &str, &str) {
        (self.0.kind, &self.0.namespace, &self.0.name)
    }

    /// The identity of a SecureWebSocketRoute.
    pub fn secure_web_socket(namespace: &str, name: &str) -> Self {
        Self::new(RouteKind::SecureWebSocketRoute, namespace, name)
    }
}

impl Deref for RouteId {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl PartialEq for RouteId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.key() == other.key()
    }
}

impl Eq for RouteId {}

impl Hash for RouteId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for RouteId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RouteId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Debug for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RouteId").field(&self.label()).finish()
    }
}

impl fmt::Display for RouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kinds_of_one_name_are_two_routes_with_two_labels() {
        let own = RouteId::secure_web_socket("shop", "chat");
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        assert_ne!(own, other);
        assert_eq!(own.to_string(), "shop/chat");
        assert_eq!(other.to_string(), "httproute/shop/chat");
        assert_eq!((own.kind.as_str(), other.kind.as_str()), ("SecureWebSocketRoute", "HTTPRoute"));
    }

    #[test]
    fn routes_of_two_kinds_and_one_name_have_metrics_of_their_own() {
        let own = RouteId::secure_web_socket("shop", "chat").to_string();
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat").to_string();
        let metrics = crate::telemetry::metrics::Metrics::new();
        metrics.route(&own).accepted();
        let text = metrics.encode();
        assert!(text.contains(&format!("route=\"{own}\"")) && !text.contains(&format!("route=\"{other}\"")), "{text}");
        metrics.route(&other).accepted();
        assert!(metrics.encode().contains(&format!("route=\"{other}\"")));
    }
}
