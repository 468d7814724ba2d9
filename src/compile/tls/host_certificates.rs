//! The TLS of every host: Secrets to certificates to identities, with what is kept from the compile before.
//!
//! A broken Secret keeps the last good certificate of its host; one that is gone, or may no longer be named, does not.
//! Knows Secrets, hosts and who issues; not rules or policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::guard::guarded;
use crate::compile::options::Options;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::reference::{Grants, unread};
use crate::compile::spec::tls::{ClientDraft, MinVersion, TlsDraft};
use crate::compile::status::condition::Facet;
use crate::compile::tls::certificate::{Certificate, date};
use crate::compile::tls::client_trust::Trusts;
use crate::compile::tls::development;
use crate::compile::tls::issuance::Issue;
use crate::compile::tls::progress::{Progress, Secrets, Stage};
use crate::compile::tls::server_config::{Identity, TlsPolicy};
use crate::policy::ClientRule;

/// The only type of Secret that certificates come from.
const TYPE: &str = "kubernetes.io/tls";
/// A self-made certificate is made anew when it is valid for less than this, in seconds.
const RENEW: i64 = 86_400;
/// A certificate is told to be near its end this long before it, in seconds, or a sixth of its time if that is less.
const NEAR: i64 = 14 * 86_400;

/// What is kept from one compile to the next.
#[derive(Debug, Default)]
pub struct Kept {
    parsed: BTreeMap<Key, Parsed>,
    hosts: BTreeMap<Box<str>, HostTls>,
    default: HostTls,
    trusts: Trusts,
}

/// A Secret's content, parsed once.
#[derive(Debug, Clone)]
struct Parsed {
    secret: Arc<Secret>,
    result: Result<Arc<Certificate>, Problem>,
}

/// The TLS of one host.
#[derive(Debug, Default, Clone)]
struct HostTls {
    /// `None`: the default identity, or nothing.
    identity: Option<Identity>,
    /// What was served from each Secret: the last good one, if the next is not.
    served: Vec<(Key, Arc<Certificate>)>,
    development: Option<Arc<Certificate>>,
}

/// What a host is served with, and what there is to say of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The host's own TLS; `None`: the default identity.
    pub identity: Option<Identity>,
    /// Whether there is any TLS to serve the host with.
    pub available: bool,
    /// References of the owner that do not resolve.
    pub resolved: Vec<Problem>,
    /// What is said of the certificates to every route of the host.
    pub certificate: Facet,
    /// What is asked of client certificates.
    pub client: Option<ClientRule>,
    /// Nobody is let in, because it cannot be said who may be: an authority or a revocation list is lost.
    pub locked: bool,
}

/// Everything that makes identities, for one compile.
pub struct Vault<'a> {
    objects: &'a Objects,
    grants: &'a Grants<'a>,
    options: &'a Options,
    now: i64,
    before: Option<&'a Kept>,
    secrets: Secrets<'a>,
    kept: Kept,
    /// The next moment at which something else is to be said, without any object changing.
    due: Option<i64>,
    /// What is said of the default certificate to every route that uses it.
    default_facet: Facet,
}

impl<'a> Vault<'a> {
    /// A vault for one compile at `now` (seconds since the Unix epoch), with what the one before kept.
    pub fn new(
        objects: &'a Objects,
        grants: &'a Grants<'a>,
        options: &'a Options,
        now: i64,
        before: Option<&'a Kept>,
    ) -> Self {
        let kept = Kept::default();
        let secrets = Secrets::new(objects);
        let default_facet = Facet::default();
        let mut vault = Self { objects, grants, options, now, before, secrets, kept, due: None, default_facet };
        if let Some(key) = &options.default_certificate {
            let tls = before.map(|before| &before.default);
            let mut host = HostTls::default();
            let (certificate, missing) = vault.fetch("defaultCertificate", key, None, None, tls, &mut host);
            vault.default_facet = certificate;
            vault.default_facet.problems.extend(missing);
            let policy = TlsPolicy { tenant: "".into(), min_version: MinVersion::default(), client: None };
            vault.identify(policy, tls, &mut host).map_or_else(|p| vault.default_facet.problems.push(p), drop);
            vault.kept.default = host;
        }
        vault
    }

    /// The identity for names that no host owns.
    pub fn default_identity(&self) -> Option<&Identity> {
        self.kept.default.identity.as_ref()
    }

    /// What the next compile needs, and the moment (seconds since the Unix epoch) after which there is something else
    /// to say although no object changed.
    pub fn keep(self) -> (Kept, Option<i64>) {
        (self.kept, self.due)
    }

    /// The TLS of a host that `tenant` holds: by the owner's `tls`, or without one by the default certificate; `issue`
    /// is what became of the owner's `issuerRef`.
    pub fn host(&mut self, host: &str, tenant: &str, tls: Option<&TlsDraft>, issue: Option<&Issue>) -> Outcome {
        let before = self.before.and_then(|before| before.hosts.get(host));
        let mut next = HostTls::default();
        let mut outcome = Outcome::default();
        match tls {
            Some(tls) if !tls.certificates.is_empty() => {
                for (place, wanted) in tls.certificates.iter().enumerate() {
                    let field = format!("spec.tls.certificateRefs[{place}]");
                    let namespace = wanted.namespace.as_deref();
                    match self.grants.resolve(&field, tenant, "Secret", namespace, &wanted.name) {
                        Err(problem) => outcome.resolved.push(problem),
                        Ok(key) => {
                            let (facet, missing) = self.fetch(&field, &key, Some(host), issue, before, &mut next);
                            outcome.certificate.problems.extend(facet.problems);
                            outcome.certificate.notes.extend(facet.notes);
                            outcome.resolved.extend(missing);
                        }
                    }
                }
            }
            _ => self.fall_back(host, before, &mut next, &mut outcome),
        }
        if let Some(client) = tls.and_then(|tls| tls.client.as_ref()) {
            self.ask(host, tenant, client, &mut outcome);
        }
        let min_version = tls.map_or_else(MinVersion::default, |t| t.min_version);
        let policy = TlsPolicy { tenant: tenant.into(), min_version, client: outcome.client.clone() };
        // Without tls of its own a host that has the default certificate shares the default identity.
        let shares = tls.is_none() && !next.served.is_empty() && next.development.is_none();
        if shares {
            outcome.available = self.kept.default.identity.is_some();
        } else {
            match self.identify(policy, before, &mut next) {
                Ok(available) => outcome.available = available,
                Err(problem) => outcome.certificate.problems.push(problem),
            }
        }
        if !outcome.available {
            let text = format!("host {}: there is no certificate to serve it with", quote(host));
            let reason = outcome
                .resolved
                .first()
                .or(outcome.certificate.problems.first())
                .map_or(Reason::RefNotFound, |p| p.reason);
            outcome.certificate.problems.push(Problem::new(reason, text));
        }
        outcome.identity.clone_from(&next.identity);
        self.kept.hosts.insert(host.into(), next);
        outcome
    }

    /// What is asked of client certificates. Where that cannot be said the host is locked: its handshakes are answered
    /// with 503, and its connections end.
    fn ask(&mut self, host: &str, tenant: &str, client: &ClientDraft, outcome: &mut Outcome) {
        let before = self.before.map(|before| &before.trusts);
        match self.kept.trusts.rule(before, (self.objects, self.grants), tenant, client, self.now) {
            Ok(asked) => {
                outcome.client = Some(asked.rule);
                outcome.resolved.extend(asked.expired);
            }
            Err(problems) => {
                outcome.locked = true;
                let text = format!("host {}: client certificates cannot be verified, nobody is let in", quote(host));
                let reason = problems.first().map_or(Reason::RefNotFound, |problem| problem.reason);
                outcome.certificate.problems.push(Problem::new(reason, text));
                outcome.resolved.extend(problems);
            }
        }
    }

    /// The default certificate; with `--dev` a self-made one where there is none.
    fn fall_back(&mut self, host: &str, before: Option<&HostTls>, next: &mut HostTls, outcome: &mut Outcome) {
        let default: Vec<_> = self.kept.default.served.clone();
        let missing = |key: &Key| !self.objects.secrets.contains_key(key);
        if self.options.dev && self.options.default_certificate.as_ref().is_none_or(missing) {
            outcome.certificate = self.develop(host, before, next);
            return;
        }
        if self.options.default_certificate.is_none() {
            let text = "spec.tls.certificateRefs: none, and the gateway has no default certificate; name a Secret";
            outcome.certificate.problems.push(Problem::new(Reason::RefNotFound, text));
            return;
        }
        outcome.certificate = self.default_facet.clone();
        if !default.is_empty() && !default.iter().any(|(_, certificate)| certificate.covers(host)) {
            let text = format!("the gateway's default certificate does not cover {}; set spec.tls", quote(host));
            outcome.certificate.problems.push(Problem::new(Reason::HostnameMismatch, text));
        }
        next.served = default;
    }

    /// Puts a Secret's certificate into `next`, or the last good one in its place. Returns what is said of the
    /// certificate, and the problem of a Secret that does not exist.
    fn fetch(
        &mut self,
        field: &str,
        key: &Key,
        host: Option<&str>,
        issue: Option<&Issue>,
        before: Option<&HostTls>,
        next: &mut HostTls,
    ) -> (Facet, Option<Problem>) {
        let progress = self.secrets.progress(key);
        let Some(secret) = self.objects.secrets.get(key) else {
            if self.options.dev {
                return (self.develop(host.unwrap_or("localhost"), before, next), None);
            }
            if let Some(problem) = unread(self.objects, field, "Secret", key) {
                return (Facet::default(), Some(problem));
            }
            return missing(field, key, progress, issue);
        };
        let mut facet = Facet::default();
        match issue {
            Some(Issue::Refused(problems)) => facet.problems.extend(problems.iter().cloned()),
            Some(Issue::Unavailable(why)) => {
                let text = format!("spec.tls.issuerRef: {why}; Secret {key} is served as it is");
                facet.notes.push(Problem::new(Reason::Ready, text));
            }
            Some(Issue::Unwritten(why)) => facet.notes.push(Problem::new(Reason::Ready, unwritten(key, why))),
            Some(Issue::Kept) | None => {}
        }
        let explain = |problem: Problem| match (&progress, issue) {
            (_, Some(Issue::Unwritten(why))) if problem.reason == Reason::HostnameMismatch => {
                Problem::new(Reason::Failed, format!("{}; {}", problem.message, unwritten(key, why)))
            }
            // Hostnames changed, and cert-manager has not seen it yet.
            (None | Some(Progress { stage: Stage::Issued, .. }), Some(Issue::Kept))
                if problem.reason == Reason::HostnameMismatch =>
            {
                let message = format!("{}; cert-manager is asked for it by Certificate {key}", problem.message);
                Problem { reason: Reason::Issuing, message }
            }
            (Some(progress), _) => progress.explain(problem),
            (None, _) => problem,
        };
        let last = before.and_then(|before| before.served.iter().find(|(of, _)| of == key)).map(|(_, last)| last);
        let chosen = match self.parse(key, secret) {
            Ok(certificate) => match certificate.flaw(host, self.now) {
                None => Some(certificate),
                Some(flaw) => match last.filter(|last| last.flaw(host, self.now).is_none()) {
                    Some(last) => {
                        // It takes over as soon as it is valid, and nobody edits anything then.
                        self.remind(certificate.not_before);
                        facet.problems.push(explain(kept(flaw)));
                        Some(Arc::clone(last))
                    }
                    // Clients judge dates and names; to end the service would not make it safer.
                    None => {
                        let message = format!("{}; served all the same", flaw.message);
                        facet.problems.push(explain(Problem { message, ..flaw }));
                        Some(certificate)
                    }
                },
            },
            Err(problem) => {
                facet.problems.push(explain(if last.is_some() { kept(problem) } else { problem }));
                last.cloned()
            }
        };
        if let Some(certificate) = chosen {
            self.describe(key, &certificate, progress.as_ref(), &mut facet);
            next.served.push((key.clone(), certificate));
        }
        (facet, None)
    }

    /// There is something else to say at `moment`, if that is yet to come.
    fn remind(&mut self, moment: i64) {
        let later = Some(moment).filter(|moment| *moment > self.now);
        self.due = self.due.into_iter().chain(later).min();
    }

    /// What there is to say of a certificate that is served.
    fn describe(&mut self, key: &Key, certificate: &Certificate, progress: Option<&Progress>, facet: &mut Facet) {
        // Whatever its issuer is called: where cert-manager is content it is the one that was asked for.
        let issued = progress.is_some_and(|progress| progress.stage == Stage::Issued);
        if certificate.temporary && !issued {
            let text = format!("Secret {key} holds cert-manager's temporary certificate, which no client trusts");
            let problem = Problem::new(Reason::Temporary, text);
            let explained = progress.map(|progress| progress.explain(problem.clone()));
            let message = explained.map_or(problem.message, |problem| problem.message);
            facet.problems.push(Problem { reason: Reason::Temporary, message });
        }
        let (end, lifetime) = (certificate.facts.not_after, certificate.facts.not_after - certificate.not_before);
        let near = end - NEAR.min(lifetime / 6);
        let renewal = progress.and_then(|progress| progress.renewal);
        // Whoever will renew it in time has it in hand.
        let expiring = self.now >= near && renewal.is_none_or(|renewal| renewal < self.now);
        [certificate.not_before, near, end + 1].into_iter().for_each(|moment| self.remind(moment));
        renewal.into_iter().for_each(|renewal| self.remind(renewal + 1));
        let failed = match progress {
            Some(Progress { certificate, stage: Stage::Failed(text), .. }) => {
                Some(format!("the last attempt to renew Certificate {certificate} failed: {text}"))
            }
            _ => None,
        };
        if expiring {
            let fix = failed.unwrap_or_else(|| "renew it".to_owned());
            let text = format!("Secret {key}: the certificate expires on {}; {fix}", date(end));
            facet.notes.push(Problem::new(Reason::Expiring, text));
        } else if let Some(failed) = failed {
            let text = format!("Secret {key}: the certificate is valid until {}; {failed}", date(end));
            facet.notes.push(Problem::new(Reason::Ready, text));
        }
        if certificate.self_signed {
            let text = format!("Secret {key}: the certificate is self-signed; browsers do not trust it");
            facet.notes.push(Problem::new(Reason::SelfSigned, text));
        }
        if let Some(text) = &certificate.disorder {
            facet.notes.push(Problem::new(Reason::Ready, format!("Secret {key}: {text}; some clients will fail")));
        }
    }

    fn develop(&self, host: &str, before: Option<&HostTls>, next: &mut HostTls) -> Facet {
        let mut facet = Facet::default();
        let last = before.and_then(|before| before.development.clone());
        match last.filter(|last| last.facts.not_after - self.now > RENEW && last.not_before <= self.now) {
            Some(last) => next.development = Some(last),
            None => match development::certificate(host, self.now) {
                Ok(certificate) => next.development = Some(Arc::new(certificate)),
                Err(text) => facet.problems.push(Problem::new(Reason::InvalidCertificate, text)),
            },
        }
        let text = format!("host {}: a self-made certificate stands in (--dev)", quote(host));
        facet.notes.push(Problem::new(Reason::SelfSigned, text));
        facet
    }

    /// The identity of what `next` has; whether there is one.
    fn identify(&self, policy: TlsPolicy, before: Option<&HostTls>, next: &mut HostTls) -> Result<bool, Problem> {
        let certificates: Vec<Arc<Certificate>> =
            next.served.iter().map(|(_, certificate)| certificate).chain(&next.development).cloned().collect();
        if certificates.is_empty() {
            return Ok(false);
        }
        let before = before.and_then(|before| before.identity.as_ref());
        let identity = Identity::build(policy, certificates, before)
            .map_err(|text| Problem::new(Reason::InvalidCertificate, text))?;
        next.identity = Some(identity);
        Ok(true)
    }

    fn parse(&mut self, key: &Key, secret: &Arc<Secret>) -> Result<Arc<Certificate>, Problem> {
        if let Some(parsed) = self.kept.parsed.get(key) {
            return parsed.result.clone();
        }
        let before = self.before.and_then(|before| before.parsed.get(key)).filter(|parsed| {
            let old = &parsed.secret;
            Arc::ptr_eq(old, secret)
                || (old.data == secret.data && old.string_data == secret.string_data && old.type_ == secret.type_)
        });
        let result = match before {
            Some(parsed) => parsed.result.clone(),
            None => {
                let refuse = |fault| Problem::new(Reason::InvalidCertificate, format!("Secret {key}: {fault}"));
                guarded(refuse, || read(key, secret)).map(Arc::new)
            }
        };
        self.kept.parsed.insert(key.clone(), Parsed { secret: Arc::clone(secret), result: result.clone() });
        result
    }
}

/// What is said of a Secret that does not exist: of the certificate where someone is at it, else of the reference.
fn missing(field: &str, key: &Key, progress: Option<Progress>, issue: Option<&Issue>) -> (Facet, Option<Problem>) {
    let mut facet = Facet::default();
    let absent = format!("Secret {key} does not exist yet");
    if let Some(Issue::Refused(problems)) = issue {
        facet.problems.extend(problems.iter().cloned());
    }
    match (progress, issue) {
        (_, Some(Issue::Unwritten(why))) => {
            let text = format!("{absent}; {}", unwritten(key, why));
            facet.problems.push(Problem::new(Reason::Failed, text));
        }
        (Some(progress), _) => {
            let issuing = Problem::new(Reason::Issuing, absent);
            facet.problems.push(progress.explain(issuing));
        }
        (None, Some(Issue::Kept)) => {
            let text = format!("{absent}; cert-manager is asked for it by Certificate {key}");
            facet.problems.push(Problem::new(Reason::Issuing, text));
        }
        (None, Some(Issue::Unavailable(why))) => {
            let text = format!("{absent}: spec.tls.issuerRef {why}");
            facet.problems.push(Problem::new(Reason::Failed, text));
        }
        (None, Some(Issue::Refused(_))) => {}
        (None, None) => {
            let text = format!("{field}: Secret {key} does not exist; create it with type {TYPE}");
            return (facet, Some(Problem::new(Reason::RefNotFound, text)));
        }
    }
    (facet, None)
}

fn unwritten(key: &Key, why: &str) -> String {
    format!("Certificate {key} could not be written: {why}")
}

fn read(key: &Key, secret: &Secret) -> Result<Certificate, Problem> {
    if secret.type_.as_deref() != Some(TYPE) {
        let text = format!("Secret {key}: its type is not {TYPE}; create it anew with that type");
        return Err(Problem::new(Reason::InvalidCertificateRef, text));
    }
    let value = |name: &str| {
        let text = secret.string_data.as_ref().and_then(|data| data.get(name)).map(String::as_bytes);
        text.or_else(|| secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.as_slice()))
            .unwrap_or_default()
    };
    Certificate::parse(&key.to_string(), value("tls.crt"), value("tls.key"))
}

fn kept(problem: Problem) -> Problem {
    Problem { message: format!("{}; the last good certificate keeps being served", problem.message), ..problem }
}
