//! The relay: one hand-written future per live connection that serves both directions.
//!
//! A wake-up reads what is there, judges all frames in place, and writes once; the same back. Nothing is read from one
//! peer while bytes wait for the other, so that a peer that does not read holds a bounded amount. When a connection
//! ends, each side gets a Close frame unless it would fall within a frame; then its TCP ends without one, so that the
//! incomplete frame is never delivered.

mod pump;
pub(crate) mod session;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::proxy::io::backend::{BackendIo, BackendSide};
use crate::proxy::io::buffers::{self, Scratch};
use crate::proxy::io::client_tls::ClientTls;
use crate::proxy::limits::connections::{EndpointPlace, Places};
use crate::proxy::relay::session::Session;
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::telemetry::access::{Ended, Volume};
use crate::telemetry::metrics::RouteMetrics;
use crate::telemetry::{AccessLog, Initiator};
use crate::ws::close;
use crate::ws::frame::{self, Opcode};
use crate::ws::message::{Judge, Limits};

/// How many times one wake-up goes round before it lets other connections run.
const ROUNDS: usize = 8;

/// How a connection came to its end.
#[derive(Debug, Clone, Copy)]
struct Ending {
    reason: Reason,
    /// The close code that the client saw or sent.
    code: Option<u16>,
    initiator: Initiator,
}

/// Where the end of a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Frames pass.
    Open,
    /// One side has closed or we have; the other's Close is awaited.
    Closing,
    /// All is said to the client: send it, close_notify (if it is still due) and FIN.
    Shutting { notify: bool },
    /// Only waiting for the client's FIN, so that nothing we sent is lost to a reset.
    Draining,
    /// Over.
    Over,
}

/// One direction's state between wake-ups.
struct Direction {
    judge: Judge,
    limits: Limits,
    /// Bytes that were not enough to judge: a partial header or control frame.
    kept: Vec<u8>,
    /// `kept` is what came with the handshake and was never looked at.
    early: bool,
    /// What was forwarded ends within a frame.
    cut: bool,
    /// The peer's Close was seen.
    closed: bool,
    /// The peer sends no more, or cannot be read.
    gone: bool,
    passed: Volume,
}

impl Direction {
    fn new(masked: bool, limits: Limits, early: Vec<u8>) -> Self {
        Self {
            judge: Judge::new(masked),
            limits,
            early: !early.is_empty(),
            kept: early,
            cut: false,
            closed: false,
            gone: false,
            passed: Volume::default(),
        }
    }
}

/// A live connection.
pub(crate) struct Relay {
    client: ClientTls,
    backend: BackendSide,
    up: Direction,
    down: Direction,
    /// A Close frame is on its way to the client.
    client_told: bool,
    /// A Close frame is on its way to the backend.
    backend_told: bool,
    backend_shut: bool,
    ping_client: bool,
    ping_backend: bool,
    nonce: [u8; 8],
    phase: Phase,
    reported: bool,
    ending: Option<Ending>,
    began: Instant,
    route: Arc<str>,
    session: Rc<Session>,
    metrics: Arc<RouteMetrics>,
    access: AccessLog,
    _places: (Places, EndpointPlace),
}

/// What a relay is made of.
pub(crate) struct Parts {
    pub(crate) client: ClientTls,
    pub(crate) backend: BackendIo,
    /// Bytes that the client sent behind its request: frames, or they end the connection.
    pub(crate) client_early: Vec<u8>,
    /// Bytes that the backend sent behind its 101.
    pub(crate) backend_early: Vec<u8>,
    pub(crate) session: Rc<Session>,
    pub(crate) route: Arc<str>,
    pub(crate) began: Instant,
    pub(crate) metrics: Arc<RouteMetrics>,
    pub(crate) access: AccessLog,
    pub(crate) places: (Places, EndpointPlace),
}

impl Relay {
    /// Starts to relay. The client has its 101 already, or has it unsent.
    pub(crate) fn new(parts: Parts) -> Self {
        let (up, down) = limits(&parts.session);
        parts.metrics.connections.inc();
        let mut nonce = [0; 8];
        nonce[..4].copy_from_slice(&buffers::mask());
        nonce[4..].copy_from_slice(&buffers::mask());
        Self {
            client: parts.client,
            backend: BackendSide::new(parts.backend),
            up: Direction::new(true, up, parts.client_early),
            down: Direction::new(false, down, parts.backend_early),
            client_told: false,
            backend_told: false,
            backend_shut: false,
            ping_client: false,
            ping_backend: false,
            nonce,
            phase: Phase::Open,
            reported: false,
            ending: None,
            began: parts.began,
            route: parts.route,
            session: parts.session,
            metrics: parts.metrics,
            access: parts.access,
            _places: parts.places,
        }
    }

    fn step(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<()> {
        self.listen(cx);
        self.obey(cx, scratch);
        for _ in 0..ROUNDS {
            let mut moved = false;
            if matches!(self.phase, Phase::Open | Phase::Closing) {
                moved |= self.pump_up(cx, scratch);
                moved |= self.pump_down(cx, scratch);
                self.send_pings(cx, scratch);
                self.advance(cx, scratch);
            }
            if let Phase::Shutting { notify } = &mut self.phase {
                match self.client.poll_shutdown(cx, notify) {
                    Poll::Ready(Ok(())) => self.phase = Phase::Draining,
                    Poll::Ready(Err(_)) => self.phase = Phase::Over,
                    Poll::Pending => {}
                }
            }
            if self.phase == Phase::Draining && self.client.poll_drain(cx, scratch).is_ready() {
                self.phase = Phase::Over;
            }
            if !matches!(self.phase, Phase::Open) {
                self.shut_backend(cx);
            }
            if self.phase == Phase::Over {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Leaves the waker where the sweeper finds it.
    fn listen(&self, cx: &Context<'_>) {
        let mut waker = self.session.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Carries out what was ordered since the last poll.
    fn obey(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        let orders = self.session.orders.take();
        if orders.refresh {
            (self.up.limits, self.down.limits) = limits(&self.session);
        }
        if let Some(reason) = orders.end {
            self.end(reason, Initiator::Gateway, cx, scratch);
        }
        self.ping_client |= orders.ping_client;
        self.ping_backend |= orders.ping_backend;
        if orders.abandon {
            match self.phase {
                Phase::Closing => {
                    self.tell_client(self.ending.and_then(|ending| ending.code), cx, scratch);
                    self.shut();
                    // A second, shorter time for the client to take it.
                    self.session
                        .closing
                        .set(session::now().saturating_sub(session::CLOSE_TICKS - session::TICKS).max(1));
                }
                Phase::Open => {}
                Phase::Shutting { .. } | Phase::Draining | Phase::Over => self.phase = Phase::Over,
            }
        }
    }

    fn send_pings(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        if self.phase != Phase::Open {
            return;
        }
        if self.ping_client && !self.down.cut {
            self.ping_client = false;
            let mut ping = Vec::with_capacity(10);
            frame::write(&mut ping, Opcode::Ping, &self.nonce, None);
            self.send_client(&ping, cx, scratch);
        }
        if self.ping_backend && !self.up.cut {
            self.ping_backend = false;
            let mut ping = Vec::with_capacity(14);
            frame::write(&mut ping, Opcode::Ping, &self.nonce, Some(scratch.parts().masks.next()));
            self.send_backend(&ping, cx);
        }
    }

    /// Begins the end, once. Each side that can still be told is told; the phase says what is awaited.
    fn end(&mut self, reason: Reason, initiator: Initiator, cx: &mut Context<'_>, scratch: &mut Scratch) {
        if self.ending.is_some() {
            return;
        }
        let code = reason.close_code();
        self.ending = Some(Ending { reason, code, initiator });
        self.session.closing.set(session::now());
        self.phase = Phase::Closing;
        self.tell_backend(cx, scratch);
        self.tell_client(code, cx, scratch);
        if reason.cuts() || self.down.cut || self.up.gone {
            self.shut();
        }
    }

    fn shut(&mut self) {
        if matches!(self.phase, Phase::Open | Phase::Closing) {
            // A frame that is half-sent must not look like a clean end.
            self.phase = Phase::Shutting { notify: !self.down.cut };
            self.report();
            self.session.closing.set(self.session.closing.get().max(1));
        }
    }

    /// Looks whether both sides have said all.
    fn advance(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        if self.phase != Phase::Closing {
            return;
        }
        if self.down.gone && !self.client_told {
            // The backend ended without answering the client's Close: we answer.
            self.tell_client(self.ending.and_then(|ending| ending.code), cx, scratch);
        }
        if self.up.gone || (self.client_told && self.up.closed) || (self.down.cut && self.down.gone) {
            self.shut();
        }
    }

    /// A Close frame for the client, unless it has one or it would fall within a frame.
    fn tell_client(&mut self, code: Option<u16>, cx: &mut Context<'_>, scratch: &mut Scratch) {
        if self.client_told || self.down.cut || self.up.gone {
            return;
        }
        self.client_told = true;
        let payload = code.map_or_else(Vec::new, |code| close::payload(code, ""));
        let mut bytes = Vec::with_capacity(8);
        frame::write(&mut bytes, Opcode::Close, &payload, None);
        self.send_client(&bytes, cx, scratch);
    }

    /// Close 1001 for the backend, unless it has a Close or it would fall within a frame.
    fn tell_backend(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        if self.backend_told || self.up.cut || self.down.gone {
            return;
        }
        self.backend_told = true;
        let mut bytes = Vec::with_capacity(8);
        frame::write(&mut bytes, Opcode::Close, &close::payload(1001, ""), Some(scratch.parts().masks.next()));
        self.send_backend(&bytes, cx);
    }

    /// When nothing more goes to the backend it gets FIN; errors no longer matter.
    fn shut_backend(&mut self, cx: &mut Context<'_>) {
        let done = self.backend_told || self.up.cut || self.down.gone;
        if done && !self.backend_shut && (self.phase != Phase::Closing || self.down.closed || self.down.gone) {
            self.backend_shut = self.backend.poll_shutdown(cx).is_ready();
        }
    }

    fn send_client(&mut self, bytes: &[u8], cx: &mut Context<'_>, scratch: &mut Scratch) {
        match self.client.poll_send(cx, bytes, scratch.parts().sealed) {
            Poll::Ready(Ok(())) => self.session.client.blocked.set(0),
            Poll::Ready(Err(_)) => self.lose_client(cx, scratch),
            Poll::Pending => stamp(&self.session.client.blocked),
        }
    }

    fn send_backend(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        match self.backend.poll_send(cx, bytes) {
            Poll::Ready(Ok(())) => self.session.backend.blocked.set(0),
            // The next read of the backend finds the same end, with what it said before.
            Poll::Ready(Err(_)) => {}
            Poll::Pending => stamp(&self.session.backend.blocked),
        }
    }

    fn lose_client(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        self.up.gone = true;
        self.end(Reason::ClientLost, Initiator::Client, cx, scratch);
        self.shut();
    }
}

/// Notes the time, unless it is noted already.
fn stamp(cell: &std::cell::Cell<u32>) {
    if cell.get() == 0 {
        cell.set(session::now());
    }
}

/// The limits of both directions under the session's route.
fn limits(session: &Session) -> (Limits, Limits) {
    match &session.lease.borrow().route.state {
        RouteState::Serving(policy) => (policy.from_client, policy.from_backend),
        // A route that refuses ends its connections; until then nothing larger than a control frame passes.
        RouteState::Refusing(_) => {
            let none = Limits { text: false, binary: false, max_size: 0, max_fragments: 0 };
            (none, none)
        }
    }
}

impl Future for Relay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        buffers::with(|scratch| self.step(cx, scratch))
    }
}

impl Relay {
    /// Counts the end and writes it down, once: as soon as all is said, or when the task is dropped before that.
    fn report(&mut self) {
        if std::mem::replace(&mut self.reported, true) {
            return;
        }
        // A task that is dropped without an end either panicked or outlived the drain.
        let reason = if std::thread::panicking() { Reason::Internal } else { Reason::Draining };
        let ending = self.ending.unwrap_or(Ending { reason, code: None, initiator: Initiator::Gateway });
        self.metrics.connections.dec();
        self.metrics.ended(ending.reason, ending.code, ending.initiator);
        self.access.ended(&Ended {
            id: self.session.id,
            route: &self.route,
            duration: self.began.elapsed(),
            reason: ending.reason,
            code: ending.code,
            initiator: ending.initiator,
            from_client: self.up.passed,
            from_backend: self.down.passed,
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.report();
    }
}
