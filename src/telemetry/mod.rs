//! What the gateway tells its operator: metrics, the log, the access log.
//!
//! Knows reasons and plain strings; no route, socket or snapshot. Nothing here may ever hold a query string, a header
//! value that authenticates, or payload.

pub mod access;
pub mod logging;
pub mod metrics;

use clap::ValueEnum;
use serde::Deserialize;

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

/// The form of a log line, as a flag, as a setting and as what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object per line, for machines.
    #[default]
    Json,
    /// One line for people: `key=value`, values quoted where they need it.
    Text,
}
