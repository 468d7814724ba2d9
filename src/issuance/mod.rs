//! What cert-manager is asked for: the Certificates that routes want, written by one replica, only on change, and taken
//! away again.
//!
//! Nothing that serves connections depends on it. Knows Certificates and the API server; not how a wish comes about, nor
//! what is in a Secret.

mod plan;
mod writer;

pub use plan::Report;
pub use writer::Writer;
