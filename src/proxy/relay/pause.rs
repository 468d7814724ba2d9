//! When a sender is not read although its bytes could go on: its rate is used up, or memory is short. Knows nothing of frames.

use crate::proxy::clock::{TICKS, Tick};
use crate::proxy::relay::flow::Flow;
use crate::proxy::relay::side::Side;
use crate::proxy::relay::throttle::{Exceeded, Paused};
use crate::reason::Reason;

/// Whether memory is short and keeps us from reading the sender: what it sends next would be held. A message that was begun
/// goes on, because only its end frees what is held.
pub(super) fn waits_for_memory<A, B>(from: &mut Side<A>, to: &Side<B>, flow: &Flow<'_>, now: Tick) -> bool {
    let waits = !to.writer.told && !to.closed && from.stage.as_ref().is_some_and(|stage| stage.must_wait());
    if waits {
        if !from.waits_for_memory {
            flow.metrics.throttled(Reason::Overloaded);
        }
        flow.from.record_paused(now);
        flow.session.wake_at(now.after(TICKS));
    } else if from.waits_for_memory {
        flow.from.record_resumed(now);
    }
    from.waits_for_memory = waits;
    waits
}

/// Whether a rate keeps us from reading the sender. After the receiver's end, or our own, it is read for its Close.
pub(super) fn is_paused<A, B>(from: &mut Side<A>, to: &Side<B>, flow: &mut Flow<'_>, now: Tick) -> bool {
    let Some(throttle) = &mut from.throttle else { return false };
    if to.writer.told || to.closed {
        return false;
    }
    match throttle.is_paused(now) {
        Paused::No => false,
        Paused::Still => true,
        Paused::Over => {
            flow.from.record_resumed(now);
            false
        }
        Paused::Begun => {
            pause(from, Exceeded::Bytes, flow, now);
            true
        }
    }
}

/// Notes that the sender is not read until its throttle says so.
pub(super) fn pause<A>(from: &Side<A>, exceeded: Exceeded, flow: &mut Flow<'_>, now: Tick) {
    flow.from.record_paused(now);
    flow.volume.throttled += 1;
    flow.metrics.throttled(from.party.exceeded(exceeded));
    if let Some(until) = from.throttle.as_ref().and_then(|throttle| throttle.until()) {
        flow.session.wake_at(until);
    }
}
