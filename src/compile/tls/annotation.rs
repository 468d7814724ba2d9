//! Annotations of a route to its Certificate: those of cert-manager's ingress-shim, with the meaning that they have
//! there. An annotation that is unknown or not possible is a problem, because it would have no effect.
//!
//! A certificate is for the hostnames of its route, as a server, and for nobody else: someone who may write a route may not
//! have the issuer name a person, a client or a CA by it.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::api::certificate::{Certificate, PrivateKey, SecretTemplate, Subject};
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::{Problem, quote};

/// What the annotations of cert-manager begin with.
const PREFIX: &str = "cert-manager.io/";
/// What those for its ACME issuers begin with.
const ACME: &str = "acme.cert-manager.io/";
/// The shortest duration that cert-manager takes, in seconds.
const SHORTEST: f64 = 3600.0;
/// The shortest time before the end that it takes, in seconds.
const SHORTEST_RENEWAL: f64 = 300.0;
/// The problem of an annotation of cert-manager that routes do not know.
const UNKNOWN: &str = "this annotation is not known for routes; correct its name or remove it";
/// Usages in cert-manager's words: those that a key of a server may have.
const USAGES: &[&str] = &[
    SERVER,
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
];
/// The purpose (RFC 5280 §4.2.1.12) without which a certificate would be for every purpose.
const SERVER: &str = "server auth";

/// Applies a route's annotations to its Certificate, which has its DNS names already.
///
/// Returns the problem of each annotation that cannot be applied.
pub fn carry(annotations: &BTreeMap<String, String>, certificate: &mut Certificate) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, value) in annotations {
        let result = match (name.strip_prefix(PREFIX), name.strip_prefix(ACME)) {
            (Some(short), _) => general(short, value, certificate),
            (_, Some(short)) => acme(short, value, certificate),
            _ => Ok(()),
        };
        if let Err(text) = result {
            problems.push(invalid(name, text));
        }
    }
    let spec = &mut certificate.spec;
    if let Some(key) = &mut spec.private_key
        && let Err(text) = size(key)
    {
        problems.push(invalid(format_args!("{PREFIX}private-key-size"), text));
    }
    if spec.renew_before.is_some() && spec.renew_before_percentage.is_some() {
        let text = "renew-before is set too; remove one of the two";
        problems.push(invalid(format_args!("{PREFIX}renew-before-percentage"), text));
    }
    let seconds = |text: &Option<String>| text.as_deref().and_then(duration);
    if let (Some(whole), Some(before)) = (seconds(&spec.duration), seconds(&spec.renew_before))
        && before >= whole
    {
        problems.push(invalid(format_args!("{PREFIX}renew-before"), "must be shorter than the duration"));
    }
    problems
}

fn invalid(annotation: impl Display, text: impl Display) -> Problem {
    Problem::new(Reason::Invalid, format_args!("metadata.annotations[{annotation}]"), text)
}

fn general(name: &str, value: &str, certificate: &mut Certificate) -> Result<(), String> {
    let spec = &mut certificate.spec;
    match name {
        "common-name" => {
            if !spec.dns_names.iter().any(|name| name == value) {
                return Err(format!("{} must be one of spec.hostnames", quote(value)));
            }
            spec.common_name = Some(value.to_owned());
        }
        "duration" => spec.duration = Some(longer(value, SHORTEST, "1h")?),
        "renew-before" => spec.renew_before = Some(longer(value, SHORTEST_RENEWAL, "5m")?),
        "renew-before-percentage" => {
            let percent = value.parse().ok().filter(|percent| (1..100).contains(percent));
            spec.renew_before_percentage =
                Some(percent.ok_or_else(|| format!("{} must be a number from 1 to 99", quote(value)))?);
        }
        "revision-history-limit" => {
            let limit = value.parse().ok().filter(|limit| *limit >= 1);
            spec.revision_history_limit =
                Some(limit.ok_or_else(|| format!("{} must be a number of at least 1", quote(value)))?);
        }
        "usages" => spec.usages = usages(value)?,
        "secret-template" => {
            let template: SecretTemplate = serde_json::from_str(value)
                .map_err(|_| "must be a JSON object of labels and annotations with text as values".to_owned())?;
            if let Some(own) = template.annotations.keys().find(|name| name.starts_with(PREFIX)) {
                return Err(format!("{} is reserved for cert-manager; remove it", quote(own)));
            }
            spec.secret_template = Some(template).filter(|template| *template != SecretTemplate::default());
        }
        "issue-temporary-certificate" => {
            one_of(value, &["true", "false"])?;
            annotate(certificate, &format!("{PREFIX}{name}"), value);
        }
        "issuer" | "cluster-issuer" | "issuer-kind" | "issuer-group" | "issuer-name" => {
            return Err("the issuer is set by spec.tls.issuerRef; remove the annotation".to_owned());
        }
        "alt-names" | "email-sans" | "ip-sans" | "uri-sans" => {
            let text = "a certificate can only have the names of spec.hostnames; remove the annotation";
            return Err(text.to_owned());
        }
        _ => match (name.strip_prefix("private-key-"), name.strip_prefix("subject-")) {
            (Some(part), _) => private_key(part, value, spec.private_key.get_or_insert_default())?,
            (_, Some(part)) => subject(part, value, spec.subject.get_or_insert_default())?,
            (None, None) => return Err(UNKNOWN.to_owned()),
        },
    }
    Ok(())
}

fn usages(value: &str) -> Result<Vec<String>, String> {
    let usages = value.split(',').map(str::trim);
    if let Some(unknown) = usages.clone().find(|usage| !USAGES.contains(usage)) {
        return Err(format!("{} is not a usage of a server's key; remove it", quote(unknown)));
    }
    if !usages.clone().any(|usage| usage == SERVER) {
        return Err(format!("must have {SERVER}, without which the certificate would be for every purpose"));
    }
    Ok(usages.map(ToOwned::to_owned).collect())
}

fn private_key(part: &str, value: &str, key: &mut PrivateKey) -> Result<(), String> {
    match part {
        "algorithm" => key.algorithm = Some(one_of(value, &["RSA", "ECDSA", "Ed25519"])?),
        "encoding" => key.encoding = Some(one_of(value, &["PKCS1", "PKCS8"])?),
        "rotation-policy" => key.rotation_policy = Some(one_of(value, &["Always", "Never"])?),
        "size" => key.size = Some(value.parse().map_err(|_| format!("{} must be a number of bits", quote(value)))?),
        _ => return Err(UNKNOWN.to_owned()),
    }
    Ok(())
}

fn acme(name: &str, value: &str, certificate: &mut Certificate) -> Result<(), String> {
    let own = match name {
        "http01-ingress-class" => "http01-override-ingress-class",
        "http01-ingress-ingressclassname" => "http01-override-ingress-ingressclassname",
        _ => return Err(UNKNOWN.to_owned()),
    };
    annotate(certificate, &format!("{ACME}{own}"), value);
    Ok(())
}

fn annotate(certificate: &mut Certificate, name: &str, value: &str) {
    certificate.metadata.annotations.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

fn subject(part: &str, value: &str, subject: &mut Subject) -> Result<(), String> {
    let list = match part {
        "organizations" => &mut subject.organizations,
        "organizationalunits" => &mut subject.organizational_units,
        "countries" => &mut subject.countries,
        "provinces" => &mut subject.provinces,
        "localities" => &mut subject.localities,
        "postalcodes" => &mut subject.postal_codes,
        "streetaddresses" => &mut subject.street_addresses,
        "serialnumber" => {
            subject.serial_number = Some(value.to_owned());
            return Ok(());
        }
        _ => return Err("a subject has no such attribute; correct the name or remove it".to_owned()),
    };
    *list = record(value).ok_or_else(|| format!("{} must be a list of comma-separated values", quote(value)))?;
    Ok(())
}

/// The size belongs to the algorithm: the default one goes with ECDSA only.
fn size(key: &mut PrivateKey) -> Result<(), String> {
    let size = key.size.unwrap_or_default();
    let good = match key.algorithm.as_deref() {
        Some("RSA") => (2048..=8192).contains(&size),
        Some("ECDSA") => matches!(size, 256 | 384 | 521),
        _ => {
            key.size = None;
            return Ok(());
        }
    };
    match (good, key.algorithm.as_deref()) {
        (true, _) => Ok(()),
        // Not chosen by anybody: what cert-manager takes.
        (false, Some("RSA")) if size == DEFAULT_BITS => {
            key.size = None;
            Ok(())
        }
        (false, Some("RSA")) => Err("must be from 2048 to 8192 for RSA".to_owned()),
        (false, _) => Err("must be 256, 384 or 521 for ECDSA".to_owned()),
    }
}

/// Bits of the key that a Certificate asks for where no annotation says otherwise: ECDSA P-256.
pub const DEFAULT_BITS: i32 = 256;

fn one_of(value: &str, all: &[&str]) -> Result<String, String> {
    if all.contains(&value) {
        return Ok(value.to_owned());
    }
    Err(format!("{} must be one of {}", quote(value), all.join(", ")))
}

fn longer(value: &str, least: f64, text: &str) -> Result<String, String> {
    match duration(value) {
        Some(seconds) if seconds >= least => Ok(value.to_owned()),
        _ => Err(format!("{} must be a duration of at least {text}, such as 2160h", quote(value))),
    }
}

/// Seconds of a duration as Go writes it: `2160h`, `1h30m`, `1.5h`.
fn duration(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = 0.0;
    let mut any = false;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
        any = true;
        rest = after;
    }
    // Go counts nanoseconds in 63 bits.
    any.then_some(sum).filter(|sum| *sum < 9.2e9)
}

/// One record of comma-separated values (RFC 4180): a value may stand in quotes, with `""` for a quote.
fn record(text: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        let value = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (mut value, mut chars) = (String::new(), quoted.char_indices().peekable());
                let end = loop {
                    match chars.next()? {
                        (_, '"') if chars.next_if(|(_, c)| *c == '"').is_some() => value.push('"'),
                        (at, '"') => break at + 1,
                        (_, c) => value.push(c),
                    }
                };
                rest = quoted.get(end..)?;
                value
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (value, after) = rest.split_at(end);
                rest = after;
                value.to_owned()
            }
        };
        values.push(value);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Some(values),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(annotations: &[(&str, &str)]) -> (Certificate, Vec<String>) {
        let key = PrivateKey {
            algorithm: Some("ECDSA".into()),
            size: Some(DEFAULT_BITS),
            rotation_policy: Some("Always".into()),
            ..PrivateKey::default()
        };
        let mut certificate = Certificate::default();
        certificate.spec.private_key = Some(key);
        certificate.spec.dns_names = vec!["chat.example.com".to_owned()];
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let problems = carry(&annotations, &mut certificate);
        (certificate, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn annotations_have_the_meaning_of_ingress_shim() {
        let (certificate, problems) = with(&[
            ("cert-manager.io/common-name", "chat.example.com"),
            ("cert-manager.io/duration", "2160h"),
            ("cert-manager.io/renew-before", "360h30m"),
            ("cert-manager.io/revision-history-limit", "3"),
            ("cert-manager.io/usages", "server auth, key encipherment"),
            ("cert-manager.io/private-key-algorithm", "RSA"),
            ("cert-manager.io/private-key-encoding", "PKCS8"),
            ("cert-manager.io/private-key-size", "4096"),
            ("cert-manager.io/private-key-rotation-policy", "Never"),
            ("cert-manager.io/subject-organizations", "Shop,\"Shop, Ltd.\""),
            ("cert-manager.io/subject-serialnumber", "7"),
            ("cert-manager.io/secret-template", r#"{"labels": {"a": "b"}}"#),
            ("cert-manager.io/issue-temporary-certificate", "true"),
            ("acme.cert-manager.io/http01-ingress-ingressclassname", "wssgate"),
            ("example.com/other", "untouched"),
        ]);
        assert_eq!(problems, [""; 0]);
        let expected = serde_json::json!({
            "secretName": "", "issuerRef": {"name": ""}, "dnsNames": ["chat.example.com"],
            "commonName": "chat.example.com", "duration": "2160h", "renewBefore": "360h30m",
            "revisionHistoryLimit": 3, "usages": ["server auth", "key encipherment"],
            "privateKey": {"algorithm": "RSA", "encoding": "PKCS8", "size": 4096, "rotationPolicy": "Never"},
            "subject": {"organizations": ["Shop", "Shop, Ltd."], "serialNumber": "7"},
            "secretTemplate": {"labels": {"a": "b"}},
        });
        assert_eq!(serde_json::to_value(&certificate.spec).unwrap(), expected);
        let annotations = certificate.metadata.annotations.unwrap();
        let annotations: Vec<(&str, &str)> = annotations.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            annotations,
            [
                ("acme.cert-manager.io/http01-override-ingress-ingressclassname", "wssgate"),
                ("cert-manager.io/issue-temporary-certificate", "true"),
            ]
        );
    }

    #[test]
    fn another_algorithm_does_not_keep_the_size_of_the_default_one() {
        for (algorithm, size) in [("RSA", None), ("Ed25519", None), ("ECDSA", Some(256))] {
            let (certificate, problems) = with(&[("cert-manager.io/private-key-algorithm", algorithm)]);
            assert_eq!((problems.len(), certificate.spec.private_key.unwrap().size), (0, size), "{algorithm}");
        }
    }

    #[test]
    fn what_is_unknown_or_invalid_is_reported_by_the_name_of_the_annotation() {
        for (name, value) in [
            ("duration", "90 days"),
            ("duration", "59m"),
            ("duration", "-1h"),
            ("duration", ""),
            ("duration", "1"),
            ("renew-before", "4m"),
            ("renew-before-percentage", "100"),
            ("renew-before-percentage", "x"),
            ("revision-history-limit", "0"),
            ("usages", "server auth, nonsense"),
            ("usages", "server auth, client auth"),
            ("usages", "server auth, cert sign"),
            ("usages", "digital signature"),
            ("common-name", "bank.example.com"),
            ("email-sans", "ada@example.com"),
            ("private-key-algorithm", "DSA"),
            ("private-key-encoding", "DER"),
            ("private-key-size", "512"),
            ("private-key-size", "many"),
            ("private-key-rotation-policy", "Sometimes"),
            ("secret-template", "{"),
            ("secret-template", r#"{"data": {}}"#),
            ("secret-template", r#"{"annotations": {"cert-manager.io/x": "y"}}"#),
            ("issue-temporary-certificate", "yes"),
            ("subject-organizations", "\"unclosed"),
            ("subject-shoesize", "44"),
            ("cluster-issuer", "letsencrypt"),
            ("alt-names", "bank.example.com"),
            ("ip-sans", "10.0.0.1"),
            ("uri-sans", "spiffe://x"),
            ("durration", "2160h"),
        ] {
            let name = format!("cert-manager.io/{name}");
            let (_, problems) = with(&[(name.as_str(), value)]);
            assert_eq!(problems.len(), 1, "{name}: {value}");
            assert!(problems[0].starts_with(&format!("metadata.annotations[{name}]: ")), "{problems:?}");
        }
        let both = with(&[("cert-manager.io/duration", "2h"), ("cert-manager.io/renew-before", "2h")]).1;
        assert!(both[0].contains("must be shorter than the duration"), "{both:?}");
        let both = with(&[("cert-manager.io/renew-before-percentage", "9"), ("cert-manager.io/renew-before", "2h")]).1;
        assert!(both[0].contains("remove one of the two"), "{both:?}");
        assert_eq!(with(&[("acme.cert-manager.io/http01-edit-in-place", "true")]).1.len(), 1);
    }

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [("2160h", 7_776_000.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("90s", 90.0), ("0", 0.0)]
        {
            assert_eq!(duration(text), Some(seconds), "{text}");
        }
        for bad in ["", "h", "1", "1d", "-1h", "1h 30m", "1..5h", "9999999999999h", "1hh"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
