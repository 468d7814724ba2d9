//! Numbers, durations and sizes that a spec writes, within their bounds.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::api::scalar;
use crate::api::status::ConditionType as Type;
use crate::compile::spec::ceiling::Ceiling;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::layers::Set;

/// The shortest time that a timer of a connection may be set to.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time: a year; more is a mistake.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// A number from 1 to `most`.
pub(super) fn count(set: Option<Set<'_, i32>>, field: &str, most: u32, diagnostics: &mut Diagnostics) -> Option<u32> {
    let set = set?;
    match u32::try_from(*set.value) {
        Ok(number) if (1..=most).contains(&number) => Some(number),
        _ => {
            diagnostics.invalid(set.field(field), format_args!("must be from 1 to {most}"));
            None
        }
    }
}

/// A duration of at least a second; 0 is off.
pub(super) fn time(
    set: Option<Set<'_, scalar::Duration>>,
    field: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    let set = set?;
    let field = set.field(field);
    match set.value.parse() {
        Err(error) => diagnostics.invalid(field, error),
        Ok(Duration::ZERO) => {}
        Ok(time) if (SHORTEST..=LONGEST).contains(&time) => return Some(time),
        Ok(_) => diagnostics.invalid(field, "must be from 1s to 8784h, or 0s to switch it off"),
    }
    None
}

/// A duration of a range, of which `bounds` says what a mistake is told.
pub(super) fn within(
    written: &scalar::Duration,
    range: RangeInclusive<Duration>,
    bounds: &str,
    field: impl Display,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    match written.parse() {
        Err(error) => diagnostics.invalid(field, error),
        Ok(time) if range.contains(&time) => return Some(time),
        Ok(_) => diagnostics.invalid(field, bounds),
    }
    None
}

/// A size in bytes: at most its ceiling; a warning where it is more than the default.
pub(super) fn size(
    set: Option<Set<'_, scalar::Size>>,
    field: &str,
    (default, most): (u64, u64),
    ceiling: Option<&Ceiling<u64>>,
    diagnostics: &mut Diagnostics,
) -> u64 {
    let Some(set) = set else { return Ceiling::of_default(ceiling, default) };
    let field = set.field(field);
    match set.value.bytes() {
        Err(error) => diagnostics.invalid(field, error),
        Ok(bytes) if bytes > most => diagnostics.invalid(field, format_args!("must be at most {most} bytes")),
        Ok(bytes) => {
            let bytes = Ceiling::of_field(ceiling, bytes, &field, set.value, diagnostics);
            if bytes > default {
                let text = format_args!("{} is more than the default of {default} bytes", set.value);
                diagnostics.warn(Type::LimitsRelaxed, field, text);
            }
            return bytes;
        }
    }
    default
}
