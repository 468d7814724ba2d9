//! What every black-box test stands on: the real binary, a recording upstream, a client that can say anything.
//!
//! Nothing here uses the product's own code: frames, heads and certificates are read and written by the harness
//! itself, so that a fault of the product cannot hide behind the same fault in its test.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its own part of the harness")]

pub mod authority;
pub mod canary;
pub mod frame;
pub mod gateway;
pub mod head;
pub mod issuer;
pub mod manifests;
pub mod packages;
pub mod peer;
pub mod program;
pub mod recorder;
pub mod redis;
pub mod setup;

pub use self::redis::{Redis, Wire};
pub use authority::{Authority, Pair};
pub use canary::Canaries;
pub use frame::Frame;
pub use gateway::{Gateway, Options};
pub use head::{Answer, Head};
pub use issuer::Key;
pub use manifests::Manifests;
pub use peer::{Client, End, Peer};
pub use program::Program;
pub use recorder::{Behaviour, Recorder};
pub use serde_json::json;
pub use setup::{HOST, Setup};

use std::future::Future;
use std::time::{Duration, Instant};

/// The longest that a test waits for something that has no time-out of its own.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How soon a refused or ended connection must be gone. The contract is a second; the rest is for a busy machine.
pub const SOON: Duration = Duration::from_secs(3);

/// Polls until `check` gives a value; panics with `what` after `limit`.
pub async fn until<T, F: Future<Output = Option<T>>>(limit: Duration, what: &str, mut check: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(start.elapsed() < limit, "after {limit:?} still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a future under a limit; panics with `what` when it is over.
pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("after {limit:?} still waiting: {what}"),
    }
}

/// Whether the long forms of the tests were asked for (`WSSGATE_TEST_LONG=1`).
pub fn long() -> bool {
    std::env::var_os("WSSGATE_TEST_LONG").is_some_and(|value| value == "1")
}
