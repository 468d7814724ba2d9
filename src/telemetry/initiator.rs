//! Who ended a connection, as metrics and the access log call it.

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
