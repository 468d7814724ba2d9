//! A real browser: a page of an allowed origin talks through the gateway in every way that `docs/authentication.md`
//! shows, with the manifest and the code that stand there; the same page of another origin does not.
#![allow(unreachable_pub, reason = "its parts are its own")]

mod guide;
mod visitor;

use std::sync::Arc;

use crate::harness::issuer::{claims, holds_nothing_of, set};
use crate::harness::manifests::{config_map, route, secret, service, service_as};
use crate::harness::{
    Answer, Authority, Behaviour, Client, Gateway, HOST, Head, Key, Manifests, Options, Recorder, json,
};
use guide::Section;
use tempfile::NamedTempFile;
use visitor::Visitor;

/// The page of the allowed origin, that of a sibling domain, and that of another site.
const APP: &str = "app.example.com";
const OTHERS: [&str; 2] = ["other.example.com", "evil.example.net"];
/// One browser at a time is enough for a small machine.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What a page reports that got through, with the subprotocol that it got.
fn through(protocol: &str) -> String {
    format!("open {protocol} []\ntext grüße €\nbinary 40000 true\nclose 4000 enough true")
}

/// A section of the documentation, carried out.
struct Fixture {
    section: Section,
    visitor: Visitor,
    authority: Authority,
    recorder: Recorder,
    /// The service that judges sessions.
    sessions: Recorder,
    gateway: Gateway,
    /// The one key of the issuer.
    key: Key,
    _issuer: Recorder,
    _trusted: NamedTempFile,
}

impl Fixture {
    async fn new(heading: &str, more: &[serde_json::Value]) -> Self {
        let section = Section::of(heading);
        let (authority, key) = (Authority::new(), Key::es256("one"));
        let visitor = Visitor::new(&authority).await;
        let recorder = Recorder::start(Behaviour::Echo).await;
        let keys = set(&[&key]).to_string();
        let keys = Behaviour::bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len()));
        let issuer = Recorder::start_tls(keys, authority.leaf(&["127.0.0.1"]).server()).await;
        let trusted = NamedTempFile::new().unwrap();
        std::fs::write(trusted.path(), authority.pem()).unwrap();
        let sessions = Recorder::start(Behaviour::Answer(Arc::new(judge))).await;
        let mut judges = service_as("sessions", "http", &[sessions.port()]);
        judges[0]["spec"]["ports"][0]["port"] = json!(80);
        let mut manifests = Manifests::default()
            .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
            .with("service.yaml", &service("chat", &[recorder.port()]))
            .with("sessions.yaml", &judges)
            .with("more.yaml", more);
        manifests.files.insert("route.yaml".into(), section.route(visitor.port, issuer.port()));
        let env = vec![("SSL_CERT_FILE".into(), trusted.path().display().to_string())];
        let gateway = Gateway::start_with(&manifests, &Options { env, ..Options::default() }).await;
        Self { section, visitor, authority, recorder, sessions, gateway, key, _issuer: issuer, _trusted: trusted }
    }

    fn token(&self) -> String {
        self.key.sign(&claims(&json!({"scope": "chat"})))
    }

    /// The page of the allowed origin gets through with the code of a way; the backend hears nothing of the secret.
    async fn passes(&mut self, case: &str, way: usize, token: &str, protocol: &str) -> Answer {
        let code = self.section.code(way, self.gateway.wss.port());
        let report = self.visitor.visit(APP, &code, token).await;
        assert_eq!(report, through(protocol), "{case}");
        let seen = self.recorder.last();
        let bytes = String::from_utf8_lossy(&seen.bytes.lock().unwrap()).into_owned();
        assert!(!bytes.contains(token), "{case}: the backend got the credential");
        assert_eq!(seen.head().field("origin"), Some(self.visitor.origin(APP)), "{case}");
        seen.head()
    }

    /// The same page of other origins gets `report`, and the backend sees nothing of it.
    async fn others_do_not(&mut self, case: &str, way: usize, token: &str, expected: &str) {
        for name in OTHERS {
            let before = (self.recorder.count(), self.denied().await);
            let code = self.section.code(way, self.gateway.wss.port());
            let report = self.visitor.visit(name, &code, token).await;
            assert_eq!(report, expected, "{case}: the page of {name}");
            self.recorder.saw_nothing_since(before.0, case);
            assert!(self.denied().await > before.1, "{case}: {name} was refused for another reason");
        }
    }

    async fn denied(&self) -> f64 {
        self.gateway.refusals(Some("origin_denied")).await
    }
}

/// The service of the user's: one session is ada's.
fn judge(head: &Answer) -> Vec<u8> {
    let known = head.field("cookie").is_some_and(|cookie| cookie.contains("__Secure-session=ada-0123456789abcdef"));
    let answer = if known { "200 OK\r\nX-User: ada" } else { "401 Unauthorized" };
    format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// What a browser says of a handshake that was refused.
const REFUSED: &str = "close 1006  false";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_talks_through_it_from_an_allowed_origin_only() {
    let _one = ONE.lock().await;
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let mut visitor = Visitor::new(&authority).await;
    let origins = json!({"handshake": {"origins": {"allow": [visitor.origin(APP)]}}});
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &origins)]);
    let gateway = Gateway::start(&manifests).await;
    let url = format!("wss://{HOST}:{}/room?x=y", gateway.wss.port());
    let code = format!("const socket = new WebSocket('{url}', ['chat.v2', 'chat.v1']);");

    let report = visitor.visit("evil.example.net", &code, "").await;
    assert_eq!(report, REFUSED, "the other origin's page must get nothing");
    assert_eq!(recorder.count(), (0, 0), "the backend saw something of a refused page");
    gateway
        .metric_becomes("wssgate_handshakes_total", &[("outcome", "refused"), ("reason", "origin_denied")], 1.0)
        .await;

    assert_eq!(visitor.visit(APP, &code, "").await, through("chat.v2"));
    assert_eq!(recorder.last().head().field("origin"), Some(visitor.origin(APP)));
    gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_connects_with_a_token_as_a_subprotocol_or_in_the_query() {
    let _one = ONE.lock().await;
    let mut fixture = Fixture::new("Tokens", &[]).await;
    let token = fixture.token();
    fixture.others_do_not("subprotocol", 0, &token, REFUSED).await;
    let head = fixture.passes("subprotocol", 0, &token, "chat.v1").await;
    assert_eq!(head.field("sec-websocket-protocol").as_deref(), Some("chat.v1"));
    assert_eq!(head.field("x-subject").as_deref(), Some("ada"));
    let head = fixture.passes("query", 1, &token, "").await;
    assert_eq!(head.line, "GET / HTTP/1.1");
    fixture.others_do_not("query", 1, &token, REFUSED).await;
    let forged = Key::es256("one").sign(&claims(&json!({"scope": "chat"})));
    let code = fixture.section.code(0, fixture.gateway.wss.port());
    assert_eq!(fixture.visitor.visit(APP, &code, &forged).await, REFUSED, "another key's token");
    // The header, for those who can set one.
    let client =
        Client { address: fixture.gateway.wss, config: Arc::new(fixture.authority.client()), name: HOST.into() };
    let head = Head::upgrade("/").add("Authorization", format!("Bearer {token}"));
    assert!(client.open(&head).await.close(1000, "").await.is_some());
    holds_nothing_of(&fixture.gateway, &[&token, &forged]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_connects_with_a_token_in_its_cookie() {
    let _one = ONE.lock().await;
    let mut fixture = Fixture::new("Tokens in a cookie", &[]).await;
    let token = fixture.token();
    let code = fixture.section.code(0, fixture.gateway.wss.port());
    assert_eq!(fixture.visitor.visit(APP, &code, "").await, REFUSED, "without a cookie");
    fixture.visitor.set_cookie(&fixture.section.http[0].replace("TOKEN", &token));
    let head = fixture.passes("cookie", 0, &token, "").await;
    assert_eq!((head.field("x-subject").as_deref(), head.count("cookie")), (Some("ada"), 0));
    fixture.visitor.set_cookie("X-Nothing: more");
    fixture.others_do_not("cookie", 0, &token, REFUSED).await;
    // The browser has a cookie for sibling domains and sends it: from another site it would not even have one to send.
    assert_eq!(fixture.visitor.visit(APP, &code, "").await, through(""));
    assert_eq!(fixture.visitor.visit(OTHERS[0], &code, "").await, REFUSED);
    let sent = fixture.visitor.sent_cookies().unwrap_or_default();
    assert!(sent.contains(&token), "the browser has no cookie for sibling domains, so nothing was tried");
    holds_nothing_of(&fixture.gateway, &[&token]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_connects_with_a_session_that_a_service_judges() {
    let _one = ONE.lock().await;
    let mut fixture = Fixture::new("Sessions that a service judges", &[]).await;
    let cookie = |session: &str| Section::of("Tokens in a cookie").http[0].replace("TOKEN", session);
    let code = fixture.section.code(0, fixture.gateway.wss.port());
    fixture.visitor.set_cookie(&cookie("nobody-0123456789abcdef"));
    assert_eq!(fixture.visitor.visit(APP, &code, "").await, REFUSED, "a session that the service does not know");
    assert_eq!((fixture.sessions.count().0, fixture.recorder.count()), (1, (0, 0)));
    fixture.visitor.set_cookie(&cookie("ada-0123456789abcdef"));
    let head = fixture.passes("session", 0, "ada-0123456789abcdef", "").await;
    assert_eq!(head.field("x-user").as_deref(), Some("ada"));
    let asked = fixture.sessions.count();
    fixture.others_do_not("session", 0, "ada-0123456789abcdef", REFUSED).await;
    assert_eq!(fixture.sessions.count(), asked, "nobody is asked about pages of other origins");
    holds_nothing_of(&fixture.gateway, &["ada-0123456789abcdef"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_gets_a_ticket_and_connects_with_it() {
    let _one = ONE.lock().await;
    let mut fixture = Fixture::new("Tickets", &[]).await;
    let token = fixture.token();
    // Refused in the preflight: the page hears nothing, not even that there are tickets.
    fixture.others_do_not("ticket", 0, &token, "error TypeError").await;
    assert!(fixture.gateway.metric("wssgate_tickets_issued_total", &[]).await < 0.5, "none was sold");
    let head = fixture.passes("ticket", 0, &token, "").await;
    assert_eq!(head.line, "GET / HTTP/1.1", "the ticket is taken out");
    fixture.gateway.metric_becomes("wssgate_tickets_issued_total", &[], 1.0).await;
    fixture.gateway.metric_becomes("wssgate_tickets_redeemed_total", &[], 1.0).await;
    let forged = Key::es256("one").sign(&claims(&json!({})));
    let code = fixture.section.code(0, fixture.gateway.wss.port());
    let report = fixture.visitor.visit(APP, &code, &forged).await;
    assert!(report.starts_with("error ") || report == REFUSED, "another key's token: {report}");
    // A page of another origin that sends no preflight, and one that has got hold of a ticket.
    let url = format!("https://{HOST}:{}/ticket", fixture.gateway.wss.port());
    let simple = format!("const socket = await (await fetch('{url}', {{method: 'POST', mode: 'no-cors'}})).json();");
    assert!(fixture.visitor.visit(OTHERS[1], &simple, "").await.starts_with("error "), "an opaque answer");
    // A ticket that another page has got hold of.
    let call = code.split("const socket").next().unwrap();
    let told = format!("{call} throw Object.assign(new Error(), {{name: ticket}}); const socket = null;");
    let report = fixture.visitor.visit(APP, &told, &token).await;
    let ticket = report.strip_prefix("error ").expect("a ticket").to_owned();
    assert_eq!(ticket.len(), 43, "{ticket}");
    let url = format!("wss://{HOST}:{}/?ticket={ticket}", fixture.gateway.wss.port());
    let redeem = format!("const socket = new WebSocket('{url}');");
    for name in OTHERS {
        assert_eq!(fixture.visitor.visit(name, &redeem, "").await, REFUSED, "{name} with the ticket of {APP}");
    }
    assert_eq!(fixture.visitor.visit(APP, &redeem, "").await, through(""));
    assert_eq!(fixture.visitor.visit(APP, &redeem, "").await, REFUSED, "a second time");
    fixture.gateway.metric_becomes("wssgate_tickets_issued_total", &[], 2.0).await;
    holds_nothing_of(&fixture.gateway, &[&token, &forged, &ticket]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connects_with_the_certificate_that_the_page_asks_for() {
    let partners = Authority::new();
    let fixture = Fixture::new("Client certificates", &[config_map("partners-ca", "ca.crt", partners.pem())]).await;
    let pair = partners.client_leaf("alice", 7, |_| {});
    let address = fixture.gateway.wss;
    let client = |config| Client { address, config: Arc::new(config), name: HOST.into() };
    let head = Head::upgrade("/").add("Origin", fixture.visitor.origin(APP));
    assert!(client(pair.shown_by(fixture.authority.client())).open(&head).await.close(1000, "").await.is_some());
    assert!(fixture.recorder.last().head().field("client-cert").is_some());
    let before = fixture.recorder.count();
    let mut peer = client(fixture.authority.client()).connect().await;
    peer.write(&head.bytes()).await;
    assert!(peer.head().await.is_none(), "without a certificate");
    fixture.recorder.saw_nothing_since(before, "without a certificate");
}
