//! A real redis-server for one test, and a wire to it that can lead elsewhere.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use redis::FromRedisValue;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{PATIENCE, Pair, until};

/// A redis-server on loopback, ended with the test.
pub struct Redis {
    child: Mutex<Child>,
    directory: TempDir,
    arguments: Vec<String>,
    pub port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(directory: &Path, port: u16, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no", "--repl-diskless-sync-delay", "0"])
        .args(["--port", &port.to_string(), "--dir", &directory.display().to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server (Debian: apt-get install redis-server)")
}

impl Redis {
    /// An empty server.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same with more arguments.
    pub async fn with(arguments: &[&str]) -> Self {
        Self::by(|_, _| arguments.iter().map(|one| (*one).to_owned()).collect()).await
    }

    /// A server that speaks TLS only, with this certificate.
    pub async fn secured(pair: &Pair) -> Self {
        Self::by(|directory, port| {
            let file = |name: &str, text: &str| {
                let file = directory.join(name);
                std::fs::write(&file, text).unwrap();
                file.display().to_string()
            };
            let (chain, key) = (file("tls.crt", &pair.chain), file("tls.key", &pair.key));
            let arguments = ["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
            let arguments = arguments.into_iter().chain(["--tls-cert-file", &chain, "--tls-key-file", &key]);
            arguments.chain(["--tls-ca-cert-file", &chain]).map(ToOwned::to_owned).collect()
        })
        .await
    }

    async fn by(arguments: impl FnOnce(&Path, u16) -> Vec<String>) -> Self {
        let (directory, port) = (TempDir::new().unwrap(), free_port());
        let arguments = arguments(directory.path(), port);
        let child = Mutex::new(launch(directory.path(), port, &arguments));
        let redis = Self { child, directory, arguments, port };
        redis.answers().await;
        redis
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    async fn answers(&self) {
        until(PATIENCE, "redis-server", async || TcpStream::connect(("127.0.0.1", self.port)).await.ok()).await;
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command.
    pub fn run<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection_with_timeout(PATIENCE).unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        self.run(&["KEYS", "*"])
    }

    /// The keys of tickets that are outstanding.
    pub fn tickets(&self) -> Vec<String> {
        self.keys().into_iter().filter(|key| key.contains("ticket:")).collect()
    }

    /// Everything that it holds, as text.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for key in self.keys() {
            let kind: String = self.run(&["TYPE", &key]);
            let value: Vec<u8> = match kind.as_str() {
                "string" => self.run(&["GET", &key]),
                "hash" => self.run::<Vec<String>>(&["HGETALL", &key]).join(" ").into_bytes(),
                _ => self.run::<Vec<String>>(&["ZRANGE", &key, "0", "-1"]).join(" ").into_bytes(),
            };
            text += &format!("{key} = {}\n", String::from_utf8_lossy(&value));
        }
        text
    }

    fn signal(&self, name: &str) {
        let pid = self.child.lock().unwrap().id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().unwrap();
        assert!(sent.success());
    }

    /// It answers nothing, and its connections stay.
    pub fn hang(&self) {
        self.signal("STOP");
    }

    /// It answers again, also what it was asked meanwhile.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Ends it at once.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Starts it again with what it has saved, on the same port.
    pub async fn restart(&self) {
        self.kill();
        *self.child.lock().unwrap() = launch(self.directory.path(), self.port, &self.arguments);
        self.answers().await;
    }

    /// Makes it a replica of another one and waits until it has all of it.
    pub async fn follow(&self, primary: &Self) {
        let _: String = self.run(&["REPLICAOF", "127.0.0.1", &primary.port.to_string()]);
        until(PATIENCE, "the replica to be in step", async || {
            let info: String = self.run(&["INFO", "replication"]);
            info.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    /// Makes it a primary.
    pub fn promote(&self) {
        let _: String = self.run(&["REPLICAOF", "NO", "ONE"]);
    }
}

/// An address that leads to one server, and then to another.
pub struct Wire {
    pub address: SocketAddr,
    target: Arc<watch::Sender<u16>>,
}

impl Wire {
    /// Leads to a server.
    pub async fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(watch::channel(redis.port).0);
        let mut moved = target.subscribe();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let port = *moved.borrow_and_update();
                let mut moved = moved.clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = moved.changed() => {}
                    }
                });
            }
        });
        Self { address, target }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Leads to another server from now on; connections to the one before end.
    pub fn lead_to(&self, redis: &Redis) {
        self.target.send(redis.port).unwrap();
    }
}
