//! The form of log lines.

use clap::ValueEnum;
use serde::Deserialize;

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
