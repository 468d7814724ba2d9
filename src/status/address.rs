//! The addresses at which clients reach the gateway, by its Service. Pure.

use k8s_openapi::api::core::v1::Service;

use crate::api::status::{Address, AddressKind};

/// The most that a status can have.
const MOST: usize = 16;

/// What the load balancer of the Service gave it, then its external IPs; empty where there are neither.
pub fn of(service: &Service) -> Vec<Address> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let mut addresses: Vec<Address> = Vec::new();
    for ingress in balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten() {
        let ip = ingress.ip.iter().map(|ip| (AddressKind::IpAddress, ip));
        let name = ingress.hostname.iter().map(|name| (AddressKind::Hostname, name));
        addresses.extend(ip.chain(name).map(|(kind, value)| Address { kind, value: value.clone() }));
    }
    let external = service.spec.as_ref().and_then(|spec| spec.external_ips.as_ref()).into_iter().flatten();
    addresses.extend(external.map(|ip| Address { kind: AddressKind::IpAddress, value: ip.clone() }));
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| !address.value.is_empty() && seen.insert(address.value.clone()));
    addresses.truncate(MOST);
    addresses
}

#[cfg(test)]
mod tests {

    #[test]
    fn a_services_addresses_are_those_that_clients_can_reach() {
        let of = |text: &str| -> Vec<String> {
            super::of(&serde_saphyr::from_str(text).unwrap()).into_iter().map(|address| address.value).collect()
        };
        assert_eq!(
            of("{spec: {clusterIP: 10.0.0.1, externalIPs: [192.0.2.7, 192.0.2.1]},
                 status: {loadBalancer: {ingress: [{ip: 192.0.2.1}, {hostname: lb.example.com}]}}}"),
            ["192.0.2.1", "lb.example.com", "192.0.2.7"]
        );
        assert!(of("{spec: {clusterIP: 10.0.0.1}}").is_empty());
    }
}
