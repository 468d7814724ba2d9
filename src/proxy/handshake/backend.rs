//! The handshake with the backend: choose an endpoint, connect, ask for the upgrade with a key of our own, verify its 101
//! (RFC 6455 §4.1). One connection for each client, never pooled.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use crate::policy::{Admission, Facts};
use crate::proxy::handshake::asked::Asked;
use crate::proxy::handshake::balance::candidates;
use crate::proxy::handshake::refusal::Refusal;
use crate::proxy::io::backend::BackendIo;
use crate::proxy::io::socket_buffers::SocketBuffers;
use crate::proxy::limits::permits::Permit;
use crate::proxy::shared::Shared;
use crate::reason::Reason;
use crate::snapshot::Route;
use crate::ws::upgrade::{self, BackendRefusal, Forwarded, Request, Response, ResponseError};

/// How long an endpoint may take for TLS.
const TLS: Duration = Duration::from_secs(5);
/// How many endpoints are tried before the client is told.
const ENDPOINTS: usize = 3;

/// A backend that has switched protocols.
pub(crate) struct Backend {
    pub(crate) io: BackendIo,
    /// Bytes behind its 101.
    pub(crate) early: Vec<u8>,
    pub(crate) subprotocol: Option<Box<str>>,
    /// The headers of its 101 that pass to the client.
    pub(crate) passed: Vec<(Box<str>, Box<[u8]>)>,
    pub(crate) endpoint: SocketAddr,
    /// How long its TCP connection took.
    pub(crate) connect_took: Duration,
    pub(crate) permit: Permit<SocketAddr>,
}

/// Connects and upgrades. Endpoints that cannot be reached are passed over; one that answers, whatever it says, is final.
/// `terms`: why the client is let in, and which headers of the 101 pass to it.
pub(crate) async fn connect(
    shared: &Shared,
    route: &Arc<Route>,
    asked: &Asked,
    facts: &Facts,
    terms: (&Admission, &[Box<str>]),
) -> Result<Backend, Refusal> {
    let mut refusal = Refusal::by(route, Reason::NoEndpoints);
    for endpoint in candidates(shared, route, facts.address, ENDPOINTS) {
        refusal.endpoint = Some(endpoint);
        let Some(permit) = shared.connections.acquire_endpoint(endpoint, shared.capacity.ports()) else {
            refusal.reason = Reason::PortsExhausted;
            continue;
        };
        let (io, connect_took) = match reach(shared, route, endpoint, asked.deadline).await {
            Ok(reached) => reached,
            Err(reason) => {
                refusal.reason = reason;
                continue;
            }
        };
        let hop = Arc::clone(&shared.live.load().hop);
        let answer = handshake(io, &asked.request, facts, terms, &hop);
        let answer = within(route.timeouts.upgrade, asked.deadline, answer).await;
        return match answer.unwrap_or(Err(Reason::BackendUpgradeTimeout.into())) {
            Ok(Switched { io, subprotocol, passed, early }) => {
                Ok(Backend { io, early, subprotocol, passed, endpoint, connect_took, permit })
            }
            Err(Fault { reason, answered, detail }) => {
                if reason == Reason::LoopDetected {
                    shared.health.looped(&route.id);
                }
                Err(Refusal { reason, answered, detail, ..refusal })
            }
        };
    }
    Err(refusal)
}

/// A future within its own time and the deadline of all stages; `None`: the time is over.
async fn within<T>(time: Duration, deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    timeout_at(deadline.min(Instant::now() + time).into(), future).await.ok()
}

/// Connects to an endpoint, with TLS where the route asks for it; and how long TCP took.
async fn reach(
    shared: &Shared,
    route: &Route,
    endpoint: SocketAddr,
    deadline: Instant,
) -> Result<(BackendIo, Duration), Reason> {
    let began = Instant::now();
    let tcp = match within(route.timeouts.connect, deadline, dial(endpoint, shared.buffers)).await {
        Some(Ok(tcp)) => tcp,
        Some(Err(error)) => {
            tracing::debug!(%endpoint, %error, "backend not reached");
            return Err(unreached(&error));
        }
        None => return Err(Reason::BackendConnectTimeout),
    };
    let took = began.elapsed();
    let _ = tcp.set_nodelay(true);
    let Some(tls) = &route.backend_tls else { return Ok((BackendIo::Plain(tcp), took)) };
    let connector = TlsConnector::from(Arc::clone(tls.config.get()));
    match within(TLS, deadline, connector.connect(tls.server_name.clone(), tcp)).await {
        Some(Ok(stream)) => Ok((BackendIo::Tls(Box::new(stream)), took)),
        Some(Err(error)) => {
            tracing::debug!(%endpoint, %error, "TLS handshake with the backend failed");
            Err(Reason::BackendTlsFailed)
        }
        None => Err(Reason::BackendUpgradeTimeout),
    }
}

/// Connects to an endpoint from a socket whose buffers are bounded.
async fn dial(endpoint: SocketAddr, buffers: SocketBuffers) -> std::io::Result<TcpStream> {
    let socket = if endpoint.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    buffers.set(&socket)?;
    socket.connect(endpoint).await
}

/// Why an endpoint was not reached: because of a lack of something here, or because of the endpoint.
fn unreached(error: &std::io::Error) -> Reason {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Reason::Overloaded,
        Some(Errno::ADDRNOTAVAIL) => Reason::PortsExhausted,
        _ => Reason::BackendConnectFailed,
    }
}

/// What the backend is told of the client's certificate: the certificate (RFC 9440 §2.2), its SPIFFE id and its subject.
fn identity(facts: &Facts) -> Vec<(&'static str, String)> {
    use base64::Engine;
    let Some(certificate) = &facts.client_certificate else { return Vec::new() };
    let der = base64::engine::general_purpose::STANDARD.encode(certificate.der());
    let mut fields = vec![("Client-Cert", format!(":{der}:"))];
    if let Some(id) = &certificate.spiffe_id {
        fields.push(("X-Wssgate-Client-Spiffe-Id", id.to_string()));
    }
    if !certificate.subject.is_empty() {
        fields.push(("X-Wssgate-Client-Subject", certificate.subject.to_string()));
    }
    fields
}

/// What a 101 that counts leaves.
struct Switched {
    io: BackendIo,
    subprotocol: Option<Box<str>>,
    passed: Vec<(Box<str>, Box<[u8]>)>,
    early: Vec<u8>,
}

/// Why an endpoint's answer is no 101 that counts.
struct Fault {
    reason: Reason,
    /// What it refused with.
    answered: Option<Box<BackendRefusal>>,
    /// What is wrong with it, of a closed set.
    detail: Option<&'static str>,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self { reason, answered: None, detail: None }
    }
}

impl From<ResponseError> for Fault {
    /// However an answer of a backend is wrong, it is the backend's fault alone.
    fn from(error: ResponseError) -> Self {
        Self { detail: Some(error.label()), ..Reason::BackendHandshakeInvalid.into() }
    }
}

/// The connection ended before the head of the answer was whole.
const CLOSED: &str = "closed";

async fn handshake(
    mut io: BackendIo,
    request: &Request,
    facts: &Facts,
    (admission, passes): (&Admission, &[Box<str>]),
    hop: &str,
) -> Result<Switched, Fault> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Reason::Internal)?;
    let key = upgrade::fresh_key(random);
    let mut head = Vec::with_capacity(1024);
    let identity = identity(facts);
    let forwarded = Forwarded { identity: &identity, hop, ..Forwarded::of(request, facts.address) };
    upgrade::write_request(&mut head, request, &key, admission.offered(), &forwarded);
    let ended = || Fault { detail: Some(CLOSED), ..Reason::BackendHandshakeInvalid.into() };
    let lost = |_| ended();
    write(&mut io, &head).await.map_err(lost)?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        let n = read(&mut io, &mut answer).await.map_err(lost)?;
        match upgrade::parse_response(&answer, &key, admission.offered(), passes) {
            Ok(Some((Response::Switching { subprotocol, passed }, used))) => {
                return Ok(Switched { io, subprotocol, passed, early: answer.split_off(used) });
            }
            Ok(Some((Response::Refused(refusal), _))) => {
                // 508: behind it the request came back here, or would have gone in a circle further on.
                let looped = refusal.status == 508;
                let reason = if looped { Reason::LoopDetected } else { Reason::BackendRefused };
                return Err(Fault { answered: Some(refusal), ..reason.into() });
            }
            Ok(None) if n > 0 => {}
            Ok(None) => return Err(ended()),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    io.write_all(bytes).await?;
    io.flush().await
}

async fn read(io: &mut (impl AsyncRead + Unpin), out: &mut Vec<u8>) -> std::io::Result<usize> {
    out.reserve(1024);
    io.read_buf(out).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_here_is_not_blamed_on_the_endpoint() {
        let reason = |errno: rustix::io::Errno| unreached(&errno.into());
        assert_eq!(reason(rustix::io::Errno::MFILE), Reason::Overloaded);
        assert_eq!(reason(rustix::io::Errno::ADDRNOTAVAIL), Reason::PortsExhausted);
        assert_eq!(reason(rustix::io::Errno::CONNREFUSED), Reason::BackendConnectFailed);
    }
}
