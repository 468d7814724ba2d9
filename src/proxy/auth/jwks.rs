//! Key sets that are fetched: one per URI. They are kept outside of the snapshot and survive every swap.
//!
//! A set is fetched when a route begins to name it and again every few minutes, on the control runtime and never more
//! than once at a time. Handshakes use the last good set for as long as it is not too old; only the first ones of a new
//! URI, and those that need a key which is not there yet, wait, and that for a bounded time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::policy::keys::{KeySet, MAX_SET};
use crate::proxy::auth::fetch::{Fetcher, LIMIT};
use crate::proxy::dependency_health::DependencyHealth;
use crate::proxy::limits::permits::Count;
use crate::snapshot::dependency::Dependency;
use crate::telemetry::metrics::Metrics;

/// How old a set becomes before it is fetched again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How old a set may be and still verify: an issuer that cannot be asked for so long may have withdrawn its keys.
const TOO_OLD: Duration = Duration::from_secs(60 * 60);
/// The pause after a fetch that failed.
const RETRY: Duration = Duration::from_secs(10);
/// The pause between fetches for the sake of key ids that nobody knows: anyone can invent ids.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long a handshake waits for a fetch.
const PATIENCE: Duration = LIMIT.saturating_add(Duration::from_millis(500));
/// Handshakes that wait for one URI at a time; more are refused at once.
const WAITERS: usize = 256;
/// How often the age of sets is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// All fetched key sets of the process.
#[derive(Debug)]
pub(crate) struct Keys {
    entries: Mutex<HashMap<Box<str>, Arc<Entry>>>,
    fetcher: Arc<Fetcher>,
    control: Handle,
    metrics: Metrics,
    health: Arc<DependencyHealth>,
}

#[derive(Debug)]
struct Entry {
    uri: Box<str>,
    state: Mutex<State>,
    /// Changes when a fetch is over.
    over: watch::Sender<u64>,
    /// Handshakes that wait for it.
    waiting: Arc<Count>,
}

/// What is known of one URI. Pure: the time is passed in.
#[derive(Debug, Default)]
struct State {
    good: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch began that failed or is under way.
    tried: Option<Instant>,
    /// When the last fetch began for the sake of an unknown id.
    renewed: Option<Instant>,
    flying: bool,
}

impl State {
    /// The set, if it may still verify at `now`.
    fn usable(&self, now: Instant) -> Option<&Arc<KeySet>> {
        let (keys, at) = self.good.as_ref()?;
        (now.saturating_duration_since(*at) < TOO_OLD).then_some(keys)
    }

    /// Whether a fetch is due at `now`; if so it has begun.
    fn begin(&mut self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        // What failed last is asked again soon, however fresh the set is: else nobody would learn that it answers again.
        let fresh = self.tried.is_none() && self.good.as_ref().is_some_and(|(_, at)| since(*at) < FRESH);
        if fresh || self.flying || self.tried.is_some_and(|at| since(at) < RETRY) {
            return false;
        }
        self.fly(now);
        true
    }

    /// Whether a fetch for an unknown id may begin at `now`; if so it has begun.
    fn begin_renewal(&mut self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.flying
            || self.renewed.is_some_and(|at| since(at) < COOL_DOWN)
            || self.tried.is_some_and(|at| since(at) < RETRY)
        {
            return false;
        }
        self.renewed = Some(now);
        self.fly(now);
        true
    }

    fn fly(&mut self, now: Instant) {
        self.flying = true;
        self.tried = Some(now);
    }

    /// A fetch is over.
    fn land(&mut self, fetched: Option<KeySet>, now: Instant) {
        self.flying = false;
        if let Some(next) = fetched {
            self.tried = None;
            // The same keys stay the same set, so that nobody verifies twice with them.
            let keys = match self.good.take() {
                Some((keys, _)) if *keys == next => keys,
                _ => Arc::new(next),
            };
            self.good = Some((keys, now));
        }
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    pub(crate) fn new(fetcher: Fetcher, control: Handle, metrics: Metrics, health: Arc<DependencyHealth>) -> Self {
        Self { entries: Mutex::default(), fetcher: Arc::new(fetcher), control, metrics, health }
    }

    /// The keys of a URI; waits for them if there are none. `None`: they cannot be had.
    pub(crate) async fn get(&self, uri: &str) -> Option<Arc<KeySet>> {
        let entry = self.entry(uri);
        let mut over = entry.over.subscribe();
        {
            let mut state = entry.state();
            let now = Instant::now();
            let begin = state.begin(now);
            let usable = state.usable(now).cloned();
            let flying = state.flying;
            drop(state);
            if begin {
                self.fetch(&entry);
            }
            if usable.is_some() || !flying {
                return usable;
            }
        }
        wait(&entry, &mut over).await;
        entry.state().usable(Instant::now()).cloned()
    }

    /// The keys of a URI after another look for the sake of an id that `stale` does not have. `None`: there is no
    /// newer set, and none may be fetched now.
    pub(crate) async fn renew(&self, uri: &str, stale: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let entry = self.entry(uri);
        let mut over = entry.over.subscribe();
        let newer = |state: &State| state.usable(Instant::now()).filter(|keys| !Arc::ptr_eq(keys, stale)).cloned();
        {
            let mut state = entry.state();
            if let Some(keys) = newer(&state) {
                return Some(keys);
            }
            let begin = state.begin_renewal(Instant::now());
            let flying = state.flying;
            drop(state);
            if begin {
                self.fetch(&entry);
            }
            if !flying {
                return None;
            }
        }
        wait(&entry, &mut over).await;
        newer(&entry.state())
    }

    /// Fetches what routes depend on and what is due, and forgets what they no longer depend on.
    pub(crate) fn follow(&self, dependencies: &BTreeSet<Dependency>) {
        let named = dependencies.iter().filter_map(|one| match one {
            Dependency::KeySet(uri) => Some(uri.clone()),
            Dependency::Service(_) | Dependency::Store => None,
        });
        let named: BTreeSet<Box<str>> = named.collect();
        {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.retain(|uri, _| named.contains(uri));
        }
        self.metrics.retain_jwks(&named.iter().map(|uri| label(uri).to_owned()).collect());
        for uri in named {
            let entry = self.entry(&uri);
            let begin = entry.state().begin(Instant::now());
            if begin {
                self.fetch(&entry);
            }
        }
    }

    fn entry(&self, uri: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(uri) {
            return Arc::clone(entry);
        }
        let entry =
            Entry { uri: uri.into(), state: Mutex::default(), over: watch::Sender::new(0), waiting: Arc::default() };
        Arc::clone(entries.entry(uri.into()).or_insert(Arc::new(entry)))
    }

    /// Fetches on the control runtime; whoever began it says so in the state.
    fn fetch(&self, entry: &Arc<Entry>) {
        let (entry, fetcher, metrics) = (Arc::clone(entry), Arc::clone(&self.fetcher), self.metrics.clone());
        let health = Arc::clone(&self.health);
        self.control.spawn(async move {
            let label = label(&entry.uri);
            let fetched = match fetcher.get(&entry.uri, MAX_SET).await {
                Ok(body) => KeySet::parse(&body, false),
                Err(failed) => Err(failed.0),
            };
            metrics.jwks_fetched(label, fetched.is_ok(), SystemTime::now());
            let outcome = fetched.as_ref().map(drop).map_err(|problem| *problem);
            health.record(&Dependency::KeySet(entry.uri.clone()), outcome);
            if let Err(problem) = fetched {
                tracing::warn!(
                    uri = label,
                    problem,
                    "a key set could not be fetched; the last good one serves for an hour"
                );
            }
            entry.state().land(fetched.ok(), Instant::now());
            entry.over.send_modify(|count| *count += 1);
        });
    }
}

/// Waits until a fetch is over, if not too many wait already.
async fn wait(entry: &Entry, over: &mut watch::Receiver<u64>) {
    if let Some(_waiting) = entry.waiting.acquire(WAITERS) {
        let _ = timeout(PATIENCE, over.changed()).await;
    }
}

/// What logs and metrics call a URI: without its query, which may hold a secret.
fn label(uri: &str) -> &str {
    uri.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(id: &str) -> KeySet {
        let text = format!(
            r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}]}}"#
        );
        KeySet::parse(text.as_bytes(), false).unwrap()
    }

    #[test]
    fn a_set_is_fetched_once_at_a_time_and_again_when_it_is_no_longer_fresh() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.begin(start) && !state.begin(start) && !state.begin_renewal(start));
        state.land(Some(set("a")), start);
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(!state.begin(later(299)));
        assert!(state.begin(later(300)));
        assert!(state.usable(later(300)).is_some());
    }

    #[test]
    fn a_source_that_fails_is_asked_again_after_a_pause_and_its_last_keys_serve_until_they_are_too_old() {
        let (mut state, start) = (State::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(state.begin(start));
        state.land(None, start);
        assert!(state.usable(start).is_none());
        assert!(!state.begin(later(9)) && !state.begin_renewal(later(9)) && state.begin(later(10)));
        state.land(Some(set("a")), later(10));
        for second in 0..4000 {
            if state.begin(later(10 + second)) {
                state.land(None, later(10 + second));
            }
            assert_eq!(state.usable(later(10 + second)).is_some(), second < 3600, "{second}");
        }
        state.land(Some(set("b")), later(5000));
        assert!(state.usable(later(5000)).is_some());
    }

    #[test]
    fn ids_that_nobody_knows_cause_one_fetch_per_cool_down() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.begin(start));
        state.land(Some(set("a")), start);
        let mut fetches = 0;
        for tenth in 0..900 {
            let now = start + Duration::from_millis(100 * tenth);
            if state.begin_renewal(now) {
                fetches += 1;
                state.land(Some(set("a")), now);
            }
        }
        assert_eq!(fetches, 3);
    }

    #[test]
    fn the_same_keys_stay_the_same_set() {
        let (mut state, start) = (State::default(), Instant::now());
        state.land(Some(set("a")), start);
        let first = state.usable(start).cloned().unwrap();
        state.land(Some(set("a")), start);
        assert!(Arc::ptr_eq(&first, state.usable(start).unwrap()));
        state.land(Some(set("b")), start);
        assert!(!Arc::ptr_eq(&first, state.usable(start).unwrap()));
        assert_eq!(label("https://idp.test/jwks?key=secret"), "https://idp.test/jwks");
    }
}
