//! Real clients of other people on one walk through the gateway: without a token each sees its 401, with a token that lacks
//! a claim its 403, and with a good one it sends a text and 40,000 bytes, gets both back and closes with a code of its own.
//! The programs are in `tests/clients/`; what they stand on comes from PyPI, npm and the Go module proxy. The browser's walk
//! is in `tests/browser.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::harness::issuer::{any_of, claims, config_map, fixture, holds_nothing_of, method, set};
use crate::harness::manifests::{route, secret, service};
use crate::harness::{
    Authority, Gateway, HOST, Key, Manifests, PATIENCE, Program, Setup, json, packages, until, within,
};
use crate::root;

const TEXT: &str = "grüße €";
/// What a program may take for its whole walk, on a machine on which many tests run.
const WALK: Duration = Duration::from_secs(120);

/// What a route wants of a token beside what every token must have.
fn demands() -> Value {
    json!({"requiredClaims": [{"name": "scope", "contains": "chat"}]})
}

/// An authority in a file for the programs, and the tokens that they have.
struct Papers {
    authority: NamedTempFile,
    good: String,
    limited: String,
}

impl Papers {
    fn new(authority: &Authority, key: &Key) -> Self {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), authority.pem()).unwrap();
        let token = |scope: &str| key.sign(&claims(&json!({"scope": scope})));
        Self { authority: file, good: token("chat"), limited: token("read") }
    }

    /// A program that has them.
    fn with(&self, mut command: Command) -> Command {
        command.env("GOOD", &self.good).env("LIMITED", &self.limited).kill_on_drop(true);
        if command.as_std().get_program() == "node" {
            command.env("NODE_PATH", packages::node_modules()).env("NODE_EXTRA_CA_CERTS", self.authority.path());
        }
        command
    }
}

/// A gateway before an echo that wants a token with the scope `chat`.
async fn gate() -> (Setup, Papers) {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &demands()).await;
    let papers = Papers::new(&setup.authority, &key);
    (setup, papers)
}

/// Runs a program with host, port and the authority's file: what each of its clients saw at each step.
async fn walked(setup: &Setup, papers: &Papers, command: Command) -> BTreeMap<(String, String), Value> {
    let mut command = papers.with(command);
    command.args([HOST, &setup.gateway.wss.port().to_string()]).arg(papers.authority.path());
    let said = within(WALK, "the walk", command.output()).await.unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{command:?}: {errors}");
    let lines = String::from_utf8(said.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let word = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    lines.map(|line| ((word(&line, "client"), word(&line, "step")), line["saw"].clone())).collect()
}

/// What all of these clients saw is what each must see; the backend and the gateway saw it too.
async fn passes(setup: &Setup, papers: &Papers, command: Command, clients: &[(&str, Value, Value)]) {
    let saw = walked(setup, papers, command).await;
    assert_eq!(saw.len(), clients.len() * 3, "{saw:?}");
    for (client, without, limited) in clients {
        let at = |step: &str| &saw[&((*client).to_owned(), step.to_owned())];
        assert_eq!(at("without"), without, "{client} without a token");
        assert_eq!(at("limited"), limited, "{client} with a token that lacks a claim");
        assert_eq!(at("good"), &json!([TEXT, true, 4000, "enough"]), "{client}");
    }
    went_through(setup, papers, clients.len()).await;
}

/// So many clients were refused twice, came through once and closed with their code; no token is anywhere.
async fn went_through(setup: &Setup, papers: &Papers, clients: usize) {
    #[allow(clippy::cast_precision_loss, reason = "a handful")]
    let all = clients as f64;
    for reason in ["credential_missing", "claims_not_met"] {
        assert_eq!(setup.gateway.refusals(Some(reason)).await, all, "{reason}");
    }
    closed_by(&setup.gateway, clients).await;
    assert_eq!(setup.recorder.count().0, clients, "the backend saw those that were admitted");
    for seen in setup.recorder.seen() {
        assert_eq!(seen.head().field("authorization"), None, "the token is the gateway's");
    }
    let frames = setup.recorder.frames_of_last("the end of the last client").await;
    let close = frames.iter().find(|frame| frame.opcode == 8).unwrap();
    assert_eq!(close.payload, [&4000_u16.to_be_bytes()[..], b"enough"].concat());
    holds_nothing_of(&setup.gateway, &[&papers.good, &papers.limited]).await;
}

/// The access log says that so many clients closed with their code.
async fn closed_by(gateway: &Gateway, clients: usize) {
    until(PATIENCE, "the ends in the access log", async || {
        let lines = gateway.access();
        let ends = lines.iter().filter(|line| line["close_code"] == 4000 && line["initiator"] == "client");
        (ends.count() == clients).then_some(())
    })
    .await;
}

fn seen(client: &str) -> (&str, Value, Value) {
    (client, json!(401), json!(403))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_node_pass() {
    let (setup, papers) = gate().await;
    let mut node = Command::new("node");
    node.arg(root().join("tests/clients/walk.js"));
    // As in a browser, a program of undici hears that a handshake failed and not why.
    let clients = [seen("ws"), ("undici", json!("error"), json!("error"))];
    passes(&setup, &papers, node, &clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_python_pass() {
    let (setup, papers) = gate().await;
    let mut python = Command::new(packages::python());
    python.arg(root().join("tests/clients/walk.py"));
    passes(&setup, &papers, python, &["websockets", "aiohttp", "websocket-client"].map(seen)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_the_jdk_passes() {
    let (setup, papers) = gate().await;
    let hosts = NamedTempFile::new().unwrap();
    fs::write(hosts.path(), format!("127.0.0.1 {HOST}\n")).unwrap();
    let mut java = Command::new("java");
    java.arg(format!("-Djdk.net.hosts.file={}", hosts.path().display()));
    java.arg("-XX:TieredStopAtLevel=1").arg(root().join("tests/clients/Walk.java"));
    passes(&setup, &papers, java, &[seen("java.net.http")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_go_pass() {
    let (setup, papers) = gate().await;
    passes(&setup, &papers, Command::new(packages::go_clients()), &["gorilla", "coder"].map(seen)).await;
}

/// The walk of tokio-tungstenite, in this process.
async fn of_tungstenite(setup: &Setup, token: &str) -> Value {
    let tcp = TcpStream::connect(setup.gateway.wss).await.unwrap();
    let connector = TlsConnector::from(Arc::new(setup.authority.client()));
    let tls = connector.connect(HOST.try_into().unwrap(), tcp).await.unwrap();
    let url = format!("wss://{HOST}:{}/walk", setup.gateway.wss.port());
    let mut request = url.into_client_request().unwrap();
    if !token.is_empty() {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut socket = match tokio_tungstenite::client_async(request, tls).await {
        Ok((socket, _)) => socket,
        Err(Error::Http(answer)) => return json!(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    };
    for message in [Message::text(TEXT), Message::binary(vec![7; 40_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(Some(CloseFrame { code: 4000.into(), reason: "enough".into() })).await.unwrap();
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("no Close frame came back") };
    json!([TEXT, true, u16::from(close.code), close.reason.as_str()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_rust_passes() {
    let (setup, papers) = gate().await;
    assert_eq!(of_tungstenite(&setup, "").await, json!(401));
    assert_eq!(of_tungstenite(&setup, &papers.limited).await, json!(403));
    assert_eq!(of_tungstenite(&setup, &papers.good).await, json!([TEXT, true, 4000, "enough"]));
    went_through(&setup, &papers, 1).await;
}

/// A gateway between the server and the clients of one program: what came of each case.
async fn between(command: Command, subprotocols: &[&str]) -> (Gateway, BTreeMap<String, Value>) {
    let (authority, key) = (Authority::new(), Key::es256("one"));
    let papers = Papers::new(&authority, &key);
    let mut command = papers.with(command);
    command.arg(papers.authority.path());
    let mut program = Program::start(command).await;
    let mut spec = any_of(&[method(&demands())]);
    if !subprotocols.is_empty() {
        spec["handshake"]["subprotocols"] = json!(subprotocols);
    }
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
        .with("service.yaml", &service("chat", &[program.port]))
        .with("keys.yaml", &[config_map("idp", &set(&[&key]))])
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &spec)]);
    let gateway = Gateway::start(&manifests).await;
    let cases = program.cases(gateway.wss.port()).await;
    holds_nothing_of(&gateway, &[&papers.good, &papers.limited]).await;
    (gateway, cases)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_io_and_signalr_pass_with_the_transport_of_websockets_alone() {
    let mut node = Command::new("node");
    node.arg(root().join("tests/clients/frameworks.js"));
    let (gateway, cases) = between(node, &[]).await;
    assert_eq!(cases.len(), 6, "{cases:?}");
    for (step, status) in [("without", "401"), ("limited", "403")] {
        let case = &cases[&format!("socket.io {step}")];
        assert!(case["client"].as_str().unwrap().contains(status), "{case}");
        // SignalR tells nobody the status.
        let case = &cases[&format!("signalr {step}")];
        assert!(case["client"].as_str().unwrap().contains("WebSocket failed to connect"), "{case}");
        assert_eq!(case["seen"], json!([]));
    }
    let case = &cases["socket.io good"];
    assert_eq!(case["client"], json!([TEXT, true, "io client disconnect"]), "{case}");
    assert_eq!(case["seen"], json!(["client namespace disconnect"]));
    let case = &cases["signalr good"];
    assert_eq!(case["client"], json!([TEXT, "Disconnected", true, "Disconnected"]), "{case}");
    for reason in ["credential_missing", "claims_not_met"] {
        assert_eq!(gateway.refusals(Some(reason)).await, 2.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_point_passes_with_its_token() {
    let mut python = Command::new(packages::python());
    python.arg(root().join("tests/clients/ocpp_session.py"));
    let (gateway, cases) = between(python, &["ocpp2.0.1"]).await;
    assert_eq!((&cases["ocpp without"]["client"], &cases["ocpp limited"]["client"]), (&json!(401), &json!(403)));
    let case = &cases["ocpp good"];
    assert_eq!(case["client"], json!(["ocpp2.0.1", TEXT, 4000, "enough"]), "{case}");
    assert_eq!(case["seen"], json!([[4000, "enough"]]));
    closed_by(&gateway, 1).await;
}

#[test]
fn the_page_of_clients_names_tests_that_exist() {
    let page = fs::read_to_string(root().join("docs/clients.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let named: Vec<(&str, &str)> = rows.filter_map(|row| row.rsplit('`').nth(1)?.split_once("::")).collect();
    assert!(named.len() > 15, "{named:?}");
    for (file, test) in named {
        let source = fs::read_to_string(root().join("tests").join(file).with_extension("rs")).unwrap();
        assert!(source.contains(&format!("fn {test}(")), "{file}::{test}");
    }
}
