//! The clusters of a run, started when a test first asks for one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::control_plane::ControlPlane;
use super::kubectl::{Kubectl, TEST_NAMESPACES};
use super::node::Node;
use super::process::until;
use super::release::Release;
use super::{programs, sandbox};

/// How long a definition may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Either came up or did not; whoever asks later is told the same.
type Started<T> = OnceLock<Result<T, String>>;

/// What tests run against.
#[derive(Default)]
pub struct Clusters {
    /// The kubeconfig of a cluster that exists already.
    existing: Option<PathBuf>,
    api: Started<(ControlPlane, Kubectl)>,
    visited: Started<Kubectl>,
    // Before the node: it ends first.
    release: Started<Release>,
    node: Started<Node>,
}

impl Clusters {
    /// Clusters of our own.
    pub fn own() -> Self {
        Self::default()
    }

    /// A cluster that is there already.
    pub fn existing(kubeconfig: PathBuf) -> Self {
        let mut clusters = Self::default();
        clusters.existing = Some(kubeconfig);
        clusters
    }

    /// kubectl of an administrator of the shared API server, or of the cluster that exists; our CRD is established.
    /// Nothing runs there but the API. Tests share it: each makes a namespace of its own ([`Kubectl::make_namespace`]),
    /// and gives objects outside of namespaces names of its own.
    pub fn api(&self) -> &Kubectl {
        if let Some(kubeconfig) = &self.existing {
            return once(&self.visited, "the existing cluster", || {
                let kubectl = Kubectl::new(kubeconfig);
                install_definition(&kubectl);
                kubectl
            });
        }
        &self.api_of_our_own().1
    }

    /// The shared API server itself, with our CRD. Only for tests that need the sandbox; who kills it starts one of its own instead
    /// ([`Self::another`]).
    pub fn control_plane(&self) -> &ControlPlane {
        &self.api_of_our_own().0
    }

    fn api_of_our_own(&self) -> &(ControlPlane, Kubectl) {
        once(&self.api, "the API server", || {
            let plane = ControlPlane::start(&state().join("api"));
            let kubectl = plane.kubectl();
            install_definition(&kubectl);
            (plane, kubectl)
        })
    }

    /// A control plane that only one test sees, and may break. Our CRD is not installed.
    pub fn another(&self, name: &str) -> ControlPlane {
        ControlPlane::start(&state().join(name))
    }

    /// The shared whole node, with our image loaded. Our CRD comes with the release.
    pub fn node(&self) -> &Node {
        once(&self.node, "the node", || Node::start(&state().join("node")))
    }

    /// The shared release of our chart on the node.
    pub fn release(&self) -> &Release {
        once(&self.release, "the release", || Release::install(self.node()))
    }
}

impl Drop for Clusters {
    fn drop(&mut self) {
        if let (Some(_), Some(Ok(kubectl))) = (&self.existing, self.visited.get()) {
            // The cluster goes on: its owner keeps the definition, but no namespace of a test.
            kubectl.run(&["delete", "namespaces", "--wait=false", "--selector", TEST_NAMESPACES]);
        }
    }
}

/// Where the run keeps its state.
pub fn state() -> PathBuf {
    sandbox::inside().expect("a test of the sandbox")
}

/// The binary under test.
pub fn wssgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wssgate"))
}

/// `wssgate crd | kubectl apply -f -`, and waits until routes can be written. What kubectl said.
pub fn install_definition(kubectl: &Kubectl) -> String {
    let printed = wssgate().arg("crd").output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let said = kubectl.apply(&String::from_utf8(printed.stdout).unwrap());
    kubectl.wait("crd/securewebsocketroutes.wssgate.io", "condition=Established", LIMIT);
    // Established says nothing of short names and descriptions: these are published a moment later.
    until(LIMIT, "kubectl to know routes", || kubectl.run(&["explain", "swsr.spec"]).ok.then_some(()));
    said
}

/// Installs the definitions of another project ([`programs::definitions`]).
pub fn install_definitions_of(kubectl: &Kubectl, project: &str) {
    let folder = programs::definitions(project).canonicalize().unwrap().display().to_string();
    // Server-side: cert-manager's are too large for the annotation of the other.
    kubectl.must(&["apply", "--server-side", "-f", &folder]);
    kubectl.must(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &folder]);
}

fn once<'a, T>(cell: &'a Started<T>, what: &str, start: impl FnOnce() -> T) -> &'a T {
    // The panic itself prints all it has to say.
    match cell.get_or_init(|| catch_unwind(AssertUnwindSafe(start)).map_err(|panic| words(panic.as_ref()))) {
        Ok(value) => value,
        Err(reason) => panic!("{what} did not start: {}", reason.lines().next().unwrap_or_default()),
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
