//! A certificate authority for one test, and client configurations that trust it.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// An authority that only one test trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate chain and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: String,
    pub key: String,
}

impl Authority {
    /// A new authority with a new key.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names, valid now.
    pub fn leaf(&self, names: &[&str]) -> Pair {
        self.leaf_with(names, &KeyPair::generate().unwrap(), |_| {})
    }

    /// A certificate for these names with a key of the test's own and what else it changes.
    pub fn leaf_with(&self, names: &[&str], key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        change(&mut params);
        let leaf = params.signed_by(key, &self.issuer).unwrap();
        let pem = key.serialize_pem();
        super::canary::note_key(&pem);
        Pair { chain: format!("{}{}", leaf.pem(), self.pem), key: pem }
    }

    /// A client's certificate with a serial number, valid now, and what else the test changes.
    pub fn client_leaf(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        self.leaf_with(&[], &KeyPair::generate().unwrap(), |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.serial_number = Some(SerialNumber::from(serial));
            change(params);
        })
    }

    /// A revocation list of these serial numbers in PEM, good until the year.
    pub fn crl(&self, serials: &[u64], until: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: rcgen::date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A client configuration that trusts this authority alone and speaks HTTP/1.1.
    pub fn client(&self) -> rustls::ClientConfig {
        self.client_of(rustls::DEFAULT_VERSIONS)
    }

    /// The same for certain TLS versions.
    pub fn client_of(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> rustls::ClientConfig {
        self.client_with(provider(), versions)
    }

    /// The same with suites of the test's own.
    pub fn client_with(
        &self,
        provider: Arc<CryptoProvider>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        config
    }
}

impl Pair {
    /// A server configuration that shows this certificate.
    pub fn server(&self) -> rustls::ServerConfig {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.certificates(), PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// A client configuration that shows this certificate to whoever asks.
    pub fn shown_by(&self, mut config: rustls::ClientConfig) -> rustls::ClientConfig {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let key = CertifiedKey::from_der(self.certificates(), key, &provider()).unwrap();
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(key));
        config
    }

    /// The leaf's DER.
    pub fn leaf(&self) -> CertificateDer<'static> {
        self.certificates().swap_remove(0)
    }

    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<_, _>>().unwrap()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
