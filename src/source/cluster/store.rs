//! What the reflectors share: the object cache, the health of each, and the signal that something changed.
//!
//! Knows no client. Every change goes through here under one lock, which is held briefly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::kind::{Item, Kind};
use super::object_cache::ObjectCache;
use super::reference::References;
use super::scope::Scope;
use crate::api::objects::{Key, Objects};
use crate::source::debounce::Debounce;
use crate::telemetry::metrics::Metrics;

/// An object by kind and key.
type Named = (&'static str, Key);

/// The kind that is asked for by name beside its list and watch.
const SECRET: &str = "Secret";

/// Number of a reflector.
pub(super) type Id = u64;

/// What the reflectors share.
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// Signals that anything below may have changed.
    changed: watch::Sender<()>,
    metrics: Metrics,
}

struct Inner {
    cache: ObjectCache,
    dirty: Debounce,
    /// Named objects for which the API server has not answered yet; a compile waits for them until the debounce's deadline.
    pending: BTreeMap<Named, usize>,
    watches: BTreeMap<Id, Health>,
    next: Id,
    /// Secrets that are being requested by name, and whether their watch reported them meanwhile.
    fetching: BTreeMap<Key, bool>,
    /// Every reflector of the start was announced.
    complete: bool,
}

/// The health of a reflector.
struct Health {
    what: String,
    /// It has listed once, or the API server said that there is nothing to list.
    answered: bool,
    /// When it began to fail, and the problem that was logged last.
    failing: Option<(Instant, String)>,
}

/// The result of a list.
pub(super) struct Listed<K> {
    /// The objects that are kept.
    pub(super) found: BTreeMap<Key, Item<K>>,
    /// Objects that no route named when their page came. They exist, and may have been named since.
    pub(super) passed: BTreeSet<Key>,
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self { found: BTreeMap::new(), passed: BTreeSet::new() }
    }
}

/// Whether a list took effect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It took effect.
    Whole,
    /// It would remove every object: nothing was removed yet.
    Suspect,
}

impl Store {
    /// An empty store.
    pub(super) fn new(cache: ObjectCache, metrics: Metrics) -> Arc<Self> {
        let inner = Inner {
            cache,
            dirty: Debounce::default(),
            pending: BTreeMap::new(),
            watches: BTreeMap::new(),
            next: 0,
            fetching: BTreeMap::new(),
            complete: false,
        };
        Arc::new(Self { inner: Mutex::new(inner), changed: watch::Sender::new(()), metrics })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is half done where a panic could strike: maps of plain values.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and signals it.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    /// Signals whenever anything may have changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The objects for a compile; all changes until now count as reported.
    pub(super) fn take(&self) -> Arc<Objects> {
        let mut inner = self.lock();
        inner.dirty.clear();
        let awaited: BTreeSet<Named> = inner.pending.keys().cloned().collect();
        if inner.cache.objects().awaited != awaited {
            inner.cache.objects_mut().awaited = awaited;
        }
        inner.cache.objects()
    }

    /// When changes are due to be reported; `None`: there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        let inner = self.lock();
        if inner.pending.is_empty() { inner.dirty.due() } else { inner.dirty.deadline() }
    }

    /// Whether everything that the start waits for was answered.
    pub(super) fn is_ready(&self) -> bool {
        let inner = self.lock();
        inner.complete && inner.pending.is_empty() && inner.watches.values().all(|health| health.answered)
    }

    /// Whether every reflector that was announced so far has listed.
    pub(super) fn has_listed(&self) -> bool {
        self.lock().watches.values().all(|health| health.answered)
    }

    /// Every reflector of the start was announced.
    pub(super) fn complete(&self) {
        if !std::mem::replace(&mut self.lock().complete, true) {
            self.changed.send_replace(());
        }
    }

    /// Reads the cache.
    pub(super) fn read<T>(&self, read: impl FnOnce(&ObjectCache) -> T) -> T {
        read(&self.lock().cache)
    }

    /// The last compile serves what these references are of in place of the routes' own specs.
    pub(super) fn stand_in(&self, references: References) {
        self.change(|inner| inner.cache.stand_in(references));
    }

    /// Announces a reflector.
    pub(super) fn announce(&self, what: String) -> Id {
        self.change(|inner| {
            inner.next += 1;
            inner.watches.insert(inner.next, Health { what, answered: false, failing: None });
            inner.next
        })
    }

    /// A reflector ends.
    pub(super) fn forget(&self, id: Id) {
        self.change(|inner| inner.watches.remove(&id));
        self.measure();
    }

    /// A reflector has listed, and is about to watch.
    pub(super) fn listed(&self, id: Id) {
        self.change(|inner| {
            if let Some(health) = inner.watches.get_mut(&id) {
                health.answered = true;
            }
        });
    }

    /// A reflector watches.
    pub(super) fn healthy(&self, id: Id) {
        let recovered = self.change(|inner| {
            let health = inner.watches.get_mut(&id)?;
            health.answered = true;
            health.failing.take().map(|(since, _)| (health.what.clone(), since))
        });
        if let Some((objects, since)) = recovered {
            tracing::info!(
                objects,
                after_seconds = since.elapsed().as_secs(),
                "objects can be read from the API server again"
            );
            self.measure();
        }
    }

    /// A reflector cannot read, for the reason `why`. Logged once until the reason changes.
    pub(super) fn failing(&self, id: Id, why: &str) {
        let now = Instant::now();
        let changed = self.change(|inner| {
            let health = inner.watches.get_mut(&id)?;
            let (since, logged) = health.failing.get_or_insert_with(|| (now, String::new()));
            (logged != why).then(|| {
                why.clone_into(logged);
                (health.what.clone(), *since)
            })
        });
        if let Some((objects, since)) = changed {
            tracing::warn!(
                objects,
                problem = why,
                for_seconds = since.elapsed().as_secs(),
                "objects cannot be read from the API server; those that were read last stay in use"
            );
        }
        self.measure();
    }

    /// There is nothing for a reflector to read, for the reason `why`.
    pub(super) fn absent(&self, id: Id, why: &str) {
        let changed = self.change(|inner| {
            let health = inner.watches.get_mut(&id)?;
            let first = !health.answered;
            health.answered = true;
            let recovered = health.failing.take().is_some();
            (first || recovered).then(|| health.what.clone())
        });
        if let Some(objects) = changed {
            tracing::info!(objects, reason = why, "objects are not read");
            self.measure();
        }
    }

    fn measure(&self) {
        let failing = self.lock().watches.values().filter_map(|health| Some(health.failing.as_ref()?.0)).min();
        self.metrics.source_stale(failing.map(Instant::into_std));
    }

    /// A list of all that is in `scope`. Where it is empty although there were objects, it takes effect only if `confirmed`.
    pub(super) fn replace<K: Kind>(&self, scope: &Scope, list: Listed<K>, confirmed: bool) -> Taken {
        let Listed { found, passed } = list;
        self.change(|inner| {
            let held = K::objects(&mut inner.cache).iter().filter(|(key, object)| scope.holds::<K>(key, object));
            let gone = held.map(|(key, _)| key).filter(|key| !found.contains_key(key) && !passed.contains(key));
            let gone: Vec<Key> = gone.cloned().collect();
            if found.is_empty() && passed.is_empty() && !gone.is_empty() && !confirmed {
                return Taken::Suspect;
            }
            if K::NAME == SECRET {
                // It is unknown whether the list or the answer on its way is newer.
                inner.fetching.values_mut().for_each(|touched| *touched = true);
            }
            for key in gone {
                inner.take_away::<K>(&key, None);
            }
            for (key, item) in found {
                inner.put(key, item);
            }
            Taken::Whole
        })
    }

    /// Whether an object of that name would be kept.
    pub(super) fn keeps<K: Kind>(&self, key: &Key) -> bool {
        self.lock().keeps::<K>(key)
    }

    /// An object that was made or changed.
    pub(super) fn put<K: Kind>(&self, key: Key, item: Item<K>) {
        self.change(|inner| {
            inner.touch_fetch(K::NAME, &key);
            inner.put(key, item);
        });
    }

    /// An object that was deleted; one of the same name that was made since stays.
    pub(super) fn remove<K: Kind>(&self, key: &Key, uid: Option<&str>) {
        self.change(|inner| {
            inner.touch_fetch(K::NAME, key);
            inner.take_away::<K>(key, uid);
        });
    }

    /// Whether Certificates of a namespace (all if empty) can be read.
    pub(super) fn serves_certificates(&self, namespace: &str, read: bool) {
        self.change(|inner| {
            if inner.cache.serves_certificates(namespace, read) {
                inner.dirty.touch(Instant::now());
            }
        });
    }

    /// Whether IngressClasses can be read.
    pub(super) fn reads_classes(&self, read: bool) {
        self.change(|inner| {
            if std::mem::replace(&mut inner.cache.classless, !read) == read {
                inner.dirty.touch(Instant::now());
            }
        });
    }

    /// Whether the API server lets the gateway read an object that is named.
    pub(super) fn readable<K: Kind>(&self, key: &Key, readable: bool) {
        self.change(|inner| {
            let named = (K::NAME, key.clone());
            let objects = inner.cache.objects();
            if objects.unreadable.contains(&named) == readable {
                drop(objects);
                let unreadable = &mut inner.cache.objects_mut().unreadable;
                let _ = if readable { unreadable.remove(&named) } else { unreadable.insert(named) };
                inner.dirty.touch(Instant::now());
            }
        });
    }

    /// An object was named for which the API server has not answered yet.
    pub(super) fn expect<K: Kind>(&self, key: &Key) {
        self.change(|inner| *inner.pending.entry((K::NAME, key.clone())).or_default() += 1);
    }

    /// A named object is in the cache, or is known not to exist.
    pub(super) fn answered<K: Kind>(&self, key: &Key) {
        self.change(|inner| {
            let named = (K::NAME, key.clone());
            let Some(count) = inner.pending.get_mut(&named) else { return };
            *count -= 1;
            if *count == 0 {
                inner.pending.remove(&named);
                // A compile that did not wait reported it as awaited, so that another one is due.
                if inner.cache.objects().awaited.contains(&named) {
                    inner.dirty.touch(Instant::now());
                }
            }
        });
    }

    /// A Secret is requested by its name, beside the list and watch.
    pub(super) fn fetch(&self, key: &Key) {
        self.lock().fetching.insert(key.clone(), false);
    }

    /// The answer. False if it does not count, because a list or the watch may have brought a newer version meanwhile.
    pub(super) fn fetched<K: Kind>(&self, key: &Key, item: Option<Item<K>>) -> bool {
        self.change(|inner| {
            let counts = !inner.fetching.remove(key).unwrap_or(true);
            if let Some(item) = item.filter(|_| counts) {
                inner.put(key.clone(), item);
            }
            counts
        })
    }
}

impl Inner {
    /// Whether an object of that name is kept: it is named, or it was and no compile has reported yet that it is not needed.
    fn keeps<K: Kind>(&mut self, key: &Key) -> bool {
        K::is_wanted(&self.cache, key) || K::objects(&mut self.cache).contains_key(key)
    }

    fn put<K: Kind>(&mut self, key: Key, item: Item<K>) {
        if !self.keeps::<K>(&key) {
            return;
        }
        let Item { mut object, violations } = item;
        if !K::VERSIONED {
            object.metadata_mut().resource_version = None;
        }
        if K::objects(&mut self.cache).get(&key).is_some_and(|known| **known == object) {
            return;
        }
        let object = Arc::new(object);
        K::objects(&mut self.cache).insert(key.clone(), Arc::clone(&object));
        K::changed(&mut self.cache, &key, Some((&object, violations)));
        self.dirty.touch(Instant::now());
    }

    fn take_away<K: Kind>(&mut self, key: &Key, uid: Option<&str>) {
        let objects = K::objects(&mut self.cache);
        let Some(known) = objects.get(key) else { return };
        if uid.is_some_and(|uid| known.metadata().uid.as_deref().is_some_and(|known| known != uid)) {
            return;
        }
        objects.remove(key);
        K::changed(&mut self.cache, key, None);
        self.dirty.touch(Instant::now());
    }

    fn touch_fetch(&mut self, kind: &str, key: &Key) {
        if kind == SECRET
            && let Some(touched) = self.fetching.get_mut(key)
        {
            *touched = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;

    fn key() -> Key {
        Key::new("shop", "tls")
    }

    fn secret(type_: &str) -> Item<Secret> {
        let metadata = ObjectMeta { namespace: Some("shop".into()), name: Some("tls".into()), ..ObjectMeta::default() };
        let object = Secret { metadata, type_: Some(type_.to_owned()), ..Secret::default() };
        Item { object, violations: Vec::new() }
    }

    /// A store in which a route names the Secret.
    fn named() -> Arc<Store> {
        let store = Store::new(ObjectCache::default(), Metrics::new());
        let references = References { secrets: [key()].into(), ..References::default() };
        store.change(|inner| inner.cache.refers(&Key::new("shop", "r"), references));
        store
    }

    fn has(store: &Store) -> bool {
        store.take().secrets.contains_key(&key())
    }

    #[test]
    fn what_was_named_while_a_list_ran_stays_although_its_page_had_passed() {
        let store = named();
        store.fetch(&key());
        assert!(store.fetched(&key(), Some(secret("kubernetes.io/tls"))) && has(&store));
        let passed = Listed::<Secret> { passed: [key()].into(), ..Listed::default() };
        assert_eq!(store.replace(&Scope::default(), passed, false), Taken::Whole);
        assert!(has(&store));
        let other = Listed::<Secret> { passed: [Key::new("shop", "other")].into(), ..Listed::default() };
        assert_eq!(store.replace(&Scope::default(), other, false), Taken::Whole);
        assert!(!has(&store), "a list without it takes it away");
    }

    #[test]
    fn an_answer_that_a_list_may_have_overtaken_does_not_count() {
        let store = named();
        store.fetch(&key());
        store.replace(&Scope::default(), Listed::<Secret>::default(), false);
        assert!(!store.fetched(&key(), Some(secret("kubernetes.io/tls"))) && !has(&store));
        store.fetch(&key());
        store.put(key(), secret("newer"));
        assert!(!store.fetched(&key(), Some(secret("older"))));
        assert_eq!(store.take().secrets[&key()].type_.as_deref(), Some("newer"));
    }

    #[test]
    fn what_is_no_longer_named_is_kept_current_until_a_compile_has_said_that_nobody_needs_it() {
        let store = named();
        store.put(key(), secret("old"));
        store.change(|inner| inner.cache.refers(&Key::new("shop", "r"), References::default()));
        store.put(key(), secret("new"));
        assert_eq!(store.take().secrets[&key()].type_.as_deref(), Some("new"));
        store.stand_in(References::default());
        store.put(key(), secret("newest"));
        assert!(!has(&store));
    }

    #[test]
    fn a_deletion_that_has_begun_is_a_change() {
        let store = named();
        store.put(key(), secret("kubernetes.io/tls"));
        drop(store.take());
        store.put(key(), secret("kubernetes.io/tls"));
        assert_eq!(store.due(), None, "nothing changed");
        let mut leaving = secret("kubernetes.io/tls");
        leaving.object.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        store.put(key(), leaving);
        assert!(store.due().is_some());
        assert!(store.take().secrets[&key()].metadata.deletion_timestamp.is_some());
    }

    #[test]
    fn a_compile_knows_what_the_api_server_has_not_answered_for_and_hears_when_it_has() {
        let store = named();
        store.expect::<Secret>(&key());
        assert_eq!(store.take().awaited, [("Secret", key())].into());
        assert_eq!(store.due(), None);
        store.answered::<Secret>(&key());
        assert!(store.due().is_some() && store.take().awaited.is_empty());
    }
}
