//! Rates of messages in one direction, by number and by bytes, and what happens beyond them. Pure: `now` is handed in.

use std::time::Duration;

use crate::policy::rate::{Rate, nanos};

/// Default: how long a message may take, besides a second for each KiB of it.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often and how slowly messages may come in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// How many messages; `None`: no limit.
    pub messages: Option<MessageRate>,
    /// How many bytes of payload; `None`: no limit.
    pub bytes: Option<ByteRate>,
    /// How long a message may take from its first byte to its last, besides a second for each KiB of it.
    pub message_timeout: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { messages: None, bytes: None, message_timeout: MESSAGE_TIMEOUT }
    }
}

impl Pacing {
    /// Whether connections of one subject share a limit.
    pub fn counts_subjects(&self) -> bool {
        self.messages.is_some_and(|messages| messages.scope == Scope::Subject)
    }
}

/// A limit of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRate {
    /// How many.
    pub rate: Rate,
    /// Who shares it.
    pub scope: Scope,
    /// What happens beyond it.
    pub on_exceeded: OnExceeded,
}

/// Who shares a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// No other connection.
    Connection,
    /// All connections of a subject, with its issuer.
    Subject,
}

/// What happens to a message beyond a limit. Nothing of it goes on in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExceeded {
    /// The connection is closed.
    Close,
    /// Its sender is not read until it may pass.
    Throttle,
    /// It is left out.
    Drop,
}

/// A limit of bytes of payload.
///
/// It is the algorithm of [`Rate`] with a price for each message: one number, the time at which the bytes so far would have
/// arrived at an even pace. A message is judged when the length of its first frame is known, and then passes whole: what
/// follows is paid for before the next one, so that no message is cut in its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate {
    /// Bytes per interval, at least 1.
    pub size: u64,
    /// The interval.
    pub interval: Duration,
    /// Bytes at once after a quiet time, at least 1.
    pub burst: u64,
    /// What happens beyond it.
    pub on_exceeded: OnExceeded,
}

impl ByteRate {
    /// How many nanoseconds until `bytes` fit at `now`, nanoseconds since any fixed moment; 0: they fit. What is larger
    /// than the burst fits when the whole burst is free.
    pub fn wait(&self, bytes: u64, pace: u64, now: u64) -> u64 {
        let room = self.cost(self.burst) - self.cost(bytes.min(self.burst));
        pace.saturating_sub(now).saturating_sub(room)
    }

    /// The pace after `bytes` passed at `now`.
    pub fn charged(&self, bytes: u64, pace: u64, now: u64) -> u64 {
        pace.max(now).saturating_add(self.cost(bytes))
    }

    /// The time that so many bytes stand for, in nanoseconds.
    fn cost(&self, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * u128::from(nanos(self.interval)) / u128::from(self.size.max(1));
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(size: u64, burst: u64) -> ByteRate {
        ByteRate { size, interval: Duration::from_secs(1), burst, on_exceeded: OnExceeded::Throttle }
    }

    #[test]
    fn exactly_the_burst_fits_and_one_byte_more_waits_for_its_time() {
        let rate = rate(100, 400);
        assert_eq!(rate.wait(400, 0, SECOND), 0);
        let pace = rate.charged(400, 0, SECOND);
        assert_eq!(rate.wait(1, pace, SECOND), SECOND / 100);
        assert_eq!(rate.wait(50, pace, SECOND), SECOND / 2);
        assert_eq!(rate.wait(50, pace, SECOND + SECOND / 2), 0);
        let pace = rate.charged(399, 0, SECOND);
        assert_eq!((rate.wait(1, pace, SECOND), rate.wait(2, pace, SECOND)), (0, SECOND / 100));
    }

    #[test]
    fn a_message_larger_than_the_burst_passes_when_all_is_free_and_is_paid_for_after() {
        let rate = rate(100, 100);
        assert_eq!(rate.wait(1000, 0, SECOND), 0);
        let pace = rate.charged(1000, 0, SECOND);
        assert_eq!(rate.wait(1, pace, SECOND), 9 * SECOND + SECOND / 100);
        let pace = rate.charged(1, 0, SECOND);
        assert_eq!(rate.wait(1000, pace, SECOND), SECOND / 100);
    }

    #[test]
    fn an_empty_message_costs_no_bytes_but_waits_for_what_is_owed() {
        let rate = rate(10, 10);
        let pace = rate.charged(10, 0, SECOND);
        assert_eq!((rate.wait(0, pace, SECOND), rate.charged(0, pace, SECOND)), (0, pace));
        let pace = rate.charged(5, pace, SECOND);
        assert_eq!(rate.wait(0, pace, SECOND), SECOND / 2);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_the_pace_and_one_message_allow(
            size in 1u64..5000, burst in 1u64..9000,
            sent in proptest::collection::vec((0u64..400_000_000, 0u64..700, 0u64..700), 1..300),
        ) {
            let rate = rate(size, burst);
            let (mut now, mut pace, mut passed, mut largest) = (SECOND, 0, 0u64, 0);
            for (step, first, rest) in sent {
                now += step;
                if rate.wait(first, pace, now) == 0 {
                    pace = rate.charged(first, pace, now);
                    pace = rate.charged(rest, pace, now);
                    passed += first + rest;
                    largest = largest.max(first + rest);
                }
            }
            let elapsed = u128::from(now - SECOND);
            let most = u128::from(burst + largest) + elapsed * u128::from(size) / u128::from(SECOND) + 2;
            prop_assert!(u128::from(passed) <= most, "{passed} of {most}");
        }

        #[test]
        fn what_is_told_to_wait_is_exactly_enough(
            size in 1u64..5000, burst in 1u64..9000, used in 0u64..20_000, next in 1u64..9000, now in 0u64..SECOND,
        ) {
            let rate = rate(size, burst);
            let pace = rate.charged(used, 0, now);
            let wait = rate.wait(next, pace, now);
            prop_assert_eq!(rate.wait(next, pace, now + wait), 0);
            prop_assert!(wait == 0 || rate.wait(next, pace, now + wait - 1) > 0);
        }

        #[test]
        fn no_number_overflows(size: u64, nanos: u64, burst: u64, bytes: u64, pace: u64, now: u64) {
            let interval = Duration::from_nanos(nanos);
            let rate = ByteRate { size, interval, burst, on_exceeded: OnExceeded::Close };
            let _ = rate.wait(bytes, rate.charged(bytes, pace, now), now);
        }
    }
}
