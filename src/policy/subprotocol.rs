//! Subprotocols (RFC 6455 §1.9): which of those offered may reach the backend.

use crate::reason::Reason;

/// The offered subprotocols that `allowed` lists, in the client's order; all of them where the list is empty.
///
/// # Errors
/// [`Reason::SubprotocolDenied`] where a list is set and nothing offered is on it.
pub fn judge(allowed: &[String], offered: &[Box<str>]) -> Result<Box<[Box<str>]>, Reason> {
    if allowed.is_empty() {
        return Ok(offered.into());
    }
    let kept: Box<[Box<str>]> = offered.iter().filter(|name| allowed.iter().any(|a| **a == ***name)).cloned().collect();
    if kept.is_empty() { Err(Reason::SubprotocolDenied) } else { Ok(kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_pass_and_none_is_a_refusal() {
        let offered: Box<[Box<str>]> = ["b".into(), "a".into()].into();
        assert_eq!(judge(&[], &offered), Ok(offered.clone()));
        assert_eq!(judge(&["a".into()], &offered), Ok(["a".into()].into()));
        assert_eq!(judge(&["A".into()], &offered), Err(Reason::SubprotocolDenied));
        assert_eq!(judge(&["a".into()], &[]), Err(Reason::SubprotocolDenied));
    }
}
