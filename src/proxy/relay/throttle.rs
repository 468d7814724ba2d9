//! The rates of one direction of a connection: what they rule on each message, and until when the sender is not read.
//!
//! A direction without a rate has no [`Throttle`], so that the plain path pays a comparison. Time is the worker's coarse
//! clock: what is not read is read again at a tick, a quarter of a second at the most after its time.

use std::sync::Arc;
use std::task::Waker;

use crate::policy::message_rate::{ByteRate, MessageRate, OnExceeded, Pacing, Scope};
use crate::policy::rate::Steps;
use crate::proxy::clock::{TICKS, Tick};
use crate::proxy::limits::subject_rate::{SubjectRate, Wait};

/// A tick in nanoseconds.
const TICK: u64 = 1_000_000_000 / TICKS as u64;

/// Which rate was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// That of messages.
    Messages,
    /// That of bytes.
    Bytes,
}

/// What is ruled on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It passes.
    Pass,
    /// It passes, and is counted as one that would not: nothing is enforced.
    Audit(Exceeded),
    /// It is left out.
    Drop,
    /// Its sender is not read until it may pass.
    Wait(Exceeded),
    /// Its sender is not read until the store has answered.
    Ask,
    /// The connection is closed.
    Close(Exceeded),
}

/// The rates of one direction.
#[derive(Debug)]
pub(super) struct Throttle {
    messages: Option<Messages>,
    bytes: Option<Bytes>,
    /// When the sender is read again.
    until: Option<Tick>,
    /// What is exceeded is counted, and passes.
    audits: bool,
    /// Messages that were left out and not told yet, by the rate that they exceeded: messages, bytes.
    dropped: [u64; 2],
}

#[derive(Debug)]
struct Messages {
    steps: Steps,
    on_exceeded: OnExceeded,
    pace: u64,
    /// What the connections of the subject share; `None`: the connection counts alone.
    shared: Option<Arc<SubjectRate>>,
}

impl Messages {
    /// Counts one message; what it waits for if it may not pass.
    fn judge(&mut self, now: u64, waker: impl FnOnce() -> Option<Waker>) -> Result<(), Wait> {
        if let Some(shared) = &self.shared {
            return shared.judge(self.steps, now, waker);
        }
        match self.steps.judge(self.pace, now) {
            Ok(pace) => {
                self.pace = pace;
                Ok(())
            }
            Err(wait) => {
                self.pace = self.steps.bounded(self.pace, now);
                Err(Wait::For(wait))
            }
        }
    }
}

#[derive(Debug)]
struct Bytes {
    rate: ByteRate,
    pace: u64,
    /// Bytes of the direction that were paid for.
    charged: u64,
    /// The most nanoseconds that can be owed, with the largest message.
    longest: u64,
}

impl Bytes {
    /// Pays for what the direction has carried so far.
    fn charge(&mut self, total: u64, now: u64) {
        let bytes = total - self.charged;
        if bytes > 0 {
            self.pace = self.rate.charged(bytes, self.pace, now);
            self.charged = total;
        }
        // What was owed under a stricter rate does not wait longer than this one asks.
        self.pace = self.pace.min(now.saturating_add(self.longest));
    }
}

impl Throttle {
    /// The throttle of a direction after its route changed; `None`: nothing is limited. `max_size` is that of messages,
    /// `total` the payload that the direction has carried, `shared` gives what the connections of the subject share.
    pub(super) fn renewed(
        before: Option<Box<Self>>,
        pacing: &Pacing,
        max_size: u64,
        total: u64,
        audits: bool,
        shared: impl FnOnce() -> Option<Arc<SubjectRate>>,
    ) -> Option<Box<Self>> {
        if pacing.messages.is_none() && pacing.bytes.is_none() {
            return None;
        }
        let mut throttle = before
            .unwrap_or_else(|| Box::new(Self { messages: None, bytes: None, until: None, audits, dropped: [0; 2] }));
        throttle.messages = pacing.messages.map(|MessageRate { rate, scope, on_exceeded }| {
            let before = throttle.messages.take();
            let (pace, kept) = before.map_or((0, None), |before| (before.pace, before.shared));
            let shared = if scope == Scope::Subject { kept.or_else(shared) } else { None };
            Messages { steps: rate.steps(), on_exceeded, pace, shared }
        });
        throttle.bytes = pacing.bytes.map(|rate| {
            let (pace, charged) = throttle.bytes.take().map_or((0, total), |before| (before.pace, before.charged));
            let longest = rate.charged(rate.burst.saturating_add(max_size), 0, 0);
            Bytes { rate, pace, charged, longest }
        });
        // Whoever waits is judged again, by what counts now.
        throttle.until = None;
        throttle.audits = audits;
        Some(throttle)
    }

    /// Rules on a message whose first frame announces so many bytes, after `total` bytes of the direction. `waker` is asked
    /// for where the store must be.
    pub(super) fn rule(
        &mut self,
        payload: u64,
        total: u64,
        now: Tick,
        waker: impl FnOnce() -> Option<Waker>,
    ) -> Ruling {
        let at = nanos(now);
        // Bytes first: they are the connection's own, and a message that waits for them is not counted.
        if let Some(bytes) = &mut self.bytes {
            bytes.charge(total, at);
            let wait = bytes.rate.wait(payload, bytes.pace, at);
            if wait > 0 {
                let on_exceeded = bytes.rate.on_exceeded;
                return self.exceeded(Exceeded::Bytes, on_exceeded, wait, now);
            }
        }
        if let Some(messages) = &mut self.messages
            && let Err(wait) = messages.judge(at, waker)
        {
            let on_exceeded = messages.on_exceeded;
            return match wait {
                Wait::For(wait) => self.exceeded(Exceeded::Messages, on_exceeded, wait, now),
                Wait::Answer => Ruling::Ask,
            };
        }
        Ruling::Pass
    }

    fn exceeded(&mut self, exceeded: Exceeded, on_exceeded: OnExceeded, wait: u64, now: Tick) -> Ruling {
        match on_exceeded {
            _ if self.audits => Ruling::Audit(exceeded),
            OnExceeded::Close => Ruling::Close(exceeded),
            OnExceeded::Throttle => {
                self.until = Some(after(now, wait));
                Ruling::Wait(exceeded)
            }
            OnExceeded::Drop => {
                self.dropped[exceeded as usize] += 1;
                Ruling::Drop
            }
        }
    }

    /// Pays for the bytes that passed: `total` of the direction so far.
    pub(super) fn charge(&mut self, total: u64, now: Tick) {
        if let Some(bytes) = &mut self.bytes {
            bytes.charge(total, nanos(now));
        }
    }

    /// Whether the sender is not read now. Also within a message it is not read while bytes are owed beyond the burst:
    /// then this is told once, with when it is read again.
    pub(super) fn is_paused(&mut self, now: Tick) -> Paused {
        if let Some(until) = self.until {
            if now < until {
                return Paused::Still;
            }
            self.until = None;
            return Paused::Over;
        }
        let Some(bytes) = &mut self.bytes else { return Paused::No };
        if bytes.rate.on_exceeded != OnExceeded::Throttle || self.audits {
            return Paused::No;
        }
        bytes.charge(bytes.charged, nanos(now));
        match bytes.rate.wait(0, bytes.pace, nanos(now)) {
            0 => Paused::No,
            wait => {
                self.until = Some(after(now, wait));
                Paused::Begun
            }
        }
    }

    /// When the sender is read again; `None`: it is read.
    pub(super) fn until(&self) -> Option<Tick> {
        self.until
    }

    /// Messages that were left out since this was asked last, by the rate that they exceeded.
    pub(super) fn dropped(&mut self) -> [(Exceeded, u64); 2] {
        let [messages, bytes] = std::mem::take(&mut self.dropped);
        [(Exceeded::Messages, messages), (Exceeded::Bytes, bytes)]
    }
}

/// Whether a sender is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paused {
    /// It is.
    No,
    /// It is again.
    Over,
    /// It is not, from now on.
    Begun,
    /// It is still not.
    Still,
}

/// A tick in nanoseconds. Never 0, so that no pace of the past looks like none. Workers begin their clocks within
/// milliseconds of each other, which is the error where they share a pace.
pub(crate) fn nanos(now: Tick) -> u64 {
    u64::from(now.count()) * TICK + 1
}

/// The tick at which so many nanoseconds are over.
fn after(now: Tick, nanos: u64) -> Tick {
    now.after(u32::try_from(nanos.div_ceil(TICK)).unwrap_or(u32::MAX))
}
