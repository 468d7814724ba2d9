//! TLS configurations as values: compared by identity, never printed. All that policies and the snapshot know of the TLS
//! library.

use std::fmt;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

/// Makes a configuration a value: equal only to its clones, for session tickets and verified chains are bound to it.
macro_rules! by_identity {
    ($name:ident, $inner:ty, $get:ident, $says:literal) => {
        impl $name {
            /// A configuration of its own, equal to no other but its clones.
            pub fn new(inner: $inner) -> Self {
                Self(inner)
            }

            #[doc = $says]
            pub fn $get(&self) -> &$inner {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0)
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            /// Never prints keys.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

/// What connections of a host are accepted with: its certificates, versions, session tickets and client validation.
#[derive(Clone)]
pub struct ServerTls(Arc<rustls::ServerConfig>);

by_identity!(ServerTls, Arc<rustls::ServerConfig>, get, "What the TLS library accepts connections with.");

/// What connections to a backend are made with: the trusted authorities.
#[derive(Clone)]
pub struct BackendTlsConfig(Arc<rustls::ClientConfig>);

by_identity!(BackendTlsConfig, Arc<rustls::ClientConfig>, get, "What the TLS library makes connections with.");

/// The authorities that a host trusts to name its clients, and the revocations, as one verifier.
#[derive(Clone)]
pub struct ClientTrust(Arc<dyn ClientCertVerifier>);

by_identity!(ClientTrust, Arc<dyn ClientCertVerifier>, verifier, "What the TLS library verifies chains with.");

impl ClientTrust {
    /// Whether a chain is valid at `now`, leaf first.
    pub fn accepts(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> bool {
        let Some((leaf, issuers)) = chain.split_first() else { return false };
        self.0.verify_client_cert(leaf, issuers, now).is_ok()
    }
}
