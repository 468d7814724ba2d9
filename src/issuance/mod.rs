//! What cert-manager is asked for: the Certificates that routes want, written by one replica and only on change. It deletes
//! nothing: the garbage collector does, with the route.
//!
//! Nothing that serves connections depends on it. Knows Certificates and the API server; not how a wish comes about, nor
//! what is in a Secret.

mod plan;
mod queue;
mod writer;

pub use plan::Report;
pub use writer::{Refused, Writer, start};
