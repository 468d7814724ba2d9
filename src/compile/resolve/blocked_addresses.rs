//! Blocked addresses as the cluster shows them: those of the API server and of the gateway's own replicas, each by its
//! Service and the endpoints of that. A route to another replica would go round in circles.
//!
//! Judged where endpoints become backends, on the address that is connected to in the end, and by the data plane for what it
//! fetches itself.

use std::net::{IpAddr, SocketAddr};

use crate::api::objects::{Key, Objects};
use crate::policy::blocked_addresses::BlockedAddresses;

/// The Service by which the API server is reached, and the label that ties a slice to its Service.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
const LABEL: &str = "kubernetes.io/service-name";

/// The blocked addresses of the settings, with those of the API server and of the gateway's own Service.
#[must_use]
pub fn of_cluster(blocked: &BlockedAddresses, own: Option<&Key>, objects: &Objects) -> BlockedAddresses {
    let mut blocked = blocked.clone();
    let (namespace, name) = API_SERVER;
    let servers = block(&mut blocked, &Key::new(namespace, name), objects);
    blocked.sockets.extend(servers);
    if let Some(own) = own {
        // With every port, as the Pod's own address: the admin port is in no slice of this Service.
        let replicas = block(&mut blocked, own, objects);
        blocked.addresses.extend(outside(own, objects));
        blocked.addresses.extend(replicas.into_iter().map(|replica| replica.ip()));
    }
    blocked
}

/// The addresses by which a Service is reached from outside the cluster, and often from within: external ones, and those of
/// its load balancer.
fn outside(service: &Key, objects: &Objects) -> Vec<IpAddr> {
    let Some(service) = objects.services.get(service) else { return Vec::new() };
    let spec = service.spec.as_ref();
    let external = spec.and_then(|spec| spec.external_ips.as_ref()).into_iter().flatten();
    let wanted = spec.and_then(|spec| spec.load_balancer_ip.as_ref());
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let given = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let all = external.chain(wanted).chain(given.filter_map(|one| one.ip.as_ref()));
    all.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()).collect()
}

/// Blocks the addresses of a Service with every port; returns its endpoints.
fn block(blocked: &mut BlockedAddresses, service: &Key, objects: &Objects) -> Vec<SocketAddr> {
    let Key { namespace, name } = service;
    let spec = objects.services.get(service).and_then(|service| service.spec.as_ref());
    let addresses = spec.and_then(|spec| spec.cluster_ips.as_ref()).into_iter().flatten();
    blocked.addresses.extend(addresses.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()));
    let mut endpoints = Vec::new();
    let first = Key::new(namespace.as_str(), "");
    for (key, slice) in objects.endpoint_slices.range(first..).take_while(|(key, _)| key.namespace == *namespace) {
        let of = slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
        if of.map_or(key.name != *name, |of| of != name) {
            continue;
        }
        let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
        for port in ports {
            let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            let addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
            endpoints.extend(addresses.map(|ip| SocketAddr::new(ip.to_canonical(), port)));
        }
    }
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_api_server_the_pod_itself_and_the_other_replicas_are_blocked() {
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
        let service = serde_saphyr::from_str(
            "{spec: {clusterIPs: [10.96.0.2], externalIPs: [198.51.100.1], loadBalancerIP: 198.51.100.2, ports: [{port: 443}]},
              status: {loadBalancer: {ingress: [{ip: 198.51.100.3}, {ip: '2001:db8::3'}, {hostname: lb.test}]}}}",
        );
        objects.services.insert(Key::new("wssgate", "gate"), Arc::new(service.unwrap()));
        let label = "{kubernetes.io/service-name: gate}";
        objects.endpoint_slices.insert(Key::new("wssgate", "gate-1"), slice(label, "192.0.2.4"));
        let own = BlockedAddresses {
            addresses: ["192.0.2.9", "2001:db8::9"].map(|own| own.parse().unwrap()).into(),
            ..BlockedAddresses::default()
        };
        let blocked = of_cluster(&own, Some(&Key::new("wssgate", "gate")), &objects);
        let blocks = |address: &str, port| blocked.blocks(address.parse().unwrap(), port);
        for (address, port) in [
            ("10.96.0.1", 443),
            ("10.96.0.1", 80),
            ("fd00::1", 443),
            ("192.0.2.1", 6443),
            ("192.0.2.2", 6443),
            ("::ffff:192.0.2.1", 6443),
            ("192.0.2.9", 8443),
            ("10.96.0.2", 443),
            ("192.0.2.4", 6443),
            ("192.0.2.4", 9900),
            ("198.51.100.1", 443),
            ("198.51.100.2", 443),
            ("198.51.100.3", 8080),
            ("2001:db8::3", 443),
            ("2001:db8::9", 8443),
            ("127.0.0.1", 80),
        ] {
            assert!(blocks(address, port), "{address} {port}");
        }
        assert!(!blocks("192.0.2.1", 8080), "another thing on the API server's node");
        assert!(!blocks("192.0.2.3", 6443), "another Service of that name");
    }
}
