//! Reading YAML (and with it JSON) that people wrote: strict, bounded, and with the place and the name of what is
//! wrong. Text of the document never enters a message unless it is a key or a value that a type refused.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, MessageFormatter, Options, Spanned, UserMessageFormatter};

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1; 0 if unknown.
    pub line: u64,
    /// Column in characters, from 1; 0 if unknown.
    pub column: u64,
    /// What is wrong.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault in words of the caller; line and column are from 1, or 0 if unknown.
    pub fn new(line: u64, column: u64, text: impl Into<String>) -> Self {
        Self { line, column, kind: FaultKind::Other(text.into()) }
    }

    /// A fault at this place in words of the caller.
    #[must_use]
    pub fn replaced_by(self, text: impl Into<String>) -> Self {
        Self { kind: FaultKind::Other(text.into()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}: {}", self.line, self.column, self.kind)
    }
}

/// What is wrong with a document. The text, with the fix where it is known, is its `Display`; it may show the value that
/// was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// A field that must be there is missing: its name.
    MissingField(&'static str),
    /// The object has no such field: the names of those that it has.
    UnknownField(Vec<&'static str>),
    /// A value that is none of a closed set: the set.
    UnknownVariant(Vec<&'static str>),
    /// A value of another type: what to write.
    WrongType(&'static str),
    /// There is more than one document.
    SeveralDocuments,
    /// The document uses what this reader does not read, or is larger or deeper than it reads.
    Bounds,
    /// Anything else, in words of the parser or of the caller.
    Other(String),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingField(name) => write!(f, "the field {name} is missing; add it"),
            Self::UnknownField(known) => write!(f, "unknown field; use one of {}", known.join(", ")),
            Self::UnknownVariant(known) => write!(f, "write one of {}", known.join(", ")),
            Self::WrongType(expected) => write!(f, "write {expected}"),
            Self::SeveralDocuments => f.write_str("there are several documents; keep one"),
            Self::Bounds => f.write_str(
                "anchors, aliases, merge keys and very large or deep documents are not read; write the values out",
            ),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// How documents are read: one document, no anchors, aliases, merge keys or duplicates, YAML 1.2 booleans, and no
/// snippets of the text in errors.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 48,
            max_documents: 1,
            max_nodes: 200_000,
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
            max_total_scalar_bytes: 8 << 20,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

/// Reads one document.
///
/// # Errors
/// The text is not YAML, breaks a bound of this reader, or does not fit the type.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        Fault { line, column, kind: kind(error) }
    })
}

fn kind(error: &Error) -> FaultKind {
    match error {
        Error::AliasError { error, .. } => kind(error),
        Error::SerdeMissingField { field, .. } => FaultKind::MissingField(field),
        Error::SerdeUnknownField { expected, .. } => FaultKind::UnknownField(expected.clone()),
        Error::SerdeUnknownVariant { expected, .. } => FaultKind::UnknownVariant(expected.clone()),
        Error::Unexpected { expected: "mapping start", .. } => FaultKind::WrongType("an object with named members"),
        Error::Unexpected { expected: "sequence start", .. } => FaultKind::WrongType("a list"),
        Error::Unexpected { expected: "string scalar", .. } => FaultKind::WrongType("text"),
        Error::InvalidBooleanStrict { .. } => FaultKind::WrongType("true or false, without quotes"),
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            FaultKind::SeveralDocuments
        }
        Error::Budget { .. }
        | Error::MergeKeyNotAllowed { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => FaultKind::Bounds,
        other => FaultKind::Other(UserMessageFormatter.format_message(other).replace(char::is_control, " ")),
    }
}

/// Where the keys of a document are.
#[derive(Debug)]
pub struct Tree(Spanned<Node>);

#[derive(Debug)]
enum Node {
    Map(Vec<(Spanned<String>, Tree)>),
    List(Vec<Tree>),
    Leaf,
}

impl Tree {
    /// Reads the places of one document.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(text: &str) -> Result<Self, Fault> {
        read(text)
    }

    /// Line and column of a path such as `spec.rules[0].name`, or of the nearest thing above it that exists.
    pub fn locate(&self, path: &str) -> (u64, u64) {
        let mut tree = self;
        let mut at = self.0.referenced;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            match &tree.0.value {
                Node::Map(entries) => match entries.iter().find(|(key, _)| key.value == step) {
                    Some((key, below)) => (at, tree) = (key.referenced, below),
                    None => break,
                },
                Node::List(items) => match step.trim_end_matches(']').parse().ok().and_then(|i: usize| items.get(i)) {
                    Some(below) => (at, tree) = (below.0.referenced, below),
                    None => break,
                },
                Node::Leaf => break,
            }
        }
        (at.line(), at.column())
    }

    /// The path of what stands at a place, such as `listeners.wss`: the last key that begins there or before.
    pub fn path_at(&self, line: u64, column: u64) -> String {
        self.at(line, column).0
    }

    /// The path of the object in which a member is missed at a place: what stands there, or what that is a member of.
    pub fn object_at(&self, line: u64, column: u64) -> String {
        match self.at(line, column) {
            (path, Node::Map(_) | Node::List(_)) => path,
            (path, Node::Leaf) => path.rsplit_once('.').map_or_else(String::new, |(above, _)| above.to_owned()),
        }
    }

    /// What stands at a place, with its path.
    fn at(&self, line: u64, column: u64) -> (String, &Node) {
        let mut path = String::new();
        let mut tree = self;
        loop {
            let reached = |at: serde_saphyr::Location| (at.line(), at.column()) <= (line, column);
            match &tree.0.value {
                Node::Map(entries) => match entries.iter().rev().find(|(key, _)| reached(key.referenced)) {
                    Some((key, below)) => {
                        if !path.is_empty() {
                            path.push('.');
                        }
                        path.push_str(&key.value);
                        tree = below;
                    }
                    None => return (path, &tree.0.value),
                },
                Node::List(items) => {
                    match items.iter().enumerate().rev().find(|(_, item)| reached(item.0.referenced)) {
                        Some((index, below)) => {
                            path.push_str(&format!("[{index}]"));
                            tree = below;
                        }
                        None => return (path, &tree.0.value),
                    }
                }
                Node::Leaf => return (path, &tree.0.value),
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Places)
    }
}

/// Takes any value for its place alone.
struct Places;

macro_rules! leaves {
    ($($visit:ident: $type:ty),* $(,)?) => {
        $(fn $visit<E: de::Error>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Leaf)
        })*
    };
}

impl<'de> Visitor<'de> for Places {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    leaves! {
        visit_bool: bool,
        visit_i64: i64,
        visit_u64: u64,
        visit_i128: i128,
        visit_u128: u128,
        visit_f64: f64,
        visit_str: &str,
        visit_bytes: &[u8],
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[derive(Debug, Deserialize)]
    struct Port {
        #[allow(dead_code, reason = "read for its type only")]
        port: u16,
    }

    #[test]
    fn a_fault_has_a_place_and_no_text_of_the_document() {
        let fault = read::<Port>("# a comment\nother: very-secret\nport: eighty\n").unwrap_err();
        assert_eq!((fault.line, fault.column), (3, 7), "{fault}");
        let text = fault.kind.to_string();
        assert!(!text.contains("very-secret") && !text.contains('\n'), "{fault}");
        let fault = read::<Value>("a: b\n  c: [\n").unwrap_err();
        assert!(fault.line >= 2, "{fault}");
    }

    #[test]
    fn anchors_aliases_merge_keys_and_duplicates_are_refused() {
        let kind = |text: &str| read::<Value>(text).unwrap_err().kind;
        for text in ["a: &x 1\nb: *x\n", "a: &x 1\n", "<<: {a: 1}\n"] {
            assert_eq!(kind(text), FaultKind::Bounds, "{text:?}");
        }
        assert!(matches!(kind("a: 1\na: 2\n"), FaultKind::Other(_)));
        assert_eq!(kind("a: 1\n---\nb: 2\n"), FaultKind::SeveralDocuments);
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(kind(&deep), FaultKind::Bounds);
    }

    #[test]
    fn what_is_missing_unknown_or_of_another_type_is_data() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "read for its type only")]
        struct Shape {
            name: String,
            #[serde(default)]
            list: Vec<u8>,
            #[serde(default)]
            on: bool,
        }
        for (text, expected) in [
            ("list: []\n", FaultKind::MissingField("name")),
            ("name: a\nnames: b\n", FaultKind::UnknownField(vec!["name", "list", "on"])),
            ("name: a\nlist: {}\n", FaultKind::WrongType("a list")),
            ("name: []\n", FaultKind::WrongType("text")),
            ("[]\n", FaultKind::WrongType("an object with named members")),
            ("name: a\non: 'yes'\n", FaultKind::WrongType("true or false, without quotes")),
        ] {
            assert_eq!(read::<Shape>(text).unwrap_err().kind, expected, "{text}");
        }
    }

    #[test]
    fn only_true_and_false_are_booleans_and_leading_zeros_are_text() {
        let value: Value = read("{a: no, b: true, c: 012, d: 1_000, e: Off}").unwrap();
        assert_eq!(value, serde_json::json!({"a": "no", "b": true, "c": "012", "d": "1_000", "e": "Off"}));
        assert!(read::<bool>("yes").is_err());
    }

    #[test]
    fn places_are_found_by_path_and_paths_by_place() {
        let text = "spec:\n  rules:\n  - name: a\n  - name: b\n    port: {x: 1}\n  other: 3\n";
        let tree = Tree::read(text).unwrap();
        assert_eq!(tree.locate("spec"), (1, 1));
        assert_eq!(tree.locate("spec.rules[1].port.x"), (5, 12));
        assert_eq!(tree.locate("spec.rules[1].absent.x"), tree.locate("spec.rules[1]"));
        assert_eq!(tree.locate("spec.other"), (6, 3));
        assert_eq!(tree.path_at(5, 15), "spec.rules[1].port.x");
        assert_eq!(tree.path_at(6, 10), "spec.other");
    }

    #[test]
    fn json_is_read_as_well() {
        let value: Value = read("{\n\t\"a\": [1, \"x\\u00e4\"],\n\t\"b\": null}\n").unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, "xä"], "b": null}));
    }
}
