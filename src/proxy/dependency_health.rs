//! What handshakes are judged with and cannot be reached: a few numbers for each, which whoever asks writes without a
//! lock, and the verdict over them, which is slow to change its mind in both directions.
//!
//! A failure or two say nothing; no answer at all for some seconds is an outage, and it is over when answers come without
//! a failure among them. So whoever acts on it hears of a change at the most every few seconds, however things flap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::api::route_id::RouteId;
use crate::snapshot::dependency::Dependency;
use crate::telemetry::metrics::Metrics;

/// How long nothing but failures must have come until it is an outage.
const HOLD: Duration = Duration::from_secs(5);
/// How long no failure must have come until it is over.
const CALM: Duration = Duration::from_secs(10);
/// After so long without being asked nothing is known any more.
const FORGET: Duration = Duration::from_secs(10 * 60);
/// How long a route is told to lead back here after it last did.
const LOOPED: Duration = Duration::from_secs(60);
/// Routes that are told to lead back here at a time; of more, these are mended first.
const MAX_LOOPS: usize = 1024;
/// How often the verdict is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// What cannot be reached, as it is reported.
pub type Failing = Arc<BTreeSet<Dependency>>;

/// All that handshakes are judged with.
#[derive(Debug)]
pub(crate) struct DependencyHealth {
    began: Instant,
    records: ArcSwap<HashMap<Dependency, Arc<Record>>>,
    /// Routes whose backends lead back here, and when they last did.
    loops: Mutex<BTreeMap<RouteId, u64>>,
    reported: watch::Sender<Failing>,
    metrics: Metrics,
}

/// When one was asked, in milliseconds since the beginning; 0: never.
#[derive(Debug, Default)]
struct Record {
    answered: AtomicU64,
    failed: AtomicU64,
    /// The first failure since the last answer.
    failing_since: AtomicU64,
    /// What the last failure was, for the log.
    why: Mutex<&'static str>,
}

impl Record {
    /// What was heard at `now`. Two that write at once may leave the numbers of either.
    fn record(&self, outcome: Result<(), &'static str>, now: u64) {
        let Err(why) = outcome else {
            self.answered.store(now, Ordering::Relaxed);
            return;
        };
        // Nobody waits for the sake of a word: another failure's does as well.
        if let Ok(mut last) = self.why.try_lock() {
            *last = why;
        }
        let (since, last) = (self.failing_since.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed));
        let silence = now.saturating_sub(self.failed.load(Ordering::Relaxed).max(last));
        if since <= last || silence >= millis(FORGET) {
            self.failing_since.store(now, Ordering::Relaxed);
        }
        self.failed.store(now, Ordering::Relaxed);
    }

    fn was_asked(&self) -> bool {
        self.answered.load(Ordering::Relaxed).max(self.failed.load(Ordering::Relaxed)) > 0
    }

    /// Whether it is an outage at `now`, where it `was` one before.
    fn is_out(&self, was: bool, now: u64) -> bool {
        let (answered, failed) = (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        if now.saturating_sub(failed.max(answered)) >= millis(FORGET) {
            return false;
        }
        let failing = failed > answered;
        if was {
            return failing || now.saturating_sub(failed) < millis(CALM);
        }
        failing && failed.saturating_sub(self.failing_since.load(Ordering::Relaxed)) >= millis(HOLD)
    }
}

impl DependencyHealth {
    /// Nothing is known yet. What cannot be reached is reported to `reported`.
    pub(crate) fn new(reported: watch::Sender<Failing>, metrics: Metrics) -> Self {
        Self { began: Instant::now(), records: ArcSwap::default(), loops: Mutex::default(), reported, metrics }
    }

    /// Whoever asked says whether there was a valid answer, and what there was instead: a constant text. Waits for no
    /// lock; what nobody depends on is not counted.
    pub(crate) fn record(&self, dependency: &Dependency, outcome: Result<(), &'static str>) {
        if let Some(record) = self.records.load().get(dependency) {
            record.record(outcome, self.now());
        }
    }

    /// A backend of this route has answered that the request came back to where it was.
    pub(crate) fn looped(&self, route: &RouteId) {
        let (mut loops, now) = (self.loops.lock().unwrap_or_else(PoisonError::into_inner), self.now());
        if let Some(last) = loops.get_mut(route) {
            *last = now;
        } else if loops.len() < MAX_LOOPS {
            loops.insert(route.clone(), now);
        }
    }

    /// The routes that led back here lately.
    fn looping(&self, now: u64) -> Vec<Dependency> {
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|_, last| now.saturating_sub(*last) < millis(LOOPED));
        loops.keys().cloned().map(Dependency::Loop).collect()
    }

    /// These are what handshakes are judged with from now on; what is known of them stays.
    pub(crate) fn follow(&self, dependencies: &BTreeSet<Dependency>) {
        let before = self.records.load();
        if before.len() == dependencies.len() && dependencies.iter().all(|one| before.contains_key(one)) {
            return;
        }
        let next = dependencies.iter().map(|one| (one.clone(), before.get(one).cloned().unwrap_or_default()));
        self.records.store(Arc::new(next.collect()));
    }

    /// Tells what cannot be reached now, if that is news.
    pub(crate) fn look(&self) {
        let (now, records) = (self.now(), self.records.load());
        let before = Arc::clone(&self.reported.borrow());
        let out: BTreeSet<Dependency> = records
            .iter()
            .filter(|(one, record)| record.is_out(before.contains(one), now))
            .map(|(one, _)| one.clone())
            .chain(self.looping(now))
            .collect();
        let asked = records.iter().filter(|(_, record)| record.was_asked());
        let numbers = asked.map(|(one, _)| (one.kind(), one.to_string(), out.contains(one)));
        self.metrics.dependencies(numbers);
        for (one, record) in records.iter().filter(|(one, _)| out.contains(one) != before.contains(one)) {
            let (kind, name) = (one.kind(), one.to_string());
            if out.contains(one) {
                let problem = *record.why.lock().unwrap_or_else(PoisonError::into_inner);
                tracing::warn!(kind, name, problem, "authentication dependency failing; affected handshakes get 503");
            } else {
                tracing::info!(
                    kind,
                    name,
                    "authentication dependency works again, or no handshake has used it for some time"
                );
            }
        }
        if *before != out {
            self.reported.send_replace(Arc::new(out));
        }
    }

    /// Never 0, which stands for never.
    fn now(&self) -> u64 {
        millis(self.began.elapsed()).saturating_add(1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which the verdict changed, looked at every second for `seconds`. `hears` says what is heard in one.
    fn turns(seconds: u64, hears: impl Fn(u64) -> Vec<bool>) -> Vec<u64> {
        let (record, mut out, mut turns) = (Record::default(), false, Vec::new());
        for second in 1..=seconds {
            for (place, answered) in (0..).zip(hears(second)) {
                record.record(if answered { Ok(()) } else { Err("x") }, second * 1000 + place);
            }
            let next = record.is_out(out, second * 1000 + 999);
            if next != out {
                turns.push(second);
            }
            out = next;
        }
        turns
    }

    #[test]
    fn nothing_but_failures_for_some_seconds_is_an_outage_and_answers_alone_end_it() {
        assert_eq!(turns(60, |second| vec![second > 30]), [6, 40]);
        assert!(turns(60, |_| vec![true]).is_empty());
        // Asked seldom, as key sets are.
        assert_eq!(turns(60, |second| if second % 10 == 0 { vec![second >= 40] } else { vec![] }), [20, 40]);
    }

    #[test]
    fn one_failure_and_failures_among_answers_are_no_outage() {
        assert!(turns(60, |second| if second == 5 { vec![false] } else { vec![] }).is_empty());
        assert!(turns(60, |_| vec![false, false, true]).is_empty());
        assert!(turns(60, |_| vec![true, false]).is_empty());
    }

    #[test]
    fn what_flaps_is_reported_seldom_and_what_nobody_asks_is_forgotten() {
        for period in 1..30 {
            let turns = turns(3000, |second| vec![(second / period) % 2 == 0]);
            let pairs = turns.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(pairs.min().is_none_or(|least| least >= 5), "{period}: {turns:?}");
            assert!(turns.len() < 420, "{period}: {} in 3000 s", turns.len());
        }
        // Neither is a failure long after that one more of the same row.
        let asked = |second| second < 20 || second == 700;
        assert_eq!(turns(1000, |second| if asked(second) { vec![false] } else { vec![] }), [6, 619]);
    }

    #[test]
    fn a_route_that_leads_back_is_told_for_a_while_after_it_last_did() {
        let (sender, reported) = watch::channel(Failing::default());
        let health = DependencyHealth::new(sender, Metrics::new());
        let route = |name: &str| RouteId::secure_web_socket("shop", name);
        health.looped(&route("chat"));
        health.look();
        assert_eq!(**reported.borrow(), [Dependency::Loop(route("chat"))].into());
        let later = |seconds: u64| health.now() + seconds * 1000;
        assert_eq!((health.looping(later(59)).len(), health.looping(later(61)).len()), (1, 0));
        health.look();
        assert!(reported.borrow().is_empty());
        for number in 0..MAX_LOOPS + 10 {
            health.looped(&route(&number.to_string()));
        }
        assert_eq!(health.looping(later(0)).len(), MAX_LOOPS);
    }

    #[test]
    fn what_is_reported_is_what_somebody_depends_on() {
        let (sender, reported) = watch::channel(Failing::default());
        let health = DependencyHealth::new(sender, Metrics::new());
        let keys = |name: &str| Dependency::KeySet(name.into());
        health.record(&keys("a"), Err("x"));
        assert!(health.records.load().is_empty());
        health.follow(&[keys("a"), keys("b")].into());
        let record = health.records.load().get(&keys("a")).cloned().unwrap();
        for now in [1, 6001] {
            record.record(Err("x"), now);
        }
        health.look();
        assert_eq!(**reported.borrow(), [keys("a")].into());
        health.follow(&[keys("a")].into());
        assert!(Arc::ptr_eq(&record, &health.records.load()[&keys("a")]), "what is known stays");
        health.follow(&[keys("b")].into());
        health.look();
        assert!(reported.borrow().is_empty());
    }
}
