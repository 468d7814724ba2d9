//! The two directions of a relay: read, judge in place, write.

use std::task::{Context, Poll};

use super::{Direction, Ending, Phase, Relay, stamp};
use crate::proxy::io::buffers::{BACKEND_READ, HEADROOM, Masks, Scratch};
use crate::proxy::io::client_tls::Fill;
use crate::proxy::relay::session::{self, Pulse};
use crate::reason::Reason;
use crate::telemetry::Initiator;
use crate::telemetry::access::Volume;
use crate::telemetry::metrics::Traffic;
use crate::ws::close;
use crate::ws::frame::{self, HeaderError, Opcode};
use crate::ws::message::{Step, Violation};

/// What a run over the bytes of one wake-up found.
struct Run {
    /// Bytes at the start of the buffer that go on.
    out: usize,
    passed: Volume,
    /// A data frame was among them.
    data: bool,
    /// A Close frame was the last of them, with this code.
    closed: Option<Option<u16>>,
    violation: Option<Violation>,
}

/// Judges all frames in `bytes` in place and closes the gaps of those that do not go on. `peer` is who sent them,
/// `other` who gets them.
fn judge(
    direction: &mut Direction,
    bytes: &mut [u8],
    nonce: &[u8; 8],
    masks: &mut Masks<'_>,
    (peer, other): (&Pulse, &Pulse),
) -> Run {
    let mut run = Run { out: 0, passed: Volume::default(), data: false, closed: None, violation: None };
    let second = session::now() / session::TICKS;
    let mut at = 0;
    let unfinished = direction.judge.in_message() || !direction.kept.is_empty();
    direction.kept = Vec::new();
    direction.early = false;
    let before = direction.judge.payload_total();
    loop {
        let step = direction.judge.next(&mut bytes[at..], &direction.limits, second, &mut || masks.next());
        let len = match step {
            Ok(Step::NeedMore) => break,
            Ok(Step::Data { len, message }) => {
                run.data = true;
                run.passed.messages += u64::from(message);
                direction.cut = direction.judge.in_frame();
                len
            }
            Ok(Step::Control { opcode, header, len }) => {
                let (head, payload) = bytes[at..at + len].split_at_mut(header);
                match opcode {
                    Opcode::Pong if payload == nonce => {
                        at += len;
                        continue;
                    }
                    Opcode::Pong => peer.forwarded.set(false),
                    Opcode::Ping => other.forwarded.set(true),
                    _ => match close::parse(payload) {
                        Ok(code) => run.closed = Some(code),
                        Err(close::CloseError::Reason) => run.violation = Some(Violation::Utf8),
                        Err(_) => run.violation = Some(Violation::Sequence),
                    },
                }
                if run.violation.is_some() {
                    break;
                }
                if let Some(key) = head.last_chunk_mut::<4>().filter(|_| direction.judge.is_masked()) {
                    *key = masks.next();
                    frame::mask(payload, *key, 0);
                }
                len
            }
            Err(violation) => {
                run.violation = Some(violation);
                break;
            }
        };
        if run.out != at {
            bytes.copy_within(at..at + len, run.out);
        }
        run.out += len;
        at += len;
        if run.closed.is_some() {
            // Nothing may follow a Close (§5.5.1), and nothing that does is looked at.
            at = bytes.len();
            break;
        }
    }
    if run.violation.is_none() && at < bytes.len() {
        direction.kept = bytes[at..].to_vec();
    }
    run.passed.bytes = direction.judge.payload_total() - before;
    direction.passed.messages += run.passed.messages;
    direction.passed.bytes += run.passed.bytes;
    if !direction.judge.in_message() && direction.kept.is_empty() {
        peer.begun.set(0);
    } else if !unfinished || run.passed.messages > 0 || peer.begun.get() == 0 {
        peer.begun.set(session::now());
        peer.progress.set(0);
    } else {
        peer.progress.set(peer.progress.get() + bytes.len() as u64);
    }
    run
}

fn count(traffic: &Traffic, passed: Volume) {
    traffic.messages.inc_by(passed.messages);
    traffic.bytes.inc_by(passed.bytes);
}

/// The reason for a violation by the client.
fn client_reason(violation: Violation) -> Reason {
    match violation {
        Violation::Header(
            HeaderError::ReservedBit
            | HeaderError::ReservedOpcode
            | HeaderError::LengthNotMinimal
            | HeaderError::LengthTooLarge
            | HeaderError::ControlTooLong
            | HeaderError::ControlFragmented
            | HeaderError::Mask,
        )
        | Violation::Sequence
        | Violation::AfterClose => Reason::ProtocolError,
        Violation::Type => Reason::TypeNotAllowed,
        Violation::Size => Reason::MessageTooBig,
        Violation::Fragments => Reason::TooManyFragments,
        Violation::Utf8 => Reason::InvalidUtf8,
        Violation::ControlFlood => Reason::ControlFlood,
    }
}

impl Relay {
    /// Client to backend. True if anything moved.
    pub(super) fn pump_up(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> bool {
        match self.backend.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.session.backend.blocked.set(0),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                stamp(&self.session.backend.blocked);
                // Nothing more is read from the client, unless none of it would go on.
                if !self.backend_told {
                    return false;
                }
            }
        }
        if self.up.closed || self.up.gone {
            return false;
        }
        // What came with the handshake is judged before anything is read.
        let kept = self.up.kept.len();
        let at = HEADROOM.max(kept);
        let n = if self.up.early {
            0
        } else {
            match self.client.poll_fill(cx, scratch, at) {
                Poll::Pending => return false,
                Poll::Ready(Ok(Fill::Bytes(n))) => n,
                Poll::Ready(Ok(Fill::End) | Err(_)) => {
                    self.lose_client(cx, scratch);
                    return true;
                }
            }
        };
        self.session.client.beat();
        let parts = scratch.parts();
        parts.plain[at - kept..at].copy_from_slice(&self.up.kept);
        let bytes = &mut parts.plain[at - kept..at + n];
        let mut masks = parts.masks;
        let pulses = (&self.session.client, &self.session.backend);
        let cut = self.up.cut;
        let run = judge(&mut self.up, bytes, &self.nonce, &mut masks, pulses);
        count(&self.metrics.from_client, run.passed);
        if run.data {
            self.session.data.set(session::now());
        }
        // After our own Close the client's frames are only read for its answer.
        if self.backend_told {
            self.up.cut = cut;
        } else if run.out > 0 {
            match self.backend.poll_send(cx, &bytes[..run.out]) {
                Poll::Ready(Ok(())) => {}
                // The next read of the backend finds the same end, with what it said before.
                Poll::Ready(Err(_)) => {}
                Poll::Pending => stamp(&self.session.backend.blocked),
            }
        }
        if let Some(violation) = run.violation {
            self.end(client_reason(violation), Initiator::Gateway, cx, scratch);
            self.shut();
        } else if let Some(code) = run.closed {
            self.up.closed = true;
            self.backend_told = true;
            self.carry(Ending { reason: Reason::ClientClosed, code, initiator: Initiator::Client });
        }
        true
    }

    /// Backend to client. True if anything moved.
    pub(super) fn pump_down(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> bool {
        match self.client.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.session.client.blocked.set(0),
            Poll::Ready(Err(_)) => {
                self.lose_client(cx, scratch);
                return true;
            }
            Poll::Pending => {
                stamp(&self.session.client.blocked);
                return false;
            }
        }
        if self.down.closed || self.down.gone || self.up.gone {
            return false;
        }
        let kept = self.down.kept.len();
        let at = HEADROOM.max(kept);
        let parts = scratch.parts();
        let n = if self.down.early {
            0
        } else {
            match self.backend.poll_read(cx, &mut parts.plain[at..at + BACKEND_READ]) {
                Poll::Pending => return false,
                Poll::Ready(Ok(n)) if n > 0 => n,
                Poll::Ready(_) => {
                    self.down.gone = true;
                    self.end(Reason::BackendLost, Initiator::Backend, cx, scratch);
                    return true;
                }
            }
        };
        parts.plain[at - kept..at].copy_from_slice(&self.down.kept);
        self.session.backend.beat();
        let bytes = &mut parts.plain[at - kept..at + n];
        let mut masks = parts.masks;
        let pulses = (&self.session.backend, &self.session.client);
        let cut = self.down.cut;
        let run = judge(&mut self.down, bytes, &self.nonce, &mut masks, pulses);
        count(&self.metrics.from_backend, run.passed);
        if run.data {
            self.session.data.set(session::now());
        }
        let mut lost = false;
        if self.client_told {
            // What is not passed on cuts nothing: the client has had a Close and is owed a clean end.
            self.down.cut = cut;
        } else if run.out > 0 {
            match self.client.poll_send(cx, &bytes[..run.out], parts.sealed) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => lost = true,
                Poll::Pending => stamp(&self.session.client.blocked),
            }
        }
        if lost {
            self.lose_client(cx, scratch);
        } else if let Some(violation) = run.violation {
            let reason = match violation {
                Violation::Size => Reason::BackendMessageTooBig,
                _ => Reason::BackendProtocolError,
            };
            self.end(reason, Initiator::Gateway, cx, scratch);
            self.down.gone = true;
        } else if let Some(code) = run.closed {
            self.down.closed = true;
            self.client_told = true;
            self.carry(Ending { reason: Reason::BackendClosed, code, initiator: Initiator::Backend });
        }
        true
    }

    /// A Close frame of one side went to the other: await the answer.
    fn carry(&mut self, ending: Ending) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            self.session.closing.set(session::now());
            self.phase = Phase::Closing;
        }
    }
}
