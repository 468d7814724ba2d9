//! Raw protocols inside messages, end to end: closed, logged or let through as the route says.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Behaviour, Frame, Options, PATIENCE, Setup, json};

async fn started(behaviour: Behaviour, messages: &Value) -> Setup {
    Setup::with(behaviour, &json!({"messages": messages}), &Options::default()).await
}

async fn counted(setup: &Setup, direction: &str, protocol: &str, count: f64) {
    let labels = [("route", "shop/chat"), ("direction", direction), ("protocol", protocol)];
    setup.gateway.metric_becomes("wssgate_tunnels_total", &labels, count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_is_closed_and_its_line_never_ends_at_the_backend() {
    let setup = started(Behaviour::Manual, &json!({"fromClient": {"tunnels": "Deny"}})).await;
    let (mut peer, mut upstream) = setup.pair().await;
    for part in ["SSH-2.0", "-OpenSSH_9.2", "\r\n"] {
        assert!(peer.send(&Frame::binary(part)).await);
    }
    for part in ["SSH-2.0", "-OpenSSH_9.2"] {
        upstream.expect(&Frame::binary(part)).await;
    }
    assert_eq!(upstream.close_code().await.map(|close| close.0), Some(1001));
    assert_eq!(peer.close_code().await.map(|close| close.0), Some(1008));
    counted(&setup, "from_client", "ssh", 1.0).await;
    let line = setup.gateway.access_line("the end", |line| line["event"] == "closed").await;
    assert_eq!((&line["reason"], &line["protocol"]), (&json!("tunnel_detected"), &json!("ssh")));
    // What an application says goes on as before, and so does what only looks like a tunnel later.
    let (mut peer, mut upstream) = setup.pair().await;
    for text in [r#"{"type":"say"}"#, "SSH-2.0-later\r\n"] {
        assert!(peer.send(&Frame::text(text)).await);
        upstream.expect(&Frame::text(text)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_begins_a_tunnel_ends_the_connection_with_1011() {
    let setup = started(Behaviour::Manual, &json!({"fromBackend": {"tunnels": "Deny"}})).await;
    let (mut peer, mut upstream) = setup.pair().await;
    assert!(upstream.send(&Frame::binary("220 mail.internal ESMTP\r\n")).await);
    assert_eq!(peer.close_code().await.map(|close| close.0), Some(1011));
    counted(&setup, "from_backend", "smtp", 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_for_a_protocol_lets_it_through_and_audit_says_what_it_saw() {
    let setup =
        started(Behaviour::Echo, &json!({"fromClient": {"tunnels": "Deny", "allowProtocols": ["rfb", "mqtt"]}})).await;
    let mut peer = setup.open().await;
    peer.echo(&Frame::binary("RFB 003.008\n")).await;
    let mut peer = setup.open().await;
    peer.echo(&Frame::binary(b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04test")).await;

    let setup = started(Behaviour::Echo, &json!({"fromClient": {"tunnels": "Audit"}})).await;
    let mut peer = setup.open().await;
    peer.echo(&Frame::binary("GET / HTTP/1.1\r\n")).await;
    counted(&setup, "from_client", "http1", 1.0).await;
    let line = setup.gateway.access_line("the audit", |line| line["event"] == "audited").await;
    assert_eq!((&line["reason"], &line["protocol"]), (&json!("tunnel_detected"), &json!("http1")));
}

/// What a program says first to a server, after the server's greeting if it has one.
fn first_bytes(greeting: &[u8], command: impl FnOnce(u16) -> Command) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = command(listener.local_addr().unwrap().port());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(greeting).unwrap();
    let mut bytes = vec![0; 4096];
    let read = socket.read(&mut bytes).unwrap();
    bytes.truncate(read);
    let _ended = child.kill();
    child.wait().unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_of_other_protocols_are_recognised() {
    let python = |program: &'static str| {
        move |port: u16| {
            let mut command = Command::new("python3");
            command.args(["-c", program, &port.to_string()]);
            command
        }
    };
    let redis = |port: u16| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &port.to_string(), "PING"]);
        command
    };
    let http =
        "import http.client, sys; http.client.HTTPConnection('127.0.0.1', int(sys.argv[1])).request('GET', '/a')";
    let tls = "import socket, ssl, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
ssl.create_default_context().wrap_socket(s, server_hostname='example.com')";
    let smtp = "import smtplib, sys; smtplib.SMTP('127.0.0.1', int(sys.argv[1]), 'client.example.com').ehlo()";
    let setup = started(Behaviour::Manual, &json!({"fromClient": {"tunnels": "Deny"}})).await;
    for (protocol, bytes) in [
        ("http1", first_bytes(b"", python(http))),
        ("tls", first_bytes(b"", python(tls))),
        ("smtp", first_bytes(b"220 mail.example.com ESMTP\r\n", python(smtp))),
        ("redis", first_bytes(b"", redis)),
    ] {
        // As a relay of TCP would send it: what came in one read is a message.
        let (mut peer, mut upstream) = setup.pair().await;
        assert!(peer.send(&Frame::binary(&*bytes)).await, "{protocol}");
        assert_eq!(peer.close_code().await.map(|close| close.0), Some(1008), "{protocol}: {bytes:x?}");
        assert_eq!(upstream.close_code().await.map(|close| close.0), Some(1001), "{protocol}");
        counted(&setup, "from_client", protocol, 1.0).await;
    }
}
