//! The store that replicas share: one Redis or Valkey, spoken to over one connection that a task of the control runtime
//! keeps. Whoever asks gets an answer within the time-out or hears that there is none; nobody waits for a connection.
//!
//! Knows how to ask, and when an answer is worth nothing: [`ticket`] and [`subject`] know what is asked. A command whose
//! answer did not come may have been carried out, and may still be; each of theirs is such that this admits no client.

mod leases;
pub(crate) mod lending;
mod memory;
pub(crate) mod record;
pub(crate) mod subject;
pub(crate) mod ticket;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisConnectionInfo, RedisError, ScriptInvocation};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::api::route_id::RouteId;
use crate::backoff::Backoff;
use crate::proxy::dependency_health::DependencyHealth;
use crate::proxy::drain::Drain;
use crate::proxy::limits::permits::Permits;
use crate::reason::Reason;
use crate::snapshot::dependency::Dependency;
use crate::telemetry::metrics::Metrics;
use leases::{Leases, Returned};
use memory::Memory;

/// Handshakes and calls of one route that wait for the store at a time; more are refused at once.
const WAITING: u32 = 1024;
/// How often the connection is looked at: whether it answers, and for a server that takes writes.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two looks, however many find the store wanting.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The pauses before another connection is tried.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
/// Leases that are given back with one message.
const BATCH: usize = 256;
/// The most bytes of a password.
const MAX_PASSWORD: u64 = 64 * 1024;

/// Where the store is and how it is used.
#[derive(Clone)]
pub struct Options {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS; `None`: plain TCP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The user; `None`: the default one.
    pub username: Option<String>,
    /// File with the password, read at every connection; `None`: there is none.
    pub password_file: Option<PathBuf>,
    /// Number of the database.
    pub database: u16,
    /// How long one answer may take, and each step of connecting.
    pub timeout: Duration,
    /// What stands before every key.
    pub prefix: String,
    /// How long the places of a replica that is not heard of are counted.
    pub lease: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// A connection and the task that moves its bytes.
struct Line {
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The store, as handshakes see it.
pub(crate) struct Store {
    options: Options,
    /// The connection; none while there is no server that answers and takes writes.
    line: ArcSwapOption<Line>,
    /// Somebody got no answer.
    doubted: Notify,
    /// Handshakes and calls that wait for an answer.
    waiting: Arc<Permits<RouteId>>,
    leases: Leases,
    memory: Memory,
    metrics: Metrics,
    health: Arc<DependencyHealth>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Store {
    /// A store whose connection is kept, on the runtime `control`, until the drain is over.
    pub(crate) fn open(
        options: Options,
        control: &Handle,
        metrics: Metrics,
        health: Arc<DependencyHealth>,
        drain: watch::Receiver<Drain>,
    ) -> Arc<Self> {
        let (leases, returned) = Leases::new(&options.prefix, options.lease);
        metrics.shared_store(false);
        let store = Arc::new(Self {
            options,
            line: ArcSwapOption::empty(),
            doubted: Notify::new(),
            waiting: Arc::default(),
            leases,
            memory: Memory::default(),
            metrics,
            health,
        });
        control.spawn(keep(Arc::clone(&store), drain));
        control.spawn(give_back(Arc::clone(&store), returned));
        store
    }

    /// Asks for a route.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`]: there is no connection, no answer in time, an error, or too many of the route wait.
    async fn ask<T: FromRedisValue>(&self, route: &RouteId, call: &ScriptInvocation<'_>) -> Result<T, Reason> {
        let answer = match self.waiting.acquire(route.clone(), WAITING) {
            Some(_permit) => self.invoke(call).await,
            None => Err(Reason::StoreUnavailable),
        };
        self.metrics.store_asked(answer.is_ok());
        answer
    }

    async fn invoke<T: FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Result<T, Reason> {
        // A copy of the handle: the connection may be given up while we wait.
        let line = self.line.load().as_ref().map(|line| line.connection.clone());
        let mut connection = line.ok_or(Reason::StoreUnavailable)?;
        match timeout(self.options.timeout, call.invoke_async(&mut connection)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => {
                self.failed("no answer to a question");
                self.doubted.notify_one();
                Err(Reason::StoreUnavailable)
            }
        }
    }

    /// Says for the conditions of routes that the store is of no use now.
    fn failed(&self, why: &'static str) {
        self.health.record(&Dependency::Store, Err(why));
    }

    /// Connects, and sees that the server takes writes.
    async fn connect(&self) -> Result<Line, Failed> {
        let options = &self.options;
        let tcp = TcpStream::connect((options.host.as_str(), options.port));
        let tcp = timeout(options.timeout, tcp).await.map_err(|_| Failed::Silent)??;
        tcp.set_nodelay(true)?;
        let mut account = RedisConnectionInfo::default().set_db(options.database.into()).set_skip_set_lib_name();
        if let Some(username) = &options.username {
            account = account.set_username(username);
        }
        if let Some(file) = &options.password_file {
            let mut password = String::new();
            let opened = tokio::fs::File::open(file).await.map_err(Failed::Password)?;
            opened.take(MAX_PASSWORD).read_to_string(&mut password).await.map_err(Failed::Password)?;
            account = account.set_password(password.trim_end());
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(options.timeout));
        let opening = async {
            let Some(tls) = &options.tls else {
                let (connection, driver) = MultiplexedConnection::new_with_config(&account, tcp, config).await?;
                return Ok::<_, Failed>((connection, tokio::spawn(driver)));
            };
            let name = ServerName::try_from(options.host.clone()).map_err(io::Error::other)?;
            let tls = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
            let (connection, driver) = MultiplexedConnection::new_with_config(&account, tls, config).await?;
            Ok((connection, tokio::spawn(driver)))
        };
        let (connection, driver) = timeout(options.timeout, opening).await.map_err(|_| Failed::Silent)??;
        let line = Line { connection, driver: driver.abort_handle() };
        self.check(&line).await?;
        Ok(line)
    }

    /// Reads how much memory the server has and uses. A server that does not say is used as one without a limit.
    async fn measure(&self, line: &Line) {
        let mut connection = line.connection.clone();
        let asked = redis::cmd("INFO").arg("memory").to_owned();
        let answer = timeout(self.options.timeout, asked.query_async::<String>(&mut connection)).await;
        let Ok(Ok(answer)) = answer else { return };
        if let Some((used, limit)) = self.memory.read(&answer) {
            self.metrics.store_memory(used, limit);
        }
    }

    /// Whether the server answers and is one that takes writes. A replica would answer too, with what was.
    async fn check(&self, line: &Line) -> Result<(), Failed> {
        let mut connection = line.connection.clone();
        let asked = redis::cmd("INFO").arg("replication").to_owned();
        let answer = asked.query_async::<String>(&mut connection);
        let answer = timeout(self.options.timeout, answer).await.map_err(|_| Failed::Silent)??;
        if answer.lines().any(|line| line.trim_end() == "role:master") { Ok(()) } else { Err(Failed::ReadOnly) }
    }
}

/// Keeps a connection until the drain is over.
async fn keep(store: Arc<Store>, mut drain: watch::Receiver<Drain>) {
    let Options { host, port, .. } = &store.options;
    let mut pause = PAUSES;
    let mut said = None;
    loop {
        match store.connect().await {
            Ok(line) => {
                tracing::info!(host, port, "the shared store is connected");
                pause.reset();
                said = None;
                let line = Arc::new(line);
                store.line.store(Some(Arc::clone(&line)));
                store.metrics.shared_store(true);
                let lost = tokio::select! {
                    lost = watch_over(&store, &line) => lost,
                    _ = drain.wait_for(|drain| *drain == Drain::Over) => return,
                };
                store.line.store(None);
                store.metrics.shared_store(false);
                tracing::warn!(host, port, problem = %lost, "the shared store is lost; what needs it is refused");
            }
            Err(failed) => {
                store.failed("no connection to a server that takes writes");
                let failed = failed.to_string();
                if said.as_ref() != Some(&failed) {
                    tracing::warn!(
                        host,
                        port,
                        problem = failed,
                        "the shared store cannot be used; what needs it is refused"
                    );
                }
                said = Some(failed);
            }
        }
        tokio::select! {
            () = sleep(pause.next()) => {}
            _ = drain.wait_for(|drain| *drain == Drain::Over) => return,
        }
    }
}

/// Renews what this replica holds in the store, and looks whether it is still there: why it is not.
async fn watch_over(store: &Store, line: &Line) -> Failed {
    let renewal = store.options.lease / 3;
    // At once: a server that has just begun may know nothing of us.
    let mut renew = Instant::now();
    let mut measure = Instant::now();
    loop {
        if Instant::now() >= renew {
            renew = Instant::now() + renewal;
            store.leases.renew(&line.connection).await;
        }
        if Instant::now() >= measure {
            measure = Instant::now() + memory::LOOK;
            store.measure(line).await;
        }
        let soon = Instant::now() + LOOK_AGAIN;
        tokio::select! {
            () = sleep_until(renew.min(Instant::now() + LOOK)) => {}
            () = store.doubted.notified() => sleep_until(soon).await,
        }
        if let Err(failed) = store.check(line).await {
            return failed;
        }
        store.health.record(&Dependency::Store, Ok(()));
    }
}

/// Gives leases back as they come, until there is nobody left to hold one.
async fn give_back(store: Arc<Store>, mut returned: mpsc::Receiver<Returned>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        if returned.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let Some(mut connection) = store.line.load().as_ref().map(|line| line.connection.clone()) else { continue };
        let mut call = redis::pipe();
        for (subject, lease) in &batch {
            let (key, member) = (store.leases.key(subject), store.leases.member(*lease));
            call.cmd("ZREM").arg(key).arg(member).ignore();
        }
        let _ = timeout(store.options.timeout, call.query_async::<()>(&mut connection)).await;
    }
}

/// Why there is no connection.
enum Failed {
    Silent,
    ReadOnly,
    Password(io::Error),
    Io(io::Error),
    Store(RedisError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Failed {
    /// Never what the server says: an error of it can repeat what it was sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("no answer within sharedStore.timeout"),
            Self::ReadOnly => f.write_str("the server is a replica; sharedStore.url must lead to the primary"),
            Self::Password(error) => write!(f, "sharedStore.passwordFile: {error}"),
            Self::Io(error) => error.fmt(f),
            Self::Store(error) if error.is_io_error() => f.write_str("the connection broke"),
            Self::Store(error) => write!(f, "{} ({})", error.category(), error.code().unwrap_or("no code")),
        }
    }
}
