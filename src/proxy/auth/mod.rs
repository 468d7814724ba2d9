//! AUTHENTICATION as far as it needs others: key sets that are fetched, Services that judge, tickets. What counts as a
//! credential and what verifies it is decided in `policy`.

mod calls;
pub(crate) mod external;
pub mod fetch;
pub(crate) mod jwks;
pub(crate) mod rotation;
pub(crate) mod tickets;
pub(crate) mod verify;

use std::sync::Arc;

use crate::snapshot::live::Live;
use external::Externals;
use jwks::Keys;
use rotation::Rotation;
use tickets::Tickets;

/// What credentials are verified with.
#[derive(Debug)]
pub(crate) struct Auth {
    /// Keys of the cluster's objects are in the snapshot.
    pub(crate) live: Arc<Live>,
    /// Key sets that are fetched.
    pub(crate) keys: Keys,
    /// Which of all sets changed when.
    pub(crate) rotation: Rotation,
    /// Services that judge handshakes.
    pub(crate) externals: Externals,
    /// Tickets that are outstanding.
    pub(crate) tickets: Tickets,
}
