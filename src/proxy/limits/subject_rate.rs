//! What the connections of one subject share of a rate of messages: one number per route, subject and direction, in a table
//! of bounded size that survives every swap.
//!
//! A connection asks for its number once and judges without a lock. A number whose burst is free again is as good as none,
//! and is forgotten when no connection has it: who comes back earlier finds what was used up. In a table that is full of
//! numbers that still count, subjects that are new to it share one number per route and direction.
//!
//! Where replicas share a store, the number that counts is the store's, and this replica borrows from it
//! ([`borrowed`](super::borrowed)). Without an answer of the store the replica counts by itself.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::api::route_id::RouteId;
use crate::policy::rate::Steps;
use crate::proxy::limits::borrowed::{Answer, Borrowed, Judged, Question};

/// Parts that are locked apart.
const SHARDS: usize = 16;
/// Numbers that all routes together keep at the most, some 200 bytes each.
const MAX_KEYS: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// Questions that wait for the store; a replica counts by itself beyond.
const QUEUE: usize = 64 * 1024;

/// What a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// So many nanoseconds.
    For(u64),
    /// An answer of the store, which wakes.
    Answer,
}

/// A number that connections share.
#[derive(Debug)]
pub(crate) struct SubjectRate {
    key: Key,
    pace: AtomicU64,
    /// What is borrowed from the store; `None`: replicas share none.
    store: Option<Lender>,
}

#[derive(Debug)]
struct Lender {
    borrowed: Mutex<Loan>,
    questions: mpsc::Sender<Arc<SubjectRate>>,
}

#[derive(Debug, Default)]
struct Loan {
    borrowed: Borrowed,
    /// Who waits for an answer.
    wakers: Vec<Waker>,
}

impl Lender {
    fn loan(&self) -> MutexGuard<'_, Loan> {
        self.borrowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SubjectRate {
    /// Judges one message at `now`, as [`Steps::judge`] does, and counts it if it passes. `waker` is asked for where an answer
    /// must be waited for.
    ///
    /// # Errors
    /// What the message waits for.
    pub(crate) fn judge(
        self: &Arc<Self>,
        steps: Steps,
        now: u64,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Result<(), Wait> {
        let Some(lender) = &self.store else { return self.judge_alone(steps, now).map_err(Wait::For) };
        let mut loan = lender.loan();
        let (judged, ask) = loan.borrowed.judge(steps, now);
        if judged == Judged::Unknown
            && let Some(waker) = waker()
            && !loan.wakers.iter().any(|other| other.will_wake(&waker))
        {
            loan.wakers.push(waker);
        }
        drop(loan);
        if ask && lender.questions.try_send(Arc::clone(self)).is_err() {
            self.answered(None, Duration::ZERO);
            return self.judge_alone(steps, now).map_err(Wait::For);
        }
        match judged {
            Judged::Pass => Ok(()),
            Judged::Wait(wait) => Err(Wait::For(wait)),
            Judged::Unknown => Err(Wait::Answer),
            Judged::Alone => self.judge_alone(steps, now).map_err(Wait::For),
        }
    }

    /// Whose number it is: route, identity of the subject, and whether clients send what is counted.
    pub(crate) fn whose(&self) -> (&RouteId, &str, bool) {
        (&self.key.route, &self.key.identity, self.key.from_client)
    }

    /// What the store is to be asked.
    pub(crate) fn question(&self) -> Option<Question> {
        self.store.as_ref()?.loan().borrowed.question()
    }

    /// The store answered, or did not (`None`), after so long.
    pub(crate) fn answered(&self, answer: Option<Answer>, took: Duration) {
        let Some(lender) = &self.store else { return };
        let mut loan = lender.loan();
        loan.borrowed.answered(answer, took);
        let wakers = std::mem::take(&mut loan.wakers);
        drop(loan);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn judge_alone(&self, steps: Steps, now: u64) -> Result<(), u64> {
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
    /// What the store is asked; `None`: there is none.
    questions: Option<mpsc::Sender<Arc<SubjectRate>>>,
}

impl SubjectRates {
    /// Numbers of which a store has the last word; who asks it receives what is to be asked.
    pub(crate) fn shared() -> (Self, mpsc::Receiver<Arc<SubjectRate>>) {
        let (questions, asked) = mpsc::channel(QUEUE);
        (Self { questions: Some(questions), ..Self::default() }, asked)
    }

    fn made(&self, key: Key) -> Arc<SubjectRate> {
        let lender = |questions: &mpsc::Sender<_>| Lender { borrowed: Mutex::default(), questions: questions.clone() };
        Arc::new(SubjectRate { key, pace: AtomicU64::new(0), store: self.questions.as_ref().map(lender) })
    }

    /// What the connections of a subject (with its issuer) of a route share in a direction.
    pub(crate) fn of(&self, route: &RouteId, identity: &str, from_client: bool) -> Arc<SubjectRate> {
        let key = |identity: &str| Key { route: route.clone(), identity: identity.into(), from_client };
        let others = |_| self.find(key(""), usize::MAX).unwrap_or_else(|key| self.made(key));
        // One per route and direction: it has its place whether the table is full or not.
        self.find(key(identity), MAX_KEYS / SHARDS).unwrap_or_else(others)
    }

    /// The number of a key, made if there are fewer than `most` in its part of the table; the key where there are not.
    fn find(&self, key: Key, most: usize) -> Result<Arc<SubjectRate>, Key> {
        let shard = self.hasher.hash_one(&key) as usize % SHARDS;
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = shard.get(&key) {
            return Ok(Arc::clone(found));
        }
        if shard.len() >= most {
            return Err(key);
        }
        Ok(Arc::clone(shard.entry(key.clone()).or_insert_with(|| self.made(key))))
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

    fn judge(rate: &Arc<SubjectRate>, steps: Steps, now: u64) -> Result<(), Wait> {
        rate.judge(steps, now, || unreachable!("there is no store"))
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
        assert!(judge(&one, steps, 1).is_ok() && judge(&other, steps, 1).is_ok());
        assert_eq!((judge(&one, steps, 1), judge(&other, steps, 1)), (Err(Wait::For(SECOND)), Err(Wait::For(SECOND))));
        for free in
            [rates.of(&chat, "bob", true), rates.of(&chat, "ada", false), rates.of(&route("other"), "ada", true)]
        {
            assert!(judge(&free, steps, 1).is_ok());
        }
    }

    #[test]
    fn who_comes_back_finds_what_was_used_up_until_it_is_free() {
        let rates = SubjectRates::default();
        let steps = steps(1, 1);
        let chat = route("chat");
        let tidy = |now| (0..16).for_each(|turn| rates.tidy(turn, now));
        judge(&rates.of(&chat, "ada", true), steps, SECOND).unwrap();
        tidy(SECOND);
        assert!(judge(&rates.of(&chat, "ada", true), steps, SECOND).is_err());
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
        assert!(judge(&rates.of(&chat, "new", true), steps, SECOND).is_ok());
        assert!(judge(&rates.of(&chat, "newer", true), steps, SECOND).is_err());
        assert!(judge(&known, steps, SECOND).is_ok());
        assert!(judge(&rates.of(&route("other"), "new", true), steps, SECOND).is_ok());
    }

    #[test]
    fn many_threads_get_exactly_the_burst() {
        let (rates, steps) = (SubjectRates::default(), steps(1, 1000));
        let rate = rates.of(&route("chat"), "ada", true);
        let passed: usize = std::thread::scope(|scope| {
            let each =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| judge(&rate, steps, SECOND).is_ok()).count()));
            let each: Vec<_> = each.collect();
            each.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn a_store_is_asked_once_and_its_answer_wakes_who_waits() {
        let (rates, mut asked) = SubjectRates::shared();
        let steps = steps(1, 8);
        let rate = rates.of(&route("chat"), "ada", true);
        for _ in 0..3 {
            assert_eq!(rate.judge(steps, 1, || Some(Waker::noop().clone())), Err(Wait::Answer));
        }
        let question = asked.try_recv().unwrap();
        assert!(Arc::ptr_eq(&question, &rate) && asked.try_recv().is_err());
        assert_eq!(question.whose(), (&route("chat"), "ada", true));
        assert_eq!(rate.store.as_ref().unwrap().loan().wakers.len(), 1);
        question.answered(Some(Answer { granted: 1, wait: 0 }), Duration::ZERO);
        assert_eq!(rate.store.as_ref().unwrap().loan().wakers.len(), 0);
        assert_eq!(judge(&rate, steps, 1), Ok(()));
    }

    #[test]
    fn a_replica_whose_store_cannot_be_asked_counts_by_itself() {
        let (rates, asked) = SubjectRates::shared();
        let steps = steps(1, 2);
        let rate = rates.of(&route("chat"), "ada", true);
        drop(asked);
        let judge = || rate.judge(steps, SECOND, || None);
        assert_eq!([judge(), judge(), judge()], [Ok(()), Ok(()), Err(Wait::For(SECOND))]);
    }
}
