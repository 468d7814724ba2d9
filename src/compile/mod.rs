//! COMPILE: every object at once to one snapshot, and a status per route.
//!
//! Pure: no client, no clock (`now` is passed in), no socket.

pub mod backend_tls;
pub mod certificate;
pub mod condition;
pub mod development;
pub mod host;
pub mod identity;
