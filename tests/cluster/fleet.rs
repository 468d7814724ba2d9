//! Clients outside of the cluster that stay: many sockets at once, and handshakes that never pause.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::harness::{Client, Frame, Head, Peer, until};

/// How long an answer may take; the harness, which panics in the end, would wait longer.
const ANSWER: Duration = Duration::from_secs(12);

/// How many sockets are being opened at one time.
const AT_ONCE: usize = 8;

/// A handshake over TCP, TLS and HTTP.
///
/// # Errors
///
/// What went wrong, or which answer came instead of 101.
pub async fn open(client: &Client, path: &str) -> Result<Peer, String> {
    let tcp = tokio::net::TcpStream::connect(client.address).await.map_err(|error| format!("TCP: {error}"))?;
    let mut peer = client.connect_over(tcp).await.map_err(|error| format!("TLS: {error}"))?;
    peer.write(&Head::upgrade(path).set("Host", &client.name).bytes()).await;
    match timeout(ANSWER, peer.head()).await {
        Ok(Some(answer)) if answer.status() == 101 => Ok(peer),
        Ok(Some(answer)) => Err(format!("HTTP: {}", answer.status())),
        Ok(None) => Err("HTTP: the connection ended without an answer".into()),
        Err(_) => Err(format!("HTTP: no answer within {ANSWER:?} from {}", jiff::Timestamp::now() - ANSWER)),
    }
}

/// How a socket ended: the Close frame's code and reason; `None` where there was none.
pub type Ending = Option<(u16, String)>;

/// Sockets that are held open, answer pings, and note how they end.
pub struct Fleet {
    sockets: Vec<mpsc::Sender<oneshot::Sender<()>>>,
    endings: Arc<Mutex<Vec<Vec<Ending>>>>,
    failures: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl Fleet {
    /// Opens so many, each with a path of its own below `path` ([`Self::path`]); those that `return_` come back at once when
    /// they are closed.
    pub async fn start(client: &Client, path: &str, count: usize, return_: bool) -> Self {
        let fleet = Self {
            sockets: Vec::new(),
            endings: Arc::new(Mutex::new(vec![Vec::new(); count])),
            failures: Arc::default(),
            open: Arc::default(),
        };
        let mut sockets = Vec::new();
        for start in (0..count).step_by(AT_ONCE) {
            let opening = (start..count.min(start + AT_ONCE)).map(|index| {
                let (client, path) = (client.clone(), Self::path(path, index));
                tokio::spawn(async move { open(&client, &path).await })
            });
            for (index, peer) in opening.collect::<Vec<_>>().into_iter().enumerate() {
                let peer = peer.await.unwrap().unwrap_or_else(|error| panic!("{path}: {error}"));
                let (sender, orders) = mpsc::channel(1);
                sockets.push(sender);
                fleet.open.fetch_add(1, Ordering::Relaxed);
                let held = Held {
                    index: start + index,
                    client: return_.then(|| client.clone()),
                    path: Self::path(path, start + index),
                    endings: fleet.endings.clone(),
                    failures: fleet.failures.clone(),
                    open: fleet.open.clone(),
                };
                tokio::spawn(held.run(peer, orders));
            }
        }
        Self { sockets, ..fleet }
    }

    /// The path of a socket of a fleet below `path`: the access log has it.
    pub fn path(path: &str, index: usize) -> String {
        format!("{}/{index}", path.trim_end_matches('/'))
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How each ended, as often as it did.
    pub fn endings(&self) -> Vec<Vec<Ending>> {
        self.endings.lock().unwrap().clone()
    }

    /// Every socket that ended was closed with this code.
    pub fn all_told(&self, code: u16) {
        let all: Vec<_> = self.endings().into_iter().flatten().collect();
        let others: Vec<_> = all.iter().filter(|end| end.as_ref().is_none_or(|end| end.0 != code)).collect();
        assert!(others.is_empty(), "{} endings were no Close with {code}, the first: {:?}", others.len(), others[0]);
    }

    /// None has ended, and each sends a message and gets it back.
    pub async fn all_live(&self) {
        let ended: Vec<_> = self.endings().into_iter().flatten().collect();
        assert!(ended.is_empty(), "{} sockets ended, the first with {:?}", ended.len(), ended.first());
        self.all_echo().await;
    }

    /// Each sends a message and gets it back.
    pub async fn all_echo(&self) {
        let mut answers = Vec::new();
        for socket in &self.sockets {
            let (sender, answer) = oneshot::channel();
            socket.send(sender).await.expect("the socket to be open");
            answers.push(answer);
        }
        for answer in answers {
            answer.await.expect("the message to come back");
        }
    }

    /// Waits until every socket has ended so often at least and is open again; no attempt to return may have failed.
    pub async fn all_returned(&self, times: usize, limit: Duration) {
        let done = async || {
            let all = self.endings().iter().all(|endings| endings.len() >= times);
            (all && self.open() == self.sockets.len()).then_some(())
        };
        until(limit, "every socket to be closed and to return", done).await;
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} attempts to return failed: {:?}", failures.len(), failures.first());
    }

    /// Waits until every socket has ended.
    pub async fn all_ended(&self, limit: Duration) {
        until(limit, "every socket to end", async || (self.open() == 0).then_some(())).await;
    }
}

struct Held {
    index: usize,
    /// With whom it returns.
    client: Option<Client>,
    path: String,
    endings: Arc<Mutex<Vec<Vec<Ending>>>>,
    failures: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl Held {
    async fn run(self, mut peer: Peer, mut orders: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut waiting = Vec::new();
        loop {
            let frame = tokio::select! {
                // What was read before it is dropped stays in the peer.
                frame = peer.frame_within(Duration::from_secs(3600)) => frame,
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    peer.send(&Frame::text("still here")).await;
                    waiting.push(order);
                    continue;
                }
            };
            let ending = match frame {
                Some(frame) if frame.opcode == 9 => {
                    peer.send(&Frame::pong(frame.payload)).await;
                    continue;
                }
                Some(frame) if frame.same(&Frame::text("still here")) => {
                    if let Some(order) = waiting.pop() {
                        let _ = order.send(());
                    }
                    continue;
                }
                Some(frame) if frame.opcode == 8 => {
                    let (code, reason) = frame.code();
                    peer.send(&Frame::close(code, "")).await;
                    Some((code, reason))
                }
                _ => None,
            };
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.endings.lock().unwrap()[self.index].push(ending);
            let Some(client) = &self.client else { return };
            peer = loop {
                match open(client, &self.path).await {
                    Ok(peer) => break peer,
                    Err(error) => self.failures.lock().unwrap().push(error),
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            };
            self.open.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A client that opens one socket after the other and closes it again.
pub struct Prober {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Prober {
    /// Begins, with this pause between sockets.
    pub fn start(client: &Client, path: &str, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, path, stopped) = (client.clone(), path.to_owned(), stop.clone());
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let task = tokio::spawn(async move {
            let (mut count, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                count += 1;
                match open(&client, &path).await {
                    Ok(peer) => drop(peer.close(1000, "").await),
                    Err(error) => failures.push(error),
                }
                counted.store(count, Ordering::Relaxed);
                tokio::time::sleep(pause).await;
            }
            (count, failures)
        });
        Self { stop, made, task }
    }

    /// How many handshakes there were so far.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends; every handshake must have succeeded. How many there were.
    pub async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (count, failures) = self.task.await.unwrap();
        assert!(
            failures.is_empty(),
            "{} of {count} handshakes failed, the first: {:?}",
            failures.len(),
            failures.first()
        );
        count
    }
}
