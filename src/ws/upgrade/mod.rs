//! The upgrade (RFC 6455 §4, RFC 9110 §7.8, RFC 9112): request heads in, request heads out, and the answers to both.
//!
//! Sans-IO: bytes in, verdicts out. A handshake is never piped: what is read here is judged whole, and what goes to the
//! backend is written anew from what was understood. Anything that two parsers could read in two ways is refused, not
//! repaired. Knows no routes, no policy and no sockets.

pub mod accept;
pub mod backend_request;
mod bounds;
pub mod extensions;
mod fields;
mod head;
pub mod hops;
pub mod host;
mod origin;
pub mod readings;
pub mod request;
pub mod response;
mod target;

pub use accept::{accept_key, fresh_key};
pub use backend_request::{Forwarded, write_request};
pub use bounds::{LARGEST_HEAD, MAX_FIELDS, MAX_HEAD, MAX_SUBPROTOCOLS, max_target};
pub use fields::{is_ours, never_passes, withheld};
pub use origin::Origin;
pub use request::{Call, Request, RequestError, parse_call, parse_request};
pub use response::{
    BackendRefusal, Response, ResponseError, parse_response, write_answer, write_refusal, write_switching,
};
pub use target::check_path;
