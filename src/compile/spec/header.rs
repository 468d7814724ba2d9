//! Headers that a route names: what it sets on the gateway's own answers (`handshake.responseHeaders.set`), what passes of
//! the backend's 101 (`fromBackend`), and what passes of a request (`handshake.requestHeaders.allow`). Knows names and
//! values only.

use crate::api::route::handshake::Header;
use crate::compile::problem::quote;
use crate::compile::spec::diagnostics::Diagnostics;
use crate::compile::spec::layers::Set;
use crate::policy::Authentication;
use crate::policy::authentication::Carrier;
use crate::ws::upgrade;

/// Headers that belong to HTTP, to the protocol or to the application.
const RESERVED: [&str; 12] = [
    "connection",
    "content-length",
    "date",
    "host",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// A token (RFC 9110 §5.6.2), such as a header's name or a subprotocol.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Reads the list as pairs of lower-case names and values; `layer` is where it was written.
pub fn read(list: &[Header], layer: &str, diagnostics: &mut Diagnostics) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::with_capacity(list.len());
    for (index, Header { name, value }) in list.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        match check(&lower, value) {
            Err(why) => {
                let field = format_args!("{layer}.handshake.responseHeaders.set[{index}]");
                diagnostics.invalid(field, format_args!("{} {why}", quote(name)));
            }
            Ok(()) if headers.iter().any(|(earlier, _)| *earlier == lower) => {
                let field = format_args!("{layer}.handshake.responseHeaders.set[{index}]");
                diagnostics.invalid(field, format_args!("{} is set twice; remove one", quote(name)));
            }
            Ok(()) => headers.push((lower, value.clone())),
        }
    }
    headers
}

/// The names of an entry list in lower case, without those that `check` refuses.
fn names(
    set: Option<Set<'_, [String]>>,
    field: &str,
    check: impl Fn(&str) -> Result<(), &'static str>,
    diagnostics: &mut Diagnostics,
) -> Vec<Box<str>> {
    let Some(set) = set else { return Vec::new() };
    let mut names: Vec<Box<str>> = Vec::with_capacity(set.value.len());
    for (index, name) in set.value.iter().enumerate() {
        let lower = name.to_ascii_lowercase();
        let mut invalid = |why| {
            diagnostics.invalid(format_args!("{}[{index}]", set.field(field)), format_args!("{} {why}", quote(name)))
        };
        if !is_token(name) {
            invalid("is not a header name (RFC 9110)");
        } else if let Err(why) = check(&lower) {
            invalid(why);
        } else if names.iter().any(|earlier| **earlier == *lower) {
            invalid("is listed twice; remove one");
        } else {
            names.push(lower.into());
        }
    }
    names
}

/// Reads `responseHeaders.fromBackend`, beside headers that the route itself sets.
pub(super) fn from_backend(
    set: Option<Set<'_, [String]>>,
    own: &[(String, String)],
    diagnostics: &mut Diagnostics,
) -> Vec<Box<str>> {
    let check = |name: &str| {
        if (RESERVED.contains(&name) && name != "set-cookie") || name.starts_with("sec-websocket-") {
            Err("is reserved for the protocol; remove it")
        } else if matches!(name, "content-length" | "proxy-authenticate" | "proxy-authentication-info" | "alt-svc") {
            Err("speaks of the connection to the backend, not of that to the client; remove it")
        } else if name.starts_with("access-control-") || name == "strict-transport-security" {
            Err("would change how browsers treat other answers of the host; remove it")
        } else if own.iter().any(|(own, _)| own == name) {
            Err("is set by responseHeaders.set; remove one")
        } else {
            Ok(())
        }
    };
    names(set, "handshake.responseHeaders.fromBackend", check, diagnostics)
}

/// Reads `requestHeaders.allow`, beside headers that say to the backend who the client is.
pub(super) fn allowed(
    set: Option<Set<'_, [String]>>,
    authentication: &Authentication,
    diagnostics: &mut Diagnostics,
) -> Vec<Box<str>> {
    let carriers =
        || authentication.methods().iter().flat_map(|method| method.kind.places()).map(|place| &place.carrier);
    let check = |name: &str| {
        // As a backend may read it that takes every mark for a hyphen (CGI's variables).
        let read: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        if upgrade::never_passes(name) || (read != name && upgrade::never_passes(&read)) {
            Err("belongs to the protocol or is written by the gateway; remove it")
        } else if authentication.headers().any(|header| *header == *read) {
            Err("is a header in which the gateway says who the client is; remove it")
        } else if read != name && carriers().any(|carrier| matches!(carrier, Carrier::Header(own) if **own == *read)) {
            Err("is another spelling of a header that holds the credential; remove it")
        } else {
            Ok(())
        }
    };
    names(set, "handshake.requestHeaders.allow", check, diagnostics)
}

fn check(name: &str, value: &str) -> Result<(), &'static str> {
    if !is_token(name) {
        return Err("is not a header name (RFC 9110)");
    }
    if RESERVED.contains(&name) || name.starts_with("sec-websocket-") {
        return Err("is reserved for the protocol or the application; remove it");
    }
    if name.starts_with("access-control-") {
        return Err("would open answers to other origins, which WebSockets do not need; remove it");
    }
    if value.bytes().any(|b| !(b == b'\t' || b == b' ' || b.is_ascii_graphic())) || value.trim() != value {
        return Err("must have a value of visible ASCII without spaces at its ends");
    }
    let subdomains = || value.split(';').any(|directive| directive.trim().eq_ignore_ascii_case("includeSubDomains"));
    if name == "strict-transport-security" && subdomains() {
        return Err("must not have includeSubDomains, which would bind hosts of other routes; remove that directive");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_headers_are_set_in_lower_case() {
        let list = [Header { name: "Referrer-Policy".into(), value: "no-referrer".into() }];
        let mut diagnostics = Diagnostics::default();
        assert_eq!(read(&list, "spec", &mut diagnostics), [("referrer-policy".to_owned(), "no-referrer".to_owned())]);
        assert!(diagnostics.problems.is_empty());
    }

    #[test]
    fn headers_that_would_break_the_answer_or_other_hosts_are_refused() {
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("sec-websocket-protocol", "x"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1; IncludeSubdomains"),
            ("x-a", "b\r\nset-cookie: c"),
            ("x-a", " b"),
            ("x a", "b"),
            ("", "b"),
        ] {
            assert!(check(name, value).is_err(), "{name}: {value}");
        }
        assert!(check("strict-transport-security", "max-age=31536000").is_ok());
    }
}
