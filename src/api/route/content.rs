//! What messages say: their format, the schemas that judge them, and which schema judges which message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::reference::ConfigMapKeyRef;
use crate::api::schema::{LABEL_PATTERN, POINTER_PATTERN};

/// How JSON documents stand in text messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Format {
    /// A message is one JSON document (RFC 8259).
    JSON,
    /// A message is one or more JSON documents, each ended by the byte 0x1E: SignalR's JSON protocol.
    JSONRecords,
    /// A message is an Engine.IO packet (protocol 4): Socket.IO over WebSocket.
    EngineIO,
}

/// What happens to a document that no selector takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum Unmatched {
    /// It is refused.
    Deny,
    /// It passes.
    Allow,
}

/// A JSON Schema for messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageSchema {
    /// Name of the schema, unique in its list; logs and metrics speak of it.
    #[schemars(length(min = 1, max = 63), pattern(LABEL_PATTERN))]
    pub name: String,
    /// Which documents the schema judges: all entries must hold. Every document if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub selector: Option<Vec<Selector>>,
    /// What of the document the schema judges, a JSON Pointer (RFC 6901) such as /data; the whole document if absent. A
    /// document that has nothing there is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern(POINTER_PATTERN))]
    pub payload: Option<String>,
    /// The ConfigMap and key that hold the schema: JSON Schema of draft 4, 6, 7, 2019-09 or 2020-12, by its $schema;
    /// 2020-12 if it has none. A $ref leads to the schema itself or to another key of the ConfigMap.
    #[serde(rename = "ref")]
    pub reference: ConfigMapKeyRef,
}

/// A place in a document, and the value that must stand there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Where to look, a JSON Pointer (RFC 6901) such as /type, or /0 in an array.
    #[schemars(length(min = 1, max = 128), pattern(POINTER_PATTERN))]
    pub pointer: String,
    /// The value that must be there: a string, a number, true or false; null if absent.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schemars(schema_with = "any_scalar")]
    pub value: Value,
}

/// A value of any type: a structural schema cannot name several, so the compile refuses objects and lists. The API server
/// drops null, so that null is the value that is absent.
fn any_scalar(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let schema = json!({
        "description": "The value that must be there: a string, a number, true or false; null if absent.",
        "x-kubernetes-preserve-unknown-fields": true,
    });
    schema.try_into().unwrap_or_default()
}
