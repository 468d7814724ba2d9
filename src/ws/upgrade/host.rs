//! The `Host` field (RFC 9110 §7.2): a plain name, perhaps with a port.

/// What a `Host` field names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// The name, lower case, without port and without a final dot.
    pub host: Box<str>,
    /// The port, if the field has one.
    pub port: Option<u16>,
}

impl Authority {
    /// Whether both are one host and port on a listener for TLS, where no port is 443 (RFC 6455 §3).
    pub(super) fn is(&self, other: &Self) -> bool {
        self.host == other.host && self.port.unwrap_or(443) == other.port.unwrap_or(443)
    }
}

/// Reads `name[:port]`; `None` for anything else that a URI could have there (RFC 3986 §3.2): user information, IP
/// literals in brackets, percent-encoding. One final dot says that the name is complete (RFC 1034 §3.1): it is passed
/// over. An empty port is none (RFC 3986 §3.2.3).
///
/// Hosts of routes are DNS names, so nothing else could match; it is refused early because the field goes on to the
/// backend as it came.
pub fn parse(value: &[u8]) -> Option<Authority> {
    let text = std::str::from_utf8(value).ok()?;
    let (name, port) = match text.split_once(':') {
        Some((name, "")) => (name, None),
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (text, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    // RFC 1035 §2.3.4: 255 octets on the wire are 253 characters.
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
        assert_eq!(parse("App.Example.com."), Some(("app.example.com".into(), None)));
        assert_eq!(parse("a.test.:8443"), Some(("a.test".into(), Some(8443))));
        assert_eq!(parse("a.test:"), Some(("a.test".into(), None)));
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
            "..",
            "a.test..",
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
            ":",
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
