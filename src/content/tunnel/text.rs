//! Protocols that begin with a line of text.

use super::form::Fit::{self, No, SoFar, Whole};
use super::form::{Seen, form, line_with};

/// A line that begins with one of `starts` and has one of `words` in any case (RFC 5321 §4.2, RFC 959 §5.4, RFC 3501 §7.1).
pub(super) fn greeting(seen: Seen<'_>, starts: &[&[u8]], words: &[&str]) -> Fit {
    line_with(seen, starts, |line| {
        let line = line.to_ascii_uppercase();
        words.iter().any(|word| line.contains(&word.to_ascii_uppercase()))
    })
}

/// RFC 4253 §4.2: `SSH-2.0-software comments`, then a line end.
pub(super) fn ssh(seen: Seen<'_>) -> Fit {
    line_with(seen, &[b"SSH-2.0-", b"SSH-1.99-", b"SSH-1.5-"], |_| true)
}

/// RFC 9112 §3: a method, a target and the version, then a line end.
pub(super) fn http_request(seen: Seen<'_>) -> Fit {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];
    line_with(seen, &METHODS, |line| {
        let parts: Vec<&str> = line.split(' ').collect();
        matches!(parts[..], [_, target, "HTTP/1.0" | "HTTP/1.1"] if !target.is_empty())
    })
}

/// RFC 9112 §4: the version and a status, then a line end.
pub(super) fn http_response(seen: Seen<'_>) -> Fit {
    line_with(seen, &[b"HTTP/1.0 ", b"HTTP/1.1 "], |line| {
        matches!(line.as_bytes().get(9..12), Some([b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']))
    })
}

/// RFC 6143 §7.1.1: `RFB 003.008` and a line end.
pub(super) fn rfb(seen: Seen<'_>) -> Fit {
    let fits = |(at, byte): (usize, &u8)| match at {
        0..4 => *byte == b"RFB "[at],
        7 => *byte == b'.',
        11 => *byte == b'\n',
        _ => byte.is_ascii_digit(),
    };
    match seen.bytes.iter().take(12).enumerate().all(fits) {
        false => No,
        true if seen.bytes.len() < 12 => SoFar,
        true => Whole,
    }
}

/// Redis, "RESP": an array whose first element is a string of the length that it says.
pub(super) fn redis(seen: Seen<'_>) -> Fit {
    let number = |at: &mut usize, mark: u8| -> Result<usize, Fit> {
        match seen.bytes.get(*at) {
            None => return Err(SoFar),
            Some(there) if *there != mark => return Err(No),
            Some(_) => *at += 1,
        }
        let rest = &seen.bytes[*at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 7 || (digits == 0 && !rest.is_empty()) {
            return Err(No);
        }
        for (offset, byte) in [b'\r', b'\n'].into_iter().enumerate() {
            match rest.get(digits + offset) {
                None => return Err(SoFar),
                Some(there) if *there != byte => return Err(No),
                Some(_) => {}
            }
        }
        let text = std::str::from_utf8(&rest[..digits]).map_err(|_| No)?;
        *at += digits + 2;
        text.parse().map_err(|_| No)
    };
    let fits = || -> Result<Fit, Fit> {
        let mut at = 0;
        let elements = number(&mut at, b'*')?;
        let length = number(&mut at, b'$')?;
        if elements == 0 || !(1..=64).contains(&length) {
            return Ok(No);
        }
        let name = &seen.bytes[at..seen.bytes.len().min(at + length)];
        if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte)) {
            return Ok(No);
        }
        Ok(form(seen.has(&[(at + length, b'\r'), (at + length + 1, b'\n')])))
    };
    fits().unwrap_or_else(|fit| fit)
}

/// RFC 5321 §4.1.1.1: a client says who it is, by a name or an address in brackets. Commands have any case (§2.4).
pub(super) fn smtp_hello(seen: Seen<'_>) -> Fit {
    let upper = seen.bytes.to_ascii_uppercase();
    line_with(Seen { bytes: &upper, ..seen }, &[b"EHLO ", b"HELO "], |line| {
        let name = line[5..].trim_end();
        name.contains(['.', '[']) && !name.contains(char::is_whitespace)
    })
}
