//! Settings of a gateway that reads a cluster: the member `cluster` of the settings file, and its flags over it.

use std::path::PathBuf;

use serde::Deserialize;

use super::object_name::ObjectName;
use crate::api::objects::Key;
use crate::api::scalar::is_object_name;
use crate::api::status::{Address, AddressKind};

/// The most addresses that a status can have.
const MAX_ADDRESSES: usize = 16;

/// The member `cluster` as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterFile {
    /// The kubeconfig, where the gateway does not run in a Pod.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// Which Secrets the gateway may read.
    #[serde(default)]
    pub secrets: Option<Secrets>,
    /// The gateway's own Service; its addresses become those of the routes.
    #[serde(default)]
    pub publish_service: Option<ObjectName>,
    /// Addresses of the routes, in place of those of the Service.
    #[serde(default)]
    pub publish_addresses: Vec<String>,
    /// Which of several replicas writes statuses.
    #[serde(default)]
    pub leader_election: LeaderElectionFile,
}

/// Which of several replicas writes statuses, as written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeaderElectionFile {
    /// Whether there is an election; without one this replica writes.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Name of the Lease.
    #[serde(default)]
    pub lease_name: Option<String>,
    /// Namespace of the Lease; the Pod's own if absent.
    #[serde(default)]
    pub lease_namespace: Option<String>,
}

/// Which Secrets the gateway may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Secrets {
    /// Those of the types that routes can name, by one watch for each type. What no route names is not kept.
    #[default]
    All,
    /// Only those that routes name, each by a watch of its own, so that RBAC can name them (resourceNames).
    Named,
}

/// Flags of a cluster. `None` and empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterOverrides {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--watch-namespaces`
    pub watch_namespaces: Vec<String>,
    /// `--publish-service`
    pub publish_service: Option<Key>,
    /// `--leader-election`
    pub leader_election: Option<bool>,
}

/// Effective settings of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The kubeconfig; `None`: `KUBECONFIG`, `~/.kube/config`, or the Pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Which Secrets the gateway may read.
    pub secrets: Secrets,
    /// The gateway's own Service.
    pub publish_service: Option<Key>,
    /// Addresses in place of those of the Service.
    pub publish_addresses: Vec<Address>,
    /// Whether the replicas elect one that writes statuses.
    pub leader_election: bool,
    /// Name of the Lease.
    pub lease_name: String,
    /// Namespace of the Lease; `None`: the Pod's own.
    pub lease_namespace: Option<String>,
}

impl ClusterSettings {
    /// Flags before the file before the defaults.
    pub(super) fn merge(overrides: ClusterOverrides, file: ClusterFile) -> Self {
        let named = file.publish_service.map(|service| Key::new(service.namespace, service.name));
        Self {
            kubeconfig: overrides.kubeconfig.or(file.kubeconfig),
            secrets: file.secrets.unwrap_or_default(),
            publish_service: overrides.publish_service.or(named),
            publish_addresses: file.publish_addresses.iter().map(|text| address(text)).collect(),
            leader_election: overrides.leader_election.or(file.leader_election.enabled).unwrap_or(true),
            lease_name: file.leader_election.lease_name.unwrap_or_else(|| "wssgate".to_owned()),
            lease_namespace: file.leader_election.lease_namespace,
        }
    }
}

/// What is wrong with the member `cluster` beyond its types: the key below it, and the fix.
pub(super) fn check(file: &ClusterFile) -> Option<(String, &'static str)> {
    if file.publish_addresses.len() > MAX_ADDRESSES {
        return Some(("publishAddresses".to_owned(), "must list at most 16 addresses"));
    }
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok() || is_object_name(text);
    if let Some(index) = file.publish_addresses.iter().position(|text| !is_address(text)) {
        return Some((format!("publishAddresses[{index}]"), "write an IP address or a host name in lower case"));
    }
    let LeaderElectionFile { lease_name, lease_namespace, .. } = &file.leader_election;
    if lease_name.as_deref().is_some_and(|name| !is_object_name(name)) {
        return Some(("leaderElection.leaseName".to_owned(), "write a name in lower case"));
    }
    if lease_namespace.as_deref().is_some_and(|name| !is_object_name(name)) {
        return Some(("leaderElection.leaseNamespace".to_owned(), "write a name in lower case"));
    }
    None
}

fn address(text: &str) -> Address {
    let kind = if text.parse::<std::net::IpAddr>().is_ok() { AddressKind::IpAddress } else { AddressKind::Hostname };
    Address { kind, value: text.to_owned() }
}
