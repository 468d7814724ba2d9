//! What the gateway is built from, checked against `deny.toml` without any further tool: no banned crate, only licences
//! that are allowed, only crates.io. Images and actions of others are named by digest, and for every kind of manifest
//! somebody proposes updates.
//!
//! cargo-deny knows more (duplicates, the texts of licences, advisories) and reads the same file.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::documentation::files_below;
use crate::root;

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The quoted strings of a list of `deny.toml`, comments left out.
fn list(deny: &str, section: &str, key: &str) -> BTreeSet<String> {
    let section = deny.split(&format!("[{section}]\n")).nth(1).unwrap_or_else(|| panic!("no [{section}]"));
    let list = section.split(&format!("{key} = [")).nth(1).unwrap_or_else(|| panic!("no {key}"));
    let lines = list.lines().take_while(|line| line.trim() != "]").filter(|line| !line.trim().starts_with('#'));
    let line_of_one = |line: &str| line.split('"').nth(1).map(str::to_owned);
    lines.filter_map(line_of_one).collect()
}

/// Every crate that a build on this machine can use, with any feature, tests and build scripts included, with its licence.
/// Not offline: nobody else may have fetched what only a feature needs.
fn tree() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--all-features", "--edges", "normal,build,dev"])
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let all: BTreeSet<_> = lines
        .lines()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, licence)| (package.split(' ').next().unwrap_or_default().to_owned(), licence.to_owned()))
        .collect();
    all.into_iter().collect()
}

/// The crates with a licence that is allowed for them alone.
fn exceptions(deny: &str) -> Vec<(String, String)> {
    let lists = deny.split("exceptions = [").nth(1).and_then(|rest| rest.split("\n]").next()).unwrap_or_default();
    let words = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let lines = lists.lines().map(words).filter(|words| words.len() > 1);
    lines
        .flat_map(|words| words[1..].iter().map(|licence| (words[0].clone(), licence.clone())).collect::<Vec<_>>())
        .collect()
}

fn banned(deny: &str, tree: &[(String, String)]) -> Vec<String> {
    let bans = list(deny, "bans", "deny");
    tree.iter().filter(|(name, _)| bans.contains(name)).map(|(name, _)| name.clone()).collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is the old way to write OR; an exception after
/// WITH only widens.
fn met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let verdict = either(&words, &mut at, allowed);
    verdict && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= both(words, at, allowed);
    }
    verdict
}

fn both(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(words, at, allowed);
    }
    verdict
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words.get(*at);
    *at += 1;
    // Past the end: the caller sees that more was read than there is.
    let Some(word) = word else { return false };
    if *word == "(" {
        let verdict = either(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return verdict && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        *at += 2;
    }
    allowed.contains(*word)
}

#[test]
fn no_crate_of_the_tree_is_banned() {
    let tree = tree();
    assert!(tree.len() > 50, "{tree:?}");
    assert_eq!(banned(&text("deny.toml"), &tree), Vec::<String>::new());
}

#[test]
fn every_licence_of_the_tree_is_allowed() {
    let deny = text("deny.toml");
    let (allowed, exceptions) = (list(&deny, "licenses", "allow"), exceptions(&deny));
    assert!(!exceptions.is_empty());
    let tree = tree();
    for (krate, licence) in &tree {
        let more = exceptions.iter().filter(|(name, _)| name == krate).map(|(_, licence)| licence.clone());
        assert!(met(licence, &allowed.iter().cloned().chain(more).collect()), "{krate}: {licence}");
    }
    for (krate, licence) in &exceptions {
        let used = tree.iter().any(|(name, used)| name == krate && used.contains(licence.as_str()));
        assert!(used, "{krate} does not have the licence {licence}, for which there is an exception");
    }
    for licence in &allowed {
        assert!(tree.iter().any(|(_, used)| used.contains(licence.as_str())), "{licence} is allowed but not used");
    }
}

#[test]
fn every_crate_comes_from_crates_io() {
    let sources = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let lock = text("Cargo.lock");
    let foreign: Vec<_> = lock.lines().filter(|line| line.starts_with("source = ") && *line != sources).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    // A package without a source is a path dependency; the only ones are ourselves and our fuzz targets.
    let packages = lock.split("[[package]]").skip(1).filter(|package| !package.contains("\nsource = "));
    let local: Vec<_> = packages.filter_map(|package| package.lines().find(|line| line.starts_with("name"))).collect();
    assert_eq!(local, ["name = \"wssgate\"", "name = \"wssgate-fuzz\""]);
}

/// Actions of others that a workflow names without the digest of a commit and the version that it is.
fn unpinned_actions(workflow: &str) -> Vec<&str> {
    let uses = workflow.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("uses: "));
    uses.filter(|action| !action.starts_with("./"))
        .filter(|action| {
            let pinned = action.split_once('@').and_then(|(_, rest)| rest.split_once(" # v"));
            !pinned.is_some_and(|(digest, version)| is_hex(digest, 40) && !version.is_empty())
        })
        .collect()
}

/// Images of others that a Dockerfile builds from without a digest.
fn unpinned_images(dockerfile: &str) -> Vec<&str> {
    let mut stages = vec!["scratch"];
    let mut unpinned = Vec::new();
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let mut words = line.split(' ').filter(|word| !word.starts_with("--"));
        let image = words.next().unwrap_or_default();
        if !stages.contains(&image) && !image.rsplit_once("@sha256:").is_some_and(|(_, digest)| is_hex(digest, 64)) {
            unpinned.push(image);
        }
        stages.extend(words.nth(1));
    }
    unpinned
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn actions_and_base_images_are_named_by_digest() {
    let workflows = files_below(&root().join(".github/workflows"));
    assert!(workflows.len() >= 3, "{workflows:?}");
    for file in workflows {
        assert_eq!(unpinned_actions(&fs::read_to_string(&file).unwrap()), Vec::<&str>::new(), "{}", file.display());
    }
    assert_eq!(unpinned_images(&text("Dockerfile")), Vec::<&str>::new());
    let digest = "0123456789abcdef".repeat(4);
    let of = |action: &str| unpinned_actions(&format!("jobs:\n    - uses: {action}\n")).len();
    assert_eq!(
        (of("a/b@v4"), of(&format!("a/b@{}", &digest[..40])), of(&format!("a/b@{} # v4", &digest[..39]))),
        (1, 1, 1)
    );
    assert_eq!((of("./.github/workflows/test.yaml"), of(&format!("a/b@{} # v4.2.2", &digest[..40]))), (0, 0));
    let from =
        |image: &str| unpinned_images(&format!("FROM {image} AS build\nFROM build AS last\nFROM scratch\n")).len();
    assert_eq!((from("rust:1"), from(&format!("rust:1@sha256:{}", &digest[..63])), from("${RUST}")), (1, 1, 1));
    assert_eq!(from(&format!("--platform=linux/amd64 rust:1@sha256:{digest}")), 0);
}

/// The folders in which Dependabot looks for what an ecosystem needs; a last `*` stands for one folder.
fn watched(dependabot: &Value, ecosystem: &str) -> Vec<String> {
    let updates = dependabot["updates"].as_array().unwrap().iter();
    let mut folders = Vec::new();
    for update in updates.filter(|update| update["package-ecosystem"] == ecosystem) {
        let several = update["directories"].as_array().cloned().unwrap_or_default();
        folders.extend(several.iter().chain([&update["directory"]]).filter_map(Value::as_str).map(str::to_owned));
    }
    folders
}

#[test]
fn updates_are_proposed_for_every_manifest() {
    let dependabot: Value = serde_saphyr::from_str(&text(".github/dependabot.yml")).unwrap();
    let mut files: Vec<_> =
        ["tests", "fuzz", ".github"].iter().flat_map(|folder| files_below(&root().join(folder))).collect();
    files.extend(["Cargo.toml", "Dockerfile"].map(|file| root().join(file)));
    let mut found = BTreeSet::new();
    for file in files {
        let path = file.strip_prefix(root()).unwrap();
        // A member of the workspace has its versions in the one lock file.
        let ecosystem = match path.file_name().unwrap().to_str().unwrap() {
            "Cargo.toml" if path.parent().unwrap().as_os_str().is_empty() => "cargo",
            "Dockerfile" => "docker",
            "go.mod" => "gomod",
            "package.json" => "npm",
            "requirements.txt" => "pip",
            _ if path.starts_with(".github/workflows") => "github-actions",
            _ => continue,
        };
        found.insert(ecosystem);
        let folder = if ecosystem == "github-actions" {
            "/".to_owned()
        } else {
            format!("/{}", path.parent().unwrap().display())
        };
        let is_watched = |pattern: &String| match pattern.strip_suffix("/*") {
            Some(above) => folder.rsplit_once('/').is_some_and(|(parent, _)| parent == above),
            None => *pattern == folder,
        };
        assert!(
            watched(&dependabot, ecosystem).iter().any(is_watched),
            "nobody proposes updates of {}",
            path.display()
        );
    }
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn a_banned_crate_is_found() {
    let deny = "[bans]\ndeny = [\n    # { crate = \"fine\" },\n    { crate = \"ring\" },\n]\n";
    let tree = ["fine", "ring", "rings"].map(|name| (name.to_owned(), "MIT".to_owned()));
    assert_eq!(banned(deny, &tree), ["ring"]);
}

#[test]
fn a_licence_is_judged_as_an_expression() {
    let allowed: BTreeSet<String> = ["MIT", "ISC"].map(str::to_owned).into();
    for fine in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "ISC AND (GPL-3.0 OR MIT)", "MIT WITH X", "(MIT)"] {
        assert!(met(fine, &allowed), "{fine}");
    }
    for wrong in ["", "GPL-3.0", "MIT AND GPL-3.0", "MIT OR", "ISC AND (GPL-3.0", "mit", "MIT ISC"] {
        assert!(!met(wrong, &allowed), "{wrong}");
    }
}
