//! What the reflectors share: the stock, how each of them fares, and the signal that something changed.
//!
//! Knows no client. Every change goes through here under one lock, held for moments only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::kind::{Item, Kind};
use super::reference::References;
use super::reflector::Scope;
pub(super) use super::stock::Stock;
use crate::api::objects::{Key, Objects};
use crate::source::debounce::Debounce;
use crate::telemetry::Metrics;

/// Number of a reflector.
pub(super) type Id = u64;

/// What the reflectors share.
pub(super) struct Store {
    inner: Mutex<Inner>,
    /// Rings whenever anything below may have changed.
    bell: watch::Sender<()>,
    metrics: Metrics,
}

struct Inner {
    stock: Stock,
    dirty: Debounce,
    /// What is named and was not asked for yet; a compile waits for it, within the debounce's patience.
    pending: BTreeMap<Key, usize>,
    watches: BTreeMap<Id, Health>,
    next: Id,
    /// Secrets that are asked for by name, and whether their watch has said something meanwhile.
    fetching: BTreeMap<Key, bool>,
    /// Every reflector of the start is there.
    complete: bool,
}

/// How a reflector fares.
struct Health {
    what: String,
    /// It has listed once, or was told that there is nothing to list.
    answered: bool,
    /// Since when it fails, and what was logged of it.
    failing: Option<(Instant, String)>,
}

/// What became of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It took effect.
    Whole,
    /// Everything would be gone at once: nothing was taken away yet.
    Suspect,
}

impl Store {
    /// An empty store.
    pub(super) fn new(stock: Stock, metrics: Metrics) -> Arc<Self> {
        let inner = Inner {
            stock,
            dirty: Debounce::default(),
            pending: BTreeMap::new(),
            watches: BTreeMap::new(),
            next: 0,
            fetching: BTreeMap::new(),
            complete: false,
        };
        Arc::new(Self { inner: Mutex::new(inner), bell: watch::Sender::new(()), metrics })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing is half done where a panic could strike: maps of plain values.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something and rings.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.lock());
        self.bell.send_replace(());
        result
    }

    /// Rings whenever anything may have changed.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    /// Everything a compile reads; what changed so far counts as told.
    pub(super) fn take(&self) -> Arc<Objects> {
        let mut inner = self.lock();
        inner.dirty.clear();
        inner.stock.objects()
    }

    /// When changes are to be told; `None`: there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        let inner = self.lock();
        if inner.pending.is_empty() { inner.dirty.due() } else { inner.dirty.deadline() }
    }

    /// Whether everything that the start waits for is there.
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
            self.bell.send_replace(());
        }
    }

    /// Reads the stock.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Stock) -> T) -> T {
        read(&self.lock().stock)
    }

    /// The last compile serves what these references are of in place of the routes' own specs.
    pub(super) fn stand_in(&self, references: References) {
        self.change(|inner| inner.stock.stand_in(references));
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

    /// A reflector has what it is there for, and follows it.
    pub(super) fn healthy(&self, id: Id) {
        let mended = self.change(|inner| {
            let health = inner.watches.get_mut(&id)?;
            health.answered = true;
            health.failing.take().map(|(since, _)| (health.what.clone(), since))
        });
        if let Some((what, since)) = mended {
            tracing::info!(what, after_seconds = since.elapsed().as_secs(), "read from the API server again");
            self.measure();
        }
    }

    /// A reflector cannot read, for the reason `why`. Logged once until the reason changes.
    pub(super) fn failing(&self, id: Id, why: &str) {
        let now = Instant::now();
        let news = self.change(|inner| {
            let health = inner.watches.get_mut(&id)?;
            let (since, said) = health.failing.get_or_insert_with(|| (now, String::new()));
            (said != why).then(|| {
                why.clone_into(said);
                (health.what.clone(), *since)
            })
        });
        if let Some((what, since)) = news {
            tracing::warn!(
                what,
                problem = why,
                for_seconds = since.elapsed().as_secs(),
                "cannot be read from the API server; what was read last keeps serving"
            );
        }
        self.measure();
    }

    /// A reflector was told that there is nothing for it to read, and `why`.
    pub(super) fn absent(&self, id: Id, why: &str) {
        let news = self.change(|inner| {
            let health = inner.watches.get_mut(&id)?;
            let first = !health.answered;
            health.answered = true;
            let mended = health.failing.take().is_some();
            (first || mended).then(|| health.what.clone())
        });
        if let Some(what) = news {
            tracing::info!(what, reason = why, "not read");
            self.measure();
        }
    }

    fn measure(&self) {
        let failing = self.lock().watches.values().filter_map(|health| Some(health.failing.as_ref()?.0)).min();
        self.metrics.source_stale(failing.map(Instant::into_std));
    }

    /// A list of all that is in `scope`. Where it is empty (`empty`: before anything was left out as unwanted) although
    /// there were objects, it takes effect only if `confirmed`.
    pub(super) fn replace<K: Kind>(
        &self,
        scope: &Scope,
        found: BTreeMap<Key, Item<K>>,
        empty: bool,
        confirmed: bool,
    ) -> Taken {
        self.change(|inner| {
            let held = K::shelf(&mut inner.stock).iter().filter(|(key, object)| scope.holds::<K>(key, object));
            let gone: Vec<Key> = held.map(|(key, _)| key).filter(|key| !found.contains_key(key)).cloned().collect();
            if empty && !gone.is_empty() && !confirmed {
                return Taken::Suspect;
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
            if inner.stock.serves_certificates(namespace, read) {
                inner.dirty.touch(Instant::now());
            }
        });
    }

    /// Whether IngressClasses can be read.
    pub(super) fn reads_classes(&self, read: bool) {
        self.change(|inner| {
            if std::mem::replace(&mut inner.stock.classless, !read) == read {
                inner.dirty.touch(Instant::now());
            }
        });
    }

    /// Whether the API server lets the gateway read an object that is named.
    pub(super) fn readable<K: Kind>(&self, key: &Key, readable: bool) {
        self.change(|inner| {
            let named = (K::NAME, key.clone());
            let objects = inner.stock.objects();
            if objects.unreadable.contains(&named) == readable {
                drop(objects);
                let unreadable = &mut inner.stock.objects_mut().unreadable;
                let _ = if readable { unreadable.remove(&named) } else { unreadable.insert(named) };
                inner.dirty.touch(Instant::now());
            }
        });
    }

    /// Something is named that was not asked for yet.
    pub(super) fn expect(&self, key: &Key) {
        self.change(|inner| *inner.pending.entry(key.clone()).or_default() += 1);
    }

    /// What was named is there, or is known not to be.
    pub(super) fn settle(&self, key: &Key) {
        self.change(|inner| {
            if let Some(count) = inner.pending.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    inner.pending.remove(key);
                }
            }
        });
    }

    /// A Secret is asked for by its name, beside the watch.
    pub(super) fn fetch(&self, key: &Key) {
        self.lock().fetching.insert(key.clone(), false);
    }

    /// The answer. What the watch said meanwhile is newer and stays.
    pub(super) fn fetched<K: Kind>(&self, key: &Key, item: Option<Item<K>>) {
        self.change(|inner| {
            let newer = inner.fetching.remove(key).unwrap_or(true);
            if let Some(item) = item.filter(|_| !newer) {
                inner.put(key.clone(), item);
            }
        });
    }
}

impl Inner {
    fn put<K: Kind>(&mut self, key: Key, item: Item<K>) {
        if !K::is_wanted(&self.stock, &key) {
            return;
        }
        let Item { mut object, findings } = item;
        if !K::VERSIONED {
            object.metadata_mut().resource_version = None;
        }
        if K::shelf(&mut self.stock).get(&key).is_some_and(|known| **known == object) {
            return;
        }
        let object = Arc::new(object);
        K::shelf(&mut self.stock).insert(key.clone(), Arc::clone(&object));
        K::placed(&mut self.stock, &key, Some((&object, findings)));
        self.dirty.touch(Instant::now());
    }

    fn take_away<K: Kind>(&mut self, key: &Key, uid: Option<&str>) {
        let shelf = K::shelf(&mut self.stock);
        let Some(known) = shelf.get(key) else { return };
        if uid.is_some_and(|uid| known.metadata().uid.as_deref().is_some_and(|known| known != uid)) {
            return;
        }
        shelf.remove(key);
        K::placed(&mut self.stock, key, None);
        self.dirty.touch(Instant::now());
    }

    fn touch_fetch(&mut self, kind: &str, key: &Key) {
        if kind == "Secret"
            && let Some(touched) = self.fetching.get_mut(key)
        {
            *touched = true;
        }
    }
}
