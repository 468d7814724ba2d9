//! The connection to the API server: where it is, the error when none is configured, and its addresses, which are blocked.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::kube_error::{causes, describe};

/// Time to connect to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// A client, and what is known of its API server.
#[derive(Clone)]
pub struct Connection {
    /// The client. Its requests are not repeated by themselves.
    pub client: Client,
    /// The namespace of the service account, or of the kubeconfig's context.
    pub namespace: String,
    /// Addresses of the API server by the configuration; resolved once.
    pub addresses: Vec<SocketAddr>,
}

/// A client by the kubeconfig given, else by `KUBECONFIG` or `~/.kube/config`, else by the Pod's service account. Reaches
/// for no network besides the name service.
///
/// # Errors
/// A sentence for the user: no configuration, or one that cannot be read, and what to do.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Connection, String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|error| format!("--kubeconfig {}: {}", path.display(), causes(&error)))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| format!("--kubeconfig {}: {}", path.display(), causes(&error)))?
        }
        None => Config::infer().await.map_err(|error| {
            format!(
                "no manifests and no cluster are configured; name a directory with --manifests DIR, or a cluster with \
                 --kubeconfig FILE or KUBECONFIG, or run in a Pod with a service account ({})",
                causes(&error)
            )
        })?,
    };
    config.connect_timeout = Some(CONNECT);
    // Who reads or writes decides when to try again, and knows how things stand.
    config.default_retry = false;
    let namespace = config.default_namespace.clone();
    let addresses = addresses(&config.cluster_url).await;
    let client = Client::try_from(config)
        .map_err(|error| format!("the client for the API server cannot be made: {}", describe(&error)))?;
    Ok(Connection { client, namespace, addresses })
}

async fn addresses(url: &http::Uri) -> Vec<SocketAddr> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(443);
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the name of the API server could not be resolved");
            Vec::new()
        }
    }
}
