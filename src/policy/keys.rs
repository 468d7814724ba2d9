//! Key sets (RFC 7517): which key may verify a token. A key's type fixes its algorithms, so that no token chooses how it
//! is verified (RFC 8725 §3.1).

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::content::json::{self, Malformed};

/// The most bytes of a key set.
pub const MAX_SET: usize = 256 * 1024;
/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 256;
/// The shortest RSA modulus, 2048 bits (RFC 7518 §3.3), and the longest that is worth its time, 8192 bits.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The most keys that are tried for one token: what a token without key id can cost.
const MAX_TRIED: usize = 8;

/// What is said of a key without its numbers.
const INCOMPLETE: &str = "lacks a member of its type, or has one that is not of its type (RFC 7518 section 6)";

/// The keys of one source that can verify tokens. Equal if they were read from the same bytes.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    /// Keys that are meant to verify and cannot: which, and why.
    unusable: Vec<String>,
    digest: [u8; 32],
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.keys.len() == other.keys.len()
    }
}

impl Eq for KeySet {}

impl fmt::Debug for KeySet {
    /// Never keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

/// Why a text gives no key set. Each says what is wrong, and never a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It cannot be read whole: nobody knows which keys were meant.
    Broken(&'static str),
    /// It is read whole, and none of its keys can verify.
    NoKeys(&'static str),
}

impl Unread {
    /// What is wrong.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Broken(text) | Self::NoKeys(text) => text,
        }
    }
}

/// One key that can verify.
#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    algorithms: &'static [Algorithm],
    /// The only algorithm, where the key names one.
    only: Option<Algorithm>,
    key: DecodingKey,
    thumbprint: Box<str>,
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && self.only.is_none_or(|only| only == algorithm)
    }
}

impl KeySet {
    /// Reads a set. Keys that are not meant to verify (for encryption, of unknown types) are passed over, as RFC 7517 §5
    /// asks. A key that is meant to and cannot is told by [`unusable`](Self::unusable). `symmetric` keys count only where
    /// the source is secret.
    ///
    /// # Errors
    /// It is no key set, or none of its keys can verify.
    pub fn parse(text: &[u8], symmetric: bool) -> Result<Self, Unread> {
        if text.len() > MAX_SET {
            return Err(Unread::Broken("is larger than 256 KiB"));
        }
        let set = json::read_bounded_elsewhere(text).map_err(|malformed| {
            Unread::Broken(match malformed {
                // A reader that took the last of two would lose a part of a key.
                Malformed::DuplicateName => "has one name twice in an object (RFC 7517 section 4)",
                _ => "is not JSON",
            })
        })?;
        let list = set.get("keys").and_then(Value::as_array);
        let list = list.ok_or(Unread::Broken("has no list named keys (RFC 7517)"))?;
        if list.len() > MAX_KEYS {
            return Err(Unread::Broken("has more than 256 keys"));
        }
        let (mut keys, mut unusable) = (Vec::with_capacity(list.len()), Vec::new());
        for (at, one) in list.iter().enumerate() {
            match read(one.clone(), symmetric) {
                Ok(Some(key)) => keys.push(key),
                Ok(None) => {}
                Err(why) => {
                    let id = one.get("kid").and_then(Value::as_str);
                    let shown: Option<String> = id.map(|id| id.chars().take(64).collect());
                    unusable.push(shown.map_or_else(|| format!("keys[{at}] {why}"), |id| format!("kid {id:?} {why}")));
                }
            }
        }
        if keys.is_empty() {
            return Err(Unread::NoKeys("has no key that can verify tokens"));
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
        Ok(Self { keys, unusable, digest: digest.as_ref().try_into().unwrap_or_default() })
    }

    /// The keys for an algorithm and, if the token names one, an id, with their thumbprints; at most eight. The id is nothing
    /// but a name within this set.
    pub fn find(&self, algorithm: Algorithm, id: Option<&str>) -> impl Iterator<Item = (&DecodingKey, &str)> {
        let fits = move |key: &&Key| key.fits(algorithm) && (id.is_none() || key.id.as_deref() == id);
        self.keys.iter().filter(fits).map(|key| (&key.key, &*key.thumbprint)).take(MAX_TRIED)
    }

    /// Whether one of the keys has this thumbprint.
    pub fn has(&self, thumbprint: &str) -> bool {
        self.keys.iter().any(|key| *key.thumbprint == *thumbprint)
    }

    /// Keys of the set that are meant to verify tokens and cannot: which, by key id or place, and why.
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }
}

/// Reads one key; `None`: it is not meant to verify.
fn read(mut jwk: Value, symmetric: bool) -> Result<Option<Key>, &'static str> {
    const KINDS: [&str; 4] = ["RSA", "EC", "OKP", "oct"];
    if !KINDS.contains(&jwk.get("kty").and_then(Value::as_str).ok_or(INCOMPLETE)?) {
        return Ok(None);
    }
    tidy(&mut jwk);
    // Extensions beside a key, such as a certificate chain, are not looked at (RFC 7517 §4).
    match serde_json::from_value::<Jwk>(jwk.clone()) {
        Ok(parsed) => key(&parsed, symmetric, || thumbprint(&jwk)),
        Err(_) if jwk.get("use").is_some_and(|what| what != "sig") => Ok(None),
        Err(_) => Err(INCOMPLETE),
    }
}

/// Writes the numbers of a key as RFC 7518 §6 does: issuers pad base64url, write the alphabet of base64, put a zero byte
/// before a modulus, or leave out those at the start of a coordinate. Each of these has one reading.
fn tidy(jwk: &mut Value) {
    let width = match jwk.get("crv").and_then(Value::as_str) {
        Some("P-256") => 32,
        Some("P-384") => 48,
        _ => 0,
    };
    let curve = jwk.get("kty").is_some_and(|kind| kind == "EC");
    for name in ["n", "e", "x", "y", "k"] {
        let Some(Value::String(text)) = jwk.get_mut(name) else { continue };
        let plain = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
        let Ok(mut bytes) = URL_SAFE_NO_PAD.decode(&plain) else { continue };
        if matches!(name, "n" | "e") || curve && name != "k" {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            bytes.drain(..zeros);
            if curve && bytes.len() < width {
                bytes.splice(..0, std::iter::repeat_n(0, width - bytes.len()));
            }
        }
        *text = URL_SAFE_NO_PAD.encode(bytes);
    }
}

/// The thumbprint of a key whose numbers are tidy (RFC 7638 §3): what it is, whatever its id is and its other members are.
fn thumbprint(jwk: &Value) -> Box<str> {
    let members: &[&str] = match jwk.get("kty").and_then(Value::as_str) {
        Some("RSA") => &["e", "kty", "n"],
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("OKP") => &["crv", "kty", "x"],
        _ => &["k", "kty"],
    };
    let members: Vec<String> =
        members.iter().map(|name| format!("\"{name}\":{}", jwk.get(name).unwrap_or(&Value::Null))).collect();
    let text = format!("{{{}}}", members.join(","));
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes())).into()
}

fn key(jwk: &Jwk, symmetric: bool, thumbprint: impl FnOnce() -> Box<str>) -> Result<Option<Key>, &'static str> {
    const RSA: &[Algorithm] =
        &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    let common = &jwk.common;
    // RFC 7517 §4.2 and §4.3.
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        || common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
    {
        return Ok(None);
    }
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| "has a number that is not base64url");
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let (n, e) = (bytes(&rsa.n)?, bytes(&rsa.e)?);
            if !RSA_MODULUS.contains(&n.len()) {
                return Err("is an RSA key of less than 2048 bits or more than 8192");
            }
            check_rsa(n, e)?;
            RSA
        }
        AlgorithmParameters::EllipticCurve(ec) => {
            let (algorithm, curve): (&[Algorithm], &'static dyn VerificationAlgorithm) = match ec.curve {
                EllipticCurve::P256 => (&[Algorithm::ES256], &signature::ECDSA_P256_SHA256_FIXED),
                EllipticCurve::P384 => (&[Algorithm::ES384], &signature::ECDSA_P384_SHA384_FIXED),
                _ => return Ok(None),
            };
            let point = [&[4][..], &bytes(&ec.x)?, &bytes(&ec.y)?].concat();
            ParsedPublicKey::new(curve, point).map_err(|_| "is no point of its curve")?;
            algorithm
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            let point = bytes(&pair.x)?;
            ParsedPublicKey::new(&signature::ED25519, point).map_err(|_| "is no point of its curve")?;
            &[Algorithm::EdDSA]
        }
        AlgorithmParameters::OctetKey(_) if !symmetric => return Err("is symmetric, which counts in a Secret alone"),
        // RFC 7518 §3.2: a key at least as long as the hash.
        AlgorithmParameters::OctetKey(key) => match bytes(&key.value)?.len() {
            64.. => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            48.. => &[Algorithm::HS256, Algorithm::HS384],
            32.. => &[Algorithm::HS256],
            _ => return Err("is symmetric and shorter than 32 bytes"),
        },
        AlgorithmParameters::OctetKeyPair(_) => return Ok(None),
        _ => return Err(INCOMPLETE),
    };
    let only = match common.key_algorithm.map(|named| Algorithm::try_from(named).ok()) {
        None => None,
        Some(Some(named)) if algorithms.contains(&named) => Some(named),
        // An algorithm of encryption, or none that is known here.
        Some(None) => return Ok(None),
        Some(Some(Algorithm::HS384 | Algorithm::HS512)) => return Err("is shorter than its alg demands"),
        Some(Some(_)) => return Err("has an alg that keys of its type cannot have"),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "cannot be loaded")?;
    let id = common.key_id.as_deref().map(Into::into);
    Ok(Some(Key { id, algorithms, only, key, thumbprint: thumbprint() }))
}

/// Loads an RSA key as verification does, and refuses what no such key has: an even number (RFC 8017 §3.1).
fn check_rsa(n: Vec<u8>, e: Vec<u8>) -> Result<(), &'static str> {
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let loaded = odd(&n) && odd(&e) && e != [1] && {
        let der: Result<PublicKeyX509Der<'_>, _> = RsaPublicKeyComponents { n, e }.as_der();
        der.is_ok_and(|der| ParsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der.as_ref()).is_ok())
    };
    if loaded { Ok(()) } else { Err("is no RSA key") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn set(keys: &[&str], symmetric: bool) -> Result<KeySet, Unread> {
        KeySet::parse(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(), symmetric)
    }

    #[test]
    fn what_cannot_verify_is_passed_over_and_a_set_without_keys_is_an_error() {
        let good = format!("{{{EC}}}");
        for bad in [
            format!(r#"{{{EC},"use":"enc"}}"#),
            format!(r#"{{{EC},"key_ops":["sign"]}}"#),
            format!(r#"{{{EC},"alg":"RS256"}}"#),
            format!(r#"{{{EC},"alg":"ES512"}}"#),
            EC.replace("P-256", "P-521").replace(r#""kty""#, r#"{"kty""#) + "}",
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
            r#"{"kty":"oct","k":"c2hvcnQ"}"#.to_owned(),
            r#"{"kty":"new"}"#.to_owned(),
            "7".to_owned(),
        ] {
            assert!(set(&[&bad], true).is_err(), "{bad}");
            assert_eq!(set(&[&bad, &good], true).unwrap().keys.len(), 1, "{bad}");
        }
        let twice = format!(r#"{{"keys":[{{{EC},{EC}}}]}}"#);
        for (bad, why) in [
            (&*twice, "has one name twice"),
            ("", "is not JSON"),
            ("{}", "has no list"),
            (r#"{"keys":[]}"#, "has no key"),
        ] {
            assert!(KeySet::parse(bad.as_bytes(), true).unwrap_err().text().starts_with(why), "{bad}");
        }
        assert!(KeySet::parse(&vec![b' '; MAX_SET + 1], true).is_err());
    }

    #[test]
    fn spellings_of_numbers_that_have_one_reading_are_read() {
        let modulus = [&[0][..], &[0xC5; 255], &[0xC7]].concat();
        let encoded = base64::engine::general_purpose::STANDARD.encode(&modulus);
        let rsa = format!(r#"{{"kty":"RSA","n":"{encoded}","e":"AAEAAQ=="}}"#);
        let padded = format!("{{{}}}", EC.replace("rVEU", "rVEU="));
        let long = format!(
            "{{{}}}",
            EC.replace(
                "\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"",
                "\"AH_Nzidw9sRdQYPL7m_bS3tYBzM1e-nvE7rPbjx70VRF\""
            )
        );
        for key in [rsa, padded, long] {
            let read = set(&[&key], false).unwrap();
            assert!(read.unusable().is_empty() && read.keys.len() == 1, "{key}");
        }
    }

    #[test]
    fn a_key_that_cannot_verify_is_told_by_its_id() {
        let good = format!("{{{EC}}}");
        let off = format!(r#"{{{},"kid":"off"}}"#, EC.replace("f83O", "f83P"));
        for (bad, told) in [
            (off, "kid \"off\" is no point of its curve"),
            (format!(r#"{{{EC},"alg":"RS256"}}"#), "keys[1] has an alg"),
            (r#"{"kty":"RSA","kid":"weak","n":"AQAB","e":"AQAB"}"#.to_owned(), "kid \"weak\" is an RSA key of less"),
            (r#"{"kty":"RSA","kid":"half","n":"AQAB"}"#.to_owned(), "kid \"half\" lacks a member"),
            (
                format!(r#"{{"kty":"RSA","kid":"even","n":"{}","e":"AQAB"}}"#, URL_SAFE_NO_PAD.encode([0xC4; 256])),
                "kid \"even\" is no RSA",
            ),
            (r#"{"kty":"OKP","crv":"Ed25519","kid":"short","x":"AQAB"}"#.to_owned(), "kid \"short\" is no point"),
            (format!(r#"{{"kty":"oct","kid":"s","k":"{}"}}"#, "A".repeat(43)), "kid \"s\" is symmetric, which"),
        ] {
            let read = set(&[&good, &bad], false).unwrap();
            assert_eq!(read.keys.len(), 1, "{bad}");
            assert!(read.unusable().len() == 1 && read.unusable()[0].starts_with(told), "{:?}", read.unusable());
        }
        for other in [r#"{"kty":"new"}"#.to_owned(), format!(r#"{{{EC},"use":"enc"}}"#)] {
            assert!(set(&[&good, &other], false).unwrap().unusable().is_empty(), "{other}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_thumbprint_whatever_it_is_called() {
        // RFC 7638 §3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let sample = format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}"#);
        let again = format!(r#"{{"kid":"other","use":"sig","e":"AQAB==","n":"{n}","kty":"RSA"}}"#);
        const THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        for key in [&sample, &again] {
            let set = set(&[key], false).unwrap();
            assert_eq!(set.find(Algorithm::RS256, None).map(|(_, key)| key).collect::<Vec<_>>(), [THUMBPRINT]);
            assert!(set.has(THUMBPRINT) && !set.has("other"));
        }
        assert!(!set(&[&format!("{{{EC}}}")], false).unwrap().has(THUMBPRINT));
    }

    #[test]
    fn a_symmetric_key_counts_only_in_a_secret_source() {
        let oct = format!(r#"{{"kty":"oct","k":"{}"}}"#, "A".repeat(43));
        assert!(set(&[&oct], false).is_err());
        let keys = set(&[&oct], true).unwrap();
        assert_eq!(keys.find(Algorithm::HS256, None).count(), 1);
        assert_eq!(keys.find(Algorithm::HS512, None).count(), 0, "the key is shorter than the hash");
    }

    #[test]
    fn keys_are_found_by_id_and_type_and_without_an_id_by_type() {
        let named = |id: &str| format!(r#"{{{EC},"kid":"{id}"}}"#);
        let found = |set: &KeySet, algorithm, id| set.find(algorithm, id).count();
        let one = set(&[&named("a")], false).unwrap();
        assert_eq!((found(&one, Algorithm::ES256, None), found(&one, Algorithm::ES256, Some("a"))), (1, 1));
        assert_eq!((found(&one, Algorithm::ES256, Some("b")), found(&one, Algorithm::RS256, Some("a"))), (0, 0));
        let two = set(&[&named("a"), &named("b")], false).unwrap();
        assert_eq!((found(&two, Algorithm::ES256, None), found(&two, Algorithm::ES256, Some("b"))), (2, 1));
        let many: Vec<String> = (0..20).map(|at| named(&at.to_string())).collect();
        let many = set(&many.iter().map(String::as_str).collect::<Vec<_>>(), false).unwrap();
        assert_eq!(found(&many, Algorithm::ES256, None), 8);
        let pinned = set(&[&format!(r#"{{{EC},"alg":"ES256"}}"#)], false).unwrap();
        assert_eq!(found(&pinned, Algorithm::ES256, None), 1);
        assert!(!format!("{pinned:?}").contains("f83O"));
    }
}
