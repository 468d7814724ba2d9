//! The connections of a worker whose peers are not read for a time: woken when it is over. Knows wakers and ticks.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::task::Waker;

use crate::proxy::clock::Tick;

/// Where a connection leaves what wakes it.
pub(crate) type WakerCell = RefCell<Option<Waker>>;

/// Who waits, and until when. One entry for each time that somebody waits; those of connections that ended are forgotten at
/// the next tick.
#[derive(Debug, Default)]
pub(crate) struct Waiting(RefCell<Vec<(Tick, Weak<WakerCell>)>>);

impl Waiting {
    /// Wakes a connection at a tick.
    pub(super) fn wake_at(&self, tick: Tick, connection: &Rc<WakerCell>) {
        self.0.borrow_mut().push((tick, Rc::downgrade(connection)));
    }

    /// Wakes those whose time has come.
    pub(crate) fn wake(&self, now: Tick) {
        let mut waiting = self.0.borrow_mut();
        waiting.retain(|(tick, connection)| match connection.upgrade() {
            Some(connection) if *tick <= now => {
                if let Some(waker) = &*connection.borrow() {
                    waker.wake_by_ref();
                }
                false
            }
            connection => connection.is_some(),
        });
        if waiting.capacity() > 64 && waiting.len() < waiting.capacity() / 4 {
            waiting.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_is_woken_once_when_its_time_has_come_and_who_ended_is_forgotten() {
        let (waiting, woken) = (Waiting::default(), Arc::new(Woken::default()));
        let connection = || Rc::new(RefCell::new(Some(Waker::from(Arc::clone(&woken)))));
        let (early, late, ended) = (connection(), connection(), connection());
        waiting.wake_at(Tick::at(2), &early);
        waiting.wake_at(Tick::at(9), &late);
        waiting.wake_at(Tick::at(9), &ended);
        drop(ended);
        let count = |tick| {
            waiting.wake(Tick::at(tick));
            (woken.0.swap(0, Ordering::Relaxed), waiting.0.borrow().len())
        };
        assert_eq!([count(1), count(2), count(3), count(9), count(10)], [(0, 2), (1, 1), (0, 1), (1, 0), (0, 0)]);
    }
}
