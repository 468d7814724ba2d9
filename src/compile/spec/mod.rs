//! THE SPEC of one route, read without looking at any other object: what it wants, and what is wrong with it.

pub mod authentication;
pub mod draft;
pub mod header;
pub mod origin;
pub mod policy;
pub mod rate;
