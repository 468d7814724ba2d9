//! What a source hands over: the objects, and what could not be read. Plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::api::objects::{Key, Objects};

/// What a source holds.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Every object that a compile reads; the same `Arc` as the last time if nothing changed.
    pub objects: Arc<Objects>,
    /// Problems of manifests, in the order of the files.
    pub problems: Vec<ManifestProblem>,
    /// Objects of kinds that no compile reads, or of namespaces that are not watched.
    pub skipped: usize,
    /// Files that were read.
    pub files: usize,
    /// Where each route stands; empty for a cluster.
    pub places: Arc<BTreeMap<Key, Place>>,
}

/// Where an object stands in the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the source was named by the user.
    pub file: String,
    /// Line of its beginning, from 1.
    pub line: u64,
}

/// Something in a manifest that could not be read, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestProblem {
    /// The file, as the source was named by the user.
    pub file: String,
    /// Line, from 1; 0 if it is about the whole file.
    pub line: u64,
    /// Column, from 1; 0 if it is about the whole file.
    pub column: u64,
    /// What is wrong and what to do. Never the content of a Secret.
    pub message: String,
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message } = self;
        if *line == 0 { write!(f, "{file}: {message}") } else { write!(f, "{file}:{line}:{column}: {message}") }
    }
}
