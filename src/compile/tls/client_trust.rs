//! Trust in client certificates: CA bundles and revocation lists of ConfigMaps, made into one verifier.
//!
//! Every reference must resolve and every list must be readable: what is lost here would otherwise let in whom it kept
//! out. Knows ConfigMaps and grants; not hosts or routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::api::objects::{Key, Objects};
use crate::api::route::reference::ConfigMapRef;
use crate::api::status::ConditionReason as Reason;
use crate::compile::guard::guarded;
use crate::compile::pem;
use crate::compile::problem::Problem;
use crate::compile::provider::provider;
use crate::compile::resolve::backend_tls;
use crate::compile::resolve::bundle::{CA, same, value};
use crate::compile::resolve::reference::{Grants, absent};
use crate::compile::spec::tls::ClientDraft;
use crate::compile::tls::certificate::date;
use crate::policy::certificate::ClientRule;
use crate::tls::ClientTrust;

/// The key of revocation lists in their ConfigMap.
const CRL: &str = "crl.pem";
/// The most bytes of one value; the API server allows no ConfigMap over 1 MiB.
const MAX_BYTES: usize = 1 << 20;
/// The most bytes of authorities' names that the handshake lists for the client to choose by (RFC 8446 §4.2.4). Beyond
/// it names none: the message has 16 bits for its length, and clients may choose freely then.
const MAX_HINTS: usize = 16 << 10;

/// What a verifier is made of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sources {
    required: bool,
    authorities: Vec<Key>,
    revocations: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Made {
    maps: Vec<Arc<ConfigMap>>,
    result: Result<Expiring, Problem>,
}

/// A verifier with the time at which its first revocation list ends.
#[derive(Debug, Clone)]
struct Expiring {
    trust: ClientTrust,
    /// Seconds since the Unix epoch, and whose.
    expires: Option<(i64, Key)>,
}

/// Verifiers by what they are made of, kept from one compile to the next: content that did not change keeps its verifier,
/// and so its connections.
#[derive(Debug, Default)]
pub struct ClientTrusts {
    by_sources: BTreeMap<Sources, Made>,
}

/// What a host asks of client certificates, and the problem of it.
#[derive(Debug)]
pub struct Validation {
    /// What is asked.
    pub rule: ClientRule,
    /// A revocation list whose time is over.
    pub expired: Option<Problem>,
}

impl ClientTrusts {
    /// The rule of a host that a route of `home` owns, at `now` (seconds since the Unix epoch).
    ///
    /// # Errors
    /// Every reference that does not resolve, or the first content that cannot be used.
    pub fn rule(
        &mut self,
        before: Option<&Self>,
        (objects, grants): (&Objects, &Grants<'_>),
        home: &str,
        draft: &ClientDraft,
        now: i64,
    ) -> Result<Validation, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut maps = Vec::new();
        let mut resolve = |list: &[ConfigMapRef], field: &str, key: &str| -> Vec<Key> {
            let mut keys = Vec::with_capacity(list.len());
            for (index, reference) in list.iter().enumerate() {
                let field = format!("spec.tls.clientValidation.{field}[{index}]");
                let namespace = reference.namespace.as_deref();
                match grants.resolve(&field, home, "ConfigMap", namespace, &reference.name) {
                    Err(problem) => problems.push(problem),
                    Ok(name) => match objects.config_maps.get(&name) {
                        None => {
                            let with = format_args!("the key {key}");
                            problems.push(absent(objects, &field, "ConfigMap", &name, with));
                        }
                        Some(map) => {
                            keys.push(name);
                            maps.push(Arc::clone(map));
                        }
                    },
                }
            }
            keys
        };
        let authorities = resolve(&draft.authorities, "caCertificateRefs", CA);
        let revocations = resolve(&draft.revocations, "crlRefs", CRL);
        if !problems.is_empty() {
            return Err(problems);
        }
        let sources = Sources { required: draft.required, authorities, revocations };
        let trust = self.trust(before, sources, maps).map_err(|problem| vec![problem])?;
        let expired = trust.expires.filter(|(at, _)| *at <= now).map(|(at, name)| {
            let text = format_args!(
                "ConfigMap {name}: a revocation list expired on {}; no certificate of its issuer is accepted until the \
                 next list is published",
                date(at)
            );
            Problem::new(Reason::Expired, "spec.tls.clientValidation.crlRefs", text)
        });
        Ok(Validation { rule: ClientRule { required: draft.required, trust: trust.trust }, expired })
    }

    fn trust(
        &mut self,
        before: Option<&Self>,
        sources: Sources,
        maps: Vec<Arc<ConfigMap>>,
    ) -> Result<Expiring, Problem> {
        if let Some(made) = self.by_sources.get(&sources) {
            return made.result.clone();
        }
        let made = before.and_then(|before| before.by_sources.get(&sources));
        let result = match made.filter(|made| made.maps.iter().zip(&maps).all(|(old, new)| same(old, new))) {
            Some(made) => made.result.clone(),
            None => {
                let refuse = |fault| {
                    let text = format_args!("a CA bundle or revocation list {fault}");
                    Problem::new(Reason::InvalidCertificateRef, "spec.tls.clientValidation", text)
                };
                guarded(refuse, || make(&sources, &maps))
            }
        };
        self.by_sources.insert(sources, Made { maps, result: result.clone() });
        result
    }
}

fn make(sources: &Sources, maps: &[Arc<ConfigMap>]) -> Result<Expiring, Problem> {
    let bad = |field: &str, key: &Key, text: &str| {
        let field = format_args!("spec.tls.clientValidation.{field}");
        Problem::new(Reason::InvalidCertificateRef, field, format_args!("ConfigMap {key}: {text}"))
    };
    let (authorities, revocations) = maps.split_at(sources.authorities.len().min(maps.len()));
    let mut roots = RootCertStore::empty();
    for (key, map) in sources.authorities.iter().zip(authorities) {
        let bad = |text: &str| bad("caCertificateRefs", key, text);
        for (at, der) in backend_tls::read(value(map, CA)).map_err(|text| bad(&text))?.into_iter().enumerate() {
            if !may_issue(&der) {
                return Err(bad(&format!(
                    "certificate {} of ca.crt is not that of an authority (basicConstraints CA, keyUsage keyCertSign); \
                     put the certificate of its issuer there",
                    at + 1
                )));
            }
            roots.add(der).map_err(|_| {
                bad(&format!("certificate {} of ca.crt is not a CA certificate of X.509 version 3", at + 1))
            })?;
        }
    }
    let mut lists = Vec::new();
    let mut expires: Option<(i64, Key)> = None;
    for (key, map) in sources.revocations.iter().zip(revocations) {
        let bad = |text: &str| bad("crlRefs", key, text);
        let pem = value(map, CRL);
        if pem.len() > MAX_BYTES {
            return Err(bad("crl.pem is larger than 1 MiB"));
        }
        let before = lists.len();
        let count = pem::check(pem, "X509 CRL")
            .map_err(|why| bad(&format!("crl.pem is not valid PEM: {why}; put whole X509 CRL blocks there")))?;
        for der in CertificateRevocationListDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| bad("crl.pem is not valid PEM; put X509 CRL blocks there"))?;
            let unusable = "crl.pem has a revocation list that is not of X.509 version 2 with a nextUpdate";
            let ends = CertificateRevocationList::from_der(&der)
                .ok()
                .and_then(|(_, list)| list.next_update())
                .ok_or_else(|| bad(unusable))?
                .timestamp();
            // Alone, so that the one that is wrong can be named.
            verifier(sources.required, &roots, vec![der.clone()]).map_err(|_| bad(unusable))?;
            if expires.as_ref().is_none_or(|(first, _)| ends < *first) {
                expires = Some((ends, key.clone()));
            }
            lists.push(der);
        }
        match lists.len() - before {
            0 => return Err(bad("crl.pem has no X509 CRL block")),
            read if read != count => return Err(bad("crl.pem is not valid PEM: it cannot be read whole")),
            _ => {}
        }
    }
    let trust = verifier(sources.required, &roots, lists).map_err(|error| {
        let text = format_args!("cannot be used: {error}");
        Problem::new(Reason::InvalidCertificateRef, "spec.tls.clientValidation", text)
    })?;
    Ok(Expiring { trust, expires })
}

/// Whether a certificate says that its key may sign others (RFC 5280 §4.2.1.9 and §4.2.1.3). The key of one that may not
/// could otherwise make any client.
fn may_issue(der: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    certificate.is_ca()
        && certificate.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// A verifier that knows revocations of the whole chain or refuses, and takes no list whose time is over.
fn verifier(
    required: bool,
    roots: &RootCertStore,
    lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<ClientTrust, rustls::server::VerifierBuilderError> {
    let hints: usize = roots.subjects().iter().map(|name| name.as_ref().len() + 2).sum();
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(provider()));
    if hints > MAX_HINTS {
        builder = builder.clear_root_hint_subjects();
    }
    if !required {
        builder = builder.allow_unauthenticated();
    }
    if !lists.is_empty() {
        // Denied is what is not known to be good, at every step of the chain: rustls' own choice, and ours.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    builder.build().map(ClientTrust::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
        KeyUsagePurpose, SerialNumber, date_time_ymd,
    };

    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    fn ca() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    fn crl(ca: &Ca, until: i32) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&ca.issuer).unwrap().pem().unwrap()
    }

    fn objects(maps: &[(&str, &str, &str)]) -> Objects {
        let mut objects = Objects::default();
        for (name, key, text) in maps {
            let data = Some([((*key).to_owned(), (*text).to_owned())].into());
            let map = ConfigMap { data, ..ConfigMap::default() };
            objects.config_maps.insert(Key::new("shop", *name), Arc::new(map));
        }
        objects
    }

    fn reference(name: &str) -> ConfigMapRef {
        serde_saphyr::from_str(&format!("{{name: {name}}}")).unwrap()
    }

    const NOW: i64 = 1_800_000_000;

    fn rule(
        objects: &Objects,
        trusts: &mut ClientTrusts,
        before: Option<&ClientTrusts>,
    ) -> Result<Validation, Vec<Problem>> {
        let lists = objects.config_maps.contains_key(&Key::new("shop", "crl"));
        let revocations = if lists { vec![reference("crl")] } else { vec![] };
        let draft = ClientDraft { required: true, authorities: vec![reference("ca")], revocations };
        trusts.rule(before, (objects, &Grants::new(objects)), "shop", &draft, NOW)
    }

    fn said(maps: &[(&str, &str, &str)]) -> String {
        let problems = rule(&objects(maps), &mut ClientTrusts::default(), None).unwrap_err();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_did_not_change_has_the_same_verifier_and_what_did_has_another() {
        let (one, other) = (ca(), ca());
        let with = |ca: &str, list: &str| objects(&[("ca", "ca.crt", ca), ("crl", "crl.pem", list)]);
        let list = crl(&one, 2050);
        let mut first = ClientTrusts::default();
        let before = rule(&with(&one.pem, &list), &mut first, None).unwrap();
        let next = |objects: &Objects| rule(objects, &mut ClientTrusts::default(), Some(&first)).unwrap().rule;
        assert_eq!(next(&with(&one.pem, &list)), before.rule);
        assert_ne!(next(&with(&other.pem, &list)), before.rule);
        assert_ne!(next(&with(&one.pem, &crl(&one, 2051))), before.rule);
        assert!(before.expired.is_none());
    }

    #[test]
    fn whatever_is_missing_or_broken_is_named() {
        let ca = ca();
        let good = ("ca", "ca.crt", ca.pem.as_str());
        let empty = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        for (maps, expected) in [
            (&[][..], "caCertificateRefs[0]: ConfigMap shop/ca does not exist; create it with the key ca.crt"),
            (&[("ca", "other", "x")], "caCertificateRefs: ConfigMap shop/ca: ca.crt has no CERTIFICATE block"),
            (&[good, ("crl", "crl.pem", "")], "crlRefs: ConfigMap shop/crl: crl.pem has no X509 CRL block"),
            (&[good, ("crl", "crl.pem", empty)], "crlRefs: ConfigMap shop/crl: crl.pem has a revocation list that"),
            (&[good, ("crl", "crl.pem", "-----BEGIN X509 CRL-----\n")], "crl.pem is not valid PEM"),
        ] {
            let text = said(maps);
            assert!(text.starts_with("spec.tls.clientValidation.") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_list_that_expired_is_reported() {
        let ca = ca();
        let objects = objects(&[("ca", "ca.crt", &ca.pem), ("crl", "crl.pem", &(crl(&ca, 2050) + &crl(&ca, 2026)))]);
        let asked = rule(&objects, &mut ClientTrusts::default(), None).unwrap();
        let expired = asked.expired.unwrap();
        assert!(expired.reason == Reason::Expired && expired.text.contains("2026-01-01"), "{expired}");
    }

    #[test]
    fn very_many_authorities_are_not_listed_to_the_client() {
        let name = |n: usize| {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("{n} {}", "x".repeat(200)));
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        let hints = |count: usize| {
            let bundle: String = (0..count).map(name).collect();
            let objects = objects(&[("ca", "ca.crt", &bundle)]);
            let rule = rule(&objects, &mut ClientTrusts::default(), None).unwrap().rule;
            rule.trust.verifier().root_hint_subjects().len()
        };
        assert_eq!((hints(3), hints(100)), (3, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_in_a_bundle_or_list_are_a_panic(
            der in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..400, byte: u8,
        ) {
            use base64::Engine;
            let ca = ca();
            let pem = |label: &str, der: &[u8]| {
                let text = base64::engine::general_purpose::STANDARD.encode(der);
                format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
            };
            let list = CertificateRevocationListDer::from_pem_slice(crl(&ca, 2050).as_bytes()).unwrap();
            let mut bent = list.to_vec();
            let at = at % bent.len();
            bent[at] = byte;
            for der in [der, bent] {
                let list = pem("X509 CRL", &der);
                let _ = rule(&objects(&[("ca", "ca.crt", &ca.pem), ("crl", "crl.pem", &list)]), &mut ClientTrusts::default(), None);
                let _ = rule(&objects(&[("ca", "ca.crt", &pem("CERTIFICATE", &der))]), &mut ClientTrusts::default(), None);
            }
        }
    }
}
