//! Many routes, many changes, many strangers and somebody who contradicts: what belongs to one stays with it, and what is
//! counted and written stays bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use wssgate::api::route::SecureWebSocketRoute;

use super::Test;
use super::clusters::{Clusters, install_definition};
use super::fixture::{Fixture, LIMIT, condition, run, upgrade};
use super::harness::manifests::text;
use super::harness::{Frame, Gateway, Peer, until};
use super::kubectl::Kubectl;

/// Good routes beside the others.
const MANY: usize = 1000;
/// The longest that an edit may wait behind a crowd of others, on a machine that does other things besides.
const APPLIED: Duration = Duration::from_secs(10);

/// The routes of a namespace by kubectl's user, for more changes than kubectl can make.
async fn routes(kubectl: &Kubectl) -> Api<SecureWebSocketRoute> {
    let file = Kubeconfig::read_from(kubectl.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Api::namespaced(Client::try_from(config).unwrap(), kubectl.namespace())
}

fn host(index: usize) -> String {
    format!("r{index}.example.com")
}

/// Good routes, made and ready.
async fn settle(fixture: &Fixture<'_>) {
    let all: Vec<Value> =
        (0..MANY).map(|index| fixture.route(&format!("r{index}"), &host(index), &json!({}))).collect();
    let parts = all.chunks(MANY / 4).map(|part| {
        let (kubectl, objects) = (fixture.kubectl.clone(), text(part));
        std::thread::spawn(move || {
            let said = kubectl.run_with(&["create", "-f", "-"], &objects);
            assert!(said.ok, "{}", said.err);
        })
    });
    parts.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    until(LIMIT * 3, "every route to be ready", async || {
        let ready = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}";
        let all = fixture.kubectl.must(&["get", "swsr", "-o", ready]);
        (all.lines().filter(|line| *line == "True").count() == MANY).then_some(())
    })
    .await;
}

/// The versions of the good routes.
fn versions(kubectl: &Kubectl) -> BTreeMap<String, String> {
    let format = "jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}";
    let all = kubectl.must(&["get", "swsr", "-o", format]);
    let pairs = all.lines().filter_map(|line| line.split_once(' '));
    pairs.filter(|(name, _)| name.starts_with('r')).map(|(name, at)| (name.to_owned(), at.to_owned())).collect()
}

fn a_bad_route_among_a_thousand_disturbs_no_other_and_a_crowd_of_changes_delays_none(clusters: &Clusters) {
    run(async {
        let plane = clusters.another("crowd");
        install_definition(&plane.kubectl());
        let fixture = Fixture::new(&plane, "crowd", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        settle(&fixture).await;
        let mut sockets = Vec::new();
        for index in [0, 1, MANY - 1] {
            sockets.push(fixture.open(&gateway, &host(index)).await);
        }
        bad_routes(&fixture, &gateway).await;
        stay(&mut sockets).await;
        churn(&fixture, &gateway, &mut sockets).await;
        stay(&mut sockets).await;
    });
}

/// Each is open still; pings that came meanwhile are answered.
async fn stay(sockets: &mut [Peer]) {
    let text = Frame::text("not disturbed");
    for socket in sockets {
        assert!(socket.send(&text).await, "the connection has ended");
        loop {
            match socket.frame().await {
                Some(frame) if frame.opcode == 9 => {
                    assert!(socket.send(&Frame::pong(frame.payload)).await, "the connection has ended");
                }
                Some(frame) if frame.same(&text) => break,
                other => panic!("expected {text:?}, got {other:?}"),
            }
        }
    }
}

/// H8: each bad in its way; the good ones are neither closed nor written.
async fn bad_routes(fixture: &Fixture<'_>, gateway: &Gateway) {
    let before = versions(&fixture.kubectl);
    assert_eq!(before.len(), MANY);
    let to = |service: &str| json!({"rules": [{"name": "all", "backendRefs": [{"name": service, "port": 8080}]}]});
    let jwt = |uri: &str| {
        json!({"handshake": {"authentication": {"mode": "AnyOf", "methods": [{"name": "idp", "type": "JWT", "jwt": {
            "issuer": "https://idp.example.com", "audiences": ["a"],
            "jwks": {"type": "Local", "local": {"ref": {"name": uri, "key": "jwks.json"}}},
            "extractFrom": [{"type": "Header", "name": "Authorization", "valuePrefix": "Bearer "}],
        }}]}}})
    };
    let cases = [
        ("secret", json!({"tls": {"certificateRefs": [{"name": "nowhere"}]}}), "ResolvedRefs", "RefNotFound", 0),
        ("service", to("nowhere"), "ResolvedRefs", "BackendNotFound", 503),
        ("keys", jwt("nowhere"), "ResolvedRefs", "RefNotFound", 503),
        ("field", json!({"tls": {"alpnProtocols": ["h2"]}}), "Accepted", "UnsupportedValue", 503),
        ("name", json!({"hostnames": [host(5)]}), "Accepted", "HostnameConflict", 101),
    ];
    let bad: Vec<Value> = cases
        .iter()
        .map(|(name, spec, ..)| fixture.route(&format!("bad-{name}"), &format!("bad-{name}.example.com"), spec))
        .collect();
    fixture.apply(&bad);
    for (name, _, kind, reason, status) in &cases {
        fixture.condition(&format!("bad-{name}"), kind, "False", reason);
        let asked = if *status == 101 { host(5) } else { format!("bad-{name}.example.com") };
        fixture.becomes(gateway, &asked, *status).await;
    }
    // One that was good is served as it was while what it says now is wrong.
    let mut socket = fixture.open(gateway, &host(7)).await;
    let wrong = json!({"tls": {"alpnProtocols": ["h2"]}});
    fixture.apply(&[fixture.route("r7", &host(7), &wrong)]);
    fixture.condition("r7", "Accepted", "False", "UnsupportedValue");
    fixture.condition("r7", "Programmed", "False", "LastGood");
    socket.echo(&Frame::text("the last good version")).await;
    assert_eq!(fixture.status(gateway, &host(7)).await, 101);
    fixture.kubectl.must(&["replace", "-f", &{
        let file = fixture.plane.folder().join("r7.yaml");
        std::fs::write(&file, fixture.route("r7", &host(7), &json!({})).to_string()).unwrap();
        file.display().to_string()
    }]);
    fixture.condition("r7", "Ready", "True", "Ready");
    let mut after = versions(&fixture.kubectl);
    assert_ne!(after.insert("r7".into(), before["r7"].clone()).as_ref(), before.get("r7"));
    assert!(before == after, "a good route was written for the sake of a bad one");
}

/// H9: as many changes as the API server takes, for a while. They are compiled in bunches, an edit among them takes effect
/// soon, and memory stays.
async fn churn(fixture: &Fixture<'_>, gateway: &Gateway, sockets: &mut [Peer]) {
    let api = routes(&fixture.kubectl).await;
    let resident = gateway.resident();
    let compiles = gateway.metric("wssgate_compile_duration_seconds_count", &[]).await;
    let (stop, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tenants: Vec<_> = (0..8)
        .map(|tenant| {
            let (api, stop, changes) = (api.clone(), Arc::clone(&stop), Arc::clone(&changes));
            tokio::spawn(async move {
                for round in 0_usize.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let name = format!("r{}", 100 + tenant * 100 + round % 100);
                    let spec = json!({"spec": {"connection": {"maxDuration": format!("{}m", 60 + round % 60)}}});
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
                    changes.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    for round in 0..10 {
        let (allowed, status) = if round % 2 == 0 { ("192.0.2.0/24", 403) } else { ("0.0.0.0/0", 101) };
        let spec = json!({"spec": {"handshake": {"networks": {"allow": [allowed]}}}});
        api.patch("r2", &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
        let edited = Instant::now();
        until(APPLIED, &format!("edit {round} to take effect"), async || {
            (fixture.status(gateway, &host(2)).await == status).then_some(())
        })
        .await;
        longest = longest.max(edited.elapsed());
        stay(sockets).await;
    }
    until(LIMIT, "a crowd of changes", async || (changes.load(Ordering::SeqCst) >= 1000).then_some(())).await;
    let took = start.elapsed();
    stop.store(true, Ordering::SeqCst);
    for tenant in tenants {
        tenant.await.unwrap();
    }
    let (changes, compiles) = (
        changes.load(Ordering::SeqCst),
        gateway.metric("wssgate_compile_duration_seconds_count", &[]).await - compiles,
    );
    eprintln!(
        "{changes} changes in {took:?}, {compiles} compiles; of ten edits the slowest took effect after {longest:?}"
    );
    // Quiet for a moment, or a second at the most, and then one compile for all.
    assert!(compiles < changes as f64 / 3.0, "{compiles} compiles for {changes} changes in {took:?}");
    let grown = gateway.resident().saturating_sub(resident);
    assert!(grown < 64 * 1024, "{grown} KiB more after {changes} changes");
    // Every status follows, one write for each generation at the most.
    until(LIMIT * 2, "every status to follow", async || {
        let of = "jsonpath={range .items[*]}{.metadata.generation} {.status.observedGeneration}{'\\n'}{end}";
        let all = fixture.kubectl.must(&["get", "swsr", "-o", of]);
        all.lines().all(|line| line.split_once(' ').is_some_and(|(a, b)| a == b)).then_some(())
    })
    .await;
}

fn strangers_add_no_series_to_the_metrics(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "series", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let origins = json!({"handshake": {"origins": {"allow": ["https://app.example.com"]}}});
        let exact = json!({"rules": [{
            "name": "all", "matches": [{"path": {"type": "Exact", "value": "/here"}}],
            "backendRefs": [{"name": "chat", "port": 8080}],
        }]});
        fixture.apply(&[
            fixture.route("open", "open.example.com", &json!({})),
            fixture.route("page", "page.example.com", &origins),
            fixture.route("exact", "exact.example.com", &exact),
        ]);
        for name in ["open", "page", "exact"] {
            fixture.kubectl.wait(&format!("swsr/{name}"), "condition=Ready", LIMIT);
        }
        // Each round brings names that were never seen, in every place that a client can write.
        let visit = async |round: usize| {
            for index in 0..100 {
                let new = format!("s{round}-{index}");
                let head = |host: &str| {
                    let head = upgrade(host).line(format!("GET /{new}?token={new} HTTP/1.1"));
                    let head = head.add("User-Agent", &new).add("Cookie", format!("{new}={new}"));
                    head.add("Sec-WebSocket-Protocol", &new).add("X-Forwarded-For", format!("192.0.2.{index}"))
                };
                fixture.client(&gateway, "open.example.com").ask(&head("open.example.com")).await;
                let foreign = head("page.example.com").add("Origin", format!("https://{new}.example.org"));
                fixture.client(&gateway, "page.example.com").ask(&foreign).await;
                fixture.client(&gateway, "exact.example.com").ask(&head("exact.example.com")).await;
                let misdirected = head(&format!("{new}.example.com"));
                fixture.client(&gateway, "open.example.com").ask(&misdirected).await;
                assert_eq!(fixture.status(&gateway, &format!("{new}.example.com")).await, 0, "an unknown name");
            }
        };
        let series = async || -> BTreeSet<String> {
            let text = gateway.get("/metrics").await.1;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let settled = async || {
            let gone = async || (gateway.connections().await < 0.5).then_some(());
            until(LIMIT, "the connections to end", gone).await;
            series().await
        };
        visit(0).await;
        let first = settled().await;
        visit(1).await;
        visit(2).await;
        let second = settled().await;
        let more: Vec<&String> = second.difference(&first).collect();
        assert!(more.is_empty(), "{more:?}");
        assert!(!second.iter().any(|one| one.contains("s0-") || one.contains("s1-")), "{second:?}");
        let refused = gateway.refusals(None).await;
        assert!(refused >= 1000.0, "{refused} refusals: the strangers were not counted");
    });
}

/// Another controller says the opposite, again and again: we answer each time at the most once, and when it stops, we do.
fn somebody_who_contradicts_a_status_is_answered_once_each_time(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "fight", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        fixture.apply(&[
            fixture.route("chat", "fight.example.com", &json!({})),
            fixture.route("other", "aside.example.com", &json!({})),
        ]);
        for name in ["chat", "other"] {
            fixture.kubectl.wait(&format!("swsr/{name}"), "condition=Ready", LIMIT);
        }
        let aside = fixture.kubectl.get(&["swsr", "other"]);
        let before = gateway.metric("wssgate_status_writes_total", &[]).await;
        let api = routes(&fixture.kubectl).await;
        let theirs = json!({
            "apiVersion": "wssgate.io/v1alpha1", "kind": "SecureWebSocketRoute", "metadata": {"name": "chat"},
            "status": {"conditions": [{
                "type": "Ready", "status": "False", "reason": "No", "message": "says somebody else",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        let mut contradictions: f64 = 0.0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            api.patch_status("chat", &PatchParams::apply("somebody").force(), &Patch::Apply(&theirs)).await.unwrap();
            contradictions += 1.0;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ready = |route: &Value| condition(route, "Ready").is_some_and(|one| one["status"] == "True");
        fixture.kubectl.until(LIMIT, &["swsr", "chat"], "to have our word", |route| ready(route).then_some(()));
        let version = || fixture.kubectl.get(&["swsr", "chat"])["metadata"]["resourceVersion"].clone();
        let last = version();
        let writes = async || gateway.metric("wssgate_status_writes_total", &[]).await - before;
        let (answers, said) = (writes().await, gateway.log_text().matches("status could not be written").count());
        assert!(answers >= 1.0 && answers <= contradictions + 1.0, "{answers} answers to {contradictions}");
        assert_eq!(said, 0, "a conflict");
        // Whatever is written after that comes after: one write, for a route that has something to say.
        fixture.apply(&[fixture.route("third", "third.example.com", &json!({}))]);
        fixture.kubectl.wait("swsr/third", "condition=Ready", LIMIT);
        assert_eq!(version(), last, "it goes on");
        assert!((writes().await - answers - 1.0).abs() < 0.1, "{} writes more", writes().await - answers);
        assert_eq!(fixture.kubectl.get(&["swsr", "other"]), aside, "a route that nobody contradicted");
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_bad_route_among_a_thousand_disturbs_no_other_and_a_crowd_of_changes_delays_none,
        strangers_add_no_series_to_the_metrics,
        somebody_who_contradicts_a_status_is_answered_once_each_time,
    ]
}
