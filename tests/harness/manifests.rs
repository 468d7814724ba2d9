//! Manifests as JSON documents, which YAML readers read too.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::authority::{Authority, Pair};

/// Files of a manifest directory by name.
#[derive(Clone, Default)]
pub struct Manifests {
    pub files: BTreeMap<String, String>,
}

impl Manifests {
    /// Adds a file with these objects.
    pub fn with(mut self, file: &str, objects: &[Value]) -> Self {
        self.files.insert(file.to_owned(), text(objects));
        self
    }
}

/// Objects as one multi-document file.
pub fn text(objects: &[Value]) -> String {
    let documents: Vec<String> = objects.iter().map(|object| format!("{object:#}")).collect();
    documents.join("\n---\n")
}

/// Lays `fragment` over `base`: objects are merged, `null` removes, everything else replaces (RFC 7396).
pub fn merge(base: &mut Value, fragment: &Value) {
    let Some(members) = fragment.as_object() else {
        *base = fragment.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut base[name], value);
        }
    }
}

/// A TLS Secret of namespace shop.
pub fn secret(name: &str, pair: &Pair) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": "shop"},
        "data": {"tls.crt": STANDARD.encode(&pair.chain), "tls.key": STANDARD.encode(&pair.key)},
    })
}

/// A ConfigMap of namespace shop with one key.
pub fn config_map(name: &str, key: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop"}, "data": {key: value},
    })
}

/// A Service of namespace shop with port 8080 and its endpoints on loopback.
pub fn service(name: &str, ports: &[u16]) -> Vec<Value> {
    service_as(name, "kubernetes.io/ws", ports)
}

/// The same with an `appProtocol`.
pub fn service_as(name: &str, protocol: &str, ports: &[u16]) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.10", "selector": {"app": name},
            "ports": [{"name": "ws", "port": 8080, "targetPort": 8080, "protocol": "TCP", "appProtocol": protocol}],
        },
    })];
    // One slice per port: endpoints of one slice share their port.
    for (index, port) in ports.iter().enumerate() {
        objects.push(slice(name, index, *port, &json!({"ready": true})));
    }
    objects
}

/// One EndpointSlice of a Service with one endpoint on loopback.
pub fn slice(service: &str, index: usize, port: u16, conditions: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{service}-{index}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "ws", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions}],
    })
}

/// A route of namespace shop for one host, everything to a Service, open to everybody; `spec` is laid over it.
pub fn route(name: &str, host: &str, secret: &str, service: &str, spec: &Value) -> Value {
    let mut route = json!({
        "apiVersion": "wssgate.io/v1alpha1", "kind": "SecureWebSocketRoute",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "hostnames": [host],
            "tls": {"certificateRefs": [{"name": secret}]},
            "rules": [{
                "name": "all",
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": service, "port": 8080}],
            }],
            "handshake": {"authentication": {"mode": "Anonymous"}},
        },
    });
    merge(&mut route["spec"], spec);
    route
}

/// The objects of a sample, with what only a cluster has: the certificate, and the endpoint of the Service.
pub fn sample(name: &str, authority: &Authority, port: u16) -> Vec<Value> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples").join(name)).unwrap();
    let mut objects: Vec<Value> = text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
    let (route, service) = (of_kind("SecureWebSocketRoute"), of_kind("Service"));
    let host = route["spec"]["hostnames"][0].as_str().unwrap();
    let certificate = route["spec"]["tls"]["certificateRefs"][0]["name"].as_str().unwrap();
    let mut more = [
        secret(certificate, &authority.leaf(&[host])),
        slice(service["metadata"]["name"].as_str().unwrap(), 0, port, &json!({"ready": true})),
    ];
    for object in &mut more {
        object["metadata"]["namespace"] = route["metadata"]["namespace"].clone();
    }
    objects.extend(more);
    objects
}
