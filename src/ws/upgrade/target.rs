//! Request targets (RFC 9112 §3.2): a path that no reader takes out of its place, or none.
//!
//! Nothing is decoded or normalised: the bytes that are matched against routes are the bytes that go to the backend.
//! Separators and dot segments in disguise are refused here. Other readings matter only where they lead to another route.

use std::borrow::Cow;

use crate::ws::utf8::Utf8;

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetError {
    /// In neither form.
    Form,
    /// A path or query that is not what it seems.
    Path,
}

/// Splits a target into the authority that it names, in absolute form (RFC 9112 §3.2.2), and what it is in origin form;
/// `None` for a scheme that no WebSocket client has.
pub(super) fn split(target: &str) -> Option<(Option<&[u8]>, Cow<'_, str>)> {
    let Some((scheme, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return Some((None, Cow::Borrowed(target)));
    };
    if !["ws", "wss", "http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // RFC 9112 §3.2.1: an empty path is sent as `/`.
    let origin = if rest.starts_with('/') { Cow::Borrowed(rest) } else { Cow::Owned(format!("/{rest}")) };
    Some((Some(authority.as_bytes()), origin))
}

/// Splits a target in origin form (RFC 9112 §3.2.1) into path and query, both byte for byte.
pub(super) fn parse(target: &str) -> Result<(&str, Option<&str>), TargetError> {
    // RFC 9112 §3.2.3 and §3.2.4: authority form belongs to CONNECT, asterisk form to OPTIONS.
    if !target.starts_with('/') {
        return Err(TargetError::Form);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    // RFC 3986 §3.5: a fragment never goes on the wire; some readers cut it off, others keep it.
    let clear = query.is_none_or(|query| query.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
    if clear && check_path(path) { Ok((path, query)) } else { Err(TargetError::Path) }
}

/// Whether a path, byte for byte as on the wire, is one that may be looked for among routes (RFC 3986 §3.3, narrowed):
///
/// - it begins with `/`, and no segment is `.` or `..`, also where it is decoded and its parameters are cut off;
/// - its bytes are those of `pchar`;
/// - every `%` begins an escape of two hexadecimal digits; what is escaped is UTF-8 and none of `/`, `\` or a control
///   character (a reader that decodes first would see other segments).
///
/// What other readings it has is said by [`readings`](super::readings).
pub fn check_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|segments| segments.split('/').all(is_segment))
}

fn is_segment(segment: &str) -> bool {
    let mut utf8 = Utf8::NEW;
    let mut bytes = segment.bytes();
    // What stands before a parameter, if that is nothing but dots: how many.
    let (mut dots, mut named) = (Some(0_usize), true);
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'%' => {
                let (Some(high), Some(low)) = (bytes.next().and_then(digit), bytes.next().and_then(digit)) else {
                    return false;
                };
                let decoded = high << 4 | low;
                if matches!(decoded, b'/' | b'\\') || decoded.is_ascii_control() {
                    return false;
                }
                decoded
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) => byte,
            _ => return false,
        };
        named &= decoded != b';';
        if named {
            dots = dots.filter(|_| decoded == b'.').map(|dots| dots + 1);
        }
        // Overlong forms (%C0%AE for a dot) are not UTF-8 (RFC 3629 §3).
        if utf8.feed(&[decoded]).is_err() {
            return false;
        }
    }
    // RFC 3986 §5.2.4: readers that remove dot segments would see another path.
    !matches!(dots, Some(1 | 2)) && utf8.finish().is_ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_and_escapes_of_text_pass_byte_for_byte() {
        for good in [
            "/",
            "/ws",
            "/ws/",
            "/a/b-c_d~e!$&'()*+,=:@f",
            "/.well-known/x",
            "/...",
            "/a..b",
            "/caf%C3%A9",
            "/%252e%252e/x",
            "/a%20b%3Fc%23d",
            "//",
            "//ws",
            "/ws//x",
            "/ws//",
            "/ws;jsessionid=1",
            "/ws%3b/;x",
            "/file%2Etxt",
            "/..a;x/...;",
        ] {
            assert_eq!(parse(good), Ok((good, None)), "{good}");
        }
        assert_eq!(parse("/ws?a=/../;%2e[\\]"), Ok(("/ws", Some("a=/../;%2e[\\]"))));
        assert_eq!(parse("/ws?"), Ok(("/ws", Some(""))));
        assert_eq!(parse("/ws?a?b"), Ok(("/ws", Some("a?b"))));
    }

    #[test]
    fn separators_and_dot_segments_in_disguise_are_refused() {
        for bad in [
            "/public/../admin",
            "/public/..",
            "/.",
            "/./a",
            "/public/%2e%2e/admin",
            "/public/%2E/admin",
            "/public/..;/admin",
            "/public/..%3b/admin",
            "/public/%2e%2e;a%3bb/admin",
            "/public//../admin",
            "/.;/a",
            "/public/..%2fadmin",
            "/a%2Fb",
            "/ws\\x",
            "/ws%5c",
            "/ws%5C..",
            "/ws%00",
            "/ws%0d%0a",
            "/ws%7f",
            "/ws%",
            "/ws%4",
            "/ws%zz",
            "/ws%+1",
            "/ws%c0%ae",
            "/ws%ff",
            "/ws%C3/%A9",
            "/caf\u{e9}",
            "/ws#admin",
            "/ws?x#y",
            "/ws?caf\u{e9}",
            "/w s",
            "/ws?a b",
            "/ws\u{7f}",
            "/a\"b",
            "/a<b",
            "/a|b",
            "/a[b]",
            "/{a}",
            "/a^b",
            "/a`b",
        ] {
            assert_eq!(parse(bad), Err(TargetError::Path), "{bad}");
        }
    }

    #[test]
    fn an_absolute_form_is_split_into_its_authority_and_its_origin_form() {
        for (target, authority, origin) in [
            ("wss://a.test/ws?x", Some("a.test"), "/ws?x"),
            ("WS://a.test:80", Some("a.test:80"), "/"),
            ("http://a.test?x", Some("a.test"), "/?x"),
            ("https://u@a.test//ws", Some("u@a.test"), "//ws"),
            ("https://a.test#x", Some("a.test"), "/#x"),
            ("https:///ws", Some(""), "/ws"),
            ("/ws?next=https://b.test/", None, "/ws?next=https://b.test/"),
            ("*", None, "*"),
        ] {
            let authority = authority.map(str::as_bytes);
            assert_eq!(split(target), Some((authority, Cow::Borrowed(origin))), "{target}");
        }
        for bad in ["ftp://a.test/", "://a.test/", "?://a.test/"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_origin_form_is_a_target() {
        for bad in ["", "*", "http://evil.test/ws", "https://a.test/ws", "evil.test:22", "ws", "?a", "\\ws"] {
            assert_eq!(parse(bad), Err(TargetError::Form), "{bad}");
        }
    }
}
