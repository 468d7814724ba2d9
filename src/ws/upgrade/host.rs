//! The `Host` field (RFC 9110 §7.2): a plain name, perhaps with a port.

/// What a `Host` field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name, lower case, without port.
    pub host: Box<str>,
    /// The port, if the field has one.
    pub port: Option<u16>,
}

/// Reads `name[:port]`; `None` for anything else that a URI could have there (RFC 3986 §3.2): user information, IP
/// literals in brackets, percent-encoding, an empty port, a final dot.
///
/// Hosts of routes are DNS names, so nothing else could match; it is refused early because the field goes on to the
/// backend as it came.
pub fn parse(value: &[u8]) -> Option<Authority> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (text, None),
    };
    // RFC 1035 §2.3.4: 255 octets on the wire are 253 characters. The final dot makes an empty last label.
    if name.len() > 253 || !name.split('.').all(is_label) {
        return None;
    }
    Some(Authority { host: name.to_ascii_lowercase().into(), port })
}

/// RFC 1123 §2.1: letters, digits and inner hyphens; no underscore, which no certificate of a route's host covers.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A decimal port in its shortest form.
fn parse_port(text: &str) -> Option<u16> {
    if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_ports_read() {
        let parse = |text: &str| parse(text.as_bytes()).map(|a| (a.host.to_string(), a.port));
        assert_eq!(parse("App.Example.COM:8443"), Some(("app.example.com".into(), Some(8443))));
        assert_eq!(parse("192.0.2.1"), Some(("192.0.2.1".into(), None)));
        assert_eq!(parse(&format!("{}.test", "a".repeat(63))).map(|a| a.1), Some(None));
    }

    #[test]
    fn what_is_not_a_plain_name_is_refused() {
        let long = format!("{}test", "abcdefghi.".repeat(25));
        let label = "a".repeat(64);
        for bad in [
            "",
            ".",
            "a.test.",
            ".a.test",
            "a..test",
            "-a.test",
            "a-.test",
            "a_b.test",
            "user@a.test",
            "a.test/x",
            "a b.test",
            "a%2etest",
            "[::1]",
            "[::1]:443",
            "::1",
            "a.test:",
            "a.test:0",
            "a.test:0443",
            "a.test:65536",
            "a.test:+443",
            "a.test:443:443",
            "a.test,b.test",
            "b\u{fc}cher.test",
            "*.test",
            long.as_str(),
            label.as_str(),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse(b"a\xff.test"), None);
    }
}
