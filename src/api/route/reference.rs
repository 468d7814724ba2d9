//! References from a route to other objects: one shape `{group, kind, name, namespace, key}`, a subset per place with
//! the kind limited. Another namespace needs a ReferenceGrant there.
//!
//! References stand in entries of lists. `group` and `kind` have their defaults here and not in the schema
//! ([`without_defaults`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::schema::{KEY_PATTERN, KIND_PATTERN, LABEL_PATTERN, NAME_PATTERN, without_defaults};

/// A Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct SecretRef {
    /// API group of the object; empty, the core group, is the only one and the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the object; Secret is the only one and the default.
    #[serde(default)]
    pub kind: SecretKind,
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub name: String,
    /// Namespace of the Secret; the route's own if absent. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub namespace: Option<String>,
}

/// Kinds that a [`SecretRef`] may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum SecretKind {
    /// A core/v1 Secret.
    #[default]
    Secret,
}

/// A ConfigMap whose key is fixed by the place that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct ConfigMapRef {
    /// API group of the object; empty, the core group, is the only one and the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the object; ConfigMap is the only one and the default.
    #[serde(default)]
    pub kind: ConfigMapKind,
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub name: String,
    /// Namespace of the ConfigMap; the route's own if absent. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub namespace: Option<String>,
}

/// Kinds that a [`ConfigMapRef`] may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ConfigMapKind {
    /// A core/v1 ConfigMap.
    #[default]
    ConfigMap,
}

/// One key of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct ConfigMapKeyRef {
    /// API group of the object; empty, the core group, is the only one and the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the object; ConfigMap is the only one and the default.
    #[serde(default)]
    pub kind: ConfigMapKind,
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub name: String,
    /// Namespace of the ConfigMap; the route's own if absent. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub namespace: Option<String>,
    /// Key in the data of the ConfigMap.
    #[schemars(length(min = 1, max = 253), pattern(KEY_PATTERN))]
    pub key: String,
}

/// One key of a ConfigMap or a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct KeyRef {
    /// API group of the object; empty, the core group, is the only one and the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the object: ConfigMap for public keys, Secret (type wssgate.io/jwks) for symmetric ones; ConfigMap if
    /// absent.
    #[serde(default)]
    pub kind: KeyKind,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub name: String,
    /// Namespace of the object; the route's own if absent. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub namespace: Option<String>,
    /// Key in the data of the object.
    #[schemars(length(min = 1, max = 253), pattern(KEY_PATTERN))]
    pub key: String,
}

/// Kinds that a [`KeyRef`] may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum KeyKind {
    /// A core/v1 ConfigMap.
    #[default]
    ConfigMap,
    /// A core/v1 Secret.
    Secret,
}

/// A port of a Service, as one of several backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct BackendRef {
    /// API group of the object; empty, the core group, is the only one and the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the object; Service is the only one and the default.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub name: String,
    /// Namespace of the Service; the route's own if absent. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub namespace: Option<String>,
    /// Port number of the Service (not the target port). Its appProtocol chooses plain (kubernetes.io/ws, or none) or
    /// TLS (kubernetes.io/wss) toward the endpoints.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Share of new connections, relative to the other backends; 1 if absent, 0 takes no new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: Option<i32>,
}

/// A port of a Service, where there is only one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct ServiceRef {
    /// API group of the object; empty, the core group, is the only one and the default.
    #[serde(default)]
    #[schemars(extend("enum" = [""]))]
    pub group: String,
    /// Kind of the object; Service is the only one and the default.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub name: String,
    /// Namespace of the Service; the route's own if absent. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub namespace: Option<String>,
    /// Port number of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// Kinds that a backend may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ServiceKind {
    /// A core/v1 Service.
    #[default]
    Service,
}

/// A cert-manager issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// API group of the issuer; cert-manager.io if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub group: Option<String>,
    /// Kind of the issuer, such as Issuer (of the route's namespace) or ClusterIssuer; Issuer if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), pattern(KIND_PATTERN))]
    pub kind: Option<String>,
    /// Name of the issuer.
    #[schemars(length(min = 1, max = 253), pattern(NAME_PATTERN))]
    pub name: String,
}
