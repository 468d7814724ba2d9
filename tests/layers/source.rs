//! One source file of `src/`, as text: which module it is, what of the house it names, and which crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// One source file.
pub(super) struct Source {
    /// Its path below `src/`, with `/`.
    pub(super) path: String,
    text: String,
}

impl Source {
    /// A file with this text.
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// All files below a folder.
    pub(super) fn all(folder: &Path) -> Vec<Self> {
        let mut sources = Vec::new();
        read(folder, "", &mut sources);
        sources
    }

    /// Module path: `["proxy", "relay", "pump"]` for `proxy/relay/pump.rs`, `["proxy"]` for `proxy/mod.rs`, `[]` for
    /// `lib.rs`.
    pub(super) fn module(&self) -> Vec<&str> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let mut parts: Vec<&str> = stem.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib")) {
            parts.pop();
        }
        parts
    }

    /// What stands before the first `#[cfg(test)]` at the left margin that opens a module with its text; nothing of a file
    /// that is all tests.
    pub(super) fn product(&self) -> &str {
        if self.module().contains(&"tests") {
            return "";
        }
        let begins = |at: &usize| {
            let line = self.text[at + "\n#[cfg(test)]\n".len()..].lines().next().unwrap_or_default();
            line.contains("mod tests {")
        };
        let end = self.text.match_indices("\n#[cfg(test)]\n").map(|(at, _)| at).find(begins);
        &self.text[..end.map_or(self.text.len(), |at| at + 1)]
    }

    /// What it names of the house: line, and path from the root on. Code under `#[cfg(test)]` is free.
    pub(super) fn names(&self) -> Vec<(usize, Vec<String>)> {
        let text = without_comments(self.product());
        let module: Vec<String> = self.module().iter().map(|part| (*part).to_owned()).collect();
        let mut found = Vec::new();
        for (start, from) in [("crate::", Vec::new()), ("wssgate::", Vec::new()), ("self::", module.clone())] {
            found.extend(paths(&text, start, &from));
        }
        for up in 1..=module.len() {
            found.extend(paths(&text, &"super::".repeat(up), &module[..module.len() - up]));
        }
        // A module names its children without a prefix.
        for child in children(&text) {
            let own = [module.as_slice(), std::slice::from_ref(&child)].concat();
            found.extend(paths(&text, &format!("{child}::"), &own));
        }
        found.sort();
        found.dedup();
        found
    }

    /// Crates of `known` that it names: line and name.
    pub(super) fn crates(&self, known: &BTreeSet<String>) -> Vec<(usize, String)> {
        let text = without_comments(self.product());
        // A module of the house may be called as a crate is.
        let mut own: BTreeSet<String> = children(&text).into_iter().collect();
        own.extend(self.names().into_iter().filter_map(|(_, path)| path.last().cloned()));
        let mut found = Vec::new();
        for name in known.iter().filter(|name| !own.contains(*name)) {
            found.extend(starts(&text, &format!("{name}::")).map(|at| (line(&text, at), name.clone())));
            found.extend(starts(&text, &format!("use {name};")).map(|at| (line(&text, at), name.clone())));
        }
        found.sort();
        found.dedup();
        found
    }
}

fn read(folder: &Path, below: &str, into: &mut Vec<Source>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            read(&entry.path(), &format!("{name}/"), into);
        } else if name.ends_with(".rs") {
            into.push(Source::new(&name, &fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// The text with line comments blanked; a `//` in a string is blanked as well, which hides no import.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where `start` stands at the beginning of a path.
fn starts<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(start).map(|(at, _)| at).filter(|at| {
        // `pub(in crate::x)` says who may name something; it names nothing.
        !text[..*at].ends_with("pub(in ")
            && !text[..*at]
                .chars()
                .next_back()
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '"'))
    })
}

/// The modules that a text declares.
fn children(text: &str) -> Vec<String> {
    let declared = |line: &str| {
        let name = line.trim_start().strip_suffix(';')?.rsplit_once("mod ")?;
        let is_module = matches!(name.0.trim(), "" | "pub" | "pub(crate)" | "pub(super)");
        is_module.then(|| name.1.to_owned())
    };
    text.lines().filter_map(declared).collect()
}

/// The paths behind `start`, each continued from `from`, with their lines.
fn paths(text: &str, start: &str, from: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in starts(text, start) {
        let mut all = Vec::new();
        tree(&text[at + start.len()..], from, &mut all);
        found.extend(all.into_iter().map(|path| (line(text, at), path)));
    }
    found
}

/// Reads a use tree: each of its paths, continued from `from`. Returns how many bytes it took.
fn tree(text: &str, from: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let skipped = text.len() - text.trim_start().len();
    let rest = &text[skipped..];
    if let Some(group) = rest.strip_prefix('{') {
        let mut at = 0;
        loop {
            at += tree(&group[at..], from, found);
            let next = group[at..].trim_start();
            at = group.len() - next.len();
            match next.chars().next() {
                Some(',') => at += 1,
                Some('}') => return skipped + 1 + at + 1,
                // What is no use tree ends it.
                _ => return skipped + 1 + at,
            }
            if group[at..].trim_start().starts_with('}') {
                at = group.len() - group[at..].trim_start().len();
                return skipped + 1 + at + 1;
            }
        }
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        return skipped;
    }
    let path = match name.as_str() {
        "self" => from.to_vec(),
        _ => [from, std::slice::from_ref(&name)].concat(),
    };
    let behind = &rest[name.len()..];
    if let Some(deeper) = behind.strip_prefix("::") {
        // A turbofish or a glob is the end of a path.
        if deeper.starts_with(|c: char| c.is_alphanumeric() || c == '_' || c == '{') {
            return skipped + name.len() + 2 + tree(deeper, &path, found);
        }
        found.push(path);
        return skipped + name.len() + 2 + usize::from(deeper.starts_with('*'));
    }
    found.push(path);
    let renamed = behind
        .strip_prefix(" as ")
        .map_or(0, |alias| 4 + alias.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count());
    skipped + name.len() + renamed
}

/// Files that name one another in a circle, each circle sorted.
pub(super) fn knots(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for to in edges.get(file).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|file| (file, reach(file))).collect();
    let mut knots: Vec<Vec<String>> = edges
        .keys()
        .filter(|file| reached[file].contains(*file))
        .map(|file| {
            let back = |other: &&String| reached.get(other).is_some_and(|reached| reached.contains(file));
            reached[file].iter().filter(back).cloned().collect()
        })
        .collect();
    knots.sort();
    knots.dedup();
    knots
}
