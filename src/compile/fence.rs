//! Addresses that no backend may have, whoever wrote the EndpointSlice (CVE-2021-25740): those that lead to the gateway
//! itself, to its node, to a cloud's metadata service, or to the API server.
//!
//! Judged where endpoints become backends, on the address that is dialled in the end.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::api::objects::{Key, Objects};
use crate::policy::network::is_denied;

/// The Service by which the API server is reached, and the label that ties a slice to its Service.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
const LABEL: &str = "kubernetes.io/service-name";

/// What no backend may be, besides what is never one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    /// Whether loopback addresses may be backends.
    pub allow_loopback: bool,
    /// Addresses, with every port: the Pod's own.
    pub addresses: BTreeSet<IpAddr>,
    /// Addresses with a port: the API server's, whose node may have other things on it.
    pub sockets: BTreeSet<SocketAddr>,
}

impl Fence {
    /// This fence, and around the API server as the objects show it.
    #[must_use]
    pub fn around(&self, objects: &Objects) -> Self {
        let mut fence = self.clone();
        let (namespace, name) = API_SERVER;
        let service = objects.services.get(&Key::new(namespace, name)).and_then(|service| service.spec.as_ref());
        let addresses = service.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
        fence.addresses.extend(addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()));
        let first = Key::new(namespace, "");
        for (key, slice) in objects.endpoint_slices.range(first..).take_while(|(key, _)| key.namespace == namespace) {
            let of = slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
            if of.map_or(key.name != name, |of| of != name) {
                continue;
            }
            let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
            for port in ports {
                let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
                let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
                fence.sockets.extend(addresses.map(|ip| SocketAddr::new(ip.to_canonical(), port)));
            }
        }
        fence
    }

    /// Whether an address may be no backend.
    pub fn denies(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.addresses.contains(&address)
            || self.sockets.contains(&SocketAddr::new(address, port))
            || is_denied(address, self.allow_loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_api_server_and_the_pod_itself_are_fenced_off() {
        let mut objects = Objects::default();
        let service = serde_saphyr::from_str("{spec: {clusterIPs: [10.96.0.1, 'fd00::1'], ports: [{port: 443}]}}");
        objects.services.insert(Key::new("default", "kubernetes"), Arc::new(service.unwrap()));
        let slice = |labels: &str, address: &str| {
            let text = format!(
                "{{metadata: {{labels: {labels}}}, addressType: IPv4, ports: [{{port: 6443}}],
                  endpoints: [{{addresses: [{address}]}}]}}"
            );
            Arc::new(serde_saphyr::from_str(&text).unwrap())
        };
        let label = "{kubernetes.io/service-name: kubernetes}";
        objects.endpoint_slices.insert(Key::new("default", "kubernetes"), slice(label, "192.0.2.1"));
        objects.endpoint_slices.insert(Key::new("default", "more"), slice(label, "192.0.2.2"));
        objects.endpoint_slices.insert(Key::new("shop", "kubernetes"), slice(label, "192.0.2.3"));
        let fence = Fence { addresses: ["192.0.2.9".parse().unwrap()].into(), ..Fence::default() }.around(&objects);
        let denies = |address: &str, port| fence.denies(address.parse().unwrap(), port);
        for (address, port) in [
            ("10.96.0.1", 443),
            ("10.96.0.1", 80),
            ("fd00::1", 443),
            ("192.0.2.1", 6443),
            ("192.0.2.2", 6443),
            ("::ffff:192.0.2.1", 6443),
            ("192.0.2.9", 8443),
            ("127.0.0.1", 80),
        ] {
            assert!(denies(address, port), "{address} {port}");
        }
        assert!(!denies("192.0.2.1", 8080), "another thing on the API server's node");
        assert!(!denies("192.0.2.3", 6443), "another Service of that name");
    }
}
