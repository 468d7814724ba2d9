//! Writes what the plan says, while this replica leads: by server-side apply, one at a time, each once, and again later
//! where it failed. Tells the route when cert-manager has issued.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::plan::{Report, Write, plan};
use crate::api::CONTROLLER;
use crate::api::certificate::{Certificate, GROUP, VERSION};
use crate::api::objects::Key;
use crate::telemetry::failure::describe;

/// The least time from one write to the next.
const PACE: Duration = Duration::from_millis(50);
/// Time for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed write, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The field manager of a gateway with the controller's usual name.
const MANAGER: &str = "wssgate";
/// The most bytes of a note (events.k8s.io/v1 allows 1 KiB).
const NOTE: usize = 1000;

/// Keeps Certificates for as long as it is there.
pub struct Writer {
    report: watch::Sender<Arc<Report>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// A writer that writes while `leading` says so. `instance` is the name of this replica in events.
    pub fn start(client: Client, controller: &str, instance: &str, leading: watch::Receiver<bool>) -> Self {
        let (report, reports) = watch::channel(Arc::default());
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        let work = Work {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            // Gateways of different controllers must not take back what the other asked for.
            manager: if controller == CONTROLLER { MANAGER.to_owned() } else { controller.to_owned() },
            tried: HashMap::new(),
            revisions: HashMap::new(),
        };
        Self { report, task: tokio::spawn(work.run(reports, leading)) }
    }

    /// What routes want, and what is there; replaces what was reported before.
    pub fn report(&self, report: Report) {
        self.report.send_replace(Arc::new(report));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Work {
    client: Client,
    recorder: Recorder,
    manager: String,
    /// The last write of each Certificate, until it is as it shall be.
    tried: HashMap<Key, Tried>,
    /// How often each was issued, as it was seen last.
    revisions: HashMap<Key, i64>,
}

/// A write that was tried.
struct Tried {
    write: Write,
    /// When it may be tried again, and the pause after that; `None`: it succeeded.
    again: Option<(Instant, Duration)>,
}

impl Work {
    async fn run(mut self, mut reports: watch::Receiver<Arc<Report>>, mut leading: watch::Receiver<bool>) {
        loop {
            let leads = *leading.borrow_and_update();
            let report = Arc::clone(&reports.borrow_and_update());
            self.tell(&report, leads).await;
            let mut next = None;
            if leads {
                let (write, later) = self.next(&report);
                if let Some(write) = write {
                    let began = Instant::now();
                    self.write(write).await;
                    sleep(PACE.saturating_sub(began.elapsed())).await;
                    continue;
                }
                next = later;
            } else {
                // Whoever leads next goes by what the API server shows.
                self.tried.clear();
            }
            let again = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = reports.changed() => if changed.is_err() { return },
                changed = leading.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

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
                Some(Some((at, _))) if at > now => {
                    later = Some(later.map_or(at, |later: Instant| later.min(at)));
                }
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
                let pause = before.map_or(PAUSES.0, |(_, pause)| (pause * 2).min(PAUSES.1));
                tracing::warn!(certificate = %write.key, problem = why, again_seconds = pause.as_secs(),
                    "a Certificate could not be written");
                if before.is_none() {
                    let note = format!("Certificate {} could not be written: {why}", write.key);
                    self.publish(&write.wanted, EventType::Warning, "CertificateNotWritten", note).await;
                }
                Some((Instant::now() + pause, pause))
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

    /// Publishes an event on the route that a Certificate is kept for. One that cannot be published is lost: the status
    /// says the same.
    async fn publish(&self, certificate: &Certificate, type_: EventType, reason: &str, mut note: String) {
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
        while note.len() > NOTE {
            note.pop();
        }
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note), action: "Issue".to_owned(), secondary: None };
        if let Ok(Err(error)) = timeout(PATIENCE, self.recorder.publish(&event, &route)).await {
            tracing::debug!(route = %owner.name, problem = %describe(&error), "an event could not be published");
        }
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
