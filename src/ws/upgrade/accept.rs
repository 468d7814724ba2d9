//! The key and its answer (RFC 6455 §4.1, §4.2.2): proof that the other side speaks WebSocket, no secret.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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

/// Whether a key is the base64 of exactly 16 bytes in its one canonical spelling (RFC 6455 §4.2.1, item 5).
pub(super) fn is_key(key: &[u8]) -> bool {
    // The engine demands padding and refuses stray bits at the end, so each 16 bytes have one spelling.
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_key_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_sixteen_bytes_in_canonical_base64_are_a_key() {
        assert!(is_key(fresh_key([0xFB; 16]).as_bytes()));
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for bad in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25j",
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZR==",
            b"dGhlIHNhbXBsZSBub25jZWU=",
            b"dGhlIHNhbXBsZSBub25jZWVl",
            b"dGhlIHNhbXBsZSBub25_ZQ==",
            b"dGhlIHNhbXBsZSBub25 ZQ==",
        ] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
