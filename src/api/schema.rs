//! Pieces of schema that derive attributes refer to. Knows JSON schema, no field.

use schemars::Schema;
use serde_json::{Value, json};

/// Takes the schema defaults from the fields of an object that stands in a list. What the API server adds to an entry makes
/// the list differ from what was written: `kubectl apply` of the same file changes the object each time, a second field
/// manager gets a conflict, and GitOps tools see a difference. The type has the default, so that readers see it all the same.
pub fn without_defaults(schema: &mut Schema) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(serde_json::Map::values_mut) {
        if let Value::Object(members) = property {
            members.remove("default");
        }
    }
}

/// CEL rules (`x-kubernetes-validations`) as pairs of rule and the message that names the fix.
pub fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// Rules of a path that requests are matched with or sent to.
pub fn path_rules() -> Value {
    rules(&[
        ("self.startsWith('/')", "a path starts with /"),
        (
            "!self.contains('//') && !self.contains('/./') && !self.contains('/../') && !self.endsWith('/.') && \
             !self.endsWith('/..')",
            "a path has no empty and no dot segments: remove //, /. and /..",
        ),
        (
            "!self.contains('#') && !self.contains('?') && !self.contains('%')",
            "a path has no #, ? or %: query and fragment are never matched, and encoded paths are refused",
        ),
    ])
}

/// Rules of a rate: a burst holds at least one interval's worth, and intervals are sane.
pub fn rate_rules() -> Value {
    rules(&[
        ("!has(self.burst) || self.burst >= self.count", "burst is smaller than count: leave it out or raise it"),
        INTERVAL,
    ])
}

/// Rules of a rate of bytes.
pub fn byte_rate_rules() -> Value {
    rules(&[
        (
            "!has(self.burst) || quantity(string(self.burst)).compareTo(quantity(string(self.size))) >= 0",
            "burst is smaller than size: leave it out or raise it",
        ),
        INTERVAL,
    ])
}

/// Rule of how long a message may take.
pub fn message_timeout_rules() -> Value {
    rules(&[(
        "duration(self) >= duration('1s') && duration(self) <= duration('1h')",
        "messageTimeout is between 1s and 1h",
    )])
}

const INTERVAL: (&str, &str) = (
    "duration(self.interval) >= duration('1s') && duration(self.interval) <= duration('1h')",
    "interval is between 1s and 1h",
);

/// Rule of the largest message of a client.
pub fn client_size_rules() -> Value {
    rules(&[(
        "type(self) == int ? (self > 0 && self <= 16777216) : quantity(self).compareTo(quantity('16Mi')) <= 0",
        "maxSize of messages from clients is at least 1 byte and at most 16Mi",
    )])
}

/// Rule of the largest message of a backend.
pub fn backend_size_rules() -> Value {
    rules(&[(
        "type(self) == int ? (self > 0 && self <= 1073741824) : quantity(self).compareTo(quantity('1Gi')) <= 0",
        "maxSize of messages from backends is at least 1 byte and at most 1Gi",
    )])
}

/// Rule of the largest head of a request.
pub fn head_size_rules() -> Value {
    rules(&[(
        "type(self) == int ? (self >= 1024 && self <= 65536) : (quantity(self).compareTo(quantity('1Ki')) >= 0 && \
         quantity(self).compareTo(quantity('64Ki')) <= 0)",
        "maxHeadSize is between 1Ki and 64Ki",
    )])
}

/// Rule of how long an endpoint of a backend may take.
pub fn backend_timeout_rules() -> Value {
    rules(&[(
        "duration(self) >= duration('100ms') && duration(self) <= duration('60s')",
        "a timeout of a backend is between 100ms and 60s",
    )])
}

/// Rule of a size that has no upper bound of its own.
pub fn size_rules() -> Value {
    rules(&[("type(self) != int || self > 0", "a size is at least 1 byte")])
}

/// Pattern of a DNS-1123 label or subdomain, the name of a Kubernetes object.
pub const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Pattern of a namespace, a DNS-1123 label.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Pattern of a hostname that may begin with one star in place of one label.
pub const HOSTNAME_PATTERN: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Pattern of a token (RFC 9110 §5.6.2): header names and subprotocols.
pub const TOKEN_PATTERN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// Pattern of an Origin (RFC 6454 §6.2) or `*`; a star may stand for the first label of the host.
pub const ORIGIN_PATTERN: &str = r"^(\*|[a-z][a-z0-9+.-]*://(\*\.)?[^/?#@\s*]+)$";
/// Pattern of an address range; CEL and the compile check it fully.
pub const NETWORK_PATTERN: &str = "^[0-9a-fA-F:.]+/[0-9]{1,3}$";
/// Pattern of a key in the data of a ConfigMap or Secret.
pub const KEY_PATTERN: &str = "^[-._a-zA-Z0-9]+$";
/// Pattern of a kind of Kubernetes objects.
pub const KIND_PATTERN: &str = "^[A-Za-z][A-Za-z0-9]*$";
/// Pattern of a header's value (RFC 9110 §5.5) without obsolete text: visible ASCII, spaces and tabs inside.
pub const VALUE_PATTERN: &str = r"^([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?$";
/// Pattern of what stands before a token.
pub const PREFIX_PATTERN: &str = r"^[\x20-\x7e]+$";
/// Pattern of a JSON Pointer (RFC 6901) that is not the whole document.
pub const POINTER_PATTERN: &str = "^(/([^~/]|~[01])*)+$";
