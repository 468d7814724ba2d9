//! The rules of one direction of a route: which schema judges which message.

use std::sync::Arc;

use serde_json::{Number, Value};

use super::format::Format;
use super::json::{self, MAX_VALUES, Malformed};
use super::pointer::Pointer;
use super::schema::Schema;

/// What text messages of one direction must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How documents stand in a message.
    pub format: Format,
    /// The first whose selector holds decides. Empty: every well-formed document passes.
    pub rules: Vec<Rule>,
    /// Whether a document that no rule selects passes.
    pub unmatched: bool,
}

/// One schema and which documents it judges.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, for the log and the metrics.
    pub name: Arc<str>,
    /// What must stand where in a document; all must hold.
    pub selector: Vec<(Pointer, Literal)>,
    /// What of the document is judged.
    pub payload: Pointer,
    /// What it is judged by.
    pub schema: Arc<Schema>,
}

impl PartialEq for Rule {
    /// Schemas are the same if they were read once.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.schema, &other.schema)
            && self.name == other.name
            && self.selector == other.selector
            && self.payload == other.payload
    }
}

impl Eq for Rule {}

/// A value that a selector compares with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// A string, byte for byte.
    String(Box<str>),
    /// A number, by its value: `2` is `2.0`.
    Number(Number),
    /// A boolean.
    Boolean(bool),
    /// null.
    Null,
}

impl Literal {
    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::String(own), Value::String(value)) => **own == **value,
            (Self::Number(own), Value::Number(value)) => same(own, value),
            (Self::Boolean(own), Value::Bool(value)) => own == value,
            (Self::Null, Value::Null) => true,
            _ => false,
        }
    }
}

/// Whether two numbers are equal: integers exactly, others as doubles.
fn same(one: &Number, other: &Number) -> bool {
    match (one.is_f64(), other.is_f64()) {
        (false, false) => one == other,
        _ => one.as_f64() == other.as_f64(),
    }
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON in the format of the route.
    Malformed(Malformed),
    /// It does not satisfy the schema that judges it.
    Invalid {
        /// The index of the rule.
        rule: usize,
        /// The place in the message, a JSON pointer that begins with the payload's.
        place: String,
        /// The keyword that failed.
        keyword: String,
    },
    /// No rule selects it.
    Unmatched,
}

impl Rules {
    /// Judges a whole text message. `matched` learns of every document by the index of the rule that passed it.
    ///
    /// # Errors
    /// The first fault.
    pub fn judge(&self, message: &[u8], mut matched: impl FnMut(Option<usize>)) -> Result<(), Fault> {
        let mut left = MAX_VALUES;
        self.format.documents(message, Fault::Malformed, |text| {
            let before = left;
            let document = json::read(text, &mut left).map_err(Fault::Malformed)?;
            matched(self.document(&document, before - left, text.len())?);
            Ok(())
        })
    }

    /// Judges a document of so many values and bytes; the rule that passed it.
    fn document(&self, document: &Value, values: usize, bytes: usize) -> Result<Option<usize>, Fault> {
        let holds = |rule: &Rule| {
            let mut selector = rule.selector.iter();
            selector.all(|(pointer, literal)| pointer.find(document).is_some_and(|value| literal.is(value)))
        };
        let Some((index, rule)) = self.rules.iter().enumerate().find(|(_, rule)| holds(rule)) else {
            return if self.unmatched || self.rules.is_empty() { Ok(None) } else { Err(Fault::Unmatched) };
        };
        let invalid = |place: &str, keyword: String| Fault::Invalid {
            rule: index,
            place: format!("{}{place}", rule.payload),
            keyword,
        };
        let Some(payload) = rule.payload.find(document) else {
            return Err(invalid("", "payload".to_owned()));
        };
        match rule.schema.judge(payload, values, bytes) {
            Ok(()) => Ok(Some(index)),
            Err(mismatch) => Err(invalid(&mismatch.place, mismatch.keyword)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::schema::Documents;

    fn schema(text: &str) -> Arc<Schema> {
        let documents = Documents::from([("s.json".to_owned(), text.to_owned())]);
        Arc::new(Schema::read("s.json", &documents).unwrap())
    }

    fn rule(name: &str, selector: &[(&str, Literal)], payload: &str, text: &str) -> Rule {
        let selector = selector.iter().map(|(at, is)| (Pointer::read(at).unwrap(), is.clone())).collect();
        Rule { name: name.into(), selector, payload: Pointer::read(payload).unwrap(), schema: schema(text) }
    }

    fn text(text: &str) -> Literal {
        Literal::String(text.into())
    }

    fn judge(rules: &Rules, message: &str) -> Result<Vec<Option<usize>>, Fault> {
        let mut matched = Vec::new();
        rules.judge(message.as_bytes(), |rule| matched.push(rule)).map(|()| matched)
    }

    fn chat() -> Rules {
        let say = r#"{"type":"object","required":["text"],"properties":{"text":{"type":"string","maxLength":5}},
            "additionalProperties":false}"#;
        let rules = vec![
            rule("say", &[("/type", text("say"))], "/data", say),
            rule("leave", &[("/type", text("leave")), ("/now", Literal::Boolean(true))], "", "true"),
            rule("seven", &[("/0", Literal::Number(7.into()))], "", r#"{"type":"array","maxItems":2}"#),
        ];
        Rules { format: Format::Json, rules, unmatched: false }
    }

    #[test]
    fn the_first_rule_whose_whole_selector_holds_decides() {
        let rules = chat();
        assert_eq!(judge(&rules, r#"{"type":"say","data":{"text":"hi"}}"#), Ok(vec![Some(0)]));
        assert_eq!(judge(&rules, r#"{"type":"leave","now":true,"x":1}"#), Ok(vec![Some(1)]));
        assert_eq!(judge(&rules, r#"{"type":"leave","now":"true"}"#), Err(Fault::Unmatched));
        assert_eq!(judge(&rules, r#"{"type":"leave"}"#), Err(Fault::Unmatched));
        for seven in ["[7]", "[7.0,1]", "[70e-1]"] {
            assert_eq!(judge(&rules, seven), Ok(vec![Some(2)]), "{seven}");
        }
        let open = Rules { unmatched: true, ..chat() };
        assert_eq!(judge(&open, r#"{"type":"other"}"#), Ok(vec![None]));
        assert!(judge(&open, r#"{"type":"say","data":{}}"#).is_err());
    }

    #[test]
    fn a_fault_names_the_place_and_the_keyword_and_no_value() {
        let fault = |place: &str, keyword: &str| {
            Err(Fault::Invalid { rule: 0, place: place.to_owned(), keyword: keyword.to_owned() })
        };
        let rules = chat();
        assert_eq!(judge(&rules, r#"{"type":"say","data":{"text":"secret"}}"#), fault("/data/text", "maxLength"));
        assert_eq!(judge(&rules, r#"{"type":"say","data":{}}"#), fault("/data", "required"));
        assert_eq!(
            judge(&rules, r#"{"type":"say","data":{"text":"a","x":1}}"#),
            fault("/data", "additionalProperties")
        );
        assert_eq!(judge(&rules, r#"{"type":"say"}"#), fault("/data", "payload"));
    }

    #[test]
    fn without_rules_a_message_must_only_be_json() {
        let rules = Rules { format: Format::Json, rules: vec![], unmatched: false };
        assert_eq!(judge(&rules, "[1]"), Ok(vec![None]));
        assert_eq!(judge(&rules, "[1"), Err(Fault::Malformed(Malformed::Syntax)));
        assert_eq!(judge(&rules, r#"{"a":1,"a":1}"#), Err(Fault::Malformed(Malformed::DuplicateName)));
    }

    #[test]
    fn every_record_of_a_message_is_judged_and_the_values_of_all_count() {
        let rules = Rules { format: Format::JsonRecords, ..chat() };
        assert_eq!(judge(&rules, "[7]\u{1e}[7,1]\u{1e}"), Ok(vec![Some(2), Some(2)]));
        assert_eq!(judge(&rules, "[7]\u{1e}[8]\u{1e}"), Err(Fault::Unmatched));
        let many = format!("[{}0]\u{1e}", "0,".repeat(40_000));
        let rules = Rules { rules: vec![], ..rules };
        assert_eq!(judge(&rules, &many), Ok(vec![None]));
        assert_eq!(judge(&rules, &many.repeat(2)), Err(Fault::Malformed(Malformed::Values)));
    }

    #[test]
    fn what_does_not_select_by_value_alone_is_another_value() {
        for (literal, value) in [
            (text("1"), "1"),
            (Literal::Number(1.into()), "\"1\""),
            (Literal::Boolean(false), "null"),
            (Literal::Null, "false"),
            (Literal::Number(u64::MAX.into()), "18446744073709551614"),
        ] {
            assert!(!literal.is(&serde_json::from_str(value).unwrap()), "{literal:?} {value}");
        }
        assert!(Literal::Number(u64::MAX.into()).is(&serde_json::from_str("18446744073709551615").unwrap()));
    }
}
