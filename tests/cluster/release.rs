//! Our chart as a release on the node: installed by the real helm, with our image as its pods and no rights but the
//! chart's, beside cert-manager. The tests of the node share one; who breaks it puts it right again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use super::cert_manager::{CertManager, decode};
use super::clusters::install_definitions_of;
use super::fake_load_balancer::FakeLoadBalancer;
use super::harness::{Authority, Client};
use super::image::{ACME_SOLVER, WSSGATE};
use super::kubectl::{Kubectl, Said};
use super::node::{Node, story};
use super::process::{Process, until};
use super::{programs, sandbox};

/// How long a step may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(90);

/// What the release is called, and its namespace.
pub const NAME: &str = "wssgate";

/// The name of the routes' host in the namespace that all tests see.
pub const HOST: &str = "chat.example.com";

/// An installed release and what tests need around it.
pub struct Release {
    /// kubectl in the release's namespace.
    pub own: Kubectl,
    /// kubectl in the namespace `shop`: two backends `echo` and `other`, a route `chat` to both, its certificate.
    pub shop: Kubectl,
    /// The authority of all certificates, PEM.
    pub authority: String,
    /// Who vouches for the issuers of tokens: the gateway trusts this one and no public one.
    pub issuers: Authority,
    /// Whom cert-manager asks for the addresses of names before it has a challenge judged; a test that needs it starts it.
    pub resolver: SocketAddr,
    logs: PathBuf,
    cert_manager: Mutex<CertManager>,
    _load_balancer: FakeLoadBalancer,
}

impl Release {
    /// Starts cert-manager, installs the chart, and applies what a user would: backends, a certificate, a route.
    pub fn install(node: &Node) -> Self {
        let kubectl = node.kubectl();
        let resolver = SocketAddr::from((sandbox::address(), 8053));
        let arguments = [
            &format!("--acme-http01-solver-image={ACME_SOLVER}"),
            &*format!("--acme-http01-solver-nameserver={resolver}"),
        ];
        let cert_manager = CertManager::start(&kubectl, &node.plane().folder().join("logs"), &arguments);
        let authority = cert_manager.make_authority(&kubectl, "tests");
        install_definitions_of(&kubectl, "gateway-api");
        kubectl.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAME}, \
             labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ));
        kubectl.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
        let (own, shop) = (kubectl.in_namespace(NAME), kubectl.in_namespace("shop"));
        let logs = node.plane().folder().join("logs");
        let issuers = Authority::new();
        own.apply(&config_map("issuers", &[("ca.crt", issuers.pem())]));
        let cert_manager = Mutex::new(cert_manager);
        let load_balancer = FakeLoadBalancer::start(&kubectl);
        let release =
            Self { own, shop, authority, issuers, resolver, logs, cert_manager, _load_balancer: load_balancer };
        release.must(&[&["install", NAME, CHART][..], &VALUES].concat());
        release.rolled_out(&release.own, NAME);

        release.shop.apply(&format!("{}---{}", backend("echo"), backend("other")));
        release.rolled_out(&release.shop, "echo");
        release.rolled_out(&release.shop, "other");
        release
    }

    /// Kills cert-manager; [`Release::restart_cert_manager`] starts another.
    pub fn stop_cert_manager(&self) {
        self.cert_manager.lock().unwrap().process.kill();
    }

    /// Starts cert-manager anew.
    pub fn restart_cert_manager(&self) {
        self.cert_manager.lock().unwrap().restart();
    }

    /// Runs helm, as the administrator.
    pub fn helm(&self, arguments: &[&str]) -> Said {
        Command::new(programs::path("helm"))
            .args(["--namespace", NAME])
            .args(arguments)
            .env("KUBECONFIG", self.own.kubeconfig())
            .output()
            .expect("helm")
            .into()
    }

    /// Runs helm, which must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        let said = self.helm(arguments);
        assert!(said.ok, "helm {}: {}{}\n{}", arguments.join(" "), said.out, said.err, story(&self.own));
        said.out
    }

    /// Waits until a Deployment's rollout is complete, its old Pods gone with it.
    pub fn rolled_out(&self, kubectl: &Kubectl, deployment: &str) {
        let said = kubectl.run(&["rollout", "status", &format!("deployment/{deployment}"), "--timeout=120s"]);
        assert!(said.ok, "{}\n{}", said.err, story(kubectl));
        until(LIMIT, "old Pods to be gone", || {
            let wanted = kubectl.get(&["deployment", deployment])["spec"]["replicas"].as_u64();
            (Some(self.pods(kubectl, deployment).len() as u64) == wanted).then_some(())
        });
    }

    /// Rolls a Deployment out anew, as `kubectl rollout restart` does, and waits for the end of it.
    pub fn restart(&self, kubectl: &Kubectl, deployment: &str) {
        kubectl.must(&["rollout", "restart", &format!("deployment/{deployment}")]);
        self.rolled_out(kubectl, deployment);
    }

    /// Names of the Pods of a Deployment, also of those that are ending.
    pub fn pods(&self, kubectl: &Kubectl, deployment: &str) -> Vec<String> {
        let pods = self.list(kubectl, deployment);
        pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The same with their addresses.
    pub fn addresses(&self, kubectl: &Kubectl, deployment: &str) -> BTreeMap<String, IpAddr> {
        let pods = self.list(kubectl, deployment);
        let address = |pod: &Value| pod["status"]["podIP"].as_str()?.parse().ok();
        let named = |pod: &Value| Some((pod["metadata"]["name"].as_str()?.to_owned(), address(pod)?));
        pods.iter().filter_map(named).collect()
    }

    /// The addresses of those Pods of a Deployment that nobody has told to end.
    pub fn staying(&self, kubectl: &Kubectl, deployment: &str) -> BTreeSet<IpAddr> {
        let pods = self.list(kubectl, deployment);
        let staying = pods.iter().filter(|pod| pod["metadata"].get("deletionTimestamp").is_none());
        staying.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).collect()
    }

    fn list(&self, kubectl: &Kubectl, deployment: &str) -> Vec<Value> {
        let label = if deployment == NAME { "app.kubernetes.io/name=wssgate" } else { &format!("app={deployment}") };
        let mut pods = kubectl.get(&["pods", "-l", label]);
        std::mem::take(pods["items"].as_array_mut().unwrap())
    }

    /// Watches objects: `columns` of each (JSONPath) are a line of its log, whenever it changes.
    pub fn watch(&self, kubectl: &Kubectl, name: &str, objects: &[&str], columns: &str) -> Process {
        let mut command = Command::new(programs::path("kubectl"));
        command.env("KUBECONFIG", kubectl.kubeconfig()).args(["--namespace", kubectl.namespace(), "get"]);
        command.args(objects).args(["--watch", "-o", &format!("jsonpath={columns}{{\"\\n\"}}")]);
        Process::start(name, &self.logs, &mut command)
    }

    /// Watches the certificate in a Secret: each as it is seen, and when that was. Ends when it is dropped.
    pub fn watch_secret(&self, kubectl: &Kubectl, secret: &str) -> mpsc::Receiver<(Instant, CertificateDer<'static>)> {
        let mut command = Command::new(programs::path("kubectl"));
        command.env("KUBECONFIG", kubectl.kubeconfig()).args(["--namespace", kubectl.namespace(), "get", "secret"]);
        command.args([secret, "--watch", "-o", "jsonpath={.data.tls\\.crt}{\"\\n\"}"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kubectl");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
                let seen = Instant::now();
                let Ok(leaf) = CertificateDer::from_pem_slice(decode(&line).as_bytes()) else { continue };
                if sender.send((seen, leaf)).is_err() {
                    break;
                }
            }
            let _ = child.kill();
            let _ = child.wait();
        });
        receiver
    }

    /// Where the node's programs write their logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Keeps the log of a Pod of the release among those of the node, for when the Pod is gone.
    pub fn follow(&self, pod: &str) -> Process {
        let mut command = Command::new(programs::path("kubectl"));
        command.env("KUBECONFIG", self.own.kubeconfig()).args(["--namespace", NAME, "logs", "--follow", pod]);
        Process::start(pod, &self.logs, &mut command)
    }

    /// A client of the release's Service that trusts the authority and asks for this host.
    pub fn client(&self, host: &str) -> Client {
        self.client_trusting(host, &self.authority)
    }

    /// The same of the leader's Pod alone: what it says of a route it serves.
    pub fn client_of_leader(&self, host: &str) -> Client {
        let (leader, _) = until(LIMIT, "a leader", || self.leader());
        let pod = self.own.get(&["pod", &leader]);
        let address = SocketAddr::new(pod["status"]["podIP"].as_str().unwrap().parse().unwrap(), 8443);
        Client { address, ..self.client(host) }
    }

    /// The same as [`Release::client`] by the address that the cloud gave the Service, for who comes from outside of the node.
    pub fn client_outside(&self, host: &str) -> Client {
        Client { address: SocketAddr::new(self.balancer(), 443), ..self.client(host) }
    }

    /// The address that the cloud gave the Service.
    pub fn balancer(&self) -> IpAddr {
        let service = self.own.get(&["service", NAME]);
        let given = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        given.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("no address: {service:#}"))
    }

    /// The same for another authority's certificates.
    pub fn client_trusting(&self, host: &str, authority: &str) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Client { address: self.address(443), config: Arc::new(config), name: host.to_owned() }
    }

    /// A port of the release's Service.
    pub fn address(&self, port: u16) -> SocketAddr {
        let service = self.own.get(&["service", NAME]);
        SocketAddr::new(service["spec"]["clusterIP"].as_str().unwrap().parse::<IpAddr>().unwrap(), port)
    }

    /// The Lease's specification.
    pub fn lease(&self) -> Option<Value> {
        self.own.find(&["lease", NAME]).map(|mut lease| lease["spec"].take())
    }

    /// Who leads: the Pod, and its identity in the Lease.
    pub fn leader(&self) -> Option<(String, String)> {
        let lease = self.lease()?;
        let identity = lease["holderIdentity"].as_str().filter(|holder| !holder.is_empty())?;
        Some((identity.split('_').next()?.to_owned(), identity.to_owned()))
    }

    /// The logs of the release and what happened to its Pods.
    pub fn story(&self) -> String {
        story(&self.own)
    }
}

/// The chart, and the values that suit the node: an image that no registry has, short drains, no limit per address.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/wssgate");
/// The chart that was before it.
pub const PREVIOUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/install/previous/wssgate-0.1.0.tgz");
/// How many of [`VALUES`], at their end, the previous chart does not know.
pub const NEW_VALUES: usize = 2;
/// See [`CHART`].
pub const VALUES: [&str; 18] = [
    "--wait",
    "--timeout=120s",
    "--set",
    "image.repository=localhost/wssgate",
    "--set",
    "image.pullPolicy=Never",
    "--set",
    "drain.acceptGrace=5s",
    "--set",
    "drain.window=5s",
    "--set",
    "drain.deadline=3s",
    "--set",
    "certManager.enabled=true",
    "--set",
    "settings.perAddress=0",
    "--set",
    "trustedAuthorities.configMap=issuers",
];

/// `wssgate echo` as a Deployment of two and a Service.
pub fn backend(name: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
      containers:
      - name: echo
        image: {WSSGATE}
        imagePullPolicy: Never
        args: [echo, --listen, '0.0.0.0:9000']
        ports: [{{containerPort: 9000}}]
        readinessProbe: {{tcpSocket: {{port: 9000}}, periodSeconds: 1}}
        securityContext: {{readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, targetPort: 9000}}]
"
    )
}

/// A ConfigMap with these keys and values.
pub fn config_map(name: &str, data: &[(&str, &str)]) -> String {
    let data: serde_json::Map<_, _> =
        data.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string()
}

/// A route of our class for a host, whose certificate the gateway shall ask cert-manager for, in the Secret `HOST-tls`.
pub fn certified(name: &str, host: &str, rules: &str) -> String {
    let issuer = ", issuerRef: {name: tests, kind: ClusterIssuer}}\n  rules:";
    route(name, host, rules).replace("}\n  rules:", issuer)
}

/// A certificate for a host that the user asks cert-manager for, in the Secret `HOST-tls`.
pub fn certificate(host: &str) -> String {
    format!(
        "
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {{name: {host}}}
spec:
  secretName: {host}-tls
  dnsNames: [{host}]
  privateKey: {{algorithm: ECDSA, size: 256, rotationPolicy: Always}}
  issuerRef: {{name: tests, kind: ClusterIssuer}}
"
    )
}

/// A route of our class for a host, with the certificate of [`certificate`]: `rules` are its rules, as YAML in one line.
pub fn route(name: &str, host: &str, rules: &str) -> String {
    format!(
        "
apiVersion: wssgate.io/v1alpha1
kind: SecureWebSocketRoute
metadata: {{name: {name}}}
spec:
  ingressClassName: wssgate
  hostnames: [{host}]
  tls: {{certificateRefs: [{{name: {host}-tls}}]}}
  rules: {rules}
  handshake: {{authentication: {{mode: Anonymous}}}}
"
    )
}

/// A condition of a route: its status and reason.
pub fn condition(route: &Value, name: &str) -> Option<(String, String)> {
    let conditions = route["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == name)?;
    Some((found["status"].as_str()?.to_owned(), found["reason"].as_str()?.to_owned()))
}

/// The certificate that a new connection is shown.
pub async fn shown(client: &Client) -> Option<CertificateDer<'static>> {
    let tcp = tokio::net::TcpStream::connect(client.address).await.ok()?;
    let name = ServerName::try_from(client.name.clone()).ok()?;
    let tls = tokio_rustls::TlsConnector::from(client.config.clone()).connect(name, tcp).await.ok()?;
    tls.get_ref().1.peer_certificates()?.first().cloned()
}

/// The certificate in a Secret.
pub fn held(kubectl: &Kubectl, secret: &str) -> CertificateDer<'static> {
    let secret = kubectl.get(&["secret", secret]);
    CertificateDer::from_pem_slice(decode(secret["data"]["tls.crt"].as_str().unwrap()).as_bytes()).unwrap()
}
