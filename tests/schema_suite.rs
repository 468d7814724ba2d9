//! The JSON-Schema-Test-Suite (MIT), as the source archive of PyPI's `jsonschema` ships it: a schema means here what the
//! authors of JSON Schema say, but for what is listed below with its reason.

use std::fs;
use std::path::Path;

use serde_json::Value;
use wssgate::content::json::{self, MAX_VALUES};
use wssgate::content::schema::{Documents, Schema};

use crate::documentation::files_below;
use crate::harness::packages;

/// The drafts, how schemas name them, and how many documents the suite has for each at least.
const DRAFTS: [(&str, &str, usize); 5] = [
    ("draft4", "http://json-schema.org/draft-04/schema#", 850),
    ("draft6", "http://json-schema.org/draft-06/schema#", 1_100),
    ("draft7", "http://json-schema.org/draft-07/schema#", 1_400),
    ("draft2019-09", "https://json-schema.org/draft/2019-09/schema", 1_300),
    ("draft2020-12", "https://json-schema.org/draft/2020-12/schema", 1_300),
];

/// What a disagreement must say.
const DYNAMIC: &str = "so its cost cannot be known; use $ref";
const METASCHEMA: &str = "names a $schema that is not a draft of JSON Schema";
const PASSES: &str = "passes";

/// Every disagreement by the beginning of its name, and what it says.
const APART: &[(&str, &str)] = &[
    // `$recursiveRef` and `$dynamicRef` are refused: which schema they lead to depends on the message.
    ("draft2019-09/recursiveRef.json: ", DYNAMIC),
    ("draft2019-09/unevaluatedItems.json: unevaluatedItems with $recursiveRef", DYNAMIC),
    ("draft2019-09/unevaluatedProperties.json: unevaluatedProperties with $recursiveRef", DYNAMIC),
    ("draft2020-12/dynamicRef.json: ", DYNAMIC),
    ("draft2020-12/optional/dynamicRef.json: ", DYNAMIC),
    ("draft2020-12/unevaluatedItems.json: unevaluatedItems with $dynamicRef", DYNAMIC),
    ("draft2020-12/unevaluatedProperties.json: unevaluatedProperties with $dynamicRef", DYNAMIC),
    // The schemas of these drafts themselves are written with them.
    ("draft2019-09/defs.json: validate definition against metaschema", DYNAMIC),
    ("draft2019-09/ref.json: remote ref, containing refs itself", DYNAMIC),
    ("draft2020-12/defs.json: validate definition against metaschema", DYNAMIC),
    ("draft2020-12/ref.json: remote ref, containing refs itself", DYNAMIC),
    // A `$schema` of one's own could change what keywords mean.
    ("draft2019-09/vocabulary.json: ", METASCHEMA),
    ("draft2020-12/vocabulary.json: ", METASCHEMA),
    ("draft2020-12/optional/format-assertion.json: ", METASCHEMA),
    // These formats are not judged: two need the tables of international names, the other would compile what clients write.
    ("draft7/optional/format/idn-email.json: ", PASSES),
    ("draft7/optional/format/idn-hostname.json: ", PASSES),
    (
        "draft7/optional/format/regex.json: validation of regular expressions: a regular expression with unclosed",
        PASSES,
    ),
];

#[test]
fn a_schema_means_what_the_suite_of_json_schema_says() {
    let suite = packages::source_of("jsonschema", "4.26.0").join("json");
    let mut found = Vec::new();
    for (draft, uri, least) in DRAFTS {
        let (remotes, mut judged) = (remotes(&suite, draft), 0);
        for file in files_below(&suite.join("tests").join(draft)) {
            let name = file.strip_prefix(suite.join("tests")).unwrap().display().to_string();
            // From 2019-09 on, `format` judges nothing unless a `$schema` of one's own says so.
            if name.starts_with("draft20") && name.contains("/optional/format/") {
                continue;
            }
            let groups: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            for group in groups.as_array().unwrap() {
                let mut documents = remotes.clone();
                documents.insert("schema".to_owned(), schema(group, uri));
                let name = format!("{name}: {}", group["description"].as_str().unwrap());
                match Schema::read("schema", &documents) {
                    Ok(schema) => judged += judge(&schema, group, &name, &mut found),
                    Err(why) => found.push((name, why)),
                }
            }
        }
        assert!(judged >= least, "{draft}: {judged}");
    }
    let listed =
        |(name, says): &(String, String)| APART.iter().position(|a| name.starts_with(a.0) && says.contains(a.1));
    let new: Vec<_> = found.iter().filter(|one| listed(one).is_none()).collect();
    assert!(new.is_empty(), "{new:#?}");
    let seen: Vec<_> = found.iter().filter_map(listed).collect();
    let gone: Vec<_> = APART.iter().enumerate().filter(|(index, _)| !seen.contains(index)).collect();
    assert!(gone.is_empty(), "{gone:#?}");
}

/// The schema of a group, which says which draft it is of.
fn schema(group: &Value, uri: &str) -> String {
    let mut schema = group["schema"].clone();
    if let Some(members) = schema.as_object_mut() {
        members.entry("$schema").or_insert_with(|| uri.into());
    }
    schema.to_string()
}

/// Judges the documents of a group: how many there are, and where the verdict is another.
fn judge(schema: &Schema, group: &Value, name: &str, found: &mut Vec<(String, String)>) -> usize {
    let tests = group["tests"].as_array().unwrap();
    for test in tests {
        let mut left = MAX_VALUES;
        let text = test["data"].to_string();
        let document = json::read(text.as_bytes(), &mut left).unwrap();
        let verdict = schema.judge(&document, MAX_VALUES - left, text.len());
        if verdict.is_ok() != test["valid"] {
            let says = if verdict.is_ok() { PASSES.to_owned() } else { format!("{verdict:?}") };
            found.push((format!("{name}: {}", test["description"].as_str().unwrap()), says));
        }
    }
    tests.len()
}

/// The documents that schemas of a draft refer to, as keys of one ConfigMap: those of the draft before others of the name.
fn remotes(suite: &Path, draft: &str) -> Documents {
    let remotes = suite.join("remotes");
    let mut files = files_below(&remotes);
    let rank = |file: &Path| match file.strip_prefix(&remotes).unwrap().to_str().unwrap() {
        path if path.starts_with(&format!("{draft}/")) => 0,
        path if path.starts_with("draft") => 2,
        _ => 1,
    };
    files.sort_by_key(|file| rank(file));
    let mut documents = Documents::new();
    for file in files {
        let key = file.file_name().unwrap().to_str().unwrap().to_owned();
        documents.entry(key).or_insert_with(|| fs::read_to_string(&file).unwrap());
    }
    documents
}
