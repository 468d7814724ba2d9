//! One side of a relay: a peer, what is judged of the frames that it sends, and where our words to it stand.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::content::rules::Rules;
use crate::content::tunnel::Watch;
use crate::policy::{Pacing, Policy, TunnelRule};
use crate::proxy::clock::Tick;
use crate::proxy::io::Peer;
use crate::proxy::io::buffers::Buffers;
use crate::proxy::limits::subject_rate::SubjectRate;
use crate::proxy::relay::stage::{HeldBytes, RefusedMessage, Stage};
use crate::proxy::relay::throttle::{Exceeded, Throttle};
use crate::reason::Reason;
use crate::telemetry::metrics::{Direction, MessageSizes, Peer as Pinged};
use crate::ws::close;
use crate::ws::frame::{self, HeaderError, Opcode};
use crate::ws::message::{Judge, Limits, Violation};

/// Which side of the gateway a peer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    /// Its frames are masked, ours to it are not (RFC 6455 §5.1).
    Client,
    /// The other way round: toward it the gateway is the client.
    Backend,
}

impl Party {
    /// The direction of what this peer sends.
    pub(super) const fn direction(self) -> Direction {
        match self {
            Self::Client => Direction::FromClient,
            Self::Backend => Direction::FromBackend,
        }
    }

    /// The peer, as the metrics of heartbeats call it.
    pub(super) const fn pinged(self) -> Pinged {
        match self {
            Self::Client => Pinged::Client,
            Self::Backend => Pinged::Backend,
        }
    }

    /// The reason for which a violation by this peer ends the connection.
    pub(super) fn reason(self, violation: Violation) -> Reason {
        match (self, violation) {
            (Self::Backend, Violation::Size) => Reason::BackendMessageTooBig,
            (Self::Backend, Violation::Fragments) => Reason::BackendTooManyFragments,
            (Self::Backend, Violation::Type) => Reason::BackendTypeNotAllowed,
            (Self::Backend, Violation::Utf8) => Reason::BackendInvalidUtf8,
            (Self::Backend, Violation::ControlFlood) => Reason::BackendControlFlood,
            (Self::Backend, _) => Reason::BackendProtocolError,
            (Self::Client, violation) => match violation {
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
                | Violation::Close
                | Violation::AfterClose => Reason::ProtocolError,
                Violation::Type => Reason::TypeNotAllowed,
                Violation::Size => Reason::MessageTooBig,
                Violation::Fragments => Reason::TooManyFragments,
                Violation::Utf8 => Reason::InvalidUtf8,
                Violation::Deflate => Reason::CompressionInvalid,
                Violation::Ratio => Reason::CompressionRatio,
                Violation::ControlFlood => Reason::ControlFlood,
            },
        }
    }

    /// The reason that names a rate which this peer exceeded.
    pub(super) const fn exceeded(self, exceeded: Exceeded) -> Reason {
        match (self, exceeded) {
            (Self::Client, Exceeded::Messages) => Reason::MessageRateExceeded,
            (Self::Client, Exceeded::Bytes) => Reason::ByteRateExceeded,
            (Self::Backend, Exceeded::Messages) => Reason::BackendMessageRateExceeded,
            (Self::Backend, Exceeded::Bytes) => Reason::BackendByteRateExceeded,
        }
    }
}

/// One wake-up of a connection: what it is polled with.
pub(super) struct Wake<'a, 'c> {
    pub(super) cx: &'a mut Context<'c>,
    pub(super) buffers: &'a mut Buffers,
    pub(super) sizes: &'a MessageSizes,
    pub(super) now: Tick,
}

/// What we have written to a peer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// It ends within a data frame: nothing of ours may be written there.
    pub(super) cut: bool,
    /// It ends with a Close frame: nothing follows.
    pub(super) told: bool,
    /// A Close frame with this code goes out as soon as the frame has ended within which the end came.
    pub(super) due: Option<Option<u16>>,
}

/// The watch over the first bytes of a peer, and what its route says of what is found.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) watch: Watch,
    pub(super) rule: TunnelRule,
}

/// One side of a relay.
pub(super) struct Side<P> {
    pub(super) party: Party,
    pub(super) peer: P,
    /// Judges what the peer sends.
    pub(super) judge: Judge,
    pub(super) limits: Limits,
    /// Messages of the peer that must be seen whole; `None`: there are none.
    pub(super) stage: Option<Box<Stage>>,
    /// The watch over the first bytes of the peer; `None`: there is none, or it is over.
    pub(super) watching: Option<Box<Watching>>,
    /// Rates of the peer's messages; `None`: there are none.
    pub(super) throttle: Option<Box<Throttle>>,
    /// Why what a message says was refused, which ends the connection.
    pub(super) refused: Option<Box<RefusedMessage>>,
    /// Messages that the stage refuses are counted, logged and let through.
    pub(super) audits: bool,
    /// The peer is not read because memory is short.
    pub(super) waits_for_memory: bool,
    /// Bytes of the peer that were not enough to judge (a partial header or control frame), or that may not go on yet.
    pub(super) kept: Vec<u8>,
    /// `kept` is judged before anything is read: it came with the handshake, or begins with a message that waited.
    pub(super) early: bool,
    /// The peer's Close was seen.
    pub(super) closed: bool,
    /// The peer sends no more, or cannot be read.
    pub(super) gone: bool,
    /// What we write to the peer.
    pub(super) writer: Writer,
    /// A ping of ours is due.
    pub(super) ping: bool,
}

impl<P: Peer> Side<P> {
    pub(super) fn new(party: Party, peer: P, limits: Limits, early: Vec<u8>) -> Self {
        Self {
            party,
            peer,
            judge: Judge::new(party == Party::Client),
            limits,
            stage: None,
            watching: None,
            throttle: None,
            refused: None,
            audits: false,
            waits_for_memory: false,
            early: !early.is_empty(),
            kept: early,
            closed: false,
            gone: false,
            writer: Writer::default(),
            ping: false,
        }
    }

    /// permessage-deflate was negotiated with the client, which is sent what was compressed with this window.
    pub(super) fn set_deflate(&mut self, window: u8, held: &Arc<HeldBytes>) {
        self.judge.set_deflate();
        let mut stage = Stage::new(self.party.direction(), Arc::clone(held));
        if self.party == Party::Backend {
            stage.set_window(window);
        }
        self.stage = Some(stage);
    }

    /// Takes over the rates of the peer's messages; `shared` gives what the connections of the subject share.
    pub(super) fn pace(&mut self, pacing: &Pacing, shared: impl FnOnce() -> Option<Arc<SubjectRate>>) {
        let (before, total) = (self.throttle.take(), self.judge.payload_total());
        self.throttle = Throttle::renewed(before, pacing, self.limits.max_size, total, self.audits, shared);
        self.limits.ruled = self.throttle.is_some();
    }

    /// Takes over what a policy demands of the peer's messages, from the next one on. Where a schema cannot be had the rules
    /// that the side has stay.
    pub(super) fn admit(&mut self, limits: Limits, rules: &Option<Arc<Rules>>, policy: &Policy, held: &Arc<HeldBytes>) {
        let before = self.limits;
        self.limits = limits;
        self.audits = policy.audits_messages;
        if policy.content.incomplete && self.stage.is_some() {
            (self.limits.hold_text, self.limits.hold_binary) = (before.hold_text, before.hold_binary);
            return;
        }
        if self.stage.is_none() && (limits.hold_text || limits.hold_binary) {
            self.stage = Some(Stage::new(self.party.direction(), Arc::clone(held)));
        }
        if let Some(stage) = &mut self.stage {
            stage.set_rules(rules.clone());
        }
    }

    /// Takes over what a policy says of tunnels. A watch begins with the first byte of the peer or not at all.
    pub(super) fn watch(&mut self, rule: Option<TunnelRule>) {
        self.watching = match (rule, self.watching.take()) {
            (Some(rule), Some(before)) => Some(Box::new(Watching { rule, ..*before })),
            (Some(rule), None) if self.judge.payload_total() == 0 => {
                Some(Box::new(Watching { watch: Watch::default(), rule }))
            }
            (_, _) => None,
        };
        self.limits.watched = self.watching.is_some();
    }

    /// Sends one of our own control frames.
    pub(super) fn send_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        more: bool,
        wake: &mut Wake<'_, '_>,
    ) -> Poll<std::io::Result<()>> {
        let Buffers { masks, sealed, .. } = &mut *wake.buffers;
        let key = (self.party == Party::Backend).then(|| masks.next());
        let mut bytes = Vec::with_capacity(frame::MAX_HEADER + payload.len());
        frame::write(&mut bytes, opcode, payload, key);
        self.peer.poll_send(wake.cx, &bytes, sealed, more)
    }

    /// Ends what goes to the peer with a Close frame, unless it has one or is gone. Within another frame it waits until that
    /// has ended. What follows at once goes into the same packet. `None`: nothing was sent.
    pub(super) fn close(&mut self, code: Option<u16>, wake: &mut Wake<'_, '_>) -> Option<Poll<std::io::Result<()>>> {
        if self.writer.told || self.gone {
            return None;
        }
        if self.writer.cut {
            self.writer.due.get_or_insert(code);
            return None;
        }
        self.writer.told = true;
        let payload = code.map_or_else(Vec::new, |code| close::payload(code, ""));
        Some(self.send_control(Opcode::Close, &payload, true, wake))
    }
}
