//! The worker's coarse clock: a count of ticks that the sweeper moves, so that a stamp costs one store and no system call.
//! Whoever compares times is handed `now`; nobody below asks a clock.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Ticks in a second.
pub(crate) const TICKS: u32 = 4;

/// A moment: ticks since the worker began, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(NonZeroU32);

impl Tick {
    /// When a worker begins.
    pub(crate) const FIRST: Self = Self(NonZeroU32::MIN);

    /// The moment so many ticks after the beginning.
    pub(crate) const fn at(ticks: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(ticks))
    }

    /// Ticks since the beginning.
    pub(crate) const fn count(self) -> u32 {
        self.0.get() - 1
    }

    /// Ticks since an earlier moment; 0 for a later one.
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        self.0.get().saturating_sub(earlier.0.get())
    }

    /// The moment so many ticks later.
    pub(crate) const fn after(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks))
    }

    /// The moment so many ticks earlier, or the first one.
    pub(crate) fn before(self, ticks: u32) -> Self {
        Self::at(self.count().saturating_sub(ticks))
    }

    /// Whole seconds since the beginning.
    pub(crate) const fn second(self) -> u32 {
        self.count() / TICKS
    }
}

/// A time in ticks, at least one.
pub(crate) fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() * u128::from(TICKS) / 1000).unwrap_or(u32::MAX).max(1)
}

/// Seconds since the Unix epoch, by the wall clock. Credentials and certificates end by it.
pub(crate) fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// One worker's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    now: Cell<Tick>,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), now: Cell::new(Tick::FIRST) }
    }

    /// The last tick.
    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }

    /// Moves to the tick of this moment; the sweeper only.
    pub(crate) fn advance(&self) -> Tick {
        let ticks = self.began.elapsed().as_millis() * u128::from(TICKS) / 1000;
        self.now.set(Tick::at(u32::try_from(ticks).unwrap_or(u32::MAX - 1)));
        self.now.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_count_from_the_first_and_never_go_below_it() {
        assert_eq!((Tick::FIRST.count(), Tick::at(9).count(), Tick::at(9).second()), (0, 9, 2));
        assert_eq!((Tick::at(9).since(Tick::at(2)), Tick::at(2).since(Tick::at(9))), (7, 0));
        assert_eq!(Tick::at(9).before(20), Tick::FIRST);
        assert_eq!(Tick::at(u32::MAX).after(5), Tick::at(u32::MAX));
        assert_eq!(size_of::<Option<Tick>>(), 4);
    }

    #[test]
    fn a_time_has_at_least_one_tick() {
        assert_eq!((ticks(Duration::ZERO), ticks(Duration::from_secs(2)), ticks(Duration::MAX)), (1, 8, u32::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_stands_until_it_is_moved() {
        let clock = Clock::new();
        tokio::time::advance(Duration::from_millis(2600)).await;
        assert_eq!(clock.now(), Tick::FIRST);
        assert_eq!((clock.advance(), clock.now()), (Tick::at(10), Tick::at(10)));
    }
}
