//! How much of a head is read.

/// The most bytes of a response's head, and of a request's where its route says nothing else, the last empty line included.
pub const MAX_HEAD: usize = 16 * 1024;
/// The most bytes that a route may let the head of a request have.
pub const LARGEST_HEAD: usize = 64 * 1024;
/// The most fields of a head.
pub const MAX_FIELDS: usize = 64;

/// The most bytes of a request target, path and query together, in a head of at most so many bytes.
pub const fn max_target(head: usize) -> usize {
    head / 2
}

/// The most subprotocols that a client may offer.
pub const MAX_SUBPROTOCOLS: usize = 32;
