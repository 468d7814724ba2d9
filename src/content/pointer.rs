//! JSON Pointer (RFC 6901): a place in a document.

use std::fmt;

use serde_json::Value;

/// A pointer that was read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Box<str>);

impl Pointer {
    /// Reads a pointer; the empty one is the whole document.
    ///
    /// # Errors
    /// It does not begin with a slash, or has a tilde that stands for nothing (RFC 6901 §3).
    pub fn read(text: &str) -> Result<Self, &'static str> {
        if !(text.is_empty() || text.starts_with('/')) {
            return Err("must be empty or begin with / (RFC 6901)");
        }
        let mut after_tilde = text.split('~').skip(1);
        if after_tilde.any(|rest| !rest.starts_with(['0', '1'])) {
            return Err("has a ~ that is not followed by 0 or 1 (RFC 6901)");
        }
        Ok(Self(text.into()))
    }

    /// What is there; `None`: nothing.
    pub fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.pointer(&self.0)
    }

    /// The pointer as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pointer_leads_into_objects_and_arrays() {
        let value = json!({"a": [1, {"b/c": "x", "m~n": 8}], "": 0});
        let find = |text: &str| Pointer::read(text).unwrap().find(&value).cloned();
        assert_eq!(find(""), Some(value.clone()));
        assert_eq!(find("/a/0"), Some(json!(1)));
        assert_eq!(find("/a/1/b~1c"), Some(json!("x")));
        assert_eq!(find("/a/1/m~0n"), Some(json!(8)));
        assert_eq!(find("/"), Some(json!(0)));
        for nowhere in ["/b", "/a/2", "/a/-", "/a/01", "/a/x", "/a/0/0"] {
            assert_eq!(find(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "#/a", "/~", "/a~2", "/a~"] {
            assert!(Pointer::read(text).is_err(), "{text}");
        }
    }
}
