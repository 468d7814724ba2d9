//! The access log of the process: the form of lines, the ids of connections, the sampling of refusals, and the writer.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::fields::{self, Id, Refused};
use super::line::{Line, Stamp};
use super::sampling::Sampling;
use super::writer::{self, Batch, Writer};
use crate::reason::Reason;
use crate::telemetry::format::Format;
use crate::telemetry::metrics::Metrics;

/// Where lines go. Clones share the queue, the ids and the sampling.
#[derive(Clone)]
pub struct AccessLog(Arc<Inner>);

struct Inner {
    format: Format,
    /// `None`: switched off.
    writer: Option<Writer>,
    prefix: u32,
    next: AtomicU32,
    started: Instant,
    refusals: Sampling,
}

impl AccessLog {
    /// Lines to stdout.
    ///
    /// # Errors
    /// The writer's thread cannot be started.
    pub fn stdout(format: Format, metrics: Metrics) -> io::Result<Self> {
        Self::to(format, metrics, io::stdout(), writer::QUEUE)
    }

    /// Lines to nowhere; ids are still given out.
    pub fn off() -> Self {
        Self::with(Format::Json, None)
    }

    pub(super) fn to(
        format: Format,
        metrics: Metrics,
        sink: impl Write + Send + 'static,
        queue: usize,
    ) -> io::Result<Self> {
        Ok(Self::with(format, Some(Writer::start(sink, queue, metrics)?)))
    }

    fn with(format: Format, writer: Option<Writer>) -> Self {
        // The half of a keyed hash: differs from process to process, and says nothing of the machine.
        let prefix = (RandomState::new().build_hasher().finish() >> 32) as u32;
        let (next, started, refusals) = (AtomicU32::new(1), Instant::now(), Sampling::new());
        Self(Arc::new(Inner { format, writer, prefix, next, started, refusals }))
    }

    pub(super) fn id(&self) -> Id {
        Id(u64::from(self.0.prefix) << 32 | u64::from(self.0.next.fetch_add(1, Ordering::Relaxed)))
    }

    pub(super) fn format(&self) -> Format {
        self.0.format
    }

    pub(super) fn writer(&self) -> Option<&Writer> {
        self.0.writer.as_ref()
    }

    pub(super) fn second(&self) -> u64 {
        self.0.started.elapsed().as_secs()
    }

    /// Whether a refusal may be written, and how many were suppressed before it.
    pub(super) fn admit(&self, reason: Reason, route: Option<&str>, second: u64) -> Option<u64> {
        self.0.writer.as_ref().and_then(|_| self.0.refusals.admit(reason, route, second))
    }

    /// Writes how many refusals were suppressed since the last line of their reason and route, and waits until everything is
    /// written, but not longer than `patience`. Blocks its thread: for the end of the process, after the workers have
    /// ended. Whether all was written.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(writer) = &self.0.writer else { return true };
        let (mut batch, mut stamp) = (Batch::default(), Stamp::default());
        for (reason, route, suppressed) in self.0.refusals.take_suppressed() {
            let mut line = Line::new(self.0.format, &mut stamp, Refused::EVENT, &mut batch.bytes);
            fields::write_suppressed(&mut line, reason, route.as_deref(), suppressed);
            line.finish();
            batch.lines += 1;
        }
        writer.send_patiently(batch, patience);
        writer.flush(patience)
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.0.format).finish_non_exhaustive()
    }
}
