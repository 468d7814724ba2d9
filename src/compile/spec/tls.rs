//! `tls` of a spec: certificates by name, versions, client certificates. Knows one spec; whether what it names is there
//! is for others to find out.

use crate::api::certificate::CertificateIssuer;
use crate::api::route::reference::{ConfigMapRef, SecretRef};
use crate::api::route::tls::{AlpnProtocol, ClientValidation, ClientValidationMode, Tls, TlsVersion};
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::issuer;

/// TLS of a route's hostnames.
#[derive(Debug, Clone)]
pub struct TlsDraft {
    /// Secrets; none: the default certificate.
    pub certificates: Vec<SecretRef>,
    /// The issuer of the certificate of the one Secret; `None`: the Secret is filled otherwise.
    pub issuer: Option<CertificateIssuer>,
    /// The lowest version.
    pub min_version: MinVersion,
    /// What is asked of client certificates.
    pub client: Option<ClientDraft>,
}

/// Client certificates of a host.
#[derive(Debug, Clone)]
pub struct ClientDraft {
    /// Whether there must be one.
    pub required: bool,
    /// CA bundles.
    pub authorities: Vec<ConfigMapRef>,
    /// Revocation lists.
    pub revocations: Vec<ConfigMapRef>,
}

/// The lowest TLS version that a host accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 only.
    Tls13,
}

/// Reads `spec.tls`.
pub fn read(tls: &Tls, diagnostics: &mut Diagnostics) -> TlsDraft {
    let protocols = tls.alpn_protocols.as_deref();
    if protocols.is_some_and(<[_]>::is_empty) {
        diagnostics.invalid("spec.tls.alpnProtocols", "must not be empty; remove it or list http/1.1");
    }
    for (index, protocol) in protocols.unwrap_or_default().iter().enumerate() {
        match protocol {
            AlpnProtocol::Http1 => {}
            AlpnProtocol::H2 => diagnostics.unsupported_value(format_args!("spec.tls.alpnProtocols[{index}]"), "h2"),
        }
    }
    let certificates = tls.certificate_refs.clone().unwrap_or_default();
    for (index, certificate) in certificates.iter().enumerate() {
        diagnostics.core_group(&certificate.group, format_args!("spec.tls.certificateRefs[{index}]"));
    }
    let issuer = tls.issuer_ref.as_ref().map(issuer::issuer);
    if issuer.is_some() && !matches!(certificates.as_slice(), [SecretRef { namespace: None, .. }]) {
        diagnostics.invalid(
            "spec.tls.issuerRef",
            "needs exactly one certificateRefs entry without namespace, because the certificate is written to that Secret",
        );
    }
    let min_version = match tls.min_version {
        None | Some(TlsVersion::V1_2) => MinVersion::Tls12,
        Some(TlsVersion::V1_3) => MinVersion::Tls13,
    };
    let client = tls.client_validation.as_ref().map(|validation| client(validation, diagnostics));
    TlsDraft { certificates, issuer, min_version, client }
}

fn client(validation: &ClientValidation, diagnostics: &mut Diagnostics) -> ClientDraft {
    let authorities = validation.ca_certificate_refs.clone();
    let revocations = validation.crl_refs.clone().unwrap_or_default();
    if authorities.is_empty() {
        diagnostics.invalid("spec.tls.clientValidation.caCertificateRefs", "must name a ConfigMap with the key ca.crt");
    }
    for (list, name) in [(&authorities, "caCertificateRefs"), (&revocations, "crlRefs")] {
        for (index, reference) in list.iter().enumerate() {
            diagnostics.core_group(&reference.group, format_args!("spec.tls.clientValidation.{name}[{index}]"));
        }
    }
    ClientDraft { required: validation.mode == ClientValidationMode::Required, authorities, revocations }
}
