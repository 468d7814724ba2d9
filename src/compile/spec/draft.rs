//! A route's own spec, read without looking at any other object: what it wants, and what is wrong with it.
//!
//! This is what "last good" keeps: a spec that does not compile is replaced by the last draft that did, while
//! everything that depends on other objects is resolved anew. Knows one spec and the class's defaults.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls_pki_types::{DnsName, ServerName};

use crate::api::certificate::CertificateIssuer;
use crate::api::objects;
use crate::api::route::reference::{ConfigMapRef, SecretRef};
use crate::api::route::rule::{
    BackendTls, ConsistentHashKind, LoadBalancer, LoadBalancerKind, PathMatchKind, Rule, WellKnownCaCertificates,
};
use crate::api::route::tls::{AlpnProtocol, ClientValidation, ClientValidationMode, Tls, TlsVersion};
use crate::api::route::{Defaults, Handshake, RouteSpec, reference};
use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
use crate::compile::ownership::host;
use crate::compile::spec::policy::{self, Notes};
use crate::compile::status::condition::{Problem, quote};
use crate::compile::tls::issuance;
use crate::compile::tls::server_config::MinVersion;
use crate::policy::OriginPattern::Any as AnyOrigin;
use crate::policy::Policy;
use crate::policy::authentication::Kind;
use crate::snapshot::{Balance, PathMatch};
use crate::ws::upgrade::check_path;

/// The longest path that can be matched.
const MAX_PATH: usize = 1024;

/// What a route wants.
#[derive(Debug)]
pub struct Draft {
    /// The hostnames that are valid.
    pub hostnames: Vec<Box<str>>,
    /// TLS of the hostnames, where the route carries it.
    pub tls: Option<TlsDraft>,
    /// The rules, as far as their paths can be read.
    pub rules: Vec<RuleDraft>,
    /// The policy of every rule; `None` where anything of the spec is wrong.
    pub policy: Option<Arc<Policy>>,
    /// What is wrong, by the order of the spec.
    pub problems: Vec<Problem>,
    /// What the user should see of a spec that is right.
    pub warnings: Vec<(Type, Problem)>,
    /// Whether the route or the defaults say what happens to a missing Origin; what is built in depends on the host.
    pub missing_origin_said: bool,
}

/// TLS of a route's hostnames.
#[derive(Debug, Clone)]
pub struct TlsDraft {
    /// Secrets; none: the default certificate.
    pub certificates: Vec<SecretRef>,
    /// Who issues the certificate of the one Secret; `None`: whoever puts it there.
    pub issuer: Option<CertificateIssuer>,
    /// The lowest version.
    pub min_version: MinVersion,
    /// What is asked of client certificates.
    pub client: Option<ClientDraft>,
}

/// Client certificates of a host.
#[derive(Debug, Clone)]
pub struct ClientDraft {
    /// Whether there must be one.
    pub required: bool,
    /// CA bundles.
    pub authorities: Vec<ConfigMapRef>,
    /// Revocation lists.
    pub revocations: Vec<ConfigMapRef>,
}

/// One rule.
#[derive(Debug)]
pub struct RuleDraft {
    /// Paths.
    pub paths: Vec<PathMatch>,
    /// Services.
    pub backends: Vec<BackendDraft>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// TLS toward the endpoints.
    pub tls: Option<BackendTlsDraft>,
}

/// One Service of a rule.
#[derive(Debug)]
pub struct BackendDraft {
    /// Namespace, if not the route's.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// Port number.
    pub port: u16,
    /// Share of new connections.
    pub weight: u32,
}

/// TLS toward the endpoints of a rule.
#[derive(Debug)]
pub struct BackendTlsDraft {
    /// The name that is verified.
    pub server_name: ServerName<'static>,
    /// CA bundles; empty: the public CAs.
    pub authorities: Vec<ConfigMapRef>,
}

impl Draft {
    /// Reads a spec. `findings` are what an API server would have refused.
    pub fn read(spec: &RouteSpec, findings: &[objects::Finding], defaults: &Defaults) -> Self {
        let mut notes = Notes::default();
        for finding in findings {
            let reason = match finding.problem {
                objects::Problem::Unknown => Reason::UnknownField,
                objects::Problem::Refused(_) => Reason::Invalid,
            };
            notes.problems.push(Problem::new(reason, finding.to_string()));
        }
        let hostnames = hostnames(&spec.hostnames, &mut notes);
        let tls = spec.tls.as_ref().map(|tls| self::tls(tls, &mut notes));
        let rules = rules(&spec.rules, &mut notes);
        let policy = policy::effective(spec, defaults, &mut notes);
        if tls.as_ref().is_some_and(|tls| tls.client.is_some()) && policy.handshake.origins.allow.contains(&AnyOrigin) {
            notes.invalid(
                "spec.handshake.origins.allow",
                "* is refused where client certificates authenticate, because any page could then use them: list the \
                 origins",
            );
        }
        for (place, method) in policy.handshake.authentication.methods().iter().enumerate() {
            let Kind::Ticket(ticket) = &method.kind else { continue };
            if !rules.iter().flat_map(|rule| &rule.paths).any(|own| own.matches(&ticket.path)) {
                let field = format_args!("spec.handshake.authentication.methods[{place}].ticket.path");
                let text = format_args!("{} is under no path of spec.rules; choose one that is", quote(&ticket.path));
                notes.invalid(field, text.to_string());
            }
        }
        let said = |handshake: &Handshake| handshake.origins.as_ref().is_some_and(|origins| origins.missing.is_some());
        let missing_origin_said = said(&spec.handshake) || defaults.handshake.as_ref().is_some_and(said);
        let policy = notes.problems.is_empty().then(|| Arc::new(policy));
        // What the API server says of a field needs no second sentence from here.
        let said: BTreeSet<&str> = findings.iter().map(|finding| finding.field.as_str()).collect();
        let mut place = 0;
        notes.problems.retain(|problem| {
            place += 1;
            place <= findings.len() || problem.message.split_once(": ").is_none_or(|(field, _)| !said.contains(field))
        });
        let (problems, warnings) = (notes.problems, notes.warnings);
        Self { hostnames, tls, rules, policy, problems, warnings, missing_origin_said }
    }
}

fn hostnames(list: &[String], notes: &mut Notes) -> Vec<Box<str>> {
    if list.is_empty() {
        notes.invalid("spec.hostnames", "is empty; name at least one host");
    }
    let mut hostnames: Vec<Box<str>> = Vec::with_capacity(list.len());
    for (place, hostname) in list.iter().enumerate() {
        match host::check(hostname) {
            Err(why) => {
                notes.invalid(format_args!("spec.hostnames[{place}]"), format_args!("{} {why}", quote(hostname)))
            }
            Ok(()) if hostnames.iter().any(|earlier| **earlier == **hostname) => {
                notes.invalid(
                    format_args!("spec.hostnames[{place}]"),
                    format_args!("{} is listed twice", quote(hostname)),
                );
            }
            Ok(()) => hostnames.push(hostname.as_str().into()),
        }
    }
    hostnames
}

fn tls(tls: &Tls, notes: &mut Notes) -> TlsDraft {
    let protocols = tls.alpn_protocols.as_deref();
    if protocols.is_some_and(<[_]>::is_empty) {
        notes.invalid("spec.tls.alpnProtocols", "is empty; remove it or list http/1.1");
    }
    for (place, protocol) in protocols.unwrap_or_default().iter().enumerate() {
        match protocol {
            AlpnProtocol::Http1 => {}
            AlpnProtocol::H2 => notes.unsupported(format_args!("spec.tls.alpnProtocols[{place}]: h2")),
        }
    }
    let certificates = tls.certificate_refs.clone().unwrap_or_default();
    for (place, certificate) in certificates.iter().enumerate() {
        group(&certificate.group, format_args!("spec.tls.certificateRefs[{place}]"), notes);
    }
    let issuer = tls.issuer_ref.as_ref().map(issuance::issuer);
    if issuer.is_some() && !matches!(certificates.as_slice(), [SecretRef { namespace: None, .. }]) {
        notes.invalid(
            "spec.tls.issuerRef",
            "writes to one Secret of the route's own namespace; give one certificateRefs entry without namespace",
        );
    }
    let min_version = match tls.min_version {
        None | Some(TlsVersion::V1_2) => MinVersion::Tls12,
        Some(TlsVersion::V1_3) => MinVersion::Tls13,
    };
    let client = tls.client_validation.as_ref().map(|validation| client(validation, notes));
    TlsDraft { certificates, issuer, min_version, client }
}

fn client(validation: &ClientValidation, notes: &mut Notes) -> ClientDraft {
    let authorities = validation.ca_certificate_refs.clone();
    let revocations = validation.crl_refs.clone().unwrap_or_default();
    if authorities.is_empty() {
        notes.invalid("spec.tls.clientValidation.caCertificateRefs", "is empty; name a ConfigMap with the key ca.crt");
    }
    for (list, name) in [(&authorities, "caCertificateRefs"), (&revocations, "crlRefs")] {
        for (place, reference) in list.iter().enumerate() {
            group(&reference.group, format_args!("spec.tls.clientValidation.{name}[{place}]"), notes);
        }
    }
    ClientDraft { required: validation.mode == ClientValidationMode::Required, authorities, revocations }
}

/// Only the core group has what routes refer to.
fn group(group: &str, field: impl std::fmt::Display, notes: &mut Notes) {
    if !group.is_empty() {
        notes.invalid(field, format_args!("group {} is not possible; leave group out", quote(group)));
    }
}

fn rules(list: &[Rule], notes: &mut Notes) -> Vec<RuleDraft> {
    if list.is_empty() {
        notes.invalid("spec.rules", "is empty; write at least one rule");
    }
    let mut names = BTreeSet::new();
    let mut paths = BTreeSet::new();
    let mut rules = Vec::with_capacity(list.len());
    for (place, rule) in list.iter().enumerate() {
        let field = format!("spec.rules[{place}]");
        if !names.insert(rule.name.as_str()) {
            notes.invalid(format_args!("{field}.name"), format_args!("{} is taken by another rule", quote(&rule.name)));
        }
        let mut of_rule = Vec::new();
        let everything = PathMatch::Prefix("/".into());
        match rule.matches.as_deref() {
            None => {
                if paths.insert(everything.clone()) {
                    of_rule.push(everything);
                } else {
                    notes.invalid(
                        format_args!("{field}.matches"),
                        "is absent, but another rule takes every path already",
                    );
                }
            }
            Some([]) => notes.invalid(format_args!("{field}.matches"), "is empty; remove it to match every path"),
            Some(matches) => {
                for (place, path) in matches.iter().map(|m| &m.path).enumerate() {
                    let field = format_args!("{field}.matches[{place}].path.value");
                    match self::path(path.kind, &path.value) {
                        Err(why) => notes.invalid(field, format_args!("{} {why}", quote(&path.value))),
                        Ok(path) if paths.insert(path.clone()) => of_rule.push(path),
                        Ok(_) => notes.invalid(field, format_args!("{} is matched twice", quote(&path.value))),
                    }
                }
            }
        }
        rules.push(RuleDraft {
            paths: of_rule,
            backends: backends(&rule.backend_refs, &field, notes),
            balance: rule.load_balancer.as_ref().map_or_else(Balance::default, |lb| balance(lb, &field, notes)),
            tls: rule.backend_tls.as_ref().and_then(|tls| backend_tls(tls, &field, notes)),
        });
    }
    rules
}

/// A path as the data plane compares it, byte for byte.
fn path(kind: PathMatchKind, value: &str) -> Result<PathMatch, &'static str> {
    if !value.starts_with('/') {
        return Err("does not start with /");
    }
    if value.len() > MAX_PATH {
        return Err("is longer than 1024 bytes");
    }
    if value.bytes().any(|b| !b.is_ascii_graphic() || b"#?%\\".contains(&b)) {
        return Err("has one of # ? % \\ or a byte that is not visible ASCII; requests with such paths are refused");
    }
    if value.contains("//") || value.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("has an empty or a dot segment; requests with such paths are refused");
    }
    if !check_path(value) {
        return Err(
            "has a semicolon or a character that no path has (RFC 3986 §3.3); requests with such paths are refused",
        );
    }
    Ok(match kind {
        PathMatchKind::Exact => PathMatch::Exact(value.into()),
        PathMatchKind::PathPrefix => match value.strip_suffix('/') {
            None | Some("") => PathMatch::Prefix(value.into()),
            Some(short) => PathMatch::Prefix(short.into()),
        },
    })
}

fn backends(list: &[reference::BackendRef], field: &str, notes: &mut Notes) -> Vec<BackendDraft> {
    if list.is_empty() {
        notes.invalid(format_args!("{field}.backendRefs"), "is empty; name at least one Service");
    }
    let mut backends = Vec::with_capacity(list.len());
    for (place, backend) in list.iter().enumerate() {
        let field = format_args!("{field}.backendRefs[{place}]");
        group(&backend.group, field, notes);
        let port = u16::try_from(backend.port).ok().filter(|port| *port > 0);
        let weight = u32::try_from(backend.weight.unwrap_or(1)).ok().filter(|weight| *weight <= 1_000_000);
        match (port, weight) {
            (Some(port), Some(weight)) => backends.push(BackendDraft {
                namespace: backend.namespace.clone(),
                name: backend.name.clone(),
                port,
                weight,
            }),
            (None, _) => {
                notes.invalid(format_args!("{field}.port"), format_args!("{} is not between 1 and 65535", backend.port))
            }
            (_, None) => notes.invalid(format_args!("{field}.weight"), "is not between 0 and 1000000"),
        }
    }
    backends
}

fn balance(balancer: &LoadBalancer, field: &str, notes: &mut Notes) -> Balance {
    let field = format_args!("{field}.loadBalancer");
    match (balancer.kind, &balancer.consistent_hash) {
        (LoadBalancerKind::LeastConnections, None) => Balance::LeastConnections,
        (LoadBalancerKind::RoundRobin, None) => Balance::RoundRobin,
        (LoadBalancerKind::ConsistentHash, Some(hash)) => {
            match hash.kind {
                ConsistentHashKind::SourceIp if hash.name.is_some() => {
                    notes
                        .invalid(format_args!("{field}.consistentHash.name"), "has no meaning for SourceIP; remove it");
                }
                ConsistentHashKind::SourceIp => {}
                kind => notes.unsupported(format_args!("{field}.consistentHash.type: {kind:?}")),
            }
            Balance::SourceIp
        }
        _ => {
            notes
                .invalid(format_args!("{field}.consistentHash"), "belongs to type ConsistentHash; set both or neither");
            Balance::default()
        }
    }
}

fn backend_tls(tls: &BackendTls, field: &str, notes: &mut Notes) -> Option<BackendTlsDraft> {
    let field = format_args!("{field}.backendTLS");
    let authorities = tls.ca_certificate_refs.clone().unwrap_or_default();
    for (place, authority) in authorities.iter().enumerate() {
        group(&authority.group, format_args!("{field}.caCertificateRefs[{place}]"), notes);
    }
    if authorities.is_empty() != matches!(tls.well_known_ca_certificates, Some(WellKnownCaCertificates::System)) {
        notes.invalid(field, "needs either caCertificateRefs or wellKnownCACertificates: System");
    }
    let name = host::check(&tls.hostname)
        .ok()
        .filter(|()| !tls.hostname.starts_with('*'))
        .and_then(|()| DnsName::try_from(tls.hostname.clone()).ok());
    match name {
        Some(name) => Some(BackendTlsDraft { server_name: ServerName::DnsName(name), authorities }),
        None => {
            let text = format_args!("{} is not one lower-case DNS name", quote(&tls.hostname)).to_string();
            notes.invalid(format_args!("{field}.hostname"), text);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Draft {
        let spec =
            serde_saphyr::from_str(&format!("handshake: {{authentication: {{mode: Anonymous}}}}\n{yaml}")).unwrap();
        Draft::read(&spec, &[], &Defaults::default())
    }

    fn rule(rest: &str) -> Draft {
        read(&format!("hostnames: [a.test]\nrules: [{{name: r, backendRefs: [{{name: s, port: 80}}], {rest}}}]"))
    }

    #[test]
    fn a_small_spec_is_read_with_what_is_built_in() {
        let draft = rule("");
        assert_eq!(draft.problems, []);
        assert_eq!(draft.rules[0].paths, [PathMatch::Prefix("/".into())]);
        assert_eq!((draft.rules[0].backends[0].port, draft.rules[0].backends[0].weight), (80, 1));
        assert_eq!(draft.rules[0].balance, Balance::LeastConnections);
        assert!(draft.policy.is_some());
    }

    #[test]
    fn a_prefix_loses_its_trailing_slash_and_an_exact_path_keeps_it() {
        assert_eq!(path(PathMatchKind::PathPrefix, "/chat/"), Ok(PathMatch::Prefix("/chat".into())));
        assert_eq!(path(PathMatchKind::PathPrefix, "/"), Ok(PathMatch::Prefix("/".into())));
        assert_eq!(path(PathMatchKind::Exact, "/chat/"), Ok(PathMatch::Exact("/chat/".into())));
        let long = format!("/{}", "x".repeat(1024));
        for bad in [
            "", "chat", "/a//b", "/a/./b", "/a/..", "/.", "/a?b", "/a#b", "/%61", "/a b", "/ä", "/a\\b", "/a;b",
            "/a[b]", &long,
        ] {
            assert!(path(PathMatchKind::Exact, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_mistake_is_named_by_its_field() {
        for (yaml, expected) in [
            ("matches: []", "spec.rules[0].matches: is empty"),
            (
                "matches: [{path: {value: /a}}, {path: {value: /a/}}]",
                "spec.rules[0].matches[1].path.value: \"/a/\" is matched twice",
            ),
            ("matches: [{path: {value: a}}]", "spec.rules[0].matches[0].path.value: \"a\" does not start with /"),
            ("loadBalancer: {type: ConsistentHash}", "spec.rules[0].loadBalancer.consistentHash: belongs to"),
            (
                "loadBalancer: {type: ConsistentHash, consistentHash: {type: Cookie, name: a}}",
                "spec.rules[0].loadBalancer.consistentHash.type: Cookie: not supported",
            ),
            ("backendTLS: {hostname: a.test}", "spec.rules[0].backendTLS: needs either"),
            (
                "backendTLS: {hostname: '*.a.test', wellKnownCACertificates: System}",
                "spec.rules[0].backendTLS.hostname: \"*.a.test\" is not one",
            ),
            (
                "backendTLS: {hostname: 10.0.0.1, wellKnownCACertificates: System}",
                "spec.rules[0].backendTLS.hostname: \"10.0.0.1\" is not one",
            ),
        ] {
            let draft = rule(yaml);
            assert_eq!(draft.problems.len(), 1, "{yaml}: {:?}", draft.problems);
            assert!(draft.problems[0].message.starts_with(expected), "{}", draft.problems[0].message);
            assert!(draft.policy.is_none());
        }
        for (yaml, expected) in [
            ("hostnames: []\nrules: []", "spec.hostnames: is empty"),
            ("hostnames: [A.test]\nrules: []", "spec.hostnames[0]: \"A.test\""),
            ("hostnames: [a.test, a.test]\nrules: []", "spec.hostnames[1]: \"a.test\" is listed twice"),
            ("hostnames: [a.test]\nrules: []", "spec.rules: is empty"),
            ("hostnames: [a.test]\nrules: []\ntls: {issuerRef: {name: x}}", "spec.tls.issuerRef: writes to one Secret"),
            (
                "hostnames: [a.test]\nrules: []\ntls: {clientValidation: {caCertificateRefs: []}}",
                "spec.tls.clientValidation.caCertificateRefs: is empty",
            ),
            (
                "hostnames: [a.test]\nrules: []\ntls: {alpnProtocols: [http/1.1, h2]}",
                "spec.tls.alpnProtocols[1]: h2: not supported",
            ),
            (
                "hostnames: [a.test]\nrules: [{name: r, backendRefs: [{name: s, port: 0}]}]",
                "spec.rules[0].backendRefs[0].port: 0 is not between",
            ),
            (
                "hostnames: [a.test]\nrules: [{name: r, backendRefs: [{name: s, port: 1, weight: -1}]}]",
                "spec.rules[0].backendRefs[0].weight",
            ),
            ("hostnames: [a.test]\nrules: [{name: r, backendRefs: []}]", "spec.rules[0].backendRefs: is empty"),
        ] {
            let problems = read(yaml).problems;
            assert!(problems.iter().any(|problem| problem.message.starts_with(expected)), "{yaml}: {problems:?}");
        }
    }

    #[test]
    fn what_the_api_server_would_have_refused_is_not_accepted() {
        let spec = serde_saphyr::from_str(
            "{hostnames: [a.test], rules: [{name: r, backendRefs: [{name: s, port: 80}]}],
              handshake: {authentication: {mode: Anonymous}}}",
        )
        .unwrap();
        let finding = objects::Finding { field: "spec.handshak".into(), problem: objects::Problem::Unknown };
        let draft = Draft::read(&spec, &[finding], &Defaults::default());
        assert_eq!(draft.problems[0].reason, Reason::UnknownField);
        assert!(draft.problems[0].message.starts_with("spec.handshak: unknown field") && draft.policy.is_none());
    }
}
