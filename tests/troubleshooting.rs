//! `docs/troubleshooting.md` has an entry for every reason of a refusal, of an end and of a condition.

use std::fs;

use crate::documentation::anchors;
use crate::root;

/// The anchor of the first entry that explains a name, which stands there as code.
pub(crate) fn entry(name: &str) -> Option<String> {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    entry_of(&page, name)
}

fn entry_of(page: &str, name: &str) -> Option<String> {
    let (before, _) = page.split_once(&format!("`{name}`"))?;
    anchors(before).pop()
}

#[test]
fn every_type_and_reason_of_a_condition_has_an_entry() {
    let source = fs::read_to_string(root().join("src/api/status.rs")).unwrap();
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.strip_suffix("\","))
        .collect();
    assert!(names.len() > 50, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| entry(name).is_none()).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md has no entry of {missing:?}");
}

#[test]
fn an_entry_is_found_by_the_heading_above_it() {
    let page = "# Page\n\n## The first\n\n| `a` | b |\n\n### A second\n\n`c`, and `a` again\n";
    assert_eq!(entry_of(page, "a").as_deref(), Some("the-first"));
    assert_eq!(entry_of(page, "c").as_deref(), Some("a-second"));
    assert_eq!(entry_of(page, "b"), None);
}
