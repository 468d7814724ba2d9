//! Wiring: the only part that sees all. Starts the parts in order, carries objects from the source through compile to the
//! data plane, and shuts down in order.

mod check;
mod clock;
mod cluster;
pub mod error;
mod follower;
mod gateway;
mod options;
mod process;
mod reload;
mod schemas;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::echo;
use crate::settings::{Overrides, Settings};
pub use check::{Checked, check};
use error::Error;

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

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()
}
