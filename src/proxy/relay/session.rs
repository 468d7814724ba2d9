//! What a live connection shares with its worker's sweeper: stamps, commands, and the lease on its route.
//!
//! Connections arm no timers. A sweeper visits every session of its worker once a second and compares stamps; a stamp
//! costs one store where bytes move anyway. All times are ticks of the worker's coarse clock, and are handed in.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use rustls_pki_types::UnixTime;

use crate::policy::question::{KeptQuestion, Verdict};
use crate::policy::{Connection, Facts, Policy, admit};
use crate::proxy::clock::{TICKS, Tick, ticks};
use crate::proxy::limits::capacity::Capacity;
use crate::proxy::limits::permits::Counted;
use crate::proxy::relay::activity::{Heartbeat, PeerActivity};
use crate::proxy::relay::recheck::Recheck;
use crate::proxy::relay::waiting::{Waiting, WakerCell};
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::snapshot::live::{Lease, Live};

/// How long each side may take to answer a Close frame, in ticks.
pub(crate) const CLOSE_TICKS: u32 = 5 * TICKS;
/// How long a peer may take less than its pace of the bytes that wait for it, in ticks.
const STALL_TICKS: u32 = 30 * TICKS;

/// What the sweeper, a drain or a changed route asks of a connection; it applies them at its next poll.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Commands {
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

/// The shared part of one live connection.
pub(crate) struct Session {
    /// What was judged, to be judged again.
    pub(crate) facts: Facts,
    /// The hold on the route.
    pub(crate) lease: RefCell<Lease>,
    /// Wakes the connection's task.
    pub(crate) waker: Rc<WakerCell>,
    /// Who of the worker waits for its time.
    waiting: OnceCell<Rc<Waiting>>,
    /// What the connection is asked to do.
    pub(crate) commands: Cell<Commands>,
    /// What the client does.
    pub(crate) client: PeerActivity,
    /// What the backend does.
    pub(crate) backend: PeerActivity,
    /// When a data frame passed last, in either direction.
    pub(crate) data: Cell<Tick>,
    /// Its count among the directions that make the kernel hold bytes: because of the client, and of the backend.
    holding: Cell<[Option<Counted>; 2]>,
    /// When the Close handshake began.
    pub(crate) closing: Cell<Option<Tick>>,
    /// When the connection was accepted.
    opened: Tick,
    /// Whether the External service that admitted it still does.
    recheck: Recheck,
    /// When the client's certificate expires; `None`: it has none.
    expires: Option<Tick>,
    /// A number between 0 and 255 that spreads what would otherwise happen to all connections at once.
    spread: u8,
}

impl Session {
    /// A session that begins at `now`, which is `wall` by the wall clock. `kept` is what an External service is asked with
    /// again.
    pub(crate) fn new(
        facts: Facts,
        kept: Option<KeptQuestion>,
        lease: Lease,
        spread: u8,
        now: Tick,
        wall: i64,
    ) -> Rc<Self> {
        let recheck = Recheck::new(kept, spread, now);
        if let RouteState::Serving(policy) = &lease.route.state {
            recheck.follow(policy, &facts, now);
        }
        let certificate = facts.client_certificate.as_ref();
        let left = certificate.map(|certificate| u64::try_from(certificate.not_after - wall).unwrap_or(0));
        Rc::new(Self {
            facts,
            lease: RefCell::new(lease),
            waker: Rc::default(),
            waiting: OnceCell::new(),
            commands: Cell::default(),
            client: PeerActivity::new(now),
            backend: PeerActivity::new(now),
            data: Cell::new(now),
            holding: Cell::default(),
            closing: Cell::new(None),
            opened: now,
            recheck,
            expires: left.map(|left| now.after(ticks(Duration::from_secs(left)))),
            spread,
        })
    }

    /// Gives a command and wakes the connection.
    fn command(&self, change: impl FnOnce(&mut Commands)) {
        let mut commands = self.commands.get();
        change(&mut commands);
        self.commands.set(commands);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Joins the connections of a worker.
    pub(super) fn join(&self, waiting: &Rc<Waiting>) {
        let _ = self.waiting.set(Rc::clone(waiting));
    }

    /// Wakes the connection at a tick.
    pub(super) fn wake_at(&self, tick: Tick) {
        if let Some(waiting) = self.waiting.get() {
            waiting.wake_at(tick, &self.waker);
        }
    }

    /// Asks the connection to end; the first reason stands.
    pub(crate) fn end(&self, reason: Reason) {
        self.command(|commands| commands.end = commands.end.or(Some(reason)));
    }

    /// Judges the connection again after its route changed: it stays if the same `admit` still lets it in.
    pub(crate) fn rejudge(&self, live: &Live, now: Tick, wall: i64) {
        if !self.lease.borrow().changed() {
            return;
        }
        let next = live.renew(&self.lease.borrow(), &self.facts.host, &self.facts.path);
        let reason = match &next {
            Some(next) => match &next.route.state {
                RouteState::Serving(policy) => self.withdrawn(policy, wall),
                RouteState::Refusing(_) => Some(Reason::AccessWithdrawn),
            },
            None => Some(Reason::RouteRemoved),
        };
        match (reason, next) {
            (None, Some(next)) => {
                if let RouteState::Serving(policy) = &next.route.state {
                    self.recheck.follow(policy, &self.facts, now);
                }
                *self.lease.borrow_mut() = next;
                self.command(|commands| commands.refresh = true);
            }
            (reason, _) => self.end(reason.unwrap_or(Reason::RouteRemoved)),
        }
    }

    /// Why this policy would no longer let the connection in; `None`: it would.
    fn withdrawn(&self, policy: &Policy, wall: i64) -> Option<Reason> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(wall).unwrap_or(0)));
        let renewed = self.facts.renewed(policy.client_certificates.as_ref(), now);
        match admit(policy, renewed.as_ref().unwrap_or(&self.facts), wall) {
            Ok(_) => None,
            Err(Reason::CredentialExpired) => Some(Reason::CredentialExpired),
            Err(_) => Some(Reason::AccessWithdrawn),
        }
    }

    /// Ends the connection for a shutdown when its turn within the window has come.
    pub(crate) fn drain(&self, since: Tick, window: Duration, now: Tick) {
        let turn = u64::from(ticks(window)) * u64::from(self.spread) / 256;
        if u64::from(now.since(since)) >= turn {
            self.end(Reason::Draining);
        }
    }

    /// Compares the stamps with what the route allows. Called about once a second. `pressed`: memory is short, and a
    /// connection that makes us hold bytes must go.
    pub(crate) fn sweep(&self, pressed: bool, now: Tick, wall: i64) {
        if let Some(since) = self.closing.get() {
            if now.since(since) >= CLOSE_TICKS {
                self.command(|commands| commands.abandon = true);
            }
            return;
        }
        let reason = if self.expires.is_some_and(|expires| now >= expires) {
            Some(Reason::ClientCertificateExpired)
        } else if pressed && (self.client.makes_us_hold() || self.backend.makes_us_hold()) {
            Some(Reason::Overloaded)
        } else if self.recheck.is_missed(now) {
            Some(Reason::RecheckMissed)
        } else {
            self.overdue(now, wall)
        };
        if let Some(reason) = reason {
            self.end(reason);
        }
    }

    /// What the External service must be asked with at `now`, if it is due; the question is under way then.
    pub(crate) fn begin_recheck(&self, now: Tick) -> Option<Rc<KeptQuestion>> {
        let open = self.closing.get().is_none() && self.commands.get().end.is_none();
        if open { self.recheck.begin(now) } else { None }
    }

    /// What the External service says of the connection at `now`.
    pub(crate) fn rechecked(&self, verdict: Verdict, now: Tick) {
        self.recheck.end(verdict, now);
        if verdict == Verdict::Denied {
            self.end(Reason::ExternalWithdrawn);
        }
    }

    /// Counts the directions that make the kernel hold bytes. Called about once a second.
    pub(crate) fn count_holding(&self, capacity: &Capacity) {
        let [client, backend] = self.holding.take();
        let count = |peer: &PeerActivity, held: Option<Counted>| {
            peer.makes_us_hold().then(|| held.or_else(|| capacity.hold())).flatten()
        };
        self.holding.set([count(&self.client, client), count(&self.backend, backend)]);
    }

    fn overdue(&self, now: Tick, wall: i64) -> Option<Reason> {
        // A peer that a rate keeps us from reading is neither idle nor dead, and need not read either.
        let stood = self.client.stand_still(now).max(self.backend.stand_still(now));
        if stood > 0 {
            self.data.set(now.min(self.data.get().after(stood)));
        }
        if self.client.is_blocked_for(STALL_TICKS, now) {
            return Some(Reason::ClientStalled);
        }
        if self.backend.is_blocked_for(STALL_TICKS, now) {
            return Some(Reason::BackendStalled);
        }
        // While bytes wait for one peer we do not read from the other: its clocks stand still.
        let (client_reads, backend_reads) = (!self.client.is_blocked(), !self.backend.is_blocked());
        if !backend_reads {
            self.client.pause(now);
        }
        if !client_reads {
            self.backend.pause(now);
        }
        let lease = self.lease.borrow();
        let RouteState::Serving(policy) = &lease.route.state else { return None };
        if backend_reads && self.client.is_too_slow(ticks(policy.client_pacing.message_timeout), now) {
            return Some(Reason::MessageTimeout);
        }
        if client_reads && self.backend.is_too_slow(ticks(policy.backend_pacing.message_timeout), now) {
            return Some(Reason::BackendMessageTimeout);
        }
        let policy = &policy.connection;
        let expires = self.facts.proof.as_ref().and_then(|proof| proof.expires);
        if !policy.outlives_credential && expires.is_some_and(|expires| expires <= wall) {
            return Some(Reason::CredentialExpired);
        }
        self.heartbeat(policy, now, client_reads, backend_reads).or_else(|| self.outlived(policy, now))
    }

    /// Asks for pings that are due; the reason if a peer answers none.
    fn heartbeat(&self, policy: &Connection, now: Tick, client_reads: bool, backend_reads: bool) -> Option<Reason> {
        let heartbeat = policy.heartbeat.as_ref()?;
        let interval = ticks(heartbeat.interval);
        if backend_reads {
            match self.client.heartbeat(interval, heartbeat.missed, now) {
                Heartbeat::Ping => self.command(|commands| commands.ping_client = true),
                Heartbeat::Missed => return Some(Reason::HeartbeatMissed),
                Heartbeat::Quiet => {}
            }
        } else {
            self.client.record_read(now);
        }
        if heartbeat.backend && client_reads {
            match self.backend.heartbeat(interval, heartbeat.missed, now) {
                Heartbeat::Ping => self.command(|commands| commands.ping_backend = true),
                Heartbeat::Missed => return Some(Reason::BackendHeartbeatMissed),
                Heartbeat::Quiet => {}
            }
        }
        None
    }

    /// `idleTimeout` and `maxDuration`.
    fn outlived(&self, policy: &Connection, now: Tick) -> Option<Reason> {
        if policy.idle_timeout.is_some_and(|limit| now.since(self.data.get()) >= ticks(limit)) {
            return Some(Reason::IdleTimeout);
        }
        // Less up to a tenth, so that connections opened together do not end together.
        let limit = ticks(policy.max_duration?);
        let jitter = u64::from(limit) * u64::from(self.spread) / 2560;
        let limit = limit - u32::try_from(jitter).unwrap_or(0);
        (now.since(self.opened) >= limit).then_some(Reason::MaxDuration)
    }
}
