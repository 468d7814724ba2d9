//! Compression: whatever is inflated is what a reader with small buffers inflates of the same bytes, is within its bounds,
//! and leaves nothing behind; whatever is deflated inflates to the same. Offers of extensions are answered or declined.

use flate2::{Decompress, FlushDecompress, Status};
use wssgate::ws::deflate::{Codec, FREE, InflateError, MAX_FINAL, MAX_WINDOW, MIN_WINDOW, RATIO};
use wssgate::ws::upgrade::extensions::negotiate;

/// Byte 0: the window, and the size of the small buffers. Bytes 1 and 2: the largest size. Then compressed payload, which
/// is also taken as a message to compress and as a list of offers.
pub fn check(data: &[u8]) {
    let Some((&[flags, high, low], payload)) = data.split_first_chunk::<3>() else { return };
    let max_size = u64::from(u16::from_be_bytes([high, low]));
    let mut codec = Codec::default();
    let verdict = codec.inflate(payload, max_size);
    match &verdict {
        Ok(out) => {
            assert!(out.len() as u64 <= max_size);
            assert_eq!(plain(payload, usize::from(flags) + 1).as_ref(), Some(out), "two readers read two things");
        }
        Err(InflateError::Size) => {}
        Err(InflateError::Data) => {
            assert!(plain(payload, 4096).is_none(), "the plain reader takes it");
        }
        Err(InflateError::Ratio) => assert!(max_size > FREE.max(payload.len() * RATIO) as u64),
    }
    let window = MIN_WINDOW + flags % (MAX_WINDOW - MIN_WINDOW + 1);
    if let Some(small) = codec.deflate(payload, window) {
        assert!(small.len() < payload.len());
        assert_eq!(codec.inflate(&small, payload.len() as u64).as_deref(), Ok(payload));
    }
    assert_eq!(codec.inflate(payload, max_size), verdict, "something was left behind");
    if let Some(deflate) = negotiate(payload) {
        assert!((MIN_WINDOW..=MAX_WINDOW).contains(&deflate.window()));
        assert!(payload.windows(18).any(|part| part == b"permessage-deflate"));
        // What is answered could have been offered.
        assert!(negotiate(deflate.answer().as_bytes()).is_some());
    }
}

/// Inflates with an output of so many bytes at a time; `None`: no stream that ends with the message. A message of many
/// streams (RFC 7692 §7.2.3.5) is read as far as the codec reads it.
fn plain(payload: &[u8], piece: usize) -> Option<Vec<u8>> {
    let input = [payload, &[0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF]].concat();
    let (mut at, mut out, mut inflater) = (0, Vec::new(), Decompress::new(false));
    let mut buffer = vec![0; piece];
    for _ in 0..MAX_FINAL {
        loop {
            let (used, had) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(&input[at..], &mut buffer, FlushDecompress::None).ok()?;
            let (used, made) = ((inflater.total_in() - used) as usize, (inflater.total_out() - had) as usize);
            at += used;
            out.extend_from_slice(&buffer[..made]);
            match status {
                Status::StreamEnd if at == input.len() => return Some(out),
                Status::StreamEnd => break,
                _ if used == 0 && made == 0 => return None,
                _ => {}
            }
        }
        inflater.reset(false);
    }
    None
}
