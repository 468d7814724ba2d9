//! Who may connect, on the node: the manifests of docs/authentication.md as they stand there, judged by the gateway's
//! pods. Sessions and key sets are served by pods beside them; the backend is the recording one, which is no pod.
//!
//! Each test speaks to one Pod, the leader's: what it says of a route it serves, and tickets and attempts are counted by
//! each replica for itself.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::harness::issuer::{Key, claims, now, set};
use super::harness::{Answer, Authority, Behaviour, Client, Head, Pair, Peer, Recorder, SOON, manifests, until};
use super::image::SITE;
use super::install::run;
use super::pebble;
use super::process::Process;
use super::release::{HOST, LIMIT, NAME, Release, certificate, config_map};
use super::sandbox;

/// The address of the name server in every pod.
const CLUSTER_DNS: &str = "10.96.0.10";

/// The manifests of a page of the documentation, each with the heading that it stands under; some are parts of one.
fn documented(page: &str) -> Vec<(String, Value)> {
    let (mut heading, mut found) = (String::new(), Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if line == "```yaml" {
                found.push((heading.clone(), serde_saphyr::from_str(&block.join("\n")).expect(&heading)));
            }
        } else if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
    }
    found
}

/// The manifests of docs/authentication.md.
fn ways() -> Vec<(String, Value)> {
    documented(include_str!("../../docs/authentication.md"))
}

/// The first of them under a heading.
fn way(heading: &str) -> Value {
    ways().into_iter().find(|(found, _)| found == heading).unwrap_or_else(|| panic!("no manifest under {heading}")).1
}

/// Where a route takes tokens from, if it says so.
fn sources(route: &Value) -> Vec<Value> {
    let methods = route["spec"]["handshake"]["authentication"]["methods"].as_array().cloned().unwrap_or_default();
    methods.iter().filter_map(|method| method["jwt"]["extractFrom"].as_array().cloned()).flatten().collect()
}

/// A handshake of the page that a route lets in.
fn page(route: &Value) -> Head {
    let page = route["spec"]["handshake"]["origins"]["allow"][0].as_str().map(str::to_owned);
    Head::upgrade("/").add("Origin", page.unwrap_or_else(|| format!("https://{HOST}")))
}

/// The same with a token where one of the [`sources`] is.
fn carrying(head: Head, source: &Value, token: &str) -> Head {
    let text = |field: &str| source[field].as_str().unwrap_or_default();
    let value = format!("{}{token}", text("valuePrefix"));
    match text("type") {
        "Header" => head.add(text("name"), value),
        "Subprotocol" => head.add("Sec-WebSocket-Protocol", format!("chat.v1, {value}")),
        "Cookie" => head.add("Cookie", format!("{}={value}", text("name"))),
        "Query" => head.line(format!("GET /?{}={value} HTTP/1.1", text("name"))),
        other => panic!("no way to send a token in {other}"),
    }
}

/// What the manifests name: the certificate `chat-tls` and the Service `chat`, port 8080, whose endpoint records.
struct Fixture<'a> {
    release: &'a Release,
    recorder: Recorder,
    /// Of the leader's Pod.
    client: Client,
}

impl<'a> Fixture<'a> {
    async fn new(clusters: &'a Clusters) -> Self {
        let release = clusters.release();
        let recorder = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        let tls = certificate(HOST).replace(&format!("{HOST}-tls"), "chat-tls").replacen(HOST, "chat-tls", 1);
        release.shop.apply(&tls);
        release.shop.wait("certificate/chat-tls", "condition=Ready", LIMIT);
        release.shop.apply(&service("chat", 8080, 0));
        let address = recorder.address();
        let mut slice = manifests::slice("chat", 0, address.port(), &json!({"ready": true}));
        slice["endpoints"][0]["addresses"] = json!([address.ip()]);
        release.shop.apply(&slice.to_string());
        let client = release.client_of_leader(HOST);
        Self { release, recorder, client }
    }

    /// Applies a route and waits until the leader says that it is served as it is now.
    fn serve(&self, route: &Value) {
        self.release.shop.apply(&route.to_string());
        self.release.shop.wait("swsr/chat", "condition=Ready", LIMIT);
    }

    /// Lets in; what the backend was asked.
    async fn admits(&self, case: &str, head: &Head) -> Answer {
        let (answer, peer) = self.client.ask(head).await;
        assert_eq!(answer.status(), 101, "{case}: {answer:?}");
        assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000), "{case}");
        self.recorder.last().head()
    }

    /// How often the backend was dialled. Bytes would count those of earlier connections that are still closing.
    fn dialled(&self) -> usize {
        self.recorder.count().0
    }

    /// Refuses, and the backend is not dialled.
    async fn refuses(&self, case: &str, head: &Head, status: u16) -> Answer {
        let before = self.dialled();
        let (answer, _peer) = self.client.ask(head).await;
        assert_eq!(answer.status(), status, "{case}: {answer:?}");
        assert_eq!(self.dialled(), before, "{case}: the backend was dialled");
        answer
    }

    /// Whatever Pod is asked comes to let in.
    async fn admits_everywhere(&self, case: &str, head: &Head) {
        let client = self.release.client(HOST);
        until(LIMIT, &format!("{case}: every Pod lets in"), async || {
            for _ in 0..8 {
                let (answer, peer) = client.ask(head).await;
                (answer.status() == 101).then_some(())?;
                peer.close(1000, "").await?;
            }
            Some(())
        })
        .await;
    }

    /// Nothing of these is in the log of any Pod.
    fn logs_hold_nothing_of(&self, secrets: &[&str]) {
        let pods = self.release.pods(&self.release.own, NAME);
        let log: String = pods.iter().map(|pod| self.release.own.must(&["logs", pod])).collect();
        assert!(log.contains(HOST), "no connection is in the logs");
        for part in secrets.iter().flat_map(|secret| secret.split('.')).filter(|part| part.len() > 12) {
            let leak = log.lines().find(|line| line.contains(part));
            assert_eq!(leak, None, "a secret was written");
        }
    }
}

/// A Service of pods with the label `app`; with a target of 0 one whose endpoints a test writes.
fn service(name: &str, port: u16, target: u16) -> String {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "ws", "port": port}]},
    });
    if target > 0 {
        service["spec"]["ports"][0]["targetPort"] = target.into();
        service["spec"]["selector"] = json!({"app": name});
    }
    service.to_string()
}

/// Two pods of the image [`SITE`] with these arguments, and the Secret and the ConfigMap of their name where they serve
/// files.
fn site(name: &str, arguments: &[&str], files: bool) -> String {
    let volumes = json!([
        {"name": "tls", "secret": {"secretName": name}},
        {"name": "files", "configMap": {"name": name}},
    ]);
    let mounts = json!([{"name": "tls", "mountPath": "/tls"}, {"name": "files", "mountPath": "/files"}]);
    let none = json!([]);
    let (volumes, mounts) = if files { (volumes, mounts) } else { (none.clone(), none) };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "volumes": volumes,
                "containers": [{
                    "name": "site", "image": SITE, "imagePullPolicy": "Never", "args": arguments,
                    "volumeMounts": mounts,
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }],
            }},
        },
    })
    .to_string()
}

/// The key of the issuer of the manifests. There is one: the gateway keeps what it has fetched.
fn issuer() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::es256("one"))
}

/// The issuer of the manifests: pods that serve its key set at `https://idp.example.com/jwks`, and the name server of the
/// cluster's pods, in which every name is the issuer's. The name server ends with what is given.
fn start_issuer(release: &Release) -> Process {
    let pair = release.issuers.leaf(&["idp.example.com"]);
    release.shop.apply(&manifests::secret("idp", &pair).to_string());
    release.shop.apply(&config_map("idp", &[("jwks", &set(&[&Key::rsa("old", "RS256"), issuer()]).to_string())]));
    release.shop.apply(&service("idp", 443, 8443));
    release.shop.apply(&site("idp", &["-tls", "/tls", "-files", "/files"], true));
    release.rolled_out(&release.shop, "idp");

    let front = release.shop.get(&["service", "idp"])["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    let server = SocketAddr::from((sandbox::address(), 8053));
    let names = pebble::names(release.logs(), server, front);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns"},
        "spec": {"clusterIP": CLUSTER_DNS, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "dns", "labels": {"kubernetes.io/service-name": "dns"}},
        "ports": [{"name": "dns", "port": server.port(), "protocol": "UDP"}],
        "endpoints": [{"addresses": [server.ip()], "conditions": {"ready": true}}],
    });
    release.shop.apply(&manifests::text(&[service, slice]));
    super::process::until(LIMIT, "names and the issuer to be reached as Services", || {
        names.must_run();
        TcpStream::connect((front, 443)).ok()?;
        resolves().ok().filter(|resolves| *resolves)
    });
    names
}

/// Whether the cluster's name server knows a name (RFC 1035 section 4.1): one question, of type A and class IN.
fn resolves() -> std::io::Result<bool> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect((CLUSTER_DNS, 53))?;
    socket.send(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03idp\x07example\x03com\0\0\x01\0\x01")?;
    let mut answer = [0; 512];
    let size = socket.recv(&mut answer)?;
    Ok(size > 12 && answer[..2] == [0x12, 0x34] && answer[7] > 0)
}

/// A handshake with a token in the header that is built in.
fn bearer(head: Head, token: &str) -> Head {
    head.add("Authorization", format!("Bearer {token}"))
}

/// The claims that the manifest of tokens asks for, with others over them.
fn user(others: &Value) -> Value {
    let mut user = claims(&json!({"scope": "mail chat"}));
    manifests::merge(&mut user, others);
    user
}

fn tokens_open_by_keys_that_pods_of_the_issuer_serve(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters).await;
        let (key, other) = (issuer(), Key::es256("one"));
        let _issuer = start_issuer(fixture.release);
        let route = way("Tokens");
        fixture.serve(&route);
        let token = key.sign(&user(&json!({})));
        let with = |token: &str| bearer(page(&route), token);
        let from = sources(&route);
        for source in &from {
            let head = carrying(page(&route), source, &token);
            let asked = fixture.admits(&source.to_string(), &head).await;
            assert_eq!(asked.field("x-subject").as_deref(), Some("ada"), "{source}");
            assert!(!format!("{asked:?}").contains(&token), "the token goes further: {source}");
            if source["type"] == "Subprotocol" {
                let (answer, _peer) = fixture.client.ask(&head).await;
                assert_eq!(
                    (answer.status(), answer.field("sec-websocket-protocol").as_deref()),
                    (101, Some("chat.v1"))
                );
            }
        }
        let mut secrets = vec![token.clone()];
        for (case, token, status) in [
            ("another's key of that id", other.sign(&user(&json!({}))), 401),
            ("expired", key.sign(&user(&json!({"exp": now() - 3600}))), 401),
            ("no expiry", key.sign(&user(&json!({"exp": null}))), 401),
            ("of another audience", key.sign(&user(&json!({"aud": "mail"}))), 401),
            ("of another issuer", key.sign(&user(&json!({"iss": "https://evil.example.com"}))), 401),
            ("without the claim", key.sign(&user(&json!({"scope": "mail"}))), 403),
        ] {
            let answer = fixture.refuses(case, &with(&token), status).await;
            // RFC 6750 section 3.1.
            let error = if status == 401 { "invalid_token" } else { "insufficient_scope" };
            assert_eq!(answer.field("www-authenticate"), Some(format!("Bearer error=\"{error}\"")), "{case}");
            secrets.push(token);
        }
        fixture.refuses("no token", &page(&route), 401).await;
        let two = carrying(carrying(page(&route), &from[0], &token), &from[from.len() - 1], &token);
        fixture.refuses("two of them", &two, 401).await;
        fixture.refuses("another page", &with(&token).set("Origin", "https://evil.example.com"), 403).await;

        let places = route["spec"]["connection"]["limits"]["perSubject"].as_u64().unwrap();
        let mut open: Vec<Peer> = Vec::new();
        while (open.len() as u64) < places {
            // The ones above may still be closing.
            let place = async || {
                let (answer, peer) = fixture.client.ask(&with(&token)).await;
                (answer.status() == 101).then_some(peer)
            };
            open.push(until(LIMIT, "a place of the subject", place).await);
        }
        fixture.refuses("one more of one subject", &with(&token), 429).await;
        fixture.admits("another subject", &with(&key.sign(&user(&json!({"sub": "bob"}))))).await;
        drop(open);
        fixture.admits_everywhere("tokens", &with(&token)).await;

        // The page's manifest with a cookie, be it the same or one of its own.
        let is_cookie = |source: &Value| source["type"] == "Cookie";
        let cookies = ways().into_iter().map(|(_, route)| route).find(|route| sources(route).iter().any(is_cookie));
        let cookies = cookies.expect("a manifest that takes cookies");
        let source = sources(&cookies).into_iter().find(is_cookie).unwrap();
        fixture.serve(&cookies);
        fixture.admits_everywhere("cookies", &carrying(page(&cookies), &source, &token)).await;
        fixture.refuses("a cookie of no page", &carrying(Head::upgrade("/"), &source, &token), 403).await;
        let evil = page(&cookies).set("Origin", "https://evil.example.com");
        fixture.refuses("a cookie of another page", &carrying(evil, &source, &token), 403).await;
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        fixture.logs_hold_nothing_of(&secrets);
    });
}

fn tokens_open_by_keys_of_a_config_map_and_follow_it(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters).await;
        let (first, second) = (Key::es256("first"), Key::eddsa("second"));
        let shop = &fixture.release.shop;
        shop.apply(&config_map("idp-keys", &[("jwks.json", &set(&[&first]).to_string())]));
        let mut route = way("Tokens");
        let keys = &mut route["spec"]["handshake"]["authentication"]["methods"][0]["jwt"]["jwks"];
        assert_eq!(keys["type"], "Remote", "{keys}");
        *keys = json!({"type": "Local", "local": {"ref": {"name": "idp-keys", "key": "jwks.json"}}});
        fixture.serve(&route);
        let with = |token: &str| bearer(page(&route), token);
        let (old, new) = (first.sign(&user(&json!({}))), second.sign(&user(&json!({}))));
        let mut live = fixture.client.open(&with(&old)).await;
        fixture.refuses("a key that is not in it yet", &with(&new), 401).await;

        shop.apply(&config_map("idp-keys", &[("jwks.json", &set(&[&second]).to_string())]));
        fixture.admits_everywhere("the new key", &with(&new)).await;
        until(LIMIT, "the leader to have the new key", async || {
            (fixture.client.ask(&with(&new)).await.0.status() == 101).then_some(())
        })
        .await;
        fixture.refuses("the withdrawn key", &with(&old), 401).await;
        // A rotation closes nobody.
        live.echo(&super::harness::Frame::text("still here")).await;
        fixture.logs_hold_nothing_of(&[&old, &new]);
    });
}

fn sessions_are_judged_by_pods_of_a_service_and_by_nobody_without_it(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters).await;
        let release = fixture.release;
        let (good, late) = ("canary-session-0123456789", "canary-session-9876543210");
        release.shop.apply(&service("sessions", 80, 8080));
        release.shop.apply(&site("sessions", &["-sessions", &format!("{good}=ada,{late}=bob")], false));
        release.rolled_out(&release.shop, "sessions");
        let route = way("Sessions that a service judges");
        fixture.serve(&route);
        let with = |session: &str| page(&route).add("Cookie", format!("session={session}"));
        let asked = fixture.admits("a session", &with(good).add("X-User", "root")).await;
        assert_eq!((asked.count("x-user"), asked.field("x-user").as_deref()), (1, Some("ada")));
        fixture.refuses("no session of theirs", &with("canary-session-unknown"), 401).await;
        fixture.refuses("no cookie", &with(good).without("Cookie"), 401).await;
        fixture.admits_everywhere("sessions", &with(good)).await;

        // Nobody to ask: nobody is let in, however good.
        release.shop.must(&["scale", "deployment/sessions", "--replicas=0"]);
        release.rolled_out(&release.shop, "sessions");
        until(LIMIT, "the gateway to hear of it", async || {
            (fixture.client.ask(&with("canary-session-unknown")).await.0.status() == 503).then_some(())
        })
        .await;
        fixture.refuses("one that nobody has judged yet", &with(late), 503).await;
        release.shop.must(&["scale", "deployment/sessions", "--replicas=2"]);
        release.rolled_out(&release.shop, "sessions");
        fixture.admits_everywhere("sessions again", &with(late)).await;
        fixture.logs_hold_nothing_of(&[good, late]);
    });
}

fn tickets_are_issued_for_tokens_and_redeemed_once(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters).await;
        let key = issuer();
        let _issuer = start_issuer(fixture.release);
        let route = way("Tickets");
        fixture.serve(&route);
        let of_page = |line: &str| page(&route).line(format!("{line} HTTP/1.1"));
        let token = key.sign(&claims(&json!({})));
        let request = |token: &str| {
            let call = of_page("POST /ticket").without("Upgrade").without("Connection");
            let call = call.without("Sec-WebSocket-Key").without("Sec-WebSocket-Version");
            bearer(call.add("Content-Length", "0"), token)
        };
        let call = async |head: &Head| {
            let mut peer = fixture.client.connect().await;
            peer.write(&head.bytes()).await;
            Answer::parse(&peer.rest(SOON, "the end of a call").await).expect("an answer to the call")
        };
        let before = fixture.dialled();
        let answer = call(&request(&token)).await;
        assert_eq!((answer.status(), answer.field("cache-control").as_deref()), (200, Some("no-store")), "{answer:?}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let ticket = body["ticket"].as_str().unwrap().to_owned();
        let stranger = Key::es256("one").sign(&claims(&json!({})));
        assert_eq!(call(&request(&stranger)).await.status(), 401, "a token of another key");
        assert_eq!(call(&request(&token).set("Origin", "https://evil.example.com")).await.status(), 403);
        assert_eq!(fixture.dialled(), before, "the sale of tickets dials the backend");

        let redeem = |ticket: &str| of_page(&format!("GET /?ticket={ticket}"));
        fixture.refuses("nobody's", &redeem(&ticket.chars().rev().collect::<String>()), 401).await;
        let asked = fixture.admits("a ticket", &redeem(&ticket)).await;
        assert_eq!(asked.line, "GET / HTTP/1.1", "the ticket goes no further");
        fixture.refuses("the same again", &redeem(&ticket), 401).await;
        fixture.admits_everywhere("the token itself", &bearer(page(&route), &token)).await;
        fixture.logs_hold_nothing_of(&[&token, &stranger, &ticket]);
    });
}

fn client_certificates_are_judged_by_config_maps(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters).await;
        let (partners, strangers) = (Authority::new(), Authority::new());
        let shop = &fixture.release.shop;
        shop.apply(&config_map("partners-ca", &[("ca.crt", partners.pem())]));
        shop.apply(&config_map("partners-crl", &[("crl.pem", &partners.crl(&[], 2090))]));
        let parts = documented(include_str!("../../docs/routes.md"));
        let part = parts.into_iter().find(|(_, part)| part["tls"].get("clientValidation").is_some());
        let (_, part) = part.expect("a manifest with client certificates");
        assert_eq!(part["tls"]["clientValidation"]["mode"], "Required", "{part:#}");
        let mut route = way("Tokens");
        route["spec"]["handshake"]["authentication"] = json!({"mode": "Anonymous"});
        manifests::merge(&mut route["spec"], &part);
        fixture.serve(&route);

        let head = page(&route);
        let showing = |pair: &Pair| fixture.client.configured(pair.shown_by((*fixture.client.config).clone()));
        let kept_out = async |case: &str, client: &Client| {
            let before = fixture.dialled();
            // In TLS 1.3 a client is done before the server has judged it.
            if let Ok(mut peer) = client.try_connect().await {
                peer.write(&head.bytes()).await;
                assert_eq!(peer.rest(SOON, case).await, b"", "{case}: an answer");
            }
            assert_eq!(fixture.dialled(), before, "{case}: the backend was dialled");
        };
        let (alice, mallory) = (partners.client_leaf("alice", 7, |_| {}), strangers.client_leaf("alice", 7, |_| {}));
        let mut live = showing(&alice).open(&head).await;
        let asked = fixture.recorder.last().head();
        assert!(asked.field("client-cert").is_some(), "{asked:?}");
        assert_eq!(asked.field("x-wssgate-client-subject").as_deref(), Some("CN=alice"));
        kept_out("no certificate", &fixture.client).await;
        kept_out("of strangers", &showing(&mallory)).await;

        // Revoked: the live one is closed, and comes no more.
        shop.apply(&config_map("partners-crl", &[("crl.pem", &partners.crl(&[7], 2090))]));
        assert_eq!(live.close_within(LIMIT).await.map(|(code, _)| code), Some(1008));
        kept_out("revoked", &showing(&alice)).await;
        showing(&partners.client_leaf("bob", 8, |_| {})).open(&head).await;
    });
}

fn attempts_and_places_of_an_address_are_limited(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters).await;
        let mut route = way("Tokens");
        let served = |spec: &Value, route: &mut Value| {
            route["spec"]["handshake"] = json!({"authentication": {"mode": "Anonymous"}});
            route["spec"]["connection"] = json!({});
            manifests::merge(&mut route["spec"], spec);
            fixture.serve(route);
        };
        let head = Head::upgrade("/");
        served(&json!({"handshake": {"rateLimit": {"count": 3, "interval": "1h", "burst": 3}}}), &mut route);
        for attempt in 1..=3 {
            fixture.admits(&format!("attempt {attempt}"), &head).await;
        }
        let answer = fixture.refuses("one attempt more", &head, 429).await;
        assert!(answer.field("retry-after").is_some(), "{answer:?}");

        for (limits, status) in [(json!({"perAddress": 2}), 429), (json!({"total": 2}), 503)] {
            served(&json!({"connection": {"limits": limits}}), &mut route);
            let place = async || {
                let (answer, peer) = fixture.client.ask(&head).await;
                (answer.status() == 101).then_some(peer)
            };
            // The second time they are those that the first gave back, each once.
            for round in ["a third", "a third again"] {
                let first: Peer = until(LIMIT, "a place to be free", place).await;
                let second: Peer = until(LIMIT, "a second place to be free", place).await;
                fixture.refuses(&format!("{round} with {limits}"), &head, status).await;
                for peer in [first, second] {
                    assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000));
                }
            }
        }
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        tokens_open_by_keys_that_pods_of_the_issuer_serve,
        tokens_open_by_keys_of_a_config_map_and_follow_it,
        sessions_are_judged_by_pods_of_a_service_and_by_nobody_without_it,
        tickets_are_issued_for_tokens_and_redeemed_once,
        client_certificates_are_judged_by_config_maps,
        attempts_and_places_of_an_address_are_limited,
    ]
}
