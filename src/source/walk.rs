//! The manifests below a directory: which files, in which order. Follows links without walking in circles, passes over
//! what is hidden, and opens nothing.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

/// The most files that are read.
pub(crate) const MAX_FILES: usize = 20_000;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 32;

/// What was found below a directory.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Manifests by path, sorted.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Directories and files that could not be looked at. What was below them is not gone, it is unknown.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
    /// Whether there were more than [`MAX_FILES`].
    pub(crate) too_many: bool,
    /// A number that differs when a path, size, time or inode differs.
    pub(crate) fingerprint: u64,
}

/// Looks for manifests: `*.yaml`, `*.yml` and `*.json` in any depth. Names that begin with a dot are passed over, so
/// that a mounted ConfigMap, whose files are links through its hidden `..data`, is read once.
pub(crate) fn walk(root: &Path) -> Found {
    let mut walk = Walk {
        root,
        found: Found::default(),
        hasher: DefaultHasher::new(),
        visited: BTreeSet::new(),
        pending: vec![(root.to_owned(), 0)],
    };
    while let Some((directory, depth)) = walk.pending.pop() {
        walk.directory(directory, depth);
    }
    let Walk { mut found, mut hasher, .. } = walk;
    for (path, _) in &found.unreadable {
        path.hash(&mut hasher);
    }
    found.fingerprint = hasher.finish();
    found
}

struct Walk<'a> {
    root: &'a Path,
    found: Found,
    hasher: DefaultHasher,
    /// Directories that were entered, as they are without links.
    visited: BTreeSet<PathBuf>,
    /// Directories that are yet to be entered, with their depth. Last in, first out: pushed in reverse order, so that files
    /// come in the order of their paths.
    pending: Vec<(PathBuf, usize)>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: PathBuf, depth: usize) {
        match fs::canonicalize(&directory) {
            Ok(real) => {
                if !self.visited.insert(real) {
                    return;
                }
            }
            Err(error) => return self.unreadable(directory, &error),
        }
        // An entry that cannot be read may be any of its files: none counts as deleted.
        let entries = fs::read_dir(&directory).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(directory, &error),
        };
        let names = entries.into_iter().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.filter(|name| !name.as_encoded_bytes().starts_with(b".")).collect();
        names.sort();
        for name in names.into_iter().rev() {
            self.entry(directory.join(name), depth);
        }
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        // Follows links: what counts is what is read.
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                if is_manifest(&path) {
                    self.unreadable(path, &error);
                }
                return;
            }
        };
        if metadata.is_dir() {
            if depth + 1 < MAX_DEPTH {
                self.pending.push((path, depth + 1));
            } else {
                self.found.unreadable.push((path, format!("more than {MAX_DEPTH} directories deep")));
            }
        } else if metadata.is_file() && is_manifest(&path) {
            if self.found.files.len() >= MAX_FILES {
                self.found.too_many = true;
                return;
            }
            stamp(&path, &metadata, &mut self.hasher);
            self.found.files.insert(path);
        }
    }

    fn unreadable(&mut self, path: PathBuf, error: &io::Error) {
        // What vanished between listing and looking is gone, as is the target of a dangling link; the root itself must be
        // there.
        if error.kind() != io::ErrorKind::NotFound || path == self.root {
            self.found.unreadable.push((path, error.to_string()));
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// Feeds what tells two versions of a file apart.
#[cfg(unix)]
pub(crate) fn stamp(path: &Path, metadata: &fs::Metadata, hasher: &mut DefaultHasher) {
    use std::os::unix::fs::MetadataExt;
    let times = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
    (path, metadata.dev(), metadata.ino(), metadata.size(), times).hash(hasher);
}

/// Feeds what tells two versions of a file apart.
#[cfg(not(unix))]
pub(crate) fn stamp(path: &Path, metadata: &fs::Metadata, hasher: &mut DefaultHasher) {
    (path, metadata.len(), metadata.modified().ok()).hash(hasher);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(root: &Path) -> Vec<String> {
        walk(root).files.iter().map(|p| p.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn manifests_are_found_in_any_depth_and_hidden_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir_all(root.join(".git")).unwrap();
        for name in ["z.yaml", "b/c/x.yml", "b/a.json", "b/readme.md", ".hidden.yaml", ".git/x.yaml", "yaml"] {
            fs::write(root.join(name), "").unwrap();
        }
        assert_eq!(names(root), ["b/a.json", "b/c/x.yml", "z.yaml"]);
    }

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("..v1")).unwrap();
        fs::write(root.join("..v1/a.yaml"), "").unwrap();
        symlink("..v1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        symlink("..data/gone.yaml", root.join("gone.yaml")).unwrap();
        symlink("..data", root.join("sub")).unwrap();
        symlink(".", root.join("loop")).unwrap();
        symlink("self", root.join("self")).unwrap();
        assert_eq!(names(root), ["a.yaml", "sub/a.yaml"]);
        assert!(walk(root).unreadable.is_empty());
    }

    #[test]
    fn the_fingerprint_changes_with_what_is_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("a.yaml"), "1").unwrap();
        let first = walk(root).fingerprint;
        fs::write(root.join("notes.txt"), "").unwrap();
        assert_eq!(walk(root).fingerprint, first);
        fs::write(root.join("new"), "2").unwrap();
        fs::rename(root.join("new"), root.join("a.yaml")).unwrap();
        assert_ne!(walk(root).fingerprint, first);
    }

    #[test]
    fn a_root_that_is_not_there_is_unreadable_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(walk(&dir.path().join("absent")).unreadable.len(), 1);
    }
}
