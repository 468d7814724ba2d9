//! Words that were replaced stay away. Each retired word or phrase stands here with what to say instead, and is searched
//! in what people read: the pages, the texts of the chart, the manifests and, where it is unambiguous, the source.
//!
//! The changelog may name them, since it says what was renamed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::documentation::files_below;
use crate::root;

/// A retired word or phrase, and what to say instead. One that ends in `_` is the beginning of a name.
type Retired = (&'static str, &'static str);

/// Retired in every text, and in the source too.
const EVERYWHERE: &[Retired] = &[
    // Parts of the gateway.
    ("preamble", "PROXY protocol header, proxy_protocol"),
    ("purchase", "ticket endpoint"),
    ("vault", "host certificates"),
    ("meters", "limits or metrics"),
    ("fence", "blocked addresses"),
    ("never dialled", "blocked addresses, never connects to"),
    ("stock", "object cache"),
    ("shelf", "object cache"),
    ("holdings", "ownership"),
    ("bell", "changed"),
    ("bought", "issued for"),
    ("buys", "is issued for"),
    ("sold", "issued"),
    ("upstream_", "backend_"),
    ("lets nobody in", "refuses new connections, admits no client"),
    ("nobody is let in", "new connections are refused, no client is admitted"),
    // Reasons.
    ("too_many_attempts", "handshake_rate_limit"),
    ("handshake_limit", "tls_queue_full"),
    ("dial_failed", "backend_connect_failed"),
    ("dial_timeout", "backend_connect_timeout"),
    // Metrics.
    ("settings_current", "config_last_reload_successful"),
    ("definition_differs", "crd_outdated"),
    ("audited_total", "audit_violations_total"),
    ("wssgate_bytes_total", "wssgate_payload_bytes_total"),
    ("closes_total", "connections_closed_total"),
    ("source_skipped_objects", "manifests_skipped"),
    ("source_problems", "manifests_invalid"),
    ("dependency_failing", "dependency_up"),
    ("key_set_age_seconds", "jwks_last_success_timestamp_seconds"),
    ("key_set_fetches_total", "jwks_fetches_total"),
    ("snapshot_age_seconds", "snapshot_timestamp_seconds"),
    ("endpoint_connections_max", "busiest_endpoint_connections"),
    ("access_log_dropped_total", "access_log_lines_dropped_total"),
];

/// Retired in texts only: the source has them in identifiers or in another sense.
const IN_TEXTS: &[Retired] = &[
    ("handshake.attempts", "handshake.rateLimit"),
    ("left_out", "suppressed"),
    ("built in", "default"),
    ("built-in", "default"),
    ("dialled", "connected to"),
    ("sells", "issues"),
    ("from which on", "above which"),
    ("what a replica carries", "Capacity"),
    ("what stays your task", "Your responsibilities"),
    ("a store that replicas share", "Shared store (Redis)"),
    ("the store that replicas share", "the shared store"),
    ("who the client is", "Client IP behind proxies, the client's address"),
    ("no longer a problem", "problem resolved"),
    ("are answered with 503", "answer 503"),
    ("nobody is a subject", "perSubject needs an authenticated client"),
];

/// A text in lower case on one line, without the marks of comments, headings and lists, so that a phrase is found that
/// goes on in the next line; and where each of its lines begins.
fn flat(text: &str) -> (String, Vec<usize>) {
    let (mut flat, mut starts) = (String::new(), Vec::new());
    for line in text.lines() {
        starts.push(flat.len());
        let line = line.trim_start_matches([' ', '\t', '/', '!', '#', '>', '*', '-']);
        for word in line.split_whitespace() {
            flat.push_str(&word.to_lowercase());
            flat.push(' ');
        }
    }
    (flat, starts)
}

/// The retired words that a text says, each with its line. A word is whole where neither a letter, a digit nor `_` stands
/// before it or behind it. The name of a metric is also found behind its prefix.
fn retired(text: &str, words: &[Retired]) -> Vec<(usize, Retired)> {
    let (flat, starts) = flat(text);
    let mut found = Vec::new();
    for &(word, instead) in words {
        for (at, _) in flat.match_indices(word) {
            let before = &flat[..at];
            let behind = flat[at + word.len()..].chars().next();
            let begins = before.ends_with("wssgate_") || !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let ends = word.ends_with('_') || behind.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            if begins && ends {
                found.push((starts.partition_point(|start| *start <= at), (word, instead)));
            }
        }
    }
    found
}

/// The files with these extensions in a folder and below.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = files_below(&root().join(folder));
    files.retain(|path| path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension)));
    files
}

#[test]
fn words_that_are_no_longer_ours_are_in_no_text() {
    let mut texts: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|page| root().join(page)).into();
    texts.extend(files("docs", &["md"]));
    texts.extend(files("charts", &["md", "yaml", "json", "txt", "tpl"]));
    texts.extend(files("manifests", &["md", "yaml", "lua"]));
    let source = files("src", &["rs"]);
    assert!(texts.len() > 60 && source.len() > 150, "{} texts, {} sources", texts.len(), source.len());
    let mut hits = Vec::new();
    let mut search = |path: &Path, words: &[Retired]| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let found = retired(&fs::read_to_string(path).unwrap(), words);
        hits.extend(found.into_iter().map(|(line, (word, instead))| format!("{name}:{line}: {word}; say {instead}")));
    };
    for path in texts.iter().chain(&source) {
        search(path, EVERYWHERE);
    }
    for path in &texts {
        search(path, IN_TEXTS);
    }
    assert!(hits.is_empty(), "\n{}\n", hits.join("\n"));
}

#[test]
fn a_retired_word_is_found_whole_in_any_case_and_across_lines() {
    let words: &[Retired] = &[("fence", "x"), ("closes_total", "x"), ("upstream_", "x"), ("built in", "x")];
    let found = |text: &str| -> Vec<(usize, &'static str)> {
        retired(text, words).into_iter().map(|(line, (word, _))| (line, word)).collect()
    };
    assert_eq!(found("# A\n\nThe *Fence*, fences, defence, fence_post\n"), [(3, "fence")]);
    assert_eq!(found("`wssgate_closes_total`, wssgate_closes_total_x"), [(1, "closes_total")]);
    assert_eq!(found("a\nreason upstream_refused; nginx's upstream\n"), [(2, "upstream_")]);
    assert_eq!(found("    /// One that is built\n    /// in, and\n\none built inside"), [(1, "built in")]);
    assert_eq!(found("- A word that is ours\n"), []);
}

#[test]
fn retired_words_are_written_as_they_are_searched() {
    for &(word, instead) in EVERYWHERE.iter().chain(IN_TEXTS) {
        assert_eq!(word, word.to_lowercase(), "it would never be found");
        assert!(retired(instead, &[(word, instead)]).is_empty(), "{word}: {instead} has the word itself");
    }
}
