//! `CDN-Loop` (RFC 8586): the gateways and CDNs that a request came through. Each appends its own name, and one that finds
//! its name there has seen the request before. Knows lists of names, not whose they are.

/// Whether a list names this hop. Names are compared without regard to case; parameters of an element are passed over. A
/// comma within a quoted parameter may part an element in two, of which nobody's name is made but by whoever wrote it.
pub fn names(list: &[u8], hop: &str) -> bool {
    let name = |element: &[u8]| {
        let end = element.iter().position(|byte| *byte == b';').unwrap_or(element.len());
        element.get(..end).unwrap_or_default().trim_ascii().eq_ignore_ascii_case(hop.as_bytes())
    };
    !hop.is_empty() && list.split(|byte| *byte == b',').any(name)
}

/// The list with this hop behind the others (RFC 8586 §2: none of them is removed or changed).
pub fn appended(list: Option<&[u8]>, hop: &str) -> Vec<u8> {
    let before = list.filter(|list| !list.is_empty());
    let parts = before.into_iter().chain((!hop.is_empty()).then_some(hop.as_bytes()));
    parts.collect::<Vec<_>>().join(&b", "[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_is_found_by_its_whole_name_wherever_it_stands() {
        for list in ["gate-1", "a, gate-1", "GATE-1;v=1 , b", "a;x=\"1\",gate-1", ", ,gate-1"] {
            assert!(names(list.as_bytes(), "gate-1"), "{list}");
        }
        for list in ["", "gate-10", "gate", "a;gate-1", "agate-1, b", "gate-1.test"] {
            assert!(!names(list.as_bytes(), "gate-1"), "{list}");
        }
        assert!(!names(b", a", ""), "no name is nobody's");
    }

    #[test]
    fn a_hop_comes_behind_the_others_which_stay_as_they_are() {
        let text = |list: Option<&str>, hop| String::from_utf8(appended(list.map(str::as_bytes), hop)).unwrap();
        assert_eq!(text(None, "gate-1"), "gate-1");
        assert_eq!(text(Some("a; x=1,b"), "gate-1"), "a; x=1,b, gate-1");
        assert_eq!(
            (text(Some(""), "gate-1"), text(Some("a"), ""), text(None, "")),
            ("gate-1".into(), "a".into(), String::new())
        );
    }
}
