//! What a pattern can cost for each byte that it is matched with.
//!
//! The engine is linear: it keeps every position of the pattern at which a match may stand, and moves each of them with each
//! byte. Where only one position can be held at a time it has a table for that, and a byte is one look-up.

use regex_syntax::hir::{Hir, HirKind, Look};

/// What a byte costs at a pattern of one position; a unit is about a nanosecond.
const LOOK_UP: u64 = 1;
/// What a byte costs for each position, where there may be several at a time.
const MOVE: u64 = 8;
/// The positions of a pattern that this parser does not read, although the library does: as many as fit in the memory that a
/// pattern may take.
const UNREAD: u64 = 40_000;

/// What each byte of a string costs that a pattern judges, in units of about a nanosecond.
pub(super) fn cost(pattern: &str) -> u64 {
    let held = regex_syntax::Parser::new().parse(pattern).map_or(UNREAD, |pattern| {
        let is_anchored = pattern.properties().look_set_prefix().contains(Look::Start);
        held(&pattern, &mut !is_anchored)
    });
    if held <= 1 { LOOK_UP } else { held.saturating_mul(MOVE) }
}

/// The most positions that can be held within a part at a time. `anywhere`: a match may enter the part while it is in it
/// already, because what is before it has no fixed length; then all positions count. It is left as it is behind the part.
fn held(part: &Hir, anywhere: &mut bool) -> u64 {
    if *anywhere {
        return positions(part);
    }
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(_) | HirKind::Class(_) => 1,
        HirKind::Capture(capture) => held(&capture.sub, anywhere),
        HirKind::Repetition(repetition) => {
            *anywhere = repetition.max != Some(repetition.min);
            match positions(&repetition.sub) {
                0 | 1 => 1,
                _ => {
                    *anywhere = true;
                    positions(part)
                }
            }
        }
        HirKind::Concat(parts) => {
            // As long as each part has a fixed length, one is left before the next is entered.
            let (mut fixed, mut rest) = (0, 0);
            for part in parts {
                match *anywhere {
                    false => fixed = held(part, anywhere).max(fixed),
                    true => rest = positions(part).saturating_add(rest),
                }
            }
            fixed.saturating_add(rest)
        }
        HirKind::Alternation(parts) => {
            let all = parts.iter().map(|part| held(part, &mut false)).fold(0, u64::saturating_add);
            *anywhere = true;
            all
        }
    }
}

/// How many positions a part has once its repetitions are written out. The parser bounds how deep a pattern is.
fn positions(part: &Hir) -> u64 {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 1,
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min).max(1);
            u64::from(copies).saturating_mul(positions(&repetition.sub))
        }
        HirKind::Capture(capture) => positions(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(positions).fold(0, u64::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_held_at_a_time_counts() {
        let cases = [
            ("", 1),
            ("^abc$", 1),
            (r"^[\p{L}\p{N} .,]*$", 1),
            ("^[a-z]{0,500}$", 1),
            ("^[0-9a-f]{8}-[0-9a-f]{4}$", 1),
            ("^(foo|bar|baz)$", 3),
            // A match may stand in the first part or anywhere in the second.
            ("^[a-z]{0,20}[a-z]{20}$", 21),
            (r"^https?:\/\/[a-z]+$", 5),
            // It may begin anywhere.
            ("abc", 3),
            ("[ab]*b[ab]{2000}c", 2003),
            ("^(ab?){20}$", 40),
            ("(", UNREAD),
        ];
        for (pattern, held) in cases {
            let expected = if held == 1 { LOOK_UP } else { held * MOVE };
            assert_eq!(cost(pattern), expected, "{pattern}");
        }
        assert!(cost("((((a{1000}){1000}){1000}){1000}){1000}){1000}") >= UNREAD * MOVE);
    }
}
