//! The key and its answer (RFC 6455 §4.1, §4.2.2): proof that the other side speaks WebSocket, no secret.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 §4.2.2, item 5.4).
pub fn accept_key(key: &str) -> String {
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(GUID);
    STANDARD.encode(sha1.finish())
}

/// A `Sec-WebSocket-Key` of ours (RFC 6455 §4.1, item 7); the bytes must be random and fresh for each handshake.
pub fn fresh_key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Base64 (RFC 4648 §4) whose last character may have stray bits. The answer is made of the key's characters, so two
/// spellings of the same bytes are two keys.
const KEYS: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Whether a key is the base64 of exactly 16 bytes (RFC 6455 §4.2.1, item 5).
pub(super) fn is_key(key: &[u8]) -> bool {
    key.len() == 24 && KEYS.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_key_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_sixteen_bytes_in_base64_are_a_key() {
        assert!(is_key(fresh_key([0xFB; 16]).as_bytes()));
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ==") && is_key(b"dGhlIHNhbXBsZSBub25jZR=="));
        for bad in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25j",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZWU=",
            b"dGhlIHNhbXBsZSBub25jZWVl",
            b"dGhlIHNhbXBsZSBub25_ZQ==",
            b"dGhlIHNhbXBsZSBub25 ZQ==",
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
