//! What a route demands of what messages say, in both directions.

use std::sync::Arc;

use crate::content::rules::Rules;

/// The content rules of a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Of messages that clients send; `None`: they are not read.
    pub from_client: Option<Arc<Rules>>,
    /// Of messages that backends send; `None`: they are not read.
    pub from_backend: Option<Arc<Rules>>,
    /// A schema that the route names could never be read. New handshakes are refused; connections that are open keep the
    /// rules that they have, because what the gateway lacks ends nobody.
    pub incomplete: bool,
}
