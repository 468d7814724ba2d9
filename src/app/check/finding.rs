//! What `check` has to say, one finding after the other, each with its place.

use std::collections::BTreeMap;

use crate::api::objects::Key;
use crate::api::route_id::RouteId;
use crate::api::status::{CAUSES, ConditionType, RouteStatus};
use crate::source::loaded::{Loaded, Place};

/// How much a finding counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// `check` ends with exit code 1.
    Error,
    /// The route is not Ready, or is weaker than the default.
    Warning,
}

impl Level {
    /// As annotations and SARIF call it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// Where the document is.
    pub(super) place: Option<Place>,
    /// The route; `None` for a document that cannot be read.
    pub(super) route: Option<String>,
    /// Reason of the condition, or `Malformed` for a document that cannot be read.
    pub(super) rule: String,
    /// The condition and what it says.
    pub(super) text: String,
}

/// The findings of manifests: first documents that cannot be read, then routes in the order of their names.
pub(super) fn of(loaded: &Loaded, statuses: &BTreeMap<RouteId, RouteStatus>, strict: bool) -> Vec<Finding> {
    let malformed = loaded.problems.iter().map(|problem| Finding {
        level: Level::Error,
        place: Some(Place { file: problem.file.clone(), line: problem.line.max(1) }),
        route: None,
        rule: "Malformed".to_owned(),
        text: problem.message.clone(),
    });
    let mut findings: Vec<Finding> = malformed.collect();
    for (id, status) in statuses {
        let place = loaded.places.get(&Key::new(&*id.namespace, &*id.name));
        for condition in status.conditions.iter().flatten() {
            let Some(level) = level(&condition.type_, &condition.status, strict) else { continue };
            findings.push(Finding {
                level,
                place: place.cloned(),
                route: Some(id.to_string()),
                rule: condition.reason.clone(),
                text: format!("{} is {}: {}", condition.type_, condition.status, condition.message),
            });
        }
    }
    findings
}

/// What a condition counts; `None`: all is well, or another condition says the same.
fn level(kind: &str, status: &str, strict: bool) -> Option<Level> {
    let cause = CAUSES.iter().any(|(cause, bad)| cause.as_str() == kind && *bad == status);
    let repeats = [ConditionType::Programmed, ConditionType::Ready, ConditionType::Stalled]
        .iter()
        .any(|repeating| repeating.as_str() == kind);
    if cause {
        let error = strict || kind == ConditionType::Accepted.as_str();
        return Some(if error { Level::Error } else { Level::Warning });
    }
    let well = CAUSES.iter().any(|(cause, _)| cause.as_str() == kind);
    (!well && !repeats && status == "True").then_some(Level::Warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_counts_by_what_it_ends_the_check_with() {
        for (kind, status, lenient, strict) in [
            ("Accepted", "True", None, None),
            ("Accepted", "False", Some(Level::Error), Some(Level::Error)),
            ("ResolvedRefs", "False", Some(Level::Warning), Some(Level::Error)),
            ("CertificateReady", "False", Some(Level::Warning), Some(Level::Error)),
            ("CertificateReady", "True", None, None),
            ("Programmed", "False", None, None),
            ("Ready", "False", None, None),
            ("Stalled", "True", None, None),
            ("Anonymous", "True", Some(Level::Warning), Some(Level::Warning)),
            ("ResolvedRefs", "Unknown", None, None),
        ] {
            assert_eq!((level(kind, status, false), level(kind, status, true)), (lenient, strict), "{kind}={status}");
        }
    }
}
