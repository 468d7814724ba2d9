//! Proxies in front of the gateway: the member `trustedProxies` of the settings file. Off unless written down.

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The most networks of one list.
const MAX_NETWORKS: usize = 256;
/// The most proxies one behind the other.
const MAX_HOPS: u8 = 16;

/// The member `trustedProxies`: as written and effective, since nothing of it has a flag.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustedProxies {
    /// Load balancers that begin every connection with a PROXY header, version 2.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Proxies that write `X-Forwarded-For`.
    #[serde(default)]
    pub forwarded_for: Option<ForwardedFor>,
}

/// Load balancers that begin every connection with a PROXY header, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Their networks. A connection from there must begin with the header; from elsewhere the header is refused.
    #[serde(deserialize_with = "networks")]
    pub networks: Vec<IpNet>,
}

/// Proxies that write `X-Forwarded-For`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardedFor {
    /// Their networks. From elsewhere the header is ignored.
    #[serde(deserialize_with = "networks")]
    pub networks: Vec<IpNet>,
    /// How many of them stand one behind the other; each adds one entry on the right.
    #[serde(default = "one", deserialize_with = "hops")]
    pub hops: u8,
}

const fn one() -> u8 {
    1
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let written = Vec::<String>::deserialize(deserializer)?;
    if written.is_empty() || written.len() > MAX_NETWORKS {
        return Err(D::Error::custom(format_args!("must list from 1 to {MAX_NETWORKS} networks")));
    }
    written.iter().map(|text| network(text).map_err(D::Error::custom)).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let example = "write one such as 10.0.0.0/8 or 2001:db8::/32";
    let network: IpNet = text.parse().map_err(|_| format!("{text:?} is not a network; {example}"))?;
    if let IpNet::V6(v6) = network
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return Err(format!("{text:?} is an IPv4 network written as IPv6; {example}"));
    }
    if network.prefix_len() == 0 {
        return Err(format!(
            "{text:?} includes every client, which could then claim any address; list the networks of the proxies"
        ));
    }
    Ok(network.trunc())
}

fn hops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let refused = || D::Error::custom(format_args!("write the number of proxies, from 1 to {MAX_HOPS}"));
    let hops = u8::deserialize(deserializer).map_err(|_| refused())?;
    if (1..=MAX_HOPS).contains(&hops) { Ok(hops) } else { Err(refused()) }
}
