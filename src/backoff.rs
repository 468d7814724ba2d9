//! Pauses between attempts of what failed. They double up to a limit, and each has a random part, so that replicas that
//! failed at once do not try again at once. Pure: whoever waits has the clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The pauses of one thing that is tried again until it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// The next pause before its random part.
    whole: Duration,
}

impl Backoff {
    /// Pauses that begin with `first` and double up to `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, whole: first }
    }

    /// The next pause: between a half of it and the whole, by chance.
    pub(crate) fn next(&mut self) -> Duration {
        self.next_by(RandomState::new().build_hasher().finish())
    }

    /// The next pause, by this random number.
    fn next_by(&mut self, random: u64) -> Duration {
        let whole = self.whole;
        self.whole = (whole * 2).min(self.most);
        let half = whole / 2;
        half + (whole - half).mul_f64(random as f64 / u64::MAX as f64)
    }

    /// It succeeded: the next pause is the first one.
    pub(crate) fn reset(&mut self) {
        self.whole = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

    fn pauses(random: u64, count: usize) -> Vec<f64> {
        let mut backoff = Backoff::new(SECONDS.0, SECONDS.1);
        (0..count).map(|_| backoff.next_by(random).as_secs_f64()).collect()
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        assert_eq!(pauses(u64::MAX, 8), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
    }

    #[test]
    fn chance_takes_half_of_a_pause_at_the_most() {
        assert_eq!(pauses(0, 8), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        let (mut backoff, mut seen) = (Backoff::new(SECONDS.0, SECONDS.0), Vec::new());
        for _ in 0..100 {
            let pause = backoff.next();
            assert!(pause >= SECONDS.0 / 2 && pause <= SECONDS.0, "{pause:?}");
            seen.push(pause);
        }
        seen.sort();
        seen.dedup();
        assert!(seen.len() > 10, "pauses differ: {seen:?}");
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::new(SECONDS.0, SECONDS.1);
        for _ in 0..10 {
            backoff.next();
        }
        backoff.reset();
        assert_eq!(backoff.next_by(u64::MAX), SECONDS.0);
    }
}
