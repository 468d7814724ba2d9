//! What handshakes are judged with and cannot be reached, as the route's status says it: by the leader, seldom, and taken
//! back when it answers again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::fixture::{Fixture, LIMIT, condition, events, run, upgrade};
use super::harness::{Behaviour, Gateway, Recorder, until};
use super::sandbox;

fn answer(status: &str) -> Behaviour {
    Behaviour::bytes(format!("HTTP/1.1 {status}\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n"))
}

fn asks(service: &str) -> Value {
    let external = json!({
        "backendRef": {"name": service, "port": 8080}, "path": "/check", "allowedHeaders": ["cookie"],
    });
    json!({"handshake": {"authentication": {"mode": "AnyOf", "methods": [
        {"name": "sessions", "type": "External", "external": external},
    ]}}})
}

/// One handshake with a cookie; its status.
async fn knock(fixture: &Fixture<'_>, gateway: &Gateway, host: &str) -> u16 {
    let head = upgrade(host).add("Origin", format!("https://{host}")).add("Cookie", "sid=1");
    let mut peer = fixture.client(gateway, host).connect().await;
    peer.write(&head.bytes()).await;
    peer.head().await.map_or(0, |answer| answer.status())
}

/// Knocks until the route `chat` has a condition `Degraded`, or has none; what it is then.
async fn knock_until(fixture: &Fixture<'_>, gateway: &Gateway, host: &str, degraded: bool) -> Value {
    let start = Instant::now();
    loop {
        knock(fixture, gateway, host).await;
        let route = fixture.kubectl.get(&["swsr", "chat"]);
        if condition(&route, "Degraded").is_some() == degraded {
            return route;
        }
        assert!(start.elapsed() < LIMIT * 2, "still waiting for degraded={degraded}: {route:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn a_service_that_judges_and_cannot_be_reached_is_a_condition_of_its_routes_until_it_can(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "judge", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let judge = Recorder::start_on(answer("204 No Content"), sandbox::address()).await;
        let host = "judge.example.com";
        fixture.apply(&fixture.service("sessions", &judge));
        fixture.apply(&[
            fixture.route("chat", host, &asks("sessions")),
            fixture.route("other", "unjudged.example.com", &json!({})),
        ]);
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        fixture.kubectl.wait("swsr/other", "condition=Ready", LIMIT);
        until(LIMIT, "a yes", async || (knock(&fixture, &gateway, host).await == 101).then_some(())).await;
        let before = fixture.kubectl.get(&["swsr", "chat"]);
        assert!(condition(&before, "Degraded").is_none(), "{before:#}");

        judge.behave(answer("500 Oops"));
        let out = knock_until(&fixture, &gateway, host, true).await;
        let degraded = condition(&out, "Degraded").unwrap();
        assert_eq!((&degraded["status"], &degraded["reason"]), (&json!("True"), &json!("ServiceUnavailable")));
        let message = degraded["message"].as_str().unwrap();
        assert!(message.contains("methods[0].external.backendRef") && message.contains("sessions:8080"), "{message}");
        assert_eq!(degraded["observedGeneration"], out["metadata"]["generation"]);
        // What is wrong is not the route: who waits for it need not begin anew.
        assert_eq!(condition(&out, "Ready").unwrap()["status"], "True");
        assert!(condition(&out, "Stalled").is_none());
        for kind in ["Accepted", "ResolvedRefs", "Programmed", "Ready"] {
            assert_eq!(condition(&before, kind), condition(&out, kind), "{kind} did not turn");
        }
        let told = ("Warning".to_owned(), "ServiceUnavailable".to_owned());
        until(LIMIT, "the event", async || events(&fixture.kubectl, "chat").contains(&told).then_some(())).await;

        // It goes on, in several ways; nothing is written again.
        let version = |route: &Value| route["metadata"]["resourceVersion"].clone();
        for behaviour in [Behaviour::Reset, answer("503 Busy"), Behaviour::bytes("hello\r\n\r\n"), answer("429 Many")] {
            judge.behave(behaviour);
            for _ in 0..10 {
                assert_eq!(knock(&fixture, &gateway, host).await, 503);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        assert_eq!(version(&fixture.kubectl.get(&["swsr", "chat"])), version(&out));

        judge.behave(answer("204 No Content"));
        let over = knock_until(&fixture, &gateway, host, false).await;
        assert_eq!(condition(&over, "Ready"), condition(&before, "Ready"));
        let told = ("Normal".to_owned(), "Recovered".to_owned());
        until(LIMIT, "the event", async || events(&fixture.kubectl, "chat").contains(&told).then_some(())).await;
        let other = fixture.kubectl.get(&["swsr", "other"]);
        assert!(condition(&other, "Degraded").is_none() && events(&fixture.kubectl, "other").is_empty());
    });
}

fn a_service_that_flaps_causes_few_writes(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "flap", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let judge = Recorder::start_on(answer("204 No Content"), sandbox::address()).await;
        let host = "flap.example.com";
        fixture.apply(&fixture.service("sessions", &judge));
        fixture.apply(&[fixture.route("chat", host, &asks("sessions"))]);
        fixture.kubectl.wait("swsr/chat", "condition=Ready", LIMIT);
        until(LIMIT, "a yes", async || (knock(&fixture, &gateway, host).await == 101).then_some(())).await;
        let writes = async || gateway.metric("wssgate_status_writes_total", &[]).await;
        let before = writes().await;
        let start = Instant::now();
        // Twice a second from one to the other, for twenty seconds.
        while start.elapsed() < Duration::from_secs(20) {
            judge.behave(answer(if (start.elapsed().as_millis() / 500).is_multiple_of(2) {
                "500 Oops"
            } else {
                "204 No Content"
            }));
            knock(&fixture, &gateway, host).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(gateway.refusals(Some("external_unavailable")).await > 20.0, "it did flap");
        assert!((writes().await - before).abs() < 0.1, "{} writes", writes().await - before);
    });
}

fn a_key_set_that_cannot_be_fetched_is_a_condition_of_its_routes(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "issuer", &json!({})).await;
        // Two replicas: the one that leads says what it sees.
        let gateways = [fixture.gateway("wssgate-0").await, fixture.gateway("wssgate-1").await];
        // Nobody listens there.
        let uri = format!("https://{}:1/jwks?key=canary-0123456789", sandbox::address());
        let jwt = json!({
            "issuer": "https://idp.example.com", "audiences": ["chat"],
            "jwks": {"type": "Remote", "remote": {"uri": uri}},
            "extractFrom": [{"type": "Header", "name": "Authorization", "valuePrefix": "Bearer "}],
        });
        let methods = json!([{"name": "idp", "type": "JWT", "jwt": jwt}]);
        let spec = json!({"handshake": {"authentication": {"mode": "AnyOf", "methods": methods}}});
        fixture.apply(&[fixture.route("chat", "issuer.example.com", &spec)]);
        let message = fixture.condition("chat", "Degraded", "True", "KeysUnavailable");
        assert!(message.contains("methods[0].jwt.jwks.remote.uri") && !message.contains("canary"), "{message}");
        for gateway in &gateways {
            until(LIMIT, "each replica's own metric", async || {
                let up = gateway.samples("wssgate_dependency_up", &[("kind", "jwks")]).await;
                (up == [0.0]).then_some(())
            })
            .await;
        }
        let ready = fixture.kubectl.get(&["swsr", "chat"]);
        assert_eq!(condition(&ready, "Ready").unwrap()["status"], "True");
        fixture.apply(&[fixture.route("chat", "issuer.example.com", &json!({}))]);
        fixture.kubectl.until(LIMIT, &["swsr", "chat"], "to depend on nothing", |route| {
            condition(route, "Degraded").is_none().then_some(())
        });
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_service_that_judges_and_cannot_be_reached_is_a_condition_of_its_routes_until_it_can,
        a_service_that_flaps_causes_few_writes,
        a_key_set_that_cannot_be_fetched_is_a_condition_of_its_routes,
    ]
}
