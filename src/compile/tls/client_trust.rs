//! Trust in client certificates: CA bundles and revocation lists of ConfigMaps, made into one verifier.
//!
//! Every reference must resolve: what is lost here would otherwise let in whom it kept out. A bundle or list that cannot
//! be read whole counts as it last could, if this replica has read it. Knows ConfigMaps and grants; not hosts or routes.

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
use crate::compile::resolve::bundle::{CA, LastGood, same, value};
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
    /// The ConfigMaps as they are.
    maps: Vec<Arc<ConfigMap>>,
    /// The versions of them that count.
    used: Vec<Arc<ConfigMap>>,
    /// Those that are broken.
    broken: Vec<Problem>,
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
    last_good: LastGood,
}

/// What a host asks of client certificates, and the problems of it.
#[derive(Debug)]
pub struct Validation {
    /// What is asked.
    pub rule: ClientRule,
    /// Bundles and lists in whose place the last good ones are used, and a revocation list whose time is over.
    pub problems: Vec<Problem>,
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
        let Made { result, broken: mut problems, .. } = self.made(before, sources, maps);
        let trust = result.map_err(|problem| vec![problem])?;
        problems.extend(trust.expires.filter(|(at, _)| *at <= now).map(|(at, name)| {
            let text = format_args!(
                "ConfigMap {name}: a revocation list expired on {}; no certificate of its issuer is accepted until the \
                 next list is published",
                date(at)
            );
            Problem::new(Reason::Expired, "spec.tls.clientValidation.crlRefs", text)
        }));
        Ok(Validation { rule: ClientRule { required: draft.required, trust: trust.trust }, problems })
    }

    fn made(&mut self, before: Option<&Self>, sources: Sources, maps: Vec<Arc<ConfigMap>>) -> Made {
        if let Some(made) = self.by_sources.get(&sources) {
            return made.clone();
        }
        let old = before.and_then(|before| Some((before, before.by_sources.get(&sources)?)));
        let made = match old.filter(|(_, old)| all_same(&old.maps, &maps)) {
            Some((before, old)) => {
                for (entry, key) in sources.entries() {
                    self.last_good.carry(&before.last_good, entry, key);
                }
                old.clone()
            }
            None => self.make(before, &sources, maps, old.map(|(_, old)| old)),
        };
        self.by_sources.insert(sources, made.clone());
        made
    }

    /// Makes the verifier of what can be read now, and of the last good version of what cannot. The same versions give the
    /// verifier of `old`.
    fn make(
        &mut self,
        before: Option<&Self>,
        sources: &Sources,
        maps: Vec<Arc<ConfigMap>>,
        old: Option<&Made>,
    ) -> Made {
        let (mut used, mut broken, mut unusable) = (Vec::with_capacity(maps.len()), Vec::new(), None);
        let mut roots = RootCertStore::empty();
        for ((entry, key), map) in sources.entries().zip(&maps) {
            let read = |text: &[u8]| match entry {
                CA => add_authorities(&mut RootCertStore::empty(), text),
                // Each alone, so that the one that is wrong can be named.
                _ => read_lists(text)?.into_iter().enumerate().try_for_each(|(at, (der, _))| {
                    verifier(sources.required, &roots, vec![der]).map(|_| ()).map_err(|_| unusable_list(at))
                }),
            };
            match self.last_good.choose(before.map(|before| &before.last_good), entry, (key, map), read) {
                Ok(chosen) => {
                    if entry == CA {
                        // It was read just now, or when it was the one that counted last.
                        let _ = add_authorities(&mut roots, value(&chosen.map, CA));
                    }
                    broken.extend(chosen.broken.map(|text| bad(entry, key, &text)));
                    used.push(chosen.map);
                }
                Err(text) => unusable = unusable.or(Some(bad(entry, key, &text))),
            }
        }
        let refuse = |fault| {
            let text = format_args!("a CA bundle or revocation list {fault}");
            Problem::new(Reason::InvalidCertificateRef, "spec.tls.clientValidation", text)
        };
        let result = match (unusable, old) {
            (Some(problem), _) => Err(problem),
            (None, Some(old)) if old.result.is_ok() && all_same(&old.used, &used) => old.result.clone(),
            (None, _) => guarded(refuse, || put_together(sources, &used)),
        };
        Made { maps, used, broken, result }
    }
}

impl Sources {
    /// The entries of ConfigMaps that a verifier is made of, in their order.
    fn entries(&self) -> impl Iterator<Item = (&'static str, &Key)> {
        let authorities = self.authorities.iter().map(|key| (CA, key));
        authorities.chain(self.revocations.iter().map(|key| (CRL, key)))
    }
}

fn all_same(old: &[Arc<ConfigMap>], new: &[Arc<ConfigMap>]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
}

/// A problem of an entry of a ConfigMap.
fn bad(entry: &str, key: &Key, text: &str) -> Problem {
    let field = if entry == CA { "caCertificateRefs" } else { "crlRefs" };
    let field = format_args!("spec.tls.clientValidation.{field}");
    Problem::new(Reason::InvalidCertificateRef, field, format_args!("ConfigMap {key}: {text}"))
}

/// Makes the verifier of contents that were read before.
fn put_together(sources: &Sources, maps: &[Arc<ConfigMap>]) -> Result<Expiring, Problem> {
    let mut roots = RootCertStore::empty();
    let (mut lists, mut expires) = (Vec::new(), None::<(i64, Key)>);
    for ((entry, key), map) in sources.entries().zip(maps) {
        if entry == CA {
            add_authorities(&mut roots, value(map, CA)).map_err(|text| bad(entry, key, &text))?;
            continue;
        }
        for (der, ends) in read_lists(value(map, CRL)).map_err(|text| bad(entry, key, &text))? {
            if expires.as_ref().is_none_or(|(first, _)| ends < *first) {
                expires = Some((ends, key.clone()));
            }
            lists.push(der);
        }
    }
    let trust = verifier(sources.required, &roots, lists).map_err(|error| {
        let text = format_args!("cannot be used: {error}");
        Problem::new(Reason::InvalidCertificateRef, "spec.tls.clientValidation", text)
    })?;
    Ok(Expiring { trust, expires })
}

/// Adds a bundle of authorities: all that it has, and no certificate of anything else.
fn add_authorities(roots: &mut RootCertStore, text: &[u8]) -> Result<(), String> {
    for (at, der) in backend_tls::read(text)?.into_iter().enumerate() {
        if !may_issue(&der) {
            return Err(format!(
                "certificate {} of ca.crt is not that of an authority (basicConstraints CA, keyUsage keyCertSign); put the \
                 certificate of its issuer there",
                at + 1
            ));
        }
        roots
            .add(der)
            .map_err(|_| format!("certificate {} of ca.crt is not a CA certificate of X.509 version 3", at + 1))?;
    }
    Ok(())
}

fn unusable_list(at: usize) -> String {
    format!("revocation list {} of crl.pem is not one of X.509 version 2 with a nextUpdate", at + 1)
}

/// The revocation lists of a file, all of them and at least one, each with its end in seconds since the Unix epoch.
///
/// # Errors
/// What is wrong with it; the text names its key `crl.pem`.
pub fn read_lists(text: &[u8]) -> Result<Vec<(CertificateRevocationListDer<'static>, i64)>, String> {
    if text.len() > MAX_BYTES {
        return Err("crl.pem is larger than 1 MiB".to_owned());
    }
    let broken = |why: &str| format!("crl.pem is not valid PEM: {why}; put whole X509 CRL blocks there");
    let count = pem::check(text, "X509 CRL").map_err(|why| broken(&why))?;
    let mut lists = Vec::with_capacity(count);
    for (at, der) in CertificateRevocationListDer::pem_slice_iter(text).enumerate() {
        let der = der.map_err(|_| broken(&format!("X509 CRL block {} is not base64", at + 1)))?;
        let ends = match CertificateRevocationList::from_der(&der) {
            Ok(([], list)) => list.next_update(),
            _ => None,
        };
        let ends = ends.ok_or_else(|| unusable_list(at))?.timestamp();
        lists.push((der, ends));
    }
    match lists.len() {
        0 => Err("crl.pem has no X509 CRL block".to_owned()),
        read if read != count => Err(broken("it cannot be read whole")),
        _ => Ok(lists),
    }
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
        assert!(before.problems.is_empty());
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
            (&[good, ("crl", "crl.pem", empty)], "crlRefs: ConfigMap shop/crl: revocation list 1 of crl.pem is not"),
            (&[good, ("crl", "crl.pem", "-----BEGIN X509 CRL-----\n")], "crl.pem is not valid PEM"),
        ] {
            let text = said(maps);
            assert!(text.starts_with("spec.tls.clientValidation.") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_is_broken_counts_as_it_last_could_be_read_and_what_is_gone_does_not() {
        let (one, other) = (ca(), ca());
        let with = |ca: &str, list: &str| objects(&[("ca", "ca.crt", ca), ("crl", "crl.pem", list)]);
        let (list, joined) = (crl(&one, 2050), format!("{}{}", one.pem.trim_end(), other.pem));
        let mut first = ClientTrusts::default();
        let good = rule(&with(&one.pem, &list), &mut first, None).unwrap().rule;
        let mut second = ClientTrusts::default();
        let broken = rule(&with(&joined, &list), &mut second, Some(&first)).unwrap();
        assert_eq!(broken.rule, good, "the very same verifier: nobody is judged again");
        let said = broken.problems[0].to_string();
        assert!(
            broken.problems.len() == 1 && said.contains("block 1 is not alone") && said.contains("last good"),
            "{said}"
        );
        // It stays while the ConfigMap stays as it is, and another ConfigMap changes beside it.
        let mut third = ClientTrusts::default();
        assert_eq!(rule(&with(&joined, &list), &mut third, Some(&second)).unwrap().rule, good);
        let cut = &list[..list.len() - 20];
        let mut fourth = ClientTrusts::default();
        let both = rule(&with(&joined, cut), &mut fourth, Some(&third)).unwrap();
        assert_eq!((both.rule, both.problems.len()), (good.clone(), 2));
        let renewed = rule(&with(&joined, &crl(&one, 2051)), &mut ClientTrusts::default(), Some(&fourth)).unwrap();
        assert_ne!(renewed.rule, good, "a list that is good counts beside a bundle that is broken");
        // What is lost is lost, and does not come back by a mistake.
        for lost in [objects(&[("crl", "crl.pem", &list)]), with("", &list), with(&one.pem, "")] {
            let mut after = ClientTrusts::default();
            assert!(rule(&lost, &mut after, Some(&fourth)).is_err());
            assert!(rule(&with(&joined, cut), &mut ClientTrusts::default(), Some(&after)).is_err());
        }
        assert!(
            rule(&with(&joined, &list), &mut ClientTrusts::default(), None).is_err(),
            "a replica that starts has none"
        );
    }

    #[test]
    fn a_list_that_expired_is_reported() {
        let ca = ca();
        let objects = objects(&[("ca", "ca.crt", &ca.pem), ("crl", "crl.pem", &(crl(&ca, 2050) + &crl(&ca, 2026)))]);
        let asked = rule(&objects, &mut ClientTrusts::default(), None).unwrap();
        let [expired] = &asked.problems[..] else { panic!("{:?}", asked.problems) };
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
