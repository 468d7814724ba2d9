//! Writes statuses by the plan, while this replica leads: by server-side apply of the status alone, a few at a time, of each
//! namespace in turn, each once, and again later where it failed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::event;
use super::plan::{Report, Write, plan};
use crate::api::route::SecureWebSocketRoute;
use crate::api::route_id::RouteId;
use crate::api::status::RouteStatus;
use crate::api::{GROUP, VERSION};
use crate::kube_error::{NO_ANSWER, describe};
use crate::telemetry::metrics::Metrics;
use crate::writer::{self, Again, Events, Next, PATIENCE, in_turn};

/// Writes at a time, of each namespace in turn, and the least time that they take: at most 50 a second.
const BATCH: (usize, Duration) = (10, Duration::from_millis(200));
/// Writes statuses for as long as it is there.
pub type Writer = writer::Writer<Report>;

/// A writer that writes while `leading` says so. `instance` is the name of this replica in events.
pub fn start(
    client: Client,
    controller: &str,
    instance: &str,
    leading: watch::Receiver<bool>,
    metrics: Metrics,
) -> Writer {
    let work = Work {
        events: Events::new(client.clone(), controller, instance),
        client,
        controller: controller.to_owned(),
        manager: writer::field_manager(controller),
        metrics,
        tried: HashMap::new(),
        ours: BTreeSet::new(),
        last: String::new(),
    };
    Writer::start(work, leading)
}

struct Work {
    client: Client,
    controller: String,
    manager: String,
    events: Events,
    metrics: Metrics,
    /// The last write of each route, until the API server has shown its outcome.
    tried: HashMap<RouteId, Tried>,
    /// Routes that are ours, and those that were and still have a status of ours.
    ours: BTreeSet<RouteId>,
    /// The namespace whose turn was last.
    last: String,
}

/// A write that was tried.
struct Tried {
    /// The route as it was then: what the API server shows is older than the write while it is this one.
    route: Arc<SecureWebSocketRoute>,
    status: Option<RouteStatus>,
    /// When it may be tried again; `None`: it succeeded.
    again: Option<Again>,
}

impl writer::Work<Report> for Work {
    async fn step(&mut self, report: &Arc<Report>, leading: &watch::Receiver<bool>) -> Next {
        if !*leading.borrow() {
            // The next leader compares with what the API server has.
            self.tried.clear();
            self.ours = report.statuses.keys().cloned().collect();
            return Next::Later(None);
        }
        let (batch, later) = self.batch(report);
        if batch.is_empty() {
            return Next::Later(later);
        }
        let began = Instant::now();
        self.write(batch, leading).await;
        sleep(BATCH.1.saturating_sub(began.elapsed())).await;
        Next::Now
    }
}

impl Work {
    /// The next writes, and when the first of those that failed may be tried again.
    fn batch(&mut self, report: &Report) -> (Vec<Write>, Option<Instant>) {
        let mut due = plan(report, &self.controller, &self.ours);
        let leaving = due.iter().filter(|write| write.status.is_none()).map(|write| &write.id);
        self.ours = report.statuses.keys().chain(leaving).cloned().collect();
        let now = Instant::now();
        let mut later = None;
        due.retain(|write| {
            let Some(tried) = self.tried.get(&write.id) else { return true };
            // Transition times are those of the compile; a difference in them alone is no change.
            let same = Arc::ptr_eq(&tried.route, &write.route) && is_same(tried.status.as_ref(), write.status.as_ref());
            match tried.again {
                // The reflector has not shown the outcome yet.
                None => !same,
                Some(again) if again.at <= now => true,
                Some(again) => {
                    later = again.or_earlier(later);
                    false
                }
            }
        });
        // A write is forgotten once its outcome was shown and is right.
        self.tried.retain(|id, tried| {
            report.routes.get(id).is_some_and(|route| tried.again.is_some() || Arc::ptr_eq(route, &tried.route))
        });
        (in_turn(due, |write| &write.id.namespace, BATCH.0, &mut self.last), later)
    }

    async fn write(&mut self, batch: Vec<Write>, leading: &watch::Receiver<bool>) {
        let this = &*self;
        let outcomes = join_all(batch.into_iter().map(async |write| {
            if !*leading.borrow() {
                return None;
            }
            let outcome = this.apply(&write).await;
            if outcome == Ok(Outcome::Written) {
                event::publish(&this.events, &write).await;
            }
            Some((write, outcome))
        }))
        .await;
        for (write, outcome) in outcomes.into_iter().flatten() {
            self.metrics.status_write(outcome.is_ok());
            if outcome.is_ok() && write.status.is_none() {
                self.ours.remove(&write.id);
            }
            let again = outcome.err().map(|why| {
                let before = self.tried.get(&write.id).and_then(|tried| tried.again);
                let again = Again::after(before, Instant::now());
                tracing::warn!(route = %write.id, problem = why, retry_ms = again.pause.as_millis() as u64,
                    "status could not be written");
                again
            });
            self.tried.insert(write.id, Tried { route: write.route, status: write.status, again });
        }
    }

    async fn apply(&self, write: &Write) -> Result<Outcome, String> {
        let before = write.route.status.as_ref().and_then(|status| status.controller_name.as_deref());
        let before = before.map(writer::field_manager).filter(|manager| *manager != self.manager);
        if let (Some(manager), Some(_)) = (before, &write.status) {
            // The route came from another controller, or ours had another name: conditions of the old name that ours does not
            // set would stay.
            if let Err(problem) = self.patch(&manager, write, &json!({})).await {
                tracing::debug!(route = %write.id, manager, problem, "the status of another field manager could not be removed");
            }
        }
        self.patch(&self.manager, write, &write.status.as_ref().map_or_else(|| json!({}), |status| json!(status))).await
    }

    /// Applies the status only, so that no other field becomes ours. The uid keeps a status from reaching another
    /// route of the same name.
    async fn patch(&self, manager: &str, write: &Write, status: &Value) -> Result<Outcome, String> {
        let (kind, namespace, name) = (write.id.kind, &write.id.namespace, &write.id.name);
        let api: Api<SecureWebSocketRoute> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": kind.as_str(),
            "metadata": {"name": name, "namespace": namespace, "uid": write.route.metadata.uid},
            "status": status,
        });
        let params = PatchParams::apply(manager).force();
        match timeout(PATIENCE, api.patch_status(name, &params, &Patch::Apply(&body))).await {
            Ok(Ok(_)) => Ok(Outcome::Written),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Outcome::Gone),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(NO_ANSWER.to_owned()),
        }
    }
}

/// The outcome of a write that is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The API server has it.
    Written,
    /// The route was deleted meanwhile.
    Gone,
}

fn is_same(a: Option<&RouteStatus>, b: Option<&RouteStatus>) -> bool {
    let timeless = |status: &RouteStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_transition_time.0 = jiff::Timestamp::UNIX_EPOCH;
        }
        status
    };
    a.map(timeless) == b.map(timeless)
}
