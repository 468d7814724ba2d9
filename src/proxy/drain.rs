//! The order of a shutdown, as workers see it.

use std::time::Duration;

/// Where a shutdown stands. Only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drain {
    /// None is under way, or connections are still accepted for a grace period.
    #[default]
    Serving,
    /// Nothing is accepted any more; live connections are closed with 1001, spread over the window.
    Closing {
        /// The time over which the closes are spread.
        window: Duration,
    },
    /// Whatever is left is dropped.
    Over,
}
