//! What the gateway tells its operator: metrics, the log, the access log.
//!
//! Knows reasons and plain strings; no route, socket or snapshot. Nothing here may ever hold a query string, a header
//! value that authenticates, or payload.

pub mod access;
pub mod failure;
mod line;
pub mod logging;
pub mod metrics;

use std::fmt;
use std::str::FromStr;

pub use access::AccessLog;
pub use metrics::Metrics;

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Initiator {
    /// The client closed or vanished.
    Client,
    /// The backend closed or vanished.
    Backend,
    /// The gateway, by policy, by configuration or at shutdown.
    Gateway,
}

impl Initiator {
    /// The name in metrics and in the access log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
            Self::Gateway => "gateway",
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object per line.
    #[default]
    Json,
    /// One line for people: `key=value`, values quoted where they need it.
    Text,
}

impl Format {
    /// As users write it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Format {
    type Err = String;

    /// # Errors
    /// The text is neither `json` nor `text`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("a log format is json or text".to_owned()),
        }
    }
}
