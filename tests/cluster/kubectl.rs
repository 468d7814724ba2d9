//! The real kubectl, as one user of one cluster.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::harness::manifests::text;
use super::process::until;
use super::programs;

/// The label of the namespaces that tests make.
pub const TEST_NAMESPACES: &str = "wssgate.io/test=true";

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended with 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// kubectl with a kubeconfig and, where one is set, a namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

impl Kubectl {
    /// Whoever the kubeconfig says.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), namespace: None }
    }

    /// The same user in this namespace.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// The kubeconfig, for other programs.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The namespace; panics if none was set.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap()
    }

    /// Makes a namespace whose name begins so, with these labels (`key: value, ..`), and gives kubectl in it. Each test has
    /// its own.
    pub fn make_namespace_with(&self, name: &str, labels: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (key, value) = TEST_NAMESPACES.split_once('=').unwrap();
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{{key}: '{value}', {labels}}}}}}}"
        ));
        self.in_namespace(&name)
    }

    /// The same without more labels.
    pub fn make_namespace(&self, name: &str) -> Self {
        self.make_namespace_with(name, "")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::path("kubectl"));
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(arguments);
        command
    }

    /// Runs kubectl with this on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
        // Its own thread: kubectl may answer before it has read all.
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.into()
    }

    /// Runs kubectl.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    /// Runs kubectl, which must succeed; its standard output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.ok, "kubectl {}: {}{}", arguments.join(" "), said.out, said.err);
        said.out
    }

    /// Applies manifests (client-side, as people do), which must succeed; what kubectl printed.
    pub fn apply(&self, manifests: &str) -> String {
        let said = self.run_with(&["apply", "-f", "-"], manifests);
        assert!(said.ok, "kubectl apply: {}{}\n{manifests}", said.out, said.err);
        said.out
    }

    /// Applies objects in this namespace, whichever they say.
    pub fn put(&self, mut objects: Vec<Value>) {
        for object in &mut objects {
            object["metadata"]["namespace"] = self.namespace().into();
        }
        self.apply(&text(&objects));
    }

    /// Applies manifests that must be refused; the API server's words.
    pub fn refused(&self, manifests: &str) -> String {
        let said = self.run_with(&["apply", "--dry-run=server", "-f", "-"], manifests);
        assert!(!said.ok, "accepted: {}\n{manifests}", said.out);
        said.err
    }

    /// `kubectl get ARGUMENTS -o json`, which must succeed.
    pub fn get(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.must(&[&["get", "-o", "json"], arguments].concat())).unwrap()
    }

    /// An object, or `None` if it is not there (yet).
    pub fn find(&self, arguments: &[&str]) -> Option<Value> {
        let said = self.run(&[&["get", "--ignore-not-found", "-o", "json"], arguments].concat());
        (said.ok && !said.out.is_empty()).then(|| serde_json::from_str(&said.out).unwrap())
    }

    /// Polls an object until `check` gives a value; panics after `limit`, with the object as it is.
    pub fn until<T>(&self, limit: Duration, object: &[&str], what: &str, check: impl Fn(&Value) -> Option<T>) -> T {
        let mut last = None;
        let start = std::time::Instant::now();
        loop {
            if let Some(found) = self.find(object) {
                if let Some(value) = check(&found) {
                    return value;
                }
                last = Some(found);
            }
            assert!(
                start.elapsed() < limit,
                "after {limit:?} still waiting: {} {what}; it is {:#}",
                object.join("/"),
                last.unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `kubectl wait --for=CONDITION`, which must succeed within `limit`; an object that is not there yet is waited for.
    pub fn wait(&self, object: &str, condition: &str, limit: Duration) {
        until(limit, &format!("{object} to exist"), || self.find(&[object]));
        let said = self.run(&[
            "wait",
            object,
            &format!("--for={condition}"),
            &format!("--timeout={}s", limit.as_secs().max(1)),
        ]);
        if !said.ok {
            let now = self.run(&["get", object, "-o", "yaml"]);
            panic!("{object} did not come to {condition} within {limit:?}: {}\n{}{}", said.err, now.out, now.err);
        }
    }

    /// A kubeconfig of a service account, with a token from the API server. The user that this one may speak for is
    /// exactly what a pod with the service account would be.
    pub fn service_account(&self, namespace: &str, name: &str, file: &Path) -> Self {
        let token = self.must(&["create", "token", name, "--namespace", namespace, "--duration", "24h"]);
        super::harness::canary::note(token.trim());
        let mut config: Value = serde_json::from_str(&self.must(&["config", "view", "--raw", "-o", "json"])).unwrap();
        config["users"] = serde_json::json!([{"name": "account", "user": {"token": token.trim()}}]);
        for context in config["contexts"].as_array_mut().unwrap() {
            context["context"]["user"] = "account".into();
        }
        std::fs::write(file, config.to_string()).unwrap();
        Self::new(file)
    }
}
