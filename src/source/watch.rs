//! When to look again: events of the file system, polling where there are none, and a debounce with a maximum delay.
//! Knows paths, nothing of what is in their files.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::debounce::Debounce;
use super::walk::{stamp, walk};

/// How often a directory is compared that may have changed without an event.
const POLL: Duration = Duration::from_secs(3);

/// A directory or a file that is watched.
pub struct Watch {
    /// What is looked at.
    path: PathBuf,
    /// Where the operating system reports changes: the directory itself, or that of the file.
    directory: PathBuf,
    mode: RecursiveMode,
    fingerprint: fn(&Path) -> u64,
    events: mpsc::Receiver<()>,
    sender: mpsc::Sender<()>,
    /// Kept for its drop, which ends the watching; `None`: polling only.
    watcher: Option<RecommendedWatcher>,
    /// Events since the last look. Kept here, so that a caller who gives up waiting loses nothing.
    dirty: Debounce,
    next_poll: Instant,
}

impl Watch {
    /// Watches a directory and all manifests below.
    pub(super) fn tree(root: &Path) -> Self {
        Self::start(root, root, RecursiveMode::Recursive, |root| walk(root).fingerprint)
    }

    /// Watches one file, also where it is put in place by a rename, or is a link that leads through a `..data` which is
    /// swapped, as in a mounted ConfigMap.
    pub fn file(path: &Path) -> Self {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::start(path, directory, RecursiveMode::NonRecursive, |file| {
            let mut hasher = DefaultHasher::new();
            // Follows links: what counts is what is read.
            fs::metadata(file).map_or(0, |metadata| {
                stamp(file, &metadata, &mut hasher);
                hasher.finish()
            })
        })
    }

    fn start(path: &Path, directory: &Path, mode: RecursiveMode, fingerprint: fn(&Path) -> u64) -> Self {
        // One place: an event that is not fetched yet stands for all that follow.
        let (sender, events) = mpsc::channel(1);
        let mut watch = Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            mode,
            fingerprint,
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
            .and_then(|mut watcher| watcher.watch(&self.directory, self.mode).map(|()| watcher))
            .inspect_err(|error| {
                tracing::warn!(directory = %self.directory.display(), %error, "directory cannot be watched for changes; polling it instead");
            })
            .ok();
    }

    /// A number that differs when what is watched differs; 0 for a file that is not there.
    pub fn look(&self) -> u64 {
        (self.fingerprint)(&self.path)
    }

    /// Waits until something changed and was quiet for a moment, or did not become quiet for a second. `seen` is the
    /// fingerprint of the last look. May be dropped and called again at any point.
    pub async fn changed(&mut self, seen: u64) {
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
                    let (path, fingerprint) = (self.path.clone(), self.fingerprint);
                    let now = tokio::task::spawn_blocking(move || fingerprint(&path)).await;
                    self.next_poll = Instant::now() + POLL;
                    if now.is_ok_and(|now| now != seen) {
                        self.dirty.touch(Instant::now());
                        if self.events.is_empty() {
                            // No event reported it: the directory may have been replaced under the watcher.
                            self.arm();
                        }
                    }
                }
            }
        }
    }
}

/// Whether an event is a change; our own reading is not.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
