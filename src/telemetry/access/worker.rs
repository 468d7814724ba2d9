//! One worker's end of the access log. A line costs its worker a few copies into a buffer of its own; the buffer goes to the
//! writer when it is large or a line in it is [`LATE`], so that the writer wakes once for many lines.
//!
//! While the writer cannot keep up lines are kept up to [`MOST`] and then dropped and counted; a connection never waits.
//! What is left when the worker ends goes out then.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::fields::{Audited, Ended, Id, Opened, Refused};
use super::line::{Line, Stamp};
use super::log::AccessLog;
use super::writer::{Batch, Writer};

/// Bytes of lines with which a batch goes out at once.
const LARGE: usize = 32 * 1024;
/// How late a line is at the most.
const LATE: Duration = Duration::from_millis(25);
/// Bytes of lines that are kept while the writer takes none.
const MOST: usize = 256 * 1024;
/// How long the end of a worker waits for the writer.
const END: Duration = Duration::from_secs(1);

/// Where one worker writes lines. Clones are the same.
#[derive(Clone)]
pub struct WorkerLog(Rc<Inner>);

struct Inner {
    log: AccessLog,
    batch: RefCell<Batch>,
    stamp: RefCell<Stamp>,
    /// The batch has its first line.
    begun: Notify,
}

impl WorkerLog {
    /// Where one more worker writes its lines.
    pub fn new(log: AccessLog) -> Self {
        let (batch, stamp, begun) = (RefCell::default(), RefCell::default(), Notify::new());
        Self(Rc::new(Inner { log, batch, stamp, begun }))
    }

    /// An id that no other connection of this process has, until 2^32 were given out.
    pub fn id(&self) -> Id {
        self.0.log.id()
    }

    /// Writes that a connection opened.
    pub fn opened(&self, opened: &Opened<'_>) {
        self.write(Opened::EVENT, |line| opened.write(line));
    }

    /// Writes that a connection ended.
    pub fn ended(&self, ended: &Ended<'_>) {
        self.write(Ended::EVENT, |line| ended.write(line));
    }

    /// Writes that a handshake was refused: of each reason and route a few in a second, the next one then says how many were
    /// suppressed.
    pub fn refused(&self, refused: &Refused<'_>) {
        self.refused_at(refused, self.0.log.second());
    }

    /// Writes that a message was let through in Audit mode, sampled as refusals are.
    pub fn audited(&self, audited: &Audited<'_>) {
        if let Some(suppressed) = self.0.log.admit(audited.reason, Some(audited.route), self.0.log.second()) {
            self.write(Audited::EVENT, |line| audited.write(line, suppressed));
        }
    }

    pub(super) fn refused_at(&self, refused: &Refused<'_>, second: u64) {
        if let Some(suppressed) = self.0.log.admit(refused.reason, refused.route, second) {
            self.write(Refused::EVENT, |line| refused.write(line, suppressed));
        }
    }

    /// One line, unless the log is off.
    fn write(&self, event: &'static str, fields: impl FnOnce(&mut Line<'_>)) {
        let Some(writer) = self.0.log.writer() else { return };
        let mut batch = self.0.batch.borrow_mut();
        if batch.bytes.len() >= MOST && !hand_over(&mut batch, writer) {
            return writer.drop_lines(1);
        }
        if batch.bytes.is_empty() {
            self.0.begun.notify_one();
        }
        let mut line = Line::new(self.0.log.format(), &mut self.0.stamp.borrow_mut(), event, &mut batch.bytes);
        fields(&mut line);
        line.finish();
        batch.lines += 1;
        if batch.bytes.len() >= LARGE {
            hand_over(&mut batch, writer);
        }
    }

    /// Hands lines over before they are late, for as long as it is polled.
    pub async fn hand_over_in_time(self) {
        let Some(writer) = self.0.log.writer() else { return };
        loop {
            self.0.begun.notified().await;
            loop {
                sleep(LATE).await;
                if hand_over(&mut self.0.batch.borrow_mut(), writer) {
                    break;
                }
            }
        }
    }
}

/// Hands what there is to the writer; false if the writer takes none now.
fn hand_over(batch: &mut Batch, writer: &Writer) -> bool {
    if batch.lines == 0 {
        return true;
    }
    let next = Batch { bytes: Vec::with_capacity(batch.bytes.len().min(LARGE)), lines: 0 };
    match writer.send(std::mem::replace(batch, next)) {
        Some(back) => {
            *batch = back;
            false
        }
        None => true,
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let batch = self.batch.take();
        if let Some(writer) = self.log.writer().filter(|_| batch.lines > 0) {
            writer.send_patiently(batch, END);
        }
    }
}

impl fmt::Debug for WorkerLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLog").field("log", &self.0.log).finish_non_exhaustive()
    }
}
