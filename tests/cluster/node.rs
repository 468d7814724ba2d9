//! A whole node: the control plane with its controllers, and everything that runs pods.
//!
//! Images come from archives ([`super::image`]) and never from a registry; pods say `imagePullPolicy: Never`. There is
//! no name server in the cluster. The test is on the node, so it reaches pods and Services by their addresses; who has to
//! come from elsewhere goes through [`sandbox::step_outside`].

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::control_plane::{ControlPlane, START};
use super::kubectl::Kubectl;
use super::process::{Process, until};
use super::sandbox::{self, call};
use super::{image, programs};

/// Where containerd listens; `/run` is the sandbox's own.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The addresses of pods.
const PODS: &str = "10.244.0.0/16";

/// A running node.
pub struct Node {
    plane: ControlPlane,
    /// From the first to be ended to the last.
    programs: Vec<Process>,
}

impl Node {
    /// Starts one that keeps its state in `folder`, loads the images and waits until it is ready.
    pub fn start(folder: &Path) -> Self {
        let plane = ControlPlane::start(folder);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        sandbox::make_outside();
        let mut node = Self { plane, programs: Vec::new() };
        node.start_containerd();
        for image in image::ALL {
            node.load(&image::archive(image));
        }
        node.start_controllers();
        node.start_proxy();
        node.start_kubelet();
        node.kubectl().wait("node/node", "condition=Ready", START);
        node
    }

    /// Its control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// kubectl of the administrator.
    pub fn kubectl(&self) -> Kubectl {
        self.plane.kubectl()
    }

    /// Loads the images of an archive.
    pub fn load(&self, archive: &Path) {
        let archive = archive.display().to_string();
        call(&["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", &archive]).unwrap();
    }

    /// Gives an image that is loaded another name beside its own, as if it had been pulled by that.
    pub fn tag(&self, image: &str, name: &str) {
        call(&["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "tag", image, name]).unwrap();
    }

    fn run(&mut self, name: &str, command: &mut Command) {
        self.programs.insert(0, Process::start(name, &self.plane.folder().join("logs"), command));
    }

    /// Writes a file of configuration into the node's folder; its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.plane.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn start_containerd(&mut self) {
        let network = json!({
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                 "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]],
                          "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}},
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        self.write("cni/pods.conflist", &network.to_string());
        let folder = self.plane.folder().display().to_string();
        // restrict_oom_score_adj: in a container without CAP_SYS_RESOURCE runc may not lower scores, and dies.
        let config = self.write(
            "containerd.toml",
            &format!(
                r#"
version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"#,
                pause = image::PAUSE
            ),
        );
        // Pods inherit the limit: with this one a gateway has fewer than 2,000 client sockets, which a test can take.
        self.run("containerd", Command::new("prlimit").args(["--nofile=4096", "containerd", "--config", &config]));
        until(START, "containerd to answer", || {
            self.programs[0].must_run();
            call(&["ctr", "--address", SOCKET, "version"]).ok()
        });
    }

    fn start_controllers(&mut self) {
        let file = |name: &str| self.plane.folder().join(name).display().to_string();
        let kubeconfig = |user: &str| format!("--kubeconfig={}", self.plane.kubeconfig(user).display());
        let controllers = [
            kubeconfig("system:kube-controller-manager"),
            format!("--root-ca-file={}", file("ca.crt")),
            format!("--service-account-private-key-file={}", file("accounts.key")),
            "--use-service-account-credentials".into(),
            "--leader-elect=false".into(),
            format!("--cert-dir={}", file("controllers")),
            // Longer than an API server of the tests is away: after that it would take this program a minute to believe
            // again in its one node, and to give Services their Pods back.
            "--node-monitor-grace-period=3m".into(),
        ];
        let scheduler = [
            kubeconfig("system:kube-scheduler"),
            "--leader-elect=false".into(),
            format!("--cert-dir={}", file("scheduler")),
        ];
        self.run("kube-controller-manager", Command::new(programs::path("kube-controller-manager")).args(controllers));
        self.run("kube-scheduler", Command::new(programs::path("kube-scheduler")).args(scheduler));
    }

    fn start_proxy(&mut self) {
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": PODS,
            "hostnameOverride": "node",
            // The machine's own settings of connection tracking stay as they are.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "clientConnection": {"kubeconfig": self.plane.kubeconfig("system:kube-proxy")},
        });
        let config = self.write("proxy.yaml", &config.to_string());
        self.run("kube-proxy", Command::new(programs::path("kube-proxy")).arg(format!("--config={config}")));
    }

    fn start_kubelet(&mut self) {
        let resolver = self.write("resolv.conf", "");
        let folder = |name: &str| self.plane.folder().join(name).display().to_string();
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": sandbox::make_group(),
            "clusterDNS": ["10.96.0.10"],
            "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
            "enforceNodeAllocatable": [],
            "evictionHard": {"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "failCgroupV1": false,
            "failSwapOn": false,
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": folder("pods"),
            "resolvConf": resolver,
            // How long a ConfigMap that changed may take to come to its Pods; a minute, if nothing is said.
            "syncFrequency": "5s",
            "volumePluginDir": folder("volume-plugins"),
        });
        let config = self.write("kubelet.yaml", &config.to_string());
        self.run(
            "kubelet",
            Command::new(programs::path("kubelet")).args([
                format!("--config={config}"),
                format!("--kubeconfig={}", self.plane.kubeconfig("system:node:node").display()),
                "--hostname-override=node".into(),
                format!("--node-ip={}", sandbox::NODE),
                format!("--root-dir={}", folder("kubelet")),
                format!("--cert-dir={}", folder("kubelet/pki")),
            ]),
        );
    }
}

/// What happened to the pods of kubectl's namespace, and the end of their logs, for the message of a failed test.
pub fn story(kubectl: &Kubectl) -> String {
    let mut text = kubectl.run(&["get", "pods", "-o", "wide"]).out;
    text += &kubectl.run(&["get", "events", "--sort-by=.lastTimestamp"]).out;
    let pods: Value = kubectl.find(&["pods"]).unwrap_or_default();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        text += &format!("--- {name}\n{}", kubectl.run(&["logs", name, "--tail=30", "--all-containers"]).out);
    }
    text
}

impl Drop for Node {
    fn drop(&mut self) {
        // The kubelet first, containerd last. Containers that are left end with the sandbox.
        for program in &self.programs {
            program.kill();
        }
    }
}
