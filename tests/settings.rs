//! The settings file: strict, and every error names file, line, column, key and fix.

use std::io::Write;
use std::time::Duration;

use wssgate::settings::{GatewayConfiguration, Overrides, Settings};
use wssgate::telemetry::format::Format;

const HEAD: &str = "apiVersion: config.wssgate.io/v1alpha1\nkind: GatewayConfiguration\n";

fn parse(text: &str) -> Result<GatewayConfiguration, String> {
    GatewayConfiguration::parse("gateway.yaml", &format!("{HEAD}{text}")).map_err(|error| error.to_string())
}

/// The error of settings that must not be read; it begins with the place.
fn refused(text: &str, place: &str, words: &[&str]) {
    let error = parse(text).unwrap_err();
    assert!(error.starts_with(&format!("gateway.yaml:{place}: ")), "{text:?}: {error}");
    for word in words {
        assert!(error.contains(word), "{text:?}: {error} should contain {word:?}");
    }
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_complete_file_is_read() {
    let file = parse(
        "listeners:\n  wss: '[::]:443'\n  http: 0.0.0.0:80\n  admin: 127.0.0.1:9901\n\
         manifests: manifests/quickstart\n\
         echo: 127.0.0.1:9001\n\
         controllerName: example.com/gateway\n\
         ingressClassName: wssgate\n\
         watchNamespaces: [shop, bank]\n\
         defaultCertificate: {namespace: shop, name: fallback}\n\
         drain: {acceptGrace: 500ms, window: 1m, deadline: 5s}\n\
         hostnameSuffixes: {shop: [shop.example.com, .example.org]}\n\
         defaults:\n  handshake: {origins: {missing: Deny}}\n  connection: {idleTimeout: 10m}\n  \
         messages: {fromClient: {maxSize: 32Ki}}\n\
         workers: 3\nlogFormat: text\n",
    )
    .unwrap();
    let settings = Settings::merge(Overrides::default(), Some(file));
    assert_eq!(settings.listeners.wss.port(), 443);
    assert_eq!(settings.watch_namespaces, ["shop", "bank"]);
    assert_eq!(settings.hostname_suffixes["shop"], ["shop.example.com", ".example.org"]);
    assert_eq!(settings.log_format, Format::Text);
    assert!(settings.defaults.handshake.unwrap().origins.unwrap().missing.is_some());
    assert_eq!(settings.defaults.connection.unwrap().idle_timeout.unwrap().0, "10m");
    assert_eq!(settings.defaults.messages.unwrap().from_client.unwrap().max_size.unwrap().bytes(), Ok(32768));
}

#[test]
fn json_is_read_as_well() {
    let text = r#"{"apiVersion": "config.wssgate.io/v1alpha1", "kind": "GatewayConfiguration", "workers": 2}"#;
    assert_eq!(GatewayConfiguration::parse("gateway.json", text).unwrap().workers.unwrap().get(), 2);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    refused("listners: {}\n", "3:1", &["listners"]);
    refused("listeners:\n  wsss: '[::]:1'\n", "4:3", &["wsss"]);
    refused("drain: {windows: 1s}\n", "3:9", &["windows"]);
}

#[test]
fn an_unknown_key_within_the_defaults_is_an_error_too() {
    refused("defaults:\n  handshake:\n    orgins: {}\n", "5:5", &["defaults.handshake.orgins", "unknown field"]);
    refused("defaults:\n  tls: {}\n", "4:3", &["tls"]);
    refused("defaults:\n  messages:\n    fromClient: {maxSize: 64KB}\n", "5:18", &["fromClient.maxSize", "64Ki"]);
    refused("defaults:\n  connection:\n    limits: {total: 0}\n", "5:14", &["limits.total", "from 1"]);
}

#[test]
fn a_shared_store_is_named_without_its_password() {
    let settings = |text: &str| parse(&format!("sharedStore: {text}\n"));
    let store =
        settings("{url: 'rediss://gate@store.test:7000/3', passwordFile: /run/p}").unwrap().shared_store.unwrap();
    assert!(store.url.tls && store.url.host == "store.test" && store.url.port == 7000 && store.url.database == 3);
    let built_in = (Duration::from_secs(1), Duration::from_secs(30), "wssgate:");
    assert_eq!((store.timeout, store.lease_duration, store.key_prefix.as_str()), built_in);
    assert!(settings("{url: 'redis://[::1]:6379', timeout: 50ms, leaseDuration: 3s, keyPrefix: 'a:b:'}").is_ok());
    assert_eq!(GatewayConfiguration::default().shared_store, None, "none unless written down");
    for (bad, named) in [
        ("{}", ["sharedStore", "the field url is missing"]),
        ("{url: 'http://store'}", ["sharedStore.url", "rediss://"]),
        ("{url: store}", ["sharedStore.url", "rediss://"]),
        ("{url: 'redis://:hunter2@store'}", ["sharedStore.url", "passwordFile"]),
        ("{url: 'redis://gate:hunter2@store'}", ["sharedStore.url", "passwordFile"]),
        ("{url: 'redis://s', password: hunter2}", ["password", "unknown field"]),
        ("{url: 'redis://s', timeout: 1ms}", ["sharedStore.timeout", "from 50ms to 10s"]),
        ("{url: 'redis://s', leaseDuration: 1s}", ["sharedStore.leaseDuration", "from 3s to 10m"]),
        ("{url: 'redis://s', keyPrefix: ''}", ["sharedStore.keyPrefix", "from 1 to 64"]),
        ("{url: 'redis://s', keyPrefix: 'a b'}", ["sharedStore.keyPrefix", "from 1 to 64"]),
    ] {
        let error = settings(bad).unwrap_err();
        assert!(named.iter().all(|word| error.contains(word)), "{bad}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    refused("replicas: 0\n", "3:11", &["replicas", "1 or more"]);
}

#[test]
fn authentication_is_never_a_default() {
    refused(
        "defaults:\n  handshake:\n    authentication: {mode: Anonymous}\n",
        "5:5",
        &["defaults.handshake.authentication", "each route"],
    );
}

#[test]
fn a_bad_value_is_an_error_that_names_key_and_fix() {
    refused("listeners:\n  wss: ':8443'\n", "4:8", &["listeners.wss", "\":8443\"", "[::]:8443"]);
    refused("echo: localhost\n", "3:7", &["echo", "127.0.0.1"]);
    refused("drain: {window: 10}\n", "3:17", &["drain.window", "30s"]);
    for workers in ["many", "0", "-1", "1025", "1.5"] {
        let error = parse(&format!("workers: {workers}\n")).unwrap_err();
        assert!(
            error.starts_with("gateway.yaml:3:")
                && error.ends_with(": workers: write the number of threads, from 1 to 1024"),
            "{error}"
        );
    }
    refused("memoryBudget: plenty\n", "3:15", &["memoryBudget", "64Ki"]);
    refused("logFormat: xml\n", "3:12", &["logFormat", "json", "text"]);
    for suffix in ["*.example.com", "example.com.", "a..b", "-a.b", ".", "Shop.example.com"] {
        let text = format!("hostnameSuffixes: {{shop: ['{suffix}']}}\n");
        refused(&text, "3:27", &["hostnameSuffixes.shop[0]", "star"]);
    }
    for name in ["wssgate", "/own", "example.com/", "Example.com/own", "example.com/own/", "example.com/a b"] {
        refused(&format!("controllerName: '{name}'\n"), "3:1", &["controllerName", "such as example.com/gateway"]);
    }
    refused(
        "defaultCertificate: {name: tls}\n",
        "3:22",
        &["defaultCertificate: the field namespace is missing; add it"],
    );
}

#[test]
fn trusted_proxies_are_named_and_never_everybody() {
    let settings = |text: &str| parse(&format!("trustedProxies: {text}\n"));
    assert_eq!(GatewayConfiguration::default().trusted_proxies.proxy_protocol, None, "nobody unless written down");
    for good in [
        "{}",
        "{proxyProtocol: {networks: [10.0.0.0/8, '2001:db8::/32']}}",
        "{forwardedFor: {networks: [10.0.0.7/32]}}",
        "{forwardedFor: {networks: [10.0.0.7/32], hops: 16}}",
    ] {
        assert!(settings(good).is_ok(), "{good}: {:?}", settings(good));
    }
    for (bad, named) in [
        ("{proxyProtocol: {}}", ["trustedProxies", "the field networks is missing"]),
        ("{proxyProtocol: {networks: []}}", ["proxyProtocol.networks", "from 1"]),
        ("{proxyProtocol: {networks: [10.0.0.1]}}", ["proxyProtocol.networks", "10.0.0.0/8"]),
        ("{proxyProtocol: {networks: [0.0.0.0/0]}}", ["proxyProtocol.networks", "every client"]),
        ("{forwardedFor: {networks: ['::/0']}}", ["forwardedFor.networks", "every client"]),
        ("{forwardedFor: {networks: ['::ffff:10.0.0.0/104']}}", ["forwardedFor.networks", "IPv4"]),
        ("{forwardedFor: {networks: [10.0.0.0/8], hops: 0}}", ["forwardedFor.hops", "from 1 to 16"]),
        ("{forwardedFor: {networks: [10.0.0.0/8], hops: 300}}", ["forwardedFor.hops", "from 1 to 16"]),
        ("{forwardedFor: {networks: [10.0.0.0/8], header: X-Real-IP}}", ["header", "unknown field"]),
        ("{proxyProtocol: {networks: [10.0.0.0/8], version: 1}}", ["version", "unknown field"]),
    ] {
        let error = settings(bad).unwrap_err();
        assert!(named.iter().all(|word| error.contains(word)), "{bad}: {error}");
    }
}

#[test]
fn dev_is_a_flag_only() {
    refused("dev: true\n", "3:1", &["dev"]);
}

#[test]
fn what_is_not_a_settings_file_hears_what_one_looks_like() {
    let error = |text: &str| GatewayConfiguration::parse("x.yaml", text).unwrap_err().to_string();
    assert!(
        error("apiVersion: v1\nkind: Secret\ndata: {}\n").contains("apiVersion: must be config.wssgate.io/v1alpha1")
    );
    assert!(error("apiVersion: config.wssgate.io/v1alpha1\nkind: X\n").starts_with("x.yaml:2:1: "));
    assert!(error("").contains("x.yaml:"));
    assert!(error("workers: 1\n").contains("apiVersion"));
    assert!(error("a: [\n").starts_with("x.yaml:"));
    assert!(error(&format!("{HEAD}workers: &a 1\n")).contains("anchors"));
    assert!(error(&format!("{HEAD}workers: 1\nworkers: 2\n")).contains("workers"));
}

#[test]
fn a_file_is_read_from_disk_and_bounded() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{HEAD}workers: 5").unwrap();
    assert_eq!(GatewayConfiguration::read(file.path()).unwrap().workers.unwrap().get(), 5);
    writeln!(file, "# {}", "x".repeat(2 << 20)).unwrap();
    assert!(GatewayConfiguration::read(file.path()).unwrap_err().to_string().contains("1 MiB"));
    let absent = file.path().with_extension("absent");
    assert!(GatewayConfiguration::read(&absent).unwrap_err().to_string().contains("absent"));
}
