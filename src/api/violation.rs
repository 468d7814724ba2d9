//! What the API server would refuse or drop in a route, for sources that have none: unknown fields, missing fields,
//! enumerations, bounds, patterns, sets. Reads the same schema that the CRD carries, so that the two cannot differ.
//! CEL is not evaluated here: what it says the compile says again on effective values.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::crd;
use super::scalar::{Duration, Size, is_label, is_object_name};
use super::{scalar, schema};

/// Something in a route that the API server would not have let through as written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaViolation {
    /// Where, as in `spec.rules[0].backendRefs[1].prot`.
    pub field: String,
    /// What is wrong there.
    pub kind: Violation,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// The API has no such field.
    UnknownField,
    /// A value that the schema refuses; the text names the bound.
    Refused(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownField => f.write_str("unknown field; correct its name or remove it"),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for SchemaViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.kind)
    }
}

/// Violations in a whole `SecureWebSocketRoute`, in the order of the schema. Metadata and status are not looked at.
pub fn of_route(route: &Value) -> Vec<SchemaViolation> {
    let mut violations = Vec::new();
    if let Some(members) = route.as_object() {
        for name in members.keys() {
            if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str()) {
                violations.push(SchemaViolation { field: name.clone(), kind: Violation::UnknownField });
            }
        }
    }
    judge("spec", route.get("spec").unwrap_or(&Value::Null), spec(), true, &mut violations);
    violations
}

/// Violations in a part of a route's spec, such as `handshake`, that stands elsewhere under `path`. Missing fields are
/// no violations: the part is not the whole.
pub fn of_part(path: &str, part: &str, value: &Value) -> Vec<SchemaViolation> {
    let mut violations = Vec::new();
    if let Some(schema) = spec().pointer(&format!("/properties/{part}")) {
        judge(path, value, schema, false, &mut violations);
    }
    let missing = format!("{path}.authentication");
    violations.retain(|violation| violation.field != missing || violation.kind == Violation::UnknownField);
    violations
}

fn spec() -> &'static Value {
    static SPEC: OnceLock<Value> = OnceLock::new();
    SPEC.get_or_init(|| crd::schema().pointer("/properties/spec").cloned().unwrap_or_default())
}

/// `needed`: leaving the value out is no way to mend it.
fn judge(path: &str, value: &Value, schema: &Value, needed: bool, violations: &mut Vec<SchemaViolation>) {
    let mut refuse =
        |text: String| violations.push(SchemaViolation { field: path.to_owned(), kind: Violation::Refused(text) });
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        // A value of a selector: of any type that has no parts.
        if value.is_array() || value.is_object() {
            let kind = Violation::Refused("write a string, a number, true, false or null".to_owned());
            violations.push(SchemaViolation { field: path.to_owned(), kind });
        }
        return;
    }
    let kind = schema["type"].as_str().unwrap_or("int-or-string");
    match (kind, value) {
        (_, Value::Null) if needed => refuse("there is no value; give one".to_owned()),
        (_, Value::Null) => refuse("there is no value; give one or remove the field".to_owned()),
        ("object", Value::Object(members)) => object(path, members, schema, violations),
        ("array", Value::Array(items)) => {
            bounds(items.len(), schema, ("Items", "entries"), needed, &mut refuse);
            keys(items, schema, &mut refuse);
            for (index, item) in items.iter().enumerate() {
                judge(&format!("{path}[{index}]"), item, &schema["items"], true, violations);
            }
        }
        ("string" | "int-or-string", Value::String(text)) => {
            bounds(text.chars().count(), schema, ("Length", "characters"), needed, &mut refuse);
            if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
                refuse(format!("write {}", wanted(schema)));
            }
            if let Some(pattern) = schema["pattern"].as_str()
                && let Some((matches, wanted)) = pattern_of(pattern)
                && !matches(text)
            {
                refuse(format!("write {wanted}"));
            }
        }
        ("integer" | "int-or-string", Value::Number(number)) if number.is_i64() || number.is_u64() => {
            let minimum = schema["minimum"].as_i64();
            let maximum = schema["maximum"].as_i64();
            let number = number.as_i64().unwrap_or(i64::MAX);
            if minimum.is_some_and(|m| number < m) || maximum.is_some_and(|m| number > m) {
                refuse(format!(
                    "write a number from {} to {}",
                    minimum.unwrap_or(i64::MIN),
                    maximum.unwrap_or(i64::MAX)
                ));
            }
        }
        ("boolean", Value::Bool(_)) => {}
        ("string", _) => refuse(format!("write {}; numbers and booleans need quotes here", wanted(schema))),
        ("integer", _) => refuse("write a whole number, without quotes".to_owned()),
        ("boolean", _) => refuse("write true or false, without quotes".to_owned()),
        ("array", _) => refuse("write a list".to_owned()),
        ("object", _) => refuse("write an object with named members".to_owned()),
        _ => refuse("write a whole number or text such as 64Ki".to_owned()),
    }
}

fn object(path: &str, members: &Map<String, Value>, schema: &Value, violations: &mut Vec<SchemaViolation>) {
    let properties = &schema["properties"];
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, value) in members {
        let path = format!("{path}.{name}");
        match properties.get(name) {
            Some(schema) => judge(&path, value, schema, required.contains(&name.as_str()), violations),
            None => violations.push(SchemaViolation { field: path, kind: Violation::UnknownField }),
        }
    }
    for name in required {
        if !members.contains_key(name) {
            let field = format!("{path}.{name}");
            violations.push(SchemaViolation { field, kind: Violation::Refused("required; add it".to_owned()) });
        }
    }
}

/// What a text of this schema looks like, for a message that begins with "write".
fn wanted(schema: &Value) -> String {
    if let Some(allowed) = schema["enum"].as_array() {
        let names: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        return match names.as_slice() {
            [only] if only == r#""""# => "\"\" or leave the field out".to_owned(),
            [only] => only.clone(),
            names => format!("one of {}", names.join(", ")),
        };
    }
    let pattern = schema["pattern"].as_str().and_then(pattern_of);
    pattern.map_or_else(|| "text".to_owned(), |(_, wanted)| wanted.to_owned())
}

fn bounds(count: usize, schema: &Value, (suffix, what): (&str, &str), needed: bool, refuse: &mut impl FnMut(String)) {
    let bound = |name: &str| schema[format!("{name}{suffix}")].as_u64();
    let count = count as u64;
    if let Some(most) = bound("max").filter(|most| count > *most) {
        refuse(format!("{count} {what}; at most {most} are allowed"));
    }
    if let Some(least) = bound("min").filter(|least| count < *least) {
        let or = if needed { "" } else { ", or remove the field" };
        refuse(format!("{count} {what}; at least {least} needed{or}"));
    }
}

/// Entries of sets, and keys of maps, are there once.
fn keys(items: &[Value], schema: &Value, refuse: &mut impl FnMut(String)) {
    let key = schema["x-kubernetes-list-map-keys"][0].as_str();
    let mut seen = BTreeSet::new();
    for item in items {
        let own = match (schema["x-kubernetes-list-type"].as_str(), key) {
            (Some("set"), _) => item,
            (Some("map"), Some(key)) => &item[key],
            _ => return,
        };
        if !own.is_null() && !seen.insert(own.to_string()) {
            refuse(format!("{own} is there twice; remove one"));
        }
    }
}

type Matcher = fn(&str) -> bool;

/// The matcher of each pattern of the schema, and what to write in its place. A test finds patterns without one.
fn pattern_of(pattern: &str) -> Option<(Matcher, &'static str)> {
    Some(match pattern {
        scalar::DURATION_PATTERN => {
            (|text| Duration::from(text).parse().is_ok(), "a duration such as 30s, 1h30m or 500ms")
        }
        scalar::SIZE_PATTERN => (|text| Size::from(text).bytes().is_ok(), "a whole number of bytes such as 64Ki"),
        schema::NAME_PATTERN => (is_object_name, "a name of lower-case letters, digits, hyphens and dots"),
        schema::LABEL_PATTERN => (is_label, "a name of lower-case letters, digits and hyphens"),
        schema::HOSTNAME_PATTERN => (
            |text| is_object_name(text.strip_prefix("*.").unwrap_or(text)),
            "a hostname in lower case such as chat.example.com or *.example.com",
        ),
        schema::TOKEN_PATTERN => (is_token, "a token of letters, digits and !#$%&'*+.^_`|~-"),
        schema::ORIGIN_PATTERN => (is_origin, "an origin such as https://app.example.com, or *"),
        schema::NETWORK_PATTERN => (is_network, "an address range such as 203.0.113.0/24 or 2001:db8::/32"),
        schema::KEY_PATTERN => (
            |text| all(text, |b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
            "a key of letters, digits, hyphens, underscores and dots",
        ),
        schema::KIND_PATTERN => (
            |text| {
                text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
            },
            "a kind such as ClusterIssuer",
        ),
        schema::VALUE_PATTERN => (is_value, "visible ASCII without spaces at the ends"),
        schema::PREFIX_PATTERN => (|text| all(text, |b| (0x20..=0x7e).contains(&b)), "visible ASCII and spaces"),
        schema::POINTER_PATTERN => (is_pointer, "a JSON Pointer such as /type"),
        _ => return None,
    })
}

fn all(text: &str, good: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(good)
}

fn is_token(text: &str) -> bool {
    all(text, |b| b.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&b))
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return text == "*" };
    let host = host.strip_prefix("*.").unwrap_or(host);
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b))
        && !host.is_empty()
        && !host.contains(|c: char| "/?#@*\t\n\x0c\r ".contains(c))
}

fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        all(address, |b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
            && length.len() <= 3
            && all(length, |b| b.is_ascii_digit())
    })
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|b| (0x20..=0x7e).contains(&b) || b == b'\t') && text.trim_matches([' ', '\t']) == text
}

fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route() -> Value {
        json!({
            "apiVersion": "wssgate.io/v1alpha1", "kind": "SecureWebSocketRoute", "metadata": {"name": "chat"},
            "spec": {
                "hostnames": ["chat.example.com"],
                "rules": [{"name": "chat", "backendRefs": [{"name": "chat", "port": 8080}]}],
                "handshake": {"authentication": {"mode": "Anonymous"}},
                "messages": {"fromClient": {"maxSize": "64Ki"}, "fromBackend": {"maxSize": 1000}}
            }
        })
    }

    /// The violations after the value at a path was replaced.
    fn with(pointer: &str, value: Value) -> Vec<String> {
        let mut route = route();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = route.pointer_mut(parent).unwrap();
        match parent {
            Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
            _ => parent[name] = value,
        }
        of_route(&route).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_route_has_no_violations() {
        assert_eq!(of_route(&route()), []);
    }

    #[test]
    fn an_unknown_field_is_found_wherever_it_is() {
        let unknown = |field: &str| vec![format!("{field}: unknown field; correct its name or remove it")];
        assert_eq!(with("/spec/handshake/orgins", json!({"allow": []})), unknown("spec.handshake.orgins"));
        assert_eq!(with("/spec/rules/0/backendRefs/0/prot", json!(1)), unknown("spec.rules[0].backendRefs[0].prot"));
        assert_eq!(with("/sepc", json!({})), unknown("sepc"));
    }

    #[test]
    fn what_the_schema_refuses_is_found_with_the_fix() {
        let one = |pointer: &str, value: Value, text: &str| {
            let found = with(pointer, value);
            assert!(found.len() == 1 && found[0].contains(text), "{pointer}: {found:?}");
        };
        one("/spec/hostnames/0", json!("Chat.example.com"), "lower case");
        one("/spec/hostnames", json!([]), "at least 1");
        one("/spec/hostnames", json!(["a", "a"]), "\"a\" is there twice");
        one("/spec/hostnames", json!((0..17).map(|i| format!("h{i}")).collect::<Vec<_>>()), "at most 16");
        one("/spec/rules/0/backendRefs/0/port", json!(70000), "from 1 to 65535");
        one("/spec/rules/0/backendRefs/0/port", json!("http"), "whole number");
        one("/spec/handshake/authentication/mode", json!("None"), "\"Anonymous\"");
        one("/spec/handshake/authentication", Value::Null, "there is no value; give one");
        one("/spec/connection", json!({"limits": null}), "or remove the field");
        one("/spec/handshake", json!({}), "spec.handshake.authentication: required");
        one("/spec/messages/fromClient/maxSize", json!("64KiB"), "such as 64Ki");
        one("/spec/messages/fromClient/maxSize", json!(true), "64Ki");
        one("/spec/connection", json!({"idleTimeout": "10 m"}), "30s");
        one("/spec/connection", json!({"idleTimeout": 10}), "write a duration such as 30s");
        one("/spec/tls", json!({"minVersion": 1.2}), "quotes");
        one("/spec/connection", json!({"heartbeat": {"backend": "yes"}}), "true or false");
        one("/spec/rules", json!("chat"), "list");
    }

    #[test]
    fn entries_of_a_map_have_their_own_names() {
        let rule = json!({"name": "chat", "backendRefs": [{"name": "chat", "port": 8080}]});
        assert_eq!(with("/spec/rules", json!([rule, rule])), ["spec.rules: \"chat\" is there twice; remove one"]);
    }

    #[test]
    fn a_part_is_judged_without_the_authentication_of_each_route() {
        assert_eq!(of_part("defaults.handshake", "handshake", &json!({})), []);
        let found = of_part("defaults.handshake", "handshake", &json!({"orgins": {}}));
        assert_eq!(found[0].field, "defaults.handshake.orgins");
    }

    #[test]
    fn every_pattern_of_the_schema_has_a_matcher() {
        fn patterns(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(members) => {
                    if let Some(pattern) = members.get("pattern").and_then(Value::as_str) {
                        found.insert(pattern.to_owned());
                    }
                    members.values().for_each(|v| patterns(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| patterns(v, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        patterns(spec(), &mut found);
        assert!(found.len() >= 13, "{found:#?}");
        for pattern in found {
            assert!(pattern_of(&pattern).is_some(), "{pattern}");
        }
    }

    #[test]
    fn matchers_agree_with_what_their_patterns_mean() {
        let check = |pattern: &str, good: &[&str], bad: &[&str]| {
            let (matches, _) = pattern_of(pattern).unwrap();
            for text in good {
                assert!(matches(text), "{pattern} should match {text:?}");
            }
            for text in bad {
                assert!(!matches(text), "{pattern} should not match {text:?}");
            }
        };
        check(
            schema::HOSTNAME_PATTERN,
            &["a", "*.a.b", "a-b.c"],
            &["", "*", "*.", "a..b", "-a", "a*.b", "*.*.b", "a."],
        );
        check(
            schema::ORIGIN_PATTERN,
            &["*", "https://a", "https://*.a.b:8443", "chrome-extension://abc"],
            &["", "null", "a.b", "https://", "https://a/", "https://a b", "https://a@b", "https://a*", "HTTPS://a"],
        );
        check(schema::NETWORK_PATTERN, &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/", "x/8", "/8", "1/1234"]);
        check(schema::VALUE_PATTERN, &["", "a", "a b", "a\tb"], &[" a", "a ", "a\n", "ä"]);
        check(schema::POINTER_PATTERN, &["/", "/a", "/a~0b/c~1"], &["", "a", "/~2", "/a~"]);
        check(schema::TOKEN_PATTERN, &["chat.v2", "x-y"], &["", "a b", "a,b", "a/b"]);
        check(schema::KEY_PATTERN, &["a.json"], &["", "a/b"]);
        check(schema::KIND_PATTERN, &["Issuer"], &["", "1x", "a-b"]);
        check(schema::PREFIX_PATTERN, &["Bearer "], &["", "\t"]);
    }
}
