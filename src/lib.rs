//! wssgate: the WebSocket security gateway for Kubernetes.
//!
//! The map of the house is the table of `tests/layers.rs`: one row per module, from the ground up, and a module may
//! import only what its row names. `ARCHITECTURE.md` is the page to read first, `proxy::handshake::connection` the code.

mod accept;
pub mod admin;
pub mod api;
pub mod app;
pub mod args;
mod backoff;
pub mod compile;
pub mod content;
pub mod echo;
pub mod issuance;
pub mod kube_error;
pub mod policy;
pub mod proxy;
pub mod reason;
pub mod settings;
mod shares;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod telemetry;
pub mod tls;
pub mod writer;
pub mod ws;
