//! What one reflector reads: a kind in a namespace, by a name or a type. Plain data.

use super::kind::Kind;
use crate::api::objects::Key;

/// What a reflector reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// Namespace; all if absent.
    pub(super) namespace: Option<String>,
    /// The one object of that name.
    pub(super) name: Option<String>,
    /// Secrets of this type only.
    pub(super) secret_type: Option<&'static str>,
    /// Whether the API server may refuse to show it; then there is none.
    pub(super) optional: bool,
}

impl Scope {
    /// Whether an object would be in the list.
    pub(super) fn holds<K: Kind>(&self, key: &Key, object: &K) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
            && self.secret_type.is_none_or(|wanted| object.secret_type() == Some(wanted))
    }

    /// The field selector of the list and watch.
    pub(super) fn fields(&self) -> Option<String> {
        let name = self.name.as_ref().map(|name| format!("metadata.name={name}"));
        name.or_else(|| self.secret_type.map(|kind| format!("type={kind}")))
    }

    /// The name in logs.
    pub(super) fn describe<K: Kind>(&self) -> String {
        let kind = K::NAME;
        match (&self.namespace, &self.name, self.secret_type) {
            (Some(namespace), Some(name), _) => format!("{kind} {namespace}/{name}"),
            (Some(namespace), None, None) => format!("{kind} in {namespace}"),
            (Some(namespace), None, Some(of)) => format!("{kind} of type {of} in {namespace}"),
            (None, _, Some(of)) => format!("{kind} of type {of}"),
            (None, _, None) => kind.to_owned(),
        }
    }
}
