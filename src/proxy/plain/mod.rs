//! THE PLAIN PORT: redirects to https and ACME challenges. It proxies nothing else.

pub(crate) mod acme;
pub(crate) mod http;
