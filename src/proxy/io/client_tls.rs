//! The client's side of a connection: TLS over TCP on rustls' unbuffered API, so that an idle connection owns no
//! buffer. It owns a partial record and unsent bytes only while there are any.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ProtocolVersion, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::io::buffers::{Buffers, READ, RECORD};
use crate::proxy::io::client_hello::MAX_HELLO;
use crate::proxy::io::{Fill, Peer};
use crate::proxy::limits::fair_queue::{Begun, Permit, Queued};
use crate::reason::Reason;

/// How often one wake-up reads before it lets others run.
const READS: usize = 8;

/// A TLS connection accepted from a client.
pub(crate) struct ClientTls {
    tcp: TcpStream,
    tls: UnbufferedServerConnection,
    /// Received bytes that are not a whole record yet.
    partial: Vec<u8>,
    /// Plaintext that came with the handshake's last flight.
    opened: Vec<u8>,
    /// Sealed bytes that the socket did not take yet, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// The client said that it sends no more (close_notify or FIN).
    ended: bool,
    /// It broke the protocol: nothing more is read from it or sealed for it.
    failed: bool,
    /// The socket broke, which is told when everything that came before is read.
    broken: Option<io::ErrorKind>,
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Why a handshake failed: the client's certificate, or something else.
fn reason(error: &io::Error) -> Reason {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match error {
        Some(
            rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertificate(_)
            | rustls::Error::InvalidCertRevocationList(_),
        ) => Reason::ClientCertificateInvalid,
        _ => Reason::TlsFailed,
    }
}

impl ClientTls {
    /// Completes the handshake that `hello` began, each step with a permit; `queued` is its place in the queue for the first.
    /// TLS 1.3 tickets stay unsent until the first answer, to go with it.
    pub(crate) async fn accept(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        hello: Vec<u8>,
        queued: Queued,
    ) -> Result<Self, Reason> {
        let tls = UnbufferedServerConnection::new(config).map_err(|_| Reason::TlsFailed)?;
        let (opened, unsent) = (Vec::new(), Vec::new());
        let mut this =
            Self { tcp, tls, partial: hello, opened, unsent, sent: 0, ended: false, failed: false, broken: None };
        let first = queued.first().await?;
        match this.handshake(first).await {
            Ok(()) => Ok(this),
            Err(error) => Err(reason(&error)),
        }
    }

    /// The chain that the client presented, verified by the configuration's own verifier; empty where it did not.
    pub(crate) fn client_chain(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    async fn handshake(&mut self, (mut permit, begun): (Permit, Begun)) -> io::Result<()> {
        loop {
            let stepped = self.step();
            // No permit is held while the client is waited for.
            drop(permit);
            match stepped {
                Ok(true) => {
                    // In TLS 1.2 the server's Finished comes last: a client sends nothing before it has it (RFC 5246
                    // §7.3). In TLS 1.3 only tickets are left.
                    if self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_2) {
                        poll_fn(|cx| self.poll_flush(cx)).await?;
                    }
                    return Ok(());
                }
                Ok(false) => {
                    poll_fn(|cx| self.poll_flush(cx)).await?;
                    if self.partial.len() > MAX_HELLO {
                        return Err(invalid("handshake too long"));
                    }
                    if poll_fn(|cx| self.poll_read_more(cx, 8 * 1024)).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => {
                    // The alert goes out if it can at once.
                    poll_fn(|cx| Poll::Ready(self.poll_flush(cx).is_ready())).await;
                    return Err(error);
                }
            }
            permit = begun.rejoin().await;
        }
    }

    /// Goes through what has been received; whether the handshake is complete.
    fn step(&mut self) -> io::Result<bool> {
        let mut input = std::mem::take(&mut self.partial);
        let mut used = 0;
        let outcome = loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut input[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.unsent)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => break Ok(false),
                Ok(ConnectionState::WriteTraffic(_)) => break Ok(true),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        used += record.discard;
                        self.opened.extend_from_slice(record.payload);
                    }
                    break Ok(true);
                }
                Ok(_) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => break Err(invalid(error)),
            }
            if !self.tls.is_handshaking() && used < input.len() {
                // The next record is the request's: it is opened by `poll_fill`.
                break Ok(true);
            }
        };
        input.drain(..used);
        if outcome.is_err() {
            self.fail(&mut input);
        } else {
            self.partial = input;
        }
        outcome
    }

    fn poll_read_more(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let start = self.partial.len();
        self.partial.resize(start + room, 0);
        let mut buf = ReadBuf::new(&mut self.partial[start..]);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut buf);
        let n = buf.filled().len();
        self.partial.truncate(start + n);
        ready!(polled)?;
        Poll::Ready(Ok(n))
    }

    /// Collects the alert that an error left behind; `rest` is what the error left of the client's bytes. After that
    /// rustls is not asked again: it would go on with the messages that came with the one it refused.
    fn fail(&mut self, rest: &mut [u8]) {
        self.failed = true;
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) = self.tls.process_tls_records(rest).state else { return };
            if encode(&mut data, &mut self.unsent).is_err() {
                return;
            }
        }
    }

    /// Reads records into `input`, behind the partial one that is kept.
    fn poll_read_records(&mut self, cx: &mut Context<'_>, input: &mut [u8]) -> Poll<io::Result<Records>> {
        let mut filled = self.partial.len();
        input[..filled].copy_from_slice(&self.partial);
        // Records that came behind the handshake's last flight can be opened without reading.
        let mut fresh = has_whole_record(&self.partial);
        let mut drained = false;
        for _ in 0..READS {
            if self.ended || filled == input.len() {
                break;
            }
            let mut buf = ReadBuf::new(&mut input[filled..]);
            match Pin::new(&mut self.tcp).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => {
                    let n = buf.filled().len();
                    self.ended |= n == 0;
                    filled += n;
                    fresh |= n > 0;
                }
                Poll::Ready(Err(error)) if fresh => {
                    self.broken = Some(error.kind());
                    break;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    drained = true;
                    break;
                }
            }
        }
        match (fresh, self.ended) {
            (true, _) => Poll::Ready(Ok(Records::Bytes { filled, drained })),
            (false, true) => Poll::Ready(Ok(Records::End)),
            (false, false) => Poll::Pending,
        }
    }

    /// Opens all whole records of `input` and puts their plaintext at the start of `plain`: how much it is. What is left
    /// of the input is kept.
    fn open(&mut self, input: &mut [u8], plain: &mut [u8]) -> io::Result<usize> {
        let (mut used, mut out) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut input[used..]);
            let mut idle = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.inspect_err(|_| self.failed = true).map_err(invalid)?;
                        discard += record.discard;
                        let end = out + record.payload.len();
                        plain[out..end].copy_from_slice(record.payload);
                        out = end;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.unsent)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.ended = true;
                    idle = true;
                }
                Ok(ConnectionState::WriteTraffic(_)) => idle = true,
                Ok(_) => return Err(invalid("unexpected TLS state")),
                Err(error) => {
                    used += discard;
                    self.fail(&mut input[used..]);
                    return Err(invalid(error));
                }
            }
            used += discard;
            if idle {
                break;
            }
        }
        self.keep(&input[used..])?;
        Ok(out)
    }

    /// Keeps what is not a whole record yet.
    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        // A key update has five bytes and no cause to be cut in two; what cuts it makes rustls keep whole records.
        if !self.ended && has_whole_record(rest) {
            self.failed = true;
            return Err(invalid("a handshake message in pieces after the handshake"));
        }
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
            self.partial.shrink_to(RECORD);
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while self.unsent.is_empty() && !bytes.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) => bytes = &bytes[n..],
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> io::Result<usize> {
        self.traffic(|mut traffic| traffic.encrypt(plain, sealed))?.map_err(|error| match error {
            EncryptError::InsufficientSize(_) => invalid("sealed buffer too small"),
            error => invalid(error),
        })
    }

    /// Lets `write` write into the connection.
    ///
    /// rustls is shown the client's bytes that are kept, never an empty buffer in their place: while a handshake message
    /// is not whole it remembers where in them its parts are, and would look there.
    fn traffic<T>(&mut self, write: impl FnOnce(WriteTraffic<'_, ServerConnectionData>) -> T) -> io::Result<T> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut self.partial);
            match state {
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    let written = write(traffic);
                    self.partial.drain(..discard);
                    return Ok(written);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.unsent)?,
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    // Came behind the handshake's last flight and was not read yet.
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        self.opened.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                }
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => {
                    self.failed = true;
                    return Err(invalid(error));
                }
            }
            self.partial.drain(..discard);
        }
    }

    /// Reads one piece of plaintext into `out`; 0 at the end. For the request's head.
    pub(crate) async fn read_some(&mut self, buffers: &RefCell<Buffers>, out: &mut Vec<u8>) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut buffers = buffers.borrow_mut();
            match ready!(self.poll_fill(cx, &mut buffers, 0))? {
                Fill::Bytes(n) => {
                    out.extend_from_slice(&buffers.plain[..n]);
                    Poll::Ready(Ok(n))
                }
                Fill::End => Poll::Ready(Ok(0)),
            }
        })
        .await
    }

    /// Sends all of `plain`. For answers to a handshake.
    pub(crate) async fn send_all(&mut self, buffers: &RefCell<Buffers>, plain: &[u8]) -> io::Result<()> {
        let mut todo = Some(plain);
        poll_fn(|cx| match todo.take() {
            Some(plain) => self.poll_send(cx, plain, &mut buffers.borrow_mut().sealed, false),
            None => self.poll_flush(cx),
        })
        .await
    }

    /// Ends the connection after a refusal: close_notify, FIN, then reads until the client closes.
    pub(crate) async fn finish(&mut self, buffers: &RefCell<Buffers>) {
        let mut notify = true;
        if poll_fn(|cx| self.poll_shutdown(cx, &mut notify)).await.is_ok() {
            poll_fn(|cx| self.poll_drain(cx, &mut buffers.borrow_mut())).await;
        }
    }

    /// Whether the negotiated version is TLS 1.3.
    pub(crate) fn is_tls13(&self) -> bool {
        self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The negotiated version, for the access log.
    pub(crate) fn version(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "unknown",
        }
    }
}

/// What [`ClientTls::poll_read_records`] found.
enum Records {
    /// So many bytes of input; `drained`: the socket has no more for now.
    Bytes { filled: usize, drained: bool },
    /// The client sends no more.
    End,
}

impl Peer for ClientTls {
    /// Reads what is there and opens all whole records. Plaintext that does not fit is impossible: it is never longer
    /// than what was read.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers, at: usize) -> Poll<io::Result<Fill>> {
        if !self.opened.is_empty() {
            let opened = std::mem::take(&mut self.opened);
            buffers.plain[at..at + opened.len()].copy_from_slice(&opened);
            return Poll::Ready(Ok(Fill::Bytes(opened.len())));
        }
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        let Records::Bytes { filled, drained } = ready!(self.poll_read_records(cx, &mut buffers.input))? else {
            return Poll::Ready(Ok(Fill::End));
        };
        match self.open(&mut buffers.input[..filled], &mut buffers.plain[at..])? {
            0 if self.ended => Poll::Ready(Ok(Fill::End)),
            // Records without data (a key update), or a partial one: the socket wakes us unless it was not emptied.
            0 => {
                if !drained {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            n => Poll::Ready(Ok(Fill::Bytes(n))),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], sealed: &mut [u8], more: bool) -> Poll<io::Result<()>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // What fits `sealed` with its records' overhead.
            let part;
            (part, rest) = rest.split_at(rest.len().min(READ));
            let n = self.seal(part, sealed)?;
            if more {
                self.unsent.extend_from_slice(&sealed[..n]);
            } else {
                self.poll_write(cx, &sealed[..n])?;
            }
        }
        if more { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            let n = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent[self.sent..]))?;
            self.sent += n;
        }
        if !self.unsent.is_empty() {
            self.unsent = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn unsent(&self) -> usize {
        self.unsent.len() - self.sent
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, notify: &mut bool) -> Poll<io::Result<()>> {
        if *notify {
            *notify = false;
            let mut alert = [0; 128];
            if let Ok(Ok(n)) = self.traffic(|mut traffic| traffic.queue_close_notify(&mut alert)) {
                self.unsent.extend_from_slice(&alert[..n]);
            }
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<()> {
        for _ in 0..READS {
            let mut buf = ReadBuf::new(&mut buffers.input);
            match Pin::new(&mut self.tcp).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether these bytes of TLS begin with a record that is all there.
fn has_whole_record(bytes: &[u8]) -> bool {
    bytes.get(3..5).is_some_and(|len| bytes.len() >= 5 + usize::from(u16::from_be_bytes([len[0], len[1]])))
}

fn encode<Data>(data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    let mut room = 4096;
    loop {
        out.resize(start + room, 0);
        match data.encode(&mut out[start..]) {
            Ok(n) => {
                out.truncate(start + n);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(error) => {
                out.truncate(start);
                return Err(invalid(error));
            }
        }
    }
}
