//! The outer form of PEM files (RFC 7468), checked before anything of them is read: the parsers below pass over what they do
//! not understand, so that a file in which two blocks share a line would lose all that follows.
//!
//! Knows lines and labels, not what is in a block. Never quotes a file: it may hold a key.

/// Checks a file whose blocks of the kind `label` count: every BEGIN line has its END line and stands alone on its line, no
/// block has a label that is another spelling of `label`, and what looks like the inside of a block is in one. Returns how
/// many blocks of this label there are. Explanatory text between blocks is fine (RFC 7468 §2).
///
/// # Errors
/// What is wrong, and at which block.
pub fn check(text: &[u8], label: &str) -> Result<usize, String> {
    let word = label.rsplit(' ').next().unwrap_or(label);
    let (mut inside, mut at, mut count): (Option<&[u8]>, usize, usize) = (None, 1, 0);
    for line in lines(text) {
        let begin = marked(line, b"-----BEGIN ");
        match (inside, begin, marked(line, b"-----END ")) {
            (None, Some(own), _) => {
                if own != label.as_bytes()
                    && own.windows(word.len()).any(|part| part == word.as_bytes())
                    && word != "KEY"
                {
                    return Err(format!("block {at} has another label than {label}; convert it"));
                }
                count += usize::from(own == label.as_bytes());
                inside = Some(own);
            }
            (Some(own), None, Some(end)) if own == end => {
                inside = None;
                at += 1;
            }
            (Some(_), Some(_), _) => return Err(format!("block {at} has no END line")),
            (None, None, Some(_)) => return Err(format!("an END line before block {at} has no BEGIN line")),
            (Some(_), None, Some(_)) => return Err(format!("block {at} ends with the END line of another label")),
            (_, None, None) if line.windows(5).any(|part| part == b"-----") => {
                return Err(format!(
                    "a BEGIN or END line at block {at} is not alone on its line; put a line break between files that \
                     are joined"
                ));
            }
            (None, None, None) if is_body(line) => {
                return Err(format!("lines of a block stand outside, before block {at}"));
            }
            (_, None, None) => {}
        }
    }
    if inside.is_some() { Err(format!("an END line is missing at block {at}")) } else { Ok(count) }
}

/// The labels of the BEGIN lines of a file.
pub fn labels(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines(text).filter_map(|line| marked(line, b"-----BEGIN "))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii_end)
}

/// The label of a BEGIN or END line.
fn marked<'a>(line: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    (!label.is_empty() && !label.contains(&b'-')).then_some(label)
}

/// Whether a line can only be base64: too long and without the spaces that explanations have.
fn is_body(line: &[u8]) -> bool {
    line.len() >= 60 && line.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    const BODY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn block(label: &str) -> String {
        format!("-----BEGIN {label}-----\n{BODY}\n-----END {label}-----\n")
    }

    fn certificates(text: &str) -> Result<usize, String> {
        check(text.as_bytes(), "CERTIFICATE")
    }

    #[test]
    fn whole_files_are_counted_whatever_stands_between() {
        let one = block("CERTIFICATE");
        for (text, count) in [
            (String::new(), 0),
            (one.clone(), 1),
            (one.repeat(3), 3),
            (one.repeat(2).trim_end().to_owned(), 2),
            (one.repeat(2).replace('\n', "\r\n"), 2),
            (one.repeat(2).replace('\n', " \n"), 2),
            (format!("\n\n{one}\n\n\n{one}\n"), 2),
            (format!("Bag Attributes\n    friendlyName: a\nsubject=CN = a\n{one}## GlobalSign\n========\n{one}"), 2),
            (format!("{}{one}", block("DH PARAMETERS")), 1),
        ] {
            assert_eq!(certificates(&text), Ok(count), "{text}");
        }
    }

    #[test]
    fn what_a_reader_would_lose_is_an_error() {
        let one = block("CERTIFICATE");
        let joined = format!("{}{one}", one.trim_end());
        for (text, why) in [
            (joined, "block 1 is not alone on its line"),
            (format!("{one}{}", one.replace("-----BEGIN CERTIFICATE-----\n", "")), "before block 2"),
            (format!(" {one}"), "not alone on its line"),
            (format!("\u{feff}{one}"), "not alone on its line"),
            (format!("x{one}"), "not alone on its line"),
            (one.replace("-----END", "-----BEGIN"), "has no END line"),
            (one.replace("END CERTIFICATE", "END X509 CRL"), "END line of another label"),
            (one[..one.len() - 10].to_owned(), "not alone on its line"),
            (one[..40].to_owned(), "END line is missing"),
            (format!("{one}{BODY}\n"), "outside, before block 2"),
            (block("TRUSTED CERTIFICATE"), "another label"),
            (format!("{one}{}", block("X509 CERTIFICATE")), "block 2 has another label"),
        ] {
            assert!(certificates(&text).is_err_and(|said| said.contains(why) && !said.contains(BODY)), "{why}: {text}");
        }
    }

    proptest! {
        /// However a bundle is bent, it is an error or is read whole: as many certificates as it has.
        #[test]
        fn no_reader_gets_a_part(count in 1usize..5, cut in 0usize..400, size in 0usize..40, put in "[-\n\r A\u{feff}]{0,6}") {
            let mut text = block("CERTIFICATE").repeat(count);
            let cut = cut % text.len();
            text.replace_range(cut..(cut + size).min(text.len()), &put);
            if let Ok(counted) = certificates(&text) {
                let read = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
                prop_assert!(read.is_err() || read.is_ok_and(|read| read.len() == counted), "{}", text);
                // Fewer are only where a cut took one away from its first dash to its last, or left nothing to miss.
                prop_assert!(counted == count || size >= 20, "{counted} of {count}: {}", text);
            }
        }
    }
}
