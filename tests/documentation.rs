//! Pages that are generated from the code fail here when they no longer say what the code does, and links between
//! pages when they lead nowhere.
//!
//! `UPDATE=1 cargo test --test files` writes the generated pages anew.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::{drift, root};
use wssgate::api::violation;
use wssgate::reason::Reason;
use wssgate::settings::GatewayConfiguration;
use wssgate::telemetry::metrics::CATALOGUE;

#[test]
fn the_page_of_reasons_is_the_table_of_the_code() {
    let mut page = String::from(
        "# Reasons\n\n\
         Why a handshake was refused or a connection ended: the `reason` of metrics and of the access log. Before the\n\
         101 the client sees the HTTP status, after the 101 the close code. A row with neither ends a connection without\n\
         an answer, or passes the peer's own close code on.\n\n\
         This page is generated from `src/reason.rs`; `UPDATE=1 cargo test --test files` writes it anew.\n\n\
         | reason | HTTP status | close code | meaning |\n|---|---|---|---|\n",
    );
    let number = |code: Option<u16>| code.map(|code| code.to_string()).unwrap_or_default();
    for reason in Reason::ALL {
        let (status, close) = (number(reason.http_status()), number(reason.close_code()));
        writeln!(page, "| `{}` | {status} | {close} | {} |", reason.label(), reason.text()).unwrap();
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
         This page is generated from `src/telemetry/metrics.rs`; `UPDATE=1 cargo test --test files` writes it\n\
         anew.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in CATALOGUE {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help).unwrap();
    }
    drift("docs/metrics.md", &page);
}

/// Groups of docs/threats.md and how many rows each has.
const THREATS: [(char, usize); 9] =
    [('A', 10), ('B', 22), ('C', 14), ('D', 15), ('E', 20), ('F', 21), ('G', 17), ('H', 23), ('J', 7)];

#[test]
fn every_threat_has_a_test_that_exists_or_says_why_not() {
    let page = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_uppercase())
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let expected: Vec<String> =
        THREATS.iter().flat_map(|(group, rows)| (1..=*rows).map(move |row| format!("{group}{row}"))).collect();
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(ids, expected);
    let mut tests = 0;
    for row in rows {
        assert_eq!(row.len(), 4, "{row:?}");
        for test in row[3].split('`').skip(1).step_by(2) {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{}: {test} is no test", row[0]));
            let (file, start) = match file {
                _ if file.starts_with("src/") => (format!("{file}.rs"), "fn"),
                _ if file.starts_with("install/") => (format!("tests/{file}_test.go"), "func"),
                _ => (format!("tests/{file}.rs"), "fn"),
            };
            let text = fs::read_to_string(root().join(&file)).unwrap_or_default();
            assert!(text.contains(&format!("{start} {name}(")), "{}: {file} has no test {name}", row[0]);
            if file.starts_with("tests/cluster/") {
                // A function that is not in the list at the file's end is never run.
                let listed = text.split_once("tests![").is_some_and(|(_, list)| list.contains(name));
                assert!(listed, "{}: {file} does not list {name}", row[0]);
            }
            tests += 1;
        }
        let said = ["`", "later: ", "none: ", "none as a whole: "].iter().any(|start| row[3].starts_with(start));
        assert!(said, "{}: neither a test nor a reason: {}", row[0], row[3]);
    }
    assert!(tests > 120, "{tests} tests");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages: Vec<PathBuf> = Vec::new();
    for folder in [root().to_owned(), root().join("docs"), root().join("docs/design")] {
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

/// The texts of the fenced blocks of a language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    page.split(open.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_examples_of_routes_are_routes() {
    let page = fs::read_to_string(root().join("docs/routes.md")).unwrap();
    let blocks = blocks(&page, "yaml");
    assert!(blocks.len() >= 3, "{blocks:?}");
    let value =
        |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let whole = blocks.iter().filter(|block| block.contains("kind: SecureWebSocketRoute")).map(|block| value(block));
    let mut routes: Vec<_> = whole.collect();
    assert!(!routes.is_empty());
    // The other blocks are parts of a specification: each stands in for its part of the first route.
    for block in blocks.iter().filter(|block| !block.contains("kind:")) {
        let mut route = routes[0].clone();
        for (part, value) in value(block).as_object().unwrap() {
            route["spec"][part] = value.clone();
        }
        routes.push(route);
    }
    let page = fs::read_to_string(root().join("docs/authentication.md")).unwrap();
    let ways = self::blocks(&page, "yaml");
    assert_eq!(ways.len(), 5);
    routes.extend(ways.iter().map(|block| value(block)));
    for route in &routes {
        let found = violation::of_route(route);
        assert!(found.is_empty(), "{found:?}\n{route:#}");
    }
}

#[test]
fn the_example_of_settings_is_one() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let blocks = blocks(&page, "yaml");
    assert_eq!(blocks.len(), 3);
    // The first is a whole file, the others are members of one.
    let head: String = blocks[0].lines().take(2).map(|line| format!("{line}\n")).collect();
    let parts = blocks[1..].iter().map(|block| format!("{head}{block}"));
    for text in parts.chain([blocks[0].to_owned()]) {
        if let Err(error) = GatewayConfiguration::parse("docs/operations.md", &text) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_quickstart_has_nothing_that_an_api_server_would_refuse() {
    let text = fs::read_to_string(root().join("manifests/quickstart/route.yaml")).unwrap();
    // What the comments propose is read as well: each `# field: value` that is YAML of its place.
    let proposed: String = text.lines().map(|line| propose(line) + "\n").collect();
    assert_ne!(text, proposed);
    for text in [text, proposed] {
        let route: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let found = violation::of_route(&route);
        assert!(found.is_empty(), "{found:?}\n{text}");
    }
}

/// A line with the field that its comment proposes, if it does.
fn propose(line: &str) -> String {
    let Some((indent, comment)) = line.split_once("# ") else { return line.to_owned() };
    let is_field = indent.trim().is_empty() && comment.split_once(": ").is_some_and(|(key, _)| !key.contains(' '));
    if is_field { format!("{indent}{comment}") } else { line.to_owned() }
}

/// What a route may say but this version does not carry out is listed, so that nobody has to find out by trying.
#[test]
fn every_unsupported_field_is_named_in_the_documentation() {
    let page = fs::read_to_string(root().join("docs/routes.md")).unwrap();
    let section = page.split("## Not in this version").nth(1).unwrap();
    let mut fields = Vec::new();
    for entry in fs::read_dir(root().join("src/compile/spec")).unwrap() {
        fields.extend(unsupported(&fs::read_to_string(entry.unwrap().path()).unwrap()));
    }
    assert!(!fields.is_empty(), "no call was found");
    let missing: Vec<_> = fields.iter().filter(|field| !section.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "docs/routes.md does not name {missing:?}");
}

/// The fields that a source text reports as unsupported: the paths in the calls, without `spec.` and placeholders.
fn unsupported(source: &str) -> Vec<String> {
    let product = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    product
        .split(".unsupported")
        .skip(1)
        .filter_map(|call| call.strip_prefix('(').or_else(|| call.strip_prefix("_value("))?.split('"').nth(1))
        .map(|path| path.trim_start_matches("spec.").trim_start_matches("{}.").trim_start_matches("{field}."))
        .map(|path| path.split([':', '[']).next().unwrap_or_default().to_owned())
        .filter(|path| path.contains('.'))
        .collect()
}

#[test]
fn unsupported_fields_are_found_in_calls() {
    let source = r#"
        diagnostics.unsupported("spec.tls.issuerRef");
        diagnostics.unsupported_value(set.field("messages.mode"), "Audit");
        diagnostics.unsupported_value(format_args!("spec.tls.alpnProtocols[{index}]"), "h2");
    "#;
    assert_eq!(unsupported(source), ["tls.issuerRef", "messages.mode", "tls.alpnProtocols"]);
}
