//! One rule with everything that it names: Services, their endpoints, TLS toward them.
//!
//! What a rule may no longer have (a grant, a CA) makes it refuse, for otherwise breaking a reference would keep
//! access; a Service that is missing or empty makes it serve 503 until there is one. Knows nothing of hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use rustls::ClientConfig;

use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::guard::guarded;
use crate::compile::problem::Problem;
use crate::compile::resolve::backend_tls::{self, Trust};
use crate::compile::resolve::bundle::{CA, same, value};
use crate::compile::resolve::reference::{Grants, unread};
use crate::compile::resolve::service::{Port, Protocol, Services};
use crate::compile::spec::rule::{BackendTlsDraft, RuleDraft};
use crate::policy::fence::Fence;
use crate::snapshot::{Backend, BackendId, BackendTls};

/// A rule with what it names.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Services with their weights.
    pub backends: Vec<(BackendId, u32)>,
    /// TLS toward them.
    pub tls: Option<BackendTls>,
    /// What does not resolve.
    pub problems: Vec<Problem>,
    /// What resolves to nothing that could serve.
    pub notes: Vec<Problem>,
    /// Whether the rule must refuse because of a problem.
    pub refuses: bool,
}

/// TLS clients by what they trust, kept from one compile to the next.
#[derive(Debug, Default)]
pub struct Clients {
    system: Option<Arc<ClientConfig>>,
    by_bundles: BTreeMap<Vec<Key>, Client>,
}

#[derive(Debug, Clone)]
struct Client {
    maps: Vec<Arc<ConfigMap>>,
    result: Result<Arc<ClientConfig>, String>,
}

/// What is known of a Service's port after it was looked at once.
struct Seen {
    backend: Arc<Backend>,
    /// Addresses that were left out, for every rule that names it.
    denied: Option<Problem>,
}

/// Resolves the rules of one compile.
pub struct Resolver<'a> {
    objects: &'a Objects,
    grants: &'a Grants<'a>,
    services: Services<'a>,
    before: Option<&'a Clients>,
    clients: Clients,
    seen: BTreeMap<BackendId, Seen>,
    /// Whether it is told of backends that they have no endpoints. In a cluster it is not: endpoints come and go with every
    /// Pod, and a thousand statuses would be written for one Deployment.
    tells_empty: bool,
}

impl<'a> Resolver<'a> {
    /// A resolver over the objects, with the clients of the compile before.
    pub fn new(
        objects: &'a Objects,
        grants: &'a Grants<'a>,
        fence: &'a Fence,
        before: Option<&'a Clients>,
        tells_empty: bool,
    ) -> Self {
        let services = Services::new(objects, fence);
        Self { objects, grants, services, before, clients: Clients::default(), seen: BTreeMap::new(), tells_empty }
    }

    /// Every Service port that was named, with its endpoints; and the clients for the next compile.
    pub fn finish(self) -> (BTreeMap<BackendId, Arc<Backend>>, Clients) {
        (self.seen.into_iter().map(|(id, seen)| (id, seen.backend)).collect(), self.clients)
    }

    /// Resolves rule number `place` of a route in the namespace `home`.
    pub fn rule(&mut self, home: &str, place: usize, rule: &RuleDraft) -> Resolved {
        let mut resolved = Resolved::default();
        let mut empty = Vec::new();
        for (number, backend) in rule.backends.iter().enumerate() {
            let field = format_args!("spec.rules[{place}].backendRefs[{number}]");
            let namespace = backend.namespace.as_deref();
            let key = match self.grants.resolve(field, home, "Service", namespace, &backend.name) {
                Ok(key) => key,
                Err(problem) => {
                    resolved.problems.push(problem);
                    resolved.refuses = true;
                    continue;
                }
            };
            let id = BackendId {
                namespace: key.namespace.as_str().into(),
                service: key.name.as_str().into(),
                port: backend.port,
            };
            match self.services.port(field, &key, backend.port) {
                Ok(port) => {
                    let seen = self.seen.entry(id.clone()).or_insert_with(|| look(&self.services, &key, &port, &id));
                    resolved.notes.extend(seen.denied.clone());
                    if self.tells_empty && seen.backend.endpoints.is_empty() && backend.weight > 0 {
                        empty.push(id.clone());
                    }
                    if let Some(text) = disagreement(port.protocol, rule.tls.is_some()) {
                        let text = format!("{field}: port {} of Service {key} {text}", backend.port);
                        resolved.problems.push(Problem::new(Reason::UnsupportedProtocol, text));
                        resolved.refuses = true;
                    }
                }
                Err(problem) => {
                    // What may yet come is answered with 503 by an empty backend; the rest cannot serve as written.
                    resolved.refuses |= problem.reason != Reason::BackendNotFound;
                    resolved.problems.push(problem);
                    let seen = || Seen { backend: Arc::default(), denied: None };
                    self.seen.entry(id.clone()).or_insert_with(seen);
                }
            }
            resolved.backends.push((id, backend.weight));
        }
        let serves = |(id, weight): &(BackendId, u32)| {
            *weight > 0 && self.seen.get(id).is_some_and(|seen| !seen.backend.endpoints.is_empty())
        };
        let others = resolved.backends.iter().any(serves);
        resolved.notes.extend(empty.iter().map(|id| without_endpoints(id, others)));
        if !resolved.backends.is_empty() && resolved.backends.iter().all(|(_, weight)| *weight == 0) {
            let text = format!("spec.rules[{place}].backendRefs: every weight is 0; handshakes are answered with 503");
            resolved.notes.push(Problem::new(Reason::NoEndpoints, text));
        }
        if let Some(tls) = &rule.tls {
            match self.backend_tls(home, place, tls) {
                Ok(tls) => resolved.tls = Some(tls),
                Err(problem) => {
                    resolved.problems.push(problem);
                    resolved.refuses = true;
                }
            }
        }
        resolved
    }

    /// The backend that a port of a Service is, where plain HTTP is asked of it.
    ///
    /// # Errors
    /// Why it cannot be asked; `field` names the reference.
    pub fn plain(&mut self, field: impl std::fmt::Display, key: &Key, number: u16) -> Result<BackendId, Problem> {
        let port = self.services.port(&field, key, number)?;
        if port.protocol == Protocol::Tls {
            let text = format!("{field}: port {number} of Service {key} speaks TLS (appProtocol); use a plain one");
            return Err(Problem::new(Reason::UnsupportedProtocol, text));
        }
        let id =
            BackendId { namespace: key.namespace.as_str().into(), service: key.name.as_str().into(), port: number };
        self.seen.entry(id.clone()).or_insert_with(|| look(&self.services, key, &port, &id));
        Ok(id)
    }

    /// What is to be said of a backend that was resolved: that it has no endpoints, or that some were left out.
    pub fn notes(&self, id: &BackendId) -> Vec<Problem> {
        let Some(seen) = self.seen.get(id) else { return Vec::new() };
        let empty = (self.tells_empty && seen.backend.endpoints.is_empty()).then(|| without_endpoints(id, false));
        seen.denied.iter().cloned().chain(empty).collect()
    }

    fn backend_tls(&mut self, home: &str, place: usize, tls: &BackendTlsDraft) -> Result<BackendTls, Problem> {
        let mut keys = Vec::with_capacity(tls.authorities.len());
        let mut maps = Vec::with_capacity(tls.authorities.len());
        for (number, authority) in tls.authorities.iter().enumerate() {
            let field = format_args!("spec.rules[{place}].backendTLS.caCertificateRefs[{number}]");
            let namespace = authority.namespace.as_deref();
            let key = self.grants.resolve(field, home, "ConfigMap", namespace, &authority.name)?;
            let Some(map) = self.objects.config_maps.get(&key) else {
                let text = format!("{field}: ConfigMap {key} does not exist; create it with the key {CA}");
                let unread = unread(self.objects, field, "ConfigMap", &key);
                return Err(unread.unwrap_or_else(|| Problem::new(Reason::RefNotFound, text)));
            };
            keys.push(key);
            maps.push(map);
        }
        let config = if keys.is_empty() { self.system() } else { self.client(keys, &maps) };
        let config = config.map_err(|text| {
            Problem::new(Reason::InvalidCertificateRef, format!("spec.rules[{place}].backendTLS: {text}"))
        })?;
        Ok(BackendTls { config, server_name: tls.server_name.clone() })
    }

    fn system(&mut self) -> Result<Arc<ClientConfig>, String> {
        let known = self.clients.system.clone().or_else(|| self.before.and_then(|before| before.system.clone()));
        let config = known.map_or_else(|| backend_tls::client(Trust::System), Ok)?;
        self.clients.system = Some(Arc::clone(&config));
        Ok(config)
    }

    fn client(&mut self, keys: Vec<Key>, maps: &[&'a Arc<ConfigMap>]) -> Result<Arc<ClientConfig>, String> {
        if let Some(client) = self.clients.by_bundles.get(&keys) {
            return client.result.clone();
        }
        let before = self.before.and_then(|before| before.by_bundles.get(&keys));
        let result = match before.filter(|before| before.maps.iter().zip(maps).all(|(old, new)| same(old, new))) {
            Some(before) => before.result.clone(),
            None => {
                let bundles: Vec<(String, &[u8])> =
                    keys.iter().zip(maps).map(|(key, map)| (format!("ConfigMap {key}"), value(map, CA))).collect();
                guarded(|fault| format!("a CA bundle {fault}"), || backend_tls::client(Trust::Bundles(&bundles)))
            }
        };
        let maps = maps.iter().map(|map| Arc::clone(map)).collect();
        self.clients.by_bundles.insert(keys, Client { maps, result: result.clone() });
        result
    }
}

/// Why what the port says and what the rule says do not go together. There is no way back to plain text.
fn disagreement(protocol: Protocol, tls: bool) -> Option<&'static str> {
    match (protocol, tls) {
        (Protocol::Tls, false) => Some("speaks TLS (appProtocol); set backendTLS so that it can be verified"),
        (Protocol::Plain, true) => Some("is plain (appProtocol kubernetes.io/ws); remove backendTLS or use wss"),
        _ => None,
    }
}

fn look(services: &Services<'_>, key: &Key, port: &Port<'_>, id: &BackendId) -> Seen {
    let endpoints = services.endpoints(key, port);
    let denied = endpoints.denied.first().map(|first| {
        let text = format!(
            "Service {id}: {} of its addresses left out, such as {first}: addresses of the gateway, of its node, of \
             metadata services, of the API server and of other namespaces' Pods are no backends",
            endpoints.denied.len()
        );
        Problem::new(Reason::NoEndpoints, text)
    });
    Seen { backend: Arc::new(Backend { endpoints: endpoints.addresses }), denied }
}

/// `others`: another backend of the rule takes its share.
fn without_endpoints(id: &BackendId, others: bool) -> Problem {
    let then = if others { "others take its share" } else { "handshakes are answered with 503" };
    let text = format!("Service {id} has no endpoint that takes connections; {then}");
    Problem::new(Reason::NoEndpoints, text)
}
