//! What the connections of one subject share of a rate of messages: one number per route, subject and direction, in a table
//! of bounded size that survives every swap.
//!
//! A connection asks for its number once and judges without a lock. A number whose burst is free again is as good as none,
//! and is forgotten when no connection has it: who comes back earlier finds what was used up. In a table that is full of
//! numbers that still count, subjects that are new to it share one number per route and direction.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::route_id::RouteId;
use crate::policy::rate::Steps;

/// Parts that are locked apart.
const SHARDS: usize = 16;
/// Numbers that all routes together keep at the most, some 200 bytes each.
const MAX_KEYS: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// A number that connections share.
#[derive(Debug, Default)]
pub(crate) struct SubjectRate {
    pace: AtomicU64,
}

impl SubjectRate {
    /// Judges one message at `now`, as [`Steps::judge`] does, and counts it if it passes.
    ///
    /// # Errors
    /// How many nanoseconds until the next one is free.
    pub(crate) fn judge(&self, steps: Steps, now: u64) -> Result<(), u64> {
        let mut pace = self.pace.load(Ordering::Relaxed);
        loop {
            let (next, judged) = match steps.judge(pace, now) {
                Ok(next) => (next, Ok(())),
                // What was counted under a stricter rate does not wait longer than this one asks.
                Err(wait) => (steps.bounded(pace, now), Err(wait)),
            };
            if next == pace {
                return judged;
            }
            match self.pace.compare_exchange_weak(pace, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return judged,
                Err(other) => pace = other,
            }
        }
    }

    fn is_free(&self, now: u64) -> bool {
        self.pace.load(Ordering::Relaxed) <= now
    }
}

/// Whose number it is. No subject has an empty identity: that is the one that newcomers to a full table share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    route: RouteId,
    identity: Box<str>,
    from_client: bool,
}

type Shard = HashMap<Key, Arc<SubjectRate>>;

/// The numbers of all routes and subjects.
#[derive(Debug, Default)]
pub(crate) struct SubjectRates {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

impl SubjectRates {
    /// What the connections of a subject (with its issuer) of a route share in a direction.
    pub(crate) fn of(&self, route: &RouteId, identity: &str, from_client: bool) -> Arc<SubjectRate> {
        let key = |identity: &str| Key { route: route.clone(), identity: identity.into(), from_client };
        self.find(key(identity), MAX_KEYS / SHARDS).unwrap_or_else(|| {
            // One per route and direction: it has its place whether the table is full or not.
            self.find(key(""), usize::MAX).unwrap_or_default()
        })
    }

    fn find(&self, key: Key, most: usize) -> Option<Arc<SubjectRate>> {
        let shard = self.hasher.hash_one(&key) as usize % SHARDS;
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = shard.get(&key) {
            return Some(Arc::clone(found));
        }
        if shard.len() >= most {
            return None;
        }
        Some(Arc::clone(shard.entry(key).or_default()))
    }

    /// Forgets who is free in one part of the table, another one with each `turn`; passed over while it is in use.
    pub(crate) fn tidy(&self, turn: u32, now: u64) {
        if let Ok(mut shard) = self.shards[turn as usize % SHARDS].try_lock() {
            shard.retain(|_, rate| Arc::strong_count(rate) > 1 || !rate.is_free(now));
            if shard.capacity() > 256 && shard.len() < shard.capacity() / 8 {
                shard.shrink_to_fit();
            }
        }
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rate;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn steps(count: u32, burst: u32) -> Steps {
        Rate { count, interval: Duration::from_secs(1), burst }.steps()
    }

    fn route(name: &str) -> RouteId {
        RouteId::secure_web_socket("shop", name)
    }

    #[test]
    fn connections_of_a_subject_share_and_others_do_not() {
        let rates = SubjectRates::default();
        let steps = steps(1, 2);
        let chat = route("chat");
        let (one, other) = (rates.of(&chat, "ada", true), rates.of(&chat, "ada", true));
        assert!(one.judge(steps, 1).is_ok() && other.judge(steps, 1).is_ok());
        assert_eq!((one.judge(steps, 1), other.judge(steps, 1)), (Err(SECOND), Err(SECOND)));
        for free in
            [rates.of(&chat, "bob", true), rates.of(&chat, "ada", false), rates.of(&route("other"), "ada", true)]
        {
            assert!(free.judge(steps, 1).is_ok());
        }
    }

    #[test]
    fn who_comes_back_finds_what_was_used_up_until_it_is_free() {
        let rates = SubjectRates::default();
        let steps = steps(1, 1);
        let chat = route("chat");
        let tidy = |now| (0..16).for_each(|turn| rates.tidy(turn, now));
        rates.of(&chat, "ada", true).judge(steps, SECOND).unwrap();
        tidy(SECOND);
        assert!(rates.of(&chat, "ada", true).judge(steps, SECOND).is_err());
        let held = rates.of(&chat, "ada", true);
        tidy(2 * SECOND);
        assert_eq!(rates.keys(), 1, "a connection has it");
        drop(held);
        tidy(2 * SECOND);
        assert_eq!(rates.keys(), 0);
    }

    #[test]
    fn a_full_table_keeps_whom_it_knows_and_newcomers_share_what_one_subject_has() {
        let rates = SubjectRates::default();
        let (chat, steps) = (route("chat"), steps(1, 1));
        let known = rates.of(&chat, "known", true);
        for n in 0..MAX_KEYS + MAX_KEYS / 2 {
            rates.of(&chat, &n.to_string(), true);
        }
        assert!(rates.keys() <= MAX_KEYS + 1, "{}", rates.keys());
        assert!(rates.of(&chat, "new", true).judge(steps, SECOND).is_ok());
        assert!(rates.of(&chat, "newer", true).judge(steps, SECOND).is_err());
        assert!(known.judge(steps, SECOND).is_ok());
        assert!(rates.of(&route("other"), "new", true).judge(steps, SECOND).is_ok());
    }

    #[test]
    fn many_threads_get_exactly_the_burst() {
        let (rate, steps) = (SubjectRate::default(), steps(1, 1000));
        let passed: usize = std::thread::scope(|scope| {
            let each = (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| rate.judge(steps, SECOND).is_ok()).count()));
            let each: Vec<_> = each.collect();
            each.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
