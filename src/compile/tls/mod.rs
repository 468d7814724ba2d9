//! CERTIFICATES: what each host is served with, whom it trusts to name its clients, and what cert-manager is asked for.

pub mod acme;
pub mod annotation;
pub mod certificate;
pub mod client_trust;
pub mod development;
pub mod host_certificates;
pub mod issuance;
pub mod progress;
pub mod secret;
pub mod server_config;
pub mod stand_in;
