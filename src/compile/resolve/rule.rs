//! One rule with everything that it names: Services, their endpoints, TLS toward them.
//!
//! What a rule may no longer have (a grant, a CA) makes it refuse, for otherwise breaking a reference would keep
//! access; a CA bundle that cannot be read whole counts as it last could; a Service that is missing or empty makes it
//! serve 503 until there is one. Knows nothing of hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use rustls::{ClientConfig, RootCertStore};

use crate::api::objects::{Key, Objects};
use crate::api::status::ConditionReason as Reason;
use crate::compile::guard::guarded;
use crate::compile::problem::Problem;
use crate::compile::resolve::backend_tls::{self, Roots};
use crate::compile::resolve::bundle::{CA, LastGood, same, value};
use crate::compile::resolve::reference::{Grants, absent};
use crate::compile::resolve::resolution::Resolution;
use crate::compile::resolve::service::{Port, Protocol, Services};
use crate::compile::spec::rule::{BackendTlsDraft, RuleDraft};
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::snapshot::{Backend, BackendId, BackendTls};
use crate::tls::BackendTlsConfig;

/// A rule with what it names.
#[derive(Debug, Default)]
pub struct ResolvedRule {
    /// Services with their weights.
    pub backends: Vec<(BackendId, u32)>,
    /// TLS toward them.
    pub tls: Option<BackendTls>,
    /// What became of its references.
    pub resolution: Resolution,
}

/// TLS clients by what they trust, kept from one compile to the next.
#[derive(Debug, Default)]
pub struct Clients {
    system: Option<Arc<ClientConfig>>,
    by_bundles: BTreeMap<Vec<Key>, Client>,
    last_good: LastGood,
}

#[derive(Debug, Clone)]
struct Client {
    /// The ConfigMaps as they are.
    maps: Vec<Arc<ConfigMap>>,
    /// The versions of them that count.
    used: Vec<Arc<ConfigMap>>,
    /// Those that are broken, and why.
    broken: Vec<String>,
    result: Result<Arc<ClientConfig>, String>,
}

/// What is known of a Service's port after it was looked at once.
#[derive(Default)]
struct Seen {
    backend: Arc<Backend>,
    /// Whether there is such a port.
    exists: bool,
    /// Addresses that were left out, for every rule that names it.
    blocked: Option<Problem>,
}

/// Resolves the rules of one compile.
pub struct Resolver<'a> {
    objects: &'a Objects,
    grants: &'a Grants<'a>,
    services: Services<'a>,
    before: Option<&'a Clients>,
    clients: Clients,
    seen: BTreeMap<BackendId, Seen>,
    /// Whether backends without endpoints are reported. In a cluster they are not: endpoints come and go with every Pod, and
    /// a thousand statuses would be written for one Deployment.
    reports_empty: bool,
}

impl<'a> Resolver<'a> {
    /// A resolver over the objects, with the clients of the compile before.
    pub fn new(
        objects: &'a Objects,
        grants: &'a Grants<'a>,
        blocked: &'a BlockedAddresses,
        before: Option<&'a Clients>,
        reports_empty: bool,
    ) -> Self {
        let services = Services::new(objects, blocked);
        Self { objects, grants, services, before, clients: Clients::default(), seen: BTreeMap::new(), reports_empty }
    }

    /// Every Service port that was named, with its endpoints; and the clients for the next compile.
    pub fn finish(self) -> (BTreeMap<BackendId, Arc<Backend>>, Clients) {
        (self.seen.into_iter().map(|(id, seen)| (id, seen.backend)).collect(), self.clients)
    }

    /// Resolves rule number `index` of a route in the namespace `home`.
    pub fn rule(&mut self, home: &str, index: usize, rule: &RuleDraft) -> ResolvedRule {
        let mut resolved = ResolvedRule::default();
        for (number, backend) in rule.backends.iter().enumerate() {
            let field = format!("spec.rules[{index}].backendRefs[{number}]");
            match self.grants.resolve(&field, home, "Service", backend.namespace.as_deref(), &backend.name) {
                Err(problem) => resolved.resolution.refuse(problem),
                Ok(key) => {
                    let id = self.backend(&field, &key, backend.port, rule.tls.is_some(), &mut resolved.resolution);
                    resolved.backends.push((id, backend.weight));
                }
            }
        }
        self.note_capacity(index, &mut resolved);
        if let Some(tls) = &rule.tls {
            match self.backend_tls(home, index, tls) {
                Ok((tls, broken)) => {
                    resolved.tls = Some(tls);
                    resolved.resolution.problems.extend(broken);
                }
                Err(problem) => resolved.resolution.refuse(problem),
            }
        }
        resolved
    }

    /// The backend of a rule that a port of a Service is. Where there is no such Service or port it has no endpoints, so
    /// that handshakes get 503 until there is one.
    fn backend(&mut self, field: &str, key: &Key, number: u16, tls: bool, resolution: &mut Resolution) -> BackendId {
        let id = BackendId::new(&key.namespace, &key.name, number);
        match self.services.port(field, key, number) {
            Ok(port) => {
                let seen = self.seen.entry(id.clone()).or_insert_with(|| look(&self.services, key, &port, &id));
                resolution.notes.extend(seen.blocked.clone());
                if let Some(text) = disagreement(port.protocol, tls) {
                    let text = format_args!("port {number} of Service {key} {text}");
                    resolution.refuse(Problem::new(Reason::UnsupportedProtocol, field, text));
                }
            }
            Err(problem) => {
                resolution.unresolved_backend(problem);
                self.seen.entry(id.clone()).or_default();
            }
        }
        id
    }

    /// Notes where a rule has nobody to serve it: backends without endpoints, or without weight.
    fn note_capacity(&self, index: usize, resolved: &mut ResolvedRule) {
        let has_endpoints = |id: &BackendId| self.seen.get(id).is_some_and(|seen| !seen.backend.endpoints.is_empty());
        let weighted = || resolved.backends.iter().filter(|(_, weight)| *weight > 0).map(|(id, _)| id);
        let others = weighted().any(has_endpoints);
        let named = |id: &&BackendId| self.seen.get(*id).is_some_and(|seen| seen.exists);
        let empty: Vec<Problem> = weighted()
            .filter(|id| self.reports_empty && named(id) && !has_endpoints(id))
            .map(|id| without_endpoints(id, others))
            .collect();
        let weightless = !resolved.backends.is_empty() && weighted().next().is_none();
        resolved.resolution.notes.extend(empty);
        if weightless {
            let field = format_args!("spec.rules[{index}].backendRefs");
            let text = "every weight is 0; handshakes get 503";
            resolved.resolution.notes.push(Problem::new(Reason::NoEndpoints, field, text));
        }
    }

    /// The backend that a port of a Service is, where plain HTTP is asked of it.
    ///
    /// # Errors
    /// Why it cannot be asked; `field` names the reference.
    pub fn plain(&mut self, field: impl std::fmt::Display, key: &Key, number: u16) -> Result<BackendId, Problem> {
        let port = self.services.port(&field, key, number)?;
        if port.protocol == Protocol::Tls {
            let text = format_args!("port {number} of Service {key} speaks TLS (appProtocol); use a plain port");
            return Err(Problem::new(Reason::UnsupportedProtocol, field, text));
        }
        let id = BackendId::new(&key.namespace, &key.name, number);
        self.seen.entry(id.clone()).or_insert_with(|| look(&self.services, key, &port, &id));
        Ok(id)
    }

    /// Notes on a backend that was resolved: that it has no endpoints, or that some are blocked.
    pub fn notes(&self, id: &BackendId) -> Vec<Problem> {
        let Some(seen) = self.seen.get(id) else { return Vec::new() };
        let empty = (self.reports_empty && seen.backend.endpoints.is_empty()).then(|| without_endpoints(id, false));
        seen.blocked.iter().cloned().chain(empty).collect()
    }

    /// TLS toward the endpoints of a rule, and the problems of bundles in whose place the last good ones are used.
    fn backend_tls(
        &mut self,
        home: &str,
        index: usize,
        tls: &BackendTlsDraft,
    ) -> Result<(BackendTls, Vec<Problem>), Problem> {
        let mut keys = Vec::with_capacity(tls.authorities.len());
        let mut maps = Vec::with_capacity(tls.authorities.len());
        for (number, authority) in tls.authorities.iter().enumerate() {
            let field = format_args!("spec.rules[{index}].backendTLS.caCertificateRefs[{number}]");
            let namespace = authority.namespace.as_deref();
            let key = self.grants.resolve(field, home, "ConfigMap", namespace, &authority.name)?;
            let Some(map) = self.objects.config_maps.get(&key) else {
                return Err(absent(self.objects, field, "ConfigMap", &key, format_args!("the key {CA}")));
            };
            keys.push(key);
            maps.push(map);
        }
        let (config, broken) = if keys.is_empty() { (self.system(), Vec::new()) } else { self.client(keys, &maps) };
        let problem =
            |text| Problem::new(Reason::InvalidCertificateRef, format_args!("spec.rules[{index}].backendTLS"), text);
        let config = BackendTlsConfig::new(config.map_err(problem)?);
        Ok((BackendTls { config, server_name: tls.server_name.clone() }, broken.into_iter().map(problem).collect()))
    }

    fn system(&mut self) -> Result<Arc<ClientConfig>, String> {
        let known = self.clients.system.clone().or_else(|| self.before.and_then(|before| before.system.clone()));
        let config = known.map_or_else(|| backend_tls::client(Roots::System), Ok)?;
        self.clients.system = Some(Arc::clone(&config));
        Ok(config)
    }

    /// The client that trusts these bundles, and what is broken of them.
    fn client(
        &mut self,
        keys: Vec<Key>,
        maps: &[&'a Arc<ConfigMap>],
    ) -> (Result<Arc<ClientConfig>, String>, Vec<String>) {
        if let Some(client) = self.clients.by_bundles.get(&keys) {
            return (client.result.clone(), client.broken.clone());
        }
        let old = self.before.and_then(|before| Some((before, before.by_bundles.get(&keys)?)));
        let unchanged = |old: &Client| old.maps.iter().zip(maps).all(|(old, new)| same(old, new));
        let client = match old.filter(|(_, old)| unchanged(old)) {
            Some((before, old)) => {
                keys.iter().for_each(|key| self.clients.last_good.carry(&before.last_good, CA, key));
                old.clone()
            }
            None => self.new_client(&keys, maps, old.map(|(_, old)| old)),
        };
        let result = (client.result.clone(), client.broken.clone());
        self.clients.by_bundles.insert(keys, client);
        result
    }

    /// A client of what can be read now, and of the last good version of what cannot. The same versions give that of `old`.
    fn new_client(&mut self, keys: &[Key], maps: &[&'a Arc<ConfigMap>], old: Option<&Client>) -> Client {
        let (mut used, mut broken, mut unusable) = (Vec::with_capacity(maps.len()), Vec::new(), None);
        let last_good = self.before.map(|before| &before.last_good);
        for (key, map) in keys.iter().zip(maps) {
            let named = |text: String| format!("ConfigMap {key}: {text}");
            let read = |text: &[u8]| backend_tls::add(&mut RootCertStore::empty(), text);
            match self.clients.last_good.choose(last_good, CA, (key, map), read) {
                Ok(chosen) => {
                    broken.extend(chosen.broken.map(named));
                    used.push(chosen.map);
                }
                Err(text) => unusable = unusable.or(Some(named(text))),
            }
        }
        let unchanged = |old: &&Client| {
            let same = old.used.iter().zip(&used).all(|(old, new)| same(old, new));
            old.result.is_ok() && old.used.len() == used.len() && same
        };
        let result = match (unusable, old.filter(unchanged)) {
            (Some(text), _) => Err(text),
            (None, Some(old)) => old.result.clone(),
            (None, None) => {
                let bundles: Vec<(String, &[u8])> =
                    keys.iter().zip(&used).map(|(key, map)| (format!("ConfigMap {key}"), value(map, CA))).collect();
                guarded(|fault| format!("a CA bundle {fault}"), || backend_tls::client(Roots::Bundles(&bundles)))
            }
        };
        let maps = maps.iter().map(|map| Arc::clone(map)).collect();
        Client { maps, used, broken, result }
    }
}

/// Why what the port says and what the rule says do not go together. There is no way back to plain text.
fn disagreement(protocol: Protocol, tls: bool) -> Option<&'static str> {
    match (protocol, tls) {
        (Protocol::Tls, false) => Some("speaks TLS (appProtocol); set backendTLS to verify it"),
        (Protocol::Plain, true) => {
            Some("is plain (appProtocol kubernetes.io/ws); remove backendTLS or use kubernetes.io/wss")
        }
        _ => None,
    }
}

fn look(services: &Services<'_>, key: &Key, port: &Port<'_>, id: &BackendId) -> Seen {
    let endpoints = services.endpoints(key, port);
    let blocked = endpoints.blocked.first().map(|first| {
        let text = format_args!(
            "blocked addresses: {}, such as {first}; a backend cannot have an address of the gateway, of its node, of a \
             metadata service, of the API server or of a Pod of another namespace",
            endpoints.blocked.len()
        );
        Problem::new(Reason::NoEndpoints, format_args!("Service {id}"), text)
    });
    Seen { backend: Arc::new(Backend { endpoints: endpoints.addresses }), exists: true, blocked }
}

/// `others`: another backend of the rule takes its share.
fn without_endpoints(id: &BackendId, others: bool) -> Problem {
    let then = if others { "the other backends take its share" } else { "handshakes get 503" };
    let text = format_args!("no endpoint takes connections; {then}");
    Problem::new(Reason::NoEndpoints, format_args!("Service {id}"), text)
}
