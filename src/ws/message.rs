//! One direction of a connection, judged header first: a frame is refused before its payload is read, payload that
//! nothing needs to read streams through, and frame boundaries are kept (RFC 6455 §5.4).
//!
//! Works in place on the bytes that arrived. A client's frame gets a fresh mask on the way (§5.3: the key must not be
//! predictable for the one who chose the payload); header sizes do not change, so what is judged is what is sent.

use crate::ws::close::{self, CloseError};
use crate::ws::deflate::{self, InflateError, RSV1};
use crate::ws::frame::{self, Header, HeaderError, MAX_HEADER, Opcode};
use crate::ws::utf8::Utf8;

/// The most bytes that [`Judge::next`] may ask the caller to keep: a control frame that is not whole.
pub const MAX_KEPT: usize = MAX_HEADER + frame::MAX_CONTROL;

/// Control frames that one peer may send in a second; more is a flood.
pub const MAX_CONTROL_PER_SECOND: u16 = 100;

/// Bytes of text that are judged at a time.
const BLOCK: usize = 4096;

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
    /// Whether text messages are held until they are whole.
    pub hold_text: bool,
    /// Whether binary messages are held until they are whole.
    pub hold_binary: bool,
    /// Whether messages that stream are shown to the caller, unmasked, before they go on.
    pub watched: bool,
    /// Whether each message is announced before it begins, so that the caller can rule on it.
    pub ruled: bool,
}

impl Limits {
    /// Nothing but control frames passes.
    pub const CONTROL_ONLY: Self = Self {
        text: false,
        binary: false,
        max_size: 0,
        max_fragments: 0,
        hold_text: false,
        hold_binary: false,
        watched: false,
        ruled: false,
    };
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
    /// Text, or the reason of a Close frame, that is not UTF-8.
    Utf8,
    /// A Close frame whose payload RFC 6455 §5.5.1 and §7.4 forbid.
    Close,
    /// A compressed message that cannot be inflated (RFC 7692 §7.2.2).
    Deflate,
    /// A compressed message that inflates to too many times its size.
    Ratio,
    /// Too many control frames.
    ControlFlood,
    /// A frame after Close (§5.5.1).
    AfterClose,
}

impl From<InflateError> for Violation {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Data => Self::Deflate,
            InflateError::Size => Self::Size,
            InflateError::Ratio => Self::Ratio,
        }
    }
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
    /// So many bytes of a data frame whose message is held: judged, and not to be sent before the message is whole.
    Held {
        /// The type of the message.
        opcode: Opcode,
        /// Bytes of the header, 0 within a frame. What follows is payload, unmasked in place.
        header: usize,
        /// Bytes from the start.
        len: usize,
        /// The frame ends with these bytes.
        frame: bool,
        /// The message ends with these bytes.
        message: bool,
    },
    /// So many bytes of a data frame, judged. They go on once [`Judge::mask`] was called with their payload.
    Watched {
        /// Bytes of the header, 0 within a frame. What follows is payload, unmasked in place.
        header: usize,
        /// Bytes from the start.
        len: usize,
        /// The message ends with these bytes.
        message: bool,
    },
    /// A message would begin here, with a frame that may pass. Nothing of it was used: rule on it with [`Judge::rule`] and
    /// come again, or come again later.
    First {
        /// Bytes of payload that its first frame announces.
        payload: u64,
    },
    /// So many bytes of a message that is left out: judged as all others, and not to be sent.
    Dropped {
        /// Bytes from the start.
        len: usize,
    },
    /// One whole Ping or Pong. Its payload is unmasked in place.
    Control {
        /// Ping or Pong.
        opcode: Opcode,
        /// Bytes of the header.
        header: usize,
        /// Bytes of the whole frame.
        len: usize,
    },
    /// One whole Close frame. Its payload is valid and unmasked in place.
    Close {
        /// The code, if there is one.
        code: Option<u16>,
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
    /// permessage-deflate was negotiated with the client.
    deflate: bool,
    closed: bool,
    /// The frame whose payload is being streamed.
    fin: bool,
    theirs: [u8; 4],
    ours: [u8; 4],
    remaining: u64,
    done: u64,
    /// Payload of all data frames so far.
    total: u64,
    /// The message that is open.
    open: Option<Opcode>,
    /// It does not simply stream: it is held, left out or shown.
    held: bool,
    /// It is shown.
    watched: bool,
    /// It is compressed.
    compressed: bool,
    /// It is left out.
    dropped: bool,
    /// What the caller rules on the message that begins next: whether it is left out.
    ruling: Option<bool>,
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
            deflate: false,
            closed: false,
            fin: true,
            theirs: [0; 4],
            ours: [0; 4],
            remaining: 0,
            done: 0,
            total: 0,
            open: None,
            held: false,
            watched: false,
            compressed: false,
            dropped: false,
            ruling: None,
            size: 0,
            fragments: 0,
            utf8: Utf8::NEW,
            control_second: 0,
            controls: 0,
        }
    }

    /// permessage-deflate was negotiated with the client (RFC 7692): compressed messages of the client are held, and so are
    /// messages of the backend that can be compressed toward it.
    pub const fn set_deflate(&mut self) {
        self.deflate = true;
    }

    /// Whether the message of the last data frame is compressed.
    pub const fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// The compressed message that ended was inflated to so many bytes: they count in place of those that came, if they are
    /// more.
    pub const fn set_inflated(&mut self, size: u64) {
        self.total += size.saturating_sub(self.size);
        self.size = size;
    }

    /// Whether this direction's frames carry a mask.
    pub const fn is_masked(&self) -> bool {
        self.masked
    }

    /// Whether the bytes judged so far end within a data frame: nothing of ours may be written there.
    pub const fn in_frame(&self) -> bool {
        self.remaining > 0
    }

    /// Bytes of payload that data frames have had so far, but for those of messages that were left out.
    pub const fn payload_total(&self) -> u64 {
        self.total
    }

    /// Bytes of payload that the message of the last data frame has so far, in all its frames.
    pub const fn message_size(&self) -> u64 {
        self.size
    }

    /// Whether a message was begun and has not ended.
    pub const fn in_message(&self) -> bool {
        self.open.is_some() || self.remaining > 0
    }

    /// Rules on the message that [`Step::First`] announced: it passes, or it is left out.
    pub const fn rule(&mut self, leave_out: bool) {
        self.ruling = Some(leave_out);
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
        let deflate = self.deflate && self.masked;
        let header = Header::parse_with(bytes, self.masked, deflate).map_err(Violation::Header)?;
        let Some((header, size)) = header else {
            return Ok(Step::NeedMore);
        };
        if header.opcode.is_control() {
            return self.control(bytes, &header, size, second);
        }
        let first = self.begin(&header, limits, bytes[0] & RSV1 != 0)?;
        if limits.ruled && first {
            let Some(leave_out) = self.ruling.take() else {
                self.open = None;
                return Ok(Step::First { payload: header.len });
            };
            self.dropped = leave_out;
            self.held |= leave_out;
            self.watched &= !leave_out;
        }
        self.fin = header.fin;
        self.remaining = header.len;
        self.done = 0;
        if let Some(theirs) = header.mask {
            self.theirs = theirs;
            if !self.held || self.watched {
                self.ours = mask();
                bytes[size - 4..size].copy_from_slice(&self.ours);
            }
        }
        self.payload(bytes, size)
    }

    /// Judges the header of a data frame; whether it begins a message.
    fn begin(&mut self, header: &Header, limits: &Limits, compressed: bool) -> Result<bool, Violation> {
        let first = self.open.is_none();
        match (header.opcode, self.open) {
            (Opcode::Continuation, None) => return Err(Violation::Sequence),
            (Opcode::Continuation, Some(_)) => {}
            (_, Some(_)) => return Err(Violation::Sequence),
            (opcode, None) => {
                let (allowed, held) = match opcode {
                    Opcode::Text => (limits.text, limits.hold_text),
                    _ => (limits.binary, limits.hold_binary),
                };
                if !allowed {
                    return Err(Violation::Type);
                }
                self.open = Some(opcode);
                let held = held || (self.deflate && (compressed || self.can_be_compressed(header)));
                self.compressed = compressed;
                self.watched = limits.watched && !held;
                self.held = held || self.watched;
                self.dropped = false;
                self.size = 0;
                self.fragments = 0;
            }
        }
        // Neither sum can overflow: the length has at most 63 bits, the size is at most `max_size`.
        self.size = self.size.saturating_add(header.len);
        self.fragments = self.fragments.saturating_add(1);
        if self.size > limits.max_size && !(self.compressed && self.size <= deflate::compressed_bound(limits.max_size))
        {
            return Err(Violation::Size);
        }
        if self.fragments > limits.max_fragments {
            return Err(Violation::Fragments);
        }
        Ok(first)
    }

    /// Whether a message of the backend is one frame of a size that is compressed.
    const fn can_be_compressed(&self, header: &Header) -> bool {
        !self.masked && header.fin && deflate::MIN <= header.len && header.len <= deflate::MAX
    }

    fn payload(&mut self, bytes: &mut [u8], start: usize) -> Result<Step, Violation> {
        let there = bytes.len() - start;
        let len = usize::try_from(self.remaining).map_or(there, |remaining| remaining.min(there));
        let payload = &mut bytes[start..start + len];
        let text = self.open == Some(Opcode::Text);
        let offset = self.done as usize;
        if self.held {
            return self.hold(payload, start);
        }
        if self.masked {
            if text {
                self.remask_text(payload, offset)?;
            } else {
                let both = u32::from_ne_bytes(self.theirs) ^ u32::from_ne_bytes(self.ours);
                frame::mask(payload, both.to_ne_bytes(), offset);
            }
        } else if text {
            self.utf8.feed(payload).map_err(|_| Violation::Utf8)?;
        }
        let message = self.pass(len, text)?;
        Ok(Step::Data { len: start + len, message })
    }

    /// Masks payload that [`Step::Watched`] showed, as the frame that goes on has it. Once for each step, with nothing in
    /// between.
    pub fn mask(&self, payload: &mut [u8]) {
        if self.masked {
            frame::mask(payload, self.ours, self.done as usize - payload.len());
        }
    }

    /// Payload of a message that is held, left out or shown: unmasked, and judged as that which streams.
    #[cold]
    fn hold(&mut self, payload: &mut [u8], start: usize) -> Result<Step, Violation> {
        let opcode = self.open.unwrap_or(Opcode::Binary);
        let text = opcode == Opcode::Text;
        if self.masked {
            frame::mask(payload, self.theirs, self.done as usize);
        }
        // A compressed text is judged when it is inflated.
        if text && !self.compressed {
            self.utf8.feed(payload).map_err(|_| Violation::Utf8)?;
        }
        let message = self.pass(payload.len(), text)?;
        if self.dropped {
            self.total -= payload.len() as u64;
            return Ok(Step::Dropped { len: start + payload.len() });
        }
        if self.watched {
            return Ok(Step::Watched { header: start, len: start + payload.len(), message });
        }
        let frame = self.remaining == 0;
        Ok(Step::Held { opcode, header: start, len: start + payload.len(), frame, message })
    }

    /// Counts payload that was judged; whether the message ends with it.
    #[inline]
    fn pass(&mut self, len: usize, text: bool) -> Result<bool, Violation> {
        self.remaining -= len as u64;
        self.done += len as u64;
        self.total += len as u64;
        let message = self.remaining == 0 && self.fin;
        if message {
            self.open = None;
            if text {
                self.utf8.finish().map_err(|_| Violation::Utf8)?;
            }
        }
        Ok(message)
    }

    /// ASCII, which most text is, is judged and masked anew in the same pass. What is not is unmasked, checked and
    /// masked once more, block by block, so that it stays in the nearest cache.
    fn remask_text(&mut self, payload: &mut [u8], offset: usize) -> Result<(), Violation> {
        let mut offset = offset;
        for block in payload.chunks_mut(BLOCK) {
            let ascii = frame::exchange(block, self.theirs, self.ours, offset);
            if !(ascii && self.utf8.is_between()) {
                frame::mask(block, self.ours, offset);
                self.utf8.feed(block).map_err(|_| Violation::Utf8)?;
                frame::mask(block, self.ours, offset);
            }
            offset = offset.wrapping_add(block.len());
        }
        Ok(())
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
        if header.opcode != Opcode::Close {
            return Ok(Step::Control { opcode: header.opcode, header: size, len });
        }
        self.closed = true;
        match close::parse(payload) {
            Ok(code) => Ok(Step::Close { code, header: size, len }),
            Err(CloseError::Reason) => Err(Violation::Utf8),
            Err(CloseError::Truncated | CloseError::Code) => Err(Violation::Close),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::frame::write;

    const LIMITS: Limits = Limits { text: true, binary: true, max_size: 10, max_fragments: 3, ..Limits::CONTROL_ONLY };
    const THEIRS: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    const OURS: [u8; 4] = [0x01, 0x02, 0x03, 0x04];

    /// A client's frames, one after the other: first byte and payload of each.
    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(first, payload) in frames {
            let at = out.len();
            write(&mut out, Opcode::Binary, payload, Some(THEIRS));
            out[at] = first;
        }
        out
    }

    /// Judges a stream that is there at once.
    fn judge(stream: &[u8], limits: &Limits) -> Result<Vec<Step>, Violation> {
        let (mut judge, mut bytes, mut steps, mut at) = (Judge::new(true), stream.to_vec(), Vec::new(), 0);
        loop {
            match judge.next(&mut bytes[at..], limits, 7, &mut || OURS)? {
                Step::NeedMore => return Ok(steps),
                Step::First { .. } => return Ok(steps),
                step @ (Step::Data { len, .. }
                | Step::Held { len, .. }
                | Step::Watched { len, .. }
                | Step::Dropped { len }
                | Step::Control { len, .. }
                | Step::Close { len, .. }) => {
                    steps.push(step);
                    at += len;
                }
            }
        }
    }

    fn verdict(sent: &[(u8, &[u8])]) -> Option<Violation> {
        judge(&frames(sent), &LIMITS).err()
    }

    #[test]
    fn messages_pass_in_their_frames_with_controls_between_them() {
        let sent = frames(&[(0x01, b"ab"), (0x89, b"?"), (0x80, b"cd"), (0x82, b"")]);
        let data = |len, message| Step::Data { len, message };
        let ping = Step::Control { opcode: Opcode::Ping, header: 6, len: 7 };
        assert_eq!(judge(&sent, &LIMITS), Ok(vec![data(8, false), ping, data(8, true), data(6, true)]));
    }

    #[test]
    fn a_clients_frame_goes_on_under_our_mask() {
        for first in [0x81, 0x82] {
            let mut bytes = frames(&[(first, b"Hello")]);
            let step = Judge::new(true).next(&mut bytes, &LIMITS, 0, &mut || OURS);
            assert_eq!(step, Ok(Step::Data { len: 11, message: true }));
            assert_eq!(bytes[2..6], OURS);
            frame::mask(&mut bytes[6..], OURS, 0);
            assert_eq!(&bytes[6..], b"Hello");
        }
    }

    #[test]
    fn a_servers_frame_goes_on_as_it_is() {
        let mut bytes = b"\x81\x05Hello\x8a\x00".to_vec();
        let mut judge = Judge::new(false);
        let mut never = || -> [u8; 4] { unreachable!("a server's frame has no mask") };
        assert_eq!(judge.next(&mut bytes, &LIMITS, 0, &mut never), Ok(Step::Data { len: 7, message: true }));
        let pong = Step::Control { opcode: Opcode::Pong, header: 2, len: 2 };
        assert_eq!(judge.next(&mut bytes[7..], &LIMITS, 0, &mut never), Ok(pong));
        assert_eq!(bytes, b"\x81\x05Hello\x8a\x00");
    }

    #[test]
    fn a_frame_is_refused_by_its_header_before_its_payload_is_there() {
        let announced = |first: u8, len: u64| {
            let mut bytes = Vec::new();
            Header { fin: true, opcode: Opcode::Binary, mask: Some(THEIRS), len }.write(&mut bytes);
            bytes[0] = first;
            judge(&bytes, &Limits { text: false, ..LIMITS })
        };
        assert_eq!(announced(0x82, 11), Err(Violation::Size));
        assert_eq!(announced(0x82, u64::MAX >> 1), Err(Violation::Size));
        assert_eq!(announced(0x81, 1), Err(Violation::Type));
        assert_eq!(announced(0x80, 1), Err(Violation::Sequence));
        assert_eq!(announced(0xC2, 1), Err(Violation::Header(HeaderError::ReservedBit)));
        assert_eq!(announced(0x82, 10), Ok(vec![Step::Data { len: 6, message: false }]));
    }

    #[test]
    fn the_limit_of_size_is_the_last_that_passes_whole_or_in_fragments() {
        assert_eq!(verdict(&[(0x82, &[0; 10]), (0x82, &[0; 10])]), None);
        assert_eq!(verdict(&[(0x82, &[0; 11])]), Some(Violation::Size));
        assert_eq!(verdict(&[(0x02, &[0; 5]), (0x80, &[0; 5])]), None);
        assert_eq!(verdict(&[(0x02, &[0; 5]), (0x80, &[0; 6])]), Some(Violation::Size));
    }

    #[test]
    fn empty_fragments_count_and_the_count_begins_anew_with_each_message() {
        let three = [(0x02, &b""[..]), (0x00, b""), (0x80, b"")];
        assert_eq!(verdict(&[three, three].concat()), None);
        assert_eq!(verdict(&[(0x02, b""), (0x00, b""), (0x00, b""), (0x80, b"")]), Some(Violation::Fragments));
    }

    #[test]
    fn frames_out_of_sequence_are_refused() {
        assert_eq!(verdict(&[(0x80, b"")]), Some(Violation::Sequence));
        assert_eq!(verdict(&[(0x01, b"a"), (0x81, b"b")]), Some(Violation::Sequence));
        assert_eq!(verdict(&[(0x81, b"a"), (0x80, b"b")]), Some(Violation::Sequence));
        assert_eq!(verdict(&[(0x88, b""), (0x81, b"b")]), Some(Violation::AfterClose));
        assert_eq!(verdict(&[(0x88, b""), (0x88, b"")]), Some(Violation::AfterClose));
    }

    #[test]
    fn text_is_utf8_over_its_fragments_and_binary_need_not_be() {
        assert_eq!(verdict(&[(0x01, b"\xe2\x82"), (0x89, b"\xff"), (0x80, b"\xac")]), None);
        assert_eq!(verdict(&[(0x81, b"\xe2\x82")]), Some(Violation::Utf8));
        assert_eq!(verdict(&[(0x01, b"\xe2"), (0x00, b"\x28")]), Some(Violation::Utf8));
        assert_eq!(verdict(&[(0x82, b"\xe2\x82"), (0x81, b"a")]), None);
    }

    #[test]
    fn the_payload_of_a_close_frame_is_judged() {
        let close = |payload: &[u8]| judge(&frames(&[(0x88, payload)]), &LIMITS);
        let step = |code, len| Ok(vec![Step::Close { code, header: 6, len }]);
        assert_eq!(close(b""), step(None, 6));
        assert_eq!(close(b"\x03\xe8bye"), step(Some(1000), 11));
        assert_eq!(close(b"\x03"), Err(Violation::Close));
        assert_eq!(close(b"\x03\xed"), Err(Violation::Close));
        assert_eq!(close(b"\x03\xe8\xff"), Err(Violation::Utf8));
    }

    #[test]
    fn a_held_message_comes_unmasked_in_its_frames_and_others_pass_beside_it() {
        let limits = Limits { hold_text: true, ..LIMITS };
        let mut bytes = frames(&[(0x01, b"ab"), (0x89, b"?"), (0x80, b"c"), (0x82, b"xy")]);
        let (mut judge, mut at, mut payload, mut steps) = (Judge::new(true), 0, Vec::new(), Vec::new());
        while at < bytes.len() {
            let step = judge.next(&mut bytes[at..], &limits, 0, &mut || OURS).unwrap();
            steps.push(step);
            at += match step {
                Step::Held { header, len, .. } => {
                    payload.extend_from_slice(&bytes[at + header..at + len]);
                    len
                }
                Step::Data { len, .. } | Step::Control { len, .. } => len,
                step => panic!("{step:?}"),
            };
        }
        let held = |len, message| Step::Held { opcode: Opcode::Text, header: 6, len, frame: true, message };
        let ping = Step::Control { opcode: Opcode::Ping, header: 6, len: 7 };
        assert_eq!(steps, [held(8, false), ping, held(7, true), Step::Data { len: 8, message: true }]);
        assert_eq!((payload.as_slice(), judge.message_size()), (&b"abc"[..], 2));
    }

    #[test]
    fn a_watched_message_is_shown_unmasked_and_goes_on_as_one_that_streams() {
        let sent = frames(&[(0x01, b"abc"), (0x89, b"?"), (0x80, b"defgh"), (0x82, b"xy")]);
        for limits in [LIMITS, Limits { watched: true, ..LIMITS }] {
            let (mut judge, mut shown, mut out, mut kept) = (Judge::new(true), Vec::new(), Vec::new(), Vec::new());
            for byte in &sent {
                kept.push(*byte);
                let mut at = 0;
                loop {
                    at += match judge.next(&mut kept[at..], &limits, 0, &mut || OURS).unwrap() {
                        Step::NeedMore => break,
                        Step::Watched { header, len, .. } => {
                            let payload = &mut kept[at + header..at + len];
                            shown.extend_from_slice(payload);
                            judge.mask(payload);
                            out.extend_from_slice(&kept[at..at + len]);
                            len
                        }
                        Step::Data { len, .. } | Step::Control { len, .. } => {
                            out.extend_from_slice(&kept[at..at + len]);
                            len
                        }
                        step => panic!("{step:?}"),
                    };
                }
                kept.drain(..at);
            }
            let mut expected = Vec::new();
            for (first, payload) in [(0x01, &b"abc"[..]), (0x89, b"?"), (0x80, b"defgh"), (0x82, b"xy")] {
                let at = expected.len();
                write(&mut expected, Opcode::Binary, payload, Some(OURS));
                expected[at] = first;
            }
            // Of a control frame the payload comes unmasked.
            let ping = out.iter().position(|byte| *byte == 0x89).unwrap();
            out[ping + 2..ping + 6].copy_from_slice(&OURS);
            out[ping + 6] ^= OURS[0];
            assert_eq!(out, expected);
            assert_eq!(shown, if limits.watched { &b"abcdefghxy"[..] } else { b"" });
        }
    }

    #[test]
    fn a_held_message_is_judged_as_one_that_streams() {
        let limits = Limits { hold_text: true, ..LIMITS };
        let verdict = |sent: &[(u8, &[u8])]| judge(&frames(sent), &limits).err();
        assert_eq!(verdict(&[(0x81, b"\xe2\x28")]), Some(Violation::Utf8));
        assert_eq!(verdict(&[(0x81, b"\xe2\x82")]), Some(Violation::Utf8));
        assert_eq!(verdict(&[(0x01, b"\xe2\x82"), (0x80, b"\xac")]), None);
        assert_eq!(verdict(&[(0x01, &[b'a'; 6]), (0x80, &[b'a'; 5])]), Some(Violation::Size));
        assert_eq!(verdict(&[(0x01, b"a"), (0x81, b"b")]), Some(Violation::Sequence));
    }

    /// Judges a stream of which every message is ruled on, in turn.
    fn ruled(stream: &[u8], limits: &Limits, rulings: &[bool]) -> (Vec<Step>, Option<Violation>, u64) {
        let (mut judge, mut bytes, mut steps, mut at) = (Judge::new(true), stream.to_vec(), Vec::new(), 0);
        let mut rulings = rulings.iter();
        loop {
            let step = match judge.next(&mut bytes[at..], limits, 7, &mut || OURS) {
                Ok(Step::NeedMore) => return (steps, None, judge.payload_total()),
                Ok(step) => step,
                Err(violation) => return (steps, Some(violation), judge.payload_total()),
            };
            steps.push(step);
            match step {
                Step::First { .. } => judge.rule(*rulings.next().unwrap()),
                Step::Data { len, .. }
                | Step::Held { len, .. }
                | Step::Watched { len, .. }
                | Step::Dropped { len }
                | Step::Control { len, .. }
                | Step::Close { len, .. } => at += len,
                Step::NeedMore => {}
            }
        }
    }

    #[test]
    fn a_message_is_announced_before_it_begins_and_passes_or_is_left_out_in_all_its_frames() {
        let limits = Limits { ruled: true, ..LIMITS };
        let sent = frames(&[(0x01, b"ab"), (0x89, b"?"), (0x80, b"c"), (0x82, b"xy"), (0x81, b"d")]);
        let (steps, violation, total) = ruled(&sent, &limits, &[true, false, true]);
        let ping = Step::Control { opcode: Opcode::Ping, header: 6, len: 7 };
        let (first, left_out) = (|payload| Step::First { payload }, |len| Step::Dropped { len });
        let data = Step::Data { len: 8, message: true };
        assert_eq!(steps, [first(2), left_out(8), ping, left_out(7), first(2), data, first(1), left_out(7)]);
        assert_eq!((violation, total), (None, 2));
        // A message that is left out is left out too where it would be held.
        let (steps, ..) = ruled(&sent, &Limits { hold_text: true, ..limits }, &[true, false, false]);
        assert!(matches!(steps[..], [_, Step::Dropped { .. }, _, Step::Dropped { .. }, .., Step::Held { .. }]));
    }

    #[test]
    fn what_nobody_ruled_on_is_announced_again_and_a_frame_that_breaks_a_rule_is_not_announced() {
        let limits = Limits { ruled: true, ..LIMITS };
        let (mut judge, mut bytes) = (Judge::new(true), frames(&[(0x81, b"ab")]));
        for _ in 0..3 {
            let step = judge.next(&mut bytes, &limits, 0, &mut || OURS);
            assert_eq!((step, judge.in_message()), (Ok(Step::First { payload: 2 }), false));
        }
        judge.rule(false);
        assert_eq!(judge.next(&mut bytes, &limits, 0, &mut || OURS), Ok(Step::Data { len: 8, message: true }));
        for (sent, expected) in [
            (&[(0x82, &[0; 11][..])][..], Violation::Size),
            (&[(0x80, b"a")], Violation::Sequence),
            (&[(0xC2, b"a")], Violation::Header(HeaderError::ReservedBit)),
        ] {
            assert_eq!(ruled(&frames(sent), &limits, &[]), (vec![], Some(expected), 0));
        }
    }

    #[test]
    fn a_message_that_is_left_out_is_judged_as_one_that_passes() {
        let limits = Limits { ruled: true, ..LIMITS };
        let verdict = |sent: &[(u8, &[u8])]| ruled(&frames(sent), &limits, &[true]).1;
        assert_eq!(verdict(&[(0x81, b"\xe2\x28")]), Some(Violation::Utf8));
        assert_eq!(verdict(&[(0x01, &[b'a'; 6]), (0x80, &[b'a'; 5])]), Some(Violation::Size));
        assert_eq!(verdict(&[(0x01, b"a"), (0x00, b""), (0x00, b""), (0x80, b"")]), Some(Violation::Fragments));
        assert_eq!(verdict(&[(0x01, b"a"), (0x81, b"b")]), Some(Violation::Sequence));
    }

    #[test]
    fn control_frames_are_counted_by_the_second() {
        let ping = frames(&[(0x89, b"")]);
        let mut judge = Judge::new(true);
        for second in [1, 2] {
            for _ in 0..MAX_CONTROL_PER_SECOND {
                assert!(judge.next(&mut ping.clone(), &LIMITS, second, &mut || OURS).is_ok());
            }
        }
        assert_eq!(judge.next(&mut ping.clone(), &LIMITS, 2, &mut || OURS), Err(Violation::ControlFlood));
    }

    #[test]
    fn where_the_stream_stands_is_known() {
        let mut judge = Judge::new(true);
        let next = |judge: &mut Judge, mut bytes: Vec<u8>| judge.next(&mut bytes, &LIMITS, 0, &mut || OURS);
        let first = frames(&[(0x02, b"abc")]);
        assert_eq!((judge.in_frame(), judge.in_message()), (false, false));
        assert_eq!(next(&mut judge, first[..7].to_vec()), Ok(Step::Data { len: 7, message: false }));
        assert_eq!((judge.in_frame(), judge.in_message()), (true, true));
        assert_eq!(next(&mut judge, vec![]), Ok(Step::NeedMore));
        assert_eq!(next(&mut judge, first[7..].to_vec()), Ok(Step::Data { len: 2, message: false }));
        assert_eq!((judge.in_frame(), judge.in_message()), (false, true));
        assert_eq!(next(&mut judge, frames(&[(0x80, b"")])), Ok(Step::Data { len: 6, message: true }));
        assert_eq!((judge.in_frame(), judge.in_message()), (false, false));
    }
}
