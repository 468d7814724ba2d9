//! Origins (RFC 6454): exact tuples, one-label wildcards, and the default, the route's own host.
//!
//! Compared byte for byte as browsers serialise them (RFC 6454 §6.2): lower case, no default port, no path. Nothing
//! is decoded or normalised first: what a browser never sends is refused.

use crate::policy::facts::Facts;
use crate::reason::Reason;
use crate::ws::upgrade::Origin;

/// Which pages may open a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Allowed origins; empty: `https` on the host (and port) that the request itself names.
    pub allow: Vec<OriginPattern>,
    /// Whether a request without an Origin header, not from a browser, is refused.
    pub require: bool,
    /// Audit mode: judge and report, but let through.
    pub audit: bool,
}

impl Default for Origins {
    /// Same host, a missing Origin allowed, enforced.
    fn default() -> Self {
        Self { allow: Vec::new(), require: false, audit: false }
    }
}

/// One entry of the allow list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`: any single origin but `null`.
    Any,
    /// `scheme://host[:port]`, compared whole.
    Exact(String),
    /// `scheme://*.rest[:port]`: exactly one label in place of the star.
    OneLabel {
        /// `https://`
        scheme: String,
        /// `.example.com` or `.example.com:8443`
        suffix: String,
    },
}

impl OriginPattern {
    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => origin != "null",
            Self::Exact(exact) => origin == exact,
            Self::OneLabel { scheme, suffix } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|rest| rest.strip_suffix(suffix.as_str()))
                .is_some_and(is_label),
        }
    }
}

/// A DNS label as browsers serialise it: lower-case letters, digits and inner hyphens.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

impl Origins {
    /// Judges the Origin of a request.
    ///
    /// # Errors
    /// [`Reason::OriginMissing`], [`Reason::OriginAmbiguous`] or [`Reason::OriginDenied`].
    pub fn judge(&self, facts: &Facts) -> Result<(), Reason> {
        let origin = match &facts.origin {
            Origin::Missing if self.require => return Err(Reason::OriginMissing),
            Origin::Missing => return Ok(()),
            Origin::Several => return Err(Reason::OriginAmbiguous),
            Origin::One(origin) => origin.as_ref(),
        };
        let allowed = if self.allow.is_empty() {
            is_same_host(origin, &facts.host, facts.port)
        } else {
            self.allow.iter().any(|pattern| pattern.matches(origin))
        };
        if allowed { Ok(()) } else { Err(Reason::OriginDenied) }
    }
}

/// `https://HOST`, where the name may have its final dot, with the port of the request where it names one that is not https's own.
fn is_same_host(origin: &str, host: &str, port: Option<u16>) -> bool {
    let Some(rest) = origin.strip_prefix("https://").and_then(|rest| rest.strip_prefix(host)) else {
        return false;
    };
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    match port {
        None | Some(443) => rest.is_empty(),
        Some(port) => rest.strip_prefix(':') == Some(port.to_string().as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(origin: Origin, port: Option<u16>) -> Facts {
        Facts {
            address: "192.0.2.1".parse().unwrap(),
            host: "app.example.com".into(),
            port,
            path: "/".into(),
            origin,
            subprotocols: Box::default(),
            client_certificate: None,
            proof: None,
        }
    }

    fn judge(origins: &Origins, origin: &str) -> Result<(), Reason> {
        origins.judge(&facts(Origin::One(origin.into()), None))
    }

    #[test]
    fn the_default_is_the_host_of_the_request_itself() {
        let same = Origins::default();
        assert_eq!(judge(&same, "https://app.example.com"), Ok(()));
        assert_eq!(judge(&same, "https://app.example.com."), Ok(()));
        for refused in [
            "null",
            "",
            "http://app.example.com",
            "HTTPS://APP.EXAMPLE.COM",
            "https://app.example.com:443",
            "https://app.example.com:8443",
            "https://app.example.com/",
            "https://app.example.com..",
            "https://app.example.com.:8443",
            "https://app.example.com.evil.test",
            "https://evilapp.example.com",
            "https://app.example.com@evil.test",
            "https://evil.test",
        ] {
            assert_eq!(judge(&same, refused), Err(Reason::OriginDenied), "{refused}");
        }
        let on_port = facts(Origin::One("https://app.example.com:8443".into()), Some(8443));
        assert_eq!(same.judge(&on_port), Ok(()));
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        let list = Origins {
            allow: vec![OriginPattern::OneLabel { scheme: "https://".into(), suffix: ".example.com".into() }],
            ..Origins::default()
        };
        assert_eq!(judge(&list, "https://a.example.com"), Ok(()));
        for refused in
            ["https://a.b.example.com", "https://example.com", "https://.example.com", "http://a.example.com"]
        {
            assert_eq!(judge(&list, refused), Err(Reason::OriginDenied), "{refused}");
        }
    }

    #[test]
    fn any_does_not_include_null() {
        let any = Origins { allow: vec![OriginPattern::Any], ..Origins::default() };
        assert_eq!(judge(&any, "https://elsewhere.test"), Ok(()));
        assert_eq!(judge(&any, "null"), Err(Reason::OriginDenied));
    }

    #[test]
    fn a_missing_origin_follows_the_rule_and_several_are_refused() {
        let mut origins = Origins::default();
        assert_eq!(origins.judge(&facts(Origin::Missing, None)), Ok(()));
        assert_eq!(origins.judge(&facts(Origin::Several, None)), Err(Reason::OriginAmbiguous));
        origins.require = true;
        assert_eq!(origins.judge(&facts(Origin::Missing, None)), Err(Reason::OriginMissing));
    }
}
