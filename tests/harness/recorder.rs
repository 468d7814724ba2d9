//! The recording upstream: an endpoint on loopback that does as it is told and remembers every byte it received.
//!
//! It is the oracle of every refusal: nothing of a refused handshake may reach it, not even a connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::head::accept;
use super::peer::{Transcript, Wire};
use super::{Answer, Frame, PATIENCE, Peer, until, within};

/// Makes an answer of a request head.
pub type Maker = Arc<dyn Fn(&Answer) -> Vec<u8> + Send + Sync>;

/// What the upstream does with a connection.
#[derive(Clone)]
pub enum Behaviour {
    /// A correct handshake, then every data frame comes back as it was, with its boundaries.
    Echo,
    /// A correct handshake, then the connection is handed to the test ([`Recorder::peer`]).
    Manual,
    /// Reads the head, then the connection is handed to the test without an answer.
    Unanswered,
    /// Reads the head and writes what the function makes of it, then only reads.
    Answer(Maker),
    /// Reads the head and resets the connection.
    Reset,
}

impl Behaviour {
    /// Answers every head with these bytes.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::Answer(Arc::new(move |_| bytes.clone()))
    }

    /// Answers with what a function makes of the `Sec-WebSocket-Accept` that would be right.
    pub fn accepting(make: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::Answer(Arc::new(move |head| make(&right_accept(head)).into_bytes()))
    }
}

/// One connection that the upstream saw.
#[derive(Clone)]
pub struct Seen {
    /// Everything that arrived, head and frames.
    pub bytes: Transcript,
    /// How many of its ends are known: 1 when the gateway has closed it.
    pub ended: Arc<AtomicUsize>,
}

impl Seen {
    /// The request head.
    pub fn head(&self) -> Answer {
        Answer::parse(&self.bytes.lock().unwrap()).unwrap_or_default()
    }

    /// The bytes after the head.
    pub fn after(&self) -> Vec<u8> {
        self.head().body
    }

    /// Whether the gateway has ended it.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) > 0
    }
}

struct State {
    connections: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    behaviour: Mutex<Behaviour>,
    peers: mpsc::UnboundedSender<Peer>,
    tls: Option<TlsAcceptor>,
}

/// The recording upstream.
pub struct Recorder {
    address: SocketAddr,
    state: Arc<State>,
    peers: tokio::sync::Mutex<mpsc::UnboundedReceiver<Peer>>,
    task: JoinHandle<()>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    /// Listens on loopback.
    pub async fn start(behaviour: Behaviour) -> Self {
        Self::start_with(behaviour, None, Ipv4Addr::LOCALHOST).await
    }

    /// Listens on another address of this machine.
    pub async fn start_on(behaviour: Behaviour, address: Ipv4Addr) -> Self {
        Self::start_with(behaviour, None, address).await
    }

    /// The same behind TLS.
    pub async fn start_tls(behaviour: Behaviour, config: rustls::ServerConfig) -> Self {
        Self::start_tls_on(behaviour, config, Ipv4Addr::LOCALHOST).await
    }

    /// The same on another address of this machine.
    pub async fn start_tls_on(behaviour: Behaviour, config: rustls::ServerConfig, address: Ipv4Addr) -> Self {
        Self::start_with(behaviour, Some(TlsAcceptor::from(Arc::new(config))), address).await
    }

    async fn start_with(behaviour: Behaviour, tls: Option<TlsAcceptor>, address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
            behaviour: Mutex::new(behaviour),
            peers: sender,
            tls,
        });
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(shared.clone(), tcp));
            }
        });
        Self { address, state, peers: tokio::sync::Mutex::new(receiver), task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it does from the next connection on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap() = behaviour;
    }

    /// The next connection that it hands over.
    pub async fn peer(&self) -> Peer {
        let mut peers = self.peers.lock().await;
        within(PATIENCE, "the gateway to reach the upstream", peers.recv()).await.unwrap()
    }

    /// Connections and bytes so far.
    pub fn count(&self) -> (usize, usize) {
        let seen = self.state.seen.lock().unwrap();
        let bytes = seen.iter().map(|one| one.bytes.lock().unwrap().len()).sum();
        (self.state.connections.load(Ordering::SeqCst), bytes)
    }

    /// Every connection so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The newest connection.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream saw a connection")
    }

    /// Waits until a connection has been ended by the gateway, and gives its bytes after the head as frames.
    pub async fn frames_of_last(&self, what: &str) -> Vec<Frame> {
        let last = self.last();
        until(PATIENCE, what, async || last.is_ended().then_some(())).await;
        Frame::all(&last.after())
    }

    /// The oracle of refusals: no connection and no byte since `before`.
    pub fn saw_nothing_since(&self, before: (usize, usize), case: &str) {
        assert_eq!(self.count(), before, "{case}: the upstream saw something (connections, bytes)");
    }
}

fn right_accept(head: &Answer) -> String {
    accept(&head.field("sec-websocket-key").unwrap_or_default())
}

/// The 101 for a handshake, with the first subprotocol where some are offered.
pub fn switching(head: &Answer) -> String {
    let protocol = head.field("sec-websocket-protocol").map_or_else(String::new, |offered| {
        format!("Sec-WebSocket-Protocol: {}\r\n", offered.split(',').next().unwrap_or("").trim())
    });
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{protocol}\r\n",
        right_accept(head)
    )
}

async fn serve(state: Arc<State>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let seen = Seen { bytes: Transcript::default(), ended: Arc::default() };
    state.seen.lock().unwrap().push(seen.clone());
    let wire = match &state.tls {
        None => Wire::Plain(tcp),
        Some(acceptor) => match tokio::time::timeout(Duration::from_secs(10), acceptor.accept(tcp)).await {
            Ok(Ok(tls)) => Wire::Tls(Box::new(TlsStream::Server(tls))),
            _ => return,
        },
    };
    let mut peer = Peer::new(wire, false).recorded(seen.bytes.clone());
    // Not `Peer::head`: a connection that stays silent is no fault of the upstream's.
    while Answer::parse(peer.pending()).is_none() {
        if !peer.fill().await {
            seen.ended.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
    let Some(head) = peer.head().await else { return };
    let behaviour = state.behaviour.lock().unwrap().clone();
    match behaviour {
        Behaviour::Echo => {
            peer.write(switching(&head).as_bytes()).await;
            echo(&mut peer).await;
        }
        Behaviour::Manual => {
            peer.write(switching(&head).as_bytes()).await;
            let _ = state.peers.send(peer);
            return;
        }
        Behaviour::Unanswered => {
            let _ = state.peers.send(peer);
            return;
        }
        Behaviour::Answer(make) => {
            peer.write(&make(&head)).await;
            while peer.fill().await {}
        }
        Behaviour::Reset => {
            peer.reset();
            return;
        }
    }
    seen.ended.fetch_add(1, Ordering::SeqCst);
}

/// Sends data frames back, answers pings and Close, until the connection ends.
async fn echo(peer: &mut Peer) {
    loop {
        let frame = loop {
            if let Some((frame, size)) = Frame::read(peer.pending()) {
                peer.take(size);
                break frame;
            }
            if !peer.fill().await {
                return;
            }
        };
        match frame.opcode {
            8 => {
                peer.send(&frame).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut peer.wire).await;
                while peer.fill().await {}
                return;
            }
            9 => drop(peer.send(&Frame::pong(frame.payload)).await),
            10 => {}
            _ => drop(peer.send(&frame).await),
        }
    }
}
