//! What is found while a spec is read: problems and warnings. Knows no field.

use std::fmt::Display;

use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
use crate::compile::problem::{Problem, quote};

/// What is found while a spec is read.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// Why the spec is not accepted.
    pub problems: Vec<Problem>,
    /// What is weaker than built in, or otherwise worth knowing.
    pub warnings: Vec<(Type, Problem)>,
}

impl Diagnostics {
    /// A value that breaks a rule.
    pub fn invalid(&mut self, field: impl Display, text: impl Display) {
        self.problems.push(Problem::new(Reason::Invalid, format!("{field}: {text}")));
    }

    /// A field or value that this build does not carry out.
    pub fn unsupported(&mut self, field: impl Display) {
        let text = format!("{field}: not supported by this version of wssgate; remove it");
        self.problems.push(Problem::new(Reason::UnsupportedValue, text));
    }

    /// What the user chose and should see.
    pub fn warn(&mut self, kind: Type, text: impl Into<String>) {
        self.warnings.push((kind, Problem::new(Reason::Configured, text)));
    }

    /// A reference to another group than the core group, which alone has what routes refer to.
    pub fn core_group(&mut self, group: &str, field: impl Display) {
        if !group.is_empty() {
            self.invalid(field, format_args!("group {} is not possible; leave group out", quote(group)));
        }
    }
}
