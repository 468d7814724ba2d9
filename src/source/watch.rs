//! When to look again: events of the file system, and polling where there are none, debounced.
//! Knows a directory, nothing of what is in its files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::debounce::Debounce;
use super::walk::walk;

/// How often a directory is compared that may have changed without an event.
const POLL: Duration = Duration::from_secs(3);

/// A directory that is watched.
pub(super) struct Watch {
    root: PathBuf,
    events: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
    /// Kept for its drop, which ends the watching; `None`: polling only.
    watcher: Option<RecommendedWatcher>,
    /// Events since the last look. Kept here, so that a caller who gives up waiting loses nothing.
    dirty: Debounce,
    next_poll: Instant,
}

impl Watch {
    /// Watches a directory and everything below.
    pub(super) fn start(root: &Path) -> Self {
        // One place: an event that is not fetched yet stands for all that follow.
        let (sender, events) = mpsc::channel(1);
        let mut watch = Self {
            root: root.to_owned(),
            events,
            sender,
            watcher: None,
            dirty: Debounce::default(),
            next_poll: Instant::now() + POLL,
        };
        watch.arm();
        watch
    }

    /// Watches from now on; what cannot be watched is polled.
    fn arm(&mut self) {
        let sender = self.sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(&event.kind) || event.need_rescan()) {
                // Full: the one that is there says the same.
                let _ = sender.try_send(());
            }
        });
        self.watcher = watcher
            .and_then(|mut watcher| watcher.watch(&self.root, RecursiveMode::Recursive).map(|()| watcher))
            .inspect_err(|error| {
                tracing::warn!(directory = %self.root.display(), %error, "cannot watch for changes, polling instead");
            })
            .ok();
    }

    /// Waits until something below the directory changed and was quiet for a moment, or did not become quiet for a
    /// second. `seen` is the fingerprint of the last look. May be dropped and called again at any point.
    pub(super) async fn changed(&mut self, seen: u64) {
        loop {
            if let Some(due) = self.dirty.due() {
                tokio::select! {
                    biased;
                    () = sleep_until(due) => {
                        self.dirty.clear();
                        return;
                    }
                    Some(()) = self.events.recv() => self.dirty.touch(Instant::now()),
                }
                continue;
            }
            tokio::select! {
                biased;
                Some(()) = self.events.recv() => self.dirty.touch(Instant::now()),
                () = sleep_until(self.next_poll) => {
                    let root = self.root.clone();
                    let now = tokio::task::spawn_blocking(move || walk(&root).fingerprint).await;
                    self.next_poll = Instant::now() + POLL;
                    if now.is_ok_and(|now| now != seen) {
                        self.dirty.touch(Instant::now());
                        if self.events.is_empty() {
                            // No event told of it: the directory may have been replaced under the watcher.
                            self.arm();
                        }
                    }
                }
            }
        }
    }
}

/// Whether an event tells of a change; our own reading does not.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
