//! Wiring: the only part that sees all. Starts the parts in order, carries objects from the source through compile to the
//! data plane, and shuts down in order.

mod clock;
mod cluster;
pub mod error;
mod follower;
mod gateway;
mod options;
mod process;
mod reload;
mod schemas;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;

use crate::compile;
use crate::echo;
use crate::settings::{Overrides, Settings};
use error::Error;
use schemas::SchemaReader;

/// How long `check` waits for all schemas of messages to be read.
const READ: Duration = Duration::from_secs(600);

/// Runs the gateway until it is told to stop. `file` is the settings file with the flags that stand over it, if there
/// is one: it is followed.
///
/// # Errors
/// A directory that cannot be read, a cluster that is not configured, an address that cannot be bound, a thread that
/// cannot be made.
pub fn run(settings: Settings, file: Option<(PathBuf, Overrides)>) -> Result<(), Error> {
    process::limit();
    runtime()?.block_on(gateway::serve(settings, file))
}

/// Runs the echo backend until it is told to stop.
///
/// # Errors
/// The address cannot be bound.
pub fn echo(address: SocketAddr) -> io::Result<()> {
    runtime()?.block_on(async {
        let mut signals = process::signals()?;
        let listener = process::bind("echo", address)?;
        process::listening("echo", &listener)?;
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
    /// Problems of manifests, a line each.
    pub problems: Vec<String>,
    /// What to know of objects that have no status of ours, a line each, such as a Certificate that no route wants.
    pub remarks: Vec<String>,
    /// The conditions as a table.
    pub table: String,
    /// The conditions as JSON.
    pub json: String,
}

/// Compiles a directory without serving it.
///
/// # Errors
/// The directory cannot be read.
pub fn check(settings: &Settings, manifests: &Path) -> io::Result<Checked> {
    let loaded = options::files(settings, manifests)?.load();
    let mut compiling = options::of_compile(settings);
    let Ok(compiled) = SchemaReader::start()?.compile(READ, |known| {
        compiling.schemas = known;
        Ok::<_, Infallible>(compile::compile(&loaded.objects, &compiling, clock::now(), None))
    });
    let accepted = compiled.accepted() == compiled.statuses.len() && loaded.problems.is_empty();
    let problems = loaded.problems.iter().map(ToString::to_string).collect();
    let table = compile::status::report::table(&compiled.statuses, &compiled.snapshot);
    let json = compile::status::report::json(&compiled.statuses);
    let remarks = compiled.remarks.iter().map(|(object, text)| format!("{object}: {text}")).collect();
    Ok(Checked { accepted, problems, remarks, table, json: json.to_string() })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}
