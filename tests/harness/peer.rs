//! One end of a connection in the hands of a test: raw bytes, heads and frames, either side of the gateway.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::NamedGroup;
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, TlsStream};

use super::canary::Early;
use super::{Answer, Frame, Head, PATIENCE, within};

/// A connection, with TLS or without.
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// The TCP connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// How a connection ended for the one who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// An orderly end: FIN, with close_notify where there is TLS.
    Closed,
    /// A FIN without close_notify.
    Truncated,
    /// A reset.
    Reset,
}

/// What a connection carried, shared with the recorder.
pub type Transcript = Arc<Mutex<Vec<u8>>>;

/// One end of a connection.
pub struct Peer {
    pub wire: Wire,
    buffer: Vec<u8>,
    end: Option<End>,
    masks: bool,
    key: u32,
    transcript: Option<Transcript>,
    early: Early,
}

impl Peer {
    /// An end that masks its frames (a client) or does not (a server).
    pub fn new(wire: Wire, masks: bool) -> Self {
        Self { wire, buffer: Vec::new(), end: None, masks, key: 0x1357_9BDF, transcript: None, early: Early::default() }
    }

    /// The certificate that the other end showed.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        let Wire::Tls(tls) = &self.wire else { return None };
        Some(tls.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
    }

    /// Keeps a copy of everything that is read.
    pub fn recorded(mut self, transcript: Transcript) -> Self {
        self.transcript = Some(transcript);
        self
    }

    /// Writes bytes as they are and flushes; a connection that the gateway has ended is not an error here.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        let done = async { self.wire.write_all(bytes).await.is_ok() && self.wire.flush().await.is_ok() };
        within(PATIENCE, "the other side to read", done).await
    }

    /// A masking key that has not been used on this connection.
    pub fn fresh_key(&mut self) -> [u8; 4] {
        self.key = self.key.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.key.to_be_bytes()
    }

    /// A frame as this side of a connection must send it.
    pub fn encode(&mut self, frame: &Frame) -> Vec<u8> {
        let key = if self.masks { Some(self.fresh_key()) } else { None };
        frame.bytes(key)
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Frame) -> bool {
        let bytes = self.encode(frame);
        self.write(&bytes).await
    }

    /// Reads what is there; false at the end.
    pub async fn fill(&mut self) -> bool {
        if self.end.is_some() {
            return false;
        }
        let mut chunk = vec![0; 64 * 1024];
        match self.wire.read(&mut chunk).await {
            Ok(0) => self.end = Some(End::Closed),
            Ok(size) => {
                self.buffer.extend_from_slice(&chunk[..size]);
                if self.masks {
                    self.early.hear(&chunk[..size]);
                }
                if let Some(transcript) = &self.transcript {
                    transcript.lock().unwrap().extend_from_slice(&chunk[..size]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.end = Some(End::Truncated),
            Err(_) => self.end = Some(End::Reset),
        }
        self.end.is_none()
    }

    /// The head that arrives, without a body: what follows stays for frames.
    pub async fn head(&mut self) -> Option<Answer> {
        within(PATIENCE, "a head", async {
            loop {
                if let Some(mut answer) = Answer::parse(&self.buffer) {
                    let size = self.buffer.len() - answer.body.len();
                    self.buffer.drain(..size);
                    answer.body.clear();
                    return Some(answer);
                }
                if !self.fill().await {
                    return None;
                }
            }
        })
        .await
    }

    /// The next frame of any kind; `None` when the connection has ended.
    pub async fn frame(&mut self) -> Option<Frame> {
        self.frame_within(PATIENCE).await
    }

    /// The next frame of any kind within a limit.
    pub async fn frame_within(&mut self, limit: Duration) -> Option<Frame> {
        within(limit, "a frame", async {
            loop {
                if let Some((frame, size)) = Frame::read(&self.buffer) {
                    self.buffer.drain(..size);
                    return Some(frame);
                }
                if !self.fill().await {
                    return None;
                }
            }
        })
        .await
    }

    /// The next frame must be this one.
    pub async fn expect(&mut self, expected: &Frame) -> Frame {
        match self.frame().await {
            Some(frame) if frame.same(expected) => frame,
            other => panic!("expected {expected:?}, got {other:?} (end: {:?})", self.end),
        }
    }

    /// Sends a frame and expects the same one back.
    pub async fn echo(&mut self, frame: &Frame) {
        assert!(self.send(frame).await, "the connection has ended");
        self.expect(frame).await;
    }

    /// The same for a connection that was quiet for long: heartbeats of the gateway that came meanwhile are answered.
    pub async fn still_echoes(&mut self, frame: &Frame) {
        assert!(self.send(frame).await, "the connection has ended");
        loop {
            let got = self.frame().await.expect("a frame");
            if got.opcode != 9 {
                return assert!(got.same(frame), "expected {frame:?}, got {got:?}");
            }
            self.send(&Frame::pong(got.payload)).await;
        }
    }

    /// The code and reason of the Close frame that comes next, pings aside; `None` where the connection ends without.
    pub async fn close_code(&mut self) -> Option<(u16, String)> {
        self.close_within(PATIENCE).await
    }

    /// The same within a limit.
    pub async fn close_within(&mut self, limit: Duration) -> Option<(u16, String)> {
        within(limit, "a Close frame", async {
            loop {
                let frame = self.frame_within(limit).await?;
                match frame.opcode {
                    8 => return Some(frame.code()),
                    9 | 10 => {}
                    _ => panic!("expected a Close frame, got {frame:?}"),
                }
            }
        })
        .await
    }

    /// Waits for the end of the connection and throws away what comes before.
    pub async fn ended(&mut self, limit: Duration, what: &str) -> End {
        within(limit, what, async { while self.fill().await {} }).await;
        self.end.unwrap_or(End::Closed)
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self, limit: Duration, what: &str) -> Vec<u8> {
        self.ended(limit, what).await;
        std::mem::take(&mut self.buffer)
    }

    /// Throws away the first bytes of what was read.
    pub fn take(&mut self, size: usize) {
        self.buffer.drain(..size);
    }

    /// What was read and not yet taken.
    pub fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(self.wire.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Half-closes TCP below TLS: a FIN without close_notify. The connection is kept open until the result is dropped.
    pub fn truncate(self) -> TcpStream {
        let tcp = match self.wire {
            Wire::Plain(tcp) => tcp,
            Wire::Tls(tls) => match *tls {
                TlsStream::Client(client) => client.into_inner().0,
                TlsStream::Server(server) => server.into_inner().0,
            },
        };
        socket2::SockRef::from(&tcp).shutdown(std::net::Shutdown::Write).unwrap();
        tcp
    }

    /// The closing handshake from this side.
    pub async fn close(mut self, code: u16, reason: &str) -> Option<(u16, String)> {
        self.send(&Frame::close(code, reason)).await;
        let answer = self.close_code().await;
        self.ended(PATIENCE, "the end of a closed connection").await;
        answer
    }
}

/// How a test's client connects.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub config: Arc<rustls::ClientConfig>,
    /// The name in the ClientHello; an IP address sends none.
    pub name: String,
}

/// TCP from one address of this machine to another.
pub async fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    let tcp = socket.connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

impl Client {
    /// The same client asking for another name.
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// The same client with another TLS configuration.
    pub fn configured(&self, config: rustls::ClientConfig) -> Self {
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// TCP only.
    pub async fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// TCP only, from another address of this machine.
    pub async fn tcp_from(&self, source: &str) -> TcpStream {
        connect_from(source, self.address).await
    }

    /// TCP and TLS.
    pub async fn try_connect(&self) -> io::Result<Peer> {
        self.connect_over(self.tcp().await).await
    }

    /// TLS over a TCP connection that is there.
    pub async fn connect_over(&self, tcp: TcpStream) -> io::Result<Peer> {
        let name = ServerName::try_from(self.name.clone()).unwrap();
        let connect = TlsConnector::from(self.config.clone()).connect(name, tcp);
        let tls = within(PATIENCE, "the TLS handshake", connect).await?;
        Ok(Peer::new(Wire::Tls(Box::new(TlsStream::Client(tls))), true))
    }

    /// TCP and TLS, which must succeed.
    pub async fn connect(&self) -> Peer {
        self.try_connect().await.unwrap()
    }

    /// Sends a head and reads the answer; the connection stays.
    pub async fn ask(&self, head: &Head) -> (Answer, Peer) {
        let mut peer = self.connect().await;
        peer.write(&head.bytes()).await;
        let answer = peer.head().await.expect("an answer to the handshake");
        (answer, peer)
    }

    /// A connection after its 101.
    pub async fn open(&self, head: &Head) -> Peer {
        let (answer, peer) = self.ask(head).await;
        assert_eq!(answer.status(), 101, "{answer:?}");
        peer
    }
}

/// Keeps sessions under one name, so that the ticket of one host is shown to the other.
#[derive(Debug)]
pub struct OneName(pub ClientSessionMemoryCache);

impl OneName {
    fn name() -> ServerName<'static> {
        ServerName::try_from("one.test").unwrap()
    }
}

impl ClientSessionStore for OneName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}
