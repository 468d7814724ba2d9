//! What judging a message costs an echo: the route and the message of each way to judge.

use serde_json::json;

use crate::client::Message;
use crate::method::Fixture;

/// How messages of the client are judged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// By size and type.
    None,
    /// By rates of messages and bytes too, which nobody exceeds.
    Rates,
    /// By a schema of ten properties too.
    Schema,
    /// By the schema, in Audit mode.
    Audit,
}

impl Judgement {
    /// The route and its objects.
    pub(crate) fn fixture(self) -> Fixture {
        let mut fixture = Fixture::default();
        match self {
            Self::None => {}
            Self::Rates => {
                let messages = json!({"count": 1_000_000, "interval": "1s"});
                fixture.messages["fromClient"]["rateLimit"] = messages;
                fixture.messages["fromClient"]["byteRateLimit"] = json!({"size": "10Gi", "interval": "1s"});
            }
            Self::Schema | Self::Audit => {
                let schema = json!({
                    "name": "say", "selector": [{"pointer": "/type", "value": "say"}],
                    "ref": {"name": "schemas", "key": "say.json"},
                });
                fixture.messages["fromClient"]["schemas"] = json!([schema]);
                fixture.objects.push(json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "schemas", "namespace": "load"},
                    "data": {"say.json": self::schema().to_string()},
                }));
            }
        }
        if self == Self::Audit {
            fixture.messages["mode"] = "Audit".into();
        }
        fixture
    }
}

/// A closed schema of ten properties.
fn schema() -> serde_json::Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["type", "id", "text"],
        "properties": {
            "type": {"const": "say"},
            "id": {"type": "integer", "minimum": 0},
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

/// 1 KiB of JSON with ten properties.
pub(crate) fn message(number: u64) -> Message {
    let mut members = json!({
        "type": "say", "id": number, "room": "general", "at": "2026-01-01T00:00:00Z", "draft": false,
        "priority": 3, "tags": ["a", "b", "c"], "to": {"user": "somebody", "device": 7}, "score": 0.25, "text": "",
    });
    let short = members.to_string().len();
    members["text"] = "x".repeat(1024 - short).into();
    Message::of(members.to_string().into_bytes(), number as u32)
}
