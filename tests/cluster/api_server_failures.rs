//! An API server that is killed, that forgets versions (410), or that says all are gone: what was read keeps serving.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Test;
use super::clusters::{Clusters, install_definition};
use super::fixture::{Fixture, LIMIT, logged, run};
use super::harness::{Frame, Gateway, until};

fn a_killed_api_server_disturbs_nobody_and_what_it_missed_is_made_up(clusters: &Clusters) {
    run(async {
        let plane = clusters.another("outage");
        install_definition(&plane.kubectl());
        let fixture = Fixture::new(&plane, "outage", &json!({})).await;
        fixture.apply(&[fixture.route("chat", "outage.example.com", &json!({}))]);
        let gateway = fixture.gateway("wssgate-0").await;
        let mut socket = fixture.open(&gateway, "outage.example.com").await;
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        assert!(gateway.metric("wssgate_source_stale_seconds", &[]).await < 0.5);

        plane.kill_api_server();
        let stale = async || gateway.metric("wssgate_source_stale_seconds", &[]).await;
        until(LIMIT, "the gauge to rise", async || (stale().await > 3.0).then_some(())).await;
        let now = stale().await;
        until(LIMIT, "the gauge to go on", async || (stale().await > now + 1.0).then_some(())).await;
        socket.echo(&Frame::text("still here")).await;
        fixture.open(&gateway, "outage.example.com").await.echo(&Frame::text("and new ones")).await;
        assert_eq!(gateway.get("/readyz").await.0, 200);

        // One that starts now has nothing to serve, says so, and does not give up.
        let mut late = fixture.launch("wssgate-1", &[], &[]).await;
        logged(&late, &["cannot be read from the API server"]);
        assert_eq!((late.get("/readyz").await.0, late.get("/livez").await.0), (503, 200));
        assert_eq!(late.listener("wss"), None);

        plane.start_api_server();
        fixture.apply(&[fixture.route("new", "missed.example.com", &json!({}))]);
        fixture.open(&gateway, "missed.example.com").await;
        until(LIMIT, "the gauge to fall", async || (stale().await < 0.5).then_some(())).await;
        fixture.kubectl.wait("swsr/new", "condition=Ready", LIMIT * 2);
        late.ready().await;
        fixture.open(&late, "missed.example.com").await;
        socket.echo(&Frame::text("and still")).await;

        // The definition goes, and all routes with it: a closing like any other, and the gateway says what to do.
        fixture.kubectl.must(&["delete", "crd", "securewebsocketroutes.wssgate.io"]);
        let code = socket.close_within(LIMIT * 2).await.map(|(code, _)| code);
        assert_eq!(code, Some(1012));
        logged(&gateway, &["the CustomResourceDefinition is not installed", "wssgate crd"]);
        assert_eq!(gateway.get("/livez").await.0, 200);
    });
}

/// As much of an API server as is needed to misbehave: lists, and watches that a test ends with 410.
struct Fake {
    port: u16,
    state: Arc<State>,
}

struct State {
    /// Items by plural.
    items: watch::Sender<BTreeMap<&'static str, Vec<Value>>>,
    /// Counts what ends the watches of routes.
    gone: watch::Sender<u64>,
    /// Lists of routes so far.
    lists: AtomicUsize,
    /// A list of routes has one alone, and breaks where the rest would be asked for.
    broken: AtomicBool,
}

impl Fake {
    async fn start(items: BTreeMap<&'static str, Vec<Value>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (lists, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
        let state = State { items: watch::Sender::new(items), gone: watch::Sender::new(0), lists, broken };
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(answer(tcp, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// One that lists what the real API server has made of a fixture's objects.
    async fn of(fixture: &Fixture<'_>) -> Self {
        let mut items = BTreeMap::new();
        for plural in ["securewebsocketroutes", "services", "secrets", "endpointslices"] {
            items.insert(plural, fixture.kubectl.get(&[plural])["items"].as_array().unwrap().clone());
        }
        items.insert("ingressclasses", vec![fixture.home.get(&["ingressclass", fixture.class()])]);
        Self::start(items).await
    }

    /// A gateway of a fixture that reads this one.
    async fn gateway(&self, fixture: &Fixture<'_>) -> Gateway {
        let file = fixture.plane.folder().join(format!("{}-fake.kubeconfig", fixture.class()));
        std::fs::write(&file, self.kubeconfig().to_string()).unwrap();
        fixture.gateway_by(&file, &["--leader-election", "false"]).await
    }

    fn kubeconfig(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}],
            "users": [{"name": "fake", "user": {"token": "none"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        })
    }

    /// The routes that lists have.
    fn routes(&self) -> Vec<Value> {
        self.state.items.borrow()["securewebsocketroutes"].clone()
    }

    /// Lists have these routes from now on.
    fn set_routes(&self, routes: Vec<Value>) {
        self.state.items.send_modify(|items| drop(items.insert("securewebsocketroutes", routes)));
    }

    /// Ends the watches of routes with 410, and waits for the list that follows.
    async fn forget(&self) {
        // A watch that is not there yet would never hear of it.
        until(LIMIT, "a watch", async || (self.state.gone.receiver_count() > 0).then_some(())).await;
        let before = self.state.lists.load(Ordering::SeqCst);
        self.state.gone.send_modify(|count| *count += 1);
        let listed = async || (self.state.lists.load(Ordering::SeqCst) > before).then_some(());
        until(LIMIT, "another list", listed).await;
    }
}

/// One request; the connection ends with it.
async fn answer(mut tcp: TcpStream, state: Arc<State>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let plural = path.rsplit('/').next()?.to_owned();
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version"});
    if query.contains("watch=true") {
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n").await.ok()?;
        if plural == "securewebsocketroutes" {
            let mut forgotten = state.gone.subscribe();
            forgotten.changed().await.ok()?;
            drop(forgotten);
            let event = json!({"type": "ERROR", "object": gone});
            tcp.write_all(format!("{event}\n").as_bytes()).await.ok()?;
        } else {
            let _ = tcp.read_u8().await;
        }
        return Some(());
    }
    let kinds = [
        ("securewebsocketroutes", "wssgate.io/v1alpha1", "SecureWebSocketRoute"),
        ("services", "v1", "Service"),
        ("secrets", "v1", "Secret"),
        ("endpointslices", "discovery.k8s.io/v1", "EndpointSlice"),
        ("ingressclasses", "networking.k8s.io/v1", "IngressClass"),
        ("ingresses", "networking.k8s.io/v1", "Ingress"),
    ];
    let (status, body) = match kinds.into_iter().find(|(known, ..)| *known == plural) {
        Some((known, version, kind)) => {
            if known == "securewebsocketroutes" {
                state.lists.fetch_add(1, Ordering::SeqCst);
            }
            let items = state.items.borrow().get(known).cloned().unwrap_or_default();
            let mut items = if query.contains("jwks") { Vec::new() } else { items };
            let mut metadata = json!({"resourceVersion": "1"});
            if known == "securewebsocketroutes" && state.broken.load(Ordering::SeqCst) {
                // The connection ends instead of an answer.
                (!query.contains("continue=")).then_some(())?;
                items.truncate(1);
                metadata["continue"] = "more".into();
            }
            let list =
                json!({"apiVersion": version, "kind": format!("{kind}List"), "metadata": metadata, "items": items});
            ("200 OK", list)
        }
        None => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                "reason": "NotFound", "message": "there is no such thing"});
            ("404 Not Found", status)
        }
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    tcp.write_all((head + &body).as_bytes()).await.ok()
}

fn a_version_too_old_is_listed_anew_and_an_empty_list_counts_the_second_time_only(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "gone", &json!({})).await;
        fixture.apply(&[fixture.route("chat", "gone.example.com", &json!({}))]);
        let fake = Fake::of(&fixture).await;
        let routes = fake.routes();
        let gateway = fake.gateway(&fixture).await;
        let mut socket = fixture.open(&gateway, "gone.example.com").await;

        fake.forget().await;
        fake.forget().await;
        socket.echo(&Frame::text("410 is no reason")).await;

        // Empty, then whole again before it would count: nothing ever happened.
        fake.set_routes(Vec::new());
        fake.forget().await;
        let first = Instant::now();
        logged(&gateway, &["list came back empty although objects exist", "SecureWebSocketRoute"]);
        fixture.open(&gateway, "gone.example.com").await.echo(&Frame::text("served on")).await;
        fake.set_routes(routes);
        fake.forget().await;
        // Empty again: the time begins anew, and when it is over it is true.
        fake.set_routes(Vec::new());
        fake.forget().await;
        let second = Instant::now();
        assert!(first.elapsed() < Duration::from_secs(20), "too slow to show anything");
        fake.forget().await;
        socket.echo(&Frame::text("an early second list counts no more")).await;
        let code = socket.close_within(Duration::from_secs(50)).await.map(|(code, _)| code);
        assert_eq!(code, Some(1012));
        assert!(second.elapsed() > Duration::from_secs(29), "after {:?}", second.elapsed());
        fixture.becomes(&gateway, "gone.example.com", 0).await;
    });
}

/// While the gateway sleeps all its routes go, and the API server with all that it remembers of them. What it finds then is
/// a version that is too old, and a list without one route.
fn all_routes_that_went_unseen_serve_until_a_second_list_and_stay_if_they_come_back(clusters: &Clusters) {
    run(async {
        let plane = clusters.another("unseen");
        install_definition(&plane.kubectl());
        let fixture = Fixture::new(&plane, "unseen", &json!({})).await;
        // The second list comes half a minute later: pings are not what is looked at.
        let spec = json!({"connection": {"heartbeat": {"interval": "10m"}}});
        let routes = ["one", "two"].map(|name| fixture.route(name, &format!("{name}.example.com"), &spec));
        fixture.apply(&routes);
        let gateway = fixture.gateway("wssgate-0").await;
        let mut sockets = Vec::new();
        for name in ["one", "two"] {
            sockets.push(fixture.open(&gateway, &format!("{name}.example.com")).await);
        }
        // First the API server: what a watch has sent already would be read afterwards.
        plane.kill_api_server();
        gateway.signal("STOP");
        plane.start_api_server();
        fixture.kubectl.must(&["delete", "swsr", "--all"]);
        plane.kill_api_server();
        plane.start_api_server();
        gateway.signal("CONT");
        logged(&gateway, &["list came back empty although objects exist", "SecureWebSocketRoute"]);
        for socket in &mut sockets {
            socket.echo(&Frame::text("served on")).await;
        }
        // One comes back in time.
        fixture.apply(&routes[..1]);
        fixture.kubectl.wait("swsr/one", "condition=Ready", LIMIT);
        let other = sockets.pop().unwrap().close_within(Duration::from_secs(50)).await;
        assert_eq!(other.map(|(code, _)| code), Some(1012));
        sockets[0].echo(&Frame::text("the one that is there")).await;
        fixture.becomes(&gateway, "two.example.com", 0).await;
        assert_eq!(fixture.status(&gateway, "one.example.com").await, 101);
    });
}

/// A list comes in parts, and one of them is missing: it counts for nothing.
fn half_a_list_takes_no_route_away(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "half", &json!({})).await;
        let names = ["one", "two", "three"];
        let host = |name: &str| format!("{name}-half.example.com");
        let routes: Vec<Value> = names.iter().map(|name| fixture.route(name, &host(name), &json!({}))).collect();
        fixture.apply(&routes);
        let fake = Fake::of(&fixture).await;
        let gateway = fake.gateway(&fixture).await;
        let mut sockets = Vec::new();
        for name in names {
            sockets.push(fixture.open(&gateway, &host(name)).await);
        }
        fake.state.broken.store(true, Ordering::SeqCst);
        fake.forget().await;
        let tried = fake.state.lists.load(Ordering::SeqCst);
        let again = async || (fake.state.lists.load(Ordering::SeqCst) > tried + 1).then_some(());
        until(LIMIT, "more attempts to list", again).await;
        for (name, socket) in names.iter().zip(&mut sockets) {
            socket.echo(&Frame::text("half is nothing")).await;
            assert_eq!(fixture.status(&gateway, &host(name)).await, 101, "{name}");
        }
        logged(&gateway, &["SecureWebSocketRoute", "cannot be read from the API server"]);
        // A whole one counts.
        let mut routes = fake.routes();
        routes.retain(|route| route["metadata"]["name"] != "two");
        fake.set_routes(routes);
        fake.state.broken.store(false, Ordering::SeqCst);
        fixture.becomes(&gateway, &host("two"), 0).await;
        sockets.remove(0).echo(&Frame::text("and the others go on")).await;
    });
}

/// The definition is of another version: it prunes what this build knows, and has what this build does not know.
fn a_definition_of_another_version_is_told_and_what_it_adds_is_refused(clusters: &Clusters) {
    run(async {
        let plane = clusters.another("version");
        let admin = plane.kubectl();
        install_definition(&admin);
        let name = "securewebsocketroutes.wssgate.io";
        let mut definition = admin.get(&["crd", name]);
        let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let handshake = &mut spec["properties"]["handshake"]["properties"];
        assert!(handshake.as_object_mut().unwrap().remove("rateLimit").is_some());
        handshake["futureShield"] = json!({"type": "boolean"});
        definition["metadata"]["annotations"]["wssgate.io/schema-hash"] = json!("another");
        let said = admin.run_with(&["replace", "-f", "-"], &definition.to_string());
        assert!(said.ok, "{said:?}");

        let fixture = Fixture::new(&plane, "version", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        gateway.metric_becomes("wssgate_crd_outdated", &[], 1.0).await;
        logged(&gateway, &["the CustomResourceDefinition is not that of this version", name]);
        fixture.apply(&[
            fixture.route("known", "known.example.com", &json!({})),
            fixture.route("newer", "newer.example.com", &json!({"handshake": {"futureShield": true}})),
        ]);
        fixture.open(&gateway, "known.example.com").await;
        let message = fixture.condition("newer", "Accepted", "False", "UnknownField");
        assert!(message.contains("spec.handshake.futureShield"), "{message}");
        assert_eq!(fixture.status(&gateway, "newer.example.com").await, 503);
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_killed_api_server_disturbs_nobody_and_what_it_missed_is_made_up,
        half_a_list_takes_no_route_away,
        all_routes_that_went_unseen_serve_until_a_second_list_and_stay_if_they_come_back,
        a_version_too_old_is_listed_anew_and_an_empty_list_counts_the_second_time_only,
        a_definition_of_another_version_is_told_and_what_it_adds_is_refused,
    ]
}
