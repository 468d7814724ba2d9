//! OWNERSHIP: whose a route is, and who may serve a hostname. Knows routes, classes and names; not what routes refer to.

pub mod candidate;
pub mod ceilings;
pub mod class;
pub mod host;
pub mod quota;
pub mod suffix;
