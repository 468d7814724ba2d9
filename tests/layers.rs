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

/// One part of the house.
#[derive(Debug)]
struct Row<'a> {
    part: &'a str,
    /// The parts that it may import.
    may: Vec<&'a str>,
    /// The crates that it may name.
    crates: Vec<&'a str>,
}

/// The rows of a table: `part | parts | crates`; a line that begins with a space goes on with the one before.
fn rows(table: &str) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut column = 0;
    for line in table.lines().filter(|line| !line.is_empty()) {
        if !line.starts_with(' ') {
            column = 0;
        }
        for word in line.split_whitespace() {
            match (column, rows.last_mut()) {
                _ if word == "|" => column += 1,
                (0, _) => rows.push(Row { part: word, may: vec![], crates: vec![] }),
                (1, Some(row)) => row.may.push(word),
                (_, Some(row)) => row.crates.push(word),
                (_, None) => {}
            }
        }
    }
    rows
}

/// One row per part: its path, the parts that it may import, the crates that it may name.
const TABLE: &str = "
ws | | aws_lc_rs base64 flate2 httparse percent_encoding simdutf8
reason | ws |
backoff | |
accept | | rustix tokio tracing
shares | | tokio
kube_error | | kube
tls | | rustls rustls_pki_types
api | | k8s_openapi kube schemars serde serde_json serde_saphyr
telemetry::format | | clap serde
telemetry::initiator | |
telemetry::logging | telemetry::format | tracing tracing_subscriber
telemetry::metrics | reason telemetry::initiator | prometheus_client
telemetry::access | reason shares telemetry::format telemetry::initiator telemetry::metrics | jiff tokio
telemetry | |
settings | api telemetry::format | http ipnet serde serde_json
content | | jsonschema referencing regex_syntax serde serde_json
policy | ws reason tls content | aws_lc_rs base64 ipnet jsonwebtoken rustls_pki_types serde serde_json x509_parser zeroize
snapshot | ws reason tls api policy | arc_swap rustls_pki_types
writer | backoff kube_error api | futures_util k8s_openapi kube tokio tracing
compile::provider | | aws_lc_rs rustls
compile::guard | |
compile::pem | |
compile::problem | api |
compile::options | api content policy snapshot |
compile::status | api content policy snapshot compile::problem | jiff k8s_openapi serde_json
compile::spec | ws api content policy snapshot compile::problem | http ipnet rustls_pki_types serde_json
compile::ownership | api policy compile::problem compile::options compile::spec | k8s_openapi
compile::resolve | tls api content policy snapshot compile::provider compile::guard compile::pem compile::problem
    compile::spec |
    aws_lc_rs k8s_openapi rustls rustls_pki_types webpki_roots
compile::tls | tls api policy snapshot compile::provider compile::guard compile::pem compile::problem compile::options
    compile::status compile::spec compile::ownership compile::resolve | aws_lc_rs jiff k8s_openapi rcgen rustls
    rustls_pki_types serde_json webpki_roots x509_parser
compile::assembly | reason api policy snapshot compile::problem compile::status compile::ownership compile::resolve
    compile::tls |
compile | api content policy snapshot |
source | backoff kube_error api telemetry::metrics | aws_lc_rs futures_util http k8s_openapi kube notify serde
    serde_json serde_saphyr tokio tracing
status | kube_error api telemetry::metrics writer | futures_util jiff k8s_openapi kube serde_json tokio tracing
issuance | kube_error api writer | k8s_openapi kube serde_json tokio tracing
proxy::clock | | tokio
proxy::drain | |
proxy::dependency_health | api telemetry::metrics snapshot | arc_swap tokio tracing
proxy::limits | reason shares api telemetry::metrics policy | rustix tokio
proxy::io | ws reason proxy::limits | aws_lc_rs http http_body_util hyper hyper_util rustls rustls_pki_types
    socket2 tokio tokio_rustls
proxy::store | reason backoff api telemetry::metrics policy snapshot proxy::drain proxy::dependency_health
    proxy::limits | arc_swap aws_lc_rs base64 futures_util redis rustls rustls_pki_types serde serde_json tokio
    tokio_rustls tracing
proxy::auth | ws reason backoff api telemetry::metrics policy snapshot proxy::clock proxy::dependency_health proxy::limits
    proxy::io proxy::store | aws_lc_rs base64 http http_body_util hyper rustls rustls_pki_types tokio tokio_rustls
    tracing
proxy::relay | ws reason api telemetry::initiator telemetry::metrics telemetry::access content policy snapshot
    proxy::clock proxy::limits proxy::io | rustls_pki_types
proxy::shared | telemetry::metrics policy snapshot proxy::drain proxy::dependency_health proxy::limits proxy::io
    proxy::store proxy::auth proxy::relay | arc_swap tokio
proxy::worker | reason telemetry::metrics telemetry::access policy proxy::clock proxy::drain proxy::limits proxy::io proxy::relay
    proxy::shared | tokio
proxy::handshake | ws reason telemetry::metrics telemetry::access policy snapshot proxy::clock proxy::limits
    proxy::io proxy::store proxy::relay proxy::shared proxy::worker | aws_lc_rs base64 rustix rustls_pki_types tokio
    tokio_rustls tracing
proxy::plain | ws accept shares policy snapshot proxy::drain proxy::limits proxy::io proxy::shared proxy::worker
    proxy::handshake | http http_body_util hyper hyper_util tokio tracing
proxy::acceptor | reason accept telemetry::access proxy::drain proxy::limits proxy::relay proxy::shared
    proxy::worker proxy::handshake proxy::plain | tokio tracing
proxy | telemetry::metrics telemetry::access policy snapshot | arc_swap rustls socket2 tokio tracing
admin | accept shares telemetry::metrics policy | http http_body_util hyper hyper_util tokio
echo | accept | futures_util http tokio tokio_tungstenite
args | api telemetry::format settings | clap
app | api telemetry::metrics telemetry::access settings content policy snapshot compile::guard compile::ownership compile::resolve compile
    source status issuance proxy admin echo | k8s_openapi rustix rustls serde_json tokio tracing
main | api telemetry::format telemetry::logging settings compile::provider args app | clap rustls tikv_jemallocator
";

/// Parts that may not name one another, whatever their order in the table.
const SIBLINGS: &[&str] = &["compile", "source", "status", "issuance", "proxy", "admin", "echo"];

/// Files that name one another in a circle, with the reason why that is right.
const KNOTS: &[(&[&str], &str)] = &[(
    &[
        "telemetry/metrics/certificate.rs",
        "telemetry/metrics/dependency.rs",
        "telemetry/metrics/duration.rs",
        "telemetry/metrics/message_size.rs",
        "telemetry/metrics/mod.rs",
        "telemetry/metrics/process.rs",
        "telemetry/metrics/route/families.rs",
        "telemetry/metrics/route/mod.rs",
        "telemetry/metrics/series.rs",
        "telemetry/metrics/source.rs",
    ],
    "Metrics holds what every subject declares, and the file of each subject adds its methods to Metrics",
)];

/// Words that say nothing of what a module is for.
const NO_NAMES: &[&str] =
    &["manager", "managers", "helper", "helpers", "util", "utils", "common", "handler", "handlers", "misc"];

/// Lines of product code of a file at most.
const LINES: usize = 500;
/// What the median of them stays below.
const MEDIAN: usize = 200;

/// The row that a path belongs to: that with the longest name.
fn row<'a, 'b>(table: &'a [Row<'b>], path: &[impl AsRef<str>]) -> Option<&'a Row<'b>> {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let within = |row: &&Row<'_>| {
        let name: Vec<&str> = row.part.split("::").collect();
        path.starts_with(&name)
    };
    table.iter().filter(within).max_by_key(|row| row.part.len())
}

fn top(name: &str) -> &str {
    name.split("::").next().unwrap_or_default()
}

/// What is wrong with the rows themselves.
fn judge_rows(table: &[Row<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, Row { part, may, .. }) in table.iter().enumerate() {
        for name in may {
            if !table[..at].iter().any(|above| above.part == *name) {
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
fn judge(table: &[Row<'_>], allowed: &[(&[&str], &str)], crates: &BTreeSet<String>, sources: &[Source]) -> Vec<String> {
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
        let Some(Row { part: own, may, crates: may_crates }) = row(table, &module) else {
            wrong.push(format!("{path}: {} has no row in the table of tests/layers.rs", module[0]));
            continue;
        };
        let mut found = Vec::new();
        for (line, name) in source.names() {
            let name: Vec<&str> = name.iter().map(String::as_str).collect();
            let file = (1..=name.len()).rev().find_map(|end| files.get(&name[..end]));
            if let Some(file) = file.filter(|file| *file != path) {
                edges.entry(path.clone()).or_default().insert((*file).to_owned());
            }
            let Some(Row { part, .. }) = row(table, &name) else { continue };
            // A part may name what lies within it; what lies within it may not name the part.
            if part == own || part.strip_prefix(own).is_some_and(|rest| rest.starts_with("::")) {
                continue;
            }
            match may.iter().find(|allowed| *allowed == part) {
                Some(allowed) => drop(used.insert((own, allowed))),
                None => found.push(format!("{path}:{line}: {own} may not import {part}")),
            }
        }
        for (line, name) in source.crates(crates) {
            match may_crates.iter().find(|allowed| **allowed == name) {
                Some(allowed) => drop(used.insert((own, allowed))),
                None => found.push(format!("{path}:{line}: {own} may not name the crate {name}")),
            }
        }
        found.dedup();
        wrong.append(&mut found);
    }
    for Row { part, may, crates } in table {
        for name in may.iter().chain(crates).filter(|name| !used.contains(&(part, name))) {
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
    let wrong = judge(&rows(TABLE), KNOTS, &crates, &sources);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_row_is_a_part_of_the_house() {
    for Row { part, .. } in rows(TABLE) {
        let path = root().join("src").join(part.replace("::", "/"));
        let exists = path.with_extension("rs").is_file() || path.join("mod.rs").is_file();
        assert!(exists, "{part} has a row but is not there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = "
ws | |
reason | ws |
proxy::io | ws | tokio
proxy::relay | proxy::io
    reason |
proxy | reason |
admin | |
";

    fn crates() -> BTreeSet<String> {
        ["http", "kube", "tokio"].map(String::from).into()
    }

    /// What is wrong with one made-up file, but for rows that it leaves unused.
    fn wrong(path: &str, text: &str) -> String {
        let source = Source::new(path, &format!("//! A module.\n{text}"));
        let mut wrong = judge(&rows(ROWS), &[], &crates(), &[source]);
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
        assert_eq!(
            wrong("proxy/io/mod.rs", "use crate::proxy::Proxy;\n"),
            "proxy/io/mod.rs:2: proxy::io may not import proxy"
        );
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
        let judge = |allowed: &[(&[&str], &str)]| judge(&rows("ws"), allowed, &BTreeSet::new(), &sources);
        assert_eq!(judge(&[]), ["in a circle: ws/a.rs, ws/b.rs, ws/c.rs"]);
        assert_eq!(judge(&[(&["ws/a.rs", "ws/b.rs", "ws/c.rs"], "a reason")]), [""; 0]);
        let stale: &[(&[&str], &str)] = &[(&["ws/a.rs", "ws/d.rs"], "a reason")];
        assert_eq!(judge(stale).len(), 2);
    }

    #[test]
    fn rows_that_are_wrong_are_found() {
        let judge = |table: &str| judge_rows(&rows(table)).join("\n");
        assert!(judge("ws | reason |\nreason | |").contains("not a row above"));
        assert!(judge("compile | |\nproxy | compile |").contains("its sibling compile"));
        assert!(judge("compile::tls | |\nproxy::io | compile::tls |").contains("its sibling"));
        assert_eq!(judge("compile::spec | |\ncompile::tls | compile::spec |"), "");
        let unused = super::judge(&rows(ROWS), &[], &crates(), &[Source::new("ws.rs", "//! A module.\n")]);
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
            judge(&rows("ws"), &[], &BTreeSet::new(), &sources)
        };
        assert_eq!(beside(file("ws/a.rs", LINES - 1, 5000)), Vec::<String>::new());
        assert!(beside(file("ws/a.rs", LINES, 0))[0].contains("501 lines"));
        let sources = [file("ws/a.rs", 250, 0), file("ws/b.rs", 250, 0)];
        assert!(judge(&rows("ws"), &[], &BTreeSet::new(), &sources)[0].contains("median"));
    }
}
