//! One JSON Schema, ready to judge: the seam to the library that validates.
//!
//! Nothing is ever fetched: a reference is to the document itself or to another key of the same ConfigMap. Patterns run on
//! an engine whose time is linear. What a schema can cost is bounded when it is read ([`cost`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use referencing::{Draft, Registry};
use serde_json::Value;

use super::cost;
use super::json::{self, MAX_VALUES};

/// The documents of a ConfigMap by their keys.
pub type Documents = BTreeMap<String, String>;

/// Where documents are, for references from one to another. It has no meaning outside.
const BASE: &str = "json-schema:///";
/// The most memory of one compiled pattern, and of its cache while it runs, in bytes.
const PATTERN_SIZE: usize = 1 << 20;
/// The most subschemas that are applied to the values of one message. It bounds the time of one judgement to about 10 ms.
const MAX_APPLIED: u64 = 1_000_000;
/// The most that the bytes of one message may cost, in units of about a nanosecond.
const MAX_BYTE_COST: u64 = 16_000_000;
/// The most bytes of a place that the log shows.
const MAX_PLACE: usize = 128;

/// A schema that was read.
pub struct Schema {
    validator: Validator,
    /// The most values of a message that it judges.
    max_values: usize,
    /// The most bytes of a message that it judges.
    max_bytes: usize,
}

impl PartialEq for Schema {
    /// The same only if it was read once.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("max_values", &self.max_values).finish_non_exhaustive()
    }
}

/// Why a document does not satisfy a schema. Never a value of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The place in the document, a JSON pointer; its last bytes where it is long.
    pub place: String,
    /// The keyword that failed; `values` and `bytes`: the document has more of them than the schema judges.
    pub keyword: String,
}

/// What identifies a schema: SHA-256 of its key and of all that its ConfigMap holds.
pub type Digest = [u8; 32];
/// Schemas that were read, or why they were refused.
pub type KnownSchemas = BTreeMap<Digest, Result<Arc<Schema>, Refused>>;

/// Why a schema is refused: a sentence without a subject, such as `is not JSON`.
pub type Refused = String;

impl Schema {
    /// Reads the schema in the document `key`. References may lead to the others.
    ///
    /// # Errors
    /// It is no schema, or one that could cost too much: the text says what and where.
    pub fn read(key: &str, documents: &Documents) -> Result<Self, Refused> {
        let text = documents.get(key).ok_or("does not exist")?;
        let root = document(text)?;
        let draft = match Draft::default().detect(&root) {
            Draft::Unknown => {
                return Err("names a $schema that is not a draft of JSON Schema from 4 to 2020-12".to_owned());
            }
            draft => draft,
        };
        let base = format!("{BASE}{key}");
        let others = Others { documents: documents.clone() };
        let registry = Registry::new().draft(draft).retriever(others).add(&base, draft.create_resource_ref(&root));
        let registry = registry.and_then(|registry| registry.prepare()).map_err(|error| unresolved(&error))?;
        let uri = jsonschema::uri::from_str(&base).map_err(|_| "has a key that cannot be referred to")?;
        let cost = cost::of(&root, &registry.resolver(uri), draft, "#")
            .map_err(|costly| format!("at {}: {}", costly.place, costly.text))?;
        let mut options = jsonschema::options()
            .with_draft(draft)
            .with_base_uri(base)
            .with_registry(&registry)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE))
            // To judge it would compile patterns that clients write.
            .with_format("regex", |_: &str| true)
            .offline();
        if draft == Draft::Draft201909 || draft == Draft::Draft202012 {
            options = options.should_validate_formats(false);
        }
        let validator = options.build(&root).map_err(|error| {
            let place = error.instance_path().to_string();
            format!("is not a valid schema at #{place}: {}", short(&error.to_string()))
        })?;
        let max_values = usize::try_from(MAX_APPLIED / cost.width.max(1)).unwrap_or(MAX_VALUES).min(MAX_VALUES);
        let max_bytes = usize::try_from(MAX_BYTE_COST / cost.byte.max(1)).unwrap_or(usize::MAX);
        Ok(Self { validator, max_values, max_bytes })
    }

    /// Judges a document of so many values and bytes.
    ///
    /// # Errors
    /// The first place that does not satisfy the schema.
    pub fn judge(&self, document: &Value, values: usize, bytes: usize) -> Result<(), Mismatch> {
        let too_many = |keyword: &str| Err(Mismatch { place: String::new(), keyword: keyword.to_owned() });
        if values > self.max_values {
            return too_many("values");
        }
        if bytes > self.max_bytes {
            return too_many("bytes");
        }
        if self.validator.is_valid(document) {
            return Ok(());
        }
        let error = self.validator.validate(document).err();
        let error = error.map(|error| (error.instance_path().to_string(), keyword(error.kind().keyword())));
        let (place, keyword) = error.unwrap_or_default();
        Err(Mismatch { place: end(place), keyword })
    }
}

/// The keyword as people write it. Where the schema `false` stands the library has a word of its own.
fn keyword(keyword: &str) -> String {
    if keyword == "falseSchema" { "false".to_owned() } else { keyword.to_owned() }
}

/// A document of a schema.
fn document(text: &str) -> Result<Value, Refused> {
    json::read(text.as_bytes(), &mut MAX_VALUES.clone()).map_err(|why| {
        let text = match why {
            json::Malformed::Syntax => "is not JSON (RFC 8259)",
            json::Malformed::DuplicateName => "has an object with one name twice",
            json::Malformed::Depth => "has more than 64 levels",
            json::Malformed::Values => "has more than 65536 values",
        };
        text.to_owned()
    })
}

/// Finds documents among the keys of one ConfigMap, by the last segment of the reference or by their own identifier.
struct Others {
    documents: Documents,
}

impl Retrieve for Others {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let uri = uri.as_str();
        let key = uri.rsplit('/').next().unwrap_or_default();
        if let Some(text) = self.documents.get(key) {
            return Ok(document(text).map_err(|why| format!("key {key} {why}"))?);
        }
        for text in self.documents.values().filter(|text| text.contains(uri)) {
            let found = document(text).ok().filter(|found| {
                let id = |name: &str| found.get(name).and_then(Value::as_str).map(|id| id.trim_end_matches('#'));
                id("$id") == Some(uri) || id("id") == Some(uri)
            });
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err("no key of the ConfigMap has it".into())
    }
}

fn unresolved(error: &referencing::Error) -> Refused {
    let text = short(&error.to_string());
    format!(
        "refers to what is not there ({text}); a reference is to the document itself or to another key of the same ConfigMap, \
         and nothing is fetched"
    )
}

/// A text of a schema or of the library, bounded.
fn short(text: &str) -> String {
    const MOST: usize = 160;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// The end of a place that is long.
fn end(place: String) -> String {
    if place.len() <= MAX_PLACE {
        return place;
    }
    let mut from = place.len() - MAX_PLACE;
    while !place.is_char_boundary(from) {
        from += 1;
    }
    format!("...{}", &place[from..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(schema: &Value) -> Result<Schema, Refused> {
        Schema::read("s.json", &Documents::from([("s.json".to_owned(), schema.to_string())]))
    }

    fn judges(schema: &Value, document: &str) -> Result<(), Mismatch> {
        let mut left = MAX_VALUES;
        let read_document = json::read(document.as_bytes(), &mut left).unwrap();
        read(schema).unwrap().judge(&read_document, MAX_VALUES - left, document.len())
    }

    #[test]
    fn every_draft_means_what_it_means() {
        // Where drafts differ: `exclusiveMinimum` is a boolean in draft 4, `$ref` hides what stands beside it up to draft 7,
        // `items` is a list up to 2019-09.
        let draft = |uri: &str, mut schema: Value| {
            schema["$schema"] = json!(uri);
            schema
        };
        let four = draft("http://json-schema.org/draft-04/schema#", json!({"minimum": 1, "exclusiveMinimum": true}));
        assert!(judges(&four, "1").is_err() && judges(&four, "2").is_ok());
        for uri in ["http://json-schema.org/draft-06/schema#", "http://json-schema.org/draft-07/schema#"] {
            let hides =
                json!({"definitions": {"a": {}}, "properties": {"p": {"$ref": "#/definitions/a", "type": "null"}}});
            assert!(judges(&draft(uri, hides), r#"{"p":1}"#).is_ok(), "{uri}");
        }
        let beside = json!({"$defs": {"a": {}}, "$ref": "#/$defs/a", "type": "null"});
        for uri in ["https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema"] {
            assert!(judges(&draft(uri, beside.clone()), "1").is_err(), "{uri}");
        }
        let list = json!({"items": [{"type": "null"}]});
        assert!(judges(&draft("https://json-schema.org/draft/2019-09/schema", list), "[1]").is_err());
        assert!(judges(&json!({"prefixItems": [{"type": "null"}]}), "[1]").is_err());
        for uri in ["https://json-schema.org/draft/2077-01/schema", "urn:mine", ""] {
            assert!(read(&draft(uri, json!({}))).unwrap_err().contains("$schema"), "{uri}");
        }
    }

    #[test]
    fn references_lead_to_the_keys_of_the_config_map_and_nowhere_else() {
        let documents = Documents::from([
            ("main.json".to_owned(), r#"{"items":{"$ref":"part.json#/$defs/n"}}"#.to_owned()),
            ("part.json".to_owned(), r#"{"$defs":{"n":{"type":"number"}}}"#.to_owned()),
            ("by-id.json".to_owned(), r#"{"$id":"https://example.com/n","type":"number"}"#.to_owned()),
            (
                "with-id.json".to_owned(),
                r#"{"$id":"https://example.com/a/main","items":{"$ref":"part.json#/$defs/n"}}"#.to_owned(),
            ),
            ("urn.json".to_owned(), r#"{"$id":"urn:OCPP:Cp:2","items":{"$ref":"https://example.com/n"}}"#.to_owned()),
        ]);
        for key in ["main.json", "with-id.json", "urn.json"] {
            let schema = Schema::read(key, &documents).unwrap();
            assert!(schema.judge(&json!([1]), 2, 3).is_ok() && schema.judge(&json!(["1"]), 2, 5).is_err(), "{key}");
        }
        for reference in ["http://127.0.0.1:1/s.json#/x", "https://example.com/", "file:///etc/passwd", "other.json"] {
            let refused = read(&json!({"$ref": reference})).unwrap_err();
            assert!(refused.contains("nothing is fetched"), "{reference}: {refused}");
        }
    }

    #[test]
    fn patterns_take_linear_time_and_those_that_could_not_are_refused() {
        let evil = json!({"pattern": "^(a+)+$"});
        assert!(judges(&evil, &format!("\"{}!\"", "a".repeat(60_000))).is_err());
        for pattern in ["(?=a)b", "(?<!a)b", r"(a)\1"] {
            assert!(read(&json!({"pattern": pattern})).is_err(), "{pattern}");
        }
        // It would compile to gigabytes.
        assert!(read(&json!({"pattern": "((a{1000}){1000}){1000}"})).is_err());
    }

    #[test]
    fn a_pattern_that_a_client_writes_is_never_compiled() {
        let schema = json!({"$schema": "http://json-schema.org/draft-07/schema#", "format": "regex"});
        assert!(judges(&schema, r#""((a{1000}){1000}){1000}""#).is_ok());
    }

    #[test]
    fn numbers_are_compared_exactly() {
        let schema = json!({"const": 9_007_199_254_740_993_u64});
        assert!(judges(&schema, "9007199254740993").is_ok());
        assert!(judges(&schema, "9007199254740992").is_err());
        let most = json!({"maximum": u64::MAX - 1});
        assert!(judges(&most, "18446744073709551614").is_ok() && judges(&most, "18446744073709551615").is_err());
    }

    #[test]
    fn a_schema_that_is_none_is_refused_and_the_place_is_named() {
        for (schema, text) in [
            (json!({"properties": {"a": {"type": "text"}}}), "at #/properties/a/type"),
            (json!({"minLength": "1"}), "at #/minLength"),
            (json!([]), "is not a valid schema"),
        ] {
            let refused = read(&schema).unwrap_err();
            assert!(refused.contains(text), "{schema}: {refused}");
        }
        let text = |text: &str| Schema::read("s", &Documents::from([("s".to_owned(), text.to_owned())])).unwrap_err();
        assert_eq!(text("{"), "is not JSON (RFC 8259)");
        assert_eq!(text(r#"{"a":1,"a":2}"#), "has an object with one name twice");
        assert_eq!(text(&"[".repeat(100)), "has more than 64 levels");
        assert_eq!(Schema::read("t", &Documents::new()).unwrap_err(), "does not exist");
    }

    #[test]
    fn a_schema_with_long_patterns_judges_fewer_bytes() {
        let long = json!({"pattern": "[a-z]{250}"});
        let most = |schema: Value| read(&schema).unwrap().max_bytes;
        assert_eq!(most(json!({"pattern": "^[a-z]{0,250}$", "maxLength": 9})), 8_000_000);
        assert_eq!(most(long.clone()), 8_000);
        // A value is judged by one of these, and by both of those.
        assert_eq!(most(json!({"properties": {"a": long, "b": long}})), 8_000);
        assert_eq!(most(json!({"properties": {"a": {"allOf": [long, long]}}})), 4_000);
        assert_eq!(most(json!({"patternProperties": {"[a-z]{250}": {}}})), 8_000);
        assert_eq!(most(json!({"propertyNames": long})), 8_000);
        let schema = read(&long).unwrap();
        assert_eq!(schema.judge(&json!("a"), 1, 8_001).unwrap_err().keyword, "bytes");
        assert_eq!(schema.judge(&json!("a"), 1, 8_000).unwrap_err().keyword, "pattern");
    }

    #[test]
    fn a_wide_schema_judges_fewer_values() {
        let branch = |n: usize| json!({"properties": {"kind": {"const": n}}});
        let wide = json!({"oneOf": (0..500).map(branch).collect::<Vec<_>>()});
        let schema = read(&wide).unwrap();
        let values = schema.max_values;
        assert!((1_000..2_500).contains(&values), "{values}");
        assert!(schema.judge(&json!({"kind": 1}), values, 10).is_ok());
        assert_eq!(schema.judge(&json!({"kind": 1}), values + 1, 10).unwrap_err().keyword, "values");
    }

    #[test]
    fn what_the_schema_false_refuses_is_named_as_it_is_written() {
        let tuple = json!({"prefixItems": [{"type": "string"}], "items": false});
        let mismatch = judges(&tuple, r#"["a", 1]"#).unwrap_err();
        assert_eq!((mismatch.place.as_str(), mismatch.keyword.as_str()), ("/1", "false"));
    }

    #[test]
    fn a_place_in_the_log_is_bounded() {
        let name = "x".repeat(500);
        let schema = json!({"additionalProperties": {"type": "null"}});
        let mismatch = judges(&schema, &json!({&name: {"é": 1}}).to_string()).unwrap_err();
        assert!(mismatch.place.len() < 140 && mismatch.place.starts_with("..."), "{mismatch:?}");
    }
}
