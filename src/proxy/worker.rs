//! One worker: what it keeps and lends to its connections, and the sweeper that looks after them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::policy::question::{KeptQuestion, Verdict};
use crate::proxy::clock::{Clock, TICKS, Tick, wall};
use crate::proxy::drain::Drain;
use crate::proxy::io::buffers::Buffers;
use crate::proxy::limits::fair_queue::FairQueue;
use crate::proxy::relay::session::Session;
use crate::proxy::relay::sweep::Sessions;
use crate::proxy::relay::throttle;
use crate::proxy::shared::Shared;
use crate::reason::Reason;
use crate::telemetry::access::worker::WorkerLog;
use crate::telemetry::metrics::{MessageSizes, Recheck};

/// How long a worker judges sessions again before it lets bytes move.
const JUDGING: Duration = Duration::from_millis(2);

/// What one worker keeps. Its connections hold it by [`Rc`] and are handed what they need of it: there is no other way to
/// what is a worker's own.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Clock,
    pub(crate) buffers: RefCell<Buffers>,
    pub(crate) sessions: Sessions,
    /// TLS handshakes that wait to be computed.
    pub(crate) tls_queue: FairQueue,
    /// Where the sizes of messages are counted.
    pub(crate) sizes: MessageSizes,
    /// Where lines of the access log are written.
    pub(crate) log: WorkerLog,
}

impl Worker {
    /// A worker that has no connection yet.
    pub(crate) fn new(shared: Arc<Shared>, log: WorkerLog) -> Rc<Self> {
        Rc::new(Self {
            log,
            sizes: shared.metrics.message_sizes(),
            shared,
            clock: Clock::new(),
            buffers: RefCell::new(Buffers::new()),
            sessions: Sessions::default(),
            tls_queue: FairQueue::default(),
        })
    }

    /// A byte by chance.
    pub(crate) fn chance(&self) -> u8 {
        self.mask()[0]
    }

    /// A fresh masking key outside of the relay.
    pub(crate) fn mask(&self) -> [u8; 4] {
        self.buffers.borrow_mut().masks.next()
    }

    /// Judges a session again, because its route or a key set may have changed.
    pub(crate) fn rejudge(&self, session: &Session) {
        session.rejudge(&self.shared.live, self.clock.now(), wall());
        let route = Arc::clone(&session.lease.borrow().route);
        if self.shared.auth.key_has_left(&route, &session.facts) {
            session.end(Reason::KeyRemoved);
        }
    }

    /// Judges all sessions again, because routes or key sets changed.
    async fn rejudge_all(&self) {
        let mut since = Instant::now();
        for session in self.sessions.all() {
            self.rejudge(&session);
            // Most are judged in no time, but chains of client certificates are verified anew: frames go first.
            if since.elapsed() >= JUDGING {
                tokio::task::yield_now().await;
                since = Instant::now();
            }
        }
    }

    /// Asks the External service that admitted a connection whether it still does.
    async fn recheck(self: Rc<Self>, session: Rc<Session>, kept: Rc<KeptQuestion>) {
        let route = Arc::clone(&session.lease.borrow().route);
        let verdict = self.shared.auth.ask_again(&route, &session.facts, &kept).await;
        self.shared.metrics.route(route.id.label()).rechecked(match verdict {
            Verdict::Admitted => Recheck::Admitted,
            Verdict::Denied => Recheck::Denied,
            Verdict::Unavailable => Recheck::Unavailable,
        });
        session.rechecked(verdict, self.clock.now());
    }

    /// Visits the sessions whose turn it is, after the tick `visited`.
    fn visit(self: &Rc<Self>, visited: Tick, now: Tick, draining: Option<(Tick, Duration)>) {
        if let Some((since, window)) = draining {
            // All of them: one that misses its turn would be cut off without a Close at the deadline.
            for session in self.sessions.all() {
                session.drain(since, window, now);
            }
        }
        let (pressed, wall) = (self.shared.capacity.is_pressed(), wall());
        // A tick that came late stands for those that it left out, a second's work at most.
        for tick in now.count().saturating_sub(TICKS).max(visited.count()) + 1..=now.count() {
            for session in self.sessions.part(tick % TICKS, TICKS) {
                session.count_holding(&self.shared.capacity);
                session.sweep(pressed, now, wall);
                if let Some(kept) = session.begin_recheck(now) {
                    tokio::task::spawn_local(Rc::clone(self).recheck(session, kept));
                }
            }
        }
    }
}

/// Moves the worker's clock, visits each session once a second, and all of them when routes changed.
pub(crate) async fn sweep(worker: Rc<Worker>) {
    let mut tick = interval(Duration::from_secs(1) / TICKS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = worker.shared.changed.clone();
    let mut rotated = worker.shared.auth.rotation.changed();
    let mut draining: Option<(Tick, Duration)> = None;
    let mut visited = Tick::FIRST;
    loop {
        let again = tokio::select! {
            _ = tick.tick() => false,
            changed = changed.changed() => changed.is_ok(),
            rotated = rotated.changed() => rotated.is_ok(),
        };
        let now = worker.clock.advance();
        if draining.is_none()
            && let Drain::Closing { window } = *worker.shared.drain.borrow()
        {
            draining = Some((now, window));
        }
        if again {
            changed.borrow_and_update();
            rotated.borrow_and_update();
            worker.rejudge_all().await;
            continue;
        }
        worker.visit(visited, now, draining);
        worker.sessions.wake(now);
        visited = now;
        worker.shared.handshake_rates.tidy(now.count(), Instant::now());
        worker.shared.subject_rates.tidy(now.count(), throttle::nanos(now));
    }
}
