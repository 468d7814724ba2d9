//! The object cache: the objects that a compile reads, and which Secrets and ConfigMaps are named. Plain data, no client
//! and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;

use super::reference::References;
use crate::api::objects::{Key, Objects};

/// The gateway's own Service, whose addresses are published.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(super) struct Published(pub(super) Service);

/// The objects that are kept.
#[derive(Debug, Default)]
pub(super) struct ObjectCache {
    objects: Arc<Objects>,
    /// The gateway's own Service.
    pub(super) published: BTreeMap<Key, Arc<Published>>,
    /// Namespaces whose Certificates can be read; the empty one stands for all.
    certificates: BTreeSet<String>,
    /// IngressClasses may not be read.
    pub(super) classless: bool,
    by_route: HashMap<Key, References>,
    secrets: Counts,
    config_maps: Counts,
    /// What routes name whose last good spec stands in, as the last compile said.
    standing_in: References,
    /// What the settings name.
    fixed: References,
    /// Namespaces that may be read; all if empty.
    namespaces: BTreeSet<String>,
    /// Counts up when something is named that was not, or the other way round.
    revision: u64,
}

/// How many routes name a key.
#[derive(Debug, Default)]
struct Counts(BTreeMap<Key, usize>);

impl Counts {
    /// Whether the key is new.
    fn add(&mut self, key: &Key) -> bool {
        let count = self.0.entry(key.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether the key is named no longer.
    fn remove(&mut self, key: &Key) -> bool {
        let Some(count) = self.0.get_mut(key) else { return false };
        *count -= 1;
        let gone = *count == 0;
        if gone {
            self.0.remove(key);
        }
        gone
    }
}

impl ObjectCache {
    /// Nothing yet, for these namespaces (all if there are none) and what the settings name.
    pub(super) fn new(namespaces: impl IntoIterator<Item = String>, fixed: References) -> Self {
        Self { namespaces: namespaces.into_iter().collect(), fixed, revision: 1, ..Self::default() }
    }

    /// Everything a compile reads.
    pub(super) fn objects(&self) -> Arc<Objects> {
        Arc::clone(&self.objects)
    }

    /// The objects, to be changed; copied first if somebody still reads them.
    pub(super) fn objects_mut(&mut self) -> &mut Objects {
        Arc::make_mut(&mut self.objects)
    }

    /// Whether Certificates of a namespace can be read. Returns whether that changed anything.
    pub(super) fn serves_certificates(&mut self, namespace: &str, read: bool) -> bool {
        let _ = if read { self.certificates.insert(namespace.to_owned()) } else { self.certificates.remove(namespace) };
        let any = !self.certificates.is_empty();
        let changed = self.objects.cert_manager != any;
        if changed {
            self.objects_mut().cert_manager = any;
        }
        changed
    }

    /// Counts up when what is named changes.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// A route names these from now on.
    pub(super) fn refers(&mut self, route: &Key, references: References) {
        let before = self.by_route.get(route);
        if before.map_or(references == References::default(), |before| *before == references) {
            return;
        }
        let before = match references == References::default() {
            true => self.by_route.remove(route),
            false => self.by_route.insert(route.clone(), references.clone()),
        };
        let mut changed = false;
        for key in &references.secrets {
            changed |= self.secrets.add(key);
        }
        for key in &references.config_maps {
            changed |= self.config_maps.add(key);
        }
        if let Some(before) = before {
            for key in &before.secrets {
                changed |= self.secrets.remove(key);
            }
            for key in &before.config_maps {
                changed |= self.config_maps.remove(key);
            }
        }
        self.revision += u64::from(changed);
    }

    /// The last compile serves these specs in place of the routes' own. Whatever nobody names is dropped: not before,
    /// because only a compile knows which last good spec still needs what its route names no longer.
    pub(super) fn stand_in(&mut self, references: References) {
        if self.standing_in != references {
            self.standing_in = references;
            self.revision += 1;
        }
        let unnamed = |cache: &Self, key: &Key| !cache.wants_secret(key);
        let secrets: Vec<Key> = self.objects.secrets.keys().filter(|key| unnamed(self, key)).cloned().collect();
        let unnamed = |cache: &Self, key: &Key| !cache.wants_config_map(key);
        let maps: Vec<Key> = self.objects.config_maps.keys().filter(|key| unnamed(self, key)).cloned().collect();
        if !secrets.is_empty() || !maps.is_empty() {
            let objects = self.objects_mut();
            secrets.iter().for_each(|key| drop(objects.secrets.remove(key)));
            maps.iter().for_each(|key| drop(objects.config_maps.remove(key)));
        }
    }

    fn may_read(&self, key: &Key) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&key.namespace)
    }

    /// Whether a Secret is named and may be read.
    pub(super) fn wants_secret(&self, key: &Key) -> bool {
        let named = self.secrets.0.contains_key(key) || self.standing_in.secrets.contains(key);
        (named && self.may_read(key)) || self.fixed.secrets.contains(key)
    }

    /// Whether a ConfigMap is named and may be read.
    pub(super) fn wants_config_map(&self, key: &Key) -> bool {
        let named = self.config_maps.0.contains_key(key) || self.standing_in.config_maps.contains(key);
        (named && self.may_read(key)) || self.fixed.config_maps.contains(key)
    }

    /// Everything that is named and may be read.
    pub(super) fn wanted(&self) -> References {
        let all = |counts: &Counts, also: &BTreeSet<Key>, fixed: &BTreeSet<Key>| -> BTreeSet<Key> {
            let named = counts.0.keys().chain(also).filter(|key| self.may_read(key));
            named.chain(fixed).cloned().collect()
        };
        References {
            secrets: all(&self.secrets, &self.standing_in.secrets, &self.fixed.secrets),
            config_maps: all(&self.config_maps, &self.standing_in.config_maps, &self.fixed.config_maps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;

    fn secrets(names: &[&str]) -> References {
        let secrets = names.iter().map(|name| Key::new("shop", *name)).collect();
        References { secrets, ..References::default() }
    }

    #[test]
    fn what_several_routes_name_is_wanted_until_the_last_of_them_is_gone() {
        let mut cache = ObjectCache::default();
        let (tls, a, b) = (Key::new("shop", "tls"), Key::new("shop", "a"), Key::new("shop", "b"));
        cache.refers(&a, secrets(&["tls"]));
        let revision = cache.revision();
        cache.refers(&b, secrets(&["tls"]));
        cache.refers(&b, secrets(&["tls"]));
        assert_eq!(cache.revision(), revision, "nothing new is named");
        cache.refers(&a, References::default());
        assert!(cache.wants_secret(&tls));
        cache.refers(&b, References::default());
        assert!(!cache.wants_secret(&tls));
        assert!(cache.revision() > revision);
    }

    #[test]
    fn a_secret_stays_until_a_compile_has_said_that_no_last_good_spec_needs_it() {
        let mut cache = ObjectCache::default();
        let (route, old) = (Key::new("shop", "r"), Key::new("shop", "old"));
        cache.refers(&route, secrets(&["old"]));
        cache.objects_mut().secrets.insert(old.clone(), Arc::new(Secret::default()));
        cache.refers(&route, secrets(&["new"]));
        assert!(cache.objects().secrets.contains_key(&old), "no compile has spoken yet");
        cache.stand_in(secrets(&["old"]));
        assert!(cache.objects().secrets.contains_key(&old) && cache.wants_secret(&old));
        cache.stand_in(References::default());
        assert!(cache.objects().secrets.is_empty());
    }

    #[test]
    fn namespaces_that_are_not_watched_are_not_read_unless_the_settings_name_an_object_there() {
        let fixed = References { secrets: [Key::new("infra", "default")].into(), ..References::default() };
        let mut cache = ObjectCache::new(["shop".to_owned()], fixed);
        let mut named = secrets(&["tls"]);
        named.secrets.insert(Key::new("infra", "other"));
        cache.refers(&Key::new("shop", "r"), named);
        let wanted: Vec<_> = cache.wanted().secrets.iter().map(ToString::to_string).collect();
        assert_eq!(wanted, ["infra/default", "shop/tls"]);
    }
}
