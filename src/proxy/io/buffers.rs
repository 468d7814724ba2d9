//! Buffers that a worker lends to whichever connection moves bytes, so that an idle connection holds none.

use crate::ws::deflate::Codec;
use crate::ws::message::MAX_KEPT;

/// TLS bytes read in one wake-up. The read size is the strongest knob for large messages.
pub(crate) const READ: usize = 256 * 1024;
/// Backend bytes read in one go: what a client that does not read can leave unsent.
pub(crate) const BACKEND_READ: usize = 128 * 1024;
/// Room for what was kept of the last wake-up, in front of the new bytes.
pub(crate) const HEADROOM: usize = MAX_KEPT;
/// The largest TLS record on the wire (RFC 8446 §5.2, RFC 5246 §6.2.3).
pub(crate) const RECORD: usize = 18 * 1024 + 5;

/// One worker's buffers, lent for the length of one poll.
pub(crate) struct Buffers {
    /// TLS records as they arrive: up to one partial record, then what is read.
    pub(crate) input: Box<[u8]>,
    /// Plaintext of either direction, behind [`HEADROOM`].
    pub(crate) plain: Box<[u8]>,
    /// Sealed records.
    pub(crate) sealed: Box<[u8]>,
    /// Masking keys.
    pub(crate) masks: Masks,
    /// Compression; it allocates nothing before a connection negotiates it.
    pub(crate) codec: Codec,
}

impl Buffers {
    /// Buffers for one worker.
    pub(crate) fn new() -> Self {
        Self {
            input: vec![0; READ + RECORD].into(),
            plain: vec![0; HEADROOM + READ + RECORD].into(),
            sealed: vec![0; READ + RECORD].into(),
            masks: Masks { bytes: vec![0; 1024].into(), used: usize::MAX },
            codec: Codec::default(),
        }
    }
}

/// Fresh masking keys (RFC 6455 §5.3: unpredictable for the peer that chose the payload).
pub(crate) struct Masks {
    bytes: Box<[u8]>,
    used: usize,
}

impl Masks {
    /// The next key.
    pub(crate) fn next(&mut self) -> [u8; 4] {
        if self.used > self.bytes.len() - 4 {
            // A generator that fails leaves no way to mask; the task ends, as with any broken invariant.
            #[expect(clippy::expect_used, reason = "the system's random generator does not fail once it has started")]
            aws_lc_rs::rand::fill(&mut self.bytes).expect("random bytes");
            self.used = 0;
        }
        let mut key = [0; 4];
        key.copy_from_slice(&self.bytes[self.used..self.used + 4]);
        self.used += 4;
        key
    }
}
