//! Self-signed certificates for `--dev`: a quick start without a CA, never without the flag.
//!
//! The one place of the compile with randomness (a key cannot be derived from its input); what is made is kept by the
//! caller from one compile to the next.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, date_time_ymd};

use std::time::Duration;

use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::{Problem, quote};
use crate::compile::tls::certificate::Certificate;

/// What stands in place of a Secret in facts and conditions.
pub const ORIGIN: &str = "self-signed (--dev)";
/// Half a year: browsers refuse leaves of over 398 days, and a laptop's gateway is restarted sooner.
const DAYS: u64 = 180;
const DAY: u64 = 86_400;

/// A self-signed ECDSA P-256 certificate for one host (a name or `*.rest`), valid from a day before `now` (seconds
/// since the Unix epoch).
///
/// # Errors
/// If the name is not one that a certificate can carry, or the system has no randomness.
pub fn certificate(host: &str, now: i64) -> Result<Certificate, Problem> {
    let failed = |error: &dyn std::fmt::Display| {
        let text = format_args!("the self-signed certificate (--dev) cannot be made: {error}");
        Problem::new(Reason::InvalidCertificate, format_args!("host {}", quote(host)), text)
    };
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(|error| failed(&error))?;
    let start = u64::try_from(now).unwrap_or(0).saturating_sub(DAY);
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(start);
    params.not_after = params.not_before + Duration::from_secs((DAYS + 1) * DAY);
    params.distinguished_name.push(DnType::CommonName, "wssgate development certificate");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    Certificate::parse(ORIGIN, certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_covers_its_host_and_is_valid_around_now() {
        let now = 1_800_000_000;
        for host in ["localhost", "chat.example.com", "*.example.com"] {
            let certificate = certificate(host, now).unwrap();
            assert!(certificate.covers(host) && certificate.self_signed && certificate.elliptic);
            assert_eq!(certificate.not_before, now - 86_400);
            assert_eq!(certificate.facts.not_after, now + 180 * 86_400);
        }
    }
}
