//! The kinds that are watched: where each is served, what of it is kept, and where it is put. Adding a kind is an
//! implementation of [`Kind`] here and a line in `mod.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ObjectReference, Secret, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::object_cache::{ObjectCache, Published};
use crate::api::certificate::{self, Certificate};
use crate::api::objects::{Key, ReferenceGrant};
use crate::api::route::{Handshake, RouteSpec, SecureWebSocketRoute};
use crate::api::violation::{self, SchemaViolation, Violation};

/// The annotation in which kubectl keeps the whole object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The Service by which the API server is reached; its addresses are no backends.
pub(super) const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// A kind of object that is watched.
pub(super) trait Kind: Clone + fmt::Debug + PartialEq + DeserializeOwned + Send + Sync + 'static {
    /// As users write it.
    const NAME: &'static str;
    /// API group, versions in the order of preference, plural.
    const SERVED: (&'static str, &'static [&'static str], &'static str);
    /// Whether the cluster may be without it; then it is looked for again and again.
    const OPTIONAL: bool = false;
    /// Whether its version is kept: only for what is written back, because a version changes when nothing else does.
    const VERSIONED: bool = false;
    /// Whether its owners are kept.
    const OWNED: bool = false;
    /// Objects per page of a list: a page is in memory whole, before what nobody names is dropped.
    const PAGE: u32 = 500;
    /// Only objects with these labels are read.
    const LABELLED: Option<&'static str> = None;

    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Its metadata.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// Drops what nobody reads. Labels, annotations, owners and managed fields are dropped by [`Item`], unless
    /// [`Kind::annotations`], [`Kind::labels`] or [`Kind::OWNED`] say otherwise. `deletionTimestamp` stays with every kind.
    fn slim(&mut self) {}
    /// Whether an annotation is kept.
    fn annotations(_name: &str) -> bool {
        false
    }
    /// Whether a label is kept.
    fn labels(_name: &str) -> bool {
        false
    }
    /// Reads an object as it arrives.
    ///
    /// # Errors
    /// It does not have the form of the kind. One such object fails a whole list, so that kinds whose form the API
    /// server does not guarantee never fail.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        Ok(Item { object: Self::deserialize(deserializer)?, violations: Vec::new() })
    }
    /// The objects of the kind.
    fn objects(cache: &mut ObjectCache) -> &mut BTreeMap<Key, Arc<Self>>;
    /// The type of a Secret.
    fn secret_type(&self) -> Option<&str> {
        None
    }
    /// Whether an object is worth being kept.
    fn is_wanted(_cache: &ObjectCache, _key: &Key) -> bool {
        true
    }
    /// An object was stored, or removed (`None`).
    fn changed(_cache: &mut ObjectCache, _key: &Key, _item: Option<(&Arc<Self>, Vec<SchemaViolation>)>) {}
}

/// An object as it arrived, rid of what nobody reads.
#[derive(Clone)]
pub(super) struct Item<K> {
    /// The object.
    pub(super) object: K,
    /// What is wrong with it; routes only.
    pub(super) violations: Vec<SchemaViolation>,
}

impl<K: Kind> fmt::Debug for Item<K> {
    /// Kind and key only: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", K::NAME, Key::of(self.object.metadata()))
    }
}

impl<'de, K: Kind> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut item = K::read(deserializer)?;
        let metadata = item.object.metadata_mut();
        metadata.managed_fields = None;
        if !K::OWNED {
            metadata.owner_references = None;
        }
        metadata.finalizers = None;
        metadata.annotations = kept(metadata.annotations.take(), K::annotations);
        metadata.labels = kept(metadata.labels.take(), K::labels);
        item.object.slim();
        Ok(item)
    }
}

fn kept(map: Option<BTreeMap<String, String>>, keeps: fn(&str) -> bool) -> Option<BTreeMap<String, String>> {
    let mut map = map?;
    map.retain(|name, _| keeps(name));
    Some(map).filter(|map| !map.is_empty())
}

impl<K: Kind> kube::Resource for Item<K> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(dt: &ApiResource) -> Cow<'_, str> {
        dt.kind.as_str().into()
    }
    fn group(dt: &ApiResource) -> Cow<'_, str> {
        dt.group.as_str().into()
    }
    fn version(dt: &ApiResource) -> Cow<'_, str> {
        dt.version.as_str().into()
    }
    fn plural(dt: &ApiResource) -> Cow<'_, str> {
        dt.plural.as_str().into()
    }
    fn meta(&self) -> &ObjectMeta {
        self.object.metadata()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.metadata_mut()
    }
}

/// Where a kind is served.
pub(super) fn resource<K: Kind>(version: &str) -> ApiResource {
    let (group, _, plural) = K::SERVED;
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, K::NAME), plural)
}

macro_rules! metadata {
    () => {
        fn metadata(&self) -> &ObjectMeta {
            &self.metadata
        }
        fn metadata_mut(&mut self) -> &mut ObjectMeta {
            &mut self.metadata
        }
    };
}

macro_rules! objects {
    ($member:ident) => {
        fn objects(cache: &mut ObjectCache) -> &mut BTreeMap<Key, Arc<Self>> {
            &mut cache.objects_mut().$member
        }
    };
}

impl Kind for SecureWebSocketRoute {
    const NAME: &'static str = "SecureWebSocketRoute";
    const SERVED: (&'static str, &'static [&'static str], &'static str) =
        (crate::api::GROUP, &[crate::api::VERSION], "securewebsocketroutes");
    const VERSIONED: bool = true;
    metadata!();
    objects!(routes);

    fn annotations(name: &str) -> bool {
        name != LAST_APPLIED
    }

    /// Never fails. A CRD that is newer than this build lets through fields that may be security settings: what this
    /// build does not know is a violation, as it is for a route that comes from a file.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let mut violations = violation::of_route(&value);
        let route = Self::deserialize(&value).unwrap_or_else(|error| {
            if violations.is_empty() {
                let text =
                    format!("cannot be read by this version of wssgate: {error}; correct it or update the gateway");
                violations.push(SchemaViolation { field: "spec".to_owned(), kind: Violation::Refused(text) });
            }
            unreadable(&value)
        });
        Ok(Item { object: route, violations })
    }

    fn changed(cache: &mut ObjectCache, key: &Key, item: Option<(&Arc<Self>, Vec<SchemaViolation>)>) {
        let spec = item.as_ref().map(|(route, _)| super::reference::of_route(&key.namespace, &route.spec));
        cache.refers(key, spec.unwrap_or_default());
        let violations = item.map(|(_, violations)| violations).filter(|violations| !violations.is_empty());
        match violations {
            Some(violations) => drop(cache.objects_mut().violations.insert(key.clone(), violations.into())),
            None => drop(cache.objects_mut().violations.remove(key)),
        }
    }
}

/// What is left of a route that cannot be read: enough to say so in its status, and to keep its hostnames from others.
fn unreadable(value: &Value) -> SecureWebSocketRoute {
    let class = value.pointer("/spec/ingressClassName").and_then(Value::as_str);
    let hostnames = value.pointer("/spec/hostnames").and_then(Value::as_array).into_iter().flatten();
    let spec = RouteSpec {
        ingress_class_name: class.map(ToOwned::to_owned),
        hostnames: hostnames.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        tls: None,
        rules: Vec::new(),
        handshake: Handshake::default(),
        connection: None,
        messages: None,
    };
    let mut route = SecureWebSocketRoute::new("", spec);
    route.metadata = member(value, "metadata");
    route.status = member(value, "status");
    route
}

fn member<T: DeserializeOwned + Default>(value: &Value, name: &str) -> T {
    value.get(name).and_then(|member| T::deserialize(member).ok()).unwrap_or_default()
}

impl Kind for IngressClass {
    const NAME: &'static str = "IngressClass";
    const SERVED: (&'static str, &'static [&'static str], &'static str) =
        ("networking.k8s.io", &["v1"], "ingressclasses");
    metadata!();
    objects!(ingress_classes);

    fn annotations(name: &str) -> bool {
        name.starts_with("ingressclass.kubernetes.io/")
    }
}

impl Kind for Secret {
    const NAME: &'static str = "Secret";
    const SERVED: (&'static str, &'static [&'static str], &'static str) = ("", &["v1"], "secrets");
    // Each may have 1 MiB.
    const PAGE: u32 = 50;
    metadata!();
    objects!(secrets);

    /// Never fails, so that no error can quote what is in a Secret.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let secret = Self::deserialize(&value)
            .unwrap_or_else(|_| Self { metadata: member(&value, "metadata"), ..Self::default() });
        Ok(Item { object: secret, violations: Vec::new() })
    }

    /// cert-manager's note which Certificate the Secret is of.
    fn annotations(name: &str) -> bool {
        name == certificate::CERTIFICATE_NAME
    }

    fn secret_type(&self) -> Option<&str> {
        self.type_.as_deref()
    }

    fn is_wanted(cache: &ObjectCache, key: &Key) -> bool {
        cache.wants_secret(key)
    }
}

impl Kind for ConfigMap {
    const NAME: &'static str = "ConfigMap";
    const SERVED: (&'static str, &'static [&'static str], &'static str) = ("", &["v1"], "configmaps");
    metadata!();
    objects!(config_maps);
}

impl Kind for Namespace {
    const NAME: &'static str = "Namespace";
    const SERVED: (&'static str, &'static [&'static str], &'static str) = ("", &["v1"], "namespaces");
    metadata!();
    objects!(namespaces);

    fn labels(_name: &str) -> bool {
        true
    }

    fn slim(&mut self) {
        (self.spec, self.status) = (None, None);
    }
}

impl Kind for Service {
    const NAME: &'static str = "Service";
    const SERVED: (&'static str, &'static [&'static str], &'static str) = ("", &["v1"], "services");
    metadata!();
    objects!(services);

    fn slim(&mut self) {
        let (namespace, name) = API_SERVER;
        let api_server = Key::of(&self.metadata) == Key::new(namespace, name);
        self.status = None;
        self.spec = self.spec.take().map(|spec| ServiceSpec {
            type_: spec.type_,
            ports: spec.ports,
            cluster_ips: spec.cluster_ips.filter(|_| api_server),
            ..ServiceSpec::default()
        });
    }
}

impl Kind for EndpointSlice {
    const NAME: &'static str = "EndpointSlice";
    const SERVED: (&'static str, &'static [&'static str], &'static str) =
        ("discovery.k8s.io", &["v1"], "endpointslices");
    metadata!();
    objects!(endpoint_slices);

    fn labels(name: &str) -> bool {
        name == "kubernetes.io/service-name"
    }

    fn slim(&mut self) {
        for endpoint in &mut self.endpoints {
            let Endpoint { addresses, conditions, target_ref, .. } = std::mem::take(endpoint);
            // What is in the slice's own namespace, which is all but everything, need not be kept.
            let namespace = target_ref.and_then(|target| target.namespace);
            let elsewhere = namespace.filter(|namespace| Some(namespace) != self.metadata.namespace.as_ref());
            let target_ref = elsewhere.map(|it| ObjectReference { namespace: Some(it), ..ObjectReference::default() });
            *endpoint = Endpoint { addresses, conditions, target_ref, ..Endpoint::default() };
        }
    }
}

impl Kind for ReferenceGrant {
    const NAME: &'static str = "ReferenceGrant";
    const SERVED: (&'static str, &'static [&'static str], &'static str) =
        ("gateway.networking.k8s.io", &["v1", "v1beta1"], "referencegrants");
    const OPTIONAL: bool = true;
    metadata!();
    objects!(reference_grants);

    /// Never fails: a grant that cannot be read grants nothing.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let grant = Self::deserialize(&value)
            .unwrap_or_else(|_| Self { metadata: member(&value, "metadata"), ..Self::default() });
        Ok(Item { object: grant, violations: Vec::new() })
    }
}

impl Kind for Ingress {
    const NAME: &'static str = "Ingress";
    const SERVED: (&'static str, &'static [&'static str], &'static str) = ("networking.k8s.io", &["v1"], "ingresses");
    /// Those by which cert-manager answers ACME challenges; no other is of interest.
    const LABELLED: Option<&'static str> = Some("acme.cert-manager.io/http01-solver=true");
    metadata!();
    objects!(ingresses);

    fn annotations(name: &str) -> bool {
        name == "kubernetes.io/ingress.class"
    }

    fn labels(name: &str) -> bool {
        name == "acme.cert-manager.io/http01-solver"
    }

    fn slim(&mut self) {
        self.status = None;
        self.spec = self.spec.take().map(|spec| IngressSpec {
            ingress_class_name: spec.ingress_class_name,
            rules: spec.rules,
            ..IngressSpec::default()
        });
    }
}

impl Kind for Certificate {
    const NAME: &'static str = "Certificate";
    const SERVED: (&'static str, &'static [&'static str], &'static str) =
        (certificate::GROUP, &[certificate::VERSION], "certificates");
    const OPTIONAL: bool = true;
    const OWNED: bool = true;
    metadata!();
    objects!(certificates);

    fn annotations(name: &str) -> bool {
        // Those that a route may hand on.
        ["cert-manager.io/", "acme.cert-manager.io/"].iter().any(|group| name.starts_with(group))
    }

    fn labels(name: &str) -> bool {
        name == "app.kubernetes.io/managed-by"
    }

    /// Never fails: one of a form that is not known here is somebody else's.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let certificate = Self::deserialize(&value)
            .unwrap_or_else(|_| Self { metadata: member(&value, "metadata"), ..Self::default() });
        Ok(Item { object: certificate, violations: Vec::new() })
    }
}

impl Kind for Published {
    const NAME: &'static str = "Service";
    const SERVED: (&'static str, &'static [&'static str], &'static str) = Service::SERVED;

    fn metadata(&self) -> &ObjectMeta {
        &self.0.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0.metadata
    }
    fn objects(cache: &mut ObjectCache) -> &mut BTreeMap<Key, Arc<Self>> {
        &mut cache.published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_cannot_be_read_keeps_its_class_and_its_hostnames() {
        let value = serde_json::json!({
            "metadata": {"name": "chat", "namespace": "shop", "uid": "1"},
            "spec": {"ingressClassName": "wssgate", "hostnames": ["a.test", 1], "rules": "none"},
        });
        let item = SecureWebSocketRoute::read(value).unwrap();
        assert_eq!(item.object.spec.ingress_class_name.as_deref(), Some("wssgate"));
        assert_eq!(item.object.spec.hostnames, ["a.test"]);
        assert_eq!(item.object.metadata.uid.as_deref(), Some("1"));
        assert!(!item.violations.is_empty());
    }

    /// What is kept of an object that has everything, as YAML; `null` for what is not.
    fn kept_of<K: Kind + serde::Serialize>(more: Value) -> Value {
        let mut object = serde_json::json!({"metadata": {
            "name": "a", "namespace": "shop", "uid": "1", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "2"}],
            "annotations": {(LAST_APPLIED): "{}", "example.com/a": "b"},
            "labels": {"kubernetes.io/service-name": "chat", "example.com/l": "m"},
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
        }});
        for (member, value) in more.as_object().unwrap() {
            object[member] = value.clone();
        }
        let item: Item<K> = serde_json::from_value(object).unwrap();
        serde_json::to_value(&item.object).unwrap()
    }

    #[test]
    fn an_object_that_is_being_deleted_still_says_so() {
        fn is_kept<K: Kind>(more: &Value) -> bool {
            let mut object = serde_json::json!({"metadata": {"name": "a", "namespace": "shop", "uid": "1",
                "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0}});
            object["spec"] = more.clone();
            let item: Item<K> = serde_json::from_value(object).unwrap();
            item.object.metadata().deletion_timestamp.is_some()
        }
        let spec = serde_json::json!({"hostnames": ["a.test"], "rules": [], "handshake": {}});
        assert!(is_kept::<SecureWebSocketRoute>(&spec));
        assert!(is_kept::<SecureWebSocketRoute>(&serde_json::json!({"rules": "none"})), "one that cannot be read");
        assert!(is_kept::<Certificate>(&serde_json::json!({"secretName": "tls"})));
        assert!(is_kept::<Secret>(&Value::Null));
    }

    #[test]
    fn what_nobody_reads_is_dropped_on_arrival() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let service = kept_of::<Service>(json(
            r#"{"spec": {"type": "ClusterIP", "ports": [{"port": 80}], "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
                "selector": {"app": "chat"}}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}"#,
        ));
        assert_eq!(service["spec"], json(r#"{"type": "ClusterIP", "ports": [{"port": 80}]}"#));
        assert!(service.get("status").is_none(), "{service:#}");
        for dropped in ["finalizers", "ownerReferences", "annotations", "labels", "managedFields"] {
            assert!(service["metadata"].get(dropped).is_none(), "{dropped}: {service:#}");
        }
        let slice = kept_of::<EndpointSlice>(json(
            r#"{"addressType": "IPv4", "ports": [{"port": 9000}], "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "n",
                "zone": "z", "conditions": {"ready": true}, "hints": {"forZones": [{"name": "z"}]},
                "targetRef": {"kind": "Pod", "name": "p", "namespace": "shop"}}]}"#,
        ));
        assert_eq!(slice["endpoints"], json(r#"[{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}]"#));
        assert_eq!(slice["metadata"]["labels"], json(r#"{"kubernetes.io/service-name": "chat"}"#));
        let route = kept_of::<SecureWebSocketRoute>(json(
            r#"{"spec": {"hostnames": ["a.test"], "rules": [], "handshake": {}}}"#,
        ));
        // Whatever annotations cert-manager is to be told of, but not the whole object once more.
        assert_eq!(route["metadata"]["annotations"], json(r#"{"example.com/a": "b"}"#));
        assert!(route["metadata"].get("managedFields").is_none(), "{route:#}");
        let namespace =
            kept_of::<Namespace>(json(r#"{"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}"#));
        assert_eq!(namespace["metadata"]["labels"]["example.com/l"], "m");
        assert!(namespace.get("spec").is_none() && namespace.get("status").is_none(), "{namespace:#}");
        // What was written of a Certificate is found again.
        let written = r#"{"cert-manager.io/issue-temporary-certificate": "true", "acme.cert-manager.io/http01-edit-in-place": "true"}"#;
        let object = json(&format!(r#"{{"metadata": {{"name": "a", "annotations": {written}}}}}"#));
        let read = serde_json::from_value::<Item<Certificate>>(object).unwrap();
        let certificate = serde_json::to_value(&read.object).unwrap();
        assert_eq!(certificate["metadata"]["annotations"], json(written));
        for secret in [kept_of::<Secret>(json("{}")), kept_of::<IngressClass>(json("{}"))] {
            assert!(secret["metadata"].get("annotations").is_none(), "{secret:#}");
        }
    }
}
