//! The real binary as a child process, with what it says and what it measures.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, Canaries, Manifests, PATIENCE, canary, until, within};

type Lines = Arc<Mutex<Vec<String>>>;

/// What a process writes, and the thread that reads it.
struct Output {
    lines: Lines,
    reader: Option<JoinHandle<()>>,
}

/// What a gateway is started with besides its manifests.
#[derive(Clone, Default)]
pub struct Options {
    /// The settings file.
    pub config: Option<Value>,
    /// More arguments.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// The limit of open files.
    pub files: Option<u64>,
    /// The control group of version 1 that it runs in.
    pub group: Option<PathBuf>,
    /// Whether the kernel refuses to watch directories for it: in a user namespace that has no inotify instances.
    pub unwatched: bool,
}

impl Options {
    /// Members of the settings file beside apiVersion and kind.
    pub fn settings(members: &Value) -> Self {
        Self { config: Some(configuration(members)), ..Self::default() }
    }
}

/// A settings file with these members.
pub fn configuration(members: &Value) -> Value {
    let mut config = serde_json::json!({"apiVersion": "config.wssgate.io/v1alpha1", "kind": "GatewayConfiguration"});
    super::manifests::merge(&mut config, members);
    config
}

/// A running gateway.
pub struct Gateway {
    child: Mutex<Child>,
    pid: u32,
    directory: TempDir,
    stdout: Output,
    stderr: Output,
    /// The metrics as they were seen last.
    metrics: Mutex<String>,
    /// The wss listener.
    pub wss: SocketAddr,
    /// The plain listener.
    pub http: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
}

#[allow(clippy::print_stderr, reason = "the output of a failed test is where its reader looks")]
impl Drop for Gateway {
    fn drop(&mut self) {
        self.look_at_metrics();
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // All that it wrote, to the last line.
        for reader in [self.stdout.reader.take(), self.stderr.reader.take()].into_iter().flatten() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let tail = |output: &Output| {
                let lines = output.lines.lock().unwrap();
                lines[lines.len().saturating_sub(25)..].join("\n")
            };
            eprintln!("--- the gateway's log\n{}\n--- its access log\n{}", tail(&self.stderr), tail(&self.stdout));
        } else {
            let log = self.log_text();
            assert_eq!(log.lines().find(|line| line.contains("panicked at")), None, "the gateway panicked");
            for (what, text) in self.written() {
                assert_eq!(canary::found_in(&text), None, "a secret stands in the gateway's {what}");
            }
        }
    }
}

impl Gateway {
    /// Starts a gateway on these manifests and waits until it is ready.
    pub async fn start(manifests: &Manifests) -> Self {
        Self::start_with(manifests, &Options::default()).await
    }

    /// The same with options.
    pub async fn start_with(manifests: &Manifests, options: &Options) -> Self {
        let mut gateway = Self::launch(Some(manifests), options).await;
        gateway.ready().await;
        gateway
    }

    /// Waits until the gateway serves and is ready.
    pub async fn ready(&mut self) {
        let listeners = async || {
            if let Some(status) = self.exited() {
                panic!("the gateway ended at once: {status}");
            }
            Some((self.listener("wss")?, self.listener("http")?))
        };
        (self.wss, self.http) = until(PATIENCE, "the listeners of the gateway", listeners).await;
        let ready = async || (self.get("/readyz").await.0 == 200).then_some(());
        until(PATIENCE, "the gateway to be ready", ready).await;
    }

    /// Starts a gateway that may never be ready, and so serve nothing; without manifests the arguments say where its objects are.
    pub async fn launch(manifests: Option<&Manifests>, options: &Options) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("manifests")).unwrap();
        for (name, text) in manifests.iter().flat_map(|manifests| &manifests.files) {
            std::fs::write(directory.path().join("manifests").join(name), text).unwrap();
        }
        let mut command = Command::new("sh");
        let mut limit = options.files.map_or_else(String::new, |files| format!("ulimit -n {files} && "));
        if let Some(group) = &options.group {
            limit.push_str(&format!("echo $$ >{}/cgroup.procs && ", group.display()));
        }
        if options.unwatched {
            command = Command::new("unshare");
            command.args(["--user", "--map-root-user", "sh"]);
            limit.push_str("echo 0 >/proc/sys/user/max_inotify_instances && ");
        }
        command.arg("-c").arg(limit + r#"exec "$0" "$@""#).arg(env!("CARGO_BIN_EXE_wssgate"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WSSGATE_") {
                command.env_remove(name);
            }
        }
        command.arg("run");
        if manifests.is_some() {
            command.arg("--manifests").arg(directory.path().join("manifests"));
        }
        command.args(["--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        if let Some(config) = &options.config {
            let file = directory.path().join("settings.yaml");
            std::fs::write(&file, format!("{config:#}")).unwrap();
            command.arg("--config").arg(file);
        }
        command.args(&options.args).envs(options.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let pid = child.id();
        let mut gateway = Self {
            child: Mutex::new(child),
            pid,
            directory,
            stdout,
            stderr,
            metrics: Mutex::default(),
            wss: nowhere,
            http: nowhere,
            admin: nowhere,
        };
        gateway.admin = until(PATIENCE, "the admin listener of the gateway", async || {
            if let Some(status) = gateway.exited() {
                panic!("the gateway ended at once: {status}");
            }
            gateway.listener("admin")
        })
        .await;
        gateway
    }

    /// Everything that it has written, and its metrics as they were seen last.
    fn written(&self) -> [(&'static str, String); 3] {
        let metrics = self.metrics.lock().unwrap().clone();
        [("log", self.log_text()), ("access log", self.access_text()), ("metrics", metrics)]
    }

    /// Where it has written one of these.
    pub fn has_written(&self, canaries: &Canaries) -> Vec<&'static str> {
        self.look_at_metrics();
        let mut written = Vec::from(self.written());
        written.retain(|(_, text)| canaries.found_in(text).is_some());
        written.into_iter().map(|(what, _)| what).collect()
    }

    /// Asks for the metrics once more without waiting long: who is about to end may not answer any more.
    fn look_at_metrics(&self) {
        let limit = Duration::from_secs(1);
        let ask = || {
            let mut tcp = std::net::TcpStream::connect_timeout(&self.admin, limit).ok()?;
            tcp.set_read_timeout(Some(limit)).ok()?;
            write!(tcp, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).ok()?;
            let mut text = String::new();
            tcp.read_to_string(&mut text).ok()?;
            Some(text)
        };
        if let Some(text) = ask() {
            *self.metrics.lock().unwrap() = text;
        }
    }

    /// The address of a listener by the log.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.logs()
            .iter()
            .find(|line| line["message"] == "listening" && line["listener"] == name)
            .and_then(|line| line["address"].as_str()?.parse().ok())
    }

    /// The directory of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// Writes a manifest as an editor does: a new file, renamed over the old one.
    pub fn write(&self, file: &str, text: &str) {
        let next = self.directory.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.manifests().join(file)).unwrap();
    }

    /// Writes the settings file, which there must be, as an editor does.
    pub fn configure(&self, text: &str) {
        let next = self.directory.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.directory.path().join("settings.yaml")).unwrap();
    }

    /// Writes a manifest and waits until the gateway serves by it.
    pub async fn edit(&self, file: &str, text: &str) {
        let before = self.version().await;
        self.write(file, text);
        self.published_after(before).await;
    }

    /// Removes a manifest and waits until the gateway serves without it.
    pub async fn remove(&self, file: &str) {
        let before = self.version().await;
        std::fs::remove_file(self.manifests().join(file)).unwrap();
        self.published_after(before).await;
    }

    /// Waits for a snapshot newer than `version`.
    pub async fn published_after(&self, version: f64) {
        until(PATIENCE, "a newer snapshot", async || (self.version().await > version).then_some(())).await;
    }

    /// The version of the snapshot that is served.
    pub async fn version(&self) -> f64 {
        self.metric("wssgate_snapshot_version", &[]).await
    }

    /// The log so far: the lines that are JSON objects.
    pub fn logs(&self) -> Vec<Value> {
        parsed(&self.stderr)
    }

    /// The log so far as text.
    pub fn log_text(&self) -> String {
        self.stderr.lines.lock().unwrap().join("\n")
    }

    /// The access log so far.
    pub fn access(&self) -> Vec<Value> {
        parsed(&self.stdout)
    }

    /// The access log so far as text.
    pub fn access_text(&self) -> String {
        self.stdout.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line of the access log.
    pub async fn access_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(PATIENCE, what, async || self.access().into_iter().find(&wanted)).await
    }

    /// Waits for a line of the log.
    pub async fn log_line(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(PATIENCE, what, async || self.logs().into_iter().find(&wanted)).await
    }

    /// A GET on the admin port: status and body; 0 where nobody answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin);
        let answer = self.admin_answer(&request).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        if path == "/metrics" && answer.status() == 200 {
            self.metrics.lock().unwrap().clone_from(&text);
        }
        (answer.status(), text)
    }

    /// A raw request on the admin port.
    pub async fn admin_answer(&self, request: &str) -> Option<Answer> {
        let exchange = async {
            let mut tcp = TcpStream::connect(self.admin).await.ok()?;
            tcp.write_all(request.as_bytes()).await.ok()?;
            let mut bytes = Vec::new();
            let _ = tcp.read_to_end(&mut bytes).await;
            Answer::parse(&bytes)
        };
        within(PATIENCE, "the admin port", exchange).await
    }

    /// The sum of all samples of a metric whose labels include these.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name, labels).await.iter().sum()
    }

    /// All samples of a metric whose labels include these. That there is such a metric is said of it also without one.
    pub async fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "the metrics endpoint");
        let bases = ["", "_total", "_info", "_count", "_sum", "_bucket"]
            .into_iter()
            .filter_map(|suffix| name.strip_suffix(suffix));
        let described = |base: &str| text.contains(&format!("# TYPE {base} "));
        assert!(bases.into_iter().any(described), "there is no metric {name}");
        let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let (shown, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ").unwrap_or((rest, "")),
                None if rest.starts_with(' ') => ("", rest.trim()),
                None => continue,
            };
            if wanted.iter().all(|label| shown.contains(label.as_str())) {
                samples.push(value.trim().parse().unwrap_or_else(|e| panic!("{e}: {line}")));
            }
        }
        samples
    }

    /// Refused handshakes, of one reason or of all.
    pub async fn refusals(&self, reason: Option<&str>) -> f64 {
        let mut labels = vec![("outcome", "refused")];
        labels.extend(reason.map(|reason| ("reason", reason)));
        self.metric("wssgate_handshakes_total", &labels).await
    }

    /// Open connections.
    pub async fn connections(&self) -> f64 {
        self.metric("wssgate_connections", &[]).await
    }

    /// Waits until a metric has a value.
    pub async fn metric_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let start = Instant::now();
        loop {
            let now = self.metric(name, labels).await;
            if (now - value).abs() < 0.5 {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{name}{labels:?} is {now}, expected {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a metric has one sample with these labels, of this value. One that is absent is not 0.
    pub async fn sample_becomes(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        until(PATIENCE, &format!("{name}{labels:?} to be {value}"), async || {
            (self.samples(name, labels).await == [value]).then_some(())
        })
        .await;
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.pid.to_string()).join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time so far.
    pub fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(Path::new("/proc").join(self.pid.to_string()).join("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // User and system time, in hundredths of a second.
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(Path::new("/proc").join(self.pid.to_string()).join("fd")).unwrap().count()
    }

    /// Sends SIGTERM.
    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, as `kill` calls it.
    pub fn signal(&self, name: &str) {
        let kill = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid)).status().unwrap();
        assert!(kill.success());
    }

    /// The exit status, if it has ended.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Waits for the end of the process.
    pub async fn exit(&self, limit: Duration) -> ExitStatus {
        until(limit, "the gateway to end", async || self.exited()).await
    }
}

fn collect(pipe: impl Read + Send + 'static) -> Output {
    let lines = Lines::default();
    let shared = lines.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            shared.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
        }
    });
    Output { lines, reader: Some(reader) }
}

fn parsed(output: &Output) -> Vec<Value> {
    output.lines.lock().unwrap().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
