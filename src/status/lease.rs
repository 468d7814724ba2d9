//! Which of several replicas writes: a Lease (`coordination.k8s.io/v1`) by the rules of client-go's leader election.
//!
//! Only writing depends on it. A holder renews well within the time that it asked for, and stops writing before that is
//! over; others go by the local time for which they saw the Lease unchanged, never by its clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::kube_error::{NO_ANSWER, describe};
use crate::telemetry::metrics::Metrics;

/// How long a Lease is held without being renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long a holder that cannot renew still writes.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts.
const RETRY: Duration = Duration::from_secs(2);
/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(4);

/// What to do with a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It does not exist: create it.
    Create,
    /// It is free, or its holder stopped renewing: acquire it.
    Take,
    /// This replica holds it: renew it.
    Renew,
    /// Another replica holds it.
    Wait,
}

/// What `me` does with a Lease that has not changed for `unchanged`, by the local clock.
pub fn decide(lease: Option<&LeaseSpec>, me: &str, unchanged: Duration) -> Action {
    let Some(lease) = lease else { return Action::Create };
    match lease.holder_identity.as_deref() {
        None | Some("") => Action::Take,
        Some(holder) if holder == me => Action::Renew,
        Some(_) => {
            let seconds = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
            if unchanged >= Duration::from_secs(seconds) { Action::Take } else { Action::Wait }
        }
    }
}

/// The Lease as `me` writes it at `now` over `before`.
fn held(before: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let renews = before.is_some_and(|before| before.holder_identity.as_deref() == Some(me));
    let mut next = before.cloned().unwrap_or_default();
    if !renews {
        next.lease_transitions = Some(next.lease_transitions.map_or(0, |count| count.saturating_add(1)));
        next.acquire_time = Some(MicroTime(now));
    }
    next.holder_identity = Some(me.to_owned());
    next.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    next.renew_time = Some(MicroTime(now));
    next
}

/// The Lease as a holder releases it, so that the next one need not wait.
fn released(before: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..before.clone()
    }
}

/// A candidate.
pub struct Election {
    leading: watch::Receiver<bool>,
    phase: watch::Sender<Phase>,
    /// The task that competes, or what keeps `leading` open without an election.
    course: Course,
}

/// What a candidate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It does not compete yet.
    Waits,
    /// It competes.
    Competes,
    /// It releases the Lease and ends.
    Ends,
}

enum Course {
    Alone(#[expect(dead_code, reason = "kept so that the channel of leading stays open")] watch::Sender<bool>),
    Competing(JoinHandle<()>),
}

impl Election {
    /// No election: this replica leads.
    pub fn none(metrics: &Metrics) -> Self {
        metrics.leader(true);
        let (leads, leading) = watch::channel(true);
        Self { leading, phase: watch::Sender::new(Phase::Waits), course: Course::Alone(leads) }
    }

    /// A candidate for the Lease `namespace/name`, as `pod` with a random part: a process that is started anew under the
    /// same name is another candidate.
    pub fn start(client: Client, namespace: &str, name: &str, pod: &str, metrics: &Metrics) -> Self {
        let (leads, leading) = watch::channel(false);
        let phase = watch::Sender::new(Phase::Waits);
        let me = format!("{pod}_{:016x}", RandomState::new().build_hasher().finish());
        let candidate = Candidate {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            lease: format!("{namespace}/{name}"),
            me,
            seen: None,
            leads,
            metrics: metrics.clone(),
        };
        metrics.leader(false);
        let task = tokio::spawn(candidate.run(phase.subscribe()));
        Self { leading, phase, course: Course::Competing(task) }
    }

    /// Whether this replica leads.
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.clone()
    }

    /// Competes from now on, if it does not already. A replica that has not compiled yet must not lead, because it has
    /// nothing to write.
    pub fn compete(&self) {
        self.phase.send_if_modified(|phase| {
            *phase == Phase::Waits && {
                *phase = Phase::Competes;
                true
            }
        });
    }

    /// Releases the Lease.
    pub async fn release(mut self) {
        self.phase.send_replace(Phase::Ends);
        if let Course::Competing(task) = &mut self.course {
            let _ = timeout(ATTEMPT, task).await;
        }
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        if let Course::Competing(task) = &self.course {
            task.abort();
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    /// For people.
    lease: String,
    me: String,
    /// The Lease as it was seen last, and since when it is like that.
    seen: Option<(LeaseSpec, Instant)>,
    leads: watch::Sender<bool>,
    metrics: Metrics,
}

impl Candidate {
    async fn run(mut self, mut phase: watch::Receiver<Phase>) {
        if phase.wait_for(|phase| *phase != Phase::Waits).await.is_ok_and(|phase| *phase == Phase::Ends) {
            return;
        }
        let mut renewed: Option<Instant> = None;
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let left = renewed.map_or(ATTEMPT, |renewed| (renewed + DEADLINE).saturating_duration_since(began));
            let outcome = match timeout(left.min(ATTEMPT), self.attempt()).await {
                Ok(Ok(holds)) => Ok(holds),
                Ok(Err(error)) => Err(describe(&error)),
                Err(_) => Err(NO_ANSWER.to_owned()),
            };
            match outcome {
                Ok(holds) => {
                    renewed = holds.then_some(began);
                    said.clear();
                }
                Err(why) => {
                    if said != why {
                        tracing::warn!(lease = %self.lease, problem = %why, "Lease could not be read or written");
                        said = why;
                    }
                    renewed = renewed.filter(|renewed| renewed.elapsed() < DEADLINE);
                }
            }
            self.say(renewed.is_some());
            // A holder keeps its time; the others wait a little longer, each by its own measure.
            let chance = RETRY.mul_f64((RandomState::new().build_hasher().finish() % 1000) as f64 / 1000.0);
            let pause = if renewed.is_some() { RETRY } else { RETRY + chance };
            tokio::select! {
                () = sleep(pause) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Ends) => break,
            }
        }
        self.say(false);
        if renewed.is_some()
            && let Err(error) = self.release().await
        {
            tracing::debug!(lease = %self.lease, problem = %describe(&error), "Lease could not be released");
        }
    }

    fn say(&self, leads: bool) {
        if self.leads.send_if_modified(|now| std::mem::replace(now, leads) != leads) {
            self.metrics.leader(leads);
            tracing::info!(lease = %self.lease, identity = %self.me, leads, "leadership changed");
        }
    }

    /// Reads the Lease and does what is to be done. Whether we hold it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.name).await?;
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let now = Instant::now();
        match (&spec, &self.seen) {
            (Some(spec), Some((seen, _))) if spec == seen => {}
            (Some(spec), _) => self.seen = Some((spec.clone(), now)),
            (None, _) => self.seen = None,
        }
        let unchanged = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let action = decide(spec.as_ref(), &self.me, unchanged);
        let next = held(spec.as_ref(), &self.me, Timestamp::now());
        let post = PostParams::default();
        let written = match (action, lease) {
            (Action::Wait, _) => return Ok(false),
            (_, None) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                self.api.create(&post, &Lease { metadata, spec: Some(next) }).await
            }
            // With the version that was read, so that the second of two writers is refused.
            (_, Some(lease)) => self.api.replace(&self.name, &post, &Lease { spec: Some(next), ..lease }).await,
        };
        match written {
            Ok(lease) => {
                self.seen = lease.spec.map(|spec| (spec, Instant::now()));
                Ok(true)
            }
            // Somebody else was first; who, the next attempt will see. A holder is still one until then.
            Err(kube::Error::Api(status)) if status.code == 409 && action != Action::Renew => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() == Some(&self.me) {
            let spec = Some(released(&spec, Timestamp::now()));
            self.api.replace(&self.name, &PostParams::default(), &Lease { spec, ..lease }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_made_taken_renewed_or_waited_for() {
        let secs = Duration::from_secs;
        assert_eq!(decide(None, "a", secs(0)), Action::Create);
        assert_eq!(decide(Some(&LeaseSpec::default()), "a", secs(0)), Action::Take);
        assert_eq!(decide(Some(&lease("", 1)), "a", secs(0)), Action::Take);
        assert_eq!(decide(Some(&lease("a", 15)), "a", secs(0)), Action::Renew);
        assert_eq!(decide(Some(&lease("a", 15)), "a", secs(100)), Action::Renew);
        assert_eq!(decide(Some(&lease("b", 15)), "a", secs(14)), Action::Wait);
        assert_eq!(decide(Some(&lease("b", 15)), "a", secs(15)), Action::Take);
        assert_eq!(decide(Some(&lease("b", 60)), "a", secs(15)), Action::Wait, "the holder's own duration counts");
    }

    #[test]
    fn the_clock_of_another_replica_does_not_count() {
        let far = Timestamp::now() - jiff::SignedDuration::from_hours(9);
        let mut old = lease("b", 15);
        old.renew_time = Some(MicroTime(far));
        assert_eq!(decide(Some(&old), "a", Duration::ZERO), Action::Wait);
    }

    #[test]
    fn a_transition_is_counted_where_the_holder_changes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = held(None, "a", at(1));
        assert_eq!((first.lease_transitions, first.acquire_time.clone()), (Some(0), Some(MicroTime(at(1)))));
        let second = held(Some(&first), "a", at(2));
        assert_eq!((second.lease_transitions, second.acquire_time.clone()), (Some(0), Some(MicroTime(at(1)))));
        assert_eq!(second.renew_time, Some(MicroTime(at(2))));
        let third = held(Some(&second), "b", at(3));
        assert_eq!((third.lease_transitions, third.acquire_time.clone()), (Some(1), Some(MicroTime(at(3)))));
        let free = released(&third, at(4));
        assert_eq!(decide(Some(&free), "a", Duration::ZERO), Action::Take);
        assert_eq!(held(Some(&free), "a", at(5)).lease_transitions, Some(2));
    }

    #[test]
    fn a_holder_stops_before_anybody_else_may_begin() {
        assert!(DEADLINE + RETRY < DURATION);
    }
}
