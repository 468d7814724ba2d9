//! What judging a message costs an echo: the route and the message of each way to judge.

use serde_json::json;

use crate::client::Message;
use crate::method::Fixture;
use crate::say;

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
                    "data": {"say.json": say::schema(0).to_string()},
                }));
            }
        }
        if self == Self::Audit {
            fixture.messages["mode"] = "Audit".into();
        }
        fixture
    }
}

/// 1 KiB of JSON with ten properties.
pub(crate) fn message(number: u64) -> Message {
    Message::of(say::message(number).into_bytes(), number as u32)
}
