//! What is written back to the API server: conditions and events. By one replica, only on change, at a bounded rate.
//!
//! Nothing that serves connections depends on it. Knows routes, statuses and the API server; not how a status comes
//! about.

pub mod address;
mod event;
pub mod lease;
mod plan;
mod writer;

pub use lease::Election;
pub use plan::Report;
pub use writer::{Writer, start};
