//! The request to the backend (RFC 6455 §4.1): written anew, with our own key, from what was understood.

use std::net::IpAddr;

use crate::ws::upgrade::hops;
use crate::ws::upgrade::origin::Origin;
use crate::ws::upgrade::request::Request;

/// What the backend is told about the client (RFC 7239 and the fields that were there before it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The client's address. An IPv4 address that arrived on an IPv6 socket is written as IPv4.
    pub client: IpAddr,
    /// The host the client asked for, as sent, with its port if it named one.
    pub host: &'a str,
    /// The port the client asked for; 443 where it named none.
    pub port: u16,
    /// Who the client proved to be: names that no client can send through, and values that are visible ASCII.
    pub identity: &'a [(&'static str, String)],
    /// The gateway's own name in `CDN-Loop` (RFC 8586); empty: it has none.
    pub hop: &'a str,
}

impl<'a> Forwarded<'a> {
    /// What a request itself says, for a client at this address.
    pub fn of(request: &'a Request, client: IpAddr) -> Self {
        Self { client, host: &request.authority, port: request.port.unwrap_or(443), identity: &[], hop: "" }
    }
}

/// Appends the request for the backend: the client's path, query and `Host` byte for byte, our key, `offered` as
/// subprotocols, the fields of the client that may go on, and last what the gateway says about the client, so that
/// nothing of the client's can stand after it.
pub fn write_request(out: &mut Vec<u8>, request: &Request, key: &str, offered: &[Box<str>], forwarded: &Forwarded<'_>) {
    out.extend_from_slice(b"GET ");
    out.extend_from_slice(request.path.as_bytes());
    if let Some(query) = &request.query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    field("Host", request.authority.as_bytes());
    field("Upgrade", b"websocket");
    field("Connection", b"Upgrade");
    field("Sec-WebSocket-Key", key.as_bytes());
    field("Sec-WebSocket-Version", b"13");
    if !offered.is_empty() {
        field("Sec-WebSocket-Protocol", offered.join(", ").as_bytes());
    }
    match &request.origin {
        Origin::Missing => {}
        Origin::One(origin) => field("Origin", origin.as_bytes()),
        // Let through for audit only. RFC 6454 §7.3: `null` stands for what cannot be named, so that a backend that
        // checks by itself does not take it for a client without origin.
        Origin::Several => field("Origin", b"null"),
    }
    for (name, value) in &request.headers {
        field(name, value);
    }
    let hops = hops::appended(request.cdn_loop.as_deref(), forwarded.hop);
    if !hops.is_empty() {
        field("CDN-Loop", &hops);
    }
    let client = forwarded.client.to_canonical();
    let plain = client.to_string();
    field("X-Forwarded-For", plain.as_bytes());
    field("X-Forwarded-Proto", b"https");
    field("X-Forwarded-Host", forwarded.host.as_bytes());
    field("X-Forwarded-Port", forwarded.port.to_string().as_bytes());
    field("X-Real-IP", plain.as_bytes());
    // RFC 7239 §6: an IPv6 address is in brackets and quoted. §4: a value with a colon is quoted.
    let node = if client.is_ipv6() { format!("\"[{plain}]\"") } else { plain };
    field("Forwarded", format!("for={node};host=\"{}\";proto=https", forwarded.host).as_bytes());
    for (name, value) in forwarded.identity {
        field(name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
