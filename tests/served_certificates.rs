//! Group D: which certificate is served to whom, and what happens to those that are wrong.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::harness::manifests::{config_map, route, secret, service, text};
use crate::harness::{
    self, Authority, Behaviour, Client, Frame, Gateway, HOST, Head, Manifests, PATIENCE, Recorder, SOON, Setup, json,
    until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_gets_the_certificate_that_it_can_read() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let rsa_key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let (rsa, ecdsa) = (authority.leaf_with(&[HOST], &rsa_key, |_| {}), authority.leaf(&[HOST]));
    let refs = json!({"tls": {"certificateRefs": [{"name": "rsa"}, {"name": "ecdsa"}]}});
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("rsa", &rsa), secret("ecdsa", &ecdsa)])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with("route.yaml", &[route("chat", HOST, "rsa", "chat", &refs)]);
    let gateway = Gateway::start(&manifests).await;
    for (case, word, expected) in [("RSA", "ECDHE_RSA", &rsa), ("ECDSA", "ECDHE_ECDSA", &ecdsa)] {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains(word));
        let config = authority.client_with(Arc::new(provider), &[&rustls::version::TLS12]);
        let client = Client { address: gateway.wss, config: Arc::new(config), name: HOST.into() };
        assert_eq!(leaf(&client).await.unwrap(), expected.leaf().to_vec(), "{case}");
    }
}

/// The leaf that a new handshake shows.
async fn leaf(client: &Client) -> io::Result<Vec<u8>> {
    Ok(client.try_connect().await?.certificate().expect("a certificate").to_vec())
}

/// Waits until so many looks by [`leaf`] are counted, which they are when their end is seen: no refusal that follows is
/// taken for one of them.
async fn looked(gateway: &Gateway, times: u32) {
    counted(gateway, "client_lost", times).await;
}

/// Waits until so many refusals for a reason are counted, which may be after their clients have heard of them.
async fn counted(gateway: &Gateway, reason: &str, times: u32) {
    until(SOON, "the refusals to be counted", async || {
        (gateway.refusals(Some(reason)).await == f64::from(times)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_secret_keeps_the_last_good_certificate() {
    let setup = Setup::new(&json!({})).await;
    let client = setup.client();
    let mut live = setup.open().await;
    let (good, other) = (setup.authority.leaf(&[HOST]), setup.authority.leaf(&[HOST]));
    let key = || rcgen::KeyPair::generate().unwrap();
    let (expired_key, future_key) = (key(), key());
    let dated = |key: &rcgen::KeyPair, from: i32, to: i32| {
        setup.authority.leaf_with(&[HOST], key, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    let mut mismatch = good.clone();
    mismatch.key = other.key.clone();
    let mut truncated = good.clone();
    truncated.chain.truncate(good.chain.len() / 3);
    let mut no_key = good.clone();
    no_key.key = String::new();
    let mut reversed = good.clone();
    reversed.chain = format!("{}{}", setup.authority.pem(), good.chain.trim_end_matches(setup.authority.pem()));
    let weak = harness::Pair {
        chain: include_str!("harness/rsa1024.crt").to_owned(),
        key: include_str!("harness/rsa1024.key").to_owned(),
    };
    let rows = [
        ("D9 the key of another certificate", mismatch),
        ("D9 a truncated chain", truncated),
        ("D9 no key", no_key),
        ("D9 expired", dated(&expired_key, 2020, 2021)),
        ("D9 not yet valid", dated(&future_key, 2080, 2081)),
        ("D9 another name", setup.authority.leaf(&["other.example.com"])),
        ("D9 RSA of 1,024 bits", weak),
        ("D9 the issuer first", reversed),
    ];
    for (case, bad) in rows {
        let fresh = setup.authority.leaf(&[HOST]);
        setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &fresh)]));
        until(PATIENCE, &format!("{case}: the good certificate before it"), async || {
            (leaf(&client).await.expect(case) == fresh.leaf().to_vec()).then_some(())
        })
        .await;
        let said = setup.gateway.log_text().matches("chat-tls").count();
        setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &bad)]));
        until(PATIENCE, &format!("{case}: a log line that names the Secret"), async || {
            let shown = leaf(&client).await.unwrap_or_else(|error| panic!("{case}: a handshake failed: {error}"));
            assert_eq!(shown, fresh.leaf().to_vec(), "{case}: another certificate is shown");
            (setup.gateway.log_text().matches("chat-tls").count() > said).then_some(())
        })
        .await;
        for _ in 0..3 {
            assert_eq!(leaf(&client).await.expect(case), fresh.leaf().to_vec(), "{case}");
        }
        live.echo(&Frame::text(case)).await;
    }
    assert!(!setup.gateway.log_text().contains("PRIVATE KEY"), "a key in the log");
}

/// A clock that stands still, for a client that does not mind.
#[derive(Debug)]
struct StoppedClock(rustls::pki_types::UnixTime);

impl rustls::time_provider::TimeProvider for StoppedClock {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_while_it_is_served_is_served_on_and_told() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let expiry = std::time::SystemTime::now() + Duration::from_secs(5);
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = authority.leaf_with(&[HOST], &key, |params| params.not_after = expiry.into());
    let manifests =
        harness::setup::manifests(&authority, &recorder, &json!({})).with("secret.yaml", &[secret("chat-tls", &pair)]);
    let gateway = Gateway::start(&manifests).await;
    let mut config = authority.client();
    // Its clock stands at the test's beginning: what is tested is the gateway, not the client.
    config.time_provider = Arc::new(StoppedClock(rustls::pki_types::UnixTime::now()));
    let client = Client { address: gateway.wss, config: Arc::new(config), name: HOST.into() };
    let mut live = client.open(&Head::upgrade("/")).await;
    live.echo(&Frame::text("valid")).await;
    let seconds = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as f64;
    let told = gateway.metric("wssgate_certificate_expiry_timestamp_seconds", &[("host", HOST)]).await;
    assert!((told - seconds(expiry)).abs() < 1.5, "D10: {told}");
    // The condition says so by itself: nobody has touched a manifest.
    let expired = |line: &serde_json::Value| line["condition"] == "CertificateReady" && line["reason"] == "Expired";
    gateway.log_line("D10: the condition", expired).await;
    assert!(std::time::SystemTime::now() > expiry, "D10: told before its time");
    live.echo(&Frame::text("still open")).await;
    assert_eq!(leaf(&client).await.unwrap(), pair.leaf().to_vec(), "D10: still served");
    client.open(&Head::upgrade("/")).await.echo(&Frame::text("new")).await;
    let judging = Client { config: Arc::new(authority.client()), ..client };
    assert!(judging.try_connect().await.is_err(), "D10: clients judge expiry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_becomes_valid_takes_over_without_another_edit() {
    let setup = Setup::new(&json!({})).await;
    let begin = std::time::SystemTime::now() + Duration::from_secs(5);
    let key = rcgen::KeyPair::generate().unwrap();
    let pair = setup.authority.leaf_with(&[HOST], &key, |params| params.not_before = begin.into());
    setup.gateway.write("secret.yaml", &text(&[secret("chat-tls", &pair)]));
    let logged = |field: &str, value: &str| setup.gateway.logs().into_iter().find(|line| line[field] == value);
    until(PATIENCE, "the early certificate", async || logged("condition", "CertificateReady")).await;
    let kept = leaf(&setup.client()).await.unwrap();
    assert_ne!(kept, pair.leaf().to_vec(), "served before its time");
    until(PATIENCE, "its first moment", async || logged("message", "problem resolved")).await;
    // A certificate counts whole seconds.
    assert!(std::time::SystemTime::now() + Duration::from_secs(1) >= begin, "told before its time");
    assert_eq!(leaf(&setup.client()).await.unwrap(), pair.leaf().to_vec());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_stands_for_one_label_and_exact_names_come_first() {
    let authority = Authority::new();
    let (wild, exact) = (Recorder::start(Behaviour::Echo).await, Recorder::start(Behaviour::Echo).await);
    let pair = authority.leaf(&["*.example.com", "example.com", "*.a.example.com"]);
    let exact_pair = authority.leaf(&[HOST]);
    let mut objects = service("wild", &[wild.port()]);
    objects.extend(service("exact", &[exact.port()]));
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("wild-tls", &pair), secret("exact-tls", &exact_pair)])
        .with("service.yaml", &objects)
        .with(
            "route.yaml",
            &[
                route("wild", "*.example.com", "wild-tls", "wild", &json!({})),
                route("exact", HOST, "exact-tls", "exact", &json!({})),
            ],
        );
    let gateway = Gateway::start(&manifests).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    let at = |name: &str| (client.named(name), Head::upgrade("/").set("Host", name));
    for name in ["any.example.com", "other.example.com"] {
        let (client, head) = at(name);
        client.open(&head).await.echo(&Frame::text(name)).await;
        assert_eq!(leaf(&client).await.unwrap(), pair.leaf().to_vec(), "{name}");
    }
    client.open(&Head::upgrade("/")).await.echo(&Frame::text("exact")).await;
    assert_eq!(leaf(&client).await.unwrap(), exact_pair.leaf().to_vec());
    assert_eq!((wild.count().0, exact.count().0), (2, 1));
    for name in ["example.com", "b.a.example.com", "example.org"] {
        let error = client.named(name).try_connect().await.err().unwrap_or_else(|| panic!("{name}: connected"));
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    looked(&gateway, 3).await;
    counted(&gateway, "unknown_server_name", 3).await;
    // One connection, one host: also below the same star.
    let any = client.named("any.example.com");
    let head = Head::upgrade("/").set("Host", "other.example.com");
    harness::setup::refused(&gateway, &wild, &any, "C6 below one star", &head, &[421], &["misdirected"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_certificate_is_for_whoever_has_no_other() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let (own, default) = (authority.leaf(&[HOST]), authority.leaf(&["bare.example.com", "nobody.example.com"]));
    let bare = json!({"tls": null});
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("chat-tls", &own), secret("default-tls", &default)])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with(
            "route.yaml",
            &[
                route("chat", HOST, "chat-tls", "chat", &json!({})),
                route("bare", "bare.example.com", "", "chat", &bare),
            ],
        );
    let options =
        harness::Options::settings(&json!({"defaultCertificate": {"namespace": "shop", "name": "default-tls"}}));
    let gateway = Gateway::start_with(&manifests, &options).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    assert_eq!(leaf(&client).await.unwrap(), own.leaf().to_vec());
    let bare = client.named("bare.example.com");
    assert_eq!(leaf(&bare).await.unwrap(), default.leaf().to_vec());
    bare.open(&Head::upgrade("/").set("Host", "bare.example.com")).await.echo(&Frame::text("served")).await;
    // A name that no route serves gets TLS and an HTTP answer, and reaches nobody.
    let nobody = client.named("nobody.example.com");
    assert_eq!(leaf(&nobody).await.unwrap(), default.leaf().to_vec());
    looked(&gateway, 3).await;
    let head = |host: &str| Head::upgrade("/").set("Host", host);
    let refused = async |case: &str, client: &Client, host: &str, status: u16, reason: &str| {
        harness::setup::refused(&gateway, &recorder, client, case, &head(host), &[status], &[reason]).await;
    };
    refused("C7 a name that nobody serves", &nobody, "nobody.example.com", 404, "route_not_found").await;
    refused("C6 a name of ours, and another Host", &bare, HOST, 421, "misdirected").await;
    refused("C6 a name of ours, and a Host of nobody", &bare, "nobody.example.com", 421, "misdirected").await;
}

/// A load balancer that opens TLS itself names no host, or its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_the_default_certificate_the_host_decides_among_hosts_that_ask_no_more() {
    let authority = Authority::new();
    let recorder = Recorder::start(Behaviour::Echo).await;
    let own = authority.leaf(&[HOST, "guarded.example.com", "strict.example.com"]);
    let default = authority.leaf(&["127.0.0.1", "gateway.internal", "bare.example.com"]);
    let with = |name: &str, tls: &serde_json::Value| {
        route(name, &format!("{name}.example.com"), "chat-tls", "chat", &json!({"tls": tls}))
    };
    let trust = json!({"mode": "Optional", "caCertificateRefs": [{"name": "partners-ca"}]});
    let gone = json!({"certificateRefs": [{"name": "gone"}]});
    let manifests = Manifests::default()
        .with("secrets.yaml", &[secret("chat-tls", &own), secret("default-tls", &default)])
        .with("ca.yaml", &[config_map("partners-ca", "ca.crt", authority.pem())])
        .with("service.yaml", &service("chat", &[recorder.port()]))
        .with(
            "route.yaml",
            &[
                route("chat", HOST, "chat-tls", "chat", &json!({})),
                route("bare", "bare.example.com", "", "chat", &json!({"tls": null})),
                with("guarded", &json!({"clientValidation": trust})),
                with("strict", &json!({"minVersion": "1.3"})),
                with("gone", &gone),
            ],
        );
    let options =
        harness::Options::settings(&json!({"defaultCertificate": {"namespace": "shop", "name": "default-tls"}}));
    let gateway = Gateway::start_with(&manifests, &options).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: HOST.into() };
    let served = async |client: &Client, head: &Head, case: &str| {
        let mut peer = client.open(head).await;
        peer.echo(&Frame::text(case)).await;
        assert_eq!(peer.close(1000, "").await.map(|(code, _)| code), Some(1000), "{case}");
    };
    let head = |host: &str| Head::upgrade("/").set("Host", host).set("Origin", format!("https://{host}"));
    for name in ["127.0.0.1", "gateway.internal"] {
        for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
            let tls13 = versions[0].version == rustls::ProtocolVersion::TLSv1_3;
            let client = client.named(name).configured(authority.client_of(versions));
            let case = format!("C7 {name}, TLS 1.3: {tls13}");
            for host in [HOST, "bare.example.com"] {
                served(&client, &head(host), &case).await;
            }
            let refused = async |host: &str, status: u16, reason: &str| {
                let case = format!("{case}, {host}");
                harness::setup::refused(&gateway, &recorder, &client, &case, &head(host), &[status], &[reason]).await;
            };
            refused("guarded.example.com", 421, "misdirected").await;
            refused("gone.example.com", 421, "misdirected").await;
            refused("nobody.example.com", 404, "route_not_found").await;
            match tls13 {
                true => served(&client, &head("strict.example.com"), &case).await,
                false => refused("strict.example.com", 421, "misdirected").await,
            }
        }
    }
    // A host that comes to ask for certificates is out of reach at once, and its other hosts stay.
    let unnamed = client.named("gateway.internal");
    let mut open = unnamed.open(&head(HOST)).await;
    let spec =
        json!({"tls": {"clientValidation": {"mode": "Required", "caCertificateRefs": [{"name": "partners-ca"}]}}});
    gateway.edit("route.yaml", &text(&[route("chat", HOST, "chat-tls", "chat", &spec)])).await;
    assert_eq!(open.close_code().await.map(|(code, _)| code), Some(1008), "C7: without a certificate nobody stays");
    drop(open);
    harness::setup::refused(&gateway, &recorder, &unnamed, "C7 asked now", &head(HOST), &[421], &["misdirected"]).await;
}
