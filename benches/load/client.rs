//! One WebSocket client connection of the load, and what it does with it: echo as fast as it can, stay idle, or never
//! read.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use tokio::sync::watch;

use crate::Failure;
use crate::frames::{self, Parser, Piece};
use crate::tls::{HOST, Source, Stream};

/// The example of RFC 6455, section 1.3, and its answer. The gateway makes its own key for the backend.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One message in this many is compared byte by byte; the others by opcode and length.
const SAMPLE: u64 = 32;

/// What all connections of a cell count together.
#[derive(Default)]
pub(crate) struct Tally {
    /// Messages that came back, or connections done, or bytes written: the cell's unit.
    pub(crate) done: Cell<u64>,
    /// Connections that reached the state which the cell measures.
    pub(crate) ready: Cell<usize>,
    /// Why the first connection failed.
    pub(crate) failure: RefCell<Option<String>>,
}

impl Tally {
    /// Keeps the first failure.
    pub(crate) fn fail(&self, error: &Failure) {
        self.failure.borrow_mut().get_or_insert_with(|| error.to_string());
    }

    pub(crate) fn add(&self, count: u64) {
        self.done.set(self.done.get() + count);
    }
}

/// How a connection is opened.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    pub(crate) config: Arc<ClientConfig>,
    /// Whom it asks for, in SNI, Host and Origin.
    pub(crate) host: Rc<str>,
    /// Its own end of the connection.
    pub(crate) source: Source,
    /// What the handshake asks for.
    pub(crate) target: Rc<str>,
    /// Fields of the handshake besides the usual, each with its line end.
    pub(crate) fields: Rc<str>,
}

impl Dial {
    /// One that opens `/load` of [`HOST`] without more fields.
    pub(crate) fn new(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self {
            address,
            config,
            host: HOST.into(),
            source: Source::default(),
            target: "/load".into(),
            fields: "".into(),
        }
    }
}

/// Opens a connection, sends a request, and reads until the answer has `end`.
pub(crate) async fn ask(dial: &Dial, request: &str, end: &[u8]) -> Result<(Stream, String), Failure> {
    let mut stream = Stream::connect(dial).await?;
    poll_fn(|cx| Poll::Ready(stream.send(cx, request.as_bytes()))).await?;
    let mut answer = Vec::new();
    poll_fn(|cx| {
        loop {
            let _pending = stream.poll_flush(cx)?;
            let read = ready!(stream.poll_receive(cx, &mut |bytes| answer.extend_from_slice(bytes)))?;
            if answer.windows(end.len()).any(|found| found == end) {
                return Poll::Ready(Ok::<(), Failure>(()));
            }
            if read == 0 {
                return Poll::Ready(Err(format!("closed before the answer: {}", first_line(&answer)).into()));
            }
        }
    })
    .await?;
    Ok((stream, String::from_utf8(answer)?))
}

/// The opening handshake's request.
pub(crate) fn upgrade(dial: &Dial) -> String {
    let Dial { host, target, fields, .. } = dial;
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://{host}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nUser-Agent: load\r\n{fields}\r\n"
    )
}

/// Buys a ticket at a path, on a connection of its own.
pub(crate) async fn ticket(dial: &Dial, path: &str) -> Result<String, Failure> {
    let Dial { host, fields, .. } = dial;
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nUser-Agent: load\r\n{fields}\r\n");
    let (_, answer) = ask(dial, &request, b"}").await?;
    let ticket = answer.split_once("{\"ticket\":\"").and_then(|(_, rest)| rest.split_once('"'));
    Ok(ticket.ok_or_else(|| format!("no ticket: {}", first_line(answer.as_bytes())))?.0.to_owned())
}

/// A connection after its 101.
pub(crate) struct Socket {
    stream: Stream,
    parser: Parser,
}

impl Socket {
    /// Connects and upgrades; the gateway's answer is checked.
    pub(crate) async fn open(dial: &Dial) -> Result<Self, Failure> {
        let (stream, head) = ask(dial, &upgrade(dial), b"\r\n\r\n").await?;
        if !head.starts_with("HTTP/1.1 101") || !head.contains(ACCEPT) || !head.ends_with("\r\n\r\n") {
            return Err(format!("not the 101 that was expected: {}", first_line(head.as_bytes())).into());
        }
        Ok(Self { stream, parser: Parser::default() })
    }

    /// Whether the TLS session was resumed.
    pub(crate) fn resumed(&self) -> bool {
        self.stream.resumed()
    }

    /// The TLS key exchange group.
    pub(crate) fn group(&self) -> String {
        self.stream.group()
    }

    /// Keeps `in_flight` messages on their way until `limit` came back, or for ever.
    pub(crate) async fn echo(
        &mut self,
        message: &Message,
        in_flight: usize,
        limit: Option<u64>,
        tally: &Tally,
    ) -> Result<(), Failure> {
        let mut check = Check { message, completed: 0, answered: 0, pongs: Vec::new(), wrong: None };
        let mut sent = 0;
        poll_fn(|cx| {
            loop {
                let flushed = self.stream.poll_flush(cx)?.is_ready();
                let wanted = check.completed + in_flight as u64;
                let owed = limit.map_or(wanted, |limit| wanted.min(limit)) - sent;
                if flushed && owed > 0 {
                    sent += owed;
                    for batch in message.batches(owed as usize) {
                        self.stream.send(cx, batch)?;
                    }
                }
                if flushed && !check.pongs.is_empty() {
                    self.stream.send(cx, &std::mem::take(&mut check.pongs))?;
                }
                let parser = &mut self.parser;
                let read =
                    ready!(self.stream.poll_receive(cx, &mut |bytes| parser.feed(bytes, |piece| check.see(piece))))?;
                if let Some(wrong) = check.wrong.take() {
                    return Poll::Ready(Err(wrong.into()));
                }
                tally.add(check.completed - check.answered);
                check.answered = check.completed;
                if limit == Some(check.completed) {
                    return Poll::Ready(Ok(()));
                }
                if read == 0 {
                    return Poll::Ready(Err("the gateway closed a connection under load".into()));
                }
            }
        })
        .await
    }

    /// Sends nothing, answers pings, and leaves with a Close once `leave` says so.
    pub(crate) async fn idle(mut self, mut leave: watch::Receiver<bool>) -> Result<(), Failure> {
        let quiet = Message::new(0, 0);
        let nothing = Tally::default();
        tokio::select! {
            ended = self.echo(&quiet, 0, None, &nothing) => return ended,
            _ = leave.wait_for(|leave| *leave) => {}
        }
        self.close().await
    }

    /// The closing handshake, then the end of TCP.
    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        let mut frame = Vec::new();
        frames::write_masked(&mut frame, frames::CLOSE, &1000u16.to_be_bytes(), [9, 8, 7, 6]);
        let mut answered = false;
        poll_fn(|cx| Poll::Ready(self.stream.send(cx, &frame))).await?;
        poll_fn(|cx| {
            loop {
                let _pending = self.stream.poll_flush(cx)?;
                let parser = &mut self.parser;
                let read = ready!(self.stream.poll_receive(cx, &mut |bytes| {
                    parser.feed(bytes, |piece| answered |= matches!(piece, Piece::End { opcode: frames::CLOSE }));
                }))?;
                if read == 0 {
                    return Poll::Ready(if answered { Ok(()) } else { Err("no Close came back".into()) });
                }
            }
        })
        .await
    }

    /// Writes for ever and never reads.
    pub(crate) async fn write_only(&mut self, message: &Message, tally: &Tally) -> Result<(), Failure> {
        poll_fn(|cx: &mut Context<'_>| {
            loop {
                ready!(self.stream.poll_flush(cx))?;
                self.stream.send(cx, &message.frame)?;
                tally.add(message.frame.len() as u64);
            }
        })
        .await
    }
}

fn first_line(head: &[u8]) -> String {
    String::from_utf8_lossy(head).lines().next().unwrap_or("nothing").to_owned()
}

/// One pre-built masked text message, different for each connection.
pub(crate) struct Message {
    payload: Vec<u8>,
    frame: Vec<u8>,
    /// Sixteen frames in a row, where they are small: one record carries several.
    row: Vec<u8>,
}

impl Message {
    /// `size` bytes of ASCII, drawn from `seed`.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let payload: Vec<u8> = (0..size).map(|_| b' ' + (next() % 95) as u8).collect();
        Self::of(payload, next() as u32)
    }

    /// One that says this, masked with `key`.
    pub(crate) fn of(payload: Vec<u8>, key: u32) -> Self {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frames::write_masked(&mut frame, frames::TEXT, &payload, key.to_be_bytes());
        let row = if frame.len() <= 4096 { frame.repeat(16) } else { Vec::new() };
        Self { payload, frame, row }
    }

    /// The whole frame.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// `count` frames in as few pieces as there are.
    fn batches(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let (per_batch, whole) = if self.row.is_empty() { (1, &self.frame) } else { (16, &self.row) };
        let (full, rest) = (count / per_batch, count % per_batch);
        let rest = (rest > 0).then(|| &whole[..rest * self.frame.len()]);
        std::iter::repeat_n(whole.as_slice(), full).chain(rest)
    }
}

/// Compares what comes back with what was sent.
struct Check<'m> {
    message: &'m Message,
    completed: u64,
    answered: u64,
    pongs: Vec<u8>,
    wrong: Option<&'static str>,
}

impl Check<'_> {
    fn see(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Begin { opcode: frames::TEXT, fin, length } => {
                if !fin || length != self.message.payload.len() as u64 {
                    self.wrong = Some("an echo has another length");
                }
            }
            Piece::Payload { opcode: frames::TEXT, offset, bytes, .. } => {
                let at = offset as usize;
                if self.completed.is_multiple_of(SAMPLE)
                    && self.message.payload.get(at..at + bytes.len()).is_none_or(|sent| sent != bytes)
                {
                    self.wrong = Some("an echo has another content");
                }
            }
            Piece::End { opcode: frames::TEXT } => self.completed += 1,
            Piece::Payload { opcode: frames::PING, bytes, .. } => {
                // A ping is short enough to come in one piece; one that does not is answered in two, and the gateway
                // would say so.
                frames::write_masked(&mut self.pongs, frames::PONG, bytes, [1, 2, 3, 4]);
            }
            Piece::Begin { opcode: frames::PING, length: 0, .. } => {
                frames::write_masked(&mut self.pongs, frames::PONG, &[], [1, 2, 3, 4]);
            }
            Piece::Begin { opcode: frames::PING | frames::PONG, .. } | Piece::End { .. } => {}
            Piece::Begin { .. } => self.wrong = Some("a frame that nobody sent"),
            Piece::Payload { .. } => {}
        }
    }
}

/// Runs one task of a cell and keeps its failure.
pub(crate) async fn record(tally: Rc<Tally>, task: impl Future<Output = Result<(), Failure>>) {
    if let Err(error) = task.await {
        tally.fail(&error);
    }
}
