//! Whether the CustomResourceDefinition of the cluster is that of this build. The API server prunes fields that an older
//! one does not know before the gateway sees them; the difference is logged, and routes are served all the same.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};

use crate::api::crd;
use crate::telemetry::metrics::Metrics;

/// Name of the definition.
const NAME: &str = "securewebsocketroutes.wssgate.io";
/// Pause between two checks.
const INTERVAL: Duration = Duration::from_secs(60);
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The definition of this build.
    Same,
    /// One with another schema.
    Different,
    /// RBAC does not let the gateway read it.
    Forbidden,
    /// It does not exist, or the API server did not answer.
    Unknown,
}

/// Checks the definition for ever, and logs each result once until it changes.
pub(super) async fn follow(client: Client, metrics: Metrics) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let own = crd::definition().pointer("/metadata/annotations").cloned().unwrap_or_default();
    let own = own.get(crd::SCHEMA_HASH).and_then(|hash| hash.as_str()).unwrap_or_default().to_owned();
    let mut logged = None;
    loop {
        let found = match timeout(REQUEST_TIMEOUT, api.get_metadata(NAME)).await {
            Ok(Ok(definition)) => {
                let hash = definition.metadata.annotations.as_ref().and_then(|all| all.get(crd::SCHEMA_HASH));
                if hash == Some(&own) { Found::Same } else { Found::Different }
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Found::Forbidden,
            _ => Found::Unknown,
        };
        if found != Found::Unknown && logged != Some(found) {
            metrics.crd_outdated(found == Found::Different);
            if found == Found::Forbidden {
                tracing::info!(
                    definition = NAME,
                    "the gateway is not allowed to read its CustomResourceDefinition and cannot tell whether it is outdated; \
                     grant it get on customresourcedefinitions (RBAC)"
                );
            }
            if found == Found::Different {
                tracing::warn!(
                    definition = NAME,
                    "the CustomResourceDefinition is not that of this version of wssgate; the API server may drop or refuse \
                     fields; run: wssgate crd | kubectl apply --server-side -f -"
                );
            }
            logged = Some(found);
        }
        sleep(INTERVAL).await;
    }
}
