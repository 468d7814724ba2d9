//! Which hostnames a namespace may use by the settings: a suffix is reserved for the namespaces that list it, the longest
//! one that includes a name decides, and a namespace that lists any may use no other name. Knows names and namespaces
//! only.

use std::collections::{BTreeMap, HashSet};

use crate::compile::ownership::host::Ownership;
use crate::compile::problem::quote;

/// The settings' suffixes by namespace.
#[derive(Debug, Clone, Copy)]
pub struct Suffixes<'a>(pub &'a BTreeMap<String, Vec<String>>);

impl Suffixes<'_> {
    /// Whether a namespace may use a hostname, be it a wildcard.
    ///
    /// # Errors
    /// What to do instead.
    pub fn permit(&self, namespace: &str, hostname: &str) -> Result<(), String> {
        let all = self.0.iter().flat_map(|(owner, suffixes)| suffixes.iter().map(move |suffix| (owner, plain(suffix))));
        let including = || all.clone().filter(|(_, suffix)| is_within(hostname, suffix));
        let longest = including().map(|(_, suffix)| suffix.len()).max();
        let own_longest = including().any(|(owner, suffix)| owner == namespace && Some(suffix.len()) == longest);
        match self.0.get(namespace) {
            _ if own_longest => Ok(()),
            None if longest.is_none() => Ok(()),
            Some(own) if !own.iter().any(|suffix| is_within(hostname, plain(suffix))) => Err(match own.first() {
                Some(suffix) => format!("use a name below {}", quote(suffix)),
                None => "the namespace cannot use any hostname".to_owned(),
            }),
            // For whom it is reserved is none of this namespace's business.
            _ => Err("it is reserved for another namespace; use another name".to_owned()),
        }
    }

    /// The names that no wildcard serves, because the namespace that owns the wildcard may not use them.
    pub fn reserved(&self, ownership: &Ownership<'_>) -> HashSet<Box<str>> {
        let names = self.0.values().flatten().map(|suffix| plain(suffix));
        let reserved = names.filter(|name| {
            let Some((_, rest)) = name.split_once('.') else { return false };
            let route = ownership.hosts.get(format!("*.{rest}").as_str()).and_then(|host| host.routes.first());
            route.is_some_and(|route| self.permit(&route.namespace, name).is_err())
        });
        reserved.map(Into::into).collect()
    }
}

/// The settings may write a dot before it.
fn plain(suffix: &str) -> &str {
    suffix.strip_prefix('.').unwrap_or(suffix)
}

/// Whether a hostname lies within a suffix: the suffix itself, or any name below it.
fn is_within(hostname: &str, suffix: &str) -> bool {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    name == suffix || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_takes_whole_labels() {
        assert!(is_within("a.example.com", "example.com") && is_within("*.example.com", "example.com"));
        assert!(is_within("example.com", "example.com") && is_within("a.b.example.com", "example.com"));
        assert!(!is_within("badexample.com", "example.com") && !is_within("com", "example.com"));
    }

    #[test]
    fn the_longest_suffix_decides() {
        let of = |suffixes: &[&str]| suffixes.iter().map(|suffix| (*suffix).to_owned()).collect::<Vec<_>>();
        let settings = [
            ("infra".to_owned(), of(&["example.com", "both.example.com"])),
            ("shop".to_owned(), of(&[".shop.example.com", "both.example.com"])),
            ("none".to_owned(), of(&[])),
        ];
        let settings = settings.into();
        let suffixes = Suffixes(&settings);
        for (namespace, hostname, good) in [
            ("infra", "a.example.com", true),
            ("infra", "*.example.com", true),
            ("infra", "shop.example.com", false),
            ("infra", "*.shop.example.com", false),
            ("infra", "both.example.com", true),
            ("infra", "example.org", false),
            ("shop", "a.shop.example.com", true),
            ("shop", "both.example.com", true),
            ("shop", "a.example.com", false),
            ("shop", "example.org", false),
            ("other", "a.example.com", false),
            ("other", "example.org", true),
            ("none", "example.org", false),
        ] {
            assert_eq!(suffixes.permit(namespace, hostname).is_ok(), good, "{namespace} {hostname}");
        }
    }
}
