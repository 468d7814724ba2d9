//! Schemas: whatever schema is accepted judges a document as `boon` judges it, a validator of another make.
//!
//! Schemas and documents are small, made of bytes, over the keywords that both validators have. What is left out, because
//! the two differ by design and neither is wrong:
//! - `$dynamicRef` and `$recursiveRef`, which are refused;
//! - `format` and `content*`: which formats are judged is our choice, see `docs/messages.md`;
//! - lists of `enum` and `type` in which a value stands twice: drafts before 2019-09 forbid them, which we do not mind;
//! - integers beyond 2^53: `boon` takes them for doubles in `multipleOf`, and we compare them exactly;
//! - what stands beside `$ref` up to draft 7: it does not count, but `boon` counts keywords that came after draft 4;
//! - `unevaluatedItems` in 2019-09: our library lets `contains` count as evaluating an item, as only 2020-12 says;
//! - patterns beyond the few below: the two translate ECMA-262 in ways of their own.

use boon::{Compiler, Draft, Schemas};
use serde_json::{Map, Value, json};
use wssgate::content::schema::{Documents, Schema};

/// Where both look for the schema.
const PLACE: &str = "json-schema:///s";
/// The most subschemas of a schema, and the most values of a document.
const MOST: usize = 24;
const NAMES: [&str; 4] = ["a", "b", "ab", "é"];
/// Types; the last one is in every list of them.
const KINDS: [&str; 7] = ["null", "boolean", "integer", "number", "array", "object", "string"];
const PATTERNS: [&str; 5] = ["^a", "b$", "^[a-z]+$", "é", "^.{2}$"];
/// The drafts of JSON Schema, with what each calls the place of definitions.
const DRAFTS: [(&str, Draft, &str); 5] = [
    ("http://json-schema.org/draft-04/schema#", Draft::V4, "definitions"),
    ("http://json-schema.org/draft-06/schema#", Draft::V6, "definitions"),
    ("http://json-schema.org/draft-07/schema#", Draft::V7, "definitions"),
    ("https://json-schema.org/draft/2019-09/schema", Draft::V2019_09, "$defs"),
    ("https://json-schema.org/draft/2020-12/schema", Draft::V2020_12, "$defs"),
];

/// Any bytes as a schema and four documents.
pub fn check(data: &[u8]) {
    judged(data);
}

/// How many documents were valid, and how many not; none where the schema is refused.
pub fn judged(data: &[u8]) -> (usize, usize) {
    let mut made = Made { bytes: data, left: MOST, draft: 0 };
    made.draft = made.below(DRAFTS.len());
    let schema = made.root();
    let Ok(ours) = Schema::read("s", &Documents::from([("s".to_owned(), schema.to_string())])) else { return (0, 0) };
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(DRAFTS[made.draft].1);
    assert!(compiler.add_resource(PLACE, schema.clone()).is_ok());
    let theirs = compiler.compile(PLACE, &mut schemas);
    let Ok(theirs) = theirs else { refused(&schema, &theirs) };
    let mut valid = 0;
    for _ in 0..4 {
        made.left = MOST;
        let document = made.document(3);
        let verdict = ours.judge(&document, 1, 1);
        assert_eq!(verdict.is_ok(), schemas.validate(&document, theirs).is_ok(), "{schema}\n{document}\n{verdict:?}");
        valid += usize::from(verdict.is_ok());
    }
    (valid, 4 - valid)
}

#[expect(clippy::panic, reason = "how a property fails")]
fn refused(schema: &Value, error: &dyn std::fmt::Debug) -> ! {
    panic!("boon refuses {schema}: {error:?}")
}

/// What is made of bytes: where they end, of zeros.
struct Made<'d> {
    bytes: &'d [u8],
    left: usize,
    /// The index of the draft.
    draft: usize,
}

impl Made<'_> {
    fn byte(&mut self) -> u8 {
        match self.bytes.split_first() {
            Some((byte, rest)) => {
                self.bytes = rest;
                *byte
            }
            None => 0,
        }
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }

    /// A schema with definitions that it and they can refer to.
    fn root(&mut self) -> Value {
        let (uri, _, place) = DRAFTS[self.draft];
        let mut root = match self.object(3) {
            Value::Object(root) if self.draft > 2 || !root.contains_key("$ref") => root,
            _ => Map::new(),
        };
        let defs: Map<String, Value> = ["x", "y"].into_iter().map(|name| (name.to_owned(), self.object(2))).collect();
        root.insert(place.to_owned(), defs.into());
        root.insert("$schema".to_owned(), uri.into());
        root.into()
    }

    /// A subschema: a boolean where the draft has it (from draft 6).
    fn schema(&mut self, depth: usize) -> Value {
        self.left = self.left.saturating_sub(1);
        if depth == 0 || self.left == 0 || self.bytes.is_empty() {
            return if self.draft == 0 { json!({}) } else { json!(true) };
        }
        match self.below(8) {
            0 if self.draft > 0 => json!(true),
            1 if self.draft > 0 => json!(false),
            _ => self.object(depth),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut schema = Map::new();
        for _ in 0..self.below(4) {
            self.keyword(&mut schema, depth);
        }
        if self.draft < 3 && schema.contains_key("$ref") {
            schema.retain(|name, _| name == "$ref");
        }
        schema.into()
    }

    fn schemas(&mut self, depth: usize) -> Value {
        (0..=self.below(3)).map(|_| self.schema(depth)).collect()
    }

    fn members(&mut self, depth: usize) -> Value {
        let members: Map<String, Value> =
            (0..=self.below(3)).map(|_| (self.name().to_owned(), self.schema(depth))).collect();
        members.into()
    }

    fn names(&mut self) -> Value {
        // A list of names has none twice, and at least one (draft 4).
        let first = self.below(NAMES.len());
        NAMES.iter().skip(first).take(1 + self.below(2)).copied().collect()
    }

    /// Adds one keyword, or nothing where the draft has not what was drawn.
    fn keyword(&mut self, schema: &mut Map<String, Value>, depth: usize) {
        let inner = depth.saturating_sub(1);
        let (draft, count) = (self.draft, self.below(4));
        let (name, value) = match self.below(38) {
            0 => ("type", self.kind()),
            1 => ("type", [KINDS[self.below(6)], "string"].into_iter().collect()),
            2 if draft > 0 => ("const", self.document(1)),
            3 => ("enum", [json!("other"), self.document(1)].into_iter().collect()),
            4 => ("minimum", self.number()),
            5 => ("maximum", self.number()),
            6 if draft > 0 => ("exclusiveMinimum", self.number()),
            7 if draft > 0 => ("exclusiveMaximum", self.number()),
            8 => ("multipleOf", [json!(1), json!(2), json!(0.5), json!(3)][count].clone()),
            9 => ("minLength", count.into()),
            10 => ("maxLength", count.into()),
            11 => ("pattern", PATTERNS[self.below(PATTERNS.len())].into()),
            12 => ("minItems", count.into()),
            13 => ("maxItems", count.into()),
            14 => ("uniqueItems", (count > 0).into()),
            15 => ("minProperties", count.into()),
            16 => ("maxProperties", count.into()),
            17 => ("required", self.names()),
            18 | 19 => ("properties", self.members(inner)),
            20 => {
                let pattern = PATTERNS[self.below(PATTERNS.len())];
                ("patternProperties", json!({pattern: self.schema(inner)}))
            }
            21 | 22 => ("additionalProperties", self.either(inner)),
            23 if draft > 0 => ("propertyNames", self.schema(inner)),
            24 | 25 => ("items", self.schema(inner)),
            26 if draft < 4 => ("items", self.schemas(inner)),
            26 => ("prefixItems", self.schemas(inner)),
            27 if draft < 4 => ("additionalItems", self.either(inner)),
            28 if draft > 0 => {
                if draft > 2 && count > 0 {
                    schema.insert("minContains".to_owned(), (count - 1).into());
                    schema.insert("maxContains".to_owned(), self.below(3).into());
                }
                ("contains", self.schema(inner))
            }
            29 => ("allOf", self.schemas(inner)),
            30 => ("anyOf", self.schemas(inner)),
            31 => ("oneOf", self.schemas(inner)),
            32 => ("not", self.schema(inner)),
            33 if draft > 1 => {
                schema.insert("then".to_owned(), self.schema(inner));
                if count > 1 {
                    schema.insert("else".to_owned(), self.schema(inner));
                }
                ("if", self.schema(inner))
            }
            34 if draft < 3 => ("dependencies", json!({self.name(): self.names(), "b": self.schema(inner)})),
            34 if count > 1 => ("dependentRequired", json!({self.name(): self.names()})),
            34 => ("dependentSchemas", self.members(inner)),
            35 => {
                let to =
                    [json!("#"), json!(format!("#/{}/x", DRAFTS[draft].2)), json!(format!("#/{}/y", DRAFTS[draft].2))];
                ("$ref", to[count % 3].clone())
            }
            36 if draft > 2 => ("unevaluatedProperties", self.either(inner)),
            37 if draft > 3 => ("unevaluatedItems", self.either(inner)),
            4.. if draft == 0 => {
                // Draft 4 has a boolean beside the bound.
                schema.insert("minimum".to_owned(), self.number());
                ("exclusiveMinimum", (count > 0).into())
            }
            _ => return,
        };
        schema.insert(name.to_owned(), value);
    }

    /// A subschema, or false: what closed schemas have.
    fn either(&mut self, depth: usize) -> Value {
        if self.below(2) == 0 { json!(false) } else { self.schema(depth) }
    }

    fn kind(&mut self) -> Value {
        KINDS[self.below(KINDS.len())].into()
    }

    fn number(&mut self) -> Value {
        [json!(0), json!(1), json!(-1), json!(2), json!(1.5), json!(10), json!(-3)][self.below(7)].clone()
    }

    fn document(&mut self, depth: usize) -> Value {
        self.left = self.left.saturating_sub(1);
        let most = if depth == 0 || self.left == 0 { 6 } else { 10 };
        match self.below(most) {
            0 => Value::Null,
            1 => (self.byte() & 1 == 0).into(),
            2 | 3 => self.number(),
            4 | 5 => ["", "a", "ab", "b1", "é", "aé"][self.below(6)].into(),
            6 | 7 => (0..self.below(4)).map(|_| self.document(depth - 1)).collect(),
            _ => {
                let members: Map<String, Value> =
                    (0..self.below(4)).map(|_| (self.name().to_owned(), self.document(depth - 1))).collect();
                members.into()
            }
        }
    }
}
