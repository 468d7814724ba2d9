//! THE RELAY: one live connection, from its 101 to its end, both directions in one task.
//!
//! A wake-up reads what is there, judges all frames in place, and writes once; the same back. Nothing is read from one
//! peer while bytes wait for the other, so that a peer that does not read holds a bounded amount. When a connection
//! ends, each side gets a Close frame unless it would fall within a frame; then its TCP ends without one, so that the
//! incomplete frame is never delivered. `tests/` has every ending, over fakes.

pub(crate) mod activity;
mod flow;
mod pause;
mod pump;
mod recheck;
pub(crate) mod report;
pub(crate) mod session;
mod side;
pub(crate) mod stage;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod throttle;
mod waiting;
mod watching;

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::proxy::clock::{TICKS, Tick};
use crate::proxy::io::Peer;
use crate::proxy::io::backend::BackendPeer;
use crate::proxy::io::buffers::Buffers;
use crate::proxy::io::client_tls::ClientTls;
use crate::proxy::limits::subject_rate::SubjectRates;
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::telemetry::initiator::Initiator;
use crate::telemetry::metrics::MessageSizes;
use crate::ws::frame::Opcode;
use crate::ws::message::Limits;
use flow::Flow;
use pump::{Pumped, pump};
use report::{Ending, Report};
use session::{CLOSE_TICKS, Session};
use side::{Party, Side, Wake};
use stage::HeldBytes;

/// How many times one wake-up goes round before it lets other connections run.
const ROUNDS: usize = 8;

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

/// A live connection.
pub(crate) struct Relay<C = ClientTls, B = BackendPeer> {
    client: Side<C>,
    backend: Side<B>,
    /// The backend has had our FIN.
    backend_shut: bool,
    /// The payload of our pings.
    nonce: [u8; 8],
    phase: Phase,
    session: Rc<Session>,
    report: Report,
    held: Arc<HeldBytes>,
    subject_rates: Arc<SubjectRates>,
    /// What the connection holds against limits, for as long as it lives.
    _permits: Box<dyn Any>,
}

/// What a relay is made of.
pub(crate) struct Parts<C = ClientTls, B = BackendPeer> {
    pub(crate) client: C,
    pub(crate) backend: B,
    /// Bytes that the client sent behind its request: frames, or they end the connection.
    pub(crate) client_early: Vec<u8>,
    /// Bytes that the backend sent behind its 101.
    pub(crate) backend_early: Vec<u8>,
    pub(crate) session: Rc<Session>,
    pub(crate) report: Report,
    /// Unpredictable bytes.
    pub(crate) nonce: [u8; 8],
    /// Where stages count what they hold.
    pub(crate) held: Arc<HeldBytes>,
    /// What the connections of a subject share of a rate.
    pub(crate) subject_rates: Arc<SubjectRates>,
    /// The window of what is compressed toward the client (RFC 7692), if compression was negotiated.
    pub(crate) deflate: Option<u8>,
    /// What is held against limits.
    pub(crate) permits: Box<dyn Any>,
}

/// What the direction from a party writes down.
fn flow<'a>(from: Party, session: &'a Session, report: &'a mut Report, nonce: &'a [u8; 8]) -> Flow<'a> {
    let Report { id, route, log, metrics, began, from_client, from_backend, .. } = report;
    let (from, to, volume) = match from {
        Party::Client => (&session.client, &session.backend, from_client),
        Party::Backend => (&session.backend, &session.client, from_backend),
    };
    Flow { from, to, session, nonce, log, id: *id, route: route.label(), metrics, began: *began, volume }
}

impl<C: Peer, B: Peer> Relay<C, B> {
    /// Starts to relay. The client has its 101 already, or has it unsent.
    pub(crate) fn new(parts: Parts<C, B>) -> Self {
        let none = Limits::CONTROL_ONLY;
        let mut relay = Self {
            client: Side::new(Party::Client, parts.client, none, parts.client_early),
            backend: Side::new(Party::Backend, parts.backend, none, parts.backend_early),
            backend_shut: false,
            nonce: parts.nonce,
            phase: Phase::Open,
            session: parts.session,
            report: parts.report,
            held: parts.held,
            subject_rates: parts.subject_rates,
            _permits: parts.permits,
        };
        if let Some(window) = parts.deflate {
            relay.client.set_deflate(window, &relay.held);
            relay.backend.set_deflate(window, &relay.held);
        }
        relay.refresh();
        relay
    }

    /// One wake-up. Ready: the connection is over.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        sizes: &MessageSizes,
        now: Tick,
    ) -> Poll<()> {
        let wake = &mut Wake { cx, buffers, sizes, now };
        self.listen(wake);
        self.apply_commands(wake);
        for _ in 0..ROUNDS {
            let mut moved = false;
            if matches!(self.phase, Phase::Open | Phase::Closing) {
                moved |= self.pump_up(wake);
                moved |= self.pump_down(wake);
                self.send_pings(wake);
                self.advance(wake);
            }
            if let Phase::Shutting { notify } = &mut self.phase {
                match self.client.peer.poll_shutdown(wake.cx, notify) {
                    Poll::Ready(Ok(())) => self.phase = Phase::Draining,
                    Poll::Ready(Err(_)) => self.phase = Phase::Over,
                    Poll::Pending => {}
                }
            }
            if self.phase == Phase::Draining && self.client.peer.poll_drain(wake.cx, wake.buffers).is_ready() {
                self.phase = Phase::Over;
            }
            if !matches!(self.phase, Phase::Open) {
                self.shut_backend(wake);
            }
            if self.phase == Phase::Over {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        wake.cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Leaves the waker where the sweeper finds it.
    fn listen(&self, wake: &Wake<'_, '_>) {
        let mut waker = self.session.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(wake.cx.waker())) {
            *waker = Some(wake.cx.waker().clone());
        }
    }

    /// Applies what was commanded since the last poll.
    fn apply_commands(&mut self, wake: &mut Wake<'_, '_>) {
        let commands = self.session.commands.take();
        if commands.refresh {
            self.refresh();
            // Whoever waited is judged again, by what counts now.
            self.session.client.record_resumed(wake.now);
            self.session.backend.record_resumed(wake.now);
        }
        if let Some(reason) = commands.end {
            self.end(reason, Initiator::Gateway, wake);
        }
        self.client.ping |= commands.ping_client;
        self.backend.ping |= commands.ping_backend;
        if commands.abandon {
            match self.phase {
                Phase::Closing => {
                    self.close_client(self.report.ending.and_then(|ending| ending.code), wake);
                    self.shut(wake);
                    // A second, shorter time for the client to take it.
                    self.session.closing.set(Some(wake.now.before(CLOSE_TICKS - TICKS)));
                }
                Phase::Open => {}
                Phase::Shutting { .. } | Phase::Draining | Phase::Over => self.phase = Phase::Over,
            }
        }
    }

    /// Reads the limits of both directions from the session's route.
    fn refresh(&mut self) {
        let Self { client, backend, session, held, subject_rates, .. } = self;
        let lease = session.lease.borrow();
        let RouteState::Serving(policy) = &lease.route.state else {
            // A route that refuses ends its connections; until then nothing larger than a control frame passes.
            (client.limits, backend.limits) = (Limits::CONTROL_ONLY, Limits::CONTROL_ONLY);
            (client.throttle, backend.throttle) = (None, None);
            return;
        };
        client.admit(policy.from_client, &policy.content.from_client, policy, held);
        backend.admit(policy.from_backend, &policy.content.from_backend, policy, held);
        client.watch(policy.tunnels.from_client);
        backend.watch(policy.tunnels.from_backend);
        let (route, facts) = (&lease.route.id, &session.facts);
        let shared = |from_client| Some(subject_rates.of(route, &facts.identity()?, from_client));
        client.pace(&policy.client_pacing, || shared(true));
        backend.pace(&policy.backend_pacing, || shared(false));
    }

    fn send_pings(&mut self, wake: &mut Wake<'_, '_>) {
        if self.phase != Phase::Open {
            return;
        }
        if self.client.ping && !self.client.writer.cut {
            self.client.ping = false;
            self.session.client.record_ping(self.report.began.elapsed());
            let sent = self.client.send_control(Opcode::Ping, &self.nonce, false, wake);
            self.sent_to_client(sent, wake);
        }
        if self.backend.ping && !self.backend.writer.cut {
            self.backend.ping = false;
            self.session.backend.record_ping(self.report.began.elapsed());
            let sent = self.backend.send_control(Opcode::Ping, &self.nonce, false, wake);
            self.sent_to_backend(&sent, wake);
        }
    }

    /// Client to backend. True if anything moved.
    fn pump_up(&mut self, wake: &mut Wake<'_, '_>) -> bool {
        let flow = &mut flow(Party::Client, &self.session, &mut self.report, &self.nonce);
        match pump(&mut self.client, &mut self.backend, flow, wake) {
            Pumped::Idle => return false,
            // A backend is lost when it can no longer be read.
            Pumped::Moved | Pumped::ToLost => {}
            Pumped::FromLost => self.lose_client(wake),
            Pumped::Violation(violation) => self.end(Party::Client.reason(violation), Initiator::Gateway, wake),
            Pumped::Exceeded(exceeded) => self.end(Party::Client.exceeded(exceeded), Initiator::Gateway, wake),
            Pumped::Refused => self.refuse(Party::Client, wake),
            Pumped::Closed(code) => self.pass_close(Reason::ClientClosed, code, Initiator::Client, wake.now),
        }
        true
    }

    /// Backend to client. True if anything moved.
    fn pump_down(&mut self, wake: &mut Wake<'_, '_>) -> bool {
        let flow = &mut flow(Party::Backend, &self.session, &mut self.report, &self.nonce);
        match pump(&mut self.backend, &mut self.client, flow, wake) {
            Pumped::Idle => return false,
            Pumped::Moved => {}
            Pumped::ToLost => self.lose_client(wake),
            Pumped::FromLost => {
                self.backend.gone = true;
                self.end(Reason::BackendLost, Initiator::Backend, wake);
            }
            Pumped::Violation(violation) => {
                self.end(Party::Backend.reason(violation), Initiator::Gateway, wake);
                self.backend.gone = true;
            }
            Pumped::Exceeded(exceeded) => {
                self.end(Party::Backend.exceeded(exceeded), Initiator::Gateway, wake);
                self.backend.gone = true;
            }
            Pumped::Refused => {
                self.refuse(Party::Backend, wake);
                self.backend.gone = true;
            }
            Pumped::Closed(code) => self.pass_close(Reason::BackendClosed, code, Initiator::Backend, wake.now),
        }
        true
    }

    /// Ends the connection because of what a message of this party says.
    fn refuse(&mut self, party: Party, wake: &mut Wake<'_, '_>) {
        let refused = match party {
            Party::Client => self.client.refused.take(),
            Party::Backend => self.backend.refused.take(),
        };
        let Some(message) = refused else { return };
        if self.report.ending.is_none() {
            self.report.detail = Some(Box::new(message.detail));
        }
        self.end(message.reason, Initiator::Gateway, wake);
    }

    /// A Close frame of one side went to the other: await the answer.
    fn pass_close(&mut self, reason: Reason, code: Option<u16>, initiator: Initiator, now: Tick) {
        if self.report.ending.is_none() {
            self.report.ending = Some(Ending { reason, code, initiator });
            self.session.closing.set(Some(now));
            self.phase = Phase::Closing;
        }
    }

    /// Begins the end, once. Each side that can still be told is told; the phase says what is awaited.
    fn end(&mut self, reason: Reason, initiator: Initiator, wake: &mut Wake<'_, '_>) {
        if self.report.ending.is_some() {
            if reason.cuts() {
                self.shut(wake);
            }
            return;
        }
        let code = reason.close_code();
        self.report.ending = Some(Ending { reason, code, initiator });
        self.session.closing.set(Some(wake.now));
        self.phase = Phase::Closing;
        self.close_backend(wake);
        self.close_client(code, wake);
        if reason.cuts() || self.client.writer.cut || self.client.gone {
            self.shut(wake);
        }
    }

    /// Nothing more is said to the client and nothing of it is judged any more.
    fn shut(&mut self, wake: &mut Wake<'_, '_>) {
        if matches!(self.phase, Phase::Open | Phase::Closing) {
            // A backend that closed first and that the client left without an answer.
            self.close_backend(wake);
            // A frame that is half-sent must not look like a clean end.
            self.phase = Phase::Shutting { notify: !self.client.writer.cut };
            self.report.tell();
            if self.session.closing.get().is_none() {
                self.session.closing.set(Some(wake.now));
            }
        }
    }

    /// Looks whether both sides have said all.
    fn advance(&mut self, wake: &mut Wake<'_, '_>) {
        if self.phase != Phase::Closing {
            return;
        }
        if self.backend.gone && !self.client.writer.told {
            // The backend ended without answering the client's Close: we answer.
            self.close_client(self.report.ending.and_then(|ending| ending.code), wake);
        }
        let answered = self.client.writer.told && self.client.closed;
        if self.client.gone || answered || (self.client.writer.cut && self.backend.gone) {
            self.shut(wake);
        }
    }

    fn close_client(&mut self, code: Option<u16>, wake: &mut Wake<'_, '_>) {
        if let Some(sent) = self.client.close(code, wake) {
            self.sent_to_client(sent, wake);
        }
    }

    /// Close 1001: for the backend the client goes away.
    fn close_backend(&mut self, wake: &mut Wake<'_, '_>) {
        if let Some(sent) = self.backend.close(Some(1001), wake) {
            self.sent_to_backend(&sent, wake);
        }
    }

    /// When nothing more goes to the backend it gets FIN, after its answer to a Close; errors no longer matter.
    fn shut_backend(&mut self, wake: &mut Wake<'_, '_>) {
        let Side { writer, closed, gone, .. } = &self.backend;
        let answered = writer.told && *closed;
        if (self.phase != Phase::Closing || answered || *gone) && !self.backend_shut {
            self.backend_shut = self.backend.peer.poll_shutdown(wake.cx, &mut true).is_ready();
        }
    }

    fn sent_to_client(&mut self, sent: Poll<std::io::Result<()>>, wake: &mut Wake<'_, '_>) {
        match sent {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => self.lose_client(wake),
            Poll::Pending => self.session.client.record_blocked(self.client.peer.unsent(), wake.now),
        }
    }

    fn sent_to_backend(&mut self, sent: &Poll<std::io::Result<()>>, wake: &Wake<'_, '_>) {
        // After an error the next read of the backend finds the same end, after what it said before.
        if sent.is_pending() {
            self.session.backend.record_blocked(self.backend.peer.unsent(), wake.now);
        }
    }

    fn lose_client(&mut self, wake: &mut Wake<'_, '_>) {
        self.client.gone = true;
        self.end(Reason::ClientLost, Initiator::Client, wake);
        self.shut(wake);
    }
}
