//! Where objects come from: a directory of manifests, or a cluster. Both hand over the same
//! [`crate::api::objects::Objects`]. Knows nothing of what is made of them.

pub mod cluster;
mod debounce;
mod document;
pub mod files;
pub mod loaded;
mod parse;
mod walk;
mod watch;

pub use cluster::Cluster;
pub use files::Files;
use loaded::Loaded;
pub use watch::Watch;

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
