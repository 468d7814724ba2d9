//! One thing that is wrong with a route or with what it names, as every room of the compile reports it. Knows no room.

use crate::api::status::ConditionReason as Reason;

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What kind of thing.
    pub reason: Reason,
    /// Object, field and fix.
    pub message: String,
}

impl Problem {
    /// A problem; the text is cleaned and cut when it becomes a condition.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
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
