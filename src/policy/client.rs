//! Who the client is when proxies stand in front: whose word is taken for it, and how much of it.
//!
//! Without any setting the client is the peer of the TCP connection, whatever anybody says.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::reason::Reason;

/// Proxies in front of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies {
    /// Networks whose every connection begins with a PROXY header (version 2); nobody else's does.
    pub proxy_protocol: Vec<IpNet>,
    /// Proxies that write `X-Forwarded-For`.
    pub forwarded_for: Option<ForwardedFor>,
}

/// Proxies whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedFor {
    /// Where they are.
    pub networks: Vec<IpNet>,
    /// How many of them stand one behind the other: the client is so many entries from the right, since each adds whom
    /// it was connected to and a client may have written anything before that. At least 1.
    pub hops: usize,
}

impl TrustedProxies {
    /// Whether connections of this peer begin with a PROXY header.
    pub fn expects_header(&self, peer: IpAddr) -> bool {
        within(&self.proxy_protocol, peer)
    }

    /// The client's address by `X-Forwarded-For` (its values joined by commas, in order), for a request of `peer`, the
    /// address known so far; `None` where that is the client itself.
    ///
    /// # Errors
    /// [`Reason::ForwardedForInvalid`]: the proxy is trusted, but has fewer entries than there are hops, or what stands
    /// in the place of the client is no address. Another entry would be one that the client could choose.
    pub fn client(&self, peer: IpAddr, values: Option<&[u8]>) -> Result<Option<IpAddr>, Reason> {
        let (Some(trusted), Some(values)) = (&self.forwarded_for, values) else { return Ok(None) };
        if !within(&trusted.networks, peer) {
            return Ok(None);
        }
        let entry = values.rsplit(|byte| *byte == b',').nth(trusted.hops.saturating_sub(1));
        let address = entry.and_then(|entry| std::str::from_utf8(entry).ok()).and_then(address);
        address.map(Some).ok_or(Reason::ForwardedForInvalid)
    }
}

fn within(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim_matches([' ', '\t']);
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse().ok().map(|socket: SocketAddr| socket.ip()))?;
    let address: IpAddr = IpAddr::to_canonical(&address);
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusting(hops: usize) -> TrustedProxies {
        let networks = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:ff::/48".parse().unwrap()];
        TrustedProxies { proxy_protocol: vec![], forwarded_for: Some(ForwardedFor { networks, hops }) }
    }

    fn client(hops: usize, peer: &str, values: &str) -> Result<Option<IpAddr>, Reason> {
        trusting(hops).client(peer.parse().unwrap(), Some(values.as_bytes()))
    }

    fn is(text: &str) -> Result<Option<IpAddr>, Reason> {
        Ok(Some(text.parse().unwrap()))
    }

    #[test]
    fn the_client_is_so_many_entries_from_the_right_as_there_are_hops() {
        assert_eq!(client(1, "10.0.0.1", "203.0.113.7"), is("203.0.113.7"));
        assert_eq!(client(1, "10.0.0.1", "1.2.3.4, 203.0.113.7"), is("203.0.113.7"));
        assert_eq!(client(2, "10.0.0.1", "1.2.3.4,203.0.113.7,\t10.0.0.2 "), is("203.0.113.7"));
        assert_eq!(client(1, "::ffff:10.0.0.1", "2001:db8::7"), is("2001:db8::7"));
        assert_eq!(client(1, "2001:db8:ff::1", "[2001:db8::7]:4711"), is("2001:db8::7"));
        assert_eq!(client(1, "10.0.0.1", "[2001:db8::7]"), is("2001:db8::7"));
        assert_eq!(client(1, "10.0.0.1", "203.0.113.7:4711"), is("203.0.113.7"));
        assert_eq!(client(1, "10.0.0.1", "::ffff:203.0.113.7"), is("203.0.113.7"));
    }

    #[test]
    fn nobody_else_is_believed_and_a_proxy_that_says_nothing_is_the_client() {
        assert_eq!(client(1, "192.0.2.1", "203.0.113.7"), Ok(None));
        assert_eq!(client(1, "2001:db8::1", "203.0.113.7"), Ok(None));
        assert_eq!(trusting(1).client("10.0.0.1".parse().unwrap(), None), Ok(None));
        assert_eq!(TrustedProxies::default().client("10.0.0.1".parse().unwrap(), Some(b"1.2.3.4")), Ok(None));
        assert!(!TrustedProxies::default().expects_header("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn an_entry_that_is_none_is_refused_rather_than_the_next_one_taken() {
        let invalid = Err(Reason::ForwardedForInvalid);
        for values in [
            "",
            " ",
            "unknown",
            "203.0.113.7, ",
            "203.0.113.7;x",
            "203.0.113.07",
            "1.2.3",
            "0.0.0.0",
            "224.0.0.1",
            "\u{e9}",
        ] {
            assert_eq!(client(1, "10.0.0.1", values), invalid, "{values:?}");
        }
        assert_eq!(client(2, "10.0.0.1", "203.0.113.7"), invalid);
        assert_eq!(trusting(1).client("10.0.0.1".parse().unwrap(), Some(b"203.0.113.7\xff")), invalid);
    }
}
