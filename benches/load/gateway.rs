//! The gateways under load: how each is configured, started on core 0, and ended.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::Failure;
use crate::method::Fixture;
use crate::process::{self, Family};
use crate::tls::HOST;

const NGINX: &str = include_str!("../peers/nginx.conf");
const HAPROXY: &str = include_str!("../peers/haproxy.cfg");
const SOZU: &str = include_str!("../peers/sozu.toml");
const MANIFESTS: &str = include_str!("../peers/wssgate.yaml");

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The binary that cargo built with this benchmark.
    Wssgate,
    /// Another binary of the same product, given with `--against`.
    Against,
    Nginx,
    Haproxy,
    Sozu,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Wssgate, Self::Against, Self::Nginx, Self::Haproxy, Self::Sozu];

    /// The name in options and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wssgate => "wssgate",
            Self::Against => "against",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Sozu => "sozu",
        }
    }

    /// Whether it is somebody else's product.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Nginx | Self::Haproxy | Self::Sozu)
    }
}

/// A gateway that can be started as often as wanted.
pub(crate) struct Gateway {
    pub(crate) kind: Kind,
    /// What it says of its own version.
    pub(crate) version: String,
    program: PathBuf,
}

impl Gateway {
    /// Looks for the program; `None` where it is not installed.
    pub(crate) fn find(kind: Kind, against: Option<&Path>) -> Option<Self> {
        let (program, flag) = match kind {
            Kind::Wssgate => (PathBuf::from(env!("CARGO_BIN_EXE_wssgate")), "--version"),
            Kind::Against => (against?.to_owned(), "--version"),
            Kind::Nginx => (installed("nginx")?, "-v"),
            Kind::Haproxy => (installed("haproxy")?, "-v"),
            Kind::Sozu => (installed("sozu")?, "--version"),
        };
        let output = Command::new(&program).arg(flag).output().ok()?;
        let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        let said = String::from_utf8_lossy(&said);
        let version = said.split(['/', ' ', '\n']).find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        Some(Self { kind, version: version.unwrap_or("of unknown version").to_owned(), program })
    }

    /// Writes its configuration and starts it; answers when its port accepts.
    pub(crate) fn start(
        &self,
        identity: &Identity,
        backend: SocketAddr,
        fixture: &Fixture,
    ) -> Result<Running, Failure> {
        let directory = tempfile::Builder::new().prefix("wssgate-load-").tempdir()?;
        let place = directory.path();
        let [address, http, admin] = free_ports()?;
        let fill = |template: &str| {
            template
                .replace("@DIR@", &place.display().to_string())
                .replace("@LISTEN@", &address.port().to_string())
                .replace("@BACKEND@", &backend.port().to_string())
                .replace("@HOST@", HOST)
        };
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]);
        if let Some(files) = fixture.files {
            command.arg("prlimit").arg(format!("--nofile={files}"));
        }
        command.arg(&self.program);
        match self.kind {
            Kind::Wssgate | Kind::Against => {
                let manifests = place.join("manifests");
                fs::create_dir(&manifests)?;
                let mut tls = fixture.tls.clone();
                tls["certificateRefs"] = json!([{"name": "chat-tls"}]);
                let attempts =
                    fixture.attempts.as_ref().map_or_else(String::new, |limit| format!("rateLimit: {limit}"));
                let mut text = MANIFESTS.to_owned();
                for object in &fixture.objects {
                    text.push_str(&format!("---\n{object}\n"));
                }
                // In JSON a port that is a word would be a string.
                let text = text.replace("\"@LISTEN@\"", "@LISTEN@").replace("\"@BACKEND@\"", "@BACKEND@");
                let text = fill(&text)
                    .replace("@CERTIFICATE@", &STANDARD.encode(&identity.certificate))
                    .replace("@KEY@", &STANDARD.encode(&identity.key))
                    .replace("@TLS@", &tls.to_string())
                    .replace("@AUTHENTICATION@", &fixture.authentication.to_string())
                    .replace("@CONNECTION@", &fixture.connection.to_string())
                    .replace("@MESSAGES@", &fixture.messages.to_string())
                    .replace("@ATTEMPTS@", &attempts);
                fs::write(manifests.join("load.yaml"), text)?;
                command.arg("run").arg("--manifests").arg(manifests).arg("--listen").arg(address.to_string());
                command.args(["--listen-http", &http.to_string(), "--admin", &admin.to_string()]);
                if let Some(trusted) = &fixture.trusted {
                    let file = place.join("trusted.pem");
                    fs::write(&file, trusted)?;
                    command.env("SSL_CERT_FILE", file);
                }
            }
            Kind::Nginx => {
                fs::write(place.join("tls.crt"), &identity.certificate)?;
                fs::write(place.join("tls.key"), &identity.key)?;
                fs::write(place.join("nginx.conf"), fill(NGINX))?;
                command.arg("-p").arg(place).arg("-c").arg(place.join("nginx.conf"));
            }
            Kind::Haproxy => {
                fs::write(place.join("haproxy.pem"), format!("{}{}", identity.certificate, identity.key))?;
                fs::write(place.join("haproxy.cfg"), fill(HAPROXY))?;
                command.arg("-db").arg("-f").arg(place.join("haproxy.cfg"));
            }
            Kind::Sozu => {
                fs::write(place.join("tls.crt"), &identity.certificate)?;
                fs::write(place.join("tls.key"), &identity.key)?;
                fs::write(place.join("sozu.toml"), fill(SOZU))?;
                command.arg("start").arg("-c").arg(place.join("sozu.toml"));
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(File::create(place.join("stdout"))?)
            .stderr(File::create(place.join("stderr"))?);
        let child = command.spawn().map_err(|error| format!("taskset (util-linux) does not start: {error}"))?;
        let mut running = Running { child, family: Family::default(), address, http, admin, directory };
        running.wait_until_it_accepts()?;
        Ok(running)
    }
}

/// The certificate all gateways serve: ECDSA P-256, self-signed.
pub(crate) struct Identity {
    pub(crate) der: CertificateDer<'static>,
    /// PEM, as the key.
    pub(crate) certificate: String,
    key: String,
}

impl Identity {
    pub(crate) fn new() -> Result<Self, Failure> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned(), "*.example.com".to_owned()])?;
        Ok(Self { der: made.cert.der().clone(), certificate: made.cert.pem(), key: made.signing_key.serialize_pem() })
    }

    /// The Secret with it, as the usual route has it, in another namespace.
    pub(crate) fn secret(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "chat-tls", "namespace": namespace},
            "data": {"tls.crt": STANDARD.encode(&self.certificate), "tls.key": STANDARD.encode(&self.key)},
        })
    }
}

/// A started gateway; dropping it ends its processes and removes its files.
pub(crate) struct Running {
    child: Child,
    /// Its processes, once it accepts.
    pub(crate) family: Family,
    /// Where it terminates wss.
    pub(crate) address: SocketAddr,
    /// The plain port and the admin port of wssgate.
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    directory: tempfile::TempDir,
}

impl Running {
    fn wait_until_it_accepts(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended before it listened ({status}){}", self.last_words()).into());
            }
            if std::net::TcpStream::connect(self.address).is_ok() {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("it did not listen within 10 s{}", self.last_words()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The first accepted connection may precede the last worker.
        std::thread::sleep(Duration::from_millis(200));
        self.family = Family::of(self.child.id())?;
        Ok(())
    }

    /// Adds a manifest while it runs, or writes it anew.
    pub(crate) fn write(&self, file: &str, objects: &[Value]) -> Result<(), Failure> {
        let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
        let place = self.directory.path();
        fs::write(place.join(file), documents.join("\n---\n"))?;
        // Whole at once.
        fs::rename(place.join(file), place.join("manifests").join(file))?;
        Ok(())
    }

    /// The access log so far.
    pub(crate) fn access_log(&self) -> Result<String, Failure> {
        Ok(fs::read_to_string(self.directory.path().join("stdout"))?)
    }

    /// The last lines that it wrote to standard error.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].iter().map(|line| format!("\n    {line}")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pids = match Family::of(self.child.id()) {
            Ok(family) => family.pids().to_vec(),
            Err(_) => vec![self.child.id()],
        };
        process::end(&pids);
        let _status = self.child.wait();
    }
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    // Where `cargo install` puts programs.
    let cargo = std::env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin"));
    let places = places.chain(cargo);
    places.map(|place| place.join(name)).find(|program| program.is_file())
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[SocketAddr; 3], Failure> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [listen()?, listen()?, listen()?];
    let [wss, http, admin] = &listeners;
    Ok([wss.local_addr()?, http.local_addr()?, admin.local_addr()?])
}
