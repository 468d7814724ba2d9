//! The other readings of a path: what servers and libraries make of it before they look for a handler.
//!
//! Knows text, and not where a path leads. Whether a reading matters is for whoever knows the routes.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// One way to read a path; `None`: it reads what is there.
type Reader = fn(&str) -> Option<Cow<'_, str>>;

/// Readers that find nothing more in what they once read.
const REPEATABLE: [Reader; 4] = [without_parameters, up_to_a_parameter, without_query, with_single_slashes];

/// A path as somebody reads it, and what was done to it that nobody does twice.
struct Reading {
    text: String,
    decoded: bool,
    rooted: bool,
}

/// Whether a path has no other reading: no escapes, no path parameters, no empty segments but a last one.
pub fn is_plain(path: &str) -> bool {
    !path.contains(['%', ';']) && !path.contains("//")
}

/// Whether `holds` is true of every other reading of a path that [`check_path`](super::check_path) lets through. Each of
/// these steps may come after any other:
///
/// - escapes are decoded, once (RFC 3986 §2.4), and what then looks like a query or fragment is cut off;
/// - path parameters are cut off (RFC 3986 §3.3): each up to its segment's end, or the first with all that follows;
/// - slashes that follow one another count as one;
/// - two slashes at the start are followed by an authority (RFC 3986 §4.2), and the path begins behind it.
pub fn all(path: &str, mut holds: impl FnMut(&str) -> bool) -> bool {
    let mut seen = vec![Reading { text: path.to_owned(), decoded: false, rooted: false }];
    let mut at = 0;
    while let Some(reading) = seen.get(at) {
        let Reading { decoded, rooted, .. } = *reading;
        let mut next: Vec<Reading> = Vec::new();
        let mut read = |reader: Reader, decoded, rooted| {
            next.extend(reader(&reading.text).map(|text| Reading { text: text.into_owned(), decoded, rooted }));
        };
        REPEATABLE.into_iter().for_each(|reader| read(reader, decoded, rooted));
        if !decoded {
            read(without_escapes, true, rooted);
        }
        if !rooted {
            read(behind_an_authority, decoded, true);
        }
        for reading in next {
            let known = |seen: &Reading| seen.text == reading.text && seen.decoded == reading.decoded;
            if seen.iter().any(|seen| known(seen) && seen.rooted == reading.rooted) {
                continue;
            }
            if !holds(&reading.text) {
                return false;
            }
            seen.push(reading);
        }
        at += 1;
    }
    true
}

fn without_escapes(path: &str) -> Option<Cow<'_, str>> {
    path.contains('%').then(|| percent_decode_str(path).decode_utf8_lossy())
}

fn without_query(path: &str) -> Option<Cow<'_, str>> {
    path.find(['?', '#']).map(|end| Cow::Borrowed(&path[..end]))
}

fn without_parameters(path: &str) -> Option<Cow<'_, str>> {
    path.contains(';').then(|| {
        let names: Vec<&str> = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect();
        Cow::Owned(names.join("/"))
    })
}

fn up_to_a_parameter(path: &str) -> Option<Cow<'_, str>> {
    path.find(';').map(|end| Cow::Borrowed(&path[..end]))
}

fn with_single_slashes(path: &str) -> Option<Cow<'_, str>> {
    path.contains("//").then(|| {
        let mut merged = String::with_capacity(path.len());
        path.chars().for_each(|letter| {
            if letter != '/' || !merged.ends_with('/') {
                merged.push(letter);
            }
        });
        Cow::Owned(merged)
    })
}

fn behind_an_authority(path: &str) -> Option<Cow<'_, str>> {
    let rest = path.strip_prefix("//")?.trim_start_matches('/');
    Some(Cow::Borrowed(rest.find('/').map_or("/", |start| &rest[start..])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn readings(path: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        assert!(all(path, |reading| {
            found.insert(reading.to_owned());
            true
        }));
        found
    }

    #[test]
    fn each_path_has_the_readings_that_servers_give_it() {
        for (path, others) in [
            ("/", &[][..]),
            ("/a/b", &[]),
            ("/%61", &["/a"]),
            ("/%2561", &["/%61"]),
            ("/a//b", &["/a/b"]),
            ("//a/b", &["/a/b", "/b"]),
            ("///a", &["/", "/a"]),
            ("/a;x/b", &["/a", "/a/b"]),
            ("/a%3Bx/b", &["/a", "/a/b", "/a;x/b"]),
            ("/a%3Fb", &["/a", "/a?b"]),
            ("/;/a", &["/", "//a", "/a"]),
        ] {
            assert_eq!(readings(path), others.iter().map(|path| (*path).to_owned()).collect(), "{path}");
            assert_eq!(is_plain(path), others.is_empty(), "{path}");
        }
    }

    #[test]
    fn the_longest_path_has_few_readings() {
        for piece in ["//a", "//a;%3b%3f%61", "/;", "//;a%3fb"] {
            let path = piece.repeat(crate::ws::upgrade::max_target(crate::ws::upgrade::LARGEST_HEAD) / piece.len());
            let mut count = 0;
            all(&path, |_| {
                count += 1;
                true
            });
            assert!(count < 100, "{piece}: {count}");
        }
    }
}
