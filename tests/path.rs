//! Group C: paths, hosts, fields and sizes. What was matched is what is forwarded; everything doubtful is refused.

use std::sync::Arc;

use crate::harness::manifests::{route, secret, service};
use crate::harness::setup::refused;
use crate::harness::{self, Authority, Behaviour, Client, Gateway, Head, Manifests, Recorder, Setup, json};

/// Targets that are refused, whatever the route.
const BAD: &[(&str, &[u8])] = &[
    ("C1 encoded dots", b"/public/%2e%2e/admin"),
    ("C1 encoded dots, upper case", b"/public/%2E%2E/admin"),
    ("C1 half encoded dots", b"/public/.%2e/admin"),
    ("C1 a parameter on the dots", b"/public/..;/admin"),
    ("C1 an encoded slash after dots", b"/public/..%2fadmin"),
    ("C1 a parameter on encoded dots", b"/public/%2e%2e%3bx/admin"),
    ("C1 dots behind two slashes", b"/public//../admin"),
    ("C1 an encoded slash", b"/public%2Fadmin"),
    ("C1 dot segments", b"/public/../admin"),
    ("C1 dot segments at the end", b"/public/.."),
    ("C2 a dot at the end", b"/ws/."),
    ("C2 a dot within", b"/ws/./x"),
    ("C2 an encoded dot", b"/ws/%2e"),
    ("C3 a backslash", b"/ws\\x"),
    ("C3 an encoded backslash", b"/ws%5c"),
    ("C3 an encoded NUL", b"/ws%00"),
    ("C3 a byte above ASCII", b"/ws\xe4"),
    ("C3 a fragment", b"/ws#admin"),
    ("C3 a broken escape", b"/ws%2"),
    ("C3 an escape that is none", b"/ws%zz"),
    ("C3 an encoded CR and LF", b"/ws%0d%0aX-A:%201"),
    ("C3 a control byte", b"/ws\x01"),
    ("C3 DEL", b"/ws\x7f"),
    ("no slash", b"ws"),
    ("an asterisk", b"*"),
    ("an authority", b"chat.example.com:443"),
    ("another scheme", b"ftp://chat.example.com/ws"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubtful_path_is_refused_and_never_mended() {
    let setup = Setup::new(&json!({})).await;
    for (case, target) in BAD {
        let head = Head::upgrade("/").line([b"GET ", *target, b" HTTP/1.1"].concat());
        setup.refused(case, &head, &[400], &["bad_path", "malformed_request"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_matched_is_what_is_forwarded_byte_for_byte() {
    let setup = Setup::new(&json!({})).await;
    let mut targets: Vec<String> =
        ["/", "/%252e%252e/x", "/a%20b", "/a+b", "/~u/:x@y!$&'()*,=", "/A/a", "/a/", "/a?x=/../y", "/a?"]
            .map(str::to_owned)
            .into();
    // And pieces put together in ways that nobody thought of: each is refused, or arrives as it was sent.
    let pieces =
        ["/", ".", "..", "%2e", "a", "A", ";", "%25", "?", "//", "\\", "%", "=", "&", "~", "%2F", ":", "b-c_d"];
    let mut state = 0x2545_F491_u32;
    let rounds = if harness::long() { 2000 } else { 150 };
    for _ in 0..rounds {
        let mut target = String::from("/");
        for _ in 0..6 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            target.push_str(pieces[(state >> 16) as usize % pieces.len()]);
        }
        targets.push(target);
    }
    let mut let_through = 0;
    for (index, target) in targets.iter().enumerate() {
        let (answer, peer) = setup.client().ask(&Head::upgrade(target)).await;
        if answer.status() == 101 {
            let_through += 1;
            let expected = format!("GET {target} HTTP/1.1");
            let seen = setup.recorder.seen();
            let found = seen.iter().rev().any(|seen| seen.head().line == expected);
            assert!(found, "C5 {target}: the upstream saw {}", setup.recorder.last().head().line);
        } else {
            assert_eq!(answer.status(), 400, "C5 {target}");
            assert!(index >= 9, "C4 {target} is no doubtful path");
        }
        drop(peer);
    }
    assert!(let_through > 9, "C5: nothing but the fixed rows was let through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_without_a_route_is_refused() {
    let rules = json!({"rules": [
        {"name": "exact", "matches": [{"path": {"type": "Exact", "value": "/exact"}}],
         "backendRefs": [{"name": "chat", "port": 8080}]},
        {"name": "prefix", "matches": [{"path": {"type": "PathPrefix", "value": "/chat"}}],
         "backendRefs": [{"name": "chat", "port": 8080}]},
    ]});
    let setup = Setup::new(&rules).await;
    for path in ["/exact", "/exact?a=b", "/chat", "/chat/", "/chat/room", "/chat?x"] {
        setup.admitted(path, &Head::upgrade(path)).await;
    }
    for path in ["/", "/exact/", "/exact/x", "/chatter", "/cha", "/Chat", "/CHAT", "/x/chat"] {
        setup.refused(path, &Head::upgrade(path), &[404], &["route_not_found"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_reading_leads_to_no_other_route() {
    let rule = |name: &str, kind: &str, path: &str| {
        json!({"name": name, "matches": [{"path": {"type": kind, "value": path}}],
               "backendRefs": [{"name": "chat", "port": 8080}]})
    };
    let whole = Setup::new(&json!({"rules": [rule("all", "PathPrefix", "/")]})).await;
    let parted = json!({"rules": [
        rule("all", "PathPrefix", "/"), rule("admin", "PathPrefix", "/admin"), rule("at", "Exact", "/rooms/a@b"),
    ]});
    let parted = Setup::new(&parted).await;
    // Without a rule for the rest, a reading that leads to none is refused as well.
    let alone = json!({"rules": [rule("chat", "PathPrefix", "/chat"), rule("at", "Exact", "/rooms/a")]});
    let alone = Setup::new(&alone).await;
    for path in ["/chat//CP001", "/chat/CP001//", "/chat/%61;b/c"] {
        alone.admitted(path, &Head::upgrade(path)).await;
    }
    for path in ["/chat;x", "//chat/x", "//x/chat", "/%63hat", "/rooms//a", "/rooms/a;x"] {
        alone.refused(&format!("C5 {path}"), &Head::upgrade(path), &[400], &["bad_path"]).await;
    }
    alone.refused("C5 no rule in any reading", &Head::upgrade("//x;y"), &[404], &["route_not_found"]).await;
    for path in [
        "/%61dmin",
        "/%61dmin/x",
        "/adm%69n",
        "/admi%6E/x",
        "/rooms/a%40b",
        "/rooms/%61@b",
        "//admin",
        "//x/admin",
        "///admin/x",
        "/admin;x",
        "/admin%3bx",
        "/admin;x/y",
        "/;x/admin",
        "/rooms//a@b",
        "/rooms/a@b;x",
        "/rooms/a@b%3fx",
        "/admin;/..a/%2e%61",
    ] {
        parted.refused(&format!("C5 {path}"), &Head::upgrade(path), &[400], &["bad_path"]).await;
        // Where both readings lead to the same route there is nothing to go around.
        whole.admitted(path, &Head::upgrade(path)).await;
    }
    for path in [
        "/admin/%61",
        "/rooms/a%40c",
        "/administrator%20",
        "/%2561dmin",
        "/admin//CP001",
        "/admin/a;b=c/d%7C",
        "//rooms",
        "/rooms;x//y",
    ] {
        parted.admitted(path, &Head::upgrade(path)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_is_one_plain_name() {
    let setup = Setup::new(&json!({})).await;
    let host = |value: &[u8]| Head::upgrade("/").set("Host", value);
    setup.admitted("C8 a port", &host(b"chat.example.com:8443")).await;
    setup.admitted("C8 upper case", &host(b"CHAT.Example.COM")).await;
    for (case, head) in [
        ("C8 two dots at the end", host(b"chat.example.com..")),
        ("C8 userinfo", host(b"user@chat.example.com")),
        ("C8 a space", host(b"chat example.com")),
        ("C8 a space at the end of a name", host(b"chat.example.com :443")),
        ("C8 an escape", host(b"chat%2eexample.com")),
        ("C8 a list", host(b"chat.example.com, evil.test")),
        ("C8 a slash", host(b"chat.example.com/x")),
        ("C8 a port that is none", host(b"chat.example.com:http")),
        ("C8 a port too large", host(b"chat.example.com:65536")),
        ("C8 two ports", host(b"chat.example.com:443:443")),
        ("C8 an open bracket", host(b"[::1")),
        ("C8 empty", host(b"")),
        ("C8 missing", Head::upgrade("/").without("Host")),
        ("C8 two hosts", Head::upgrade("/").add("Host", "evil.test")),
        ("C8 the same host twice", Head::upgrade("/").add("host", harness::HOST)),
        ("C8 not ASCII", host("chät.example.com".as_bytes())),
    ] {
        setup.refused(case, &head, &[400], &["bad_host", "malformed_request"]).await;
    }
    for (case, value) in [("C8 an IPv6 address", "[::1]"), ("C8 an IPv4 address", "127.0.0.1")] {
        setup.refused(case, &host(value.as_bytes()), &[400, 421], &["bad_host", "misdirected"]).await;
    }
    setup.admitted("C8 a trailing dot", &host(b"chat.example.com.")).await;
    setup.admitted("C8 no port after the colon", &host(b"chat.example.com:")).await;
    for target in [
        "https://evil.test/",
        "http://evil.test/ws",
        "https://chat.example.com@evil.test/",
        "wss://chat.example.com:1/",
    ] {
        let absolute = Head::upgrade("/").line(format!("GET {target} HTTP/1.1"));
        setup.refused(&format!("C8 {target}"), &absolute, &[400], &["bad_host"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_served_on_its_own_connections_only() {
    let authority = Authority::new();
    let (a, b) = (Recorder::start(Behaviour::Echo).await, Recorder::start(Behaviour::Echo).await);
    let manifests = Manifests::default()
        .with(
            "a.yaml",
            &[secret("a-tls", &authority.leaf(&["a.test"])), route("a", "a.test", "a-tls", "a", &json!({}))],
        )
        .with(
            "b.yaml",
            &[secret("b-tls", &authority.leaf(&["b.test"])), route("b", "b.test", "b-tls", "b", &json!({}))],
        )
        .with("services.yaml", &[service("a", &[a.port()]), service("b", &[b.port()])].concat());
    let gateway = Gateway::start(&manifests).await;
    let client = Client { address: gateway.wss, config: Arc::new(authority.client()), name: "a.test".into() };
    let to = |host: &str| Head::upgrade("/").set("Host", host);
    for host in ["b.test", "b.test:443", "B.test", "unknown.test"] {
        let case = format!("C6 {host} on a connection to a.test");
        refused(&gateway, &b, &client, &case, &to(host), &[421], &["misdirected"]).await;
    }
    drop(client.open(&to("a.test")).await);
    drop(client.named("b.test").open(&to("b.test")).await);
    assert_eq!((a.count().0, b.count().0), (1, 1), "C6: each upstream has its own connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_serves_ends_in_the_tls_handshake() {
    let setup = Setup::new(&json!({})).await;
    for (case, name) in
        [("C7 an unknown name", "unknown.test"), ("C7 a name below", "x.chat.example.com"), ("C7 no name", "127.0.0.1")]
    {
        let before = setup.gateway.refusals(Some("unknown_server_name")).await;
        let error = setup.client().named(name).try_connect().await.err().unwrap_or_else(|| panic!("{case}: connected"));
        assert!(error.to_string().contains("UnrecognisedName"), "{case}: {error}");
        setup
            .gateway
            .metric_becomes(
                "wssgate_handshakes_total",
                &[("outcome", "refused"), ("reason", "unknown_server_name")],
                before + 1.0,
            )
            .await;
    }
    assert_eq!(setup.recorder.count(), (0, 0), "C7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_too_large_is_refused() {
    let setup = Setup::new(&json!({})).await;
    let many = (0..2000).fold(Head::upgrade("/"), |head, i| head.add(&format!("X-{i}"), "1"));
    let protocols = |value: String| Head::upgrade("/").add("Sec-WebSocket-Protocol", value);
    let ten_thousand = (0..10_000).map(|i| format!("p{i}")).collect::<Vec<_>>().join(",");
    for (case, head) in [
        ("C12 2,000 fields", many),
        ("C12 200 small fields", (0..200).fold(Head::upgrade("/"), |head, i| head.add(&format!("X-{i}"), ""))),
        ("C12 a field of 64 KiB", Head::upgrade("/").add("X-A", "a".repeat(64 * 1024))),
        ("C12 a field of 1 MiB", Head::upgrade("/").add("X-A", "a".repeat(1024 * 1024))),
        ("C12 32,768 spaces", protocols(format!("b{}x", " ".repeat(32 * 1024)))),
        ("C12 10,000 subprotocols", protocols(ten_thousand)),
        ("C12 a name of 64 KiB", Head::upgrade("/").add(&"n".repeat(64 * 1024), "1")),
    ] {
        setup.refused(case, &head, &[431], &["head_too_large"]).await;
    }
    let target = Head::upgrade(&format!("/{}", "a".repeat(20_000)));
    setup.refused("C12 a target of 20,000 bytes", &target, &[414, 431], &["target_too_long", "head_too_large"]).await;
}
