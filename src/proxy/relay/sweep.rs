//! The sessions of one worker, as its sweeper visits them: each tick a part, so that each second all.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::proxy::relay::session::Session;

/// The live sessions of a worker, and some that have ended since the last visit.
#[derive(Default)]
pub(crate) struct Sessions(RefCell<Vec<Weak<Session>>>);

impl Sessions {
    /// Adds a session; it leaves when it is dropped.
    pub(crate) fn register(&self, session: &Rc<Session>) {
        self.0.borrow_mut().push(Rc::downgrade(session));
    }

    /// All that live.
    pub(crate) fn all(&self) -> Vec<Rc<Session>> {
        self.part(0, 1)
    }

    /// One of so many parts, so that each tick does its share of a second's work. Forgets those that ended.
    pub(crate) fn part(&self, part: u32, parts: u32) -> Vec<Rc<Session>> {
        let mut sessions = self.0.borrow_mut();
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
