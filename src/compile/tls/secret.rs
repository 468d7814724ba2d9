//! Secrets with certificates: what one holds, and what a route reports of one that is missing or wrong, by what
//! cert-manager does about it. Knows one Secret at a time; not what is served.

use k8s_openapi::api::core::v1::Secret;

use crate::api::objects::Key;
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::Problem;
use crate::compile::status::condition::ConditionReport;
use crate::compile::tls::certificate::Certificate;
use crate::compile::tls::issuance::Issue;
use crate::compile::tls::progress::{Progress, Stage};

/// The only type of Secret that certificates come from.
const TYPE: &str = "kubernetes.io/tls";
/// What is reported where nobody issues a certificate for a route any more.
const BEING_DELETED: &str = "the route is being deleted; its Certificate is not managed any more";

/// What is reported of the Secret of an `issuerRef` that is there.
pub fn of_issue(key: &Key, issue: Option<&Issue>) -> ConditionReport {
    let mut report = ConditionReport::default();
    match issue {
        Some(Issue::Refused(problems)) => report.problems.extend(problems.iter().cloned()),
        Some(Issue::Unavailable(why)) => {
            let text = format_args!("{why}; Secret {key} is served as it is");
            report.notes.push(Problem::new(Reason::Ready, "spec.tls.issuerRef", text));
        }
        Some(Issue::Unwritten(why)) => {
            let text = format_args!("could not be written: {why}");
            report.notes.push(Problem::new(Reason::Ready, format_args!("Certificate {key}"), text));
        }
        Some(Issue::Managed | Issue::BeingDeleted) | None => {}
    }
    report
}

/// A problem of a Secret's certificate, with what cert-manager does about it.
pub fn explain(key: &Key, progress: Option<&Progress>, issue: Option<&Issue>, problem: Problem) -> Problem {
    let mismatch = problem.reason == Reason::HostnameMismatch;
    match (progress, issue) {
        (_, Some(Issue::Unwritten(why))) if mismatch => problem.because(Reason::Failed).with(unwritten(key, why)),
        (_, Some(Issue::BeingDeleted)) if mismatch => problem.because(Reason::Failed).with(BEING_DELETED),
        // Hostnames changed, and cert-manager has not seen it yet.
        (None | Some(Progress { stage: Stage::Issued, .. }), Some(Issue::Managed)) if mismatch => {
            problem.because(Reason::Issuing).with(requested(key))
        }
        (Some(progress), _) => progress.explain(problem),
        (None, Some(Issue::BeingDeleted)) => problem.with(BEING_DELETED),
        (None, _) => problem,
    }
}

/// What is reported of a Secret that does not exist: of the certificate where somebody works on it, else of the
/// reference.
pub fn missing(
    field: &str,
    key: &Key,
    progress: Option<Progress>,
    issue: Option<&Issue>,
) -> (ConditionReport, Option<Problem>) {
    let mut report = ConditionReport::default();
    let absent = |reason| Problem::new(reason, format_args!("Secret {key}"), "does not exist yet");
    if let Some(Issue::Refused(problems)) = issue {
        report.problems.extend(problems.iter().cloned());
    }
    let problem = match (progress, issue) {
        (_, Some(Issue::Unwritten(why))) => absent(Reason::Failed).with(unwritten(key, why)),
        (Some(progress), _) => progress.explain(absent(Reason::Issuing)),
        (None, Some(Issue::Managed)) => absent(Reason::Issuing).with(requested(key)),
        (None, Some(Issue::BeingDeleted)) => absent(Reason::Failed).with(BEING_DELETED),
        (None, Some(Issue::Unavailable(why))) => absent(Reason::Failed).with(format_args!("spec.tls.issuerRef {why}")),
        (None, Some(Issue::Refused(_))) => return (report, None),
        (None, None) => {
            let text = format_args!("Secret {key} does not exist; create it with type {TYPE}");
            return (report, Some(Problem::new(Reason::RefNotFound, field, text)));
        }
    };
    report.problems.push(problem);
    (report, None)
}

fn unwritten(key: &Key, why: &str) -> String {
    format!("Certificate {key} could not be written: {why}")
}

fn requested(key: &Key) -> String {
    format!("Certificate {key} requests it from cert-manager")
}

/// The certificate that a Secret holds.
///
/// # Errors
/// The problem of the Secret or of what it holds.
pub fn read(key: &Key, secret: &Secret) -> Result<Certificate, Problem> {
    if secret.type_.as_deref() != Some(TYPE) {
        let text = format_args!("must have the type {TYPE}; delete it and create it with that type");
        return Err(Problem::new(Reason::InvalidCertificateRef, format_args!("Secret {key}"), text));
    }
    let value = |name: &str| {
        let text = secret.string_data.as_ref().and_then(|data| data.get(name)).map(String::as_bytes);
        text.or_else(|| secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.as_slice()))
            .unwrap_or_default()
    };
    let certificate = Certificate::parse(&key.to_string(), value("tls.crt"), value("tls.key"))?;
    Ok(certificate.with_authorities(value("ca.crt")))
}
