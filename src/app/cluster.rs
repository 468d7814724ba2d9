//! A cluster as the source, and what else is done with it: which addresses are blocked, who leads, and what is written
//! back.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::api::route_id::RouteId;
use crate::api::status::Address;
use crate::compile::ownership::class::is_default;
use crate::compile::{self, Compiled};
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::settings::Settings;
use crate::settings::cluster::{ClusterSettings, Secrets};
use crate::source::Source;
use crate::source::cluster::{self, Cluster, Connection};
use crate::source::loaded::Loaded;
use crate::status::{Election, address};
use crate::telemetry::metrics::Metrics;
use crate::{issuance, status};

/// The class that stands in where IngressClasses may not be read.
const CLASS: &str = "wssgate";
/// The Pod's own address, name and namespace, by the downward API.
const POD_IP: &str = "POD_IP";
const POD_IPS: &str = "POD_IPS";
const POD_NAME: &str = "POD_NAME";
const POD_NAMESPACE: &str = "POD_NAMESPACE";

/// What else is done with a cluster.
pub(super) struct Control {
    election: Election,
    statuses: status::Writer,
    issuance: issuance::Writer,
    /// Certificates that the API server refuses to have.
    refused: watch::Receiver<issuance::Refused>,
    controller: String,
    /// Addresses that win over those of the Service.
    addresses: Vec<Address>,
}

impl Control {
    fn start(settings: &Settings, connection: &Connection, metrics: &Metrics) -> Self {
        let ClusterSettings { leader_election, lease_name, lease_namespace, .. } = &settings.cluster;
        let client = connection.client.clone();
        let pod = variable(POD_NAME).or_else(|| variable("HOSTNAME")).unwrap_or_else(|| "wssgate".to_owned());
        let election = if *leader_election {
            let namespace = lease_namespace.clone().or_else(|| variable(POD_NAMESPACE));
            let namespace = namespace.unwrap_or_else(|| connection.namespace.clone());
            Election::start(client.clone(), &namespace, lease_name, &pod, metrics)
        } else {
            Election::none(metrics)
        };
        let controller = settings.controller_name.clone();
        let (refuses, refused) = watch::channel(issuance::Refused::default());
        let issuance = issuance::start(client.clone(), &controller, &pod, election.leading(), refuses);
        let statuses = status::start(client, &controller, &pod, election.leading(), metrics.clone());
        let addresses = settings.cluster.publish_addresses.clone();
        Self { election, statuses, issuance, refused, controller, addresses }
    }

    /// Certificates that the API server refuses to have as they are wanted.
    pub(super) fn refused(&mut self) -> issuance::Refused {
        Arc::clone(&self.refused.borrow_and_update())
    }

    /// Waits until that may be something else. May be dropped and called again.
    pub(super) async fn changed(&mut self) {
        if self.refused.changed().await.is_err() {
            pending().await
        }
    }

    /// Hands over the statuses of the routes, and the Certificates that cert-manager is to issue.
    pub(super) fn report(&self, cluster: &Cluster, loaded: &Loaded, compiled: &Compiled) {
        self.election.compete();
        let classes = loaded.objects.ingress_classes.iter();
        let ours = classes.filter(|(_, class)| {
            class.spec.as_ref().and_then(|spec| spec.controller.as_ref()) == Some(&self.controller)
        });
        let published = || cluster.published().map_or_else(Vec::new, |service| address::of(&service));
        let routes = loaded.objects.routes.iter();
        let routes =
            routes.map(|(key, route)| (RouteId::secure_web_socket(&key.namespace, &key.name), Arc::clone(route)));
        self.statuses.report(status::Report {
            routes: routes.collect(),
            statuses: compiled.statuses.clone(),
            addresses: if self.addresses.is_empty() { published() } else { self.addresses.clone() },
            defaulted: ours.clone().any(|(_, class)| is_default(class)),
            classes: cluster.reads_classes().then(|| ours.map(|(key, _)| key.name.clone()).collect::<BTreeSet<_>>()),
        });
        self.issuance.report(issuance::Report {
            apply: compiled.wanted.apply.clone(),
            live: loaded.objects.certificates.clone(),
        });
    }

    /// Stops writing, and lets another replica begin.
    pub(super) async fn stop(self) {
        drop(self.statuses);
        drop(self.issuance);
        self.election.release().await;
    }
}

/// A cluster that is being read.
pub(super) struct Opened {
    source: Cluster,
    connection: Connection,
}

/// The cluster that the settings name, as far as they say it is to be read.
///
/// # Errors
/// No cluster is configured, or its configuration cannot be read. A cluster that does not answer is no error: it is
/// waited for.
pub(super) async fn open(settings: &Settings, metrics: &Metrics) -> Result<Opened, String> {
    let connection = cluster::connect(settings.cluster.kubeconfig.as_deref()).await?;
    let class = settings.ingress_class_name.clone().unwrap_or_else(|| CLASS.to_owned());
    let options = cluster::Options {
        namespaces: settings.watch_namespaces.clone(),
        secrets_by_name: settings.cluster.secrets == Secrets::Named,
        secrets: settings.default_certificate.iter().cloned().collect(),
        published: settings.cluster.publish_service.clone(),
        labels: settings.ceilings.match_labels(),
        class: (class, settings.controller_name.clone()),
        ..cluster::Options::default()
    };
    tracing::info!(namespaces = ?options.namespaces, "reading objects from the API server");
    Ok(Opened { source: Cluster::start(&connection.client, options, metrics), connection })
}

/// The same, as soon as everything was read.
///
/// # Errors
/// Those of [`open`].
pub(super) async fn read(settings: Settings, metrics: Metrics) -> Result<Opened, String> {
    let mut opened = open(&settings, &metrics).await?;
    opened.source.ready().await;
    Ok(opened)
}

/// Whether a cluster is to be read otherwise, or somebody else is to write to it.
pub(super) fn differs(before: &Settings, next: &Settings) -> bool {
    let part = |settings: &Settings| {
        (
            settings.cluster.clone(),
            settings.watch_namespaces.clone(),
            settings.controller_name.clone(),
            settings.ingress_class_name.clone(),
            settings.default_certificate.clone(),
            settings.ceilings.match_labels(),
        )
    };
    next.manifests.is_none() && part(before) != part(next)
}

impl Opened {
    /// The source, what else is done with it, and what a compile of its objects goes by. The settings are those by which
    /// it was opened.
    pub(super) fn parts(self, settings: &Settings, metrics: &Metrics) -> (Source, Option<Control>, compile::Options) {
        let control = Control::start(settings, &self.connection, metrics);
        let blocked = blocked(&self.connection);
        let options = compile::Options { standalone: false, blocked, ..super::options::of_compile(settings) };
        (Source::Cluster(self.source), Some(control), options)
    }
}

/// What no backend of a cluster may be.
fn blocked(connection: &Connection) -> BlockedAddresses {
    // The Pod's addresses of both families, where the installation names them.
    let own = [POD_IPS, POD_IP].into_iter().filter_map(variable);
    let own =
        own.flat_map(|text| text.split(',').filter_map(|one| one.trim().parse::<IpAddr>().ok()).collect::<Vec<_>>());
    BlockedAddresses {
        allow_loopback: false,
        addresses: own.map(|address| address.to_canonical()).collect(),
        sockets: connection.addresses.iter().copied().collect(),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
