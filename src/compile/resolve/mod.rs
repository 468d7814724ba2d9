//! REFERENCES: what a route names in other objects (Services, keys, CA bundles, grants), found and read. Knows objects and
//! the drafts that name them; not who owns a hostname.

pub mod backend_tls;
pub mod blocked_addresses;
pub mod bundle;
pub mod external;
pub mod jwks;
pub mod reference;
pub mod resolution;
pub mod rule;
pub mod schema;
pub mod service;
