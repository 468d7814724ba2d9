//! The last good certificates of a host stand in while no Secret has one: it was deleted to be issued anew, or the route
//! names another that is not issued yet. Pure: knows certificates and times, not why none is there.

use std::sync::Arc;
use std::time::Duration;

use crate::api::objects::Key;
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::Problem;
use crate::compile::tls::certificate::{Certificate, date};

/// Certificates, each with the Secret that it came from.
type Served = Vec<(Key, Arc<Certificate>)>;

/// Those of `before` that may stand in at `now`, and until when. They stand in from `since` for `grace` at the most, and
/// each until its own end. All times are seconds since the Unix epoch. `None`: nothing stands in.
pub fn last_good<'a>(
    before: impl Iterator<Item = &'a (Key, Arc<Certificate>)>,
    since: i64,
    grace: Duration,
    now: i64,
) -> Option<(Served, i64)> {
    let grace = since.saturating_add(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
    let served: Served = before.filter(|(_, certificate)| certificate.facts.not_after > now).cloned().collect();
    let end = served.iter().map(|(_, certificate)| certificate.facts.not_after).max()?;
    let until = grace.min(end);
    (now < until).then_some((served, until))
}

/// What is told of it: the host, or whatever is served so, as the subject.
pub fn problem(subject: &str, served: &[(Key, Arc<Certificate>)], until: i64) -> Problem {
    let secrets: Vec<String> = served.iter().map(|(key, _)| format!("Secret {key}")).collect();
    let text = format_args!(
        "no certificate is available; its last good one ({}) is served until {}, then TLS handshakes fail",
        secrets.join(", "),
        date(until)
    );
    Problem::new(Reason::LastGood, subject, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tls::development;

    const NOW: i64 = 1_800_000_000;
    const DAY: i64 = 86_400;

    #[test]
    fn it_ends_with_the_grace_or_with_the_certificate_and_never_begins_without_grace() {
        // Valid for 180 days from NOW.
        let certificate = Arc::new(development::certificate("a.test", NOW).unwrap());
        let before = [(Key::new("shop", "tls"), certificate)];
        let until = |since, grace: u64, now| {
            let grace = Duration::from_secs(grace * 3600);
            last_good(before.iter(), since, grace, now).map(|(served, until)| (served.len(), until))
        };
        assert_eq!(until(NOW, 24, NOW), Some((1, NOW + DAY)));
        assert_eq!(until(NOW, 24, NOW + DAY - 1), Some((1, NOW + DAY)));
        assert_eq!(until(NOW, 24, NOW + DAY), None);
        assert_eq!(until(NOW, 0, NOW), None);
        let end = NOW + 180 * DAY;
        assert_eq!(until(end - 60, 24, end - 1), Some((1, end)));
        assert_eq!(until(end - 60, 24, end), None);
        assert!(last_good([].iter(), NOW, Duration::MAX, NOW).is_none());
    }
}
