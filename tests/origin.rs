//! Group A: which pages may open a connection. The oracle of every refusal is an upstream that saw nothing.

use crate::harness::setup::handshake;
use crate::harness::{Head, Setup, json};

const DENIED: (&[u16], &[&str]) = (&[403], &["origin_denied"]);
const AMBIGUOUS: (&[u16], &[&str]) = (&[403], &["origin_ambiguous"]);

/// What no list and no default lets in, whatever the list says of app.example.com.
const IMPOSTORS: &[(&str, &str)] = &[
    ("A1 another site", "https://evil.test"),
    ("A2 an opaque origin", "null"),
    ("A4 as a prefix", "https://app.example.com.evil.test"),
    ("A4 as a suffix", "https://evilapp.example.com"),
    ("A4 as userinfo", "https://app.example.com@evil.test"),
    ("A5 another scheme", "http://app.example.com"),
    ("A5 upper case", "HTTPS://APP.EXAMPLE.COM"),
    ("A5 the default port written out", "https://app.example.com:443"),
    ("A5 another port", "https://app.example.com:8443"),
    ("A5 with a slash", "https://app.example.com/"),
    ("A5 with a path", "https://app.example.com/x"),
    ("A5 with a dot", "https://app.example.com."),
    ("A6 punycode", "https://xn--app-.example.com"),
    ("A6 a U-label", "https://аpp.example.com"),
    ("A6 full-width dots", "https://app\u{ff0e}example\u{ff0e}com"),
    ("an empty origin", ""),
    ("a scheme alone", "https://"),
    ("no scheme", "app.example.com"),
    ("wss as scheme", "wss://app.example.com"),
];

async fn table(setup: &Setup, host: Option<&str>) {
    let base = match host {
        Some(host) => Head::upgrade("/").set("Host", host),
        None => Head::upgrade("/"),
    };
    for (case, origin) in IMPOSTORS {
        let answer = setup
            .refused(case, &base.clone().add("Origin", origin), DENIED.0, &["origin_denied", "origin_ambiguous"])
            .await;
        assert!(!String::from_utf8_lossy(&answer.body).contains("evil"), "{case}: the body repeats the request");
    }
    let cookie = base.clone().add("Cookie", "session=0123456789").add("Origin", "https://evil.test");
    setup.refused("A1 with a session cookie", &cookie, DENIED.0, DENIED.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_only_pages_of_the_same_host_get_in() {
    let setup = Setup::new(&json!({})).await;
    table(&setup, None).await;
    let from = |origin: &str| Head::upgrade("/").add("Origin", origin);
    setup.admitted("the same host", &from("https://chat.example.com")).await;
    for origin in ["https://app.example.com", "http://chat.example.com", "https://chat.example.com:8443"] {
        setup.refused(origin, &from(origin), DENIED.0, DENIED.1).await;
    }
    // The port of the Host is part of the origin, unless it is https's own.
    let on = |port: &str, origin: &str| from(origin).set("Host", format!("chat.example.com:{port}"));
    setup.admitted("the same port", &on("8443", "https://chat.example.com:8443")).await;
    setup.admitted("https's own port", &on("443", "https://chat.example.com")).await;
    setup.refused("another port", &on("8443", "https://chat.example.com"), DENIED.0, DENIED.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allow_list_is_compared_whole_and_replaces_the_default() {
    let setup = Setup::new(&handshake(&json!({"origins": {"allow": ["https://app.example.com"]}}))).await;
    table(&setup, None).await;
    let from = |origin: &str| Head::upgrade("/").add("Origin", origin);
    setup.admitted("listed", &from("https://app.example.com")).await;
    setup.refused("the host itself, not listed", &from("https://chat.example.com"), DENIED.0, DENIED.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_origins_are_refused_whichever_comes_first() {
    let setup = Setup::new(&handshake(&json!({"origins": {"allow": ["https://app.example.com"]}}))).await;
    let (good, evil) = ("https://app.example.com", "https://evil.test");
    for (case, head) in [
        ("A7 good, then evil", Head::upgrade("/").add("Origin", good).add("Origin", evil)),
        ("A7 evil, then good", Head::upgrade("/").add("Origin", evil).add("Origin", good)),
        ("A7 good twice", Head::upgrade("/").add("Origin", good).add("origin", good)),
        ("A7 a list with a comma", Head::upgrade("/").add("Origin", format!("{good}, {evil}"))),
        ("A7 a list with a space", Head::upgrade("/").add("Origin", format!("{good} {evil}"))),
    ] {
        setup.refused(case, &head, AMBIGUOUS.0, &["origin_ambiguous", "origin_denied"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_metadata_makes_no_origin_better_or_worse() {
    let setup = Setup::new(&json!({})).await;
    let from = |origin: &str, site: &str| Head::upgrade("/").add("Origin", origin).add("Sec-Fetch-Site", site);
    for site in ["same-origin", "same-site", "cross-site", "none"] {
        setup.refused(&format!("A9 {site}"), &from("https://evil.test", site), DENIED.0, DENIED.1).await;
        setup.admitted(&format!("A9 {site}"), &from("https://chat.example.com", site)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wildcard_stands_for_one_label() {
    let setup = Setup::new(&handshake(&json!({"origins": {"allow": ["https://*.example.com"]}}))).await;
    let from = |origin: &str| Head::upgrade("/").add("Origin", origin);
    setup.admitted("A8 one label", &from("https://a.example.com")).await;
    for (case, origin) in [
        ("A8 two labels", "https://a.b.example.com"),
        ("A8 no label", "https://example.com"),
        ("A8 an empty label", "https://.example.com"),
        ("A8 the star itself", "https://*.example.com"),
        ("A8 another scheme", "http://a.example.com"),
        ("A8 a port", "https://a.example.com:8443"),
        ("A8 userinfo", "https://evil.test@a.example.com"),
        ("A8 a path", "https://evil.test/.example.com"),
        ("A8 a longer host", "https://a.example.com.evil.test"),
    ] {
        setup.refused(case, &from(origin), DENIED.0, &["origin_denied", "origin_ambiguous"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_origin_gets_in_unless_the_route_says_no() {
    let setup = Setup::new(&json!({})).await;
    setup.admitted("not a browser", &Head::upgrade("/")).await;
    setup.respec(&handshake(&json!({"origins": {"missing": "Deny"}}))).await;
    setup.refused("A3 no origin", &Head::upgrade("/"), &[403], &["origin_missing"]).await;
    setup.admitted("the same host", &Head::upgrade("/").add("Origin", "https://chat.example.com")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_admits_every_origin_but_an_opaque_one() {
    let setup = Setup::new(&handshake(&json!({"origins": {"allow": ["*"]}}))).await;
    setup.admitted("any site", &Head::upgrade("/").add("Origin", "https://elsewhere.test")).await;
    setup.refused("A2", &Head::upgrade("/").add("Origin", "null"), DENIED.0, DENIED.1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_lets_a_foreign_origin_through_and_says_so() {
    let setup = Setup::new(&handshake(&json!({"origins": {"mode": "Audit"}}))).await;
    setup.admitted("audited", &Head::upgrade("/").add("Origin", "https://evil.test")).await;
    setup
        .gateway
        .access_line("the audited reason in the access log", |line| {
            line["event"] == "opened" && line.to_string().contains("origin_denied")
        })
        .await;
    let two = Head::upgrade("/").add("Origin", "https://evil.test").set("Host", "other.example.com");
    setup.refused("audit covers origins alone", &two, &[421], &["misdirected"]).await;
}
