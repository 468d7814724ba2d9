//! What the settings of a gateway give to routes that say nothing: parts of a route's spec, in its own shape.

use serde::Deserialize;

use super::{Connection, Handshake, Messages};

/// What routes that say nothing get. `handshake.authentication` is never a default: each route must say it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    /// Of the HTTP upgrade.
    #[serde(default)]
    pub handshake: Option<Handshake>,
    /// Of the live socket.
    #[serde(default)]
    pub connection: Option<Connection>,
    /// Of every message.
    #[serde(default)]
    pub messages: Option<Messages>,
}
