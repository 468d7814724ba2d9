//! Every Kubernetes object that one compile reads, as sorted maps. Objects are shared, so that what did not change is
//! the same `Arc` in the next compile. Knows nothing of where they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::route::SecureWebSocketRoute;
use super::violation::SchemaViolation;

/// Namespace and name of an object; the namespace of cluster-scoped objects is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key of its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object's metadata; what is absent there is empty.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// Every object that a compile reads.
#[derive(Clone, Default, PartialEq)]
pub struct Objects {
    /// Routes.
    pub routes: BTreeMap<Key, Arc<SecureWebSocketRoute>>,
    /// IngressClasses, ours and others.
    pub ingress_classes: BTreeMap<Key, Arc<IngressClass>>,
    /// Secrets.
    pub secrets: BTreeMap<Key, Arc<Secret>>,
    /// Services.
    pub services: BTreeMap<Key, Arc<Service>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<Key, Arc<EndpointSlice>>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<Key, Arc<ConfigMap>>,
    /// ReferenceGrants, v1 and v1beta1.
    pub reference_grants: BTreeMap<Key, Arc<ReferenceGrant>>,
    /// Ingresses: of interest are those by which cert-manager answers ACME challenges.
    pub ingresses: BTreeMap<Key, Arc<Ingress>>,
    /// Namespaces, for their labels; in a cluster only where the settings ask for labels.
    pub namespaces: BTreeMap<Key, Arc<Namespace>>,
    /// cert-manager's Certificates.
    pub certificates: BTreeMap<Key, Arc<Certificate>>,
    /// Whether Certificates can be made: the API server serves them.
    pub cert_manager: bool,
    /// What routes name and the API server does not let the gateway read, by kind and key.
    pub unreadable: BTreeSet<(&'static str, Key)>,
    /// What routes name and the API server has not answered for yet, by kind and key: whether it is there is not known.
    pub awaited: BTreeSet<(&'static str, Key)>,
    /// What the API server would have refused or dropped in a route, for sources that have none. Such a route must not be
    /// accepted; an unknown field may be a security setting with a typing error.
    pub violations: BTreeMap<Key, Arc<[SchemaViolation]>>,
}

impl fmt::Debug for Objects {
    /// Counts only: Secrets are among the objects.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects")
            .field("routes", &self.routes.len())
            .field("ingress_classes", &self.ingress_classes.len())
            .field("secrets", &self.secrets.len())
            .field("services", &self.services.len())
            .field("endpoint_slices", &self.endpoint_slices.len())
            .field("config_maps", &self.config_maps.len())
            .field("reference_grants", &self.reference_grants.len())
            .field("ingresses", &self.ingresses.len())
            .field("namespaces", &self.namespaces.len())
            .field("certificates", &self.certificates.len())
            .field("cert_manager", &self.cert_manager)
            .finish_non_exhaustive()
    }
}

impl Objects {
    /// Adds an object, replacing one of the same kind and key.
    pub fn insert(&mut self, object: Object) {
        let key = object.key();
        match object {
            Object::Route(o) => drop(self.routes.insert(key, o)),
            Object::IngressClass(o) => drop(self.ingress_classes.insert(key, o)),
            Object::Secret(o) => drop(self.secrets.insert(key, o)),
            Object::Service(o) => drop(self.services.insert(key, o)),
            Object::EndpointSlice(o) => drop(self.endpoint_slices.insert(key, o)),
            Object::ConfigMap(o) => drop(self.config_maps.insert(key, o)),
            Object::ReferenceGrant(o) => drop(self.reference_grants.insert(key, o)),
            Object::Ingress(o) => drop(self.ingresses.insert(key, o)),
            Object::Namespace(o) => drop(self.namespaces.insert(key, o)),
            Object::Certificate(o) => drop(self.certificates.insert(key, o)),
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.routes.len()
            + self.ingress_classes.len()
            + self.secrets.len()
            + self.services.len()
            + self.endpoint_slices.len()
            + self.config_maps.len()
            + self.reference_grants.len()
            + self.ingresses.len()
            + self.namespaces.len()
            + self.certificates.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One object of a kind that a compile reads.
#[derive(Clone)]
pub enum Object {
    /// `wssgate.io/v1alpha1` SecureWebSocketRoute.
    Route(Arc<SecureWebSocketRoute>),
    /// `networking.k8s.io/v1` IngressClass.
    IngressClass(Arc<IngressClass>),
    /// `v1` Secret.
    Secret(Arc<Secret>),
    /// `v1` Service.
    Service(Arc<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// `v1` ConfigMap.
    ConfigMap(Arc<ConfigMap>),
    /// `gateway.networking.k8s.io/v1` or `v1beta1` ReferenceGrant.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// `networking.k8s.io/v1` Ingress.
    Ingress(Arc<Ingress>),
    /// `v1` Namespace.
    Namespace(Arc<Namespace>),
    /// `cert-manager.io/v1` Certificate.
    Certificate(Arc<Certificate>),
}

impl Object {
    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::of(match self {
            Self::Route(o) => &o.metadata,
            Self::IngressClass(o) => &o.metadata,
            Self::Secret(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::ConfigMap(o) => &o.metadata,
            Self::ReferenceGrant(o) => &o.metadata,
            Self::Ingress(o) => &o.metadata,
            Self::Namespace(o) => &o.metadata,
            Self::Certificate(o) => &o.metadata,
        })
    }

    /// The kind, as manifests write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Route(_) => "SecureWebSocketRoute",
            Self::IngressClass(_) => "IngressClass",
            Self::Secret(_) => "Secret",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::ConfigMap(_) => "ConfigMap",
            Self::ReferenceGrant(_) => "ReferenceGrant",
            Self::Ingress(_) => "Ingress",
            Self::Namespace(_) => "Namespace",
            Self::Certificate(_) => "Certificate",
        }
    }
}

impl fmt::Debug for Object {
    /// Kind and key only: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.key())
    }
}

/// Permission for objects of other namespaces to name objects of this one (Gateway API, v1 and v1beta1).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    #[serde(default)]
    pub from: Vec<ReferenceGrantFrom>,
    /// To what of this namespace.
    #[serde(default)]
    pub to: Vec<ReferenceGrantTo>,
}

/// Who may refer to objects of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantFrom {
    /// Group of the referrer.
    #[serde(default)]
    pub group: String,
    /// Kind of the referrer.
    pub kind: String,
    /// Namespace of the referrer.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantTo {
    /// Group of the object.
    #[serde(default)]
    pub group: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object; any one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A ReferenceGrant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrant {
    /// Its metadata; the namespace is the one that is opened.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it permits.
    #[serde(default)]
    pub spec: ReferenceGrantSpec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_shows_a_secret() {
        let secret = Secret {
            metadata: ObjectMeta { name: Some("s".into()), namespace: Some("n".into()), ..ObjectMeta::default() },
            string_data: Some([("k".into(), "hunter2".into())].into()),
            ..Secret::default()
        };
        let object = Object::Secret(Arc::new(secret));
        assert_eq!(format!("{object:?}"), "Secret n/s");
        let mut objects = Objects::default();
        objects.insert(object);
        assert_eq!(objects.len(), 1);
        assert!(!format!("{objects:?}").contains("hunter2"));
    }

    #[test]
    fn keys_sort_by_namespace_then_name() {
        let mut keys = [Key::new("b", "a"), Key::new("a", "z"), Key::new("", "class")];
        keys.sort();
        assert_eq!(keys.map(|k| k.to_string()), ["class", "a/z", "b/a"]);
    }
}
