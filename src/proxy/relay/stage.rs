//! The stage for content: what a direction does with messages that it must see whole. Nothing of a message goes on before
//! the stage has judged and released it.
//!
//! A direction has a stage only if its route asks for one, so that the plain path pays one comparison per frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::content::json::Malformed;
use crate::content::rules::{Fault, Rules};
use crate::proxy::io::buffers::Masks;
use crate::reason::Reason;
use crate::telemetry::access::fields::Detail;
use crate::telemetry::metrics::{Counter, Direction, Gauge, RouteMetrics, Verdict};
use crate::ws::deflate::{self, Codec};
use crate::ws::frame::Opcode;
use crate::ws::hold::Hold;
use crate::ws::message::Violation;

/// Bytes that all stages of the process hold.
#[derive(Debug, Default)]
pub(crate) struct HeldBytes {
    bytes: Gauge,
    /// Memory use is beyond the budget: no further message is begun.
    short: AtomicBool,
}

impl HeldBytes {
    /// Counts what is held in this metric.
    pub(crate) const fn new(bytes: Gauge) -> Self {
        Self { bytes, short: AtomicBool::new(false) }
    }

    /// Memory use is beyond the budget, or not.
    pub(crate) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn get(&self) -> usize {
        usize::try_from(self.bytes.get()).unwrap()
    }

    fn add(&self, bytes: usize) {
        self.bytes.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn subtract(&self, bytes: usize) {
        self.bytes.dec_by(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Why a message is refused, and what the log says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedMessage {
    /// The reason.
    pub(crate) reason: Reason,
    /// Which schema, and where; never a value.
    pub(crate) detail: Detail,
}

/// One direction's stage: holds each message until it is whole, judges it, and releases it unchanged.
#[derive(Debug)]
pub(crate) struct Stage {
    direction: Direction,
    hold: Hold,
    held: Arc<HeldBytes>,
    /// Bytes of `held` that are ours.
    counted: usize,
    /// What judges messages that begin from now on.
    rules: Option<Arc<Rules>>,
    /// What judges the message that is held: the rules at its beginning.
    judges: Option<Arc<Rules>>,
    /// The window with which messages are compressed toward the client; `None`: they are not.
    window: Option<u8>,
    /// Where its rules count what passes, by the rule, and last what none of them judges: looked up once.
    passed: Vec<Option<Counter>>,
}

impl Stage {
    /// A stage that holds nothing yet and counts what it holds in `held`.
    pub(crate) fn new(direction: Direction, held: Arc<HeldBytes>) -> Box<Self> {
        Box::new(Self {
            direction,
            hold: Hold::default(),
            held,
            counted: 0,
            rules: None,
            judges: None,
            window: None,
            passed: Vec::new(),
        })
    }

    /// Judges messages by these rules from the next one on.
    pub(crate) fn set_rules(&mut self, rules: Option<Arc<Rules>>) {
        self.rules = rules;
    }

    /// Whether a message of so many bytes that lies there whole need not be held: none is, and it is not compressed.
    pub(crate) fn can_judge_at_once(&self, len: usize) -> bool {
        let compresses = self.window.is_some() && (deflate::MIN..=deflate::MAX).contains(&(len as u64));
        self.hold.is_empty() && !compresses
    }

    /// Payload of the message that is held.
    pub(crate) fn payload(&self) -> &[u8] {
        self.hold.payload()
    }

    /// Compresses messages with this window when they are released.
    pub(crate) fn set_window(&mut self, window: u8) {
        self.window = Some(window);
    }

    /// Inflates the whole message, which is compressed; its size then.
    ///
    /// # Errors
    /// What it breaks.
    pub(crate) fn inflate(&mut self, codec: &mut Codec, max_size: u64) -> Result<u64, Violation> {
        self.hold.inflate(codec, max_size)?;
        self.forget();
        self.counted = self.hold.payload().len();
        self.held.add(self.counted);
        Ok(self.counted as u64)
    }

    /// A message begins: it is judged by the rules as they are now.
    fn begin(&mut self) {
        if self.judges != self.rules {
            self.judges.clone_from(&self.rules);
            self.passed = vec![None; self.judges.as_ref().map_or(0, |rules| rules.rules.len() + 1)];
        }
    }

    /// Adds a piece of a message's payload. `frame` and `message` tell what ends with it.
    pub(crate) fn push(&mut self, opcode: Opcode, piece: &[u8], frame: bool, message: bool) {
        if self.hold.is_empty() {
            self.begin();
        }
        self.hold.push(opcode, piece, frame, message);
        self.counted += piece.len();
        self.held.add(piece.len());
    }

    /// Judges the message that is held, which is whole, and counts what was judged.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn judge_held(&mut self, metrics: &RouteMetrics) -> Result<(), RefusedMessage> {
        let Self { direction, passed, judges, hold, .. } = self;
        judge(*direction, judges.as_deref(), passed, hold.payload(), metrics)
    }

    /// Judges a whole message that need not be held, because all of it was read at once. The same as for one that is held.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn judge_at_once(&mut self, payload: &[u8], metrics: &RouteMetrics) -> Result<(), RefusedMessage> {
        self.begin();
        let Self { direction, passed, judges, .. } = self;
        judge(*direction, judges.as_deref(), passed, payload, metrics)
    }

    /// The whole message, in frames that are ready to be sent; `masked` toward a backend. Toward a client it is compressed
    /// where that was negotiated and helps.
    pub(crate) fn release(
        &mut self,
        masks: &mut Masks,
        codec: &mut Codec,
        masked: bool,
        metrics: &RouteMetrics,
    ) -> Vec<u8> {
        let mut frames = Vec::new();
        if self.window.is_some_and(|window| self.hold.release_deflated(&mut frames, codec, window)) {
            metrics.traffic(self.direction).compressed.inc();
        } else {
            frames.reserve(self.hold.payload().len() + 16);
            self.hold.release(&mut frames, || masked.then(|| masks.next()));
        }
        self.forget();
        frames
    }

    /// Whether no message may be begun, because memory is short.
    pub(crate) fn must_wait(&self) -> bool {
        self.hold.is_empty() && self.held.short.load(Ordering::Relaxed)
    }

    /// Bytes of the message that is held.
    pub(crate) fn held(&self) -> usize {
        self.counted
    }

    fn forget(&mut self) {
        self.held.subtract(std::mem::take(&mut self.counted));
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Judges a message by `rules` and counts the verdict; `passed` keeps the counters of what passes.
fn judge(
    direction: Direction,
    rules: Option<&Rules>,
    passed: &mut [Option<Counter>],
    payload: &[u8],
    metrics: &RouteMetrics,
) -> Result<(), RefusedMessage> {
    let Some(rules) = rules else { return Ok(()) };
    let name = |rule: Option<usize>| rule.and_then(|rule| rules.rules.get(rule)).map(|rule| &rule.name);
    let count = |rule, verdict| metrics.judged(direction, name(rule), verdict);
    let judged = rules.judge(payload, |rule| {
        if let Some(passed) = passed.get_mut(rule.unwrap_or(rules.rules.len())) {
            passed.get_or_insert_with(|| count(rule, Verdict::Matched)).inc();
        }
    });
    let Err(fault) = judged else { return Ok(()) };
    let client = direction == Direction::FromClient;
    let either = |own: Reason, other: Reason| if client { own } else { other };
    let (reason, rule, verdict, detail) = match fault {
        Fault::Malformed(why) => (
            match why {
                Malformed::Depth | Malformed::Values => {
                    either(Reason::MessageTooComplex, Reason::BackendMessageTooComplex)
                }
                Malformed::Syntax | Malformed::DuplicateName => {
                    either(Reason::MessageMalformed, Reason::BackendMessageMalformed)
                }
            },
            None,
            Verdict::Malformed,
            Detail { malformed: Some(why.label()), ..Detail::default() },
        ),
        Fault::Unmatched => (
            either(Reason::MessageUnmatched, Reason::BackendMessageUnmatched),
            None,
            Verdict::Unmatched,
            Detail::default(),
        ),
        Fault::Invalid { rule, place, keyword } => (
            either(Reason::MessageInvalid, Reason::BackendMessageInvalid),
            Some(rule),
            Verdict::Invalid,
            Detail {
                schema: name(Some(rule)).cloned(),
                pointer: Some(place),
                keyword: Some(keyword),
                ..Detail::default()
            },
        ),
    };
    count(rule, verdict).inc();
    Err(RefusedMessage { reason, detail })
}
