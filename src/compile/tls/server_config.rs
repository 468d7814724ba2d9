//! The TLS of a host: one `rustls::ServerConfig` with the host's certificates and session tickets of its own.
//!
//! Knows certificates and the host's TLS policy; not routes, Secrets or sockets. Versions and resumption are
//! chosen here, suites and groups in [`provider`](crate::compile::provider).

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::compile::provider::provider;
use crate::compile::spec::tls::MinVersion;
use crate::compile::tls::certificate::Certificate;
use crate::policy::ClientRule;
use crate::snapshot::TlsServerConfig;
use crate::tls::ServerTls;

/// What resumption is bound to: a session of one is never resumed under another, since the client proved what that
/// other policy asks only in a full handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Namespace of the route that owns the host; another tenant's sessions are not resumed.
    pub tenant: Box<str>,
    /// The lowest version.
    pub min_version: MinVersion,
    /// What is asked of client certificates.
    pub client: Option<ClientRule>,
}

/// The configuration of a host with what the next compile needs to keep it.
#[derive(Debug, Clone)]
pub struct BuiltConfig {
    /// What the snapshot holds.
    pub config: Arc<TlsServerConfig>,
    /// The certificates, in the order of preference.
    pub certificates: Vec<Arc<Certificate>>,
    policy: TlsPolicy,
    ticketer: Arc<dyn ProducesTickets>,
}

impl BuiltConfig {
    /// The configuration of a host under a policy with these certificates, of which there must be one at least.
    ///
    /// The same policy and the same certificates give `before` itself. Other certificates under the same policy keep
    /// the session tickets: a rotation costs no client a full handshake. Another policy gets new ones.
    ///
    /// # Errors
    /// If the system has no randomness, or rustls refuses the configuration; both are faults of the gateway.
    pub fn new(
        policy: TlsPolicy,
        mut certificates: Vec<Arc<Certificate>>,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        // Elliptic keys sign many times faster; otherwise the order of the route stays.
        certificates.sort_by_key(|certificate| !certificate.elliptic);
        let before = before.filter(|before| before.policy == policy);
        if let Some(before) = before
            && before.certificates.len() == certificates.len()
            && before.certificates.iter().zip(&certificates).all(|(old, new)| Arc::ptr_eq(old, new))
        {
            return Ok(before.clone());
        }
        let ticketer = match before {
            Some(before) => Arc::clone(&before.ticketer),
            None => {
                aws_lc_rs::Ticketer::new().map_err(|error| format!("session ticket keys cannot be made: {error}"))?
            }
        };
        let resolver = Choice { keys: certificates.iter().map(|certificate| Arc::clone(&certificate.key)).collect() };
        let client = match &policy.client {
            Some(rule) => Arc::clone(rule.trust.verifier()),
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions(policy.min_version))
            .map_err(|error| format!("cannot be made: {error}"))?
            .with_client_cert_verifier(client)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A session that is resumed brings the chain of the handshake that began it, unverified: authorities, revocations
        // and dates would be judged once for as long as it lives. Where certificates are asked for, every handshake is
        // whole.
        if policy.client.is_some() {
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Arc::clone(&ticketer);
            config.send_tls13_tickets = 1;
        }
        // A WebSocket handshake is not replay-safe (RFC 8446 §8): 0-RTT is never accepted.
        config.max_early_data_size = 0;
        let facts = certificates.iter().map(|certificate| certificate.facts.clone()).collect();
        let config = Arc::new(TlsServerConfig {
            config: ServerTls::new(Arc::new(config)),
            certificates: facts,
            client: policy.client.clone(),
            tls13_only: policy.min_version == MinVersion::Tls13,
        });
        Ok(Self { config, certificates, policy, ticketer })
    }
}

fn versions(min: MinVersion) -> &'static [&'static SupportedProtocolVersion] {
    static NEWEST_FIRST: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match min {
        MinVersion::Tls12 => &NEWEST_FIRST,
        MinVersion::Tls13 => &NEWEST_FIRST[..1],
    }
}

/// Picks the first certificate whose key the client can verify.
struct Choice {
    keys: Vec<Arc<CertifiedKey>>,
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice").field("keys", &self.keys.len()).finish()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        // Where none fits, the first one: rustls then ends the handshake with the alert that says why.
        self.keys.iter().find(usable).or(self.keys.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tls::development;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::client::{ClientConnection, Resumption};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, HandshakeKind, ServerConnection, SignatureScheme};
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    const NOW: i64 = 1_800_000_000;

    fn certificate() -> Arc<Certificate> {
        Arc::new(development::certificate("a.test", NOW).unwrap())
    }

    fn rsa() -> Arc<Certificate> {
        let pem = include_bytes!("../../../tests/compile/rsa2048.pem");
        Arc::new(Certificate::parse("test/rsa", pem, pem).unwrap())
    }

    fn policy(min_version: MinVersion) -> TlsPolicy {
        TlsPolicy { tenant: "shop".into(), min_version, client: None }
    }

    /// A client's verifier that looks at no certificate: what is tested is the server's choice.
    #[derive(Debug)]
    struct Trusting(Vec<SignatureScheme>);

    impl ServerCertVerifier for Trusting {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.clone()
        }
    }

    fn client(versions: &[&'static SupportedProtocolVersion], schemes: &[SignatureScheme]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(schemes.to_vec())))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    }

    /// One handshake in memory: its kind, and the leaf that the client saw.
    fn shake(client: &Arc<ClientConfig>, built: &BuiltConfig) -> Result<(HandshakeKind, Vec<u8>), Error> {
        let mut client = ClientConnection::new(Arc::clone(client), "a.test".try_into().unwrap())?;
        let mut server = ServerConnection::new(Arc::clone(built.config.config.get()))?;
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut idle = wire.is_empty();
            let mut read = wire.as_slice();
            while !read.is_empty() {
                server.read_tls(&mut read).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            idle &= wire.is_empty();
            let mut read = wire.as_slice();
            while !read.is_empty() {
                client.read_tls(&mut read).unwrap();
                client.process_new_packets()?;
            }
            if idle {
                break;
            }
        }
        let leaf = client.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default();
        Ok((server.handshake_kind().unwrap(), leaf))
    }

    const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    const SCHEMES: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

    #[test]
    fn nothing_changed_keeps_the_very_same_configuration() {
        let certificate = certificate();
        let first = BuiltConfig::new(policy(MinVersion::Tls12), vec![Arc::clone(&certificate)], None).unwrap();
        let second = BuiltConfig::new(policy(MinVersion::Tls12), vec![certificate], Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&first.config, &second.config));
    }

    #[test]
    fn a_rotation_keeps_the_tickets_and_a_new_policy_or_tenant_does_not() {
        for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12][..]] {
            let before = BuiltConfig::new(policy(MinVersion::Tls12), vec![certificate()], None).unwrap();
            let client = client(versions, SCHEMES);
            assert_eq!(shake(&client, &before).unwrap().0, HandshakeKind::Full);
            assert_eq!(shake(&client, &before).unwrap().0, HandshakeKind::Resumed);
            let rotated = BuiltConfig::new(policy(MinVersion::Tls12), vec![certificate()], Some(&before)).unwrap();
            assert!(!Arc::ptr_eq(&before.config, &rotated.config));
            assert_eq!(shake(&client, &rotated).unwrap().0, HandshakeKind::Resumed);
            let other = TlsPolicy { tenant: "other".into(), ..policy(MinVersion::Tls12) };
            let moved = BuiltConfig::new(other, vec![certificate()], Some(&rotated)).unwrap();
            assert_eq!(shake(&client, &moved).unwrap().0, HandshakeKind::Full);
        }
        let before = BuiltConfig::new(policy(MinVersion::Tls12), vec![certificate()], None).unwrap();
        let client = client(&[&rustls::version::TLS13], SCHEMES);
        shake(&client, &before).unwrap();
        let raised = BuiltConfig::new(policy(MinVersion::Tls13), vec![certificate()], Some(&before)).unwrap();
        assert!(matches!(
            shake(&client, &raised).unwrap().0,
            HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest
        ));
    }

    #[test]
    fn the_minimum_version_is_kept() {
        let only13 = BuiltConfig::new(policy(MinVersion::Tls13), vec![certificate()], None).unwrap();
        assert!(shake(&client(&[&rustls::version::TLS12], SCHEMES), &only13).is_err());
        assert!(shake(&client(BOTH, SCHEMES), &only13).is_ok());
    }

    #[test]
    fn a_client_gets_the_certificate_that_it_can_verify_and_ecdsa_where_it_can_both() {
        let (ecdsa, rsa) = (certificate(), rsa());
        let built =
            BuiltConfig::new(policy(MinVersion::Tls12), vec![Arc::clone(&rsa), Arc::clone(&ecdsa)], None).unwrap();
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let seen = |schemes: &[SignatureScheme]| shake(&client(&[version], schemes), &built).unwrap().1;
            assert_eq!(seen(SCHEMES), ecdsa.key.cert[0].to_vec());
            assert_eq!(seen(&[SignatureScheme::RSA_PSS_SHA256]), rsa.key.cert[0].to_vec());
        }
        assert!(shake(&client(BOTH, &[SignatureScheme::ED25519]), &built).is_err());
    }

    #[test]
    fn early_data_is_off_and_nothing_prints_a_key() {
        let built = BuiltConfig::new(policy(MinVersion::Tls12), vec![certificate()], None).unwrap();
        assert_eq!(built.config.config.get().max_early_data_size, 0);
        assert_eq!(built.config.config.get().alpn_protocols, [b"http/1.1".to_vec()]);
        let printed = format!("{:?} {:?}", built.config, built.certificates);
        assert!(!printed.contains("key"), "{printed}");
    }
}
