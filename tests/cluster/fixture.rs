//! A gateway beside the API server: the built binary with what the chart renders for it, its service account's token and
//! no other right, its settings file as the kubelet projects the chart's ConfigMap, and a backend that records.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::control_plane::ControlPlane;
use super::harness::manifests::{merge, text};
use super::harness::{
    Answer, Authority, Behaviour, Client, Gateway, Head, Options, Pair, Peer, Recorder, canary, manifests,
};
use super::kubectl::Kubectl;
use super::process::until;
use super::{programs, sandbox};

/// The longest that something may take that has no time-out of its own.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test that drives sockets. Backends go on while it waits for kubectl.
pub fn run(test: impl Future<Output = ()>) {
    Runtime::new().unwrap().block_on(test);
}

/// A release of the chart with a class of its own, and a namespace with a backend.
pub struct Fixture<'a> {
    /// The API server.
    pub plane: &'a ControlPlane,
    /// The administrator, in the namespace of the release.
    pub home: Kubectl,
    /// The administrator, in a namespace with a Service `chat`, port 8080, and a TLS Secret `chat-tls`.
    pub kubectl: Kubectl,
    /// The service account of the release.
    pub account: Kubectl,
    /// The authority of `chat-tls`.
    pub authority: Authority,
    /// What the Service leads to.
    pub recorder: Recorder,
    folder: PathBuf,
}

impl Drop for Fixture<'_> {
    /// What gateways wrote to the API server holds no secret that a test knew, as their logs hold none.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for (what, path) in
            [("securewebsocketroutes", "{.items[*].status}"), ("events", "{.items[*]['reason','message']}")]
        {
            let said = self.kubectl.run(&["get", what, "-o", &format!("jsonpath={path}")]);
            // A test may have taken the definition away, and all routes with it.
            assert!(said.ok || said.err.contains("could not find the requested resource"), "{what}: {}", said.err);
            assert_eq!(canary::found_in(&said.out), None, "a secret stands in {what}");
        }
    }
}

impl<'a> Fixture<'a> {
    /// Installs the chart with these values and makes the namespace, which is watched whatever the values are.
    pub async fn new(plane: &'a ControlPlane, name: &str, values: &Value) -> Self {
        let admin = plane.kubectl();
        let home = admin.make_namespace(&format!("{name}-home"));
        let kubectl = admin.make_namespace(name);
        let folder = plane.folder().join(home.namespace());
        fs::create_dir_all(&folder).unwrap();
        let authority = Authority::new();
        let recorder = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        // The account is made with the rest.
        let account = kubectl.clone();
        let mut fixture = Self { plane, home, kubectl, account, authority, recorder, folder };
        fixture.install(values);
        fixture.account = plane.service_account(fixture.home.namespace(), "wssgate");
        let pair = fixture.authority.leaf(&["*.example.com"]);
        let objects = [fixture.service("chat", &fixture.recorder), vec![fixture.secret("chat-tls", &pair)]].concat();
        fixture.kubectl.apply(&text(&objects));
        fixture
    }

    /// The class of the release.
    pub fn class(&self) -> &str {
        self.home.namespace()
    }

    /// Installs the chart for these namespaces alone, and takes away the rights over the cluster of the install before.
    pub fn confine(&self, namespaces: &Value) {
        for kind in ["clusterrole", "clusterrolebinding"] {
            self.home.must(&["delete", kind, &format!("{}-wssgate", self.home.namespace())]);
        }
        self.install(&json!({"watchNamespaces": namespaces, "ingressClass": {"create": false}}));
    }

    /// Renders the chart with these values and applies it, and puts the settings file where it is followed.
    pub fn install(&self, values: &Value) {
        let mut all = json!({"crds": {"enabled": false}, "ingressClass": {"name": self.class()}});
        merge(&mut all, values);
        let file = self.folder.join("values.yaml");
        fs::write(&file, all.to_string()).unwrap();
        let mut helm = Command::new(programs::path("helm"));
        helm.args(["template", "wssgate", concat!(env!("CARGO_MANIFEST_DIR"), "/charts/wssgate")]);
        helm.args(["--namespace", self.home.namespace(), "--values"]).arg(&file);
        let rendered = helm.output().unwrap();
        assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        // Roles go to other namespaces, too.
        self.plane.kubectl().apply(&String::from_utf8(rendered.stdout).unwrap());
        self.project();
    }

    /// Projects the ConfigMap into a folder as the kubelet does: files are links through `..data`, which is replaced
    /// at once.
    pub fn project(&self) {
        let map = self.home.get(&["configmap", "wssgate"]);
        let version = map["metadata"]["resourceVersion"].as_str().unwrap();
        let data = self.folder.join(format!("..{version}"));
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("gateway.yaml"), map["data"]["gateway.yaml"].as_str().unwrap()).unwrap();
        let next = self.folder.join("..data_tmp");
        let _ = fs::remove_file(&next);
        symlink(format!("..{version}"), &next).unwrap();
        fs::rename(next, self.folder.join("..data")).unwrap();
        let file = self.folder.join("gateway.yaml");
        if !file.exists() {
            symlink("..data/gateway.yaml", file).unwrap();
        }
    }

    /// A replica with this name of its Pod, ready.
    pub async fn gateway(&self, pod: &str) -> Gateway {
        self.gateway_with(pod, &[], &[]).await
    }

    /// The same with more environment and arguments.
    pub async fn gateway_with(&self, pod: &str, env: &[(&str, &str)], args: &[&str]) -> Gateway {
        let mut gateway = self.launch(pod, env, args).await;
        gateway.ready().await;
        gateway
    }

    /// One that reads another API server.
    pub async fn gateway_by(&self, kubeconfig: &Path, args: &[&str]) -> Gateway {
        let mut gateway = self.launch_by(kubeconfig, "wssgate-0", &[], args).await;
        gateway.ready().await;
        gateway
    }

    /// A replica that may never become ready.
    pub async fn launch(&self, pod: &str, env: &[(&str, &str)], more: &[&str]) -> Gateway {
        self.launch_by(self.account.kubeconfig(), pod, env, more).await
    }

    async fn launch_by(&self, kubeconfig: &Path, pod: &str, env: &[(&str, &str)], more: &[&str]) -> Gateway {
        let path = |path: PathBuf| path.display().to_string();
        let args =
            ["--config".to_owned(), path(self.folder.join("gateway.yaml")), "--kubeconfig".to_owned()].into_iter();
        let args = args.chain([path(kubeconfig.to_owned())]);
        let args = args.chain(more.iter().map(|one| (*one).to_owned())).collect();
        let own = [("POD_NAME", pod), ("POD_NAMESPACE", self.home.namespace())];
        let env = own.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Gateway::launch(None, &Options { args, env, ..Options::default() }).await
    }

    /// A route of the release's class for a host, everything to the Service `chat`; `spec` is laid over it.
    pub fn route(&self, name: &str, host: &str, spec: &Value) -> Value {
        let mut route = manifests::route(name, host, "chat-tls", "chat", &json!({"ingressClassName": self.class()}));
        merge(&mut route["spec"], spec);
        self.here(route)
    }

    /// A Service of a name and an EndpointSlice of it with the recorder's address.
    pub fn service(&self, name: &str, recorder: &Recorder) -> Vec<Value> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "ws", "port": 8080, "appProtocol": "kubernetes.io/ws"}]},
        });
        let address = recorder.address();
        vec![self.here(service), self.slice(name, &address.ip().to_string(), address.port())]
    }

    /// An EndpointSlice of a Service with one address.
    pub fn slice(&self, service: &str, address: &str, port: u16) -> Value {
        let mut slice = manifests::slice(service, 0, port, &json!({"ready": true}));
        slice["endpoints"][0]["addresses"] = json!([address]);
        self.here(slice)
    }

    /// A TLS Secret.
    pub fn secret(&self, name: &str, pair: &Pair) -> Value {
        self.here(manifests::secret(name, pair))
    }

    /// The object in the namespace of the fixture.
    pub fn here(&self, mut object: Value) -> Value {
        object["metadata"]["namespace"] = self.kubectl.namespace().into();
        object
    }

    /// Applies objects.
    pub fn apply(&self, objects: &[Value]) {
        self.kubectl.apply(&text(objects));
    }

    /// A client of a gateway that asks for this host and trusts the fixture's authority.
    pub fn client(&self, gateway: &Gateway, host: &str) -> Client {
        Client { address: gateway.wss, config: Arc::new(self.authority.client()), name: host.to_owned() }
    }

    /// The status of a handshake for a host; 0 where TLS fails.
    pub async fn status(&self, gateway: &Gateway, host: &str) -> u16 {
        self.ask(gateway, host).await.map_or(0, |(answer, _)| answer.status())
    }

    /// A handshake for a host; `None` where TLS fails.
    pub async fn ask(&self, gateway: &Gateway, host: &str) -> Option<(Answer, Peer)> {
        let mut peer = self.client(gateway, host).try_connect().await.ok()?;
        peer.write(&upgrade(host).bytes()).await;
        Some((peer.head().await?, peer))
    }

    /// A connection after its 101, as soon as the gateway serves the host.
    pub async fn open(&self, gateway: &Gateway, host: &str) -> Peer {
        super::harness::until(LIMIT, &format!("{host} to be served"), async || {
            let (answer, peer) = self.ask(gateway, host).await?;
            (answer.status() == 101).then_some(peer)
        })
        .await
    }

    /// Waits until a handshake for a host ends like this.
    pub async fn becomes(&self, gateway: &Gateway, host: &str, status: u16) {
        let start = std::time::Instant::now();
        loop {
            let now = self.status(gateway, host).await;
            if now == status {
                return;
            }
            assert!(start.elapsed() < LIMIT, "{host} is answered with {now}, expected {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a condition of a route has this status and reason; its message.
    pub fn condition(&self, route: &str, kind: &str, status: &str, reason: &str) -> String {
        self.kubectl.until(LIMIT, &["swsr", route], &format!("to have {kind}={status}/{reason}"), |route| {
            let found = condition(route, kind)?;
            (found["status"] == status && found["reason"] == reason)
                .then(|| found["message"].as_str().unwrap_or_default().to_owned())
        })
    }
}

/// A handshake on `/` of a host.
pub fn upgrade(host: &str) -> Head {
    Head::upgrade("/").set("Host", host)
}

/// A condition of a route.
pub fn condition<'a>(route: &'a Value, kind: &str) -> Option<&'a Value> {
    route["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// The events about a route: type and reason.
pub fn events(kubectl: &Kubectl, route: &str) -> Vec<(String, String)> {
    let events = kubectl.get(&["events.events.k8s.io"]);
    let of_route = events["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == route);
    of_route.map(|e| (e["type"].as_str().unwrap().to_owned(), e["reason"].as_str().unwrap().to_owned())).collect()
}

/// Waits until the gateway's log has a line with all of these words; the line.
pub fn logged(gateway: &Gateway, words: &[&str]) -> String {
    until(LIMIT, &format!("a line of the log with {words:?}"), || {
        let log = gateway.log_text();
        log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
    })
}
