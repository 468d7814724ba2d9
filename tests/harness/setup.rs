//! The usual fixture: one host, one route, one recording upstream, one gateway; and the oracle of every refusal.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::manifests::{route, secret, service, text};
use super::{
    Answer, Authority, Behaviour, Client, Gateway, Head, Manifests, Options, Peer, Recorder, SOON, json, until,
};

/// The host of the usual fixture.
pub const HOST: &str = "chat.example.com";

/// One host, one route, one recording upstream, one gateway.
pub struct Setup {
    pub authority: Authority,
    pub recorder: Recorder,
    pub gateway: Gateway,
}

impl Setup {
    /// An echo behind the route; `spec` is laid over the usual spec.
    pub async fn new(spec: &Value) -> Self {
        Self::with(Behaviour::Echo, spec, &Options::default()).await
    }

    /// Another upstream, other options.
    pub async fn with(behaviour: Behaviour, spec: &Value, options: &Options) -> Self {
        Self::beside(behaviour, spec, options, |manifests| manifests).await
    }

    /// With other objects beside the usual ones.
    pub async fn beside(
        behaviour: Behaviour,
        spec: &Value,
        options: &Options,
        more: impl FnOnce(Manifests) -> Manifests,
    ) -> Self {
        let authority = Authority::new();
        let recorder = Recorder::start(behaviour).await;
        let manifests = more(manifests(&authority, &recorder, spec));
        let gateway = Gateway::start_with(&manifests, options).await;
        Self { authority, recorder, gateway }
    }

    /// A client that asks for the host.
    pub fn client(&self) -> Client {
        Client { address: self.gateway.wss, config: Arc::new(self.authority.client()), name: HOST.to_owned() }
    }

    /// A connection after its 101 on `/`.
    pub async fn open(&self) -> Peer {
        self.client().open(&Head::upgrade("/")).await
    }

    /// Both ends of a connection, where the upstream is [`Behaviour::Manual`].
    pub async fn pair(&self) -> (Peer, Peer) {
        let head = Head::upgrade("/");
        tokio::join!(async { self.client().open(&head).await }, self.recorder.peer())
    }

    /// Puts another spec in place of the route's.
    pub async fn respec(&self, spec: &Value) {
        self.gateway.edit("route.yaml", &route_text(spec)).await;
    }

    /// The handshake is let through; the connection is then closed in an orderly way.
    pub async fn admitted(&self, case: &str, head: &Head) {
        let (answer, peer) = self.client().ask(head).await;
        assert_eq!(answer.status(), 101, "{case}: {answer:?}");
        assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000), "{case}");
    }

    /// The oracle of every refusal before the 101; see [`refused`].
    pub async fn refused(&self, case: &str, head: &Head, statuses: &[u16], reasons: &[&str]) -> Answer {
        refused(&self.gateway, &self.recorder, &self.client(), case, head, statuses, reasons).await
    }
}

/// The manifests of the usual fixture, one file per kind of object.
pub fn manifests(authority: &Authority, recorder: &Recorder, spec: &Value) -> Manifests {
    Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", spec)])
}

/// The text of the usual route with another spec over it.
pub fn route_text(spec: &Value) -> String {
    text(&[route("chat", HOST, "chat-tls", "chat", spec)])
}

/// A route with these handshake members.
pub fn handshake(members: &Value) -> Value {
    json!({"handshake": members})
}

/// The universal oracle: the stated status and secure headers, the connection ended at once, the upstream saw nothing,
/// and the refusal was counted once, under one of the stated reasons.
pub async fn refused(
    gateway: &Gateway,
    recorder: &Recorder,
    client: &Client,
    case: &str,
    head: &Head,
    statuses: &[u16],
    reasons: &[&str],
) -> Answer {
    let (seen, all, stated) = (recorder.count(), gateway.refusals(None).await, counted(gateway, reasons).await);
    let mut peer = client.connect().await;
    peer.write(&head.bytes()).await;
    let start = Instant::now();
    let bytes = peer.rest(SOON, &format!("{case}: the end of a refused connection")).await;
    let elapsed = start.elapsed();
    let Some(answer) = Answer::parse(&bytes) else {
        panic!("{case}: no answer before the end after {elapsed:?}, but {:?}", String::from_utf8_lossy(&bytes));
    };
    assert!(statuses.contains(&answer.status()), "{case}: expected {statuses:?}, got {answer:?}");
    let options = answer.field("connection").unwrap_or_default().to_ascii_lowercase();
    assert!(options.split(',').any(|option| option.trim() == "close"), "{case}: {answer:?}");
    for name in ["content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy"] {
        assert!(answer.field(name).is_some(), "{case}: no {name} in {answer:?}");
    }
    assert!(answer.body.len() < 300 && answer.body.is_ascii(), "{case}: {answer:?}");
    assert!(!answer.body.starts_with(b"HTTP/"), "{case}: a second answer: {answer:?}");
    until(SOON, &format!("{case}: the refusal in the metrics"), async || {
        (gateway.refusals(None).await > all).then_some(())
    })
    .await;
    let now = (gateway.refusals(None).await - all, counted(gateway, reasons).await - stated);
    let by_reason = gateway.get("/metrics").await.1;
    let by_reason: Vec<&str> = by_reason.lines().filter(|line| line.starts_with("wssgate_handshakes_total")).collect();
    assert_eq!(now, (1.0, 1.0), "{case}: counted (in all, as {reasons:?}); {by_reason:#?}");
    recorder.saw_nothing_since(seen, case);
    answer
}

async fn counted(gateway: &Gateway, reasons: &[&str]) -> f64 {
    let mut sum = 0.0;
    for reason in reasons {
        sum += gateway.refusals(Some(reason)).await;
    }
    sum
}
