//! The rule of the house, checked against the text of `src/`: imports go down, never up, never sideways; each part names
//! only the crates that are its business; no files name one another in a circle; files stay small, names are plain nouns.
//!
//! [`TABLE`] has one row per part, in the order of the house, and one per room of `compile` and `proxy`. A row may name only
//! rows above it, so a cycle of parts cannot be written down, and a row that nothing uses is found. Code under
//! `#[cfg(test)]` is free.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::root;
use source::{Source, knots};

/// One part of the house: its path, the parts that it may import, and the crates that it may name.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

const TABLE: &[Row] = &[
];

/// Parts that may not name one another, whatever their order in the table.
const SIBLINGS: &[&str] = &["compile", "source", "status", "issuance", "proxy", "admin", "probe", "echo"];

/// Files that name one another in a circle, with the reason why that is right.
const KNOTS: &[(&[&str], &str)] = &[];

/// Words that say nothing of what a module is for.
const NO_NAMES: &[&str] =
    &["manager", "managers", "helper", "helpers", "util", "utils", "common", "handler", "handlers", "misc"];

/// Lines of product code of a file at most.
const LINES: usize = 500;
/// What the median of them stays below.
const MEDIAN: usize = 200;

/// The row that a path belongs to: that with the longest name.
fn row<'a>(table: &'a [Row], path: &[impl AsRef<str>]) -> Option<&'a Row> {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let within = |row: &&Row| {
        let name: Vec<&str> = row.0.split("::").collect();
        path.starts_with(&name)
    };
    table.iter().filter(within).max_by_key(|row| row.0.len())
}

fn top(name: &str) -> &str {
    name.split("::").next().unwrap_or_default()
}

/// What is wrong with the rows themselves.
fn judge_rows(table: &[Row]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, (part, may, _)) in table.iter().enumerate() {
        for name in *may {
            if !table[..at].iter().any(|(above, ..)| above == name) {
                wrong.push(format!("the row of {part} names {name}, which is not a row above it"));
            }
            if top(part) != top(name) && SIBLINGS.contains(&top(part)) && SIBLINGS.contains(&top(name)) {
                wrong.push(format!("the row of {part} names its sibling {name}"));
            }
        }
    }
    wrong
}

/// What is wrong with one file as such.
fn judge_file(source: &Source) -> Vec<String> {
    let (path, product) = (&source.path, source.product());
    let mut wrong = Vec::new();
    for word in source.module().iter().flat_map(|part| part.split('_')) {
        if NO_NAMES.contains(&word) {
            wrong.push(format!("{path}: `{word}` is no name for a module; say what it is for in one noun"));
        }
    }
    if !product.is_empty() && !product.starts_with("//!") {
        wrong.push(format!("{path}: opens without a //! that says what the module is for"));
    }
    let lines = product.lines().count();
    if lines > LINES {
        wrong.push(format!("{path}: {lines} lines of product code, more than {LINES}; split it"));
    }
    wrong
}

/// Everything that is wrong with these sources under this table, these knots and these crates.
fn judge(table: &[Row], allowed: &[(&[&str], &str)], crates: &BTreeSet<String>, sources: &[Source]) -> Vec<String> {
    let mut wrong = judge_rows(table);
    let files: BTreeMap<Vec<&str>, &str> =
        sources.iter().map(|source| (source.module(), source.path.as_str())).collect();
    let mut used: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        wrong.extend(judge_file(source));
        let (path, module) = (&source.path, source.module());
        if source.product().is_empty() || module.is_empty() {
            continue;
        }
        let Some((own, may, may_crates)) = row(table, &module) else {
            wrong.push(format!("{path}: {} has no row in the table of tests/layers.rs", module[0]));
            continue;
        };
        for (line, name) in source.names() {
            let name: Vec<&str> = name.iter().map(String::as_str).collect();
            let file = (1..=name.len()).rev().find_map(|end| files.get(&name[..end]));
            if let Some(file) = file.filter(|file| *file != path) {
                edges.entry(path.clone()).or_default().insert((*file).to_owned());
            }
            let Some((part, ..)) = row(table, &name) else { continue };
            // A part may name what lies within it; what lies within it may not name the part.
            if part == own || part.strip_prefix(own).is_some_and(|rest| rest.starts_with("::")) {
                continue;
            }
            match may.iter().find(|allowed| *allowed == part) {
                Some(allowed) => drop(used.insert((own, allowed))),
                None => wrong.push(format!("{path}:{line}: {own} may not import {part}")),
            }
        }
        for (line, name) in source.crates(crates) {
            match may_crates.iter().find(|allowed| **allowed == name) {
                Some(allowed) => drop(used.insert((own, allowed))),
                None => wrong.push(format!("{path}:{line}: {own} may not name the crate {name}")),
            }
        }
    }
    for (part, may, may_crates) in table {
        for name in may.iter().chain(*may_crates).filter(|name| !used.contains(&(part, name))) {
            wrong.push(format!("the row of {part} names {name}, which nothing there uses"));
        }
    }
    let knots = knots(&edges);
    let known = |knot: &[String]| allowed.iter().any(|(files, _)| files.iter().eq(knot.iter()));
    wrong.extend(knots.iter().filter(|knot| !known(knot)).map(|knot| format!("in a circle: {}", knot.join(", "))));
    let stale = allowed.iter().filter(|(files, _)| !knots.iter().any(|knot| knot.iter().eq(files.iter())));
    wrong.extend(stale.map(|(files, _)| format!("no longer in a circle: {}", files.join(", "))));
    let mut lengths: Vec<usize> = sources.iter().map(|source| source.product().lines().count()).collect();
    lengths.retain(|lines| *lines > 0);
    lengths.sort_unstable();
    if let Some(median) = lengths.get(lengths.len() / 2).filter(|median| **median >= MEDIAN) {
        wrong.push(format!("the median file has {median} lines of product code; it must be below {MEDIAN}"));
    }
    wrong
}

/// The crates that the product depends on, as code names them.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let name = |line: &str| line.split_once(" = ").map(|(name, _)| name.trim().replace('-', "_"));
    section.lines().filter_map(name).collect()
}

#[test]
fn the_house_keeps_its_rule() {
    let sources = Source::all(&root().join("src"));
    assert!(sources.len() > 10, "src/ was not read");
    let crates = dependencies();
    assert!(crates.contains("rustls") && crates.len() > 20, "{crates:?}");
    let wrong = judge(TABLE, KNOTS, &crates, &sources);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_row_is_a_part_of_the_house() {
    for (part, ..) in TABLE {
        let path = root().join("src").join(part.replace("::", "/"));
        let exists = path.with_extension("rs").is_file() || path.join("mod.rs").is_file();
        assert!(exists, "{part} has a row but is not there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[Row] = &[
        ("ws", &[], &[]),
        ("reason", &["ws"], &[]),
        ("proxy::io", &["ws"], &["tokio"]),
        ("proxy::relay", &["proxy::io", "reason"], &[]),
        ("proxy", &["reason"], &[]),
        ("admin", &[], &[]),
    ];

    fn crates() -> BTreeSet<String> {
        ["http", "kube", "tokio"].map(String::from).into()
    }

    /// What is wrong with one made-up file, but for rows that it leaves unused.
    fn wrong(path: &str, text: &str) -> String {
        let source = Source::new(path, &format!("//! A module.\n{text}"));
        let mut wrong = judge(ROWS, &[], &crates(), &[source]);
        wrong.retain(|wrong| !wrong.ends_with("which nothing there uses"));
        wrong.join("\n")
    }

    /// The rule can be broken: each of these made-up texts is found out, and its harmless twin is not.
    #[test]
    fn what_breaks_the_rule_is_found() {
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
        assert!(judge_file(&Source::new("ws.rs", "use std::fmt;\n"))[0].contains("opens without"));
    }

    #[test]
    fn rooms_have_rows_of_their_own() {
        assert_eq!(wrong("proxy/relay/mod.rs", "use crate::proxy::io::{self, buffers::Buffers};\n"), "");
        assert_eq!(wrong("proxy/io/mod.rs", "use crate::proxy::relay::Relay;\n").lines().count(), 1);
        assert_eq!(wrong("proxy/io/tls.rs", "use super::super::relay::Relay;\n").lines().count(), 1);
        // A part knows its rooms; its rooms do not know the part.
        assert_eq!(wrong("proxy/mod.rs", "mod relay;\nuse relay::Relay;\n"), "");
        assert_eq!(wrong("proxy/io/mod.rs", "use crate::proxy::Proxy;\n"), "proxy/io/mod.rs:2: proxy::io may not import proxy");
    }

    #[test]
    fn a_crate_that_is_not_a_parts_business_is_found() {
        assert_eq!(wrong("proxy/io/mod.rs", "use tokio::net::TcpStream;\n"), "");
        assert_eq!(wrong("ws/mod.rs", "use tokio::net::TcpStream;\n"), "ws/mod.rs:2: ws may not name the crate tokio");
        assert_eq!(wrong("ws/mod.rs", "fn f(error: kube::Error) {}\n"), "ws/mod.rs:2: ws may not name the crate kube");
        // A module of the house that is called as a crate is.
        assert_eq!(wrong("proxy/relay/mod.rs", "use crate::proxy::io::http;\nfn f() { http::x() }\n"), "");
        assert_eq!(wrong("ws/mod.rs", "mod http;\nuse http::Head;\n"), "");
        assert_eq!(wrong("ws/mod.rs", "use crate::ws::http::x;\nconst A: &str = \"tokio::net\";\n"), "");
    }

    #[test]
    fn files_that_name_one_another_in_a_circle_are_found() {
        let file = |path: &str, text: &str| Source::new(path, &format!("//! A module.\n{text}"));
        let sources = [
            file("ws/a.rs", "use crate::ws::b::B;\n"),
            file("ws/b.rs", "use super::c::C;\n"),
            file("ws/c.rs", "use crate::ws::{a::{A, X as Y}, d};\n"),
            file("ws/d.rs", ""),
        ];
        let judge = |allowed: &[(&[&str], &str)]| judge(&[("ws", &[], &[])], allowed, &BTreeSet::new(), &sources);
        assert_eq!(judge(&[]), ["in a circle: ws/a.rs, ws/b.rs, ws/c.rs"]);
        assert_eq!(judge(&[(&["ws/a.rs", "ws/b.rs", "ws/c.rs"], "a reason")]), [""; 0]);
        let stale: &[(&[&str], &str)] = &[(&["ws/a.rs", "ws/d.rs"], "a reason")];
        assert_eq!(judge(stale).len(), 2);
    }

    #[test]
    fn rows_that_are_wrong_are_found() {
        let judge = |table: &[Row]| judge_rows(table).join("\n");
        assert!(judge(&[("ws", &["reason"], &[]), ("reason", &[], &[])]).contains("not a row above"));
        assert!(judge(&[("compile", &[], &[]), ("proxy", &["compile"], &[])]).contains("its sibling compile"));
        assert!(judge(&[("compile::tls", &[], &[]), ("proxy::io", &["compile::tls"], &[])]).contains("its sibling"));
        assert_eq!(judge(&[("compile::spec", &[], &[]), ("compile::tls", &["compile::spec"], &[])]), "");
        let unused = super::judge(ROWS, &[], &crates(), &[Source::new("ws.rs", "//! A module.\n")]);
        assert!(unused.contains(&"the row of reason names ws, which nothing there uses".to_owned()), "{unused:?}");
        assert!(unused.contains(&"the row of proxy::io names tokio, which nothing there uses".to_owned()));
    }

    #[test]
    fn a_file_that_grew_too_long_is_found_but_its_tests_are_not_counted() {
        let file = |name: &str, product: usize, tests: usize| {
            let (product, tests) = ("\n".repeat(product), "\n".repeat(tests));
            Source::new(name, &format!("//! A module.\n{product}#[cfg(test)]\nmod tests {{\n{tests}}}\n"))
        };
        let beside = |long| {
            let sources = [long, file("ws/b.rs", 9, 0), file("ws/c.rs", 9, 0)];
            judge(&[("ws", &[], &[])], &[], &BTreeSet::new(), &sources)
        };
        assert_eq!(beside(file("ws/a.rs", LINES - 1, 5000)), Vec::<String>::new());
        assert!(beside(file("ws/a.rs", LINES, 0))[0].contains("501 lines"));
        let sources = [file("ws/a.rs", 250, 0), file("ws/b.rs", 250, 0)];
        assert!(judge(&[("ws", &[], &[])], &[], &BTreeSet::new(), &sources)[0].contains("median"));
    }
}
