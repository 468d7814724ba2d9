//! One thing that is wrong with a route or with what it names, as every room of the compile reports it: data, which
//! becomes a sentence where a condition or a log line is written. Knows no room.

use std::fmt;

use crate::api::status::ConditionReason as Reason;

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What kind of thing.
    pub reason: Reason,
    /// The path of the field that is wrong, such as `spec.rules[0].backendRefs[0]`, or the object, such as
    /// `Secret shop/tls`.
    pub field: String,
    /// What is wrong with it, and the fix.
    pub text: String,
}

impl Problem {
    /// A problem of a field or object; it is cleaned and cut when it becomes a condition.
    pub fn new(reason: Reason, field: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self { reason, field: field.to_string(), text: text.to_string() }
    }

    /// The same problem with more to say.
    #[must_use]
    pub fn with(mut self, more: impl fmt::Display) -> Self {
        self.text = format!("{}; {more}", self.text);
        self
    }

    /// The same problem for another reason.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.text)
    }
}

/// A user's value as a message quotes it: short, in quotes, without control characters.
pub fn quote(text: &str) -> String {
    let short = cut(text, 80);
    let dots = if short.len() < text.len() { "..." } else { "" };
    let clean: String = short.chars().map(|c| if c.is_control() || c == '"' { '?' } else { c }).collect();
    format!("\"{clean}{dots}\"")
}

/// The beginning of a text, at most so many bytes.
pub fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
