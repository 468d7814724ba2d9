//! Tickets: issued to a POST with another method's credential, redeemed once by the page that asked for them, and worth
//! nothing anywhere else.

use std::time::Duration;

use crate::harness::issuer::{
    any_of, claims, config_map, external, fixture_with, holds_nothing_of, method, now, set, unauthorized,
};
use crate::harness::manifests::{merge, route, service_as, text};
use crate::harness::{self, Answer, Behaviour, Client, Frame, Head, Key, Recorder, Setup, json, within};
use serde_json::Value;

const PAGE: &str = "https://app.example.com";

fn ticket(others: &Value) -> Value {
    let mut ticket = json!({"path": "/ticket"});
    merge(&mut ticket, others);
    json!({"name": "ticket", "type": "Ticket", "ticket": ticket})
}

fn spec(others: &Value) -> Value {
    let claims = json!({"claimToHeaders": [{"claim": "sub", "header": "x-user"}]});
    let mut spec = any_of(&[method(&claims), ticket(others)]);
    spec["handshake"]["origins"] = json!({"allow": [PAGE, "https://other.example.com"]});
    spec
}

async fn fixture(key: &Key, others: &Value) -> Setup {
    fixture_with(&spec(others), &[config_map("idp", &set(&[key]))]).await
}

fn post(token: &str) -> Head {
    Head::request("POST /ticket HTTP/1.1")
        .add("Origin", PAGE)
        .add("Content-Length", "0")
        .add("Authorization", format!("Bearer {token}"))
}

/// The whole answer to a call.
async fn call(client: &Client, head: &Head) -> Answer {
    let mut peer = client.connect().await;
    peer.write(&head.bytes()).await;
    let bytes = peer.rest(harness::SOON, "the end of a call").await;
    Answer::parse(&bytes).expect("an answer to the call")
}

/// Buys a ticket.
async fn issue(client: &Client, head: &Head) -> String {
    let answer = call(client, head).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["ticket"].as_str().unwrap().to_owned()
}

fn redeem(ticket: &str) -> Head {
    Head::upgrade(&format!("/room?ticket={ticket}&a=1")).add("Origin", PAGE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_issued_and_redeemed_once_in_the_query_or_as_a_subprotocol() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({})).await;
    let token = key.sign(&claims(&json!({})));
    let answer = call(&setup.client(), &post(&token)).await;
    assert_eq!(answer.status(), 200, "{answer:?}");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("access-control-allow-origin", PAGE),
        ("vary", "Origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(answer.count("access-control-allow-credentials"), 0, "no cookie authenticates here");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let first = body["ticket"].as_str().unwrap().to_owned();
    assert_eq!((body["expiresIn"].as_u64(), body.as_object().unwrap().len(), first.len()), (Some(30), 2, 43));
    assert_eq!(setup.recorder.count(), (0, 0), "the backend has no part in it");
    setup.admitted("in the query", &redeem(&first).add("X-User", "root")).await;
    let got = setup.recorder.last().head();
    assert_eq!(got.line, "GET /room?a=1 HTTP/1.1");
    assert_eq!((got.count("x-user"), got.field("x-user").as_deref()), (1, Some("ada")), "as with the token itself");
    unauthorized(&setup, "E12 again", &redeem(&first), "ticket_invalid").await;

    let second = issue(&setup.client(), &post(&token)).await;
    let offer = |ticket: &str| {
        Head::upgrade("/").add("Origin", PAGE).add("Sec-WebSocket-Protocol", format!("chat.v2, ticket.{ticket}"))
    };
    let (answer, peer) = setup.client().ask(&offer(&second)).await;
    assert_eq!((answer.status(), answer.field("sec-websocket-protocol").as_deref()), (101, Some("chat.v2")));
    assert!(peer.close(1000, "").await.is_some());
    assert_eq!(setup.recorder.last().head().field("sec-websocket-protocol").as_deref(), Some("chat.v2"));
    unauthorized(&setup, "E12 again", &offer(&second), "ticket_invalid").await;
    for counted in ["wssgate_tickets_issued_total", "wssgate_tickets_redeemed_total"] {
        assert!((setup.gateway.metric(counted, &[]).await - 2.0).abs() < 0.1, "{counted}");
    }
    holds_nothing_of(&setup.gateway, &[&token, &first, &second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_redeem_one_ticket_at_once_one_gets_in() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({"ttl": "60s"})).await;
    let ticket = issue(&setup.client(), &post(&key.sign(&claims(&json!({}))))).await;
    // Everyone is connected before anyone asks.
    let mut peers = Vec::new();
    while peers.len() < 1000 {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let client = setup.client();
            tasks.spawn(async move { client.connect().await });
        }
        peers.extend(tasks.join_all().await);
        // The head may take 5 s: those who connect later must not find the first ones gone.
        for peer in peers.iter_mut().rev().take(50) {
            peer.write(&redeem(&ticket).bytes()[..40]).await;
        }
    }
    let rest = redeem(&ticket).bytes()[40..].to_vec();
    let mut asking = tokio::task::JoinSet::new();
    for mut peer in peers {
        let rest = rest.clone();
        asking.spawn(async move {
            peer.write(&rest).await;
            let status = peer.head().await.map_or(0, |answer| answer.status());
            (status, peer)
        });
    }
    let statuses: Vec<(u16, harness::Peer)> = asking.join_all().await;
    let of = |wanted: u16| statuses.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!(of(101), 1, "E12 {}x 401, {}x 408", of(401), of(408));
    assert!(of(401) > 500, "E12 only {} raced", of(401));
    assert_eq!(setup.recorder.count().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_bound_to_its_route_its_origin_and_its_time() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({"ttl": "2s"})).await;
    let mut other = spec(&json!({"path": "/other/ticket"}));
    other["rules"] = json!([{
        "name": "other", "matches": [{"path": {"type": "PathPrefix", "value": "/other"}}],
        "backendRefs": [{"name": "chat", "port": 8080}],
    }]);
    other["tls"] = Value::Null;
    setup.gateway.edit("other.yaml", &text(&[route("other", harness::HOST, "chat-tls", "chat", &other)])).await;
    let token = key.sign(&claims(&json!({})));
    let one = issue(&setup.client(), &post(&token)).await;
    let at = |path: &str| Head::upgrade(&format!("{path}?ticket={one}")).add("Origin", PAGE);
    unauthorized(&setup, "E13 another route", &at("/other"), "ticket_invalid").await;
    unauthorized(&setup, "E13 another origin", &at("/").set("Origin", "https://other.example.com"), "ticket_invalid")
        .await;
    unauthorized(&setup, "E13 no origin", &at("/").without("Origin"), "ticket_invalid").await;
    // A ticket has 43 characters of base64url, and the last is one of sixteen: one time in sixteen it is A itself.
    let end = if one.ends_with('A') { 'E' } else { 'A' };
    for (case, bad) in [
        ("tampered", format!("{}{end}", &one[..42])),
        ("shorter", one[..42].to_owned()),
        ("longer", format!("{one}A")),
        ("escaped", format!("%{:02X}{}", one.as_bytes()[0], &one[1..])),
        ("nothing", String::new()),
    ] {
        unauthorized(&setup, &format!("E13 {case}"), &redeem(&bad), "ticket_invalid").await;
    }
    let both = redeem(&one).add("Authorization", format!("Bearer {token}"));
    unauthorized(&setup, "two credentials", &both, "credential_ambiguous").await;
    setup.refused("a foreign page", &at("/").set("Origin", "https://evil.test"), &[403], &["origin_denied"]).await;
    setup.admitted("none of these cost the ticket", &redeem(&one)).await;
    let late = issue(&setup.client(), &post(&token)).await;
    tokio::time::sleep(Duration::from_millis(2050)).await;
    unauthorized(&setup, "E13 its time is over", &redeem(&late), "ticket_invalid").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_can_be_bound_too() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({"bindAddress": true})).await;
    let ticket = issue(&setup.client(), &post(&key.sign(&claims(&json!({}))))).await;
    let client = setup.client();
    let mut peer = client.connect_over(client.tcp_from("127.0.0.9").await).await.unwrap();
    peer.write(&redeem(&ticket).bytes()).await;
    assert_eq!(peer.head().await.unwrap().status(), 401, "E13 another address");
    setup.admitted("the address that asked for it", &redeem(&ticket)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_a_ticket_who_could_not_connect() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({})).await;
    let good = post(&key.sign(&claims(&json!({}))));
    let ticket = issue(&setup.client(), &good).await;
    let bare = good.clone().without("Authorization");
    for (case, head, status, reason) in [
        ("no credential", bare.clone(), 401, "credential_missing"),
        ("a bad token", post(&Key::es256("x").sign(&claims(&json!({})))), 401, "token_untrusted"),
        ("an expired token", post(&key.sign(&claims(&json!({"exp": now() - 40})))), 401, "token_expired"),
        ("a ticket", bare.clone().line(format!("POST /ticket?ticket={ticket} HTTP/1.1")), 401, "ticket_invalid"),
        ("another page", good.clone().set("Origin", "https://evil.test"), 403, "origin_denied"),
        ("null", good.clone().set("Origin", "null"), 403, "origin_denied"),
        ("another path", good.clone().line("POST /tickets HTTP/1.1"), 405, "method_not_allowed"),
        ("a method of nobody's", good.clone().line("PUT /ticket HTTP/1.1"), 405, "method_not_allowed"),
        ("a body", good.clone().set("Content-Length", "2").then("{}"), 405, "method_not_allowed"),
        ("a chunked body", good.clone().set("Transfer-Encoding", "chunked"), 405, "method_not_allowed"),
        ("another host", good.clone().set("Host", "other.example.com"), 405, "method_not_allowed"),
        ("a GET", good.clone().line("GET /ticket HTTP/1.1").without("Content-Length"), 426, "upgrade_required"),
    ] {
        let answer = setup.refused(case, &head, &[status], &[reason]).await;
        assert_eq!(answer.count("access-control-allow-origin"), 0, "{case}");
    }
    // An upgrade that is asked for by POST is none.
    let upgrade = Head::upgrade("/ticket").line("POST /ticket HTTP/1.1").add("Origin", PAGE);
    setup.refused("an upgrade", &upgrade, &[405], &["method_not_allowed"]).await;
    setup.admitted("the ticket that was shown for another", &redeem(&ticket)).await;
    // What came behind a call is never read as another request.
    let twice = good.clone().then(good.bytes());
    let mut peer = setup.client().connect().await;
    peer.write(&twice.bytes()).await;
    let bytes = peer.rest(harness::SOON, "the end").await;
    assert_eq!(bytes.windows(5).filter(|window| window == b"HTTP/").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subject_has_its_part_of_the_tickets_and_others_buy_theirs() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({})).await;
    let of = |subject: &str| post(&key.sign(&claims(&json!({"sub": subject}))));
    let mut tickets = Vec::new();
    for _ in 0..32 {
        tickets.push(issue(&setup.client(), &of("greedy")).await);
    }
    setup.refused("E23 one more", &of("greedy"), &[429], &["ticket_limit"]).await;
    issue(&setup.client(), &of("modest")).await;
    setup.admitted("E23 the first ticket", &redeem(&tickets[0])).await;
    issue(&setup.client(), &of("greedy")).await;
    setup.refused("E23 again", &of("greedy"), &[429], &["ticket_limit"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_allows_the_pages_of_the_route_and_no_other() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({})).await;
    let ask = |origin: &str| {
        Head::request("OPTIONS /ticket HTTP/1.1")
            .add("Origin", origin)
            .add("Access-Control-Request-Method", "POST")
            .add("Access-Control-Request-Headers", "authorization, x-evil")
    };
    let answer = call(&setup.client(), &ask(PAGE)).await;
    assert_eq!(answer.status(), 204, "{answer:?}");
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "authorization"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.field(name).as_deref(), Some(value), "{name}");
    }
    let answer = setup.refused("a foreign page", &ask("https://evil.test"), &[403], &["origin_denied"]).await;
    assert_eq!(answer.count("access-control-allow-origin"), 0);
    setup.refused("elsewhere", &ask(PAGE).line("OPTIONS / HTTP/1.1"), &[405], &["method_not_allowed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_gets_a_ticket_and_the_connection_lives_by_the_session() {
    let asked = Recorder::start(Behaviour::bytes("HTTP/1.1 200 OK\r\nX-User: ada\r\nContent-Length: 0\r\n\r\n")).await;
    let sessions = external(&json!({"allowedResponseHeaders": ["x-user"]}));
    let mut spec = any_of(&[sessions, ticket(&json!({}))]);
    spec["handshake"]["origins"] = json!({"allow": [PAGE]});
    spec["connection"] = json!({"limits": {"perSubject": 1}});
    let setup = fixture_with(&spec, &service_as("sessions", "http", &[asked.port()])).await;
    let head = Head::request("POST /ticket HTTP/1.1").add("Origin", PAGE).add("Cookie", "sid=canary-0123456789");
    let answer = call(&setup.client(), &head).await;
    assert_eq!(answer.field("access-control-allow-credentials").as_deref(), Some("true"), "{answer:?}");
    let (one, two) = (issue(&setup.client(), &head).await, issue(&setup.client(), &head).await);
    assert_eq!(asked.last().head().field("x-forwarded-uri").as_deref(), Some("/ticket"));
    let mut peer = setup.client().open(&redeem(&one)).await;
    peer.echo(&Frame::text("in")).await;
    assert_eq!(setup.recorder.last().head().field("x-user").as_deref(), Some("ada"));
    setup.refused("the same subject", &redeem(&two), &[429], &["subject_limit"]).await;
    // What refuses a handshake costs no ticket; the method that it was issued for is what it stands for.
    spec["handshake"]["authentication"]["methods"][0]["external"]["path"] = json!("/other");
    setup.respec(&spec).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008));
    setup.refused("the verdict of another service", &redeem(&two), &[403], &["external_denied"]).await;
    within(harness::PATIENCE, "no connection", setup.gateway.metric_becomes("wssgate_connections", &[], 0.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_by_ticket_ends_with_the_credential_that_it_was_issued_for() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({})).await;
    let answer = call(&setup.client(), &post(&key.sign(&claims(&json!({"exp": now() + 4}))))).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(body["expiresIn"].as_u64().unwrap() <= 4, "no longer than the credential: {body}");
    let mut peer = setup.client().open(&redeem(body["ticket"].as_str().unwrap())).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008), "E17");
}
