//! What is written back to a real API server: by one replica, by server-side apply, on change, and no more often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Test;
use super::clusters::{Clusters, install_definition};
use super::control_plane::ControlPlane;
use super::fixture::{Fixture, LIMIT, condition, events, run};
use super::harness::manifests::text;
use super::harness::{Frame, Gateway, Head, Pair, until};
use super::kubectl::Kubectl;

/// How long a Lease is held that nobody renews.
const LEASE: Duration = Duration::from_secs(15);

/// The writes of statuses that the API server has answered, by its own count.
fn writes(kubectl: &Kubectl) -> u64 {
    let metrics = kubectl.must(&["get", "--raw", "/metrics"]);
    let of_status = |line: &&str| {
        let words = ["resource=\"securewebsocketroutes\"", "subresource=\"status\""];
        line.starts_with("apiserver_request_total{") && words.iter().all(|word| line.contains(word))
    };
    let count = |line: &str| line.rsplit_once(' ').and_then(|(_, count)| count.parse::<u64>().ok()).unwrap();
    metrics.lines().filter(of_status).map(count).sum()
}

fn a_status_says_all_that_people_and_tools_look_for(clusters: &Clusters) {
    run(async {
        let values = json!({"settings": {}});
        let fixture = Fixture::new(clusters.control_plane(), "said", &values).await;
        // The gateway's own Service has an address, as a load balancer gives it.
        let balancer = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}).to_string();
        fixture.home.must(&["patch", "service", "wssgate", "--subresource=status", "--type=merge", "-p", &balancer]);
        let service = format!("{}/wssgate", fixture.home.namespace());
        let gateway = fixture.gateway_with("wssgate-0", &[], &["--publish-service", &service]).await;
        fixture.apply(&[fixture.route("chat", "said.example.com", &json!({}))]);
        // As a person waits; the API server's own default keeps it from ending at once.
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        let route = fixture.kubectl.get(&["swsr", "chat", "--show-managed-fields"]);
        let status = &route["status"];
        assert_eq!(status["observedGeneration"], route["metadata"]["generation"]);
        assert_eq!(status["controllerName"], "wssgate.io/ingress-controller");
        assert_eq!(status["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.7"}]));
        let states: Vec<String> = status["conditions"].as_array().unwrap().iter().map(state).collect();
        for wanted in [
            "Accepted=True/Accepted",
            "ResolvedRefs=True/ResolvedRefs",
            "Programmed=True/Programmed",
            "CertificateReady=True/Ready",
            "Ready=True/Ready",
        ] {
            assert!(states.iter().any(|state| state == wanted), "{wanted} is not among {states:?}");
        }
        assert!(!states.iter().any(|state| state.starts_with("Stalled")), "{states:?}");
        for one in status["conditions"].as_array().unwrap() {
            assert_eq!(one["observedGeneration"], route["metadata"]["generation"], "{one}");
        }
        // By server-side apply, and nothing but the status.
        let managed = route["metadata"]["managedFields"].as_array().unwrap();
        let ours: Vec<&Value> = managed.iter().filter(|entry| entry["manager"] == "wssgate").collect();
        assert!(ours.len() == 1 && ours[0]["operation"] == "Apply" && ours[0]["subresource"] == "status", "{ours:?}");
        assert_eq!(ours[0]["fieldsV1"].as_object().unwrap().keys().collect::<Vec<_>>(), ["f:status"]);
        let table = fixture.kubectl.must(&["get", "swsr", "chat", "-o", "wide"]);
        assert!(table.lines().nth(1).unwrap().contains("True"), "{table}");

        // Addresses that the settings say stand in for the Service's.
        let values = json!({"publishAddresses": ["192.0.2.9", "edge.example.com"]});
        fixture.install(&values);
        drop(gateway);
        let gateway = fixture.gateway_with("wssgate-1", &[], &["--publish-service", &service]).await;
        let said =
            json!([{"type": "IPAddress", "value": "192.0.2.9"}, {"type": "Hostname", "value": "edge.example.com"}]);
        fixture.kubectl.until(LIMIT, &["swsr", "chat"], "to show the other addresses", |route| {
            (route["status"]["addresses"] == said).then_some(())
        });

        // A backend that is missing is told, and its end.
        let before = fixture.kubectl.get(&["swsr", "chat"]);
        fixture.apply(&[fixture.route(
            "chat",
            "said.example.com",
            &json!({"rules": [{
                "name": "all", "backendRefs": [{"name": "nowhere", "port": 8080}],
            }]}),
        )]);
        let message = fixture.condition("chat", "ResolvedRefs", "False", "BackendNotFound");
        assert!(message.contains("spec.rules[0].backendRefs[0]") && message.contains("nowhere"), "{message}");
        let broken = fixture.kubectl.get(&["swsr", "chat"]);
        assert_eq!(condition(&broken, "Ready").unwrap()["status"], "False");
        // What did not turn keeps its time.
        let time = |route: &Value, kind: &str| condition(route, kind).unwrap()["lastTransitionTime"].clone();
        assert_eq!(time(&before, "Accepted"), time(&broken, "Accepted"));
        fixture.apply(&[fixture.route("chat", "said.example.com", &json!({}))]);
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        let told = until(LIMIT, "the events of the backend", async || {
            let told = events(&fixture.kubectl, "chat");
            (told.len() >= 2).then_some(told)
        })
        .await;
        assert!(told.contains(&("Warning".into(), "BackendNotFound".into())), "{told:?}");
        assert!(told.contains(&("Normal".into(), "ResolvedRefs".into())), "{told:?}");
        drop(gateway);
    });
}

fn state(condition: &Value) -> String {
    let of = |member: &str| condition[member].as_str().unwrap().to_owned();
    format!("{}={}/{}", of("type"), of("status"), of("reason"))
}

fn a_hostname_conflict_is_told_and_resolved(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "conflict", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        fixture.apply(&[fixture.route("first", "conflict.example.com", &json!({}))]);
        let mut socket = fixture.open(&gateway, "conflict.example.com").await;
        // Creation has whole seconds: the name decides between routes of one second.
        fixture.apply(&[fixture.route("second", "conflict.example.com", &json!({}))]);
        let message = fixture.condition("second", "Accepted", "False", "HostnameConflict");
        assert!(message.contains("conflict.example.com"), "{message}");
        let second = fixture.kubectl.get(&["swsr", "second"]);
        assert_eq!(condition(&second, "Stalled").unwrap()["status"], "True");
        until(LIMIT, "the event", async || {
            let told = events(&fixture.kubectl, "second");
            told.contains(&("Warning".into(), "HostnameConflict".into())).then_some(())
        })
        .await;
        socket.echo(&Frame::text("not disturbed")).await;
        fixture.kubectl.must(&["delete", "swsr", "first"]);
        fixture.condition("second", "Accepted", "True", "Accepted");
        fixture.open(&gateway, "conflict.example.com").await;
    });
}

/// TLS belongs to the host: one route of it has it, its neighbours leave it out, and a stranger has no part in either.
fn a_neighbour_joins_a_host_without_tls_and_a_stranger_does_not(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "join", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let host = "join.example.com";
        let route = |name: &str, tls: &Value| {
            let matches = json!([{"path": {"type": "PathPrefix", "value": format!("/{name}")}}]);
            let rule = json!({"name": "all", "matches": matches, "backendRefs": [{"name": "chat", "port": 8080}]});
            fixture.route(name, host, &json!({"rules": [rule], "tls": tls}))
        };
        let (with, without) = (|name| route(name, &json!({})), |name| route(name, &Value::Null));
        fixture.apply(&[with("owner")]);
        fixture.kubectl.wait("swsr/owner", "condition=Ready", LIMIT);
        fixture.apply(&[without("neighbour"), with("second")]);
        fixture.kubectl.wait("swsr/neighbour", "condition=Ready", LIMIT);
        let message = fixture.condition("second", "Accepted", "False", "HostnameConflict");
        assert!(message.contains("spec.tls"), "{message}");
        let rival = fixture.plane.kubectl().make_namespace("join-rival");
        rival.put(vec![without("stranger")]);
        rival.until(LIMIT, &["swsr", "stranger"], "to be refused the host", |route| {
            condition(route, "Accepted").filter(|found| found["reason"] == "HostnameConflict").map(drop)
        });
        for (path, status) in [("/owner", 101), ("/neighbour", 101), ("/second", 404), ("/stranger", 404)] {
            let head = Head::upgrade(path).set("Host", host);
            let (answer, _) = fixture.client(&gateway, host).ask(&head).await;
            assert_eq!(answer.status(), status, "{path}");
        }
    });
}

fn an_older_route_that_is_refused_keeps_its_hosts_from_other_namespaces(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "older", &json!({})).await;
        let host = "older.example.com";
        fixture.apply(&[fixture.route("older", host, &json!({}))]);
        let gateway = fixture.gateway("wssgate-0").await;
        fixture.open(&gateway, host).await;
        let other = fixture.plane.kubectl().make_namespace("younger");
        let mut younger = fixture.route("younger", host, &json!({}));
        younger["metadata"]["namespace"] = other.namespace().into();
        // Creation has whole seconds.
        let created = fixture.kubectl.get(&["swsr", "older"])["metadata"]["creationTimestamp"].clone();
        until(LIMIT, "a later second", async || {
            other.apply(&younger.to_string());
            let route = other.get(&["swsr", "younger"]);
            if route["metadata"]["creationTimestamp"] == created {
                other.must(&["delete", "swsr", "younger"]);
                return None;
            }
            Some(())
        })
        .await;
        let refused = || {
            other.until(LIMIT, &["swsr", "younger"], "to be refused", |route| {
                (condition(route, "Accepted")?["reason"] == "HostnameConflict").then_some(())
            });
        };
        refused();
        let wrong = json!({"tls": {"alpnProtocols": ["h2"]}});
        fixture.apply(&[fixture.route("older", host, &wrong)]);
        fixture.condition("older", "Programmed", "False", "LastGood");
        // This one never saw it good.
        let anew = fixture.gateway("wssgate-1").await;
        // It gives up the Lease.
        gateway.sigterm();
        fixture.condition("older", "Programmed", "False", "UnsupportedValue");
        fixture.becomes(&anew, host, 503).await;
        refused();
    });
}

fn a_route_that_leaves_the_class_loses_what_was_said_of_it(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "leaves", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        fixture.apply(&[fixture.route("chat", "leaves.example.com", &json!({}))]);
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        // What somebody else says stays.
        let theirs = json!({
            "apiVersion": "wssgate.io/v1alpha1", "kind": "SecureWebSocketRoute", "metadata": {"name": "chat"},
            "status": {"conditions": [{
                "type": "example.com/Reviewed", "status": "True", "reason": "Reviewed", "message": "by a person",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        let apply = ["apply", "--server-side", "--subresource=status", "--field-manager=person", "-f", "-"];
        let said = fixture.kubectl.run_with(&apply, &theirs.to_string());
        assert!(said.ok, "{said:?}");
        fixture.apply(&[fixture.route("chat", "leaves.example.com", &json!({"ingressClassName": "nobody"}))]);
        fixture.kubectl.until(LIMIT, &["swsr", "chat"], "to lose our conditions", |route| {
            let conditions = route["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let kinds: Vec<&str> = conditions.iter().filter_map(|c| c["type"].as_str()).collect();
            (kinds == ["example.com/Reviewed"] && route["status"]["controllerName"].is_null()).then_some(())
        });
        fixture.becomes(&gateway, "leaves.example.com", 0).await;
    });
}

fn two_gateways_side_by_side_speak_of_their_own_routes_only(clusters: &Clusters) {
    run(async {
        let one = Fixture::new(clusters.control_plane(), "one", &json!({})).await;
        let other = Fixture::new(clusters.control_plane(), "other", &json!({})).await;
        let gateways = [one.gateway("wssgate-0").await, other.gateway("wssgate-0").await];
        one.apply(&[one.route("chat", "side.example.com", &json!({}))]);
        other.apply(&[other.route("chat", "side.example.com", &json!({}))]);
        // The same hostname at two gateways is no conflict.
        for fixture in [&one, &other] {
            fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        }
        one.open(&gateways[0], "side.example.com").await.echo(&Frame::text("1")).await;
        other.open(&gateways[1], "side.example.com").await.echo(&Frame::text("2")).await;
        assert_eq!((one.recorder.count().0, other.recorder.count().0), (1, 1));
        // From one class to the other: the second speaks, and the first does not take back what it says.
        let moved = one.route("chat", "moved.example.com", &json!({"ingressClassName": other.class()}));
        one.apply(&[moved]);
        until(LIMIT, "the other gateway to speak", async || {
            let route = one.kubectl.get(&["swsr", "chat"]);
            let ready = condition(&route, "Ready")?;
            (ready["observedGeneration"] == route["metadata"]["generation"]).then_some(())
        })
        .await;
        one.becomes(&gateways[0], "side.example.com", 0).await;
        let written = |gateway: &Gateway| gateway.log_text().matches("status could not be written").count();
        assert_eq!((written(&gateways[0]), written(&gateways[1])), (0, 0));
        let route = one.kubectl.get(&["swsr", "chat"]);
        assert_eq!(condition(&route, "Ready").unwrap()["status"], "True", "{route:#}");
    });
}

fn a_thousand_routes_settle_with_one_write_each_and_endpoints_write_nothing(clusters: &Clusters) {
    run(async {
        let plane: ControlPlane = clusters.another("storm");
        install_definition(&plane.kubectl());
        let fixture = Fixture::new(&plane, "storm", &json!({})).await;
        let routes: Vec<Value> = (0..1000)
            .map(|index| fixture.route(&format!("r{index}"), &format!("r{index}.example.com"), &json!({})))
            .collect();
        let halves = routes.chunks(250).map(|part| {
            let (kubectl, objects) = (fixture.kubectl.clone(), text(part));
            std::thread::spawn(move || {
                let said = kubectl.run_with(&["create", "-f", "-"], &objects);
                assert!(said.ok, "{}", said.err);
            })
        });
        // Two replicas, and only one of them writes.
        let gateways = [fixture.gateway("wssgate-0").await, fixture.gateway("wssgate-1").await];
        let creating: Vec<_> = halves.collect();
        creating.into_iter().for_each(|thread| thread.join().unwrap());
        until(Duration::from_secs(60), "every route to be ready", async || {
            let ready = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}";
            let all = fixture.kubectl.must(&["get", "swsr", "-o", ready]);
            (all.lines().filter(|line| *line == "True").count() == 1000).then_some(())
        })
        .await;
        let leaders =
            [gateways[0].metric("wssgate_leader", &[]).await, gateways[1].metric("wssgate_leader", &[]).await];
        assert!((leaders[0] + leaders[1] - 1.0).abs() < 0.1, "{leaders:?}");
        assert_eq!(writes(&fixture.kubectl), 1000);
        at_their_pace(&fixture.kubectl);

        // Endpoints that come and go, routes that are touched: nothing to say.
        let before = [gateways[0].version().await, gateways[1].version().await];
        for index in 0..20 {
            let port = fixture.recorder.port();
            fixture.apply(&[fixture.slice("chat", &format!("10.89.1.{}", 200 + index), port)]);
        }
        // The last one, too.
        let address = fixture.recorder.address();
        let back = fixture.slice("chat", &address.ip().to_string(), address.port());
        let mut unready = back.clone();
        unready["endpoints"][0]["conditions"] = json!({"ready": false, "serving": false});
        let mut empty = back.clone();
        empty["endpoints"] = json!([]);
        for slice in [unready, empty] {
            fixture.apply(&[slice]);
            fixture.becomes(&gateways[0], "r5.example.com", 503).await;
            fixture.becomes(&gateways[1], "r5.example.com", 503).await;
        }
        fixture.apply(&[back]);
        fixture.kubectl.must(&["annotate", "swsr", "r1", "r2", "r3", "example.com/touched=yes"]);
        for (gateway, before) in gateways.iter().zip(before) {
            gateway.published_after(before).await;
        }
        // One that has something to say is written after all of that.
        fixture.apply(&[fixture.route("r0", "again.example.com", &json!({}))]);
        fixture.kubectl.until(LIMIT, &["swsr", "r0"], "to be judged again", |route| {
            (route["status"]["observedGeneration"] == 2).then_some(())
        });
        assert_eq!(writes(&fixture.kubectl), 1001);

        // Neither a new leader nor a replica that starts anew writes what is there already.
        let (leader, [first, second]) = (usize::from(leaders[1] > 0.5), gateways);
        let (leader, other) = if leader == 0 { (first, second) } else { (second, first) };
        drop(leader);
        until(LEASE + Duration::from_secs(10), "the other to lead", async || {
            (other.metric("wssgate_leader", &[]).await > 0.5).then_some(())
        })
        .await;
        fixture.apply(&[fixture.route("r0", "third.example.com", &json!({}))]);
        fixture.kubectl.until(LIMIT, &["swsr", "r0"], "to be judged by the other", |route| {
            (route["status"]["observedGeneration"] == 3).then_some(())
        });
        assert_eq!(writes(&fixture.kubectl), 1002);
    });
}

/// The API server keeps the second in which each status was written: ten in each fifth of a second at the most, so 60 in a
/// whole one, where six fifths begin.
fn at_their_pace(kubectl: &Kubectl) {
    let routes = kubectl.get(&["swsr", "--show-managed-fields"]);
    let mut seconds: BTreeMap<String, usize> = BTreeMap::new();
    for route in routes["items"].as_array().unwrap() {
        let managed = route["metadata"]["managedFields"].as_array().unwrap();
        let ours = managed.iter().find(|entry| entry["manager"] == "wssgate" && entry["subresource"] == "status");
        *seconds.entry(ours.unwrap()["time"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(seconds.values().sum::<usize>(), 1000);
    let most = seconds.values().max().unwrap();
    assert!(*most <= 60, "{most} writes in a second: {seconds:?}");
    assert!(seconds.len() >= 18, "1000 writes within {} seconds: {seconds:?}", seconds.len());
}

fn a_leader_that_dies_is_followed_when_its_lease_is_over_and_one_that_stops_at_once(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "lease", &json!({})).await;
        let first = fixture.gateway("first").await;
        let leads = async |gateway: &Gateway| gateway.metric("wssgate_leader", &[]).await > 0.5;
        until(LIMIT, "the first to lead", async || leads(&first).await.then_some(())).await;
        let second = fixture.gateway("second").await;
        let lease = || fixture.home.get(&["lease", "wssgate"])["spec"].clone();
        let held = lease();
        assert!(held["holderIdentity"].as_str().unwrap().starts_with("first_"), "{held}");
        assert_eq!((&held["leaseDurationSeconds"], &held["leaseTransitions"]), (&json!(15), &json!(0)));
        // Renewed by its holder, and by nobody else.
        until(LIMIT, "a renewal", async || (lease()["renewTime"] != held["renewTime"]).then_some(())).await;
        assert_eq!(lease()["acquireTime"], held["acquireTime"]);
        assert!(!leads(&second).await);

        // SIGKILL: nothing is given up, and the other waits for the end of the Lease.
        drop(first);
        let died = Instant::now();
        fixture.apply(&[fixture.route("chat", "lease.example.com", &json!({}))]);
        // The data plane does not wait for a leader.
        fixture.open(&second, "lease.example.com").await;
        until(LEASE * 2, "the second to lead", async || leads(&second).await.then_some(())).await;
        // Seen unchanged for its whole time; renewed up to two seconds before the death.
        assert!(died.elapsed() > LEASE - Duration::from_secs(4), "taken after {:?}", died.elapsed());
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        let held = lease();
        assert!(held["holderIdentity"].as_str().unwrap().starts_with("second_"), "{held}");
        assert_eq!(held["leaseTransitions"], 1);

        // SIGTERM: given up at once.
        let third = fixture.gateway("third").await;
        second.sigterm();
        let stopped = Instant::now();
        until(LEASE, "the third to lead", async || leads(&third).await.then_some(())).await;
        assert!(stopped.elapsed() < Duration::from_secs(10), "only after {:?}", stopped.elapsed());
    });
}

/// H16: a replica that did not run for longer than its Lease still thinks that it leads when it wakes.
fn a_leader_that_slept_through_its_lease_writes_nothing_when_it_wakes(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "asleep", &json!({})).await;
        let leads = async |gateway: &Gateway| gateway.metric("wssgate_leader", &[]).await > 0.5;
        let first = fixture.gateway("first").await;
        until(LIMIT, "the first to lead", async || leads(&first).await.then_some(())).await;
        fixture.apply(&[fixture.route("chat", "asleep.example.com", &json!({}))]);
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        let second = fixture.gateway("second").await;
        first.signal("STOP");
        until(LEASE * 2, "the second to lead", async || leads(&second).await.then_some(())).await;
        fixture.kubectl.must(&["delete", "service", "chat"]);
        fixture.condition("chat", "ResolvedRefs", "False", "BackendNotFound");
        let version = || fixture.kubectl.get(&["swsr", "chat"])["metadata"]["resourceVersion"].clone();
        let before = version();
        // It wakes with the snapshot in which the Service is there.
        first.signal("CONT");
        until(LIMIT, "the first to give way", async || (!leads(&first).await).then_some(())).await;
        fixture.becomes(&first, "asleep.example.com", 503).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(version(), before, "written by who no longer leads");
        assert!(leads(&second).await);
        let held = fixture.home.get(&["lease", "wssgate"])["spec"].clone();
        assert!(held["holderIdentity"].as_str().unwrap().starts_with("second_"), "{held}");
        assert_eq!(held["leaseTransitions"], 1);
    });
}

/// Time alone changes what there is to say of a certificate: nobody writes anything, and what is served stays served.
fn a_certificate_that_runs_out_is_told_before_and_after_and_drops_nobody(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "time", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let now = jiff::Timestamp::now().as_second();
        // Three minutes long, of which 36 s are left: it is about to end when a sixth of it is, in 6 s.
        let moment = |second: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(second.unsigned_abs());
        let pair = fixture.authority.leaf_with(&["time.example.com"], &rcgen::KeyPair::generate().unwrap(), |params| {
            params.not_before = moment(now - 144);
            params.not_after = moment(now + 36);
        });
        // The socket is read now and then only.
        let heartbeat = json!({"heartbeat": {"interval": "2m"}});
        let spec = json!({"tls": {"certificateRefs": [{"name": "short"}]}, "connection": heartbeat});
        fixture.apply(&[fixture.secret("short", &pair), fixture.route("short", "time.example.com", &spec)]);
        let mut socket = fixture.open(&gateway, "time.example.com").await;
        let written = || {
            let (secret, route) = (fixture.kubectl.get(&["secret", "short"]), fixture.kubectl.get(&["swsr", "short"]));
            (secret["metadata"]["resourceVersion"].clone(), route["metadata"]["generation"].clone())
        };
        let before = written();

        let message = fixture.condition("short", "CertificateReady", "True", "Expiring");
        assert!(message.contains("the certificate expires on") && message.contains("renew it"), "{message}");
        fixture.kubectl.wait("swsr/short", "condition=Ready", LIMIT);
        let told = ("Warning".to_owned(), "Expiring".to_owned());
        until(LIMIT, "the event", async || events(&fixture.kubectl, "short").contains(&told).then_some(())).await;
        let message = fixture.kubectl.until(LIMIT * 2, &["swsr", "short"], "to be told that it is over", |route| {
            let found = condition(route, "CertificateReady").filter(|found| found["reason"] == "Expired")?;
            (found["status"] == "False").then(|| found["message"].as_str().unwrap().to_owned())
        });
        assert!(message.contains("expired on") && message.contains("served anyway"), "{message}");
        // Clients judge dates; one that does not mind is served.
        socket.echo(&Frame::text("nobody was dropped")).await;
        assert_eq!(fixture.status(&gateway, "time.example.com").await, 0, "a client that minds");
        assert_eq!(written(), before);

        let next = fixture.authority.leaf(&["time.example.com"]);
        fixture.apply(&[fixture.secret("short", &next)]);
        fixture.condition("short", "CertificateReady", "True", "Ready");
        fixture.becomes(&gateway, "time.example.com", 101).await;
        socket.echo(&Frame::text("nor by the next one")).await;

        // One that is refused is told, and the last good one stays.
        let broken = Pair { chain: next.chain.clone(), key: pair.key.clone() };
        fixture.apply(&[fixture.secret("short", &broken)]);
        let message = fixture.condition("short", "CertificateReady", "False", "InvalidCertificate");
        assert!(message.contains("is not the key of the first certificate"), "{message}");
        let told = ("Warning".to_owned(), "InvalidCertificate".to_owned());
        until(LIMIT, "the event", async || events(&fixture.kubectl, "short").contains(&told).then_some(())).await;
        assert_eq!(fixture.status(&gateway, "time.example.com").await, 101);
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_status_says_all_that_people_and_tools_look_for,
        a_hostname_conflict_is_told_and_resolved,
        a_neighbour_joins_a_host_without_tls_and_a_stranger_does_not,
        an_older_route_that_is_refused_keeps_its_hosts_from_other_namespaces,
        a_route_that_leaves_the_class_loses_what_was_said_of_it,
        two_gateways_side_by_side_speak_of_their_own_routes_only,
        a_thousand_routes_settle_with_one_write_each_and_endpoints_write_nothing,
        a_leader_that_dies_is_followed_when_its_lease_is_over_and_one_that_stops_at_once,
        a_certificate_that_runs_out_is_told_before_and_after_and_drops_nobody,
        a_leader_that_slept_through_its_lease_writes_nothing_when_it_wakes,
    ]
}
