//! What this process can carry: client sockets (file descriptors), memory, local ports toward one endpoint. While one
//! of the first two is used up new connections are refused, before TLS; the third is judged at each connection to a
//! backend. Knows limits of the operating system and numbers, nothing of connections.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::network::limit_key;
use crate::proxy::limits::control_group::ControlGroup;
use crate::proxy::limits::permits::{Count, Counted};
use crate::reason::Reason;
use crate::shares::{Claim, Loses, Share, Shares};
use crate::telemetry::metrics;

/// How often memory is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// File descriptors kept for everything but clients and their backends: listeners, logs, the plain and the admin port.
const RESERVED: usize = 384;
/// What a connection may take before it is seen in the memory: its handshake, for the most part.
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
    /// Bytes in use above which new connections are refused; 0: no budget.
    budget: AtomicU64,
    /// Resident bytes at the last look.
    resident: AtomicU64,
    /// Bytes of the kernel's socket buffers at the last look.
    buffered: AtomicU64,
    /// Bytes in use at the last look, by whichever figure is the larger.
    used: AtomicU64,
    /// Our control group, if its memory is limited.
    group: Option<ControlGroup>,
    /// Directions of connections that make the kernel hold bytes.
    holding: Arc<Count>,
    /// The most bytes that the kernel holds for one of them.
    per_holding: u64,
    /// Connections that were let in since.
    entered: AtomicU64,
}

impl Capacity {
    /// The limits of this process; `budget` as [`Capacity::set_budget`]. `per_holding`: the most bytes that the kernel holds
    /// for a direction of a connection whose peer does not read.
    pub(crate) fn new(budget: Option<u64>, per_holding: u64) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(1 << 20);
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let capacity = Self {
            sockets: Arc::new(Shares::new(sockets(files), Loses::Newest)),
            ports: range.and_then(|range| ports(&range)).unwrap_or(PORTS),
            budget: AtomicU64::new(0),
            resident: AtomicU64::new(0),
            buffered: AtomicU64::new(0),
            used: AtomicU64::new(0),
            group: ControlGroup::own(),
            holding: Arc::default(),
            per_holding,
            entered: AtomicU64::new(0),
        };
        capacity.set_budget(budget);
        capacity.look();
        capacity
    }

    /// Bytes in use above which new connections are refused. `None`: four fifths of what the control group allows, so
    /// that live connections have room to grow; without a limit there, no budget.
    pub(crate) fn set_budget(&self, budget: Option<u64>) {
        let own = || Some(self.group.as_ref()?.limit() / 5 * 4);
        self.budget.store(budget.or_else(own).unwrap_or(0), Ordering::Relaxed);
    }

    /// A place for one client connection, or the bound that is reached.
    pub(crate) fn acquire(&self, address: IpAddr) -> Result<Socket, Reason> {
        // First: nobody loses a place to a client that is refused.
        let unseen = self.entered.load(Ordering::Relaxed) * ENTRY;
        if self.budgeted().is_some_and(|budget| self.used.load(Ordering::Relaxed) + unseen >= budget) {
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
        self.budgeted().is_some_and(|budget| self.used.load(Ordering::Relaxed) >= budget)
    }

    /// Whether memory is so far beyond the budget that connections which make us hold bytes have to go.
    pub(crate) fn is_pressed(&self) -> bool {
        self.budgeted().is_some_and(|budget| self.used.load(Ordering::Relaxed) > budget + budget / 8)
    }

    /// Looks at the memory: resident bytes and socket buffers, or all that the control group counts, whichever is more.
    ///
    /// Where no control group counts socket buffers they are estimated: the most that directions whose peer does not read can
    /// hold, but no more than all TCP sockets of the host do.
    pub(crate) fn look(&self) {
        let status = fs::read_to_string("/proc/self/status").ok();
        let resident = status.and_then(|status| resident(&status)).unwrap_or(0);
        let group = self.group.as_ref().and_then(ControlGroup::usage);
        let buffered = group.and_then(|group| group.sockets).unwrap_or_else(|| self.estimated());
        self.resident.store(resident, Ordering::Relaxed);
        self.buffered.store(buffered, Ordering::Relaxed);
        let used = (resident + buffered).max(group.map_or(0, |group| group.memory));
        self.used.store(used, Ordering::Relaxed);
        self.entered.store(0, Ordering::Relaxed);
    }

    /// Bytes of socket buffers where the kernel does not count them for us.
    fn estimated(&self) -> u64 {
        let most = self.holding.get() as u64 * self.per_holding;
        if most == 0 {
            return 0;
        }
        let host = fs::read_to_string("/proc/net/sockstat").ok();
        host.and_then(|host| tcp_memory(&host, rustix::param::page_size() as u64)).map_or(most, |host| most.min(host))
    }

    /// Counts a direction of a connection that makes the kernel hold bytes, until it is dropped.
    pub(crate) fn hold(&self) -> Option<Counted> {
        self.holding.acquire(usize::MAX)
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
            buffered: self.buffered.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
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

/// Bytes that all TCP sockets of the host hold, as `/proc/net/sockstat` has them, in pages.
fn tcp_memory(sockstat: &str, page: u64) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_whitespace();
    words.find(|word| *word == "mem")?;
    Some(words.next()?.parse::<u64>().ok()? * page)
}

/// Resident bytes, as `/proc/self/status` has them.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn capacity(sockets: usize, budget: u64, used: u64) -> Arc<Capacity> {
        Arc::new(Capacity {
            sockets: Arc::new(Shares::new(sockets, Loses::Newest)),
            ports: 1,
            budget: AtomicU64::new(budget),
            resident: AtomicU64::new(0),
            buffered: AtomicU64::new(0),
            used: AtomicU64::new(used),
            group: None,
            holding: Arc::default(),
            per_holding: 1 << 40,
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
        capacity.used.store(12 * ENTRY, Ordering::Relaxed);
        assert!(capacity.is_pressed());
    }

    #[test]
    fn without_a_control_group_socket_buffers_are_estimated() {
        let capacity = capacity(9, 1, 0);
        capacity.look();
        let seen = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        assert_eq!(seen(&capacity.buffered), 0);
        assert_eq!(seen(&capacity.used), seen(&capacity.resident));
        // Never more than the host's sockets hold, which is far less than what is said here of one direction.
        let held = capacity.hold();
        capacity.look();
        assert!(seen(&capacity.buffered) < 1 << 40);
        assert_eq!(seen(&capacity.used), seen(&capacity.resident) + seen(&capacity.buffered));
        drop(held);
        capacity.look();
        assert_eq!(seen(&capacity.buffered), 0);
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let sockstat = "sockets: used 9\nTCP: inuse 6 orphan 0 tw 0 alloc 12 mem 77\nUDP: inuse 4 mem 3\n";
        assert_eq!(tcp_memory(sockstat, 4096), Some(77 * 4096));
        assert_eq!(tcp_memory("UDP: inuse 4 mem 3\n", 4096), None);
        assert!(tcp_memory(&fs::read_to_string("/proc/net/sockstat").unwrap(), 4096).is_some());
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!(ports("5 4"), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nRssAnon: 1 kB\n"), Some(1234 * 1024));
        assert!(resident(&fs::read_to_string("/proc/self/status").unwrap()).unwrap() > 1 << 20);
        assert_eq!(sockets(1 << 20), ((1 << 20) - 384) / 2);
        assert_eq!((sockets(1024), sockets(100), sockets(0)), (320, 25, 1));
    }
}
