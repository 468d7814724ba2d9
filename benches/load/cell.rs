//! The cells: one gateway, freshly started, under one kind of load, measured once.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::attack::{self, Attack};
use crate::client::{self, Dial, Message, Socket, Tally, record};
use crate::gateway::{Gateway, Identity, Running};
use crate::judgement::{self, Judgement};
use crate::method::{Fixture, Method, TICKETS};
use crate::process;
use crate::reliability::Harm;
use crate::tenants;
use crate::tls::{Groups, client_config};

/// Connections of the echo cells.
const CONNECTIONS: usize = 100;
/// Handshakes under way at once.
const HANDSHAKES: usize = 16;
/// Connections being opened at once in the memory cells.
const OPENING: usize = 64;
/// Connections that come and go before memory is measured: what a gateway allocates once is not a connection's. They are
/// few, because a gateway that keeps their memory uses it again for those that are measured.
const FIRST: usize = 10;

/// One kind of load.
#[derive(Clone, Copy)]
pub(crate) enum Cell {
    Echo {
        size: usize,
        in_flight: usize,
    },
    Handshake {
        groups: Groups,
        resume: bool,
    },
    Memory,
    Unread,
    /// Of wssgate alone.
    Authenticated(Method),
    /// Of wssgate alone.
    Attacked(Attack),
    /// Of wssgate alone: a victim beside an attacker that asks for all of what they share.
    Shared(Attack),
    /// Of wssgate alone: an echo of 1 KiB of JSON.
    Judged {
        judgement: Judgement,
        in_flight: usize,
    },
    /// Of wssgate alone.
    Harmed(Harm),
}

/// All cells with their names, in the table's order.
pub(crate) const CELLS: [(&str, Cell); 48] = [
    ("echo-64-x1", Cell::Echo { size: 64, in_flight: 1 }),
    ("echo-64-x16", Cell::Echo { size: 64, in_flight: 16 }),
    ("echo-1k-x1", Cell::Echo { size: 1024, in_flight: 1 }),
    ("echo-1k-x16", Cell::Echo { size: 1024, in_flight: 16 }),
    ("echo-64k-x1", Cell::Echo { size: 65536, in_flight: 1 }),
    ("echo-64k-x16", Cell::Echo { size: 65536, in_flight: 16 }),
    ("handshake-full", Cell::Handshake { groups: Groups::Classic, resume: false }),
    ("handshake-resumed", Cell::Handshake { groups: Groups::Classic, resume: true }),
    ("handshake-hybrid", Cell::Handshake { groups: Groups::Hybrid, resume: false }),
    ("memory", Cell::Memory),
    ("unread", Cell::Unread),
    ("auth-none", Cell::Authenticated(Method::Anonymous)),
    ("auth-hs256", Cell::Authenticated(Method::Cookie(Algorithm::HS256))),
    ("auth-es256", Cell::Authenticated(Method::Cookie(Algorithm::ES256))),
    ("auth-rs256", Cell::Authenticated(Method::Cookie(Algorithm::RS256))),
    ("auth-subprotocol", Cell::Authenticated(Method::Subprotocol)),
    ("auth-remembered", Cell::Authenticated(Method::Remembered)),
    ("auth-asked", Cell::Authenticated(Method::Asked)),
    ("auth-ticket", Cell::Authenticated(Method::Ticket)),
    ("auth-certificate", Cell::Authenticated(Method::Certificate)),
    ("attack-none", Cell::Attacked(Attack::Nothing)),
    ("attack-guesses", Cell::Attacked(Attack::Guesses)),
    ("attack-hellos", Cell::Attacked(Attack::Hellos)),
    ("attack-crowd", Cell::Attacked(Attack::Crowd)),
    ("attack-unread", Cell::Shared(Attack::Unread)),
    ("attack-keys", Cell::Shared(Attack::Keys)),
    ("attack-tickets", Cell::Shared(Attack::Tickets)),
    ("attack-loop", Cell::Shared(Attack::Loop)),
    ("attack-tls-3", Cell::Shared(Attack::Three)),
    ("attack-tls-8", Cell::Shared(Attack::Eight)),
    ("attack-admin", Cell::Shared(Attack::Halves)),
    ("attack-plain", Cell::Shared(Attack::Plain)),
    ("attack-sockets", Cell::Shared(Attack::Sockets)),
    ("attack-refusals", Cell::Shared(Attack::Refusals)),
    ("judged-none-x1", Cell::Judged { judgement: Judgement::None, in_flight: 1 }),
    ("judged-rates-x1", Cell::Judged { judgement: Judgement::Rates, in_flight: 1 }),
    ("judged-schema-x1", Cell::Judged { judgement: Judgement::Schema, in_flight: 1 }),
    ("judged-audit-x1", Cell::Judged { judgement: Judgement::Audit, in_flight: 1 }),
    ("judged-none-x16", Cell::Judged { judgement: Judgement::None, in_flight: 16 }),
    ("judged-rates-x16", Cell::Judged { judgement: Judgement::Rates, in_flight: 16 }),
    ("judged-schema-x16", Cell::Judged { judgement: Judgement::Schema, in_flight: 16 }),
    ("judged-audit-x16", Cell::Judged { judgement: Judgement::Audit, in_flight: 16 }),
    ("reliability-readers", Cell::Harmed(Harm::Readers)),
    ("reliability-flood", Cell::Harmed(Harm::Flood)),
    ("reliability-tcp", Cell::Harmed(Harm::Tcp)),
    ("reliability-tls", Cell::Harmed(Harm::Tls)),
    ("reliability-http", Cell::Harmed(Harm::Http)),
    ("reliability-frame", Cell::Harmed(Harm::Frame)),
];

/// How long and how many.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    pub(crate) idle: usize,
    pub(crate) unread: usize,
    /// Clients that never read, beside others.
    pub(crate) readers: usize,
    /// How long memory may take to fall after the connections have closed.
    pub(crate) fall: Duration,
}

impl Scale {
    /// The scale of a full run or a quick one, within the limit of open files.
    pub(crate) fn new(quick: bool) -> Self {
        // The load generator holds both ends: the client's and the backend's.
        let possible = process::open_files().saturating_sub(200) / 2;
        let (warm_up, window, idle, unread, fall) =
            if quick { (200, 800, 1000, 50, 3) } else { (700, 3000, 5000, 200, 30) };
        Self {
            warm_up: Duration::from_millis(warm_up),
            window: Duration::from_millis(window),
            idle: idle.min(possible),
            unread: unread.min(possible),
            readers: (10 * unread).min(possible),
            fall: Duration::from_secs(fall),
        }
    }
}

/// One measured value of one row.
pub(crate) struct Value {
    /// The row's name; a cell may fill several.
    pub(crate) row: &'static str,
    /// CPU microseconds per message or handshake, KiB per connection, or milliseconds.
    pub(crate) value: f64,
    /// Messages or handshakes per second, or the attacker's attempts; 0 where it says nothing.
    pub(crate) rate: f64,
    /// What else a reader of the output wants to know.
    pub(crate) note: String,
}

/// What every cell needs.
pub(crate) struct Place<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) backend: SocketAddr,
    pub(crate) scale: Scale,
}

impl Cell {
    /// Whether it says something of wssgate alone.
    pub(crate) fn is_own(self) -> bool {
        !matches!(self, Self::Echo { .. } | Self::Handshake { .. } | Self::Memory | Self::Unread)
    }
}

impl Place<'_> {
    /// Starts the gateway, measures, ends it.
    pub(crate) async fn measure(
        &self,
        gateway: &Gateway,
        name: &'static str,
        cell: Cell,
    ) -> Result<Vec<Value>, Failure> {
        let fixture = match cell {
            Cell::Authenticated(method) => Fixture::new(method)?,
            Cell::Attacked(_) => attack::fixture()?,
            Cell::Shared(attack) => tenants::fixture(attack, self.identity)?,
            Cell::Judged { judgement, .. } => judgement.fixture(),
            Cell::Harmed(harm) => harm.fixture(),
            _ => Fixture::default(),
        };
        let running = gateway.start(self.identity, self.backend, &fixture)?;
        let measured = match cell {
            Cell::Echo { size, in_flight } => {
                self.echo(&running, name, in_flight, |number| Message::new(size, number)).await
            }
            Cell::Judged { in_flight, .. } => self.echo(&running, name, in_flight, judgement::message).await,
            Cell::Handshake { groups, resume } => self.handshake(&running, name, groups, resume).await,
            Cell::Memory => self.memory(&running).await,
            Cell::Unread => self.unread(&running, name).await,
            Cell::Authenticated(method) => self.authenticated(&running, name, method, &fixture).await,
            Cell::Attacked(attack) => self.attacked(&running, attack, &fixture).await,
            Cell::Shared(attack) => self.shared(&running, attack, &fixture).await,
            Cell::Harmed(harm) => self.harmed(&running, harm).await,
        };
        measured.map_err(|error| format!("{error}{}", running.last_words()).into())
    }

    /// One echo, to see whether the gateway works at all.
    pub(crate) async fn check(&self, gateway: &Gateway) -> Result<(), Failure> {
        let running = gateway.start(self.identity, self.backend, &Fixture::default())?;
        let dial = self.dial(&running, client_config(&self.identity.der, Groups::Classic, false, None)?);
        let attempt = async {
            let mut socket = Socket::open(&dial).await?;
            socket.echo(&Message::new(100, 1), 1, Some(3), &Tally::default()).await?;
            socket.close().await
        };
        match timeout(Duration::from_secs(5), attempt).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("{error}{}", running.last_words()).into()),
            Err(_) => Err(format!("no echo within 5 s{}", running.last_words()).into()),
        }
    }

    fn dial(&self, running: &Running, config: Arc<ClientConfig>) -> Dial {
        Dial::new(running.address, config)
    }

    async fn echo(
        &self,
        running: &Running,
        name: &'static str,
        in_flight: usize,
        message: impl Fn(u64) -> Message,
    ) -> Result<Vec<Value>, Failure> {
        let dial = self.dial(running, client_config(&self.identity.der, Groups::Classic, false, None)?);
        let tally = Rc::new(Tally::default());
        let (start, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 0..CONNECTIONS {
            let (dial, counted, mut started) = (dial.clone(), tally.clone(), start.subscribe());
            let message = message(number as u64 + 1);
            tasks.spawn_local(record(tally.clone(), async move {
                let mut socket = Socket::open(&dial).await?;
                counted.ready.set(counted.ready.get() + 1);
                started.wait_for(|started| *started).await?;
                socket.echo(&message, in_flight, None, &counted).await
            }));
        }
        wait_for(&tally, CONNECTIONS, Duration::from_secs(20)).await?;
        start.send_replace(true);
        sleep(self.scale.warm_up).await;
        self.window(running, &tally, name).await
    }

    async fn handshake(
        &self,
        running: &Running,
        name: &'static str,
        groups: Groups,
        resume: bool,
    ) -> Result<Vec<Value>, Failure> {
        let tally = Rc::new(Tally::default());
        let mut tasks = JoinSet::new();
        for _ in 0..HANDSHAKES {
            // One configuration, and so one store of tickets, for each: a ticket is used once.
            let dial = self.dial(running, client_config(&self.identity.der, groups, resume, None)?);
            let counted = tally.clone();
            tasks.spawn_local(record(tally.clone(), async move {
                for number in 0.. {
                    let socket = Socket::open(&dial).await?;
                    if socket.resumed() != (resume && number > 0) {
                        return Err("a session was resumed that should not, or the reverse".into());
                    }
                    if number == 0 && resume {
                        counted.ready.set(counted.ready.get() + 1);
                    }
                    timeout(Duration::from_secs(5), socket.close()).await??;
                    counted.add(1);
                }
                Ok(())
            }));
        }
        sleep(self.scale.warm_up).await;
        let mut values = self.window(running, &tally, name).await?;
        if let (Groups::Hybrid, Some(value)) = (groups, values.first_mut()) {
            let dial = self.dial(running, client_config(&self.identity.der, groups, resume, None)?);
            value.note = format!("{}, {}", value.note, Socket::open(&dial).await?.group());
        }
        Ok(values)
    }

    /// Full handshakes as in [`Place::handshake`], each with its credential. A ticket's purchase counts with its
    /// handshake.
    async fn authenticated(
        &self,
        running: &Running,
        name: &'static str,
        method: Method,
        fixture: &Fixture,
    ) -> Result<Vec<Value>, Failure> {
        let tally = Rc::new(Tally::default());
        let mut tasks = JoinSet::new();
        for _ in 0..HANDSHAKES {
            let config = client_config(&self.identity.der, Groups::Classic, false, fixture.shown.as_ref())?;
            let dial = Dial { fields: fixture.fields.as_str().into(), ..self.dial(running, config) };
            let counted = tally.clone();
            tasks.spawn_local(record(tally.clone(), async move {
                loop {
                    let socket = if method == Method::Ticket {
                        let target = format!("/load?ticket={}", client::ticket(&dial, TICKETS).await?);
                        Socket::open(&Dial { target: target.into(), fields: "".into(), ..dial.clone() }).await?
                    } else {
                        Socket::open(&dial).await?
                    };
                    timeout(Duration::from_secs(5), socket.close()).await??;
                    counted.add(1);
                }
            }));
        }
        sleep(self.scale.warm_up).await;
        self.window(running, &tally, name).await
    }

    /// Counts and CPU over the window, while the tasks go on.
    async fn window(&self, running: &Running, tally: &Tally, row: &'static str) -> Result<Vec<Value>, Failure> {
        let own = std::process::id();
        let (cpu, load, done, began) = (running.family.cpu()?, process::cpu(own)?, tally.done.get(), Instant::now());
        sleep(self.scale.window).await;
        let (cpu, load) = (running.family.cpu()? - cpu, process::cpu(own)? - load);
        let (done, wall) = ((tally.done.get() - done) as f64, began.elapsed().as_secs_f64());
        if let Some(failure) = tally.failure.borrow_mut().take() {
            return Err(failure.into());
        }
        if done < 1.0 {
            return Err("nothing came back within the window".into());
        }
        let note = format!("core 0 {:.0} %, load core {:.0} %", 100.0 * cpu / wall, 100.0 * load / wall);
        Ok(vec![Value { row, value: cpu * 1e6 / done, rate: done / wall, note }])
    }

    async fn memory(&self, running: &Running) -> Result<Vec<Value>, Failure> {
        let config = client_config(&self.identity.der, Groups::Classic, false, None)?;
        let dial = self.dial(running, config);
        let count = self.scale.idle;
        self.crowd(&dial, FIRST, async || Ok(())).await?;
        sleep(Duration::from_secs(1)).await;
        let before = running.family.resident()?;
        let mut idle = 0.0;
        self.crowd(&dial, count, async || {
            sleep(Duration::from_secs(2)).await;
            idle = running.family.resident()?;
            Ok(())
        })
        .await?;
        let per_connection = |resident: f64| (resident - before) / count as f64;
        let closed = Instant::now();
        let mut kept = f64::INFINITY;
        while closed.elapsed() < self.scale.fall {
            sleep(Duration::from_millis(500)).await;
            kept = kept.min(per_connection(running.family.resident()?));
            if kept < 0.25 {
                break;
            }
        }
        let note = format!("{count} connections, {before:.0} KiB before");
        let fell = format!("lowest within {:.0} s", closed.elapsed().as_secs_f64());
        Ok(vec![
            Value { row: "memory-idle", value: per_connection(idle), rate: 0.0, note },
            Value { row: "memory-kept", value: kept, rate: 0.0, note: fell },
        ])
    }

    /// Opens `count` connections, one echo on each, runs `meanwhile`, and closes them all.
    async fn crowd(
        &self,
        dial: &Dial,
        count: usize,
        meanwhile: impl AsyncFnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let tally = Rc::new(Tally::default());
        let doors = Rc::new(tokio::sync::Semaphore::new(OPENING));
        let (leave, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (dial, counted, doors, leaving) = (dial.clone(), tally.clone(), doors.clone(), leave.subscribe());
            tasks.spawn_local(record(tally.clone(), async move {
                let door = doors.acquire().await?;
                let mut socket = Socket::open(&dial).await?;
                socket.echo(&Message::new(64, number as u64), 1, Some(1), &Tally::default()).await?;
                drop(door);
                counted.ready.set(counted.ready.get() + 1);
                socket.idle(leaving).await
            }));
        }
        wait_for(&tally, count, Duration::from_secs(60)).await?;
        meanwhile().await?;
        leave.send_replace(true);
        let all = async { while tasks.join_next().await.is_some() {} };
        timeout(Duration::from_secs(30), all).await.map_err(|_| "the connections did not close within 30 s")?;
        let failure = tally.failure.borrow_mut().take();
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    async fn unread(&self, running: &Running, name: &'static str) -> Result<Vec<Value>, Failure> {
        let mut dial = self.dial(running, client_config(&self.identity.der, Groups::Classic, false, None)?);
        self.crowd(&dial, FIRST, async || Ok(())).await?;
        sleep(Duration::from_secs(1)).await;
        let before = running.family.resident()?;
        // Small buffers of the client's kernel, so that it is the gateway's memory that fills.
        dial.source.buffer = Some(32 * 1024);
        let (count, tally) = (self.scale.unread, Rc::new(Tally::default()));
        let message = Rc::new(Message::new(65536, 1));
        // They begin together: writers keep the load's core busy, and a client that has not opened yet would be late.
        let (start, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (dial, counted, message, mut started) =
                (dial.clone(), tally.clone(), message.clone(), start.subscribe());
            tasks.spawn_local(record(tally.clone(), async move {
                let mut socket = Socket::open(&dial).await?;
                counted.ready.set(counted.ready.get() + 1);
                started.wait_for(|started| *started).await?;
                socket.write_only(&message, &counted).await
            }));
        }
        wait_for(&tally, count, Duration::from_secs(20)).await?;
        start.send_replace(true);
        let (began, mut last, mut most) = (Instant::now(), 0, 0.0f64);
        loop {
            sleep(Duration::from_secs(1)).await;
            most = most.max(running.family.resident()? - before);
            // The kernel's buffers go on growing by a trickle for a while: less than 1 % in a second is the end.
            let more = tally.done.get() - last;
            last += more;
            if more * 100 < last {
                break;
            }
            if began.elapsed() > Duration::from_secs(20) {
                return Err("the gateway went on reading from clients that do not read".into());
            }
        }
        if let Some(failure) = tally.failure.borrow_mut().take() {
            return Err(failure.into());
        }
        let note = format!("{count} connections, {} KiB written on each", last / 1024 / count as u64);
        Ok(vec![Value { row: name, value: most / count as f64, rate: 0.0, note }])
    }
}

/// Waits until `count` connections are where the cell wants them.
pub(crate) async fn wait_for(tally: &Tally, count: usize, within: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + within;
    while tally.ready.get() < count {
        if let Some(failure) = tally.failure.borrow_mut().take() {
            return Err(failure.into());
        }
        if Instant::now() > deadline {
            return Err(format!("{} of {count} connections were open in time", tally.ready.get()).into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
