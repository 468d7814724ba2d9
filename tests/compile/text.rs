//! A compile as stable text: no keys, no pointers; certificates and session tickets by the order in which they appear.

use std::fmt::Write as _;
use std::sync::Arc;

use wssgate::compile::Compiled;
use wssgate::policy::Policy;
use wssgate::snapshot::{HostTls, PathMatch, Route, RouteState, Snapshot, TlsServerConfig};

/// Names for what has none that is stable.
#[derive(Default)]
pub(crate) struct Names {
    certificates: Vec<String>,
    tickets: Vec<Arc<dyn rustls::server::ProducesTickets>>,
    built_in: Option<Policy>,
}

impl Names {
    /// `built_in` is the policy of a route that sets nothing: what is equal to it is not repeated.
    pub(crate) fn new(built_in: Policy) -> Self {
        Self { built_in: Some(built_in), ..Self::default() }
    }

    fn tls(&mut self, tls: &TlsServerConfig) -> String {
        let mut text = String::from("tls");
        for facts in &tls.certificates {
            let found = self.certificates.iter().position(|known| *known == facts.fingerprint);
            let place = found.unwrap_or_else(|| {
                self.certificates.push(facts.fingerprint.clone());
                self.certificates.len() - 1
            });
            let _ = write!(text, " {}#{}", facts.secret, place + 1);
        }
        let same = |known: &Arc<dyn rustls::server::ProducesTickets>| Arc::ptr_eq(known, &tls.config.get().ticketer);
        let place = self.tickets.iter().position(same).unwrap_or_else(|| {
            self.tickets.push(Arc::clone(&tls.config.get().ticketer));
            self.tickets.len() - 1
        });
        let _ = write!(text, " tickets#{}", place + 1);
        text
    }

    /// Statuses, then the snapshot; `before` marks what was kept.
    pub(crate) fn render(&mut self, compiled: &Compiled, before: Option<&Compiled>) -> String {
        let mut text = String::new();
        for (id, status) in &compiled.statuses {
            let _ = writeln!(text, "route {id}");
            for condition in status.conditions.iter().flatten() {
                let (kind, is, why) = (&condition.type_, &condition.status, &condition.reason);
                let _ = writeln!(text, "  {kind}={is} {why}: {}", condition.message);
            }
        }
        for (key, certificate) in &compiled.wanted.apply {
            let spec = serde_json::to_value(&certificate.spec).unwrap();
            let _ = writeln!(text, "apply Certificate {key}: {spec}");
            for owner in certificate.metadata.owner_references.iter().flatten() {
                let _ = writeln!(text, "  owner {} {} controller={:?}", owner.kind, owner.name, owner.controller);
            }
            for (name, value) in certificate.metadata.annotations.iter().flatten() {
                let _ = writeln!(text, "  {name}: {value}");
            }
        }
        for key in &compiled.wanted.unwanted {
            let _ = writeln!(text, "unwanted Certificate {key}");
        }
        for (object, remark) in &compiled.remarks {
            let _ = writeln!(text, "remark {object}: {remark}");
        }
        text.push_str(&self.snapshot(&compiled.snapshot, before.map(|before| &before.snapshot)));
        text
    }

    fn snapshot(&mut self, snapshot: &Snapshot, before: Option<&Snapshot>) -> String {
        let mut text = format!("snapshot {}\n", snapshot.version);
        if let Some(tls) = &snapshot.default_tls {
            let _ = writeln!(text, "  default {}", self.tls(tls));
        }
        let mut hosts: Vec<_> = snapshot.exact.values().chain(snapshot.wildcard.values()).collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        for host in hosts {
            let old = before.and_then(|before| match host.name.strip_prefix("*.") {
                Some(rest) => before.wildcard.get(rest),
                None => before.exact.get(&host.name),
            });
            let same = old.is_some_and(|old| Arc::ptr_eq(old, host));
            let tls = match &host.tls {
                HostTls::Own(tls) => self.tls(tls),
                HostTls::Default => "default tls".to_owned(),
                HostTls::Missing => "no tls".to_owned(),
            };
            let _ = writeln!(text, "  host {} {tls}{}", host.name, if same { " (kept)" } else { "" });
            for route in &host.routes {
                let same = old.is_some_and(|old| old.routes.iter().any(|old| Arc::ptr_eq(old, route)));
                let _ = writeln!(text, "    {}{}", self.route(route), if same { " (kept)" } else { "" });
            }
        }
        let mut reserved: Vec<_> = snapshot.reserved.iter().collect();
        reserved.sort();
        for name in reserved {
            let _ = writeln!(text, "  no wildcard serves {name}");
        }
        for (host, paths) in &snapshot.challenges {
            for (path, solver) in paths {
                let _ = writeln!(text, "  challenge {host}{path} -> {solver}");
            }
        }
        for (id, backend) in &snapshot.backends {
            let endpoints: Vec<String> = backend.endpoints.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                text,
                "  backend {id}: {}",
                if endpoints.is_empty() { "none".into() } else { endpoints.join(" ") }
            );
        }
        for (source, set) in &snapshot.keys {
            let same = before.and_then(|before| before.keys.get(source)).is_some_and(|old| Arc::ptr_eq(old, set));
            let _ = writeln!(text, "  keys {source:?}: {set:?}{}", if same { " (kept)" } else { "" });
        }
        text
    }

    fn route(&self, route: &Route) -> String {
        let path = match &route.path {
            PathMatch::Exact(path) => format!("exact {path}"),
            PathMatch::Prefix(path) => format!("prefix {path}"),
        };
        let backends: Vec<String> = route.backends.iter().map(|(id, weight)| format!("{id}*{weight}")).collect();
        let tls =
            route.backend_tls.as_ref().map_or_else(String::new, |tls| format!(" tls {}", tls.server_name.to_str()));
        let state = match &route.state {
            RouteState::Refusing(reason) => format!("refusing {}", reason.label()),
            RouteState::Serving(policy) => format!("serving{}", self.policy(policy)),
        };
        format!("{path} -> {} [{}] {:?}{tls} {state}", route.id, backends.join(" "), route.balance)
    }

    fn policy(&self, policy: &Policy) -> String {
        let Some(built_in) = &self.built_in else { return String::new() };
        let mut text = String::new();
        if policy.handshake != built_in.handshake {
            let _ = write!(text, " {:?}", policy.handshake);
        }
        if policy.connection != built_in.connection {
            let _ = write!(text, " {:?}", policy.connection);
        }
        if policy.from_client != built_in.from_client {
            let _ = write!(text, " fromClient {:?}", policy.from_client);
        }
        if policy.from_backend != built_in.from_backend {
            let _ = write!(text, " fromBackend {:?}", policy.from_backend);
        }
        if policy.client_pacing != built_in.client_pacing {
            let _ = write!(text, " clientPacing {:?}", policy.client_pacing);
        }
        if policy.backend_pacing != built_in.backend_pacing {
            let _ = write!(text, " backendPacing {:?}", policy.backend_pacing);
        }
        if let Some(rule) = &policy.client_certificates {
            let _ = write!(text, " clientCertificates {}", if rule.required { "required" } else { "optional" });
        }
        text
    }
}
