//! Places of routes, addresses and subjects: given back exactly once, whatever ends a connection or its handshake.

use crate::harness::issuer::{any_of, claims, config_map, method, set};
use crate::harness::manifests::merge;
use crate::harness::setup::manifests;
use crate::harness::{
    Authority, Behaviour, Frame, Gateway, Head, Key, Options, PATIENCE, Peer, Recorder, Setup, json, until,
};
use serde_json::Value;

/// A route for bearers of the key's tokens, with these limits.
async fn fixture(key: &Key, limits: &Value) -> Setup {
    let mut spec = any_of(&[method(&json!({}))]);
    merge(&mut spec, &json!({"connection": {"limits": limits}}));
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Manual).await;
    let manifests = manifests(&authority, &recorder, &spec).with("keys.yaml", &[config_map("idp", &set(&[key]))]);
    let gateway = Gateway::start_with(&manifests, &Options::default()).await;
    Setup { authority, recorder, gateway }
}

fn bearer(key: &Key, subject: &str) -> Head {
    let token = key.sign(&claims(&json!({"sub": subject})));
    Head::upgrade("/").add("Authorization", format!("Bearer {token}"))
}

/// Both ends of a connection, or the status of the refusal.
async fn open(setup: &Setup, head: &Head) -> Result<(Peer, Peer), u16> {
    let (answer, client) = setup.client().ask(head).await;
    match answer.status() {
        101 => Ok((client, setup.recorder.peer().await)),
        status => Err(status),
    }
}

/// Both ends, as soon as there is a place.
async fn place(setup: &Setup, head: &Head, case: &str) -> (Peer, Peer) {
    until(PATIENCE, &format!("a place after: {case}"), async || open(setup, head).await.ok()).await
}

/// Every way in which a connection with a place ends.
const ENDINGS: [&str; 13] = [
    "the client closes",
    "the client resets",
    "the client vanishes",
    "the client half-closes without close_notify",
    "the backend closes",
    "the backend vanishes",
    "the backend resets",
    "the client breaks the protocol",
    "the client's message is too large",
    "the backend breaks the protocol",
    "the backend refuses the upgrade",
    "the backend resets during the upgrade",
    "both give up during the upgrade",
];

async fn end(setup: &Setup, head: &Head, how: &str) {
    let during = match how {
        "the backend refuses the upgrade" => {
            Some(Behaviour::bytes("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
        }
        "the backend resets during the upgrade" => Some(Behaviour::Reset),
        "both give up during the upgrade" => Some(Behaviour::Unanswered),
        _ => None,
    };
    if let Some(behaviour) = during {
        setup.recorder.behave(behaviour);
        // The place of the one before may not be back yet.
        until(PATIENCE, &format!("a place before: {how}"), async || {
            let mut client = setup.client().connect().await;
            client.write(&head.bytes()).await;
            tokio::select! {
                _backend = setup.recorder.peer() => Some(()),
                answer = client.head() => match answer.unwrap().status() {
                    429 | 503 => None,
                    403 | 502 => Some(()),
                    status => panic!("{how}: {status}"),
                },
            }
        })
        .await;
        setup.recorder.behave(Behaviour::Manual);
        return;
    }
    let (mut client, mut backend) = place(setup, head, how).await;
    match how {
        "the client closes" => {
            client.send(&Frame::close(1000, "")).await;
            assert_eq!(backend.close_code().await.map(|(code, _)| code), Some(1000));
            backend.send(&Frame::close(1000, "")).await;
            client.ended(PATIENCE, how).await;
        }
        "the client resets" => client.reset(),
        "the client vanishes" => drop(client),
        "the client half-closes without close_notify" => {
            let half = client.truncate();
            backend.ended(PATIENCE, how).await;
            drop(half);
        }
        "the backend closes" => {
            backend.send(&Frame::close(4000, "")).await;
            assert_eq!(client.close(4000, "").await.map(|(code, _)| code), Some(4000));
        }
        "the backend vanishes" => {
            drop(backend);
            client.ended(PATIENCE, how).await;
        }
        "the backend resets" => {
            backend.reset();
            client.ended(PATIENCE, how).await;
        }
        "the client breaks the protocol" => {
            client.write(&[0x81, 0x01, b'x']).await;
            assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1002));
        }
        "the client's message is too large" => {
            client.send(&Frame::binary(vec![1; 65 * 1024])).await;
            assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1009));
        }
        "the backend breaks the protocol" => {
            backend.write(&[0xF1, 0x01, b'x']).await;
            assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1011));
        }
        other => panic!("{other}"),
    }
}

/// With two places, one of them held all the time: after each ending there is one, not none and not two.
async fn every_ending(key: &Key, limits: Value, status: u16, reason: &str) {
    let setup = fixture(key, &limits).await;
    let head = bearer(key, "ada");
    let (mut held, mut behind) = open(&setup, &head).await.expect("the first place");
    for how in ENDINGS {
        end(&setup, &head, how).await;
        let second = place(&setup, &head, how).await;
        let before = setup.recorder.count().0;
        assert_eq!(open(&setup, &head).await.err(), Some(status), "{how}: a third of two");
        assert_eq!(setup.recorder.count().0, before, "{how}: the refused one reached the backend");
        held.send(&Frame::text(how)).await;
        behind.expect(&Frame::text(how)).await;
        drop(second);
        // The place of this one too, before the next ending.
        drop(place(&setup, &head, how).await);
    }
    assert!(setup.gateway.refusals(Some(reason)).await >= ENDINGS.len() as f64);
    // Whose access is withdrawn gives its place back as well.
    setup
        .respec(&{
            let mut spec = any_of(&[method(&json!({}))]);
            merge(&mut spec, &json!({"handshake": {"networks": {"deny": ["127.0.0.0/8"]}}}));
            spec
        })
        .await;
    assert_eq!(held.close_code().await.map(|(code, _)| code), Some(1008));
    drop((held, behind));
    setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
    setup.gateway.metric_becomes("wssgate_client_sockets", &[], 0.0).await;
    setup.gateway.metric_becomes("wssgate_busiest_endpoint_connections", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ending_gives_the_place_of_the_route_back_once() {
    every_ending(&Key::es256("one"), json!({"total": 2}), 503, "total_limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ending_gives_the_place_of_the_address_back_once() {
    every_ending(&Key::es256("one"), json!({"perAddress": 2}), 429, "address_limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ending_gives_the_place_of_the_subject_back_once() {
    every_ending(&Key::es256("one"), json!({"perSubject": 2}), 429, "subject_limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_is_the_same_from_every_address_and_another_is_not_touched() {
    let key = Key::es256("one");
    let setup = fixture(&key, &json!({"perSubject": 1})).await;
    let _held = open(&setup, &bearer(&key, "ada")).await.expect("the first");
    let client = setup.client();
    let before = setup.recorder.count();
    for source in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        let mut peer = client.connect_over(client.tcp_from(source).await).await.unwrap();
        peer.write(&bearer(&key, "ada").bytes()).await;
        let answer = peer.head().await.unwrap();
        assert_eq!(answer.status(), 429, "{source}");
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    setup.recorder.saw_nothing_since(before, "the second of one");
    assert!(open(&setup, &bearer(&key, "Ada")).await.is_ok(), "another subject");
    assert!(open(&setup, &bearer(&key, "ada ")).await.is_ok(), "another subject");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_exactly_as_many_get_in_as_there_are_places() {
    let key = Key::es256("one");
    for limits in [json!({"total": 7}), json!({"perAddress": 7}), json!({"perSubject": 7})] {
        let setup = std::sync::Arc::new(fixture(&key, &limits).await);
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..60 {
            let (setup, head) = (setup.clone(), bearer(&key, "ada"));
            asking.spawn(async move { open(&setup, &head).await.ok() });
        }
        let open: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
        assert_eq!(open.len(), 7, "{limits}");
        assert_eq!(setup.recorder.count().0, 7, "{limits}: the others did not reach the backend");
        drop(open);
        setup.gateway.metric_becomes("wssgate_connections", &[], 0.0).await;
    }
}
