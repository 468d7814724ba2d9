//! One direction of a relay: read from one side, judge in place, write to the other.

use std::task::Poll;

use crate::proxy::clock::Tick;
use crate::proxy::io::buffers::{Buffers, HEADROOM, Masks};
use crate::proxy::io::{Fill, Peer};
use crate::proxy::relay::flow::Flow;
use crate::proxy::relay::pause::{is_paused, pause, waits_for_memory};
use crate::proxy::relay::side::{Party, Side, Wake};
use crate::proxy::relay::stage::{RefusedMessage, Stage};
use crate::proxy::relay::throttle::{Exceeded, Ruling};
use crate::proxy::relay::watching;
use crate::telemetry::access::fields::{Detail, Volume};
use crate::telemetry::metrics::MessageSizes;
use crate::ws::frame::{self, Opcode};
use crate::ws::message::{Step, Violation};

/// What came of moving bytes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pumped {
    /// Nothing moved.
    Idle,
    /// Something moved.
    Moved,
    /// The sender's connection ended without a Close frame.
    FromLost,
    /// The receiver's connection takes no more.
    ToLost,
    /// The sender broke a rule.
    Violation(Violation),
    /// The sender exceeded a rate that closes.
    Exceeded(Exceeded),
    /// What a message of the sender says is refused: [`Side::refused`] has why.
    Refused,
    /// The sender's Close frame went on, with this code.
    Closed(Option<u16>),
}

/// Moves what one wake-up finds. While bytes wait for the receiver nothing is read from the sender, unless none of it
/// would go on: after the end a peer's frames are only read for its Close.
pub(super) fn pump<A: Peer, B: Peer>(
    from: &mut Side<A>,
    to: &mut Side<B>,
    flow: &mut Flow<'_>,
    wake: &mut Wake<'_, '_>,
) -> Pumped {
    match to.peer.poll_flush(wake.cx) {
        Poll::Ready(Ok(())) => flow.to.record_flushed(),
        Poll::Ready(Err(_)) if to.party == Party::Client => return Pumped::ToLost,
        // The next read of the backend finds the same end, after what it said before.
        Poll::Ready(Err(_)) => {}
        Poll::Pending => {
            flow.to.record_blocked(to.peer.unsent(), wake.now);
            if !to.writer.told {
                return Pumped::Idle;
            }
        }
    }
    if from.closed || from.gone || (from.throttle.is_some() && is_paused(from, to, flow, wake.now)) {
        return Pumped::Idle;
    }
    if from.stage.is_some() && waits_for_memory(from, to, flow, wake.now) {
        return Pumped::Idle;
    }
    // What came with the handshake is judged before anything is read.
    let kept = from.kept.len();
    let at = HEADROOM.max(kept);
    let n = if from.early {
        0
    } else {
        match from.peer.poll_fill(wake.cx, wake.buffers, at) {
            Poll::Pending => return Pumped::Idle,
            Poll::Ready(Ok(Fill::Bytes(n))) => n,
            Poll::Ready(Ok(Fill::End) | Err(_)) => return Pumped::FromLost,
        }
    };
    if n > 0 {
        flow.from.record_read(wake.now);
    }
    wake.buffers.plain[at - kept..at].copy_from_slice(&from.kept);
    forward(from, to, flow, wake, at - kept..at + n)
}

/// Judges `wake.buffers.plain[range]` and sends what goes on.
fn forward<A: Peer, B: Peer>(
    from: &mut Side<A>,
    to: &mut Side<B>,
    flow: &mut Flow<'_>,
    wake: &mut Wake<'_, '_>,
    range: std::ops::Range<usize>,
) -> Pumped {
    let unfinished = from.judge.in_message() || !from.kept.is_empty();
    from.kept = Vec::new();
    from.early = false;
    let payload_before = from.judge.payload_total();
    let (mut start, mut messages, mut data, mut lost) = (range.start, 0, false, false);
    let mut unpassed = 0;
    let stop = loop {
        let bytes = &mut wake.buffers.plain[start..range.end];
        let lent = (&mut wake.buffers.masks, wake.sizes);
        let run = judge(from, to, bytes, flow, lent, wake.now);
        messages += run.messages;
        data |= run.data;
        let refused = if run.stop == Stop::Release { inspect(from, flow, wake) } else { None };
        if let Some(stop) = refused {
            lost |= send(from, to, &Run { stop: Stop::NeedMore, ..run }, start, flow, wake);
            messages -= 1;
            unpassed = from.stage.take().map_or(0, |stage| stage.held() as u64);
            break stop;
        }
        lost |= send(from, to, &run, start, flow, wake);
        start += run.used;
        if lost || !matches!(run.stop, Stop::Release | Stop::Frame) {
            break run.stop;
        }
    };
    if matches!(stop, Stop::NeedMore | Stop::Wait(_) | Stop::Ask) && start < range.end {
        from.kept = wake.buffers.plain[start..range.end].to_vec();
    }
    if from.throttle.is_some() {
        settle(from, stop, flow, wake.now);
    }
    if let Stop::Refused(judged) = stop {
        unpassed += judged;
    }
    let bytes = (from.judge.payload_total() - payload_before).saturating_sub(unpassed);
    let passed = Volume { messages, bytes, ..Volume::default() };
    flow.volume.messages += passed.messages;
    flow.volume.bytes += passed.bytes;
    let traffic = flow.metrics.traffic(from.party.direction());
    traffic.messages.inc_by(passed.messages);
    traffic.bytes.inc_by(passed.bytes);
    if data {
        flow.session.data.set(wake.now);
    }
    // A message that waits was not begun: what is late of it is our doing.
    if from.judge.in_message() || !(from.kept.is_empty() || from.early) {
        flow.from.record_part(range.len(), !unfinished || messages > 0, wake.now);
    } else {
        flow.from.record_whole();
    }
    match stop {
        _ if lost => Pumped::ToLost,
        // Nothing changes before its time, or the store's answer.
        Stop::Wait(_) | Stop::Ask if start == range.start => Pumped::Idle,
        Stop::NeedMore | Stop::Release | Stop::Frame | Stop::Wait(_) | Stop::Ask => Pumped::Moved,
        Stop::Violation(violation) => Pumped::Violation(violation),
        Stop::Exceeded(exceeded) => Pumped::Exceeded(exceeded),
        Stop::Refused(_) => {
            // What follows is read for a Close frame only.
            from.stage = None;
            Pumped::Refused
        }
        Stop::Closed(code) => {
            from.closed = true;
            to.writer.told = true;
            Pumped::Closed(code)
        }
    }
}

/// What a rate asks for behind a run that stopped.
fn settle<A>(from: &mut Side<A>, stop: Stop, flow: &mut Flow<'_>, now: Tick) {
    let total = from.judge.payload_total();
    let Some(throttle) = &mut from.throttle else { return };
    throttle.charge(total, now);
    for (exceeded, messages) in throttle.dropped() {
        if messages > 0 {
            flow.volume.dropped += messages;
            flow.metrics.dropped(from.party.exceeded(exceeded), messages);
        }
    }
    match stop {
        Stop::Wait(exceeded) => {
            from.early = true;
            pause(from, exceeded, flow, now);
        }
        Stop::Ask => {
            from.early = true;
            flow.from.record_paused(now);
        }
        _ => flow.from.record_resumed(now),
    }
}

/// Inflates the held message that is whole, if it is compressed, and judges it; why it does not go on, if so.
fn inspect<A>(from: &mut Side<A>, flow: &Flow<'_>, wake: &mut Wake<'_, '_>) -> Option<Stop> {
    if from.judge.is_compressed() {
        flow.metrics.traffic(from.party.direction()).compressed.inc();
        let mut stage = from.stage.take()?;
        let inflated = stage.inflate(&mut wake.buffers.codec, from.limits.max_size);
        let tunnel = inflated.map(|size| {
            from.judge.set_inflated(size);
            wake.sizes.record(from.party.direction(), size);
            watching::read(from, stage.payload(), true, flow)
        });
        from.stage = Some(stage);
        match tunnel {
            Err(violation) => return Some(Stop::Violation(violation)),
            Ok(tunnel) => {
                if is_refused(from, tunnel, flow) {
                    return Some(Stop::Refused(0));
                }
            }
        }
    }
    let judged = from.stage.as_mut().map_or(Ok(()), |stage| stage.judge_held(flow.metrics));
    is_refused(from, judged, flow).then_some(Stop::Refused(0))
}

/// Judges a whole message that is not held; whether it does not go on.
fn is_refused_at_once<A>(from: &mut Side<A>, payload: &[u8], flow: &Flow<'_>) -> bool {
    let judged = from.stage.as_mut().map_or(Ok(()), |stage| stage.judge_at_once(payload, flow.metrics));
    is_refused(from, judged, flow)
}

/// Whether a message that was judged does not go on. In Audit mode it does, and is logged.
fn is_refused<A>(from: &mut Side<A>, judged: Result<(), RefusedMessage>, flow: &Flow<'_>) -> bool {
    let Err(refused) = judged else { return false };
    if from.audits {
        flow.audit(refused.reason, &refused.detail);
        return false;
    }
    from.refused = Some(Box::new(refused));
    true
}

/// Sends what a run over `wake.buffers.plain[start..]` lets go on; whether the receiver is lost by it.
fn send<A: Peer, B: Peer>(
    from: &mut Side<A>,
    to: &mut Side<B>,
    run: &Run,
    start: usize,
    flow: &Flow<'_>,
    wake: &mut Wake<'_, '_>,
) -> bool {
    let Buffers { plain, sealed, masks, codec, .. } = &mut *wake.buffers;
    // After its Close frame a peer gets nothing, and what is not sent cuts nothing: it is owed a clean end.
    let goes_on = !to.writer.told && !to.gone;
    let mut lost = false;
    if goes_on && run.pass > 0 {
        to.writer.cut = run.cut.unwrap_or(to.writer.cut);
        let close_follows = matches!(run.stop, Stop::Closed(_) | Stop::Frame);
        let sent = to.peer.poll_send(wake.cx, &plain[start..start + run.pass], sealed, close_follows);
        lost |= is_lost(to, sent, flow, wake.now);
    }
    if let (Stop::Release, Some(stage)) = (run.stop, &mut from.stage) {
        let message = stage.release(masks, codec, to.party == Party::Backend, flow.metrics);
        if goes_on {
            let sent = to.peer.poll_send(wake.cx, &message, sealed, false);
            lost |= is_lost(to, sent, flow, wake.now);
        }
    }
    if run.stop == Stop::Frame
        && let Some(code) = to.writer.due.take()
        && let Some(sent) = to.close(code, wake)
    {
        lost |= is_lost(to, sent, flow, wake.now);
    }
    lost
}

/// Notes what became of a send; whether the receiver is lost by it.
fn is_lost<B: Peer>(to: &Side<B>, sent: Poll<std::io::Result<()>>, flow: &Flow<'_>, now: Tick) -> bool {
    match sent {
        Poll::Ready(Ok(())) => false,
        // The next read of the backend finds the same end, after what it said before.
        Poll::Ready(Err(_)) => to.party == Party::Client,
        Poll::Pending => {
            flow.to.record_blocked(to.peer.unsent(), now);
            false
        }
    }
}

/// Where a run over judged bytes stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At the end of what can be judged.
    NeedMore,
    /// Behind a held message that is whole: it goes out before anything else.
    Release,
    /// Behind a frame after which the receiver gets a Close frame.
    Frame,
    /// Behind a Close frame: nothing may follow it (RFC 6455 §5.5.1), and nothing that does is looked at.
    Closed(Option<u16>),
    /// At a violation.
    Violation(Violation),
    /// At a message that may not pass yet.
    Wait(Exceeded),
    /// At a message of which the store must say whether it may pass.
    Ask,
    /// At a message that exceeds a rate which closes.
    Exceeded(Exceeded),
    /// At a message that is whole and does not go on, and bytes of its payload that were counted as judged.
    Refused(u64),
}

/// What a run found.
struct Run {
    /// Bytes at the start that go on as they are.
    pass: usize,
    /// Bytes that were judged.
    used: usize,
    /// Messages that are whole.
    messages: u64,
    /// A data frame was among them.
    data: bool,
    /// Whether what goes on ends within a data frame; `None`: no data frame goes on.
    cut: Option<bool>,
    stop: Stop,
}

impl Run {
    /// A piece of a data frame was judged, of a message that ends with it if `message`.
    #[inline]
    fn saw<P>(&mut self, from: &Side<P>, message: bool, sizes: &MessageSizes) {
        self.data = true;
        if message {
            self.messages += 1;
            // The size of what is compressed is known when it is inflated.
            if !from.judge.is_compressed() {
                sizes.record(from.party.direction(), from.judge.message_size());
            }
        }
    }

    /// The piece goes on. `last`: behind the frame the receiver gets a Close frame.
    #[inline]
    fn goes_on<P>(&mut self, from: &Side<P>, last: bool) {
        let in_frame = from.judge.in_frame();
        self.cut = Some(in_frame);
        if last && !in_frame {
            self.stop = Stop::Frame;
        }
    }

    /// Stops at a message that does not go on; it was counted if it is whole.
    fn refuse(&mut self, len: usize, header: usize, counted: bool) {
        self.messages -= u64::from(counted);
        self.used += len;
        self.stop = Stop::Refused((len - header) as u64);
    }
}

/// Judges frames in place and closes the gaps of those that do not go on, up to where something else must be done first.
/// The end of a frame behind which the receiver is due a Close is such a place.
fn judge<A: Peer, B>(
    from: &mut Side<A>,
    to: &Side<B>,
    bytes: &mut [u8],
    flow: &Flow<'_>,
    (masks, sizes): (&mut Masks, &MessageSizes),
    now: Tick,
) -> Run {
    let mut run = Run { pass: 0, used: 0, messages: 0, data: false, cut: None, stop: Stop::NeedMore };
    let (last, second) = (to.writer.due.is_some(), now.second());
    loop {
        let at = run.used;
        let len = match from.judge.next(&mut bytes[at..], &from.limits, second, &mut || masks.next()) {
            Ok(Step::NeedMore) => break,
            Ok(Step::Data { len, message }) => {
                run.saw(from, message, sizes);
                run.goes_on(from, last);
                len
            }
            Ok(Step::Held { opcode, header, len, frame, message }) => {
                run.saw(from, message, sizes);
                // What is compressed is judged when it is inflated.
                let plain = !from.judge.is_compressed();
                let tunnel =
                    if plain { watching::read(from, &bytes[at + header..at + len], message, flow) } else { Ok(()) };
                if is_refused(from, tunnel, flow) {
                    run.refuse(len, header, message);
                    break;
                }
                let at_once = |stage: &Stage| stage.can_judge_at_once(len - header);
                if plain && header > 0 && message && from.stage.as_deref().is_some_and(at_once) {
                    // All of it lies here: it is judged where it lies, and goes on with what lies beside it.
                    if is_refused_at_once(from, &bytes[at + header..at + len], flow) {
                        run.refuse(len, header, message);
                        break;
                    }
                    remask(from, &mut bytes[at..at + len], header, masks);
                    run.goes_on(from, last);
                    len
                } else {
                    run.used += len;
                    if let Some(stage) = &mut from.stage {
                        stage.push(opcode, &bytes[at + header..at + len], frame, message);
                    }
                    if message {
                        run.stop = Stop::Release;
                        break;
                    }
                    continue;
                }
            }
            Ok(Step::Watched { header, len, message }) => {
                run.saw(from, message, sizes);
                let payload = &mut bytes[at + header..at + len];
                let tunnel = watching::read(from, payload, message, flow);
                if is_refused(from, tunnel, flow) {
                    run.refuse(len, header, message);
                    break;
                }
                from.judge.mask(payload);
                run.goes_on(from, last);
                len
            }
            Ok(Step::First { payload }) => {
                match rule(from, to, payload, flow, now) {
                    Ruling::Pass => from.judge.rule(false),
                    Ruling::Audit(exceeded) => {
                        flow.audit(from.party.exceeded(exceeded), &Detail::default());
                        from.judge.rule(false);
                    }
                    Ruling::Drop => from.judge.rule(true),
                    Ruling::Wait(exceeded) => run.stop = Stop::Wait(exceeded),
                    Ruling::Ask => run.stop = Stop::Ask,
                    Ruling::Close(exceeded) => run.stop = Stop::Exceeded(exceeded),
                }
                if run.stop != Stop::NeedMore {
                    break;
                }
                continue;
            }
            Ok(Step::Dropped { len }) => {
                run.used += len;
                continue;
            }
            Ok(Step::Control { opcode, header, len }) => {
                let payload = &bytes[at + header..at + len];
                if opcode == Opcode::Ping {
                    flow.to.record_forwarded_ping(true);
                } else if payload == flow.nonce {
                    if let Some(took) = flow.from.record_pong(flow.began.elapsed()) {
                        flow.metrics.heartbeat_answered(from.party.pinged(), took);
                    }
                    run.used += len;
                    continue;
                } else {
                    flow.from.record_forwarded_ping(false);
                }
                remask(from, &mut bytes[at..at + len], header, masks);
                len
            }
            Ok(Step::Close { code, header, len }) => {
                remask(from, &mut bytes[at..at + len], header, masks);
                run.stop = Stop::Closed(code);
                len
            }
            Err(violation) => {
                run.stop = Stop::Violation(violation);
                break;
            }
        };
        if run.pass != at {
            bytes.copy_within(at..at + len, run.pass);
        }
        run.pass += len;
        run.used += len;
        if run.stop != Stop::NeedMore {
            break;
        }
    }
    run
}

/// What the rates say to a message. After our Close to the receiver nothing goes on, and nothing is limited; after its own
/// Close nobody waits.
fn rule<A, B>(from: &mut Side<A>, to: &Side<B>, payload: u64, flow: &Flow<'_>, now: Tick) -> Ruling {
    let total = from.judge.payload_total();
    let waker = || flow.session.waker.borrow().clone();
    match &mut from.throttle {
        Some(throttle) if !to.writer.told => match throttle.rule(payload, total, now, waker) {
            Ruling::Wait(_) | Ruling::Ask if to.closed => Ruling::Drop,
            ruling => ruling,
        },
        _ => Ruling::Pass,
    }
}

/// Masks a frame of a client anew; its payload was unmasked to be judged.
fn remask<A>(from: &Side<A>, frame: &mut [u8], header: usize, masks: &mut Masks) {
    if from.party == Party::Client {
        let (head, payload) = frame.split_at_mut(header);
        if let Some(key) = head.last_chunk_mut::<4>() {
            *key = masks.next();
            frame::mask(payload, *key, 0);
        }
    }
}
