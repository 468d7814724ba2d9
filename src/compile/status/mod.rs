//! STATUS: what is said of a route, as Gateway API's conditions. Knows problems and warnings; not how they were found.

pub mod condition;
pub mod dependency;
pub mod report;
pub mod route;
