//! The settings file under live sockets: what changes takes effect, what is broken changes nothing, what cannot change
//! is named.

use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::harness::gateway::configuration;
use crate::harness::{self, Behaviour, Frame, Head, Options, PATIENCE, Peer, Setup, json, until};
use serde_json::Value;

fn max_size(size: u32) -> Value {
    json!({"defaults": {"messages": {"fromClient": {"maxSize": size}}}})
}

/// Edits the settings and waits until the gateway serves by them.
async fn configure(setup: &Setup, members: &Value) {
    let before = setup.gateway.version().await;
    setup.gateway.configure(&format!("{:#}", configuration(members)));
    setup.gateway.published_after(before).await;
}

/// Waits for a line of the log.
async fn limit_is(setup: &Setup, peer: &mut Peer, size: usize) {
    peer.echo(&Frame::binary(vec![1; size])).await;
    let mut other = setup.open().await;
    other.send(&Frame::binary(vec![1; size + 1])).await;
    assert_eq!(other.close_code().await.map(|(code, _)| code), Some(1009), "{} bytes", size + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_change_under_open_sockets_and_close_none() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::settings(&max_size(100))).await;
    let mut peers = Vec::new();
    for _ in 0..100 {
        peers.push(setup.open().await);
    }
    limit_is(&setup, &mut peers[0], 100).await;
    configure(&setup, &max_size(10)).await;
    for peer in &mut peers {
        peer.echo(&Frame::text("still here")).await;
    }
    limit_is(&setup, &mut peers[0], 10).await;
    // Live connections are judged by it as well.
    let mut one = peers.pop().unwrap();
    one.send(&Frame::text("eleven byte")).await;
    assert_eq!(one.close_code().await.map(|(code, _)| code), Some(1009), "a live connection");
    configure(
        &setup,
        &json!({"defaults": {"handshake": {"origins": {"missing": "Deny", "allow": ["https://a.test"]}}}}),
    )
    .await;
    for mut peer in peers {
        assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008), "who would not get in again");
    }
    // Their backends hear of it too, before the next oracle looks at what they hear.
    until(PATIENCE, "the end of all", async || {
        setup.recorder.seen().iter().all(harness::recorder::Seen::is_ended).then_some(())
    })
    .await;
    setup.refused("the default for new handshakes", &Head::upgrade("/"), &[403], &["origin_missing"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostname_that_a_namespace_may_not_use_any_more_is_given_up() {
    let suffixes = |suffix: &str| json!({"hostnameSuffixes": {"shop": [suffix]}});
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::settings(&suffixes("example.com"))).await;
    let mut peer = setup.open().await;
    configure(&setup, &suffixes("shop.test")).await;
    let close = peer.close_code().await.map(|(code, _)| code);
    assert!(matches!(close, Some(1008 | 1012)), "lost authority fails closed: {close:?}");
    let warned = setup.gateway.log_line("the condition", |line| line["route"] == "shop/chat").await;
    assert!(warned["problem"].as_str().unwrap().contains("shop.test"), "{warned}");
    configure(&setup, &suffixes("example.com")).await;
    setup.open().await.echo(&Frame::text("back")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_is_reported_with_its_place_and_the_last_good_settings_stay() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::settings(&max_size(100))).await;
    let mut peer = setup.open().await;
    let head = "apiVersion: config.wssgate.io/v1alpha1\nkind: GatewayConfiguration\n";
    for (case, text, place, word) in [
        ("not YAML", "drain: [\n", "settings.yaml:", ""),
        ("an unknown key", "drian: {}\n", "settings.yaml:3:1", "drian"),
        ("a value that does not fit", "drain:\n  window: soon\n", "settings.yaml:4:11", "drain.window"),
        (
            "a default that no route could have",
            "defaults: {messages: {fromClient: {maxSize: 64KB}}}\n",
            "settings.yaml:3:",
            "maxSize",
        ),
        ("empty", "", "settings.yaml:", ""),
    ] {
        let text = if case == "empty" { String::new() } else { format!("{head}{text}") };
        setup.gateway.configure(&text);
        let warned = setup
            .gateway
            .log_line(case, |line| {
                line["problem"].as_str().is_some_and(|problem| problem.contains(place) && problem.contains(word))
            })
            .await;
        assert!(warned["message"].as_str().unwrap().contains("last good settings stay"), "{case}: {warned}");
        setup.gateway.metric_becomes("wssgate_config_last_reload_successful", &[], 0.0).await;
        limit_is(&setup, &mut peer, 100).await;
        setup.gateway.configure(&format!("{:#}", configuration(&max_size(100))));
        setup.gateway.metric_becomes("wssgate_config_last_reload_successful", &[], 1.0).await;
    }
    configure(&setup, &max_size(50)).await;
    limit_is(&setup, &mut peer, 50).await;
    let said = setup.gateway.logs().iter().filter(|line| line["problem"].is_string()).count();
    assert!(said <= 10, "said once each: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_restart_is_named_and_the_rest_takes_effect() {
    let setup = Setup::with(Behaviour::Echo, &json!({}), &Options::settings(&json!({"workers": 1}))).await;
    let mut peer = setup.open().await;
    let mut next = max_size(70);
    // The listeners are given by flags here, which win: nothing is said of those of the file.
    harness::manifests::merge(
        &mut next,
        &json!({
            "sharedStore": {"url": "redis://127.0.0.1:1"},
            "workers": 2, "logFormat": "text", "echo": "127.0.0.1:1", "listeners": {"wss": "127.0.0.1:1"},
            "drain": {"acceptGrace": "0s", "window": "0s", "deadline": "1s"},
        }),
    );
    configure(&setup, &next).await;
    let warned = setup.gateway.log_line("what needs a restart", |line| line["settings"].is_string()).await;
    assert_eq!(warned["settings"], "echo, workers, logFormat, sharedStore", "{warned}");
    limit_is(&setup, &mut peer, 70).await;
    assert_eq!(setup.gateway.metric("wssgate_workers", &[]).await as u64, 1);
    // The drain of the new file is the one that is followed.
    setup.gateway.sigterm();
    assert_eq!(setup.gateway.exit(Duration::from_secs(4)).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_config_map_is_followed_through_its_swap() {
    let mount = tempfile::TempDir::new().unwrap();
    let version = |name: &str, size: u32| {
        let folder = mount.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("gateway.yaml"), format!("{:#}", configuration(&max_size(size)))).unwrap();
    };
    version("..2026_01", 100);
    symlink("..2026_01", mount.path().join("..data")).unwrap();
    symlink("..data/gateway.yaml", mount.path().join("gateway.yaml")).unwrap();
    let file = mount.path().join("gateway.yaml").display().to_string();
    let options = Options { args: vec!["--config".into(), file], ..Options::default() };
    let setup = Setup::with(Behaviour::Echo, &json!({}), &options).await;
    let mut peer = setup.open().await;
    limit_is(&setup, &mut peer, 100).await;
    let before = setup.gateway.version().await;
    version("..2026_02", 20);
    symlink("..2026_02", mount.path().join("..data_tmp")).unwrap();
    std::fs::rename(mount.path().join("..data_tmp"), mount.path().join("..data")).unwrap();
    std::fs::remove_dir_all(mount.path().join("..2026_01")).unwrap();
    setup.gateway.published_after(before).await;
    limit_is(&setup, &mut peer, 20).await;
}
