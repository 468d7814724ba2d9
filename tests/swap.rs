//! Everything is swapped under live sockets: certificates, policies, endpoints, routes, and mistakes in all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::manifests::{route, secret, service, text};
use crate::harness::setup::manifests;
use crate::harness::{
    self, Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Options, PATIENCE, Peer, Recorder, SOON, Setup,
    json, until,
};
use serde_json::Value;

/// Opens `count` connections, 50 at a time.
async fn crowd(client: &Client, count: usize) -> Vec<Peer> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50.min(count - all.len()) {
            let client = client.clone();
            tasks.spawn(async move { client.open(&Head::upgrade("/")).await });
        }
        all.extend(tasks.join_all().await);
    }
    all
}

/// Every connection answers.
async fn all_alive(peers: &mut [Peer], what: &str) {
    for peer in peers {
        assert!(peer.send(&Frame::text(what)).await, "{what}: a connection has ended");
        peer.expect(&Frame::text(what)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_under_a_thousand_sockets_changes_behaviour_and_closes_none() {
    let setup = Setup::new(&json!({})).await;
    let mut peers = crowd(&setup.client(), 1000).await;
    setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 1000.0).await;
    // The same origin list as the default admits connections without Origin: nobody is asked to leave.
    setup.respec(&json!({"handshake": {"origins": {"missing": "Allow", "allow": ["https://app.example.com"]}}, "messages": {"fromClient": {"types": ["Text"], "maxSize": 100}}})).await;
    let foreign = Head::upgrade("/").add("Origin", "https://chat.example.com");
    setup.refused("the new policy for new connections", &foreign, &[403], &["origin_denied"]).await;
    all_alive(&mut peers, "after the edit").await;
    // Live connections are judged by the new policy from their next message on.
    let mut one = peers.pop().unwrap();
    one.send(&Frame::text("x".repeat(101))).await;
    assert_eq!(one.close_code().await.map(|(code, _)| code), Some(1009), "the new maxSize");
    let mut other = peers.pop().unwrap();
    other.send(&Frame::binary("x")).await;
    assert_eq!(other.close_code().await.map(|(code, _)| code), Some(1003), "the new types");
    // Endpoints come and go without anybody noticing.
    let second = Recorder::start(Behaviour::Echo).await;
    setup.gateway.edit("service.yaml", &text(&service("chat", &[second.port()]))).await;
    setup.open().await.echo(&Frame::text("at the new endpoint")).await;
    assert_eq!(second.count().0, 1);
    setup.gateway.edit("service.yaml", &text(&service("chat", &[]))).await;
    all_alive(&mut peers, "without endpoints").await;
    // The two that broke the rules, and nobody else.
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[("initiator", "gateway")], 2.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_rotated_every_second_drops_nobody_and_fails_no_handshake() {
    let seconds = if harness::long() { 60 } else { 8 };
    let setup = Setup::new(&json!({})).await;
    let mut peers = crowd(&setup.client(), 200).await;
    let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (client, stop, made) = (setup.client(), stop.clone(), made.clone());
        load.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let mut peer = client.open(&Head::upgrade("/")).await;
                peer.echo(&Frame::text("new")).await;
                made.fetch_add(1, Ordering::SeqCst);
                peer.reset();
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        });
    }
    for round in 0..seconds {
        let next = setup.authority.leaf(&[HOST]);
        let start = Instant::now();
        setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &next)]));
        until(PATIENCE, "the new certificate", async || {
            (setup.client().connect().await.certificate() == Some(next.leaf())).then_some(())
        })
        .await;
        let some = round % 10;
        all_alive(&mut peers[some * 20..(some + 1) * 20], "rotated").await;
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(start.elapsed())).await;
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(done) = load.join_next().await {
        done.expect("a handshake failed during a rotation");
    }
    all_alive(&mut peers, "after all").await;
    assert!(made.load(Ordering::SeqCst) > seconds * 5, "too little load to say anything");
    for reason in ["tls_failed", "unknown_server_name"] {
        let failed = setup.gateway.refusals(Some(reason)).await;
        assert!(failed < 0.5, "{failed} handshakes failed with {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_route_says_goodbye_and_others_stay() {
    let setup = Setup::new(&json!({})).await;
    let other = setup.authority.leaf(&["other.example.com"]);
    let objects = [secret("other-tls", &other), route("other", "other.example.com", "other-tls", "chat", &json!({}))];
    setup.gateway.edit("other.yaml", &text(&objects)).await;
    let (mut leaving, mut staying) = (
        setup.open().await,
        setup.client().named("other.example.com").open(&Head::upgrade("/").set("Host", "other.example.com")).await,
    );
    setup.gateway.remove("route.yaml").await;
    assert_eq!(leaving.close_code().await.map(|(code, _)| code), Some(1012));
    leaving.send(&Frame::close(1012, "")).await;
    leaving.ended(SOON, "the end of a removed route's connection").await;
    staying.echo(&Frame::text("untouched")).await;
    let labels = [("reason", "route_removed"), ("route", "shop/chat")];
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &labels, 1.0).await;
    assert!(setup.client().try_connect().await.is_err(), "the host has gone");
    // It comes back as if nothing had been.
    setup.gateway.edit("route.yaml", &harness::setup::route_text(&json!({}))).await;
    setup.open().await.echo(&Frame::text("back")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moved_path_ends_only_connections_of_that_path() {
    let rules = |paths: &[&str]| -> Value {
        let rules: Vec<Value> = paths
            .iter()
            .map(|path| json!({"name": path.trim_matches('/'), "matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": [{"name": "chat", "port": 8080}]}))
            .collect();
        json!({"rules": rules})
    };
    let setup = Setup::new(&rules(&["/a", "/b"])).await;
    let mut a = setup.client().open(&Head::upgrade("/a")).await;
    let mut b = setup.client().open(&Head::upgrade("/b")).await;
    setup.respec(&rules(&["/a", "/c"])).await;
    assert_eq!(b.close_code().await.map(|(code, _)| code), Some(1012));
    a.echo(&Frame::text("untouched")).await;
    setup.client().open(&Head::upgrade("/c")).await.echo(&Frame::text("new")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_more_specific_route_takes_new_connections_and_live_ones_stay_with_theirs() {
    let denied = json!({"networks": {"deny": ["127.0.0.0/8"]}});
    let total = |most: u32| json!({"connection": {"limits": {"total": most}}});
    let setup = Setup::new(&json!({})).await;
    let mut peer = setup.client().open(&Head::upgrade("/chat")).await;
    let rules = json!([{"name": "chat", "matches": [{"path": {"type": "PathPrefix", "value": "/chat"}}], "backendRefs": [{"name": "chat", "port": 8080}]}]);
    let narrow = json!({"tls": null, "rules": rules, "handshake": denied});
    setup.gateway.edit("narrow.yaml", &text(&[route("narrow", HOST, "", "chat", &narrow)])).await;
    let answer = async || setup.client().ask(&Head::upgrade("/chat")).await.0.status();
    assert_eq!(answer().await, 403, "a new connection meets the narrow route");
    peer.echo(&Frame::text("the broad route still lets me in")).await;
    // Judged again, by its own route: it is still let in, whatever the narrow one says.
    setup.respec(&total(7)).await;
    assert_eq!(answer().await, 403);
    peer.echo(&Frame::text("and after its edit")).await;
    // Nor does it notice when the narrow one goes.
    setup.gateway.remove("narrow.yaml").await;
    assert_eq!(answer().await, 101);
    peer.echo(&Frame::text("and without the other")).await;
    // Its own route is what closes it.
    setup.respec(&json!({"handshake": denied})).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrowing_closes_only_those_who_would_not_get_in_again() {
    let origins = |list: &[&str]| json!({"handshake": {"origins": {"allow": list}}});
    let (app, shop) = ("https://app.example.com", "https://shop.example.com");
    let setup = Setup::new(&origins(&[app, shop])).await;
    let from = |origin: &'static str| Head::upgrade("/").add("Origin", origin);
    let mut of_app = setup.client().open(&from(app)).await;
    let mut of_shop = setup.client().open(&from(shop)).await;
    let mut of_nobody = setup.open().await;
    setup.respec(&origins(&[app])).await;
    assert_eq!(of_shop.close_code().await.map(|(code, _)| code), Some(1008));
    of_app.echo(&Frame::text("still allowed")).await;
    of_nobody.echo(&Frame::text("no browser")).await;
    setup.respec(&json!({"handshake": {"origins": {"allow": [app], "missing": "Deny"}}})).await;
    assert_eq!(of_nobody.close_code().await.map(|(code, _)| code), Some(1008));
    of_app.echo(&Frame::text("still allowed")).await;
    setup.gateway.metric_becomes("wssgate_connections_closed_total", &[("reason", "access_withdrawn")], 2.0).await;
    setup.respec(&json!({"handshake": {"networks": {"deny": ["127.0.0.0/8"]}, "origins": {"allow": [app]}}})).await;
    assert_eq!(of_app.close_code().await.map(|(code, _)| code), Some(1008), "the network was narrowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_manifest_is_named_and_changes_nothing() {
    let setup = Setup::new(&json!({})).await;
    let mut peer = setup.open().await;
    let good = harness::setup::route_text(&json!({}));
    let unknown = route("chat", HOST, "chat-tls", "chat", &json!({"handshake": {"origin": {"allow": ["*"]}}}));
    let unsupported = route("chat", HOST, "chat-tls", "chat", &json!({"tls": {"alpnProtocols": ["h2"]}}));
    let no_value = route("chat", HOST, "chat-tls", "chat", &json!({"messages": {"fromClient": {"maxSize": "many"}}}));
    for (case, broken) in [
        ("not YAML", "apiVersion: wssgate.io/v1alpha1\nkind: [SecureWebSocketRoute\n".to_owned()),
        ("cut off", good[..good.len() / 2].to_owned()),
        ("an unknown field", text(&[unknown])),
        ("a field that is not implemented", text(&[unsupported])),
        ("a size that is none", text(&[no_value])),
    ] {
        let said = setup.gateway.log_text().len();
        setup.gateway.write("route.yaml", &broken);
        until(PATIENCE, &format!("{case}: a log line that names the file or the route"), async || {
            let log = setup.gateway.log_text()[said..].to_owned();
            (log.contains("route.yaml") || log.contains("shop/chat")).then_some(())
        })
        .await;
        peer.echo(&Frame::text(case)).await;
        setup.admitted(case, &Head::upgrade("/")).await;
        // A good edit gets through again, and back.
        setup
            .gateway
            .edit("route.yaml", &harness::setup::route_text(&json!({"connection": {"limits": {"total": 9}}})))
            .await;
        setup.gateway.edit("route.yaml", &good).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_invalid_routes_bother_no_good_one() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let mut all = manifests(&authority, &recorder, &json!({}));
    let hosts: Vec<String> = (0..10).map(|i| format!("good-{i}.example.com")).collect();
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut objects = vec![secret("good-tls", &authority.leaf(&names))];
    objects.extend(
        hosts.iter().enumerate().map(|(i, host)| route(&format!("good-{i}"), host, "good-tls", "chat", &json!({}))),
    );
    all = all.with("good.yaml", &objects);
    let gateway = Gateway::start_with(&all, &Options::default()).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    let mut peers = Vec::new();
    for host in &hosts {
        peers.push(client.named(host).open(&Head::upgrade("/").set("Host", host)).await);
    }
    let bad: Vec<Value> = (0..1000)
        .map(|i| {
            let spec = match i % 5 {
                0 => json!({"hostnames": [HOST]}),
                1 => json!({"tls": {"certificateRefs": [{"name": "missing"}]}}),
                2 => json!({"handshake": {"networks": {"allow": ["300.0.0.0/8"]}}}),
                3 => json!({"messages": {"fromClient": {"maxSize": "64Mi"}}}),
                _ => json!({"rules": [{"name": "x", "matches": [{"path": {"type": "PathPrefix", "value": "/../x"}}], "backendRefs": [{"name": "nobody", "port": 1}]}]}),
            };
            route(&format!("zz-bad-{i}"), &format!("bad-{i}.example.com"), "chat-tls", "chat", &spec)
        })
        .collect();
    let said = gateway.log_text().len();
    gateway.write("bad.yaml", &text(&bad));
    until(PATIENCE, "a log line about the invalid routes", async || {
        gateway.log_text()[said..].contains("zz-bad-").then_some(())
    })
    .await;
    for (peer, host) in peers.iter_mut().zip(&hosts) {
        peer.echo(&Frame::text("untouched")).await;
        client.named(host).open(&Head::upgrade("/").set("Host", host)).await.echo(&Frame::text("new")).await;
    }
    client.open(&Head::upgrade("/")).await.echo(&Frame::text("its host was taken by nobody")).await;
    let ended = gateway.metric("wssgate_connections_closed_total", &[("initiator", "gateway")]).await;
    assert!(ended < 0.5, "the gateway closed {ended} connections");
    // And an edit of a good one still takes effect, soon.
    let denied = json!({"handshake": {"networks": {"deny": ["127.0.0.0/8"]}}});
    gateway.write("route.yaml", &harness::setup::route_text(&denied));
    until(PATIENCE, "the edit of a good route", async || {
        (client.ask(&Head::upgrade("/")).await.0.status() == 403).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_the_kernel_does_not_watch_is_polled() {
    let options = Options { unwatched: true, ..Options::default() };
    let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
    assert!(setup.gateway.log_text().contains("directory cannot be watched for changes; polling it instead"));
    let mut peer = setup.open().await;
    setup.respec(&json!({"handshake": {"origins": {"missing": "Deny"}}})).await;
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008), "a connection that is admitted no more");
    peer.send(&Frame::close(1008, "")).await;
    peer.ended(SOON, "its end").await;
    setup.refused("the new policy", &Head::upgrade("/"), &[403], &["origin_missing"]).await;
}
