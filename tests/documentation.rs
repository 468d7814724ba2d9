//! Pages that are generated from the code fail here when they no longer say what the code does, and links between
//! pages when they lead nowhere.
//!
//! `UPDATE=1 cargo test --test files` writes the generated pages anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{drift, root, troubleshooting};
use wssgate::api::violation;
use wssgate::reason::Reason;
use wssgate::settings::GatewayConfiguration;
use wssgate::telemetry::initiator::Initiator;
use wssgate::telemetry::metrics::{Certificate, Direction, Metrics, Recheck, Verdict};

#[test]
fn the_page_of_reasons_is_the_table_of_the_code() {
    let mut page = String::from(
        "# Reasons\n\n\
         Why a handshake was refused or a connection ended: the `reason` of metrics and of the access log. Before the\n\
         101 the client sees the HTTP status, after the 101 the close code. A row with neither ends a connection without\n\
         an answer, or passes the peer's own close code on.\n\n\
         Each reason leads to its causes in [troubleshooting](troubleshooting.md), and to what mends them.\n\n\
         This page is generated from `src/reason.rs`; `UPDATE=1 cargo test --test files` writes it anew.\n\n\
         | reason | HTTP status | close code | meaning |\n|---|---|---|---|\n",
    );
    let number = |code: Option<u16>| code.map(|code| code.to_string()).unwrap_or_default();
    for reason in Reason::ALL {
        let (status, close) = (number(reason.http_status()), number(reason.close_code()));
        let (label, text) = (reason.label(), reason.text());
        let entry =
            troubleshooting::entry(label).unwrap_or_else(|| panic!("docs/troubleshooting.md has no entry of {label}"));
        writeln!(page, "| [`{label}`](troubleshooting.md#{entry}) | {status} | {close} | {text} |").unwrap();
    }
    drift("docs/reasons.md", &page);
}

/// One family of metrics, as it is scraped.
pub(crate) struct Family {
    /// The whole name of its samples; of a histogram, without `_bucket`, `_count` and `_sum`.
    pub(crate) name: String,
    /// Its type.
    pub(crate) kind: String,
    /// Names of its labels, in their order.
    pub(crate) labels: Vec<String>,
    /// What it means.
    pub(crate) help: String,
}

/// Every family of metrics, read from a scrape in which each has a series.
pub(crate) fn families() -> Vec<Family> {
    let metrics = Metrics::new();
    let route = metrics.route("namespace/name");
    route.audited(Reason::OriginDenied);
    route.dropped(Reason::MessageRateExceeded, 1);
    route.throttled(Reason::MessageRateExceeded);
    route.rechecked(Recheck::Denied);
    route.ended(Reason::Draining, Some(1001), Initiator::Gateway);
    metrics.certificates(vec![Certificate { secret: "s".into(), host: "h".into(), not_after: 1 }]);
    metrics.route("shop/chat").judged(Direction::FromClient, Some(&"say".into()), Verdict::Matched).inc();
    metrics.route("shop/chat").tunnel(Direction::FromClient, "ssh");
    metrics.jwks_fetched("https://idp.test/jwks", true, SystemTime::now());
    metrics.published(1, SystemTime::now());
    metrics.shared_store(true);
    metrics.store_memory(1, None);
    metrics.dependencies([("shared_store", "shared".to_owned(), false)].into_iter());
    scraped(&metrics.encode())
}

/// The families of an OpenMetrics text.
fn scraped(text: &str) -> Vec<Family> {
    let mut families = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            break;
        }
        let (base, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| {
            panic!("a sample that belongs to no family: {line}");
        });
        let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE ")?.strip_prefix(base)).unwrap().trim();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            "gauge" | "histogram" => "",
            other => panic!("{base}: {other} is no type of ours"),
        };
        let samples: Vec<&str> = std::iter::from_fn(|| lines.next_if(|line| !line.starts_with('#'))).collect();
        let sample = samples.first().unwrap_or_else(|| panic!("{base} has no series; `families` has to make one"));
        let labels = sample.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        families.push(Family {
            name: format!("{base}{suffix}"),
            kind: kind.to_owned(),
            labels: labels.filter(|label| label != "le").collect(),
            help: help.to_owned(),
        });
    }
    families
}

#[test]
fn the_page_of_metrics_is_what_is_scraped() {
    let mut page = String::from(
        "# Metrics\n\n\
         `GET /metrics` on the admin port, in the OpenMetrics text format. All numbers are those of one replica. Labels\n\
         come from objects of the cluster and from closed sets, never from what a client sends. `route` is\n\
         `namespace/name`, or `none` before a route was found; `reason` is one of [reasons.md](reasons.md). Series of a\n\
         route that was removed are scraped once more after its last connection ended, and then vanish.\n\n\
         Histograms count all routes together, so that ten thousand routes do not cost a hundred thousand series; the\n\
         exception is the time to connect to a backend, with seven series for each route that is used.\n\n\
         This page is generated from what the gateway itself says of its metrics (HELP and TYPE of a scrape);\n\
         `UPDATE=1 cargo test --test files` writes it anew.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help).unwrap();
    }
    drift("docs/metrics.md", &page);
}

/// Every file of a folder and of the folders in it, in order.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The metrics that a text names.
fn metric_names(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("wssgate_")).collect()
}

#[test]
fn every_metric_that_a_page_or_the_chart_names_exists() {
    let mut files: Vec<PathBuf> = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "charts/wssgate", "tests/install/golden"] {
        files.extend(files_below(&root().join(folder)));
    }
    let known: Vec<String> = families().into_iter().flat_map(samples).collect();
    let (mut found, mut unknown) = (0, Vec::new());
    // The page of metrics is generated from them.
    for file in files.iter().filter(|path| !path.ends_with("metrics.md")) {
        let text = fs::read_to_string(file).unwrap();
        for name in metric_names(&text) {
            found += 1;
            if !known.iter().any(|known| known == name) {
                unknown.push(format!("{}: {name}", file.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(found > 30, "{found} names");
    assert!(unknown.is_empty(), "\n{}\n", unknown.join("\n"));
}

/// The names of the samples of a family.
fn samples(family: Family) -> Vec<String> {
    if family.kind != "histogram" {
        return vec![family.name];
    }
    ["", "_bucket", "_count", "_sum"].map(|suffix| format!("{}{suffix}", family.name)).into()
}

#[test]
#[should_panic(expected = "b has no series")]
fn a_family_of_metrics_without_a_series_is_found() {
    let families = scraped("# HELP a An a.\n# TYPE a counter\na_total{x=\"1\",y=\"2,z=\"} 1\n# EOF\n");
    assert_eq!((families[0].name.as_str(), families[0].kind.as_str()), ("a_total", "counter"));
    assert_eq!((families[0].labels.join(" "), families[0].help.as_str()), ("x y".to_owned(), "An a."));
    scraped("# HELP b A b.\n# TYPE b gauge\n# EOF\n");
}

/// Groups of docs/threats.md and how many rows each has.
const THREATS: [(char, usize); 10] =
    [('A', 10), ('B', 22), ('C', 14), ('D', 15), ('E', 25), ('F', 21), ('G', 23), ('H', 24), ('I', 10), ('J', 7)];

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
fn paths_that_the_pages_of_contributors_name_exist() {
    let mut found = 0;
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for path in text.split('`').skip(1).step_by(2) {
            let is_path =
                path.contains('/') && [".rs", ".md", ".go", ".yaml", "/"].iter().any(|end| path.ends_with(end));
            if is_path && !path.contains(['<', '*', ' ']) {
                found += 1;
                let places = [root().join(path), root().join("src").join(path)];
                assert!(places.iter().any(|place| place.exists()), "{page}: {path} does not exist");
            }
        }
    }
    assert!(found > 60, "{found} paths");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut pages: Vec<PathBuf> = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.extend(files_below(&root().join("docs")));
    pages.retain(is_page);
    assert!(pages.len() > 30, "{pages:?}");
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for (target, anchor) in targets(&text) {
            let file = if target.is_empty() { page.clone() } else { page.parent().unwrap().join(&target) };
            let found = if anchor.is_empty() || !is_page(&file) {
                file.exists()
            } else {
                fs::read_to_string(&file).is_ok_and(|text| anchors(&text).contains(&anchor))
            };
            if !found {
                broken.push(format!("{}: {target}#{anchor}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// What the links of a page name in the repository: a file, empty for the page itself, and an anchor, empty for the
/// whole file.
fn targets(text: &str) -> Vec<(String, String)> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .map(|link| link.split_once('#').unwrap_or((link, "")))
        .map(|(file, anchor)| (file.to_owned(), anchor.to_owned()))
        .collect()
}

/// The anchors of a page: its headings in lower case, spaces as dashes, without punctuation.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let headings = headings.filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let letter = |c: char| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then(|| c.to_ascii_lowercase()),
    };
    headings.map(|heading| heading.chars().filter_map(letter).collect()).collect()
}

#[test]
fn links_are_found() {
    let found = targets("[a](b.md#c), [d](https://e.test), [f](#g), [h](i/)");
    let found: Vec<_> = found.iter().map(|(file, anchor)| (file.as_str(), anchor.as_str())).collect();
    assert_eq!(found, [("b.md", "c"), ("", "g"), ("i/", "")]);
    assert_eq!(anchors("# Is it, so?\n\n#no\ntext # text\n### A `b_c` - d\n"), ["is-it-so", "a-b_c---d"]);
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
fn the_examples_of_settings_are_settings() {
    let mut blocks = Vec::new();
    for file in files_below(&root().join("docs/operations")) {
        let page = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        blocks.extend(self::blocks(&page, "yaml").into_iter().map(|block| (name.clone(), block.to_owned())));
    }
    let whole: Vec<_> = blocks.iter().filter(|(_, block)| block.contains("kind: GatewayConfiguration")).collect();
    assert_eq!((whole.len(), blocks.len()), (1, 4), "{blocks:?}");
    // One is a whole file, the others are members of one.
    let head: String = whole[0].1.lines().take(2).map(|line| format!("{line}\n")).collect();
    for (name, block) in &blocks {
        let text = if block.starts_with(&head) { block.clone() } else { format!("{head}{block}") };
        if let Err(error) = GatewayConfiguration::parse(name, &text) {
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
