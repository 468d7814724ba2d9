//! wssgate: the WebSocket security gateway for Kubernetes.
//!
//! The map of the house, from the ground up. A module may import only modules above it in this list; `tests/layers.rs`
//! holds the table and checks it.

pub mod api;
pub mod policy;
pub mod reason;
pub mod snapshot;
pub mod ws;
