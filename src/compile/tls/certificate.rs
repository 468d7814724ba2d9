//! Certificates: the two values of a `kubernetes.io/tls` Secret to a key that rustls can serve, with every check that
//! can be made before a client sees it.
//!
//! Knows bytes, not Secrets, routes or hosts' owners. Never prints a byte of a key: errors of the parsers below are
//! replaced by our own words.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::api::status::ConditionReason as Reason;
use crate::compile::pem as structure;
use crate::compile::problem::{Problem, quote};
use crate::compile::provider::provider;
use crate::policy::certificate::fingerprint;
use crate::snapshot::CertificateFacts;

/// The most bytes of one value that are parsed; the API server allows no Secret over 1 MiB.
const MAX_BYTES: usize = 1 << 20;
/// The most certificates of one chain; public chains have two or three.
const MAX_CHAIN: usize = 10;
/// The weakest RSA key that is served (NIST SP 800-131A; browsers refuse less).
const MIN_RSA_BITS: usize = 2048;

/// A certificate chain with its key, checked, and what clients and conditions need to know of it.
pub struct Certificate {
    /// What the handshake uses.
    pub key: Arc<CertifiedKey>,
    /// What metrics show.
    pub facts: CertificateFacts,
    /// Start of validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// The DNS names of the subjectAltName (RFC 6125), lower case.
    pub names: Vec<String>,
    /// Whether the leaf signs itself, by its names: only clients that were configured to trust it do.
    pub self_signed: bool,
    /// Whether it is what cert-manager puts in place of a certificate that it has not got yet.
    pub temporary: bool,
    /// Whether the key is of an elliptic curve: cheaper to sign with than RSA, so preferred.
    pub elliptic: bool,
    /// Where the chain does not follow from leaf to root: clients that do not fetch issuers fail.
    pub disorder: Option<String>,
    /// The issuer that the end of the chain names and that is neither there nor a public CA.
    pub lacks: Option<Lacking>,
}

/// An issuer whose certificate is not at hand: an intermediate that was left out, or a private root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// What is told of it.
    pub text: String,
    /// Its name in DER.
    name: Vec<u8>,
}

impl fmt::Debug for Certificate {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("facts", &self.facts).field("names", &self.names).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Parses and checks `tls.crt` and `tls.key` of the Secret `secret` (`namespace/name`).
    ///
    /// Other PEM blocks (parameters, comments) are passed over. Validity in time and hostnames are not judged here:
    /// they depend on when and where the certificate is used.
    ///
    /// # Errors
    /// What is wrong and how to mend it; the text never has a byte of the values.
    pub fn parse(secret: &str, crt: &[u8], key: &[u8]) -> Result<Self, Problem> {
        let bad = |text: &str| Problem::new(Reason::InvalidCertificate, format_args!("Secret {secret}"), text);
        for (name, value) in [("tls.crt", crt), ("tls.key", key)] {
            if value.is_empty() {
                let problem = bad(&format!("{name} is missing or empty; put the PEM file there"));
                return Err(problem.because(Reason::InvalidCertificateRef));
            }
            if value.len() > MAX_BYTES {
                return Err(bad(&format!("{name} is larger than 1 MiB")));
            }
        }
        let blocks =
            structure::check(crt, "CERTIFICATE").map_err(|why| bad(&format!("tls.crt is not valid PEM: {why}")))?;
        structure::check(key, "PRIVATE KEY").map_err(|why| bad(&format!("tls.key is not valid PEM: {why}")))?;
        // Of any form. Servers take the first, the last, or the one that fits.
        let keys = structure::labels(key).filter(|label| label.ends_with(b"PRIVATE KEY")).count();
        if keys > 1 {
            return Err(bad(&format!("tls.key has {keys} private keys; keep the one of the certificate")));
        }
        let chain = CertificateDer::pem_slice_iter(crt)
            .take(MAX_CHAIN + 1)
            .enumerate()
            .map(|(at, der)| {
                let broken =
                    |error| format!("CERTIFICATE block {} of tls.crt is not valid PEM: {}", at + 1, words(&error));
                der.map_err(|error| bad(&broken(error)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if chain.len() > MAX_CHAIN {
            return Err(bad("tls.crt has more than 10 certificates; keep the leaf and its intermediates"));
        }
        let Some(der) = chain.first() else {
            return Err(bad("tls.crt has no CERTIFICATE block"));
        };
        if chain.len() != blocks {
            return Err(bad("tls.crt is not valid PEM: it cannot be read whole"));
        }
        for (at, der) in chain.iter().enumerate() {
            match X509Certificate::from_der(der) {
                Ok(([], _)) => {}
                Ok(_) => return Err(bad(&format!("certificate {} of tls.crt has bytes after its end", at + 1))),
                Err(_) => return Err(bad(&format!("certificate {} of tls.crt is not an X.509 certificate", at + 1))),
            }
        }
        let (_, leaf) = X509Certificate::from_der(der)
            .map_err(|_| bad("the first certificate of tls.crt is not an X.509 certificate"))?;
        let elliptic = key_strength(&leaf).map_err(|text| bad(&text).because(Reason::WeakKey))?;

        let private = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            bad(&match error {
                pem::Error::NoItemsFound if contains(key, b"ENCRYPTED PRIVATE KEY") => {
                    "tls.key is encrypted; store it without a pass phrase".to_owned()
                }
                pem::Error::NoItemsFound => "tls.key has no PRIVATE KEY block".to_owned(),
                error => format!("tls.key is not valid PEM: {}", words(&error)),
            })
        })?;
        let signing = provider()
            .key_provider
            .load_private_key(private)
            .map_err(|_| bad("tls.key is not an RSA, ECDSA P-256/P-384/P-521 or Ed25519 key"))?;
        let facts = CertificateFacts {
            secret: secret.to_owned(),
            not_after: leaf.validity().not_after.timestamp(),
            fingerprint: fingerprint(der),
        };
        let not_before = leaf.validity().not_before.timestamp();
        let names = dns_names(&leaf).map_err(|text| bad(&text))?;
        let self_signed = leaf.subject().as_raw() == leaf.issuer().as_raw();
        let temporary = is_temporary(&leaf);
        let disorder = disorder(&chain);
        let lacks = if temporary { None } else { lacking(&chain) };
        let key = CertifiedKey::new(chain, signing);
        key.keys_match().map_err(|_| {
            bad("tls.key is not the key of the first certificate in tls.crt; the leaf comes first, its issuers after it")
        })?;
        Ok(Self { key: Arc::new(key), facts, not_before, names, self_signed, temporary, elliptic, disorder, lacks })
    }

    /// The same with the Secret's `ca.crt`, in PEM, at hand: issuers put their root there.
    pub fn with_authorities(mut self, ca: &[u8]) -> Self {
        self.lacks = self.lacks.filter(|lacks| {
            let mut authorities = CertificateDer::pem_slice_iter(ca).filter_map(Result::ok);
            !authorities.any(|der| {
                X509Certificate::from_der(&der).is_ok_and(|(_, authority)| authority.subject().as_raw() == lacks.name)
            })
        });
        self
    }

    /// What is wrong with serving this certificate to `host` at `now` (seconds since the Unix epoch), the worst first;
    /// `None` for the host: whatever its name.
    pub fn flaw(&self, host: Option<&str>, now: i64) -> Option<Problem> {
        let secret = format!("Secret {}", self.facts.secret);
        if let Some(host) = host.filter(|host| !self.covers(host)) {
            let text = format_args!("the certificate does not cover {}; add it to the subjectAltName", quote(host));
            return Some(Problem::new(Reason::HostnameMismatch, secret, text));
        }
        let text = if now > self.facts.not_after {
            format!("the certificate expired on {}; renew it", date(self.facts.not_after))
        } else if now < self.not_before {
            format!("the certificate is not valid before {}; check its dates and the clock", date(self.not_before))
        } else {
            return None;
        };
        Some(Problem::new(Reason::Expired, secret, text))
    }

    /// Whether a client that asks for `host` (a name or `*.rest`) accepts the names of this certificate: exact, or a
    /// star in place of one whole label (RFC 6125 §6.4.3).
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| {
            name == host
                || name.strip_prefix("*.").is_some_and(|rest| {
                    host.split_once('.').is_some_and(|(label, tail)| !label.is_empty() && label != "*" && tail == rest)
                })
        })
    }
}

/// A time as messages show it.
pub fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Whether the key is elliptic.
fn key_strength(leaf: &X509Certificate<'_>) -> Result<bool, String> {
    match leaf.public_key().parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            let bits = rsa.modulus.iter().skip_while(|byte| **byte == 0).count() * 8;
            if bits < MIN_RSA_BITS {
                return Err(format!("the RSA key of {bits} bits is too weak; use 2048 bits or more, or ECDSA P-256"));
            }
            Ok(false)
        }
        Ok(PublicKey::EC(_)) => Ok(true),
        // Ed25519 and whatever the key provider accepts: it judges the private key.
        Ok(PublicKey::Unknown(_)) => Ok(true),
        _ => Err("the key is of a type that TLS does not use; use RSA or ECDSA".to_owned()),
    }
}

/// By the name of the authority that cert-manager makes for one such certificate. (It also means to put a serial number
/// into the subject, which does not arrive there.)
fn is_temporary(leaf: &X509Certificate<'_>) -> bool {
    let mut names = leaf.issuer().iter_attributes();
    let first = leaf.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
    first == Some("cert-manager.local") && names.nth(1).is_none() && leaf.issuer() != leaf.subject()
}

fn dns_names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let names = leaf.subject_alternative_name().map_err(|_| "the subjectAltName is malformed".to_owned())?;
    Ok(names
        .iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

/// Where a certificate of the chain was not issued by the one that follows it.
fn disorder(chain: &[CertificateDer<'_>]) -> Option<String> {
    let mut issuer: Option<Vec<u8>> = None;
    for (index, der) in chain.iter().enumerate() {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Some(format!("certificate {} of tls.crt is not an X.509 certificate", index + 1));
        };
        if issuer.is_some_and(|issuer| issuer != certificate.subject().as_raw()) {
            return Some(format!("certificate {index} of tls.crt was not issued by certificate {}", index + 1));
        }
        issuer = Some(certificate.issuer().as_raw().to_vec());
    }
    None
}

/// The issuer that the last certificate of a chain names, unless it is its own or a public CA.
fn lacking(chain: &[CertificateDer<'_>]) -> Option<Lacking> {
    let (_, last) = X509Certificate::from_der(chain.last()?).ok()?;
    let issuer = last.issuer().as_raw();
    // The list has names without the header of their DER.
    let is_public = |root: &rustls_pki_types::TrustAnchor<'_>| {
        issuer.strip_suffix(&*root.subject).is_some_and(|header| header.len() <= 4)
    };
    if last.subject().as_raw() == issuer || webpki_roots::TLS_SERVER_ROOTS.iter().any(is_public) {
        return None;
    }
    let text = format!(
        "certificate {} of tls.crt was issued by {}, which is neither in tls.crt or ca.crt nor a public CA; if it is an \
         intermediate, append its certificate to tls.crt",
        chain.len(),
        quote(&last.issuer().to_string())
    );
    Some(Lacking { text, name: issuer.to_vec() })
}

/// The gateway's own text for a PEM error: the parser's may quote what it read.
fn words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "a block is not base64",
        _ => "it cannot be read",
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn error(crt: &str, key: &str) -> String {
        Certificate::parse("shop/tls", crt.as_bytes(), key.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_good_pair_has_its_names_and_is_known_as_self_signed() {
        let (crt, key) = pair(&["Chat.Example.com", "*.example.com"]);
        let cert = Certificate::parse("shop/tls", crt.as_bytes(), key.as_bytes()).unwrap();
        assert!(cert.self_signed && cert.elliptic && cert.disorder.is_none());
        assert_eq!(cert.facts.fingerprint.len(), 64);
        for covered in ["chat.example.com", "other.example.com", "*.example.com"] {
            assert!(cert.covers(covered), "{covered}");
        }
        for other in ["example.com", "a.b.example.com", ".example.com", "*.a.example.com", "example.org"] {
            assert!(!cert.covers(other), "{other}");
        }
    }

    #[test]
    fn a_wildcard_host_needs_a_wildcard_certificate() {
        let (crt, key) = pair(&["a.example.com"]);
        let cert = Certificate::parse("shop/tls", crt.as_bytes(), key.as_bytes()).unwrap();
        assert!(!cert.covers("*.example.com"));
    }

    #[test]
    fn the_key_of_another_certificate_is_refused() {
        let (crt, _) = pair(&["a.test"]);
        let (_, key) = pair(&["a.test"]);
        assert!(error(&crt, &key).contains("not the key of the first certificate"));
    }

    #[test]
    fn every_broken_value_is_named_and_never_quoted() {
        let (crt, key) = pair(&["a.test"]);
        let body = key.lines().nth(1).unwrap();
        for (crt, key, expected) in [
            ("", key.as_str(), "tls.crt is missing"),
            (&crt, "", "tls.key is missing"),
            ("hello", &key, "no CERTIFICATE block"),
            (&crt, "hello", "no PRIVATE KEY block"),
            (&crt[..crt.len() - 40], &key, "END line is missing"),
            (&crt, &key[..key.len() - 30], "END line is missing"),
            (&crt, &format!("-----BEGIN PRIVATE KEY-----\n{body}?!\n-----END PRIVATE KEY-----\n"), "not base64"),
            (&crt, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not an RSA, ECDSA"),
            (&crt, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "pass phrase"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "not an X.509"),
        ] {
            let text = error(crt, key);
            assert!(text.contains(expected) && text.starts_with("Secret shop/tls: "), "{text}");
            assert!(!text.contains(body) && text.len() <= 512, "{text}");
        }
    }

    #[test]
    fn a_value_of_over_a_mebibyte_is_not_parsed() {
        let (crt, key) = pair(&["a.test"]);
        assert!(error(&crt.repeat(3000), &key).contains("1 MiB"));
        assert!(error(&crt.repeat(11), &key).contains("more than 10"));
    }

    #[test]
    fn other_pem_blocks_and_issuers_behind_the_leaf_are_fine_and_a_wrong_order_is_reported() {
        let (crt, key) = pair(&["a.test"]);
        let mut other = CertificateParams::new(vec!["b.test".to_owned()]).unwrap();
        other.distinguished_name.push(rcgen::DnType::CommonName, "someone else");
        let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let extra = "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n";
        let crt = format!("{extra}{crt}{other}");
        let cert = Certificate::parse("shop/tls", crt.as_bytes(), key.as_bytes()).unwrap();
        assert!(cert.disorder.unwrap().contains("certificate 1 of tls.crt was not issued by certificate 2"));
    }

    #[test]
    fn a_second_private_key_in_any_form_is_refused() {
        let (crt, key) = pair(&["a.test"]);
        let (_, other) = pair(&["a.test"]);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for keys in [format!("{key}{other}"), format!("{other}{key}"), key.repeat(2), format!("{key}{encrypted}")] {
            assert!(error(&crt, &keys).contains("tls.key has 2 private keys"));
        }
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        assert!(Certificate::parse("s", crt.as_bytes(), format!("{parameters}{key}").as_bytes()).is_ok());
    }

    #[test]
    fn an_issuer_that_is_not_at_hand_is_told() {
        let named = |name: &str, ca: bool| {
            let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = if ca { rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained) } else { rcgen::IsCa::NoCa };
            params
        };
        let [root_key, middle_key, key] = [(); 3].map(|()| KeyPair::generate().unwrap());
        let (root, middle) = (named("Root", true), named("Middle", true));
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let root = rcgen::Issuer::new(root, root_key);
        let middle_pem = middle.signed_by(&middle_key, &root).unwrap().pem();
        let middle = rcgen::Issuer::new(middle, middle_key);
        let leaf = named("leaf", false).signed_by(&key, &middle).unwrap().pem();
        let lacks = |crt: &str, ca: &str| {
            let parsed = Certificate::parse("shop/tls", crt.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
            parsed.with_authorities(ca.as_bytes()).lacks.map(|lacks| lacks.text)
        };
        let text = lacks(&leaf, "").unwrap();
        assert!(text.contains("certificate 1 of tls.crt was issued by \"CN=Middle\""), "{text}");
        assert!(lacks(&leaf, &root_pem).is_some(), "ca.crt has the root, and the intermediate is left out");
        assert!(lacks(&format!("{leaf}{middle_pem}"), "").unwrap().contains("certificate 2"));
        assert_eq!(lacks(&format!("{leaf}{middle_pem}"), &root_pem), None);
        assert_eq!(lacks(&format!("{leaf}{middle_pem}{root_pem}"), ""), None);
    }

    #[test]
    fn a_chain_that_a_public_authority_issued_is_whole() {
        let mut named = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        named.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::CountryName, "US"),
            (rcgen::DnType::OrganizationName, "Internet Security Research Group"),
            (rcgen::DnType::CommonName, "ISRG Root X1"),
        ] {
            let value = rcgen::DnValue::PrintableString(value.try_into().unwrap());
            named.distinguished_name.push(kind, value);
        }
        let (key, issuer) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let leaf = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &rcgen::Issuer::new(named, issuer)).unwrap().pem();
        let parsed = Certificate::parse("s", leaf.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(parsed.lacks, None);
    }

    #[test]
    fn a_short_rsa_key_is_refused() {
        // A certificate whose RSA modulus has 1024 bits; made for this test, its key was thrown away.
        let text = error(include_str!("../../../tests/compile/rsa1024.pem"), "x");
        assert!(text.contains("1024 bits is too weak"), "{text}");
    }
}
