//! The way to the API server: where it is, what is said when it cannot be reached, and which of its addresses no backend
//! may have.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

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
                "no manifests and no cluster: name a directory with --manifests DIR, or a cluster with --kubeconfig FILE \
                 or KUBECONFIG, or run in a Pod with a service account ({})",
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
        .map_err(|error| format!("the client for the API server could not be made: {}", describe(&error)))?;
    Ok(Connection { client, namespace, addresses })
}

async fn addresses(url: &http::Uri) -> Vec<SocketAddr> {
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = url.port_u16().unwrap_or(443);
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "the API server's name could not be resolved at start");
            Vec::new()
        }
    }
}

/// An error of the client in words. Nothing of an answer's body but what the API server itself says of a failure: a body
/// may hold Secrets.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("the API server answered {}", status.code),
        kube::Error::Api(status) => format!("the API server answered {}: {}", status.code, cut(&status.message)),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => "the API server's answer could not be read".to_owned(),
        error => cut(&causes(error)),
    }
}

/// An error with its causes, each thing once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}
