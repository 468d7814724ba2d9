//! Load balancers of other people in front of the gateway, with the configurations of `docs/load-balancers.md` as they
//! stand there: HAProxy and nginx, passing TLS through or ending it. Everything is on loopback.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::harness::{Answer, Behaviour, Client, Frame, HOST, Head, Options, PATIENCE, Peer, Setup, json, until};
use crate::root;

/// Whoever connects to the load balancer, which itself has 127.0.0.1.
const CLIENT: &str = "127.0.0.9";

/// The block of a section of the page.
fn block(section: &str, subsection: &str) -> String {
    let page = fs::read_to_string(root().join("docs/load-balancers.md")).unwrap();
    let part = page.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let part = part.split("\n## ").next().unwrap();
    let part = part.split(&format!("\n### {subsection}\n")).nth(1).unwrap();
    let block = part.split("\n```").nth(1).unwrap();
    block.split_once('\n').unwrap().1.to_owned() + "\n"
}

/// A gateway, and a load balancer before it.
struct Front {
    setup: Setup,
    address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Front {
    /// What the page says, with the addresses and files of this test. `trusted` is what the gateway trusts.
    async fn new(program: &str, text: &str, spec: &Value, trusted: &Value) -> Self {
        let options = Options::settings(&json!({"trustedProxies": trusted}));
        let setup = Setup::with(Behaviour::Echo, spec, &options).await;
        let (folder, address) = (TempDir::new().unwrap(), SocketAddr::from(([127, 0, 0, 1], free_port())));
        let pair = setup.authority.leaf(&[HOST]);
        let file = |name: &str| folder.path().join(name).display().to_string();
        for (name, text) in [
            ("chat.pem", format!("{}{}", pair.chain, pair.key)),
            ("chat.crt", pair.chain),
            ("chat.key", pair.key),
            ("gateway-ca.pem", setup.authority.pem().to_owned()),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut text = text.to_owned();
        for (said, here) in [
            ("bind :443", format!("bind {address}")),
            ("listen 443", format!("listen {address}")),
            ("10.0.0.11:8443", setup.gateway.wss.to_string()),
            ("port 9900", format!("port {}", setup.gateway.admin.port())),
        ] {
            text = text.replace(said, &here);
        }
        text = text.replace("/etc/haproxy/", &file("")).replace("/etc/nginx/", &file(""));
        assert!(text.contains(&address.to_string()) && text.contains(&setup.gateway.wss.to_string()), "{text}");
        let child = start(program, &text, folder.path());
        let front = Self { setup, address, folder, child };
        until(PATIENCE, program, async || TcpStream::connect(address).await.ok()).await;
        front
    }

    fn client(&self) -> Client {
        Client { address: self.address, ..self.setup.client() }
    }

    /// A handshake of the client through the load balancer.
    async fn ask(&self, head: &Head) -> Option<(Answer, Peer)> {
        let client = self.client();
        let mut peer = client.connect_over(client.tcp_from(CLIENT).await).await.ok()?;
        peer.write(&head.bytes()).await;
        Some((peer.head().await?, peer))
    }

    /// The client gets through, is known to the gateway and the backend by its address, and closes with its code.
    async fn knows_the_client(&self) {
        // What a client says of itself is believed by nobody.
        let head = Head::upgrade("/").add("X-Forwarded-For", "203.0.113.66");
        let (answer, mut peer) = self.ask(&head).await.unwrap();
        assert_eq!(answer.status(), 101, "{answer:?}");
        peer.echo(&Frame::text("grüße €")).await;
        peer.echo(&Frame::binary(vec![7; 40_000])).await;
        assert_eq!(self.setup.recorder.last().head().field("x-forwarded-for").as_deref(), Some(CLIENT));
        assert_eq!(peer.close(4000, "enough").await, Some((4000, "enough".to_owned())));
        let line = self.setup.gateway.access_line("the opening", |line| line["event"] == "opened").await;
        let known = line["client"].as_str().unwrap().split(':').next().unwrap();
        assert_eq!((known, line["host"].as_str()), (CLIENT, Some(HOST)), "{line}");
        assert!(line["proxy"].as_str().unwrap().starts_with("127.0.0.1"), "{line}");
        let end = self.setup.gateway.access_line("the end", |line| line["event"] == "closed").await;
        assert_eq!((&end["close_code"], &end["initiator"]), (&json!(4000), &json!("client")), "{end}");
    }

    /// A quiet connection outlives a time-out of 2 s while the gateway's heartbeat is quicker, and only then.
    async fn stays_open_by_the_heartbeat(&self) {
        let (answer, mut quiet) = self.ask(&Head::upgrade("/")).await.unwrap();
        assert_eq!(answer.status(), 101, "{answer:?}");
        for _ in 0..5 {
            let ping = quiet.frame().await.expect("the heartbeat");
            assert_eq!(ping.opcode, 9, "{ping:?}");
            quiet.send(&Frame::pong(ping.payload)).await;
        }
        quiet.still_echoes(&Frame::text("still here")).await;
        self.setup.respec(&json!({"connection": {"heartbeat": {"interval": "0s"}}})).await;
        let (_, mut quiet) = self.ask(&Head::upgrade("/")).await.unwrap();
        quiet.echo(&Frame::text("now quiet")).await;
        quiet.ended(Duration::from_secs(10), "the load balancer to end what is idle").await;
        let line = self.setup.gateway.access_line("its end", |line| line["event"] == "closed").await;
        assert_ne!(line["initiator"], "gateway", "{line}");
    }
}

/// Runs a load balancer in the foreground, with its files in a folder.
fn start(program: &str, text: &str, folder: &Path) -> Child {
    let (config, here) = (folder.join("config"), folder.display());
    let mut command = match program {
        "haproxy" => {
            let global = format!("global\n    stats socket {here}/stats\n");
            fs::write(&config, format!("{global}{text}")).unwrap();
            let mut haproxy = Command::new(installed("haproxy"));
            haproxy.arg("-db").arg("-f").arg(&config);
            haproxy
        }
        part => {
            let main = format!(
                "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log;\nevents {{}}\n"
            );
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let temporary: String = temporary.map(|name| format!("{name}_temp_path {here}/{name};\n")).concat();
            let text = match part {
                "stream" => format!("{}{main}stream {{\n{text}}}\n", stream_module()),
                _ => format!("{main}http {{\naccess_log off;\n{temporary}{text}}}\n"),
            };
            fs::write(&config, text).unwrap();
            let mut nginx = Command::new(installed("nginx"));
            nginx.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&config);
            nginx
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

/// Where Debian puts programs that only root has in its path.
fn installed(program: &str) -> String {
    let places = [format!("/usr/sbin/{program}"), format!("/usr/local/sbin/{program}")];
    places.into_iter().find(|place| Path::new(place).exists()).unwrap_or_else(|| program.to_owned())
}

/// What loads nginx's `stream`, where it is a module of its own.
fn stream_module() -> &'static str {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if Path::new(MODULE).exists() { "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n" } else { "" }
}

fn by_proxy_protocol() -> Value {
    json!({"proxyProtocol": {"networks": ["127.0.0.1/32"]}})
}

fn by_forwarded_for() -> Value {
    json!({"forwardedFor": {"networks": ["127.0.0.1/32"], "hops": 1}})
}

/// The route's heartbeat, and the page's configuration with time-outs of 2 s.
fn quick(text: &str) -> (Value, String) {
    assert!(text.contains("75s"));
    (json!({"connection": {"heartbeat": {"interval": "1s", "missed": 5}}}), text.replace("75s", "2s"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_passes_tls_through_with_the_clients_address() {
    let (spec, text) = quick(&block("HAProxy", "TLS passes through"));
    let front = Front::new("haproxy", &text, &spec, &by_proxy_protocol()).await;
    front.knows_the_client().await;
    // It has asked for /readyz and got 200.
    until(PATIENCE, "HAProxy's check of the gateway", async || {
        let mut stats = UnixStream::connect(front.folder.path().join("stats")).await.ok()?;
        stats.write_all(b"show stat\n").await.ok()?;
        let mut table = String::new();
        stats.read_to_string(&mut table).await.ok()?;
        let fields: Vec<&str> = table.lines().find(|line| line.starts_with("wssgate,gateway-1,"))?.split(',').collect();
        (fields.contains(&"UP") && fields.contains(&"L7OK") && fields.contains(&"200")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_that_passes_tls_through_keeps_what_the_heartbeat_moves() {
    let (spec, text) = quick(&block("HAProxy", "TLS passes through"));
    Front::new("haproxy", &text, &spec, &by_proxy_protocol()).await.stays_open_by_the_heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_ends_tls_and_names_the_client() {
    let (spec, text) = quick(&block("HAProxy", "HAProxy ends TLS"));
    Front::new("haproxy", &text, &json!({}), &by_forwarded_for()).await.knows_the_client().await;
    Front::new("haproxy", &text, &spec, &by_forwarded_for()).await.stays_open_by_the_heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_ends_tls_and_names_the_client() {
    let (spec, text) = quick(&block("nginx", "nginx ends TLS"));
    Front::new("http", &text, &json!({}), &by_forwarded_for()).await.knows_the_client().await;
    Front::new("http", &text, &spec, &by_forwarded_for()).await.stays_open_by_the_heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_passes_tls_through_without_the_clients_address() {
    let (spec, text) = quick(&block("nginx", "TLS passes through"));
    let front = Front::new("stream", &text, &spec, &json!({})).await;
    front.stays_open_by_the_heartbeat().await;
    let line = front.setup.gateway.access_line("the opening", |line| line["event"] == "opened").await;
    assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "nginx stands for the client: {line}");
    // The header that nginx can write is of version 1.
    let text = text.replace("proxy_timeout", "proxy_protocol on;\n    proxy_timeout");
    let front = Front::new("stream", &text, &json!({}), &by_proxy_protocol()).await;
    let before = front.setup.recorder.count();
    assert!(front.ask(&Head::upgrade("/")).await.is_none(), "a header of version 1 is read");
    let reason = [("reason", "proxy_header_invalid")];
    until(PATIENCE, "the refusal", async || {
        (front.setup.gateway.metric("wssgate_handshakes_total", &reason).await > 0.5).then_some(())
    })
    .await;
    front.setup.recorder.saw_nothing_since(before, "a header of version 1");
}
