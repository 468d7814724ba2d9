//! The message that the benchmarks judge, and its schema.

use serde_json::{Value, json};

/// 1 KiB of JSON with ten properties.
pub(crate) fn message(number: u64) -> String {
    let mut members = json!({
        "type": "say", "id": number, "room": "general", "at": "2026-01-01T00:00:00Z", "draft": false,
        "priority": 3, "tags": ["a", "b", "c"], "to": {"user": "somebody", "device": 7}, "score": 0.25, "text": "",
    });
    let short = members.to_string().len();
    members["text"] = "x".repeat(1024 - short).into();
    members.to_string()
}

/// A closed schema of ten properties, of which `least` makes one that differs from others.
pub(crate) fn schema(least: usize) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["type", "id", "text"],
        "properties": {
            "type": {"const": "say"},
            "id": {"type": "integer", "minimum": least},
            "room": {"type": "string", "maxLength": 64, "pattern": "^[a-z0-9-]+$"},
            "at": {"type": "string", "maxLength": 32},
            "draft": {"type": "boolean"},
            "priority": {"type": "integer", "minimum": 0, "maximum": 9},
            "tags": {"type": "array", "maxItems": 8, "items": {"type": "string", "maxLength": 16}},
            "to": {"type": "object", "properties": {"user": {"type": "string"}, "device": {"type": "integer"}}},
            "score": {"type": "number"},
            "text": {"type": "string", "maxLength": 2048},
        },
    })
}
