//! One message that is held until it is whole, in the frames in which it came.
//!
//! Nothing of it has gone on, so it can still be refused. Its size is bounded by the judge, which refuses a frame by its
//! header before its payload arrives; here memory grows with what has arrived, never with what was announced.

use crate::ws::deflate::{self, Codec, RSV1};
use crate::ws::frame::{self, Header, Opcode, mask};
use crate::ws::message::Violation;
use crate::ws::utf8::Utf8;

/// A message in the making.
#[derive(Debug, Default)]
pub struct Hold {
    opcode: Option<Opcode>,
    payload: Vec<u8>,
    /// Where each frame but the last ends in the payload.
    ends: Vec<usize>,
}

impl Hold {
    /// Adds a piece of payload. `opcode` is the type of the message; `frame` and `message` tell what ends with the piece.
    pub fn push(&mut self, opcode: Opcode, piece: &[u8], frame: bool, message: bool) {
        self.opcode = Some(opcode);
        self.payload.extend_from_slice(piece);
        if frame && !message {
            self.ends.push(self.payload.len());
        }
    }

    /// Whether no message is held, not even an empty frame of one.
    pub fn is_empty(&self) -> bool {
        self.opcode.is_none()
    }

    /// Payload that is held.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Inflates the message, which is whole and compressed, and judges what no frame could tell: its size and, of text, that
    /// it is UTF-8 (RFC 7692 §6.2: both are of the message, not of what is on the wire). It is one frame then.
    ///
    /// # Errors
    /// What it breaks.
    pub fn inflate(&mut self, codec: &mut Codec, max_size: u64) -> Result<(), Violation> {
        let payload = codec.inflate(&self.payload, max_size)?;
        if self.opcode == Some(Opcode::Text) {
            let mut utf8 = Utf8::NEW;
            utf8.feed(&payload).and_then(|()| utf8.finish()).map_err(|_| Violation::Utf8)?;
        }
        (self.payload, self.ends) = (payload, Vec::new());
        Ok(())
    }

    /// Appends the whole message to `out` in one compressed frame without a mask, if it came in one frame, is of a size that
    /// is compressed and gets smaller by it; whether it did. Then nothing is held any more.
    pub fn release_deflated(&mut self, out: &mut Vec<u8>, codec: &mut Codec, window: u8) -> bool {
        let one = self.ends.is_empty() && (deflate::MIN..=deflate::MAX).contains(&(self.payload.len() as u64));
        let (Some(opcode), true) = (self.opcode, one) else { return false };
        let Some(small) = codec.deflate(&self.payload, window) else { return false };
        let at = out.len();
        frame::write(out, opcode, &small, None);
        out[at] |= RSV1;
        *self = Self::default();
        true
    }

    /// Appends the whole message to `out` in its own frames, each with a fresh mask if `key` gives one, and holds nothing
    /// any more.
    pub fn release(&mut self, out: &mut Vec<u8>, mut key: impl FnMut() -> Option<[u8; 4]>) {
        let Self { opcode, payload, ends } = std::mem::take(self);
        let Some(mut opcode) = opcode else { return };
        let mut start = 0;
        let last = ends.len();
        for (index, end) in ends.into_iter().chain([payload.len()]).enumerate() {
            let piece = &payload[start..end];
            let header = Header { fin: index == last, opcode, mask: key(), len: piece.len() as u64 };
            header.write(out);
            let at = out.len();
            out.extend_from_slice(piece);
            if let Some(key) = header.mask {
                mask(&mut out[at..], key, 0);
            }
            opcode = Opcode::Continuation;
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(hold: &mut Hold, key: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = Vec::new();
        hold.release(&mut out, || key);
        out
    }

    #[test]
    fn a_message_is_released_in_the_frames_in_which_it_came() {
        let mut hold = Hold::default();
        hold.push(Opcode::Text, b"He", false, false);
        hold.push(Opcode::Text, b"l", true, false);
        hold.push(Opcode::Text, b"", true, false);
        hold.push(Opcode::Text, b"lo", true, true);
        assert_eq!(hold.payload(), b"Hello");
        assert_eq!(released(&mut hold, None), b"\x01\x03Hel\x00\x00\x80\x02lo");
        assert!(hold.payload().is_empty() && released(&mut hold, None).is_empty());
    }

    #[test]
    fn an_empty_message_is_a_frame() {
        let mut hold = Hold::default();
        hold.push(Opcode::Binary, b"", true, true);
        assert_eq!(released(&mut hold, None), b"\x82\x00");
    }

    #[test]
    fn each_frame_has_a_fresh_mask() {
        let mut hold = Hold::default();
        hold.push(Opcode::Binary, b"ab", true, false);
        hold.push(Opcode::Binary, b"c", true, true);
        let (mut out, mut next) = (Vec::new(), 0);
        hold.release(&mut out, || {
            next += 1;
            Some([next; 4])
        });
        assert_eq!(
            out,
            [&b"\x02\x82\x01\x01\x01\x01"[..], &[b'a' ^ 1, b'b' ^ 1], b"\x80\x81\x02\x02\x02\x02", &[b'c' ^ 2]]
                .concat()
        );
    }
}
