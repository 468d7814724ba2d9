//! RFC 6455 in bytes: the upgrade, frames, messages, close. No socket, no async, no clock: bytes and numbers in,
//! verdicts out.

pub mod close;
pub mod deflate;
pub mod frame;
pub mod hold;
pub mod message;
pub mod proxy_protocol;
pub mod upgrade;
pub mod utf8;
