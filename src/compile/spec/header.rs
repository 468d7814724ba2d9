//! Entries of `handshake.responseHeaders.set`: which headers a route may set on the gateway's own answers. Knows
//! entries only.

use crate::api::route::handshake::Header;
use crate::compile::problem::quote;
use crate::compile::spec::diagnostics::Diagnostics;

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
