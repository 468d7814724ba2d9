//! The rule of the house, checked against the text of `src/`: imports go down, never up, never sideways; files stay
//! small; names are plain nouns.
//!
//! [`TABLE`] has one row per module, in the order of the house. A row may name only rows above it, so a cycle cannot be
//! written down. Code under `#[cfg(test)]` is free.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::root;

/// Module, and the modules it may import.
const TABLE: &[(&str, &[&str])] = &[
    ("ws", &[]),
    ("reason", &["ws"]),
    ("api", &[]),
    ("kube_error", &[]),
    ("telemetry", &["reason"]),
    ("settings", &["api", "telemetry"]),
    ("policy", &["ws", "reason", "api"]),
    ("snapshot", &["reason", "api", "policy"]),
    ("writer", &["api", "kube_error"]),
    // The siblings: none may name another.
    ("compile", &["ws", "reason", "api", "policy", "snapshot"]),
    ("source", &["api", "kube_error", "telemetry"]),
    ("status", &["api", "kube_error", "telemetry", "writer"]),
    ("issuance", &["api", "kube_error", "writer"]),
    ("proxy", &["ws", "reason", "api", "telemetry", "policy", "snapshot"]),
    ("accept", &[]),
    ("admin", &["accept", "telemetry"]),
    ("echo", &["accept"]),
    // The wiring.
    ("args", &["api", "settings", "telemetry"]),
    (
        "app",
        &[
            "ws",
            "reason",
            "api",
            "settings",
            "telemetry",
            "policy",
            "snapshot",
            "compile",
            "source",
            "status",
            "issuance",
            "proxy",
            "admin",
            "echo",
            "args",
        ],
    ),
    ("main", &["api", "settings", "telemetry", "args", "app"]),
];

/// Modules that may not name one another, whatever their order in the table.
const SIBLINGS: &[&str] = &["compile", "source", "status", "issuance", "proxy", "admin", "probe", "echo"];

/// Words that say nothing of what a module is for.
const NO_NAMES: &[&str] =
    &["manager", "managers", "helper", "helpers", "util", "utils", "common", "handler", "handlers", "misc"];

/// Lines of product code of a file at most.
const LINES: usize = 600;
/// What the median of them stays below.
const MEDIAN: usize = 200;

/// One source file: its path below `src/`, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Module path: `["proxy", "relay"]` for `proxy/relay.rs`, `["proxy"]` for `proxy/mod.rs`, `[]` for `lib.rs`.
    fn module(&self) -> Vec<&str> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let mut parts: Vec<&str> = stem.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib")) {
            parts.pop();
        }
        parts
    }

    /// What stands before the first `#[cfg(test)]` at the left margin that opens a module; nothing in a file that is
    /// all tests.
    fn product(&self) -> &str {
        if self.module().contains(&"tests") {
            return "";
        }
        let end = self.text.find("\n#[cfg(test)]\nmod tests").map_or(self.text.len(), |at| at + 1);
        &self.text[..end]
    }
}

/// Everything that is wrong with these sources under this table.
fn judge(table: &[(&str, &[&str])], sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, (module, row)) in table.iter().enumerate() {
        for name in *row {
            if !table[..at].iter().any(|(above, _)| above == name) {
                wrong.push(format!("the row of {module} names {name}, which is not a row above it"));
            }
            if SIBLINGS.contains(module) && SIBLINGS.contains(name) {
                wrong.push(format!("the row of {module} names its sibling {name}"));
            }
        }
    }
    let modules: BTreeSet<&str> = table.iter().map(|(name, _)| *name).collect();
    let mut lengths = Vec::new();
    for source in sources {
        let path = &source.path;
        let module = source.module();
        for word in module.iter().flat_map(|part| part.split('_')) {
            if NO_NAMES.contains(&word) {
                wrong.push(format!("{path}: `{word}` is no name for a module; say what it is for in one noun"));
            }
        }
        let product = source.product();
        if product.is_empty() {
            continue;
        }
        if !product.starts_with("//!") {
            wrong.push(format!("{path}: opens without a //! that says what the module is for"));
        }
        let lines = product.lines().count();
        if lines > LINES {
            wrong.push(format!("{path}: {lines} lines of product code, more than {LINES}; split it"));
        }
        lengths.push(lines);
        let Some(own) = module.first() else { continue };
        let Some((_, row)) = table.iter().find(|(name, _)| name == own) else {
            wrong.push(format!("{path}: the module {own} has no row in the table of tests/layers.rs"));
            continue;
        };
        for (line, named) in imports(product, module.len()) {
            if named != *own && modules.contains(named.as_str()) && !row.contains(&named.as_str()) {
                wrong.push(format!("{path}:{line}: {own} may not import {named}"));
            }
        }
    }
    lengths.sort_unstable();
    if let Some(median) = lengths.get(lengths.len() / 2)
        && *median >= MEDIAN
    {
        wrong.push(format!("the median file has {median} lines of product code; it shall be below {MEDIAN}"));
    }
    wrong
}

/// Top-level modules that a text names by `crate::`, by `wssgate::` (so the binary names the library) or by `super::` up
/// to the root, with their lines. `depth` is the number of modules the text lies in.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    let text = without_comments(text);
    let mut found = Vec::new();
    let root = "super::".repeat(depth.max(1));
    for start in ["crate::", "wssgate::", root.as_str()] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            found.extend(heads(&text[at + start.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The first names of a path or of each path of a group: `a` of `a::b`, `a` and `c` of `{a::{x, y}, c}`.
fn heads(rest: &str) -> Vec<String> {
    let rest = rest.trim_start();
    let Some(group) = rest.strip_prefix('{') else {
        return vec![rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()];
    };
    let (mut names, mut name, mut depth, mut head) = (Vec::new(), String::new(), 0, true);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                head = true;
            }
            _ if depth > 0 || c.is_whitespace() => {}
            _ if head && (c.is_alphanumeric() || c == '_') => name.push(c),
            _ => head = false,
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

/// The text with line comments blanked; a `//` in a string is blanked as well, which hides no import.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
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

#[test]
fn the_house_keeps_its_rule() {
    let mut sources = Vec::new();
    read(&root().join("src"), "", &mut sources);
    assert!(sources.len() > 10, "src/ was not read");
    let wrong = judge(TABLE, &sources);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_row_is_a_module_of_the_house() {
    let src = root().join("src");
    for (module, _) in TABLE {
        let exists = src.join(format!("{module}.rs")).is_file() || src.join(module).join("mod.rs").is_file();
        assert!(exists, "{module} has a row but is not there");
    }
}

/// The rule can be broken: each of these made-up texts is found out, and its harmless twin is not.
#[test]
fn what_breaks_the_rule_is_found() {
    const ROWS: &[(&str, &[&str])] = &[("ws", &[]), ("reason", &["ws"]), ("proxy", &["reason"]), ("admin", &[])];
    let wrong =
        |path: &str, text: &str| judge(ROWS, &[Source::new(path, &format!("//! A module.\n{text}"))]).join("\n");

    assert_eq!(wrong("reason.rs", "use crate::ws::frame;\n"), "");
    assert_eq!(wrong("ws/frame.rs", "use crate::reason::Reason;\n"), "ws/frame.rs:2: ws may not import reason");
    assert_eq!(wrong("ws/frame.rs", "fn f() { crate::reason::x() }"), "ws/frame.rs:2: ws may not import reason");
    assert_eq!(wrong("ws/frame.rs", "use super::super::reason;\n"), "ws/frame.rs:2: ws may not import reason");
    assert_eq!(wrong("ws/mod.rs", "use super::reason;\n"), "ws/mod.rs:2: ws may not import reason");
    assert_eq!(wrong("ws/frame.rs", "use super::reason;\n"), "");
    assert_eq!(wrong("ws/frame.rs", "// use crate::reason::Reason;\n"), "");
    assert_eq!(wrong("ws/frame.rs", "#[cfg(test)]\nmod tests { use crate::reason::Reason; }\n"), "");
    assert_eq!(wrong("admin.rs", "use crate::{\n    proxy::{a, b},\n    ws,\n};\n").lines().count(), 2);
    assert_eq!(wrong("proxy/mod.rs", "use crate::{reason::{ws, admin}, proxy::x};\n"), "");
    assert_eq!(wrong("proxy/mod.rs", "use mycrate::admin;\n"), "");

    assert!(wrong("attic.rs", "").contains("has no row"));
    assert!(wrong("proxy/conn_manager.rs", "").contains("`manager` is no name"));
    assert!(wrong("util/mod.rs", "").contains("`util` is no name"));
    assert!(judge(ROWS, &[Source::new("ws.rs", "use std::fmt;\n")])[0].contains("opens without"));
}

#[test]
fn a_row_that_names_one_below_it_or_a_sibling_is_found() {
    assert!(judge(&[("ws", &["reason"]), ("reason", &[])], &[])[0].contains("not a row above"));
    assert!(judge(&[("compile", &[]), ("proxy", &["compile"])], &[])[0].contains("its sibling compile"));
}

#[test]
fn a_file_that_grew_too_long_is_found_but_its_tests_are_not_counted() {
    let rows: &[(&str, &[&str])] = &[("ws", &[])];
    let file = |name: &str, product: usize, tests: usize| {
        let (product, tests) = ("\n".repeat(product), "\n".repeat(tests));
        Source::new(name, &format!("//! A module.\n{product}#[cfg(test)]\nmod tests {{\n{tests}}}\n"))
    };
    let beside = |long| judge(rows, &[long, file("ws/b.rs", 9, 0), file("ws/c.rs", 9, 0)]);
    assert_eq!(beside(file("ws/a.rs", 599, 5000)), Vec::<String>::new());
    assert!(beside(file("ws/a.rs", 600, 0))[0].contains("601 lines"));
    assert!(judge(rows, &[file("ws/a.rs", 250, 0), file("ws/b.rs", 250, 0)])[0].contains("median"));
}
