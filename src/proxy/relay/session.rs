//! What a live connection shares with its worker's sweeper: stamps, orders, and the hold on its route.
//!
//! Connections arm no timers. A sweeper visits every session of its worker once a second and compares stamps; a stamp
//! costs one store where bytes move anyway. All times are ticks of the worker's coarse clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;

use crate::policy::{Connection, Facts, admit};
use crate::proxy::auth::verify;
use crate::reason::Reason;
use crate::snapshot::{Lease, Live, RouteState};
use crate::telemetry::access::Id;

/// Ticks in a second.
pub(crate) const TICKS: u32 = 4;

/// How long each side may take to answer a Close frame, in ticks.
pub(crate) const CLOSE_TICKS: u32 = 5 * TICKS;
/// How long a peer may take none of the bytes that wait for it, in ticks.
const STALL_TICKS: u32 = 30 * TICKS;
/// How long a frame or message may take at the least, in ticks.
const FRAME_TICKS: u32 = 30 * TICKS;
/// The slowest pace of a frame or message that takes longer, in bytes a second.
const FRAME_PACE: u64 = 1024;

thread_local! {
    static NOW: Cell<u32> = const { Cell::new(1) };
}

/// The worker's coarse clock: ticks since the worker began, never 0.
pub(crate) fn now() -> u32 {
    NOW.get()
}

/// Moves the worker's clock; the sweeper only.
pub(crate) fn set_now(ticks: u32) {
    NOW.set(ticks.max(1));
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() * u128::from(TICKS) / 1000).unwrap_or(u32::MAX).max(1)
}

/// The tick at which a time of the wall clock, seconds since the Unix epoch, is over; never 0.
fn tick_of(time: i64) -> u32 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(u64::try_from(time).unwrap_or(0)).saturating_sub(wall);
    now().saturating_add(ticks(left))
}

/// What the sweeper, a drain or a changed route asks of a connection; it obeys at its next poll.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// End for this reason.
    pub(crate) end: Option<Reason>,
    /// Send a ping to the client.
    pub(crate) ping_client: bool,
    /// Send a ping to the backend.
    pub(crate) ping_backend: bool,
    /// The route's limits changed: read them again.
    pub(crate) refresh: bool,
    /// The time for the Close handshake is over.
    pub(crate) abandon: bool,
}

/// One peer's signs of life. 0 means "never" or "not now".
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// When bytes of it arrived last.
    pub(crate) heard: Cell<u32>,
    /// Since when bytes for it wait.
    pub(crate) blocked: Cell<u32>,
    /// Since when a frame or message of it is unfinished.
    pub(crate) begun: Cell<u32>,
    /// Bytes of that frame or message so far.
    pub(crate) progress: Cell<u64>,
    /// Our pings without an answer.
    pings: Cell<u32>,
    /// When the last of them was sent.
    pinged: Cell<u32>,
    /// The other peer's ping was passed on and not answered yet: ours waits.
    pub(crate) forwarded: Cell<bool>,
}

impl Pulse {
    /// Bytes arrived: the peer lives.
    pub(crate) fn beat(&self) {
        self.heard.set(now());
        self.pings.set(0);
    }

    fn is_blocked_for(&self, ticks: u32) -> bool {
        let since = self.blocked.get();
        since != 0 && now() - since >= ticks
    }

    /// The peer was not read for a second: that is not time that it took.
    fn pause(&self) {
        if self.begun.get() != 0 {
            self.begun.set(now().min(self.begun.get() + TICKS));
        }
    }

    fn is_too_slow(&self) -> bool {
        let since = self.begun.get();
        if since == 0 {
            return false;
        }
        let allowed = u64::from(FRAME_TICKS) + self.progress.get() * u64::from(TICKS) / FRAME_PACE;
        u64::from(now() - since) > allowed
    }

    /// Whether a ping is due (`Some(true)`), the peer is to be given up (`Some(false)`), or neither.
    fn judge(&self, interval: Duration, missed: u32) -> Option<bool> {
        let last = self.heard.get().max(self.pinged.get());
        if now() - last < ticks(interval) {
            return None;
        }
        if self.pings.get() >= missed {
            return Some(false);
        }
        self.pings.set(self.pings.get() + 1);
        self.pinged.set(now());
        (!self.forwarded.get()).then_some(true)
    }
}

/// The shared part of one live connection.
pub(crate) struct Session {
    /// Joins the access log's lines.
    pub(crate) id: Id,
    /// What was judged, to be judged again.
    pub(crate) facts: Facts,
    /// The hold on the route.
    pub(crate) lease: RefCell<Lease>,
    /// Wakes the connection's task.
    pub(crate) waker: RefCell<Option<Waker>>,
    /// What the connection is asked to do.
    pub(crate) orders: Cell<Orders>,
    /// The client's signs of life.
    pub(crate) client: Pulse,
    /// The backend's signs of life.
    pub(crate) backend: Pulse,
    /// When a data frame passed last, in either direction.
    pub(crate) data: Cell<u32>,
    /// When the Close handshake began.
    pub(crate) closing: Cell<u32>,
    /// When the connection was accepted.
    opened: u32,
    /// When the client's certificate expires; 0: it has none.
    expires: u32,
    /// A number between 0 and 255 that spreads what would otherwise happen to all connections at once.
    spread: u8,
}

impl Session {
    /// A session that begins now.
    pub(crate) fn new(id: Id, facts: Facts, lease: Lease, spread: u8) -> Rc<Self> {
        let expires = facts.client_certificate.as_ref().map_or(0, |certificate| tick_of(certificate.not_after));
        let session = Self {
            id,
            facts,
            lease: RefCell::new(lease),
            waker: RefCell::new(None),
            orders: Cell::default(),
            client: Pulse::default(),
            backend: Pulse::default(),
            data: Cell::new(now()),
            closing: Cell::new(0),
            opened: now(),
            expires,
            spread,
        };
        session.client.beat();
        session.backend.beat();
        Rc::new(session)
    }

    /// Gives an order and wakes the connection.
    pub(crate) fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = self.orders.get();
        change(&mut orders);
        self.orders.set(orders);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Asks the connection to end; the first reason stands.
    pub(crate) fn end(&self, reason: Reason) {
        self.order(|orders| orders.end = orders.end.or(Some(reason)));
    }

    /// Judges the connection again after its route changed: it stays if the same `admit` still lets it in.
    pub(crate) fn rejudge(&self, live: &Live) {
        if !self.lease.borrow().changed() {
            return;
        }
        let next = live.renew(&self.lease.borrow(), &self.facts.host, &self.facts.path);
        let reason = match &next {
            Some(next) => match &next.route.state {
                RouteState::Serving(policy) => {
                    let renewed = self.facts.renewed(policy, UnixTime::now());
                    match admit(policy, renewed.as_ref().unwrap_or(&self.facts), verify::now()) {
                        Ok(_) => None,
                        Err(Reason::CredentialExpired) => Some(Reason::CredentialExpired),
                        Err(_) => Some(Reason::AccessWithdrawn),
                    }
                }
                RouteState::Refusing(_) => Some(Reason::AccessWithdrawn),
            },
            None => Some(Reason::RouteRemoved),
        };
        match (reason, next) {
            (None, Some(next)) => {
                *self.lease.borrow_mut() = next;
                self.order(|orders| orders.refresh = true);
            }
            (reason, _) => self.end(reason.unwrap_or(Reason::RouteRemoved)),
        }
    }

    /// Ends the connection for a shutdown when its turn within the window has come.
    pub(crate) fn drain(&self, since: u32, window: Duration) {
        let turn = u64::from(ticks(window)) * u64::from(self.spread) / 256;
        if u64::from(now() - since) >= turn {
            self.end(Reason::Draining);
        }
    }

    /// Compares the stamps with what the route allows. Called about once a second. `pressed`: memory is short, and
    /// whoever makes us hold bytes has to go.
    pub(crate) fn sweep(&self, pressed: bool) {
        if self.closing.get() != 0 {
            if now() - self.closing.get() >= CLOSE_TICKS {
                self.order(|orders| orders.abandon = true);
            }
            return;
        }
        let holds = self.client.blocked.get() != 0 || self.backend.blocked.get() != 0;
        let reason = if self.expires != 0 && now() >= self.expires {
            Some(Reason::ClientCertificateExpired)
        } else if pressed && holds {
            Some(Reason::Overloaded)
        } else {
            self.overdue()
        };
        if let Some(reason) = reason {
            self.end(reason);
        }
    }

    fn overdue(&self) -> Option<Reason> {
        if self.client.is_blocked_for(STALL_TICKS) {
            return Some(Reason::ClientStalled);
        }
        if self.backend.is_blocked_for(STALL_TICKS) {
            return Some(Reason::BackendStalled);
        }
        // While bytes wait for one peer we do not read from the other: its clocks stand still.
        let (client_reads, backend_reads) = (self.client.blocked.get() == 0, self.backend.blocked.get() == 0);
        if !backend_reads {
            self.client.pause();
        }
        if !client_reads {
            self.backend.pause();
        }
        if backend_reads && self.client.is_too_slow() {
            return Some(Reason::FrameTooSlow);
        }
        if client_reads && self.backend.is_too_slow() {
            return Some(Reason::BackendProtocolError);
        }
        let lease = self.lease.borrow();
        let RouteState::Serving(policy) = &lease.route.state else { return None };
        let policy = &policy.connection;
        let expires = self.facts.proof.as_ref().and_then(|proof| proof.expires);
        if !policy.outlives_credential && expires.is_some_and(|expires| expires <= verify::now()) {
            return Some(Reason::CredentialExpired);
        }
        if let Some(heartbeat) = policy.heartbeat {
            if backend_reads {
                match self.client.judge(heartbeat.interval, heartbeat.missed) {
                    Some(true) => self.order(|orders| orders.ping_client = true),
                    Some(false) => return Some(Reason::HeartbeatMissed),
                    None => {}
                }
            } else {
                self.client.beat();
            }
            if heartbeat.backend && client_reads {
                match self.backend.judge(heartbeat.interval, heartbeat.missed) {
                    Some(true) => self.order(|orders| orders.ping_backend = true),
                    Some(false) => return Some(Reason::BackendHeartbeatMissed),
                    None => {}
                }
            }
        }
        if policy.idle_timeout.is_some_and(|limit| now() - self.data.get() >= ticks(limit)) {
            return Some(Reason::IdleTimeout);
        }
        self.is_too_old(policy).then_some(Reason::MaxDuration)
    }

    /// `maxDuration` less up to a tenth, so that connections opened together do not end together.
    fn is_too_old(&self, policy: &Connection) -> bool {
        policy.max_duration.is_some_and(|limit| {
            let limit = ticks(limit);
            let jitter = u64::from(limit) * u64::from(self.spread) / 2560;
            now() - self.opened >= limit - u32::try_from(jitter).unwrap_or(0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_a_peer_is_not_read_is_not_its_slowness() {
        let pulse = Pulse::default();
        set_now(1);
        pulse.begun.set(now());
        // A second of reading, then the other peer takes nothing for as long as it may.
        for second in 1..30 {
            set_now(1 + (1 + second) * TICKS);
            pulse.pause();
        }
        set_now(now() + 5 * TICKS);
        assert!(!pulse.is_too_slow());
        set_now(now() + 30 * TICKS);
        assert!(pulse.is_too_slow());
    }

    #[test]
    fn nothing_begun_stays_nothing_begun() {
        let pulse = Pulse::default();
        set_now(9);
        pulse.pause();
        assert_eq!(pulse.begun.get(), 0);
    }
}
