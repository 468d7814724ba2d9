//! LIMITS: what is counted and bounded in this process. Knows keys and numbers; not what a connection does.

pub(crate) mod borrowed;
pub(crate) mod capacity;
pub(crate) mod connections;
pub(crate) mod control_group;
pub(crate) mod fair_queue;
pub(crate) mod handshake_rate;
pub(crate) mod permits;
pub(crate) mod places;
pub(crate) mod round_robin;
pub(crate) mod subject_rate;
pub(crate) mod turns;
