//! JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515 §7.1), read strictly and verified once.
//!
//! Keys and the time are passed in. The algorithm comes from the key, never from the token alone; nothing that a token
//! names is ever fetched.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::policy::authentication::{Jwt, Method, Proof};
use crate::policy::claims::Claims;
use crate::policy::keys::KeySet;
use crate::policy::numeric_date::Times;
use crate::reason::Reason;

/// The most bytes of a key id: longer ones are an attack, not a name.
const MAX_ID: usize = 512;
/// The most bytes of a claim that becomes a header.
const MAX_HEADER: usize = 4 * 1024;

/// A token that has the form of one. Nothing of it is verified.
#[derive(Debug)]
pub struct Token<'a> {
    signed: &'a [u8],
    signature: &'a str,
    algorithm: Algorithm,
    /// `typ`, lower case, without `application/` (RFC 7515 §4.1.9).
    kind: Box<str>,
    id: Option<Box<str>>,
    claims: Claims,
    /// The claims as they stand in the token.
    text: String,
}

/// What verification yields.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// What is kept.
    pub proof: Proof,
    /// Headers for the backend, lower-case names.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Claims that cannot be the value of a header.
    pub left_out: Vec<Box<str>>,
}

/// Why a token is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No key has the token's id, or none verifies a token without id: a set that is fetched anew may have one.
    UnknownKey,
    /// It is refused.
    Refused(Reason),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

/// A media type of a token as it is compared (RFC 7515 §4.1.9).
pub fn plain_type(text: &str) -> Box<str> {
    let text = text.to_ascii_lowercase();
    text.strip_prefix("application/").unwrap_or(&text).into()
}

impl<'a> Token<'a> {
    /// Reads a token, which is as large as the head of the request lets it be.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`] or [`Reason::TokenAlgorithm`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, Reason> {
        Self::read(raw).ok_or(Reason::TokenMalformed)?
    }

    fn read(raw: &'a [u8]) -> Option<Result<Self, Reason>> {
        let text = std::str::from_utf8(raw).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        // RFC 7515 §7.1: exactly three parts. A token with five is encrypted (RFC 7516).
        let (head, claims) = signed.split_once('.').filter(|(_, claims)| !claims.contains('.'))?;
        // The engine refuses padding and stray bits: each token has one spelling.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let head = Claims::parse(&decode(head)?)?;
        // RFC 7515 §4.1.11: what is critical and not understood must be refused, and we understand no extension; RFC
        // 7797's `b64` is one.
        if head.get("crit").is_some() || head.get("b64").is_some() {
            return None;
        }
        let kind = plain_type(head.text("typ").ok()?.unwrap_or("JWT"));
        // `none` is no algorithm here.
        let Ok(algorithm) = Algorithm::from_str(head.text("alg").ok()??) else {
            return Some(Err(Reason::TokenAlgorithm));
        };
        let id = head.text("kid").ok()?;
        if id.is_some_and(|id| id.len() > MAX_ID) || decode(signature)?.is_empty() {
            return None;
        }
        let text = String::from_utf8(decode(claims)?).ok()?;
        let claims = Claims::parse(text.as_bytes())?;
        let (signed, id) = (signed.as_bytes(), id.map(Into::into));
        Some(Ok(Self { signed, signature, algorithm, kind, id, claims, text }))
    }

    /// Who says it issued the token. Unverified: good to choose the method that then decides, and for nothing else.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.text("iss").ok().flatten()
    }

    /// Verifies the token by a method's demands, at `now` (seconds since the Unix epoch).
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn verify(&self, method: &Method, jwt: &Jwt, keys: &KeySet, now: i64) -> Result<Verified, Failure> {
        // RFC 8725 §3.11: tokens made for something else (`logout+jwt`, `dpop+jwt`) are no access tokens (RFC 9068).
        if !matches!(&*self.kind, "jwt" | "at+jwt") && !jwt.types.contains(&self.kind) {
            return Err(Reason::TokenType.into());
        }
        let mut found = keys.find(self.algorithm, self.id.as_deref()).peekable();
        let known = self.id.is_some() && found.peek().is_some();
        let signed = |key: &DecodingKey| {
            matches!(jsonwebtoken::crypto::verify(self.signature, self.signed, key, self.algorithm), Ok(true))
        };
        let Some((_, thumbprint)) = found.find(|(key, _)| signed(key)) else {
            return Err(if known { Reason::TokenUntrusted.into() } else { Failure::UnknownKey });
        };
        let expires = self.check_times(i64::try_from(jwt.skew.as_secs()).unwrap_or(0), now)?;
        let claims = &self.claims;
        jwt.judge(claims)?;
        let subject = claims.text("sub").map_err(|_| Reason::TokenClaims)?;
        let (mut headers, mut left_out) = (Vec::with_capacity(jwt.headers.len()), Vec::new());
        for one in &jwt.headers {
            let claim = claims.at(&one.claim);
            match claim.and_then(header) {
                Some(value) => headers.push((one.header.clone(), value.into())),
                None if one.required => return Err(Reason::TokenClaims.into()),
                // What the token lacks is no loss, and what is empty says nothing.
                None if claim.is_none_or(|claim| claim == "" || claim.as_array().is_some_and(Vec::is_empty)) => {}
                None => left_out.push(one.claim.clone()),
            }
        }
        let mut proof = Proof::new(&method.name, &jwt.issuer, subject, Some(expires), &self.text);
        proof.key = Some(thumbprint.into());
        Ok(Verified { proof, headers, left_out })
    }

    /// RFC 7519 §4.1.4 to §4.1.6. When the connection that this token opens is over.
    fn check_times(&self, skew: i64, now: i64) -> Result<i64, Reason> {
        let times = Times::read(&self.text).map_err(|_| Reason::TokenClaims)?;
        // `now` is a whole second: what lies between two is judged by the one that grants less.
        let expires = times.expires.ok_or(Reason::TokenClaims)?.floor;
        let late = expires.saturating_add(skew);
        if late <= now {
            return Err(Reason::TokenExpired);
        }
        if [times.begins, times.issued].into_iter().flatten().any(|time| time.ceiling > now.saturating_add(skew)) {
            return Err(Reason::TokenNotYetValid);
        }
        // A token that is admitted by the skew alone lives by the skew.
        Ok(if expires > now { expires } else { late })
    }
}

/// A claim as the value of a header; `None` if it cannot be one. Text, numbers and truth values are taken as they are, a
/// list of them is joined by commas, so that no element may have one.
fn header(claim: &Value) -> Option<String> {
    let single = |claim: &Value| match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let text = match claim {
        Value::Array(list) => {
            let element = |one| single(one).filter(|text| is_clear(text) && !text.contains(','));
            list.iter().map(element).collect::<Option<Vec<_>>>()?.join(",")
        }
        claim => single(claim)?,
    };
    is_clear(&text).then_some(text)
}

/// Whether a text may be the value of a header that says something of a client: UTF-8 (RFC 9110 §5.5, obs-text) without
/// controls, neither empty nor longer than 4 KiB, and without spaces at its ends, which readers cut off.
pub fn is_clear(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_HEADER && !text.chars().any(char::is_control) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_headers_as_they_are_or_none() {
        let header = |text: &str| header(&serde_json::from_str(text).unwrap());
        for (claim, value) in [
            (r#""ada""#, "ada"),
            (r#""J\u00fcrgen M\u00fcller""#, "J\u{fc}rgen M\u{fc}ller"),
            (r#""\u0414\u0438\u043c\u0430""#, "\u{414}\u{438}\u{43c}\u{430}"),
            ("7", "7"),
            ("true", "true"),
            (r#"["dev", "ops", 7, false]"#, "dev,ops,7,false"),
            (r#"["one"]"#, "one"),
            (r#""a, b""#, "a, b"),
        ] {
            assert_eq!(header(claim).as_deref(), Some(value), "{claim}");
        }
        for claim in [
            r#""""#,
            "[]",
            "{}",
            r#"["a,b"]"#,
            r#"["a", ["b"]]"#,
            r#"["a", {}]"#,
            r#"["a", ""]"#,
            r#"["a", null]"#,
            r#"" a""#,
            r#""a\r\nX-Admin: 1""#,
            r#""a\u0000""#,
            r#""a\u0085b""#,
            r#""a\tb""#,
            r#""\u00a0a""#,
        ] {
            assert_eq!(header(claim), None, "{claim}");
        }
        assert!(header(&format!("\"{}\"", "x".repeat(MAX_HEADER + 1))).is_none());
    }
}
