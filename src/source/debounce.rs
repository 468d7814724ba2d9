//! When a burst of changes is complete: after a moment without changes, and never later than a second after it began. A
//! tenant that changes objects without end delays the changes of others by no more than that.

use std::time::Duration;

use tokio::time::Instant;

/// A burst is complete after this time without a change.
const QUIET: Duration = Duration::from_millis(100);
/// A burst is reported after this time even if changes go on.
const MAX_DELAY: Duration = Duration::from_secs(1);

/// A burst of changes, if there is one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Debounce {
    /// The first change that was not reported yet, and the last one.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Something changed at `now`.
    pub(super) fn touch(&mut self, now: Instant) {
        self.burst = Some((self.burst.map_or(now, |(first, _)| first), now));
    }

    /// When the burst is to be reported; `None`: there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        self.burst.map(|(first, last)| (last + QUIET).min(first + MAX_DELAY))
    }

    /// The latest moment at which the burst is to be reported; `None`: there is none.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.burst.map(|(first, _)| first + MAX_DELAY)
    }

    /// The burst was reported.
    pub(super) fn clear(&mut self) {
        self.burst = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_due_after_quiet_and_never_later_than_a_second() {
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        let began = Instant::now();
        debounce.touch(began);
        assert_eq!(debounce.due(), Some(began + QUIET));
        for n in 1..30 {
            debounce.touch(began + Duration::from_millis(50) * n);
        }
        assert_eq!(debounce.due(), Some(began + MAX_DELAY));
        assert_eq!(debounce.deadline(), Some(began + MAX_DELAY));
        debounce.clear();
        assert_eq!((debounce.due(), debounce.deadline()), (None, None));
    }
}
