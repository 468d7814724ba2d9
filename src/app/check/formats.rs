//! Findings in the forms that pipelines read. Each of them carries text of manifests, so each escapes it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::json;

use super::finding::{Finding, Level};

/// [Workflow commands](https://docs.github.com/actions/reference/workflow-commands-for-github-actions), a line each.
pub(super) fn github(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mut properties = Vec::new();
        if let Some(place) = &finding.place {
            properties.push(format!("file={}", property(&place.file)));
            properties.push(format!("line={}", place.line));
        }
        properties.push(format!("title={}", property(&title(finding))));
        let _ = writeln!(text, "::{} {}::{}", finding.level.as_str(), properties.join(","), data(&finding.text));
    }
    text
}

/// The route, and the reason.
fn title(finding: &Finding) -> String {
    match &finding.route {
        Some(route) => format!("{route}: {}", finding.rule),
        None => finding.rule.clone(),
    }
}

/// The text of a workflow command.
fn data(text: &str) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    text.replace(char::is_control, "?")
}

/// A property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// The Static Analysis Results Interchange Format 2.1.0 (OASIS): one run with a rule for each reason.
pub(super) fn sarif(findings: &[Finding]) -> String {
    let rules: BTreeSet<&str> = findings.iter().map(|finding| finding.rule.as_str()).collect();
    let rules: Vec<_> = rules.into_iter().map(|rule| json!({"id": rule})).collect();
    let results: Vec<_> = findings
        .iter()
        .map(|finding| {
            let text = match &finding.route {
                Some(route) => format!("{route}: {}", finding.text),
                None => finding.text.clone(),
            };
            let locations: Vec<_> = finding
                .place
                .iter()
                .map(|place| {
                    json!({"physicalLocation": {
                        "artifactLocation": {"uri": uri(&place.file)},
                        "region": {"startLine": place.line},
                    }})
                })
                .collect();
            json!({"ruleId": finding.rule, "level": finding.level.as_str(), "message": {"text": text}, "locations": locations})
        })
        .collect();
    let driver = json!({"name": "wssgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    })
    .to_string()
}

/// A path as a relative reference (RFC 3986 §4.2): what is no path character is escaped.
fn uri(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=@".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// JUnit's XML: a test case for each route and for each file with a document that cannot be read. A case fails by its
/// errors, and has its warnings as its output.
pub(super) fn junit(routes: Vec<String>, findings: &[Finding]) -> String {
    let mut cases: Vec<String> = routes;
    let mut files: Vec<String> = findings.iter().filter(|finding| finding.route.is_none()).map(case).collect();
    files.dedup();
    cases.extend(files);
    let (mut body, mut failed) = (String::new(), 0);
    for name in &cases {
        let own = |level| findings.iter().filter(move |finding| finding.level == level && case(finding) == *name);
        let _ = write!(body, "  <testcase classname=\"wssgate.check\" name=\"{}\">", escaped(name));
        let errors: Vec<&Finding> = own(Level::Error).collect();
        failed += usize::from(!errors.is_empty());
        if let Some(first) = errors.first() {
            let text: Vec<&str> = errors.iter().map(|finding| finding.text.as_str()).collect();
            let (rule, text) = (escaped(&first.rule), escaped(&text.join("\n")));
            let _ =
                write!(body, "\n    <failure type=\"{rule}\" message=\"{}\">{text}</failure>", escaped(&first.text));
        }
        let warnings: Vec<&str> = own(Level::Warning).map(|finding| finding.text.as_str()).collect();
        if !warnings.is_empty() {
            let _ = write!(body, "\n    <system-out>{}</system-out>", escaped(&warnings.join("\n")));
        }
        body.push_str(if errors.is_empty() && warnings.is_empty() { "</testcase>\n" } else { "\n  </testcase>\n" });
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"wssgate check\" tests=\"{}\" failures=\"{failed}\">\n\
         {body}</testsuite>\n",
        cases.len()
    )
}

/// The name of the test case that a finding belongs to.
fn case(finding: &Finding) -> String {
    match (&finding.route, &finding.place) {
        (Some(route), _) => route.clone(),
        (None, Some(place)) => place.file.clone(),
        (None, None) => finding.rule.clone(),
    }
}

/// Text for XML 1.0 (§2.2, §2.4): characters that it cannot have are replaced.
fn escaped(text: &str) -> String {
    let mut xml = String::new();
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' => xml.push('\n'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => xml.push('?'),
            c => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::loaded::Place;

    fn findings() -> Vec<Finding> {
        let place = |file: &str, line| Some(Place { file: file.to_owned(), line });
        let of = |level, place, route: Option<&str>, rule: &str, text: &str| Finding {
            level,
            place,
            route: route.map(str::to_owned),
            rule: rule.to_owned(),
            text: text.to_owned(),
        };
        vec![
            of(Level::Error, place("a b,c.yaml", 3), None, "Malformed", "100 % wrong\nat \"x\" <y>"),
            of(
                Level::Error,
                place("r.yaml", 1),
                Some("shop/chat"),
                "Invalid",
                "Accepted is False: spec.hostnames: is empty",
            ),
            of(
                Level::Warning,
                place("r.yaml", 1),
                Some("shop/chat"),
                "Configured",
                "Anonymous is True: nobody is asked",
            ),
            of(Level::Warning, None, Some("shop/news"), "Configured", "Anonymous is True: \u{1b}[2J"),
        ]
    }

    #[test]
    fn annotations_escape_what_would_end_them() {
        let expected = "\
::error file=a b%2Cc.yaml,line=3,title=Malformed::100 %25 wrong%0Aat \"x\" <y>
::error file=r.yaml,line=1,title=shop/chat%3A Invalid::Accepted is False: spec.hostnames: is empty
::warning file=r.yaml,line=1,title=shop/chat%3A Configured::Anonymous is True: nobody is asked
::warning title=shop/news%3A Configured::Anonymous is True: ?[2J
";
        assert_eq!(github(&findings()), expected);
    }

    #[test]
    fn sarif_names_each_rule_once_and_each_place() {
        let report: serde_json::Value = serde_json::from_str(&sarif(&findings())).unwrap();
        let run = &report["runs"][0];
        let rules: Vec<_> = run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| &rule["id"]).collect();
        assert_eq!(rules, ["Configured", "Invalid", "Malformed"]);
        let first = &run["results"][0];
        assert_eq!((&first["level"], &first["ruleId"]), (&json!("error"), &json!("Malformed")));
        let place = &first["locations"][0]["physicalLocation"];
        assert_eq!(
            (&place["artifactLocation"]["uri"], &place["region"]["startLine"]),
            (&json!("a%20b,c.yaml"), &json!(3))
        );
        assert_eq!(run["results"][3]["locations"], json!([]));
    }

    #[test]
    fn junit_has_a_case_for_each_route_and_each_broken_file() {
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="wssgate check" tests="4" failures="2">
  <testcase classname="wssgate.check" name="shop/chat">
    <failure type="Invalid" message="Accepted is False: spec.hostnames: is empty">Accepted is False: spec.hostnames: is empty</failure>
    <system-out>Anonymous is True: nobody is asked</system-out>
  </testcase>
  <testcase classname="wssgate.check" name="shop/good"></testcase>
  <testcase classname="wssgate.check" name="shop/news">
    <system-out>Anonymous is True: ?[2J</system-out>
  </testcase>
  <testcase classname="wssgate.check" name="a b,c.yaml">
    <failure type="Malformed" message="100 % wrong
at &quot;x&quot; &lt;y&gt;">100 % wrong
at &quot;x&quot; &lt;y&gt;</failure>
  </testcase>
</testsuite>
"#;
        let routes = ["shop/chat", "shop/good", "shop/news"].map(str::to_owned).to_vec();
        assert_eq!(junit(routes, &findings()), expected);
    }
}
