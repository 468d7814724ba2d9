//! A request on its way through the handshake, whatever protocol carried it.

use std::net::IpAddr;
use std::time::Instant;

use crate::policy::ClientCertificate;
use crate::ws::upgrade::Request;

/// Which hosts a TLS connection serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Serves {
    /// The one host that the server name of the TLS handshake named, lower case.
    Named(String),
    /// Any host that asks no more of TLS than the default configuration did: the TLS handshake named none, or one that no
    /// route has.
    Unnamed {
        /// Whether the version is TLS 1.3.
        tls13: bool,
    },
}

impl Serves {
    /// The one host, if it is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Unnamed { .. } => None,
        }
    }
}

/// A request that is well formed, and what its connection says of whoever sent it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// Which hosts its connection serves.
    pub(crate) serves: Serves,
    /// The bytes of its head.
    pub(crate) head_size: usize,
    /// The client's certificate, where the host asked for one and it was valid.
    pub(crate) certificate: Option<Box<ClientCertificate>>,
    /// The client's address.
    pub(crate) address: IpAddr,
    /// When its connection was ready for it.
    pub(crate) began: Instant,
    /// When all stages together must be over.
    pub(crate) deadline: Instant,
}
