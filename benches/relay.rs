//! The relay in-process: one wss connection over loopback to an echo that does nothing but unmask, per message size.
//! What it times is a round trip, both peers included; compare two builds, not two products.

#![allow(missing_docs, reason = "a benchmark has no API")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start should say so loudly")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::sync::watch;
use wssgate::api::route_id::RouteId;
use wssgate::policy::{Connection, Handshake, Heartbeat, Pacing, Policy};
use wssgate::proxy::{self, Drain, Proxy};
use wssgate::snapshot::live::Live;
use wssgate::snapshot::{
    Backend, BackendId, Balance, Host, HostTls, PathMatch, Route, RouteState, Snapshot, Timeouts, TlsServerConfig,
};
use wssgate::telemetry::access::log::AccessLog;
use wssgate::telemetry::metrics::Metrics;
use wssgate::ws::frame::{self, Header, Opcode};
use wssgate::ws::message::Limits;
use wssgate::ws::upgrade;

const HOST: &str = "relay.example.com";

/// A backend that upgrades one connection after another and echoes frames.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || while echo(&mut stream).is_some() {});
        }
    });
    address
}

fn echo(stream: &mut TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut bytes = vec![0; 256 * 1024];
    let mut have = 0;
    loop {
        have += stream.read(&mut bytes[have..]).ok().filter(|n| *n > 0)?;
        if bytes[..have].ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..have]).into_owned();
            let key = head.lines().find_map(|line| {
                line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim().to_owned())
            })?;
            let mut answer = Vec::new();
            upgrade::write_switching(&mut answer, &key, None, &[], &[]);
            stream.write_all(&answer).ok()?;
            break;
        }
    }
    have = 0;
    loop {
        have += stream.read(&mut bytes[have..]).ok().filter(|n| *n > 0)?;
        let Some((header, size)) = Header::parse(&bytes[..have], true).ok()? else { continue };
        let end = size + header.len as usize;
        if have < end {
            continue;
        }
        frame::mask(&mut bytes[size..end], header.mask?, 0);
        let mut answer = Vec::with_capacity(end);
        frame::write(&mut answer, Opcode::Text, &bytes[size..end], None);
        stream.write_all(&answer).ok()?;
        bytes.copy_within(end..have, 0);
        have -= end;
    }
}

fn gateway(backend: SocketAddr) -> (SocketAddr, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![made.cert.der().clone()];
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let limits = Limits { text: true, binary: false, max_size: 64 * 1024, max_fragments: 1024, ..Limits::CONTROL_ONLY };
    let connection = Connection {
        requires_subject: false,
        total: 100,
        per_address: None,
        per_subject: None,
        outlives_credential: false,
        idle_timeout: None,
        heartbeat: Some(Heartbeat { interval: Duration::from_secs(30), missed: 2, backend: false }),
        max_duration: None,
    };
    let policy = Policy {
        handshake: Handshake::default(),
        connection,
        from_client: limits,
        from_backend: limits,
        client_pacing: Pacing::default(),
        backend_pacing: Pacing::default(),
        content: wssgate::policy::Content::default(),
        tunnels: wssgate::policy::Tunnels::default(),
        audits_messages: false,
        compresses: false,
        client_certificates: None,
        ceilings: wssgate::policy::Ceilings::default(),
    };
    let id = BackendId { namespace: "bench".into(), service: "echo".into(), port: 80 };
    let route = Route {
        id: RouteId::secure_web_socket("bench", "relay"),
        path: PathMatch::Prefix("/".into()),
        state: RouteState::Serving(Arc::new(policy)),
        backends: vec![(id.clone(), 1)],
        balance: Balance::default(),
        backend_tls: None,
        timeouts: Timeouts::default(),
        rule: 0,
    };
    let tls = Arc::new(TlsServerConfig {
        config: wssgate::tls::ServerTls::new(Arc::new(config)),
        certificates: vec![],
        client: None,
        tls13_only: false,
    });
    let host = Host { name: HOST.into(), tls: HostTls::Own(tls), routes: vec![Arc::new(route)] };
    let live = Arc::new(Live::default());
    live.publish(Snapshot {
        version: 1,
        exact: [(HOST.into(), Arc::new(host))].into(),
        backends: [(id, Arc::new(Backend { endpoints: vec![backend] }))].into(),
        ..Snapshot::default()
    });
    let wss = proxy::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    proxy::SocketBuffers::default().set(&wss).unwrap();
    let address = wss.local_addr().unwrap();
    let (drain, draining) = watch::channel(Drain::Serving);
    let (changed, changes) = watch::channel(0);
    let control = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let nobody = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let options = proxy::Options {
        live,
        metrics: Metrics::new(),
        access: AccessLog::off(),
        wss: vec![wss],
        plain: vec![],
        workers: 1,
        socket_buffers: proxy::SocketBuffers::default(),
        memory_budget: None,
        proxies: wssgate::policy::client::TrustedProxies::default(),
        store: None,
        drain: draining,
        changed: changes,
        dependencies: watch::Sender::default(),
        trust: Arc::new(nobody.with_no_client_auth()),
        control: control.handle().clone(),
    };
    let proxy = Proxy::start(options).unwrap();
    // The gateway runs as long as the benchmark.
    std::mem::forget((proxy, drain, changed, control));
    (address, roots)
}

fn relay(criterion: &mut Criterion) {
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let (address, roots) = gateway(backend());
    let config = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let mut group = criterion.benchmark_group("relay");
    for size in [64, 1024, 64 * 1024] {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        let tls = rustls::ClientConnection::new(Arc::clone(&config), ServerName::try_from(HOST).unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, tcp);
        let key = upgrade::fresh_key([7; 16]);
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        let mut message = Vec::new();
        frame::write(&mut message, Opcode::Text, &vec![b'a'; size], Some([1, 2, 3, 4]));
        let mut back = vec![0; message.len() - 4];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("echo/{size}"), |bencher| {
            bencher.iter(|| {
                stream.write_all(&message).unwrap();
                stream.read_exact(&mut back).unwrap();
            });
        });
        assert!(back.ends_with(&vec![b'a'; size]));
    }
}

criterion_group!(benches, relay);
criterion_main!(benches);
