//! The plain port: redirects pages, explains itself to WebSocket clients, never upgrades, never sets HSTS (RFC 6797
//! §7.2). ACME challenges will be answered here; until then their paths are not redirected.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::proxy::answer::SECURE_HEADERS;
use crate::proxy::worker::ACCEPT_PAUSE;
use crate::proxy::{Drain, Shared};

/// Requests that are answered at a time.
const CONNECTIONS: usize = 256;
/// How long a request may take, answer included.
const TIME: Duration = Duration::from_secs(5);

/// Answers until the drain closes the listener.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut drain = shared.drain.clone();
    let closing = drain.wait_for(|drain| *drain != Drain::Serving);
    let mut closing = std::pin::pin!(closing);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut closing => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let shared = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(TIME)
                .max_buf_size(16 * 1024)
                .max_headers(64)
                .keep_alive(false)
                .serve_connection(TokioIo::new(tcp), answer);
            // A client that breaks off or is too slow is its own affair.
            let _ = timeout(TIME * 2, connection).await;
            drop(place);
        });
    }
}

fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let host = host(request).filter(|host| shared.live.load().host(host).is_some());
    let Some(host) = host else { return text(StatusCode::NOT_FOUND, "not found\n") };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if path.starts_with("/.well-known/acme-challenge/") {
        return text(StatusCode::NOT_FOUND, "not found\n");
    }
    if request.headers().contains_key(header::UPGRADE) {
        let body = format!("WebSocket is served over TLS only: use wss://{host}{}\n", request.uri().path());
        return text(StatusCode::BAD_REQUEST, body);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
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

/// The one Host header without its port, lower case.
fn host(request: &Request<Incoming>) -> Option<String> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (values.next(), values.next()) else { return None };
    let host = host.to_str().ok()?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    Some(name.to_ascii_lowercase())
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
