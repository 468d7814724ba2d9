//! The Origin of a request (RFC 6454 §7).

/// The Origin of a request (RFC 6454 §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// No Origin header: not a browser.
    Missing,
    /// Exactly one header with one value of visible ASCII; kept as sent.
    One(Box<str>),
    /// Not exactly one origin: several headers, several values in one, none in one, or bytes that no serialised origin
    /// has.
    Several,
}
