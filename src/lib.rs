//! wssgate: the WebSocket security gateway for Kubernetes.
//!
//! The map of the house, from the ground up. A module may import only modules above it in this list; `tests/layers.rs`
//! holds the table and checks it.

pub mod admin;
pub mod api;
pub mod args;
pub mod echo;
pub mod policy;
pub mod proxy;
pub mod reason;
pub mod settings;
pub mod snapshot;
pub mod telemetry;
pub mod ws;
