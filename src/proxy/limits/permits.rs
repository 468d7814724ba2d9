//! Permits: so many of a thing at a time, for each key. Whoever acquires one holds it until it is dropped, so nothing is
//! given back twice or forgotten. Knows keys and numbers; not what they stand for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keys that one table holds at the most; a full table refuses new keys rather than forget one.
const MAX_KEYS: usize = 1 << 20;

/// How many permits of each key are out. Keys with none are not in it.
#[derive(Debug)]
pub(crate) struct Permits<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Permits<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Hash + Eq + Clone> Permits<K> {
    /// One permit of a key, if fewer than `limit` are out.
    pub(crate) fn acquire(self: &Arc<Self>, key: K, limit: u32) -> Option<Permit<K>> {
        self.count_up(&key, limit).then(|| Permit { permits: Arc::clone(self), key })
    }

    fn count_up(&self, key: &K, limit: u32) -> bool {
        let mut counts = self.counts();
        let full = counts.len() >= MAX_KEYS;
        match counts.get_mut(key) {
            Some(count) if *count >= limit => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if limit == 0 || full => false,
            None => {
                counts.insert(key.clone(), 1);
                true
            }
        }
    }

    /// Permits of a key that are out.
    pub(crate) fn count(&self, key: &K) -> u32 {
        self.counts().get(key).copied().unwrap_or(0)
    }

    /// Permits of the key that has the most out; 0 if none are out.
    pub(crate) fn most(&self) -> u32 {
        self.counts().values().copied().max().unwrap_or(0)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.counts().is_empty()
    }
}

impl<K> Permits<K> {
    fn counts(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the permits of a key, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<K: Hash + Eq> {
    permits: Arc<Permits<K>>,
    key: K,
}

impl<K: Hash + Eq> Permit<K> {
    /// What it is a permit of.
    pub(crate) fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Hash + Eq> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut counts = self.permits.counts();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
                // After a flood the table returns its memory.
                if counts.capacity() > 1024 && counts.len() < counts.capacity() / 8 {
                    counts.shrink_to_fit();
                }
            }
        }
    }
}

/// How many of one thing there are, without keys and without a lock.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    /// One more, if there are fewer than `limit`.
    pub(crate) fn acquire(self: &Arc<Self>, limit: usize) -> Option<Counted> {
        let counted = Counted(Arc::clone(self));
        // Counted first, compared after: two callers cannot both take the last one.
        (self.0.fetch_add(1, Ordering::Relaxed) < limit).then_some(counted)
    }

    /// How many there are.
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One of the things that a [`Count`] counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Count>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_so_many_permits_and_each_comes_back_once() {
        let permits = Arc::new(Permits::default());
        let first = permits.acquire("a", 2).unwrap();
        let second = permits.acquire("a", 2).unwrap();
        assert!(permits.acquire("a", 2).is_none());
        assert!(permits.acquire("b", 2).is_some());
        assert_eq!((permits.count(&"a"), permits.most(), *first.key()), (2, 2, "a"));
        drop(first);
        assert!(permits.acquire("a", 2).is_some());
        drop(second);
        assert!(permits.is_empty());
    }

    #[test]
    fn a_limit_of_none_is_never_met() {
        let permits = Arc::new(Permits::default());
        assert!(permits.acquire(1, 0).is_none() && permits.is_empty());
        let count = Arc::new(Count::default());
        assert!(count.acquire(0).is_none() && count.get() == 0);
    }

    #[test]
    fn what_is_counted_is_counted_down_when_it_goes() {
        let count = Arc::new(Count::default());
        let (one, two) = (count.acquire(2).unwrap(), count.acquire(2).unwrap());
        assert!(count.acquire(2).is_none());
        assert_eq!(count.get(), 2);
        drop(one);
        assert!(count.acquire(2).is_some());
        drop(two);
        assert_eq!(count.get(), 0);
    }
}
