//! What a route may set for handshakes that differ from the usual ones: headers that pass, larger heads, slower backends.

use std::time::{Duration, Instant};

use crate::harness::issuer::{self, Key, any_of, bearer, claims, config_map, fixture_with, method, set};
use crate::harness::manifests::{route, text};
use crate::harness::recorder::switching;
use crate::harness::setup::handshake;
use crate::harness::{Behaviour, HOST, Head, Options, Setup, json};

/// A 101 with these fields beside those that it must have.
fn answering(fields: &'static str) -> Behaviour {
    Behaviour::accepting(move |accept| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade, X-Hop\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
        )
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_the_101_pass_that_the_route_lists_and_no_others() {
    let spec = handshake(&json!({"responseHeaders": {"fromBackend": ["Set-Cookie", "x-request-id", "X-Hop"]}}));
    let behaviour = answering(
        "Set-Cookie: sid=abc; Path=/; Secure\r\nSet-Cookie: b=\u{e9}\r\nX-Request-ID: 42\r\nX-Hop: 1\r\nServer: own\r\n",
    );
    let setup = Setup::with(behaviour, &spec, &Options::default()).await;
    let (answer, _) = setup.client().ask(&Head::upgrade("/")).await;
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert_eq!(answer.field("set-cookie").as_deref(), Some("sid=abc; Path=/; Secure, b=\u{e9}"));
    assert_eq!(answer.field("x-request-id").as_deref(), Some("42"));
    assert_eq!((answer.field("x-hop"), answer.field("server")), (None, None), "{answer:?}");
    // Of a refusal none of them passes.
    setup.recorder.behave(Behaviour::bytes("HTTP/1.1 404 X\r\nSet-Cookie: a=b\r\nX-Request-ID: 1\r\n\r\n"));
    let (answer, _) = setup.client().ask(&Head::upgrade("/")).await;
    assert_eq!((answer.status(), answer.field("set-cookie"), answer.field("x-request-id")), (404, None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn withheld_request_headers_pass_that_the_route_lists_and_no_others() {
    let spec = handshake(&json!({"requestHeaders": {"allow": ["X-Auth-Token", "X-User-Id", "api_key", "x-user-hop"]}}));
    let setup = Setup::new(&spec).await;
    let head = Head::upgrade("/")
        .set("Connection", "Upgrade, X-User-Hop")
        .add("X-Auth-Token", "v")
        .add("X-User-Id", "7")
        .add("api_key", "k")
        .add("X-User-Hop", "named by Connection")
        .add("X-User-Agent", "another of the family")
        .add("X_Auth_Token", "another spelling")
        .add("X-Forwarded-User", "never");
    setup.admitted("headers that the route lets pass", &head).await;
    let seen = setup.recorder.last().head();
    for (name, value) in [("x-auth-token", "v"), ("x-user-id", "7"), ("api_key", "k")] {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{seen:?}");
    }
    for name in ["x-user-hop", "x-user-agent", "x_auth_token", "x-forwarded-user"] {
        assert_eq!(seen.field(name), None, "{name}: {seen:?}");
    }
    // Without the field none of them does.
    setup.respec(&json!({})).await;
    setup.admitted("no header is listed", &head).await;
    let seen = setup.recorder.last().head();
    for name in ["x-auth-token", "x-user-id", "api_key"] {
        assert_eq!(seen.field(name), None, "{name}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_does_not_reach_the_backend_because_its_header_may_pass() {
    let key = Key::es256("one");
    let mut spec = any_of(&[method(&json!({"extractFrom": [{"type": "Header", "name": "X-Auth-Token"}]}))]);
    spec["handshake"]["requestHeaders"] = json!({"allow": ["X-Auth-Token"]});
    let setup = fixture_with(&spec, &[config_map("idp", &set(&[&key]))]).await;
    let token = key.sign(&claims(&json!({})));
    setup.admitted("a token in a header that may pass", &Head::upgrade("/").add("X-Auth-Token", token)).await;
    assert_eq!(setup.recorder.last().head().field("x-auth-token"), None);
}

/// A handshake whose head has about so many bytes.
fn padded(path: &str, bytes: usize) -> Head {
    let mut head = Head::upgrade(path);
    for index in 0..bytes / 4000 {
        head = head.add(&format!("X-Pad-{index}"), "p".repeat(3985));
    }
    head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_as_large_as_its_route_lets_it_be() {
    let setup = Setup::new(&handshake(&json!({"maxHeadSize": "64Ki"}))).await;
    setup.admitted("48 KiB of 64", &padded("/", 48_000)).await;
    setup.admitted("a target of 30 KiB", &Head::upgrade(&format!("/?token={}", "t".repeat(30_000)))).await;
    setup.refused("more than 64 KiB", &padded("/", 68_000), &[431], &["head_too_large"]).await;
    setup
        .refused(
            "a target beyond the half",
            &Head::upgrade(&format!("/?{}", "t".repeat(34_000))),
            &[414],
            &["target_too_long"],
        )
        .await;
    // Byte by byte, which must not cost a reading of the whole for each.
    let mut client = setup.client().connect().await;
    let (head, began) = (padded("/", 24_000).bytes(), Instant::now());
    for part in head.chunks(16) {
        client.write(part).await;
    }
    assert!(client.head().await.is_some_and(|answer| answer.status() == 101));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());

    // The default, and one that is smaller.
    setup.respec(&json!({})).await;
    setup.admitted("12 KiB of 16", &padded("/", 12_000)).await;
    setup.refused("20 KiB of 16", &padded("/", 20_000), &[431], &["head_too_large"]).await;
    setup.respec(&handshake(&json!({"maxHeadSize": "2Ki"}))).await;
    setup.admitted("a browser's", &Head::upgrade("/")).await;
    setup.refused("4 KiB of 2", &padded("/", 4_000), &[431], &["head_too_large"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_takes_large_heads_does_not_enlarge_those_of_another_on_its_host() {
    let small = handshake(&json!({}));
    let setup = Setup::new(&small).await;
    let backends = json!([{"name": "chat", "port": 8080}]);
    let rule = json!({"name": "large", "matches": [{"path": {"value": "/large"}}], "backendRefs": backends});
    let spec = json!({"rules": [rule], "handshake": {"maxHeadSize": "64Ki"}});
    let mut large = route("large", HOST, "chat-tls", "chat", &spec);
    large["spec"].as_object_mut().unwrap().remove("tls");
    setup.gateway.edit("large.yaml", &text(&[large])).await;
    setup.admitted("the larger bound", &padded("/large", 40_000)).await;
    let answer = setup.refused("the smaller bound", &padded("/small", 40_000), &[431], &["head_too_large"]).await;
    assert!(answer.line.contains("431"));
    let line = setup.gateway.access_line("the refusal", |line| line["reason"] == "head_too_large").await;
    assert_eq!(line["route"], "shop/chat", "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_may_be_as_large_as_the_head() {
    let key = Key::es256("one");
    let setup = issuer::fixture(&[&key], &json!({})).await;
    let groups: Vec<String> = (0..200).map(|group| format!("{group:08}-0000-4000-8000-000000000000")).collect();
    let token = key.sign(&claims(&json!({"groups": groups})));
    assert!(token.len() > 10_000, "{}", token.len());
    setup.admitted("the token of somebody in 200 groups", &bearer(&token)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_has_the_time_that_its_rule_gives_it() {
    let timeouts = |timeouts: serde_json::Value| {
        let backends = json!([{"name": "chat", "port": 8080}]);
        json!({"rules": [{"name": "all", "backendRefs": backends, "timeouts": timeouts}]})
    };
    let setup = Setup::with(Behaviour::Unanswered, &timeouts(json!({"upgrade": "300ms"})), &Options::default()).await;
    let began = Instant::now();
    let (answer, _) = setup.client().ask(&Head::upgrade("/")).await;
    assert_eq!(answer.status(), 504, "{answer:?}");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    // Longer than the default of ten seconds.
    setup.respec(&timeouts(json!({"connect": "20s", "upgrade": "15s"}))).await;
    let client = setup.client();
    let handshake = tokio::spawn(async move { client.ask(&Head::upgrade("/")).await.0.status() });
    // The first one is that which was given up.
    drop(setup.recorder.peer().await);
    let mut backend = setup.recorder.peer().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let accept = switching(&setup.recorder.last().head());
    assert!(backend.write(accept.as_bytes()).await);
    assert_eq!(handshake.await.unwrap(), 101);
}

#[test]
fn the_page_of_routes_lists_every_header_that_is_withheld() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/routes.md")).unwrap();
    let section = page.split("### Headers that are withheld").nth(1).unwrap().split("\n## ").next().unwrap();
    let missing: Vec<String> =
        wssgate::ws::upgrade::withheld().filter(|name| !section.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "add to docs/routes.md: {missing:?}");
}
