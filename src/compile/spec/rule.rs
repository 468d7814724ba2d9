//! `rules` of a spec: paths, Services by name, how an endpoint is chosen. Knows one spec; whether what it names is there
//! is for others to find out.

use std::collections::BTreeSet;

use rustls_pki_types::{DnsName, ServerName};

use crate::api::route::reference;
use crate::api::route::reference::ConfigMapRef;
use crate::api::route::rule::{
    self as api, BackendTls, ConsistentHashKind, LoadBalancer, LoadBalancerKind, PathMatchKind, Rule,
    WellKnownCaCertificates,
};
use crate::api::scalar::Duration;
use crate::compile::problem::quote;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::hostname;
use crate::compile::spec::number::within;
use crate::snapshot::{Balance, PathMatch, Timeouts};
use crate::ws::upgrade::{check_path, readings};

/// The longest path that can be matched.
const MAX_PATH: usize = 1024;

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
    /// How long an endpoint may take.
    pub timeouts: Timeouts,
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

/// Reads `spec.rules`.
pub fn read(list: &[Rule], diagnostics: &mut Diagnostics) -> Vec<RuleDraft> {
    if list.is_empty() {
        diagnostics.invalid("spec.rules", "must have at least one rule");
    }
    let mut names = BTreeSet::new();
    let mut paths = BTreeSet::new();
    let mut rules = Vec::with_capacity(list.len());
    for (index, rule) in list.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        if !names.insert(rule.name.as_str()) {
            diagnostics.invalid(
                format_args!("{field}.name"),
                format_args!("{} is already the name of another rule", quote(&rule.name)),
            );
        }
        let mut of_rule = Vec::new();
        let everything = PathMatch::Prefix("/".into());
        match rule.matches.as_deref() {
            None => {
                if paths.insert(everything.clone()) {
                    of_rule.push(everything);
                } else {
                    diagnostics.invalid(
                        format_args!("{field}.matches"),
                        "must be set, because another rule already matches every path",
                    );
                }
            }
            Some([]) => {
                diagnostics.invalid(format_args!("{field}.matches"), "must not be empty; remove it to match every path")
            }
            Some(matches) => {
                for (index, path) in matches.iter().map(|m| &m.path).enumerate() {
                    let field = format_args!("{field}.matches[{index}].path.value");
                    match self::path(path.kind, &path.value) {
                        Err(why) => diagnostics.invalid(field, format_args!("{} {why}", quote(&path.value))),
                        Ok(path) if paths.insert(path.clone()) => of_rule.push(path),
                        Ok(_) => diagnostics
                            .invalid(field, format_args!("{} is matched twice; remove one", quote(&path.value))),
                    }
                }
            }
        }
        rules.push(RuleDraft {
            paths: of_rule,
            backends: backends(&rule.backend_refs, &field, diagnostics),
            balance: rule.load_balancer.as_ref().map_or_else(Balance::default, |lb| balance(lb, &field, diagnostics)),
            tls: rule.backend_tls.as_ref().and_then(|tls| backend_tls(tls, &field, diagnostics)),
            timeouts: timeouts(rule.timeouts.as_ref(), &field, diagnostics),
        });
    }
    rules
}

/// A path as the data plane compares it, byte for byte.
fn path(kind: PathMatchKind, value: &str) -> Result<PathMatch, &'static str> {
    if !value.starts_with('/') {
        return Err("must start with /");
    }
    if value.len() > MAX_PATH {
        return Err("must have at most 1024 bytes");
    }
    if value.bytes().any(|b| !b.is_ascii_graphic() || b"#?%\\".contains(&b)) {
        return Err(
            "must not contain #, ?, %, \\ or anything but visible ASCII; the gateway refuses requests with such paths",
        );
    }
    if value.contains("//") || value.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("must not have an empty or a dot segment; servers read such paths in different ways");
    }
    if !check_path(value) || !readings::is_plain(value) {
        return Err(
            "must not contain a semicolon, which servers read in different ways, or a character that a path cannot have \
             (RFC 3986 §3.3)",
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

fn backends(list: &[reference::BackendRef], field: &str, diagnostics: &mut Diagnostics) -> Vec<BackendDraft> {
    if list.is_empty() {
        diagnostics.invalid(format_args!("{field}.backendRefs"), "must name at least one Service");
    }
    let mut backends = Vec::with_capacity(list.len());
    for (index, backend) in list.iter().enumerate() {
        let field = format_args!("{field}.backendRefs[{index}]");
        diagnostics.core_group(&backend.group, field);
        let port = u16::try_from(backend.port).ok().filter(|port| *port > 0);
        let weight = u32::try_from(backend.weight.unwrap_or(1)).ok().filter(|weight| *weight <= 1_000_000);
        match (port, weight) {
            (Some(port), Some(weight)) => backends.push(BackendDraft {
                namespace: backend.namespace.clone(),
                name: backend.name.clone(),
                port,
                weight,
            }),
            (None, _) => diagnostics.invalid(format_args!("{field}.port"), "must be from 1 to 65535"),
            (_, None) => diagnostics.invalid(format_args!("{field}.weight"), "must be from 0 to 1000000"),
        }
    }
    backends
}

fn balance(balancer: &LoadBalancer, field: &str, diagnostics: &mut Diagnostics) -> Balance {
    let field = format_args!("{field}.loadBalancer");
    match (balancer.kind, &balancer.consistent_hash) {
        (LoadBalancerKind::LeastConnections, None) => Balance::LeastConnections,
        (LoadBalancerKind::RoundRobin, None) => Balance::RoundRobin,
        (LoadBalancerKind::ConsistentHash, Some(hash)) => {
            match hash.kind {
                ConsistentHashKind::SourceIp if hash.name.is_some() => {
                    diagnostics.invalid(
                        format_args!("{field}.consistentHash.name"),
                        "cannot be set for type SourceIP; remove it",
                    );
                }
                ConsistentHashKind::SourceIp => {}
                kind => {
                    diagnostics.unsupported_value(format_args!("{field}.consistentHash.type"), format_args!("{kind:?}"))
                }
            }
            Balance::SourceIp
        }
        _ => {
            diagnostics.invalid(
                format_args!("{field}.consistentHash"),
                "must be set for type ConsistentHash and for no other type",
            );
            Balance::default()
        }
    }
}

fn timeouts(set: Option<&api::Timeouts>, field: &str, diagnostics: &mut Diagnostics) -> Timeouts {
    let (default, least, most) = (Timeouts::default(), Timeouts::SHORTEST, Timeouts::LONGEST);
    let mut read = |name: &str, text: Option<&Duration>, default, (least, most)| {
        let field = format_args!("{field}.timeouts.{name}");
        text.and_then(|text| within(text, least..=most, "must be from 100ms to 60s", field, diagnostics))
            .unwrap_or(default)
    };
    let connect = set.and_then(|set| set.connect.as_ref());
    let upgrade = set.and_then(|set| set.upgrade.as_ref());
    Timeouts {
        connect: read("connect", connect, default.connect, (least.connect, most.connect)),
        upgrade: read("upgrade", upgrade, default.upgrade, (least.upgrade, most.upgrade)),
    }
}

fn backend_tls(tls: &BackendTls, field: &str, diagnostics: &mut Diagnostics) -> Option<BackendTlsDraft> {
    let field = format_args!("{field}.backendTLS");
    let authorities = tls.ca_certificate_refs.clone().unwrap_or_default();
    for (index, authority) in authorities.iter().enumerate() {
        diagnostics.core_group(&authority.group, format_args!("{field}.caCertificateRefs[{index}]"));
    }
    if authorities.is_empty() != matches!(tls.well_known_ca_certificates, Some(WellKnownCaCertificates::System)) {
        diagnostics.invalid(field, "must have either caCertificateRefs or wellKnownCACertificates: System");
    }
    let name = hostname::check(&tls.hostname)
        .ok()
        .filter(|()| !tls.hostname.starts_with('*'))
        .and_then(|()| DnsName::try_from(tls.hostname.clone()).ok());
    match name {
        Some(name) => Some(BackendTlsDraft { server_name: ServerName::DnsName(name), authorities }),
        None => {
            let text = format_args!("{} must be one lower-case DNS name", quote(&tls.hostname));
            diagnostics.invalid(format_args!("{field}.hostname"), text);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
