//! A service that admitted a connection and is asked again while it lives: a no ends it, an outage does not at once.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::issuer::{any_of, external, fixture_with, holds_nothing_of};
use crate::harness::manifests::service_as;
use crate::harness::{Answer, Behaviour, Frame, Head, Recorder, SOON, Setup, json, until};

const SESSION: &str = "sid=canary-recheck-0123456789";
/// The longest until a service that is asked each 10 s is asked again.
const LIMIT: Duration = Duration::from_secs(25);
const RECHECKS: &str = "wssgate_external_rechecks_total";

/// Admits the session as this user.
fn sessions(user: &'static str) -> Behaviour {
    Behaviour::Answer(Arc::new(move |head: &Answer| {
        if head.field("cookie").is_some_and(|cookie| cookie.contains(SESSION)) {
            format!("HTTP/1.1 204 No Content\r\nX-User: {user}\r\n\r\n").into_bytes()
        } else {
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
    }))
}

/// A route whose service is asked again each 10 s; with other methods.
async fn fixture(others: &[serde_json::Value]) -> (Recorder, Setup) {
    let asked = Recorder::start(sessions("ada")).await;
    let objects = service_as("sessions", "http", &[asked.port()]);
    let mut methods = vec![external(&json!({"allowedResponseHeaders": ["x-user"], "recheck": "10s"}))];
    methods.extend_from_slice(others);
    let setup = fixture_with(&any_of(&methods), &objects).await;
    (asked, setup)
}

fn page(path: &str) -> Head {
    Head::upgrade(path).add("Origin", "https://chat.example.com").add("Cookie", SESSION).add("CDN-Loop", "edge")
}

async fn counted(setup: &Setup, outcome: &str, least: f64) {
    until(LIMIT, &format!("{least} rechecks that are {outcome}"), async || {
        let counted: f64 = setup.gateway.samples(RECHECKS, &[("outcome", outcome)]).await.iter().sum();
        (counted >= least).then_some(())
    })
    .await;
}

async fn closed(setup: &Setup, reason: &str) {
    until(LIMIT, &format!("a connection closed for {reason}"), async || {
        let labels = [("reason", reason)];
        (setup.gateway.samples("wssgate_connections_closed_total", &labels).await == [1.0]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_asked_the_same_again_and_its_no_closes_the_connection() {
    let (asked, setup) = fixture(&[]).await;
    let mut peer = setup.client().open(&page("/room/caf%C3%A9?q=1")).await;
    let first = asked.last().head();
    assert_eq!((asked.count().0, first.field("x-forwarded-uri").as_deref()), (1, Some("/room/caf%C3%A9")));
    counted(&setup, "admitted", 1.0).await;
    let again = asked.last().head();
    assert_eq!(asked.count().0, 2);
    assert_eq!((&again.line, &again.fields), (&first.line, &first.fields), "the same request");
    peer.echo(&Frame::text("admitted again")).await;

    // An outage, of the Service or of what it depends on, ends nobody at once.
    asked.behave(Behaviour::bytes("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"));
    counted(&setup, "unavailable", 2.0).await;
    peer.echo(&Frame::text("still there")).await;
    asked.behave(sessions("ada"));
    counted(&setup, "admitted", 2.0).await;
    peer.echo(&Frame::text("mended")).await;

    asked.behave(Behaviour::bytes("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"));
    let code = peer.close_within(LIMIT).await;
    assert_eq!(code.map(|(code, _)| code), Some(1008));
    closed(&setup, "external_withdrawn").await;
    holds_nothing_of(&setup.gateway, &["canary-recheck"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_another_users_by_now_is_closed() {
    let (asked, setup) = fixture(&[]).await;
    let mut peer = setup.client().open(&page("/")).await;
    asked.behave(sessions("eve"));
    let code = peer.close_within(LIMIT).await;
    assert_eq!(code.map(|(code, _)| code), Some(1008));
    closed(&setup, "external_withdrawn").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_a_ticket_opened_returns_with_another_ticket() {
    let ticket = json!({"name": "ticket", "type": "Ticket", "ticket": {"path": "/ticket"}});
    let (asked, setup) = fixture(&[ticket]).await;
    let post = Head::request("POST /ticket HTTP/1.1")
        .add("Content-Length", "0")
        .add("Origin", "https://chat.example.com")
        .add("Cookie", SESSION);
    let mut call = setup.client().connect().await;
    call.write(&post.bytes()).await;
    let answer = Answer::parse(&call.rest(SOON, "the end of the call").await).unwrap();
    let ticket: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let ticket = ticket["ticket"].as_str().unwrap();
    let head = Head::upgrade(&format!("/?ticket={ticket}")).add("Origin", "https://chat.example.com");
    let mut peer = setup.client().open(&head).await;
    let code = peer.close_within(LIMIT).await;
    assert_eq!(code.map(|(code, _)| code), Some(1013));
    closed(&setup, "recheck_missed").await;
    assert_eq!(asked.count().0, 1, "there is nothing to ask with");
}
