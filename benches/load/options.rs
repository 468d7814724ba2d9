//! The benchmark's own options.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::attack::Attack;

/// Compares wssgate with nginx, HAProxy and Sozu (where installed) under load, on this machine's loopback.
#[derive(Parser, Clone)]
#[command(name = "cargo bench --bench load --", version)]
pub(crate) struct Options {
    /// Measure only the rows whose name begins so (echo, echo-64k, handshake, memory, unread, auth,
    /// attack, judged, reliability); repeatable.
    #[arg(long, value_name = "ROW")]
    pub(crate) only: Vec<String>,
    /// Measure only this gateway (wssgate, against, nginx, haproxy, sozu); repeatable.
    #[arg(long, value_name = "NAME")]
    pub(crate) peer: Vec<String>,
    /// Another wssgate binary to compare with in the same run.
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,
    /// One short repetition of each row: shows that it works, not how fast it is.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each row is measured; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=15))]
    pub(crate) repetitions: u8,
    /// Write the tables to docs/performance.md and docs/reliability.md; needs all rows, or all of auth, attack, judged or reliability, and not --quick.
    #[arg(long, conflicts_with_all = ["quick", "against"])]
    pub(crate) write: bool,
    /// The attacker's own process, which the run starts.
    #[arg(long, hide = true, requires_all = ["target", "seconds"])]
    pub(crate) attack: Option<Attack>,
    /// Whom it attacks.
    #[arg(long, hide = true)]
    pub(crate) target: Option<SocketAddr>,
    /// How long.
    #[arg(long, hide = true)]
    pub(crate) seconds: Option<f64>,
    /// Fields of its requests, each with its line end.
    #[arg(long, hide = true, default_value = "", allow_hyphen_values = true)]
    pub(crate) fields: String,
    /// Given by cargo bench; without it nothing runs.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Options {
    /// Whether the row or cell of this name was asked for.
    pub(crate) fn wants_row(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Whether the gateway of this name was asked for.
    pub(crate) fn wants_gateway(&self, name: &str) -> bool {
        self.peer.is_empty() || self.peer.iter().any(|peer| peer == name)
    }
}
