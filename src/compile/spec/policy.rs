//! The effective policy of a route: what the route says, then the defaults of the settings, then the defaults of the gateway,
//! and never more than the ceilings of its namespace.
//!
//! Cross-field rules are repeated here on effective values, and every field that this build does not implement is
//! refused by its name: it is a security setting, so it is never ignored in silence. Knows spec, defaults and ceilings only.

use std::time::Duration;

use crate::api::route::connection::{self as api, OnCredentialExpiry};
use crate::api::route::handshake::{MissingOrigin, Mode};
use crate::api::route::messages::CompressionMode;
use crate::api::route::{Connection, Defaults, Handshake, Messages, RouteSpec};
use crate::api::scalar;
use crate::api::status::ConditionType as Type;
use crate::compile::problem::quote;
use crate::compile::spec::authentication;
use crate::compile::spec::ceiling::{Ceiling, NamespaceCeilings};
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::header;
use crate::compile::spec::layers::{Layers, Set, pick};
use crate::compile::spec::message_limits::messages;
use crate::compile::spec::message_rate::{self, Subjects};
use crate::compile::spec::number::{count, size, time};
use crate::compile::spec::origin;
use crate::compile::spec::rate;
use crate::compile::spec::tunnel;
use crate::policy::{self, Authentication, Ceilings, Content, Heartbeat, Networks, OriginPattern, Origins, Policy};
use crate::ws::upgrade::{LARGEST_HEAD, MAX_HEAD};

/// Default: connections of a route on one replica.
pub const TOTAL: u32 = 10_000;
/// Default: pings after so long without a byte, so many unanswered.
const HEARTBEAT: Heartbeat = Heartbeat { interval: Duration::from_secs(30), missed: 2, backend: false };
/// The least that `handshake.maxHeadSize` may be set to, in bytes.
const LEAST_HEAD: usize = 1024;

/// The policy of a route. If anything was noted as a problem, the policy must not be used.
pub fn effective(
    spec: &RouteSpec,
    defaults: &Defaults,
    ceilings: &NamespaceCeilings,
    diagnostics: &mut Diagnostics,
) -> Policy {
    let handshake = Layers { route: Some(&spec.handshake), default: defaults.handshake.as_ref() };
    let connection = Layers { route: spec.connection.as_ref(), default: defaults.connection.as_ref() };
    let messages = Layers { route: spec.messages.as_ref(), default: defaults.messages.as_ref() };
    let handshake = self::handshake(&handshake, diagnostics);
    let anonymous = handshake.authentication == Authentication::Anonymous;
    let certificates = spec.tls.as_ref().is_some_and(|tls| tls.client_validation.is_some());
    let connection = self::connection(&connection, ceilings, anonymous, certificates, diagnostics);
    let nameless = handshake.authentication.methods().iter().find(|method| !method.kind.names_subjects());
    if let (true, Some(method)) = (connection.requires_subject, nameless) {
        diagnostics.invalid("spec.connection.limits.perSubject", authentication::nameless(&method.name));
    }
    let (from_client, from_backend) = self::messages(&messages, ceilings, diagnostics);
    let subjects = match nameless {
        _ if anonymous && !certificates => Subjects::None,
        Some(method) => Subjects::NotFrom(&method.name),
        None => Subjects::All,
    };
    let (client_pacing, backend_pacing) = message_rate::read(&messages, &subjects, diagnostics);
    let tunnels = tunnel::read(&messages, diagnostics);
    let audits_messages = audits(&messages, diagnostics);
    let compression = pick(&messages, |m| m.compression.as_ref());
    let compresses = compression.is_some_and(|set| set.value.mode == CompressionMode::PermessageDeflate);
    // What a host asks is not the route's to know: it is added where the route is placed on one. What ConfigMaps hold is
    // added where they are resolved.
    Policy {
        handshake,
        connection,
        from_client,
        from_backend,
        client_pacing,
        backend_pacing,
        content: Content::default(),
        tunnels,
        audits_messages,
        compresses,
        client_certificates: None,
        ceilings: Ceilings {
            sockets: ceilings.sockets.as_ref().map(|ceiling| ceiling.most),
            tickets_per_subject: ceilings.tickets_per_subject.as_ref().map(|ceiling| ceiling.most),
        },
    }
}

fn handshake(layers: &Layers<'_, Handshake>, diagnostics: &mut Diagnostics) -> policy::Handshake {
    let authentication =
        authentication::read(layers.route.and_then(|route| route.authentication.as_ref()), diagnostics);
    let networks = layers.part(|l| l.networks.as_ref());
    let networks = Networks {
        allow: self::networks(pick(&networks, |n| n.allow.as_deref()), "allow", diagnostics),
        deny: self::networks(pick(&networks, |n| n.deny.as_deref()), "deny", diagnostics),
    };
    let subprotocols = match pick(layers, |l| l.subprotocols.as_deref()) {
        None => Vec::new(),
        Some(set) => {
            let field = |index: usize| format!("{}.handshake.subprotocols[{index}]", set.layer);
            if set.value.is_empty() {
                diagnostics.invalid(
                    format_args!("{}.handshake.subprotocols", set.layer),
                    "must not be empty; remove it or list subprotocols",
                );
            }
            for (index, name) in set.value.iter().enumerate() {
                if !header::is_token(name) {
                    diagnostics.invalid(field(index), format_args!("{} is not a token (RFC 9110)", quote(name)));
                }
                if set.value.iter().take(index).any(|earlier| earlier == name) {
                    diagnostics.invalid(field(index), format_args!("{} is listed twice; remove one", quote(name)));
                }
            }
            set.value.to_vec()
        }
    };
    let response_headers =
        match pick(layers, |l| l.response_headers.as_ref().and_then(|headers| headers.set.as_deref())) {
            None => Vec::new(),
            Some(set) => header::read(set.value, set.layer, diagnostics),
        };
    let limit = pick(layers, |l| l.rate_limit.as_ref());
    let rate_limit = limit.and_then(|set| rate::of_handshakes(set.value, set.layer, diagnostics));
    let origins = origins(layers, authentication.is_ambient(), diagnostics);
    let allow = pick(layers, |l| l.request_headers.as_ref().and_then(|headers| headers.allow.as_deref()));
    let request_headers = header::allowed(allow, &authentication, diagnostics);
    let from_backend =
        pick(layers, |l| l.response_headers.as_ref().and_then(|headers| headers.from_backend.as_deref()));
    let from_backend = header::from_backend(from_backend, &response_headers, diagnostics);
    policy::Handshake {
        networks,
        origins,
        subprotocols,
        authentication,
        response_headers,
        rate_limit,
        request_headers,
        from_backend,
        max_head_size: head_size(pick(layers, |l| l.max_head_size.as_ref()), diagnostics),
    }
}

fn networks(set: Option<Set<'_, [String]>>, name: &str, diagnostics: &mut Diagnostics) -> Vec<ipnet::IpNet> {
    let Some(set) = set else { return Vec::new() };
    let mut networks = Vec::with_capacity(set.value.len());
    for (index, text) in set.value.iter().enumerate() {
        let field = format_args!("{}.handshake.networks.{name}[{index}]", set.layer).to_string();
        match text.parse::<ipnet::IpNet>() {
            Ok(ipnet::IpNet::V6(v6)) if v6.addr().to_ipv4_mapped().is_some() => {
                // Clients are judged by their IPv4 address, so this entry would never match.
                diagnostics.invalid(
                    field,
                    format_args!("{} is an IPv4 range written as IPv6; write the IPv4 range", quote(text)),
                );
            }
            Ok(network) => networks.push(network.trunc()),
            Err(_) => {
                diagnostics.invalid(field, format_args!("{} must be a range such as 203.0.113.0/24", quote(text)))
            }
        }
    }
    // An allow list of which nothing is left would allow everyone; the problem noted above keeps it from being used,
    // and an empty list that was written means what no one can want.
    if name == "allow" && set.value.is_empty() {
        diagnostics.invalid(
            format_args!("{}.handshake.networks.allow", set.layer),
            "must not be empty; remove it to allow everyone",
        );
    }
    networks
}

/// `ambient`: something authenticates that browsers attach by themselves, whichever page asks.
fn origins(layers: &Layers<'_, Handshake>, ambient: bool, diagnostics: &mut Diagnostics) -> Origins {
    let layers = layers.part(|l| l.origins.as_ref());
    let mut origins = Origins::default();
    if let Some(set) = pick(&layers, |o| o.allow.as_deref()) {
        origins.allow = origin::read(set.value, set.layer, diagnostics);
        if ambient && origins.allow.contains(&OriginPattern::Any) {
            let text = "* lets any page use the cookies of your users; list the origins";
            diagnostics.invalid(set.field("handshake.origins.allow"), text);
        }
    }
    let missing = pick(&layers, |o| o.missing.as_ref());
    origins.require = missing.as_ref().map_or(ambient, |set| *set.value == MissingOrigin::Deny);
    if let Some(set) = missing
        && ambient
        && !origins.require
    {
        let text = "Allow: a client without Origin can authenticate with a cookie";
        diagnostics.warn(Type::LimitsRelaxed, set.field("handshake.origins.missing"), text);
    }
    if let Some(set) = pick(&layers, |o| o.mode.as_ref())
        && *set.value == Mode::Audit
    {
        origins.audit = true;
        let text = "Audit: origins are logged, not enforced";
        diagnostics.warn(Type::AuditMode, set.field("handshake.origins.mode"), text);
    }
    origins
}

/// `anonymous`: no credential is asked for; `certificates`: the route's own hosts ask for client certificates.
fn connection(
    layers: &Layers<'_, Connection>,
    ceilings: &NamespaceCeilings,
    anonymous: bool,
    certificates: bool,
    diagnostics: &mut Diagnostics,
) -> policy::Connection {
    let limits = layers.part(|l| l.limits.as_ref());
    let total = total(pick(&limits, |l| l.total.as_ref()), ceilings.total.as_ref(), diagnostics);
    let per_address = pick(&limits, |l| l.per_address.as_ref());
    let per_address = most(per_address, "connection.limits.perAddress", ceilings.per_address.as_ref(), diagnostics);
    let per_subject = pick(&limits, |l| l.per_subject.as_ref());
    let subject_layer = per_subject.as_ref().map(|set| set.layer);
    let per_subject = most(per_subject, "connection.limits.perSubject", ceilings.per_subject.as_ref(), diagnostics);
    // What the defaults say holds for those connections that have a subject.
    if anonymous && !certificates && subject_layer == Some("spec") {
        diagnostics.invalid(
            "spec.connection.limits.perSubject",
            "needs an authenticated client; use mode AnyOf or tls.clientValidation, or remove it",
        );
    }
    let keep = pick(layers, |l| l.on_credential_expiry.as_ref()).filter(|set| *set.value == OnCredentialExpiry::Keep);
    if let Some(set) = &keep
        && !anonymous
    {
        let text = "Keep: connections outlive the credential that opened them";
        diagnostics.warn(Type::LimitsRelaxed, set.field("connection.onCredentialExpiry"), text);
    }
    policy::Connection {
        total,
        per_address,
        per_subject,
        requires_subject: subject_layer.is_some(),
        outlives_credential: keep.is_some(),
        heartbeat: heartbeat(&layers.part(|l| l.heartbeat.as_ref()), diagnostics),
        idle_timeout: time(pick(layers, |l| l.idle_timeout.as_ref()), "connection.idleTimeout", diagnostics),
        max_duration: time(pick(layers, |l| l.max_duration.as_ref()), "connection.maxDuration", diagnostics),
    }
}

/// Connections of the route on one replica.
fn total(set: Option<Set<'_, i32>>, ceiling: Option<&Ceiling<u32>>, diagnostics: &mut Diagnostics) -> u32 {
    const FIELD: &str = "connection.limits.total";
    let Some(set) = set else { return Ceiling::of_default(ceiling, TOTAL) };
    let field = set.field(FIELD);
    let total = most(Some(set), FIELD, ceiling, diagnostics).unwrap_or(TOTAL);
    if total > TOTAL {
        let text = format_args!("{total} is more than the default of {TOTAL}");
        diagnostics.warn(Type::LimitsRelaxed, field, text);
    }
    total
}

/// A limit of connections, and no more than its ceiling.
fn most(
    set: Option<Set<'_, i32>>,
    field: &str,
    ceiling: Option<&Ceiling<u32>>,
    diagnostics: &mut Diagnostics,
) -> Option<u32> {
    let Some(set) = set else { return ceiling.map(|ceiling| ceiling.most) };
    let number = count(Some(set), field, 10_000_000, diagnostics)?;
    Some(Ceiling::of_field(ceiling, number, set.field(field), number, diagnostics))
}

/// Pings; `None`: none are sent.
fn heartbeat(layers: &Layers<'_, api::Heartbeat>, diagnostics: &mut Diagnostics) -> Option<Heartbeat> {
    const INTERVAL: &str = "connection.heartbeat.interval";
    let missed = pick(layers, |b| b.missed.as_ref());
    let missed = count(missed, "connection.heartbeat.missed", 10, diagnostics).unwrap_or(HEARTBEAT.missed);
    let backend = pick(layers, |b| b.backend.as_ref()).map_or(HEARTBEAT.backend, |set| *set.value);
    let interval = match pick(layers, |b| b.interval.as_ref()) {
        None => Some(HEARTBEAT.interval),
        Some(set) => {
            let field = set.field(INTERVAL);
            let interval = time(Some(set), INTERVAL, diagnostics);
            if interval.is_none() {
                diagnostics.warn(Type::LimitsRelaxed, field, "0s: the gateway does not notice dead clients");
            }
            interval
        }
    };
    interval.map(|interval| Heartbeat { interval, missed, backend })
}

/// Whether messages are judged and let through.
fn audits(layers: &Layers<'_, Messages>, diagnostics: &mut Diagnostics) -> bool {
    let Some(set) = pick(layers, |m| m.mode.as_ref()).filter(|set| *set.value == Mode::Audit) else { return false };
    let text = "Audit: rates, the content of messages and tunnels are logged, not enforced";
    diagnostics.warn(Type::AuditMode, set.field("messages.mode"), text);
    true
}

/// The largest head of a request.
fn head_size(set: Option<Set<'_, scalar::Size>>, diagnostics: &mut Diagnostics) -> usize {
    const FIELD: &str = "handshake.maxHeadSize";
    let read = size(set, FIELD, (MAX_HEAD as u64, LARGEST_HEAD as u64), None, diagnostics);
    match (usize::try_from(read), set) {
        (Ok(bytes), _) if bytes >= LEAST_HEAD => bytes,
        (_, set) => {
            let field = set.map(|set| set.field(FIELD)).unwrap_or_default();
            diagnostics.invalid(field, format_args!("must be at least {LEAST_HEAD} bytes"));
            MAX_HEAD
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::ConditionReason as Reason;

    fn spec(yaml: &str) -> RouteSpec {
        serde_saphyr::from_str(&format!("hostnames: [a.test]\nrules: []\n{yaml}")).unwrap()
    }

    fn read(yaml: &str, defaults: &Defaults) -> (Policy, Diagnostics) {
        let mut diagnostics = Diagnostics::default();
        (effective(&spec(yaml), defaults, &NamespaceCeilings::default(), &mut diagnostics), diagnostics)
    }

    const OPEN: &str = "handshake: {authentication: {mode: Anonymous}}";

    #[test]
    fn what_nobody_set_has_its_default() {
        let (policy, diagnostics) = read(OPEN, &Defaults::default());
        assert_eq!(diagnostics.problems, []);
        assert_eq!(policy.handshake, policy::Handshake::default());
        assert_eq!(policy.connection.total, 10_000);
        assert_eq!((policy.connection.per_address, policy.connection.idle_timeout), (None, None));
        assert_eq!(policy.connection.heartbeat, Some(HEARTBEAT));
        assert_eq!((policy.from_client.max_size, policy.from_backend.max_size), (65_536, 16 << 20));
        assert!(policy.from_client.text && policy.from_client.binary);
        let kinds: Vec<Type> = diagnostics.warnings.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Type::Anonymous]);
    }

    #[test]
    fn the_route_wins_over_the_defaults_field_by_field() {
        let defaults = Defaults {
            connection: serde_saphyr::from_str("{limits: {total: 7, perAddress: 3}, heartbeat: {missed: 5}}").unwrap(),
            messages: serde_saphyr::from_str("{fromClient: {maxSize: 1Ki, types: [Text]}}").unwrap(),
            ..Defaults::default()
        };
        let yaml = format!("{OPEN}\nconnection: {{limits: {{total: 9}}, heartbeat: {{interval: 5s}}}}");
        let (policy, diagnostics) = read(&yaml, &defaults);
        assert_eq!(diagnostics.problems, []);
        assert_eq!((policy.connection.total, policy.connection.per_address), (9, Some(3)));
        let beat = Heartbeat { interval: Duration::from_secs(5), missed: 5, backend: false };
        assert_eq!(policy.connection.heartbeat, Some(beat));
        assert_eq!((policy.from_client.max_size, policy.from_client.binary), (1024, false));
    }

    #[test]
    fn compression_is_off_unless_the_route_or_the_defaults_ask_for_it() {
        let compresses = |mode: &str, default: &str| {
            let mode =
                if mode.is_empty() { mode.to_owned() } else { format!("messages: {{compression: {{mode: {mode}}}}}") };
            let defaults = serde_saphyr::from_str(&format!("{{compression: {{mode: {default}}}}}")).unwrap();
            let (policy, diagnostics) =
                read(&format!("{OPEN}\n{mode}"), &Defaults { messages: defaults, ..Defaults::default() });
            assert!(diagnostics.problems.is_empty(), "{:?}", diagnostics.problems);
            policy.compresses
        };
        assert!(!read(OPEN, &Defaults::default()).0.compresses);
        assert!(compresses("PermessageDeflate", "\"Off\"") && compresses("", "PermessageDeflate"));
        assert!(!compresses("\"Off\"", "PermessageDeflate"));
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        for (yaml, field) in [
            ("connection: {limits: {perSubject: 1}}", "spec.connection.limits.perSubject"),
            ("connection: {limits: {total: 0}}", "spec.connection.limits.total"),
            ("connection: {heartbeat: {missed: 11}}", "spec.connection.heartbeat.missed"),
            ("connection: {idleTimeout: 10ms}", "spec.connection.idleTimeout"),
            ("connection: {maxDuration: soon}", "spec.connection.maxDuration"),
            ("messages: {fromClient: {maxSize: 17Mi}}", "spec.messages.fromClient.maxSize"),
            ("messages: {fromBackend: {maxSize: 2Gi}}", "spec.messages.fromBackend.maxSize"),
            ("messages: {fromClient: {types: []}}", "spec.messages.fromClient.types"),
            ("messages: {fromClient: {maxFragments: 0}}", "spec.messages.fromClient.maxFragments"),
            ("messages: {fromBackend: {maxFragments: 10000001}}", "spec.messages.fromBackend.maxFragments"),
        ] {
            let (_, diagnostics) = read(&format!("{OPEN}\n{yaml}"), &Defaults::default());
            let [problem] = diagnostics.problems.as_slice() else { panic!("{yaml}: {:?}", diagnostics.problems) };
            assert!(problem.reason == Reason::Invalid && problem.field == field, "{problem}");
        }
        for (networks, text) in [
            ("{allow: []}", "must not be empty"),
            ("{allow: [nonsense]}", "\"nonsense\" must be a range"),
            ("{deny: ['::ffff:10.0.0.0/104']}", "IPv4 range written as IPv6"),
        ] {
            let yaml = format!("handshake: {{authentication: {{mode: Anonymous}}, networks: {networks}}}");
            let (_, diagnostics) = read(&yaml, &Defaults::default());
            assert!(diagnostics.problems[0].text.contains(text), "{:?}", diagnostics.problems);
        }
    }

    #[test]
    fn the_number_of_frames_follows_the_size_of_a_message_unless_it_is_set() {
        let fragments = |messages: &str| {
            let (policy, diagnostics) = read(&format!("{OPEN}\nmessages: {messages}"), &Defaults::default());
            assert_eq!(diagnostics.problems, []);
            let relaxed = diagnostics.warnings.iter().filter(|(_, p)| p.field.ends_with("maxFragments")).count();
            (policy.from_client.max_fragments, policy.from_backend.max_fragments, relaxed)
        };
        assert_eq!(fragments("{fromClient: {maxSize: 256Ki}}"), (1024, 65_536, 0));
        assert_eq!(fragments("{fromClient: {maxSize: 262145}, fromBackend: {maxSize: 1Ki}}"), (1025, 65_536, 0));
        assert_eq!(fragments("{fromClient: {maxSize: 16Mi}, fromBackend: {maxSize: 1Gi}}"), (65_536, 4_194_304, 0));
        assert_eq!(fragments("{fromClient: {maxFragments: 7}, fromBackend: {maxFragments: 65537}}"), (7, 65_537, 1));
    }

    #[test]
    fn client_certificates_name_subjects_too() {
        let limit = "connection: {limits: {perSubject: 2}}";
        let yaml = format!("{OPEN}\ntls: {{clientValidation: {{caCertificateRefs: [{{name: ca}}]}}}}\n{limit}");
        let (policy, diagnostics) = read(&yaml, &Defaults::default());
        assert_eq!((diagnostics.problems, policy.connection.per_subject), (vec![], Some(2)));
    }

    #[test]
    fn authentication_must_be_set_even_where_the_defaults_have_it() {
        let defaults = Defaults {
            handshake: serde_saphyr::from_str("{authentication: {mode: Anonymous}}").unwrap(),
            ..Defaults::default()
        };
        let (_, diagnostics) = read("handshake: {}", &defaults);
        assert_eq!(diagnostics.problems[0].field, "spec.handshake.authentication");
        assert!(diagnostics.problems[0].text.starts_with("must be set"));
    }

    #[test]
    fn what_is_weaker_than_the_default_is_shown() {
        let yaml = "handshake: {authentication: {mode: Anonymous}, origins: {allow: ['*'], mode: Audit}}
connection: {limits: {total: 10001}, heartbeat: {interval: 0s}}
messages: {mode: Audit, fromClient: {maxSize: 65537}, fromBackend: {maxSize: 17Mi}}";
        let (policy, diagnostics) = read(yaml, &Defaults::default());
        assert_eq!(diagnostics.problems, []);
        assert!(policy.handshake.origins.audit && policy.connection.heartbeat.is_none());
        let of = |kind| diagnostics.warnings.iter().filter(|(k, _)| *k == kind).count();
        assert_eq!((of(Type::AnyOrigin), of(Type::AuditMode), of(Type::LimitsRelaxed)), (1, 2, 4));
        assert!(policy.audits_messages);
    }
}
