//! Networks: which client addresses may try at all, and to which addresses the gateway itself never connects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::reason::Reason;

/// Allow and deny lists of client networks. Deny wins; an empty allow list allows every address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    /// Networks that may connect; empty: all.
    pub allow: Vec<IpNet>,
    /// Networks that may not, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

impl Networks {
    /// Judges the client's address; IPv4-mapped IPv6 addresses are judged as IPv4.
    ///
    /// # Errors
    /// [`Reason::AddressDenied`].
    pub fn judge(&self, address: IpAddr) -> Result<(), Reason> {
        let address = address.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        if within(&self.deny) || (!self.allow.is_empty() && !within(&self.allow)) {
            return Err(Reason::AddressDenied);
        }
        Ok(())
    }
}

/// The identity that limits count for an address: IPv4 whole, IPv6 by its /64, since one client owns all of it.
pub fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Addresses that are always blocked: those that lead to the gateway itself, its node or a cloud's metadata service.
pub fn is_denied(address: IpAddr, allow_loopback: bool) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_denied_v4(v4, allow_loopback),
        IpAddr::V6(v6) => {
            (v6.is_loopback() && !allow_loopback)
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                // NAT64 of a network's own making (RFC 8215): where in it the IPv4 address is, only the network knows.
                || matches!(v6.segments(), [0x64, 0xff9b, 1, ..])
                // Metadata of AWS and of Google Cloud.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
                || v6 == Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)
                || carried(v6).is_some_and(|v4| is_denied_v4(v4, false))
        }
    }
}

/// The IPv4 address that is reached in the end by an address of NAT64 (RFC 6052) or 6to4 (RFC 3056).
pub fn carried(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => v6.to_bits(),
        [0x2002, ..] => v6.to_bits() >> 80,
        _ => return None,
    };
    Some(Ipv4Addr::from_bits((bits & 0xffff_ffff) as u32))
}

fn is_denied_v4(v4: Ipv4Addr, allow_loopback: bool) -> bool {
    (v4.is_loopback() && !allow_loopback)
        || v4.octets()[0] == 0
        || v4.is_multicast()
        || v4.is_broadcast()
        // Link-local, with the metadata service of most clouds.
        || v4.is_link_local()
        // Metadata of Alibaba Cloud, the wire server of Azure.
        || matches!(v4.octets(), [100, 100, 100, 200] | [168, 63, 129, 16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn deny_wins_over_allow_and_an_empty_allow_list_allows_all() {
        let both = Networks { allow: nets(&["10.0.0.0/8"]), deny: nets(&["10.1.0.0/16"]) };
        assert_eq!(both.judge("10.2.0.1".parse().unwrap()), Ok(()));
        assert_eq!(both.judge("10.1.0.1".parse().unwrap()), Err(Reason::AddressDenied));
        assert_eq!(both.judge("11.0.0.1".parse().unwrap()), Err(Reason::AddressDenied));
        assert_eq!(Networks::default().judge("2001:db8::1".parse().unwrap()), Ok(()));
    }

    #[test]
    fn a_mapped_address_is_judged_as_ipv4() {
        let deny = Networks { allow: vec![], deny: nets(&["192.0.2.0/24"]) };
        assert_eq!(deny.judge("::ffff:192.0.2.7".parse().unwrap()), Err(Reason::AddressDenied));
    }

    #[test]
    fn addresses_of_one_ipv6_64_share_a_limit() {
        let key = |text: &str| limit_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
