//! Key sets that are fetched: one per URI. They are kept outside of the snapshot and survive every swap.
//!
//! A set is fetched when a route begins to name it and again every few minutes, on the control runtime and never more
//! than once at a time. Handshakes use the last good set for as long as it is not too old; only the first ones of a new
//! URI, and those that need a key which is not there yet, wait, and that for a bounded time.
//!
//! Sets that hang delay no others: namespaces share the places for fetches, sets that were fetched before have places of
//! their own, and what fails is asked less and less.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::policy::authentication::KeySource;
use crate::policy::keys::{KeySet, MAX_SET, Unread};
use crate::proxy::auth::fetch::{Fetcher, LIMIT};
use crate::proxy::auth::rotation::Rotation;
use crate::proxy::dependency_health::DependencyHealth;
use crate::proxy::limits::permits::Count;
use crate::proxy::limits::places::{Places, Step};
use crate::snapshot::dependency::Dependency;
use crate::telemetry::metrics::Metrics;

/// How old a set becomes before it is fetched again.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// How old a set may be and still verify: an issuer that cannot be asked for so long may have withdrawn its keys.
const TOO_OLD: Duration = Duration::from_secs(60 * 60);
/// The pause after the first fetch that failed, less a random part of up to a half. Each further one doubles it.
const RETRY: Duration = Duration::from_secs(10);
/// The longest pause of a set that was fetched before.
const MOST_REACHED: Duration = Duration::from_secs(60);
/// The longest pause of a set that never was. It is less than the time after which an outage is forgotten.
const MOST_UNREACHED: Duration = Duration::from_secs(5 * 60);
/// The pause between fetches for the sake of key ids that nobody knows: anyone can invent ids.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long a handshake waits for a fetch.
const PATIENCE: Duration = LIMIT.saturating_add(Duration::from_millis(500));
/// Handshakes that wait for one URI at a time; more are refused at once.
const WAITERS: usize = 256;
/// Fetches at a time of sets that were never fetched, and as many of others.
const PLACES: usize = 16;
/// How often the age of sets is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(5);

/// The key sets that routes name, and the namespaces of these routes.
pub(crate) type Named = BTreeMap<Box<str>, BTreeSet<Box<str>>>;

/// All fetched key sets of the process. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    entries: Arc<Mutex<HashMap<Box<str>, Arc<Entry>>>>,
    fetches: Arc<Mutex<Fetches>>,
    fetcher: Arc<Fetcher>,
    control: Handle,
    metrics: Metrics,
    health: Arc<DependencyHealth>,
    /// Told of each set.
    rotation: Rotation,
}

#[derive(Debug)]
struct Entry {
    uri: Box<str>,
    made: Instant,
    state: Mutex<State>,
    /// Changes when a fetch is over.
    over: watch::Sender<u64>,
    /// Handshakes that wait for it.
    waiting: Arc<Count>,
}

/// What is known of one URI. Pure: the time is passed in.
#[derive(Debug)]
struct State {
    good: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch failed, and the pause after it; `None`: it did not.
    failed: Option<(Instant, Duration)>,
    backoff: Backoff,
    /// When the last fetch began for the sake of an unknown id.
    renewed: Option<Instant>,
    /// Whether a fetch waits for its place or is under way.
    flying: bool,
}

impl Default for State {
    fn default() -> Self {
        let backoff = Backoff::new(RETRY, MOST_UNREACHED);
        Self { good: None, failed: None, backoff, renewed: None, flying: false }
    }
}

impl State {
    /// The set, if it may still verify at `now`.
    fn usable(&self, now: Instant) -> Option<&Arc<KeySet>> {
        let (keys, at) = self.good.as_ref()?;
        (now.saturating_duration_since(*at) < TOO_OLD).then_some(keys)
    }

    /// Whether the pause after a failure goes on, if it is no longer than `most`.
    fn pauses(&self, now: Instant, most: Duration) -> bool {
        self.failed.is_some_and(|(at, pause)| now.saturating_duration_since(at) < pause.min(most))
    }

    /// Whether a fetch is due at `now`; if so it has begun. A set that a handshake waits for is not waited for longer
    /// than the first pause.
    fn begin(&mut self, now: Instant, handshake: bool) -> bool {
        // What failed last is asked again soon, however fresh the set is: else nobody would learn that it answers again.
        let age = |at: Instant| now.saturating_duration_since(at);
        let fresh = self.failed.is_none() && self.good.as_ref().is_some_and(|(_, at)| age(*at) < FRESH);
        let most = if handshake && self.usable(now).is_none() { RETRY } else { MOST_UNREACHED };
        let begin = !fresh && !self.flying && !self.pauses(now, most);
        self.flying |= begin;
        begin
    }

    /// Whether a fetch for an unknown id may begin at `now`; if so it has begun.
    fn begin_renewal(&mut self, now: Instant) -> bool {
        let cools = self.renewed.is_some_and(|at| now.saturating_duration_since(at) < COOL_DOWN);
        if self.flying || cools || self.pauses(now, RETRY) {
            return false;
        }
        self.renewed = Some(now);
        self.flying = true;
        true
    }

    /// A fetch is over.
    fn land(&mut self, fetched: Option<KeySet>, now: Instant) {
        self.flying = false;
        let Some(next) = fetched else {
            self.failed = Some((now, self.backoff.next()));
            return;
        };
        self.failed = None;
        self.backoff = Backoff::new(RETRY, MOST_REACHED);
        // The same keys stay the same set, so that nobody verifies twice with them.
        let keys = match self.good.take() {
            Some((keys, _)) if *keys == next => keys,
            _ => Arc::new(next),
        };
        self.good = Some((keys, now));
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fetches that wait for a place or are under way, by URI.
#[derive(Debug)]
struct Fetches {
    fetches: HashMap<Box<str>, Fetch>,
    /// Places of sets that were never fetched.
    first: Places<Box<str>, Box<str>>,
    /// Places of sets that were.
    again: Places<Box<str>, Box<str>>,
    /// The number of the last task.
    tasks: u64,
}

#[derive(Debug)]
struct Fetch {
    entry: Arc<Entry>,
    /// Whether the set was fetched before.
    again: bool,
    /// What fetches it, by its number; `None`: it waits.
    task: Option<(u64, AbortHandle)>,
}

impl Fetches {
    fn new() -> Self {
        Self { fetches: HashMap::new(), first: Places::new(PLACES), again: Places::new(PLACES), tasks: 0 }
    }

    fn places(&mut self, again: bool) -> &mut Places<Box<str>, Box<str>> {
        if again { &mut self.again } else { &mut self.first }
    }

    /// Ends what fetches a URI or waits to.
    fn remove(&mut self, uri: &str) -> Option<Fetch> {
        let (uri, fetch) = self.fetches.remove_entry(uri)?;
        self.places(fetch.again).remove(&uri);
        Some(fetch)
    }
}

impl Keys {
    pub(crate) fn new(
        fetcher: Fetcher,
        control: Handle,
        metrics: Metrics,
        health: Arc<DependencyHealth>,
        rotation: Rotation,
    ) -> Self {
        let (entries, fetches) = (Arc::default(), Arc::new(Mutex::new(Fetches::new())));
        Self { entries, fetches, fetcher: Arc::new(fetcher), control, metrics, health, rotation }
    }

    /// The keys of a URI for a route of a namespace; waits for them if there are none. `None`: they cannot be had.
    pub(crate) async fn get(&self, uri: &str, namespace: &str) -> Option<Arc<KeySet>> {
        let entry = self.entry(uri);
        let mut over = entry.over.subscribe();
        {
            let mut state = entry.state();
            let now = Instant::now();
            let begin = state.begin(now, true);
            let usable = state.usable(now).cloned();
            let flying = state.flying;
            drop(state);
            if begin {
                self.fetch(&entry, [namespace.into()]);
            }
            if usable.is_some() || !flying {
                return usable;
            }
        }
        self.wait(&entry, &mut over, namespace).await;
        entry.state().usable(Instant::now()).cloned()
    }

    /// The keys of a URI after another look for the sake of an id that `stale` does not have. `None`: there is no
    /// newer set, and none may be fetched now.
    pub(crate) async fn renew(&self, uri: &str, namespace: &str, stale: &Arc<KeySet>) -> Option<Arc<KeySet>> {
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
                self.fetch(&entry, [namespace.into()]);
            }
            if !flying {
                return None;
            }
        }
        self.wait(&entry, &mut over, namespace).await;
        newer(&entry.state())
    }

    /// Fetches what routes depend on and what is due, and forgets what they no longer depend on.
    pub(crate) fn follow(&self, named: &Named) {
        let gone: Vec<Arc<Entry>> = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            // A handshake may be of a snapshot that is newer than `named`.
            let gone = |uri: &str, entry: &Entry| !named.contains_key(uri) && entry.made.elapsed() >= LOOK;
            entries.extract_if(|uri, entry| gone(uri, entry)).map(|(_, entry)| entry).collect()
        };
        for entry in gone {
            self.withdraw(&entry);
        }
        self.metrics.retain_jwks(&named.keys().map(|uri| label(uri).to_owned()).collect());
        for (uri, namespaces) in named {
            let entry = self.entry(uri);
            let begin = entry.state().begin(Instant::now(), false);
            if begin {
                self.fetch(&entry, namespaces.iter().cloned());
            }
        }
    }

    fn entry(&self, uri: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(uri) {
            return Arc::clone(entry);
        }
        let (made, over) = (Instant::now(), watch::Sender::new(0));
        let entry = Entry { uri: uri.into(), made, state: Mutex::default(), over, waiting: Arc::default() };
        Arc::clone(entries.entry(uri.into()).or_insert(Arc::new(entry)))
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches on the control runtime, by the part of any of these namespaces; whoever began it says so in the state.
    fn fetch(&self, entry: &Arc<Entry>, namespaces: impl IntoIterator<Item = Box<str>>) {
        let again = entry.state().good.is_some();
        let mut fetches = self.fetches();
        // That of an entry that nobody named for a moment.
        let stale = fetches.remove(&entry.uri).and_then(|fetch| fetch.task);
        stale.into_iter().for_each(|(_, task)| task.abort());
        fetches.places(again).wait(&entry.uri, namespaces);
        fetches.fetches.insert(entry.uri.clone(), Fetch { entry: Arc::clone(entry), again, task: None });
        self.advance(&mut fetches, again);
    }

    /// Gives places to those whose turn it is.
    fn advance(&self, fetches: &mut Fetches, again: bool) {
        while let Some(step) = fetches.places(again).step() {
            let (Step::Begin(uri) | Step::GiveWay(uri)) = &step;
            fetches.tasks += 1;
            let (number, Some(fetch)) = (fetches.tasks, fetches.fetches.get_mut(uri)) else { continue };
            let before = fetch.task.take();
            match step {
                Step::Begin(_) => {
                    let task = self.control.spawn(self.clone().run(Arc::clone(&fetch.entry), number));
                    fetch.task = Some((number, task.abort_handle()));
                }
                Step::GiveWay(_) => before.into_iter().for_each(|(_, task)| task.abort()),
            }
        }
    }

    async fn run(self, entry: Arc<Entry>, number: u64) {
        let flight = Flight { keys: self, entry, number, fetched: None };
        let fetched = match flight.keys.fetcher.get(&flight.entry.uri, MAX_SET).await {
            Ok(body) => KeySet::parse(&body, false).map_err(Unread::text),
            Err(failed) => Err(failed.0),
        };
        flight.lands(fetched);
    }

    /// A fetch is over, and its place is free. One that has given way meanwhile, or is no longer named, has nothing to say.
    fn over(&self, entry: &Entry, number: u64, fetched: Result<KeySet, &'static str>) {
        {
            let mut fetches = self.fetches();
            let current = fetches.fetches.get(&entry.uri).and_then(|fetch| fetch.task.as_ref());
            if current.is_none_or(|(current, _)| *current != number) {
                return;
            }
            if let Some(fetch) = fetches.remove(&entry.uri) {
                self.advance(&mut fetches, fetch.again);
            }
        }
        let label = label(&entry.uri);
        self.metrics.jwks_fetched(label, fetched.is_ok(), SystemTime::now());
        let outcome = fetched.as_ref().map(drop).map_err(|problem| *problem);
        self.health.record(&Dependency::KeySet(entry.uri.clone()), outcome);
        for key in fetched.iter().flat_map(KeySet::unusable) {
            tracing::warn!(uri = label, key, "a key of a key set verifies no token");
        }
        if let Err(problem) = fetched {
            tracing::warn!(
                uri = label,
                problem,
                "a key set could not be fetched; the last good one serves for an hour"
            );
        }
        {
            let mut state = entry.state();
            state.land(fetched.ok(), Instant::now());
            if let Some((keys, _)) = &state.good {
                self.rotation.read(&KeySource::Remote(entry.uri.clone()), keys);
            }
        }
        entry.over.send_modify(|count| *count += 1);
    }

    /// Nobody names it any longer.
    fn withdraw(&self, entry: &Arc<Entry>) {
        let mut fetches = self.fetches();
        if fetches.fetches.get(&entry.uri).is_none_or(|fetch| !Arc::ptr_eq(&fetch.entry, entry)) {
            return;
        }
        let Some(fetch) = fetches.remove(&entry.uri) else { return };
        fetch.task.into_iter().for_each(|(_, task)| task.abort());
        self.advance(&mut fetches, fetch.again);
        drop(fetches);
        entry.state().flying = false;
        entry.over.send_modify(|count| *count += 1);
    }

    /// Waits until a fetch is over, if not too many wait already. It is the next of its namespace.
    async fn wait(&self, entry: &Entry, over: &mut watch::Receiver<u64>, namespace: &str) {
        let Some(_waiting) = entry.waiting.acquire(WAITERS) else { return };
        {
            let mut fetches = self.fetches();
            if let Some(again) = fetches.fetches.get(&entry.uri).map(|fetch| fetch.again) {
                fetches.places(again).hurry(&entry.uri, namespace.into());
                self.advance(&mut fetches, again);
            }
        }
        let _ = timeout(PATIENCE, over.changed()).await;
    }
}

/// A fetch that is under way. However it ends, a fault of the gateway itself (a panic) included, its place is free then.
struct Flight {
    keys: Keys,
    entry: Arc<Entry>,
    number: u64,
    fetched: Option<Result<KeySet, &'static str>>,
}

impl Flight {
    fn lands(mut self, fetched: Result<KeySet, &'static str>) {
        self.fetched = Some(fetched);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let fetched = self.fetched.take().unwrap_or(Err("a fault of the gateway"));
        self.keys.over(&self.entry, self.number, fetched);
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

    /// What a route that begins to name it does, and what a handshake does.
    const ROUTE: bool = false;
    const HANDSHAKE: bool = true;

    #[test]
    fn a_set_is_fetched_once_at_a_time_and_again_when_it_is_no_longer_fresh() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.begin(start, ROUTE) && !state.begin(start, HANDSHAKE) && !state.begin_renewal(start));
        state.land(Some(set("a")), start);
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(!state.begin(later(299), HANDSHAKE));
        assert!(state.begin(later(300), ROUTE));
        assert!(state.usable(later(300)).is_some());
    }

    #[test]
    fn a_source_that_fails_is_asked_again_after_a_pause_and_its_last_keys_serve_until_they_are_too_old() {
        let (mut state, start) = (State::default(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(state.begin(start, ROUTE));
        state.land(None, start);
        assert!(state.usable(start).is_none());
        assert!(!state.begin(later(4), HANDSHAKE) && !state.begin_renewal(later(4)) && state.begin(later(10), ROUTE));
        state.land(Some(set("a")), later(10));
        for second in 0..4000 {
            if state.begin(later(10 + second), ROUTE) {
                state.land(None, later(10 + second));
            }
            assert_eq!(state.usable(later(10 + second)).is_some(), second < 3600, "{second}");
        }
        state.land(Some(set("b")), later(5000));
        assert!(state.usable(later(5000)).is_some());
    }

    /// The seconds at which a set is fetched that fails for an hour.
    fn fetched(state: &mut State, start: Instant, handshakes: bool) -> Vec<u64> {
        let mut seconds = Vec::new();
        for second in 0..3600 {
            if state.begin(start + Duration::from_secs(second), handshakes) {
                seconds.push(second);
                state.land(None, start + Duration::from_secs(second));
            }
        }
        seconds
    }

    #[test]
    fn a_set_that_was_never_fetched_is_asked_less_and_less_and_a_handshake_waits_for_no_long_pause() {
        let start = Instant::now();
        let pauses = |seconds: &[u64]| seconds.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
        let alone = pauses(&fetched(&mut State::default(), start, ROUTE));
        assert!(alone.len() < 30 && alone[0] <= 11, "{alone:?}");
        assert!(alone[6..].iter().all(|pause| (150..=301).contains(pause)), "{alone:?}");
        let asked = pauses(&fetched(&mut State::default(), start, HANDSHAKE));
        assert!(asked.iter().all(|pause| (5..=11).contains(pause)), "{asked:?}");
        // One that was fetched before is asked every minute at the least; its keys serve, so that no handshake hurries it.
        for handshakes in [ROUTE, HANDSHAKE] {
            let mut state = State::default();
            state.land(Some(set("a")), start);
            let pauses = pauses(&fetched(&mut state, start + FRESH, handshakes));
            assert!(pauses[3..50].iter().all(|pause| (30..=61).contains(pause)), "{pauses:?}");
        }
    }

    #[test]
    fn ids_that_nobody_knows_cause_one_fetch_per_cool_down() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.begin(start, ROUTE));
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

    #[tokio::test]
    async fn however_a_fetch_ends_its_place_is_free_and_what_nobody_names_takes_none() {
        let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = hanging.local_addr().unwrap().port();
        let health = Arc::new(DependencyHealth::new(watch::Sender::default(), Metrics::new()));
        let fetcher = crate::proxy::auth::fetch::tests::open();
        let keys = Keys::new(fetcher, Handle::current(), Metrics::new(), health, Rotation::default());
        let named = |count: usize| -> Named {
            (0..count).map(|at| (format!("https://127.0.0.1:{port}/{at:02}").into(), ["shop".into()].into())).collect()
        };
        keys.follow(&named(PLACES + 2));
        let under_way = || keys.fetches().fetches.values().filter(|fetch| fetch.task.is_some()).count();
        let (uri, last) = (named(1).pop_first().unwrap().0, named(PLACES + 1).pop_last().unwrap().0);
        let has_begun = |uri: &str| keys.fetches().fetches.get(uri).is_some_and(|fetch| fetch.task.is_some());
        assert!(under_way() == PLACES && has_begun(&uri) && !has_begun(&last));
        // It is ended from without, as a panic would end it: the next begins, and it is tried again after a pause.
        tokio::task::yield_now().await;
        let task = keys.fetches().fetches[&*uri].task.as_ref().map(|(_, task)| task.clone()).unwrap();
        task.abort();
        while !has_begun(&last) {
            tokio::task::yield_now().await;
        }
        assert!(under_way() == PLACES && keys.entry(&uri).state().failed.is_some() && !keys.entry(&uri).state().flying);
        // Entries as old as a look are forgotten with their routes; these are not that old.
        keys.follow(&Named::new());
        assert_eq!(under_way(), PLACES);
        for entry in named(PLACES + 2).keys().map(|uri| keys.entry(uri)).collect::<Vec<_>>() {
            keys.withdraw(&entry);
        }
        assert!(keys.fetches().fetches.is_empty() && keys.fetches().first.is_empty());
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
