//! Which ceilings of the settings hold for a namespace: for each thing those that name the namespace, else those of its
//! labels, else those of all. Knows names and labels only; what a ceiling does to a route is known where its spec is read.

use std::collections::BTreeMap;

use crate::api::ceilings::{CeilingEntry, CeilingLimits, Ceilings};
use crate::compile::spec::ceiling::{Ceiling, NamespaceCeilings, Scope};

/// The ceilings that hold for a namespace. `labels`: those of the namespace; `None`: they are not known, and the namespace
/// is taken to have all, so that it gets no more than it may.
pub fn of(ceilings: &Ceilings, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> NamespaceCeilings {
    let pick = Pick { ceilings, namespace, labels };
    NamespaceCeilings {
        total: pick.one(|limits| limits.total),
        per_address: pick.one(|limits| limits.per_address),
        per_subject: pick.one(|limits| limits.per_subject),
        tickets_per_subject: pick.one(|limits| limits.tickets_per_subject),
        sockets: pick.one(|limits| limits.sockets),
        routes: pick.one(|limits| limits.routes),
        hostnames: pick.one(|limits| limits.hostnames),
        key_sets: pick.one(|limits| limits.key_sets),
        client_size: pick.one(|limits| limits.max_size.from_client),
        backend_size: pick.one(|limits| limits.max_size.from_backend),
    }
}

/// Whose ceilings are wanted.
struct Pick<'a> {
    ceilings: &'a Ceilings,
    namespace: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
}

impl Pick<'_> {
    /// The ceiling of one thing.
    fn one<T: Ord>(&self, get: impl Fn(&CeilingLimits) -> Option<T>) -> Option<Ceiling<T>> {
        let entries = || self.ceilings.namespaces.iter().filter_map(|entry| Some((entry, get(&entry.limits)?)));
        let named = entries().find(|(entry, _)| entry.names.iter().any(|name| name == self.namespace));
        if let Some((_, most)) = named {
            return Some(Ceiling { most, scope: Scope::Namespace(self.namespace.to_owned()) });
        }
        // Of several the lowest.
        let labelled =
            entries().filter(|(entry, _)| self.has_labels(entry)).min_by(|(_, one), (_, other)| one.cmp(other));
        if let Some((entry, most)) = labelled {
            let labels: Vec<String> = entry.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            return Some(Ceiling { most, scope: Scope::Labels(labels.join(",")) });
        }
        get(&self.ceilings.default).map(|most| Ceiling { most, scope: Scope::All })
    }

    fn has_labels(&self, CeilingEntry { match_labels, .. }: &CeilingEntry) -> bool {
        let has = |(key, value): (&String, &String)| self.labels.is_none_or(|labels| labels.get(key) == Some(value));
        !match_labels.is_empty() && match_labels.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        serde_saphyr::from_str(text).unwrap()
    }

    fn total(settings: &str, namespace: &str, own: Option<&str>) -> Option<(u32, String)> {
        let ceilings: Ceilings = serde_saphyr::from_str(settings).unwrap();
        let own = own.map(labels);
        of(&ceilings, namespace, own.as_ref()).total.map(|ceiling| (ceiling.most, ceiling.scope.to_string()))
    }

    #[test]
    fn an_entry_that_names_the_namespace_holds_field_by_field_before_the_default() {
        let settings = "{default: {total: 5, perAddress: 2}, namespaces: [
            {names: [shop, bank], limits: {total: 9}}, {names: [lab], limits: {perAddress: 1}}]}";
        assert_eq!(total(settings, "shop", Some("{}")), Some((9, "namespace shop".to_owned())));
        assert_eq!(total(settings, "lab", Some("{}")), Some((5, "every namespace".to_owned())));
        assert_eq!(total(settings, "other", None), Some((5, "every namespace".to_owned())));
        assert_eq!(total("{namespaces: [{names: [shop], limits: {total: 9}}]}", "other", None), None);
        let ceilings: Ceilings = serde_saphyr::from_str(settings).unwrap();
        assert_eq!(of(&ceilings, "shop", None).per_address.map(|ceiling| ceiling.most), Some(2));
        assert_eq!(of(&ceilings, "lab", None).per_address.map(|ceiling| ceiling.most), Some(1));
    }

    #[test]
    fn labels_hold_before_the_default_and_after_names_and_the_lowest_of_several() {
        let settings = "{default: {total: 5}, namespaces: [
            {matchLabels: {tier: free}, limits: {total: 3}},
            {matchLabels: {tier: free, team: x}, limits: {total: 2}},
            {matchLabels: {tier: paid}, limits: {total: 100}},
            {names: [shop], limits: {total: 50}}]}";
        let of = |namespace: &str, own: &str| total(settings, namespace, Some(own));
        assert_eq!(of("a", "{tier: free}"), Some((3, "namespaces with tier=free".to_owned())));
        assert_eq!(of("a", "{tier: free, team: x}"), Some((2, "namespaces with team=x,tier=free".to_owned())));
        assert_eq!(of("a", "{tier: paid, other: y}"), Some((100, "namespaces with tier=paid".to_owned())));
        assert_eq!(of("a", "{team: x}"), Some((5, "every namespace".to_owned())));
        assert_eq!(of("shop", "{tier: free}"), Some((50, "namespace shop".to_owned())));
        // A namespace that cannot be read gets no more than any of the labels would give it.
        assert_eq!(total(settings, "a", None).map(|(most, _)| most), Some(2));
    }
}
