//! Hostnames as routes may write them. Knows text only.

use crate::api::scalar::is_lower_dns_name;

/// Whether this is a hostname as the API takes it: lower-case DNS labels, one star as the whole first label at most,
/// not an IP address.
///
/// # Errors
/// What is wrong with it, for a message that quotes it.
pub fn check(hostname: &str) -> Result<(), &'static str> {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    if hostname.len() > 253 {
        return Err("must have at most 253 bytes");
    }
    if name.parse::<std::net::IpAddr>().is_ok() || hostname.contains([':', '[']) {
        return Err("must be a DNS name, not an IP address or host:port");
    }
    if !is_lower_dns_name(name) {
        return Err("must be a lower-case DNS name, with a star in place of the first label at most");
    }
    // "127.1" is an address to many parsers; no top-level domain is a number (RFC 3696 §2).
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("must not end in a number, because IP addresses do");
    }
    if name != hostname && !name.contains('.') {
        return Err("must not have a star directly below a top-level domain");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_are_lower_case_names_with_one_star_at_most() {
        for good in ["localhost", "a.test", "*.example.com", "xn--bcher-kva.example"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "a.".repeat(130);
        for bad in [
            "",
            "A.test",
            "a..test",
            ".a",
            "a.",
            "-a.test",
            "*",
            "*.com",
            "*.*.test",
            "a.*.test",
            "a*.test",
            "a_b.test",
            "127.0.0.1",
            "*.127.0.0.1",
            "127.1",
            "[::1]",
            "::1",
            "a.test:443",
            "a/b",
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
