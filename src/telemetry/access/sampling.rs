//! Which refusals are written: of each reason a few in a second, so that a flood costs neither time nor disk. The others
//! are counted, and the next line of their reason says how many they were.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::reason::Reason;

/// Refusals of one reason that are written in one second at most.
const REFUSALS_PER_SECOND: u32 = 10;

/// The refusals of all reasons, one window for each.
pub(super) struct Sampling(Vec<Mutex<Window>>);

/// The refusals of one reason in the second that is counted now.
#[derive(Default)]
struct Window {
    second: u64,
    written: u32,
    suppressed: u64,
}

impl Window {
    /// Whether one more may be written in this second, and how many were suppressed since the last that was.
    fn admit(&mut self, second: u64) -> Option<u64> {
        if self.second != second {
            self.second = second;
            self.written = 0;
        }
        if self.written < REFUSALS_PER_SECOND {
            self.written += 1;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

impl Sampling {
    pub(super) fn new() -> Self {
        Self(Reason::ALL.iter().map(|_| Mutex::default()).collect())
    }

    /// Whether one more refusal for this reason may be written in this second, and how many were suppressed since the
    /// last that was.
    pub(super) fn admit(&self, reason: Reason, second: u64) -> Option<u64> {
        held(self.0.get(reason as usize)?).admit(second)
    }

    /// The reasons of which refusals were suppressed since their last line, and how many. Begins to count anew.
    pub(super) fn take_suppressed(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let all = Reason::ALL.iter().zip(&self.0);
        all.map(|(reason, window)| (*reason, std::mem::take(&mut held(window).suppressed)))
            .filter(|(_, suppressed)| *suppressed > 0)
    }
}

fn held(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_share_of_each_second() {
        let sampling = Sampling::new();
        let written = |reason, second| (0..100).filter(|_| sampling.admit(reason, second).is_some()).count();
        assert_eq!(written(Reason::OriginDenied, 1), 10);
        assert_eq!(written(Reason::BadHost, 1), 10);
        assert_eq!(sampling.admit(Reason::OriginDenied, 2), Some(90));
        assert_eq!(sampling.admit(Reason::OriginDenied, 2), Some(0));
        assert_eq!(sampling.take_suppressed().collect::<Vec<_>>(), [(Reason::BadHost, 90)]);
        assert_eq!(sampling.take_suppressed().count(), 0);
    }
}
