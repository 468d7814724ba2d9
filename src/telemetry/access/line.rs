//! One line of the access log in the making: fields in order, values escaped and cut.
//!
//! Knows the two forms of a line, not what is logged.

use std::fmt;
use std::io::Write;

use jiff::Timestamp;

use crate::telemetry::format::Format;

/// Bytes of a value that are written at most.
pub(super) const VALUE: usize = 256;

/// The time as lines begin with it, to the millisecond. Most of it is that of the line before.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    second: i64,
    text: String,
}

impl Stamp {
    fn write(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if self.second != now.as_second() || self.text.is_empty() {
            self.second = now.as_second();
            self.text = format!("{now:.3}");
        }
        let millis = now.subsec_millisecond().unsigned_abs();
        // `2026-01-01T12:00:00.123Z`; before 1970 or with more digits it is written anew.
        match self.text.len().checked_sub(4).filter(|_| now.as_second() >= 0) {
            Some(end) => {
                out.extend_from_slice(&self.text.as_bytes()[..end]);
                let _ = write!(out, "{millis:03}Z");
            }
            None => {
                let _ = write!(out, "{now:.3}");
            }
        }
    }
}

/// A line in the making, at the end of others.
pub(super) struct Line<'a> {
    format: Format,
    bytes: &'a mut Vec<u8>,
}

impl<'a> Line<'a> {
    /// Begins a line with the time and the event. Writing to a Vec cannot fail.
    pub(super) fn new(format: Format, stamp: &mut Stamp, event: &'static str, bytes: &'a mut Vec<u8>) -> Self {
        // The first field has no comma before it.
        match format {
            Format::Json => {
                bytes.extend_from_slice(b"{\"timestamp\":\"");
                stamp.write(Timestamp::now(), bytes);
                bytes.push(b'"');
            }
            Format::Text => stamp.write(Timestamp::now(), bytes),
        }
        let mut line = Self { format, bytes };
        line.text("event", event);
        line
    }

    fn key(&mut self, key: &str) {
        let (before, behind) = match self.format {
            Format::Json => (&b",\""[..], &b"\":"[..]),
            Format::Text => (&b" "[..], &b"="[..]),
        };
        self.bytes.extend_from_slice(before);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(behind);
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let value = cut(value);
        let plain = self.format == Format::Text
            && !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'='));
        if plain {
            self.bytes.extend_from_slice(value.as_bytes());
        } else {
            self.bytes.push(b'"');
            escape(self.bytes, value);
            self.bytes.push(b'"');
        }
    }

    pub(super) fn maybe_text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// For values that never need an escape: ids and addresses.
    pub(super) fn shown(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        let quote = self.format == Format::Json;
        if quote {
            self.bytes.push(b'"');
        }
        let _ = write!(self.bytes, "{value}");
        if quote {
            self.bytes.push(b'"');
        }
    }

    pub(super) fn maybe_shown(&mut self, key: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.shown(key, value);
        }
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.bytes, "{value}");
    }

    pub(super) fn maybe_number(&mut self, key: &str, value: Option<u16>) {
        if let Some(value) = value {
            self.number(key, u64::from(value));
        }
    }

    pub(super) fn finish(self) {
        if self.format == Format::Json {
            self.bytes.push(b'}');
        }
        self.bytes.push(b'\n');
    }
}

/// At most [`VALUE`] bytes, whole characters.
fn cut(value: &str) -> &str {
    if value.len() <= VALUE {
        return value;
    }
    let end = (0..=VALUE).rev().find(|&end| value.is_char_boundary(end)).unwrap_or(0);
    value.get(..end).unwrap_or_default()
}

/// As JSON (RFC 8259 §7), with everything but printable ASCII as `\uXXXX`: what cannot be seen cannot deceive.
fn escape(out: &mut Vec<u8>, value: &str) {
    if value.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
        return out.extend_from_slice(value.as_bytes());
    }
    for c in value.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            ' '..='~' => out.push(c as u8),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_written_as_if_it_were_formatted_each_time() {
        let mut stamp = Stamp::default();
        for millis in [0, 1, 999, 1000, 1001, 1_796_000_000_123, 1_796_000_000_987, 1_796_000_001_005, -1500, 7] {
            let now = Timestamp::from_millisecond(millis).unwrap();
            let mut out = Vec::new();
            stamp.write(now, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{now:.3}"));
        }
    }
}
