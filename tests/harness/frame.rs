//! Frames as tests write and read them: any bit can be wrong on purpose.

/// One frame (RFC 6455 §5.2), masked on the wire when a key is given.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// The three reserved bits, 0 to 7.
    pub rsv: u8,
    pub opcode: u8,
    /// The key it arrived with.
    pub key: Option<[u8; 4]>,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = String::from_utf8_lossy(&self.payload[..self.payload.len().min(60)]);
        write!(
            f,
            "Frame(fin={} rsv={} opcode={} masked={} len={} {shown:?})",
            self.fin,
            self.rsv,
            self.opcode,
            self.key.is_some(),
            self.payload.len()
        )
    }
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, rsv: 0, opcode, key: None, payload: payload.into() }
    }

    pub fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(0, payload)
    }

    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(1, payload)
    }

    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(2, payload)
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(8, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(9, payload)
    }

    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(10, payload)
    }

    /// The same frame as one that is not the last of its message.
    pub fn more(mut self) -> Self {
        self.fin = false;
        self
    }

    /// The same frame with reserved bits.
    pub fn rsv(mut self, bits: u8) -> Self {
        self.rsv = bits;
        self
    }

    /// What it says, whatever key it arrived with.
    pub fn same(&self, other: &Self) -> bool {
        (self.fin, self.rsv, self.opcode, &self.payload) == (other.fin, other.rsv, other.opcode, &other.payload)
    }

    /// The bytes on the wire, masked with `key` if there is one.
    pub fn bytes(&self, key: Option<[u8; 4]>) -> Vec<u8> {
        let len = self.payload.len() as u64;
        let form = match len {
            0..=125 => 0,
            126..=0xFFFF => 126,
            _ => 127,
        };
        let mut out = self.header(form, len, key);
        out.extend(self.payload.iter().enumerate().map(|(i, byte)| byte ^ key.map_or(0, |key| key[i % 4])));
        out
    }

    /// A header that announces `len` in a chosen form: 0 short, 126 two bytes, 127 eight bytes.
    pub fn header(&self, form: u8, len: u64, key: Option<[u8; 4]>) -> Vec<u8> {
        let masked = if key.is_some() { 0x80 } else { 0 };
        let mut out = vec![(u8::from(self.fin) << 7) | (self.rsv << 4) | self.opcode];
        match form {
            126 => {
                out.push(masked | 126);
                out.extend((len as u16).to_be_bytes());
            }
            127 => {
                out.push(masked | 127);
                out.extend(len.to_be_bytes());
            }
            _ => out.push(masked | len as u8),
        }
        out.extend(key.into_iter().flatten());
        out
    }

    /// Reads one frame from the start of `bytes`: the frame and its size, or `None` if it is not whole.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (len, mut at) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let mut key = None;
        if second & 0x80 != 0 {
            key = Some(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4;
        }
        let end = at.checked_add(usize::try_from(len).ok()?)?;
        let mut payload = bytes.get(at..end)?.to_vec();
        if let Some(key) = key {
            let key: [u8; 4] = key;
            payload.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= key[i % 4]);
        }
        Some((Self { fin: first & 0x80 != 0, rsv: (first >> 4) & 7, opcode: first & 0x0F, key, payload }, end))
    }

    /// Every frame of a transcript; panics if it ends within one.
    pub fn all(mut bytes: &[u8]) -> Vec<Self> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let (frame, size) = Self::read(bytes).expect("the transcript ends within a frame");
            frames.push(frame);
            bytes = &bytes[size..];
        }
        frames
    }

    /// The code and reason of a Close frame; (1005, "") where it has none (RFC 6455 §7.1.5).
    pub fn code(&self) -> (u16, String) {
        match self.payload.split_first_chunk::<2>() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
            None => (1005, String::new()),
        }
    }
}
