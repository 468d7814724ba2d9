//! From listeners to workers: one thread and one single-threaded runtime per core. The first accepts and hands each
//! connection to the worker with the fewest.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{Builder, JoinHandle};
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::accept::{self, Listener};
use crate::proxy::drain::Drain;
use crate::proxy::handshake::connection;
use crate::proxy::handshake::refusal::turned_away;
use crate::proxy::limits::capacity::{self, Socket};
use crate::proxy::limits::permits::{Count, Counted};
use crate::proxy::plain;
use crate::proxy::relay::Relay;
use crate::proxy::shared::Shared;
use crate::proxy::worker::{Worker, sweep};
use crate::reason::Reason;
use crate::telemetry::access::log::AccessLog;
use crate::telemetry::access::worker::WorkerLog;

/// Connections that may wait for their worker; more are dropped, the worker is stuck.
const QUEUE: usize = 1024;

/// A connection on its way to its worker.
struct Accepted {
    tcp: StdStream,
    peer: SocketAddr,
    socket: Socket,
    counted: Counted,
}

/// How the acceptor sees a worker.
struct WorkerHandle {
    queue: mpsc::Sender<Accepted>,
    connections: Arc<Count>,
}

/// What the first worker accepts from.
struct Listeners {
    wss: Vec<StdListener>,
    plain: Vec<StdListener>,
    workers: Vec<WorkerHandle>,
}

/// Starts the workers; the first also accepts.
///
/// # Errors
/// A thread cannot be started.
pub(crate) fn start(
    shared: &Arc<Shared>,
    log: &AccessLog,
    workers: usize,
    wss: Vec<StdListener>,
    plain: Vec<StdListener>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let (handles, queues): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (queue, accepted) = mpsc::channel(QUEUE);
            (WorkerHandle { queue, connections: Arc::default() }, accepted)
        })
        .unzip();
    let mut listeners = Some(Listeners { wss, plain, workers: handles });
    let mut threads = Vec::new();
    for (index, accepted) in queues.into_iter().enumerate() {
        let (shared, log, listeners) = (Arc::clone(shared), log.clone(), listeners.take());
        let runtime = move || -> io::Result<()> {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
            runtime.block_on(run(shared, &log, accepted, listeners))
        };
        let thread = Builder::new().name(format!("worker-{index}")).spawn(move || {
            if let Err(error) = runtime() {
                tracing::error!(%error, worker = index, "worker could not start");
            }
        })?;
        threads.push(thread);
    }
    Ok(threads)
}

async fn run(
    shared: Arc<Shared>,
    log: &AccessLog,
    mut accepted: mpsc::Receiver<Accepted>,
    listeners: Option<Listeners>,
) -> io::Result<()> {
    let worker = Worker::new(Arc::clone(&shared), WorkerLog::new(log.clone()));
    tokio::task::spawn_local(worker.log.clone().hand_over_in_time());
    if let Some(Listeners { wss, plain, workers }) = listeners {
        let workers = Rc::new(workers);
        tokio::task::spawn_local(measure(Arc::clone(&shared)));
        for listener in wss {
            tokio::task::spawn_local(accept(Rc::clone(&worker), Listener::new(listener)?, Rc::clone(&workers)));
        }
        for listener in plain {
            tokio::task::spawn_local(plain::http::serve(Rc::clone(&worker), Listener::new(listener)?));
        }
    }
    let sweeper = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    let mut drain = shared.drain.clone();
    let over = drain.wait_for(|drain| *drain == Drain::Over);
    let mut over = std::pin::pin!(over);
    loop {
        tokio::select! {
            biased;
            _ = &mut over => break,
            accepted = accepted.recv() => match accepted {
                Some(accepted) => spawn(&worker, accepted),
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

fn spawn(worker: &Rc<Worker>, accepted: Accepted) {
    let Ok(tcp) = TcpStream::from_std(accepted.tcp) else { return };
    let Accepted { peer, socket, counted, .. } = accepted;
    let serve = connection::serve(Rc::clone(worker), tcp, peer, socket.claim());
    let stage = Stage::Handshake(Box::pin(serve), peer);
    tokio::task::spawn_local(Task { worker: Rc::clone(worker), stage, socket, _counted: counted });
}

/// A connection's task: the handshake in a box of its own, freed before the relay begins, so that a live connection
/// is as slim as its relay.
struct Task {
    worker: Rc<Worker>,
    stage: Stage,
    /// Its place in the capacity of the process, which it can lose until its 101.
    socket: Socket,
    /// Its place among the connections of its worker.
    _counted: Counted,
}

#[expect(clippy::large_enum_variant, reason = "the large one is what lives long; a box of its own would cost more")]
enum Stage {
    Handshake(Pin<Box<dyn Future<Output = Option<Relay>>>>, SocketAddr),
    Relay(Relay),
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { worker, stage, socket, .. } = &mut *self;
        loop {
            match stage {
                Stage::Handshake(handshake, peer) => match handshake.as_mut().poll(cx) {
                    Poll::Ready(Some(relay)) => {
                        socket.keep();
                        *stage = Stage::Relay(relay);
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending if socket.poll_revoked(cx).is_ready() => {
                        turned_away(worker, Reason::ConnectionLimit, *peer);
                        return Poll::Ready(());
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Relay(relay) => {
                    let buffers = &mut worker.buffers.borrow_mut();
                    return relay.poll(cx, buffers, &worker.sizes, worker.clock.now());
                }
            }
        }
    }
}

async fn accept(worker: Rc<Worker>, listener: Listener, workers: Rc<Vec<WorkerHandle>>) {
    let mut drain = worker.shared.drain.clone();
    let closing = async { drop(drain.wait_for(|drain| *drain != Drain::Serving).await) };
    accept::until("wss", listener, closing, |tcp, peer| {
        if let Err(reason) = hand_over(&worker.shared, &workers, tcp, peer) {
            turned_away(&worker, reason, peer);
        }
    })
    .await;
}

/// Hands a connection to the worker with the fewest.
fn hand_over(shared: &Shared, workers: &[WorkerHandle], tcp: StdStream, peer: SocketAddr) -> Result<(), Reason> {
    let socket = shared.capacity.acquire(peer.ip())?;
    let worker = workers.iter().min_by_key(|worker| worker.connections.get()).ok_or(Reason::Internal)?;
    let counted = worker.connections.acquire(usize::MAX).ok_or(Reason::Internal)?;
    let accepted = Accepted { tcp, peer, socket, counted };
    worker.queue.try_send(accepted).map_err(|_| Reason::Overloaded)
}

/// Measures how much of the capacity is used, for admission and for the metrics.
async fn measure(shared: Arc<Shared>) {
    let mut tick = interval(capacity::LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        shared.capacity.look();
        shared.held.set_short(shared.capacity.is_short());
        shared.metrics.capacity(shared.capacity.measured(shared.connections.busiest_endpoint()));
    }
}
