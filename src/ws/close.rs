//! The payload of Close frames (RFC 6455 §5.5.1, §7.4).

use crate::ws::utf8::Utf8;

/// Why a Close payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseError {
    /// One byte, where a code has two.
    Truncated,
    /// A code that must not be on the wire or that nobody has registered.
    Code,
    /// The reason is not UTF-8.
    Reason,
}

/// Whether a code may be received (RFC 6455 §7.4 and the IANA registry).
pub const fn is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads the payload of a Close frame: the code, or `None` where there is none.
///
/// # Errors
/// A payload that RFC 6455 forbids.
pub fn parse(payload: &[u8]) -> Result<Option<u16>, CloseError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseError::Truncated) };
    };
    let code = u16::from_be_bytes(*code);
    if !is_valid(code) {
        return Err(CloseError::Code);
    }
    let mut utf8 = Utf8::default();
    utf8.feed(reason).and_then(|()| utf8.finish()).map_err(|_| CloseError::Reason)?;
    Ok(Some(code))
}

/// The payload of a Close frame of ours; the reason must fit 123 bytes and is cut at a character if it does not.
pub fn payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = code.to_be_bytes().to_vec();
    bytes.extend_from_slice(&reason.as_bytes()[..end]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_unknown_codes_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(parse(&u16::to_be_bytes(code)), Err(CloseError::Code), "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1014, 3000, 4999] {
            assert_eq!(parse(&u16::to_be_bytes(code)), Ok(Some(code)));
        }
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[3]), Err(CloseError::Truncated));
        assert_eq!(parse(&[3, 0xE8, 0xFF]), Err(CloseError::Reason));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let bytes = payload(1001, &"é".repeat(100));
        assert_eq!(bytes.len(), 2 + 122);
        assert_eq!(parse(&bytes), Ok(Some(1001)));
    }
}
