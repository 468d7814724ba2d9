//! One direction of a connection, judged header first: a frame is refused before its payload is read, payload that
//! nothing needs to read streams through, and frame boundaries are kept (RFC 6455 §5.4).
//!
//! Works in place on the bytes that arrived. A client's frame gets a fresh mask on the way (§5.3: the key must not be
//! predictable for the one who chose the payload); header sizes do not change, so what is judged is what is sent.

use crate::ws::frame::{self, Header, HeaderError, MAX_HEADER, Opcode};
use crate::ws::utf8::Utf8;

/// The most bytes that [`Judge::next`] may ask the caller to keep: a control frame that is not whole.
pub const MAX_KEPT: usize = MAX_HEADER + frame::MAX_CONTROL;

/// Control frames that one peer may send in a second; more is a flood.
pub const MAX_CONTROL_PER_SECOND: u16 = 100;

/// What a route allows in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Whether text messages may pass.
    pub text: bool,
    /// Whether binary messages may pass.
    pub binary: bool,
    /// The largest message in bytes of payload, over all its fragments.
    pub max_size: u64,
    /// The most frames of one message.
    pub max_fragments: u32,
}

/// Why a frame is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A header that RFC 6455 forbids.
    Header(HeaderError),
    /// A continuation without a message, or a new message within one (§5.4).
    Sequence,
    /// A type that the route does not allow.
    Type,
    /// More than `max_size`.
    Size,
    /// More than `max_fragments`.
    Fragments,
    /// Text that is not UTF-8.
    Utf8,
    /// Too many control frames.
    ControlFlood,
    /// A frame after Close (§5.5.1).
    AfterClose,
}

/// What lies at the start of the bytes that were judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Not enough bytes to judge: keep them, at most [`MAX_KEPT`], and come again with more behind them.
    NeedMore,
    /// So many bytes of data frames, judged and ready to be sent as they are now.
    Data {
        /// Bytes from the start.
        len: usize,
        /// A message ended with these bytes.
        message: bool,
    },
    /// One whole control frame. Its payload is unmasked in place.
    Control {
        /// Close, Ping or Pong.
        opcode: Opcode,
        /// Bytes of the header.
        header: usize,
        /// Bytes of the whole frame.
        len: usize,
    },
}

/// The state of one direction.
#[derive(Debug, Clone)]
pub struct Judge {
    masked: bool,
    closed: bool,
    /// The frame whose payload is being streamed.
    fin: bool,
    theirs: [u8; 4],
    ours: [u8; 4],
    remaining: u64,
    done: u64,
    /// The message that is open.
    open: Option<Opcode>,
    size: u64,
    fragments: u32,
    utf8: Utf8,
    control_second: u32,
    controls: u16,
}

impl Judge {
    /// A direction whose frames are masked (from a client) or not (from a server).
    pub const fn new(masked: bool) -> Self {
        Self {
            masked,
            closed: false,
            fin: true,
            theirs: [0; 4],
            ours: [0; 4],
            remaining: 0,
            done: 0,
            open: None,
            size: 0,
            fragments: 0,
            utf8: Utf8::NEW,
            control_second: 0,
            controls: 0,
        }
    }

    /// Whether this direction's frames carry a mask.
    pub const fn is_masked(&self) -> bool {
        self.masked
    }

    /// Whether the bytes judged so far end within a data frame: nothing of ours may be written there.
    pub const fn in_frame(&self) -> bool {
        self.remaining > 0
    }

    /// Whether a message was begun and has not ended.
    pub const fn in_message(&self) -> bool {
        self.open.is_some() || self.remaining > 0
    }

    /// Judges what lies at the start of `bytes`. `second` is any clock's count of seconds; `mask` gives a fresh
    /// unpredictable key for each client frame.
    ///
    /// # Errors
    /// The first violation. Nothing of the frame that caused it may be forwarded, but what was forwarded of it
    /// before (a prefix of its payload) may.
    #[inline]
    pub fn next(
        &mut self,
        bytes: &mut [u8],
        limits: &Limits,
        second: u32,
        mask: &mut impl FnMut() -> [u8; 4],
    ) -> Result<Step, Violation> {
        if bytes.is_empty() {
            return Ok(Step::NeedMore);
        }
        if self.remaining > 0 {
            return self.payload(bytes, 0);
        }
        if self.closed {
            return Err(Violation::AfterClose);
        }
        let Some((header, size)) = Header::parse(bytes, self.masked).map_err(Violation::Header)? else {
            return Ok(Step::NeedMore);
        };
        if header.opcode.is_control() {
            return self.control(bytes, &header, size, second);
        }
        self.begin(&header, limits)?;
        self.fin = header.fin;
        self.remaining = header.len;
        self.done = 0;
        if let Some(theirs) = header.mask {
            self.theirs = theirs;
            self.ours = mask();
            bytes[size - 4..size].copy_from_slice(&self.ours);
        }
        self.payload(bytes, size)
    }

    fn begin(&mut self, header: &Header, limits: &Limits) -> Result<(), Violation> {
        match (header.opcode, self.open) {
            (Opcode::Continuation, None) => return Err(Violation::Sequence),
            (Opcode::Continuation, Some(_)) => {}
            (_, Some(_)) => return Err(Violation::Sequence),
            (opcode, None) => {
                let allowed = if opcode == Opcode::Text { limits.text } else { limits.binary };
                if !allowed {
                    return Err(Violation::Type);
                }
                self.open = Some(opcode);
                self.size = 0;
                self.fragments = 0;
            }
        }
        // Neither sum can overflow: the length has at most 63 bits, the size is at most `max_size`.
        self.size = self.size.saturating_add(header.len);
        self.fragments = self.fragments.saturating_add(1);
        if self.size > limits.max_size {
            return Err(Violation::Size);
        }
        if self.fragments > limits.max_fragments {
            return Err(Violation::Fragments);
        }
        Ok(())
    }

    fn payload(&mut self, bytes: &mut [u8], start: usize) -> Result<Step, Violation> {
        let there = bytes.len() - start;
        let len = usize::try_from(self.remaining).map_or(there, |remaining| remaining.min(there));
        let payload = &mut bytes[start..start + len];
        let text = self.open == Some(Opcode::Text);
        let offset = self.done as usize;
        if self.masked {
            if text {
                frame::mask(payload, self.theirs, offset);
                self.utf8.feed(payload).map_err(|_| Violation::Utf8)?;
                frame::mask(payload, self.ours, offset);
            } else {
                let both = u32::from_ne_bytes(self.theirs) ^ u32::from_ne_bytes(self.ours);
                frame::mask(payload, both.to_ne_bytes(), offset);
            }
        } else if text {
            self.utf8.feed(payload).map_err(|_| Violation::Utf8)?;
        }
        self.remaining -= len as u64;
        self.done += len as u64;
        let message = self.remaining == 0 && self.fin;
        if message {
            self.open = None;
            if text {
                self.utf8.finish().map_err(|_| Violation::Utf8)?;
            }
        }
        Ok(Step::Data { len: start + len, message })
    }

    fn control(&mut self, bytes: &mut [u8], header: &Header, size: usize, second: u32) -> Result<Step, Violation> {
        let len = size + header.len as usize;
        let Some(payload) = bytes.get_mut(size..len) else { return Ok(Step::NeedMore) };
        if self.control_second != second {
            self.control_second = second;
            self.controls = 0;
        }
        self.controls += 1;
        if self.controls > MAX_CONTROL_PER_SECOND {
            return Err(Violation::ControlFlood);
        }
        if let Some(key) = header.mask {
            frame::mask(payload, key, 0);
        }
        self.closed = header.opcode == Opcode::Close;
        Ok(Step::Control { opcode: header.opcode, header: size, len })
    }
}
