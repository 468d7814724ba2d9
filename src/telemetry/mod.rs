//! What the gateway tells its operator: metrics, the log, the access log.
//!
//! Knows reasons and plain strings; no route, socket or snapshot. Nothing here may ever hold a query string, a header
//! value that authenticates, or payload.

pub mod access;
pub mod format;
pub mod initiator;
pub mod logging;
pub mod metrics;
