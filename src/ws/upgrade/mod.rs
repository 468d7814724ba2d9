//! The upgrade (RFC 6455 §4, RFC 9110 §7.8, RFC 9112): request heads in, request heads out, and the answers to both.
//!
//! Sans-IO: bytes in, verdicts out. A handshake is never piped: what is read here is judged whole, and what goes to the
//! backend is written anew from what was understood. Anything that two parsers could read in two ways is refused, not
//! repaired. Knows no routes, no policy and no sockets.

pub mod accept;
pub mod backend_request;
mod fields;
mod head;
pub mod host;
pub mod request;
pub mod response;
mod target;

pub use accept::{accept_key, fresh_key};
pub use backend_request::{Forwarded, write_request};
pub use fields::is_ours;
pub use request::{Call, Request, RequestError, parse_call, parse_request};
pub use response::{Response, ResponseError, parse_response, write_answer, write_refusal, write_switching};
pub use target::check_path;

/// The most bytes of a request's or response's head, its last empty line included.
pub const MAX_HEAD: usize = 16 * 1024;
/// The most fields of a head.
pub const MAX_FIELDS: usize = 64;
/// The most bytes of a request target, path and query together.
pub const MAX_TARGET: usize = 8 * 1024;
/// The most subprotocols that a client may offer.
pub const MAX_SUBPROTOCOLS: usize = 32;

/// The Origin of a request (RFC 6454 §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No Origin header: not a browser.
    Missing,
    /// Exactly one header with one value of visible ASCII; kept as sent.
    One(Box<str>),
    /// Not exactly one origin: several headers, several values in one, none in one, or bytes that no serialised origin
    /// has.
    Several,
}
