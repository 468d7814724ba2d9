//! Defaults of routes, which the settings of a gateway have: parts of a route's spec, in its own shape.

use serde::Deserialize;

use super::connection::Connection;
use super::handshake::Handshake;
use super::messages::Messages;

/// Defaults for the fields that a route does not set. `handshake.authentication` cannot be a default: each route must set
/// it.
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
