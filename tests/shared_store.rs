//! Several replicas that share a store: a ticket is redeemed at one of them, once; a subject has its places over all of
//! them; and a store that is away, hangs, or has forgotten lets nobody in.

use std::time::{Duration, Instant};

use crate::harness::issuer::{any_of, claims, config_map, holds_nothing_of, method, set};
use crate::harness::manifests::{merge, route, secret};
use crate::harness::setup::{HOST, manifests, refused};
use crate::harness::{
    self, Answer, Authority, Behaviour, Client, Frame, Gateway, Head, Key, Options, PATIENCE, Peer, Recorder, Redis,
    SOON, Wire, json, until,
};
use serde_json::Value;

const PAGE: &str = "https://app.example.com";
/// A host whose route is open to everybody.
const OTHER: &str = "open.example.com";
/// A host whose route issues tickets as well.
const SECOND: &str = "second.example.com";

/// Replicas of one gateway with one route, and who speaks to them.
struct Fleet {
    authority: Authority,
    recorder: Recorder,
    gateways: Vec<Gateway>,
    key: Key,
}

/// A route whose tickets live a minute, with these limits.
fn spec(limits: &Value) -> Value {
    let ticket = json!({"name": "ticket", "type": "Ticket", "ticket": {"path": "/ticket", "ttl": "60s"}});
    let named = method(&json!({"claimToHeaders": [{"claim": "sub", "header": "x-user"}]}));
    let mut spec = any_of(&[named, ticket]);
    merge(&mut spec, &json!({"handshake": {"origins": {"allow": [PAGE]}}, "connection": {"limits": limits}}));
    spec
}

impl Fleet {
    /// So many replicas that share the store at the URL.
    async fn new(count: usize, url: &str, limits: &Value) -> Self {
        Self::with(count, &json!({"url": url}), limits).await
    }

    /// The same with other members of `sharedStore`.
    async fn with(count: usize, store: &Value, limits: &Value) -> Self {
        let fleet = Self::begin(count, store, limits).await;
        fleet.connected(1.0).await;
        fleet
    }

    /// The same, which may never reach its store.
    async fn begin(count: usize, store: &Value, limits: &Value) -> Self {
        let (authority, recorder, key) = (Authority::new(), Recorder::start(Behaviour::Echo).await, Key::es256("one"));
        let manifests = manifests(&authority, &recorder, &spec(limits))
            .with("keys.yaml", &[config_map("idp", &set(&[&key]))])
            .with(
                "second.yaml",
                &[
                    secret("second-tls", &authority.leaf(&[SECOND])),
                    route("second", SECOND, "second-tls", "chat", &spec(limits)),
                ],
            )
            .with(
                "open.yaml",
                &[secret("open-tls", &authority.leaf(&[OTHER])), route("open", OTHER, "open-tls", "chat", &json!({}))],
            );
        let mut settings = json!({"timeout": "500ms", "leaseDuration": "3s"});
        merge(&mut settings, store);
        let options = Options::settings(&json!({"sharedStore": settings}));
        let mut gateways = Vec::new();
        for _ in 0..count {
            gateways.push(Gateway::start_with(&manifests, &options).await);
        }
        Self { authority, recorder, gateways, key }
    }

    /// Waits until every replica has the store, or has lost it.
    async fn connected(&self, value: f64) {
        for gateway in &self.gateways {
            gateway.metric_becomes("wssgate_shared_store_connected", &[], value).await;
        }
    }

    fn client(&self, replica: usize) -> Client {
        let address = self.gateways[replica].wss;
        Client { address, config: std::sync::Arc::new(self.authority.client()), name: HOST.to_owned() }
    }

    fn token(&self, subject: &str) -> String {
        self.key.sign(&claims(&json!({"sub": subject})))
    }

    fn bearer(&self, subject: &str) -> Head {
        Head::upgrade("/").add("Origin", PAGE).add("Authorization", format!("Bearer {}", self.token(subject)))
    }

    fn post(&self) -> Head {
        post(&self.token("ada.lovelace"))
    }

    async fn call(&self, replica: usize) -> Answer {
        call(&self.client(replica), &self.post()).await
    }

    /// Buys a ticket at a replica.
    async fn issue(&self, replica: usize) -> String {
        let answer = self.call(replica).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        body["ticket"].as_str().unwrap().to_owned()
    }

    /// A connection at a replica, or the status of the refusal.
    async fn open(&self, replica: usize, head: &Head) -> Result<Peer, u16> {
        let (answer, peer) = self.client(replica).ask(head).await;
        if answer.status() == 101 { Ok(peer) } else { Err(answer.status()) }
    }

    async fn refused(&self, replica: usize, case: &str, head: &Head, status: u16, reason: &str) -> Answer {
        refused(&self.gateways[replica], &self.recorder, &self.client(replica), case, head, &[status], &[reason]).await
    }

    /// A replica without what was asked of it before, as soon as there is a place.
    async fn place(&self, replica: usize, head: &Head, case: &str) -> Peer {
        until(PATIENCE, &format!("a place after: {case}"), async || self.open(replica, head).await.ok()).await
    }
}

fn post(token: &str) -> Head {
    let head = Head::request("POST /ticket HTTP/1.1").add("Origin", PAGE).add("Content-Length", "0");
    head.add("Authorization", format!("Bearer {token}"))
}

async fn call(client: &Client, head: &Head) -> Answer {
    let mut peer = client.connect().await;
    peer.write(&head.bytes()).await;
    Answer::parse(&peer.rest(SOON, "the end of a call").await).expect("an answer to the call")
}

fn redeem(ticket: &str) -> Head {
    Head::upgrade(&format!("/room?ticket={ticket}")).add("Origin", PAGE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_of_one_replica_is_redeemed_once_at_any() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(3, &redis.url(), &json!({})).await;
    let (token, ticket) = (fleet.token("ada.lovelace"), fleet.issue(0).await);
    let left: i64 = redis.run(&["PTTL", &redis.tickets()[0]]);
    assert!((1..=60_000).contains(&left), "its time is bounded: {left}");
    for secret in [&ticket, "ada.lovelace", PAGE, "shop", harness::issuer::ISSUER] {
        assert!(!redis.dump().contains(secret), "{secret} is in the store: {}", redis.dump());
    }
    let mut peer = fleet.open(1, &redeem(&ticket)).await.expect("E12 the first who redeems");
    peer.echo(&Frame::text("in")).await;
    assert_eq!(
        fleet.recorder.last().head().field("x-user").as_deref(),
        Some("ada.lovelace"),
        "as with the token itself"
    );
    assert_eq!(redis.keys(), [""; 0], "nothing is left of it");
    for replica in 0..3 {
        fleet.refused(replica, "E12 again", &redeem(&ticket), 401, "ticket_invalid").await;
    }
    let other = fleet.issue(2).await;
    let elsewhere = redeem(&other).set("Origin", "https://evil.test");
    fleet.refused(0, "E13 another origin", &elsewhere, 403, "origin_denied").await;
    fleet.refused(0, "E13 no origin", &redeem(&other).without("Origin"), 401, "ticket_invalid").await;
    let tampered: String = other.chars().rev().collect();
    fleet.refused(0, "E13 tampered", &redeem(&tampered), 401, "ticket_invalid").await;
    fleet.open(0, &redeem(&other)).await.expect("none of these cost the ticket");
    for gateway in &fleet.gateways {
        holds_nothing_of(gateway, &[&token, &ticket, &other]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_who_redeem_at_three_replicas_one_gets_in() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(3, &redis.url(), &json!({})).await;
    let ticket = fleet.issue(0).await;
    let head = redeem(&ticket).bytes();
    // Everyone is connected before anyone asks.
    let mut peers = Vec::new();
    while peers.len() < 1000 {
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..50 {
            let client = fleet.client(at % 3);
            tasks.spawn(async move { client.connect().await });
        }
        peers.extend(tasks.join_all().await);
        // The head may take 5 s: those who connect later must not find the first ones gone.
        for peer in peers.iter_mut().rev().take(50) {
            peer.write(&head[..40]).await;
        }
    }
    let mut asking = tokio::task::JoinSet::new();
    for mut peer in peers {
        let rest = head[40..].to_vec();
        asking.spawn(async move {
            peer.write(&rest).await;
            let status = peer.head().await.map_or(0, |answer| answer.status());
            (status, peer)
        });
    }
    let statuses: Vec<(u16, Peer)> = asking.join_all().await;
    let of = |wanted: u16| statuses.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!(of(101), 1, "E12 {}x 401, {}x 408, {}x 503", of(401), of(408), of(503));
    assert!(of(401) > 500, "E12 only {} raced, {}x 503", of(401), of(503));
    assert_eq!(fleet.recorder.count().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_subject_has_its_part_of_the_tickets_over_all_replicas_and_others_buy_theirs() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(2, &redis.url(), &json!({})).await;
    let mut tickets = Vec::new();
    for number in 0..32 {
        tickets.push(fleet.issue(number % 2).await);
    }
    for replica in 0..2 {
        let answer = fleet.refused(replica, "E23 one more", &fleet.post(), 429, "ticket_limit").await;
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    assert_eq!(call(&fleet.client(0), &post(&fleet.token("bob"))).await.status(), 200, "E23 another subject");
    let second = Client { name: SECOND.to_owned(), ..fleet.client(0) };
    assert_eq!(call(&second, &fleet.post().set("Host", SECOND)).await.status(), 200, "E23 at another route");
    // What was issued is good, and makes room at every replica when it is redeemed.
    let _open = fleet.open(1, &redeem(&tickets[0])).await.expect("the first ticket");
    fleet.issue(0).await;
    fleet.refused(1, "E23 again", &fleet.post(), 429, "ticket_limit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_route_has_its_part_of_the_stores_memory_and_another_still_sells() {
    let redis = Redis::with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]).await;
    let fleet = Fleet::new(1, &redis.url(), &json!({})).await;
    fleet.gateways[0].metric_becomes("wssgate_shared_store_memory_limit_bytes", &[], 8_388_608.0).await;
    let mut issued = 0;
    let refused = 'full: loop {
        let subject = json!({"sub": format!("s{issued}"), "padding": "x".repeat(5000)});
        let token = fleet.key.sign(&claims(&subject));
        for _ in 0..32 {
            let answer = call(&fleet.client(0), &post(&token)).await;
            if answer.status() != 200 {
                break 'full answer;
            }
            issued += 1;
        }
        assert!(issued < 260, "E23 an eighth of 8 MiB holds no more");
    };
    assert_eq!((refused.status(), refused.field("retry-after").is_some()), (503, true), "{refused:?}");
    assert!(fleet.gateways[0].refusals(Some("tickets_unavailable")).await >= 1.0 && issued > 100, "{issued}");
    let second = Client { name: SECOND.to_owned(), ..fleet.client(0) };
    assert_eq!(call(&second, &fleet.post().set("Host", SECOND)).await.status(), 200, "E23 at another route");
    assert!(fleet.gateways[0].metric("wssgate_shared_store_memory_bytes", &[]).await > 100_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_refuses_and_what_it_forgot_is_worth_nothing() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let fleet = Fleet::new(2, &redis.url(), &json!({})).await;
    let (spent, unspent) = (fleet.issue(0).await, fleet.issue(1).await);
    let mut live = fleet.open(1, &redeem(&spent)).await.expect("in");
    redis.kill();
    fleet.connected(0.0).await;
    let answer = fleet.refused(0, "E14 redeeming", &redeem(&unspent), 503, "store_unavailable").await;
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    fleet.refused(1, "E14 buying", &fleet.post(), 503, "store_unavailable").await;
    // What needs no store is as ever.
    fleet.open(0, &fleet.bearer("ada.lovelace")).await.expect("a token").echo(&Frame::text("in")).await;
    live.echo(&Frame::text("still in")).await;
    let store = [("kind", "shared_store"), ("name", "shared")];
    fleet.gateways[0].sample_becomes("wssgate_dependency_up", &store, 0.0).await;
    let told = async || fleet.gateways[0].log_text().contains("StoreUnavailable").then_some(());
    until(PATIENCE, "the condition of the route", told).await;
    redis.restart().await;
    fleet.connected(1.0).await;
    assert_eq!(redis.tickets().len(), 1, "what was not redeemed is kept on disk");
    // That it is there still does not prove that it was not redeemed: another run is another history.
    fleet.refused(0, "E14 of the run before", &redeem(&unspent), 401, "ticket_invalid").await;
    fleet.refused(1, "E14 redeemed before", &redeem(&spent), 401, "ticket_invalid").await;
    let fresh = fleet.issue(1).await;
    fleet.open(0, &redeem(&fresh)).await.expect("back again");
    live.echo(&Frame::text("still in")).await;
    fleet.gateways[0].sample_becomes("wssgate_dependency_up", &store, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_takes_no_other_routes_place_and_spends_nothing_twice() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(2, &redis.url(), &json!({})).await;
    let tickets = [fleet.issue(0).await, fleet.issue(0).await, fleet.issue(1).await];
    redis.hang();
    let start = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..200 {
        let (client, head) = (fleet.client(at % 2), redeem(&tickets[at % 3]));
        asking.spawn(async move { client.ask(&head).await.0.status() });
    }
    // Another host of the same gateway, meanwhile.
    let other = Client { name: OTHER.to_owned(), ..fleet.client(0) };
    let head = Head::upgrade("/").set("Host", OTHER);
    let statuses = asking.join_all();
    let (statuses, ()) = tokio::join!(statuses, async {
        let (answer, _) = other.ask(&head).await;
        assert_eq!(answer.status(), 101, "{answer:?}");
    });
    assert_eq!(statuses.iter().filter(|status| **status != 503).count(), 0, "{statuses:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    fleet.connected(0.0).await;
    redis.go_on();
    fleet.connected(1.0).await;
    let before = fleet.recorder.count().0;
    for ticket in &tickets {
        // What was asked while it hung may have been done: then nobody has it, and never two.
        let mut opened = 0;
        for replica in [0, 1, 0] {
            opened += usize::from(fleet.open(replica, &redeem(ticket)).await.is_ok());
        }
        assert!(opened <= 1, "E14 redeemed {opened} times");
    }
    assert!(fleet.recorder.count().0 - before <= 3);
    let fresh = fleet.issue(1).await;
    fleet.open(0, &redeem(&fresh)).await.expect("back again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_from_before_a_fail_over_is_refused() {
    let (primary, replica) = (Redis::start().await, Redis::start().await);
    replica.follow(&primary).await;
    let wire = Wire::to(&primary).await;
    let fleet = Fleet::new(2, &wire.url(), &json!({})).await;
    let (spent, unspent) = (fleet.issue(0).await, fleet.issue(1).await);
    until(PATIENCE, "the tickets at the replica", async || (replica.tickets().len() == 2).then_some(())).await;
    // The replica is cut off and promoted: it does not hear that a ticket is redeemed at the one before.
    replica.promote();
    fleet.open(0, &redeem(&spent)).await.expect("at the primary of before");
    assert_eq!((primary.tickets().len(), replica.tickets().len()), (1, 2));
    wire.lead_to(&replica);
    let lost = async |gateway: &Gateway| {
        let said = |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("store is connected"));
        until(PATIENCE, "another connection", async || {
            (gateway.logs().iter().filter(|line| said(line)).count() == 2).then_some(())
        })
        .await;
    };
    lost(&fleet.gateways[0]).await;
    lost(&fleet.gateways[1]).await;
    fleet.refused(1, "E14 redeemed before", &redeem(&spent), 401, "ticket_invalid").await;
    fleet.refused(0, "E14 of the history before", &redeem(&unspent), 401, "ticket_invalid").await;
    let fresh = fleet.issue(0).await;
    fleet.open(1, &redeem(&fresh)).await.expect("the new primary issues and redeems");
    // Back to the first one, whose process never ended, as a replica that is promoted again.
    primary.follow(&replica).await;
    let kept = fleet.issue(0).await;
    until(PATIENCE, "the ticket at the replica", async || (!primary.tickets().is_empty()).then_some(())).await;
    primary.promote();
    wire.lead_to(&primary);
    until(PATIENCE, "the history of the third", async || {
        let status = fleet.open(0, &redeem(&kept)).await.err();
        assert!(matches!(status, Some(401 | 503)), "E14 {status:?}");
        (status == Some(401)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_no_store() {
    let (primary, replica) = (Redis::start().await, Redis::start().await);
    replica.follow(&primary).await;
    let wire = Wire::to(&primary).await;
    let fleet = Fleet::new(1, &wire.url(), &json!({})).await;
    let ticket = fleet.issue(0).await;
    wire.lead_to(&replica);
    fleet.connected(0.0).await;
    fleet.refused(0, "a replica", &redeem(&ticket), 503, "store_unavailable").await;
    let told = async || fleet.gateways[0].log_text().contains("sharedStore.url must lead to the primary").then_some(());
    until(PATIENCE, "what is wrong with the store", told).await;
    wire.lead_to(&primary);
    fleet.connected(1.0).await;
    fleet.open(0, &redeem(&ticket)).await.expect("the same run, the same history");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_has_its_places_over_all_replicas() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(3, &redis.url(), &json!({"perSubject": 2})).await;
    let head = fleet.bearer("ada.lovelace");
    let _first = fleet.open(0, &head).await.expect("the first place");
    let second = fleet.open(1, &head).await.expect("the second place");
    for replica in 0..3 {
        let answer = fleet.refused(replica, "the third of two", &head, 429, "subject_limit").await;
        assert!(answer.field("retry-after").is_some(), "{answer:?}");
    }
    let other = fleet.open(2, &fleet.bearer("Ada.Lovelace")).await.expect("another subject");
    for secret in ["ada.lovelace", "Ada.Lovelace", "shop", harness::issuer::ISSUER] {
        assert!(!redis.dump().contains(secret), "{secret} is in the store: {}", redis.dump());
    }
    second.close(1000, "").await;
    let third = fleet.place(2, &head, "a close at another replica").await;
    fleet.refused(0, "the third of two", &head, 429, "subject_limit").await;
    // A ticket of a subject stands for it.
    let ticket = fleet.issue(0).await;
    fleet.refused(1, "the third of two, by ticket", &redeem(&ticket), 429, "subject_limit").await;
    drop(third);
    drop(fleet.place(1, &redeem(&ticket), "nothing of that cost the ticket").await);
    drop((_first, other));
    until(PATIENCE, "an empty store", async || redis.keys().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_place_that_is_given_back_is_given_back_once() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(2, &redis.url(), &json!({"perSubject": 2})).await;
    let head = fleet.bearer("ada.lovelace");
    let _held = fleet.open(0, &head).await.expect("the first place");
    for (at, how) in ["closes", "resets", "vanishes", "is refused by the backend"].iter().cycle().take(12).enumerate() {
        if *how == "is refused by the backend" {
            fleet.recorder.behave(Behaviour::bytes("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"));
            let status = async || fleet.open(at % 2, &head).await.err().filter(|status| *status != 429);
            assert_eq!(until(PATIENCE, how, status).await, 403);
            fleet.recorder.behave(Behaviour::Echo);
        }
        let second = fleet.place(at % 2, &head, how).await;
        assert_eq!(fleet.open((at + 1) % 2, &head).await.err(), Some(429), "{how}: a third of two");
        match *how {
            "resets" => second.reset(),
            "closes" => drop(second.close(1000, "").await),
            _ => drop(second),
        }
    }
    let members = async || {
        let held: usize = redis.run(&["ZCARD", redis.keys().first()?]);
        (held == 1).then_some(())
    };
    until(PATIENCE, "one lease in the store", members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_three_replicas_exactly_as_many_get_in_as_there_are_places() {
    let redis = Redis::start().await;
    let fleet = std::sync::Arc::new(Fleet::new(3, &redis.url(), &json!({"perSubject": 7})).await);
    let mut asking = tokio::task::JoinSet::new();
    for at in 0..60 {
        let (fleet, head) = (fleet.clone(), fleet.bearer("ada.lovelace"));
        asking.spawn(async move { fleet.open(at % 3, &head).await.ok() });
    }
    let open: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    assert_eq!(open.len(), 7);
    assert_eq!(fleet.recorder.count().0, 7, "the others did not reach the backend");
    drop(open);
    until(PATIENCE, "an empty store", async || redis.keys().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_killed_replica_expires_and_that_of_a_live_one_does_not() {
    let redis = Redis::start().await;
    let mut fleet = Fleet::new(3, &redis.url(), &json!({"perSubject": 2})).await;
    let head = fleet.bearer("ada.lovelace");
    let mut live = fleet.open(0, &head).await.expect("at the one that lives");
    let killed = fleet.open(2, &head).await.expect("at the one that is killed");
    // Longer than a lease, which is renewed.
    tokio::time::sleep(Duration::from_secs(4)).await;
    fleet.refused(1, "J2 the third of two", &head, 429, "subject_limit").await;
    drop(fleet.gateways.pop());
    fleet.refused(1, "J2 as long as the lease lasts", &head, 429, "subject_limit").await;
    let start = Instant::now();
    let _second = fleet.place(1, &head, "a killed replica").await;
    assert!(start.elapsed() < Duration::from_secs(5), "J2 {:?} for a lease of 3 s", start.elapsed());
    fleet.refused(1, "J2 one share expired, not two", &head, 429, "subject_limit").await;
    live.echo(&Frame::text("undisturbed")).await;
    drop(killed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_that_nobody_can_count_are_not_given_and_a_store_that_forgot_is_told_again() {
    let redis = Redis::start().await;
    let fleet = Fleet::new(2, &redis.url(), &json!({"perSubject": 2})).await;
    let head = fleet.bearer("ada.lovelace");
    let mut live = fleet.open(0, &head).await.expect("in");
    redis.hang();
    let mut hanging = tokio::task::JoinSet::new();
    for at in 0..20 {
        let (client, head) = (fleet.client(at % 2), head.clone());
        hanging.spawn(async move { client.ask(&head).await.0.status() });
    }
    // One place more at the replica that has one is more than the route has there.
    let statuses = hanging.join_all().await;
    assert!(statuses.iter().all(|status| matches!(status, 429 | 503)), "{statuses:?}");
    fleet.connected(0.0).await;
    fleet.refused(1, "hanging", &head, 503, "store_unavailable").await;
    redis.go_on();
    fleet.connected(1.0).await;
    // What was asked while it hung is given back, or is over with its lease.
    let second = fleet.place(1, &head, "a store that hung").await;
    fleet.refused(0, "the third of two", &head, 429, "subject_limit").await;
    drop(second);
    redis.kill();
    fleet.connected(0.0).await;
    fleet.refused(1, "away", &head, 503, "store_unavailable").await;
    live.echo(&Frame::text("still in")).await;
    redis.restart().await;
    fleet.connected(1.0).await;
    until(PATIENCE, "the lease of the live one", async || (redis.keys().len() == 1).then_some(())).await;
    let _second = fleet.place(1, &head, "a store that forgot").await;
    fleet.refused(1, "the third of two", &head, 429, "subject_limit").await;
    live.echo(&Frame::text("still in")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_reached_with_tls_of_a_trusted_authority_only() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let redis = Redis::secured(&trusted.leaf(&["localhost"])).await;
    let authority = |authority: &Authority| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), authority.pem()).unwrap();
        file
    };
    let (good, bad) = (authority(&trusted), authority(&other));
    let store = |ca: &tempfile::NamedTempFile, host: &str| json!({"url": format!("rediss://{host}:{}", redis.port), "caFile": ca.path(), "timeout": "2s"});
    let fleet = Fleet::with(1, &store(&good, "localhost"), &json!({})).await;
    let ticket = fleet.issue(0).await;
    fleet.open(0, &redeem(&ticket)).await.expect("over TLS");
    for (case, store) in [("another authority", store(&bad, "localhost")), ("another name", store(&good, "127.0.0.1"))]
    {
        let fleet = Fleet::begin(1, &store, &json!({})).await;
        until(PATIENCE, case, async || fleet.gateways[0].log_text().contains("invalid peer certificate").then_some(()))
            .await;
        fleet.refused(0, case, &fleet.post(), 503, "store_unavailable").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_read_from_its_file_again_and_written_nowhere() {
    const PASSWORD: &str = "canary-of-the-store-0123456789";
    // What docs/operations/shared-store.md says that the user needs, and nothing else.
    let rights = "~gate:* +evalsha +script|load +info +get +set +del +time +zadd +zrem +zremrangebyscore +zcard +pexpire \
         +hgetall +hincrby +hdel";
    let password = format!(">{PASSWORD}");
    let user = ["--user", "wssgate", "on", &password].into_iter().chain(rights.split(' '));
    let redis = Redis::with(&user.collect::<Vec<_>>()).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong-canary-of-the-store\n").unwrap();
    let url = format!("redis://wssgate@127.0.0.1:{}", redis.port);
    let store = json!({"url": url, "passwordFile": file.path(), "keyPrefix": "gate:"});
    let fleet = Fleet::begin(1, &store, &json!({"perSubject": 1})).await;
    let log = || fleet.gateways[0].log_text();
    until(PATIENCE, "the refusal of the password", async || log().contains("authentication failed").then_some(()))
        .await;
    fleet.refused(0, "no account", &fleet.bearer("ada.lovelace"), 503, "store_unavailable").await;
    std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    fleet.connected(1.0).await;
    let ticket = fleet.issue(0).await;
    let peer = fleet.open(0, &redeem(&ticket)).await.expect("with the rights of the documentation");
    fleet.refused(0, "the second of one", &fleet.bearer("ada.lovelace"), 429, "subject_limit").await;
    assert!(redis.keys().iter().all(|key| key.starts_with("gate:subject:")), "{:?}", redis.keys());
    peer.close(1000, "").await;
    until(PATIENCE, "an empty store", async || redis.keys().is_empty().then_some(())).await;
    holds_nothing_of(&fleet.gateways[0], &[PASSWORD, "wrong-canary-of-the-store", &ticket]).await;
}

#[test]
fn routes_that_issue_tickets_say_so_where_several_replicas_share_no_store() {
    let folder = tempfile::TempDir::new().unwrap();
    let route = harness::setup::route_text(&spec(&json!({})));
    std::fs::write(folder.path().join("route.yaml"), route).unwrap();
    let settings = tempfile::NamedTempFile::new().unwrap();
    let warned = |members: &Value| {
        std::fs::write(settings.path(), harness::gateway::configuration(members).to_string()).unwrap();
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate"));
        check.arg("check").args(["--output", "json", "--config"]).arg(settings.path()).arg(folder.path());
        let said = String::from_utf8(check.output().unwrap().stdout).unwrap();
        assert!(said.contains("Accepted"), "{said}");
        said.contains("TicketsUnshared").then_some(said)
    };
    let said = warned(&json!({"replicas": 3})).expect("three replicas and no store");
    for part in ["NoSharedStore", "of 3 replicas", "sharedStore"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(warned(&json!({})), None, "nobody knows of replicas");
    assert_eq!(warned(&json!({"replicas": 1})), None);
    assert_eq!(warned(&json!({"replicas": 3, "sharedStore": {"url": "redis://store.test"}})), None);
}
