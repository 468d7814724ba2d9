//! An object of the cluster by its full name, as settings name Secrets and Services. Plain data.

use serde::Deserialize;

/// An object by its full name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectName {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}
