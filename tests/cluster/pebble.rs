//! pebble, a real ACME server for tests, with the name server that it and cert-manager's self-checks ask.
//!
//! It validates HTTP-01 on port 80 of whatever address a name has, so [`names`] has to lead to a gateway's plain port.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::json;

use super::cert_manager::encode;
use super::harness::Authority;
use super::process::{Process, until};
use super::{programs, sandbox};

/// A name that it issues no certificate for.
pub const REFUSED: &str = "refused.example.com";
/// How long it may take to be there on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A name server on `server` that gives every name this address. Dropping it kills it.
pub fn names(logs: &Path, server: SocketAddr, front: IpAddr) -> Process {
    let mut command = Command::new(programs::path("pebble-challtestsrv"));
    let (server, front) = (server.to_string(), front.to_string());
    command.args(["-dnsserver", &server, "-defaultIPv4", &front, "-defaultIPv6", "", "-http01", "", "-https01", ""]);
    command.args(["-tlsalpn01", "", "-doh", "", "-management", &format!("{}:8055", sandbox::address())]);
    Process::start(&format!("names-{front}"), logs, &mut command)
}

/// pebble, running. Dropping it kills it.
pub struct Pebble {
    process: Process,
    address: Ipv4Addr,
    /// Who vouches for pebble itself.
    authority: Authority,
    /// Who vouches for what it issues, PEM.
    pub root: String,
}

impl Pebble {
    /// Starts it with files in `folder` and a name server, and waits until it answers.
    pub fn start(folder: &Path, names: SocketAddr) -> Self {
        let (authority, address) = (Authority::new(), sandbox::address());
        let pair = authority.leaf(&[&address.to_string()]);
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = json!({"pebble": {
            "listenAddress": format!("{address}:14000"), "managementListenAddress": format!("{address}:15000"),
            "certificate": file("pebble.crt", &pair.chain), "privateKey": file("pebble.key", &pair.key),
            "httpPort": 80, "tlsPort": 443, "retryAfter": {"authz": 1, "order": 1},
            "domainBlocklist": [REFUSED],
        }});
        let mut command = Command::new(programs::path("pebble"));
        command.arg("-config").arg(file("pebble.json", &config.to_string()));
        command.args(["-dnsserver", &names.to_string()]);
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let process = Process::start("pebble", &folder.join("logs"), &mut command);
        let root = until(START, "pebble to answer", || {
            process.must_run();
            get(SocketAddr::from((address, 15000)), "/roots/0", &authority)
        });
        Self { process, address, authority, root }
    }

    /// The manifest of a ClusterIssuer of this name that has challenges solved through Ingresses of our class.
    pub fn issuer(&self, name: &str) -> String {
        self.process.must_run();
        format!(
            "
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {{name: {name}}}
spec:
  acme:
    server: https://{}:14000/dir
    caBundle: {}
    privateKeySecretRef: {{name: {name}-account}}
    solvers: [{{http01: {{ingress: {{ingressClassName: wssgate}}}}}}]
",
            self.address,
            encode(self.authority.pem())
        )
    }
}

/// The certificate that is the body of an answer over https, once there is one.
fn get(address: SocketAddr, path: &str, authority: &Authority) -> Option<String> {
    let name = ServerName::from(address.ip());
    let mut config = authority.client();
    config.alpn_protocols.clear();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(tls, TcpStream::connect(address).ok()?);
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    // It may end without a close_notify.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).filter(|body| body.contains("BEGIN CERTIFICATE"))
}
