//! The client's TLS: rustls' unbuffered API over one TCP socket, with scratch shared by all connections of the thread,
//! so that the load generator is cheaper than what it measures.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use crate::Failure;
use crate::client::Dial;
use crate::method::Shown;

/// The name in the certificate, in SNI and in Host.
pub(crate) const HOST: &str = "bench.example.com";

/// The host of another tenant, of whom the others of `*.example.com` are too.
pub(crate) const OTHER_HOST: &str = "other.example.com";

const READ_SIZE: usize = 256 * 1024;

struct Scratch {
    input: Vec<u8>,
    sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { input: Vec::new(), sealed: Vec::new() }) };
}

/// Which key exchange groups the client offers.
#[derive(Clone, Copy)]
pub(crate) enum Groups {
    /// X25519 alone, so that every gateway does the same work.
    Classic,
    /// X25519MLKEM768 first, as browsers do; a gateway without it uses X25519.
    Hybrid,
}

/// A client configuration: TLS 1.3, AES-128-GCM only (so that all gateways use one cipher), the certificate pinned;
/// `shown` is the client's own.
pub(crate) fn client_config(
    certificate: &CertificateDer<'static>,
    groups: Groups,
    resume: bool,
    shown: Option<&Shown>,
) -> Result<Arc<ClientConfig>, Failure> {
    let kx_groups: Vec<&'static dyn SupportedKxGroup> = match groups {
        Groups::Classic => vec![aws_lc_rs::kx_group::X25519],
        Groups::Hybrid => vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
    };
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups,
        ..aws_lc_rs::default_provider()
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(certificate.clone())));
    let mut config = match shown {
        Some((leaf, key)) => builder.with_client_auth_cert(vec![leaf.clone()], key.clone_key())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = if resume {
        rustls::client::Resumption::in_memory_sessions(16)
    } else {
        rustls::client::Resumption::disabled()
    };
    Ok(Arc::new(config))
}

/// Accepts exactly the benchmark's certificate. The signature is not checked: that work is the client's, and the load
/// generator has but one core.
#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.0.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("not the benchmark's certificate".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 was not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// The client's end of a TCP connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    /// Where it comes from; what the kernel chooses if absent.
    pub(crate) address: Option<Ipv4Addr>,
    /// Bound of the kernel's buffers of this socket, in bytes.
    pub(crate) buffer: Option<u32>,
    /// Whether it ends by RST, and so leaves no TIME_WAIT behind.
    pub(crate) reset: bool,
}

impl Source {
    pub(crate) async fn connect(self, target: SocketAddr) -> Result<TcpStream, Failure> {
        let socket = TcpSocket::new_v4()?;
        if let Some(size) = self.buffer {
            socket.set_recv_buffer_size(size)?;
            socket.set_send_buffer_size(size)?;
        }
        if let Some(address) = self.address {
            socket.bind((address, 0).into())?;
        }
        if self.reset {
            socket.set_zero_linger()?;
        }
        let tcp = socket.connect(target).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// One TLS connection. Reading and writing are polls, so that one task can do both at once.
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: UnbufferedClientConnection,
    partial: Vec<u8>,
    unsent: Vec<u8>,
    sent: usize,
    ready: bool,
}

impl Stream {
    /// Connects and finishes the TLS handshake, except that the last flight may wait for the first bytes of ours.
    pub(crate) async fn connect(dial: &Dial) -> Result<Self, Failure> {
        let tcp = dial.source.connect(dial.address).await?;
        let name = ServerName::try_from(dial.host.to_string())?;
        let tls = UnbufferedClientConnection::new(dial.config.clone(), name)?;
        let mut stream = Self { tcp, tls, partial: Vec::new(), unsent: Vec::new(), sent: 0, ready: false };
        stream.advance(&mut [], &mut |_| {})?;
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.ready {
            ready!(self.poll_flush(cx))?;
            if ready!(self.poll_receive(cx, &mut |_| {}))? == 0 {
                return Poll::Ready(Err("the gateway closed during the TLS handshake".into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the session was resumed.
    pub(crate) fn resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The key exchange group, for the report.
    pub(crate) fn group(&self) -> String {
        self.tls.negotiated_key_exchange_group().map_or_else(|| "none".into(), |group| format!("{:?}", group.name()))
    }

    /// Writes what is unsent.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.sent < self.unsent.len() {
            let wrote = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent[self.sent..]))?;
            self.sent += wrote;
        }
        self.sent = 0;
        self.unsent = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Seals and writes all of it.
    pub(crate) async fn write(&mut self, plain: &[u8]) -> Result<(), Failure> {
        poll_fn(|cx| Poll::Ready(self.send(cx, plain))).await?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads until the other end has ended the connection, in whatever way.
    pub(crate) async fn until_it_ends(&mut self) {
        poll_fn(|cx| {
            loop {
                match ready!(self.poll_receive(cx, &mut |_| {})) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        })
        .await;
    }

    /// Seals `plain` and writes as much as the kernel takes; the rest is kept for [`Stream::poll_flush`].
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, plain: &[u8]) -> Result<(), Failure> {
        self.advance(&mut [], &mut |_| {})?;
        SCRATCH.with_borrow_mut(|scratch| {
            let bound = plain.len() + 1024 + plain.len() / 256;
            if scratch.sealed.len() < bound {
                scratch.sealed.resize(bound, 0);
            }
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut []);
            let ConnectionState::WriteTraffic(mut traffic) = state? else {
                return Err("the TLS connection cannot send".into());
            };
            let sealed = traffic.encrypt(plain, &mut scratch.sealed)?;
            let mut rest = &scratch.sealed[..sealed];
            if self.unsent.is_empty() {
                while !rest.is_empty() {
                    match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                        Poll::Ready(wrote) => rest = &rest[wrote?..],
                        Poll::Pending => break,
                    }
                }
            }
            self.unsent.extend_from_slice(rest);
            Ok(())
        })
    }

    /// Reads once and gives the plaintext, in pieces, to `sink`. The number is of bytes off the wire; 0 is the end.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<Result<usize, Failure>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let held = self.partial.len();
            scratch.input.resize(READ_SIZE + 32 * 1024, 0);
            let input = scratch.input.as_mut_slice();
            let mut buffer = ReadBuf::new(&mut input[held..held + READ_SIZE]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(0));
            }
            input[..held].copy_from_slice(&self.partial);
            let used = held + read;
            let done = self.advance(&mut input[..used], sink)?;
            self.partial.clear();
            if done < used {
                self.partial.extend_from_slice(&input[done..used]);
            } else if self.partial.capacity() > 0 {
                self.partial = Vec::new();
            }
            Poll::Ready(Ok(read))
        })
    }

    /// Runs the TLS machine over `input`; answers how many bytes it is done with.
    fn advance(&mut self, input: &mut [u8], sink: &mut dyn FnMut(&[u8])) -> Result<usize, Failure> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut input[done..]);
            let mut finished = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    let at = self.unsent.len();
                    let needed = match data.encode(&mut []) {
                        Ok(wrote) => wrote,
                        Err(EncodeError::InsufficientSize(size)) => size.required_size,
                        Err(error) => return Err(error.into()),
                    };
                    self.unsent.resize(at + needed, 0);
                    data.encode(&mut self.unsent[at..])?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => {
                    self.ready = true;
                    finished = true;
                }
                _ => finished = true,
            }
            done += discard;
            if finished {
                return Ok(done);
            }
        }
    }
}
