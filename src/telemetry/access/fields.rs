//! What the lines of the access log say: the fields of each event, in their order.
//!
//! Knows which values may be written, and nothing of how lines are sampled or where they go.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::line::Line;
use crate::reason::Reason;
use crate::telemetry::initiator::Initiator;

/// The id that joins the two lines of a connection: 16 hexadecimal digits, the first half of them this process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(pub(super) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A connection was admitted and answered with 101.
#[derive(Debug, Clone, Copy)]
pub struct Opened<'a> {
    /// Joins this line with that of the end.
    pub id: Id,
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// The client's address; port 0 where it is not known.
    pub client: SocketAddr,
    /// The trusted proxy that spoke for the client.
    pub proxy: Option<SocketAddr>,
    /// The host of the request.
    pub host: &'a str,
    /// The path of the request; anything from a `?` on is left out.
    pub path: &'a str,
    /// The Origin header; anything from a `?` on is left out.
    pub origin: Option<&'a str>,
    /// The subprotocol that was agreed, if the route lists it: any other may be a credential in disguise.
    pub subprotocol: Option<&'a str>,
    /// The TLS version, as `TLSv1.3`.
    pub tls: Option<&'a str>,
    /// The endpoint that serves it.
    pub backend: Option<SocketAddr>,
    /// What Enforce would have refused it for.
    pub audited: Option<Reason>,
}

/// A connection ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The id of the line when it opened.
    pub id: Id,
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// How long it was open.
    pub duration: Duration,
    /// Why it ended.
    pub reason: Reason,
    /// The close code that was sent or received.
    pub code: Option<u16>,
    /// Who ended it.
    pub initiator: Initiator,
    /// What was wrong with the message that ended it; `None`: it was no message.
    pub detail: Option<&'a Detail>,
    /// Messages and payload bytes of the client.
    pub from_client: Volume,
    /// Messages and payload bytes of the backend.
    pub from_backend: Volume,
}

/// What was wrong with what a message says. Names and places, never a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    /// The name of the schema that it does not satisfy.
    pub schema: Option<Arc<str>>,
    /// The place in the message, a JSON Pointer (RFC 6901).
    pub pointer: Option<String>,
    /// The keyword of the schema that failed there.
    pub keyword: Option<String>,
    /// Why it could not be read: `syntax`, `duplicate_name`, `depth` or `values`.
    pub malformed: Option<&'static str>,
    /// The raw protocol that begins in it.
    pub protocol: Option<&'static str>,
}

/// A message was let through in Audit mode that Enforce would have refused.
#[derive(Debug, Clone, Copy)]
pub struct Audited<'a> {
    /// The id of the line when the connection opened.
    pub id: Id,
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// What Enforce would have ended the connection for.
    pub reason: Reason,
    /// What is wrong with the message.
    pub detail: &'a Detail,
}

/// What went one way over one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// Whole data messages.
    pub messages: u64,
    /// Payload bytes of data frames.
    pub bytes: u64,
    /// Messages that were left out because of a rate.
    pub dropped: u64,
    /// How often the sender was not read because of a rate.
    pub throttled: u64,
}

/// A handshake was refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Why.
    pub reason: Reason,
    /// The HTTP status of the answer; `None` where there is no answer.
    pub status: Option<u16>,
    /// The client's address; port 0 where it is not known.
    pub client: SocketAddr,
    /// The trusted proxy that spoke for the client.
    pub proxy: Option<SocketAddr>,
    /// The host of the request, if it came so far.
    pub host: Option<&'a str>,
    /// The path of the request, if it came so far; anything from a `?` on is left out.
    pub path: Option<&'a str>,
    /// `namespace/name` of the route, if one was found.
    pub route: Option<&'a str>,
    /// The endpoint that was asked, if it came so far.
    pub backend: Option<SocketAddr>,
    /// The status with which the backend refused.
    pub backend_status: Option<u16>,
    /// What was wrong with the backend's answer, of a closed set.
    pub detail: Option<&'static str>,
}

impl Opened<'_> {
    /// The name of the event.
    pub(super) const EVENT: &'static str = "opened";

    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.shown("connection_id", self.id);
        line.text("route", self.route);
        client(line, self.client, self.proxy);
        line.text("host", self.host);
        line.text("path", before_query(self.path));
        line.maybe_text("origin", self.origin.map(before_query));
        line.maybe_text("subprotocol", self.subprotocol);
        line.maybe_text("tls", self.tls);
        line.maybe_shown("backend", self.backend);
        line.maybe_text("audit_violation", self.audited.map(Reason::label));
    }
}

impl Ended<'_> {
    /// The name of the event.
    pub(super) const EVENT: &'static str = "closed";

    pub(super) fn write(&self, line: &mut Line<'_>) {
        line.shown("connection_id", self.id);
        line.text("route", self.route);
        line.number("duration_ms", u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX));
        line.text("reason", self.reason.label());
        line.maybe_number("close_code", self.code);
        line.text("initiator", self.initiator.label());
        line.number("messages_from_client", self.from_client.messages);
        line.number("bytes_from_client", self.from_client.bytes);
        line.number("messages_from_backend", self.from_backend.messages);
        line.number("bytes_from_backend", self.from_backend.bytes);
        // Only where a rate was exceeded.
        for (name, number) in [
            ("dropped_from_client", self.from_client.dropped),
            ("throttled_from_client", self.from_client.throttled),
            ("dropped_from_backend", self.from_backend.dropped),
            ("throttled_from_backend", self.from_backend.throttled),
        ] {
            if number > 0 {
                line.number(name, number);
            }
        }
        if let Some(detail) = self.detail {
            detail.write(line);
        }
    }
}

impl Detail {
    fn write(&self, line: &mut Line<'_>) {
        line.maybe_text("schema", self.schema.as_deref());
        line.maybe_text("pointer", self.pointer.as_deref());
        line.maybe_text("keyword", self.keyword.as_deref());
        line.maybe_text("malformed", self.malformed);
        line.maybe_text("protocol", self.protocol);
    }
}

impl Audited<'_> {
    /// The name of the event.
    pub(super) const EVENT: &'static str = "audited";

    /// `suppressed` is how many lines of this reason and route were not written before this one.
    pub(super) fn write(&self, line: &mut Line<'_>, suppressed: u64) {
        line.shown("connection_id", self.id);
        line.text("route", self.route);
        line.text("reason", self.reason.label());
        self.detail.write(line);
        if suppressed > 0 {
            line.number("suppressed", suppressed);
        }
    }
}

impl Refused<'_> {
    /// The name of the event.
    pub(super) const EVENT: &'static str = "refused";

    /// `suppressed` is how many refusals of this reason and route were not written before this one.
    pub(super) fn write(&self, line: &mut Line<'_>, suppressed: u64) {
        line.text("reason", self.reason.label());
        line.maybe_number("status", self.status);
        client(line, self.client, self.proxy);
        line.maybe_text("host", self.host);
        line.maybe_text("path", self.path.map(before_query));
        line.maybe_text("route", self.route);
        line.maybe_shown("backend", self.backend);
        line.maybe_number("backend_status", self.backend_status);
        line.maybe_text("detail", self.detail);
        if suppressed > 0 {
            line.number("suppressed", suppressed);
        }
    }
}

/// A line that does nothing but count refusals that were suppressed.
pub(super) fn write_suppressed(line: &mut Line<'_>, reason: Reason, route: Option<&str>, suppressed: u64) {
    line.text("reason", reason.label());
    line.maybe_text("route", route);
    line.number("suppressed", suppressed);
}

/// The client and whoever spoke for it.
fn client(line: &mut Line<'_>, client: SocketAddr, proxy: Option<SocketAddr>) {
    match client.port() {
        0 => line.shown("client", client.ip()),
        _ => line.shown("client", client),
    }
    line.maybe_shown("proxy", proxy);
}

/// What stands before a query or a fragment.
fn before_query(value: &str) -> &str {
    value.split(['?', '#']).next().unwrap_or_default()
}
