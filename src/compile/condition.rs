//! What a compile has to say about a route: Gateway API's conditions, from the problems that the other rooms found.
//!
//! Every text names object, field and fix, has no control characters and at most 512 bytes. Knows no object.

use std::fmt::Write as _;

/// The most bytes of a condition's message.
pub const MAX_MESSAGE: usize = 512;

/// Condition types, as `status.conditions[].type`.
pub mod kind {
    /// The spec is valid and the route owns its hosts and paths.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything that the route names exists and may be used.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The hosts of the route have a certificate that clients accept.
    pub const CERTIFICATE_READY: &str = "CertificateReady";
    /// The data plane serves this version of the route.
    pub const PROGRAMMED: &str = "Programmed";
    /// All of the above.
    pub const READY: &str = "Ready";
    /// Only the user can mend it (kstatus); present only where true.
    pub const STALLED: &str = "Stalled";
    /// Warning: no schema judges the content of messages.
    pub const MESSAGES_UNVALIDATED: &str = "MessagesUnvalidated";
    /// Warning: every origin may connect, or origins are only audited.
    pub const ORIGINS_OPEN: &str = "OriginsOpen";
    /// Warning: a limit is wider than the built-in one.
    pub const LIMITS_RELAXED: &str = "LimitsRelaxed";
    /// Warning: a Service has no endpoint that takes connections.
    pub const NO_ENDPOINTS: &str = "NoEndpoints";
    /// Warning: a path of the route belongs to an older route of the same host.
    pub const PATH_CONFLICT: &str = "PathConflict";
}

/// Reasons, as `status.conditions[].reason`.
pub mod reason {
    /// Accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// A value that breaks a rule of the API.
    pub const INVALID: &str = "Invalid";
    /// A field or value that this build does not know or implement.
    pub const UNSUPPORTED_VALUE: &str = "UnsupportedValue";
    /// The hostname belongs to another route.
    pub const HOSTNAME_CONFLICT: &str = "HostnameConflict";
    /// The namespace may not use the hostname.
    pub const HOSTNAME_NOT_ALLOWED: &str = "HostnameNotAllowed";
    /// Every path of the route belongs to older routes.
    pub const PATH_CONFLICT: &str = "PathConflict";
    /// All references resolved.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// A reference to another namespace without a ReferenceGrant.
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    /// A reference to a kind that cannot stand there.
    pub const INVALID_KIND: &str = "InvalidKind";
    /// The Service or its port does not exist.
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    /// The Service cannot be a backend.
    pub const INVALID_BACKEND: &str = "InvalidBackend";
    /// The Service's protocol is not one that the route can speak.
    pub const UNSUPPORTED_PROTOCOL: &str = "UnsupportedProtocol";
    /// A CA ConfigMap is missing or not usable.
    pub const INVALID_CA: &str = "InvalidCACertificateRef";
    /// The Secret does not exist.
    pub const SECRET_NOT_FOUND: &str = "SecretNotFound";
    /// The Secret's content cannot be served.
    pub const INVALID_CERTIFICATE: &str = "InvalidCertificate";
    /// The certificate does not cover a hostname.
    pub const HOSTNAME_NOT_COVERED: &str = "HostnameNotCovered";
    /// The certificate's validity is over.
    pub const EXPIRED: &str = "Expired";
    /// The certificate's validity has not begun.
    pub const NOT_YET_VALID: &str = "NotYetValid";
    /// Served, but no client trusts it that was not told to.
    pub const SELF_SIGNED: &str = "SelfSigned";
    /// There is nothing to serve the host with.
    pub const NO_CERTIFICATE: &str = "NoCertificate";
    /// Ready, certificate included.
    pub const READY: &str = "Ready";
    /// In the snapshot.
    pub const PROGRAMMED: &str = "Programmed";
    /// The last good version is served in place of this one.
    pub const LAST_GOOD: &str = "LastGood";
    /// The route, or a part of it, refuses with 503.
    pub const REFUSING: &str = "Refusing";
    /// Not in the snapshot.
    pub const NOT_PROGRAMMED: &str = "NotProgrammed";
    /// No schema is set.
    pub const NO_SCHEMA: &str = "NoSchema";
    /// Weaker than the built-in value.
    pub const WEAKER_THAN_DEFAULT: &str = "WeakerThanDefault";
    /// No endpoint takes connections.
    pub const NO_ENDPOINTS: &str = "NoEndpoints";

    /// Whether only the user can mend it: waiting does not.
    pub(super) fn is_stalling(reason: &str) -> bool {
        matches!(
            reason,
            INVALID
                | UNSUPPORTED_VALUE
                | HOSTNAME_CONFLICT
                | HOSTNAME_NOT_ALLOWED
                | PATH_CONFLICT
                | REF_NOT_PERMITTED
                | INVALID_KIND
                | INVALID_BACKEND
                | UNSUPPORTED_PROTOCOL
                | INVALID_CA
                | INVALID_CERTIFICATE
                | HOSTNAME_NOT_COVERED
                | NO_CERTIFICATE
        )
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// One of [`reason`].
    pub reason: &'static str,
    /// Object, field and fix.
    pub message: String,
}

impl Problem {
    /// A problem; the text is cleaned and cut when it becomes a condition.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// One condition, without the fields that depend on what was written before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of [`kind`].
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: bool,
    /// One of [`reason`].
    pub reason: &'static str,
    /// At most [`MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Finding {
    fn new(kind: &'static str, status: bool, reason: &'static str, message: &str) -> Self {
        Self { kind, status, reason, message: clean(message) }
    }

    fn of(kind: &'static str, problems: &[Problem], good: (&'static str, &str)) -> Self {
        match problems {
            [] => Self::new(kind, true, good.0, good.1),
            [first, ..] => Self::new(kind, false, first.reason, &join(problems)),
        }
    }
}

/// What the compile found out about one route.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Why it is not accepted.
    pub accepted: Vec<Problem>,
    /// Its own spec is wrong and the last good version is served.
    pub last_good: bool,
    /// What it names and cannot have.
    pub resolved: Vec<Problem>,
    /// What is wrong with the certificates of its hosts.
    pub certificate: Vec<Problem>,
    /// What is said of them where nothing is wrong.
    pub certificate_note: Option<Problem>,
    /// Places (a path of a host) that serve.
    pub serving: usize,
    /// Places that refuse.
    pub refusing: usize,
    /// Warnings: a type of [`kind`], and why.
    pub warnings: Vec<(&'static str, Problem)>,
}

impl Verdict {
    /// The conditions, in the order in which people read them: cause before sum, warnings last.
    pub fn findings(mut self) -> Vec<Finding> {
        for problems in [&mut self.accepted, &mut self.resolved, &mut self.certificate] {
            let mut seen = std::collections::BTreeSet::new();
            problems.retain(|problem| seen.insert(problem.clone()));
        }
        let note = self.certificate_note.unwrap_or_else(|| Problem::new(reason::READY, "every host has a certificate"));
        let mut findings = vec![
            Finding::of(kind::ACCEPTED, &self.accepted, (reason::ACCEPTED, "the spec is valid")),
            Finding::of(kind::RESOLVED_REFS, &self.resolved, (reason::RESOLVED_REFS, "every reference is resolved")),
            Finding::of(kind::CERTIFICATE_READY, &self.certificate, (note.reason, &note.message)),
        ];
        findings.push(match (self.last_good, self.serving, self.refusing) {
            (true, 1.., _) => Finding::new(
                kind::PROGRAMMED,
                false,
                reason::LAST_GOOD,
                "the last good version keeps being served; correct the spec",
            ),
            (_, 0, 0) => Finding::new(kind::PROGRAMMED, false, reason::NOT_PROGRAMMED, "no host and path is its own"),
            (_, 0, _) => Finding::new(kind::PROGRAMMED, false, reason::REFUSING, "every handshake is answered 503"),
            (_, _, 1..) => {
                Finding::new(kind::PROGRAMMED, false, reason::REFUSING, "handshakes of some rules are answered 503")
            }
            _ => Finding::new(kind::PROGRAMMED, true, reason::PROGRAMMED, "served"),
        });
        let ready = match findings.iter().find(|finding| !finding.status) {
            None => Finding::new(kind::READY, true, reason::READY, "served"),
            Some(first) => {
                Finding::new(kind::READY, false, first.reason, &format!("{}: {}", first.kind, first.message))
            }
        };
        let stalled = findings
            .iter()
            .find(|finding| !finding.status && reason::is_stalling(finding.reason))
            .map(|first| Finding::new(kind::STALLED, true, first.reason, &first.message));
        findings.push(ready);
        findings.extend(stalled);
        self.warnings.sort();
        let mut warnings = self.warnings.as_slice();
        while let [(first, why), ..] = warnings {
            let count = warnings.iter().take_while(|(kind, _)| kind == first).count();
            let (same, rest) = warnings.split_at(count);
            let problems: Vec<Problem> = same.iter().map(|(_, problem)| problem.clone()).collect();
            findings.push(Finding::new(first, true, why.reason, &join(&problems)));
            warnings = rest;
        }
        findings
    }
}

/// The messages in their order, each once, as many as fit; then how many were left out.
fn join(problems: &[Problem]) -> String {
    let mut text = String::new();
    for (place, problem) in problems.iter().enumerate() {
        let left = problems.len() - place;
        // Room for "; and N more".
        if place > 0 && text.len() + problem.message.len() + 24 > MAX_MESSAGE {
            let _ = write!(text, "; and {left} more");
            break;
        }
        if place > 0 {
            text.push_str("; ");
        }
        text.push_str(cut(&problem.message, MAX_MESSAGE - 24));
    }
    text
}

/// Control characters and what terminals take for orders become `?`: names and values come from users.
fn clean(text: &str) -> String {
    cut(text, MAX_MESSAGE).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A user's value as a message quotes it: short, without control characters.
pub fn quote(text: &str) -> String {
    let short = cut(text, 80);
    let dots = if short.len() < text.len() { "..." } else { "" };
    let clean: String = short.chars().map(|c| if c.is_control() || c == '"' { '?' } else { c }).collect();
    format!("\"{clean}{dots}\"")
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(findings: &'a [Finding], kind: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.kind == kind).unwrap()
    }

    #[test]
    fn a_route_without_problems_is_ready_and_not_stalled() {
        let findings = Verdict { serving: 1, ..Verdict::default() }.findings();
        assert!(findings.iter().all(|finding| finding.status));
        assert!(findings.iter().all(|finding| finding.kind != kind::STALLED));
    }

    #[test]
    fn what_only_the_user_can_mend_is_stalled_and_what_may_come_is_not() {
        let verdict = |reason| Verdict { resolved: vec![Problem::new(reason, "x")], ..Verdict::default() };
        let stalled = |v: Verdict| v.findings().iter().any(|finding| finding.kind == kind::STALLED);
        assert!(stalled(verdict(reason::REF_NOT_PERMITTED)));
        assert!(!stalled(verdict(reason::BACKEND_NOT_FOUND)));
    }

    #[test]
    fn messages_are_bounded_clean_and_say_how_many_were_left_out() {
        let many = (0..100).map(|n| Problem::new(reason::INVALID, format!("rule {n} is\nwrong \u{1b}[31m"))).collect();
        let findings = Verdict { accepted: many, ..Verdict::default() }.findings();
        let accepted = find(&findings, kind::ACCEPTED);
        assert!(accepted.message.len() <= MAX_MESSAGE && accepted.message.ends_with(" more"), "{}", accepted.message);
        assert!(!accepted.message.contains(['\n', '\u{1b}']));
        let long = vec![Problem::new(reason::INVALID, "ä".repeat(10_000))];
        let findings = Verdict { accepted: long, ..Verdict::default() }.findings();
        assert!(findings.iter().all(|finding| finding.message.len() <= MAX_MESSAGE));
    }

    #[test]
    fn warnings_of_one_kind_are_one_condition() {
        let warning = |text: &str| (kind::NO_ENDPOINTS, Problem::new(reason::NO_ENDPOINTS, text));
        let verdict = Verdict { serving: 1, warnings: vec![warning("b"), warning("a")], ..Verdict::default() };
        let findings = verdict.findings();
        assert_eq!(find(&findings, kind::NO_ENDPOINTS).message, "a; b");
    }
}
