//! Conditions of a route, as Gateway API names them, from the problems that the other rooms found.
//!
//! Every text names object, field and fix, has no control characters and at most 512 bytes. Knows no object.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
use crate::compile::problem::{Problem, cut};

/// The most bytes of a condition's message.
pub const MAX_MESSAGE: usize = 512;
/// Room that is kept for "; and 1000 more".
const TAIL: usize = 24;

/// `status` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`: not judged, because something that comes first is wrong.
    Unknown,
}

impl State {
    /// The text in `conditions[].status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition, without the fields that depend on what was written before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `type`.
    pub kind: Type,
    /// `status`.
    pub status: State,
    /// `reason`.
    pub reason: Reason,
    /// `message`, at most [`MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Condition {
    fn new(kind: Type, status: State, reason: Reason, message: &str) -> Self {
        Self { kind, status, reason, message: clean(message) }
    }

    /// `False` with the problems. Without any: `Unknown` if it was not judged, else `True` with the notes, or with `good`
    /// where there are none. A note whose reason is the good one does not hide the reason of another.
    fn of(kind: Type, report: &ConditionReport, good: (Reason, &str)) -> Self {
        match (report.problems.as_slice(), report.unjudged, report.notes.as_slice()) {
            (problems @ [first, ..], ..) => Self::new(kind, State::False, first.reason, &join(problems)),
            ([], Some(why), _) => Self::new(kind, State::Unknown, Reason::Pending, why),
            ([], None, []) => Self::new(kind, State::True, good.0, good.1),
            ([], None, notes) => {
                let telling = notes.iter().map(|note| note.reason).find(|reason| *reason != good.0);
                Self::new(kind, State::True, telling.unwrap_or(good.0), &join(notes))
            }
        }
    }
}

/// What one condition is made of.
#[derive(Debug, Clone, Default)]
pub struct ConditionReport {
    /// The condition is `False` because of these.
    pub problems: Vec<Problem>,
    /// What to know although the condition is `True`.
    pub notes: Vec<Problem>,
    /// Why it was not judged, if it was not.
    pub unjudged: Option<&'static str>,
}

impl ConditionReport {
    fn tidy(&mut self) {
        for list in [&mut self.problems, &mut self.notes] {
            let mut seen = BTreeSet::new();
            list.retain(|problem| seen.insert(problem.clone()));
        }
    }
}

/// What the compile found out about one route: what its conditions are made of.
#[derive(Debug, Clone, Default)]
pub struct RouteReport {
    /// The spec, hostnames and paths.
    pub accepted: ConditionReport,
    /// What the spec names.
    pub resolved: ConditionReport,
    /// The certificates of its hosts.
    pub certificate: ConditionReport,
    /// The spec is wrong and the last good version is served in its place.
    pub last_good: bool,
    /// Paths of hosts that serve.
    pub serving: usize,
    /// Paths of hosts that refuse.
    pub refusing: usize,
    /// Paths of hosts that have no certificate.
    pub unreachable: usize,
    /// Warnings, by condition.
    pub warnings: Vec<(Type, Problem)>,
}

impl RouteReport {
    /// The conditions, in the order in which people read them.
    pub fn conditions(mut self) -> Vec<Condition> {
        self.accepted.tidy();
        self.resolved.tidy();
        self.certificate.tidy();
        let mut conditions = vec![
            Condition::of(Type::Accepted, &self.accepted, (Reason::Accepted, "the spec is valid")),
            Condition::of(Type::ResolvedRefs, &self.resolved, (Reason::ResolvedRefs, "every reference is resolved")),
            Condition::of(Type::CertificateReady, &self.certificate, (Reason::Ready, "every host has a certificate")),
        ];
        // Not programmed for the reason of what came first; a refusal always has one.
        let cause =
            conditions.iter().find(|f| f.status != State::True).map_or(Reason::Invalid, |condition| condition.reason);
        let programmed = |reason, text| Condition::new(Type::Programmed, State::False, reason, text);
        conditions.push(match (self.serving, self.refusing, self.unreachable) {
            (1.., ..) if self.last_good => {
                programmed(Reason::LastGood, "the last good version is still served; correct the spec")
            }
            (0, 0, 0) => programmed(cause, "not served: no host and path belongs to the route"),
            (0, 0, _) => {
                programmed(cause, "no host has a certificate; TLS handshakes end with the alert unrecognized_name")
            }
            (0, _, 0) => programmed(cause, "all rules and hosts answer 503"),
            (_, 0, 1..) => programmed(
                cause,
                "some hosts have no certificate; their TLS handshakes end with the alert unrecognized_name",
            ),
            (_, 1.., 0) => programmed(cause, "some rules or hosts answer 503"),
            (_, 1.., 1..) => programmed(
                cause,
                "some rules or hosts answer 503; TLS handshakes of hosts without a certificate end with the alert \
                 unrecognized_name",
            ),
            (_, 0, 0) => Condition::new(Type::Programmed, State::True, Reason::Programmed, "the route is served"),
        });
        let ready = match conditions.iter().find(|condition| condition.status != State::True) {
            None => Condition::new(Type::Ready, State::True, Reason::Ready, "the route is served as written"),
            Some(first) => {
                let text = format!("{}: {}", first.kind.as_str(), first.message);
                Condition::new(Type::Ready, State::False, first.reason, &text)
            }
        };
        let stalled = conditions
            .iter()
            .find(|condition| condition.status == State::False && is_stalling(condition.reason))
            .map(|first| Condition::new(Type::Stalled, State::True, first.reason, &first.message));
        conditions.push(ready);
        conditions.extend(stalled);
        self.warnings.sort();
        let mut warnings = self.warnings.as_slice();
        while let [(first, why), ..] = warnings {
            let (same, rest) = warnings.split_at(warnings.iter().take_while(|(kind, _)| kind == first).count());
            let problems: Vec<Problem> = same.iter().map(|(_, problem)| problem.clone()).collect();
            conditions.push(Condition::new(*first, State::True, why.reason, &join(&problems)));
            warnings = rest;
        }
        conditions
    }
}

/// Whether only the user can mend it: waiting does not (kstatus). What another controller may yet bring is not.
fn is_stalling(reason: Reason) -> bool {
    match reason {
        Reason::Invalid
        | Reason::UnsupportedValue
        | Reason::UnknownField
        | Reason::HostnameConflict
        | Reason::PathConflict
        | Reason::HostnameNotPermitted
        | Reason::CeilingReached
        | Reason::RefNotPermitted
        | Reason::InvalidKind
        | Reason::UnsupportedProtocol
        | Reason::InvalidCertificateRef
        | Reason::InvalidCertificate
        | Reason::InvalidKeySet
        | Reason::InvalidSchema
        | Reason::HostnameMismatch
        | Reason::CertificateConflict
        | Reason::WeakKey => true,
        Reason::Accepted
        | Reason::ResolvedRefs
        | Reason::Programmed
        | Reason::Ready
        | Reason::Pending
        | Reason::NoMatchingClass
        | Reason::BackendNotFound
        | Reason::NoEndpoints
        | Reason::RefNotFound
        | Reason::RefNotReadable
        | Reason::Expired
        | Reason::SelfSigned
        | Reason::ChainIncomplete
        | Reason::Issuing
        | Reason::Temporary
        | Reason::Expiring
        | Reason::RenewalFailing
        | Reason::Failed
        | Reason::LastGood
        | Reason::KeysUnavailable
        | Reason::ServiceUnavailable
        | Reason::StoreUnavailable
        | Reason::LoopDetected
        | Reason::Configured
        | Reason::AboveCeiling
        | Reason::NoSharedStore => false,
    }
}

/// The messages in their order, as many as fit; then how many were left out.
fn join(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (index, problem) in problems.iter().enumerate() {
        let message = problem.to_string();
        if index > 0 && text.len() + message.len() + TAIL > MAX_MESSAGE {
            let _ = write!(text, "; and {} more", problems.len() - index);
            break;
        }
        if index > 0 {
            text.push_str("; ");
        }
        text.push_str(cut(&message, MAX_MESSAGE - TAIL));
    }
    text
}

/// Control characters, which terminals take for orders, become `?`: names and values come from users.
fn clean(text: &str) -> String {
    cut(text, MAX_MESSAGE).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(conditions: &[Condition], kind: Type) -> &Condition {
        conditions.iter().find(|condition| condition.kind == kind).unwrap()
    }

    fn problems(problems: Vec<Problem>) -> ConditionReport {
        ConditionReport { problems, ..ConditionReport::default() }
    }

    #[test]
    fn a_route_without_problems_is_ready_and_not_stalled() {
        let conditions = RouteReport { serving: 1, ..RouteReport::default() }.conditions();
        assert!(conditions.iter().all(|condition| condition.status == State::True && condition.kind != Type::Stalled));
    }

    #[test]
    fn what_only_the_user_can_mend_is_stalled_and_what_may_come_is_not() {
        let stalled = |reason| {
            let report =
                RouteReport { resolved: problems(vec![Problem::new(reason, "f", "x")]), ..RouteReport::default() };
            report.conditions().iter().any(|condition| condition.kind == Type::Stalled)
        };
        assert!(stalled(Reason::RefNotPermitted));
        assert!(!stalled(Reason::BackendNotFound));
    }

    #[test]
    fn messages_are_bounded_clean_and_say_how_many_were_left_out() {
        let many = (0..100)
            .map(|n| Problem::new(Reason::Invalid, format_args!("rules[{n}]"), "is\nwrong \u{1b}[31m"))
            .collect();
        let conditions = RouteReport { accepted: problems(many), ..RouteReport::default() }.conditions();
        let accepted = find(&conditions, Type::Accepted);
        assert!(accepted.message.len() <= MAX_MESSAGE && accepted.message.ends_with(" more"), "{}", accepted.message);
        assert!(!accepted.message.contains(['\n', '\u{1b}']));
        let long = vec![Problem::new(Reason::Invalid, "f", "ä".repeat(10_000))];
        let conditions = RouteReport { accepted: problems(long), ..RouteReport::default() }.conditions();
        assert!(conditions.iter().all(|condition| condition.message.len() <= MAX_MESSAGE));
    }

    #[test]
    fn warnings_of_one_kind_are_one_condition_and_repeated_problems_are_said_once() {
        let warning = |text: &str| (Type::AuditMode, Problem::new(Reason::Configured, "f", text));
        let twice = Problem::new(Reason::NoEndpoints, "Service shop/chat:80", "has no endpoint");
        let report = RouteReport {
            serving: 1,
            resolved: ConditionReport { notes: vec![twice.clone(), twice], ..ConditionReport::default() },
            warnings: vec![warning("b"), warning("a")],
            ..RouteReport::default()
        };
        let conditions = report.conditions();
        assert_eq!(find(&conditions, Type::AuditMode).message, "f: a; f: b");
        let resolved = find(&conditions, Type::ResolvedRefs);
        assert!(resolved.status == State::True && resolved.message == "Service shop/chat:80: has no endpoint");
    }

    #[test]
    fn a_note_that_names_no_trouble_does_not_hide_the_reason_of_another() {
        let reason = |notes: &[Reason]| {
            let notes = notes.iter().map(|reason| Problem::new(*reason, "Secret shop/tls", reason.as_str())).collect();
            let certificate = ConditionReport { notes, ..ConditionReport::default() };
            let conditions = RouteReport { serving: 1, certificate, ..RouteReport::default() }.conditions();
            find(&conditions, Type::CertificateReady).reason
        };
        assert_eq!(reason(&[]), Reason::Ready);
        assert_eq!(reason(&[Reason::Ready]), Reason::Ready);
        assert_eq!(reason(&[Reason::Ready, Reason::RenewalFailing]), Reason::RenewalFailing);
        assert_eq!(reason(&[Reason::Expiring, Reason::Ready, Reason::SelfSigned]), Reason::Expiring);
    }
}
