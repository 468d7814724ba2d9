//! How far cert-manager has come with a Secret, from the Certificate that asks for it. Knows Certificates, not what is
//! in Secrets.

use std::collections::HashMap;
use std::sync::Arc;

use crate::api::certificate::Certificate;
use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::Problem;

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The Certificate.
    pub certificate: Key,
    /// What cert-manager is doing.
    pub stage: Stage,
    /// When it will renew what is there, seconds since the Unix epoch.
    pub renewal: Option<i64>,
    /// Since when it has been issuing, seconds since the Unix epoch; `None`: it is not, or does not say.
    pub issuing_since: Option<i64>,
}

/// What cert-manager is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It is issuing, or has not begun; its message.
    Issuing(String),
    /// The last attempt failed, and the next one waits; its message.
    Failed(String),
    /// It has issued and is waiting for the time to renew.
    Issued,
    /// Nothing: the Certificate is being deleted, whatever its conditions say of the time before.
    BeingDeleted,
}

impl Progress {
    /// A problem of a Secret that this Certificate fills: while cert-manager works on it nobody else can fix it.
    #[must_use]
    pub fn explain(&self, problem: Problem) -> Problem {
        let Self { certificate, .. } = self;
        match &self.stage {
            Stage::Issuing(text) => problem
                .because(Reason::Issuing)
                .with(format_args!("cert-manager is issuing Certificate {certificate}{}", tail(text))),
            Stage::Failed(text) => problem
                .because(Reason::Failed)
                .with(format_args!("the last attempt to issue Certificate {certificate} failed{}", tail(text))),
            Stage::BeingDeleted => problem.because(Reason::Failed).with(self.leaving()),
            Stage::Issued => problem,
        }
    }

    /// What there is to say of a Certificate that is being deleted. Only finalizers let anybody see one.
    #[must_use]
    pub fn leaving(&self) -> String {
        format!("Certificate {} is being deleted; nothing is issued until it is gone and made anew", self.certificate)
    }

    fn of(key: &Key, certificate: &Certificate) -> Self {
        if certificate.metadata.deletion_timestamp.is_some() {
            return Self { certificate: key.clone(), stage: Stage::BeingDeleted, renewal: None, issuing_since: None };
        }
        let (issuing, ready) = (certificate.condition("Issuing"), certificate.condition("Ready"));
        let stage = match (issuing, ready) {
            (Some(issuing), _) if issuing.status == "True" => Stage::Issuing(issuing.message.clone()),
            // cert-manager leaves this word behind when it gives up for a while.
            (Some(issuing), _) if issuing.reason == "Failed" => Stage::Failed(issuing.message.clone()),
            (_, Some(ready)) if ready.status == "True" => Stage::Issued,
            (_, ready) => Stage::Issuing(ready.map(|ready| ready.message.clone()).unwrap_or_default()),
        };
        let renewal = certificate.status.renewal_time.as_ref().map(|time| time.0.as_second());
        let began = issuing.filter(|issuing| issuing.status == "True").and_then(|it| it.last_transition_time.as_ref());
        Self { certificate: key.clone(), stage, renewal, issuing_since: began.map(|time| time.0.as_second()) }
    }
}

/// What a message of cert-manager adds to a sentence.
pub fn tail(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Certificates by the Secret that they fill.
#[derive(Debug, Default)]
pub struct Secrets<'a> {
    by_secret: HashMap<Key, Vec<(&'a Key, &'a Arc<Certificate>)>>,
}

impl<'a> Secrets<'a> {
    /// The Certificates among the objects.
    pub fn new(objects: &'a Objects) -> Self {
        let mut by_secret: HashMap<_, Vec<_>> = HashMap::new();
        for (key, certificate) in &objects.certificates {
            let secret = Key::new(key.namespace.as_str(), certificate.spec.secret_name.as_str());
            by_secret.entry(secret).or_default().push((key, certificate));
        }
        Self { by_secret }
    }

    /// The Certificates that fill a Secret, by name.
    pub fn of(&self, secret: &Key) -> &[(&'a Key, &'a Arc<Certificate>)] {
        self.by_secret.get(secret).map_or(&[], Vec::as_slice)
    }

    /// How far the first of them has come; one that is being deleted only where there is no other.
    pub fn progress(&self, secret: &Key) -> Option<Progress> {
        let leaves = |(_, certificate): &&(&Key, &Arc<Certificate>)| certificate.metadata.deletion_timestamp.is_some();
        self.of(secret).iter().min_by_key(leaves).map(|(key, certificate)| Progress::of(key, certificate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(conditions: &str) -> Stage {
        let certificate = serde_saphyr::from_str(&format!("status: {{conditions: [{conditions}]}}")).unwrap();
        Progress::of(&Key::new("shop", "tls"), &certificate).stage
    }

    #[test]
    fn conditions_of_a_certificate_say_how_far_it_has_come() {
        let ready = "{type: Ready, status: 'True', reason: Ready, message: up to date}";
        let unready = "{type: Ready, status: 'False', reason: DoesNotExist, message: no Secret yet}";
        let issuing = "{type: Issuing, status: 'True', reason: DoesNotExist, message: asking}";
        let failed = "{type: Issuing, status: 'False', reason: Failed, message: refused}";
        assert_eq!(stage(""), Stage::Issuing(String::new()));
        assert_eq!(stage(unready), Stage::Issuing("no Secret yet".into()));
        assert_eq!(stage(&format!("{unready}, {issuing}")), Stage::Issuing("asking".into()));
        assert_eq!(stage(&format!("{unready}, {failed}")), Stage::Failed("refused".into()));
        assert_eq!(stage(ready), Stage::Issued);
        assert_eq!(stage(&format!("{ready}, {issuing}")), Stage::Issuing("asking".into()));
        assert_eq!(stage(&format!("{ready}, {failed}")), Stage::Failed("refused".into()));
    }

    #[test]
    fn a_certificate_that_is_being_deleted_issues_and_renews_nothing_whatever_its_conditions_say() {
        let certificate = |name: &str, metadata: &str| {
            let text = format!(
                "metadata: {{name: {name}, namespace: shop{metadata}}}
spec: {{secretName: tls}}
status:
  renewalTime: '2027-01-15T08:00:00Z'
  conditions:
  - {{type: Ready, status: 'True', reason: Ready, message: up to date}}
  - {{type: Issuing, status: 'True', reason: Renewing, message: asking, lastTransitionTime: '2027-01-15T08:00:00Z'}}"
            );
            (Key::new("shop", name), Arc::new(serde_saphyr::from_str(&text).unwrap()))
        };
        let progress = |certificates: &[(Key, Arc<Certificate>)]| {
            let objects = Objects { certificates: certificates.iter().cloned().collect(), ..Objects::default() };
            Secrets::new(&objects).progress(&Key::new("shop", "tls")).unwrap()
        };
        let leaving = certificate("a", ", deletionTimestamp: '2027-01-15T08:00:00Z', finalizers: [example.com/held]");
        let found = progress(std::slice::from_ref(&leaving));
        assert_eq!(found.stage, Stage::BeingDeleted);
        assert_eq!((found.renewal, found.issuing_since), (None, None));
        let explained = found.explain(Problem::new(Reason::Issuing, "Secret shop/tls", "does not exist yet"));
        assert_eq!(explained.reason, Reason::Failed);
        assert!(explained.to_string().contains("Certificate shop/a is being deleted"), "{explained}");
        // Another one that fills the Secret is what counts.
        let found = progress(&[leaving, certificate("b", "")]);
        assert_eq!(found.certificate, Key::new("shop", "b"));
        assert_eq!(found.stage, Stage::Issuing("asking".into()));
    }
}
