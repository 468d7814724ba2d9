//! `issuerRef` with the real cert-manager: the built binary, with the rights that the chart gives it and no others,
//! beside a real API server. Backends are processes; no pods run.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use super::Test;
use super::cert_manager::{CertManager, decode, renew};
use super::clusters::{Clusters, install_definition, install_definitions_of, wssgate};
use super::control_plane::ControlPlane;
use super::harness::{Authority, Client, Frame, Head, manifests};
use super::kubectl::Kubectl;
use super::pebble::{self, Pebble, REFUSED};
use super::process::{Process, until};
use super::{programs, sandbox};

const LIMIT: Duration = Duration::from_secs(60);
/// How soon a Secret is to be served, and what a busy machine may take for looking.
const SOON: Duration = Duration::from_secs(1);
/// The namespace of the gateway.
const HOME: &str = "wssgate-system";

/// A gateway beside an API server of its own, and an echo behind it.
pub struct Fixture {
    // In the order of their end.
    /// The gateway.
    pub gateway: Process,
    _echo: Process,
    wss: SocketAddr,
    /// The administrator, in a namespace with a Service `chat`, port 80.
    pub kubectl: Kubectl,
    /// The API server.
    pub plane: ControlPlane,
}

impl Fixture {
    /// Starts all.
    pub fn start(clusters: &Clusters, name: &str) -> Self {
        Self::start_with(clusters, name, "127.0.0.1:0")
    }

    /// The same with an address of the plain port.
    fn start_with(clusters: &Clusters, name: &str, http: &str) -> Self {
        let plane = clusters.another(name);
        let admin = plane.kubectl();
        install_definition(&admin);
        admin.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {HOME}}}}}"));
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/wssgate");
        let mut helm = Command::new(programs::path("helm"));
        helm.args([
            "template",
            "wssgate",
            chart,
            "--namespace",
            HOME,
            "--set",
            "crds.enabled=false,certManager.enabled=true",
        ]);
        let rendered = helm.output().unwrap();
        assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        admin.in_namespace(HOME).apply(&String::from_utf8(rendered.stdout).unwrap());
        let account = plane.service_account(HOME, "wssgate");

        let logs = plane.folder().join("logs");
        let mut command = wssgate();
        command.args(["run", "--listen", "127.0.0.1:0", "--listen-http", http, "--admin", "127.0.0.1:0"]);
        command.arg("--kubeconfig").arg(account.kubeconfig());
        command.env("POD_NAME", "wssgate-0").env("POD_NAMESPACE", HOME);
        let gateway = Process::start("wssgate", &logs, &mut command);
        let wss = until(LIMIT, "the gateway to listen", || {
            gateway.must_run();
            listener(&gateway.log(), "wss")
        });

        let kubectl = admin.make_namespace("shop");
        let address = sandbox::address();
        let echo = Process::start("echo", &logs, wssgate().args(["echo", "--listen", &format!("{address}:9000")]));
        kubectl.apply(&format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: chat}}
spec: {{ports: [{{name: ws, port: 80, targetPort: 9000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: chat-0, labels: {{kubernetes.io/service-name: chat}}}}
addressType: IPv4
ports: [{{name: ws, port: 9000}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
"
        ));
        Self { gateway, _echo: echo, wss, kubectl, plane }
    }

    /// Starts cert-manager.
    pub fn cert_manager(&self) -> CertManager {
        CertManager::start(&self.plane.kubectl(), &self.logs(), &[])
    }

    fn logs(&self) -> PathBuf {
        self.plane.folder().join("logs")
    }

    /// The message of a route's `CertificateReady`, once that has this reason.
    pub fn certificate_ready(&self, route: &str, reason: &str) -> String {
        self.kubectl.until(LIMIT, &["swsr", route], &format!("to have CertificateReady {reason}"), |route| {
            let condition = condition(route, "CertificateReady")?;
            (condition["reason"] == reason).then(|| condition["message"].as_str().unwrap().to_owned())
        })
    }

    /// The certificate that is shown for a name to whoever trusts these authorities.
    pub fn shown(&self, name: &str, authority: &str) -> Option<CertificateDer<'static>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(trusting(authority)), name).unwrap();
        let mut tcp = TcpStream::connect(self.wss).unwrap();
        tcp.set_read_timeout(Some(LIMIT)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).ok()?;
        }
        Some(tls.peer_certificates()?.first()?.clone().into_owned())
    }

    /// A client that asks for a name and trusts these authorities.
    pub fn client(&self, name: &str, authority: &str) -> Client {
        Client { address: self.wss, config: Arc::new(trusting(authority)), name: name.to_owned() }
    }
}

fn trusting(authorities: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The address of a listener by the gateway's log.
fn listener(log: &str, name: &str) -> Option<SocketAddr> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines.find(|line| line["message"] == "listening" && line["listener"] == name)?;
    line["address"].as_str()?.parse().ok()
}

fn condition<'a>(route: &'a Value, kind: &str) -> Option<&'a Value> {
    route["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// A route `chat` for these hostnames, whose certificate cert-manager is to issue into this Secret.
pub fn route(hostnames: &str, secret: &str) -> String {
    format!(
        "
apiVersion: wssgate.io/v1alpha1
kind: SecureWebSocketRoute
metadata:
  name: chat
  annotations: {{cert-manager.io/duration: 48h, cert-manager.io/renew-before: 12h}}
spec:
  ingressClassName: wssgate
  hostnames: {hostnames}
  tls:
    certificateRefs: [{{name: {secret}}}]
    issuerRef: {{name: tests, kind: ClusterIssuer}}
  rules: [{{name: all, matches: [{{path: {{type: PathPrefix, value: /}}}}], backendRefs: [{{name: chat, port: 80}}]}}]
  handshake: {{authentication: {{mode: Anonymous}}}}
"
    )
}

/// The certificate in a Secret.
pub fn leaf(secret: &Value) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(decode(secret["data"]["tls.crt"].as_str().unwrap()).as_bytes()).unwrap()
}

fn an_issuer_ref_is_kept_issued_renewed_and_follows_its_hostnames(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "issuer-ref");
    let kubectl = &fixture.kubectl;

    // Without cert-manager: said, and nothing else suffers.
    kubectl.apply(&route("[chat.example.com]", "chat-tls"));
    let message = fixture.certificate_ready("chat", "Failed");
    assert!(message.contains("needs cert-manager"), "{message}");
    let own = Authority::new();
    kubectl.put(vec![manifests::secret("plain-tls", &own.leaf(&["plain.example.com"]))]);
    let plain = route("[plain.example.com]", "plain-tls").replace("name: chat\n", "name: plain\n");
    kubectl.apply(&plain.replace("    issuerRef: {name: tests, kind: ClusterIssuer}\n", ""));
    kubectl.wait("swsr/plain", "condition=Ready", LIMIT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let head = Head::upgrade("/").set("Host", "plain.example.com");
    let mut bystander = runtime.block_on(fixture.client("plain.example.com", own.pem()).open(&head));
    runtime.block_on(bystander.echo(&Frame::text("without cert-manager")));

    // Its definitions appear, and with them the Certificate; an issuer does not exist yet.
    let cert_manager = fixture.cert_manager();
    let message = fixture.certificate_ready("chat", "Issuing");
    assert!(message.contains("Secret"), "{message}");
    let certificate = kubectl.until(LIMIT, &["certificate", "chat-tls"], "to exist", |found| Some(found.clone()));
    let (spec, metadata) = (&certificate["spec"], &certificate["metadata"]);
    assert_eq!(spec["dnsNames"], json!(["chat.example.com"]));
    assert_eq!(spec["secretName"], "chat-tls");
    assert_eq!(spec["privateKey"], json!({"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}));
    assert!(spec["duration"].as_str().unwrap().starts_with("48h"), "{spec}");
    assert!(spec["renewBefore"].as_str().unwrap().starts_with("12h"), "{spec}");
    let owner = &metadata["ownerReferences"][0];
    let uid = &kubectl.get(&["swsr", "chat"])["metadata"]["uid"];
    assert!(owner["kind"] == "SecureWebSocketRoute" && owner["uid"] == *uid, "{owner}");
    let managers = kubectl.get(&["certificate", "chat-tls", "--show-managed-fields"]);
    let managers = managers["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|one| one["manager"] == "wssgate" && one["operation"] == "Apply"), "{managers:?}");

    // The issuer appears: issued, served, told.
    let authority = cert_manager.make_authority(&fixture.plane.kubectl(), "tests");
    let first = kubectl.until(LIMIT, &["secret", "chat-tls"], "to hold a certificate", |secret| Some(leaf(secret)));
    let seen = Instant::now();
    until(LIMIT, "the first certificate", || fixture.shown("chat.example.com", &authority));
    assert!(seen.elapsed() < SOON, "served only after {:?}", seen.elapsed());
    assert_eq!(fixture.shown("chat.example.com", &authority), Some(first.clone()));
    kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
    fixture.certificate_ready("chat", "Ready");
    until(LIMIT, "the event", || {
        let events = kubectl.get(&["events.events.k8s.io"]);
        let issued = |event: &&Value| event["reason"] == "CertificateIssued" && event["regarding"]["name"] == "chat";
        events["items"].as_array().unwrap().iter().find(issued).map(drop)
    });

    // Renewed under open sockets.
    let client = fixture.client("chat.example.com", &authority);
    let mut sockets = Vec::new();
    for _ in 0..50 {
        sockets.push(runtime.block_on(client.open(&Head::upgrade("/"))));
    }
    let before = kubectl.get(&["certificate", "chat-tls"])["metadata"]["generation"].clone();
    renew(kubectl, "chat-tls");
    let second = kubectl.until(LIMIT, &["secret", "chat-tls"], "to be renewed", |secret| {
        Some(leaf(secret)).filter(|leaf| *leaf != first)
    });
    let seen = Instant::now();
    until(LIMIT, "the renewed certificate", || {
        fixture.shown("chat.example.com", &authority).filter(|shown| *shown == second)
    });
    assert!(seen.elapsed() < SOON, "served only after {:?}", seen.elapsed());
    for socket in &mut sockets {
        runtime.block_on(socket.echo(&Frame::text("still here")));
    }
    assert_eq!(kubectl.get(&["certificate", "chat-tls"])["metadata"]["generation"], before, "written without a change");

    // Another hostname: the same Certificate asks for both.
    kubectl.apply(&route("[chat.example.com, news.example.com]", "chat-tls"));
    kubectl.until(LIMIT, &["certificate", "chat-tls"], "to ask for both names", |certificate| {
        (certificate["spec"]["dnsNames"] == json!(["chat.example.com", "news.example.com"])).then_some(())
    });
    until(LIMIT, "a certificate for the new name", || fixture.shown("news.example.com", &authority));
    for socket in &mut sockets {
        runtime.block_on(socket.echo(&Frame::text("and still")));
    }
    // And back to one.
    kubectl.apply(&route("[chat.example.com]", "chat-tls"));
    kubectl.until(LIMIT, &["certificate", "chat-tls"], "to ask for one name", |certificate| {
        (certificate["spec"]["dnsNames"] == json!(["chat.example.com"])).then_some(())
    });
    kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
    for socket in &mut sockets {
        runtime.block_on(socket.echo(&Frame::text("to the end")));
    }
    runtime.block_on(bystander.still_echoes(&Frame::text("undisturbed")));
    cert_manager.process.must_run();
    fixture.gateway.must_run();
}

fn a_certificate_of_someone_else_is_not_taken_over(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "foreign-certificate");
    let kubectl = &fixture.kubectl;
    let cert_manager = fixture.cert_manager();
    cert_manager.make_authority(&fixture.plane.kubectl(), "tests");
    kubectl.apply(
        "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: theirs}, spec: {secretName: theirs,
          dnsNames: [other.example.com], issuerRef: {name: tests, kind: ClusterIssuer}}}",
    );
    kubectl.apply(
        "{apiVersion: v1, kind: Secret, metadata: {name: by-hand}, type: kubernetes.io/tls,
          stringData: {tls.crt: theirs, tls.key: theirs}}",
    );
    kubectl.wait("certificate/theirs", "condition=Ready", LIMIT);
    let before = kubectl.get(&["certificate", "theirs"]);
    let by_hand = kubectl.get(&["secret", "by-hand"]);
    kubectl.apply(&route("[chat.example.com]", "theirs"));
    let message = fixture.certificate_ready("chat", "CertificateConflict");
    assert!(message.contains("already exists") && message.contains("wssgate did not create"), "{message}");
    kubectl.apply(&route("[hand.example.com]", "by-hand").replace("name: chat\n", "name: hand\n"));
    let message = fixture.certificate_ready("hand", "CertificateConflict");
    assert!(message.contains("already exists and is not from cert-manager"), "{message}");
    // What is written, is written before this one, which comes later.
    kubectl.apply(&route("[later.example.com]", "later").replace("name: chat\n", "name: later\n"));
    kubectl.until(LIMIT, &["certificate", "later"], "to exist", |_| Some(()));
    let after = kubectl.get(&["certificate", "theirs"]);
    assert_eq!(before["spec"], after["spec"]);
    assert_eq!(before["metadata"], after["metadata"]);
    assert!(kubectl.find(&["certificate", "by-hand"]).is_none());
    assert_eq!(by_hand, kubectl.get(&["secret", "by-hand"]));
    fixture.gateway.must_run();
}

fn certificate_ready_says_how_far_cert_manager_has_come(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "progress");
    let kubectl = &fixture.kubectl;
    let cert_manager = fixture.cert_manager();
    cert_manager.make_authority(&fixture.plane.kubectl(), "tests");
    let named =
        |name: &str| route(&format!("[{name}.example.com]"), name).replace("name: chat\n", &format!("name: {name}\n"));
    let ready = |name: &str, status: &str| {
        kubectl.until(LIMIT, &["swsr", name], &format!("to have Ready {status}"), |route| {
            (condition(route, "Ready")?["status"] == status).then_some(())
        });
    };

    kubectl.apply(&named("self").replace("name: tests,", "name: tests-root,"));
    let message = fixture.certificate_ready("self", "SelfSigned");
    assert!(message.contains("browsers do not trust it"), "{message}");
    ready("self", "True");

    // An issuer that does not exist: cert-manager waits for it.
    kubectl.apply(&named("waiting").replace("name: tests,", "name: nobody,"));
    let message = fixture.certificate_ready("waiting", "Issuing");
    assert!(message.contains("waiting"), "{message}");
    ready("waiting", "False");

    let temporary = "annotations: {cert-manager.io/issue-temporary-certificate: 'true', ";
    let text = named("temporary").replace("name: tests,", "name: nobody,").replace("annotations: {", temporary);
    kubectl.apply(&text);
    let message = fixture.certificate_ready("temporary", "Temporary");
    assert!(message.contains("no client trusts"), "{message}");
    ready("temporary", "False");

    // What cert-manager writes when an attempt failed, written by the test: no issuer at hand refuses in earnest.
    let failed = r#"{"status":{"conditions":[{"type":"Issuing","status":"False","reason":"Failed","message":"refused by the CA"}]}}"#;
    cert_manager.process.kill();
    kubectl.must(&["patch", "certificate", "waiting", "--subresource=status", "--type=merge", "-p", failed]);
    let message = fixture.certificate_ready("waiting", "Failed");
    assert!(message.contains("refused by the CA"), "{message}");

    // An annotation that is not understood: said, and the Certificate stays as it was.
    let before = kubectl.get(&["certificate", "self"])["spec"].clone();
    kubectl.apply(&named("self").replace("name: tests,", "name: tests-root,").replace("48h", "soon"));
    let message = fixture.certificate_ready("self", "Invalid");
    assert!(message.contains("cert-manager.io/duration"), "{message}");
    assert_eq!(kubectl.get(&["certificate", "self"])["spec"], before);

    // One that is taken away is taken away there.
    kubectl.apply(
        &named("self").replace("name: tests,", "name: tests-root,").replace("cert-manager.io/duration: 48h, ", ""),
    );
    kubectl.until(LIMIT, &["certificate", "self"], "to have no duration", |certificate| {
        certificate["spec"].get("duration").is_none().then_some(())
    });
    fixture.gateway.must_run();
}

/// Refused twice: by RBAC, and by an admission policy such as cert-manager's webhook or a cluster's own.
fn a_certificate_that_the_api_server_refuses_is_told_in_its_words(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "refused-certificate");
    let (kubectl, admin) = (&fixture.kubectl, fixture.plane.kubectl());
    let role = format!("{HOME}-wssgate");
    let mut whole = admin.get(&["clusterrole", &role]);
    whole["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let mut part = whole.clone();
    let rules = part["rules"].as_array_mut().unwrap();
    rules.iter_mut().find(|rule| rule["resources"][0] == "certificates").unwrap()["verbs"] =
        json!(["get", "list", "watch"]);
    admin.apply(&part.to_string());
    let account = fixture.plane.service_account(HOME, "wssgate").in_namespace(kubectl.namespace());
    install_definitions_of(&admin, "cert-manager");
    until(LIMIT, "the right to be gone", || {
        let ask = ["auth", "can-i", "patch", "certificates.cert-manager.io"];
        (account.run(&ask).out.trim() == "no").then_some(())
    });

    kubectl.apply(&route("[chat.example.com]", "chat-tls"));
    let told = |name: &str, words: &[&str]| {
        let all = |message: &str| words.iter().all(|word| message.contains(word));
        kubectl.until(LIMIT, &["swsr", name], &format!("to be told {words:?}"), |route| {
            let found = condition(route, "CertificateReady")?;
            let right = found["status"] == "False" && found["reason"] == "Failed";
            (right && all(found["message"].as_str()?)).then(|| route.clone())
        })
    };
    let route_of =
        told("chat", &["Certificate", "chat-tls could not be written", "403", "cannot patch", "certificates"]);
    assert!(
        condition(&route_of, "Stalled").is_none(),
        "who runs the cluster can mend it, and need not touch the route"
    );
    assert_eq!(condition(&route_of, "Ready").unwrap()["status"], "False");
    until(LIMIT, "the event", || {
        let events = kubectl.get(&["events.events.k8s.io"]);
        let refused = |event: &&Value| event["reason"] == "CertificateNotWritten" && event["type"] == "Warning";
        events["items"].as_array().unwrap().iter().find(refused).map(drop)
    });
    // It is tried again and again, and said once.
    let attempts = || fixture.gateway.log().matches("Certificate could not be written").count();
    let before = attempts();
    until(LIMIT, "more attempts", || (attempts() >= before + 3).then_some(()));
    let version = |route: &Value| route["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&kubectl.get(&["swsr", "chat"])), version(&route_of));
    admin.apply(&whole.to_string());
    fixture.certificate_ready("chat", "Issuing");

    // The cluster's own rule, in its own words.
    admin.apply(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: names}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [cert-manager.io], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [certificates]}
  validations:
  - {expression: '!object.spec.dnsNames.exists(name, name.startsWith(\"secret.\"))', message: names are registered first}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: names}
spec: {policyName: names, validationActions: [Deny]}
",
    );
    let probe = "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: probe}, spec: {secretName: probe, \
                 dnsNames: [secret.example.com], issuerRef: {name: tests, kind: ClusterIssuer}}}";
    until(LIMIT, "the policy to act", || {
        (!kubectl.run_with(&["apply", "--dry-run=server", "-f", "-"], probe).ok).then_some(())
    });
    kubectl.apply(&route("[secret.example.com]", "secret-tls").replace("name: chat\n", "name: secret\n"));
    told("secret", &["secret-tls could not be written", "names are registered first"]);
    // A certificate that is there already is served, and the refusal of another is a note beside it.
    let pair = Authority::new().leaf(&["chat.example.com"]);
    kubectl.put(vec![manifests::secret("chat-tls", &pair)]);
    kubectl.until(LIMIT, &["swsr", "chat"], "to be ready", |route| {
        (condition(route, "CertificateReady")?["status"] == "True").then_some(())
    });
    kubectl.apply(&route("[chat.example.com, secret.example.com]", "chat-tls"));
    kubectl.must(&["delete", "swsr", "secret"]);
    told("chat", &["chat-tls could not be written", "names are registered first", "secret.example.com"]);
    admin.must(&["delete", "validatingadmissionpolicybinding", "names"]);
    kubectl.until(LIMIT * 2, &["certificate", "chat-tls"], "to ask for both names", |certificate| {
        (certificate["spec"]["dnsNames"].as_array()?.len() == 2).then_some(())
    });
    fixture.certificate_ready("chat", "Issuing");
    fixture.gateway.must_run();
}

/// What cert-manager makes to have a certificate issued; owned before owners, so that of what is listed the owner, if it is
/// there, is listed too.
const ISSUING: &str = "challenges,orders,certificaterequests";

/// In place of Kubernetes' garbage collector: deletes the orders and challenges whose owner is gone. cert-manager gives a
/// request that it makes anew the old name, and waits for ever where the old one's order is still there.
fn collect(kubectl: &Kubectl, all: &[Value]) {
    let there: Vec<&Value> = all.iter().map(|it| &it["metadata"]["uid"]).collect();
    for it in all {
        let owner = &it["metadata"]["ownerReferences"][0];
        if (owner["kind"] == "CertificateRequest" || owner["kind"] == "Order") && !there.contains(&&owner["uid"]) {
            let (kind, name) = (it["kind"].as_str().unwrap(), it["metadata"]["name"].as_str().unwrap());
            kubectl.must(&["delete", kind, name, "--wait=false", "--ignore-not-found"]);
        }
    }
}

/// cert-manager, pebble and cert-manager's own solver are real, and the challenge passes through our plain port twice: for
/// cert-manager's self-check and for pebble. What stands in for a node: no kubelet starts the solver's pod, so the test
/// starts the same program with the pod's arguments, writes the EndpointSlice of the solver's Service, and collects what has
/// no owner any more.
fn acme_issues_through_the_plain_port(clusters: &Clusters) {
    let front = sandbox::address();
    let fixture = Fixture::start_with(clusters, "acme", &format!("{front}:80"));
    let (kubectl, logs) = (&fixture.kubectl, fixture.logs());
    let names = SocketAddr::from((sandbox::address(), 8053));
    // Every name leads to the plain port.
    let _names = pebble::names(&logs, names, front.into());
    let pebble = Pebble::start(fixture.plane.folder(), names);

    let arguments =
        ["--acme-http01-solver-image=localhost/solver:1", &format!("--acme-http01-solver-nameserver={names}")];
    let cert_manager = CertManager::start(&fixture.plane.kubectl(), &logs, &arguments);
    fixture.plane.kubectl().apply(&pebble.issuer("tests"));
    // A controller makes it where one runs; no pod is admitted without.
    kubectl.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}");
    kubectl.apply(&route("[chat.example.com]", "chat-tls"));

    // In place of the kubelet and of the controller of EndpointSlices. cert-manager that is slow to see what it made makes
    // pod and Service once more and takes both away, so that they are followed.
    let started = RefCell::new(None::<(Value, Process)>);
    let served = RefCell::new(Value::Null);
    kubectl.until(LIMIT * 2, &[&format!("pods,services,{ISSUING}")], "to come to a valid order", |found| {
        let all = found["items"].as_array()?;
        collect(kubectl, all);
        let solver = |kind: &str| {
            let of_kind = all.iter().filter(|it| it["kind"] == kind);
            of_kind.rev().find(|it| it["metadata"]["labels"]["acme.cert-manager.io/http01-solver"] == "true")
        };
        if let Some(pod) = solver("Pod") {
            let arguments = &pod["spec"]["containers"][0]["args"];
            if started.borrow().as_ref().is_none_or(|(old, _)| old != arguments) {
                let mut command = Command::new(programs::path("acme-solver"));
                command.args(arguments.as_array()?.iter().filter_map(Value::as_str));
                // One at a time: they have one port.
                drop(started.take());
                started.replace(Some((arguments.clone(), Process::start("solver", &logs, &mut command))));
            }
        }
        if let Some(service) = solver("Service")
            && service["metadata"]["name"] != *served.borrow()
        {
            let (name, port) = (&service["metadata"]["name"], &service["spec"]["ports"][0]["name"]);
            kubectl.apply(&format!(
                "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: solver, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: {port}, port: 8089}}]
endpoints: [{{addresses: [{}], conditions: {{ready: true}}}}]
",
                sandbox::address()
            ));
            served.replace(name.clone());
        }
        all.iter().any(|it| it["kind"] == "Order" && it["status"]["state"] == "valid").then_some(())
    });
    kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
    let issued = leaf(&kubectl.get(&["secret", "chat-tls"]));
    assert_eq!(fixture.shown("chat.example.com", &pebble.root), Some(issued));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut socket = runtime.block_on(fixture.client("chat.example.com", &pebble.root).open(&Head::upgrade("/")));
    runtime.block_on(socket.echo(&Frame::text("over a certificate of pebble's")));

    // A name that the CA refuses: in its words, and nobody else suffers.
    let refused = route(&format!("[{REFUSED}]"), "refused-tls").replace("name: chat\n", "name: refused\n");
    kubectl.apply(&refused);
    let message = until(LIMIT * 2, "the refusal", || {
        collect(kubectl, kubectl.get(&[ISSUING])["items"].as_array()?);
        let condition = condition(&kubectl.get(&["swsr", "refused"]), "CertificateReady")?.clone();
        (condition["reason"] == "Failed").then(|| condition["message"].to_string())
    });
    assert!(message.contains("rejectedIdentifier"), "{message}");
    runtime.block_on(socket.still_echoes(&Frame::text("undisturbed")));
    started.take().unwrap().1.must_run();
    cert_manager.process.must_run();
}

/// A route of this name with a host and a Secret of its own.
fn named(name: &str) -> String {
    route(&format!("[{name}.example.com]"), &format!("{name}-tls")).replace("name: chat\n", &format!("name: {name}\n"))
}

/// Whether every Certificate of these routes is there.
fn have_certificates(kubectl: &Kubectl, names: &[&str]) -> bool {
    let there = kubectl.get(&["certificates"]);
    let there: Vec<_> = there["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].clone()).collect();
    names.iter().all(|name| there.contains(&json!(format!("{name}-tls"))))
}

/// cert-manager's definitions are there and its controllers are not: the test fills the Secrets.
fn a_route_that_is_being_deleted_gets_no_certificate_and_is_served_until_it_is_gone(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "held-route");
    let kubectl = &fixture.kubectl;
    install_definitions_of(&fixture.plane.kubectl(), "cert-manager");
    let own = Authority::new();
    for name in ["held", "stays"] {
        let mut secret = manifests::secret(&format!("{name}-tls"), &own.leaf(&[&format!("{name}.example.com")]));
        secret["metadata"]["annotations"] = json!({"cert-manager.io/certificate-name": format!("{name}-tls")});
        kubectl.put(vec![secret]);
        kubectl.apply(&named(name));
    }
    until(LIMIT, "the Certificates", || have_certificates(kubectl, &["held", "stays"]).then_some(()));
    kubectl.wait("swsr/held", "condition=Ready", LIMIT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = fixture.client("held.example.com", own.pem());
    let head = Head::upgrade("/").set("Host", "held.example.com");
    let mut socket = runtime.block_on(client.open(&head));

    // Somebody else's finalizer holds the route, and its Certificate is deleted.
    kubectl.must(&[
        "patch",
        "swsr",
        "held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["example.com/held"]}}"#,
    ]);
    kubectl.must(&["delete", "swsr", "held", "--wait=false"]);
    for _ in 0..3 {
        // The writer goes by name: what comes back, has come back before the one that stays.
        kubectl.must(&["delete", "certificates", "--all"]);
        until(LIMIT, "the Certificate of the route that stays", || {
            have_certificates(kubectl, &["stays"]).then_some(())
        });
        assert!(!have_certificates(kubectl, &["held"]), "it came back for a route that is being deleted");
    }
    let held = kubectl.get(&["swsr", "held"]);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(condition(&held, "CertificateReady").unwrap()["status"], "True", "{held:#}");
    runtime.block_on(socket.echo(&Frame::text("still here")));
    let mut another = runtime.block_on(client.open(&head));
    runtime.block_on(another.echo(&Frame::text("and so is this one")));
    assert!(!fixture.gateway.log().contains("no route uses it any more"));

    kubectl.must(&["patch", "swsr", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    until(LIMIT, "the end of the route", || fixture.shown("held.example.com", own.pem()).is_none().then_some(()));
    fixture.gateway.must_run();
}

/// No garbage collector runs here: the test does what it does.
fn routes_that_are_deleted_in_the_foreground_wait_for_no_certificate_and_get_none_anew(clusters: &Clusters) {
    const ROUTES: [&str; 8] = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"];
    let fixture = Fixture::start(clusters, "foreground");
    let (kubectl, admin) = (&fixture.kubectl, fixture.plane.kubectl());
    install_definitions_of(&admin, "cert-manager");
    kubectl.apply(&ROUTES.map(named).join("---"));
    until(LIMIT, "the Certificates", || have_certificates(kubectl, &ROUTES).then_some(()));
    let blocks = |certificate: &Value| {
        let mut owners = certificate["metadata"]["ownerReferences"].as_array().unwrap().iter();
        owners.any(|owner| owner["blockOwnerDeletion"] == true)
    };
    let all = kubectl.get(&["certificates"]);
    assert!(!all["items"].as_array().unwrap().iter().any(blocks), "{all:#}");
    // As builds before this one made them. Owners of what exists may be changed, on this API server, by who may delete it.
    let role = format!("{HOME}-wssgate");
    let mut rights = admin.get(&["clusterrole", &role]);
    rights["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let rules = rights["rules"].as_array_mut().unwrap();
    let rule = rules.iter_mut().find(|rule| rule["resources"][0] == "certificates").unwrap();
    rule["verbs"].as_array_mut().unwrap().push("delete".into());
    admin.apply(&rights.to_string());
    let account = fixture.plane.service_account(HOME, "wssgate").in_namespace(kubectl.namespace());
    until(LIMIT, "the right", || {
        let ask = ["auth", "can-i", "delete", "certificates.cert-manager.io"];
        (account.run(&ask).out.trim() == "yes").then_some(())
    });
    let mut owners = kubectl.get(&["certificate", "a0-tls"])["metadata"]["ownerReferences"].clone();
    owners[0]["blockOwnerDeletion"] = true.into();
    let patch = json!({"metadata": {"ownerReferences": owners}}).to_string();
    kubectl.must(&["patch", "certificate", "a0-tls", "--type=merge", "-p", &patch]);
    kubectl.until(LIMIT, &["certificate", "a0-tls"], "not to block its route", |it| (!blocks(it)).then_some(()));

    let applied = || fixture.gateway.log().matches("Certificate applied").count();
    let before = applied();
    kubectl.must(&["delete", "swsr", "--all", "--cascade=foreground", "--wait=false"]);
    kubectl.must(&["delete", "certificates", "--all"]);
    // The writer goes by name: the last one comes after all that would come back.
    kubectl.apply(&named("last"));
    until(LIMIT, "the Certificate of a new route", || have_certificates(kubectl, &["last"]).then_some(()));
    for name in ROUTES {
        let finalizers = &kubectl.get(&["swsr", name])["metadata"]["finalizers"];
        assert_eq!(*finalizers, json!(["foregroundDeletion"]));
        kubectl.must(&["patch", "swsr", name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    }
    kubectl.must(&["delete", "certificate", "last-tls"]);
    until(LIMIT, "it to come back", || have_certificates(kubectl, &["last"]).then_some(()));
    let left = kubectl.get(&["certificates"]);
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left:#}");
    assert_eq!(applied() - before, 2, "written after the deletion");
    assert!(!fixture.gateway.log().contains("could not be written"));
    fixture.gateway.must_run();
}

/// No namespace controller runs here: the namespace stays as it is, and so do the routes in it.
fn a_namespace_that_is_being_deleted_raises_no_alarm(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "terminating");
    let (kubectl, admin) = (&fixture.kubectl, fixture.plane.kubectl());
    install_definitions_of(&admin, "cert-manager");
    // Its name comes before the other's, and so do its Certificates.
    let ending = admin.make_namespace("ending");
    ending.apply(&named("ending"));
    kubectl.apply(&named("stays"));
    until(LIMIT, "the Certificates", || {
        (have_certificates(&ending, &["ending"]) && have_certificates(kubectl, &["stays"])).then_some(())
    });
    admin.must(&["delete", "namespace", ending.namespace(), "--wait=false"]);
    let refused = ending.refused(&named("probe"));
    assert!(refused.contains("being terminated"), "{refused}");
    ending.must(&["delete", "certificates", "--all"]);
    for _ in 0..2 {
        kubectl.must(&["delete", "certificates", "--all"]);
        until(LIMIT, "the other Certificate", || have_certificates(kubectl, &["stays"]).then_some(()));
    }
    assert!(!have_certificates(&ending, &["ending"]));
    let route = ending.get(&["swsr", "ending"]);
    assert_ne!(condition(&route, "CertificateReady").unwrap()["reason"], "Failed", "{route:#}");
    let log = fixture.gateway.log();
    assert!(!log.contains("could not be written"), "{log}");
    fixture.gateway.must_run();
}

fn cert_manager_issues_and_renews_on_the_real_api_server(clusters: &Clusters) {
    let plane = clusters.another("cert-manager");
    let kubectl = plane.kubectl();
    let cert_manager = CertManager::start(&kubectl, &plane.folder().join("logs"), &[]);
    let authority = cert_manager.make_authority(&kubectl, "tests");
    assert!(authority.starts_with("-----BEGIN CERTIFICATE-----"), "{authority}");

    let kubectl = kubectl.make_namespace("shop");
    kubectl.apply(
        "
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: chat}
spec:
  secretName: chat-tls
  dnsNames: [chat.example.com]
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {name: tests, kind: ClusterIssuer}
",
    );
    kubectl.wait("certificate/chat", "condition=Ready", LIMIT);
    let secret = || kubectl.get(&["secret", "chat-tls"]);
    let first = secret();
    assert_eq!(first["type"], "kubernetes.io/tls");
    assert_eq!(decode(first["data"]["ca.crt"].as_str().unwrap()), authority);

    renew(&kubectl, "chat");
    kubectl.until(LIMIT, &["secret", "chat-tls"], "to hold another certificate", |secret| {
        (secret["data"]["tls.crt"] != first["data"]["tls.crt"]).then_some(())
    });
    kubectl.wait("certificate/chat", "condition=Ready", LIMIT);
    cert_manager.process.must_run();
}

pub fn tests() -> Vec<Test> {
    crate::tests![
        api sandbox:
            cert_manager_issues_and_renews_on_the_real_api_server,
            an_issuer_ref_is_kept_issued_renewed_and_follows_its_hostnames,
            a_certificate_of_someone_else_is_not_taken_over,
            certificate_ready_says_how_far_cert_manager_has_come,
            a_certificate_that_the_api_server_refuses_is_told_in_its_words,
            a_route_that_is_being_deleted_gets_no_certificate_and_is_served_until_it_is_gone,
            routes_that_are_deleted_in_the_foreground_wait_for_no_certificate_and_get_none_anew,
            a_namespace_that_is_being_deleted_raises_no_alarm,
            acme_issues_through_the_plain_port
    ]
}
