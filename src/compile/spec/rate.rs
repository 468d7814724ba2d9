//! Rates of a spec: so many in an interval, with a burst. Knows numbers and their bounds, not what is counted.

use std::time::Duration;

use crate::api::route::handshake;
use crate::api::scalar;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::number::within;
use crate::policy::Rate;

/// The most that a count or burst may be set to.
const MOST: u32 = 1_000_000;
/// The shortest and the longest interval.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The limit of handshakes per client address; `layer` is `spec` or `defaults`, for messages. `None` where a value is
/// out of bounds, which is noted.
pub fn of_handshakes(limit: &handshake::RateLimit, layer: &str, diagnostics: &mut Diagnostics) -> Option<Rate> {
    let field = format!("{layer}.handshake.rateLimit");
    let interval = interval(&limit.interval, &field, diagnostics);
    rate(limit.count, interval, limit.burst, &field, diagnostics)
}

/// A rate of things that are counted one by one. `field` is the path of the object that holds it. `None` where a value is
/// out of bounds, which is noted.
pub fn rate(
    count: i32,
    interval: Option<Duration>,
    burst: Option<i32>,
    field: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Rate> {
    let number = |name: &str, value: i32, least: u32, diagnostics: &mut Diagnostics| match u32::try_from(value) {
        Ok(number) if (least..=MOST).contains(&number) => Some(number),
        _ => {
            diagnostics.invalid(format_args!("{field}.{name}"), format_args!("must be from {least} to {MOST}"));
            None
        }
    };
    let count = number("count", count, 1, diagnostics);
    let burst = match (burst, count) {
        (None, count) => count,
        // More than the burst would never pass in an interval.
        (Some(burst), count) => number("burst", burst, count.unwrap_or(1), diagnostics),
    };
    Some(Rate { count: count?, interval: interval?, burst: burst? })
}

/// The interval of a rate. `field` is the path of the object that holds it.
pub fn interval(interval: &scalar::Duration, field: &str, diagnostics: &mut Diagnostics) -> Option<Duration> {
    let field = format_args!("{field}.interval");
    within(interval, INTERVALS.0..=INTERVALS.1, "must be from 1s to 1h", field, diagnostics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> (Option<Rate>, Vec<String>) {
        let mut diagnostics = Diagnostics::default();
        let limit = of_handshakes(&serde_saphyr::from_str(yaml).unwrap(), "spec", &mut diagnostics);
        (limit, diagnostics.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_burst_is_the_count_where_nothing_is_said() {
        let limit = |count, seconds, burst| Rate { count, interval: Duration::from_secs(seconds), burst };
        assert_eq!(read("{count: 20, interval: 1s}"), (Some(limit(20, 1, 20)), vec![]));
        assert_eq!(read("{count: 20, interval: 1h, burst: 40}"), (Some(limit(20, 3600, 40)), vec![]));
    }

    #[test]
    fn values_out_of_bounds_are_named() {
        for (yaml, field) in [
            ("{count: 0, interval: 1s}", "spec.handshake.rateLimit.count: must be from 1 to 1000000"),
            ("{count: 1000001, interval: 1s}", "spec.handshake.rateLimit.count: must be from 1 to"),
            ("{count: 5, interval: 1s, burst: 4}", "spec.handshake.rateLimit.burst: must be from 5 to"),
            ("{count: 5, interval: 999ms}", "spec.handshake.rateLimit.interval: must be from 1s to 1h"),
            ("{count: 5, interval: 61m}", "spec.handshake.rateLimit.interval: must be from"),
            ("{count: 5, interval: soon}", "spec.handshake.rateLimit.interval: "),
        ] {
            let (limit, problems) = read(yaml);
            assert!(limit.is_none() && problems.len() == 1 && problems[0].starts_with(field), "{yaml}: {problems:?}");
        }
    }
}
