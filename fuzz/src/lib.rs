//! What must hold for any bytes. One function for each thing that parses: the fuzz targets call them, and so do the
//! property tests and the replay of the seed corpus, which need no fuzzer.

pub mod content;
pub mod deflate;
pub mod frame;
pub mod handshake;
pub mod objects;
pub mod path;
pub mod proxy_protocol;
pub mod response;
pub mod schema;
pub mod tunnel;
