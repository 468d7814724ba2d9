//! ACME HTTP-01 on the plain port: a CA's question reaches the solver as one clean request, and nothing else does.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::harness::manifests::{route, secret, service, slice, text};
use crate::harness::peer::Wire;
use crate::harness::{
    Answer, Authority, Behaviour, Gateway, HOST, Head, Manifests, PATIENCE, Peer, Recorder, SOON, json, until,
};
use serde_json::Value;
use tokio::net::TcpStream;

const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAxDfowyjxAjEuX0";
const KEY: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAxDfowyjxAjEuX0.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

fn path() -> String {
    format!("/.well-known/acme-challenge/{TOKEN}")
}

/// The Ingress that cert-manager makes for one challenge.
fn ingress(namespace: &str, host: &str, path: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": "cm-acme-http-solver-x7k2p", "namespace": namespace,
            "labels": {
                "acme.cert-manager.io/http-domain": "1", "acme.cert-manager.io/http-token": "2",
                "acme.cert-manager.io/http01-solver": "true",
            },
        },
        "spec": {
            "ingressClassName": "wssgate",
            "rules": [{"host": host, "http": {"paths": [{
                "path": path, "pathType": "Exact",
                "backend": {"service": {"name": "solver", "port": {"number": 8089}}},
            }]}}],
        },
    })
}

/// The solver's Service, with its endpoint.
fn solver(namespace: &str, port: u16) -> Vec<Value> {
    let mut slice = slice("solver", 0, port, &json!({"ready": true}));
    slice["metadata"]["namespace"] = namespace.into();
    slice["ports"][0]["name"] = "http".into();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "solver", "namespace": namespace},
        "spec": {"type": "NodePort", "ports": [{"name": "http", "port": 8089, "targetPort": 8089}]},
    });
    vec![service, slice]
}

struct Fixture {
    backend: Recorder,
    solver: Recorder,
    gateway: Gateway,
}

impl Fixture {
    /// A host with a route, and a challenge for it.
    async fn new(behaviour: Behaviour) -> Self {
        Self::with(behaviour, "shop", HOST, &path()).await
    }

    async fn with(behaviour: Behaviour, namespace: &str, host: &str, path: &str) -> Self {
        let authority = Authority::new();
        let (backend, recorder) = (Recorder::start(Behaviour::Echo).await, Recorder::start(behaviour).await);
        let manifests = Manifests::default()
            .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
            .with("service.yaml", &service("chat", &[backend.port()]))
            .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &json!({}))])
            .with("solver.yaml", &solver(namespace, recorder.port()))
            .with("ingress.yaml", &[ingress(namespace, host, path)]);
        let gateway = Gateway::start(&manifests).await;
        Self { backend, solver: recorder, gateway }
    }

    async fn ask(&self, head: &Head) -> Option<Answer> {
        let tcp = TcpStream::connect(self.gateway.http).await.unwrap();
        let mut peer = Peer::new(Wire::Plain(tcp), true);
        peer.write(&head.bytes()).await;
        peer.ended(PATIENCE, "the end of a plain connection").await;
        Answer::parse(peer.pending())
    }

    async fn get(&self) -> Answer {
        self.ask(&Head::request(&format!("GET {} HTTP/1.1", path()))).await.expect("an answer")
    }

    fn nothing_was_seen(&self, case: &str) {
        self.solver.saw_nothing_since((0, 0), case);
        self.backend.saw_nothing_since((0, 0), case);
    }
}

/// An answer as the solver of cert-manager gives it.
fn known() -> Behaviour {
    Behaviour::bytes(format!(
        "HTTP/1.1 200 OK\r\nCache-Control: no-cache, no-store, must-revalidate\r\nContent-Length: {}\r\n\
         Content-Type: text/plain; charset=utf-8\r\nSet-Cookie: a=b\r\nConnection: close\r\n\r\n{KEY}",
        KEY.len()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_is_answered_by_its_solver_which_sees_one_clean_request() {
    let fixture = Fixture::new(known()).await;
    let head = Head::request(&format!("GET {} HTTP/1.1", path()))
        .set("Host", "Chat.Example.com:80")
        .add("User-Agent", "a CA")
        .add("Cookie", "session=s3cr3t")
        .add("Authorization", "Bearer s3cr3t")
        .add("X-Forwarded-For", "10.0.0.1")
        .add("Accept-Encoding", "gzip");
    let answer = fixture.ask(&head).await.expect("an answer");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, KEY.as_bytes()), "{answer:?}");
    for absent in ["set-cookie", "strict-transport-security", "location"] {
        assert_eq!(answer.field(absent), None, "{absent}: {answer:?}");
    }
    assert_eq!(answer.field("x-content-type-options").as_deref(), Some("nosniff"));
    assert_eq!(answer.field("content-type").as_deref(), Some("text/plain; charset=utf-8"));
    let seen = fixture.solver.seen();
    assert_eq!(seen.len(), 1);
    let bytes = String::from_utf8(seen[0].bytes.lock().unwrap().clone()).unwrap();
    let (head, body) = bytes.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some(format!("GET {} HTTP/1.1", path()).as_str()));
    let fields: BTreeSet<String> = lines.map(str::to_ascii_lowercase).collect();
    let expected = ["connection: close".to_owned(), format!("host: {HOST}")];
    assert_eq!(fields, expected.into(), "no header of the client goes on");
    assert_eq!(body, "");
    fixture.backend.saw_nothing_since((0, 0), "the route's backend");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_request_gets_the_fields_without_the_answer() {
    let fixture = Fixture::new(known()).await;
    let head = Head::request(&format!("HEAD {} HTTP/1.1", path()));
    let answer = fixture.ask(&head).await.expect("an answer");
    assert_eq!((answer.status(), answer.body.len()), (200, 0), "{answer:?}");
    assert_eq!(answer.field("content-length"), Some(KEY.len().to_string()));
    assert!(fixture.solver.last().bytes.lock().unwrap().starts_with(b"GET "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_the_very_path_reaches_a_solver() {
    let fixture = Fixture::new(known()).await;
    let (path, folder) = (path(), "/.well-known/acme-challenge");
    for target in [
        format!("{path}/"),
        format!("{path}?"),
        format!("{path}?a=b"),
        format!("{path}/../{TOKEN}"),
        format!("{path}%2f..%2fhealthz"),
        format!("{folder}/%4coqXcYV8q5ONbJQxbmR7SCTNo3tiAxDfowyjxAjEuX0"),
        format!("{folder}//{TOKEN}"),
        format!("{folder}/./{TOKEN}"),
        format!("{folder}/../../healthz"),
        format!("/a/..{path}"),
        format!("/{path}"),
        format!("{folder}\\{TOKEN}"),
        format!("{folder}/"),
        folder.to_owned(),
        format!("{folder}/another"),
        path.to_ascii_uppercase(),
        format!("http://other.example.com{path}"),
        "/healthz".to_owned(),
        "*".to_owned(),
    ] {
        let answer = fixture.ask(&Head::request(&format!("GET {target} HTTP/1.1"))).await;
        let status = answer.as_ref().map_or(400, Answer::status);
        assert!([308, 400, 404].contains(&status), "{target}: {answer:?}");
        let below = target.starts_with(&format!("{folder}/"));
        assert!(!below || status != 308, "challenges are never redirected: {target}: {answer:?}");
        fixture.nothing_was_seen(&target);
    }
    let get = || Head::request(&format!("GET {path} HTTP/1.1"));
    for (case, head) in [
        ("another host", get().set("Host", "other.example.com")),
        ("a host below", get().set("Host", "a.chat.example.com")),
        ("two trailing dots", get().set("Host", "chat.example.com..")),
        ("no host", get().without("Host")),
        ("two hosts", get().add("Host", "evil.test")),
        ("the same host twice", get().add("Host", HOST)),
        ("a body", get().add("Content-Length", "3").then("abc")),
        ("chunks", get().add("Transfer-Encoding", "chunked").then("0\r\n\r\n")),
        (
            "a second request within a body of two lengths",
            get()
                .add("Content-Length", "6")
                .add("Transfer-Encoding", "chunked")
                .then("0\r\n\r\nGET /second HTTP/1.1\r\nHost: chat.example.com\r\n\r\n"),
        ),
        ("an upgrade", get().add("Upgrade", "websocket").add("Connection", "Upgrade")),
        ("h2c", get().add("Upgrade", "h2c").add("Connection", "Upgrade, HTTP2-Settings").add("HTTP2-Settings", "AAA")),
        ("POST", Head::request(&format!("POST {path} HTTP/1.1"))),
        ("PUT", Head::request(&format!("PUT {path} HTTP/1.1")).add("Content-Length", "1").then("a")),
        ("OPTIONS", Head::request(&format!("OPTIONS {path} HTTP/1.1"))),
        ("CONNECT", Head::request(&format!("CONNECT {path} HTTP/1.1"))),
        ("a bare CR", Head::request(&format!("GET {path} HTTP/1.1")).add("X", "a\rb")),
        ("a head without end", Head::request(&format!("GET {path} HTTP/1.1")).add("X", "x".repeat(64 * 1024))),
    ] {
        let answer = fixture.ask(&head).await;
        let status = answer.as_ref().map_or(400, Answer::status);
        assert!([400, 404, 405, 431].contains(&status), "{case}: {answer:?}");
        let body = answer.map(|answer| answer.body).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&body).contains("HTTP/1.1"), "{case}: one answer and the end");
        fixture.nothing_was_seen(case);
    }
    assert_eq!(fixture.get().await.status(), 200, "and the challenge itself is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_behind_a_challenge_on_the_same_connection_is_not_answered() {
    let fixture = Fixture::new(known()).await;
    let head = Head::request(&format!("GET {} HTTP/1.1", path()))
        .then(format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", path()));
    let answer = fixture.ask(&head).await.expect("an answer");
    assert_eq!((answer.status(), answer.body.as_slice()), (200, KEY.as_bytes()));
    assert_eq!(fixture.solver.count().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_does_not_hold_the_name_cannot_answer_for_it() {
    let fixture = Fixture::with(known(), "thief", HOST, &path()).await;
    assert_eq!(fixture.get().await.status(), 404);
    fixture.nothing_was_seen("another namespace");
    let said = |line: &Value| line["object"] == "Ingress thief/cm-acme-http-solver-x7k2p";
    let line = fixture.gateway.log_line("the log's word on it", said).await;
    assert!(line["problem"].as_str().unwrap().contains("no route of namespace \"thief\" has"), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingress_for_another_path_proxies_nothing() {
    for asked in ["/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/a/b", "/admin"] {
        let fixture = Fixture::with(known(), "shop", HOST, asked).await;
        for target in [asked, "/admin", "/.well-known/acme-challenge/a/b", "/.well-known/acme-challenge/a"] {
            let answer = fixture.ask(&Head::request(&format!("GET {target} HTTP/1.1"))).await.expect("an answer");
            assert!([308, 404].contains(&answer.status()), "{asked} {target}: {answer:?}");
        }
        fixture.nothing_was_seen(asked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_comes_and_goes_with_its_ingress() {
    let fixture = Fixture::new(known()).await;
    assert_eq!(fixture.get().await.status(), 200);
    fixture.gateway.remove("ingress.yaml").await;
    assert_eq!(fixture.get().await.status(), 404);
    fixture.gateway.edit("ingress.yaml", &text(&[ingress("shop", HOST, &path())])).await;
    assert_eq!(fixture.get().await.status(), 200);
    fixture.gateway.remove("route.yaml").await;
    assert_eq!(fixture.get().await.status(), 404, "who no longer holds the name no longer proves it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_solver_says_instead_of_an_answer_goes_to_nobody() {
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 70_000, "x".repeat(70_000));
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n";
    let heads = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    for (case, bytes, status) in [
        ("the solver does not know it", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(), 404),
        (
            "a redirect",
            "HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\n\r\n".to_owned(),
            502,
        ),
        ("a refusal", "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret".to_owned(), 502),
        ("an upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n".to_owned(), 502),
        ("too long", huge, 502),
        ("a broken chunk", format!("{endless}zz\r\n{}", "x".repeat(100_000)), 502),
        ("a head too long", heads, 502),
        ("no HTTP", "SSH-2.0-x\r\n".to_owned(), 502),
    ] {
        let fixture = Fixture::new(Behaviour::bytes(bytes)).await;
        let answer = fixture.get().await;
        assert_eq!(answer.status(), status, "{case}: {answer:?}");
        assert_eq!(answer.field("location"), None, "{case}");
        assert!(answer.body.len() < 100 && !answer.body.starts_with(b"secret"), "{case}: {answer:?}");
    }
    let fixture = Fixture::new(Behaviour::Reset).await;
    assert_eq!(fixture.get().await.status(), 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_solver_that_hangs_is_given_up_and_takes_no_places_of_others() {
    let fixture = Fixture::new(Behaviour::Unanswered).await;
    let started = Instant::now();
    let many = (0..12).map(|_| fixture.get());
    let answers = futures_util::future::join_all(many).await;
    let count = |status| answers.iter().filter(|answer| answer.status() == status).count();
    assert_eq!((count(504), count(503)), (8, 4), "{answers:?}");
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(fixture.solver.count().0, 8);
    // Places come back.
    fixture.solver.behave(known());
    until(SOON, "an answer after the hang", async || (fixture.get().await.status() == 200).then_some(())).await;
}
