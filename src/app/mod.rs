//! Wiring: the only file that sees all. Starts the parts in order, carries objects from the source through compile to
//! the data plane, and shuts down in order.

mod cluster;
mod follower;
mod reload;

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use crate::admin::{self, Admin};
use crate::compile;
use crate::compile::resolve::backend_tls::{Roots, client};
use crate::echo;
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::policy::client::{ForwardedFor, TrustedProxies};
use crate::proxy::{self, Drain, Proxy};
use crate::settings::store::SharedStore;
use crate::settings::{Overrides, Settings};
use crate::snapshot::Live;
use crate::source::{Files, Source};
use crate::telemetry::{AccessLog, Metrics};
use follower::Follower;
use reload::Reload;

/// How long the access log may take to write its last lines.
const FLUSH: Duration = Duration::from_secs(2);
/// How often an ending gateway looks whether its connections are gone.
const POLL: Duration = Duration::from_millis(50);

fn listening(listener: &str, socket: &StdListener) -> io::Result<()> {
    tracing::info!(listener, address = %socket.local_addr()?, "listening");
    Ok(())
}

fn bind(name: &str, address: SocketAddr) -> io::Result<StdListener> {
    proxy::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("the {name} listener cannot bind {address}: {error}; is the port in use?"))
    })
}

/// Why the gateway ended.
#[derive(Debug)]
pub enum Error {
    /// It could not start: a directory, an address, a limit. The text names which and the fix.
    Start(String),
    /// It failed while it ran.
    Run(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Start(error.to_string())
    }
}

/// Runs the gateway until it is told to stop. `file` is the settings file with the flags that stand over it, if there
/// is one: it is followed.
///
/// # Errors
/// A directory that cannot be read, a cluster that is not configured, an address that cannot be bound, a thread that
/// cannot be made.
pub fn run(settings: Settings, file: Option<(PathBuf, Overrides)>) -> Result<(), Error> {
    limit_process();
    runtime()?.block_on(serve(settings, file))
}

/// Runs the echo backend until it is told to stop.
///
/// # Errors
/// The address cannot be bound.
pub fn echo(address: SocketAddr) -> io::Result<()> {
    runtime()?.block_on(async {
        let mut signals = signals()?;
        let listener = bind("echo", address)?;
        listening("echo", &listener)?;
        tokio::select! {
            () = echo::serve(TcpListener::from_std(listener)?) => {}
            _ = signals.wait_for(|count| *count > 0) => {}
        }
        Ok(())
    })
}

/// What `check` found.
pub struct Checked {
    /// Every route is accepted and every file was read.
    pub accepted: bool,
    /// Files that are not used as written, a line each.
    pub problems: Vec<String>,
    /// The conditions for people.
    pub table: String,
    /// The conditions for machines.
    pub json: String,
}

/// Compiles a directory without serving it.
///
/// # Errors
/// The directory cannot be read.
pub fn check(settings: &Settings, manifests: &Path) -> io::Result<Checked> {
    let loaded = open(settings, manifests)?.load();
    let compiled = compile::compile(&loaded.objects, &options(settings), now(), None);
    let accepted = compiled.accepted() == compiled.statuses.len() && loaded.problems.is_empty();
    let problems = loaded.problems.iter().map(ToString::to_string).collect();
    let (table, json) =
        (compile::status::report::table(&compiled.statuses), compile::status::report::json(&compiled.statuses));
    Ok(Checked { accepted, problems, table, json: json.to_string() })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}

/// As many files as the system lets us have, and no core dumps: they would hold keys.
fn limit_process() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let no_core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    for result in [raised, no_core] {
        if let Err(error) = result {
            tracing::warn!(%error, "a limit of the process could not be set");
        }
    }
}

fn open(settings: &Settings, manifests: &Path) -> io::Result<Files> {
    Ok(Files::open(manifests)?.namespaces(settings.watch_namespaces.iter().cloned()))
}

/// Seconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// Counts SIGTERM and SIGINT: the first begins a drain, the second ends it at once.
fn signals() -> io::Result<watch::Receiver<u32>> {
    let (count, counted) = watch::channel(0);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            count.send_modify(|count| *count += 1);
        }
    });
    Ok(counted)
}

/// A cluster that is read as the settings say now, beside what is served, until it can take its place.
type Opening = Pin<Box<dyn Future<Output = Result<cluster::Opened, String>>>>;

async fn serve(mut settings: Settings, file: Option<(PathBuf, Overrides)>) -> Result<(), Error> {
    // Signals first: one that arrives during start-up must not kill half a gateway.
    let mut signals = signals()?;
    let (live, metrics) = (Arc::new(Live::default()), Metrics::new());
    let access = AccessLog::stdout(settings.log_format, metrics.clone())?;
    let (changed, changes) = watch::channel(0);
    let (drain, draining) = watch::channel(Drain::Serving);
    let (dependency_health, failing) = watch::channel(proxy::Outage::default());
    let (source, control, compiling) = match &settings.manifests {
        Some(manifests) => (Source::Files(Box::new(open(&settings, manifests)?)), None, options(&settings)),
        None => cluster::open(&settings, &metrics).await.map_err(Error::Start)?.parts(&settings, &metrics),
    };
    let trust = trust()?;
    let store = settings.shared_store.as_ref().map(|shared| store(shared, &trust)).transpose()?;
    let mut follower = Follower::new(source, control, compiling, Arc::clone(&live), metrics.clone(), changed, failing);

    let wss = bind("wss", settings.listeners.wss)?;
    let http = bind("http", settings.listeners.http)?;
    let admin = bind("admin", settings.listeners.admin)?;
    if let Some(address) = settings.echo {
        let echo = bind("echo", address)?;
        listening("echo", &echo)?;
        tokio::spawn(echo::serve(TcpListener::from_std(echo)?));
    }
    let state = Arc::new(Admin::new(metrics.clone(), &[]));
    listening("admin", &admin)?;
    tokio::spawn(admin::serve(TcpListener::from_std(admin)?, Arc::clone(&state)));
    // Nothing is accepted before the first compile: a client must not meet an empty gateway.
    tokio::select! {
        () = follower.ready() => {}
        _ = signals.wait_for(|count| *count > 0) => {
            tracing::info!("stopped before the source was read");
            return Ok(());
        }
    }
    tokio::task::block_in_place(|| follower.follow());
    if !follower.serves() {
        return Err(Error::Start("the first compile ended in a panic: see the log".to_owned()));
    }
    listening("wss", &wss)?;
    listening("http", &http)?;
    let proxy = Proxy::start(proxy::Options {
        live,
        metrics: metrics.clone(),
        access: access.clone(),
        wss: vec![wss],
        plain: vec![http],
        workers: settings.workers.map_or(0, usize::from),
        memory_budget: settings.memory_budget,
        proxies: proxies(&settings),
        store,
        drain: draining,
        changed: changes,
        outage: dependency_health,
        trust,
        control: tokio::runtime::Handle::current(),
    })
    .map_err(Error::Run)?;
    state.set_ready(true);

    let mut reload = file.map(|(file, overrides)| Reload::new(file, overrides, settings.clone(), metrics.clone()));
    let (mut first, mut second) = (signals.clone(), signals.clone());
    let mut stop = None;
    let mut opening: Option<Opening> = None;
    loop {
        let reloaded = async {
            match &mut reload {
                Some(reload) => {
                    reload.changed().await;
                    reload
                }
                None => pending().await,
            }
        };
        let opened = async {
            match &mut opening {
                Some(opened) => opened.await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = first.wait_for(|count| *count > 0), if stop.is_none() => {
                let grace = settings.drain.accept_grace;
                tracing::info!(grace_seconds = grace.as_secs_f64(), "stopping: accepting goes on for the grace period");
                stop = Some(tokio::time::Instant::now() + grace);
            }
            _ = second.wait_for(|count| *count > 1) => break,
            () = sleep_until(stop.unwrap_or_else(tokio::time::Instant::now)), if stop.is_some() => break,
            () = follower.changed() => tokio::task::block_in_place(|| follower.follow()),
            reload = reloaded => if let Some(next) = tokio::task::block_in_place(|| reload.read()) {
                if cluster::differs(&settings, &next) {
                    opening = Some(Box::pin(cluster::read(next.clone(), metrics.clone())));
                }
                settings = next;
                proxy.set_memory_budget(settings.memory_budget);
                proxy.set_trusted_proxies(proxies(&settings));
                follower.reconfigure(options(&settings), &settings.watch_namespaces);
                tokio::task::block_in_place(|| follower.follow());
            },
            opened = opened => {
                opening = None;
                match opened {
                    Ok(opened) => follower.adopt(opened.parts(&settings, &metrics)),
                    Err(problem) => tracing::warn!(problem, "the cluster is read as before"),
                }
                tokio::task::block_in_place(|| follower.follow());
            }
        }
    }
    let released = follower.stop();
    state.set_ready(false);
    let window = settings.drain.window;
    tracing::info!(connections = proxy.open(), window_seconds = window.as_secs_f64(), "draining");
    let _ = drain.send(Drain::Closing { window });
    let deadline = Instant::now() + window + settings.drain.deadline;
    let emptied = async {
        while proxy.open() > 0 && Instant::now() < deadline {
            sleep(POLL).await;
        }
    };
    // Whoever may no longer be in must leave now, not when the window is over.
    let followed = async {
        loop {
            follower.changed().await;
            tokio::task::block_in_place(|| follower.follow());
        }
    };
    tokio::select! {
        () = emptied => {}
        () = followed => {}
        _ = signals.wait_for(|count| *count > 1) => {}
    }
    released.await;
    tracing::info!(connections = proxy.open(), "stopped");
    let _ = drain.send(Drain::Over);
    tokio::task::block_in_place(|| proxy.join());
    access.flush(FLUSH);
    Ok(())
}

/// Whom the gateway itself trusts when it fetches over https: the public CAs, or those of the file that `SSL_CERT_FILE`
/// names, as many programs read it.
fn trust() -> Result<Arc<rustls::ClientConfig>, Error> {
    match std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        None => client(Roots::System).map_err(Error::Start),
        Some(file) => trust_of(&format!("SSL_CERT_FILE {}", file.display()), Path::new(&file)),
    }
}

/// Trust in the CAs of a file, which messages call `name`.
fn trust_of(name: &str, file: &Path) -> Result<Arc<rustls::ClientConfig>, Error> {
    let pem = std::fs::read_to_string(file).map_err(|error| Error::Start(format!("{name}: {error}")))?;
    client(Roots::Bundles(&[(name.to_owned(), pem.as_bytes())])).map_err(Error::Start)
}

/// The store that replicas share. Whoever may sign for it: the CAs of its file, or those that the gateway trusts anyway.
fn store(shared: &SharedStore, trust: &Arc<rustls::ClientConfig>) -> Result<proxy::store::Options, Error> {
    let tls = match (&shared.ca_file, shared.url.tls) {
        (_, false) => None,
        (None, true) => Some(Arc::clone(trust)),
        (Some(file), true) => Some(trust_of(&format!("sharedStore.caFile {}", file.display()), file)?),
    };
    let tls = tls.map(|tls| {
        // It speaks no HTTP.
        let mut tls = rustls::ClientConfig::clone(&tls);
        tls.alpn_protocols.clear();
        Arc::new(tls)
    });
    Ok(proxy::store::Options {
        host: shared.url.host.clone(),
        port: shared.url.port,
        tls,
        username: shared.url.username.clone(),
        password_file: shared.password_file.clone(),
        database: shared.url.database,
        timeout: shared.timeout,
        prefix: shared.key_prefix.clone(),
        lease: shared.lease_duration,
    })
}

/// Whose word the data plane takes for who the client is.
fn proxies(settings: &Settings) -> TrustedProxies {
    let trusted = &settings.trusted_proxies;
    TrustedProxies {
        preamble: trusted.proxy_protocol.as_ref().map(|proxies| proxies.networks.clone()).unwrap_or_default(),
        forwarded_for: trusted
            .forwarded_for
            .as_ref()
            .map(|proxies| ForwardedFor { networks: proxies.networks.clone(), hops: usize::from(proxies.hops) }),
    }
}

/// What a compile goes by. A directory is a source without an API server: its routes may leave the class out, and its
/// backends may be on this machine.
fn options(settings: &Settings) -> compile::Options {
    compile::Options {
        dev: settings.dev,
        standalone: true,
        blocked: BlockedAddresses { allow_loopback: true, ..BlockedAddresses::default() },
        own_service: settings.cluster.publish_service.clone(),
        controller_name: settings.controller_name.clone(),
        ingress_class_name: settings.ingress_class_name.clone(),
        default_certificate: settings.default_certificate.clone(),
        hostname_suffixes: settings.hostname_suffixes.clone(),
        defaults: settings.defaults.clone(),
        unshared: settings.replicas.filter(|replicas| replicas.get() > 1 && settings.shared_store.is_none()),
        ..compile::Options::default()
    }
}
