//! TLS of a host: certificates, issuer, versions, client certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{ConfigMapRef, IssuerRef, SecretRef};
use crate::api::schema::rules;

/// TLS toward clients. It belongs to the hostnames: at most one route per hostname carries it, the other routes of the
/// same namespace join the host by omitting it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[(
    "!has(self.issuerRef) || (has(self.certificateRefs) && size(self.certificateRefs) == 1 && \
     !has(self.certificateRefs[0].__namespace__))",
    "issuerRef writes the certificate to exactly one Secret of the route's own namespace: \
     give one certificateRefs entry without namespace"
)])))]
pub struct Tls {
    /// Secrets of type kubernetes.io/tls. Several certificates of different key types (RSA and ECDSA) are offered side
    /// by side. Renewals take effect at once and close no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub certificate_refs: Option<Vec<SecretRef>>,
    /// The cert-manager issuer of the certificate. The gateway creates a Certificate that fills the Secret of
    /// certificateRefs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// The oldest TLS version that is accepted, "1.2" or "1.3" (quotes needed); "1.2" if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Application protocols offered in the TLS handshake (RFC 7301): http/1.1, or h2 for WebSockets over HTTP/2
    /// (RFC 8441); http/1.1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub alpn_protocols: Option<Vec<AlpnProtocol>>,
    /// Client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidation>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum TlsVersion {
    /// RFC 5246, with forward-secret AEAD suites only.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

/// An application protocol of ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum AlpnProtocol {
    /// HTTP/1.1, RFC 6455.
    #[serde(rename = "http/1.1")]
    Http1,
    /// HTTP/2, RFC 8441.
    #[serde(rename = "h2")]
    H2,
}

/// How client certificates are asked for and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// Required: a handshake without a valid client certificate fails. Optional: it goes on without, but one that is
    /// presented must be valid.
    #[serde(default)]
    pub mode: ClientValidationMode,
    /// ConfigMaps with the certificate authorities of clients in PEM, key ca.crt.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub ca_certificate_refs: Vec<ConfigMapRef>,
    /// ConfigMaps with certificate revocation lists in PEM, key crl.pem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub crl_refs: Option<Vec<ConfigMapRef>>,
}

/// Whether a client must present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ClientValidationMode {
    /// No connection without a valid certificate.
    #[default]
    Required,
    /// A certificate is asked for; none is fine, an invalid one is not.
    Optional,
}
