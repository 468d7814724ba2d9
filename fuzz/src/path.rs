//! Paths: what is accepted keeps its segments however it is decoded and normalised, and leads to one rule whoever reads it.

use std::collections::BTreeSet;
use std::sync::Arc;

use wssgate::api::route_id::RouteId;
use wssgate::reason::Reason;
use wssgate::snapshot::{Balance, Host, HostTls, PathMatch, Route, RouteState, Timeouts};
use wssgate::ws::upgrade::check_path;

/// Any bytes as a path, among rules of several kinds.
pub fn check(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    if !check_path(path) {
        return;
    }
    assert!(path.is_ascii() && !path.contains(['?', '#', '\\', '\0']));
    let raw: Vec<Vec<u8>> = path.split('/').map(|segment| decoded(segment.as_bytes())).collect();
    let whole = decoded(path.as_bytes());
    let late: Vec<Vec<u8>> = whole.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
    assert_eq!(raw, late, "decoding made other segments");
    for segment in &late {
        let name = segment.split(|&b| b == b';').next().unwrap_or_default();
        assert!(name != b"." && name != b".." && !name.contains(&b'\\'), "normalising leaves the segment");
    }
    assert!(std::str::from_utf8(&whole).is_ok_and(|text| !text.chars().any(|c| c.is_ascii_control())));
    // A router of another make reads the same bytes.
    assert_eq!(http::Uri::try_from(path).map(|uri| uri.path().to_owned()).ok().as_deref(), Some(path));
    for rules in [&["/"][..], &["/", "/public"], &["/a", "/public", "=/a/b"], &["=/", "/a/b"]] {
        check_match(path, rules);
    }
}

/// Whoever reads an accepted path, it is the same rule. A rule is a prefix, or after `=` a whole path.
pub fn check_match(path: &str, rules: &[&str]) {
    if !check_path(path) || path.len() > 200 {
        return;
    }
    let mut routes: Vec<Arc<Route>> = rules.iter().enumerate().map(|(at, rule)| route((rule, at))).collect();
    routes.sort_by_key(|route| match &route.path {
        PathMatch::Exact(path) => (false, usize::MAX - path.len()),
        PathMatch::Prefix(path) => (true, usize::MAX - path.len()),
    });
    let host = Host { name: "chat.example.com".into(), tls: HostTls::Default, routes };
    // The rule that a reading leads to, by another matcher: the most specific one.
    let lead = |path: &str| {
        let weight = |rule: &&&str| match rule.strip_prefix('=') {
            Some(exact) => (exact == path).then_some(usize::MAX),
            None => {
                let inside = rule.split('/').filter(|part| !part.is_empty());
                let segments: Vec<&str> = path.split('/').skip(1).collect();
                let fits = inside.clone().enumerate().all(|(at, part)| segments.get(at) == Some(&part));
                fits.then_some(rule.len())
            }
        };
        rules.iter().filter(|rule| weight(rule).is_some()).max_by_key(weight).map(|rule| (*rule).to_owned())
    };
    let led: BTreeSet<Option<String>> = readings(path).iter().map(|path| lead(path)).collect();
    match host.route(path) {
        Ok(found) => assert_eq!(led, BTreeSet::from([Some(found.id.name.to_string())]), "{path} among {rules:?}"),
        Err(Reason::RouteNotFound) => assert_eq!(led, BTreeSet::from([None]), "{path} among {rules:?}"),
        Err(reason) => assert!(reason == Reason::BadPath && led.len() > 1, "{path} among {rules:?}: {led:?}"),
    }
}

fn route((rule, at): (&str, usize)) -> Arc<Route> {
    let path = match rule.strip_prefix('=') {
        Some(exact) => PathMatch::Exact(exact.into()),
        None => PathMatch::Prefix(rule.into()),
    };
    let (id, state) = (RouteId::secure_web_socket("shop", rule), RouteState::Refusing(Reason::RouteUnavailable));
    Arc::new(Route {
        id,
        path,
        state,
        backends: Vec::new(),
        balance: Balance::default(),
        backend_tls: None,
        timeouts: Timeouts::default(),
        rule: at,
    })
}

/// Everything that servers make of a path, each step in any place and as often as it changes something; escapes are
/// decoded once, and one authority is passed over.
fn readings(path: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([(path.to_owned(), false, false)]);
    let mut todo: Vec<_> = found.iter().cloned().collect();
    while let Some((text, once, rooted)) = todo.pop() {
        let segments: Vec<&str> = text.split('/').collect();
        let cut: Vec<&str> =
            segments.iter().map(|segment| segment.split_once(';').map_or(*segment, |(a, _)| a)).collect();
        let merged =
            segments.iter().enumerate().filter(|(at, s)| *at == 0 || *at + 1 == segments.len() || !s.is_empty());
        let merged: Vec<&str> = merged.map(|(_, segment)| *segment).collect();
        let mut next = vec![
            (cut.join("/"), once, rooted),
            (text.split(';').next().unwrap_or_default().to_owned(), once, rooted),
            (text.split(['?', '#']).next().unwrap_or_default().to_owned(), once, rooted),
            (if merged.len() == 1 { "/".to_owned() } else { merged.join("/") }, once, rooted),
        ];
        if !once {
            next.push((String::from_utf8(decoded(text.as_bytes())).unwrap_or_default(), true, rooted));
        }
        if !rooted && text.starts_with("//") {
            let rest = text.trim_start_matches('/');
            next.push((rest.split_once('/').map_or("/".to_owned(), |(_, rest)| format!("/{rest}")), once, true));
        }
        todo.extend(next.into_iter().filter(|reading| found.insert(reading.clone())));
    }
    found.into_iter().map(|(text, ..)| text).collect()
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        match escape.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}
