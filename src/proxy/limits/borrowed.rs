//! Messages that a replica borrows of a rate which replicas share: as many at a time as it used in the last quarter of a
//! second, so that the store is not asked for each, and an eighth of the burst at the most, so that one replica leaves room
//! to the others. What is not used soon lapses, and is lost to the subject rather than used twice.
//!
//! Grants of the store keep to the rate, and each is used within twice [`LAPSE`] of its answer or not at all: over all
//! replicas the rate is exceeded by no more than it allows in that time. Pure: `now` is handed in.

use std::time::Duration;

use crate::policy::rate::{Steps, nanos};

/// How long what is borrowed may be used.
const LAPSE: Duration = Duration::from_millis(500);
/// The time whose use says how much is borrowed.
const SPAN: Duration = Duration::from_millis(250);
/// From so many messages in that time on, more is borrowed before all is used.
const BUSY: u64 = 4;
/// How long a replica counts by itself before it asks again.
const ALONE: Duration = Duration::from_secs(1);

/// What is said to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It passes.
    Pass,
    /// The rate is exceeded; the next one is free in so many nanoseconds.
    Wait(u64),
    /// The store is asked.
    Unknown,
    /// The store gives no answer: the replica counts by itself.
    Alone,
}

/// What the store is asked: so many messages of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) steps: Steps,
    pub(crate) messages: u64,
    at: u64,
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// So many may pass.
    pub(crate) granted: u64,
    /// If none: nanoseconds until the next one may.
    pub(crate) wait: u64,
}

/// What a replica has borrowed for one subject.
#[derive(Debug, Default)]
pub(crate) struct Borrowed {
    /// Messages that may pass still.
    left: u64,
    /// When they lapse.
    lapses: u64,
    /// Messages that passed since `since`, and in the span before.
    used: u64,
    used_before: u64,
    since: u64,
    /// None is free before.
    denied_until: u64,
    /// The replica counts by itself until then.
    alone_until: u64,
    asked: Option<Question>,
    steps: Option<Steps>,
}

impl Borrowed {
    /// Judges a message, and whether the store is to be asked now.
    pub(crate) fn judge(&mut self, steps: Steps, now: u64) -> (Judged, bool) {
        if self.steps.replace(steps) != Some(steps) {
            // What was said of another rate says nothing of this one.
            (self.left, self.denied_until) = (0, 0);
        }
        if now < self.alone_until {
            return (Judged::Alone, false);
        }
        self.turn(now);
        if self.left > 0 && now < self.lapses {
            self.left -= 1;
            self.used += 1;
            let busy = self.recent() >= BUSY && self.left <= self.recent() / 4;
            return (Judged::Pass, busy && now >= self.denied_until && self.ask(steps, now));
        }
        if now < self.denied_until {
            return (Judged::Wait(self.denied_until - now), false);
        }
        (Judged::Unknown, self.ask(steps, now))
    }

    /// What is asked; `None`: nothing.
    pub(crate) fn question(&self) -> Option<Question> {
        self.asked
    }

    /// The store answered after so long, or did not.
    pub(crate) fn answered(&mut self, answer: Option<Answer>, took: Duration) {
        let Some(question) = self.asked.take() else { return };
        let now = question.at.saturating_add(nanos(took));
        match answer {
            None => self.alone_until = now.saturating_add(nanos(ALONE)),
            Some(_) if self.steps != Some(question.steps) => {}
            Some(Answer { granted: 0, wait }) => self.denied_until = now.saturating_add(wait.max(1)),
            Some(Answer { granted, .. }) => {
                if question.at >= self.lapses {
                    self.left = 0;
                }
                // One time for all. What was left of before is used first, so that it is not kept longer than twice.
                self.left += granted;
                self.lapses = now.saturating_add(nanos(LAPSE));
            }
        }
    }

    fn ask(&mut self, steps: Steps, now: u64) -> bool {
        if self.asked.is_some() {
            return false;
        }
        let burst = steps.ahead / steps.step.max(1) + 1;
        let messages = self.recent().clamp(1, (burst / 8).max(1));
        self.asked = Some(Question { steps, messages, at: now });
        true
    }

    /// Messages that passed in the last span, or in this one.
    fn recent(&self) -> u64 {
        self.used.max(self.used_before)
    }

    fn turn(&mut self, now: u64) {
        let spans = now.saturating_sub(self.since) / nanos(SPAN);
        if spans > 0 {
            self.used_before = if spans == 1 { self.used } else { 0 };
            (self.used, self.since) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Rate;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const QUARTER: u64 = SECOND / 4;

    fn steps(count: u32, burst: u32) -> Steps {
        Rate { count, interval: Duration::from_secs(1), burst }.steps()
    }

    /// A store: one pace by its own exact clock.
    #[derive(Default)]
    struct Store(u64);

    impl Store {
        fn answer(&mut self, question: Question, now: u64) -> Answer {
            let mut granted = 0;
            while granted < question.messages {
                match question.steps.judge(self.0, now) {
                    Ok(pace) => (self.0, granted) = (pace, granted + 1),
                    Err(wait) => return Answer { granted, wait },
                }
            }
            Answer { granted, wait: 0 }
        }
    }

    /// Judges a message with a store that answers at once.
    fn passes(borrowed: &mut Borrowed, store: &mut Store, steps: Steps, now: u64) -> bool {
        for _ in 0..2 {
            let (judged, ask) = borrowed.judge(steps, now);
            if ask {
                let answer = store.answer(borrowed.question().unwrap(), now);
                borrowed.answered(Some(answer), Duration::ZERO);
            }
            match judged {
                Judged::Pass => return true,
                Judged::Wait(_) => return false,
                Judged::Unknown => {}
                Judged::Alone => panic!("the store answers"),
            }
        }
        false
    }

    #[test]
    fn exactly_the_burst_passes_and_the_store_is_not_asked_for_each_message() {
        let (mut borrowed, mut store, steps) = (Borrowed::default(), Store::default(), steps(1, 80));
        let (mut passed, mut asked) = (0, 0);
        for _ in 0..100 {
            let before = store.0;
            passed += u32::from(passes(&mut borrowed, &mut store, steps, SECOND));
            asked += u32::from(store.0 != before);
        }
        assert_eq!(passed, 80);
        assert!((8..=16).contains(&asked), "{asked}");
        assert_eq!(borrowed.judge(steps, SECOND), (Judged::Wait(SECOND), false));
    }

    #[test]
    fn a_replica_that_is_hardly_used_borrows_one_at_a_time() {
        let (mut borrowed, steps) = (Borrowed::default(), steps(1, 80));
        for second in 1..5 {
            assert_eq!(borrowed.judge(steps, second * SECOND), (Judged::Unknown, true));
            assert_eq!(borrowed.question().unwrap().messages, 1);
            borrowed.answered(Some(Answer { granted: 1, wait: 0 }), Duration::ZERO);
            assert_eq!(borrowed.judge(steps, second * SECOND), (Judged::Pass, false));
        }
    }

    #[test]
    fn what_is_borrowed_and_not_used_lapses() {
        let (mut borrowed, steps) = (Borrowed::default(), steps(1, 80));
        let _ = borrowed.judge(steps, SECOND);
        borrowed.answered(Some(Answer { granted: 3, wait: 0 }), Duration::from_millis(100));
        assert_eq!(borrowed.judge(steps, SECOND + 2 * QUARTER).0, Judged::Pass);
        assert_eq!(borrowed.judge(steps, SECOND + 3 * QUARTER), (Judged::Unknown, true));
    }

    #[test]
    fn who_was_denied_waits_and_another_rate_asks_anew() {
        let mut borrowed = Borrowed::default();
        let _ = borrowed.judge(steps(1, 1), SECOND);
        borrowed.answered(Some(Answer { granted: 0, wait: 9 * SECOND }), Duration::ZERO);
        assert_eq!(borrowed.judge(steps(1, 1), 2 * SECOND), (Judged::Wait(8 * SECOND), false));
        assert_eq!(borrowed.judge(steps(5, 5), 2 * SECOND), (Judged::Unknown, true));
        // An answer for the rate of before is none.
        let _ = borrowed.judge(steps(6, 6), 2 * SECOND);
        borrowed.answered(Some(Answer { granted: 1, wait: 0 }), Duration::ZERO);
        assert_eq!(borrowed.judge(steps(6, 6), 2 * SECOND), (Judged::Unknown, true));
    }

    #[test]
    fn without_an_answer_the_replica_is_alone_for_a_second() {
        let (mut borrowed, steps) = (Borrowed::default(), steps(1, 1));
        let _ = borrowed.judge(steps, SECOND);
        borrowed.answered(None, Duration::from_millis(500));
        assert_eq!(borrowed.judge(steps, 2 * SECOND), (Judged::Alone, false));
        assert_eq!(borrowed.judge(steps, 3 * SECOND), (Judged::Unknown, true));
    }

    proptest! {
        /// However replicas send: in any time no more than the rate allows in it and in the time of a lapse.
        #[test]
        fn the_sum_over_replicas_exceeds_the_rate_by_no_more_than_a_share(
            count in 1u32..60, burst in 1u32..80,
            sent in proptest::collection::vec((0u64..120_000_000, 0usize..3, 1u32..20), 1..200),
        ) {
            let steps = steps(count, burst.max(count));
            let (mut store, mut replicas) = (Store::default(), [const { None }; 3]);
            let (mut now, mut passed) = (SECOND, Vec::new());
            for (pause, replica, messages) in sent {
                now += pause;
                // The clock of a replica stands between its ticks.
                let tick = now / QUARTER * QUARTER;
                let replica: &mut Borrowed = replicas[replica].get_or_insert_default();
                for _ in 0..messages {
                    for _ in 0..2 {
                        let (judged, ask) = replica.judge(steps, tick);
                        if ask {
                            let answer = store.answer(replica.question().unwrap(), now);
                            replica.answered(Some(answer), Duration::from_nanos(now - tick));
                        }
                        match judged {
                            Judged::Pass => passed.push(now),
                            Judged::Unknown => continue,
                            _ => {}
                        }
                        break;
                    }
                }
            }
            // A tick more: the clock of a replica is late by so much.
            let share = u64::from(count) * (2 * nanos(LAPSE) + QUARTER) / SECOND + 1;
            for first in 0..passed.len() {
                for last in first..passed.len() {
                    let allowed = u64::from(burst.max(count)) + (passed[last] - passed[first]) / steps.step + share + 1;
                    prop_assert!((last - first + 1) as u64 <= allowed, "{} of {allowed}", last - first + 1);
                }
            }
        }
    }
}
