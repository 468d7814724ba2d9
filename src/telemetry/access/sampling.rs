//! Which refusals are written: of each reason and route a few in a second, so that a flood costs neither time nor disk and
//! hides no refusal of another route. The others are counted, and the next line of their reason and route says how many
//! they were.
//!
//! Routes share the windows in which this is counted: when there are as many as are kept, the route with most loses its
//! newest. What is counted without a window of its own is counted with the reason alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::reason::Reason;
use crate::shares::{Loses, Share, Shares};

/// Refusals of one reason and route that are written in one second at most.
const OF_WINDOW: u32 = 10;
/// Refusals that are written in one second at most. When few are left, nobody writes more of them than are left.
const ALL: u32 = 500;
/// Windows of routes that are kept.
const WINDOWS: usize = 4096;
/// Seconds after which a window is given up that has something to tell and no line to tell it with.
const IDLE: u64 = 10;

/// The refusals of all reasons and routes.
pub(super) struct Sampling {
    state: Mutex<State>,
    shares: Arc<Shares<Box<str>, 1>>,
}

struct State {
    second: u64,
    /// Lines that can still be written in this second.
    left: u32,
    /// Of refusals before a route was found, and of those whose window was lost.
    reasons: Vec<Window>,
    routes: HashMap<(Box<str>, Reason), Kept>,
}

/// A window of a route, and its place among those that are kept.
type Kept = (Window, Share<Box<str>, 1>);

/// The refusals of one reason and route in the second that is counted now.
#[derive(Default)]
struct Window {
    second: u64,
    written: u32,
    suppressed: u64,
}

impl Window {
    /// Whether one more may be written in this second, and how many were suppressed since the last that was.
    fn admit(&mut self, second: u64, left: &mut u32) -> Option<u64> {
        if self.second != second {
            self.second = second;
            self.written = 0;
        }
        if self.written < OF_WINDOW.min(*left) {
            self.written += 1;
            *left -= 1;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

impl State {
    /// Forgets windows that were lost or are idle, and those of an earlier second in which nothing is to be told.
    fn tidy(&mut self) {
        let (second, reasons) = (self.second, &mut self.reasons);
        self.routes.retain(|(_, reason), (window, share)| {
            if share.is_revoked() || window.second + IDLE < second {
                if let Some(all) = reasons.get_mut(*reason as usize) {
                    all.suppressed += window.suppressed;
                }
                return false;
            }
            window.second == second || window.suppressed > 0
        });
    }
}

impl Sampling {
    pub(super) fn new() -> Self {
        let reasons = Reason::ALL.iter().map(|_| Window::default()).collect();
        let state = State { second: 0, left: ALL, reasons, routes: HashMap::new() };
        Self { state: Mutex::new(state), shares: Arc::new(Shares::new(WINDOWS, Loses::Newest)) }
    }

    /// Whether one more refusal for this reason by this route may be written in this second, and how many were
    /// suppressed since the last that was.
    pub(super) fn admit(&self, reason: Reason, route: Option<&str>, second: u64) -> Option<u64> {
        let mut state = self.state();
        if state.second != second {
            (state.second, state.left) = (second, ALL);
            state.tidy();
        }
        let State { left, reasons, routes, .. } = &mut *state;
        let Some(route) = route else { return reasons.get_mut(reason as usize)?.admit(second, left) };
        let key = (Box::from(route), reason);
        if let Some((window, _)) = routes.get_mut(&key).filter(|(_, share)| !share.is_revoked()) {
            return window.admit(second, left);
        }
        let Some(share) = self.shares.acquire(std::array::from_ref(&key.0)) else {
            return reasons.get_mut(reason as usize)?.admit(second, left);
        };
        let mut window = Window::default();
        let admitted = window.admit(second, left);
        if let Some((lost, _)) = routes.insert(key, (window, share))
            && let Some(all) = reasons.get_mut(reason as usize)
        {
            all.suppressed += lost.suppressed;
        }
        // Windows that were lost stay until the second is over, and no longer than there are as many again.
        if routes.len() > 2 * WINDOWS {
            state.tidy();
        }
        admitted
    }

    /// The reasons and routes of which refusals were suppressed since their last line, and how many. Begins to count anew.
    pub(super) fn take_suppressed(&self) -> Vec<(Reason, Option<Box<str>>, u64)> {
        let mut state = self.state();
        state.tidy();
        let of_reasons = Reason::ALL.iter().zip(&mut state.reasons);
        let mut all: Vec<_> =
            of_reasons.map(|(reason, window)| (*reason, None, std::mem::take(&mut window.suppressed))).collect();
        all.extend(state.routes.drain().map(|((route, reason), (window, _))| (reason, Some(route), window.suppressed)));
        all.retain(|(_, _, suppressed)| *suppressed > 0);
        all
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_share_of_each_second() {
        let sampling = Sampling::new();
        let written = |reason, second| (0..100).filter(|_| sampling.admit(reason, None, second).is_some()).count();
        assert_eq!(written(Reason::OriginDenied, 1), 10);
        assert_eq!(written(Reason::BadHost, 1), 10);
        assert_eq!(sampling.admit(Reason::OriginDenied, None, 2), Some(90));
        assert_eq!(sampling.admit(Reason::OriginDenied, None, 2), Some(0));
        assert_eq!(sampling.take_suppressed(), [(Reason::BadHost, None, 90)]);
        assert!(sampling.take_suppressed().is_empty());
    }

    #[test]
    fn a_flood_on_one_route_hides_no_refusal_of_another() {
        let sampling = Sampling::new();
        let written =
            |route| (0..100).filter(|_| sampling.admit(Reason::OriginDenied, Some(route), 1).is_some()).count();
        assert_eq!((written("greedy/one"), written("shop/chat")), (10, 10));
        assert_eq!(sampling.admit(Reason::OriginDenied, Some("shop/chat"), 2), Some(90));
        assert_eq!(sampling.take_suppressed(), [(Reason::OriginDenied, Some("greedy/one".into()), 90)]);
    }

    #[test]
    fn a_window_that_is_idle_is_given_up_and_what_it_counted_is_not() {
        let sampling = Sampling::new();
        for _ in 0..15 {
            sampling.admit(Reason::OriginDenied, Some("greedy/one"), 1);
        }
        assert_eq!(sampling.admit(Reason::BadHost, None, 1 + IDLE), Some(0));
        assert_eq!(sampling.shares.held(), 1);
        assert_eq!(sampling.admit(Reason::BadHost, None, 2 + IDLE), Some(0));
        assert_eq!(sampling.shares.held(), 0);
        assert_eq!(sampling.take_suppressed(), [(Reason::OriginDenied, None, 5)]);
    }

    #[test]
    fn routes_of_any_number_leave_lines_and_windows_to_others() {
        let sampling = Sampling::new();
        let mut written = 0;
        for number in 0..3 * WINDOWS {
            let route = format!("greedy/{number}");
            for reason in [Reason::OriginDenied, Reason::BadHost] {
                written += (0..20).filter(|_| sampling.admit(reason, Some(&route), 1).is_some()).count();
            }
        }
        assert!((400..=ALL as usize).contains(&written), "{written}");
        let state = sampling.state();
        assert!(state.routes.len() <= 2 * WINDOWS && sampling.shares.held() <= WINDOWS, "{}", state.routes.len());
        drop(state);
        let before = sampling.admit(Reason::OriginDenied, Some("shop/chat"), 2).unwrap();
        let told = before + sampling.take_suppressed().iter().map(|(_, _, suppressed)| suppressed).sum::<u64>();
        assert_eq!(told as usize + written, 3 * WINDOWS * 40, "every refusal is written or counted");
    }
}
