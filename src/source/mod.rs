//! Where objects come from. Today a directory of manifests; a cluster will stand beside it and hand over the same
//! [`crate::api::objects::Objects`]. Knows nothing of what is made of them.

pub mod files;
mod parse;
mod walk;
mod watch;

use std::fmt;

pub use files::{Files, Loaded};
pub use watch::Watch;

/// Something in a source that could not be read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the source was named by the user.
    pub file: String,
    /// Line, from 1; 0 if it is about the whole file.
    pub line: u64,
    /// Column, from 1; 0 if it is about the whole file.
    pub column: u64,
    /// What is wrong and what to do. Never the content of a Secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message } = self;
        if *line == 0 { write!(f, "{file}: {message}") } else { write!(f, "{file}:{line}:{column}: {message}") }
    }
}
