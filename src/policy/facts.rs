//! What is known of a handshake, for as long as its connection lives.

use std::net::IpAddr;

use rustls_pki_types::UnixTime;

use crate::policy::authentication::Proof;
use crate::policy::certificate::{ClientCertificate, ClientRule};
use crate::ws::upgrade::Origin;

/// What is known of a handshake when it is judged, kept for as long as the connection lives. Never a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The client's address, from the socket.
    pub address: IpAddr,
    /// The host of the request, lower case, without port.
    pub host: Box<str>,
    /// The port of the `Host` header, if it has one.
    pub port: Option<u16>,
    /// The path of the request, byte for byte, without query.
    pub path: Box<str>,
    /// The `Origin` headers.
    pub origin: Origin,
    /// The offered subprotocols in their order.
    pub subprotocols: Box<[Box<str>]>,
    /// The client's certificate, where the host asked for one and it was valid.
    pub client_certificate: Option<Box<ClientCertificate>>,
    /// What was proved of the client by a credential; `None`: nothing.
    pub proof: Option<Box<Proof>>,
}

impl Facts {
    /// Whom `limits.perSubject` counts: the subject of the credential, else that of the client's certificate; `None`:
    /// nobody is told apart.
    pub fn identity(&self) -> Option<Box<str>> {
        let proved = self.proof.as_deref().and_then(Proof::identity);
        proved.or_else(|| self.client_certificate.as_deref().map(ClientCertificate::identity))
    }

    /// The facts with the client's chain verified under the trust of `rule`, which counts by now; `None` where that is the
    /// one of before. To be asked for before [`admit`](super::admit), which has no clock.
    pub fn renewed(&self, rule: Option<&ClientRule>, now: UnixTime) -> Option<Self> {
        let certificate = self.client_certificate.as_ref()?;
        let certificate = certificate.renewed(&rule?.trust, now)?;
        Some(Self { client_certificate: Some(Box::new(certificate)), ..self.clone() })
    }
}
