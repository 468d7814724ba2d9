//! ACME HTTP-01 (RFC 8555 §8.3): which challenges the plain port answers, and which Service has the answer.
//!
//! cert-manager asks for a path by an Ingress. Anyone who answers a challenge for a name gets certificates for it, so an
//! Ingress counts only in the namespace that owns the name by a route, and can open nothing but the path of one token.
//! Knows Ingresses, and who owns a hostname; not what tokens mean.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress};

use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::options::Options;
use crate::compile::ownership::class::{self, Class};
use crate::compile::ownership::host::Ownership;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::rule::Resolver;
use crate::compile::spec::hostname;
use crate::snapshot::BackendId;

/// The label of Ingresses that answer challenges, with the value `true`.
const LABEL: &str = "acme.cert-manager.io/http01-solver";
/// Where Ingresses named their class before `spec.ingressClassName`; cert-manager still can.
const CLASS: &str = "kubernetes.io/ingress.class";
/// What the path of every challenge begins with.
const FOLDER: &str = "/.well-known/acme-challenge/";
/// The longest token; those of known CAs have 43 characters.
const MAX_TOKEN: usize = 255;

/// Solvers by exact host and whole path.
pub type Challenges = BTreeMap<Box<str>, BTreeMap<Box<str>, BackendId>>;

/// Every challenge that is answered; and by object the problem of those that are not.
pub fn collect(
    objects: &Objects,
    options: &Options,
    ownership: &Ownership<'_>,
    resolver: &mut Resolver<'_>,
) -> (Challenges, BTreeMap<String, String>) {
    let mut challenges = Challenges::new();
    let mut remarks = BTreeMap::new();
    for (key, ingress) in objects.ingresses.iter().filter(|(_, ingress)| is_solver(ingress)) {
        let problems = match class::named(class_name(ingress), objects, options) {
            Class::Foreign => continue,
            Class::Lost(problem) => vec![problem],
            Class::Ours => read(key, ingress, ownership, resolver, &mut challenges),
        };
        let text = match problems.as_slice() {
            [] => continue,
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
        };
        remarks.insert(format!("Ingress {key}"), text);
    }
    (challenges, remarks)
}

fn is_solver(ingress: &Ingress) -> bool {
    let labels = ingress.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(LABEL)).is_some_and(|value| value == "true")
}

fn class_name(ingress: &Ingress) -> Option<&str> {
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    field.or_else(|| ingress.metadata.annotations.as_ref()?.get(CLASS).map(String::as_str))
}

/// Adds the challenges of one Ingress; returns the problems of those that are not answered.
fn read(
    key: &Key,
    ingress: &Ingress,
    ownership: &Ownership<'_>,
    resolver: &mut Resolver<'_>,
    challenges: &mut Challenges,
) -> Vec<Problem> {
    let rules = ingress.spec.as_ref().and_then(|spec| spec.rules.as_deref()).unwrap_or_default();
    let mut problems = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        let host = rule.host.as_deref().unwrap_or_default();
        if let Err(text) = permitted(host, &key.namespace, ownership) {
            problems.push(Problem::new(Reason::HostnameNotPermitted, format_args!("{field}.host"), text));
            continue;
        }
        let paths = rule.http.as_ref().map_or(&[][..], |http| &http.paths);
        for (index, path) in paths.iter().enumerate() {
            let field = format!("{field}.http.paths[{index}]");
            match challenge(&field, key, path, resolver) {
                Ok((path, solver)) => {
                    // The first by name, should two Ingresses ask for one token.
                    if let Entry::Vacant(free) = challenges.entry(host.into()).or_default().entry(path.into()) {
                        free.insert(solver);
                    }
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    problems
}

/// Whether a namespace may prove that it owns a name: a route of it has the name, or the wildcard that serves it.
fn permitted(host: &str, namespace: &str, ownership: &Ownership<'_>) -> Result<(), String> {
    if host.starts_with('*') || hostname::check(host).is_err() {
        return Err(format!("{} must be one lower-case DNS name; a challenge has an exact host", quote(host)));
    }
    // As at look-up: the exact name counts, whatever there is for the wildcard.
    let found = ownership.hosts.get(host).or_else(|| {
        let (_, rest) = host.split_once('.').filter(|_| !ownership.reserved.contains(host))?;
        ownership.hosts.get(format!("*.{rest}").as_str())
    });
    let route = found.and_then(|found| found.routes.first());
    if route.is_some_and(|route| *route.namespace == *namespace) {
        return Ok(());
    }
    // Whether another namespace owns it stays untold.
    Err(format!(
        "no route of namespace {} has the hostname {}, so the challenge is not answered; create the route first",
        quote(namespace),
        quote(host)
    ))
}

/// The path of one challenge and its solver.
fn challenge<'a>(
    field: &str,
    key: &Key,
    path: &'a HTTPIngressPath,
    resolver: &mut Resolver<'_>,
) -> Result<(&'a str, BackendId), Problem> {
    let text = path.path.as_deref().unwrap_or_default();
    if !text.strip_prefix(FOLDER).is_some_and(is_token) {
        let text = format_args!("{} must be {FOLDER} and a token; nothing else is proxied", quote(text));
        return Err(Problem::new(Reason::Invalid, format_args!("{field}.path"), text));
    }
    let service = path.backend.service.as_ref();
    let port = service.and_then(|service| service.port.as_ref()?.number).and_then(|port| u16::try_from(port).ok());
    let (Some(service), Some(port)) = (service, port) else {
        let text = "must name a Service and the number of its port";
        return Err(Problem::new(Reason::Invalid, format_args!("{field}.backend"), text));
    };
    let solver = Key::new(key.namespace.as_str(), service.name.as_str());
    let solver = resolver.plain(format_args!("{field}.backend.service"), &solver, port);
    Ok((text, solver?))
}

/// Characters of base64url without padding (RFC 8555 §8.3).
fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_base64url_and_nothing_that_could_be_another_path() {
        for good in ["a", "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAxDfowyjxAjEuX0", "-_"] {
            assert!(is_token(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../x", "a%2e", "a?b", "a#b", "a b", "a.b", "ä", "a\r\n", &"x".repeat(256)] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
