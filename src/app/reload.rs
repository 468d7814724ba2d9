//! The settings file as it changes: read again whole, merged with the flags, and handed on. A file that is broken is
//! logged with its place, and the last good settings stay. A setting that cannot change while the gateway runs keeps its
//! value and is named in the log.

use std::path::PathBuf;

use crate::settings::{GatewayConfiguration, Overrides, Settings};
use crate::source::Watch;
use crate::telemetry::metrics::Metrics;

/// Follows one settings file.
pub(super) struct Reload {
    file: PathBuf,
    overrides: Overrides,
    watch: Watch,
    metrics: Metrics,
    /// The fingerprint of the file that was read last.
    seen: u64,
    current: Settings,
    /// The last logged problem of the file, so that it is logged once.
    logged: Option<String>,
}

impl Reload {
    /// Follows `file`, which `current` was read from, with these flags over it.
    pub(super) fn new(file: PathBuf, overrides: Overrides, current: Settings, metrics: Metrics) -> Self {
        // It may have changed since it was read: 0 is the fingerprint of no file.
        Self { watch: Watch::file(&file), file, overrides, metrics, seen: 0, current, logged: None }
    }

    /// Waits until the file may differ from what was read last. May be dropped and called again at any point.
    pub(super) async fn changed(&mut self) {
        self.watch.changed(self.seen).await;
    }

    /// Reads the file; the settings from now on, if they differ from those of before. Blocks on the disk.
    pub(super) fn read(&mut self) -> Option<Settings> {
        self.seen = self.watch.look();
        let file = match GatewayConfiguration::read(&self.file) {
            Ok(file) => file,
            Err(error) => {
                self.report(&error.to_string());
                return None;
            }
        };
        self.metrics.config_reloaded(true);
        if self.logged.take().is_some() {
            tracing::info!(file = %self.file.display(), "settings file can be read again");
        }
        let mut next = Settings::merge(self.overrides.clone(), Some(file));
        let fixed = keep(&self.current, &mut next);
        if !fixed.is_empty() {
            tracing::warn!(file = %self.file.display(), settings = fixed.join(", "),
                "changed settings need a restart");
        }
        if next == self.current {
            return None;
        }
        tracing::info!(file = %self.file.display(), "settings changed");
        self.current = next.clone();
        Some(next)
    }

    fn report(&mut self, problem: &str) {
        self.metrics.config_reloaded(false);
        if self.logged.as_deref() != Some(problem) {
            tracing::warn!(file = %self.file.display(), problem, "settings file is not valid; the last good settings stay in use");
            self.logged = Some(problem.to_owned());
        }
    }
}

/// Puts back what cannot change while the gateway runs, and names it.
fn keep(current: &Settings, next: &mut Settings) -> Vec<&'static str> {
    let differs = [
        ("listeners.wss", current.listeners.wss != next.listeners.wss),
        ("listeners.http", current.listeners.http != next.listeners.http),
        ("listeners.admin", current.listeners.admin != next.listeners.admin),
        ("manifests", current.manifests != next.manifests),
        ("echo", current.echo != next.echo),
        ("workers", current.workers != next.workers),
        ("logFormat", current.log_format != next.log_format),
        ("socketBuffers", current.socket_buffers != next.socket_buffers),
        ("sharedStore", current.shared_store != next.shared_store),
    ];
    next.listeners = current.listeners;
    next.manifests.clone_from(&current.manifests);
    next.socket_buffers = current.socket_buffers;
    next.shared_store.clone_from(&current.shared_store);
    (next.echo, next.workers, next.log_format) = (current.echo, current.workers, current.log_format);
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_is_named() {
        let current = Settings::default();
        let mut next = Settings { memory_budget: Some(7), ..Settings::default() };
        next.listeners.admin = "127.0.0.1:1".parse().unwrap();
        next.workers = NonZeroUsize::new(3);
        assert_eq!(keep(&current, &mut next), ["listeners.admin", "workers"]);
        assert_eq!(next, Settings { memory_budget: Some(7), ..Settings::default() });
        assert!(keep(&current, &mut next).is_empty());
    }
}
