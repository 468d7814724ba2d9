//! Where credentials may be, one at a time, and what the backend sees of them: nothing, unless the route says so.

use crate::harness::issuer::{
    any_of, bearer, claims, config_map, fixture, fixture_with, holds_nothing_of, method, set, unauthorized,
};
use crate::harness::{self, Answer, Head, Key, Setup, json};
use serde_json::Value;

fn everywhere() -> Value {
    json!({"extractFrom": [
        {"type": "Header", "name": "Authorization", "valuePrefix": "Bearer "},
        {"type": "Query", "name": "token"},
        {"type": "Cookie", "name": "session"},
        {"type": "Subprotocol", "valuePrefix": "bearer."},
    ]})
}

/// A handshake of a page of the host, as a cookie needs it.
fn page(path: &str) -> Head {
    Head::upgrade(path).add("Origin", "https://chat.example.com")
}

/// The head that the backend got of an admitted handshake, without a trace of the token.
async fn forwarded(setup: &Setup, case: &str, head: &Head, token: &str) -> Answer {
    setup.admitted(case, head).await;
    let seen = setup.recorder.last();
    assert!(!String::from_utf8_lossy(&seen.bytes.lock().unwrap()).contains(token), "{case}: the backend got the token");
    seen.head()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_from_each_place_and_the_backend_gets_the_rest() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &everywhere()).await;
    let token = key.sign(&claims(&json!({})));
    let head = page("/").add("Authorization", format!("Bearer {token}")).add("Cookie", "theme=dark");
    let got = forwarded(&setup, "header", &head, &token).await;
    assert_eq!((got.count("authorization"), got.field("cookie").as_deref()), (0, Some("theme=dark")));
    let got = forwarded(&setup, "query", &page(&format!("/room?a=1&token={token}&b=%20")), &token).await;
    assert_eq!(got.line, "GET /room?a=1&b=%20 HTTP/1.1");
    let got = forwarded(&setup, "query alone", &page(&format!("/room?token={token}")), &token).await;
    assert_eq!(got.line, "GET /room HTTP/1.1");
    let head = page("/").add("Cookie", format!("a=1; session={token}; b=2")).add("Authorization", "Basic dTpw");
    let got = forwarded(&setup, "cookie", &head, &token).await;
    assert_eq!(got.field("cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(got.count("authorization"), 0, "a carrier of this route that nothing verified");
    let got = forwarded(&setup, "cookie alone", &page("/").add("Cookie", format!("session={token}")), &token).await;
    assert_eq!(got.count("cookie"), 0);
    holds_nothing_of(&setup.gateway, &[&token]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_credentials_are_refused_even_if_both_are_good() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &everywhere()).await;
    let token = key.sign(&claims(&json!({})));
    let bearer = format!("Bearer {token}");
    let query = format!("/?token={token}");
    for (case, head) in [
        ("two headers", page("/").add("Authorization", &bearer).add("authorization", &bearer)),
        ("header and query", page(&query).add("Authorization", &bearer)),
        ("header and cookie", page("/").add("Authorization", &bearer).add("Cookie", format!("session={token}"))),
        ("header and subprotocol", {
            page("/").add("Authorization", &bearer).add("Sec-WebSocket-Protocol", format!("x, bearer.{token}"))
        }),
        ("two parameters", page(&format!("{query}&token={token}"))),
        ("a parameter in disguise", page(&format!("{query}&t%6Fken=x"))),
        ("A10 two cookies", page("/").add("Cookie", format!("session={token}; session={token}"))),
        (
            "A10 five cookies",
            page("/").add("Cookie", format!("session={token}; session=2; session=3; session=4; session=5")),
        ),
        (
            "A10 cookies and a header",
            page("/").add("Cookie", format!("session={token}; session=x")).add("Authorization", &bearer),
        ),
        ("a good one and a bad one", page(&query).add("Authorization", "Bearer x")),
    ] {
        let answer = unauthorized(&setup, case, &head, "credential_ambiguous").await;
        assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer error=\"invalid_request\""), "{case}");
    }
    for (case, head) in [
        ("another parameter", page(&format!("/?Token={token}"))),
        ("another cookie", page("/").add("Cookie", format!("Session={token}; xsession={token}"))),
        ("another header", page("/").add("X-Token", &token)),
        ("without its prefix", page("/").add("Authorization", &token)),
    ] {
        unauthorized(&setup, case, &head, "credential_missing").await;
    }
    unauthorized(&setup, "an empty cookie", &page("/").add("Cookie", "session="), "token_malformed").await;
    holds_nothing_of(&setup.gateway, &[&token]).await;
}

/// A browser sends the cookie of a parent domain beside that of the host, and no page can hold it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_cookies_of_one_name_exactly_one_that_is_valid_admits() {
    let (key, other) = (Key::es256("one"), Key::es256("other"));
    let setup = fixture(&[&key], &everywhere()).await;
    let token = key.sign(&claims(&json!({})));
    let foreign = other.sign(&claims(&json!({})));
    let expired = key.sign(&claims(&json!({"exp": 1_000_000_000})));
    let cookie = |text: String| page("/").add("Cookie", text);
    for (case, head) in [
        ("the valid one first", cookie(format!("session={token}; session={foreign}; a=1"))),
        (
            "the valid one last",
            cookie(format!("session=x; session={expired}; session={foreign}; a=1; session={token}")),
        ),
        ("in quotes", cookie(format!("session=\"{token}\"; a=1; session=x"))),
        ("two fields", cookie(format!("session={expired}")).add("Cookie", format!("a=1; session={token}"))),
    ] {
        let got = forwarded(&setup, case, &head, &token).await;
        assert_eq!((got.count("cookie"), got.field("cookie").as_deref()), (1, Some("a=1")), "A10 {case}");
    }
    let second = key.sign(&claims(&json!({"sub": "bob"})));
    for (case, head, reason) in [
        ("two valid ones", cookie(format!("session={token}; session={second}")), "credential_ambiguous"),
        ("one valid one twice", cookie(format!("session={token}; session={token}")), "credential_ambiguous"),
        ("none valid", cookie(format!("session={expired}; session={foreign}")), "token_expired"),
        ("five", cookie(format!("session={token}{}", "; session=x".repeat(4))), "credential_ambiguous"),
    ] {
        unauthorized(&setup, &format!("A10 {case}"), &head, reason).await;
    }
    holds_nothing_of(&setup.gateway, &[&token, &foreign, &expired]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_credential_in_any_spelling_never_reaches_the_backend() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &everywhere()).await;
    let token = key.sign(&claims(&json!({})));
    let query = format!("/?token={token}");
    let bearer = format!("Bearer {token}");
    for value in ["Bearer\tforged", "Basic forged", "forged", "\"Bearer forged\"", "Bearer,forged", "Token forged"] {
        let got = forwarded(&setup, value, &page(&query).add("Authorization", value), "forged").await;
        assert_eq!(got.count("authorization"), 0, "{value:?}");
    }
    for value in ["Session=forged", "a=1,session=forged", "SESSION = forged"] {
        let got = forwarded(&setup, value, &page(&query).add("Cookie", value), "forged").await;
        assert_eq!(got.count("cookie"), 0, "{value:?}");
    }
    for value in ["Token=forged", "a;token=forged", "token[]=forged", "%20token=forged"] {
        let head = page(&format!("/?a=1&{value}")).add("Authorization", &bearer);
        let got = forwarded(&setup, value, &head, "forged").await;
        assert_eq!(got.line, "GET /?a=1 HTTP/1.1", "{value:?}");
    }
    let head = page(&query).add("Sec-WebSocket-Protocol", "chat, Bearer.forged");
    let (answer, peer) = setup.client().ask(&head).await;
    assert_eq!(answer.status(), 101, "{answer:?}");
    assert!(peer.close(1000, "").await.is_some());
    assert_eq!(setup.recorder.last().head().field("sec-websocket-protocol").as_deref(), Some("chat"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_the_second_of_a_pair_of_subprotocols() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({"extractFrom": [{"type": "Subprotocol", "name": "Bearer"}]})).await;
    let token = key.sign(&claims(&json!({})));
    for (offers, answered, offered) in [
        (format!("Bearer, {token}"), "Bearer", None),
        (format!("chat.v2, Bearer, {token}"), "chat.v2", Some("chat.v2")),
    ] {
        let (answer, peer) = setup.client().ask(&page("/").add("Sec-WebSocket-Protocol", &offers)).await;
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(answer.field("sec-websocket-protocol").as_deref(), Some(answered));
        assert!(peer.close(1000, "").await.is_some());
        assert_eq!(setup.recorder.last().head().field("sec-websocket-protocol").as_deref(), offered);
    }
    unauthorized(
        &setup,
        "a name alone",
        &page("/").add("Sec-WebSocket-Protocol", "chat, Bearer"),
        "credential_missing",
    )
    .await;
    holds_nothing_of(&setup.gateway, &[&token]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_among_the_subprotocols_is_neither_answered_nor_forwarded() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &everywhere()).await;
    let token = key.sign(&claims(&json!({})));
    let offer = |list: &str| page("/").add("Sec-WebSocket-Protocol", list.replace("TOKEN", &format!("bearer.{token}")));
    for list in ["chat.v2, TOKEN", "TOKEN, chat.v2", "TOKEN, chat.v2, other"] {
        let (answer, peer) = setup.client().ask(&offer(list)).await;
        assert_eq!(answer.status(), 101, "{answer:?}");
        assert_eq!(answer.field("sec-websocket-protocol").as_deref(), Some("chat.v2"), "E16 {list}");
        assert!(peer.close(1000, "").await.is_some(), "{list}");
        let got = setup.recorder.last();
        assert!(!String::from_utf8_lossy(&got.bytes.lock().unwrap()).contains("bearer."), "E16");
    }
    // A backend that knows no subprotocol: the browser must still get one of its own back.
    setup.recorder.behave(harness::Behaviour::accepting(|accept| {
        format!("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
    }));
    let (answer, peer) = setup.client().ask(&offer("TOKEN, chat.v2")).await;
    assert_eq!(answer.field("sec-websocket-protocol").as_deref(), Some("chat.v2"), "E16");
    drop(peer);
    setup.recorder.frames_of_last("the end of that connection").await;
    setup.refused("E16 nothing but a token", &offer("TOKEN"), &[400], &["subprotocol_denied"]).await;
    unauthorized(&setup, "two tokens", &offer("TOKEN, bearer.x, chat"), "credential_ambiguous").await;
    unauthorized(&setup, "a bad one", &offer("chat, bearer.x"), "token_malformed").await;
    holds_nothing_of(&setup.gateway, &[&token]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_subprotocol_is_needed_beside_the_token() {
    let key = Key::es256("one");
    let mut spec = any_of(&[method(&everywhere())]);
    spec["handshake"]["subprotocols"] = json!(["chat.v2"]);
    let setup = fixture_with(&spec, &[config_map("idp", &set(&[&key]))]).await;
    let token = key.sign(&claims(&json!({})));
    let offer = |list: &str| page("/").add("Sec-WebSocket-Protocol", list.replace("TOKEN", &format!("bearer.{token}")));
    setup.admitted("listed", &offer("other, chat.v2, TOKEN")).await;
    assert_eq!(setup.recorder.last().head().field("sec-websocket-protocol").as_deref(), Some("chat.v2"));
    setup.refused("not listed", &offer("other, TOKEN"), &[400], &["subprotocol_denied"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_needs_an_allowed_origin() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &json!({"extractFrom": [{"type": "Cookie", "name": "session"}]})).await;
    let cookie = format!("session={}", key.sign(&claims(&json!({}))));
    let head = Head::upgrade("/").add("Cookie", &cookie);
    setup.admitted("the page's own origin", &head.clone().add("Origin", "https://chat.example.com")).await;
    setup
        .refused("A1 another site", &head.clone().add("Origin", "https://evil.test"), &[403], &["origin_denied"])
        .await;
    setup.refused("A2 null", &head.clone().add("Origin", "null"), &[403], &["origin_denied"]).await;
    setup.refused("A3 no origin", &head, &[403], &["origin_missing"]).await;
    // The origin is judged before the credential: a foreign page cannot find out whether a cookie is good.
    let none = Head::upgrade("/").add("Origin", "https://evil.test");
    setup.refused("A1 without a cookie", &none, &[403], &["origin_denied"]).await;
    let setup = fixture(&[&key], &json!({})).await;
    let token = key.sign(&claims(&json!({})));
    setup.admitted("a header is not ambient: no origin is needed", &bearer(&token)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_become_headers_that_no_client_can_set() {
    let key = Key::es256("one");
    let headers = json!({"claimToHeaders": [
        {"claim": "sub", "header": "X-Subject"}, {"claim": "scope", "header": "x-scope"},
        {"claim": "level", "header": "x-level"}, {"claim": "beta", "header": "x-beta"},
    ]});
    let setup = fixture(&[&key], &headers).await;
    let token = key.sign(&claims(&json!({"scope": "chat read", "level": 3})));
    let mut head = bearer(&token);
    for name in ["X-Subject", "x-subject", "X_Subject", "x-Subject", "X-Scope", "X-Beta", "X_Beta", "x_beta"] {
        head = head.add(name, "root");
    }
    // C10: hop-by-hop removal comes before what the gateway adds.
    head = head.set("Connection", "Upgrade, X-Subject, X-Level");
    let got = forwarded(&setup, "C9 C10", &head, &token).await;
    assert_eq!(got.field("x-subject").as_deref(), Some("ada"));
    assert_eq!(got.field("x-scope").as_deref(), Some("chat read"));
    assert_eq!(got.field("x-level").as_deref(), Some("3"));
    assert_eq!(got.field("x-beta"), None, "a claim that is not there is no header, and none of the client's");
    assert!(!format!("{got:?}").contains("root"), "{got:?}");
    for (case, sub) in [
        ("a line break", json!("a\r\nX-Admin: 1")),
        ("a line feed", json!("a\nb")),
        ("a NUL", json!("a\u{0}")),
        ("a tab", json!("a\tb")),
        ("a space at the end", json!("ada ")),
        ("nothing", json!("")),
        ("more than 4 KiB", json!("a".repeat(4097))),
    ] {
        let token = key.sign(&claims(&json!({"sub": sub, "level": 3})));
        let got = forwarded(&setup, case, &bearer(&token), &token).await;
        let level = got.field("x-level");
        assert_eq!((got.count("x-subject"), got.count("x-admin"), level.as_deref()), (0, 0, Some("3")), "{case}");
    }
    // All of them but the empty one, which says nothing.
    setup.gateway.metric_becomes("wssgate_identity_headers_left_out_total", &[], 6.0).await;
    let token = key.sign(&claims(&json!({"sub": "Дима", "scope": ["chat", 7, true]})));
    let got = forwarded(&setup, "UTF-8 and a list", &bearer(&token), &token).await;
    assert_eq!((got.count("x-subject"), got.field("x-scope").as_deref()), (1, Some("chat,7,true")));
    let required = json!({"claimToHeaders": [{"claim": "/realm/roles", "header": "X-Roles", "required": true}]});
    let setup = fixture(&[&key], &required).await;
    let token = key.sign(&claims(&json!({"realm": {"roles": ["a", "b"]}})));
    let got = forwarded(&setup, "a pointer", &bearer(&token), &token).await;
    assert_eq!(got.field("x-roles").as_deref(), Some("a,b"));
    for realm in [json!(null), json!({"roles": {"a": 1}}), json!({"roles": ["a,b"]}), json!({"roles": []})] {
        let head = bearer(&key.sign(&claims(&json!({"realm": realm}))));
        unauthorized(&setup, "a required one that is none", &head, "token_claims").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_may_forward_the_credential() {
    let key = Key::es256("one");
    let places = json!({"forwardCredential": true, "extractFrom": [
        {"type": "Header", "name": "X-Id-Token"}, {"type": "Query", "name": "token"}, {"type": "Cookie", "name": "session"},
    ]});
    let setup = fixture(&[&key], &places).await;
    let token = key.sign(&claims(&json!({})));
    for (case, head) in [
        ("header", page("/").add("X-Id-Token", &token)),
        ("query", page(&format!("/?token={token}"))),
        ("cookie", page("/").add("Cookie", format!("a=b; session={token}"))),
    ] {
        setup.admitted(case, &head).await;
        let seen = setup.recorder.last();
        assert!(String::from_utf8_lossy(&seen.bytes.lock().unwrap()).contains(&token), "{case}");
    }
    holds_nothing_of(&setup.gateway, &[&token]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_written_holds_a_token_whatever_became_of_it() {
    let key = Key::es256("one");
    let setup = fixture(&[&key], &everywhere()).await;
    let tokens = [
        key.sign(&claims(&json!({"canary": "canary-good-0123456789"}))),
        key.sign(&claims(&json!({"canary": "canary-bad-0123456789", "exp": 1}))),
        Key::es256("x").sign(&claims(&json!({"canary": "canary-foreign-0123456789"}))),
        "canary-malformed-0123456789".to_owned(),
    ];
    for token in &tokens {
        for head in [
            page("/").add("Authorization", format!("Bearer {token}")),
            page(&format!("/a?token={token}")),
            page("/").add("Cookie", format!("session={token}")),
            page("/").add("Sec-WebSocket-Protocol", format!("chat, bearer.{token}")),
            // Judged before the credential is.
            page(&format!("/a?token={token}")).set("Origin", "https://evil.test"),
            page(&format!("/a?token={token}")).set("Host", "other.example.com"),
            page(&format!("/a%2f?token={token}")),
        ] {
            let (answer, _) = setup.client().ask(&head).await;
            assert!(!format!("{answer:?}").contains(token.as_str()));
        }
    }
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
    setup.gateway.access_line("a refusal", |line| line["reason"] == "token_expired").await;
    let secrets: Vec<&str> = tokens.iter().map(String::as_str).collect();
    holds_nothing_of(&setup.gateway, &secrets).await;
    assert!(!setup.gateway.access_text().contains("canary") && !setup.gateway.log_text().contains("canary"));
}
