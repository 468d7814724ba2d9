//! What a compile goes by besides objects. Plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::api::ceilings::Ceilings;
use crate::api::objects::Key;
use crate::api::route::Defaults;
use crate::api::{CERTIFICATE_GRACE, CONTROLLER};
use crate::content::schema::KnownSchemas;
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::snapshot::dependency::Dependency;

/// What a compile depends on besides objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Development: self-signed certificates in place of Secrets that do not exist.
    pub dev: bool,
    /// Objects come from files, not from a cluster: routes need no IngressClass, and a class that does not exist is
    /// worth telling.
    pub standalone: bool,
    /// Addresses to which the gateway never connects, besides those of the cluster's API server and of `own_service`.
    pub blocked: BlockedAddresses,
    /// The Service of the gateway's replicas, whose endpoints are blocked too.
    pub own_service: Option<Key>,
    /// `spec.controller` of the IngressClasses that are ours; `status.controllerName`.
    pub controller_name: String,
    /// The one IngressClass that is ours; `None`: every one of our controller.
    pub ingress_class_name: Option<String>,
    /// The Secret for hosts that no route gives a certificate.
    pub default_certificate: Option<Key>,
    /// How long the last good certificate of a host stands in while no Secret has one.
    pub certificate_grace: Duration,
    /// Suffixes of the hostnames that a namespace may use ([`ownership::suffix`]).
    pub hostname_suffixes: BTreeMap<String, Vec<String>>,
    /// What routes that say nothing get, before the defaults of the gateway.
    pub defaults: Defaults,
    /// The most that routes get, whatever they say.
    pub ceilings: Ceilings,
    /// How many replicas there are that share no store; `None`: one, or nobody knows, or they share one.
    pub unshared: Option<NonZeroUsize>,
    /// Dependencies of handshakes that the data plane cannot reach.
    pub failing: Arc<BTreeSet<Dependency>>,
    /// Certificates that the API server refuses, and its message.
    pub refused: Arc<BTreeMap<Key, String>>,
    /// The gateway's own name among those that a request came through, where no IngressClass says more.
    pub hop: Arc<str>,
    /// Schemas of messages that were read.
    pub schemas: Arc<KnownSchemas>,
}

impl Default for Options {
    /// In a cluster, with nothing set.
    fn default() -> Self {
        Self {
            dev: false,
            standalone: false,
            blocked: BlockedAddresses::default(),
            own_service: None,
            controller_name: CONTROLLER.to_owned(),
            ingress_class_name: None,
            default_certificate: None,
            certificate_grace: CERTIFICATE_GRACE,
            hostname_suffixes: BTreeMap::new(),
            defaults: Defaults::default(),
            ceilings: Ceilings::default(),
            unshared: None,
            failing: Arc::default(),
            refused: Arc::default(),
            hop: Arc::default(),
            schemas: Arc::default(),
        }
    }
}
