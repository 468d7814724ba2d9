//! Where objects come from: a directory of manifests, or a cluster. Both hand over the same
//! [`crate::api::objects::Objects`]. Knows nothing of what is made of them.

pub mod cluster;
mod debounce;
pub mod files;
mod parse;
mod walk;
mod watch;

use std::fmt;
use std::sync::Arc;

pub use cluster::Cluster;
pub use files::Files;
pub use watch::Watch;

use crate::api::objects::Objects;

/// A source of objects.
pub enum Source {
    /// A directory of manifests.
    Files(Box<Files>),
    /// A cluster.
    Cluster(Cluster),
}

impl Source {
    /// Waits until the source can be loaded. May be dropped and called again.
    pub async fn ready(&mut self) {
        match self {
            Self::Files(_) => {}
            Self::Cluster(cluster) => cluster.ready().await,
        }
    }

    /// Everything as it is now. Blocks on the disk, if it is a directory.
    pub fn load(&mut self) -> Loaded {
        match self {
            Self::Files(files) => files.load(),
            Self::Cluster(cluster) => cluster.load(),
        }
    }

    /// Waits until the source may differ from what was loaded last. May be dropped and called again at any point
    /// without losing a change.
    pub async fn changed(&mut self) {
        match self {
            Self::Files(files) => files.changed().await,
            Self::Cluster(cluster) => cluster.changed().await,
        }
    }
}

/// What a source holds.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Every object that a compile reads; the same `Arc` as the last time if nothing changed.
    pub objects: Arc<Objects>,
    /// What could not be read, in the order of the files.
    pub problems: Vec<Problem>,
    /// Objects of kinds that no compile reads, or of namespaces that are not watched.
    pub skipped: usize,
    /// Files that were read.
    pub files: usize,
}

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
