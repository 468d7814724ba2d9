//! One list and watch: everything of one kind in one scope, for as long as it runs.
//!
//! Built on `Api::list` and `Api::watch` alone, because the gateway has to know what a ready-made reflector hides: when
//! a broken watch is whole again, and that a list came back empty. Whatever fails leaves the store as it is.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::kind::{Item, Kind, resource};
use super::scope::Scope;
use super::store::{Id, Listed, Store, Taken};
use crate::api::objects::Key;
use crate::backoff::Backoff;
use crate::kube_error::{NO_ANSWER, describe};

/// Time for one page of a list.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Seconds after which the API server ends a watch, so that a connection that died in silence is noticed.
const WATCH_SECONDS: u32 = 120;
/// How much later the gateway ends a watch that the API server did not end.
const WATCH_MARGIN: Duration = Duration::from_secs(10);
/// The longest pause after a failure. A watch that lasted longer than that did not fail at its beginning.
const LONGEST: Duration = Duration::from_secs(5);
/// The pauses after failures.
pub(super) const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), LONGEST);
/// The longest pause before the gateway asks again for a kind that does not exist or that RBAC does not let it read.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);
/// The status of a version that the API server no longer knows.
const GONE: u16 = 410;

/// A list and watch.
pub(super) struct Reflector<K> {
    store: Arc<Store>,
    client: Client,
    scope: Scope,
    id: Id,
    /// How long after a list that would take everything away a second one is asked for.
    confirm: Duration,
    /// When that is due.
    suspect: Option<Instant>,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K> Drop for Reflector<K> {
    fn drop(&mut self) {
        self.store.forget(self.id);
    }
}

/// Why a list or watch ended.
enum ReadError {
    /// The API server was not reached, or failed.
    Failed(String),
    /// RBAC does not let the gateway read it.
    Forbidden(String),
    /// The API server does not serve the kind.
    Absent(String),
    /// The version is too old to watch from; a new list is needed.
    Stale,
}

impl<K: Kind> Reflector<K> {
    /// A reflector that has not begun; the store knows of it from now on.
    pub(super) fn new(store: &Arc<Store>, client: &Client, scope: Scope, confirm: Duration) -> Self {
        let id = store.announce(scope.describe::<K>());
        let (store, client) = (Arc::clone(store), client.clone());
        Self { store, client, scope, id, confirm, suspect: None, kind: std::marker::PhantomData }
    }

    /// Lists and watches until it is dropped. `answered` is called whenever the API server has given an answer, also
    /// that there is nothing. After a panic it begins anew after a pause: otherwise nothing of this kind would ever change
    /// again.
    pub(super) async fn run(mut self, answered: impl Fn(&Store, bool)) {
        let mut pause = PAUSES;
        while AssertUnwindSafe(self.read(&answered)).catch_unwind().await.is_err() {
            self.store.failing(self.id, "the reader panicked, which is a bug of the gateway; please report it");
            sleep(pause.next()).await;
        }
    }

    /// Never ends.
    async fn read(&mut self, answered: &impl Fn(&Store, bool)) -> Infallible {
        let mut pause = PAUSES;
        let mut version = None;
        loop {
            let served = match version {
                Some(served) => Ok(served),
                None => self.served().await,
            };
            let listed = match served {
                Ok(served) => {
                    version = Some(served);
                    let api = self.api(served);
                    match self.list(&api).await {
                        Ok(at) => {
                            self.store.listed(self.id);
                            answered(&self.store, true);
                            let began = Instant::now();
                            let forbidden = self.follow(&api, at).await;
                            if began.elapsed() > LONGEST {
                                pause.reset();
                            }
                            if let Some(why) = forbidden {
                                self.store.failing(self.id, &why);
                            }
                            // A server that forgets every version at once, or lets nobody watch, is not asked without
                            // end.
                            if began.elapsed() < LONGEST {
                                sleep(pause.next()).await;
                            }
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            match listed {
                ReadError::Failed(why) => {
                    self.store.failing(self.id, &why);
                    sleep(pause.next()).await;
                }
                ReadError::Forbidden(why) => {
                    self.without(&why, self.scope.optional || self.scope.name.is_some(), answered);
                    sleep(ABSENT_PAUSE.min(pause.next() * 2)).await;
                }
                ReadError::Absent(why) => {
                    version = None;
                    // Without the kind there are no objects of it: that is a list, and an empty one.
                    self.take(Listed::default());
                    self.without(&why, K::OPTIONAL, answered);
                    sleep(ABSENT_PAUSE.min(pause.next() * 2)).await;
                }
                ReadError::Stale => {}
            }
        }
    }

    /// There is nothing to read for now, which is as it may be, or is not (`fine`).
    fn without(&self, why: &str, fine: bool, answered: &impl Fn(&Store, bool)) {
        if fine {
            self.store.absent(self.id, why);
            answered(&self.store, false);
        } else {
            self.store.failing(self.id, why);
        }
    }

    fn api(&self, version: &str) -> Api<Item<K>> {
        let resource = resource::<K>(version);
        match &self.scope.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The version to read: the first that the API server serves.
    async fn served(&self) -> Result<&'static str, ReadError> {
        let (group, versions, plural) = K::SERVED;
        if let [only] = versions {
            return Ok(only);
        }
        for version in versions {
            let path = format!("{group}/{version}");
            match timeout(PAGE_TIMEOUT, self.client.list_api_group_resources(&path)).await {
                Ok(Ok(list)) if list.resources.iter().any(|resource| resource.name == plural) => return Ok(version),
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                Ok(Err(error)) => return Err(ReadError::Failed(describe(&error))),
                Err(_) => return Err(ReadError::Failed(NO_ANSWER.to_owned())),
            }
        }
        Err(ReadError::Absent(format!("the API server does not serve {plural}.{group}")))
    }

    /// Lists, page by page, and hands all over at once. Returns the version to follow from.
    async fn list(&mut self, api: &Api<Item<K>>) -> Result<String, ReadError> {
        let mut params = ListParams {
            limit: Some(K::PAGE),
            field_selector: self.scope.fields(),
            label_selector: K::LABELLED.map(str::to_owned),
            ..ListParams::default()
        };
        let mut listed = Listed::default();
        let at = loop {
            let page = match timeout(PAGE_TIMEOUT, api.list(&params)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(self.read_error(&error)),
                Err(_) => return Err(ReadError::Failed(NO_ANSWER.to_owned())),
            };
            for item in page.items {
                let key = Key::of(item.object.metadata());
                if self.store.keeps::<K>(&key) {
                    listed.found.insert(key, item);
                } else {
                    listed.passed.insert(key);
                }
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                break page.metadata.resource_version.unwrap_or_default();
            }
        };
        self.take(listed);
        Ok(at)
    }

    /// Stores a list. A list that would remove every object takes effect only when a second one confirms it later.
    fn take(&mut self, list: Listed<K>) {
        let now = Instant::now();
        let confirmed = self.suspect.is_some_and(|due| due <= now);
        match self.store.replace(&self.scope, list, confirmed) {
            Taken::Whole => self.suspect = None,
            Taken::Suspect if self.suspect.is_none() => {
                self.suspect = Some(now + self.confirm);
                tracing::warn!(
                    objects = self.scope.describe::<K>(),
                    confirm_seconds = self.confirm.as_secs(),
                    "list came back empty although objects exist; keeping them until a second list confirms"
                );
            }
            Taken::Suspect => {}
        }
    }

    /// Follows changes from the version `at` until a new list is needed, or because it may not; then it says why.
    async fn follow(&mut self, api: &Api<Item<K>>, mut at: String) -> Option<String> {
        let params = WatchParams {
            timeout: Some(WATCH_SECONDS),
            field_selector: self.scope.fields(),
            label_selector: K::LABELLED.map(str::to_owned),
            bookmarks: true,
            ..WatchParams::default()
        };
        let mut pause = PAUSES;
        loop {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.watch(api, &params, &mut at) => ended,
                () = until(self.suspect) => return None,
            };
            let lasted = began.elapsed();
            if lasted > LONGEST {
                pause.reset();
            }
            match ended {
                // The API server ended it in its time.
                Ok(()) if lasted > LONGEST => continue,
                // Or something between ends it at once, and is not asked without end.
                Ok(()) => {}
                Err(ReadError::Forbidden(why)) => return Some(why),
                Err(ReadError::Stale | ReadError::Absent(_)) => return None,
                Err(ReadError::Failed(why)) => self.store.failing(self.id, &why),
            }
            tokio::select! {
                () = sleep(pause.next()) => {}
                () = until(self.suspect) => return None,
            }
        }
    }

    /// One watch, until it ends.
    async fn watch(&self, api: &Api<Item<K>>, params: &WatchParams, at: &mut String) -> Result<(), ReadError> {
        let stream = match timeout(PAGE_TIMEOUT, api.watch(params, at)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(kube::Error::Api(status))) if status.code == GONE => return Err(ReadError::Stale),
            Ok(Err(error)) => return Err(self.read_error(&error)),
            Err(_) => return Err(ReadError::Failed(NO_ANSWER.to_owned())),
        };
        self.store.healthy(self.id);
        let mut stream = std::pin::pin!(stream);
        let idle = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_MARGIN;
        loop {
            let event = match timeout(idle, stream.try_next()).await {
                // Dead or ended: the next watch goes on from here.
                Err(_) | Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(event))) => event,
                Ok(Err(error)) => return Err(ReadError::Failed(describe(&error))),
            };
            match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                    let metadata = item.object.metadata();
                    at.clone_from(metadata.resource_version.as_ref().ok_or(ReadError::Stale)?);
                    self.store.put(Key::of(metadata), item);
                }
                WatchEvent::Deleted(item) => {
                    let metadata = item.object.metadata();
                    at.clone_from(metadata.resource_version.as_ref().ok_or(ReadError::Stale)?);
                    self.store.remove::<K>(&Key::of(metadata), metadata.uid.as_deref());
                }
                WatchEvent::Bookmark(bookmark) => *at = bookmark.metadata.resource_version,
                WatchEvent::Error(status) if status.code == GONE => return Err(ReadError::Stale),
                WatchEvent::Error(status) => return Err(ReadError::Failed(describe(&kube::Error::Api(status)))),
            }
        }
    }

    fn read_error(&self, error: &kube::Error) -> ReadError {
        let kube::Error::Api(status) = error else { return ReadError::Failed(describe(error)) };
        match status.code {
            404 if K::SERVED.0 == crate::api::GROUP => ReadError::Absent(
                "the CustomResourceDefinition is not installed; run: wssgate crd | kubectl apply --server-side -f -"
                    .to_owned(),
            ),
            404 => ReadError::Absent("the API server does not serve this kind".to_owned()),
            403 => {
                let (group, _, plural) = K::SERVED;
                let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
                ReadError::Forbidden(format!(
                    "the gateway is not allowed to list and watch {resource}; grant both (RBAC)"
                ))
            }
            _ => ReadError::Failed(describe(error)),
        }
    }
}

/// Waits until then; for ever if there is no then.
async fn until(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::Service;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::object_cache::ObjectCache;
    use super::*;
    use crate::telemetry::metrics::Metrics;

    const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    /// A list without anything.
    const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
        {\"kind\":\"ServiceList\",\"apiVersion\":\"v1\",\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[]}";
    /// A watch that is over at once.
    const OVER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\
        Connection: close\r\n\r\n";

    /// An API server that answers each list and each watch with the same, and counts watches; and a store with a reflector
    /// of it.
    async fn reflect(list: &'static str, watch: &'static str) -> (Arc<AtomicUsize>, Metrics, Reflector<Service>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        let watches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&watches);
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let length = tcp.read(&mut head).await.unwrap_or(0);
                let watches = head[..length].windows(6).any(|part| part == b"watch=");
                counted.fetch_add(usize::from(watches), Ordering::SeqCst);
                let _ = tcp.write_all(if watches { watch } else { list }.as_bytes()).await;
            }
        });
        let metrics = Metrics::new();
        let store = Store::new(ObjectCache::default(), metrics.clone());
        let client = Client::try_from(config).unwrap();
        let scope = Scope { optional: true, ..Scope::default() };
        (watches, metrics, Reflector::new(&store, &client, scope, Duration::from_secs(1)))
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let held = async {
            while !holds() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), held).await.expect(what);
    }

    #[tokio::test]
    async fn a_watch_that_is_over_at_once_is_not_begun_again_without_end() {
        let (watches, _, reflector) = reflect(EMPTY, OVER).await;
        let task = tokio::spawn(reflector.run(|_, _| {}));
        until("two watches", || watches.load(Ordering::SeqCst) > 1).await;
        sleep(Duration::from_secs(1)).await;
        task.abort();
        let count = watches.load(Ordering::SeqCst);
        assert!(count < 10, "{count} watches in a second");
    }

    #[tokio::test]
    async fn a_kind_that_may_be_listed_and_not_watched_counts_as_stale() {
        let (watches, metrics, reflector) = reflect(EMPTY, FORBIDDEN).await;
        let task = tokio::spawn(reflector.run(|_, _| {}));
        until("two watches", || watches.load(Ordering::SeqCst) > 1).await;
        let stale = || {
            let text = metrics.encode();
            let line = text.lines().find(|line| line.starts_with("wssgate_source_stale_seconds ")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0
        };
        until("staleness", stale).await;
        task.abort();
    }

    #[tokio::test]
    async fn what_panics_is_read_anew() {
        // Everything is forbidden, which is as it may be for this scope.
        let (_, _, reflector) = reflect(FORBIDDEN, FORBIDDEN).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let task = tokio::spawn(reflector.run(move |_, _| {
            assert!(counted.fetch_add(1, Ordering::SeqCst) > 0, "a fault");
        }));
        until("it is called a second time", || calls.load(Ordering::SeqCst) > 1).await;
        task.abort();
    }
}
