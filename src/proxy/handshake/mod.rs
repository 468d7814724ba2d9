//! THE HANDSHAKE: from the accepted socket to the 101, or to the refusal. Read `connection` first.

pub(crate) mod answer;
pub(crate) mod backend;
pub(crate) mod connection;
pub(crate) mod proxy_protocol;
pub(crate) mod ticket_endpoint;
