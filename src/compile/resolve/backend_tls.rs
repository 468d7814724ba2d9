//! TLS toward wss backends: which CAs the gateway trusts there. The name is always verified, and there is no fallback to
//! plain text.
//!
//! Knows bytes of CA bundles; not ConfigMaps, routes or sockets.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::compile::pem;
use crate::compile::provider::provider;

/// The most bytes of one CA bundle; the API server allows no ConfigMap over 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// The CAs that a backend's certificate is verified against.
#[derive(Debug, Clone, Copy)]
pub enum Roots<'a> {
    /// The public CAs that the build carries (Mozilla's list).
    System,
    /// CA bundles: where each comes from, as messages name it, and its PEM.
    Bundles(&'a [(String, &'a [u8])]),
}

/// A client configuration that trusts only `roots`, with HTTP/1.1 and the gateway's own suites.
///
/// # Errors
/// Which bundle is not usable, and why.
pub fn client(roots: Roots<'_>) -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::System => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::Bundles(bundles) => {
            for (name, pem) in bundles {
                add(&mut store, pem).map_err(|text| format!("{name}: {text}"))?;
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("the TLS configuration cannot be made: {error}"))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Adds a bundle of CA certificates in PEM.
///
/// # Errors
/// What is wrong with it; the text names its key `ca.crt`.
pub fn add(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), String> {
    for (at, der) in read(pem)?.into_iter().enumerate() {
        roots
            .add(der)
            .map_err(|_| format!("certificate {} of ca.crt is not a CA certificate of X.509 version 3", at + 1))?;
    }
    Ok(())
}

/// The certificates of a bundle: all of them, and at least one.
///
/// # Errors
/// What is wrong with it; the text names its key `ca.crt`.
pub fn read(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    if text.len() > MAX_BYTES {
        return Err("ca.crt is larger than 1 MiB".to_owned());
    }
    let broken = |why: &str| format!("ca.crt is not valid PEM: {why}; put whole CERTIFICATE blocks there");
    let count = pem::check(text, "CERTIFICATE").map_err(|why| broken(&why))?;
    let numbered = CertificateDer::pem_slice_iter(text).enumerate();
    let list: Vec<_> = numbered
        .map(|(at, der)| der.map_err(|_| broken(&format!("CERTIFICATE block {} is not base64", at + 1))))
        .collect::<Result<_, _>>()?;
    match list.len() {
        0 => Err("ca.crt has no CERTIFICATE block".to_owned()),
        read if read != count => Err(broken("it cannot be read whole")),
        _ => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn with(pem: &str) -> Result<Arc<ClientConfig>, String> {
        client(Roots::Bundles(&[("ConfigMap shop/ca".to_owned(), pem.as_bytes())]))
    }

    #[test]
    fn a_bundle_of_cas_and_the_public_cas_make_a_client() {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        for client in [with(&ca.repeat(2)), client(Roots::System)] {
            let client = client.unwrap();
            assert_eq!(client.alpn_protocols, [b"http/1.1".to_vec()]);
        }
    }

    #[test]
    fn a_broken_bundle_is_named() {
        for (pem, expected) in [
            ("", "has no CERTIFICATE block"),
            ("-----BEGIN CERTIFICATE-----\n", "not valid PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a CA certificate"),
        ] {
            let text = with(pem).unwrap_err();
            assert!(text.starts_with("ConfigMap shop/ca: ") && text.contains(expected), "{text}");
        }
    }
}
