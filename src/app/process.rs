//! The process: its limits, its signals, its sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::proxy;

/// Raises the limit of open files to the most that the system allows, and forbids core dumps, which would hold keys.
pub(super) fn limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let no_core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    for result in [raised, no_core] {
        if let Err(error) = result {
            tracing::warn!(%error, "limit of the process could not be set");
        }
    }
}

/// Counts SIGTERM and SIGINT: the first begins a drain, the second ends it at once.
pub(super) fn signals() -> io::Result<watch::Receiver<u32>> {
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

/// Logs where a listener listens.
pub(super) fn listening(listener: &str, socket: &TcpListener) -> io::Result<()> {
    tracing::info!(listener, address = %socket.local_addr()?, "listening");
    Ok(())
}

/// Binds the listener `name`.
///
/// # Errors
/// The address cannot be bound; the text names the listener.
pub(super) fn bind(name: &str, address: SocketAddr) -> io::Result<TcpListener> {
    proxy::bind(address).map_err(|error| {
        io::Error::new(error.kind(), format!("the {name} listener cannot bind {address}: {error}; is the port in use?"))
    })
}
