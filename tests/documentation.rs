//! Pages that are generated from the code fail here when they no longer say what the code does, and links between
//! pages when they lead nowhere.
//!
//! `UPDATE=1 cargo test --test documentation` writes the generated pages anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use wssgate::reason::Reason;
use wssgate::telemetry::metrics::CATALOGUE;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Compares the page with what it shall be, or writes it.
fn drift(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is stale; run UPDATE=1 cargo test --test documentation and commit it");
}

/// The documentation comment of a variant, on one line, fit for a table.
fn meaning(source: &str, variant: &str) -> String {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| *line == format!("{variant},")).unwrap_or_else(|| panic!("no {variant}"));
    let first = lines[..at].iter().rposition(|line| !line.starts_with("///")).map_or(0, |before| before + 1);
    let text: Vec<&str> = lines[first..at].iter().map(|line| line.trim_start_matches("///").trim()).collect();
    assert!(!text.is_empty(), "{variant} has no documentation");
    text.join(" ").replace('|', "\\|")
}

#[test]
fn the_page_of_reasons_is_the_table_of_the_code() {
    let source = fs::read_to_string(root().join("src/reason.rs")).unwrap();
    let mut page = String::from(
        "# Reasons\n\n\
         Why a handshake was refused or a connection ended: the `reason` of metrics and of the access log. Before the\n\
         101 the client sees the HTTP status, after it the close code. Where neither is given, there is no answer to\n\
         send, or the peer's own code is carried through.\n\n\
         This page is generated from `src/reason.rs`; `UPDATE=1 cargo test --test documentation` writes it anew.\n\n\
         | reason | HTTP status | close code | meaning |\n|---|---|---|---|\n",
    );
    let number = |code: Option<u16>| code.map(|code| code.to_string()).unwrap_or_default();
    for reason in Reason::ALL {
        let (status, close) = (number(reason.http_status()), number(reason.close_code()));
        let meaning = meaning(&source, &format!("{reason:?}"));
        writeln!(page, "| `{}` | {status} | {close} | {meaning} |", reason.label()).unwrap();
    }
    drift("docs/reasons.md", &page);
}

#[test]
fn the_page_of_metrics_is_the_catalogue_of_the_code() {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin port, in the OpenMetrics text format. All numbers are those of one replica. Labels\n\
         come from route objects and closed sets only, never from what a client sends. `route` is `namespace/name`, or\n\
         `none` before a route was found; `reason` is one of [reasons.md](reasons.md). Series of a route that was\n\
         removed are scraped once more after its last connection ended, and then vanish.\n\n\
         This page is generated from `src/telemetry/metrics.rs`; `UPDATE=1 cargo test --test documentation` writes it\n\
         anew.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in CATALOGUE {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help).unwrap();
    }
    drift("docs/metrics.md", &page);
}

#[test]
fn the_meaning_of_a_reason_is_found_whole() {
    let source = "enum Reason {\n    /// One\n    /// two.\n    A,\n    // Group.\n    /// Three | four.\n    B,\n}\n";
    assert_eq!(meaning(source, "A"), "One two.");
    assert_eq!(meaning(source, "B"), "Three \\| four.");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages: Vec<PathBuf> = Vec::new();
    for folder in [root(), root().join("docs"), root().join("docs/design")] {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    assert!(pages.len() > 5, "{pages:?}");
    let mut broken = Vec::new();
    for page in &pages {
        for target in targets(&fs::read_to_string(page).unwrap()) {
            if !page.parent().unwrap().join(&target).exists() {
                broken.push(format!("{}: {target}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// What the links of a page name in the repository, without anchors.
fn targets(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|link| link.split('#').next().unwrap_or_default().to_owned())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

#[test]
fn links_are_found() {
    assert_eq!(targets("[a](b.md#c), [d](https://e.test), [f](#g), [h](i/)"), ["b.md", "i/"]);
}
