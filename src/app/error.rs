//! Why the gateway ended.

use std::io;

/// Why the gateway ended.
#[derive(Debug)]
pub enum Error {
    /// It could not start: a directory, an address, a limit. The text names which and the fix.
    Start(String),
    /// It failed while it ran.
    Run(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Start(error.to_string())
    }
}
