//! Values of labels: closed sets, and names of objects of the cluster. Nothing that a client sends is among them.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::reason::Reason;
use crate::telemetry::initiator::Initiator;

/// Makes the name of each member of a closed set the value of a label.
macro_rules! labels {
    ($($set:ty),*) => {$(
        impl EncodeLabelValue for $set {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.label())
            }
        }
    )*};
}

labels!(Reason, Initiator, Direction, Stage, Peer, HandshakeOutcome, Outcome, Recheck, Verdict);

/// Which peer sent what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The client sent it.
    FromClient,
    /// The backend sent it.
    FromBackend,
}

impl Direction {
    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::FromClient => "from_client",
            Self::FromBackend => "from_backend",
        }
    }
}

/// A stage of a handshake, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the accepted socket to the end of the TLS handshake.
    Tls,
    /// From there until everything but the backend has admitted the request: its head, policies, credentials, limits.
    Judgement,
    /// From there until the backend has answered the upgrade.
    Backend,
}

impl Stage {
    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Judgement => "judgement",
            Self::Backend => "backend",
        }
    }
}

/// Who is at the other end of one side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// The client.
    Client,
    /// The backend.
    Backend,
}

impl Peer {
    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Backend => "backend",
        }
    }
}

/// Whether a handshake was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum HandshakeOutcome {
    /// It was answered with 101.
    Accepted,
    /// It was not.
    Refused,
}

impl HandshakeOutcome {
    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }
}

/// What became of a document in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It satisfies its schema, or needs none.
    Matched,
    /// It does not satisfy its schema.
    Invalid,
    /// No selector takes it.
    Unmatched,
    /// It is not JSON in the format of the route.
    Malformed,
}

impl Verdict {
    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Invalid => "invalid",
            Self::Unmatched => "unmatched",
            Self::Malformed => "malformed",
        }
    }
}

/// What became of a question about a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Recheck {
    /// The External service still admits it.
    Admitted,
    /// It does not.
    Denied,
    /// There was no valid answer.
    Unavailable,
}

impl Recheck {
    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of something that the gateway asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It was done, or answered.
    Success,
    /// It was not.
    Failure,
}

impl Outcome {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Success, Self::Failure];

    /// Success, or not.
    pub(super) const fn of(success: bool) -> Self {
        if success { Self::Success } else { Self::Failure }
    }

    /// The value of the label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// A value that may be missing, which a scrape shows as `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OrNone<T>(pub(super) Option<T>);

impl<T: EncodeLabelValue> EncodeLabelValue for OrNone<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.encode(encoder),
            None => encoder.write_str("none"),
        }
    }
}

/// The close code as a label from a closed set: peers choose codes freely, labels must not.
pub(super) fn close_code(code: Option<u16>) -> &'static str {
    match code {
        None => "none",
        Some(1000) => "1000",
        Some(1001) => "1001",
        Some(1002) => "1002",
        Some(1003) => "1003",
        Some(1005) => "1005",
        Some(1006) => "1006",
        Some(1007) => "1007",
        Some(1008) => "1008",
        Some(1009) => "1009",
        Some(1010) => "1010",
        Some(1011) => "1011",
        Some(1012) => "1012",
        Some(1013) => "1013",
        Some(1014) => "1014",
        Some(3000..=4999) => "private",
        Some(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_close_code_of_the_peer_becomes_one_of_a_few_labels() {
        let labels: BTreeSet<_> = (0..=u16::MAX).map(|code| close_code(Some(code))).collect();
        assert!(labels.len() < 20, "{labels:?}");
        assert_eq!(close_code(Some(4001)), "private");
        assert_eq!(close_code(Some(999)), "other");
        assert_eq!(close_code(None), "none");
    }
}
