//! What this process can carry: client sockets (file descriptors), memory, local ports toward one endpoint. While one
//! of the first two is used up new connections are refused, before TLS; the third is judged at each connection to a
//! backend. Knows limits of the operating system and numbers, nothing of connections.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::network::limit_key;
use crate::reason::Reason;
use crate::shares::{Claim, Loses, Share, Shares};
use crate::telemetry::metrics;

/// How often resident memory is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// File descriptors kept for everything but clients and their backends: listeners, logs, the plain and the admin port.
const RESERVED: usize = 384;
/// What a connection may take before it is seen in the resident memory: its handshake, for the most part.
const ENTRY: u64 = 64 * 1024;
/// Local ports where the system does not say how many there are: Linux' own default.
const PORTS: u32 = 28_232;

/// The place of a client connection.
pub(crate) type Socket = Share<IpAddr, 1>;
/// What a [`Socket`] is called by.
pub(crate) type SocketClaim = Claim<IpAddr, 1>;

/// The bounds of this process and how far they are used.
#[derive(Debug)]
pub(crate) struct Capacity {
    /// Client connections, from accept to end; each needs two sockets. Until its 101 an address (IPv6: a /64) that has
    /// most can lose its newest.
    sockets: Arc<Shares<IpAddr, 1>>,
    /// Connections that one endpoint can have.
    ports: u32,
    /// Resident bytes above which new connections are refused; 0: no budget.
    budget: AtomicU64,
    /// Resident bytes at the last look.
    resident: AtomicU64,
    /// Connections that were let in since.
    entered: AtomicU64,
}

impl Capacity {
    /// The limits of this process; `budget` as [`Capacity::set_budget`].
    pub(crate) fn new(budget: Option<u64>) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(1 << 20);
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let capacity = Self {
            sockets: Arc::new(Shares::new(sockets(files), Loses::Newest)),
            ports: range.and_then(|range| ports(&range)).unwrap_or(PORTS),
            budget: AtomicU64::new(0),
            resident: AtomicU64::new(0),
            entered: AtomicU64::new(0),
        };
        capacity.set_budget(budget);
        capacity.look();
        capacity
    }

    /// Resident bytes above which new connections are refused. `None`: four fifths of what the control group allows, so
    /// that live connections have room to grow; without a limit there, no budget.
    pub(crate) fn set_budget(&self, budget: Option<u64>) {
        let own = || {
            let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
            Some(allowed(Path::new("/sys/fs/cgroup"), &groups)? / 5 * 4)
        };
        self.budget.store(budget.or_else(own).unwrap_or(0), Ordering::Relaxed);
    }

    /// A place for one client connection, or the bound that is reached.
    pub(crate) fn acquire(&self, address: IpAddr) -> Result<Socket, Reason> {
        // First: nobody loses a place to a client that is refused.
        let unseen = self.entered.load(Ordering::Relaxed) * ENTRY;
        if self.budgeted().is_some_and(|budget| self.resident.load(Ordering::Relaxed) + unseen >= budget) {
            return Err(Reason::Overloaded);
        }
        let place = self.sockets.acquire(&[limit_key(address)]).ok_or(Reason::ConnectionLimit)?;
        self.entered.fetch_add(1, Ordering::Relaxed);
        Ok(place)
    }

    /// The budget; `None`: there is none.
    fn budgeted(&self) -> Option<u64> {
        Some(self.budget.load(Ordering::Relaxed)).filter(|budget| *budget != 0)
    }

    /// Whether memory use is beyond the budget, so that nothing is begun that holds bytes.
    pub(crate) fn is_short(&self) -> bool {
        self.budgeted().is_some_and(|budget| self.resident.load(Ordering::Relaxed) >= budget)
    }

    /// Whether memory is so far beyond the budget that connections which make us hold bytes have to go.
    pub(crate) fn is_pressed(&self) -> bool {
        self.budgeted().is_some_and(|budget| self.resident.load(Ordering::Relaxed) > budget + budget / 8)
    }

    /// Looks at the resident memory.
    pub(crate) fn look(&self) {
        let status = fs::read_to_string("/proc/self/status").ok();
        self.resident.store(status.and_then(|status| resident(&status)).unwrap_or(0), Ordering::Relaxed);
        self.entered.store(0, Ordering::Relaxed);
    }

    /// Connections that are open, handshakes included.
    pub(crate) fn open(&self) -> usize {
        self.sockets.held()
    }

    /// The most connections that can be open.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.capacity()
    }

    /// Connections that one endpoint can have.
    pub(crate) fn ports(&self) -> u32 {
        self.ports
    }

    /// All numbers for the metrics; `busiest` is the number of connections of the endpoint that has the most.
    pub(crate) fn measured(&self, busiest: u32) -> metrics::Capacity {
        metrics::Capacity {
            sockets: self.open() as u64,
            sockets_limit: self.sockets() as u64,
            resident: self.resident.load(Ordering::Relaxed),
            budget: self.budget.load(Ordering::Relaxed),
            endpoint: u64::from(busiest),
            endpoint_limit: u64::from(self.ports),
        }
    }
}

/// Client connections that so many file descriptors allow: a client's socket and a backend's each.
fn sockets(files: usize) -> usize {
    (files.saturating_sub(RESERVED.min(files / 2)) / 2).max(1)
}

/// The size of the range of local ports, as the kernel writes it.
fn ports(range: &str) -> Option<u32> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last): (u32, u32) = (first.parse().ok()?, last.trim().parse().ok()?);
    (last >= first).then(|| last - first + 1)
}

/// Resident bytes, as `/proc/self/status` has them.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The least memory limit of our control group and those above it, of either version; `groups` is `/proc/self/cgroup`.
/// In a container the path may be one of the host, which is not there: then its root is ours.
fn allowed(mount: &Path, groups: &str) -> Option<u64> {
    let limit = |line: &str| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let (mount, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => (mount.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        above
            .filter_map(|group| fs::read_to_string(mount.join(group).join(file)).ok()?.trim().parse::<u64>().ok())
            .min()
    };
    // What is not limited reads `max`, or a number beyond all memory.
    groups.lines().filter_map(limit).filter(|limit| *limit < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn capacity(sockets: usize, budget: u64, resident: u64) -> Arc<Capacity> {
        Arc::new(Capacity {
            sockets: Arc::new(Shares::new(sockets, Loses::Newest)),
            ports: 1,
            budget: AtomicU64::new(budget),
            resident: AtomicU64::new(resident),
            entered: AtomicU64::new(0),
        })
    }

    #[test]
    fn the_last_socket_is_given_once_and_comes_back() {
        let capacity = capacity(2, 0, u64::MAX / 2);
        let (_one, two) = (capacity.acquire(CLIENT).unwrap(), capacity.acquire(CLIENT).unwrap());
        assert_eq!(capacity.acquire(CLIENT).unwrap_err(), Reason::ConnectionLimit);
        drop(two);
        assert!(capacity.acquire(CLIENT).is_ok());
        assert_eq!(capacity.open(), 1);
    }

    #[test]
    fn a_burst_between_two_looks_does_not_exceed_the_budget() {
        let capacity = capacity(1000, 10 * ENTRY, 7 * ENTRY);
        let slots: Vec<_> = (0..3).map(|_| capacity.acquire(CLIENT).unwrap()).collect();
        assert_eq!(capacity.acquire(CLIENT).unwrap_err(), Reason::Overloaded);
        assert!(!capacity.is_pressed());
        drop(slots);
        // What they really took is known after the next look only.
        assert_eq!(capacity.acquire(CLIENT).unwrap_err(), Reason::Overloaded);
        assert_eq!(capacity.open(), 0);
        capacity.resident.store(12 * ENTRY, Ordering::Relaxed);
        assert!(capacity.is_pressed());
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!(ports("5 4"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nRssAnon: 1 kB\n"), Some(1234 * 1024));
        assert!(resident(&fs::read_to_string("/proc/self/status").unwrap()).unwrap() > 1 << 20);
        assert_eq!(sockets(1 << 20), ((1 << 20) - 384) / 2);
        assert_eq!((sockets(1024), sockets(100), sockets(0)), (320, 25, 1));
    }

    #[test]
    fn the_least_limit_of_the_control_groups_above_us_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = mount.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(allowed(mount.path(), "0::/a/b\n"), None);
        write("a/b/memory.max", "max\n");
        assert_eq!(allowed(mount.path(), "0::/a/b\n"), None);
        write("a/memory.max", "1073741824\n");
        assert_eq!(allowed(mount.path(), "0::/a/b\n"), Some(1 << 30));
        write("memory.max", "536870912\n");
        assert_eq!(allowed(mount.path(), "0::/not/here\n"), Some(1 << 29));
        write("memory/pod/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(allowed(mount.path(), "5:cpu:/x\n4:memory:/pod\n"), None);
        write("memory/pod/memory.limit_in_bytes", "1048576\n");
        assert_eq!(allowed(mount.path(), "5:cpu:/x\n4:cpuset,memory:/pod\n"), Some(1 << 20));
    }
}
