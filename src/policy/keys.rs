//! Key sets (RFC 7517): which key may verify a token. A key's type fixes its algorithms, so that no token chooses how it
//! is verified (RFC 8725 §3.1).

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// The most bytes of a key set.
pub const MAX_SET: usize = 256 * 1024;
/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 256;
/// The shortest RSA modulus, 2048 bits (RFC 7518 §3.3), and the longest that is worth its time, 8192 bits.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The keys of one source that can verify tokens. Equal if they were read from the same bytes.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
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

/// One key that can verify.
#[derive(Clone)]
struct Key {
    id: Option<Box<str>>,
    algorithms: &'static [Algorithm],
    /// The only algorithm, where the key names one.
    only: Option<Algorithm>,
    key: DecodingKey,
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && self.only.is_none_or(|only| only == algorithm)
    }
}

/// The key for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No key has this id and fits: a set that is fetched anew may have one.
    Unknown,
    /// The set cannot answer, however often it is fetched: no id and not exactly one key that fits.
    Ambiguous,
}

impl KeySet {
    /// Reads a set. Keys that cannot verify (for encryption, of unknown types, too weak) are passed over, as RFC 7517 §5
    /// asks. `symmetric` keys count only where the source is secret.
    ///
    /// # Errors
    /// It is no key set, or none of its keys can verify: the text says what, never a part of a key.
    pub fn parse(text: &[u8], symmetric: bool) -> Result<Self, &'static str> {
        if text.len() > MAX_SET {
            return Err("is larger than 256 KiB");
        }
        let set: serde_json::Value = serde_json::from_slice(text).map_err(|_| "is not JSON")?;
        let list = set.get("keys").and_then(serde_json::Value::as_array).ok_or("has no list named keys (RFC 7517)")?;
        if list.len() > MAX_KEYS {
            return Err("has more than 256 keys");
        }
        let jwks = list.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        let keys: Vec<Key> = jwks.filter_map(|jwk| key(&jwk, symmetric)).collect();
        if keys.is_empty() {
            return Err("has no key that can verify tokens");
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
        Ok(Self { keys, digest: digest.as_ref().try_into().unwrap_or_default() })
    }

    /// The one key for an algorithm and, if the token names one, an id. The id is nothing but a name within this set.
    ///
    /// # Errors
    /// See [`Missing`].
    pub fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Result<&DecodingKey, Missing> {
        let mut fitting =
            self.keys.iter().filter(|key| key.fits(algorithm) && (id.is_none() || key.id.as_deref() == id));
        match (fitting.next(), fitting.next(), id) {
            (Some(only), None, _) => Ok(&only.key),
            (None, _, Some(_)) => Err(Missing::Unknown),
            _ => Err(Missing::Ambiguous),
        }
    }
}

fn key(jwk: &Jwk, symmetric: bool) -> Option<Key> {
    const RSA: &[Algorithm] =
        &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
    let common = &jwk.common;
    // RFC 7517 §4.2 and §4.3.
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        || common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
    {
        return None;
    }
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if RSA_MODULUS.contains(&size(&rsa.n)?) => RSA,
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // RFC 7518 §3.2: a key at least as long as the hash.
        AlgorithmParameters::OctetKey(key) if symmetric => match size(&key.value)? {
            64.. => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            48.. => &[Algorithm::HS256, Algorithm::HS384],
            32.. => &[Algorithm::HS256],
            _ => return None,
        },
        _ => return None,
    };
    let only = match common.key_algorithm {
        None => None,
        Some(named) => Some(Algorithm::try_from(named).ok().filter(|named| algorithms.contains(named))?),
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: common.key_id.as_deref().map(Into::into), algorithms, only, key })
}

/// The bytes that a base64url text stands for.
fn size(text: &str) -> Option<usize> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn set(keys: &[&str], symmetric: bool) -> Result<KeySet, &'static str> {
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
        for (bad, why) in [("", "is not JSON"), ("{}", "has no list"), (r#"{"keys":[]}"#, "has no key")] {
            assert!(KeySet::parse(bad.as_bytes(), true).unwrap_err().starts_with(why), "{bad}");
        }
        assert!(KeySet::parse(&vec![b' '; MAX_SET + 1], true).is_err());
    }

    #[test]
    fn a_symmetric_key_counts_only_in_a_secret_source() {
        let oct = format!(r#"{{"kty":"oct","k":"{}"}}"#, "A".repeat(43));
        assert!(set(&[&oct], false).is_err());
        let keys = set(&[&oct], true).unwrap();
        assert!(keys.find(Algorithm::HS256, None).is_ok());
        assert!(keys.find(Algorithm::HS512, None).is_err(), "the key is shorter than the hash");
    }

    #[test]
    fn a_key_is_found_by_its_id_and_type_or_if_it_is_the_only_one() {
        let named = |id: &str| format!(r#"{{{EC},"kid":"{id}"}}"#);
        let one = set(&[&named("a")], false).unwrap();
        assert!(one.find(Algorithm::ES256, None).is_ok() && one.find(Algorithm::ES256, Some("a")).is_ok());
        assert_eq!(one.find(Algorithm::ES256, Some("b")).err(), Some(Missing::Unknown));
        assert_eq!(one.find(Algorithm::RS256, Some("a")).err(), Some(Missing::Unknown));
        assert_eq!(one.find(Algorithm::RS256, None).err(), Some(Missing::Ambiguous));
        let two = set(&[&named("a"), &named("b")], false).unwrap();
        assert_eq!(two.find(Algorithm::ES256, None).err(), Some(Missing::Ambiguous));
        assert!(two.find(Algorithm::ES256, Some("b")).is_ok());
        let same = set(&[&named("a"), &named("a")], false).unwrap();
        assert_eq!(same.find(Algorithm::ES256, Some("a")).err(), Some(Missing::Ambiguous));
        let pinned = set(&[&format!(r#"{{{EC},"alg":"ES256"}}"#)], false).unwrap();
        assert!(pinned.find(Algorithm::ES256, None).is_ok());
        assert!(!format!("{pinned:?}").contains("f83O"));
    }
}
