//! Text messages in each format: whatever is accepted is what the plain reader of `serde_json` reads of the same
//! documents, has no name twice, and is within the bounds. Whatever is refused has the cause that is named.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use wssgate::content::format::Format;
use wssgate::content::json::{self, MAX_DEPTH, MAX_VALUES, Malformed};
use wssgate::content::pointer::Pointer;
use wssgate::content::rules::{Fault, Literal, Rule, Rules};
use wssgate::content::schema::{Documents, Schema};

/// The documents that the rules name.
const SCHEMAS: [(&str, &str); 2] = [
    (
        "say.json",
        r#"{"type": "object", "required": ["text"], "additionalProperties": false,
            "properties": {"type": true, "text": {"type": "string", "maxLength": 5}}}"#,
    ),
    ("tree.json", r##"{"anyOf": [{"type": "string"}, {"items": {"$ref": "#"}}], "uniqueItems": true}"##),
];

/// Byte 0: its remainder by 3 is the format, bit 6 whether there are schemas, bit 7 whether what none of them takes passes.
/// Then the message.
pub fn check(data: &[u8]) {
    let Some((&flags, message)) = data.split_first() else { return };
    let format = match flags % 3 {
        0 => Format::Json,
        1 => Format::JsonRecords,
        _ => Format::EngineIo,
    };
    let rules = if flags & 64 != 0 { all_rules().to_vec() } else { Vec::new() };
    let rules = Rules { format, rules, unmatched: flags & 128 != 0 };
    let mut matched = 0;
    let verdict = rules.judge(message, |rule| {
        matched += 1;
        assert!(rule.is_none_or(|rule| rule < rules.rules.len()), "a rule that is not there");
    });
    let mut documents: Vec<Vec<u8>> = Vec::new();
    let framed = format.documents(
        message,
        |why| why,
        |document| {
            documents.push(document.to_vec());
            Ok(())
        },
    );
    check_frame(format, message, &documents, framed);
    let mut left = MAX_VALUES;
    for (at, document) in documents.iter().enumerate() {
        let before = left;
        match json::read(document, &mut left) {
            Ok(value) => check_read(document, &value, before - left),
            Err(why) => {
                check_refused(document, why, before);
                assert!(matched <= at, "a document was taken that cannot be read");
                assert!(verdict.is_err(), "a message passed that cannot be read");
                return;
            }
        }
    }
    match verdict {
        Ok(()) => assert_eq!((framed, matched), (Ok(()), documents.len()), "not every document was judged"),
        Err(Fault::Malformed(why)) => assert_eq!(framed, Err(why), "every document can be read"),
        Err(Fault::Unmatched) => assert!(!rules.rules.is_empty() && !rules.unmatched),
        Err(Fault::Invalid { rule, .. }) => assert!(rule < rules.rules.len()),
    }
}

/// Documents are pieces of the message, and nothing of it is left out that is not the frame around them.
fn check_frame(format: Format, message: &[u8], documents: &[Vec<u8>], framed: Result<(), Malformed>) {
    if framed.is_err() {
        assert!(documents.is_empty() && framed == Err(Malformed::Syntax));
        return;
    }
    match format {
        Format::Json => assert_eq!(documents, [message]),
        Format::JsonRecords => {
            let again: Vec<u8> = documents.iter().flat_map(|document| [&document[..], b"\x1e"].concat()).collect();
            assert_eq!(again, message);
        }
        Format::EngineIo => {
            assert!(documents.len() <= 1);
            let document = documents.first().map_or(&[][..], |document| document);
            let Some(frame) = message.strip_suffix(document) else { return assert_eq!(message, document) };
            // Before a document stand digits, a namespace, and nothing that could begin a list or an object.
            let namespace = frame.iter().position(|byte| *byte == b'/').unwrap_or(frame.len());
            let digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
            assert!(frame[..namespace].iter().all(digit) || frame.ends_with(b"probe"));
        }
    }
}

/// What was read is what the plain reader reads, and is within the bounds.
fn check_read(document: &[u8], value: &Value, values: usize) {
    assert_eq!(serde_json::from_slice::<Value>(document).ok().as_ref(), Some(value), "two readers read two things");
    // Where it refuses the document, it counts no value.
    let plain = serde_json::from_slice::<Plain>(document).unwrap_or_default();
    assert!(!plain.twice, "a name stands twice");
    assert!(plain.depth <= MAX_DEPTH, "{} levels", plain.depth);
    assert_eq!(plain.values, values, "values are counted otherwise");
}

/// What was refused has the cause that is named, as far as the plain reader comes.
fn check_refused(document: &[u8], why: Malformed, left: usize) {
    let plain = serde_json::from_slice::<Plain>(document);
    match (why, plain) {
        (Malformed::Syntax, plain) => assert!(plain.is_err(), "the plain reader takes it"),
        (Malformed::DuplicateName, Ok(plain)) => assert!(plain.twice, "no name stands twice"),
        (Malformed::Depth, Ok(plain)) => assert!(plain.depth > MAX_DEPTH, "{} levels", plain.depth),
        (Malformed::Values, Ok(plain)) => assert!(plain.values > left, "{} values", plain.values),
        // It stops at what it refuses; the syntax may be broken behind it, or too deep for the plain reader.
        (_, Err(_)) => {}
    }
}

fn all_rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        let documents: Documents = SCHEMAS.into_iter().map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        let rule = |key: &str, selector: &[(&str, Literal)], payload: &str| {
            let selector =
                selector.iter().filter_map(|(pointer, value)| Some((Pointer::read(pointer).ok()?, value.clone())));
            let (payload, schema) = (Pointer::read(payload).ok()?, Schema::read(key, &documents).ok()?);
            Some(Rule { name: key.into(), selector: selector.collect(), payload, schema: Arc::new(schema) })
        };
        let say = Literal::String("say".into());
        let rules = [
            rule("say.json", &[("/type", say.clone())], ""),
            rule("say.json", &[("/0", say), ("/2", Literal::Null)], "/1"),
            rule("tree.json", &[("/type", Literal::Number(2.into()))], "/data/a~1b"),
        ];
        let rules: Vec<Rule> = rules.into_iter().flatten().collect();
        assert_eq!(rules.len(), 3, "a rule of the target is broken");
        rules
    })
}

/// What a document is made of, by a reader that keeps no tree.
#[derive(Default)]
struct Plain {
    /// Levels of objects and lists.
    depth: usize,
    /// Values and names.
    values: usize,
    /// Whether an object has one name twice.
    twice: bool,
}

impl Plain {
    fn take(&mut self, part: &Self) {
        self.depth = self.depth.max(part.depth + 1);
        self.values += part.values;
        self.twice |= part.twice;
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainVisitor)
    }
}

struct PlainVisitor;

impl PlainVisitor {
    const ONE: Plain = Plain { depth: 0, values: 1, twice: false };
}

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Plain;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Plain, E> {
        Ok(Self::ONE)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Plain, E> {
        Ok(Self::ONE)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Plain, E> {
        Ok(Self::ONE)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Plain, E> {
        Ok(Self::ONE)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Plain, E> {
        Ok(Self::ONE)
    }

    fn visit_str<E>(self, _: &str) -> Result<Plain, E> {
        Ok(Self::ONE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Plain, A::Error> {
        let mut plain = Plain { depth: 1, values: 1, twice: false };
        while let Some(item) = items.next_element::<Plain>()? {
            plain.take(&item);
        }
        Ok(plain)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Plain, A::Error> {
        let (mut plain, mut names) = (Plain { depth: 1, values: 1, twice: false }, Vec::new());
        while let Some((name, value)) = members.next_entry::<String, Plain>()? {
            plain.take(&value);
            plain.values += 1;
            plain.twice |= names.contains(&name);
            names.push(name);
        }
        Ok(plain)
    }
}
