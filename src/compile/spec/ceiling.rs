//! Ceilings of one namespace: what a route has is never more, whatever it sets. Knows numbers and for whom the settings set
//! them; not how they were found.

use std::fmt::{self, Display};

use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
use crate::compile::problem::Problem;
use crate::compile::spec::diagnostics::Diagnostics;

/// For whom the settings set a ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// For the namespace by its name.
    Namespace(String),
    /// For namespaces with these labels, such as `tier=free`.
    Labels(String),
    /// For all.
    All,
}

impl Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Labels(labels) => write!(f, "namespaces with {labels}"),
            Self::All => f.write_str("every namespace"),
        }
    }
}

/// The most that may be had of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling<T> {
    /// The most.
    pub most: T,
    /// For whom it is set.
    pub scope: Scope,
}

/// The ceilings that hold for one namespace; `None`: there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceCeilings {
    /// Of connections of one route on one replica.
    pub total: Option<Ceiling<u32>>,
    /// Of connections of one client address to one route on one replica.
    pub per_address: Option<Ceiling<u32>>,
    /// Of connections of one subject to one route.
    pub per_subject: Option<Ceiling<u32>>,
    /// Of outstanding tickets of one subject of one route.
    pub tickets_per_subject: Option<Ceiling<u32>>,
    /// Of connections of all routes together on one replica.
    pub sockets: Option<Ceiling<u32>>,
    /// Of routes.
    pub routes: Option<Ceiling<u32>>,
    /// Of hostnames.
    pub hostnames: Option<Ceiling<u32>>,
    /// Of key sets.
    pub key_sets: Option<Ceiling<u32>>,
    /// Of the largest message of a client, in bytes.
    pub client_size: Option<Ceiling<u64>>,
    /// Of the largest message of a backend, in bytes.
    pub backend_size: Option<Ceiling<u64>>,
}

impl NamespaceCeilings {
    /// Whether any of them is one of a number of objects.
    pub fn counts_objects(&self) -> bool {
        self.routes.is_some() || self.hostnames.is_some() || self.key_sets.is_some()
    }
}

impl<T: Ord + Copy + Display> Ceiling<T> {
    /// A value that nobody wrote, or what is left of it.
    pub(super) fn of_default(ceiling: Option<&Self>, value: T) -> T {
        ceiling.map_or(value, |ceiling| value.min(ceiling.most))
    }

    /// A value that `field` sets, written as `text`, or what is left of it; then a warning says so.
    pub(super) fn of_field(
        ceiling: Option<&Self>,
        value: T,
        field: impl Display,
        text: impl Display,
        diagnostics: &mut Diagnostics,
    ) -> T {
        let Some(Self { most, scope }) = ceiling.filter(|ceiling| ceiling.most < value) else { return value };
        let text =
            format_args!("{text} is more than the ceiling of {scope}, {most}, which the settings set; {most} holds");
        let problem = Problem::new(Reason::AboveCeiling, field, text);
        diagnostics.warnings.push((Type::CeilingApplied, problem));
        *most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route::{Defaults, RouteSpec};
    use crate::compile::spec::policy::effective;
    use crate::policy::Policy;

    fn all<T>(most: T) -> Option<Ceiling<T>> {
        Some(Ceiling { most, scope: Scope::All })
    }

    fn ceilings() -> NamespaceCeilings {
        NamespaceCeilings {
            total: all(20),
            per_address: Some(Ceiling { most: 3, scope: Scope::Namespace("shop".into()) }),
            per_subject: all(2),
            client_size: all(1024),
            backend_size: all(2048),
            ..NamespaceCeilings::default()
        }
    }

    fn read(rest: &str, ceilings: &NamespaceCeilings, defaults: &Defaults) -> (Policy, Vec<(Type, Problem)>) {
        let head = "hostnames: [a.test]\nrules: []\nhandshake: {authentication: {mode: Anonymous}}";
        let spec: RouteSpec = serde_saphyr::from_str(&format!("{head}\n{rest}")).unwrap();
        let mut diagnostics = Diagnostics::default();
        let policy = effective(&spec, defaults, ceilings, &mut diagnostics);
        assert_eq!(diagnostics.problems, []);
        (policy, diagnostics.warnings.into_iter().filter(|(kind, _)| *kind != Type::Anonymous).collect())
    }

    fn limits(policy: &Policy) -> (u32, Option<u32>, Option<u32>, u64, u64) {
        let connection = &policy.connection;
        let sizes = (policy.from_client.max_size, policy.from_backend.max_size);
        (connection.total, connection.per_address, connection.per_subject, sizes.0, sizes.1)
    }

    #[test]
    fn a_route_that_sets_nothing_has_no_more_than_the_ceilings_and_no_warning() {
        let (policy, warnings) = read("", &ceilings(), &Defaults::default());
        assert_eq!(limits(&policy), (20, Some(3), Some(2), 1024, 2048));
        assert_eq!(warnings, []);
        // A client that has no subject is not counted by the ceiling, and gets in.
        assert!(!policy.counts_subjects());
    }

    #[test]
    fn what_a_route_or_the_defaults_set_is_lowered_and_a_warning_names_field_value_ceiling_and_scope() {
        let rest = "connection: {limits: {total: 20001, perAddress: 4}}\n\
                    messages: {fromClient: {maxSize: 1Mi}, fromBackend: {maxSize: 2049}}";
        let defaults = Defaults {
            connection: serde_saphyr::from_str("{limits: {perSubject: 9, total: 7}}").unwrap(),
            ..Defaults::default()
        };
        let (policy, warnings) = read(rest, &ceilings(), &defaults);
        assert_eq!(limits(&policy), (20, Some(3), Some(2), 1024, 2048));
        assert!(policy.counts_subjects());
        let said: Vec<String> = warnings
            .iter()
            .map(|(kind, problem)| {
                assert_eq!((*kind, problem.reason), (Type::CeilingApplied, Reason::AboveCeiling), "{problem}");
                problem.to_string()
            })
            .collect();
        let end = |scope: &str, most: u32| format!("of {scope}, {most}, which the settings set; {most} holds");
        let all = |most| end("every namespace", most);
        assert_eq!(
            said,
            [
                format!("spec.connection.limits.total: 20001 is more than the ceiling {}", all(20)),
                format!("spec.connection.limits.perAddress: 4 is more than the ceiling {}", end("namespace shop", 3)),
                format!("defaults.connection.limits.perSubject: 9 is more than the ceiling {}", all(2)),
                format!("spec.messages.fromClient.maxSize: 1Mi is more than the ceiling {}", all(1024)),
                format!("spec.messages.fromBackend.maxSize: 2049 is more than the ceiling {}", all(2048)),
            ]
        );
    }

    #[test]
    fn what_is_at_a_ceiling_or_below_is_as_written() {
        let rest = "connection: {limits: {total: 20, perAddress: 1}}\nmessages: {fromClient: {maxSize: 1Ki}}";
        let (policy, warnings) = read(rest, &ceilings(), &Defaults::default());
        assert_eq!(limits(&policy), (20, Some(1), Some(2), 1024, 2048));
        assert_eq!(warnings, []);
    }

    #[test]
    fn a_ceiling_above_a_default_raises_nothing() {
        let (ceilings, rest) = (NamespaceCeilings { total: all(50_000), ..Default::default() }, "connection: {}");
        assert_eq!(read(rest, &ceilings, &Defaults::default()).0.connection.total, 10_000);
        let (policy, warnings) = read("connection: {limits: {total: 40000}}", &ceilings, &Defaults::default());
        assert_eq!((policy.connection.total, warnings.len()), (40_000, 1));
        assert_eq!(warnings[0].0, Type::LimitsRelaxed);
    }
}
