//! The TLS of every host: Secrets to certificates to server configurations, with what is kept from the compile before.
//!
//! A broken Secret keeps the last good certificate of its host. If no Secret has a certificate for the host, the last good
//! one stands in for a bounded time ([`stand_in`]), unless it may no longer be named. Knows Secrets, hosts and who issues;
//! not rules or policies.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use crate::api::objects::{Key, Objects};
use crate::api::route_id::RouteId;
use crate::api::status::ConditionReason as Reason;
use crate::compile::guard::guarded;
use crate::compile::options::Options;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::reference::{Grants, unread};
use crate::compile::spec::tls::{ClientDraft, MinVersion, TlsDraft};
use crate::compile::status::condition::ConditionReport;
use crate::compile::tls::certificate::{Certificate, date};
use crate::compile::tls::client_trust::ClientTrusts;
use crate::compile::tls::development;
use crate::compile::tls::issuance::Issue;
use crate::compile::tls::progress::{Progress, Secrets, Stage, tail};
use crate::compile::tls::secret::{self, explain, missing};
use crate::compile::tls::server_config::{BuiltConfig, TlsPolicy};
use crate::compile::tls::stand_in;
use crate::policy::ClientRule;

/// A self-signed certificate is made anew when it is valid for less than this, in seconds.
const RENEW: i64 = 86_400;
/// A certificate is reported to be near its end this long before it, in seconds, or a sixth of its time if that is less.
const NEAR: i64 = 14 * 86_400;
/// How long cert-manager may be issuing what is served well before that is reported, in seconds: ACME takes minutes.
const PATIENCE: i64 = 300;

/// What is kept from one compile to the next.
#[derive(Debug, Default)]
pub struct CertificateCache {
    parsed: BTreeMap<Key, Parsed>,
    hosts: BTreeMap<Box<str>, KeptHost>,
    default: KeptHost,
    client_trusts: ClientTrusts,
}

/// A Secret's content, parsed once.
#[derive(Debug, Clone)]
struct Parsed {
    secret: Arc<Secret>,
    result: Result<Arc<Certificate>, Problem>,
}

/// What is kept of one host.
#[derive(Debug, Default, Clone)]
struct KeptHost {
    /// `None`: the default configuration, or nothing.
    config: Option<BuiltConfig>,
    /// The route by whose references it was served; `None`: it is the default certificate.
    owner: Option<RouteId>,
    /// What was served from each Secret: the last good one, if the next is not.
    served: Vec<(Key, Arc<Certificate>)>,
    /// Since when, seconds since the Unix epoch, `served` stands in because no reference has a certificate.
    since: Option<i64>,
    development: Option<Arc<Certificate>>,
}

impl CertificateCache {
    /// How many hosts, the default certificate among them, are served with what stands in.
    pub fn standing_in(&self) -> usize {
        self.hosts.values().chain([&self.default]).filter(|host| host.since.is_some()).count()
    }
}

impl KeptHost {
    /// The certificate that was served last from a Secret.
    fn last(&self, key: &Key) -> Option<&Arc<Certificate>> {
        self.served.iter().find(|(of, _)| of == key).map(|(_, last)| last)
    }
}

/// What a host had after the compile before, and what it has now.
struct Change<'b> {
    before: Option<&'b KeptHost>,
    next: KeptHost,
}

impl Change<'_> {
    /// Makes the configuration of the certificates that the host has now; whether there is one.
    fn configure(&mut self, policy: TlsPolicy) -> Result<bool, Problem> {
        let served = self.next.served.iter().map(|(_, certificate)| certificate);
        let certificates: Vec<Arc<Certificate>> = served.chain(&self.next.development).cloned().collect();
        if certificates.is_empty() {
            return Ok(false);
        }
        let before = self.before.and_then(|before| before.config.as_ref());
        let config = BuiltConfig::new(policy, certificates, before)
            .map_err(|text| Problem::new(Reason::InvalidCertificate, "TLS configuration", text))?;
        self.next.config = Some(config);
        Ok(true)
    }
}

/// The TLS that a host is served with, and the problems of it.
#[derive(Debug, Default)]
pub struct HostTls {
    /// The host's own configuration; `None`: the default one.
    pub config: Option<BuiltConfig>,
    /// Whether there is any TLS to serve the host with.
    pub available: bool,
    /// References of the owner that do not resolve.
    pub resolved: Vec<Problem>,
    /// What every route of the host reports of its certificates.
    pub certificate: ConditionReport,
    /// What is asked of client certificates.
    pub client: Option<ClientRule>,
    /// No client is admitted, because client certificates cannot be verified: an authority or a revocation list is lost.
    pub locked: bool,
}

/// Who owns a host.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The route whose `tls` counts; `None`: no route of the host has any.
    pub id: Option<&'a RouteId>,
    /// The namespace.
    pub namespace: &'a str,
}

/// A Secret that is asked for a certificate.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// The reference, for messages.
    field: &'a str,
    /// The Secret.
    key: &'a Key,
    /// The host that it is for; `None`: the default certificate.
    host: Option<&'a str>,
    /// What became of the owner's `issuerRef`.
    issue: Option<&'a Issue>,
}

/// The certificates of all hosts, for one compile.
pub struct HostCertificates<'a> {
    objects: &'a Objects,
    grants: &'a Grants<'a>,
    options: &'a Options,
    now: i64,
    before: Option<&'a CertificateCache>,
    secrets: Secrets<'a>,
    cache: CertificateCache,
    /// The next moment at which a report changes without any object changing.
    due: Option<i64>,
    /// What every route reports that uses the default certificate.
    default_report: ConditionReport,
}

impl<'a> HostCertificates<'a> {
    /// The certificates of one compile at `now` (seconds since the Unix epoch), with what the one before kept.
    pub fn new(
        objects: &'a Objects,
        grants: &'a Grants<'a>,
        options: &'a Options,
        now: i64,
        before: Option<&'a CertificateCache>,
    ) -> Self {
        let secrets = Secrets::new(objects);
        let (cache, default_report) = (CertificateCache::default(), ConditionReport::default());
        let mut this = Self { objects, grants, options, now, before, secrets, cache, due: None, default_report };
        if let Some(key) = &options.default_certificate {
            let mut change = Change { before: before.map(|before| &before.default), next: KeptHost::default() };
            let asked = Asked { field: "defaultCertificate", key, host: None, issue: None };
            let (mut report, missing) = this.fetch(asked, &mut change);
            report.problems.extend(missing);
            this.stand_in("the default certificate", Owner { id: None, namespace: "" }, &mut change, &mut report);
            let policy = TlsPolicy { tenant: "".into(), min_version: MinVersion::default(), client: None };
            report.problems.extend(change.configure(policy).err());
            this.default_report = report;
            this.cache.default = change.next;
        }
        this
    }

    /// The configuration for names that no host owns.
    pub fn default_config(&self) -> Option<&BuiltConfig> {
        self.cache.default.config.as_ref()
    }

    /// What the next compile needs, and the moment (seconds since the Unix epoch) after which a report changes although
    /// no object does.
    pub fn finish(self) -> (CertificateCache, Option<i64>) {
        (self.cache, self.due)
    }

    /// The TLS of a host: by its owner's `tls`, or without one by the default certificate; `issue` is what became of the
    /// owner's `issuerRef`.
    pub fn host(&mut self, host: &str, owner: Owner<'_>, tls: Option<&TlsDraft>, issue: Option<&Issue>) -> HostTls {
        let tenant = owner.namespace;
        let before = self.before.and_then(|before| before.hosts.get(host));
        let mut change = Change { before, next: KeptHost { owner: owner.id.cloned(), ..KeptHost::default() } };
        let mut served = HostTls::default();
        match tls {
            Some(tls) if !tls.certificates.is_empty() => {
                self.own(host, tenant, tls, issue, &mut change, &mut served);
                let subject = format!("host {}", quote(host));
                self.stand_in(&subject, owner, &mut change, &mut served.certificate);
            }
            _ => self.fall_back(host, &mut change, &mut served),
        }
        if let Some(client) = tls.and_then(|tls| tls.client.as_ref()) {
            self.validate_clients(host, tenant, client, &mut served);
        }
        let min_version = tls.map_or_else(MinVersion::default, |t| t.min_version);
        let policy = TlsPolicy { tenant: tenant.into(), min_version, client: served.client.clone() };
        // Without tls of its own a host that has the default certificate shares the default configuration.
        let shares = tls.is_none() && !change.next.served.is_empty() && change.next.development.is_none();
        if shares {
            served.available = self.cache.default.config.is_some();
        } else {
            match change.configure(policy) {
                Ok(available) => served.available = available,
                Err(problem) => served.certificate.problems.push(problem),
            }
        }
        if !served.available {
            let first = served.resolved.first().or(served.certificate.problems.first());
            let reason = first.map_or(Reason::RefNotFound, |problem| problem.reason);
            let text = "no certificate is available";
            served.certificate.problems.push(Problem::new(reason, format_args!("host {}", quote(host)), text));
        }
        served.config.clone_from(&change.next.config);
        self.cache.hosts.insert(host.into(), change.next);
        served
    }

    /// The certificates that the owner of a host names.
    fn own(
        &mut self,
        host: &str,
        tenant: &str,
        tls: &TlsDraft,
        issue: Option<&Issue>,
        change: &mut Change<'_>,
        served: &mut HostTls,
    ) {
        for (index, wanted) in tls.certificates.iter().enumerate() {
            let field = format!("spec.tls.certificateRefs[{index}]");
            match self.grants.resolve(&field, tenant, "Secret", wanted.namespace.as_deref(), &wanted.name) {
                Err(problem) => served.resolved.push(problem),
                Ok(key) => {
                    let asked = Asked { field: &field, key: &key, host: Some(host), issue };
                    let (report, missing) = self.fetch(asked, change);
                    served.certificate.problems.extend(report.problems);
                    served.certificate.notes.extend(report.notes);
                    served.resolved.extend(missing);
                }
            }
        }
    }

    /// Serves a host whose references have no certificate with the last good ones, for as long as they may stand in.
    fn stand_in(&mut self, subject: &str, owner: Owner<'_>, change: &mut Change<'_>, report: &mut ConditionReport) {
        if !change.next.served.is_empty() || change.next.development.is_some() {
            return;
        }
        let Some(before) = change.before.filter(|before| before.owner.as_ref() == owner.id) else { return };
        let default = self.options.default_certificate.as_ref();
        let may_be_named = |key: &Key| {
            let named = |namespace| self.grants.resolve("", owner.namespace, "Secret", Some(namespace), &key.name);
            owner.id.is_none() || default == Some(key) || named(&*key.namespace).is_ok()
        };
        let since = before.since.unwrap_or(self.now);
        let served = before.served.iter().filter(|(key, _)| may_be_named(key));
        let Some((served, until)) = stand_in::last_good(served, since, self.options.certificate_grace, self.now) else {
            return;
        };
        report.problems.push(stand_in::problem(subject, &served, until));
        (change.next.served, change.next.since) = (served, Some(since));
        self.remind(until);
    }

    /// What is asked of client certificates. Where they cannot be verified the host is locked: its handshakes get 503,
    /// and its connections end.
    fn validate_clients(&mut self, host: &str, tenant: &str, client: &ClientDraft, served: &mut HostTls) {
        let before = self.before.map(|before| &before.client_trusts);
        match self.cache.client_trusts.rule(before, (self.objects, self.grants), tenant, client, self.now) {
            Ok(validation) => {
                served.client = Some(validation.rule);
                served.resolved.extend(validation.problems);
            }
            Err(problems) => {
                served.locked = true;
                let reason = problems.first().map_or(Reason::RefNotFound, |problem| problem.reason);
                let text = "client certificates cannot be verified; all handshakes get 503";
                served.certificate.problems.push(Problem::new(reason, format_args!("host {}", quote(host)), text));
                served.resolved.extend(problems);
            }
        }
    }

    /// The default certificate; with `--dev` a self-signed one where there is none.
    fn fall_back(&mut self, host: &str, change: &mut Change<'_>, served: &mut HostTls) {
        let missing = |key: &Key| !self.objects.secrets.contains_key(key);
        if self.options.dev && self.options.default_certificate.as_ref().is_none_or(missing) {
            served.certificate = self.develop(host, change);
            return;
        }
        if self.options.default_certificate.is_none() {
            let text = "is not set, and the gateway has no default certificate; name a Secret";
            served.certificate.problems.push(Problem::new(Reason::RefNotFound, "spec.tls.certificateRefs", text));
            return;
        }
        let default: Vec<_> = self.cache.default.served.clone();
        served.certificate = self.default_report.clone();
        if !default.is_empty() && !default.iter().any(|(_, certificate)| certificate.covers(host)) {
            let text = "the default certificate of the gateway does not cover it; set spec.tls";
            let problem = Problem::new(Reason::HostnameMismatch, format_args!("host {}", quote(host)), text);
            served.certificate.problems.push(problem);
        }
        change.next.served = default;
    }

    /// Takes a Secret's certificate, or the last good one in its place. Returns what is reported of the
    /// certificate, and the problem of a Secret that does not exist.
    fn fetch(&mut self, asked: Asked<'_>, change: &mut Change<'_>) -> (ConditionReport, Option<Problem>) {
        let Asked { field, key, host, issue } = asked;
        let progress = self.secrets.progress(key);
        let Some(secret) = self.objects.secrets.get(key) else {
            if self.options.dev {
                return (self.develop(host.unwrap_or("localhost"), change), None);
            }
            if let Some(problem) = unread(self.objects, field, "Secret", key) {
                return (ConditionReport::default(), Some(problem));
            }
            return missing(field, key, progress, issue);
        };
        let mut report = secret::of_issue(key, issue);
        let last = change.before.and_then(|before| before.last(key));
        let (chosen, problem) = self.choose(key, secret, host, last);
        report.problems.extend(problem.map(|problem| explain(key, progress.as_ref(), issue, problem)));
        if let Some(certificate) = chosen {
            self.describe(key, &certificate, progress.as_ref(), &mut report);
            change.next.served.push((key.clone(), certificate));
        }
        (report, None)
    }

    /// The certificate that is served from a Secret, its own or the last good one, and the problem of its own.
    fn choose(
        &mut self,
        key: &Key,
        secret: &Arc<Secret>,
        host: Option<&str>,
        last: Option<&Arc<Certificate>>,
    ) -> (Option<Arc<Certificate>>, Option<Problem>) {
        const KEPT: &str = "the last good certificate is still served";
        let certificate = match self.parse(key, secret) {
            Ok(certificate) => certificate,
            Err(problem) if last.is_some() => return (last.cloned(), Some(problem.with(KEPT))),
            Err(problem) => return (None, Some(problem)),
        };
        let Some(flaw) = certificate.flaw(host, self.now) else { return (Some(certificate), None) };
        match last.filter(|last| last.flaw(host, self.now).is_none()) {
            Some(last) => {
                // It takes over as soon as it is valid, and nobody edits anything then.
                self.remind(certificate.not_before);
                (Some(Arc::clone(last)), Some(flaw.with(KEPT)))
            }
            // Clients judge dates and names; to end the service would not make it safer.
            None => (Some(certificate), Some(flaw.with("the certificate is served anyway"))),
        }
    }

    /// A report changes at `moment`, if that is yet to come.
    fn remind(&mut self, moment: i64) {
        let later = Some(moment).filter(|moment| *moment > self.now);
        self.due = self.due.into_iter().chain(later).min();
    }

    /// Reports what there is to know of a certificate that is served.
    fn describe(
        &mut self,
        key: &Key,
        certificate: &Certificate,
        progress: Option<&Progress>,
        report: &mut ConditionReport,
    ) {
        let field = format!("Secret {key}");
        // Whatever its issuer is called: where cert-manager is content it is the one that was asked for.
        let issued = progress.is_some_and(|progress| progress.stage == Stage::Issued);
        if certificate.temporary && !issued {
            let text = "holds the temporary certificate of cert-manager, which no client trusts";
            let problem = Problem::new(Reason::Temporary, &field, text);
            let explained = match progress {
                Some(progress) => progress.explain(problem).because(Reason::Temporary),
                None => problem,
            };
            report.problems.push(explained);
        }
        self.describe_end(&field, certificate, progress, report);
        if certificate.self_signed {
            let text = "the certificate is self-signed; browsers do not trust it";
            report.notes.push(Problem::new(Reason::SelfSigned, &field, text));
        }
        let lacks = certificate.lacks.as_ref().map(|lacks| &lacks.text);
        if let Some(text) = certificate.disorder.as_ref().or(lacks) {
            let text = format_args!("{text}; some clients will fail");
            report.notes.push(Problem::new(Reason::ChainIncomplete, &field, text));
        }
    }

    /// Reports that a certificate is near its end, or that its renewal failed.
    fn describe_end(
        &mut self,
        field: &str,
        certificate: &Certificate,
        progress: Option<&Progress>,
        report: &mut ConditionReport,
    ) {
        let (end, lifetime) = (certificate.facts.not_after, certificate.facts.not_after - certificate.not_before);
        let near = end - NEAR.min(lifetime / 6);
        let renewal = progress.and_then(|progress| progress.renewal);
        // A renewal that is yet to come is nobody's concern.
        let expiring = self.now >= near && renewal.is_none_or(|renewal| renewal < self.now);
        [certificate.not_before, near, end + 1].into_iter().for_each(|moment| self.remind(moment));
        renewal.into_iter().for_each(|renewal| self.remind(renewal + 1));
        let failed = match progress {
            Some(Progress { certificate, stage: Stage::Failed(text), .. }) => {
                Some(format!("the last attempt to renew Certificate {certificate} failed: {text}"))
            }
            Some(Progress { certificate, stage: Stage::Issuing(text), issuing_since: Some(since), .. }) => {
                self.remind(since + PATIENCE);
                (self.now >= since + PATIENCE).then(|| {
                    let text = tail(text);
                    format!(
                        "cert-manager has been issuing Certificate {certificate} since {}{text}; check that the issuer \
                         exists and is ready",
                        date(*since)
                    )
                })
            }
            Some(progress) if progress.stage == Stage::BeingDeleted => Some(progress.leaving()),
            _ => None,
        };
        let (reason, text) = match (expiring, failed) {
            (true, failed) => {
                let fix = failed.unwrap_or_else(|| "renew it".to_owned());
                (Reason::Expiring, format!("the certificate expires on {}; {fix}", date(end)))
            }
            (false, Some(failed)) => {
                (Reason::RenewalFailing, format!("the certificate is valid until {}; {failed}", date(end)))
            }
            (false, None) => return,
        };
        report.notes.push(Problem::new(reason, field, text));
    }

    fn develop(&self, host: &str, Change { before, next }: &mut Change<'_>) -> ConditionReport {
        let mut report = ConditionReport::default();
        let last = before.and_then(|before| before.development.clone());
        match last.filter(|last| last.facts.not_after - self.now > RENEW && last.not_before <= self.now) {
            Some(last) => next.development = Some(last),
            None => match development::certificate(host, self.now) {
                Ok(certificate) => next.development = Some(Arc::new(certificate)),
                Err(problem) => report.problems.push(problem),
            },
        }
        let text = "a self-signed certificate is used (--dev)";
        report.notes.push(Problem::new(Reason::SelfSigned, format_args!("host {}", quote(host)), text));
        report
    }

    fn parse(&mut self, key: &Key, secret: &Arc<Secret>) -> Result<Arc<Certificate>, Problem> {
        if let Some(parsed) = self.cache.parsed.get(key) {
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
                let refuse = |fault| Problem::new(Reason::InvalidCertificate, format_args!("Secret {key}"), fault);
                guarded(refuse, || secret::read(key, secret)).map(Arc::new)
            }
        };
        self.cache.parsed.insert(key.clone(), Parsed { secret: Arc::clone(secret), result: result.clone() });
        result
    }
}
