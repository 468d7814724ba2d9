//! Frames: any cut of a stream is judged alike, and what goes on is what tungstenite would have read.

use std::io::{self, Cursor, Read, Write};

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use wssgate::ws::frame::{self, Header, HeaderError, Opcode};
use wssgate::ws::hold::Hold;
use wssgate::ws::message::{Judge, Limits, MAX_KEPT, Step, Violation};

/// Limits that small inputs can reach.
pub const LIMITS: Limits =
    Limits { text: true, binary: true, max_size: 70_000, max_fragments: 16, ..Limits::CONTROL_ONLY };

/// Byte 0: bit 0 whether frames are masked, bit 1 no text, bit 2 no binary, bit 3 text is held, bit 4 binary is held,
/// bit 5 messages whose first frame has an odd length are left out, bit 6 messages are shown. Bytes 1 to 4: sizes of pieces. Then the stream.
pub fn check(data: &[u8]) {
    let Some((&[flags, pieces @ ..], stream)) = data.split_first_chunk::<5>() else { return };
    let masked = flags & 1 != 0;
    let limits = Limits {
        text: flags & 2 == 0,
        binary: flags & 4 == 0,
        hold_text: flags & 8 != 0,
        hold_binary: flags & 16 != 0,
        ruled: flags & 32 != 0,
        watched: flags & 64 != 0,
        ..LIMITS
    };
    check_header(stream, masked);
    let whole = Run::of(stream, &[usize::MAX], masked, &limits);
    check_cuts(&whole, stream, &pieces.map(|size| usize::from(size) + 1), masked, &limits);
    check_cuts(&whole, stream, &[1], masked, &limits);
    if whole.violation.is_none() {
        let (messages, end) = read(&whole.out, masked);
        let closed = whole.controls.iter().any(|(opcode, _)| *opcode == Opcode::Close);
        assert!(closed || end == "waits", "we let through what ends in: {end}");
        let (came, end_of_what_came) = read(stream, masked);
        let (frames, frames_that_came) = (frames(&whole.out), frames(stream));
        if limits.ruled {
            // What goes on is what came, in its order, without some of it.
            let mut came = came.into_iter();
            assert!(messages.iter().all(|message| came.any(|other| other == *message)), "something else goes on");
            let mut frames_that_came = frames_that_came.into_iter();
            let all = frames.iter().all(|message| frames_that_came.any(|other| other == *message));
            assert!(all, "a message goes on in other frames");
            return;
        }
        assert_eq!((messages, end), (came, end_of_what_came), "what goes on is not what came");
        assert_eq!(frames, frames_that_came, "a message goes on in other frames");
    }
}

/// The frames of one message: opcode and payload of each.
pub type Frames = Vec<(u8, Vec<u8>)>;

/// The messages of a good stream that are whole, each with its frames, read by tungstenite's headers. Control frames go on
/// ahead of a message that is held, so they are left out; what follows a Close frame is not read.
pub fn frames(stream: &[u8]) -> Vec<Frames> {
    let (mut messages, mut message, mut cursor) = (Vec::new(), Frames::new(), Cursor::new(stream));
    while let Ok(Some((header, len))) = FrameHeader::parse(&mut cursor) {
        let start = cursor.position();
        let end = start.saturating_add(len);
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let Some(payload) = range.and_then(|(start, end)| stream.get(start..end)) else { break };
        cursor.set_position(end);
        let opcode = u8::from(header.opcode);
        match opcode {
            8 => break,
            9.. => continue,
            _ => {}
        }
        let key = header.mask.unwrap_or_default();
        message.push((opcode, payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect()));
        if header.is_final {
            messages.push(std::mem::take(&mut message));
        }
    }
    messages
}

/// Our header against tungstenite's. Ours is stricter: it refuses reserved bits, the wrong masking, lengths that are
/// not minimal or too large, and long or fragmented control frames; tungstenite leaves all that to later layers or
/// accepts it.
pub fn check_header(bytes: &[u8], masked: bool) {
    let mut cursor = Cursor::new(bytes);
    let theirs = FrameHeader::parse(&mut cursor);
    match Header::parse(bytes, masked) {
        Ok(Some((header, size))) => {
            let Ok(Some((their, len))) = theirs else { unreachable_header(bytes) };
            assert_eq!(their.is_final, header.fin);
            assert_eq!(u8::from(their.opcode), header.opcode.bits());
            assert_eq!(their.mask, header.mask);
            assert_eq!((len, cursor.position()), (header.len, size as u64));
            let mut written = Vec::new();
            header.write(&mut written);
            assert_eq!(written, bytes[..size], "a header is written as it was read");
        }
        Ok(None) => assert!(matches!(theirs, Ok(None)), "they read a header where we wait"),
        Err(HeaderError::ReservedOpcode) => assert!(!matches!(theirs, Ok(Some(_))), "they know this opcode"),
        Err(error) => {
            let Ok(Some((their, len))) = theirs else { return };
            let control = u8::from(their.opcode) & 8 != 0;
            let ours = match error {
                HeaderError::ReservedBit => their.rsv1 || their.rsv2 || their.rsv3,
                HeaderError::Mask => their.mask.is_some() != masked,
                HeaderError::ControlFragmented => control && !their.is_final,
                HeaderError::ControlTooLong => {
                    control && len > 125 || matches!(bytes.get(1), Some(b) if b & 0x7F > 125)
                }
                HeaderError::LengthTooLarge => len >> 63 == 1,
                HeaderError::LengthNotMinimal => {
                    let mut shortest = Vec::new();
                    Header { fin: true, opcode: Opcode::Binary, mask: their.mask, len }.write(&mut shortest);
                    (shortest.len() as u64) < cursor.position()
                }
                HeaderError::ReservedOpcode => false,
            };
            assert!(ours, "{error:?} without its cause");
        }
    }
}

#[expect(clippy::panic, reason = "how a property fails")]
fn unreachable_header(bytes: &[u8]) -> ! {
    panic!("we read a header where they do not: {bytes:?}")
}

/// Any cut of a stream gives the same verdict and the same bytes. Only what was let go of a message before it turned
/// out to be bad may differ in length.
pub fn check_cuts(whole: &Run, stream: &[u8], pieces: &[usize], masked: bool, limits: &Limits) {
    let cut = Run::of(stream, pieces, masked, limits);
    assert_eq!(cut.violation, whole.violation);
    if whole.violation.is_none() {
        assert_eq!(cut, *whole);
    } else {
        let common = cut.out.len().min(whole.out.len());
        assert_eq!(cut.out[..common], whole.out[..common]);
        assert_eq!(cut.controls, whole.controls);
        assert_eq!(cut.messages, whole.messages);
    }
}

/// What a judge made of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The bytes that go on, control frames masked anew like the rest.
    pub out: Vec<u8>,
    /// Control frames, payload unmasked.
    pub controls: Vec<(Opcode, Vec<u8>)>,
    /// Messages that ended.
    pub messages: usize,
    /// What ended it.
    pub violation: Option<Violation>,
    /// Whether the stream ended within a frame or a message.
    pub within: (bool, bool),
}

impl Run {
    /// Judges a stream that arrives in pieces of these sizes, over and over.
    pub fn of(stream: &[u8], pieces: &[usize], masked: bool, limits: &Limits) -> Self {
        let mut run = Self::default();
        let mut judge = Judge::new(masked);
        let mut keys = 0u32;
        let mut key = || {
            keys = keys.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
            keys.to_be_bytes()
        };
        let (mut kept, mut hold) = (Vec::new(), Hold::default());
        let mut sizes = pieces.iter().cycle();
        let mut rest = stream;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(sizes.next().copied().unwrap_or(1)));
            rest = behind;
            kept.extend_from_slice(piece);
            let mut at = 0;
            loop {
                match judge.next(&mut kept[at..], limits, 0, &mut key) {
                    Ok(Step::NeedMore) => break,
                    Ok(Step::Data { len, message }) => {
                        assert!(len > 0, "a step that takes nothing");
                        run.out.extend_from_slice(&kept[at..at + len]);
                        run.messages += usize::from(message);
                        at += len;
                    }
                    Ok(Step::Held { opcode, header, len, frame, message }) => {
                        assert!(len > 0, "a step that takes nothing");
                        hold.push(opcode, &kept[at + header..at + len], frame, message);
                        assert!(hold.payload().len() as u64 <= limits.max_size, "more held than is allowed");
                        if message {
                            hold.release(&mut run.out, || masked.then(&mut key));
                            run.messages += 1;
                        }
                        at += len;
                    }
                    Ok(Step::Watched { header, len, message }) => {
                        assert!(len > 0, "a step that takes nothing");
                        judge.mask(&mut kept[at + header..at + len]);
                        run.out.extend_from_slice(&kept[at..at + len]);
                        run.messages += usize::from(message);
                        at += len;
                    }
                    Ok(Step::First { payload }) => judge.rule(payload % 2 == 1),
                    Ok(Step::Dropped { len }) => {
                        assert!(len > 0, "a step that takes nothing");
                        at += len;
                    }
                    Ok(Step::Control { header, len, .. } | Step::Close { header, len, .. }) => {
                        let opcode = match kept[at] & 0x0F {
                            0x8 => Opcode::Close,
                            0x9 => Opcode::Ping,
                            _ => Opcode::Pong,
                        };
                        let payload = &kept[at + header..at + len];
                        frame::write(&mut run.out, opcode, payload, masked.then(&mut key));
                        run.controls.push((opcode, payload.to_vec()));
                        at += len;
                    }
                    Err(violation) => {
                        run.violation = Some(violation);
                        return run;
                    }
                }
            }
            kept.drain(..at);
            assert!(kept.len() < MAX_KEPT, "more kept than was promised");
        }
        run.within = (judge.in_frame(), judge.in_message());
        run
    }
}

/// What tungstenite reads from a stream: messages, and what ended them.
pub fn read(stream: &[u8], masked: bool) -> (Vec<Message>, String) {
    let role = if masked { Role::Server } else { Role::Client };
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let mut socket = WebSocket::from_raw_socket(Wire(stream), role, Some(config));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => messages.push(message),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (messages, "waits".into()),
            Err(error) => return (messages, error.to_string()),
        }
    }
}

/// A socket with these bytes to read and nobody who reads what is written.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
