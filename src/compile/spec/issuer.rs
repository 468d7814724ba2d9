//! `tls.issuerRef` as a Certificate names its issuer. Knows the reference only.

use crate::api::certificate::{CertificateIssuer, GROUP};
use crate::api::route::reference::IssuerRef;

/// The issuer of a route with cert-manager's defaults written out, so that what is written is what is read.
pub fn issuer(issuer: &IssuerRef) -> CertificateIssuer {
    CertificateIssuer {
        name: issuer.name.clone(),
        kind: Some(issuer.kind.clone().unwrap_or_else(|| "Issuer".to_owned())),
        group: Some(issuer.group.clone().unwrap_or_else(|| GROUP.to_owned())),
    }
}
