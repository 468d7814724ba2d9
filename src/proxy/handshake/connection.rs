//! One connection, top to bottom. Read this first.
//!
//! PROXY header, where a trusted proxy sends one -> ClientHello and host -> TLS -> one bounded request, Host equals SNI ->
//! lease -> `screen`, credential, `admit` -> places, ticket -> dial and upgrade the backend, verify its 101 -> answer 101 ->
//! relay. A refusal is an HTTP answer and a line in the log; a call that buys a ticket is answered in `purchase`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::UnixTime;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};

use crate::policy::client::TrustedProxies;
use crate::policy::{ClientCertificate, Facts, Origin, Policy, admit, credential, screen};
use crate::proxy::auth::verify;
use crate::proxy::handshake::answer;
use crate::proxy::handshake::backend;
use crate::proxy::handshake::proxy_protocol;
use crate::proxy::handshake::ticket_endpoint;
use crate::proxy::io::buffers;
use crate::proxy::io::client_tls::{self, ClientTls};
use crate::proxy::limits::fair_queue;
use crate::proxy::relay::session::Session;
use crate::proxy::relay::{Parts, Relay};
use crate::proxy::{Drain, Shared, worker};
use crate::reason::{self, Reason};
use crate::snapshot::{Lease, Route, RouteState};
use crate::telemetry::access::{Opened, Refused};
use crate::ws::upgrade::{self, Call, Request, RequestError};

/// Everything before the 101, all stages together.
const OVERALL: Duration = Duration::from_secs(30);
/// The TLS handshake.
const TLS: Duration = Duration::from_secs(5);
/// The request's head, from the end of the TLS handshake.
const HEAD: Duration = Duration::from_secs(5);
/// Writing the answer and waiting for the client to take it.
const FAREWELL: Duration = Duration::from_secs(1);

/// What is known when a handshake is refused.
#[derive(Default)]
pub(crate) struct Refusal {
    reason: Option<Reason>,
    /// The backend's own status, as far as it is passed on.
    status: Option<u16>,
    /// The endpoint that was asked.
    backend: Option<SocketAddr>,
    host: Option<Box<str>>,
    path: Option<Box<str>>,
    pub(crate) route: Option<Arc<str>>,
    pub(crate) policy: Option<Arc<Policy>>,
    /// When the next attempt is free, where that is known.
    pub(crate) retry_after: Option<Duration>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason: Some(reason), ..Self::default() }
    }
}

/// Who is at the other end.
#[derive(Clone, Copy)]
struct Who {
    /// The client, as far as it is known; port 0 where it is not.
    client: SocketAddr,
    /// The proxy whose socket it is, where it spoke for the client.
    proxy: Option<SocketAddr>,
}

impl Who {
    fn new(peer: SocketAddr) -> Self {
        Self { client: SocketAddr::new(peer.ip().to_canonical(), peer.port()), proxy: None }
    }

    fn stands_for(&mut self, client: SocketAddr) {
        if client != self.client {
            self.proxy.get_or_insert(self.client);
            self.client = client;
        }
    }
}

/// Serves one accepted socket up to its 101; the relay does the rest.
pub(crate) async fn serve(shared: Arc<Shared>, mut tcp: TcpStream, peer: SocketAddr) -> Option<Relay> {
    let began = Instant::now();
    let mut who = Who::new(peer);
    // One and the same for the whole connection.
    let proxies = shared.proxies.load_full();
    match proxy_protocol::read(&proxies, &mut tcp, who.client).await {
        Ok(client) => who.stands_for(client),
        Err(reason) => return refused(&shared, who, &reason.into()),
    }
    let Accepted { mut client, name, certificate } = match timeout(TLS, accept(&shared, tcp, who.client.ip())).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(reason)) => return refused(&shared, who, &reason.into()),
        Err(_) => return refused(&shared, who, &Reason::TlsTimeout.into()),
    };
    let mut refusal = Refusal::default();
    let judging = judge(&shared, &mut client, name.as_deref(), certificate, &proxies, &mut who, &mut refusal);
    let judged = timeout_at((began + OVERALL).into(), judging).await;
    refusal.reason = match judged.unwrap_or(Err(Reason::BackendUpgradeTimeout)) {
        Ok(Outcome::Admitted(judged)) => return relay(&shared, client, *judged, who, began).await,
        Ok(Outcome::Answered(bytes)) => {
            farewell(&mut client, &bytes).await;
            return None;
        }
        Err(reason) => Some(reason),
    };
    refused(&shared, who, &refusal);
    if let Some(reason) = refusal.reason
        && let Some(status) = refusal.status.or(reason.http_status())
    {
        let handshake = refusal.policy.as_ref().map(|policy| &policy.handshake);
        // Whole seconds (RFC 9110 §10.2.3), never too early; where nothing is known, spread a little.
        let retry_after = match refusal.retry_after {
            Some(wait) => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
            None => u64::from(1 + buffers::mask()[0] % 5),
        };
        let bytes = answer::refusal(status, reason.challenge(), handshake, retry_after);
        farewell(&mut client, &bytes).await;
    }
    None
}

/// Sends the last answer of a connection.
async fn farewell(client: &mut ClientTls, bytes: &[u8]) {
    let _ = timeout(FAREWELL, async {
        if client.send_all(bytes).await.is_ok() {
            client.finish().await;
        }
    })
    .await;
}

fn refused(shared: &Shared, who: Who, refusal: &Refusal) -> Option<Relay> {
    let reason = refusal.reason.unwrap_or(Reason::Internal);
    shared.metrics.refused(reason, refusal.route.as_deref());
    shared.access.refused(&Refused {
        reason,
        status: refusal.status.or(reason.http_status()),
        client: who.client,
        proxy: who.proxy,
        host: refusal.host.as_deref(),
        path: refusal.path.as_deref(),
        route: refusal.route.as_deref(),
        backend: refusal.backend,
    });
    None
}

/// TLS: the name of the ClientHello chooses the host's own configuration.
async fn accept(shared: &Shared, mut tcp: TcpStream, address: IpAddr) -> Result<Accepted, Reason> {
    let (hello, name) = client_tls::client_hello(&mut tcp).await?;
    let snapshot = shared.live.load();
    let identity = match &name {
        Some(name) => snapshot.tls(name),
        None => snapshot.default_tls.as_ref(),
    };
    let Some(identity) = identity else {
        client_tls::refuse_name(&mut tcp).await;
        return Err(Reason::UnknownServerName);
    };
    let identity = Arc::clone(identity);
    drop(snapshot);
    let place = fair_queue::enter(address)?;
    let client = ClientTls::accept(tcp, Arc::clone(&identity.config), hello, place).await?;
    let certificate = match (&identity.client, client.client_chain()) {
        (Some(rule), chain @ [_, ..]) => Some(Box::new(ClientCertificate::read(chain, &rule.trust)?)),
        _ => None,
    };
    Ok(Accepted { client, name, certificate })
}

/// A connection after its TLS handshake.
struct Accepted {
    client: ClientTls,
    name: Option<String>,
    certificate: Option<Box<ClientCertificate>>,
}

/// What becomes of a request that is not refused.
enum Outcome {
    /// A handshake goes on.
    Admitted(Box<Judged>),
    /// A call is answered with these bytes.
    Answered(Vec<u8>),
}

/// A handshake that was admitted and has a backend.
struct Judged {
    request: Request,
    /// What the client sent behind its request.
    early: Vec<u8>,
    facts: Facts,
    lease: Lease,
    policy: Arc<Policy>,
    route: Arc<str>,
    audited: Option<Reason>,
    places: crate::proxy::limits::connections::Places,
    upstream: backend::Upstream,
}

/// Judges a request; what is known of it by then stands in `refusal`, also where time runs out in the middle.
async fn judge(
    shared: &Arc<Shared>,
    client: &mut ClientTls,
    name: Option<&str>,
    certificate: Option<Box<ClientCertificate>>,
    proxies: &TrustedProxies,
    who: &mut Who,
    refusal: &mut Refusal,
) -> Result<Outcome, Reason> {
    let read = timeout(HEAD, head(client)).await.map_err(|_| Reason::HeadTimeout)??;
    let (Head::Handshake(asked, _) | Head::Call(Call { request: asked, .. })) = &read;
    refusal.host = Some(asked.host.clone());
    refusal.path = Some(asked.path.clone());
    if let Some(client) = proxies.client(who.client.ip(), asked.forwarded_for.as_deref())? {
        who.stands_for(SocketAddr::new(client, 0));
    }
    let (mut request, early) = match read {
        Head::Handshake(request, early) => (request, early),
        Head::Call(call) => {
            let answer = ticket_endpoint::answer(shared, call, name, certificate, who.client.ip(), refusal).await;
            return answer.map(Outcome::Answered);
        }
    };
    let (lease, policy, facts, audited, places, upstream) =
        admitted(shared, &mut request, name, certificate, who.client.ip(), refusal).await?;
    let route = refusal.route.clone().unwrap_or_default();
    let judged = Judged { request, early, facts, lease, policy, route, audited, places, upstream };
    Ok(Outcome::Admitted(Box::new(judged)))
}

type Admitted =
    (Lease, Arc<Policy>, Facts, Option<Reason>, crate::proxy::limits::connections::Places, backend::Upstream);

/// The order of judgement after the form: Host = SNI, route, networks, origin, attempts, subprotocol, client
/// certificate, credential, places, backend.
async fn admitted(
    shared: &Arc<Shared>,
    request: &mut Request,
    name: Option<&str>,
    certificate: Option<Box<ClientCertificate>>,
    address: IpAddr,
    refusal: &mut Refusal,
) -> Result<Admitted, Reason> {
    if name != Some(&*request.host) {
        return Err(Reason::Misdirected);
    }
    if *shared.drain.borrow() != Drain::Serving {
        return Err(Reason::Draining);
    }
    let lease = shared.live.lease(&request.host, &request.path)?;
    let route = Arc::clone(&lease.route);
    refusal.route = Some(route.id.to_string().into());
    let policy = match &route.state {
        RouteState::Serving(policy) => Arc::clone(policy),
        RouteState::Refusing(reason) => return Err(*reason),
    };
    refusal.policy = Some(Arc::clone(&policy));
    // Before anything is kept: facts hold no credential.
    let authentication = &policy.handshake.authentication;
    let presented = credential::take(authentication, request);
    let mut facts = facts(request, &policy, address, certificate);
    screened(shared, &route, &policy, &facts, refusal)?;
    // Browsers take no answer without one of their offers, and a token is never answered.
    if presented.by_subprotocol && facts.subprotocols.is_empty() {
        return Err(Reason::SubprotocolDenied);
    }
    let verified = verify::verify(shared, &route.id, authentication, &presented, &facts, request).await?;
    facts.proof = verified.proof;
    let admission = admit(&policy, &facts, verify::now())?;
    let limits = &policy.connection;
    let mut places = shared.meters.place(&route.id, facts.address, limits.total, limits.per_address)?;
    if let Some(identity) = facts.identity() {
        places.subject(identity, limits.per_subject, shared.store.as_ref()).await?;
    }
    // Last: a handshake that something else refuses costs no ticket.
    if let Some(ticket) = verified.ticket {
        shared.tickets.redeem(&ticket, &route.id).await?;
        shared.metrics.route(refusal.route.as_deref().unwrap_or_default()).tickets_redeemed.inc();
    }
    let mut upstream = match backend::connect(shared, &route, request, &facts, &admission).await {
        Ok(upstream) => upstream,
        Err(failure) => {
            refusal.status = failure.status.map(reason::passed_on);
            refusal.backend = failure.endpoint;
            return Err(failure.reason);
        }
    };
    if presented.by_subprotocol && upstream.subprotocol.is_none() {
        upstream.subprotocol = admission.offered().first().cloned();
    }
    Ok((lease, policy, facts, admission.audited(), places, upstream))
}

/// What counts of a request, its credential apart.
pub(crate) fn facts(
    request: &Request,
    policy: &Policy,
    address: IpAddr,
    certificate: Option<Box<ClientCertificate>>,
) -> Facts {
    let facts = Facts {
        address,
        host: request.host.clone(),
        port: request.port,
        path: request.path.clone(),
        origin: request.origin.clone(),
        subprotocols: request.subprotocols.clone(),
        client_certificate: certificate,
        proof: None,
    };
    // The policy may be newer than the TLS handshake.
    facts.renewed(policy, UnixTime::now()).unwrap_or(facts)
}

/// [`screen`], with the attempt counted; a refusal says when the next one is free.
pub(crate) fn screened(
    shared: &Shared,
    route: &Route,
    policy: &Policy,
    facts: &Facts,
    refusal: &mut Refusal,
) -> Result<(), Reason> {
    screen(policy, facts, |limit| {
        let free = shared.meters.attempts.judge(&route.id, facts.address, limit, Instant::now());
        free.map_err(|wait| {
            refusal.retry_after = Some(wait);
            Reason::HandshakeRateLimit
        })
    })
}

/// A request's head.
enum Head {
    /// A handshake, and what was sent behind it.
    Handshake(Request, Vec<u8>),
    /// Something else.
    Call(Call),
}

/// Reads the request's head, and nothing of what it means.
async fn head(client: &mut ClientTls) -> Result<Head, Reason> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let n = client.read_some(&mut bytes).await.map_err(|_| Reason::ClientLost)?;
        match upgrade::parse_request(&bytes) {
            Ok(Some((request, used))) => return Ok(Head::Handshake(request, bytes.split_off(used))),
            Ok(None) => {}
            Err(RequestError::Method) => {
                // Whatever is wrong with it as a call, it is no handshake.
                let call = upgrade::parse_call(&bytes).ok().flatten();
                return call.map(Head::Call).ok_or(Reason::MethodNotAllowed);
            }
            Err(error) => return Err(error.into()),
        }
        if n == 0 {
            return Err(Reason::ClientLost);
        }
    }
}

/// Answers 101 and hands over to the relay.
async fn relay(shared: &Arc<Shared>, mut client: ClientTls, judged: Judged, who: Who, began: Instant) -> Option<Relay> {
    let Judged { request, early, facts, lease, policy, route, audited, places, upstream } = judged;
    let switching = answer::switching(&request.key, upstream.subprotocol.as_deref(), &policy.handshake);
    match timeout(FAREWELL, client.send_all(&switching)).await {
        Ok(Ok(())) => {}
        _ => {
            let refusal = Refusal { route: Some(route), ..Reason::ClientLost.into() };
            return refused(shared, who, &refusal);
        }
    }
    let id = shared.access.id();
    shared.access.opened(&Opened {
        id,
        route: &route,
        client: who.client,
        proxy: who.proxy,
        host: &facts.host,
        path: &facts.path,
        origin: match &facts.origin {
            Origin::One(origin) => Some(origin),
            Origin::Missing | Origin::Several => None,
        },
        subprotocol: upstream
            .subprotocol
            .as_deref()
            .filter(|name| policy.handshake.subprotocols.iter().any(|listed| listed == name)),
        tls: Some(client.version()),
        backend: Some(upstream.endpoint),
        audited,
    });
    let metrics = shared.metrics.route(&route);
    metrics.accepted();
    if let Some(reason) = audited {
        metrics.audited(reason);
    }
    let session = Session::new(id, facts, lease, buffers::mask()[0]);
    worker::register(&session);
    // What changed while the backend was dialled is judged now.
    session.rejudge(&shared.live);
    Some(Relay::new(Parts {
        client,
        backend: upstream.io,
        client_early: early,
        backend_early: upstream.early,
        session,
        route,
        began,
        metrics,
        access: shared.access.clone(),
        places: (places, upstream.place),
    }))
}
