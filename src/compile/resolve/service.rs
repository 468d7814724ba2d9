//! Services to endpoints: which port, which protocol, which addresses take new connections.
//!
//! Knows Services and EndpointSlices; not routes. Addresses that no backend can have are left out here.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::{Problem, quote};
use crate::policy::blocked_addresses::BlockedAddresses;

/// The label that ties a slice to its Service.
const LABEL: &str = "kubernetes.io/service-name";

/// How a port wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing said: plain, or TLS where the rule says so.
    Unsaid,
    /// Plain WebSocket.
    Plain,
    /// WebSocket over TLS.
    Tls,
}

/// A port of a Service that can be a backend.
#[derive(Debug)]
pub struct Port<'a> {
    /// Its name, empty where there is none.
    name: &'a str,
    /// From `appProtocol`.
    pub protocol: Protocol,
}

/// Where a port is served.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Addresses that take new connections, sorted.
    pub addresses: Vec<SocketAddr>,
    /// Addresses that were left out because no backend may have them.
    pub blocked: Vec<IpAddr>,
}

/// Services with their slices.
#[derive(Debug)]
pub struct Services<'a> {
    objects: &'a Objects,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    blocked: &'a BlockedAddresses,
}

impl<'a> Services<'a> {
    /// The Services among the objects, without blocked addresses.
    pub fn new(objects: &'a Objects, blocked: &'a BlockedAddresses) -> Self {
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for (key, slice) in &objects.endpoint_slices {
            if let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL)) {
                slices.entry((key.namespace.as_str(), service.as_str())).or_default().push(&**slice);
            }
        }
        Self { objects, slices, blocked }
    }

    /// The port of a Service by its number.
    ///
    /// # Errors
    /// `BackendNotFound`, or why the Service or its port cannot be a backend; `field` names the reference.
    pub fn port(&self, field: impl std::fmt::Display, key: &Key, number: u16) -> Result<Port<'a>, Problem> {
        let problem = |reason, text: &str| Problem::new(reason, &field, format_args!("Service {key} {text}"));
        let Some(service) = self.objects.services.get(key) else {
            return Err(problem(Reason::BackendNotFound, "does not exist"));
        };
        let spec = service.spec.as_ref();
        if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            let text = "must not be of type ExternalName, which can point anywhere; use a Service with endpoints";
            return Err(problem(Reason::InvalidKind, text));
        }
        let Some(port) = find(service, number) else {
            return Err(problem(
                Reason::BackendNotFound,
                &format!("has no port {number}; use one of its port numbers"),
            ));
        };
        if !is_tcp(port.protocol.as_deref()) {
            return Err(problem(Reason::UnsupportedProtocol, &format!("has no TCP port {number}")));
        }
        let protocol = match port.app_protocol.as_deref() {
            None | Some("http") => Protocol::Unsaid,
            Some("kubernetes.io/ws") => Protocol::Plain,
            Some("kubernetes.io/wss" | "https") => Protocol::Tls,
            Some(other) => {
                let text = format!(
                    "has appProtocol {} for port {number}, which cannot carry WebSockets; use kubernetes.io/ws or wss",
                    quote(other)
                );
                return Err(problem(Reason::UnsupportedProtocol, &text));
            }
        };
        Ok(Port { name: port.name.as_deref().unwrap_or_default(), protocol })
    }

    /// Where a port takes new connections: its ready endpoints, or where there are none those that still serve while
    /// they terminate (as kube-proxy does).
    pub fn endpoints(&self, key: &Key, port: &Port<'_>) -> Endpoints {
        let slices = self.slices.get(&(key.namespace.as_str(), key.name.as_str())).map_or(&[][..], Vec::as_slice);
        let (mut ready, mut terminating, mut blocked) = (Vec::new(), Vec::new(), Vec::new());
        for slice in slices {
            let ports = slice.ports.as_deref().unwrap_or_default().iter().filter(|p| is_port(p, port.name));
            for number in ports.filter_map(|port| port.port).filter_map(|number| u16::try_from(number).ok()) {
                for endpoint in &slice.endpoints {
                    // No controller puts a Pod into a slice of another namespace; whoever writes one may lie by leaving
                    // it out, but not in this way (CVE-2021-25740).
                    let home = endpoint.target_ref.as_ref().and_then(|target| target.namespace.as_deref());
                    let foreign = home.is_some_and(|home| home != key.namespace);
                    let list = match state(endpoint) {
                        State::Ready => &mut ready,
                        State::Terminating => &mut terminating,
                        State::Out => continue,
                    };
                    for address in endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
                        if foreign || self.blocked.blocks(address, number) {
                            blocked.push(address);
                        } else {
                            list.push(SocketAddr::new(address.to_canonical(), number));
                        }
                    }
                }
            }
        }
        let mut addresses = if ready.is_empty() { terminating } else { ready };
        addresses.sort_unstable();
        addresses.dedup();
        blocked.sort_unstable();
        blocked.dedup();
        Endpoints { addresses, blocked }
    }
}

/// The port of a number; the one for TCP where UDP has the same.
fn find(service: &Service, number: u16) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_ref()?.iter().filter(|port| port.port == i32::from(number));
    ports.min_by_key(|port| !is_tcp(port.protocol.as_deref()))
}

/// Absent is TCP.
fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP"))
}

/// A slice's port belongs to the Service's port of the same name; no name is the empty name.
fn is_port(port: &EndpointPort, name: &str) -> bool {
    port.name.as_deref().unwrap_or_default() == name && is_tcp(port.protocol.as_deref())
}

enum State {
    Ready,
    Terminating,
    Out,
}

/// An absent `ready` is true, an absent `serving` is `ready`, an absent `terminating` is false (discovery/v1).
fn state(endpoint: &Endpoint) -> State {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    match (ready, serving && terminating) {
        (true, _) => State::Ready,
        (false, true) => State::Terminating,
        (false, false) => State::Out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn objects(service: &str, slices: &[&str]) -> Objects {
        let mut objects = Objects::default();
        let spec = serde_saphyr::from_str(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: chat, namespace: shop}}, spec: {service}}}"
        ))
        .unwrap();
        objects.services.insert(Key::new("shop", "chat"), Arc::new(spec));
        for (index, slice) in slices.iter().enumerate() {
            let slice = serde_saphyr::from_str(&format!(
                "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
                  metadata: {{name: s{index}, namespace: shop, labels: {{kubernetes.io/service-name: chat}}}}, {slice}}}"
            ))
            .unwrap();
            objects.endpoint_slices.insert(Key::new("shop", format!("s{index}")), Arc::new(slice));
        }
        objects
    }

    fn endpoints(service: &str, slices: &[&str], port: u16, loopback: bool) -> Endpoints {
        let objects = objects(service, slices);
        let blocked = BlockedAddresses { allow_loopback: loopback, ..BlockedAddresses::default() };
        let services = Services::new(&objects, &blocked);
        let key = Key::new("shop", "chat");
        services.endpoints(&key, &services.port("f", &key, port).unwrap())
    }

    fn texts(endpoints: &Endpoints) -> Vec<String> {
        endpoints.addresses.iter().map(ToString::to_string).collect()
    }

    const ONE: &str = "{ports: [{port: 80}]}";

    #[test]
    fn ports_are_matched_by_name_over_all_slices() {
        let service = "{ports: [{name: ws, port: 80}, {name: admin, port: 81}]}";
        let found = endpoints(
            service,
            &[
                "ports: [{name: ws, port: 8080}, {name: admin, port: 9000}], endpoints: [{addresses: [10.0.0.2]}]",
                "ports: [{name: ws, port: 8081}], endpoints: [{addresses: [10.0.0.1]}]",
            ],
            80,
            false,
        );
        assert_eq!(texts(&found), ["10.0.0.1:8081", "10.0.0.2:8080"]);
    }

    #[test]
    fn terminating_endpoints_serve_only_where_none_is_ready() {
        let ready = "{addresses: [10.0.0.1], conditions: {ready: true}}";
        let ending = "{addresses: [10.0.0.2], conditions: {ready: false, serving: true, terminating: true}}";
        let starting = "{addresses: [10.0.0.3], conditions: {ready: false, serving: false}}";
        let dead = "{addresses: [10.0.0.4], conditions: {ready: false, serving: false, terminating: true}}";
        let slice = |list: &[&str]| format!("ports: [{{port: 8080}}], endpoints: [{}]", list.join(","));
        let found = |list: &[&str]| texts(&endpoints(ONE, &[&slice(list)], 80, false));
        assert_eq!(found(&[ready, ending, starting, dead]), ["10.0.0.1:8080"]);
        assert_eq!(found(&[ending, starting, dead]), ["10.0.0.2:8080"]);
        assert!(found(&[starting, dead]).is_empty());
    }

    #[test]
    fn addresses_that_no_backend_can_have_are_left_out() {
        let slice = |address: &str| format!("ports: [{{port: 80}}], endpoints: [{{addresses: ['{address}']}}]");
        for never in [
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "64:ff9b::7f00:1",
            "100.100.100.200",
        ] {
            let found = endpoints(ONE, &[&slice(never)], 80, true);
            assert!(found.addresses.is_empty() && found.blocked.len() == 1, "{never}");
        }
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(endpoints(ONE, &[&slice(loopback)], 80, false).addresses.is_empty(), "{loopback}");
            assert_eq!(endpoints(ONE, &[&slice(loopback)], 80, true).addresses.len(), 1, "{loopback}");
        }
        assert_eq!(texts(&endpoints(ONE, &[&slice("2001:db8::1")], 80, false)), ["[2001:db8::1]:80"]);
        let of = |namespace: &str| {
            let target = format!("targetRef: {{kind: Pod, name: p, namespace: {namespace}}}");
            let slice = format!("ports: [{{port: 80}}], endpoints: [{{addresses: [10.0.0.1], {target}}}]");
            endpoints(ONE, &[&slice], 80, false)
        };
        assert_eq!((of("shop").addresses.len(), of("shop").blocked.len()), (1, 0));
        assert_eq!((of("bank").addresses.len(), of("bank").blocked.len()), (0, 1));
    }

    #[test]
    fn services_that_cannot_be_backends_are_refused_by_name() {
        for (service, port, reason) in [
            ("{type: ExternalName, externalName: evil.test, ports: [{port: 80}]}", 80, Reason::InvalidKind),
            (ONE, 81, Reason::BackendNotFound),
            ("{ports: [{port: 80, protocol: UDP}]}", 80, Reason::UnsupportedProtocol),
            ("{ports: [{port: 80, appProtocol: kubernetes.io/h2c}]}", 80, Reason::UnsupportedProtocol),
        ] {
            let objects = objects(service, &[]);
            let problem = Services::new(&objects, &BlockedAddresses::default())
                .port("spec.x", &Key::new("shop", "chat"), port)
                .unwrap_err();
            assert_eq!(problem.reason, reason, "{service}");
            assert!(problem.to_string().starts_with("spec.x: Service shop/chat "), "{problem}");
        }
        let none = Objects::default();
        let problem =
            Services::new(&none, &BlockedAddresses::default()).port("f", &Key::new("shop", "chat"), 80).unwrap_err();
        assert_eq!(problem.reason, Reason::BackendNotFound);
    }

    #[test]
    fn a_number_that_udp_has_as_well_means_the_tcp_port() {
        let ports = "{ports: [{name: quic, port: 443, protocol: UDP}, {name: ws, port: 443}]}";
        let slice = "ports: [{name: ws, port: 8443}], endpoints: [{addresses: [10.0.0.1]}]";
        assert_eq!(texts(&endpoints(ports, &[slice], 443, false)), ["10.0.0.1:8443"]);
    }

    #[test]
    fn the_protocol_comes_from_the_port() {
        for (text, protocol) in
            [("kubernetes.io/ws", Protocol::Plain), ("kubernetes.io/wss", Protocol::Tls), ("http", Protocol::Unsaid)]
        {
            let objects = objects(&format!("{{ports: [{{port: 80, appProtocol: {text}}}]}}"), &[]);
            let blocked = BlockedAddresses::default();
            let services = Services::new(&objects, &blocked);
            assert_eq!(services.port("f", &Key::new("shop", "chat"), 80).unwrap().protocol, protocol);
        }
    }
}
