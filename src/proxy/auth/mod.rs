//! AUTHENTICATION as far as it needs others: key sets that are fetched, Services that judge, tickets. What counts as a
//! credential and what verifies it is decided in `policy`.

pub(crate) mod external;
pub mod fetch;
pub(crate) mod jwks;
pub(crate) mod tickets;
pub(crate) mod verify;
