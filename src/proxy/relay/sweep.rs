//! The sessions of one worker, as its sweeper visits them: each tick a part, so that each second all.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::proxy::clock::Tick;
use crate::proxy::relay::session::Session;
use crate::proxy::relay::waiting::Waiting;

/// The live sessions of a worker, and some that have ended since the last visit.
#[derive(Default)]
pub(crate) struct Sessions {
    live: RefCell<Vec<Weak<Session>>>,
    /// Those whose peers are not read for a time.
    waiting: Rc<Waiting>,
}

impl Sessions {
    /// Adds a session; it leaves when it is dropped.
    pub(crate) fn register(&self, session: &Rc<Session>) {
        session.join(&self.waiting);
        self.live.borrow_mut().push(Rc::downgrade(session));
    }

    /// Wakes those whose peers are to be read again.
    pub(crate) fn wake(&self, now: Tick) {
        self.waiting.wake(now);
    }

    /// All that live.
    pub(crate) fn all(&self) -> Vec<Rc<Session>> {
        self.part(0, 1)
    }

    /// One of so many parts, so that each tick does its share of a second's work. Forgets those that ended.
    pub(crate) fn part(&self, part: u32, parts: u32) -> Vec<Rc<Session>> {
        let mut sessions = self.live.borrow_mut();
        let (part, parts) = (part as usize, parts as usize);
        let (mut index, end) = (sessions.len() * part / parts, sessions.len() * (part + 1) / parts);
        let mut live = Vec::with_capacity(end - index);
        while index < end.min(sessions.len()) {
            match sessions[index].upgrade() {
                Some(session) => {
                    live.push(session);
                    index += 1;
                }
                // What takes its place is looked at now: it may come from a part whose turn it would miss.
                None => drop(sessions.swap_remove(index)),
            }
        }
        if sessions.capacity() > 64 && sessions.len() < sessions.capacity() / 4 {
            sessions.shrink_to_fit();
        }
        live
    }
}
