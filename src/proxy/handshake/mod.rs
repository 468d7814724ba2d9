//! THE HANDSHAKE: from the accepted socket to the 101, or to the refusal. Read `connection` first.

pub(crate) mod answer;
pub(crate) mod asked;
pub(crate) mod backend;
pub(crate) mod balance;
pub(crate) mod connection;
pub(crate) mod judge;
pub(crate) mod proxy_protocol;
pub(crate) mod refusal;
pub(crate) mod ticket_endpoint;
