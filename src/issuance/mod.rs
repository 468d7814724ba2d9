//! The Certificates that routes want from cert-manager, written by one replica and only on change. Nothing is deleted here:
//! the garbage collector does that, with the route.
//!
//! Nothing that serves connections depends on it. Knows Certificates and the API server; not why a route wants one, nor what
//! is in a Secret.

mod plan;
mod queue;
mod writer;

pub use plan::Report;
pub use writer::{Refused, Writer, start};
