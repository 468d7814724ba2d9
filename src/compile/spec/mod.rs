//! THE SPEC of one route, read without looking at any other object: what it wants, and what is wrong with it.

pub mod authentication;
pub mod ceiling;
pub mod content;
pub mod diagnostics;
mod direction;
pub mod draft;
pub mod header;
pub mod hostname;
pub mod issuer;
mod layers;
pub mod message_limits;
mod message_rate;
mod number;
pub mod origin;
pub mod policy;
pub mod rate;
pub mod rule;
pub mod tls;
mod tunnel;
