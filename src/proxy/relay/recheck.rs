//! When an External service is asked again about a live connection, and how long it may go without an answer. Knows ticks
//! and verdicts, and not how the service is asked.

use std::cell::Cell;
use std::rc::Rc;

use crate::policy::question::{KeptQuestion, Verdict};
use crate::policy::{Facts, Policy};
use crate::proxy::clock::{TICKS, Tick, ticks};

/// A connection lives on without an answer for so many times `recheck`.
const PATIENCE: u32 = 3;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Recheck {
    /// What the service was asked with; `None`: it is not kept.
    kept: Option<Rc<KeptQuestion>>,
    /// `recheck` in ticks; 0: the service is not asked again.
    interval: Cell<u32>,
    /// When the service said yes last.
    admitted: Cell<Tick>,
    /// When it is asked next.
    due: Cell<Tick>,
    /// The pause after the last question without an answer; 0: there was one.
    pause: Cell<u32>,
    /// Whether a question is under way.
    asking: Cell<bool>,
    /// A number between 0 and 255 that spreads the questions of connections that began together.
    spread: u8,
}

impl Recheck {
    /// That of a connection that was admitted at `now`.
    pub(super) fn new(kept: Option<KeptQuestion>, spread: u8, now: Tick) -> Self {
        let kept = kept.map(Rc::new);
        let (interval, pause) = (Cell::new(0), Cell::new(0));
        Self { kept, interval, admitted: Cell::new(now), due: Cell::new(now), pause, asking: Cell::new(false), spread }
    }

    /// A part of so many ticks that is the connection's own, from none to nearly all.
    fn part(&self, ticks: u32) -> u32 {
        u32::try_from(u64::from(ticks) * u64::from(self.spread) / 256).unwrap_or(ticks)
    }

    /// The policy that counts from `now` on.
    pub(super) fn follow(&self, policy: &Policy, facts: &Facts, now: Tick) {
        let external = facts.proof.as_deref().and_then(|proof| policy.handshake.authentication.external(proof));
        let interval = external.and_then(|external| external.recheck).map_or(0, ticks);
        let before = self.interval.replace(interval);
        if interval == before {
            return;
        }
        // Connections that began together are spread over the second half of the first interval.
        let due = now.after(interval / 2 + self.part(interval / 2));
        if before == 0 {
            self.admitted.set(now);
            self.due.set(due);
        } else {
            self.due.set(due.min(self.due.get()));
        }
    }

    /// What the service must be asked with at `now`, if it is due; the question is under way then.
    pub(super) fn begin(&self, now: Tick) -> Option<Rc<KeptQuestion>> {
        if self.interval.get() == 0 || self.asking.get() || now < self.due.get() {
            return None;
        }
        let kept = self.kept.clone()?;
        self.asking.set(true);
        Some(kept)
    }

    /// Whether the connection must end at `now`, because the last yes is too old or nothing is kept to ask with.
    pub(super) fn is_missed(&self, now: Tick) -> bool {
        let interval = self.interval.get();
        interval > 0
            && (now.since(self.admitted.get()) >= interval.saturating_mul(PATIENCE)
                || self.kept.is_none() && now >= self.due.get())
    }

    /// The question is over.
    pub(super) fn end(&self, verdict: Verdict, now: Tick) {
        self.asking.set(false);
        let interval = self.interval.get();
        match verdict {
            Verdict::Admitted => {
                self.admitted.set(now);
                self.pause.set(0);
                self.due.set(now.after(interval - self.part(interval / 10)));
            }
            Verdict::Unavailable => {
                let pause = match self.pause.get() {
                    0 => (interval / 16).max(TICKS),
                    pause => pause.saturating_mul(2).min(interval),
                };
                self.pause.set(pause);
                self.due.set(now.after(pause + self.part(pause / 2)));
            }
            // The connection ends.
            Verdict::Denied => {}
        }
    }
}
