//! What is still to be written of a report, planned once for each report, and the outcome of what was written. Pure: the
//! time is passed in.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::plan::{Report, Write, plan};
use crate::api::objects::Key;
use crate::writer::{Again, in_turn};

/// What is to be written.
#[derive(Default)]
pub(super) struct Queue {
    /// The report that was planned last.
    planned: Option<Arc<Report>>,
    /// Its writes that were not tried yet: of each namespace in turn, and of one in the order of the keys.
    ready: VecDeque<Write>,
    /// The namespace whose turn was last.
    last: String,
    /// The last write of each Certificate, until the Certificate is as wanted.
    tried: HashMap<Key, Tried>,
    /// The last refusals of the API server: its messages.
    refused: BTreeMap<Key, String>,
    /// Whether they changed since [`Queue::refused`] was called.
    changed: bool,
}

/// A write that was tried.
struct Tried {
    write: Write,
    /// `None`: it succeeded.
    failure: Option<Failure>,
}

/// Why a write failed, and when it may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// When.
    pub(super) again: Again,
    /// The API server's answer, if it judged the write and refused.
    pub(super) refusal: Option<Refusal>,
}

/// The API server refused a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) code: u16,
    /// Its message, as conditions show it.
    pub(super) text: String,
}

impl Queue {
    /// The next write, and if there is none when the first of those that failed may be tried again.
    pub(super) fn next(&mut self, report: &Arc<Report>, now: Instant) -> (Option<Write>, Option<Instant>) {
        if self.planned.as_ref().is_none_or(|planned| !Arc::ptr_eq(planned, report)) {
            let due = plan(report);
            let keys: HashSet<&Key> = due.iter().map(|write| &write.key).collect();
            self.tried.retain(|key, _| keys.contains(key));
            let before = self.refused.len();
            self.refused.retain(|key, _| keys.contains(key));
            self.changed |= before != self.refused.len();
            // One that was tried: its outcome has not come back yet, or it waits, or what differs is not in our power.
            let tried = |write: &Write| self.tried.get(&write.key).is_some_and(|tried| tried.write.is_same(write));
            let ready = due.into_iter().filter(|write| !tried(write)).collect();
            self.ready = in_turn(ready, |write| &write.key.namespace, usize::MAX, &mut self.last.clone()).into();
            self.planned = Some(Arc::clone(report));
        }
        if let Some(write) = self.ready.pop_front() {
            self.last.clone_from(&write.key.namespace);
            return (Some(write), None);
        }
        let failed = self.tried.values().filter_map(|tried| Some((tried.failure.as_ref()?.again.at, &tried.write)));
        match failed.min_by_key(|(at, _)| *at) {
            Some((at, write)) if at <= now => (Some(write.clone()), None),
            next => (None, next.map(|(at, _)| at)),
        }
    }

    /// A write was tried.
    pub(super) fn tried(&mut self, write: Write, failure: Option<Failure>) {
        let refused = failure.as_ref().and_then(|failure| Some(failure.refusal.as_ref()?.text.clone()));
        let before = match refused.clone() {
            Some(why) => self.refused.insert(write.key.clone(), why),
            None => self.refused.remove(&write.key),
        };
        self.changed |= before != refused;
        self.tried.insert(write.key.clone(), Tried { write, failure });
    }

    /// How the last write of a Certificate failed, if it did.
    pub(super) fn failure(&self, key: &Key) -> Option<&Failure> {
        self.tried.get(key)?.failure.as_ref()
    }

    /// Whether the refusals differ from those that [`Queue::refused`] returned last.
    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// The last refusals of the API server: its messages.
    pub(super) fn refused(&mut self) -> BTreeMap<Key, String> {
        self.changed = false;
        self.refused.clone()
    }

    /// Forgets everything: the next leader compares with what the API server has.
    pub(super) fn clear(&mut self) {
        let changed = self.changed || !self.refused.is_empty();
        *self = Self { changed, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::certificate::Certificate;
    use std::time::Duration;

    fn report(names: std::ops::Range<usize>, host: &str) -> Arc<Report> {
        let wanted = |host: &str| -> Certificate {
            serde_saphyr::from_str(&format!("{{spec: {{secretName: tls, dnsNames: [{host}]}}}}")).unwrap()
        };
        let apply = names.map(|name| (Key::new("shop", format!("{name:05}")), wanted(host))).collect();
        Arc::new(Report { apply, ..Report::default() })
    }

    fn failure(before: Option<&Failure>, now: Instant, refused: Option<&str>) -> Failure {
        let again = Again::after(before.map(|before| before.again), now);
        Failure { again, refusal: refused.map(|text| Refusal { code: 422, text: text.to_owned() }) }
    }

    #[test]
    fn each_write_of_a_report_comes_once_and_a_report_is_planned_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let report = report(0..1000, "a.test");
        let mut seen = Vec::new();
        while let (Some(write), _) = queue.next(&report, now) {
            // Whatever is left was not planned anew: the queue has nothing but the rest.
            assert_eq!(queue.ready.len(), 999 - seen.len());
            seen.push(write.key.clone());
            queue.tried(write, None);
        }
        assert!(seen.len() == 1000 && seen.is_sorted());
        let same = Arc::new(Report { apply: report.apply.clone(), ..Report::default() });
        assert!(matches!(queue.next(&same, now), (None, None)), "their outcome has not come back yet");
    }

    #[test]
    fn a_namespace_whose_certificates_change_without_end_has_one_turn_like_any_other() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let mut seen = Vec::new();
        for round in 0..4 {
            let mut apply = report(0..100, &format!("r{round}.test")).apply.clone();
            let one = report(0..1, "a.test").apply.values().next().unwrap().clone();
            apply.insert(Key::new("zoo", "one"), one.clone());
            apply.insert(Key::new("zoo", "two"), one);
            let (write, _) = queue.next(&Arc::new(Report { apply, ..Report::default() }), now);
            let write = write.unwrap();
            seen.push(write.key.namespace.clone());
            queue.tried(write, None);
        }
        assert_eq!(seen, ["shop", "zoo", "shop", "zoo"]);
    }

    #[test]
    fn what_failed_comes_again_in_its_time_and_what_is_wanted_otherwise_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let first = report(0..2, "a.test");
        let mut due = Vec::new();
        for _ in 0..2 {
            let (write, _) = queue.next(&first, now);
            let write = write.unwrap();
            let failure = failure(None, now, (write.key.name == "00000").then_some("no"));
            due.push(failure.again.at);
            queue.tried(write, Some(failure));
        }
        let (none, later) = queue.next(&first, now);
        assert!(none.is_none() && later == due.iter().min().copied());
        assert!(due.iter().all(|at| *at > now && *at <= now + Duration::from_secs(1)), "{due:?}");
        assert!(queue.has_changed());
        assert_eq!(queue.refused(), [(Key::new("shop", "00000"), "no".to_owned())].into());
        assert!(!queue.has_changed());
        let (again, _) = queue.next(&first, now + Duration::from_secs(1));
        assert!(again.is_some());
        let (other, _) = queue.next(&report(0..1, "b.test"), now);
        assert_eq!(other.unwrap().wanted.spec.dns_names, ["b.test"]);
        assert!(queue.failure(&Key::new("shop", "00001")).is_none(), "it is not wanted any more");
        queue.clear();
        assert!(queue.has_changed() && queue.refused().is_empty());
    }
}
