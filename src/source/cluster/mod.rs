//! The Kubernetes API as the source: reflectors that keep the objects that a compile reads, and report changes.
//!
//! Objects that were read once stay, whatever happens to the API server or to the network. Knows kinds and names; not what
//! is made of them.

mod client;
mod definition;
mod kind;
mod named;
mod object_cache;
mod reference;
mod reflector;
mod scope;
mod store;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressClassSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

pub use client::{Connection, connect};
use kind::{API_SERVER, Item, Kind};
use named::Named;
use object_cache::{ObjectCache, Published};
use reference::References;
use reflector::Reflector;
use scope::Scope;
use store::Store;

use super::loaded::Loaded;
use crate::api::certificate::Certificate;
use crate::api::objects::{Key, ReferenceGrant};
use crate::api::route::{RouteSpec, SecureWebSocketRoute};
use crate::api::route_id::RouteId;
use crate::telemetry::metrics::Metrics;

/// Types of Secrets that routes can name.
const SECRET_TYPES: [&str; 2] = ["kubernetes.io/tls", "wssgate.io/jwks"];

/// What is read of a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespaces that are read; all if empty.
    pub namespaces: Vec<String>,
    /// Whether each Secret is read by its name alone, so that RBAC can name them.
    pub secrets_by_name: bool,
    /// Secrets that the settings name.
    pub secrets: Vec<Key>,
    /// The gateway's own Service, whose addresses are published.
    pub published: Option<Key>,
    /// Whether the labels of namespaces are read.
    pub labels: bool,
    /// Name and controller of the IngressClass that stands in where IngressClasses may not be read, which only a
    /// gateway of single namespaces accepts.
    pub class: (String, String),
    /// How long after a list that would remove every object a second list must confirm it.
    pub confirm: Duration,
}

impl Default for Options {
    /// All namespaces, nothing named.
    fn default() -> Self {
        Self {
            namespaces: Vec::new(),
            secrets_by_name: false,
            secrets: Vec::new(),
            published: None,
            labels: false,
            class: ("wssgate".to_owned(), crate::api::CONTROLLER.to_owned()),
            confirm: Duration::from_secs(30),
        }
    }
}

/// A cluster.
pub struct Cluster {
    store: Arc<Store>,
    /// Ends the reflectors with the cluster.
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// Begins to read. Needs a tokio runtime.
    pub fn start(client: &Client, options: Options, metrics: &Metrics) -> Self {
        let fixed = References { secrets: options.secrets.iter().cloned().collect(), ..References::default() };
        let cache = ObjectCache::new(options.namespaces.iter().cloned(), fixed);
        let store = Store::new(cache, metrics.clone());
        let mut tasks = JoinSet::new();
        let mut start = Start { store: &store, client, options: &options, tasks: &mut tasks };
        start.everywhere::<SecureWebSocketRoute>();
        start.everywhere::<Service>();
        start.everywhere::<EndpointSlice>();
        start.everywhere::<ReferenceGrant>();
        start.classes();
        start.labels();
        start.issuance();
        start.api_server();
        if let Some(key) = &options.published {
            start.spawn::<Published>(named::scope(key), |_, _| {});
        }
        tasks.spawn(definition::follow(client.clone(), metrics.clone()));
        tasks.spawn(secrets(Arc::clone(&store), client.clone(), options));
        Self { store, _tasks: tasks }
    }

    /// Waits until everything was read once. May be dropped and called again.
    pub async fn ready(&mut self) {
        let mut changes = self.store.subscribe();
        while !self.store.is_ready() && changes.changed().await.is_ok() {}
    }

    /// What is there now.
    pub fn load(&mut self) -> Loaded {
        Loaded { objects: self.store.take(), problems: Vec::new(), skipped: 0, files: 0, places: Arc::default() }
    }

    /// Waits until the objects may differ from those that were loaded last, debounced. May be dropped and called again at any
    /// point without losing a change.
    pub async fn changed(&mut self) {
        let mut changes = self.store.subscribe();
        loop {
            changes.mark_unchanged();
            let moment = self.store.due();
            let due = async {
                match moment {
                    Some(moment) => sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due => return,
                _ = changes.changed() => {}
            }
        }
    }

    /// The last compile serves these last good specs in place of those of their routes: the objects that they name are kept.
    /// To be called after every compile.
    pub fn standing_in<'a>(&mut self, specs: impl Iterator<Item = (&'a RouteId, &'a RouteSpec)>) {
        let mut all = References::default();
        for (id, spec) in specs {
            let mut references = reference::of_route(&id.namespace, spec);
            all.secrets.append(&mut references.secrets);
            all.config_maps.append(&mut references.config_maps);
        }
        self.store.stand_in(all);
    }

    /// Whether IngressClasses can be read; without that right the class of [`Options::class`] stands in.
    pub fn reads_classes(&self) -> bool {
        self.store.read(|cache| !cache.classless)
    }

    /// The gateway's own Service, if there is one and it was named.
    pub fn published(&self) -> Option<Arc<Service>> {
        self.store.read(|cache| cache.published.values().next().map(|service| Arc::new(service.0.clone())))
    }
}

/// Starts reflectors.
struct Start<'a> {
    store: &'a Arc<Store>,
    client: &'a Client,
    options: &'a Options,
    tasks: &'a mut JoinSet<()>,
}

impl Start<'_> {
    fn spawn<K: Kind>(&mut self, scope: Scope, answered: impl Fn(&Store, bool) + Send + Sync + 'static) {
        let reflector = Reflector::<K>::new(self.store, self.client, scope, self.options.confirm);
        self.tasks.spawn(reflector.run(answered));
    }

    /// Every namespace that is read.
    fn everywhere<K: Kind>(&mut self) {
        for scope in scopes(&self.options.namespaces, None) {
            self.spawn::<K>(scope, |_, _| {});
        }
    }

    /// What has to do with cert-manager, without which all else works: its Certificates, and the Ingresses by which it
    /// answers challenges. A gateway that may not read them goes without.
    fn issuance(&mut self) {
        for scope in scopes(&self.options.namespaces, None) {
            let scope = Scope { optional: true, ..scope };
            let namespace = scope.namespace.clone().unwrap_or_default();
            self.spawn::<Ingress>(scope.clone(), |_, _| {});
            self.spawn::<Certificate>(scope, move |store, read| store.serves_certificates(&namespace, read));
        }
    }

    /// The Service of the API server, whose addresses are blocked. A gateway that reads only some namespaces goes without
    /// where it may not read that one.
    fn api_server(&mut self) {
        let (namespace, name) = API_SERVER;
        if self.options.namespaces.is_empty() || self.options.namespaces.iter().any(|one| one == namespace) {
            return;
        }
        let scope = Scope { optional: true, ..named::scope(&Key::new(namespace, name)) };
        self.spawn::<Service>(scope.clone(), |_, _| {});
        self.spawn::<EndpointSlice>(scope, |_, _| {});
    }

    /// Namespaces, which belong to none. Without the right to read them the gateway does not start: what a namespace may
    /// have would not be known.
    fn labels(&mut self) {
        if !self.options.labels {
            return;
        }
        if self.options.namespaces.is_empty() {
            self.spawn::<Namespace>(Scope::default(), |_, _| {});
        }
        for name in self.options.namespaces.iter().collect::<BTreeSet<_>>() {
            let scope = Scope { name: Some(name.clone()), ..Scope::default() };
            self.spawn::<Namespace>(scope, |_, _| {});
        }
    }

    /// IngressClasses belong to no namespace: a gateway that may read namespaces only goes by the name of its class.
    fn classes(&mut self) {
        let optional = !self.options.namespaces.is_empty();
        let (name, controller) = self.options.class.clone();
        let scope = Scope { optional, ..Scope::default() };
        self.spawn::<IngressClass>(scope, move |store, read| {
            store.reads_classes(read);
            if !read {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                let spec = IngressClassSpec { controller: Some(controller.clone()), ..IngressClassSpec::default() };
                let class = IngressClass { metadata, spec: Some(spec) };
                store.put(Key::new("", name.as_str()), Item { object: class, violations: Vec::new() });
            }
        });
    }
}

fn scopes(namespaces: &[String], secret_type: Option<&'static str>) -> Vec<Scope> {
    let scope = |namespace: Option<&String>| Scope { namespace: namespace.cloned(), secret_type, ..Scope::default() };
    if namespaces.is_empty() {
        return vec![scope(None)];
    }
    let mut seen = BTreeSet::new();
    namespaces.iter().filter(|namespace| seen.insert(*namespace)).map(|namespace| scope(Some(namespace))).collect()
}

/// Secrets and ConfigMaps, once it is known which of them are named: before that all would pass by unkept.
async fn secrets(store: Arc<Store>, client: Client, options: Options) {
    let mut changes = store.subscribe();
    while !store.has_listed() && changes.changed().await.is_ok() {}
    let mut tasks = JoinSet::new();
    if !options.secrets_by_name {
        for kind in SECRET_TYPES {
            for scope in scopes(&options.namespaces, Some(kind)) {
                let reflector = Reflector::<Secret>::new(&store, &client, scope, options.confirm);
                tasks.spawn(reflector.run(|_, _| {}));
            }
        }
        while !store.has_listed() && changes.changed().await.is_ok() {}
    }
    let namespaces = options.namespaces.iter().cloned().collect();
    Named::new(&store, &client, options.confirm, options.secrets_by_name, namespaces).run().await;
}
