//! The plain port: redirects pages, explains itself to WebSocket clients, never upgrades, never sets HSTS (RFC 6797
//! §7.2). It answers ACME challenges that the snapshot knows by asking their solver; their folder is never redirected.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::accept::{self, Listener};
use crate::policy::network::limit_key;
use crate::proxy::drain::Drain;
use crate::proxy::handshake::answer::SECURE_HEADERS;
use crate::proxy::handshake::proxy_protocol;
use crate::proxy::handshake::refusal::turned_away;
use crate::proxy::plain::acme::Solvers;
use crate::proxy::shared::Shared;
use crate::proxy::worker::Worker;
use crate::shares::{Claim, Loses, Shares};
use crate::snapshot::{BackendId, Snapshot};
use crate::ws::upgrade::host;

/// Requests that are answered at a time, shared by address (IPv6: by /64): the address with most loses its newest.
const CONNECTIONS: usize = 256;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(2);
/// How long a request may take, answer included.
const TIME: Duration = Duration::from_secs(10);

/// Answers until the drain closes the listener.
pub(crate) async fn serve(worker: Rc<Worker>, listener: Listener) {
    let places = Arc::new(Shares::new(CONNECTIONS, Loses::Newest));
    let solvers = Rc::new(Solvers::default());
    let mut drain = worker.shared.drain.clone();
    let closing = async { drop(drain.wait_for(|drain| *drain != Drain::Serving).await) };
    accept::until("http", listener, closing, |tcp, peer| {
        let Ok(tcp) = TcpStream::from_std(tcp) else { return };
        let Some(mut place) = places.acquire(&[limit_key(peer.ip())]) else { return };
        let (worker, solvers) = (Rc::clone(&worker), Rc::clone(&solvers));
        tokio::task::spawn_local(async move {
            let claim = place.claim();
            tokio::select! {
                biased;
                // A client that breaks off or is too slow is its own affair.
                _ = timeout(TIME, one(&worker, &solvers, tcp, peer, claim)) => {}
                () = place.revoked() => {}
            }
        });
    })
    .await;
}

/// One connection, one request.
async fn one(worker: &Worker, solvers: &Rc<Solvers>, mut tcp: TcpStream, peer: SocketAddr, place: Claim<IpAddr, 1>) {
    let proxies = worker.shared.proxies.load_full();
    let client = match proxy_protocol::read(&proxies, &mut tcp, peer).await {
        Ok(client) => client,
        Err(reason) => return turned_away(worker, reason, peer),
    };
    if limit_key(client.ip()) != limit_key(peer.ip()) {
        place.rename(&[limit_key(client.ip())]);
    }
    let answer =
        service_fn(|request| async move { Ok::<_, Infallible>(answer(&worker.shared, solvers, &request).await) });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .max_headers(64)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), answer)
        .await;
}

async fn answer(shared: &Shared, solvers: &Rc<Solvers>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let snapshot = shared.live.load();
    let named = own_host(request).filter(|named| snapshot.host(&named.host).is_some());
    let Some(host::Authority { host, port }) = named else { return text(StatusCode::NOT_FOUND, "not found\n") };
    // RFC 9112 §3.2.2: the authority of an absolute form is the Host, or there are two.
    let absolute = request.uri().authority().map(|authority| host::parse(authority.as_str().as_bytes()));
    let other = absolute.is_some_and(|absolute| {
        absolute.is_none_or(|absolute| absolute.host != host || absolute.port.unwrap_or(80) != port.unwrap_or(80))
    });
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // It stands in a Location: bytes that readers disagree about do not, nor what would become a part of the name.
    if other || !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return text(StatusCode::BAD_REQUEST, "bad request\n");
    }
    if request.headers().contains_key(header::UPGRADE) {
        let body = format!("WebSocket is served over TLS only: use wss://{host}{}\n", request.uri().path());
        return text(StatusCode::BAD_REQUEST, body);
    }
    if path.starts_with("/.well-known/acme-challenge/") {
        // Path and query are the challenge's own, or there is none.
        let Some(solver) = snapshot.challenge(&host, path) else { return text(StatusCode::NOT_FOUND, "not found\n") };
        return challenge(&snapshot, solvers, solver, &host, path, request).await;
    }
    if !is_read(request) {
        return not_allowed();
    }
    match HeaderValue::try_from(format!("https://{host}{path}")) {
        Ok(location) => {
            let mut response = text(StatusCode::PERMANENT_REDIRECT, "use https\n");
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "bad request\n"),
    }
}

/// Answers a challenge by asking its solver; a request with a body is none.
async fn challenge(
    snapshot: &Snapshot,
    solvers: &Rc<Solvers>,
    solver: &BackendId,
    host: &str,
    path: &str,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !is_read(request) {
        return not_allowed();
    }
    let mut lengths = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let empty = lengths.next().is_none_or(|length| length == "0") && lengths.next().is_none();
    if !empty || request.headers().contains_key(header::TRANSFER_ENCODING) {
        return text(StatusCode::BAD_REQUEST, "bad request\n");
    }
    let mut response = match solvers.ask(snapshot, solver, host, path).await {
        Ok(answer) => text(StatusCode::OK, answer),
        Err(status) => text(status, format!("{}\n", status.canonical_reason().unwrap_or_default().to_lowercase())),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn is_read(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The one Host header, as handshakes are read.
fn own_host(request: &Request<Incoming>) -> Option<host::Authority> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    host::parse(value.as_bytes())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for (name, value) in SECURE_HEADERS.iter().filter(|(name, _)| *name != "strict-transport-security") {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    response
}
