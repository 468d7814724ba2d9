//! One namespace that asks for all of what all share, on the node, beside another: every handshake of the other succeeds, and
//! its new route becomes Ready and serves meanwhile.
//!
//! Both speak to one Pod, the leader's, by its own address: what a replica has is counted by each for itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::Test;
use super::clusters::Clusters;
use super::fleet::{Prober, open};
use super::harness::issuer::{Key, any_of, claims, config_map, method, set};
use super::harness::manifests::{merge, route, secret, service, slice};
use super::harness::peer::connect_from;
use super::harness::{Answer, Authority, Behaviour, Client, Frame, Head, Peer, Recorder, SOON, until};
use super::install::run;
use super::kubectl::Kubectl;
use super::release::{HOST, LIMIT, Release, certificate, route as manifest};
use super::rolling::with_route;
use super::sandbox::{self, call};

/// The most sockets that the attacker asks for: more than a Pod of the node has.
const SOCKETS: usize = 2500;
/// Routes of the attacker with key sets that hang, and sets of each.
const HANGING: (usize, usize) = (40, 8);
/// How long a victim waits between two handshakes.
const PAUSE: Duration = Duration::from_millis(50);

/// The leader's Pod.
struct Pod<'a> {
    release: &'a Release,
    address: SocketAddr,
}

impl<'a> Pod<'a> {
    fn new(release: &'a Release) -> Self {
        Self { release, address: release.client_of_leader(HOST).address }
    }

    /// A client of the victim's hosts.
    fn client(&self, host: &str) -> Client {
        Client { address: self.address, ..self.release.client(host) }
    }

    /// Handshakes of the victim, one after the other.
    fn prober(&self) -> Prober {
        Prober::start(&self.client(HOST), "/echo", PAUSE)
    }

    /// The sum of the samples of a family with these labels.
    fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let url = format!("http://{}:9900/metrics", self.address.ip());
        let text = call(&["curl", "--silent", "--fail", "--max-time", "10", &url]).unwrap();
        let of = |line: &&str| line.starts_with(family) && line[family.len()..].starts_with(['{', ' ']);
        let samples = text.lines().filter(of).filter(|line| labels.iter().all(|label| line.contains(label)));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Applies a route of the victim, and waits until it is Ready and this Pod serves it.
    fn serves(&self, name: &str, host: &str, spec: &Value) {
        let mut route: Value = serde_saphyr::from_str(&manifest(name, host, "[]")).unwrap();
        route["spec"]["rules"] = json!([{"name": "all", "backendRefs": [{"name": "echo", "port": 80}]}]);
        merge(&mut route["spec"], spec);
        self.release.shop.put(vec![route]);
        self.release.shop.wait(&format!("swsr/{name}"), "condition=Ready", LIMIT);
    }

    /// Asks cert-manager for the certificate of a host of the victim, before anything is attacked.
    fn certified(&self, host: &str) {
        self.release.shop.apply(&certificate(host));
        self.release.shop.wait(&format!("certificate/{host}"), "condition=Ready", LIMIT);
    }
}

/// The namespace of the attacker.
struct Attacker {
    kubectl: Kubectl,
    authority: Authority,
    /// Where its sockets come from. Those of the victim come from the node.
    source: String,
    _recorder: Recorder,
}

impl Attacker {
    /// One with a certificate for all its hosts, and a Service.
    async fn new(release: &Release) -> Self {
        let kubectl = release.shop.make_namespace("greedy");
        let authority = Authority::new();
        let recorder = Recorder::start_on(Behaviour::Echo, sandbox::address()).await;
        let mut endpoints = slice("own", 0, recorder.port(), &json!({"ready": true}));
        endpoints["endpoints"][0]["addresses"] = json!([recorder.address().ip()]);
        let mut service = service("own", &[]);
        for field in ["clusterIP", "selector"] {
            service[0]["spec"].as_object_mut().unwrap().remove(field);
        }
        let certificate = secret("own-tls", &authority.leaf(&["*.greedy.example.com"]));
        kubectl.put([service, vec![endpoints, certificate]].concat());
        Self { kubectl, authority, source: sandbox::address().to_string(), _recorder: recorder }
    }

    fn route(name: &str, spec: &Value) -> Value {
        let mut route = route(name, &format!("{name}.greedy.example.com"), "own-tls", "own", spec);
        route["spec"]["ingressClassName"] = json!("wssgate");
        route
    }

    /// Applies a route and waits until it is Ready; a client of it at a Pod.
    fn serves(&self, pod: &Pod<'_>, name: &str, spec: &Value) -> Client {
        self.kubectl.put(vec![Self::route(name, spec)]);
        self.kubectl.wait(&format!("swsr/{name}"), "condition=Ready", LIMIT);
        let client = pod.release.client_trusting(&format!("{name}.greedy.example.com"), self.authority.pem());
        Client { address: pod.address, ..client }
    }

    /// Ends what it has, so that it does not go on beside other tests.
    fn gone(self) {
        self.kubectl.must(&["delete", "swsr", "--all"]);
        self.kubectl.must(&["delete", "namespace", self.kubectl.namespace(), "--wait=false"]);
    }
}

/// A handshake of the attacker, or a call: its status, and the connection.
async fn from(source: &str, client: &Client, head: &Head) -> Option<(u16, Peer)> {
    let mut peer = client.connect_over(connect_from(source, client.address).await).await.ok()?;
    peer.write(&head.bytes()).await;
    Some((peer.head().await?.status(), peer))
}

/// Every handshake of the victim succeeded, and there were some; waits for them while the attack goes on.
async fn all_succeeded(prober: Prober) {
    until(LIMIT, "handshakes of the victim", async || (prober.made() > 10).then_some(())).await;
    prober.stop().await;
}

fn remote(uri: &str, others: &Value) -> Value {
    let mut jwt = json!({"jwks": {"type": "Remote", "local": null, "remote": {"uri": uri}}});
    merge(&mut jwt, others);
    method(&jwt)
}

fn key_sets_that_hang_delay_no_new_route_of_another_namespace(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let (pod, attacker) = (Pod::new(release), Attacker::new(release).await);
        let (host, key, at) = ("keys.example.com", Key::es256("one"), sandbox::address());
        pod.certified(host);
        let text = set(&[&key]).to_string();
        let keys = Behaviour::bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        let served = release.issuers.leaf(&[&at.to_string()]).server();
        let issuer = Recorder::start_tls_on(keys, served, at).await;
        // The kernel connects, and nobody ever answers.
        let hanging = TcpListener::bind((sandbox::address(), 0)).await.unwrap();
        let prober = pod.prober();
        let failed = || pod.metric("wssgate_jwks_fetches_total", &["outcome=\"failure\""]);
        let before = failed();
        let (routes, sets) = HANGING;
        let route = |number: usize| {
            let method = |place: usize| {
                let uri = format!("https://{}/{number}/{place}", hanging.local_addr().unwrap());
                let mut method = remote(&uri, &json!({"issuer": format!("https://idp{place}.example.com")}));
                method["name"] = json!(format!("idp{place}"));
                method
            };
            Attacker::route(&format!("r{number}"), &any_of(&(0..sets).map(method).collect::<Vec<_>>()))
        };
        attacker.kubectl.put((0..routes).map(route).collect());
        until(LIMIT, "the first sets to be given up", async || (failed() - before >= 16.0).then_some(())).await;

        let fresh = any_of(&[remote(&format!("https://{}/keys", issuer.address()), &json!({}))]);
        pod.serves("keys", host, &fresh);
        // It has one attempt: were its key set behind the others, it would be refused.
        let head = Head::upgrade("/").set("Host", host).add("Origin", format!("https://{host}"));
        let head = head.add("Authorization", format!("Bearer {}", key.sign(&claims(&json!({})))));
        pod.client(host).open(&head).await.echo(&Frame::text("a new route")).await;
        let failed = failed() - before;
        assert!(failed < (routes * sets) as f64, "all {failed} were given up before the new route was served");
        all_succeeded(prober).await;
        attacker.gone();
        release.shop.must(&["delete", "swsr", "keys"]);
    });
}

fn one_client_with_all_sockets_keeps_nobody_out_of_another_namespace(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let (pod, attacker) = (Pod::new(release), Attacker::new(release).await);
        let host = "sockets.example.com";
        pod.certified(host);
        let limit = pod.metric("wssgate_client_sockets_limit", &[]);
        assert!(limit < SOCKETS as f64, "a Pod has {limit} sockets, more than the attacker asks for");
        let client = attacker.serves(&pod, "own", &json!({"connection": {"limits": {"total": 10_000_000}}}));
        let head = Head::upgrade("/").set("Host", &client.name);
        let mut held = Vec::new();
        let refused = loop {
            match from(&attacker.source, &client, &head).await {
                Some((101, peer)) => held.push(peer),
                other => break other.map(|(status, _)| status),
            }
            assert!(held.len() < SOCKETS, "one client has all sockets");
        };
        assert_eq!(refused, Some(503), "after {} connections", held.len());
        assert!(held.len() as f64 > limit / 2.0, "{} connections of {limit}", held.len());
        assert!(pod.metric("wssgate_handshakes_total", &["reason=\"socket_share\""]) > 0.5);
        // The rest it holds before TLS, and takes again what it loses.
        let (source, address) = (attacker.source.clone(), pod.address);
        let rest = limit as usize - held.len() + 20;
        let mut silent = JoinSet::new();
        silent.spawn(async move {
            let mut silent = VecDeque::new();
            loop {
                silent.push_back(connect_from(&source, address).await);
                if silent.len() > rest {
                    silent.pop_front();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let taken = async || (pod.metric("wssgate_client_sockets", &[]) >= limit).then_some(());
        until(LIMIT, "all sockets to be taken", taken).await;
        let prober = pod.prober();
        let label = format!("route=\"{}/chat\"", release.shop.namespace());
        let opened = || pod.metric("wssgate_backend_connect_duration_seconds_count", &[&label]);
        pod.serves("sockets", host, &json!({}));
        open(&pod.client(host), "/").await.unwrap().echo(&Frame::text("a new route")).await;
        let before = opened();
        until(LIMIT, "handshakes of the victim", async || (opened() - before > 40.0).then_some(())).await;
        all_succeeded(prober).await;
        // Nobody who is in is closed for the sake of another.
        held[0].still_echoes(&Frame::text("still in")).await;
        silent.shutdown().await;
        drop(held);
        attacker.gone();
        release.shop.must(&["delete", "swsr", "sockets"]);
    });
}

/// A request for a ticket with this token.
fn request(host: &str, token: &str) -> Head {
    Head::request("POST /ticket HTTP/1.1")
        .set("Host", host)
        .add("Origin", format!("https://{host}"))
        .add("Content-Length", "0")
        .add("Authorization", format!("Bearer {token}"))
}

fn tickets_and_refusals_without_end_cost_nothing_of_another_namespace(clusters: &Clusters) {
    let release = with_route(clusters);
    run(async {
        let (pod, attacker) = (Pod::new(release), Attacker::new(release).await);
        let (host, key) = ("tickets.example.com", Key::es256("one"));
        pod.certified(host);
        let ticket = json!({"name": "ticket", "type": "Ticket", "ticket": {"path": "/ticket"}});
        let sells = any_of(&[method(&json!({"jwks": {"local": {"ref": {"name": "tickets-keys"}}}})), ticket]);
        let keys = config_map("tickets-keys", &set(&[&key]));
        attacker.kubectl.put(vec![keys.clone()]);
        let client = attacker.serves(&pod, "own", &sells);
        let name = client.name.clone();
        let greedy = request(&name, &key.sign(&claims(&json!({"sub": "greedy"}))));
        let foreign = Head::upgrade("/").set("Host", &name).add("Origin", "https://evil.example.com");
        let mut attack = JoinSet::new();
        for head in [greedy, foreign] {
            let (client, source) = (client.clone(), attacker.source.clone());
            attack.spawn(async move {
                loop {
                    // One that is ended without an answer is refused too.
                    let _refused = from(&source, &client, &head).await;
                }
            });
        }
        let route = format!("route=\"{}/own\"", attacker.kubectl.namespace());
        let refused = |reason: &str| {
            pod.metric("wssgate_handshakes_total", &[&route, "outcome=\"refused\"", &format!("reason=\"{reason}\"")])
        };
        let both = async || (refused("ticket_limit") > 20.0 && refused("origin_denied") > 50.0).then_some(());
        until(LIMIT, "the attack", both).await;
        let prober = pod.prober();

        release.shop.put(vec![keys]);
        pod.serves("tickets", host, &sells);
        let victim = pod.client(host);
        for number in 0..20 {
            let token = key.sign(&claims(&json!({"sub": "modest"})));
            let mut peer = victim.connect().await;
            peer.write(&request(host, &token).bytes()).await;
            let answer = Answer::parse(&peer.rest(SOON, "the end of a call").await).expect("an answer to the call");
            assert_eq!(answer.status(), 200, "ticket {number}: {answer:?}");
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            let target = format!("/?ticket={}", body["ticket"].as_str().unwrap());
            let head = Head::upgrade(&target).set("Host", host).add("Origin", format!("https://{host}"));
            victim.open(&head).await.echo(&Frame::text("by ticket")).await;
        }
        // A refusal of the victim's route has its line beside the flood.
        let head = Head::upgrade("/").set("Host", host).add("Origin", "https://evil.example.com");
        assert_eq!(victim.ask(&head).await.0.status(), 403);
        let route = format!("\"route\":\"{}/tickets\"", release.shop.namespace());
        until(LIMIT, "the line of the victim", async || {
            let (leader, _) = release.leader()?;
            let log = release.own.must(&["logs", &leader]);
            log.lines().any(|line| line.contains("\"event\":\"refused\"") && line.contains(&route)).then_some(())
        })
        .await;
        all_succeeded(prober).await;
        attack.shutdown().await;
        attacker.gone();
        release.shop.must(&["delete", "swsr", "tickets"]);
        release.shop.must(&["delete", "configmap", "tickets-keys"]);
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox:
        key_sets_that_hang_delay_no_new_route_of_another_namespace,
        one_client_with_all_sockets_keeps_nobody_out_of_another_namespace,
        tickets_and_refusals_without_end_cost_nothing_of_another_namespace,
    ]
}
