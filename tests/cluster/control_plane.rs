//! A control plane: etcd and the real API server, started in seconds, with role-based access control.
//!
//! Objects are stored, defaulted and validated as anywhere; nothing acts on them unless a test starts what does
//! ([`super::cert_manager`], [`super::node`]).

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rcgen::KeyPair;
use serde_json::json;

use super::harness::Authority;
use super::kubectl::Kubectl;
use super::process::{Process, until};
use super::{programs, sandbox};

/// How long programs of Kubernetes may take to be ready on a busy machine.
pub const START: Duration = Duration::from_secs(90);

/// The range of the addresses of Services.
const SERVICES: &str = "10.96.0.0/16";

/// A user of the token file besides the administrator: name and group.
const USERS: &[(&str, &str)] = &[
    ("system:node:node", "system:nodes"),
    ("system:kube-proxy", "system:node-proxiers"),
    ("system:kube-scheduler", ""),
    ("system:kube-controller-manager", ""),
];

/// A running control plane.
pub struct ControlPlane {
    folder: PathBuf,
    port: u16,
    etcd_port: u16,
    etcd: Process,
    api_server: Mutex<Option<Process>>,
}

impl ControlPlane {
    /// Starts one that keeps all it writes in `folder`, and waits until it is ready.
    pub fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let authority = Authority::new();
        let node = sandbox::NODE.to_string();
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "127.0.0.1", "10.96.0.1", &node];
        let pair = authority.leaf(&names);
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("ca.crt", authority.pem());
        write("server.crt", &pair.chain);
        write("server.key", &pair.key);
        let accounts = KeyPair::generate().unwrap();
        write("accounts.key", &accounts.serialize_pem());
        write("accounts.pub", &accounts.public_key_pem());
        let mut tokens = String::from("admin,admin,admin,\"system:masters\"\n");
        for (user, group) in USERS {
            tokens += &format!("{user},{user},{user},\"{group}\"\n");
        }
        write("tokens.csv", &tokens);

        let [etcd_port, peer_port, port] = free_ports();
        let etcd = Process::start(
            "etcd",
            &folder.join("logs"),
            Command::new(programs::path("etcd")).args([
                format!("--data-dir={}", folder.join("etcd").display()),
                format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
                "--unsafe-no-fsync".into(),
                "--log-level=warn".into(),
            ]),
        );
        let plane = Self { folder: folder.to_owned(), port, etcd_port, etcd, api_server: Mutex::new(None) };
        plane.write_kubeconfig("admin");
        for (user, _) in USERS {
            plane.write_kubeconfig(user);
        }
        plane.start_api_server();
        plane
    }

    /// Starts the API server again after [`Self::kill_api_server`], on the same port, and waits until it is ready.
    pub fn start_api_server(&self) {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let process = Process::start(
            "kube-apiserver",
            &self.folder.join("logs"),
            Command::new(programs::path("kube-apiserver")).args([
                format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
                format!("--secure-port={}", self.port),
                "--bind-address=0.0.0.0".into(),
                format!("--advertise-address={}", sandbox::NODE),
                format!("--tls-cert-file={}", file("server.crt")),
                format!("--tls-private-key-file={}", file("server.key")),
                format!("--client-ca-file={}", file("ca.crt")),
                format!("--service-account-key-file={}", file("accounts.pub")),
                format!("--service-account-signing-key-file={}", file("accounts.key")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--token-auth-file={}", file("tokens.csv")),
                "--authorization-mode=Node,RBAC".into(),
                // OpenShift has this on: an owner that blocks deletion may be named only by who may update finalizers of it,
                // and owners of what exists may be changed only by who may delete it.
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
                format!("--service-cluster-ip-range={SERVICES}"),
                "--allow-privileged=true".into(),
                "--kubelet-preferred-address-types=InternalIP".into(),
                "--watch-cache=true".into(),
            ]),
        );
        let kubectl = self.kubectl();
        until(START, "the API server to be ready", || {
            process.must_run();
            self.etcd.must_run();
            // Before it listens it need not be asked.
            TcpStream::connect((sandbox::NODE, self.port)).ok()?;
            kubectl.run(&["get", "--raw", "/readyz"]).ok.then_some(())
        });
        *self.api_server.lock().unwrap() = Some(process);
    }

    /// Ends the API server at once, as when its machine dies: connections are cut and nothing answers on its port.
    pub fn kill_api_server(&self) {
        if let Some(process) = self.api_server.lock().unwrap().take() {
            process.kill();
        }
    }

    /// kubectl of the administrator. What is under test never gets this: see [`Self::service_account`].
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig("admin"))
    }

    /// kubectl, and by [`Kubectl::kubeconfig`] a kubeconfig, of a service account that exists: no more rights than a pod
    /// of its would have.
    pub fn service_account(&self, namespace: &str, name: &str) -> Kubectl {
        self.kubectl().service_account(namespace, name, &self.folder.join(format!("{namespace}-{name}.kubeconfig")))
    }

    /// The kubeconfig of the administrator or of one of Kubernetes' own programs.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// Its folder: `ca.crt`, `accounts.key`, `logs`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn write_kubeconfig(&self, user: &str) {
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{}:{}", sandbox::NODE, self.port),
                "certificate-authority": self.folder.join("ca.crt"),
            }}],
            "users": [{"name": user, "user": {"token": user}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        });
        fs::write(self.kubeconfig(user), config.to_string()).unwrap();
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The API server first: without its store it would wait for minutes.
        self.kill_api_server();
        self.etcd.kill();
    }
}

/// Ports that were free a moment ago. The sandbox has a loopback of its own, so that nobody else takes them.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
