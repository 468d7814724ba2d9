//! A request on its way through the handshake, whatever protocol carried it.

use std::net::IpAddr;
use std::time::Instant;

use crate::policy::ClientCertificate;
use crate::ws::upgrade::Request;

/// A request that is well formed, and what its connection says of whoever sent it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    /// The bytes of its head.
    pub(crate) head_size: usize,
    /// The server name of the TLS handshake, lower case.
    pub(crate) server_name: Option<String>,
    /// The client's certificate, where the host asked for one and it was valid.
    pub(crate) certificate: Option<Box<ClientCertificate>>,
    /// The client's address.
    pub(crate) address: IpAddr,
    /// When its connection was ready for it.
    pub(crate) began: Instant,
    /// When all stages together must be over.
    pub(crate) deadline: Instant,
}
