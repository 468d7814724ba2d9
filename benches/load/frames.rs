//! WebSocket frames as the load needs them: a streaming parser for both sides and pre-built masked frames.
//!
//! Not the product's codec: what measures and checks the gateway must not share its mistakes.

/// Opcodes (RFC 6455, section 5.2) that the load sends or meets.
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// What [`Parser::feed`] tells about the bytes it was given.
pub(crate) enum Piece<'a> {
    /// A frame header: FIN bit, opcode, payload length in bytes.
    Begin { fin: bool, opcode: u8, length: u64 },
    /// Payload bytes at `offset` of the frame, still masked with `mask` (zero where the frame has none).
    Payload { opcode: u8, offset: u64, mask: [u8; 4], bytes: &'a [u8] },
    /// The frame is complete.
    End { opcode: u8 },
}

/// A streaming frame parser: any split of the bytes gives the same pieces.
#[derive(Default)]
pub(crate) struct Parser {
    head: [u8; 14],
    have: usize,
    mask: [u8; 4],
    length: u64,
    remaining: u64,
    in_payload: bool,
}

impl Parser {
    /// Reads `input` whole and reports each piece in order.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut on: impl FnMut(Piece<'_>)) {
        loop {
            let opcode = self.head[0] & 0x0F;
            if self.in_payload {
                let take = input.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
                let (bytes, rest) = input.split_at(take);
                if take > 0 {
                    on(Piece::Payload { opcode, offset: self.length - self.remaining, mask: self.mask, bytes });
                }
                input = rest;
                self.remaining -= take as u64;
                if self.remaining > 0 {
                    return;
                }
                self.in_payload = false;
                self.have = 0;
                on(Piece::End { opcode });
            }
            let take = input.len().min(self.wanted() - self.have);
            self.head[self.have..self.have + take].copy_from_slice(&input[..take]);
            self.have += take;
            input = &input[take..];
            if self.have < self.wanted() {
                if take == 0 {
                    return;
                }
                continue; // The first two bytes may have told that the header is longer.
            }
            self.begin();
            on(Piece::Begin { fin: self.head[0] & 0x80 != 0, opcode: self.head[0] & 0x0F, length: self.length });
        }
    }

    /// The header's length as far as the bytes so far tell.
    fn wanted(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let extended = match self.head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + if self.head[1] & 0x80 != 0 { 4 } else { 0 }
    }

    fn begin(&mut self) {
        let head = &self.head[..self.have];
        let (length, at) = match head[1] & 0x7F {
            126 => (u64::from(head[2]) << 8 | u64::from(head[3]), 4),
            127 => (head[2..10].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 10),
            short => (u64::from(short), 2),
        };
        self.mask = match head.get(at..at + 4) {
            Some(&[a, b, c, d]) => [a, b, c, d],
            _ => [0; 4],
        };
        self.length = length;
        self.remaining = length;
        self.in_payload = true;
    }
}

/// Appends a frame header with FIN set.
pub(crate) fn write_header(out: &mut Vec<u8>, opcode: u8, length: usize, mask: Option<[u8; 4]>) {
    out.push(0x80 | opcode);
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xFFFF => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
}

/// Appends a whole masked frame.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; 4]) {
    write_header(out, opcode, payload.len(), Some(mask));
    write_xored(out, payload, 0, mask);
}

/// Appends `bytes`, which stand at `offset` of their frame, with the mask applied.
pub(crate) fn write_xored(out: &mut Vec<u8>, bytes: &[u8], offset: u64, mask: [u8; 4]) {
    let mut wide = [0; 32];
    for (at, byte) in wide.iter_mut().enumerate() {
        *byte = mask[(at + (offset & 3) as usize) & 3];
    }
    let start = out.len();
    out.extend_from_slice(bytes);
    let mut chunks = out[start..].chunks_exact_mut(32);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(&wide) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(&wide) {
        *byte ^= key;
    }
}
