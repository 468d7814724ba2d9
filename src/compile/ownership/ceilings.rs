//! Which ceilings of the settings hold for a namespace: for each thing those that name the namespace, else those of all.
//! Knows names only; what a ceiling does to a route is known where its spec is read.

use crate::api::ceilings::{CeilingLimits, Ceilings};
use crate::compile::spec::ceiling::{Ceiling, NamespaceCeilings, Scope};

/// The ceilings that hold for a namespace.
pub fn of(ceilings: &Ceilings, namespace: &str) -> NamespaceCeilings {
    let pick = Pick { ceilings, namespace };
    NamespaceCeilings {
        total: pick.one(|limits| limits.total),
        per_address: pick.one(|limits| limits.per_address),
        per_subject: pick.one(|limits| limits.per_subject),
        client_size: pick.one(|limits| limits.max_size.from_client),
        backend_size: pick.one(|limits| limits.max_size.from_backend),
    }
}

/// Whose ceilings are wanted.
struct Pick<'a> {
    ceilings: &'a Ceilings,
    namespace: &'a str,
}

impl Pick<'_> {
    /// The ceiling of one thing.
    fn one<T: Ord>(&self, get: impl Fn(&CeilingLimits) -> Option<T>) -> Option<Ceiling<T>> {
        let entries = self.ceilings.namespaces.iter();
        let named = entries.filter(|entry| entry.names.iter().any(|name| name == self.namespace));
        let named = named.filter_map(|entry| get(&entry.limits)).min();
        let named = named.map(|most| Ceiling { most, scope: Scope::Namespace(self.namespace.to_owned()) });
        named.or_else(|| get(&self.ceilings.default).map(|most| Ceiling { most, scope: Scope::All }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(settings: &str, namespace: &str) -> Option<(u32, Scope)> {
        let ceilings: Ceilings = serde_saphyr::from_str(settings).unwrap();
        of(&ceilings, namespace).total.map(|ceiling| (ceiling.most, ceiling.scope))
    }

    #[test]
    fn an_entry_that_names_the_namespace_holds_field_by_field_before_the_default() {
        let settings = "{default: {total: 5, perAddress: 2}, namespaces: [
            {names: [shop, bank], limits: {total: 9}}, {names: [lab], limits: {perAddress: 1}}]}";
        let shop = Scope::Namespace("shop".into());
        assert_eq!(total(settings, "shop"), Some((9, shop)));
        assert_eq!(total(settings, "lab"), Some((5, Scope::All)));
        assert_eq!(total(settings, "other"), Some((5, Scope::All)));
        assert_eq!(total("{namespaces: [{names: [shop], limits: {total: 9}}]}", "other"), None);
        let ceilings: Ceilings = serde_saphyr::from_str(settings).unwrap();
        assert_eq!(of(&ceilings, "shop").per_address.map(|ceiling| ceiling.most), Some(2));
        assert_eq!(of(&ceilings, "lab").per_address.map(|ceiling| ceiling.most), Some(1));
    }
}
