//! Each cause of a refusal stands in `docs/refusals.md` beside the second reading or the attack that it prevents.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code of a file without its tests.
fn product(path: &str) -> String {
    read(path).split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// The variants of an enum without fields.
fn variants(path: &str, name: &str) -> BTreeSet<String> {
    let text = product(path);
    let body = text.split_once(&format!("pub enum {name} {{")).and_then(|(_, rest)| rest.split_once('}')).unwrap().0;
    let lines = body.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.filter_map(|line| line.strip_suffix(',')).map(str::to_owned).collect()
}

/// The first column of the table below a heading. No row lacks its second.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let section = page.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n"))).unwrap();
    let rows: Vec<(&str, &str)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .inspect(|(cause, prevents)| assert!(prevents.len() > 8, "{cause} prevents nothing: accept it"))
        .collect();
    let causes: BTreeSet<String> = rows.iter().map(|(cause, _)| (*cause).to_owned()).collect();
    assert_eq!(causes.len(), rows.len(), "a cause of {heading} stands there twice");
    causes
}

#[test]
fn every_refusal_says_what_it_prevents() {
    let page = read("docs/refusals.md");
    assert_eq!(rows(&page, "Requests"), variants("src/ws/upgrade/request.rs", "RequestError"));
    assert_eq!(rows(&page, "Answers of backends"), variants("src/ws/upgrade/response.rs", "ResponseError"));

    let mut reasons = BTreeSet::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy");
    for file in fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        // Messages of open connections are no handshakes.
        if name == "message_rate.rs" {
            continue;
        }
        let code: Vec<String> = product(&format!("src/policy/{name}"))
            .lines()
            .filter(|l| !l.trim().starts_with("//"))
            .map(Into::into)
            .collect();
        let code = code.join("\n");
        let named = code
            .split("Reason::")
            .skip(1)
            .map(|rest| rest.chars().take_while(|letter| letter.is_ascii_alphanumeric()).collect::<String>());
        reasons.extend(named.filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase())));
    }
    assert_eq!(rows(&page, "Policy"), reasons);

    let keys = product("src/policy/keys.rs");
    let texts = keys
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|text| ["is ", "has ", "lacks ", "cannot "].iter().any(|verb| text.starts_with(verb)));
    assert_eq!(rows(&page, "Keys of tokens"), texts.map(str::to_owned).collect::<BTreeSet<_>>());
}
