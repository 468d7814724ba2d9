//! The admin port: health and metrics for those who may ask, nothing for a web page that was pointed at it.

use crate::harness::{self, Frame, Head, PATIENCE, SOON, Setup, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn get(path: &str, fields: &[(&str, &str)]) -> String {
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
    for (name, value) in fields {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request + "\r\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_are_there_and_nothing_else() {
    let setup = Setup::new(&json!({})).await;
    assert_eq!(setup.gateway.get("/livez").await.0, 200);
    assert_eq!(setup.gateway.get("/readyz").await.0, 200);
    for path in ["/", "/admin", "/metrics/", "/debug/pprof", "/../metrics"] {
        assert_eq!(setup.gateway.get(path).await.0, 404, "{path}");
    }
    let mut peer = setup.open().await;
    peer.echo(&Frame::text("four")).await;
    setup.refused("for the metrics", &Head::upgrade("/..").add("X-A", "b"), &[400], &["bad_path"]).await;
    peer.close(1000, "").await;
    setup.gateway.metric_becomes("wssgate_connections", &[("route", "shop/chat")], 0.0).await;
    let (status, text) = setup.gateway.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.trim_end().ends_with("# EOF"), "OpenMetrics ends so");
    for family in [
        "wssgate_connections",
        "wssgate_handshakes_total",
        "wssgate_messages_total",
        "wssgate_payload_bytes_total",
        "wssgate_connections_closed_total",
        "wssgate_snapshot_version",
        "wssgate_snapshot_timestamp_seconds",
        "wssgate_certificate_expiry_timestamp_seconds",
        "wssgate_build_info",
    ] {
        let sample = text.lines().find(|line| line.starts_with(family));
        assert!(sample.is_some(), "no sample of {family}");
    }
    for direction in ["from_client", "from_backend"] {
        let labels = [("route", "shop/chat"), ("direction", direction)];
        setup.gateway.metric_becomes("wssgate_messages_total", &labels, 1.0).await;
        setup.gateway.metric_becomes("wssgate_payload_bytes_total", &labels, 4.0).await;
    }
    let expiry =
        setup.gateway.metric("wssgate_certificate_expiry_timestamp_seconds", &[("secret", "shop/chat-tls")]).await;
    assert!(expiry > 2e9, "the certificate expires in 2090: {expiry}");
    // Labels come from routes and closed lists, never from what a client sent.
    for sent in ["example.test", "127.0.0.1", "/.."] {
        assert!(!text.contains(&format!("\"{sent}\"")), "{sent} became a label");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_gets_nothing_from_it() {
    let setup = Setup::new(&json!({})).await;
    let own = setup.gateway.admin.to_string();
    let local = format!("localhost:{}", setup.gateway.admin.port());
    for host in [own.as_str(), &local, "127.0.0.1", "localhost", "[::1]:9900"] {
        let answer = setup.gateway.admin_answer(&get("/metrics", &[("Host", host)])).await.unwrap();
        assert_eq!(answer.status(), 200, "{host}: {answer:?}");
    }
    for (case, fields) in [
        ("a rebound name", vec![("Host", "evil.test")]),
        ("a rebound name with the port", vec![("Host", "evil.test:9900")]),
        ("a name that begins well", vec![("Host", "localhost.evil.test")]),
        ("a name that begins like an address", vec![("Host", "127.0.0.1.evil.test")]),
        ("no Host", vec![]),
        ("two Hosts", vec![("Host", "localhost"), ("Host", "evil.test")]),
        ("an Origin", vec![("Host", "localhost"), ("Origin", "https://evil.test")]),
        ("an opaque Origin", vec![("Host", "localhost"), ("Origin", "null")]),
        ("another site", vec![("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")]),
    ] {
        for path in ["/metrics", "/livez", "/readyz"] {
            let answer = setup.gateway.admin_answer(&get(path, &fields)).await.unwrap();
            assert!([400, 403, 421].contains(&answer.status()), "{case} {path}: {answer:?}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("wssgate_"), "{case} {path}");
            assert_eq!(answer.field("access-control-allow-origin"), None, "{case} {path}");
        }
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = get("/metrics", &[("Host", &own)]).replacen("GET", method, 1);
        let answer = setup.gateway.admin_answer(&request).await.unwrap();
        assert_eq!(answer.status(), 405, "{method}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_is_one_observation_in_each_histogram() {
    let setup = Setup::new(&json!({})).await;
    let mut peer = setup.open().await;
    peer.echo(&Frame::text("a message")).await;
    peer.close(1000, "").await;
    setup.gateway.metric_becomes("wssgate_connection_duration_seconds_count", &[], 1.0).await;
    for stage in ["tls", "judgement", "backend"] {
        setup.gateway.metric_becomes("wssgate_handshake_duration_seconds_count", &[("stage", stage)], 1.0).await;
    }
    let route = [("route", "shop/chat")];
    setup.gateway.metric_becomes("wssgate_backend_connect_duration_seconds_count", &route, 1.0).await;
    for direction in ["from_client", "from_backend"] {
        let direction = [("direction", direction)];
        setup.gateway.metric_becomes("wssgate_message_size_bytes_count", &direction, 1.0).await;
        setup.gateway.metric_becomes("wssgate_message_size_bytes_sum", &direction, 9.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_visitors_do_not_keep_others_out() {
    let setup = Setup::new(&json!({})).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut tcp = TcpStream::connect(setup.gateway.admin).await.unwrap();
        tcp.write_all(b"GET /metr").await.unwrap();
        slow.push(tcp);
    }
    let asked = harness::within(SOON, "an answer beside slow visitors", setup.gateway.get("/readyz")).await;
    assert_eq!(asked.0, 200);
    for mut tcp in slow {
        let mut sink = Vec::new();
        let _ = harness::within(PATIENCE, "the end of a slow visitor", tcp.read_to_end(&mut sink)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_without_end_never_let_a_probe_time_out() {
    let setup = Setup::new(&json!({})).await;
    let target = setup.gateway.admin;
    let attackers: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn(async move {
                let mut held = std::collections::VecDeque::new();
                loop {
                    let mut tcp = TcpStream::connect(target).await.unwrap();
                    // It may have been ended already.
                    let _ = tcp.write_all(b"GET /livez HTTP/1.1\r\nHost: ").await;
                    held.push_back(tcp);
                    if held.len() > 100 {
                        held.pop_front();
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for _ in 0..10 {
        for path in ["/livez", "/readyz"] {
            // The kubelet waits for a second, and is of the same address as the attackers here.
            let asked = harness::within(SOON, "a probe beside half requests", setup.gateway.get(path)).await;
            assert_eq!(asked.0, 200, "{path}");
        }
    }
    for attacker in attackers {
        attacker.abort();
    }
}
