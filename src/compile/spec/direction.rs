//! What a spec writes of the messages of one direction. Both directions have the same fields; what differs are their defaults
//! and bounds, which those know who read the fields.

use crate::api::route::Messages;
use crate::api::route::content::{Format, MessageSchema, Unmatched};
use crate::api::route::message_rate::{ByteRateLimit, RateLimit};
use crate::api::route::messages::{FromBackend, FromClient, MessageType, Protocol, Tunnels};
use crate::api::scalar::{Duration, Size};
use crate::compile::spec::layers::{Layers, Set, pick};

/// The fields of one direction, each with the layer in which it was written.
pub(super) struct Direction<'a> {
    /// The path of the direction below its layer: `messages.fromClient` or `messages.fromBackend`.
    pub(super) name: &'static str,
    pub(super) types: Option<Set<'a, [MessageType]>>,
    pub(super) max_size: Option<Set<'a, Size>>,
    pub(super) max_fragments: Option<Set<'a, i32>>,
    pub(super) message_timeout: Option<Set<'a, Duration>>,
    pub(super) rate_limit: Option<Set<'a, RateLimit>>,
    pub(super) byte_rate_limit: Option<Set<'a, ByteRateLimit>>,
    pub(super) format: Option<Set<'a, Format>>,
    pub(super) schemas: Option<Set<'a, [MessageSchema]>>,
    pub(super) unmatched: Option<Set<'a, Unmatched>>,
    pub(super) tunnels: Option<Set<'a, Tunnels>>,
    pub(super) allow_protocols: Option<Set<'a, [Protocol]>>,
}

/// The fields that both directions have, of a part of the layers.
macro_rules! direction {
    ($name:literal, $kind:ty, $layers:expr) => {{
        let layers: Layers<'_, $kind> = $layers;
        Direction {
            name: $name,
            types: pick(&layers, |written| written.types.as_deref()),
            max_size: pick(&layers, |written| written.max_size.as_ref()),
            max_fragments: pick(&layers, |written| written.max_fragments.as_ref()),
            message_timeout: pick(&layers, |written| written.message_timeout.as_ref()),
            rate_limit: pick(&layers, |written| written.rate_limit.as_ref()),
            byte_rate_limit: pick(&layers, |written| written.byte_rate_limit.as_ref()),
            format: pick(&layers, |written| written.format.as_ref()),
            schemas: pick(&layers, |written| written.schemas.as_deref()),
            unmatched: pick(&layers, |written| written.unmatched.as_ref()),
            tunnels: pick(&layers, |written| written.tunnels.as_ref()),
            allow_protocols: pick(&layers, |written| written.allow_protocols.as_deref()),
        }
    }};
}

impl<'a> Direction<'a> {
    /// What is written of messages of clients.
    pub(super) fn from_client(layers: &Layers<'a, Messages>) -> Self {
        direction!("messages.fromClient", FromClient, layers.part(|messages| messages.from_client.as_ref()))
    }

    /// What is written of messages of backends.
    pub(super) fn from_backend(layers: &Layers<'a, Messages>) -> Self {
        direction!("messages.fromBackend", FromBackend, layers.part(|messages| messages.from_backend.as_ref()))
    }

    /// The path of a field below the layer.
    pub(super) fn below(&self, field: &str) -> String {
        format!("{}.{field}", self.name)
    }
}
