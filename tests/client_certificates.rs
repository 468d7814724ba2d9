//! `tls.clientValidation`: who may connect with which certificate, what the backend hears of it, and what happens to
//! live connections when authorities, revocations or the rule itself change.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::harness::manifests::{config_map, merge, route, secret, service, text};
use crate::harness::peer::{OneName, Wire};
use crate::harness::setup::route_text;
use crate::harness::{
    self, Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Manifests, PATIENCE, Pair, Peer, Recorder, SOON,
    Setup, json, until,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::HandshakeKind;
use rustls::client::{ClientSessionMemoryCache, Resumption};
use serde_json::Value;

const VERSIONS: [(&str, &rustls::SupportedProtocolVersion); 2] =
    [("TLS 1.2", &rustls::version::TLS12), ("TLS 1.3", &rustls::version::TLS13)];
const ORIGIN: &str = "https://chat.example.com";

/// A handshake of a page of the host: without Origin none gets in where certificates authenticate.
fn head() -> Head {
    Head::upgrade("/").add("Origin", ORIGIN)
}

/// A spec that asks for certificates of the authorities in ConfigMap `partners`, with more laid over it.
fn asking(mode: &str, more: Value) -> Value {
    let mut spec = json!({"tls": {"clientValidation": {"mode": mode, "caCertificateRefs": [{"name": "partners"}]}}});
    merge(&mut spec, &more);
    spec
}

fn with_lists() -> Value {
    asking("Required", json!({"tls": {"clientValidation": {"crlRefs": [{"name": "revoked"}]}}}))
}

fn bundle(authorities: &[&Authority]) -> String {
    let pems: String = authorities.iter().map(|authority| authority.pem()).collect();
    text(&[config_map("partners", "ca.crt", &pems)])
}

fn list(pem: &str) -> String {
    text(&[config_map("revoked", "crl.pem", pem)])
}

/// The usual fixture, whose host asks for certificates of `partners`.
struct Fixture {
    setup: Setup,
    partners: Authority,
}

impl Fixture {
    async fn new(spec: &Value) -> Self {
        let (authority, partners) = (Authority::new(), Authority::new());
        let recorder = Recorder::start(Behaviour::Echo).await;
        let mut manifests = harness::setup::manifests(&authority, &recorder, spec);
        manifests.files.insert("partners.yaml".into(), bundle(&[&partners]));
        manifests.files.insert("revoked.yaml".into(), list(&partners.crl(&[], 2090)));
        let gateway = Gateway::start(&manifests).await;
        Self { setup: Setup { authority, recorder, gateway }, partners }
    }

    fn alice(&self) -> Pair {
        self.partners.client_leaf("alice", 7, |_| {})
    }

    /// A client that shows this certificate.
    fn client(&self, pair: &Pair) -> Client {
        self.client_of(pair, rustls::DEFAULT_VERSIONS)
    }

    fn client_of(&self, pair: &Pair, versions: &[&'static rustls::SupportedProtocolVersion]) -> Client {
        self.setup.client().configured(pair.shown_by(self.setup.authority.client_of(versions)))
    }

    /// The TLS handshake fails, whatever the client's side thinks of it first; the upstream sees nothing.
    async fn kept_out(&self, case: &str, client: &Client) {
        let labels = [("outcome", "refused"), ("reason", "client_certificate_invalid")];
        let counted = self.setup.gateway.metric("wssgate_handshakes_total", &labels).await;
        let seen = self.setup.recorder.count();
        if let Ok(mut peer) = client.try_connect().await {
            // In TLS 1.3 a client is done before the server has judged it.
            peer.write(&head().bytes()).await;
            let rest = peer.rest(SOON, case).await;
            assert_eq!(rest, b"", "{case}: an answer");
        }
        self.setup.gateway.metric_becomes("wssgate_handshakes_total", &labels, counted + 1.0).await;
        self.setup.recorder.saw_nothing_since(seen, case);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_certificate_opens_and_the_backend_hears_who_it_is() {
    let fixture = Fixture::new(&asking("Required", json!({}))).await;
    let id = "spiffe://partners.test/ns/shop/sa/alice";
    let alice = fixture.partners.client_leaf("alice,O=Bank", 7, |params| {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Partners");
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    });
    for (case, version) in VERSIONS {
        let mut peer = fixture.client_of(&alice, &[version]).open(&head()).await;
        peer.echo(&Frame::text(case)).await;
        let seen = fixture.setup.recorder.last().head();
        let certificate = format!(":{}:", STANDARD.encode(alice.leaf()));
        assert_eq!(seen.field("client-cert"), Some(certificate), "{case}");
        assert_eq!(seen.field("x-wssgate-client-spiffe-id").as_deref(), Some(id), "{case}");
        let subject = seen.field("x-wssgate-client-subject");
        assert_eq!(subject.as_deref(), Some("O=Partners,CN=alice\\,O\\=Bank"), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_so_many_connections_whatever_certificate_it_shows() {
    let fixture = Fixture::new(&asking("Required", json!({"connection": {"limits": {"perSubject": 2}}}))).await;
    let (first, renewed, bob) = (fixture.alice(), fixture.alice(), fixture.partners.client_leaf("bob", 8, |_| {}));
    let mut one = fixture.client(&first).open(&head()).await;
    let mut two = fixture.client(&renewed).open(&head()).await;
    let seen = fixture.setup.recorder.count().0;
    let answer = fixture.client(&first).ask(&head()).await.0;
    assert_eq!(answer.status(), 429, "{answer:?}");
    assert_eq!(fixture.setup.gateway.refusals(Some("subject_limit")).await as u64, 1);
    assert_eq!(fixture.setup.recorder.count().0, seen, "nothing reached the backend");
    come_and_go(&fixture.client(&bob), "another subject").await;
    one.echo(&Frame::text("still in")).await;
    two.echo(&Frame::text("still in")).await;
    one.close(1000, "").await;
    until(PATIENCE, "the place of a connection that ended", async || {
        (fixture.client(&first).ask(&head()).await.0.status() == 101).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_says_about_its_certificate_never_arrives() {
    let spoofed = [
        "Client-Cert",
        "CLIENT-CERT",
        "client_cert",
        "Client-Cert-Chain",
        "Client_Cert_Chain",
        "X-Wssgate-Client-Spiffe-Id",
        "x_wssgate_client_spiffe_id",
        "X-Wssgate_Client-Spiffe-Id",
        "X-Wssgate-Client-Subject",
        "X-WSSGATE-CLIENT-SUBJECT",
        "x_wssgate_client_subject",
        "X-Forwarded-Client-Cert",
        "X-SSL-Client-Cert",
        "SSL-Client-Verify",
        "X-Client-Verify",
        "X-Amzn-Mtls-Clientcert",
        "X-ARR-ClientCert",
        "X-Client-Cert",
        "X-Spiffe-Id",
        "X-TLS-Client-Subject",
    ];
    let claims = spoofed.iter().fold(head(), |head, name| head.add(name, "forged"));
    let named = spoofed.join(", ");
    let fixture = Fixture::new(&asking("Optional", json!({}))).await;
    for (case, client) in
        [("with a certificate", fixture.client(&fixture.alice())), ("without one", fixture.setup.client())]
    {
        for head in [claims.clone(), head().set("Connection", format!("Upgrade, {named}"))] {
            client.open(&head).await.echo(&Frame::text(case)).await;
            let seen = fixture.setup.recorder.last().head();
            assert!(!seen.fields.iter().any(|(_, value)| value.contains("forged")), "{case}: {seen:?}");
            let shown = usize::from(case == "with a certificate");
            for name in ["client-cert", "x-wssgate-client-subject"] {
                assert_eq!(seen.count(name), shown, "{case}: {name} in {seen:?}");
            }
            assert!(seen.field("client-cert-chain").is_none(), "{case}: {seen:?}");
        }
    }
}

/// A client certificate that signs itself.
fn self_signed() -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.self_signed(&key).unwrap();
    Pair { chain: leaf.pem(), key: key.serialize_pem() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_not_valid_end_the_handshake_in_both_modes() {
    let dated = |fixture: &Fixture, from: i32, to: i32| {
        fixture.partners.client_leaf("alice", 7, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    for mode in ["Required", "Optional"] {
        let fixture = Fixture::new(&asking(mode, json!({}))).await;
        let server_only = fixture.partners.client_leaf("alice", 7, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let rows = [
            ("expired", dated(&fixture, 2020, 2021)),
            ("not yet valid", dated(&fixture, 2080, 2081)),
            ("of another authority", Authority::new().client_leaf("alice", 7, |_| {})),
            ("of an authority with the same name", fixture.setup.authority.client_leaf("alice", 7, |_| {})),
            ("signed by itself", self_signed()),
            ("for servers", server_only),
        ];
        for (version_name, version) in VERSIONS {
            for (case, pair) in &rows {
                let case = format!("{mode}, {version_name}: {case}");
                fixture.kept_out(&case, &fixture.client_of(pair, &[version])).await;
            }
            let none = fixture.setup.client().configured(fixture.setup.authority.client_of(&[version]));
            if mode == "Required" {
                fixture.kept_out(&format!("{version_name}: none"), &none).await;
            } else {
                come_and_go(&none, "without").await;
                assert_eq!(fixture.setup.recorder.last().head().count("client-cert"), 0, "{version_name}");
            }
            come_and_go(&fixture.client_of(&fixture.alice(), &[version]), "valid").await;
        }
    }
}

/// One echo, and an orderly end: nothing of it reaches the upstream later.
async fn come_and_go(client: &Client, word: &str) {
    let mut peer = client.open(&head()).await;
    peer.echo(&Frame::text(word)).await;
    assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000), "{word}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_origin_is_refused_where_certificates_authenticate_unless_the_route_allows_it() {
    let fixture = Fixture::new(&asking("Required", json!({}))).await;
    let client = fixture.client(&fixture.alice());
    let bare = Head::upgrade("/");
    let ask = async |head: &Head| client.ask(head).await.0.status();
    let seen = fixture.setup.recorder.count();
    assert_eq!(ask(&bare).await, 403);
    assert_eq!(ask(&bare.clone().add("Origin", "https://evil.test")).await, 403);
    fixture.setup.recorder.saw_nothing_since(seen, "A3");
    fixture.setup.gateway.metric_becomes("wssgate_handshakes_total", &[("reason", "origin_missing")], 1.0).await;
    assert_eq!(ask(&head()).await, 101);
    let allowed = asking("Required", json!({"handshake": {"origins": {"missing": "Allow"}}}));
    fixture.setup.gateway.edit("route.yaml", &route_text(&allowed)).await;
    assert_eq!(ask(&bare).await, 101);
    // A route without tls joins the host with the same rule.
    let mut joined = route("joined", HOST, "unused", "chat", &json!({"tls": null}));
    joined["spec"]["rules"][0]["matches"][0]["path"]["value"] = json!("/joined");
    fixture.setup.gateway.edit("joined.yaml", &text(&[joined.clone()])).await;
    let path = Head::upgrade("/joined");
    assert_eq!(ask(&path).await, 403);
    assert_eq!(ask(&path.clone().add("Origin", ORIGIN)).await, 101);
    assert_eq!(fixture.setup.recorder.last().head().count("client-cert"), 1);
    joined["spec"]["handshake"]["origins"] = json!({"allow": ["*"]});
    fixture.setup.gateway.edit("joined.yaml", &text(&[joined])).await;
    assert_eq!(ask(&path.add("Origin", ORIGIN)).await, 503, "* on a host with client certificates");
}

async fn closed(peer: &mut Peer, case: &str) {
    let (code, _) = peer.close_within(SOON).await.unwrap_or_else(|| panic!("{case}: no Close frame"));
    assert_eq!(code, 1008, "{case}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_closes_the_connection_and_keeps_the_client_out() {
    let fixture = Fixture::new(&with_lists()).await;
    let (alice, bob) = (fixture.alice(), fixture.partners.client_leaf("bob", 8, |_| {}));
    let mut alices = fixture.client(&alice).open(&head()).await;
    let mut bobs = fixture.client(&bob).open(&head()).await;
    bobs.echo(&Frame::text("both in")).await;
    fixture.setup.gateway.edit("revoked.yaml", &list(&fixture.partners.crl(&[7], 2090))).await;
    closed(&mut alices, "revoked while connected").await;
    // Her backend has its Close too before anything is counted.
    fixture.setup.gateway.metric_becomes("wssgate_connections", &[], 1.0).await;
    bobs.echo(&Frame::text("still in")).await;
    for (name, version) in VERSIONS {
        fixture.kept_out(&format!("revoked, {name}"), &fixture.client_of(&alice, &[version])).await;
        come_and_go(&fixture.client_of(&bob, &[version]), name).await;
    }
    let labels = [("reason", "access_withdrawn"), ("code", "1008")];
    fixture.setup.gateway.metric_becomes("wssgate_connections_closed_total", &labels, 1.0).await;
    // A list of another issuer says nothing of these clients, and one whose time is over is no list.
    fixture.setup.gateway.edit("revoked.yaml", &list(&Authority::new().crl(&[], 2090))).await;
    closed(&mut bobs, "status unknown").await;
    fixture.kept_out("status unknown", &fixture.client(&bob)).await;
    fixture.setup.gateway.edit("revoked.yaml", &list(&fixture.partners.crl(&[], 2021))).await;
    fixture.kept_out("an old list", &fixture.client(&bob)).await;
    until(SOON, "the old list in the log", async || {
        fixture.setup.gateway.log_text().contains("a revocation list expired on 2021-01-01").then_some(())
    })
    .await;
    fixture.setup.gateway.edit("revoked.yaml", &list(&fixture.partners.crl(&[8], 2090))).await;
    come_and_go(&fixture.client(&alice), "in again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_authorities_keeps_who_is_still_trusted() {
    let fixture = Fixture::new(&asking("Required", json!({}))).await;
    let next = Authority::new();
    let (alice, carol) = (fixture.alice(), next.client_leaf("carol", 9, |_| {}));
    let mut alices = fixture.client(&alice).open(&head()).await;
    fixture.kept_out("not trusted yet", &fixture.client(&carol)).await;
    fixture.setup.gateway.edit("partners.yaml", &bundle(&[&fixture.partners, &next])).await;
    let mut carols = fixture.client(&carol).open(&head()).await;
    alices.echo(&Frame::text("in through the rotation")).await;
    // The same content again is no change, and an edit of something else asks nobody anything.
    fixture
        .setup
        .gateway
        .edit("route.yaml", &route_text(&asking("Required", json!({"connection": {"limits": {"total": 9}}}))))
        .await;
    alices.echo(&Frame::text("still in")).await;
    fixture.setup.gateway.edit("partners.yaml", &bundle(&[&next])).await;
    closed(&mut alices, "its authority is gone").await;
    carols.echo(&Frame::text("still in")).await;
    fixture.kept_out("no longer trusted", &fixture.client(&alice)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_that_are_lost_let_nobody_in_until_they_are_back() {
    let fixture = Fixture::new(&with_lists()).await;
    let alice = fixture.client(&fixture.alice());
    let (partners, revoked) = (bundle(&[&fixture.partners]), list(&fixture.partners.crl(&[], 2090)));
    let (no_entry, no_list) = (text(&[config_map("partners", "ca.crt", "")]), list("\n"));
    let rows = [
        ("no authorities", "partners.yaml", None, &partners, "ConfigMap shop/partners does not exist"),
        ("an empty bundle", "partners.yaml", Some(&no_entry), &partners, "ca.crt has no CERTIFICATE block"),
        ("no lists", "revoked.yaml", None, &revoked, "ConfigMap shop/revoked does not exist"),
        ("an empty list", "revoked.yaml", Some(&no_list), &revoked, "crl.pem has no X509 CRL block"),
    ];
    for (case, file, worse, good, said) in rows {
        let mut live = alice.open(&head()).await;
        live.echo(&Frame::text(case)).await;
        match worse {
            None => fixture.setup.gateway.remove(file).await,
            Some(worse) => fixture.setup.gateway.edit(file, worse).await,
        }
        closed(&mut live, case).await;
        let seen = fixture.setup.recorder.count();
        for client in [&alice, &fixture.setup.client()] {
            let (answer, _) = client.ask(&head()).await;
            assert_eq!(answer.status(), 503, "{case}: {answer:?}");
        }
        fixture.setup.recorder.saw_nothing_since(seen, case);
        until(SOON, &format!("{case}: the log to say so"), async || {
            fixture.setup.gateway.log_text().contains(said).then_some(())
        })
        .await;
        fixture.setup.gateway.edit(file, good).await;
        come_and_go(&alice, "back").await;
    }
}

/// What cannot be read whole counts as it last could, whatever is lost of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_and_lists_that_are_broken_count_as_they_last_could_be_read() {
    let fixture = Fixture::new(&with_lists()).await;
    let (alice, mallory) = (fixture.client(&fixture.alice()), fixture.partners.client_leaf("mallory", 66, |_| {}));
    let gateway = &fixture.setup.gateway;
    gateway.edit("revoked.yaml", &list(&fixture.partners.crl(&[66], 2090))).await;
    let other = Authority::new();
    let stranger = fixture.client(&other.client_leaf("alice", 7, |_| {}));
    let joined =
        text(&[config_map("partners", "ca.crt", &format!("{}{}", other.pem().trim_end(), fixture.partners.pem()))]);
    let garbage = "-----BEGIN X509 CRL-----\nMAUCAQECAQI=\n-----END X509 CRL-----\n";
    let cut = fixture.partners.crl(&[66], 2090);
    let rows = [
        ("joined authorities", "partners.yaml", joined),
        ("a list cut off", "revoked.yaml", list(&cut[..cut.len() - 40])),
        ("D12 a list that is none", "revoked.yaml", list(garbage)),
    ];
    let mut live = alice.open(&head()).await;
    for (case, file, worse) in rows {
        // Nothing that is served changes, and so no snapshot.
        let looked = async || gateway.metric("wssgate_snapshot_timestamp_seconds", &[]).await;
        let before = looked().await;
        gateway.write(file, &worse);
        until(PATIENCE, case, async || (looked().await > before).then_some(())).await;
        live.echo(&Frame::text(case)).await;
        come_and_go(&alice, case).await;
        for client in [&stranger, &fixture.client(&mallory), &fixture.setup.client()] {
            fixture.kept_out(case, client).await;
        }
    }
    let said = gateway.log_text();
    assert!(said.contains("block 1 is not alone on its line") && said.contains("the last good one is still used"));
    // Whoever starts with them has none.
    gateway.remove("partners.yaml").await;
    closed(&mut live, "deleted").await;
    gateway.write("partners.yaml", &text(&[config_map("partners", "ca.crt", "broken")]));
    until(SOON, "the log to name what is broken now", async || {
        gateway.log_text().contains("ca.crt has no CERTIFICATE block").then_some(())
    })
    .await;
    assert_eq!(alice.ask(&head()).await.0.status(), 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stricter_mode_ends_those_without_and_a_host_that_asks_no_more_keeps_all() {
    let fixture = Fixture::new(&asking("Optional", json!({}))).await;
    let alice = fixture.client(&fixture.alice());
    let (mut without, mut with) = (fixture.setup.client().open(&head()).await, alice.open(&head()).await);
    fixture.setup.gateway.edit("route.yaml", &route_text(&asking("Required", json!({})))).await;
    closed(&mut without, "no certificate").await;
    with.echo(&Frame::text("has one")).await;
    fixture.setup.gateway.edit("route.yaml", &route_text(&json!({}))).await;
    with.echo(&Frame::text("not asked any more")).await;
    let mut without = fixture.setup.client().open(&head()).await;
    fixture.setup.gateway.edit("route.yaml", &route_text(&asking("Required", json!({})))).await;
    closed(&mut without, "asked from now on").await;
    with.echo(&Frame::text("its chain was kept")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_closes_its_connection() {
    let fixture = Fixture::new(&asking("Required", json!({}))).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let short = fixture.partners.client_leaf("alice", 7, |params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now + 5);
    });
    let mut shorts = fixture.client(&short).open(&head()).await;
    let mut longs = fixture.client(&fixture.alice()).open(&head()).await;
    shorts.echo(&Frame::text("for now")).await;
    let (code, _) = shorts.close_within(PATIENCE).await.expect("a Close frame");
    assert_eq!(code, 1008);
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(after >= now + 4, "closed before it expired");
    let labels = [("reason", "client_certificate_expired")];
    fixture.setup.gateway.metric_becomes("wssgate_connections_closed_total", &labels, 1.0).await;
    longs.echo(&Frame::text("not expired")).await;
}

fn kind(peer: &Peer) -> Option<HandshakeKind> {
    match &peer.wire {
        Wire::Tls(tls) => tls.get_ref().1.handshake_kind(),
        Wire::Plain(_) => None,
    }
}

/// A connection with an echo behind it, so that tickets have arrived: the kind of its handshake.
async fn visit(client: &Client) -> Option<HandshakeKind> {
    let head = Head::upgrade("/").set("Host", &client.name).add("Origin", format!("https://{}", client.name));
    let mut peer = client.open(&head).await;
    peer.echo(&Frame::text("tickets")).await;
    kind(&peer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_stands_in_for_a_certificate() {
    for (case, version) in VERSIONS {
        no_session_of(case, version).await;
    }
}

async fn no_session_of(case: &str, version: &'static rustls::SupportedProtocolVersion) {
    let (authority, partners) = (Authority::new(), Authority::new());
    let recorder = Recorder::start(Behaviour::Echo).await;
    let pair = authority.leaf(&["a.test", "b.test"]);
    let host = |name: &str, spec: &Value| {
        text(&[route(&format!("r-{name}"), &format!("{name}.test"), "both-tls", "chat", spec)])
    };
    let mut manifests = Manifests::default()
        .with("secret.yaml", &[secret("both-tls", &pair)])
        .with("service.yaml", &service("chat", &[recorder.port()]));
    manifests.files.insert("partners.yaml".into(), bundle(&[&partners]));
    manifests.files.insert("a.yaml".into(), host("a", &json!({})));
    manifests.files.insert("b.yaml".into(), host("b", &asking("Required", json!({}))));
    let gateway = Gateway::start(&manifests).await;
    let alice = partners.client_leaf("alice", 7, |_| {});
    let store = Arc::new(OneName(ClientSessionMemoryCache::new(64)));
    // One configuration for all visits without a certificate: a client resumes only under the one that got the ticket.
    let mut config = authority.client_of(&[version]);
    config.resumption = Resumption::store(store);
    let (bare, shown) = (Arc::new(config.clone()), Arc::new(alice.shown_by(config)));
    let client = |shows: bool, name: &str| {
        let config = Arc::clone(if shows { &shown } else { &bare });
        Client { address: gateway.wss, config, name: name.into() }
    };
    let kept_out = async |name: &str, case: &str| {
        let seen = recorder.count().0;
        if let Ok(mut peer) = client(false, name).try_connect().await {
            assert_ne!(kind(&peer), Some(HandshakeKind::Resumed), "D7 {case}");
            peer.write(&Head::upgrade("/").set("Host", name).bytes()).await;
            assert_eq!(peer.rest(SOON, case).await, b"", "D7 {case}: an answer");
        }
        assert_eq!(recorder.count().0, seen, "D7 {case}: the upstream saw a connection");
    };
    // A session of host a, which asks for nothing, is shown to host b.
    visit(&client(false, "a.test")).await;
    assert_eq!(visit(&client(false, "a.test")).await, Some(HandshakeKind::Resumed), "{case}: the control row");
    kept_out("b.test", &format!("{case}: the session of another host")).await;
    // A host that asks gives no session, so there is none to take elsewhere.
    for _ in 0..3 {
        assert_ne!(visit(&client(true, "b.test")).await, Some(HandshakeKind::Resumed), "{case}");
    }
    // A session from before the host asked is worth nothing after.
    visit(&client(false, "a.test")).await;
    gateway.edit("a.yaml", &host("a", &asking("Required", json!({})))).await;
    kept_out("a.test", &format!("{case}: a session of before")).await;
    assert_ne!(visit(&client(true, "a.test")).await, Some(HandshakeKind::Resumed), "{case}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_that_are_made_to_hurt_are_refused_and_hurt_nobody() {
    let fixture = Fixture::new(&with_lists()).await;
    come_and_go(&fixture.client(&fixture.alice()), "warm").await;
    let before = fixture.setup.gateway.resident();
    let leaf = fixture.alice();
    // Many certificates of one name and different keys: every one might have issued the next.
    let twins: String = (0..60).map(|_| Authority::new().pem().to_owned()).collect();
    let foreign = Authority::new().client_leaf("alice", 7, |_| {});
    let mut bomb = foreign.clone();
    bomb.chain = format!("{}{twins}", foreign.chain);
    let mut long = leaf.clone();
    long.chain = format!("{}{twins}", leaf.chain);
    let huge = fixture.partners.client_leaf(&"x".repeat(20_000), 7, |_| {});
    for (name, version) in VERSIONS {
        for (case, pair) in [("D12 a bomb", &bomb), ("D12 a long chain", &long), ("D12 a huge leaf", &huge)] {
            let start = std::time::Instant::now();
            fixture.kept_out(&format!("{case}, {name}"), &fixture.client_of(pair, &[version])).await;
            assert!(start.elapsed() < SOON * 2, "{case}, {name}: {:?}", start.elapsed());
        }
    }
    come_and_go(&fixture.client(&leaf), "others go on").await;
    let grown = fixture.setup.gateway.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "D12: {grown} KiB more");
}
