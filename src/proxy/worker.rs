//! Workers: one thread and one single-threaded runtime per core. The first accepts and hands each connection to the
//! worker with the fewest; every worker sweeps its own sessions.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::proxy::handshake::connection;
use crate::proxy::limits::capacity::{self, Slot};
use crate::proxy::plain::http;
use crate::proxy::relay::Relay;
use crate::proxy::relay::session::{self, Session, TICKS};
use crate::proxy::{Drain, Shared};
use crate::reason::Reason;
use crate::telemetry::access::Refused;

/// Connections that may wait for their worker; more are dropped, the worker is stuck.
const QUEUE: usize = 1024;
/// The pause after an accept that failed for want of files or memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a worker judges sessions again before it lets bytes move.
const JUDGING: Duration = Duration::from_millis(2);

thread_local! {
    static SESSIONS: RefCell<Vec<Weak<Session>>> = const { RefCell::new(Vec::new()) };
}

/// Puts a session under the sweeper's eye until it is dropped.
pub(crate) fn register(session: &Rc<Session>) {
    SESSIONS.with_borrow_mut(|sessions| sessions.push(Rc::downgrade(session)));
}

/// A connection on its way to its worker.
struct Accepted {
    tcp: StdStream,
    peer: SocketAddr,
    slot: Slot,
}

/// How the acceptor sees a worker.
struct Desk {
    queue: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
}

/// Starts the workers; the first also accepts.
pub(crate) fn start(
    shared: &Arc<Shared>,
    workers: usize,
    wss: Vec<StdListener>,
    plain: Vec<StdListener>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let mut desks = Vec::new();
    let mut seats = Vec::new();
    for index in 0..workers {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let load = Arc::new(AtomicUsize::new(0));
        desks.push(Desk { queue, load: Arc::clone(&load) });
        seats.push((index, waiting, load));
    }
    let mut listeners = Some((wss, plain, desks));
    let mut threads = Vec::new();
    for (index, waiting, load) in seats {
        let shared = Arc::clone(shared);
        let listeners = listeners.take();
        let runtime = move || -> io::Result<()> {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
            runtime.block_on(run(shared, waiting, load, listeners))
        };
        let thread = Builder::new().name(format!("worker-{index}")).spawn(move || {
            if let Err(error) = runtime() {
                tracing::error!(%error, worker = index, "a worker cannot run");
            }
        })?;
        threads.push(thread);
    }
    Ok(threads)
}

async fn run(
    shared: Arc<Shared>,
    mut waiting: mpsc::Receiver<Accepted>,
    load: Arc<AtomicUsize>,
    listeners: Option<(Vec<StdListener>, Vec<StdListener>, Vec<Desk>)>,
) -> io::Result<()> {
    if let Some((wss, plain, desks)) = listeners {
        let desks = Rc::new(desks);
        tokio::task::spawn_local(measure(Arc::clone(&shared)));
        for listener in wss {
            tokio::task::spawn_local(accept(Arc::clone(&shared), TcpListener::from_std(listener)?, Rc::clone(&desks)));
        }
        for listener in plain {
            tokio::task::spawn_local(http::serve(Arc::clone(&shared), TcpListener::from_std(listener)?));
        }
    }
    let sweeper = tokio::task::spawn_local(sweep(Arc::clone(&shared)));
    let mut drain = shared.drain.clone();
    let over = drain.wait_for(|drain| *drain == Drain::Over);
    let mut over = std::pin::pin!(over);
    loop {
        tokio::select! {
            biased;
            _ = &mut over => break,
            accepted = waiting.recv() => match accepted {
                Some(accepted) => spawn(&shared, accepted, &load),
                // The acceptor ended: a drain. What is live goes on.
                None => {
                    let _ = (&mut over).await;
                    break;
                }
            },
        }
    }
    sweeper.abort();
    Ok(())
}

/// Counts a worker's connections.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn spawn(shared: &Arc<Shared>, accepted: Accepted, load: &Arc<AtomicUsize>) {
    let held = (accepted.slot, Load(Arc::clone(load)));
    let Ok(tcp) = TcpStream::from_std(accepted.tcp) else { return };
    let serve = connection::serve(Arc::clone(shared), tcp, accepted.peer);
    tokio::task::spawn_local(Task { stage: Stage::Handshake(Box::pin(serve)), _held: held });
}

/// A connection's task: the handshake in a box of its own, freed before the relay begins, so that a live connection
/// is as slim as its relay.
struct Task {
    stage: Stage,
    _held: (Slot, Load),
}

#[expect(clippy::large_enum_variant, reason = "the large one is what lives long; a box of its own would cost more")]
enum Stage {
    Handshake(Pin<Box<dyn Future<Output = Option<Relay>>>>),
    Relay(Relay),
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Handshake(handshake) => match handshake.as_mut().poll(cx) {
                    Poll::Ready(Some(relay)) => self.stage = Stage::Relay(relay),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Relay(relay) => return Pin::new(relay).poll(cx),
            }
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, desks: Rc<Vec<Desk>>) {
    let mut drain = shared.drain.clone();
    let closing = drain.wait_for(|drain| *drain != Drain::Serving);
    let mut closing = std::pin::pin!(closing);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut closing => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of files or memory: others may end meanwhile. A busy loop would help nobody.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "connections cannot be accepted; they wait");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        failing = false;
        let slot = match shared.capacity.enter() {
            Ok(slot) => slot,
            Err(reason) => {
                turned_away(&shared, reason, peer);
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let Some(desk) = desks.iter().min_by_key(|desk| desk.load.load(Ordering::Relaxed)) else { return };
        let Ok(tcp) = tcp.into_std() else { continue };
        desk.load.fetch_add(1, Ordering::Relaxed);
        if desk.queue.try_send(Accepted { tcp, peer, slot }).is_err() {
            desk.load.fetch_sub(1, Ordering::Relaxed);
            turned_away(&shared, Reason::Overloaded, peer);
        }
    }
}

/// Counts and writes down a connection that was ended before its first byte was read as TLS or HTTP.
pub(crate) fn turned_away(shared: &Shared, reason: Reason, peer: SocketAddr) {
    shared.metrics.refused(reason, None);
    let client = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    shared.access.refused(&Refused {
        reason,
        status: None,
        client,
        proxy: None,
        host: None,
        path: None,
        route: None,
        backend: None,
    });
}

/// Looks at what is used of the capacity, for the door and for the metrics.
async fn measure(shared: Arc<Shared>) {
    let mut tick = interval(capacity::LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.capacity.look();
        shared.metrics.capacity(shared.capacity.measured(shared.meters.busiest()));
    }
}

/// Moves the worker's clock, visits each session once a second, and all of them when routes changed.
async fn sweep(shared: Arc<Shared>) {
    let mut tick = interval(Duration::from_secs(1) / TICKS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = tokio::time::Instant::now();
    let mut changed = shared.changed.clone();
    let mut draining: Option<(u32, Duration)> = None;
    let mut visited = 0;
    loop {
        let routes = tokio::select! {
            _ = tick.tick() => false,
            changed = changed.changed() => changed.is_ok(),
        };
        let now = 1 + u32::try_from(began.elapsed().as_millis() * u128::from(TICKS) / 1000).unwrap_or(u32::MAX - 1);
        session::set_now(now);
        if draining.is_none()
            && let Drain::Closing { window } = *shared.drain.borrow()
        {
            draining = Some((now, window));
        }
        if routes {
            changed.borrow_and_update();
            let all = SESSIONS.with_borrow(Vec::clone);
            let mut since = Instant::now();
            for session in all {
                if let Some(session) = session.upgrade() {
                    session.rejudge(&shared.live);
                }
                // Most are judged in no time, but chains of client certificates are verified anew: frames go first.
                if since.elapsed() >= JUDGING {
                    tokio::task::yield_now().await;
                    since = Instant::now();
                }
            }
            continue;
        }
        let pressed = shared.capacity.is_pressed();
        if let Some((since, window)) = draining {
            // All of them: who misses its turn would be cut off without a Close at the deadline.
            for session in part(0, 1) {
                session.drain(since, window);
            }
        }
        // A tick that came late stands for those that it left out, a second's work at most.
        for tick in now.saturating_sub(TICKS).max(visited) + 1..=now {
            for session in part(tick % TICKS, TICKS) {
                session.sweep(pressed);
            }
        }
        visited = now;
        shared.meters.attempts.tidy(now, Instant::now());
    }
}

/// One of so many parts of the sessions, so that each tick does its share of a second's work; forgets those that ended.
fn part(part: u32, parts: u32) -> Vec<Rc<Session>> {
    SESSIONS.with_borrow_mut(|sessions| {
        let (part, parts) = (part as usize, parts as usize);
        let (mut index, end) = (sessions.len() * part / parts, sessions.len() * (part + 1) / parts);
        let mut live = Vec::with_capacity(end - index);
        while index < end.min(sessions.len()) {
            match sessions[index].upgrade() {
                Some(session) => {
                    live.push(session);
                    index += 1;
                }
                // What takes its place is looked at now: it may come from a part whose turn it would miss.
                None => drop(sessions.swap_remove(index)),
            }
        }
        if sessions.capacity() > 64 && sessions.len() < sessions.capacity() / 4 {
            sessions.shrink_to_fit();
        }
        live
    })
}
