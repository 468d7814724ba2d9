//! Writes Certificates by the plan, while this replica leads: by server-side apply, one at a time, each once, and again
//! later where it failed. Publishes an event on the route when cert-manager has issued.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::plan::{Report, Write};
use super::queue::{Failure, Queue, Refusal};
use crate::api::certificate::{Certificate, GROUP, VERSION};
use crate::api::objects::Key;
use crate::api::route::SecureWebSocketRoute;
use crate::kube_error::{NO_ANSWER, describe};
use crate::writer::{self, Again, Events, Next, PATIENCE};

/// The least time from one write to the next.
const PACE: Duration = Duration::from_millis(50);

/// The least time from one report of refusals to the next: each makes all routes be compiled anew.
const REPORT: Duration = Duration::from_secs(1);

/// The cause that the API server names of a refusal in a namespace that is being deleted.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// Keeps Certificates for as long as it is there.
pub type Writer = writer::Writer<Report>;

/// Certificates that the API server refuses, and its messages. Only the replica that writes knows of any.
pub type Refused = Arc<BTreeMap<Key, String>>;

/// A writer that writes while `leading` says so. `instance` is the name of this replica in events; refusals of the API
/// server are reported to `refused`.
pub fn start(
    client: Client,
    controller: &str,
    instance: &str,
    leading: watch::Receiver<bool>,
    refused: watch::Sender<Refused>,
) -> Writer {
    let work = Work {
        events: Events::new(client.clone(), controller, instance),
        client,
        manager: writer::field_manager(controller),
        queue: Queue::default(),
        refused,
        reported: None,
        announced: None,
        revisions: HashMap::new(),
    };
    Writer::start(work, leading)
}

struct Work {
    client: Client,
    events: Events,
    manager: String,
    queue: Queue,
    refused: watch::Sender<Refused>,
    /// When refusals were reported last.
    reported: Option<Instant>,
    /// The report whose Certificates were announced last.
    announced: Option<Arc<Report>>,
    /// How often each was issued, as it was seen last.
    revisions: HashMap<Key, i64>,
}

/// Why a write failed.
#[derive(Debug)]
struct WriteError {
    /// For the log.
    why: String,
    /// The API server's answer, if it judged the write.
    refusal: Option<Refusal>,
    /// What the Certificate is for is being deleted: nothing is wrong, and there is nothing to be done.
    leaving: bool,
}

impl WriteError {
    /// A failure that the API server did not judge.
    fn new(why: &str) -> Self {
        Self { why: why.to_owned(), refusal: None, leaving: false }
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        if is_namespace_terminating(&error) {
            return Self { leaving: true, ..Self::new(&describe(&error)) };
        }
        let refusal = match &error {
            // Authentication and rate limits are no judgement of this Certificate.
            kube::Error::Api(status) if ![401, 429].contains(&status.code) => {
                Some(Refusal { code: status.code, text: describe(&error) })
            }
            _ => None,
        };
        Self { refusal, ..Self::new(&describe(&error)) }
    }
}

/// Whether the API server refuses to create anything because the namespace is being deleted.
fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.any(|cause| cause.reason == NAMESPACE_TERMINATING)
}

impl writer::Work<Report> for Work {
    async fn step(&mut self, report: &Arc<Report>, leading: &watch::Receiver<bool>) -> Next {
        let leads = *leading.borrow();
        if self.announced.as_ref().is_none_or(|announced| !Arc::ptr_eq(announced, report)) {
            self.announce(report, leads).await;
            self.announced = Some(Arc::clone(report));
        }
        if !leads {
            self.queue.clear();
            return Next::Later(self.report_refusals(Instant::now()));
        }
        let (write, later) = self.queue.next(report, Instant::now());
        let Some(write) = write else {
            let due = self.report_refusals(Instant::now());
            return Next::Later(later.into_iter().chain(due).min());
        };
        let began = Instant::now();
        self.write(write).await;
        self.report_refusals(Instant::now());
        sleep(PACE.saturating_sub(began.elapsed())).await;
        Next::Now
    }
}

impl Work {
    /// Reports the refusals, if they changed; when that may be done, if not at once.
    fn report_refusals(&mut self, now: Instant) -> Option<Instant> {
        if !self.queue.has_changed() {
            return None;
        }
        if let Some(due) = self.reported.map(|reported| reported + REPORT).filter(|due| *due > now) {
            return Some(due);
        }
        self.reported = Some(now);
        self.refused.send_replace(Arc::new(self.queue.refused()));
        None
    }

    async fn write(&mut self, write: Write) {
        let outcome = match timeout(PATIENCE, self.perform(&write)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(WriteError::new(NO_ANSWER)),
        };
        let failure = match outcome {
            Ok(()) => {
                tracing::info!(certificate = %write.key, "Certificate applied");
                if write.live.is_none() {
                    self.revisions.insert(write.key.clone(), 0);
                }
                None
            }
            Err(WriteError { why, leaving: true, .. }) => {
                // The next report does not want it any more, so that it is seldom tried again.
                let before = self.queue.failure(&write.key).map(|before| before.again);
                let again = Again::after(before, Instant::now());
                tracing::debug!(certificate = %write.key, problem = why, retry_ms = again.pause.as_millis() as u64,
                    "Certificate is not created");
                Some(Failure { again, refusal: None })
            }
            Err(WriteError { why, refusal, leaving: false }) => {
                let before = self.queue.failure(&write.key).cloned();
                let again = Again::after(before.as_ref().map(|before| before.again), Instant::now());
                tracing::warn!(certificate = %write.key, problem = why, retry_ms = again.pause.as_millis() as u64,
                    "Certificate could not be written");
                if before.is_none() {
                    let note = format!("Certificate {} could not be written: {why}", write.key);
                    self.publish(&write.wanted, EventType::Warning, "CertificateNotWritten", note).await;
                }
                // The message may have a number or a time in it: the first one of a status stays, or every attempt would be a
                // change.
                let last = before.and_then(|before| before.refusal);
                let refusal = refusal.map(|next| last.filter(|last| last.code == next.code).unwrap_or(next));
                Some(Failure { again, refusal })
            }
        };
        self.queue.tried(write, failure);
    }

    async fn perform(&self, write: &Write) -> Result<(), WriteError> {
        let Write { key, live, wanted } = write;
        let api: Api<Certificate> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut params = PatchParams::apply(&self.manager);
        if live.is_some() {
            params = params.force();
        } else if api.get_metadata_opt(&key.name).await?.is_some() {
            // Someone else's may have come meanwhile: it is read and judged first. Without force the API server refuses
            // what would change another's fields, should one come even now.
            return Err(WriteError::new("it already exists and was not read yet"));
        } else if self.is_any_owner_leaving(wanted).await? {
            let why = "a route that it is for was deleted, or is being deleted";
            return Err(WriteError { leaving: true, ..WriteError::new(why) });
        }
        let body = body(wanted, live.as_deref());
        api.patch(&key.name, &params, &Patch::Apply(&body)).await?;
        Ok(())
    }

    /// Whether a route that a Certificate is made for is being deleted or gone. The report may be older than that: the
    /// garbage collector may have deleted the Certificate already, and what is made now would be an order too many.
    async fn is_any_owner_leaving(&self, certificate: &Certificate) -> Result<bool, kube::Error> {
        let namespace = certificate.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<SecureWebSocketRoute> = Api::namespaced(self.client.clone(), namespace);
        for owner in certificate.metadata.owner_references.iter().flatten() {
            let route = api.get_metadata_opt(&owner.name).await?;
            let stays = route.is_some_and(|route| {
                let ObjectMeta { uid, deletion_timestamp, .. } = route.metadata;
                uid.as_ref() == Some(&owner.uid) && deletion_timestamp.is_none()
            });
            if !stays {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Publishes events on the routes of Certificates that were issued since they were seen last. Only the leader does, but
    /// all replicas count, so that a change of leader repeats nothing.
    async fn announce(&mut self, report: &Report, leads: bool) {
        self.revisions.retain(|key, _| report.apply.contains_key(key));
        for (key, wanted) in &report.apply {
            let Some(live) = report.live.get(key) else { continue };
            let revision = live.status.revision.unwrap_or(0);
            let before = self.revisions.insert(key.clone(), revision);
            if leads && before.is_some_and(|before| before < revision) {
                let names = wanted.spec.dns_names.join(", ");
                let note = format!("Certificate {key} issued for {names} (revision {revision})");
                self.publish(wanted, EventType::Normal, "CertificateIssued", note).await;
            }
        }
    }

    /// Publishes an event on the route that a Certificate is kept for.
    async fn publish(&self, certificate: &Certificate, type_: EventType, reason: &str, note: String) {
        let owners = certificate.metadata.owner_references.as_ref();
        let Some(owner) = owners.into_iter().flatten().find(|owner| owner.controller == Some(true)) else { return };
        let route = ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            namespace: certificate.metadata.namespace.clone(),
            uid: Some(owner.uid.clone()),
            ..ObjectReference::default()
        };
        self.events.publish(&route, type_, reason, "Issue", note).await;
    }
}

/// What is applied. The `uid` of what is there keeps it from reaching another Certificate of the same name.
fn body(certificate: &Certificate, live: Option<&Certificate>) -> Value {
    let mut body = json!(certificate);
    body["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
    body["kind"] = json!("Certificate");
    if let Some(uid) = live.and_then(|live| live.metadata.uid.as_ref()) {
        body["metadata"]["uid"] = json!(uid);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, details: &Value) -> WriteError {
        let status =
            json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": code, "details": details});
        kube::Error::Api(serde_json::from_value(status).unwrap()).into()
    }

    #[test]
    fn a_namespace_that_is_being_deleted_is_no_refusal_of_the_certificate() {
        let cause = json!({"causes": [{"reason": "NamespaceTerminating", "message": "being terminated",
            "field": "metadata.namespace"}]});
        let error = refused(403, &cause);
        assert!(error.leaving && error.refusal.is_none(), "{error:?}");
        let error = refused(403, &json!({"name": "tls"}));
        assert!(!error.leaving && error.refusal.is_some_and(|refusal| refusal.code == 403));
        assert!(refused(429, &Value::Null).refusal.is_none());
    }
}
