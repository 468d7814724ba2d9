//! JSON objects of a token (RFC 7519 §4): read once, strictly. A name that stands twice is refused at every depth,
//! because readers disagree about which of the two counts.

use std::fmt;

use serde_json::{Map, Value};

use crate::content::json;

/// The members of one object. `Debug` shows names only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Claims(Map<String, Value>);

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Claims {
    /// Reads an object; `None` for anything else, for trailing bytes and for names that stand twice.
    pub fn parse(text: &[u8]) -> Option<Self> {
        match json::read_bounded_elsewhere(text) {
            Ok(Value::Object(members)) => Some(Self(members)),
            _ => None,
        }
    }

    /// A member; `null` is none.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A member by its name, or by a JSON pointer (RFC 6901) that begins with `/`; `null` is none.
    pub fn at(&self, place: &str) -> Option<&Value> {
        let Some(rest) = place.strip_prefix('/') else { return self.get(place) };
        let (first, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let name = first.replace("~1", "/").replace("~0", "~");
        self.0.get(&name)?.pointer(rest).filter(|value| !value.is_null())
    }

    /// A member that must be text if it is there.
    ///
    /// # Errors
    /// It is something else.
    pub fn text(&self, name: &str) -> Result<Option<&str>, NotSuch> {
        self.get(name).map(|value| value.as_str().ok_or(NotSuch)).transpose()
    }

    /// Whether a member that is text or a list of texts has this entry (RFC 7519 §4.1.3).
    pub fn lists(&self, name: &str, wanted: &str) -> bool {
        match self.get(name) {
            Some(Value::String(one)) => one == wanted,
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(wanted)),
            _ => false,
        }
    }

    /// Whether a member has this word, if it is text (as `scope` is, RFC 8693 §4.2), or this entry, if it is a list.
    pub fn contains(&self, name: &str, wanted: &str) -> bool {
        match self.get(name) {
            Some(Value::String(text)) => text == wanted || text.split(' ').any(|word| word == wanted),
            _ => self.lists(name, wanted),
        }
    }
}

/// A member is not of the kind that it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotSuch;

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Claims {
        Claims::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn names_that_stand_twice_are_refused_at_every_depth() {
        for bad in [
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
            r#"{"sub":"a","s\u0075b":"b"}"#,
            "[]",
            "1",
            "",
            "{} {}",
            r#"{"exp":1e400}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(Claims::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Claims::parse(format!("{}1{}", "[".repeat(200), "]".repeat(200)).as_bytes()), None);
        assert!(claims(r#"{"a":[1,-2,3.5,true,null,"x",{"b":{}}]}"#).get("a").is_some());
    }

    #[test]
    fn a_text_is_looked_through_by_words_and_a_list_by_entries() {
        let claims = claims(r#"{"scope":"chat read","roles":["admin x","ops"],"n":7,"none":null}"#);
        assert!(claims.contains("scope", "chat") && claims.contains("roles", "ops"));
        assert!(claims.contains("roles", "admin x") && !claims.contains("roles", "admin"));
        assert!(!claims.contains("scope", "cha") && !claims.contains("n", "7") && !claims.contains("x", "y"));
        assert!(claims.get("none").is_none());
        let nested = self::claims(r#"{"realm_access":{"roles":["a"]},"https://x/y":1,"/z":2,"a~b":3}"#);
        assert_eq!(nested.at("/realm_access/roles/0").and_then(Value::as_str), Some("a"));
        assert!(
            nested.at("/realm_access/none").is_none() && nested.at("/none/x").is_none() && nested.at("/").is_none()
        );
        let number = |place: &str| nested.at(place).and_then(Value::as_i64);
        assert_eq!((number("https://x/y"), number("/~1z"), number("/a~0b")), (Some(1), Some(2), Some(3)));
        assert!(!format!("{claims:?}").contains("admin"));
    }
}
