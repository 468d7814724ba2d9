//! Entries of `handshake.origins.allow` as the policy compares them (RFC 6454 §6.2). An entry that no browser can
//! ever send is a mistake, so it is refused instead of never matching. Knows entries only.

use crate::api::status::ConditionType as Type;
use crate::compile::problem::quote;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::hostname;
use crate::policy::OriginPattern;

/// Reads the list; `layer` is where it was written.
pub fn read(list: &[String], layer: &str, diagnostics: &mut Diagnostics) -> Vec<OriginPattern> {
    let field = format!("{layer}.handshake.origins.allow");
    if list.is_empty() {
        diagnostics.invalid(&field, "must not be empty; remove it for the route's own host, or list origins");
    }
    let mut patterns = Vec::with_capacity(list.len());
    for (index, text) in list.iter().enumerate() {
        match pattern(text) {
            Ok(pattern) => {
                if pattern == OriginPattern::Any {
                    if list.len() > 1 {
                        diagnostics.invalid(&field, "* already allows every origin; remove it or the other entries");
                    }
                    diagnostics.warn(Type::AnyOrigin, &field, "* lets any page open connections");
                } else if !text.starts_with("https://") {
                    let text = format_args!("{} is not protected by TLS", quote(text));
                    diagnostics.warn(Type::LimitsRelaxed, format_args!("{field}[{index}]"), text);
                }
                patterns.push(pattern);
            }
            Err(why) => diagnostics.invalid(format_args!("{field}[{index}]"), format_args!("{} {why}", quote(text))),
        }
    }
    patterns
}

fn pattern(text: &str) -> Result<OriginPattern, &'static str> {
    if text == "*" {
        return Ok(OriginPattern::Any);
    }
    if text == "null" {
        return Err("is the origin of every sandboxed page; list the page's real origin");
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("must have a scheme, as in https://app.example.com");
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'.' | b'-'));
    if !scheme_ok {
        return Err("must have a lower-case scheme");
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    if let Some(port) = port {
        let number: u16 = port.parse().map_err(|_| "must have a number as its port and no path")?;
        if port.starts_with('0') || port.starts_with('+') {
            return Err("must have a port without sign and leading zeros");
        }
        if matches!((scheme, number), ("https" | "wss", 443) | ("http" | "ws", 80)) {
            return Err("must not have the default port of its scheme, because browsers leave it out");
        }
    }
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok() && h.bytes().all(|b| !b.is_ascii_uppercase()));
    // Other schemes (browser extensions) have hosts of their own kind.
    let web = matches!(scheme, "http" | "https");
    if web && !is_address && hostname::check(host).is_err() {
        return Err("must be scheme://host[:port] in lower case without path; a star can stand for the first label");
    }
    if !web && (host.is_empty() || host.bytes().any(|b| !b.is_ascii_graphic() || b"/?#@*\\".contains(&b))) {
        return Err("must be scheme://host without path");
    }
    Ok(match rest.strip_prefix('*') {
        Some(suffix) => OriginPattern::OneLabel { scheme: format!("{scheme}://"), suffix: suffix.to_owned() },
        None => OriginPattern::Exact(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_browsers_send_are_read() {
        for exact in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:3000",
            "https://[2001:db8::1]:8443",
            "https://192.0.2.1",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(pattern(exact), Ok(OriginPattern::Exact(exact.to_owned())));
        }
        let one = OriginPattern::OneLabel { scheme: "https://".into(), suffix: ".example.com:8443".into() };
        assert_eq!(pattern("https://*.example.com:8443"), Ok(one));
        assert_eq!(pattern("*"), Ok(OriginPattern::Any));
    }

    #[test]
    fn what_could_never_match_is_refused() {
        for bad in [
            "",
            "null",
            "app.example.com",
            "https://",
            "https://APP.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:x",
            "https://app.example.com:08443",
            "https://app.example.com.",
            "https://a.*.example.com",
            "https://*",
            "https://*.com",
            "https://user@app.example.com",
            "https://app.example.com?x",
            "moz-extension://*",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
