//! Addresses to which the gateway never connects, whoever named them (CVE-2021-25740): its own, those of its node, of a
//! cloud's metadata service, and of the API server. One list for backends and for what the gateway itself fetches.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::policy::network::{carried, is_denied};

/// The blocked addresses of this gateway, besides those that are blocked everywhere ([`is_denied`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockedAddresses {
    /// Whether the gateway may connect to loopback addresses.
    pub allow_loopback: bool,
    /// Addresses, with every port: the Pod's own, those of the other replicas, the API server's Service.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses with a port: the API server's, whose node may have other things on it.
    pub sockets: BTreeSet<SocketAddr>,
}

impl BlockedAddresses {
    /// Whether a backend cannot have this address and port.
    pub fn blocks(&self, address: IpAddr, port: u16) -> bool {
        let own = |address: &IpAddr| {
            self.addresses.contains(address) || self.sockets.contains(&SocketAddr::new(*address, port))
        };
        reached(address).iter().any(own) || is_denied(address, self.allow_loopback)
    }

    /// Whether the gateway itself fetches nothing from a host. The API server's machines are blocked with every port, because
    /// anybody who may write a route may have written the URI.
    pub fn blocks_host(&self, address: IpAddr) -> bool {
        let reached = reached(address);
        self.sockets.iter().any(|socket| reached.contains(&socket.ip())) || self.blocks(address, 0)
    }
}

/// The addresses by which the other end may be known: its own, and the IPv4 address that it carries.
fn reached(address: IpAddr) -> Vec<IpAddr> {
    let address = address.to_canonical();
    let carried = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => carried(v6).map(IpAddr::V4),
    };
    [address].into_iter().chain(carried).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_machine_may_serve_backends_but_is_nothing_to_fetch_from() {
        let blocked = BlockedAddresses {
            allow_loopback: false,
            addresses: ["10.96.0.1".parse().unwrap()].into(),
            sockets: ["192.0.2.1:6443".parse().unwrap()].into(),
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(blocked.blocks(ip("64:ff9b::192.0.2.1"), 6443) && blocked.blocks(ip("64:ff9b:1::1"), 80));
        assert!(blocked.blocks(ip("192.0.2.1"), 6443) && !blocked.blocks(ip("192.0.2.1"), 8080));
        assert!(blocked.blocks(ip("::ffff:192.0.2.1"), 6443) && blocked.blocks_host(ip("::ffff:192.0.2.1")));
        for address in [
            "192.0.2.1",
            "64:ff9b::192.0.2.1",
            "10.96.0.1",
            "64:ff9b::10.96.0.1",
            "2002:0a60:1::",
            "127.0.0.1",
            "169.254.169.254",
            "fd20:ce::254",
        ] {
            assert!(blocked.blocks_host(ip(address)), "{address}");
        }
        assert!(!blocked.blocks_host(ip("192.0.2.2")));
        assert!(!BlockedAddresses { allow_loopback: true, ..blocked }.blocks_host(ip("127.0.0.1")));
    }
}
