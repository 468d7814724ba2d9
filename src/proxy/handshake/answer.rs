//! HTTP answers of the gateway itself: the 101 and every refusal, with secure headers on all of them.

use crate::policy::Handshake;
use crate::ws::upgrade::extensions::Deflate;
use crate::ws::upgrade::{self, BackendRefusal};

/// Headers of every answer over TLS. They protect whoever opens the endpoint as a page; a route may replace each.
pub(crate) const SECURE_HEADERS: &[(&str, &str)] = &[
    ("strict-transport-security", "max-age=31536000"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "0"),
    ("referrer-policy", "no-referrer"),
];

/// The secure headers with those of the route over them.
fn headers(handshake: Option<&Handshake>) -> Vec<(&str, &str)> {
    let set = handshake.map_or(&[][..], |handshake| &handshake.response_headers);
    SECURE_HEADERS
        .iter()
        .copied()
        .filter(|(name, _)| !set.iter().any(|(own, _)| own == name))
        .chain(set.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .collect()
}

/// The 101, with the headers of the backend's that pass, which completes the client's handshake (RFC 6455 §4.2.2).
pub(crate) fn switching(
    key: &str,
    subprotocol: Option<&str>,
    deflate: Option<Deflate>,
    handshake: &Handshake,
    passed: &[(Box<str>, Box<[u8]>)],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let extensions = deflate.map(Deflate::answer);
    let mut headers = headers(Some(handshake));
    headers.extend(extensions.as_deref().map(|extensions| ("Sec-WebSocket-Extensions", extensions)));
    upgrade::write_switching(&mut out, key, subprotocol, &headers, passed);
    out
}

/// A refusal with a short constant body and the fields that its status asks for. The reason goes to log and metrics,
/// not to the client.
pub(crate) fn refusal(
    status: u16,
    challenge: Option<&str>,
    handshake: Option<&Handshake>,
    retry_after: u64,
) -> Vec<u8> {
    let retry = retry_after.to_string();
    let mut headers = headers(handshake);
    headers.push(("cache-control", "no-store"));
    if matches!(status, 429 | 503) {
        headers.push(("retry-after", &retry));
    }
    headers.extend(challenge.map(|challenge| ("www-authenticate", challenge)));
    let mut out = Vec::with_capacity(512);
    upgrade::write_refusal(&mut out, status, &headers, body(status));
    out
}

/// The backend's own refusal: its status and what it says of time and credentials, without its body. `retry_after` is for
/// statuses that ask for one and came without.
pub(crate) fn of_backend(answered: &BackendRefusal, handshake: Option<&Handshake>, retry_after: u64) -> Vec<u8> {
    let status = answered.status;
    let retry = answered.retry_after.as_deref().map(Into::into);
    let retry = retry.or_else(|| matches!(status, 429 | 503).then(|| retry_after.to_string()));
    let mut headers = headers(handshake);
    headers.push(("cache-control", "no-store"));
    headers.extend(retry.as_deref().map(|retry| ("retry-after", retry)));
    headers.extend(answered.challenges.iter().map(|challenge| ("www-authenticate", &**challenge)));
    let mut out = Vec::with_capacity(512);
    upgrade::write_refusal(&mut out, status, &headers, "");
    out
}

/// The answer with a ticket that was issued.
pub(crate) fn ticket(handshake: &Handshake, cross_origin: &[(&str, String)], body: &str) -> Vec<u8> {
    let mut headers = headers(Some(handshake));
    headers.extend([("cache-control", "no-store"), ("content-type", "application/json")]);
    headers.extend(cross_origin.iter().map(|(name, value)| (*name, value.as_str())));
    let mut out = Vec::with_capacity(1024);
    upgrade::write_answer(&mut out, 200, &headers, body);
    out
}

/// The answer to a page that may make that call.
pub(crate) fn preflight(handshake: &Handshake, cross_origin: &[(&str, String)]) -> Vec<u8> {
    let mut headers = headers(Some(handshake));
    headers.extend(cross_origin.iter().map(|(name, value)| (*name, value.as_str())));
    let mut out = Vec::with_capacity(1024);
    upgrade::write_answer(&mut out, 204, &headers, "");
    out
}

fn body(status: u16) -> &'static str {
    match status {
        400 => "bad request\n",
        401 => "unauthorized\n",
        403 => "forbidden\n",
        404 => "not found\n",
        405 => "method not allowed\n",
        408 => "request timeout\n",
        414 | 431 => "request too large\n",
        421 => "misdirected request\n",
        426 => "upgrade required: this is a WebSocket endpoint\n",
        429 => "too many requests\n",
        503 => "service unavailable\n",
        504 => "gateway timeout\n",
        500 => "internal error\n",
        _ => "bad gateway\n",
    }
}
