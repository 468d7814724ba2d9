//! The documents of a manifest file, one by one, so that a broken one costs the others nothing. Knows text only; what a
//! document holds is [`parse`](super::parse)'s to find out.

use serde::de::IgnoredAny;

use crate::api::yaml::Fault;

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Its text.
    pub(crate) text: &'a str,
    /// Lines before it in the file.
    pub(crate) line: u64,
    /// Characters before it in its first line.
    pub(crate) column: u64,
}

/// The documents of a YAML file. Lines that begin with `---` or `...` part documents wherever they stand: YAML 1.2
/// (§9.1.2, `c-forbidden`) lets no scalar contain them.
pub(crate) fn of_yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut offset, mut line) = (0, 0, 0, 0);
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for row in text.split_inclusive('\n') {
        let marker = row
            .get(..3)
            .filter(|_| row.get(3..).is_none_or(|rest| rest.trim_start().len() != rest.len() || rest.is_empty()));
        if matches!(marker, Some("---" | "...")) {
            documents.push((start, offset, first));
            // The marker's own line may hold the document: `--- {kind: ...}`.
            (start, first) = if marker == Some("---") { (offset, line) } else { (offset + row.len(), line + 1) };
        }
        offset += row.len();
        line += 1;
    }
    documents.push((start, offset, first));
    documents
        .into_iter()
        .filter_map(|(start, end, line)| Some(Document { text: text.get(start..end)?, line, column: 0 }))
        .filter(|document| document.text.lines().any(|row| is_content(row.strip_prefix("---").unwrap_or(row))))
        .collect()
}

/// Whether a line is more than space, comment or directive.
pub(crate) fn is_content(row: &str) -> bool {
    !row.starts_with('%') && !matches!(row.trim_start().chars().next(), None | Some('#'))
}

/// The documents of a JSON file: one value after the other.
///
/// # Errors
/// The place and kind of the first error, together with the documents before it.
pub(crate) fn of_json(text: &str) -> (Vec<Document<'_>>, Option<Fault>) {
    let mut documents = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut start = 0;
    loop {
        match stream.next() {
            None => return (documents, None),
            Some(Ok(_)) => {
                let end = stream.byte_offset();
                let before = text.get(..start).unwrap_or_default();
                let line = before.matches('\n').count() as u64;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64;
                documents.push(Document { text: text.get(start..end).unwrap_or_default(), line, column });
                start = end;
            }
            Some(Err(error)) => {
                // Syntax only, nothing of the text: no type was asked for.
                let message = format!("is not valid JSON ({:?} error); correct it", error.classify());
                let fault = Fault::new(error.line() as u64, error.column() as u64, message);
                return (documents, Some(fault));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, u64)> {
        of_yaml(text).iter().map(|document| (document.text, document.line)).collect()
    }

    #[test]
    fn documents_are_parted_at_their_markers() {
        assert_eq!(texts("a: 1\n---\nb: 2\n"), [("a: 1\n", 0), ("---\nb: 2\n", 1)]);
        assert_eq!(texts("--- {a: 1}\n--- # c\n---\n"), [("--- {a: 1}\n", 0)]);
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n...\n# end\n"), [("---\na: 1\n", 1)]);
        assert_eq!(texts("a: |\n  ---\n  b\n----\n"), [("a: |\n  ---\n  b\n----\n", 0)]);
        assert_eq!(texts("\u{feff}a: 1\r\n---\r\nb: 2"), [("a: 1\r\n", 0), ("---\r\nb: 2", 1)]);
        assert_eq!(texts("---"), []);
        assert_eq!(texts("# only a comment\n\n"), []);
        assert_eq!(texts(""), []);
    }

    #[test]
    fn json_values_follow_each_other() {
        let (documents, fault) = of_json("{\"a\": 1}\n {\"b\": 2}{\"c\": 3}\n");
        let found: Vec<_> = documents.iter().map(|d| (d.text.trim(), d.line, d.column)).collect();
        assert_eq!(found, [("{\"a\": 1}", 0, 0), ("{\"b\": 2}", 0, 8), ("{\"c\": 3}", 1, 9)]);
        assert_eq!(fault, None);
        let (documents, fault) = of_json("{\"a\": 1}\n{\"b\": secret}");
        assert_eq!(documents.len(), 1);
        let fault = fault.unwrap();
        assert_eq!(fault.line, 2);
        assert!(!fault.to_string().contains("secret"), "{fault}");
    }
}
