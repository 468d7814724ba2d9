//! References to other namespaces: only by a ReferenceGrant there (Gateway API, v1 and v1beta1 alike).
//!
//! A refusal reads the same whether the foreign object exists or not. Knows grants only.

use std::collections::BTreeMap;

use crate::api::objects::{Key, Objects, ReferenceGrantSpec};
use crate::api::status::ConditionReason as Reason;
use crate::api::{GROUP, objects};
use crate::compile::problem::{Problem, quote};

/// The kind that refers.
const FROM: &str = "SecureWebSocketRoute";

/// Every grant, by the namespace that it opens.
#[derive(Debug, Default)]
pub struct Grants<'a> {
    by_namespace: BTreeMap<&'a str, Vec<&'a ReferenceGrantSpec>>,
}

impl<'a> Grants<'a> {
    /// The grants among the objects.
    pub fn new(objects: &'a Objects) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (key, grant) in &objects.reference_grants {
            by_namespace.entry(&key.namespace).or_default().push(&grant.spec);
        }
        Self { by_namespace }
    }

    /// The key of what a route in `home` means by a core-group reference, if it may mean it.
    ///
    /// # Errors
    /// `RefNotPermitted`, naming `field` and the grant that is needed.
    pub fn resolve(
        &self,
        field: impl std::fmt::Display,
        home: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Key, Problem> {
        let namespace = namespace.unwrap_or(home);
        if namespace == home || self.permits(home, kind, namespace, name) {
            return Ok(Key::new(namespace, name));
        }
        let text = format_args!(
            "no ReferenceGrant in namespace {} allows {FROM}s of namespace {} to refer to {kind} {}; ask the owner of that \
             namespace for one",
            quote(namespace),
            quote(home),
            quote(name)
        );
        Err(Problem::new(Reason::RefNotPermitted, field, text))
    }

    fn permits(&self, home: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let from =
            |from: &objects::ReferenceGrantFrom| from.group == GROUP && from.kind == FROM && from.namespace == home;
        let to = |to: &objects::ReferenceGrantTo| {
            to.group.is_empty() && to.kind == kind && to.name.as_deref().is_none_or(|only| only == name)
        };
        self.by_namespace
            .get(namespace)
            .is_some_and(|specs| specs.iter().any(|spec| spec.from.iter().any(from) && spec.to.iter().any(to)))
    }
}

/// The problem of an object that is not among the objects; `with` says what it must be created with.
pub fn absent(
    objects: &Objects,
    field: impl std::fmt::Display,
    kind: &'static str,
    key: &Key,
    with: impl std::fmt::Display,
) -> Problem {
    let text = format_args!("{kind} {key} does not exist; create it with {with}");
    unread(objects, &field, kind, key).unwrap_or_else(|| Problem::new(Reason::RefNotFound, &field, text))
}

/// The problem of an object that is not among the objects because the gateway is not allowed to read it, or has not read it yet;
/// `None` where it was looked for, so that it does not exist.
pub fn unread(objects: &Objects, field: impl std::fmt::Display, kind: &'static str, key: &Key) -> Option<Problem> {
    let named = (kind, key.clone());
    if objects.awaited.contains(&named) {
        let text = format_args!("the API server has not yet answered for {kind} {key}");
        return Some(Problem::new(Reason::RefNotReadable, field, text));
    }
    objects.unreadable.contains(&named).then(|| {
        let Key { namespace, name } = key;
        let plural = format!("{}s", kind.to_ascii_lowercase());
        let text = format_args!(
            "the gateway is not allowed to read {kind} {key}; grant its service account get, list and watch on {plural} named {} in \
             namespace {} (RBAC)",
            quote(name),
            quote(namespace)
        );
        Problem::new(Reason::RefNotReadable, field, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn granted(spec: &str, kind: &str, name: &str) -> bool {
        let grant: objects::ReferenceGrant = serde_saphyr::from_str(spec).unwrap();
        let mut objects = Objects::default();
        objects.reference_grants.insert(Key::of(&grant.metadata), Arc::new(grant));
        Grants::new(&objects).resolve("f", "shop", kind, Some("infra"), name).is_ok()
    }

    fn grant(from: &str, to: &str) -> String {
        format!("metadata: {{name: g, namespace: infra}}\nspec: {{from: [{from}], to: [{to}]}}")
    }

    const SHOP: &str = "{group: wssgate.io, kind: SecureWebSocketRoute, namespace: shop}";

    #[test]
    fn a_grant_opens_what_it_names_and_nothing_else() {
        let any = grant(SHOP, "{group: '', kind: Secret}");
        assert!(granted(&any, "Secret", "tls"));
        assert!(!granted(&any, "Service", "tls") && !granted(&any, "ConfigMap", "tls"));
        let one = grant(SHOP, "{group: '', kind: Secret, name: tls}");
        assert!(granted(&one, "Secret", "tls") && !granted(&one, "Secret", "other"));
    }

    #[test]
    fn another_group_kind_or_namespace_of_the_referrer_is_no_grant() {
        for from in [
            "{group: gateway.networking.k8s.io, kind: SecureWebSocketRoute, namespace: shop}",
            "{group: wssgate.io, kind: HTTPRoute, namespace: shop}",
            "{group: wssgate.io, kind: SecureWebSocketRoute, namespace: other}",
        ] {
            assert!(!granted(&grant(from, "{group: '', kind: Secret}"), "Secret", "tls"), "{from}");
        }
        assert!(!granted(&grant(SHOP, "{group: apps, kind: Secret}"), "Secret", "tls"));
        let elsewhere = grant(SHOP, "{group: '', kind: Secret}").replace("namespace: infra", "namespace: elsewhere");
        assert!(!granted(&elsewhere, "Secret", "tls"));
    }

    #[test]
    fn the_own_namespace_needs_no_grant() {
        let objects = Objects::default();
        let grants = Grants::new(&objects);
        assert_eq!(grants.resolve("f", "shop", "Secret", None, "tls"), Ok(Key::new("shop", "tls")));
        assert_eq!(grants.resolve("f", "shop", "Secret", Some("shop"), "tls"), Ok(Key::new("shop", "tls")));
    }
}
