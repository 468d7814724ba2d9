//! The memory of the shared store as its server tells it, and how much of it the tickets of one route may take. Knows text
//! and numbers, not how the server is asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the server is asked.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// The most bytes of outstanding tickets of one route.
const OF_ROUTE: u64 = 64 << 20;
/// The part of the server's memory that they may be at the most.
const PART: u64 = 8;

/// What the server may use at the most in bytes; 0: it has no limit, or is not known yet.
#[derive(Debug, Default)]
pub(super) struct Memory(AtomicU64);

impl Memory {
    /// Bytes of outstanding tickets of one route.
    pub(super) fn of_route(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            0 => OF_ROUTE,
            limit => OF_ROUTE.min(limit / PART),
        }
    }

    /// Takes the answer to `INFO memory`: the bytes that are used, and those that may be, if there is a limit. `None`: it
    /// does not say.
    pub(super) fn read(&self, info: &str) -> Option<(u64, Option<u64>)> {
        let number = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim_end().parse::<u64>().ok())
        };
        let (used, limit) = (number("used_memory")?, number("maxmemory").unwrap_or(0));
        self.0.store(limit, Ordering::Relaxed);
        Some((used, (limit > 0).then_some(limit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_may_take_an_eighth_of_the_server_and_no_more_than_its_bound() {
        let memory = Memory::default();
        assert_eq!(memory.of_route(), OF_ROUTE);
        let info = |limit: u64| format!("# Memory\r\nused_memory:1000\r\nused_memory_rss:9\r\nmaxmemory:{limit}\r\n");
        assert_eq!(memory.read(&info(48 << 20)), Some((1000, Some(48 << 20))));
        assert_eq!(memory.of_route(), 6 << 20);
        assert_eq!(memory.read(&info(64 << 30)), Some((1000, Some(64 << 30))));
        assert_eq!(memory.of_route(), OF_ROUTE);
        assert_eq!(memory.read(&info(0)), Some((1000, None)));
        assert_eq!((memory.of_route(), memory.read("# Memory\r\n")), (OF_ROUTE, None));
    }
}
