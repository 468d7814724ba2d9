//! JSON as strict as two readers must be to read the same (RFC 8259, RFC 7493): no name stands twice in an object, no
//! number is beyond a double's range, no surrogate is alone, and nothing follows the value.
//!
//! Integers of 64 bits stay exact. The depth and the number of values are bounded, because a tree takes more memory than
//! its text.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most levels of objects and arrays, one in the other.
pub const MAX_DEPTH: usize = 64;
/// The most values of one message, counting every name. A value takes at most about 100 bytes of memory, whatever its text.
pub const MAX_VALUES: usize = 65_536;

/// Why a text is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It is not one JSON value (RFC 8259), or not in the format that the route expects around it.
    Syntax,
    /// An object has one name twice: readers disagree about which counts (RFC 8259 §4).
    DuplicateName,
    /// More than [`MAX_DEPTH`] levels.
    Depth,
    /// More than [`MAX_VALUES`] values.
    Values,
}

impl Malformed {
    /// A word for it, for the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::DuplicateName => "duplicate_name",
            Self::Depth => "depth",
            Self::Values => "values",
        }
    }
}

/// Reads one value, which takes `values` from what is left of [`MAX_VALUES`].
///
/// # Errors
/// Why the text is not read.
pub fn read(text: &[u8], values: &mut usize) -> Result<Value, Malformed> {
    within(text, MAX_DEPTH, values)
}

/// The same of a text that is bounded by other means: the depth is that of the library, 127, and the number of values is not
/// bounded.
///
/// # Errors
/// Why the text is not read.
pub fn read_bounded_elsewhere(text: &[u8]) -> Result<Value, Malformed> {
    within(text, usize::MAX, &mut usize::MAX.clone())
}

fn within(text: &[u8], depth: usize, values: &mut usize) -> Result<Value, Malformed> {
    let mut state = State { values, levels: depth, refused: None };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Node { state: &mut state, depth: 0 }.deserialize(&mut deserializer);
    match value.and_then(|value| deserializer.end().map(|()| value)) {
        Ok(value) => Ok(value),
        Err(_) => Err(state.refused.unwrap_or(Malformed::Syntax)),
    }
}

struct State<'s> {
    /// Values that may come still.
    values: &'s mut usize,
    /// The most levels.
    levels: usize,
    /// Why this reader stopped, where it was not the syntax.
    refused: Option<Malformed>,
}

impl State<'_> {
    fn refuse<E: de::Error>(&mut self, why: Malformed) -> E {
        self.refused = Some(why);
        E::custom("")
    }

    fn count<E: de::Error>(&mut self) -> Result<(), E> {
        match self.values.checked_sub(1) {
            Some(left) => {
                *self.values = left;
                Ok(())
            }
            None => Err(self.refuse(Malformed::Values)),
        }
    }
}

/// One value at a depth.
struct Node<'a, 's> {
    state: &'a mut State<'s>,
    depth: usize,
}

impl Node<'_, '_> {
    /// The depth of what an object or array holds.
    fn deeper<E: de::Error>(&mut self) -> Result<usize, E> {
        if self.depth == self.state.levels {
            return Err(self.state.refuse(Malformed::Depth));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.state.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom(""))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Node { state: &mut *self.state, depth })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut values = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.state.count()?;
            if values.contains_key(&name) {
                return Err(self.state.refuse(Malformed::DuplicateName));
            }
            let value = members.next_value_seed(Node { state: &mut *self.state, depth })?;
            values.insert(name, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reads(text: &str) -> Result<Value, Malformed> {
        read(text.as_bytes(), &mut MAX_VALUES.clone())
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            "{'a':1}",
            "{a:1}",
            "[1,]",
            "[,1]",
            "01",
            "+1",
            ".5",
            "1.",
            "NaN",
            "Infinity",
            "1e400",
            "-1e400",
            "tru",
            "\"\u{1}\"",
            "\"\\x41\"",
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            "// a\n1",
            "\u{a0}1",
        ] {
            assert_eq!(reads(text), Err(Malformed::Syntax), "{text:?}");
        }
        for text in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":1}"#, r#"[{"b":{"c":1,"d":2,"c":3}}]"#] {
            assert_eq!(reads(text), Err(Malformed::DuplicateName), "{text}");
        }
    }

    #[test]
    fn what_has_one_reading_is_read() {
        for text in ["null", " [ ] ", "{}", r#"{"a":1,"A":2}"#, r#""\ud83d\ude00""#, "-0", "1e308", r#""\u0000""#] {
            assert!(reads(text).is_ok(), "{text}");
        }
        // Identifiers are larger than a double holds exactly.
        assert_eq!(reads("18446744073709551615").unwrap().as_u64(), Some(u64::MAX));
        assert_eq!(reads("-9223372036854775808").unwrap().as_i64(), Some(i64::MIN));
        assert_eq!(reads("9007199254740993").unwrap().as_u64(), Some(9_007_199_254_740_993));
    }

    #[test]
    fn depth_and_number_of_values_are_bounded_at_the_limit() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(reads(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(reads(&nested(MAX_DEPTH + 1)), Err(Malformed::Depth));
        assert_eq!(reads(&"[".repeat(1_000_000)), Err(Malformed::Depth));
        let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert!(reads(&list(MAX_VALUES)).is_ok());
        assert_eq!(reads(&list(MAX_VALUES + 1)), Err(Malformed::Values));
    }

    proptest! {
        /// Whatever is read is what another reader reads too.
        #[test]
        fn nothing_is_read_otherwise_than_by_the_plain_reader(text in r#"[\[\]{}:,"a-c0-9eE.+\\ -]{0,40}"#) {
            if let Ok(value) = reads(&text) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
