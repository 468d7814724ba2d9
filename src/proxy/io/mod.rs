//! BYTES: the two ends of a connection, the buffers that they share, and one HTTP exchange of the gateway's own. Knows
//! sockets and TLS; not what the bytes mean.

pub(crate) mod backend;
pub(crate) mod buffers;
pub(crate) mod client_tls;
pub(crate) mod http;
