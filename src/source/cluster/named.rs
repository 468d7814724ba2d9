//! Objects that are read by their names: what routes and settings name, and nothing else. One reflector per object,
//! which RBAC can permit by `resourceNames`; a Secret that the reflector of its type dropped before it was named is requested once.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::kind::{Item, Kind, resource};
use super::reflector::{PAUSES, Reflector};
use super::scope::Scope;
use super::store::Store;
use crate::api::objects::Key;
use crate::kube_error::{NO_ANSWER, describe};

/// How long after a 403 the gateway tries again: RBAC may have changed.
const DENIED_PAUSE: Duration = Duration::from_secs(10);
/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at the same time.
const MAX_REQUESTS: usize = 16;

/// The reflectors and requests for named objects.
pub(super) struct Named {
    store: Arc<Store>,
    client: Client,
    confirm: Duration,
    /// Whether every Secret has a reflector of its own, not only those that no other reads.
    secrets_by_name: bool,
    /// Namespaces that reflectors of whole namespaces read; all if empty.
    namespaces: BTreeSet<String>,
    secrets: BTreeMap<Key, Task>,
    config_maps: BTreeMap<Key, Task>,
    requests: Arc<Semaphore>,
}

/// A task that ends when it is no longer needed.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Named {
    /// Nothing runs yet.
    pub(super) fn new(
        store: &Arc<Store>,
        client: &Client,
        confirm: Duration,
        secrets_by_name: bool,
        namespaces: BTreeSet<String>,
    ) -> Self {
        let (store, client) = (Arc::clone(store), client.clone());
        let (secrets, config_maps) = (BTreeMap::new(), BTreeMap::new());
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
        Self { store, client, confirm, secrets_by_name, namespaces, secrets, config_maps, requests }
    }

    /// Follows what is named, for ever.
    pub(super) async fn run(mut self) {
        let mut changes = self.store.subscribe();
        let mut seen = 0;
        loop {
            changes.mark_unchanged();
            let (revision, wanted) =
                self.store.read(|cache| (cache.revision(), (cache.revision() != seen).then(|| cache.wanted())));
            if let Some(wanted) = wanted {
                seen = revision;
                self.secrets.retain(|key, _| wanted.secrets.contains(key));
                self.config_maps.retain(|key, _| wanted.config_maps.contains(key));
                for key in wanted.secrets {
                    if !self.secrets.contains_key(&key) {
                        let by_name = self.secrets_by_name
                            || !(self.namespaces.is_empty() || self.namespaces.contains(&key.namespace));
                        let task = if by_name { self.reflect::<Secret>(&key) } else { self.get_secret(&key) };
                        self.secrets.insert(key, task);
                    }
                }
                for key in wanted.config_maps {
                    if !self.config_maps.contains_key(&key) {
                        let task = self.reflect::<ConfigMap>(&key);
                        self.config_maps.insert(key, task);
                    }
                }
            }
            self.store.complete();
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// A reflector for one object.
    fn reflect<K: Kind>(&self, key: &Key) -> Task {
        let awaited = Awaited::<K>::new(&self.store, key);
        let reflector = Reflector::<K>::new(&self.store, &self.client, scope(key), self.confirm);
        let readability = Readability::<K>::new(&self.store, key);
        Task(tokio::spawn(async move {
            let answered = move |_: &Store, read| {
                readability.set(read);
                awaited.answered();
            };
            reflector.run(answered).await;
        }))
    }

    /// Gets a Secret that the reflector of its type dropped before it was named.
    fn get_secret(&self, key: &Key) -> Task {
        let awaited = Awaited::<Secret>::new(&self.store, key);
        let readability = Readability::<Secret>::new(&self.store, key);
        let (store, client, key) = (Arc::clone(&self.store), self.client.clone(), key.clone());
        let requests = Arc::clone(&self.requests);
        Task(tokio::spawn(async move {
            let api: Api<Item<Secret>> = Api::namespaced_with(client, &key.namespace, &resource::<Secret>("v1"));
            let mut pause = PAUSES;
            let mut refused = false;
            // A Secret that the first list had is in the cache, and the watch follows it.
            while !store.read(|cache| cache.objects().secrets.contains_key(&key)) {
                let permit = requests.acquire().await;
                store.fetch(&key);
                let answer = timeout(REQUEST_TIMEOUT, api.get_opt(&key.name)).await;
                drop(permit);
                let why = match answer {
                    Ok(Ok(item)) => match store.fetched(&key, item) {
                        true => break,
                        // A list or the watch may have brought a newer version meanwhile.
                        false => continue,
                    },
                    Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                        store.fetched::<Secret>(&key, None);
                        readability.set(false);
                        awaited.answered();
                        if !std::mem::replace(&mut refused, true) {
                            tracing::warn!(secret = %key, "the gateway is not allowed to get the Secret; grant it get (RBAC)");
                        }
                        sleep(DENIED_PAUSE).await;
                        continue;
                    }
                    Ok(Err(error)) => describe(&error),
                    Err(_) => NO_ANSWER.to_owned(),
                };
                tracing::debug!(secret = %key, problem = why, "Secret could not be read; trying again");
                sleep(pause.next()).await;
            }
            readability.set(true);
            awaited.answered();
        }))
    }
}

/// Records whether a named object is readable, for as long as it is named.
struct Readability<K: Kind> {
    store: Arc<Store>,
    key: Key,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Readability<K> {
    fn new(store: &Arc<Store>, key: &Key) -> Self {
        Self { store: Arc::clone(store), key: key.clone(), kind: PhantomData }
    }

    fn set(&self, readable: bool) {
        self.store.readable::<K>(&self.key, readable);
    }
}

impl<K: Kind> Drop for Readability<K> {
    fn drop(&mut self) {
        // It is no longer named, so that its readability is unknown.
        self.set(true);
    }
}

/// The scope of one object.
pub(super) fn scope(key: &Key) -> Scope {
    Scope { namespace: Some(key.namespace.clone()), name: Some(key.name.clone()), ..Scope::default() }
}

/// A named object that a compile waits for a moment for. It is answered once, at the latest when this is dropped.
struct Awaited<K: Kind> {
    store: Arc<Store>,
    key: Key,
    is_answered: AtomicBool,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Awaited<K> {
    fn new(store: &Arc<Store>, key: &Key) -> Self {
        store.expect::<K>(key);
        Self { store: Arc::clone(store), key: key.clone(), is_answered: AtomicBool::new(false), kind: PhantomData }
    }

    fn answered(&self) {
        if !self.is_answered.swap(true, Ordering::Relaxed) {
            self.store.answered::<K>(&self.key);
        }
    }
}

impl<K: Kind> Drop for Awaited<K> {
    fn drop(&mut self) {
        self.answered();
    }
}
