//! Frame headers (RFC 6455 §5.2), masking (§5.3) and small frames of our own.

use crate::ws::deflate::RSV1;

/// The largest header: two bytes, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;
/// The largest payload of a control frame (RFC 6455 §5.5).
pub const MAX_CONTROL: usize = 125;

/// What a frame is (RFC 6455 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of the message that is open.
    Continuation,
    /// The first frame of a text message.
    Text,
    /// The first frame of a binary message.
    Binary,
    /// The end of the connection.
    Close,
    /// A question whether the peer lives.
    Ping,
    /// Its answer.
    Pong,
}

impl Opcode {
    /// The four bits on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Close, Ping and Pong.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame header that RFC 6455 allows without extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, if the frame is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub len: u64,
}

/// Why a header is refused. All of them end the connection with 1002.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    /// A reserved bit is set and no extension was negotiated (§5.2).
    ReservedBit,
    /// A reserved opcode (§5.2).
    ReservedOpcode,
    /// The length is not in its shortest form (§5.2: "the minimal number of bytes MUST be used").
    LengthNotMinimal,
    /// The most significant bit of a 64-bit length is set (§5.2).
    LengthTooLarge,
    /// A control frame of more than 125 bytes (§5.5).
    ControlTooLong,
    /// A fragmented control frame (§5.5).
    ControlFragmented,
    /// A client's frame without mask, or a server's with one (§5.1).
    Mask,
}

impl Header {
    /// Reads a header from the start of `bytes`: the header and its size in bytes, or `None` if it is not whole yet.
    /// A header is judged by the bytes that are there: a bad first byte is refused before the second arrives.
    ///
    /// `masked` tells whether frames of this direction carry a mask: always from a client, never from a server.
    ///
    /// # Errors
    /// What RFC 6455 §5 forbids, in [`HeaderError`].
    #[inline]
    pub fn parse(bytes: &[u8], masked: bool) -> Result<Option<(Self, usize)>, HeaderError> {
        Self::parse_with(bytes, masked, false)
    }

    /// The same where permessage-deflate may have been negotiated (`deflate`): then RSV1 may be set in the first frame of a
    /// message, and only there (RFC 7692 §6).
    ///
    /// # Errors
    /// Those of [`Header::parse`].
    #[inline]
    pub fn parse_with(bytes: &[u8], masked: bool, deflate: bool) -> Result<Option<(Self, usize)>, HeaderError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 && !(deflate && first & 0x70 == RSV1 && matches!(first & 0x0F, 0x1 | 0x2)) {
            return Err(HeaderError::ReservedBit);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(HeaderError::ReservedOpcode)?;
        if opcode.is_control() && !fin {
            return Err(HeaderError::ControlFragmented);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if (second & 0x80 != 0) != masked {
            return Err(HeaderError::Mask);
        }
        let short = second & 0x7F;
        if opcode.is_control() && short > 125 {
            return Err(HeaderError::ControlTooLong);
        }
        let (len, mut at) = match short {
            126 => {
                let Some(Ok(raw)) = bytes.get(2..4).map(<[u8; 2]>::try_from) else { return Ok(None) };
                (u64::from(u16::from_be_bytes(raw)), 4)
            }
            127 => {
                let Some(Ok(raw)) = bytes.get(2..10).map(<[u8; 8]>::try_from) else { return Ok(None) };
                (u64::from_be_bytes(raw), 10)
            }
            short => (u64::from(short), 2),
        };
        if (short == 126 && len < 126) || (short == 127 && len <= 0xFFFF) {
            return Err(HeaderError::LengthNotMinimal);
        }
        if len >> 63 != 0 {
            return Err(HeaderError::LengthTooLarge);
        }
        let mut mask = None;
        if masked {
            let Some(Ok(key)) = bytes.get(at..at + 4).map(<[u8; 4]>::try_from) else { return Ok(None) };
            mask = Some(key);
            at += 4;
        }
        Ok(Some((Self { fin, opcode, mask, len }, at)))
    }

    /// Appends the header in its shortest form.
    pub fn write(&self, out: &mut Vec<u8>) {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        out.push(if self.fin { 0x80 } else { 0 } | self.opcode.bits());
        match self.len {
            0..=125 => out.push(masked | self.len as u8),
            126..=0xFFFF => {
                out.push(masked | 126);
                out.extend_from_slice(&(self.len as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend_from_slice(&self.len.to_be_bytes());
            }
        }
        out.extend_from_slice(self.mask.as_ref().map_or(&[][..], |key| &key[..]));
    }
}

/// XORs `bytes` with a masking key whose first byte belongs to the payload's byte `offset` before them (§5.3). Masking
/// and unmasking are the same operation; two keys XORed change one mask for another in one pass.
#[inline]
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let key = wide(key, offset);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_le_bytes(*word) ^ key).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= key;
    }
}

/// Changes one mask for another in one pass, and tells whether all that is under them is ASCII. `offset` is as for
/// [`mask`].
#[inline]
pub fn exchange(bytes: &mut [u8], from: [u8; 4], to: [u8; 4], offset: usize) -> bool {
    let from = wide(from, offset);
    let both = from ^ wide(to, offset);
    let mut seen = 0;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        let masked = u64::from_le_bytes(*word);
        seen |= masked ^ from;
        *word = (masked ^ both).to_le_bytes();
    }
    let mut last = 0;
    for ((byte, from), both) in rest.iter_mut().zip(from.to_le_bytes()).zip(both.to_le_bytes()) {
        last |= *byte ^ from;
        *byte ^= both;
    }
    (seen | u64::from(last)) & 0x8080_8080_8080_8080 == 0
}

/// A key twice in a row, its first byte that of `offset`; little-endian, so that the first byte is the lowest.
#[inline]
fn wide(key: [u8; 4], offset: usize) -> u64 {
    let key = u64::from(u32::from_le_bytes(key).rotate_right(8 * (offset as u32 & 3)));
    key << 32 | key
}

/// Appends a whole unfragmented frame, masked if a key is given.
pub fn write(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    Header { fin: true, opcode, mask: key, len: payload.len() as u64 }.write(out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_as_it_was_written_at_every_boundary_of_length() {
        for len in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, u64::MAX >> 1] {
            for key in [None, Some([1, 2, 3, 4])] {
                let header = Header { fin: true, opcode: Opcode::Binary, mask: key, len };
                let mut bytes = Vec::new();
                header.write(&mut bytes);
                for short in 0..bytes.len() {
                    assert_eq!(Header::parse(&bytes[..short], key.is_some()), Ok(None));
                }
                assert_eq!(Header::parse(&bytes, key.is_some()), Ok(Some((header, bytes.len()))));
            }
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused_by_name() {
        let parse = |bytes: &[u8]| Header::parse(bytes, false);
        for rsv in [0xC1, 0xA1, 0x91] {
            assert_eq!(parse(&[rsv]), Err(HeaderError::ReservedBit));
        }
        let compressed = |first: u8| Header::parse_with(&[first], false, true);
        for allowed in [0xC1, 0xC2, 0x41, 0x42] {
            assert_eq!(compressed(allowed), Ok(None));
        }
        // On a continuation, on control frames, on reserved opcodes, and with other bits.
        for rsv in [0xC0, 0x40, 0xC8, 0xC9, 0xCA, 0xC3, 0xA1, 0x91, 0xE1, 0xD2, 0xF1] {
            assert_eq!(compressed(rsv), Err(HeaderError::ReservedBit));
        }
        for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            assert_eq!(parse(&[0x80 | opcode]), Err(HeaderError::ReservedOpcode));
        }
        assert_eq!(parse(&[0x09, 0]), Err(HeaderError::ControlFragmented));
        assert_eq!(parse(&[0x89, 126]), Err(HeaderError::ControlTooLong));
        assert_eq!(parse(&[0x82, 126, 0, 125]), Err(HeaderError::LengthNotMinimal));
        assert_eq!(parse(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), Err(HeaderError::LengthNotMinimal));
        assert_eq!(parse(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(HeaderError::LengthTooLarge));
        assert_eq!(parse(&[0x82, 0x85]), Err(HeaderError::Mask));
        assert_eq!(Header::parse(&[0x82, 0x05], true), Err(HeaderError::Mask));
    }

    #[test]
    fn masking_in_pieces_equals_masking_at_once() {
        let plain: Vec<u8> = (0..200u8).collect();
        let key = [0xA5, 0x01, 0xFF, 0x7E];
        let mut whole = plain.clone();
        mask(&mut whole, key, 0);
        for cut in 0..plain.len() {
            let mut pieces = plain.clone();
            let (head, tail) = pieces.split_at_mut(cut);
            mask(head, key, 0);
            mask(tail, key, cut);
            assert_eq!(pieces, whole);
        }
        for (i, byte) in whole.iter().enumerate() {
            assert_eq!(*byte, plain[i] ^ key[i % 4]);
        }
    }

    #[test]
    fn an_exchange_is_two_masks_and_finds_any_byte_beyond_ascii() {
        let (from, to) = ([0xA5, 0x01, 0xFF, 0x7E], [0x80, 0x7F, 0x00, 0xC3]);
        for len in 0..40 {
            for beyond in 0..=len {
                let mut plain = vec![b'a'; len];
                if let Some(byte) = plain.get_mut(beyond) {
                    *byte = 0x80;
                }
                for offset in 0..4 {
                    let (mut bytes, mut expected) = (plain.clone(), plain.clone());
                    mask(&mut bytes, from, offset);
                    mask(&mut expected, to, offset);
                    assert_eq!(exchange(&mut bytes, from, to, offset), plain.is_ascii());
                    assert_eq!(bytes, expected);
                }
            }
        }
    }
}
