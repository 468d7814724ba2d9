//! Objects that are read by their names: what routes and settings name, and nothing else. One reflector per object,
//! which RBAC can permit by `resourceNames`; Secrets that a reflector of their type passes by are asked for once.

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
use super::reflector::{Pause, Reflector};
use super::scope::Scope;
use super::store::Store;
use crate::api::objects::Key;
use crate::kube_error::{NO_ANSWER, describe};

/// How long after a refusal the right may have been granted.
const LOOK: Duration = Duration::from_secs(10);
/// Time for one question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions at a time.
const QUESTIONS: usize = 16;

/// What runs for the names.
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
    questions: Arc<Semaphore>,
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
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        Self { store, client, confirm, secrets_by_name, namespaces, secrets, config_maps, questions }
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
                        let task = if by_name { self.reflect::<Secret>(&key) } else { self.ask(&key) };
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
        let expected = Expected::<K>::new(&self.store, key);
        let reflector = Reflector::<K>::new(&self.store, &self.client, scope(key), self.confirm);
        let seen = Seen::<K>::new(&self.store, key);
        Task(tokio::spawn(async move {
            let answered = move |_: &Store, read| {
                seen.readable(read);
                expected.settle();
            };
            reflector.run(answered).await;
        }))
    }

    /// Asks for a Secret that its reflector passed by before it was named.
    fn ask(&self, key: &Key) -> Task {
        let expected = Expected::<Secret>::new(&self.store, key);
        let seen = Seen::<Secret>::new(&self.store, key);
        let (store, client, key) = (Arc::clone(&self.store), self.client.clone(), key.clone());
        let questions = Arc::clone(&self.questions);
        Task(tokio::spawn(async move {
            let api: Api<Item<Secret>> = Api::namespaced_with(client, &key.namespace, &resource::<Secret>("v1"));
            let mut pause = Pause::default();
            let mut refused = false;
            // What the list of the start had is there, and its watch follows it.
            while !store.read(|cache| cache.objects().secrets.contains_key(&key)) {
                let turn = questions.acquire().await;
                store.fetch(&key);
                let answer = timeout(PATIENCE, api.get_opt(&key.name)).await;
                drop(turn);
                let why = match answer {
                    Ok(Ok(item)) => match store.fetched(&key, item) {
                        true => break,
                        // A list or the watch spoke meanwhile.
                        false => continue,
                    },
                    Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                        store.fetched::<Secret>(&key, None);
                        seen.readable(false);
                        expected.settle();
                        if !std::mem::replace(&mut refused, true) {
                            tracing::warn!(secret = %key, "the gateway may not get a Secret; grant it get on that Secret (RBAC)");
                        }
                        sleep(LOOK).await;
                        continue;
                    }
                    Ok(Err(error)) => describe(&error),
                    Err(_) => NO_ANSWER.to_owned(),
                };
                tracing::debug!(secret = %key, problem = why, "a Secret could not be read; the gateway tries again");
                sleep(pause.next()).await;
            }
            seen.readable(true);
            expected.settle();
        }))
    }
}

/// Whether a named object may be read, for as long as somebody asks.
struct Seen<K: Kind> {
    store: Arc<Store>,
    key: Key,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Seen<K> {
    fn new(store: &Arc<Store>, key: &Key) -> Self {
        Self { store: Arc::clone(store), key: key.clone(), kind: PhantomData }
    }

    fn readable(&self, readable: bool) {
        self.store.readable::<K>(&self.key, readable);
    }
}

impl<K: Kind> Drop for Seen<K> {
    fn drop(&mut self) {
        // Nobody names it any more: nothing is known.
        self.readable(true);
    }
}

/// The scope of one object.
pub(super) fn scope(key: &Key) -> Scope {
    Scope { namespace: Some(key.namespace.clone()), name: Some(key.name.clone()), ..Scope::default() }
}

/// Something that a compile waits for a moment for; settled once, at the latest when it is dropped.
struct Expected<K: Kind> {
    store: Arc<Store>,
    key: Key,
    settled: AtomicBool,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kind> Expected<K> {
    fn new(store: &Arc<Store>, key: &Key) -> Self {
        store.expect::<K>(key);
        Self { store: Arc::clone(store), key: key.clone(), settled: AtomicBool::new(false), kind: PhantomData }
    }

    fn settle(&self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.store.settle::<K>(&self.key);
        }
    }
}

impl<K: Kind> Drop for Expected<K> {
    fn drop(&mut self) {
        self.settle();
    }
}
