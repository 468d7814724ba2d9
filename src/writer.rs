//! What the writers to the API server share: the newest report is worked off while this replica leads, what failed is
//! tried again after a pause that grows, and people are told by events. What is written is each writer's own.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::CONTROLLER;
use crate::backoff::Backoff;
use crate::kube_error::{NO_ANSWER, describe};

/// Time for one request.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The pauses after failed writes.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// The field manager of a gateway with the controller's usual name.
const MANAGER: &str = "wssgate";
/// The most bytes of a note (events.k8s.io/v1 allows 1 KiB).
const NOTE: usize = 1000;

/// The field manager of a controller: gateways of different controllers must not take back what the other said.
pub fn field_manager(controller: &str) -> String {
    if controller == CONTROLLER { MANAGER.to_owned() } else { controller.to_owned() }
}

/// Works off reports for as long as it is there.
pub struct Writer<R> {
    report: watch::Sender<Arc<R>>,
    task: JoinHandle<()>,
}

impl<R: Default + Send + Sync + 'static> Writer<R> {
    /// Begins to work. Needs a tokio runtime.
    pub fn start(work: impl Work<R>, leading: watch::Receiver<bool>) -> Self {
        let (report, reports) = watch::channel(Arc::default());
        Self { report, task: tokio::spawn(run(work, reports, leading)) }
    }

    /// What is to be worked off; replaces what was reported before.
    pub fn report(&self, report: R) {
        self.report.send_replace(Arc::new(report));
    }
}

impl<R> Drop for Writer<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a writer does with a report.
pub trait Work<R>: Send + 'static {
    /// Does a part of what is to be done, and keeps its own pace. `leading` says whether this replica may write, and may
    /// change meanwhile.
    fn step(&mut self, report: &Arc<R>, leading: &watch::Receiver<bool>) -> impl Future<Output = Next> + Send;
}

/// When the next step is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// When the report or the leader changes, and at that moment if there is one.
    Later(Option<Instant>),
}

async fn run<R>(mut work: impl Work<R>, mut reports: watch::Receiver<Arc<R>>, mut leading: watch::Receiver<bool>) {
    let mut fault: Option<Again> = None;
    loop {
        leading.mark_unchanged();
        let report = Arc::clone(&reports.borrow_and_update());
        // Without a word a replica would go on to lead, and write nothing.
        let due = if let Ok(next) = AssertUnwindSafe(work.step(&report, &leading)).catch_unwind().await {
            fault = None;
            let Next::Later(due) = next else { continue };
            due
        } else {
            let again = Again::after(fault, Instant::now());
            fault = Some(again);
            tracing::error!(
                retry_ms = again.pause.as_millis() as u64,
                "writing to the API server panicked; this is a bug, please report it"
            );
            Some(again.at)
        };
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            changed = leading.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

/// The first `most` of these: of each namespace in turn, and of one namespace in their order, so that one that asks
/// without end keeps nothing of another waiting. `last` is the namespace whose turn was last.
pub fn in_turn<T>(all: Vec<T>, namespace: impl Fn(&T) -> &str, most: usize, last: &mut String) -> Vec<T> {
    let mut waiting: BTreeMap<String, VecDeque<T>> = BTreeMap::new();
    for one in all {
        match waiting.get_mut(namespace(&one)) {
            Some(queue) => queue.push_back(one),
            None => drop(waiting.insert(namespace(&one).to_owned(), VecDeque::from([one]))),
        }
    }
    let mut taken = Vec::new();
    while taken.len() < most {
        let behind = waiting.range(last.clone()..).map(|(namespace, _)| namespace).find(|namespace| *namespace != last);
        let Some(next) = behind.or_else(|| waiting.keys().next()).cloned() else { break };
        let Some(queue) = waiting.get_mut(&next) else { break };
        taken.extend(queue.pop_front());
        if queue.is_empty() {
            waiting.remove(&next);
        }
        *last = next;
    }
    taken
}

/// When what failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// The moment.
    pub at: Instant,
    /// The pause until then, as it was when it began.
    pub pause: Duration,
    backoff: Backoff,
}

impl Again {
    /// After a failure at `now`, the one `before` having been the last without a success between.
    pub fn after(before: Option<Self>, now: Instant) -> Self {
        let mut backoff = before.map_or(PAUSES, |before| before.backoff);
        let pause = backoff.next();
        Self { at: now + pause, pause, backoff }
    }

    /// The earlier of this moment and `other`, if there is one.
    pub fn or_earlier(self, other: Option<Instant>) -> Option<Instant> {
        Some(other.map_or(self.at, |other| other.min(self.at)))
    }
}

/// Publishes events.
pub struct Events(Recorder);

impl Events {
    /// Events of `controller`, from the replica `instance`.
    pub fn new(client: Client, controller: &str, instance: &str) -> Self {
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Publishes one about an object, with a note of any length. One that cannot be published is lost: the status says
    /// the same.
    pub async fn publish(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        while note.len() > NOTE {
            note.pop();
        }
        let (reason, action) = (reason.to_owned(), action.to_owned());
        let event = Event { type_, reason, note: Some(note), action, secondary: None };
        let problem = match timeout(PATIENCE, self.0.publish(&event, about)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => describe(&error),
            Err(_) => NO_ANSWER.to_owned(),
        };
        let (namespace, name) = (about.namespace.as_deref(), about.name.as_deref());
        tracing::debug!(namespace, name, problem, "Event could not be published");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics at its first step, and counts them.
    struct Faulty(watch::Sender<usize>);

    impl Work<()> for Faulty {
        async fn step(&mut self, _report: &Arc<()>, _leading: &watch::Receiver<bool>) -> Next {
            self.0.send_modify(|count| *count += 1);
            assert!(*self.0.borrow() > 1, "a fault");
            Next::Later(None)
        }
    }

    #[test]
    fn a_namespace_that_asks_without_end_keeps_nothing_of_another_waiting() {
        type Write = (&'static str, usize);
        let turns = |all: Vec<Write>, most: usize, last: &mut String| in_turn(all, |write| write.0, most, last);
        let greedy = || (0..1000).map(|number| ("a", number));
        let mut last = String::new();
        let first = turns(greedy().chain([("b", 0), ("b", 1), ("c", 0)]).collect(), 4, &mut last);
        assert_eq!(first, [("a", 0), ("b", 0), ("c", 0), ("a", 1)]);
        // All of its routes have changed again: the other namespace has its turn first.
        let second = turns(greedy().chain([("b", 1)]).collect(), 3, &mut last);
        assert_eq!(second, [("b", 1), ("a", 0), ("a", 1)]);
        assert_eq!(turns(greedy().take(2).collect(), 10, &mut last), [("a", 0), ("a", 1)]);
        assert!(turns(Vec::new(), 10, &mut last).is_empty());
        // Nor do many namespaces: each has one turn before the first has its second.
        let many: Vec<Write> =
            ["d", "e", "f", "g", "h", "i"].into_iter().flat_map(|name| [(name, 0), (name, 1)]).collect();
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.extend(turns(many.clone(), 2, &mut last).into_iter().map(|write| write.0));
        }
        assert_eq!(seen, ["d", "e", "f", "g", "h", "i"]);
    }

    #[tokio::test]
    async fn a_step_that_panics_is_done_again() {
        let (count, mut counted) = watch::channel(0);
        let (_leads, leading) = watch::channel(true);
        let _writer = Writer::start(Faulty(count), leading);
        let again = counted.wait_for(|count| *count > 1);
        assert!(timeout(Duration::from_secs(20), again).await.expect("a second step").is_ok());
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_success() {
        let now = Instant::now();
        let mut again = Again::after(None, now);
        for whole in [1, 2, 4, 8, 16, 32, 60, 60] {
            let whole = Duration::from_secs(whole);
            assert!(again.pause >= whole / 2 && again.pause <= whole, "{:?} of {whole:?}", again.pause);
            assert_eq!(again.at, now + again.pause);
            again = Again::after(Some(again), now);
        }
        assert!(Again::after(None, now).pause <= Duration::from_secs(1));
        assert_eq!(again.or_earlier(None), Some(again.at));
        assert_eq!(again.or_earlier(Some(now)), Some(now));
    }
}
