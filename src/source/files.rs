//! A directory of manifests as the source. A document that does not parse is reported with its place, and the last good
//! objects of its file stay; what did not change keeps its `Arc`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;

use super::document;
use super::loaded::{Loaded, ManifestProblem, Place};
use super::parse::{self, Content, Identity, Parsed};
use super::walk::{self, Found};
use super::watch::Watch;
use crate::api::objects::Objects;
use crate::api::route_id::RouteKind;
use crate::api::yaml::Fault;

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 4 << 20;
/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// A directory of manifests.
pub struct Files {
    root: PathBuf,
    namespaces: BTreeSet<String>,
    records: BTreeMap<PathBuf, Record>,
    loaded: Option<Loaded>,
    /// What the last walk could not look at, and whether it found too many files.
    blind: (Vec<(PathBuf, String)>, bool),
    fingerprint: u64,
    watch: Option<Watch>,
}

type Digest = [u8; 32];

/// What is known of one file.
#[derive(Default)]
struct Record {
    digest: Digest,
    /// Documents that were read whole, by the digest of their text.
    documents: HashMap<Digest, Arc<Content>>,
    /// Objects in their order with their lines.
    fresh: Vec<(u64, Parsed)>,
    /// Last good objects whose document is broken now.
    kept: Vec<Parsed>,
    problems: Vec<ManifestProblem>,
    skipped: usize,
}

impl Files {
    /// Opens a directory.
    ///
    /// # Errors
    /// It does not exist, is no directory, or cannot be listed. Later faults are [`Loaded::problems`].
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        std::fs::read_dir(&root).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: cannot read the directory of manifests: {error}", root.display()))
        })?;
        Ok(Self::of(root))
    }

    fn of(root: PathBuf) -> Self {
        Self {
            root,
            namespaces: BTreeSet::new(),
            records: BTreeMap::new(),
            loaded: None,
            blind: (Vec::new(), false),
            fingerprint: 0,
            watch: None,
        }
    }

    /// Reads directories, files and, for `-`, standard input, once. A file is read whatever its name is.
    ///
    /// # Errors
    /// One of them does not exist or cannot be read.
    pub fn once(inputs: &[PathBuf], namespaces: impl IntoIterator<Item = String>) -> io::Result<Loaded> {
        let mut files = Self::of(PathBuf::new());
        files.limit(namespaces);
        let mut found = Found::default();
        let mut standard_input = None;
        for input in inputs {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: cannot be read: {error}", input.display()))
            };
            if input.as_os_str() == STANDARD_INPUT {
                let mut bytes = Vec::new();
                io::stdin().lock().take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(named)?;
                standard_input = Some(bytes);
            } else if std::fs::metadata(input).map_err(named)?.is_dir() {
                let below = walk::walk(input);
                found.files.extend(below.files);
                found.unreadable.extend(below.unreadable);
                found.too_many |= below.too_many;
            } else {
                File::open(input).map_err(named)?;
                found.files.insert(input.clone());
            }
        }
        files.refresh(&found);
        if let Some(bytes) = standard_input {
            let record = Record::read("standard input", digest_of(&bytes), bytes, Record::default());
            files.records.insert("standard input".into(), record);
        }
        Ok(files.merge(&found))
    }

    /// Reads only these namespaces and what belongs to none; all if there are none.
    #[must_use]
    pub fn namespaces(mut self, namespaces: impl IntoIterator<Item = String>) -> Self {
        self.limit(namespaces);
        self
    }

    /// From the next load on as [`Files::namespaces`].
    pub fn limit(&mut self, namespaces: impl IntoIterator<Item = String>) {
        self.namespaces = namespaces.into_iter().collect();
        self.loaded = None;
    }

    /// Reads the directory as it is now. Blocks on the disk.
    pub fn load(&mut self) -> Loaded {
        let found = walk::walk(&self.root);
        let changed = self.refresh(&found);
        self.fingerprint = found.fingerprint;
        if let Some(loaded) = self.loaded.as_ref().filter(|_| !changed) {
            return loaded.clone();
        }
        let loaded = self.merge(&found);
        self.loaded.insert(loaded).clone()
    }

    /// Waits until the directory may differ from what [`Files::load`] last read. Needs a tokio runtime with time. May be
    /// dropped and called again at any point without losing a change.
    pub async fn changed(&mut self) {
        let seen = self.fingerprint;
        let root = &self.root;
        let first = self.watch.is_none();
        let watch = self.watch.get_or_insert_with(|| Watch::tree(root));
        if first && walk::walk(root).fingerprint != seen {
            // Changed between the load and the first watch.
            return;
        }
        watch.changed(seen).await;
    }

    /// Brings the records up to date; whether any of them changed.
    fn refresh(&mut self, found: &Found) -> bool {
        let before = self.records.len();
        // What could not be looked at is unknown, not gone.
        self.records.retain(|path, _| {
            found.files.contains(path) || found.unreadable.iter().any(|(unreadable, _)| path.starts_with(unreadable))
        });
        let mut changed = self.records.len() != before;
        for path in &found.files {
            let name = shown(path);
            match read(path) {
                Ok(bytes) => {
                    let digest = digest_of(&bytes);
                    if self.records.get(path).is_some_and(|record| record.digest == digest) {
                        continue;
                    }
                    let last = self.records.remove(path).unwrap_or_default();
                    self.records.insert(path.clone(), Record::read(&name, digest, bytes, last));
                    changed = true;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Gone since the walk.
                    changed |= self.records.remove(path).is_some();
                }
                Err(error) => {
                    let last = self.records.remove(path).unwrap_or_default();
                    let problem = whole(&name, format!("cannot be read: {error}; its last good objects stay in use"));
                    changed |= last.problems.first() != Some(&problem);
                    self.records.insert(path.clone(), Record::lost(problem, last));
                }
            }
        }
        let blind = (found.unreadable.clone(), found.too_many);
        changed |= self.blind != blind;
        self.blind = blind;
        changed
    }

    /// Every object of every record, first come first served.
    fn merge(&self, found: &Found) -> Loaded {
        let mut objects = Objects::default();
        let mut problems = Vec::new();
        let mut skipped = 0;
        let mut owners: BTreeMap<Identity, Place> = BTreeMap::new();
        for (path, reason) in &found.unreadable {
            problems.push(whole(&shown(path), format!("cannot be read: {reason}; its last good objects stay in use")));
        }
        if found.too_many {
            let message = format!("has more than {} files; the others are not read", walk::MAX_FILES);
            problems.push(whole(&shown(&self.root), message));
        }
        for (path, record) in &self.records {
            skipped += record.skipped;
            problems.extend(record.problems.iter().cloned());
            for (start, parsed) in &record.fresh {
                if !self.watches(parsed) {
                    skipped += 1;
                    continue;
                }
                let identity = parsed.identity();
                let name = shown(path);
                match owners.get(&identity) {
                    Some(owner) => {
                        let ((kind, key), Place { file, line }) = (identity, owner);
                        let message =
                            format!("{kind} {key} is already in {file}:{line}, which is used; remove one of the two");
                        problems.push(ManifestProblem { file: name, line: *start, column: 1, message });
                    }
                    None => {
                        owners.insert(identity, Place { file: name, line: *start });
                        add(&mut objects, parsed);
                    }
                }
            }
        }
        // What is only kept gives way to what was read.
        for (path, record) in &self.records {
            for parsed in record.kept.iter().filter(|parsed| self.watches(parsed)) {
                owners.entry(parsed.identity()).or_insert_with(|| {
                    add(&mut objects, parsed);
                    Place { file: shown(path), line: 1 }
                });
            }
        }
        let routes = owners.into_iter().filter(|((kind, _), _)| *kind == RouteKind::SecureWebSocketRoute.as_str());
        let places = Arc::new(routes.map(|((_, key), place)| (key, place)).collect());
        Loaded { objects: Arc::new(objects), problems, skipped, files: self.records.len(), places }
    }

    fn watches(&self, parsed: &Parsed) -> bool {
        let namespace = parsed.object.key().namespace;
        self.namespaces.is_empty() || namespace.is_empty() || self.namespaces.contains(&namespace)
    }
}

fn add(objects: &mut Objects, parsed: &Parsed) {
    if let Some(violations) = &parsed.violations {
        objects.violations.insert(parsed.object.key(), Arc::clone(violations));
    }
    objects.insert(parsed.object.clone());
}

impl Record {
    /// Reads a file; documents that were there before keep their objects.
    fn read(name: &str, digest: Digest, bytes: Vec<u8>, last: Self) -> Self {
        if bytes.len() as u64 > MAX_SIZE {
            return Self { digest, ..Self::lost(whole(name, "is larger than 4 MiB; split it".to_owned()), last) };
        }
        let Ok(text) = String::from_utf8(bytes) else {
            return Self {
                digest,
                ..Self::lost(whole(name, "is not UTF-8 text; correct or remove it".to_owned()), last)
            };
        };
        let (documents, fault) =
            if name.ends_with(".json") { document::of_json(&text) } else { (document::of_yaml(&text), None) };
        let mut record = Self { digest, ..Self::default() };
        // Identities of broken documents; `None` among them: it could have been any.
        let mut broken: Vec<Option<Identity>> = Vec::new();
        if let Some(Fault { line, column, kind }) = fault {
            record.problems.push(ManifestProblem { file: name.to_owned(), line, column, message: kind.to_string() });
            broken.push(None);
        }
        for document in documents {
            let own = digest_of(document.text.as_bytes());
            let known = last.documents.get(&own).or_else(|| record.documents.get(&own)).cloned();
            let content = known.unwrap_or_else(|| Arc::new(parse::read(document.text)));
            for one in &content.broken {
                let Fault { line, column, .. } = &one.fault;
                let column = if *line <= 1 { column + document.column } else { *column };
                record.problems.push(ManifestProblem {
                    file: name.to_owned(),
                    line: line + document.line,
                    column,
                    message: one.to_string(),
                });
                broken.push(one.identity.clone());
            }
            record.skipped += content.skipped;
            record.fresh.extend(content.objects.iter().map(|parsed| (parsed.line + document.line, parsed.clone())));
            if content.broken.is_empty() {
                record.documents.insert(own, content);
            }
        }
        if !broken.is_empty() {
            let fresh: BTreeSet<_> = record.fresh.iter().map(|(_, parsed)| parsed.identity()).collect();
            let any = broken.iter().any(Option::is_none);
            record.kept = last
                .into_good()
                .filter(|parsed| !fresh.contains(&parsed.identity()))
                .filter(|parsed| any || broken.contains(&Some(parsed.identity())))
                .collect();
        }
        record
    }

    /// A file that cannot be read at all: everything it held stays.
    fn lost(problem: ManifestProblem, last: Self) -> Self {
        let documents = last.documents.clone();
        Self { documents, kept: last.into_good().collect(), problems: vec![problem], ..Self::default() }
    }

    /// Every object that the file stands for.
    fn into_good(self) -> impl Iterator<Item = Parsed> {
        self.fresh.into_iter().map(|(_, parsed)| parsed).chain(self.kept)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn digest_of(bytes: &[u8]) -> Digest {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap_or_default()
}

fn whole(file: &str, message: String) -> ManifestProblem {
    ManifestProblem { file: file.to_owned(), line: 0, column: 0, message }
}

/// A path as text that cannot break a line of a log.
fn shown(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "?")
}
