//! CONTENT: what messages say. Pure: a whole message in, a verdict out.
//!
//! A message is read by its [`Format`], each document in it as strictly as two readers need to read the same ([`json`]),
//! and judged by the first [`Rule`] whose selector holds. The bytes that were judged are the bytes that go on.

pub mod cost;
pub mod format;
pub mod json;
mod pattern;
pub mod pointer;
pub mod protocol;
pub mod rules;
pub mod schema;
pub mod tunnel;
