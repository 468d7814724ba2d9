//! How much of a head is read.

/// The most bytes of a request's or response's head, its last empty line included.
pub const MAX_HEAD: usize = 16 * 1024;
/// The most fields of a head.
pub const MAX_FIELDS: usize = 64;
/// The most bytes of a request target, path and query together.
pub const MAX_TARGET: usize = 8 * 1024;
/// The most subprotocols that a client may offer.
pub const MAX_SUBPROTOCOLS: usize = 32;
