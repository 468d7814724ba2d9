//! What is found while a spec is read: problems and warnings. Knows no field.

use std::fmt::Display;

use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
use crate::api::violation::{SchemaViolation, Violation};
use crate::compile::problem::{Problem, quote};

/// What is found while a spec is read.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// Why the spec is not accepted.
    pub problems: Vec<Problem>,
    /// What is weaker than the default, or otherwise worth knowing, by the condition that shows it.
    pub warnings: Vec<(Type, Problem)>,
}

impl Diagnostics {
    /// A value that breaks a rule.
    pub fn invalid(&mut self, field: impl Display, text: impl Display) {
        self.problems.push(Problem::new(Reason::Invalid, field, text));
    }

    /// A field that this build does not implement.
    pub fn unsupported(&mut self, field: impl Display) {
        let text = "is not supported by this version of wssgate; remove it";
        self.problems.push(Problem::new(Reason::UnsupportedValue, field, text));
    }

    /// A value of a field that this build does not implement.
    pub fn unsupported_value(&mut self, field: impl Display, value: impl Display) {
        let text = format_args!("{value} is not supported by this version of wssgate; remove it");
        self.problems.push(Problem::new(Reason::UnsupportedValue, field, text));
    }

    /// What the user chose and should see.
    pub fn warn(&mut self, kind: Type, field: impl Display, text: impl Display) {
        self.warnings.push((kind, Problem::new(Reason::Configured, field, text)));
    }

    /// What the API server would have refused.
    pub fn violation(&mut self, SchemaViolation { field, kind }: &SchemaViolation) {
        let reason = match kind {
            Violation::UnknownField => Reason::UnknownField,
            Violation::Refused(_) => Reason::Invalid,
        };
        self.problems.push(Problem::new(reason, field, kind));
    }

    /// The `group` of a reference, which must be the core group: nothing else can be referred to.
    pub fn core_group(&mut self, group: &str, reference: impl Display) {
        if !group.is_empty() {
            self.invalid(
                format_args!("{reference}.group"),
                format_args!("{} is not supported; remove it", quote(group)),
            );
        }
    }
}
