//! The running gateway: started in order, steered by signals, settings and objects, stopped in order.

use std::future::pending;
use std::io;
use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{sleep, sleep_until};

use super::error::Error;
use super::follower::Follower;
use super::options::files;
use super::process::{bind, listening};
use super::reload::Reload;
use super::{cluster, options, process};
use crate::admin::{self, Admin};
use crate::echo;
use crate::proxy::{self, Drain, Proxy, SocketBuffers};
use crate::settings::{Overrides, Settings};
use crate::snapshot::live::Live;
use crate::source::Source;
use crate::telemetry::access::log::AccessLog;
use crate::telemetry::metrics::Metrics;

/// How long the access log may take to write its last lines.
const FLUSH: Duration = Duration::from_secs(2);
/// How often an ending gateway looks whether its connections are gone.
const POLL: Duration = Duration::from_millis(50);

/// A cluster that is being read by new settings, beside what is served, until it can take its place.
type Opening = Pin<Box<dyn Future<Output = Result<cluster::Opened, String>>>>;

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// It cannot start.
pub(super) async fn serve(settings: Settings, file: Option<(PathBuf, Overrides)>) -> Result<(), Error> {
    // Signals first: one that arrives during start-up must not kill half a gateway.
    let signals = process::signals()?;
    if let Some(mut gateway) = Gateway::start(settings, file, signals).await? {
        gateway.run().await;
        gateway.stop().await;
    }
    Ok(())
}

struct Gateway {
    settings: Settings,
    /// Follows the settings file, if there is one.
    reload: Option<Reload>,
    follower: Follower,
    opening: Option<Opening>,
    proxy: Proxy,
    admin: Arc<Admin>,
    access: AccessLog,
    metrics: Metrics,
    drain: watch::Sender<Drain>,
    /// How many signals to stop have arrived.
    signals: watch::Receiver<u32>,
}

/// The sockets of a gateway.
struct Listeners {
    wss: StdListener,
    http: StdListener,
    admin: StdListener,
}

impl Listeners {
    /// Binds all, and starts what needs no objects: the echo backend.
    fn bind(settings: &Settings) -> io::Result<Self> {
        let wss = bind("wss", settings.listeners.wss)?;
        let http = bind("http", settings.listeners.http)?;
        // The sockets that are accepted have the options of their listener.
        let buffers = SocketBuffers::new(settings.socket_buffers);
        buffers.set(&wss)?;
        buffers.set(&http)?;
        let admin = bind("admin", settings.listeners.admin)?;
        if let Some(address) = settings.echo {
            let echo = bind("echo", address)?;
            listening("echo", &echo)?;
            tokio::spawn(echo::serve(TcpListener::from_std(echo)?));
        }
        Ok(Self { wss, http, admin })
    }
}

impl Gateway {
    /// Starts everything, the ports last. `None`: it was told to stop before all objects were read.
    async fn start(
        settings: Settings,
        file: Option<(PathBuf, Overrides)>,
        mut signals: watch::Receiver<u32>,
    ) -> Result<Option<Self>, Error> {
        let (live, metrics) = (Arc::new(Live::default()), Metrics::new());
        let access = AccessLog::stdout(settings.log_format, metrics.clone())?;
        let (changed, changes) = watch::channel(0);
        let (drain, draining) = watch::channel(Drain::Serving);
        let (dependency_health, failing) = watch::channel(proxy::Failing::default());
        let (source, control, compiling) = match &settings.manifests {
            Some(manifests) => {
                let source = Source::Files(Box::new(files(&settings, manifests)?));
                (source, None, options::of_compile(&settings))
            }
            None => cluster::open(&settings, &metrics).await.map_err(Error::Start)?.parts(&settings, &metrics),
        };
        let trust = options::trust()?;
        let store = settings.shared_store.as_ref().map(|shared| options::store(shared, &trust)).transpose()?;
        let (followed, measured) = (Arc::clone(&live), metrics.clone());
        let follower = Follower::new(source, control, compiling, followed, measured, changed, failing);
        let mut follower = follower.map_err(Error::Run)?;

        let Listeners { wss, http, admin } = Listeners::bind(&settings)?;
        let state = Arc::new(Admin::new(metrics.clone(), &[]));
        listening("admin", &admin)?;
        tokio::spawn(admin::serve(TcpListener::from_std(admin)?, Arc::clone(&state)));
        if !first_compile(&mut follower, &mut signals).await? {
            return Ok(None);
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
            socket_buffers: SocketBuffers::new(settings.socket_buffers),
            memory_budget: settings.memory_budget,
            proxies: options::proxies(&settings),
            store,
            drain: draining,
            changed: changes,
            dependencies: dependency_health,
            trust,
            control: tokio::runtime::Handle::current(),
        })
        .map_err(Error::Run)?;
        state.set_ready(true);
        let reload = file.map(|(file, overrides)| Reload::new(file, overrides, settings.clone(), metrics.clone()));
        let (admin, opening) = (state, None);
        Ok(Some(Self { settings, reload, follower, opening, proxy, admin, access, metrics, drain, signals }))
    }

    /// Serves until it is told to stop and the grace period is over, or until it is told a second time.
    async fn run(&mut self) {
        let (mut first, mut second) = (self.signals.clone(), self.signals.clone());
        let mut stop = None;
        loop {
            let reloaded = changed(&mut self.reload);
            let opened = finished(&mut self.opening);
            tokio::select! {
                _ = first.wait_for(|count| *count > 0), if stop.is_none() => {
                    let grace = self.settings.drain.accept_grace;
                    tracing::info!(
                        grace_seconds = grace.as_secs_f64(),
                        "stopping; connections are still accepted during the grace period"
                    );
                    stop = Some(tokio::time::Instant::now() + grace);
                }
                _ = second.wait_for(|count| *count > 1) => break,
                () = sleep_until(stop.unwrap_or_else(tokio::time::Instant::now)), if stop.is_some() => break,
                () = self.follower.changed() => block_in_place(|| self.follower.follow()),
                () = reloaded => self.read_settings(),
                opened = opened => self.adopt(opened),
            }
        }
    }

    /// Reads the settings file, and applies what changed.
    fn read_settings(&mut self) {
        let Some(next) = self.reload.as_mut().and_then(|reload| block_in_place(|| reload.read())) else { return };
        if cluster::differs(&self.settings, &next) {
            self.opening = Some(Box::pin(cluster::read(next.clone(), self.metrics.clone())));
        }
        self.settings = next;
        self.proxy.set_memory_budget(self.settings.memory_budget);
        self.proxy.set_trusted_proxies(options::proxies(&self.settings));
        self.follower.reconfigure(options::of_compile(&self.settings), &self.settings.watch_namespaces);
        block_in_place(|| self.follower.follow());
    }

    /// Follows a cluster that was read by new settings in place of the one before.
    fn adopt(&mut self, opened: Result<cluster::Opened, String>) {
        self.opening = None;
        match opened {
            Ok(opened) => self.follower.adopt(opened.parts(&self.settings, &self.metrics)),
            Err(problem) => {
                tracing::warn!(problem, "new cluster settings could not be applied; keeping the previous ones");
            }
        }
        block_in_place(|| self.follower.follow());
    }

    /// Closes every connection over the drain window, and ends.
    async fn stop(mut self) {
        let released = self.follower.stop();
        self.admin.set_ready(false);
        let proxy = &self.proxy;
        let window = self.settings.drain.window;
        tracing::info!(connections = proxy.open(), window_seconds = window.as_secs_f64(), "draining connections");
        let _ = self.drain.send(Drain::Closing { window });
        let deadline = Instant::now() + window + self.settings.drain.deadline;
        let emptied = async {
            while proxy.open() > 0 && Instant::now() < deadline {
                sleep(POLL).await;
            }
        };
        // A connection that is no longer permitted must end now, not when the window is over.
        let followed = async {
            loop {
                self.follower.changed().await;
                block_in_place(|| self.follower.follow());
            }
        };
        tokio::select! {
            () = emptied => {}
            () = followed => {}
            _ = self.signals.wait_for(|count| *count > 1) => {}
        }
        released.await;
        tracing::info!(connections = proxy.open(), "gateway stopped");
        let _ = self.drain.send(Drain::Over);
        let Self { proxy, access, .. } = self;
        block_in_place(|| proxy.join());
        access.flush(FLUSH);
    }
}

/// Compiles once before anything is accepted: a client must not meet an empty gateway. False: it was told to stop first.
async fn first_compile(follower: &mut Follower, signals: &mut watch::Receiver<u32>) -> Result<bool, Error> {
    tokio::select! {
        () = follower.ready() => {}
        _ = signals.wait_for(|count| *count > 0) => {
            tracing::info!("gateway stopped before all objects were read");
            return Ok(false);
        }
    }
    block_in_place(|| follower.follow());
    if follower.serves() { Ok(true) } else { Err(Error::Start("the first compile panicked; see the log".to_owned())) }
}

/// Waits until the settings file may have changed; for ever if there is none.
async fn changed(reload: &mut Option<Reload>) {
    match reload {
        Some(reload) => reload.changed().await,
        None => pending().await,
    }
}

/// Waits until a cluster was read; for ever if none is being read.
async fn finished(opening: &mut Option<Opening>) -> Result<cluster::Opened, String> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}
