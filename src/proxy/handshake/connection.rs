//! One connection, from its first byte to its 101. Read this first.
//!
//! PROXY header, where a trusted proxy sends one -> ClientHello and host -> TLS -> one bounded request; this is the part
//! that knows HTTP/1.1. What was asked is judged in `judge`, a call to the ticket endpoint is answered in
//! `ticket_endpoint`; then the answer is sent here: a 101 and the relay, or a refusal and a line in the log.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use crate::policy::client::TrustedProxies;
use crate::policy::network::limit_key;
use crate::policy::{ClientCertificate, Origin};
use crate::proxy::clock::wall;
use crate::proxy::handshake::asked::{Asked, Serves};
use crate::proxy::handshake::judge::{self, Admitted};
use crate::proxy::handshake::refusal::{self, ClientAddress, Refusal, Target};
use crate::proxy::handshake::{answer, proxy_protocol, ticket_endpoint};
use crate::proxy::io::backend::BackendPeer;
use crate::proxy::io::client_hello;
use crate::proxy::io::client_tls::ClientTls;
use crate::proxy::limits::capacity::SocketClaim;
use crate::proxy::relay::report::Report;
use crate::proxy::relay::session::Session;
use crate::proxy::relay::{Parts, Relay};
use crate::proxy::worker::Worker;
use crate::reason::Reason;
use crate::snapshot::Timeouts;
use crate::telemetry::access::fields::{Id, Opened};
use crate::telemetry::metrics::Stage;
use crate::ws::upgrade::extensions::{self, Deflate};
use crate::ws::upgrade::{self, Call, MAX_HEAD, Request, RequestError};

/// Everything before the 101, all stages together.
const OVERALL: Duration = Duration::from_secs(30);
/// The TLS handshake.
const TLS: Duration = Duration::from_secs(5);
/// The request's head, from the end of the TLS handshake.
const HEAD: Duration = Duration::from_secs(5);
/// Writing the answer and waiting for the client to take it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves one accepted socket up to its 101; the relay does the rest. `socket` is the place that it has.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    mut tcp: TcpStream,
    peer: SocketAddr,
    socket: SocketClaim,
) -> Option<Relay> {
    let began = Instant::now();
    let mut address = ClientAddress::new(peer);
    // One and the same for the whole connection.
    let proxies = worker.shared.proxies.load_full();
    match proxy_protocol::read(&proxies, &mut tcp, address.client).await {
        Ok(client) => address.stands_for(client),
        Err(reason) => return end(&worker, address, None, &reason.into()),
    }
    if address.proxy.is_some() {
        // Whoever came through the proxy competes as himself from now on.
        socket.rename(&[limit_key(address.client.ip())]);
    }
    let tls_began = Instant::now();
    let accepted = timeout(TLS, accept(&worker, tcp, address.client.ip())).await;
    let Accepted { mut tls, serves, certificate } = match accepted.unwrap_or(Err(Reason::TlsTimeout)) {
        Ok(accepted) => accepted,
        Err(reason) => return end(&worker, address, None, &reason.into()),
    };
    let tls_ended = Instant::now();
    worker.shared.metrics.handshake_stage(Stage::Tls, tls_ended - tls_began);
    let most = || worker.shared.live.load().max_head(serves.name());
    let head = timeout(HEAD, head(&worker, &mut tls, most)).await.unwrap_or(Err(Reason::HeadTimeout));
    let (request, head_size, head) = match head {
        Ok(head) => head,
        Err(reason) => return refuse(&worker, tls, address, None, &reason.into()).await,
    };
    let mut asked = Asked {
        request,
        serves,
        head_size,
        certificate,
        address: address.client.ip(),
        began: tls_ended,
        deadline: began + OVERALL,
    };
    let outcome = match forwarded(&proxies, &mut asked, &mut address) {
        Ok(()) => judged(&worker, &mut asked, head).await,
        Err(reason) => Err(reason.into()),
    };
    match outcome {
        Ok(Reply::Switch(admitted, early)) => open(&worker, tls, *admitted, asked, early, address, began).await,
        Ok(Reply::Answer(bytes)) => {
            farewell(&worker, &mut tls, &bytes).await;
            None
        }
        Err(refusal) => refuse(&worker, tls, address, Some(&asked.request), &refusal).await,
    }
}

/// What is replied to a request that is not refused.
enum Reply {
    /// A 101; with what the client sent behind its request.
    Switch(Box<Admitted>, Vec<u8>),
    /// An answer of the ticket endpoint.
    Answer(Vec<u8>),
}

/// Takes the client's address from `X-Forwarded-For` of a trusted proxy.
fn forwarded(proxies: &TrustedProxies, asked: &mut Asked, address: &mut ClientAddress) -> Result<(), Reason> {
    if let Some(client) = proxies.client(asked.address, asked.request.forwarded_for.as_deref())? {
        address.stands_for(SocketAddr::new(client, 0));
        asked.address = client;
    }
    Ok(())
}

/// Judges what was asked.
async fn judged(worker: &Worker, asked: &mut Asked, head: Head) -> Result<Reply, Refusal> {
    // Each stage has a time of its own, and all together have less than this: only a fault of ours gets here.
    let late = |_| Refusal::from(Reason::Internal);
    let backstop = asked.deadline + Timeouts::LONGEST.beyond_default() + FAREWELL;
    match head {
        Head::Handshake { early } => {
            let admitted =
                timeout_at(backstop.into(), judge::handshake(&worker.shared, asked)).await.map_err(late)??;
            Ok(Reply::Switch(Box::new(admitted), early))
        }
        Head::Call { preflight } => {
            let answer = ticket_endpoint::answer(&worker.shared, asked, preflight);
            Ok(Reply::Answer(timeout_at(backstop.into(), answer).await.map_err(late)??))
        }
    }
}

/// Counts a refusal, writes it down, and answers with it.
async fn refuse(
    worker: &Worker,
    mut tls: ClientTls,
    address: ClientAddress,
    request: Option<&Request>,
    refusal: &Refusal,
) -> Option<Relay> {
    end(worker, address, request, refusal);
    match refusal.answer(worker.chance()) {
        Some(bytes) => farewell(worker, &mut tls, &bytes).await,
        // An alert that says what was wrong with a record goes out, and is not lost by a reset.
        None => {
            let _ = timeout(FAREWELL, tls.finish(&worker.buffers)).await;
        }
    }
    None
}

/// Counts a refusal and writes it down.
fn end(worker: &Worker, address: ClientAddress, request: Option<&Request>, refusal: &Refusal) -> Option<Relay> {
    let target = request.map(|request| Target { host: &request.host, path: &request.path });
    refusal::record(worker, address, target, refusal);
    None
}

/// Sends the last answer of a connection.
async fn farewell(worker: &Worker, tls: &mut ClientTls, bytes: &[u8]) {
    let _ = timeout(FAREWELL, async {
        if tls.send_all(&worker.buffers, bytes).await.is_ok() {
            tls.finish(&worker.buffers).await;
        }
    })
    .await;
}

/// A connection after its TLS handshake.
struct Accepted {
    tls: ClientTls,
    serves: Serves,
    certificate: Option<Box<ClientCertificate>>,
}

/// TLS: the name of the ClientHello chooses the host's own configuration; without a name of ours it is the default one.
async fn accept(worker: &Worker, mut tcp: TcpStream, address: IpAddr) -> Result<Accepted, Reason> {
    let (hello, server_name) = client_hello::read(&mut tcp).await?;
    let snapshot = worker.shared.live.load();
    let named = server_name.filter(|name| snapshot.host(name).is_some());
    let identity = match &named {
        Some(name) => snapshot.tls(name),
        None => snapshot.default_tls.as_ref().ok_or(Reason::UnknownServerName),
    };
    let identity = match identity.map(Arc::clone) {
        Ok(identity) => identity,
        Err(reason) => {
            client_hello::refuse_name(&mut tcp).await;
            return Err(reason);
        }
    };
    drop(snapshot);
    let queued = worker.tls_queue.enter(address)?;
    let tls = ClientTls::accept(tcp, Arc::clone(identity.config.get()), hello, queued).await?;
    let certificate = match (&identity.client, tls.client_chain()) {
        (Some(rule), chain @ [_, ..]) => Some(Box::new(ClientCertificate::read(chain, &rule.trust)?)),
        _ => None,
    };
    let serves = named.map_or_else(|| Serves::Unnamed { tls13: tls.is_tls13() }, Serves::Named);
    Ok(Accepted { tls, serves, certificate })
}

/// What a head asks for.
enum Head {
    /// A handshake, and what was sent behind it.
    Handshake { early: Vec<u8> },
    /// A POST, or a browser's question whether a page may make one.
    Call { preflight: bool },
}

/// Reads the request's head, its size too, and nothing of what it means. `most` says how large it may be where the default
/// is too small.
async fn head(
    worker: &Worker,
    tls: &mut ClientTls,
    most: impl Fn() -> usize,
) -> Result<(Request, usize, Head), Reason> {
    let mut bytes = Vec::with_capacity(1024);
    let mut bound = MAX_HEAD;
    loop {
        let before = bytes.len();
        let n = tls.read_some(&worker.buffers, &mut bytes).await.map_err(|_| Reason::ClientLost)?;
        // A large head that comes byte by byte is read anew at the end of each line only, of which there are few.
        let ends_line = || bytes.get(before..).is_some_and(|new| new.contains(&b'\n'));
        let waits = n > 0 && before > MAX_HEAD && bytes.len() < bound && !ends_line();
        let parsed = if waits { Ok(None) } else { parse(&bytes, &mut bound, &most) };
        match parsed {
            Ok(Some((request, used))) => {
                return Ok((request, used, Head::Handshake { early: bytes.split_off(used) }));
            }
            Ok(None) => {}
            Err(RequestError::Method) => {
                // Whatever is wrong with it as a call, it is no handshake.
                let call = upgrade::parse_call(&bytes, bound).ok().flatten().ok_or(Reason::MethodNotAllowed)?;
                let Call { preflight, request, size } = call;
                return Ok((request, size, Head::Call { preflight }));
            }
            Err(error) => return Err(error.into()),
        }
        if n == 0 {
            return Err(Reason::ClientLost);
        }
    }
}

/// Reads a head within a bound, which becomes `most` when it is too small.
fn parse(bytes: &[u8], bound: &mut usize, most: &impl Fn() -> usize) -> Result<Option<(Request, usize)>, RequestError> {
    match upgrade::parse_request(bytes, *bound) {
        Err(RequestError::HeadTooLarge | RequestError::TargetTooLong) if *bound == MAX_HEAD => {
            *bound = most().max(MAX_HEAD);
            upgrade::parse_request(bytes, *bound)
        }
        parsed => parsed,
    }
}

/// Answers 101 and hands over to the relay.
async fn open(
    worker: &Rc<Worker>,
    mut tls: ClientTls,
    admitted: Admitted,
    asked: Asked,
    early: Vec<u8>,
    address: ClientAddress,
    began: Instant,
) -> Option<Relay> {
    let shared = &worker.shared;
    let handshake = &admitted.policy.handshake;
    let deflate = negotiate(worker, &admitted, &asked.request);
    let subprotocol = admitted.backend.subprotocol.as_deref();
    let switching = answer::switching(&asked.request.key, subprotocol, deflate, handshake, &admitted.backend.passed);
    if !matches!(timeout(FAREWELL, tls.send_all(&worker.buffers, &switching)).await, Ok(Ok(()))) {
        return end(worker, address, Some(&asked.request), &Refusal::by(&admitted.lease.route, Reason::ClientLost));
    }
    let id = worker.log.id();
    let route = admitted.lease.route.id.clone();
    record_opened(worker, id, route.label(), &admitted, tls.version(), address);
    let metrics = shared.metrics.route(route.label());
    metrics.accepted();
    metrics.backend_connected(admitted.backend.connect_took);
    if let Some(reason) = admitted.audited {
        metrics.audited(reason);
    }
    let Admitted { lease, facts, kept, backend, permits, .. } = admitted;
    let session = Session::new(facts, kept, lease, worker.chance(), worker.clock.now(), wall());
    worker.sessions.register(&session);
    // What changed while the backend was connected to is judged now.
    worker.rejudge(&session);
    let mut nonce = [0; 8];
    nonce[..4].copy_from_slice(&worker.mask());
    nonce[4..].copy_from_slice(&worker.mask());
    Some(Relay::new(Parts {
        client: tls,
        backend: BackendPeer::new(backend.io),
        client_early: early,
        backend_early: backend.early,
        session,
        report: Report::new(id, route, began, metrics, worker.log.clone()),
        nonce,
        held: Arc::clone(&shared.held),
        subject_rates: Arc::clone(&shared.subject_rates),
        deflate: deflate.map(Deflate::window),
        permits: Box::new((permits, backend.permit)),
    }))
}

/// Accepts an offer of compression, if the route allows it and memory is not short. What it needs is reserved before the
/// 101.
fn negotiate(worker: &Worker, admitted: &Admitted, request: &Request) -> Option<Deflate> {
    if !admitted.policy.compresses || worker.shared.capacity.is_short() {
        return None;
    }
    let deflate = extensions::negotiate(request.extensions.as_deref()?)?;
    worker.buffers.borrow_mut().codec.reserve(deflate.window());
    Some(deflate)
}

fn record_opened(worker: &Worker, id: Id, route: &str, admitted: &Admitted, tls: &str, address: ClientAddress) {
    let Admitted { policy, facts, audited, backend, .. } = admitted;
    let listed = |name: &&str| policy.handshake.subprotocols.iter().any(|listed| listed == name);
    worker.log.opened(&Opened {
        id,
        route,
        client: address.client,
        proxy: address.proxy,
        host: &facts.host,
        path: &facts.path,
        origin: match &facts.origin {
            Origin::One(origin) => Some(origin),
            Origin::Missing | Origin::Several => None,
        },
        subprotocol: backend.subprotocol.as_deref().filter(listed),
        tls: Some(tls),
        backend: Some(backend.endpoint),
        audited: *audited,
    });
}
