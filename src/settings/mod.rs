//! The gateway's own settings: flags and environment before the settings file before the defaults, merged in one place.
//! Knows the route's shape for defaults, and nothing of who uses a setting.

mod ceilings;
pub mod cluster;
pub mod file;
mod object_name;
pub mod proxies;
pub mod store;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::api::ceilings::Ceilings;
use crate::api::objects::Key;
use crate::api::route::Defaults;
use crate::api::{CERTIFICATE_GRACE, CONTROLLER};
use crate::telemetry::format::Format;
use cluster::{ClusterOverrides, ClusterSettings};
pub use file::{GatewayConfiguration, SettingsError};
use proxies::TrustedProxies;
use store::SharedStore;

/// Default of `socketBuffers` in bytes: 20 Mbit/s over a round trip of 100 ms.
const SOCKET_BUFFERS: u64 = 256 * 1024;

/// What the gateway runs with: effective values only.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the gateway listens.
    pub listeners: Listeners,
    /// Directory of manifests; `None`: objects come from a cluster.
    pub manifests: Option<PathBuf>,
    /// Where there are no manifests: the cluster.
    pub cluster: ClusterSettings,
    /// Where a WebSocket echo backend listens besides; `None`: there is none.
    pub echo: Option<SocketAddr>,
    /// Development: self-signed certificates for Secrets that are missing. A flag, never a setting of a file.
    pub dev: bool,
    /// `spec.controller` of the IngressClasses that are ours.
    pub controller_name: String,
    /// The one IngressClass that is ours; `None`: every one with our controller.
    pub ingress_class_name: Option<String>,
    /// Namespaces whose objects are read; empty: all.
    pub watch_namespaces: Vec<String>,
    /// Secret with the certificate for hosts that no route gives one; `None`: such handshakes are refused.
    pub default_certificate: Option<Key>,
    /// How long the last good certificate of a host stands in while no Secret has one.
    pub certificate_grace: Duration,
    /// How the gateway stops.
    pub drain: Drain,
    /// Hostnames by namespace: a route may only name hosts below one of the suffixes of its namespace. One of a namespace
    /// that is not listed may name every other host.
    pub hostname_suffixes: BTreeMap<String, Vec<String>>,
    /// Defaults of routes, before the defaults of the gateway.
    pub defaults: Defaults,
    /// The most that routes and namespaces get, whatever routes set.
    pub ceilings: Ceilings,
    /// Bytes in flight that the kernel's buffers of one socket leave room for in each direction.
    pub socket_buffers: u64,
    /// Memory in use in bytes above which new connections are refused; `None`: by the limit of the control group, if it
    /// has one.
    pub memory_budget: Option<u64>,
    /// Proxies in front of the gateway, which say who the client is.
    pub trusted_proxies: TrustedProxies,
    /// The store that replicas share; `None`: tickets and the limits of subjects are those of one replica.
    pub shared_store: Option<SharedStore>,
    /// The most replicas that run; `None`: not known.
    pub replicas: Option<NonZeroUsize>,
    /// Threads that move bytes; `None`: one per core.
    pub workers: Option<NonZeroUsize>,
    /// Form of the log and the access log.
    pub log_format: Format,
}

/// Where the gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// TLS: the WebSockets.
    pub wss: SocketAddr,
    /// Plain: redirects and ACME challenges, never a WebSocket.
    pub http: SocketAddr,
    /// Health and metrics; loopback unless you open it.
    pub admin: SocketAddr,
}

impl Default for Listeners {
    /// Every address on 8443 and 8080, loopback on 9900.
    fn default() -> Self {
        Self {
            wss: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8443)),
            http: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9900)),
        }
    }
}

/// How the gateway stops: it goes on accepting for a grace period while it says that it is ready, then stops accepting,
/// then closes connections one after the other over the window, then gives the last ones until the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long connections are still accepted after the signal.
    pub accept_grace: Duration,
    /// How long the closes are spread over after that.
    pub window: Duration,
    /// How long after the window the last closing handshakes may take.
    pub deadline: Duration,
}

impl Default for Drain {
    /// 5 s, 20 s and 10 s: within the 45 s that a Pod needs as terminationGracePeriod.
    fn default() -> Self {
        Self {
            accept_grace: Duration::from_secs(5),
            window: Duration::from_secs(20),
            deadline: Duration::from_secs(10),
        }
    }
}

/// What flags and environment say; flags have won over the environment already. `None` and `false`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--manifests`
    pub manifests: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--listen-http`
    pub listen_http: Option<SocketAddr>,
    /// `--admin`
    pub admin: Option<SocketAddr>,
    /// `--echo`
    pub echo: Option<SocketAddr>,
    /// `--dev`
    pub dev: bool,
    /// `--workers`
    pub workers: Option<NonZeroUsize>,
    /// `--log-format`
    pub log_format: Option<Format>,
    /// Flags of a cluster.
    pub cluster: ClusterOverrides,
}

impl Settings {
    /// The one merge: flags and environment before the file before the defaults.
    pub fn merge(overrides: Overrides, file: Option<GatewayConfiguration>) -> Self {
        let file = file.unwrap_or_default();
        let listeners = Listeners::default();
        let drain = Drain::default();
        Self {
            listeners: Listeners {
                wss: overrides.listen.or(file.listeners.wss).unwrap_or(listeners.wss),
                http: overrides.listen_http.or(file.listeners.http).unwrap_or(listeners.http),
                admin: overrides.admin.or(file.listeners.admin).unwrap_or(listeners.admin),
            },
            manifests: overrides.manifests.or(file.manifests),
            watch_namespaces: Some(overrides.cluster.watch_namespaces.clone())
                .filter(|named| !named.is_empty())
                .unwrap_or(file.watch_namespaces),
            cluster: ClusterSettings::merge(overrides.cluster, file.cluster),
            echo: overrides.echo.or(file.echo),
            dev: overrides.dev,
            controller_name: file.controller_name.unwrap_or_else(|| CONTROLLER.to_owned()),
            ingress_class_name: file.ingress_class_name,
            default_certificate: file.default_certificate.map(|secret| Key::new(secret.namespace, secret.name)),
            certificate_grace: file.certificate_grace.unwrap_or(CERTIFICATE_GRACE),
            drain: Drain {
                accept_grace: file.drain.accept_grace.unwrap_or(drain.accept_grace),
                window: file.drain.window.unwrap_or(drain.window),
                deadline: file.drain.deadline.unwrap_or(drain.deadline),
            },
            hostname_suffixes: file.hostname_suffixes,
            defaults: file.defaults,
            ceilings: file.ceilings,
            socket_buffers: file.socket_buffers.unwrap_or(SOCKET_BUFFERS),
            memory_budget: file.memory_budget,
            trusted_proxies: file.trusted_proxies,
            shared_store: file.shared_store,
            replicas: file.replicas,
            workers: overrides.workers.or(file.workers),
            log_format: overrides.log_format.or(file.log_format).unwrap_or_default(),
        }
    }
}

impl Default for Settings {
    /// The defaults.
    fn default() -> Self {
        Self::merge(Overrides::default(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> GatewayConfiguration {
        let head = "apiVersion: config.wssgate.io/v1alpha1\nkind: GatewayConfiguration\n";
        GatewayConfiguration::parse("settings.yaml", &format!("{head}{text}")).unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_defaults_are_what_the_documentation_says() {
        let settings = Settings::default();
        assert_eq!(settings.listeners.wss, address("[::]:8443"));
        assert_eq!(settings.listeners.http, address("[::]:8080"));
        assert_eq!(settings.listeners.admin, address("127.0.0.1:9900"));
        assert_eq!(settings.controller_name, "wssgate.io/ingress-controller");
        assert_eq!((settings.log_format, settings.socket_buffers), (Format::Json, 256 << 10));
        assert!(!settings.dev && settings.echo.is_none() && settings.manifests.is_none());
    }

    #[test]
    fn the_file_wins_over_the_defaults() {
        let settings = Settings::merge(
            Overrides::default(),
            Some(file(
                "listeners: {wss: '127.0.0.1:1', http: '127.0.0.1:2', admin: '127.0.0.1:3'}\n\
                 manifests: /m\necho: 127.0.0.1:4\nworkers: 2\nlogFormat: text\nmemoryBudget: 512Mi\nsocketBuffers: 64Ki\n\
                 drain: {acceptGrace: 1s, window: 2s, deadline: 3s}\n\
                 defaultCertificate: {namespace: shop, name: tls}\ncontrollerName: example.com/own\n",
            )),
        );
        assert_eq!(settings.listeners.wss, address("127.0.0.1:1"));
        assert_eq!(settings.listeners.http, address("127.0.0.1:2"));
        assert_eq!(settings.listeners.admin, address("127.0.0.1:3"));
        assert_eq!(settings.echo, Some(address("127.0.0.1:4")));
        assert_eq!(settings.manifests, Some("/m".into()));
        assert_eq!(settings.workers.map(NonZeroUsize::get), Some(2));
        assert_eq!(settings.log_format, Format::Text);
        assert_eq!(settings.memory_budget, Some(512 << 20));
        assert_eq!(settings.socket_buffers, 64 << 10);
        assert_eq!(settings.drain.window, Duration::from_secs(2));
        assert_eq!(settings.default_certificate, Some(Key::new("shop", "tls")));
        assert_eq!(settings.controller_name, "example.com/own");
    }

    #[test]
    fn flags_and_environment_win_over_the_file() {
        let overrides = Overrides {
            manifests: Some("/flag".into()),
            listen: Some(address("127.0.0.1:11")),
            listen_http: Some(address("127.0.0.1:12")),
            admin: Some(address("127.0.0.1:13")),
            echo: Some(address("127.0.0.1:14")),
            dev: true,
            workers: NonZeroUsize::new(7),
            log_format: Some(Format::Json),
            cluster: ClusterOverrides {
                kubeconfig: Some("/k".into()),
                watch_namespaces: vec!["flag".into()],
                publish_service: Some(Key::new("flag", "gateway")),
                leader_election: Some(false),
            },
        };
        let settings = Settings::merge(
            overrides,
            Some(file(
                "listeners: {wss: '127.0.0.1:1', http: '127.0.0.1:2', admin: '127.0.0.1:3'}\n\
                 manifests: /m\necho: 127.0.0.1:4\nworkers: 2\nlogFormat: text\nwatchNamespaces: [file]\n\
                 cluster: {kubeconfig: /f, publishService: {namespace: file, name: gateway},
                   leaderElection: {enabled: true, leaseName: file}}\n",
            )),
        );
        assert_eq!(settings.watch_namespaces, ["flag"]);
        assert_eq!(settings.cluster.kubeconfig, Some("/k".into()));
        assert_eq!(settings.cluster.publish_service, Some(Key::new("flag", "gateway")));
        assert_eq!((settings.cluster.leader_election, settings.cluster.lease_name.as_str()), (false, "file"));
        assert_eq!(settings.listeners.wss, address("127.0.0.1:11"));
        assert_eq!(settings.listeners.http, address("127.0.0.1:12"));
        assert_eq!(settings.listeners.admin, address("127.0.0.1:13"));
        assert_eq!(settings.echo, Some(address("127.0.0.1:14")));
        assert_eq!(settings.manifests, Some("/flag".into()));
        assert_eq!(settings.workers.map(NonZeroUsize::get), Some(7));
        assert_eq!(settings.log_format, Format::Json);
        assert!(settings.dev);
    }

    #[test]
    fn a_part_of_a_group_leaves_the_rest_of_it_at_its_defaults() {
        let settings =
            Settings::merge(Overrides::default(), Some(file("drain: {window: 1m}\nlisteners: {admin: '[::1]:1'}\n")));
        assert_eq!(settings.drain, Drain { window: Duration::from_secs(60), ..Drain::default() });
        assert_eq!(settings.listeners, Listeners { admin: address("[::1]:1"), ..Listeners::default() });
    }
}
