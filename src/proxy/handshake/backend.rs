//! The backend's side of a handshake: choose an endpoint, dial it, ask for the upgrade with a key of our own, verify
//! its 101 (RFC 6455 §4.1). One connection for each client, never pooled.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::policy::{Admission, Facts};
use crate::proxy::Shared;
use crate::proxy::io::backend::BackendIo;
use crate::proxy::limits::connections::EndpointPlace;
use crate::reason::Reason;
use crate::snapshot::{Balance, Route};
use crate::ws::upgrade::{self, Forwarded, Request, Response};

/// How long one endpoint may take to accept a connection.
const DIAL: Duration = Duration::from_secs(3);
/// How long an endpoint may take for TLS.
const TLS: Duration = Duration::from_secs(5);
/// How long an endpoint may take to answer the upgrade.
const ANSWER: Duration = Duration::from_secs(10);
/// How many endpoints are tried before the client is told.
const ATTEMPTS: usize = 3;

/// A backend that has switched protocols.
pub(crate) struct Upstream {
    pub(crate) io: BackendIo,
    /// Bytes behind its 101.
    pub(crate) early: Vec<u8>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) endpoint: SocketAddr,
    pub(crate) place: EndpointPlace,
}

/// Why there is no upstream.
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    /// The status that the backend refused with.
    pub(crate) status: Option<u16>,
    /// The endpoint that was asked last.
    pub(crate) endpoint: Option<SocketAddr>,
}

/// The endpoints to try, in order.
fn candidates(shared: &Shared, route: &Route, address: IpAddr) -> Vec<SocketAddr> {
    let snapshot = shared.live.load();
    let mut backends: Vec<_> = route
        .backends
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .filter_map(|(id, weight)| Some((snapshot.backends.get(id)?, u64::from(*weight))))
        .filter(|(backend, _)| !backend.endpoints.is_empty())
        .collect();
    if backends.is_empty() {
        return Vec::new();
    }
    let weights: Vec<u64> = backends.iter().map(|(_, weight)| *weight).collect();
    let (first, turn) = visit(shared.meters.turns.next(&route.id) as u64, &weights);
    backends.rotate_left(first);
    let mut all = Vec::new();
    for (backend, _) in backends {
        let mut endpoints = backend.endpoints.clone();
        match route.balance {
            Balance::RoundRobin => {
                let len = endpoints.len();
                endpoints.rotate_left(turn % len);
            }
            Balance::LeastConnections => {
                let len = endpoints.len();
                endpoints.rotate_left(turn % len);
                endpoints.sort_by_cached_key(|endpoint| shared.meters.load(*endpoint));
            }
            // Rendezvous hashing: an endpoint that comes or goes moves only its own clients.
            Balance::SourceIp => endpoints.sort_by_cached_key(|endpoint| {
                // Without random keys: every replica chooses alike.
                let mut hasher = DefaultHasher::new();
                (address, endpoint).hash(&mut hasher);
                std::cmp::Reverse(hasher.finish())
            }),
        }
        all.extend(endpoints);
    }
    all.truncate(ATTEMPTS);
    all
}

/// The backend whose turn it is, and how many turns it had before: its endpoints take turns by that number. By the turns of
/// all, endpoints of two backends that alternate would see every other turn only.
fn visit(turn: u64, weights: &[u64]) -> (usize, usize) {
    let common = weights.iter().fold(0, |common, weight| divisor(common, *weight));
    let total = weights.iter().sum::<u64>() / common;
    let mut share = share(turn, total);
    for (index, weight) in weights.iter().map(|weight| weight / common).enumerate() {
        if share < weight {
            return (index, (turn / total * weight + share) as usize);
        }
        share -= weight;
    }
    unreachable!("a share is less than the total")
}

/// The share of `total` whose turn it is: every run of `total` turns visits each share once, well mixed, by steps of
/// about the golden ratio that have no divisor in common with the whole.
fn share(turn: u64, total: u64) -> u64 {
    let mut step = (total * 618 / 1000).max(1);
    while divisor(step, total) != 1 {
        step += 1;
    }
    turn % total * step % total
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Dials and upgrades. Endpoints that cannot be reached are passed over; one that answers, whatever it says, is final.
pub(crate) async fn connect(
    shared: &Arc<Shared>,
    route: &Route,
    request: &Request,
    facts: &Facts,
    admission: &Admission,
) -> Result<Upstream, Failure> {
    let mut failure = Failure { reason: Reason::NoEndpoints, status: None, endpoint: None };
    for endpoint in candidates(shared, route, facts.address) {
        failure.endpoint = Some(endpoint);
        let Some(place) = shared.meters.dial(endpoint, shared.capacity.ports()) else {
            failure.reason = Reason::PortsExhausted;
            continue;
        };
        let tcp = match timeout(DIAL, TcpStream::connect(endpoint)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) => {
                tracing::debug!(%endpoint, %error, "endpoint not reached");
                failure.reason = undialled(&error);
                continue;
            }
            Err(_) => {
                failure.reason = Reason::BackendConnectTimeout;
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let io = match &route.backend_tls {
            None => BackendIo::Plain(tcp),
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                match timeout(TLS, connector.connect(tls.server_name.clone(), tcp)).await {
                    Ok(Ok(stream)) => BackendIo::Tls(Box::new(stream)),
                    Ok(Err(error)) => {
                        tracing::debug!(%endpoint, %error, "backend TLS failed");
                        failure.reason = Reason::BackendTlsFailed;
                        continue;
                    }
                    Err(_) => {
                        failure.reason = Reason::BackendUpgradeTimeout;
                        continue;
                    }
                }
            }
        };
        let answer = timeout(ANSWER, handshake(io, request, facts, admission)).await;
        match answer.unwrap_or(Err((Reason::BackendUpgradeTimeout, None))) {
            Ok((io, subprotocol, early)) => return Ok(Upstream { io, early, subprotocol, endpoint, place }),
            Err((reason, status)) => return Err(Failure { reason, status, ..failure }),
        }
    }
    Err(failure)
}

/// Why a dial failed: for want of something here, or because of the endpoint.
fn undialled(error: &std::io::Error) -> Reason {
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

async fn handshake(
    mut io: BackendIo,
    request: &Request,
    facts: &Facts,
    admission: &Admission,
) -> Result<(BackendIo, Option<Box<str>>, Vec<u8>), (Reason, Option<u16>)> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| (Reason::Internal, None))?;
    let key = upgrade::fresh_key(random);
    let mut head = Vec::with_capacity(1024);
    let identity = identity(facts);
    let forwarded = Forwarded { identity: &identity, ..Forwarded::of(request, facts.address) };
    upgrade::write_request(&mut head, request, &key, admission.offered(), &forwarded);
    let lost = |_| (Reason::BackendHandshakeInvalid, None);
    write(&mut io, &head).await.map_err(lost)?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        let n = read(&mut io, &mut answer).await.map_err(lost)?;
        match upgrade::parse_response(&answer, &key, admission.offered()) {
            Ok(Some((Response::Switching { subprotocol }, used))) => {
                return Ok((io, subprotocol, answer.split_off(used)));
            }
            Ok(Some((Response::Refused { status }, _))) => return Err((Reason::BackendRefused, Some(status))),
            Ok(None) if n > 0 && answer.len() < upgrade::MAX_HEAD => {}
            Ok(None) => return Err((Reason::BackendHandshakeInvalid, None)),
            Err(error) => {
                tracing::debug!(?error, "the backend's answer to the upgrade is not valid");
                return Err((Reason::BackendHandshakeInvalid, None));
            }
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
    fn every_run_of_turns_visits_each_share_once() {
        for total in [1, 2, 3, 4, 6, 7, 100, 1000] {
            for start in [0, 1, 12_345] {
                let mut seen: Vec<u64> = (start..start + total).map(|turn| share(turn, total)).collect();
                // A tenth of the shares gets a tenth of any part of the run, give or take three: the most from any start.
                let first = seen[..seen.len() / 2].iter().filter(|share| **share < total / 10).count() as u64;
                assert!(first.abs_diff(total / 20) <= 3, "{first} of {total} from {start}");
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..total), "{total} from {start}");
            }
        }
    }

    #[test]
    fn endpoints_of_every_backend_take_turns() {
        for weights in [&[1, 1][..], &[3, 1], &[9, 1], &[1, 2, 3], &[50, 50], &[7]] {
            for endpoints in [1, 2, 3, 4] {
                let mut seen = vec![vec![0_u64; endpoints]; weights.len()];
                let turns = weights.iter().sum::<u64>() * endpoints as u64;
                for turn in 0..turns {
                    let (backend, count) = visit(turn, weights);
                    seen[backend][count % endpoints] += 1;
                }
                for (weight, seen) in weights.iter().zip(seen) {
                    assert!(seen.iter().all(|count| count == weight), "{weights:?}, {endpoints}: {seen:?} of {weight}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_here_is_not_blamed_on_the_endpoint() {
        let reason = |errno: rustix::io::Errno| undialled(&errno.into());
        assert_eq!(reason(rustix::io::Errno::MFILE), Reason::Overloaded);
        assert_eq!(reason(rustix::io::Errno::ADDRNOTAVAIL), Reason::PortsExhausted);
        assert_eq!(reason(rustix::io::Errno::CONNREFUSED), Reason::BackendConnectFailed);
    }
}
