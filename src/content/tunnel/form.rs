//! How bytes are compared with a form, as far as they go.

/// How far bytes fit a form, from the worst to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// They do not.
    No,
    /// As far as they go.
    SoFar,
    /// Wholly.
    Whole,
}

use Fit::{No, SoFar, Whole};

/// The first bytes, and where messages end in them.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) ends: &'a [usize],
}

impl Seen<'_> {
    /// Whether each of these places has this byte; `None`: not all are there yet, and those that are fit.
    pub(super) fn has(self, places: &[(usize, u8)]) -> Option<bool> {
        let mut all = true;
        for (at, byte) in places {
            match self.bytes.get(*at) {
                Some(there) if there != byte => return Some(false),
                Some(_) => {}
                None => all = false,
            }
        }
        all.then_some(true)
    }

    /// A big-endian number of `N` bytes.
    pub(super) fn big<const N: usize>(self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at + N)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A little-endian number of `N` bytes.
    pub(super) fn little<const N: usize>(self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at + N)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Whether a message, the first or a later one, ends behind so many bytes: `None`, if they are not all there.
    pub(super) fn message_ends(self, at: usize) -> Option<bool> {
        if self.ends.contains(&at) {
            return Some(true);
        }
        // The message that lies there is longer, or ended before. An empty frame may still end it.
        let ended = self.ends.last().is_some_and(|end| *end == self.bytes.len());
        (self.bytes.len() > at || ended).then_some(false)
    }
}

/// A form of which `fits` knows all demands: `None` where bytes are missing and nothing speaks against it.
pub(super) fn form(fits: Option<bool>) -> Fit {
    match fits {
        None => SoFar,
        Some(false) => No,
        Some(true) => Whole,
    }
}

pub(super) fn starts(seen: Seen<'_>, with: &[u8]) -> Fit {
    let there = seen.bytes.len().min(with.len());
    match seen.bytes[..there] == with[..there] {
        false => No,
        true if there == with.len() => Whole,
        true => SoFar,
    }
}

/// Any of these beginnings.
pub(super) fn starts_with_one(seen: Seen<'_>, all: &[&[u8]]) -> Fit {
    all.iter().map(|one| starts(seen, one)).max().unwrap_or(No)
}

/// A line that begins with one of these and of which the rest of the form holds.
pub(super) fn line_with(seen: Seen<'_>, starts: &[&[u8]], holds: impl FnOnce(&str) -> bool) -> Fit {
    match starts_with_one(seen, starts) {
        Whole => line(seen).map_or_else(|fit| fit, |line| form(Some(holds(line)))),
        other => other,
    }
}

/// The first line, without its end: visible ASCII and blanks. `Err`: it is not whole yet, or is none.
fn line(seen: Seen<'_>) -> Result<&str, Fit> {
    let end = seen.bytes.iter().position(|byte| *byte == b'\n');
    let line = &seen.bytes[..end.unwrap_or(seen.bytes.len())];
    // The LF behind a CR may not be there yet.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
        return Err(No);
    }
    end.ok_or(SoFar)?;
    std::str::from_utf8(line).map_err(|_| No)
}
