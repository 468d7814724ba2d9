//! What an External service is asked with: of a handshake, or of a live connection that is asked about again. Facts hold no
//! credential, so what must be shown again is kept apart from them, and only where a method says `recheck`.

use std::fmt;

use zeroize::Zeroizing;

use crate::policy::authentication::External;
use crate::policy::credential::{self, Shown};
use crate::reason::Reason;
use crate::ws::upgrade::Request;

/// What a service is asked with besides what facts say.
pub struct Question<'a> {
    /// The `Host` header, byte for byte.
    pub authority: &'a str,
    /// The `CDN-Loop` header (RFC 8586).
    pub hops: Option<&'a [u8]>,
    /// The headers that it gets.
    pub headers: Shown<'a>,
}

impl<'a> Question<'a> {
    /// That of a handshake.
    ///
    /// # Errors
    /// Those of [`credential::shown`].
    pub fn of(external: &External, request: &'a Request) -> Result<Self, Reason> {
        let headers = credential::shown(external, request)?;
        Ok(Self { authority: &request.authority, hops: request.cdn_loop.as_deref(), headers })
    }
}

/// A header by its lower-case name.
type KeptHeader = (Box<str>, Zeroizing<Box<[u8]>>);

/// A question that can be asked again. Has credentials: it is never shown, written or sent elsewhere, and its memory is
/// overwritten when the connection ends.
pub struct KeptQuestion {
    authority: Box<str>,
    hops: Option<Box<[u8]>>,
    headers: Box<[KeptHeader]>,
}

impl fmt::Debug for KeptQuestion {
    /// Never values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptQuestion").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl From<&Question<'_>> for KeptQuestion {
    fn from(question: &Question<'_>) -> Self {
        let keep = |(name, value): &(Box<str>, &[u8])| (name.clone(), Zeroizing::new(Box::from(*value)));
        Self {
            authority: question.authority.into(),
            hops: question.hops.map(Into::into),
            headers: question.headers.iter().map(keep).collect(),
        }
    }
}

impl KeptQuestion {
    /// The question for a service that may have other headers by now; `None`: none of those that were kept.
    pub fn question(&self, external: &External) -> Option<Question<'_>> {
        let listed = self.headers.iter().filter(|(name, _)| external.headers.contains(name));
        let headers: Shown<'_> = listed.map(|(name, value)| (name.clone(), &***value)).collect();
        let hops = self.hops.as_deref();
        (!headers.is_empty()).then_some(Question { authority: &self.authority, hops, headers })
    }
}

/// What became of a question about a live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The service still admits it.
    Admitted,
    /// It does not, or takes it for another subject.
    Denied,
    /// There was no valid answer.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn external(headers: &[&str]) -> External {
        External {
            namespace: None,
            service: "sessions".into(),
            port: 80,
            path: "/check".into(),
            headers: headers.iter().map(|name| (*name).into()).collect(),
            answers: vec![],
            timeout: Duration::from_secs(1),
            recheck: Some(Duration::from_secs(60)),
        }
    }

    #[test]
    fn what_is_asked_again_is_what_was_asked_as_far_as_the_route_still_lists_it() {
        let headers: Shown<'_> = vec![("cookie".into(), b"sid=secret"), ("x-team".into(), b"blue")];
        let question = Question { authority: "a.test:8443", hops: Some(b"edge"), headers };
        let kept = KeptQuestion::from(&question);
        let again = kept.question(&external(&["cookie", "x-team"])).unwrap();
        assert_eq!(
            (again.authority, again.hops, &again.headers),
            ("a.test:8443", Some(&b"edge"[..]), &question.headers)
        );
        let fewer = kept.question(&external(&["x-team", "x-new"])).unwrap();
        assert_eq!(fewer.headers, [("x-team".into(), &b"blue"[..])]);
        assert!(kept.question(&external(&["x-new"])).is_none(), "nothing of it is the service's");
        assert!(!format!("{kept:?}").contains("secret") && !format!("{kept:?}").contains("blue"));
    }
}
