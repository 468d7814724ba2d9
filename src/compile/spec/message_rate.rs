//! How often and how slowly messages may come, of a spec: rates by number and by bytes, and the time of a message. Knows
//! numbers and their bounds, not how they are judged.

use std::time::Duration;

use crate::api::route::Messages;
use crate::api::route::message_rate::{self as api, ByteRateLimit, RateLimit, RateScope};
use crate::api::scalar;
use crate::api::status::ConditionType as Type;
use crate::compile::spec::authentication;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::direction::Direction;
use crate::compile::spec::layers::{Layers, Set};
use crate::compile::spec::number::within;
use crate::compile::spec::rate;
use crate::policy::message_rate::{ByteRate, MESSAGE_TIMEOUT, MessageRate, OnExceeded, Pacing, Scope};

/// The shortest and the longest time of a message.
const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Which clients of a route have a subject.
pub(super) enum Subjects<'a> {
    /// All that it lets in.
    All,
    /// None: nobody is authenticated.
    None,
    /// Not those that this method lets in.
    NotFrom(&'a str),
}

/// How messages of clients and of backends may come.
pub(super) fn read(
    layers: &Layers<'_, Messages>,
    subjects: &Subjects<'_>,
    diagnostics: &mut Diagnostics,
) -> (Pacing, Pacing) {
    let client = Written { direction: Direction::from_client(layers), on_exceeded: OnExceeded::Close };
    let backend = Written { direction: Direction::from_backend(layers), on_exceeded: OnExceeded::Throttle };
    (client.pacing(subjects, diagnostics), backend.pacing(subjects, diagnostics))
}

/// What is written of one direction.
struct Written<'a> {
    direction: Direction<'a>,
    /// Default: what happens to messages beyond their number.
    on_exceeded: OnExceeded,
}

impl Written<'_> {
    fn pacing(&self, subjects: &Subjects<'_>, diagnostics: &mut Diagnostics) -> Pacing {
        Pacing {
            messages: self.direction.rate_limit.and_then(|set| self.messages(set, subjects, diagnostics)),
            bytes: self.direction.byte_rate_limit.and_then(|set| self.bytes(set, diagnostics)),
            message_timeout: self.message_timeout(diagnostics).unwrap_or(MESSAGE_TIMEOUT),
        }
    }

    fn field<T>(&self, set: Set<'_, T>, name: &str) -> String {
        set.field(&self.direction.below(name))
    }

    fn messages(
        &self,
        set: Set<'_, RateLimit>,
        subjects: &Subjects<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Option<MessageRate> {
        let (field, limit) = (self.field(set, "rateLimit"), set.value);
        let interval = rate::interval(&limit.interval, &field, diagnostics);
        let rate = rate::rate(limit.count, interval, limit.burst, &field, diagnostics);
        let scope = match limit.scope {
            RateScope::Connection => Scope::Connection,
            RateScope::Subject => Scope::Subject,
        };
        // What the defaults say holds for those connections that have a subject.
        match subjects {
            Subjects::None if scope == Scope::Subject && set.layer == "spec" => diagnostics.invalid(
                format_args!("{field}.scope"),
                "Subject needs an authenticated client; use mode AnyOf or tls.clientValidation, or scope Connection",
            ),
            Subjects::NotFrom(method) if scope == Scope::Subject => {
                diagnostics.invalid(format_args!("{field}.scope"), authentication::nameless(method));
            }
            _ => {}
        }
        let on_exceeded = limit.on_exceeded.map_or(self.on_exceeded, on_exceeded);
        Some(MessageRate { rate: rate?, scope, on_exceeded })
    }

    fn bytes(&self, set: Set<'_, ByteRateLimit>, diagnostics: &mut Diagnostics) -> Option<ByteRate> {
        let (field, limit) = (self.field(set, "byteRateLimit"), set.value);
        let number = |name: &str, value: &scalar::Size, diagnostics: &mut Diagnostics| {
            value.bytes().map_err(|error| diagnostics.invalid(format_args!("{field}.{name}"), error)).ok()
        };
        let size = number("size", &limit.size, diagnostics);
        let burst = match &limit.burst {
            None => size,
            Some(burst) => number("burst", burst, diagnostics),
        };
        if let (Some(size), Some(burst)) = (size, burst)
            && burst < size
        {
            diagnostics.invalid(format_args!("{field}.burst"), format_args!("must be at least the size, {size} bytes"));
        }
        let interval = rate::interval(&limit.interval, &field, diagnostics)?;
        let on_exceeded = limit.on_exceeded.map_or(OnExceeded::Throttle, on_exceeded);
        Some(ByteRate { size: size?, interval, burst: burst?, on_exceeded })
    }

    fn message_timeout(&self, diagnostics: &mut Diagnostics) -> Option<Duration> {
        let set = self.direction.message_timeout?;
        let field = self.field(set, "messageTimeout");
        let time = within(set.value, TIMEOUTS.0..=TIMEOUTS.1, "must be from 1s to 1h", &field, diagnostics)?;
        if time > MESSAGE_TIMEOUT {
            let text = format_args!("{} is more than the default of 30s", set.value);
            diagnostics.warn(Type::LimitsRelaxed, field, text);
        }
        Some(time)
    }
}

fn on_exceeded(written: api::OnExceeded) -> OnExceeded {
    match written {
        api::OnExceeded::Close => OnExceeded::Close,
        api::OnExceeded::Throttle => OnExceeded::Throttle,
        api::OnExceeded::Drop => OnExceeded::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route::{Defaults, RouteSpec};
    use crate::compile::spec::ceiling::NamespaceCeilings;
    use crate::compile::spec::policy::effective;
    use crate::policy::{Policy, Rate};

    const OPEN: &str = "handshake: {authentication: {mode: Anonymous}}";
    const EXTERNAL: &str = "handshake: {authentication: {mode: AnyOf, methods: [{name: judge, type: External, \
                            external: {backendRef: {name: judge, port: 80}, path: /, allowedHeaders: [cookie]}}]}}";
    const CERTIFICATES: &str = "tls: {clientValidation: {caCertificateRefs: [{name: ca}]}}";

    fn read(yaml: &str, defaults: &Defaults) -> (Policy, Diagnostics) {
        let spec: RouteSpec = serde_saphyr::from_str(&format!("hostnames: [a.test]\nrules: []\n{yaml}")).unwrap();
        let mut diagnostics = Diagnostics::default();
        (effective(&spec, defaults, &NamespaceCeilings::default(), &mut diagnostics), diagnostics)
    }

    fn problems(yaml: &str) -> Vec<String> {
        read(yaml, &Defaults::default()).1.problems.iter().map(ToString::to_string).collect()
    }

    fn rate(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate { count, interval: Duration::from_secs(seconds), burst }
    }

    #[test]
    fn nothing_is_limited_unless_somebody_says_so() {
        let (policy, _) = read(OPEN, &Defaults::default());
        assert_eq!((policy.client_pacing, policy.backend_pacing), (Pacing::default(), Pacing::default()));
        assert!(!policy.counts_subjects());
    }

    #[test]
    fn each_direction_has_its_own_default_for_what_is_too_much() {
        let limits = "{rateLimit: {count: 5, interval: 2s}, byteRateLimit: {size: 1Ki, interval: 1s, burst: 2Ki}}";
        let yaml = format!("{OPEN}\nmessages: {{fromClient: {limits}, fromBackend: {limits}}}");
        let (policy, diagnostics) = read(&yaml, &Defaults::default());
        assert_eq!(diagnostics.problems, []);
        let bytes =
            ByteRate { size: 1024, interval: Duration::from_secs(1), burst: 2048, on_exceeded: OnExceeded::Throttle };
        for (pacing, on_exceeded) in
            [(policy.client_pacing, OnExceeded::Close), (policy.backend_pacing, OnExceeded::Throttle)]
        {
            let messages = MessageRate { rate: rate(5, 2, 5), scope: Scope::Connection, on_exceeded };
            assert_eq!((pacing.messages, pacing.bytes), (Some(messages), Some(bytes)));
        }
    }

    #[test]
    fn what_is_written_wins() {
        let limits = "{messageTimeout: 5s, rateLimit: {count: 5, interval: 1s, burst: 9, scope: Subject, onExceeded: \
                      Drop}, byteRateLimit: {size: 1, interval: 1s, onExceeded: Close}}";
        let yaml = format!("{OPEN}\n{CERTIFICATES}\nmessages: {{fromClient: {limits}, fromBackend: {limits}}}");
        let (policy, diagnostics) = read(&yaml, &Defaults::default());
        assert_eq!(diagnostics.problems, []);
        assert!(policy.counts_subjects());
        for pacing in [policy.client_pacing, policy.backend_pacing] {
            assert_eq!(pacing.message_timeout, Duration::from_secs(5));
            let messages = MessageRate { rate: rate(5, 1, 9), scope: Scope::Subject, on_exceeded: OnExceeded::Drop };
            assert_eq!(pacing.messages, Some(messages));
            assert_eq!(pacing.bytes.unwrap().on_exceeded, OnExceeded::Close);
        }
    }

    #[test]
    fn values_out_of_bounds_are_named() {
        for (direction, limits, text) in [
            ("fromClient", "{rateLimit: {count: 0, interval: 1s}}", "rateLimit.count: must be from 1 to 1000000"),
            ("fromBackend", "{rateLimit: {count: 5, interval: 1s, burst: 4}}", "rateLimit.burst: must be from 5 to"),
            ("fromBackend", "{rateLimit: {count: 5, interval: 2h}}", "rateLimit.interval: must be from 1s to 1h"),
            ("fromClient", "{byteRateLimit: {size: 0, interval: 1s}}", "byteRateLimit.size: 0 is not a size"),
            (
                "fromBackend",
                "{byteRateLimit: {size: 1Ki, interval: 1s, burst: 1000}}",
                "byteRateLimit.burst: must be at least the size, 1024 bytes",
            ),
            ("fromClient", "{byteRateLimit: {size: 1, interval: soon}}", "byteRateLimit.interval: \"soon\" is not"),
            ("fromClient", "{messageTimeout: 0s}", "messageTimeout: must be from 1s to 1h"),
            ("fromBackend", "{messageTimeout: 61m}", "messageTimeout: must be from 1s to 1h"),
        ] {
            let problems = problems(&format!("{OPEN}\nmessages: {{{direction}: {limits}}}"));
            let start = format!("spec.messages.{direction}.{text}");
            assert!(problems.len() == 1 && problems[0].starts_with(&start), "{start}: {problems:?}");
        }
    }

    #[test]
    fn a_limit_of_subjects_needs_subjects() {
        let limit = "{rateLimit: {count: 1, interval: 1s, scope: Subject}}";
        for direction in ["fromClient", "fromBackend"] {
            let messages = format!("messages: {{{direction}: {limit}}}");
            let field = format!("spec.messages.{direction}.rateLimit.scope");
            let open = problems(&format!("{OPEN}\n{messages}"));
            let text = format!("{field}: Subject needs an authenticated client; use mode AnyOf");
            assert!(open.len() == 1 && open[0].starts_with(&text), "{open:?}");
            let external = problems(&format!("{EXTERNAL}\n{messages}"));
            let text = format!("{field}: needs the subject of every client; method \"judge\" must list");
            assert!(external.len() == 1 && external[0].starts_with(&text), "{external:?}");
        }
        // Who has none under a default is counted alone.
        let messages = serde_saphyr::from_str(&format!("{{fromClient: {limit}}}")).unwrap();
        let (_, diagnostics) = read(OPEN, &Defaults { messages: Some(messages), ..Defaults::default() });
        assert_eq!(diagnostics.problems, []);
    }

    #[test]
    fn the_route_wins_over_the_defaults_limit_by_limit() {
        let yaml = "{fromClient: {rateLimit: {count: 1, interval: 1s}, messageTimeout: 60s}, \
                    fromBackend: {byteRateLimit: {size: 5, interval: 1s}}}";
        let defaults = Defaults { messages: Some(serde_saphyr::from_str(yaml).unwrap()), ..Defaults::default() };
        let route = format!("{OPEN}\nmessages: {{fromClient: {{rateLimit: {{count: 2, interval: 1s}}}}}}");
        let (policy, diagnostics) = read(&route, &defaults);
        assert_eq!(diagnostics.problems, []);
        assert_eq!(policy.client_pacing.messages.unwrap().rate, rate(2, 1, 2));
        assert_eq!(policy.client_pacing.message_timeout, Duration::from_secs(60));
        assert_eq!(policy.backend_pacing.bytes.unwrap().burst, 5);
        let relaxed: Vec<_> = diagnostics.warnings.iter().filter(|(kind, _)| *kind == Type::LimitsRelaxed).collect();
        let text = "defaults.messages.fromClient.messageTimeout: 60s is more than the default of 30s";
        assert!(relaxed.len() == 1 && relaxed[0].1.to_string() == text, "{relaxed:?}");
    }
}
