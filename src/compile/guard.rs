//! Parsers of other projects read what any tenant can put into a Secret or a ConfigMap. If one panics, only its input is
//! refused: all routes are compiled together, and one input must not stop them.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `parse`, or if it panics, the error that `refuse` makes of this text. `parse` must not change anything that
/// outlives it.
pub fn guarded<T, E>(refuse: impl FnOnce(&'static str) -> E, parse: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let parsed = catch_unwind(AssertUnwindSafe(parse));
    parsed.unwrap_or_else(|_| Err(refuse("cannot be parsed because of a bug of the gateway; please report it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_that_panics_refuses_what_it_was_given() {
        let parse = |bytes: &[u8]| guarded(|fault| format!("these bytes: {fault}"), || Ok(bytes[3]));
        assert_eq!(parse(&[1, 2, 3, 4]), Ok(4));
        assert!(parse(&[1]).unwrap_err().starts_with("these bytes: cannot be parsed"));
    }
}
