//! One line of the access log in the making: fields in order, values escaped and cut.
//!
//! Knows the two forms of a line, not what is logged.

use std::fmt;
use std::io::Write;

use jiff::Timestamp;

use crate::telemetry::Format;

/// Bytes of a value that are written at most.
pub(super) const VALUE: usize = 256;

/// A line in the making.
pub(super) struct Line {
    format: Format,
    bytes: Vec<u8>,
}

impl Line {
    /// Begins a line with the time and the event.
    pub(super) fn new(format: Format, event: &'static str) -> Self {
        let mut line = Self { format, bytes: Vec::with_capacity(448) };
        let now = Timestamp::now();
        // Writing to a Vec cannot fail. The first field has no comma before it.
        let _ = match format {
            Format::Json => write!(line.bytes, "{{\"timestamp\":\"{now:.3}\""),
            Format::Text => write!(line.bytes, "{now:.3}"),
        };
        line.text("event", event);
        line
    }

    fn key(&mut self, key: &str) {
        let _ = match self.format {
            Format::Json => write!(self.bytes, ",\"{key}\":"),
            Format::Text => write!(self.bytes, " {key}="),
        };
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
            escape(&mut self.bytes, value);
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
        let _ = match self.format {
            Format::Json => write!(self.bytes, "\"{value}\""),
            Format::Text => write!(self.bytes, "{value}"),
        };
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

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.format == Format::Json {
            self.bytes.push(b'}');
        }
        self.bytes.push(b'\n');
        self.bytes
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
