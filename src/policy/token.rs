//! JSON Web Tokens (RFC 7519) in the compact form of JWS (RFC 7515 §7.1), read strictly and verified once.
//!
//! Keys and the time are passed in. The algorithm comes from the key, never from the token alone; nothing that a token
//! names is ever fetched.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use crate::policy::authentication::{Jwt, Method, Proof};
use crate::policy::claims::Claims;
use crate::policy::keys::{KeySet, Missing};
use crate::reason::Reason;

/// The most bytes of a token that is looked at.
pub const MAX_TOKEN: usize = 8 * 1024;
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
}

/// Why a token is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No key has the token's id: a set that is fetched anew may have one.
    UnknownKey,
    /// It is refused.
    Refused(Reason),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`].
    pub fn parse(raw: &'a [u8]) -> Result<Self, Reason> {
        Self::read(raw).ok_or(Reason::TokenMalformed)
    }

    fn read(raw: &'a [u8]) -> Option<Self> {
        if raw.len() > MAX_TOKEN {
            return None;
        }
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
        // RFC 8725 §3.11: tokens made for something else (`logout+jwt`, `dpop+jwt`) are no access tokens (RFC 9068).
        let kind = head.text("typ").ok()?.unwrap_or("JWT").to_ascii_lowercase();
        if !matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt") {
            return None;
        }
        // `none` is no algorithm here.
        let algorithm = Algorithm::from_str(head.text("alg").ok()??).ok()?;
        let id = head.text("kid").ok()?;
        if id.is_some_and(|id| id.len() > MAX_ID) || decode(signature)?.is_empty() {
            return None;
        }
        let text = String::from_utf8(decode(claims)?).ok()?;
        let claims = Claims::parse(text.as_bytes())?;
        Some(Self { signed: signed.as_bytes(), signature, algorithm, id: id.map(Into::into), claims, text })
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
        let key = keys.find(self.algorithm, self.id.as_deref()).map_err(|missing| match missing {
            Missing::Unknown => Failure::UnknownKey,
            Missing::Ambiguous => Failure::Refused(Reason::TokenUntrusted),
        })?;
        match jsonwebtoken::crypto::verify(self.signature, self.signed, key, self.algorithm) {
            Ok(true) => {}
            _ => return Err(Reason::TokenUntrusted.into()),
        }
        let expires = self.check_times(i64::try_from(jwt.skew.as_secs()).unwrap_or(0), now)?;
        let claims = &self.claims;
        jwt.judge(claims)?;
        let subject = claims.text("sub").map_err(|_| Reason::TokenClaims)?;
        let mut headers = Vec::with_capacity(jwt.headers.len());
        for one in &jwt.headers {
            if let Some(value) = claims.get(&one.claim) {
                headers.push((one.header.clone(), header(value).ok_or(Reason::TokenClaims)?));
            }
        }
        let proof = Proof::new(&method.name, &jwt.issuer, subject, Some(expires), &self.text);
        Ok(Verified { proof, headers })
    }

    /// RFC 7519 §4.1.4 to §4.1.6. When the connection that this token opens is over.
    fn check_times(&self, skew: i64, now: i64) -> Result<i64, Reason> {
        let time = |name| self.claims.time(name).map_err(|_| Reason::TokenClaims);
        let (expires, begins, issued) = (time("exp")?.ok_or(Reason::TokenClaims)?, time("nbf")?, time("iat")?);
        let late = expires.saturating_add(skew);
        if late <= now {
            return Err(Reason::TokenExpired);
        }
        if [begins, issued].into_iter().flatten().any(|time| time > now.saturating_add(skew)) {
            return Err(Reason::TokenNotYetValid);
        }
        // A token that is admitted by the skew alone lives by the skew.
        Ok(if expires > now { expires } else { late })
    }
}

/// A claim as the value of a header: visible ASCII with spaces within (as `scope` has them), neither empty nor too long.
fn header(claim: &Value) -> Option<Box<str>> {
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    is_clear(&text).then(|| text.into())
}

/// Whether a text may be the value of a header that says who a client is.
pub fn is_clear(text: &str) -> bool {
    let clear = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    !text.is_empty() && text.len() <= MAX_HEADER && clear && text.trim() == text
}
