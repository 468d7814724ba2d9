//! Compression of whole messages (permessage-deflate, RFC 7692), without context takeover: each message is a DEFLATE
//! stream of its own, so one [`Codec`] serves any number of connections and a connection keeps nothing between messages.
//!
//! Bytes in, bytes out. Knows no frames and no connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bit RSV1 of a frame's first byte: the message is compressed (§6).
pub const RSV1: u8 = 0x40;
/// The smallest message in bytes that is compressed; a smaller one gains less than it costs.
pub const MIN: u64 = 1024;
/// The largest message in bytes that is compressed: it is held until it is whole, a larger one streams.
pub const MAX: u64 = 1 << 20;
/// Bytes to which a message may inflate whatever its compressed size.
pub const FREE: usize = 256 << 10;
/// Beyond [`FREE`] a message may inflate to so many times its compressed size. DEFLATE itself reaches 1,032; text rarely
/// reaches 50.
pub const RATIO: usize = 128;
/// The smallest window that zlib can keep to, as its logarithm; RFC 7692 §7.1.2.1 knows 8 too.
pub const MIN_WINDOW: u8 = 9;
/// The largest window.
pub const MAX_WINDOW: u8 = 15;

/// Takes a third of the time of zlib's default level, 6; JSON is a twelfth larger.
const LEVEL: u32 = 2;
/// What the sender took away (§7.2.1), and a final empty block: a stream that ends exactly behind it was whole.
const TAIL: [u8; 9] = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];
/// Blocks with BFINAL that a message may have (§7.2.3.5): each begins a new stream, which costs more than its bytes.
pub const MAX_FINAL: usize = 1024;

/// Why a message cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InflateError {
    /// Not a DEFLATE stream that ends where the message does, or one that refers to an earlier message.
    Data,
    /// It inflates to more than the largest size.
    Size,
    /// It inflates to more than [`FREE`] bytes and [`RATIO`] times its compressed size.
    Ratio,
}

/// The most bytes of compressed payload that a message of at most so many bytes may have: what does not compress grows a
/// little.
pub const fn compressed_bound(max_size: u64) -> u64 {
    max_size.saturating_add(max_size / 16).saturating_add(64)
}

/// The state of one inflater and of one deflater for each window that was asked for. A worker keeps one.
#[derive(Default)]
pub struct Codec {
    inflater: Option<Decompress>,
    deflaters: [Option<Compress>; (MAX_WINDOW - MIN_WINDOW) as usize + 1],
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

impl Codec {
    /// Allocates what messages of a connection with this window need, so that none of them has to.
    pub fn reserve(&mut self, window: u8) {
        self.inflater();
        self.deflater(window);
    }

    fn inflater(&mut self) -> &mut Decompress {
        // A window of 15 inflates what was deflated with any other.
        self.inflater.get_or_insert_with(|| Decompress::new(false))
    }

    fn deflater(&mut self, window: u8) -> &mut Compress {
        let window = window.clamp(MIN_WINDOW, MAX_WINDOW);
        self.deflaters[usize::from(window - MIN_WINDOW)]
            .get_or_insert_with(|| Compress::new_with_window_bits(Compression::new(LEVEL), false, window))
    }

    /// Inflates the payload of a whole message (§7.2.2). The output never has more than one byte beyond what may be.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn inflate(&mut self, payload: &[u8], max_size: u64) -> Result<Vec<u8>, InflateError> {
        let size = usize::try_from(max_size).unwrap_or(usize::MAX - 1);
        let ratio = payload.len().saturating_mul(RATIO).max(FREE);
        let (most, over) = if size <= ratio { (size, InflateError::Size) } else { (ratio, InflateError::Ratio) };
        let inflater = self.inflater();
        inflater.reset(false);
        let mut out = Vec::with_capacity(payload.len().saturating_mul(4).min(most + 1));
        let (mut finals, mut ended) = (0, false);
        for mut input in [payload, &TAIL] {
            loop {
                if out.len() == out.capacity() {
                    out.reserve_exact(out.len().max(1024).min(most + 1 - out.len()));
                }
                let (before, had) = (inflater.total_in(), out.len());
                let status = inflater.decompress_vec(input, &mut out, FlushDecompress::None);
                let status = status.map_err(|_| InflateError::Data)?;
                let used = usize::try_from(inflater.total_in() - before).unwrap_or(input.len());
                input = input.get(used..).unwrap_or_default();
                if out.len() > most {
                    return Err(over);
                }
                ended = status == Status::StreamEnd;
                if ended {
                    finals += 1;
                    if finals > MAX_FINAL {
                        return Err(InflateError::Data);
                    }
                    inflater.reset(false);
                    if input.is_empty() {
                        break;
                    }
                } else if out.len() < out.capacity() {
                    if input.is_empty() {
                        break;
                    }
                    if used == 0 && out.len() == had {
                        return Err(InflateError::Data);
                    }
                }
            }
        }
        if ended { Ok(out) } else { Err(InflateError::Data) }
    }

    /// Deflates a message with a window of so many bits (§7.2.1); `None` if it would not be smaller.
    pub fn deflate(&mut self, payload: &[u8], window: u8) -> Option<Vec<u8>> {
        let deflater = self.deflater(window);
        deflater.reset();
        // The four bytes that are taken away, and one that shows that nothing was left over.
        let mut out = Vec::with_capacity(payload.len() + 4);
        loop {
            let used = usize::try_from(deflater.total_in()).ok()?;
            deflater.compress_vec(payload.get(used..)?, &mut out, FlushCompress::Sync).ok()?;
            if out.len() == out.capacity() {
                return None;
            }
            if usize::try_from(deflater.total_in()).ok()? == payload.len() {
                break;
            }
        }
        let len = out.strip_suffix(&TAIL[..4])?.len();
        out.truncate(len);
        (len < payload.len()).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message `Hello` in the three forms of RFC 7692 §7.2.3.
    const HELLO: &[&[u8]] = &[
        &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00],
        &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
        &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
        &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
    ];

    fn json(len: usize) -> Vec<u8> {
        let mut text = String::new();
        for number in 0.. {
            if text.len() >= len {
                break;
            }
            text += &format!("{{\"id\":{number},\"name\":\"user {}\",\"at\":{}}},", number * 7919, number * 104_729);
        }
        text.truncate(len);
        text.into_bytes()
    }

    fn deflated(payload: &[u8]) -> Vec<u8> {
        Codec::default().deflate(payload, MAX_WINDOW).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfc_are_inflated() {
        let mut codec = Codec::default();
        for example in HELLO {
            assert_eq!(codec.inflate(example, 5), Ok(b"Hello".to_vec()), "{example:?}");
            assert_eq!(codec.inflate(example, 4), Err(InflateError::Size), "{example:?}");
        }
        assert_eq!(codec.inflate(&[0], 0), Ok(Vec::new()), "an empty message (§7.2.3.6)");
    }

    #[test]
    fn a_stream_that_does_not_end_with_its_message_is_refused() {
        let mut codec = Codec::default();
        let whole = deflated(&json(5000));
        for len in 0..whole.len() {
            let cut = codec.inflate(&whole[..len], 1 << 20);
            // A cut may fall behind a whole block.
            assert!(cut == Err(InflateError::Data) || cut.is_ok_and(|out| json(5000).starts_with(&out)), "{len}");
        }
        assert_eq!(codec.inflate(&whole[..whole.len() / 2], 1 << 20), Err(InflateError::Data));
        for bad in [&b""[..], b"\x06", b"\xFF\xFF", b"Hello", &[&whole[..], b"\0\0"].concat()] {
            assert_eq!(codec.inflate(bad, 1 << 20), Err(InflateError::Data), "{bad:?}");
        }
        // The second message of RFC 7692 §7.2.3.2 refers to the first.
        assert_eq!(codec.inflate(&[0xF2, 0x00, 0x11, 0x00, 0x00], 99), Err(InflateError::Data));
        assert_eq!(codec.inflate(HELLO[0], 99), Ok(b"Hello".to_vec()), "nothing is left of it");
    }

    #[test]
    fn a_bomb_is_refused_before_memory_grows() {
        let mut deflater = Compress::new(Compression::best(), false);
        let mut bomb = Vec::with_capacity(1 << 20);
        deflater.compress_vec(&vec![0; 64 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        bomb.truncate(bomb.len() - 4);
        assert!(bomb.len() < 70_000, "{}", bomb.len());
        let mut codec = Codec::default();
        assert_eq!(codec.inflate(&bomb, 64 << 10), Err(InflateError::Size));
        assert_eq!(codec.inflate(&bomb, 1 << 30), Err(InflateError::Ratio));
        // What is small may be as dense as it likes, to the byte.
        for (len, size, expected) in [
            (FREE, FREE, Ok(())),
            (FREE, FREE - 1, Err(InflateError::Size)),
            (FREE + 1, FREE, Err(InflateError::Size)),
            (FREE + 1, FREE + 1, Err(InflateError::Ratio)),
        ] {
            let inflated = codec.inflate(&deflated(&vec![b' '; len]), size as u64);
            assert_eq!(inflated.map(|out| assert_eq!(out.len(), len)), expected, "{len} {size}");
        }
        // The inner of two is data like any other.
        let nested = deflated(&deflated(&vec![0; 1 << 20]));
        assert_eq!(codec.inflate(&nested, 64 << 10), Ok(deflated(&vec![0; 1 << 20])));
    }

    #[test]
    fn a_flood_of_final_blocks_is_refused() {
        let message = |finals: usize| [[3, 0].repeat(finals), vec![0]].concat();
        let mut codec = Codec::default();
        assert_eq!(codec.inflate(&message(MAX_FINAL - 1), 99), Ok(Vec::new()));
        assert_eq!(codec.inflate(&message(MAX_FINAL), 99), Err(InflateError::Data));
    }

    #[test]
    fn what_is_deflated_fits_its_window_and_inflates_to_the_same() {
        let mut codec = Codec::default();
        for window in MIN_WINDOW..=MAX_WINDOW {
            for len in [1024, 1025, 5000, 70_000, 300_000] {
                let message = json(len);
                let small = codec.deflate(&message, window).unwrap();
                assert!(small.len() * 2 < len, "{window} {len}: {}", small.len());
                assert_eq!(codec.inflate(&small, len as u64).as_ref(), Ok(&message));
                let mut narrow = Decompress::new_with_window_bits(false, window);
                let mut out = Vec::with_capacity(len + 1);
                narrow.decompress_vec(&small, &mut out, FlushDecompress::None).unwrap();
                assert_eq!(out, message, "{window} {len}");
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_not_deflated() {
        let mut codec = Codec::default();
        let mut noise = vec![0; 5000];
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        assert_eq!(codec.deflate(&noise, MAX_WINDOW), None);
        assert_eq!(codec.deflate(b"", MAX_WINDOW), None);
        // A client may send it compressed all the same.
        let mut deflater = Compress::new(Compression::fast(), false);
        let mut out = Vec::with_capacity(6000);
        deflater.compress_vec(&noise, &mut out, FlushCompress::Sync).unwrap();
        let small = &out[..out.len() - 4];
        assert!(small.len() > noise.len() && small.len() as u64 <= compressed_bound(noise.len() as u64));
        assert_eq!(codec.inflate(small, 5000), Ok(noise));
    }
}
