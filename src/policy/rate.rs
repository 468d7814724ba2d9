//! Rates: how many of a thing in a time, and when the next one is free. Knows numbers, not what is counted.

use std::time::Duration;

/// A limit of things that are alike and counted one by one, such as handshakes or messages.
///
/// It is the generic cell rate algorithm (ITU-T I.371): one number for whom the limit is for, the time at which the last
/// thing would have arrived at an even pace. What is refused does not count, so that what is said about when to come again
/// stays true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Things per interval, at least 1.
    pub count: u32,
    /// The interval.
    pub interval: Duration,
    /// Things at once after a quiet time, at least 1.
    pub burst: u32,
}

/// A rate as nanoseconds, so that nothing is divided where it judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// The time that one thing stands for.
    pub step: u64,
    /// How far ahead of an even pace a burst may be.
    pub ahead: u64,
}

impl Rate {
    /// Judges one thing at `now`, as [`Steps::judge`] does.
    ///
    /// # Errors
    /// How long until the next one is free. The pace to keep is then [`Rate::bounded`].
    pub fn judge(&self, pace: u64, now: u64) -> Result<u64, Duration> {
        self.steps().judge(pace, now).map_err(Duration::from_nanos)
    }

    /// A pace that was kept under a stricter limit waits no longer than this one asks.
    pub fn bounded(&self, pace: u64, now: u64) -> u64 {
        self.steps().bounded(pace, now)
    }

    /// The same in nanoseconds.
    pub fn steps(&self) -> Steps {
        let step = nanos(self.interval) / u64::from(self.count.max(1));
        Steps { step, ahead: step.saturating_mul(u64::from(self.burst.max(1)) - 1) }
    }
}

impl Steps {
    /// Judges one thing at `now`, nanoseconds since any fixed moment. `pace` is what the judgement before returned; 0
    /// where there was none. Returns the pace to keep: one that is not after `now` can be forgotten.
    ///
    /// # Errors
    /// How many nanoseconds until the next one is free. The pace to keep is then [`Steps::bounded`].
    pub fn judge(self, pace: u64, now: u64) -> Result<u64, u64> {
        let pace = self.bounded(pace, now);
        match (pace - now).checked_sub(self.ahead) {
            None | Some(0) => Ok(pace.saturating_add(self.step)),
            Some(wait) => Err(wait),
        }
    }

    /// A pace that was kept under a stricter limit waits no longer than this one asks.
    pub fn bounded(self, pace: u64, now: u64) -> u64 {
        pace.clamp(now, now.saturating_add(self.ahead).saturating_add(self.step))
    }
}

/// A time in nanoseconds, the longest that there is where it is longer.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate { count, interval: Duration::from_secs(seconds), burst }
    }

    /// How many of `tries` things at one moment pass, and the pace after them.
    fn burst(limit: &Rate, mut pace: u64, now: u64, tries: u32) -> (u32, u64) {
        let mut passed = 0;
        for _ in 0..tries {
            if let Ok(next) = limit.judge(pace, now) {
                (passed, pace) = (passed + 1, next);
            }
        }
        (passed, pace)
    }

    #[test]
    fn a_burst_passes_and_refills_at_the_pace_of_the_limit() {
        let limit = limit(2, 1, 4);
        let (passed, pace) = burst(&limit, 0, 10 * SECOND, 9);
        assert_eq!(passed, 4);
        assert_eq!(limit.judge(pace, 10 * SECOND), Err(Duration::from_millis(500)));
        let (passed, pace) = burst(&limit, pace, 10 * SECOND + SECOND / 2, 9);
        assert_eq!(passed, 1);
        let (passed, pace) = burst(&limit, pace, 12 * SECOND, 9);
        assert_eq!(passed, 3);
        assert_eq!(burst(&limit, pace, 60 * SECOND, 9).0, 4);
    }

    #[test]
    fn what_is_told_to_wait_is_exactly_enough() {
        let limit = limit(1, 30, 1);
        let pace = limit.judge(0, SECOND).unwrap();
        let wait = limit.judge(pace, 5 * SECOND).unwrap_err();
        assert_eq!(wait, Duration::from_secs(26));
        assert!(limit.judge(pace, 31 * SECOND - 1).is_err());
        assert!(limit.judge(pace, 31 * SECOND).is_ok());
    }

    #[test]
    fn a_wider_limit_takes_effect_at_once() {
        let strict = limit(1, 3600, 1);
        let (_, pace) = burst(&strict, 0, SECOND, 1);
        assert!(limit(10, 1, 10).judge(pace, SECOND).unwrap_err() <= Duration::from_millis(100));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_pace_allow(
            count in 1u32..50, burst in 1u32..80, steps in proptest::collection::vec(0u64..400_000_000, 1..300),
        ) {
            let limit = Rate { count, interval: Duration::from_secs(1), burst };
            let (mut now, mut pace, mut passed) = (SECOND, 0, 0u64);
            for step in steps {
                now += step;
                if let Ok(next) = limit.judge(pace, now) {
                    pace = next;
                    passed += 1;
                }
            }
            let elapsed = u128::from(now - SECOND);
            let most = u128::from(burst) + elapsed / u128::from(SECOND / u64::from(count)) + 1;
            prop_assert!(u128::from(passed) <= most, "{passed} of {most}");
        }

        #[test]
        fn no_number_overflows(count: u32, nanos: u64, burst: u32, pace: u64, now: u64) {
            let limit = Rate { count, interval: Duration::from_nanos(nanos), burst };
            let _ = limit.judge(pace, now);
        }
    }
}
