//! Writes what the plan says, while this replica leads: by server-side apply, one at a time, each once, and again later
//! where it failed. Tells the route when cert-manager has issued.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::EventType;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::plan::{Report, Write, plan};
use crate::api::certificate::{Certificate, GROUP, VERSION};
use crate::api::objects::Key;
use crate::telemetry::failure::describe;
use crate::writer::{self, Again, Events, Next, PATIENCE};

/// The least time from one write to the next.
const PACE: Duration = Duration::from_millis(50);

/// Keeps Certificates for as long as it is there.
pub type Writer = writer::Writer<Report>;

/// A writer that writes while `leading` says so. `instance` is the name of this replica in events.
pub fn start(client: Client, controller: &str, instance: &str, leading: watch::Receiver<bool>) -> Writer {
    let work = Work {
        events: Events::new(client.clone(), controller, instance),
        client,
        manager: writer::field_manager(controller),
        tried: HashMap::new(),
        revisions: HashMap::new(),
    };
    Writer::start(work, leading)
}

struct Work {
    client: Client,
    events: Events,
    manager: String,
    /// The last write of each Certificate, until it is as it shall be.
    tried: HashMap<Key, Tried>,
    /// How often each was issued, as it was seen last.
    revisions: HashMap<Key, i64>,
}

/// A write that was tried.
struct Tried {
    write: Write,
    /// When it may be tried again; `None`: it succeeded.
    again: Option<Again>,
}

impl writer::Work<Report> for Work {
    async fn step(&mut self, report: &Report, leading: &watch::Receiver<bool>) -> Next {
        let leads = *leading.borrow();
        self.tell(report, leads).await;
        if !leads {
            // Whoever leads next goes by what the API server shows.
            self.tried.clear();
            return Next::Later(None);
        }
        let (write, later) = self.next(report);
        let Some(write) = write else { return Next::Later(later) };
        let began = Instant::now();
        self.write(write).await;
        sleep(PACE.saturating_sub(began.elapsed())).await;
        Next::Now
    }
}

impl Work {
    /// The next write, and if there is none when the first of those that failed may be tried again.
    fn next(&mut self, report: &Report) -> (Option<Write>, Option<Instant>) {
        let due = plan(report);
        self.tried.retain(|key, _| due.iter().any(|write| write.key == *key));
        let now = Instant::now();
        let mut later = None;
        for write in due {
            match self.tried.get(&write.key).filter(|tried| tried.write.is_same(&write)).map(|tried| tried.again) {
                // Its outcome has not come back yet, or it is not in our power: others own what differs.
                Some(None) => {}
                Some(Some(again)) if again.at > now => later = again.or_earlier(later),
                _ => return (Some(write), None),
            }
        }
        (None, later)
    }

    async fn write(&mut self, write: Write) {
        let outcome = match timeout(PATIENCE, self.perform(&write)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("the API server does not answer".to_owned()),
        };
        let again = match outcome {
            Ok(()) => {
                tracing::info!(certificate = %write.key, "cert-manager is asked for a certificate");
                if write.live.is_none() {
                    self.revisions.insert(write.key.clone(), 0);
                }
                None
            }
            Err(why) => {
                let before = self.tried.get(&write.key).and_then(|tried| tried.again);
                let again = Again::after(before, Instant::now());
                tracing::warn!(certificate = %write.key, problem = why, again_seconds = again.pause.as_secs(),
                    "a Certificate could not be written");
                if before.is_none() {
                    let note = format!("Certificate {} could not be written: {why}", write.key);
                    self.publish(&write.wanted, EventType::Warning, "CertificateNotWritten", note).await;
                }
                Some(again)
            }
        };
        self.tried.insert(write.key.clone(), Tried { write, again });
    }

    async fn perform(&self, write: &Write) -> Result<(), String> {
        let Write { key, live, wanted } = write;
        let api: Api<Certificate> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut params = PatchParams::apply(&self.manager);
        if live.is_some() {
            params = params.force();
        } else if api.get_metadata_opt(&key.name).await.map_err(|error| describe(&error))?.is_some() {
            // Someone else's may have come meanwhile: it is read and judged first. Without force the API server refuses
            // what would change another's fields, should one come even now.
            return Err("it exists already and was not read yet".to_owned());
        }
        let body = body(wanted, live.as_deref());
        api.patch(&key.name, &params, &Patch::Apply(&body)).await.map(drop).map_err(|error| describe(&error))
    }

    /// Tells the routes of Certificates that were issued since they were seen last. Only the leader speaks, but all
    /// replicas count, so that a change of leader repeats nothing.
    async fn tell(&mut self, report: &Report, leads: bool) {
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
