//! A route's own spec, read without looking at any other object: what it wants, and what is wrong with it.
//!
//! This is what "last good" keeps: a spec that does not compile is replaced by the last draft that did, while
//! everything that depends on other objects is resolved anew. Knows one spec and the class's defaults.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::route::{Defaults, Handshake, RouteSpec};
use crate::api::status::ConditionType as Type;
use crate::api::violation::SchemaViolation;
use crate::compile::problem::{Problem, quote};
use crate::compile::spec::ceiling::NamespaceCeilings;
use crate::compile::spec::content::{self, ContentDraft};
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::layers::Layers;
use crate::compile::spec::rule::{self, RuleDraft};
use crate::compile::spec::tls::{self, TlsDraft};
use crate::compile::spec::{hostname, policy};
use crate::policy::OriginPattern::Any as AnyOrigin;
use crate::policy::Policy;
use crate::policy::authentication::Kind;

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
    /// What is said of the content of messages.
    pub content: ContentDraft,
    /// What is wrong, by the order of the spec.
    pub problems: Vec<Problem>,
    /// What the user should see of a spec that is right.
    pub warnings: Vec<(Type, Problem)>,
    /// Whether the route or the settings' defaults set what happens to a missing Origin; the gateway's own default depends
    /// on the host.
    pub missing_origin_set: bool,
}

impl Draft {
    /// Reads a spec. `violations` are what an API server would have refused, `ceilings` those of its namespace.
    pub fn read(
        spec: &RouteSpec,
        violations: &[SchemaViolation],
        defaults: &Defaults,
        ceilings: &NamespaceCeilings,
    ) -> Self {
        let mut diagnostics = Diagnostics::default();
        violations.iter().for_each(|violation| diagnostics.violation(violation));
        let hostnames = hostnames(&spec.hostnames, &mut diagnostics);
        let tls = spec.tls.as_ref().map(|tls| tls::read(tls, &mut diagnostics));
        let rules = rule::read(&spec.rules, &mut diagnostics);
        let policy = policy::effective(spec, defaults, ceilings, &mut diagnostics);
        let messages = Layers { route: spec.messages.as_ref(), default: defaults.messages.as_ref() };
        let content = content::read(&messages, &mut diagnostics);
        if tls.as_ref().is_some_and(|tls| tls.client.is_some()) && policy.handshake.origins.allow.contains(&AnyOrigin) {
            diagnostics.invalid(
                "spec.handshake.origins.allow",
                "* cannot be used with client certificates, because any page could then use them; list the origins",
            );
        }
        for (index, method) in policy.handshake.authentication.methods().iter().enumerate() {
            let Kind::Ticket(ticket) = &method.kind else { continue };
            if !rules.iter().flat_map(|rule| &rule.paths).any(|own| own.matches(&ticket.path)) {
                let field = format_args!("spec.handshake.authentication.methods[{index}].ticket.path");
                let text = format_args!("{} must be under a path of spec.rules", quote(&ticket.path));
                diagnostics.invalid(field, text);
            }
        }
        let sets = |handshake: &Handshake| handshake.origins.as_ref().is_some_and(|origins| origins.missing.is_some());
        let missing_origin_set = sets(&spec.handshake) || defaults.handshake.as_ref().is_some_and(sets);
        let policy = diagnostics.problems.is_empty().then(|| Arc::new(policy));
        let Diagnostics { mut problems, warnings } = diagnostics;
        // What the API server says of a field needs no second sentence from here.
        let own = problems.split_off(violations.len());
        let refused: BTreeSet<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        problems.extend(own.into_iter().filter(|problem| !refused.contains(problem.field.as_str())));
        Self { hostnames, tls, rules, policy, content, problems, warnings, missing_origin_set }
    }
}

fn hostnames(list: &[String], diagnostics: &mut Diagnostics) -> Vec<Box<str>> {
    if list.is_empty() {
        diagnostics.invalid("spec.hostnames", "must name at least one host");
    }
    let mut hostnames: Vec<Box<str>> = Vec::with_capacity(list.len());
    for (index, hostname) in list.iter().enumerate() {
        match hostname::check(hostname) {
            Err(why) => {
                diagnostics.invalid(format_args!("spec.hostnames[{index}]"), format_args!("{} {why}", quote(hostname)))
            }
            Ok(()) if hostnames.iter().any(|earlier| **earlier == **hostname) => {
                diagnostics.invalid(
                    format_args!("spec.hostnames[{index}]"),
                    format_args!("{} is listed twice; remove one", quote(hostname)),
                );
            }
            Ok(()) => hostnames.push(hostname.as_str().into()),
        }
    }
    hostnames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::ConditionReason as Reason;
    use crate::api::violation::Violation;
    use crate::snapshot::{Balance, PathMatch};

    fn read(yaml: &str) -> Draft {
        let spec =
            serde_saphyr::from_str(&format!("handshake: {{authentication: {{mode: Anonymous}}}}\n{yaml}")).unwrap();
        Draft::read(&spec, &[], &Defaults::default(), &NamespaceCeilings::default())
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
    fn every_mistake_is_named_by_its_field() {
        for (yaml, expected) in [
            ("matches: []", "spec.rules[0].matches: must not be empty"),
            (
                "matches: [{path: {value: /a}}, {path: {value: /a/}}]",
                "spec.rules[0].matches[1].path.value: \"/a/\" is matched twice",
            ),
            ("matches: [{path: {value: a}}]", "spec.rules[0].matches[0].path.value: \"a\" must start with /"),
            ("loadBalancer: {type: ConsistentHash}", "spec.rules[0].loadBalancer.consistentHash: must be set for"),
            (
                "loadBalancer: {type: ConsistentHash, consistentHash: {type: Cookie, name: a}}",
                "spec.rules[0].loadBalancer.consistentHash.type: Cookie is not supported",
            ),
            ("backendTLS: {hostname: a.test}", "spec.rules[0].backendTLS: must have either"),
            (
                "backendTLS: {hostname: '*.a.test', wellKnownCACertificates: System}",
                "spec.rules[0].backendTLS.hostname: \"*.a.test\" must be one",
            ),
            (
                "backendTLS: {hostname: 10.0.0.1, wellKnownCACertificates: System}",
                "spec.rules[0].backendTLS.hostname: \"10.0.0.1\" must be one",
            ),
        ] {
            let draft = rule(yaml);
            assert_eq!(draft.problems.len(), 1, "{yaml}: {:?}", draft.problems);
            assert!(draft.problems[0].to_string().starts_with(expected), "{}", draft.problems[0]);
            assert!(draft.policy.is_none());
        }
        for (yaml, expected) in [
            ("hostnames: []\nrules: []", "spec.hostnames: must name at least one host"),
            ("hostnames: [A.test]\nrules: []", "spec.hostnames[0]: \"A.test\""),
            ("hostnames: [a.test, a.test]\nrules: []", "spec.hostnames[1]: \"a.test\" is listed twice"),
            ("hostnames: [a.test]\nrules: []", "spec.rules: must have at least one rule"),
            (
                "hostnames: [a.test]\nrules: []\ntls: {issuerRef: {name: x}}",
                "spec.tls.issuerRef: needs exactly one certificateRefs entry",
            ),
            (
                "hostnames: [a.test]\nrules: []\ntls: {clientValidation: {caCertificateRefs: []}}",
                "spec.tls.clientValidation.caCertificateRefs: must name a ConfigMap",
            ),
            (
                "hostnames: [a.test]\nrules: []\ntls: {alpnProtocols: [http/1.1, h2]}",
                "spec.tls.alpnProtocols[1]: h2 is not supported",
            ),
            (
                "hostnames: [a.test]\nrules: [{name: r, backendRefs: [{name: s, port: 0}]}]",
                "spec.rules[0].backendRefs[0].port: must be from 1 to 65535",
            ),
            (
                "hostnames: [a.test]\nrules: [{name: r, backendRefs: [{name: s, port: 1, weight: -1}]}]",
                "spec.rules[0].backendRefs[0].weight",
            ),
            (
                "hostnames: [a.test]\nrules: [{name: r, backendRefs: []}]",
                "spec.rules[0].backendRefs: must name at least one Service",
            ),
        ] {
            let problems = read(yaml).problems;
            assert!(problems.iter().any(|problem| problem.to_string().starts_with(expected)), "{yaml}: {problems:?}");
        }
    }

    #[test]
    fn what_the_api_server_would_have_refused_is_not_accepted() {
        let spec = serde_saphyr::from_str(
            "{hostnames: [a.test], rules: [{name: r, backendRefs: [{name: s, port: 80}]}],
              handshake: {authentication: {mode: Anonymous}}}",
        )
        .unwrap();
        let violation = SchemaViolation { field: "spec.handshak".into(), kind: Violation::UnknownField };
        let draft = Draft::read(&spec, &[violation], &Defaults::default(), &NamespaceCeilings::default());
        assert_eq!(draft.problems[0].reason, Reason::UnknownField);
        assert_eq!(draft.problems[0].field, "spec.handshak");
        assert!(draft.problems[0].text.starts_with("unknown field") && draft.policy.is_none());
    }
}
