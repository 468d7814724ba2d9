//! How lines get to stdout: over a bounded queue to one thread, which alone waits for whoever reads stdout.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::telemetry::Metrics;

/// Lines that wait for the writer at most; of about 400 bytes each.
pub(super) const QUEUE: usize = 8192;

/// The queue to the writer's thread.
pub(super) struct Writer {
    queue: SyncSender<Message>,
    metrics: Metrics,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Writer {
    /// Starts a thread that writes to `sink`. `queue` lines may wait.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(sink: impl Write + Send + 'static, queue: usize, metrics: Metrics) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let counted = metrics.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&receiver, sink, &counted))?;
        Ok(Self { queue: sender, metrics })
    }

    /// Hands a line over; drops and counts it if the queue is full. Never waits.
    pub(super) fn send(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.metrics.access_log_line_dropped();
        }
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

/// Writes lines until the last sender is gone; flushes whenever the queue is empty.
fn write_all(queue: &Receiver<Message>, sink: impl Write, metrics: &Metrics) {
    let mut sink = BufWriter::with_capacity(32 * 1024, sink);
    while let Ok(first) = queue.recv() {
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Message::Line(line)) => {
                    if sink.write_all(&line).is_err() {
                        metrics.access_log_line_dropped();
                    }
                }
                Ok(Message::Flush(done)) => {
                    let _ = sink.flush();
                    let _ = done.send(());
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            next = queue.try_recv();
        }
        let _ = sink.flush();
    }
}
