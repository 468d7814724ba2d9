//! A cluster as the source, and what else is done with it: which addresses are fenced off, and who writes statuses.

use std::net::IpAddr;

use crate::compile::fence::Fence;
use crate::compile::{self, Compiled};
use crate::settings::Settings;
use crate::settings::cluster::Secrets;
use crate::source::cluster::{self, Cluster, Connection};
use crate::source::{Loaded, Source};
use crate::telemetry::Metrics;

/// The class that stands in where IngressClasses may not be read.
const CLASS: &str = "wssgate";
/// The Pod's own address, by the downward API.
const POD_IP: &str = "POD_IP";

/// What else is done with a cluster.
pub(super) struct Control {}

impl Control {
    /// What became of the routes.
    pub(super) fn report(&self, _cluster: &Cluster, _loaded: &Loaded, _compiled: &Compiled) {}

    /// Ends it.
    pub(super) async fn stop(self) {}
}

/// The cluster that the settings name, what else is done with it, and what a compile of its objects goes by.
///
/// # Errors
/// No cluster is configured, or its configuration cannot be read. A cluster that does not answer is no error: it is
/// waited for.
pub(super) async fn open(
    settings: &Settings,
    metrics: &Metrics,
) -> Result<(Source, Option<Control>, compile::Options), super::Error> {
    let connection = cluster::connect(settings.cluster.kubeconfig.as_deref()).await.map_err(super::Error::Start)?;
    let class = settings.ingress_class_name.clone().unwrap_or_else(|| CLASS.to_owned());
    let options = cluster::Options {
        namespaces: settings.watch_namespaces.clone(),
        secrets_by_name: settings.cluster.secrets == Secrets::Named,
        secrets: settings.default_certificate.iter().cloned().collect(),
        published: settings.cluster.publish_service.clone(),
        class: (class, settings.controller_name.clone()),
        ..cluster::Options::default()
    };
    tracing::info!(namespaces = ?options.namespaces, "reading from the API server");
    let source = Cluster::start(&connection.client, options, metrics);
    let options = compile::Options { standalone: false, fence: fence(&connection), ..super::options(settings) };
    Ok((Source::Cluster(source), Some(Control {}), options))
}

/// What no backend of a cluster may be.
fn fence(connection: &Connection) -> Fence {
    let own = std::env::var(POD_IP).ok().and_then(|text| text.parse::<IpAddr>().ok());
    Fence {
        allow_loopback: false,
        addresses: own.into_iter().map(|address| address.to_canonical()).collect(),
        sockets: connection.addresses.iter().copied().collect(),
    }
}
