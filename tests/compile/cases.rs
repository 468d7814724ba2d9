//! Cases from directories: manifests with Secrets that are filled here, since keys are not committed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};
use serde::Deserialize;
use wssgate::api::ceilings::Ceilings;
use wssgate::api::objects::{Key, Objects};
use wssgate::api::route::Defaults;
use wssgate::compile::Options;
use wssgate::source::files::Files;

/// When every compile of a case happens: 2027-01-15.
pub(crate) const NOW: i64 = 1_800_000_000;

/// What a step sets besides objects, in its line `# options: {..}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Line {
    dev: bool,
    standalone: bool,
    allow_loopback: bool,
    ingress_class_name: Option<String>,
    default_certificate: Option<String>,
    cert_manager: bool,
    /// Secrets that the API server does not show, or has not answered for yet.
    unreadable: Vec<String>,
    awaited: Vec<String>,
    hostname_suffixes: BTreeMap<String, Vec<String>>,
    defaults: Defaults,
    ceilings: Ceilings,
    unshared: Option<std::num::NonZeroUsize>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            dev: false,
            standalone: true,
            allow_loopback: false,
            ingress_class_name: None,
            default_certificate: None,
            cert_manager: false,
            unreadable: Vec::new(),
            awaited: Vec::new(),
            hostname_suffixes: BTreeMap::new(),
            defaults: Defaults::default(),
            ceilings: Ceilings::default(),
            unshared: None,
        }
    }
}

/// What certificates are made of, kept from step to step so that a Secret that is asked for again is the same.
pub(crate) struct Mint {
    authority: Issuer<'static, KeyPair>,
    pem: String,
    made: BTreeMap<String, (String, String)>,
}

impl Mint {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { authority: Issuer::new(params, key), pem, made: BTreeMap::new() }
    }

    /// Fills a Secret that is annotated with `make: names`, and with `valid: from..to` in days from now, `serial`,
    /// `self-signed`, `temporary` (as cert-manager makes it), `foreign-key` or `no-authority` (without `ca.crt`).
    pub(crate) fn fill(&mut self, secret: &Secret) -> Option<Secret> {
        let notes = secret.metadata.annotations.as_ref()?;
        let names = notes.get("make")?;
        let authority = &self.authority;
        let (crt, key) = self.made.entry(format!("{notes:?}")).or_insert_with(|| {
            let key = KeyPair::generate().unwrap();
            let names: Vec<String> = names.split(',').map(ToOwned::to_owned).collect();
            let mut params = CertificateParams::new(names).unwrap();
            let (from, to) = notes.get("valid").map_or(("-10", "80"), |days| days.split_once("..").unwrap());
            let at = |days: &str| {
                let seconds = NOW + days.parse::<i64>().unwrap() * 86_400;
                date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap())
            };
            (params.not_before, params.not_after) = (at(from), at(to));
            params.distinguished_name.push(DnType::CommonName, "test leaf");
            let certificate = if notes.contains_key("self-signed") {
                params.self_signed(&key)
            } else if notes.contains_key("temporary") {
                // As cert-manager 1.21 makes them: without a subject.
                params.distinguished_name = DistinguishedName::new();
                let mut issuer = CertificateParams::new(vec![]).unwrap();
                issuer.distinguished_name = DistinguishedName::new();
                issuer.distinguished_name.push(DnType::CommonName, "cert-manager.local");
                params.signed_by(&key, &Issuer::new(issuer, KeyPair::generate().unwrap()))
            } else {
                params.signed_by(&key, authority)
            };
            let key = if notes.contains_key("foreign-key") { KeyPair::generate().unwrap() } else { key };
            (certificate.unwrap().pem(), key.serialize_pem())
        });
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let mut data = BTreeMap::from([("tls.crt".to_owned(), bytes(crt)), ("tls.key".to_owned(), bytes(key))]);
        if !notes.contains_key("no-authority") {
            data.insert("ca.crt".to_owned(), bytes(&self.pem));
        }
        Some(Secret { data: Some(data), ..secret.clone() })
    }

    /// Fills a ConfigMap that is annotated with `make: ca`, or with `make: crl` and the `year` in which it ends.
    fn fill_map(&mut self, map: &ConfigMap) -> Option<ConfigMap> {
        let notes = map.metadata.annotations.as_ref()?;
        let (key, pem) = match notes.get("make")?.as_str() {
            "crl" => ("crl.pem", self.list(notes.get("year").map_or("2040", String::as_str))),
            _ => ("ca.crt", self.pem.clone()),
        };
        Some(ConfigMap { data: Some([(key.to_owned(), pem)].into()), ..map.clone() })
    }

    fn list(&mut self, year: &str) -> String {
        let authority = &self.authority;
        let make = || {
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2020, 1, 1),
                next_update: date_time_ymd(year.parse().unwrap(), 1, 1),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: vec![],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            (params.signed_by(authority).unwrap().pem().unwrap(), String::new())
        };
        self.made.entry(format!("list {year}")).or_insert_with(make).0.clone()
    }
}

/// The steps of a case: its directories in their order, or the case itself.
pub(crate) fn steps(case: &Path) -> Vec<PathBuf> {
    let mut steps: Vec<PathBuf> =
        std::fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    steps.sort();
    if steps.is_empty() { vec![case.to_owned()] } else { steps }
}

/// The objects and options of a step.
pub(crate) fn load(step: &Path, mint: &mut Mint) -> (Objects, Options) {
    let mut objects = Objects::default();
    for directory in [step.ancestors().find_map(shared).unwrap(), step.to_owned()] {
        let loaded = Files::open(&directory).unwrap().load();
        assert!(loaded.problems.is_empty(), "{}: {:?}", directory.display(), loaded.problems);
        let more = Objects::clone(&loaded.objects);
        objects.routes.extend(more.routes);
        objects.ingress_classes.extend(more.ingress_classes);
        objects.secrets.extend(more.secrets);
        objects.services.extend(more.services);
        objects.endpoint_slices.extend(more.endpoint_slices);
        objects.config_maps.extend(more.config_maps);
        objects.reference_grants.extend(more.reference_grants);
        objects.ingresses.extend(more.ingresses);
        objects.namespaces.extend(more.namespaces);
        objects.certificates.extend(more.certificates);
        objects.violations.extend(more.violations);
    }
    for secret in objects.secrets.values_mut() {
        if let Some(full) = mint.fill(secret) {
            *secret = Arc::new(full);
        }
    }
    for map in objects.config_maps.values_mut() {
        if let Some(full) = mint.fill_map(map) {
            *map = Arc::new(full);
        }
    }
    let line = line(step);
    objects.cert_manager = line.cert_manager;
    let secrets = |texts: &[String]| texts.iter().map(|text| ("Secret", key(text))).collect();
    (objects.unreadable, objects.awaited) = (secrets(&line.unreadable), secrets(&line.awaited));
    (objects, options(line))
}

fn shared(above: &Path) -> Option<PathBuf> {
    Some(above.join("shared")).filter(|path| path.is_dir())
}

fn line(step: &Path) -> Line {
    let text = std::fs::read_to_string(step.join("objects.yaml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("# options: "));
    line.map_or_else(Line::default, |line| serde_saphyr::from_str(line).unwrap())
}

fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    Key::new(namespace, name)
}

fn options(line: Line) -> Options {
    Options {
        dev: line.dev,
        standalone: line.standalone,
        blocked: wssgate::policy::blocked_addresses::BlockedAddresses {
            allow_loopback: line.allow_loopback,
            ..Default::default()
        },
        ingress_class_name: line.ingress_class_name,
        default_certificate: line.default_certificate.as_deref().map(key),
        hostname_suffixes: line.hostname_suffixes,
        unshared: line.unshared,
        defaults: line.defaults,
        ceilings: line.ceilings,
        ..Options::default()
    }
}
