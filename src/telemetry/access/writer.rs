//! How lines get to stdout: in batches over a bounded queue to one thread, which alone waits for whoever reads stdout.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::telemetry::metrics::Metrics;

/// Batches that wait for the writer at most.
pub(super) const QUEUE: usize = 64;

/// Lines that were written one behind the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// The queue to the writer's thread.
pub(super) struct Writer {
    queue: SyncSender<Message>,
    metrics: Metrics,
}

enum Message {
    Batch(Batch),
    Flush(SyncSender<()>),
}

impl Writer {
    /// Starts a thread that writes to `sink`. `queue` batches may wait.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(sink: impl Write + Send + 'static, queue: usize, metrics: Metrics) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let counted = metrics.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&receiver, sink, &counted))?;
        Ok(Self { queue: sender, metrics })
    }

    /// Hands lines over, and returns them if the queue is full. Never waits.
    pub(super) fn send(&self, batch: Batch) -> Option<Batch> {
        match self.queue.try_send(Message::Batch(batch)) {
            Err(TrySendError::Full(Message::Batch(batch))) => Some(batch),
            _ => None,
        }
    }

    /// Hands lines over, and waits for the queue where it is full, but not longer than `patience`. After that they are
    /// dropped and counted.
    pub(super) fn send_patiently(&self, mut batch: Batch, patience: Duration) {
        let deadline = Instant::now() + patience;
        while let Some(back) = self.send(batch) {
            if Instant::now() >= deadline {
                return self.drop_lines(back.lines);
            }
            batch = back;
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Counts lines that were dropped.
    pub(super) fn drop_lines(&self, lines: u64) {
        self.metrics.access_log_lines_dropped(lines);
    }

    /// Waits until everything is written, but not longer than `patience`. Whether all was written.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(full) = self.queue.try_send(message) {
            message = match full {
                TrySendError::Full(message) if Instant::now() < deadline => message,
                _ => return false,
            };
            thread::sleep(Duration::from_millis(1));
        }
        !matches!(
            wait.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
        )
    }
}

/// Writes batches, each in one call, until the last sender is gone.
fn write_all(queue: &Receiver<Message>, mut sink: impl Write, metrics: &Metrics) {
    while let Ok(message) = queue.recv() {
        match message {
            Message::Batch(batch) => {
                if sink.write_all(&batch.bytes).and_then(|()| sink.flush()).is_err() {
                    metrics.access_log_lines_dropped(batch.lines);
                }
            }
            Message::Flush(done) => {
                let _ = sink.flush();
                let _ = done.send(());
            }
        }
    }
}
