//! Heads of HTTP/1.1 messages (RFC 9112 §2): where one ends, and the small grammar of its values.

/// A byte or an order of bytes that is read differently by different parsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// Finds the end of a head: the bytes up to and including its empty line, or `None` if it is not whole yet. Stricter
/// than the parser that comes after it, and applied to every byte that parser will see.
pub(super) fn end(bytes: &[u8]) -> Result<Option<usize>, Ambiguous> {
    // RFC 9112 §2.2 would let a server skip empty lines before the request line; no WebSocket client sends them.
    if matches!(bytes.first(), Some(b'\r' | b'\n' | b' ' | b'\t')) {
        return Err(Ambiguous);
    }
    let mut line = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            // RFC 9112 §2.2: a bare LF may be taken for a line's end; not by everyone.
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => return Err(Ambiguous),
            b'\n' if at == line + 1 => return Ok(Some(at + 1)),
            b'\n' => {
                line = at + 1;
                // RFC 9112 §5.2: obs-fold must be refused or replaced.
                if matches!(bytes.get(line), Some(b' ' | b'\t')) {
                    return Err(Ambiguous);
                }
            }
            // RFC 9112 §2.2: a bare CR is invalid.
            b'\r' if bytes.get(at + 1).is_some_and(|&next| next != b'\n') => return Err(Ambiguous),
            // RFC 9110 §5.5: NUL is dangerous.
            0 => return Err(Ambiguous),
            _ => {}
        }
    }
    Ok(None)
}

/// A value without the optional white space around it (RFC 9110 §5.6.3: SP and HTAB, nothing else).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A value as text, if it is visible ASCII without spaces and not empty.
pub(super) fn visible(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then_some(text)
}

/// A token (RFC 9110 §5.6.2).
pub(super) fn token(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (!text.is_empty() && text.bytes().all(tchar)).then_some(text)
}

/// The elements of a comma-separated list, trimmed. Empty ones are passed over, as RFC 9110 §5.6.1.2 demands.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// A field that may stand once only.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Single<'a> {
    first: Option<&'a [u8]>,
    more: bool,
}

impl<'a> Single<'a> {
    pub(super) fn add(&mut self, value: &'a [u8]) {
        self.more |= self.first.is_some();
        self.first = self.first.or(Some(value));
    }

    /// The value, if there is exactly one field.
    pub(super) fn one(self) -> Option<&'a [u8]> {
        if self.more { None } else { self.first }
    }

    pub(super) fn is_missing(self) -> bool {
        self.first.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_empty_line_and_what_follows_is_not_looked_at() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\0\n\r";
        assert_eq!(end(head), Ok(Some(27)));
        for short in 0..27 {
            assert_eq!(end(&head[..short]), Ok(None), "{short}");
        }
    }

    #[test]
    fn line_ends_that_parsers_disagree_about_are_refused() {
        for bad in [
            &b"\r\nGET"[..],
            b"\n",
            b" GET",
            b"GET / HTTP/1.1\nHost",
            b"GET / HTTP/1.1\rHost",
            b"A\r\nB: c\n\r\n",
            b"A\r\nB: c\r\r\n",
            b"A\r\nB: \0",
            b"A\r\nB: c\r\n d",
            b"A\r\nB: c\r\n\td",
        ] {
            assert_eq!(end(bad), Err(Ambiguous), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn lists_and_tokens_are_read_as_the_rfc_writes_them() {
        assert_eq!(elements(b" a ,\tb,,c").collect::<Vec<_>>(), [&b"a"[..], b"b", b"c"]);
        assert_eq!(elements(b" , ,").count(), 0);
        assert_eq!(token(b"a-b.c"), Some("a-b.c"));
        assert!(
            token(b"").is_none() && token(b"a b").is_none() && token(b"a\"").is_none() && token(b"\xc3\xa9").is_none()
        );
        assert_eq!(trim(b"\t a b "), b"a b");
        assert_eq!(trim(b" "), b"");
    }
}
