//! Client certificates: what a host asks of them, whom one names, and whether a chain that was accepted still would be.
//!
//! The TLS handshake proves possession of the key and verifies the chain. What is kept of it is public: the chain, under
//! which trust it was verified, and what it says. A change of authorities or revocations is a change of the policy, so
//! that live connections are judged again; their chains are then verified anew by [`ClientCertificate::renewed`], which
//! needs the time and is therefore asked for by the caller, before `admit`.

use std::fmt::Write as _;

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::asn1_rs::Any;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::reason::Reason;
use crate::tls::ClientTrust;

/// The most bytes of a chain that are accepted, its certificates together: it is kept as long as the connection lives,
/// and its leaf goes to the backend in a header.
pub const MAX_CHAIN: usize = 16 * 1024;
/// The most bytes of a subject as text.
const MAX_SUBJECT: usize = 2048;
/// The most bytes of a SPIFFE id (SPIFFE-ID §2.3).
const MAX_SPIFFE: usize = 2048;

/// What a host asks of client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRule {
    /// Whether there must be one; one that is there must be valid either way.
    pub required: bool,
    /// Who may have issued it, and which are revoked.
    pub trust: ClientTrust,
}

impl ClientRule {
    /// Judges the certificate of a connection.
    ///
    /// # Errors
    /// [`Reason::ClientCertificateDenied`]: there is none where there must be one, or it was not verified under this
    /// rule's trust.
    pub fn judge(&self, certificate: Option<&ClientCertificate>) -> Result<(), Reason> {
        match certificate {
            None if !self.required => Ok(()),
            Some(certificate) if certificate.trust.as_ref() == Some(&self.trust) => Ok(()),
            _ => Err(Reason::ClientCertificateDenied),
        }
    }
}

/// A client's certificate, verified in its TLS handshake. Nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject (RFC 4514): visible ASCII and spaces; empty where the certificate has none.
    pub subject: Box<str>,
    /// The name of the issuer, as that of the subject.
    issuer: Box<str>,
    /// The SPIFFE id, where the certificate has exactly one URI and that is one (X509-SVID §2).
    pub spiffe_id: Option<Box<str>>,
    /// SHA-256 of the certificate, hexadecimal.
    pub fingerprint: Box<str>,
    /// The end of its validity, seconds since the Unix epoch.
    pub not_after: i64,
    /// The certificate and what the client sent with it, in its order.
    chain: Box<[CertificateDer<'static>]>,
    /// Under which trust the chain was verified last; `None`: it no longer could be.
    trust: Option<ClientTrust>,
}

impl ClientCertificate {
    /// Reads a chain that TLS has verified under `trust`.
    ///
    /// # Errors
    /// [`Reason::ClientCertificateInvalid`]: it is larger than [`MAX_CHAIN`], or what it says cannot be written in a
    /// header.
    pub fn read(chain: &[CertificateDer<'static>], trust: &ClientTrust) -> Result<Self, Reason> {
        let invalid = Reason::ClientCertificateInvalid;
        let leaf = chain.first().ok_or(invalid)?;
        if chain.iter().map(|der| der.len()).sum::<usize>() > MAX_CHAIN {
            return Err(invalid);
        }
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| invalid)?;
        let (subject, issuer) = (text(certificate.subject()), text(certificate.issuer()));
        if subject.len() > MAX_SUBJECT || issuer.len() > MAX_SUBJECT {
            return Err(invalid);
        }
        Ok(Self {
            subject: subject.into(),
            issuer: issuer.into(),
            spiffe_id: spiffe_id(&certificate).map(Into::into),
            fingerprint: fingerprint(leaf).into(),
            not_after: certificate.validity().not_after.timestamp(),
            chain: chain.into(),
            trust: Some(trust.clone()),
        })
    }

    /// The identity that limits count: the SPIFFE id, else the subject, else this very certificate; with its issuer.
    pub fn identity(&self) -> Box<str> {
        let name = match (&self.spiffe_id, &*self.subject) {
            (Some(id), _) => id,
            (None, "") => &self.fingerprint,
            (None, subject) => subject,
        };
        // The length keeps the two apart; no token's identity begins so.
        format!("certificate {}:{}{name}", self.issuer.len(), self.issuer).into()
    }

    /// The certificate itself (DER).
    pub fn der(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf)
    }

    /// The same certificate judged under another trust at `now`; `None` if it is the trust of before. No byte of the
    /// client is needed for that: it proved its key when it connected.
    pub fn renewed(&self, trust: &ClientTrust, now: UnixTime) -> Option<Self> {
        if self.trust.as_ref() == Some(trust) {
            return None;
        }
        let trust = trust.accepts(&self.chain, now).then(|| trust.clone());
        Some(Self { trust, ..self.clone() })
    }
}

/// SHA-256 of a certificate's DER, hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let mut text = String::with_capacity(64);
    hex(digest.as_ref(), &mut text);
    text
}

fn hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
}

/// The one URI of the subjectAltName, if it is a SPIFFE id: `spiffe://`, a trust domain, and a path of plain segments
/// (SPIFFE-ID §2). Anything else could be read in two ways.
fn spiffe_id(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(id), None) = (uris.next(), uris.next()) else { return None };
    let mut parts = id.strip_prefix("spiffe://")?.split('/');
    let domain = parts.next()?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    let is_domain = !domain.is_empty() && domain.len() <= 255 && domain.bytes().all(plain);
    let is_segment =
        |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(|b| plain(b) || b.is_ascii_uppercase());
    (is_domain && id.len() <= MAX_SPIFFE && parts.all(is_segment)).then(|| id.to_owned())
}

/// A name as RFC 4514 writes it: the last part first, every character that could be taken for structure escaped, and
/// whatever is not visible ASCII as hexadecimal pairs of its UTF-8.
fn text(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let parts: Vec<_> = name.iter().collect();
    for (place, part) in parts.iter().rev().enumerate() {
        if place > 0 {
            out.push(',');
        }
        for (place, attribute) in part.iter().enumerate() {
            if place > 0 {
                out.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            match (short(&oid), attribute.as_str()) {
                (Some(short), Ok(value)) => {
                    out.push_str(short);
                    out.push('=');
                    escape(value, &mut out);
                }
                (name, _) => {
                    out.push_str(name.unwrap_or(&oid));
                    out.push_str("=#");
                    der(attribute.attr_value(), &mut out);
                }
            }
        }
    }
    out
}

/// The names that every reader of RFC 4514 knows (§3).
fn short(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

fn escape(value: &str, out: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            byte => {
                out.push('\\');
                hex(&[byte], out);
            }
        }
    }
}

/// The hexadecimal BER of a value that has no text (RFC 4514 §2.4).
fn der(value: &Any<'_>, out: &mut String) {
    let data = value.as_bytes();
    let tag = u8::try_from(value.tag().0).unwrap_or(0x1f);
    match u8::try_from(data.len()) {
        Ok(short @ 0..=127) => hex(&[tag, short], out),
        _ => {
            let length = data.len().to_be_bytes();
            let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            hex(&[tag, 0x80 | u8::try_from(length.len()).unwrap_or(0)], out);
            hex(&length, out);
        }
    }
    hex(data, out);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// A trust in one certificate, which is its own issuer.
    fn trust(der: &CertificateDer<'static>) -> ClientTrust {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        ClientTrust::new(builder.build().unwrap())
    }

    fn read(change: impl FnOnce(&mut CertificateParams)) -> Result<ClientCertificate, Reason> {
        let der = certificate(change);
        let trust = trust(&der);
        ClientCertificate::read(&[der], &trust)
    }

    fn uris(list: &[&str]) -> Option<Box<str>> {
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        read(|params| params.subject_alt_names = list.iter().map(uri).collect()).unwrap().spiffe_id
    }

    #[test]
    fn a_spiffe_id_is_the_one_uri_and_well_formed() {
        assert_eq!(
            uris(&["spiffe://example.org/ns/shop/sa/chat"]).as_deref(),
            Some("spiffe://example.org/ns/shop/sa/chat")
        );
        assert_eq!(uris(&["spiffe://example.org"]).as_deref(), Some("spiffe://example.org"));
        for bad in [
            &["https://example.org/a"][..],
            &["spiffe://example.org/a", "spiffe://example.org/b"],
            &["spiffe://example.org/a", "https://example.org"],
            &["spiffe:///a"],
            &["spiffe://example.org/"],
            &["spiffe://example.org/../a"],
            &["spiffe://example.org/a?b"],
            &["spiffe://example.org/a b"],
            &["spiffe://example.org/a\r\nx: y"],
            &["spiffe://EXAMPLE.org/a"],
            &["SPIFFE://example.org/a"],
            &["spiffe://user@example.org:1/a"],
            &[],
        ] {
            assert_eq!(uris(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_subject_cannot_be_taken_for_another() {
        let subject = |parts: &[(DnType, &str)]| {
            read(|params| parts.iter().for_each(|(kind, value)| params.distinguished_name.push(kind.clone(), *value)))
                .unwrap()
                .subject
        };
        let (cn, o) = (DnType::CommonName, DnType::OrganizationName);
        assert_eq!(&*subject(&[(o.clone(), "Shop"), (cn.clone(), "alice")]), "CN=alice,O=Shop");
        assert_eq!(&*subject(&[(cn.clone(), "alice,O=Bank")]), "CN=alice\\,O\\=Bank");
        assert_eq!(&*subject(&[(cn.clone(), " #a\r\nX: y ")]), "CN=\\ #a\\0d\\0aX: y\\ ");
        assert_eq!(&*subject(&[(cn.clone(), "#1")]), "CN=\\#1");
        assert_eq!(&*subject(&[(cn.clone(), "Zoë")]), "CN=Zo\\c3\\ab");
        assert_eq!(&*subject(&[]), "");
        let custom = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(&*subject(&[(custom, "x")]), "1.2.3.4=#0c0178");
        let bmp = DnValue::BmpString("Ab".try_into().unwrap());
        let read = read(|params| params.distinguished_name.push(DnType::CommonName, bmp)).unwrap();
        assert_eq!(&*read.subject, "CN=#1e0400410062");
    }

    #[test]
    fn what_is_too_large_to_keep_or_to_say_is_not_accepted() {
        let long = "x".repeat(3000);
        let read = read(|params| params.distinguished_name.push(DnType::CommonName, long.as_str()));
        assert_eq!(read.unwrap_err(), Reason::ClientCertificateInvalid);
        let der = certificate(|_| {});
        let many = vec![der.clone(); MAX_CHAIN / der.len() + 1];
        assert_eq!(ClientCertificate::read(&many, &trust(&der)), Err(Reason::ClientCertificateInvalid));
    }

    #[test]
    fn a_kept_chain_is_judged_under_the_trust_that_counts_now() {
        let params = |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        };
        let (alice, other) = (certificate(params), certificate(params));
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let now = at(1_800_000_000);
        let (first, again, foreign) = (trust(&alice), trust(&alice), trust(&other));
        let read = ClientCertificate::read(&[alice], &first).unwrap();
        let rule = |required, trust: &ClientTrust| ClientRule { required, trust: trust.clone() };
        let denied = Err(Reason::ClientCertificateDenied);
        assert_eq!(rule(true, &first).judge(Some(&read)), Ok(()));
        assert_eq!(read.renewed(&first, now), None);
        // Under a trust that has not judged it, a certificate is worth nothing, whether it must be there or not.
        assert_eq!(rule(false, &again).judge(Some(&read)), denied);
        assert_eq!(rule(true, &again).judge(read.renewed(&again, now).as_ref()), Ok(()));
        let refused = read.renewed(&foreign, now).unwrap();
        assert_eq!(rule(true, &foreign).judge(Some(&refused)), denied);
        assert_eq!(rule(false, &foreign).judge(Some(&refused)), denied);
        let late = read.renewed(&again, at(1_900_000_000)).unwrap();
        assert_eq!(rule(true, &again).judge(Some(&late)), denied);
        assert_eq!(rule(true, &first).judge(None), denied);
        assert_eq!(rule(false, &first).judge(None), Ok(()));
    }
}
