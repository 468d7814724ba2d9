//! Paths: whatever is accepted is the same path for a reader that takes it as it is, one that decodes it first, and one
//! that decodes and then normalises.

use std::sync::Arc;

use wssgate::api::route_id::RouteId;
use wssgate::reason::Reason;
use wssgate::snapshot::{Balance, Host, HostTls, PathMatch, Route, RouteState, Timeouts};
use wssgate::ws::upgrade::check_path;

/// Any bytes as a path.
pub fn check(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    if !check_path(path) {
        return;
    }
    assert!(path.is_ascii() && !path.contains(['?', '#', ';', '\\', '\0']));
    let decode = |text: &str| decoded(text.as_bytes());
    let raw: Vec<Vec<u8>> = path.split('/').map(decode).collect();
    let whole = decode(path);
    let late: Vec<Vec<u8>> = whole.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
    assert_eq!(raw, late, "decoding made other segments");
    assert_eq!(normal(&late), late, "normalising made another path");
    assert!(std::str::from_utf8(&whole).is_ok_and(|text| !text.chars().any(|c| c.is_ascii_control())));
    // A router of another make reads the same bytes.
    assert_eq!(http::Uri::try_from(path).map(|uri| uri.path().to_owned()).ok().as_deref(), Some(path));
    check_match(path);
}

/// A prefix decides by whole segments, and no accepted path goes around it by an escape, nor leaves it when it is
/// normalised.
fn check_match(path: &str) {
    let route = |value: &str| {
        Arc::new(Route {
            id: RouteId::secure_web_socket("shop", value),
            path: PathMatch::Prefix(value.into()),
            state: RouteState::Refusing(Reason::RouteUnavailable),
            backends: Vec::new(),
            balance: Balance::default(),
            backend_tls: None,
            timeouts: Timeouts::default(),
        })
    };
    let host =
        Host { name: "chat.example.com".into(), tls: HostTls::Default, routes: vec![route("/public"), route("/")] };
    let inside = decoded(path.as_bytes()).split(|&b| b == b'/').nth(1).is_some_and(|first| first == b"public");
    match host.route(path) {
        Ok(found) => assert_eq!(&*found.id.name, if inside { "/public" } else { "/" }),
        Err(reason) => assert!(inside && path.contains('%') && reason == Reason::BadPath),
    }
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

/// RFC 3986 §5.2.4 with what common servers do besides: merged slashes, path parameters cut, backslashes turned.
fn normal(segments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let last = segments.len() - 1;
    for (at, segment) in segments.iter().enumerate() {
        let name = segment.split(|&b| b == b';').next().unwrap_or_default();
        match name {
            b"." => {}
            b".." => drop(kept.pop()),
            b"" if at != 0 && at != last => {}
            name => kept.extend(name.split(|&b| b == b'\\').map(<[u8]>::to_vec)),
        }
    }
    kept
}
