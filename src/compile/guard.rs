//! Parsers of other projects take apart what anybody may put into a Secret or a ConfigMap. Should one panic, what it was
//! given is refused, and nothing else: all routes are compiled in one go.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `parse` gives, or if it panics what `refuse` makes of these words. `parse` may change nothing that outlives it.
pub fn guarded<T, E>(refuse: impl FnOnce(&'static str) -> E, parse: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let parsed = catch_unwind(AssertUnwindSafe(parse));
    parsed.unwrap_or_else(|_| Err(refuse("cannot be taken apart, by a fault of the gateway; please report it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_that_panics_refuses_what_it_was_given() {
        let parse = |bytes: &[u8]| guarded(|fault| format!("these bytes: {fault}"), || Ok(bytes[3]));
        assert_eq!(parse(&[1, 2, 3, 4]), Ok(4));
        assert!(parse(&[1]).unwrap_err().starts_with("these bytes: cannot be taken apart"));
    }
}
