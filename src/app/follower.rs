//! From the source to the data plane: loads, compiles, publishes, and logs what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::sync::watch;
use tokio::time::sleep;

use super::clock::now;
use super::cluster::Control;
use super::schemas::SchemaReader;
use crate::api::objects::{Key, Objects};
use crate::api::route_id::RouteId;
use crate::api::status::CAUSES;
use crate::compile::{self, Compiled};
use crate::snapshot::dependency::Dependency;
use crate::snapshot::live::Live;
use crate::source::Source;
use crate::source::loaded::Loaded;
use crate::telemetry::metrics::Certificate;
use crate::telemetry::metrics::Metrics;

/// How long after a compile that panicked the next one, if nothing changes.
const AGAIN: Duration = Duration::from_secs(60);

/// How long a compile waits for schemas of messages to be read, while routes are served that do not name them.
const MOMENT: Duration = Duration::from_millis(200);
/// How long the first compile waits, before which nothing is served.
const START: Duration = Duration::from_secs(10);

/// The part that follows the source: compiles what changed and publishes it.
pub(super) struct Follower {
    source: Source,
    /// Where the source is a cluster: what else is done with it.
    control: Option<Control>,
    options: compile::Options,
    compiled: Option<Arc<Compiled>>,
    live: Arc<Live>,
    metrics: Metrics,
    changed: watch::Sender<u64>,
    /// Dependencies of handshakes that the data plane cannot reach.
    failing: watch::Receiver<Arc<BTreeSet<Dependency>>>,
    /// The last logged problem of each file, route and object, so that each is logged once.
    logged: BTreeMap<String, String>,
    compile: Compile,
    schemas: SchemaReader,
    /// The last compile panicked.
    faulty: bool,
}

/// [`compile::compile`].
type Compile = fn(&Objects, &compile::Options, i64, Option<&Compiled>) -> Compiled;

impl Follower {
    /// A follower that has not looked yet.
    ///
    /// # Errors
    /// The thread that reads schemas cannot be started.
    pub(super) fn new(
        source: Source,
        control: Option<Control>,
        options: compile::Options,
        live: Arc<Live>,
        metrics: Metrics,
        changed: watch::Sender<u64>,
        failing: watch::Receiver<Arc<BTreeSet<Dependency>>>,
    ) -> io::Result<Self> {
        let schemas = SchemaReader::start()?;
        let (logged, compile) = (BTreeMap::new(), compile::compile as Compile);
        Ok(Self {
            source,
            control,
            options,
            compiled: None,
            live,
            metrics,
            changed,
            failing,
            logged,
            compile,
            schemas,
            faulty: false,
        })
    }

    /// Waits until there is something to follow.
    pub(super) async fn ready(&mut self) {
        self.source.ready().await;
    }

    /// Waits until the source may differ from what was followed last, or the routes' conditions have something else to
    /// say because of the time (a certificate becomes valid, or is near its end, or past it) or of the data plane, which
    /// cannot reach something or can again, or of the API server, which refuses something or does no longer.
    pub(super) async fn changed(&mut self) {
        let due = self.compiled.as_ref().and_then(|compiled| compiled.due);
        let wait = due.map(|due| Duration::from_secs(u64::try_from(due - now()).unwrap_or(0)));
        // What was due then may be over: it is not compiled without end.
        let wait = if self.faulty { Some(AGAIN) } else { wait };
        let refused = async {
            match &mut self.control {
                Some(control) => control.changed().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.source.changed() => {}
            () = sleep(wait.unwrap_or(Duration::MAX)) => {}
            Ok(()) = self.failing.changed() => {}
            () = refused => {}
            () = self.schemas.changed() => {}
        }
    }

    /// Compiles by other options from the next [`Follower::follow`] on; a directory is read for other namespaces. How a cluster
    /// is read, and as whom, stays as it is: [`Follower::adopt`] what was read otherwise.
    pub(super) fn reconfigure(&mut self, options: compile::Options, namespaces: &[String]) {
        let before = std::mem::take(&mut self.options);
        self.options = compile::Options { standalone: before.standalone, blocked: before.blocked, ..options };
        match &mut self.source {
            Source::Files(files) => files.limit(namespaces.iter().cloned()),
            Source::Cluster(_) => {
                self.options.controller_name = before.controller_name;
                self.options.ingress_class_name = before.ingress_class_name;
                self.options.default_certificate = before.default_certificate;
                self.options.own_service = before.own_service;
                // What a namespace may have is not known until its labels were read.
                if self.options.ceilings.match_labels() && !before.ceilings.match_labels() {
                    self.options.ceilings = before.ceilings;
                }
            }
        }
    }

    /// Follows another source from the next [`Follower::follow`] on, in place of this one.
    pub(super) fn adopt(&mut self, (source, control, options): (Source, Option<Control>, compile::Options)) {
        drop(self.stop());
        (self.source, self.control, self.options) = (source, control, options);
    }

    /// Ends what else is done with a cluster, so that another replica can begin with it. What is followed after that
    /// reaches the data plane and nobody else.
    pub(super) fn stop(&mut self) -> impl Future<Output = ()> + use<> {
        let ended = self.control.take().map(|control| tokio::spawn(control.stop()));
        async move {
            if let Some(ended) = ended {
                let _ = ended.await;
            }
        }
    }

    /// Whether there is anything to serve: a compile that panicked leaves what was published before it.
    pub(super) fn serves(&self) -> bool {
        self.compiled.is_some()
    }

    /// Loads, compiles and publishes. Blocks: call it where that is allowed.
    pub(super) fn follow(&mut self) {
        let began = Instant::now();
        let loaded = self.source.load();
        self.options.failing = Arc::clone(&self.failing.borrow_and_update());
        if let Some(control) = &mut self.control {
            self.options.refused = control.refused();
        }
        self.metrics.manifests(loaded.problems.len(), loaded.skipped);
        let compiled = self.compile(&loaded.objects);
        self.faulty = compiled.is_none();
        let Some(compiled) = compiled else {
            tracing::error!(
                "compile panicked, which is a bug of the gateway; the last snapshot stays in use and no change takes effect; \
                 please report it with the location in the log"
            );
            return;
        };
        let accepted = compiled.accepted();
        let routes = compiled.statuses.len();
        self.metrics.compiled(accepted, routes - accepted, began.elapsed());
        self.report(&loaded, &compiled);
        let before = self.compiled.as_ref().map(|compiled| compiled.snapshot.version);
        let version = compiled.snapshot.version;
        if before != Some(version) {
            self.live.publish(compiled.snapshot.clone());
            self.metrics.certificates(certificates(&compiled));
            self.metrics.retain_routes(&compiled.statuses.keys().map(RouteId::to_string).collect());
            let _ = self.changed.send(version);
            tracing::info!(
                version,
                routes,
                accepted,
                took_ms = began.elapsed().as_millis() as u64,
                "snapshot published"
            );
        }
        self.metrics.last_good_certificates(compiled.last_good_certificates());
        self.metrics.published(version, SystemTime::now());
        if let (Some(control), Source::Cluster(cluster)) = (&self.control, &mut self.source) {
            cluster.standing_in(compiled.standing_in());
            control.report(cluster, &loaded, &compiled);
        }
        self.compiled = Some(Arc::new(compiled));
    }

    /// Compiles. Schemas that must be read first are read, if that takes no longer than a moment; else the next compile has
    /// them. `None`: it panicked.
    fn compile(&mut self, objects: &Objects) -> Option<Compiled> {
        let patience = if self.serves() { MOMENT } else { START };
        let Self { options, schemas, compiled, compile, .. } = self;
        let compiled = schemas.compile(patience, |known| {
            options.schemas = known;
            // It changes nothing but what it gives.
            catch_unwind(AssertUnwindSafe(|| compile(objects, options, now(), compiled.as_deref())))
        });
        compiled.ok()
    }

    /// Logs what is wrong with files and routes, each thing once until it changes.
    fn report(&mut self, loaded: &Loaded, compiled: &Compiled) {
        let mut logged = BTreeMap::new();
        for problem in &loaded.problems {
            let (subject, text) = (format!("file {}:{}", problem.file, problem.line), problem.message.clone());
            if self.logged.get(&subject) != Some(&text) {
                tracing::warn!(file = %problem.file, line = problem.line, column = problem.column,
                    problem = %problem.message, "manifest could not be read as written; its last good objects stay in use");
            }
            logged.insert(subject, text);
        }
        for (id, status) in &compiled.statuses {
            let route = loaded.objects.routes.get(&Key::new(&*id.namespace, &*id.name));
            if route.is_some_and(|route| route.metadata.deletion_timestamp.is_some()) {
                // Nobody need attend to it. What was logged before is not resolved until the route is gone.
                let of_route = format!("route {id} ");
                let before = self.logged.range(of_route.clone()..);
                let before = before.take_while(|(subject, _)| subject.starts_with(&of_route));
                logged.extend(before.map(|(subject, text)| (subject.clone(), text.clone())));
                continue;
            }
            let is = |c: &Condition| CAUSES.iter().any(|(kind, wrong)| kind.as_str() == c.type_ && *wrong == c.status);
            let wrong = |condition: &&Condition| is(condition);
            for condition in status.conditions.iter().flatten().filter(wrong) {
                let (subject, text) = (format!("route {id} {}", condition.type_), condition.message.clone());
                if self.logged.get(&subject) != Some(&text) {
                    tracing::warn!(route = %id, condition = %condition.type_, status = %condition.status,
                        reason = %condition.reason, problem = %condition.message, "route needs attention");
                }
                logged.insert(subject, text);
            }
        }
        for (subject, text) in &compiled.remarks {
            if self.logged.get(subject) != Some(text) {
                tracing::warn!(object = %subject, problem = %text, "object needs attention");
            }
            logged.insert(subject.clone(), text.clone());
        }
        for subject in self.logged.keys().filter(|subject| !logged.contains_key(*subject)) {
            tracing::info!(subject, "problem resolved");
        }
        self.logged = logged;
    }
}

/// The certificates that are served, by Secret and host.
fn certificates(compiled: &Compiled) -> Vec<Certificate> {
    let hosts = compiled.snapshot.exact.values().chain(compiled.snapshot.wildcard.values());
    hosts
        .filter_map(|host| Some((host, host.tls.own()?)))
        .flat_map(|(host, tls)| tls.certificates.iter().map(move |certificate| (host, certificate)))
        .map(|(host, certificate)| Certificate {
            secret: certificate.secret.clone(),
            host: host.name.to_string(),
            not_after: certificate.not_after,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::source::Files;

    #[tokio::test]
    async fn a_compile_that_panics_takes_nothing_away_and_is_not_done_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Files(Box::new(Files::open(folder.path()).unwrap()));
        let (changed, mut changes) = watch::channel(0);
        let (_failing, failing) = watch::channel(Arc::default());
        let (live, metrics) = (Arc::new(Live::default()), Metrics::new());
        let options = compile::Options { standalone: true, ..compile::Options::default() };
        let mut follower = Follower::new(source, None, options, Arc::clone(&live), metrics, changed, failing).unwrap();
        let panics: Compile = |_, _, _, _| panic!("a parser of somebody else");
        follower.compile = panics;
        follower.follow();
        assert!(!follower.serves(), "there is nothing to serve");
        // There is something else to say at once.
        follower.compile = |objects, options, now, before| {
            let mut compiled = compile::compile(objects, options, now, before);
            compiled.due = Some(now - 1);
            compiled
        };
        follower.follow();
        assert!(follower.serves() && changes.has_changed().unwrap());
        changes.mark_unchanged();
        timeout(Duration::from_secs(10), follower.changed()).await.unwrap();
        let before = live.load();
        follower.compile = panics;
        follower.follow();
        assert!(follower.serves(), "what was published serves");
        assert!(Arc::ptr_eq(&before, &live.load()) && !changes.has_changed().unwrap());
        assert!(timeout(Duration::from_millis(200), follower.changed()).await.is_err());
    }

    #[test]
    fn a_route_that_is_being_deleted_needs_no_attention() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Files(Box::new(Files::open(folder.path()).unwrap()));
        let (changed, _changes) = watch::channel(0);
        let (_failing, failing) = watch::channel(Arc::default());
        let options = compile::Options { standalone: true, ..compile::Options::default() };
        let mut follower =
            Follower::new(source, None, options, Arc::default(), Metrics::new(), changed, failing).unwrap();
        let mut followed = |service: &str, leaving: bool| {
            let leaving =
                if leaving { ", deletionTimestamp: '2027-01-15T08:00:00Z', finalizers: [a.test/held]" } else { "" };
            let route = format!(
                "apiVersion: wssgate.io/v1alpha1
kind: SecureWebSocketRoute
metadata: {{name: chat, namespace: shop{leaving}}}
spec:
  hostnames: [chat.test]
  rules: [{{name: all, backendRefs: [{{name: {service}, port: 80}}]}}]
  handshake: {{authentication: {{mode: Anonymous}}}}"
            );
            std::fs::write(folder.path().join("route.yaml"), route).unwrap();
            follower.follow();
            follower.logged.get("route shop/chat ResolvedRefs").cloned().unwrap_or_default()
        };
        assert_eq!(followed("one", true), "", "a problem that began with the deletion");
        let before = followed("one", false);
        assert!(before.contains("Service shop/one"), "{before}");
        assert_eq!(followed("two", true), before, "neither a new problem nor the end of the old one is logged");
        assert!(followed("two", false).contains("Service shop/two"));
    }
}
