//! The admin port: `/livez`, `/readyz` and `/metrics` over plain HTTP/1.1.
//!
//! Meant for the kubelet, Prometheus and an operator's port-forward, so a web page in the operator's browser must get
//! nothing: the Host must be one that DNS cannot point elsewhere, and requests that a page of another origin caused
//! are refused. Knows metrics and readiness; no route and no connection of the data plane.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::accept;
use crate::policy::network::limit_key;
use crate::shares::{Loses, Shares};
use crate::telemetry::metrics::CONTENT_TYPE;
use crate::telemetry::metrics::Metrics;

/// Connections at a time, shared by address (IPv6: by /64).
const CONNECTIONS: usize = 64;
/// Time for a request head. The kubelet gives a probe a second.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a whole connection, which serves one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// What the admin port shows.
#[derive(Debug)]
pub struct Admin {
    metrics: Metrics,
    ready: AtomicBool,
    hosts: Vec<String>,
}

impl Admin {
    /// Not ready yet. `hosts` are names, without port, that requests may use besides `localhost` and IP addresses:
    /// the name of a Service, for example.
    pub fn new(metrics: Metrics, hosts: &[String]) -> Self {
        Self { metrics, ready: AtomicBool::new(false), hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect() }
    }

    /// What `/readyz` answers from now on: 200 or 503.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    fn answer(
        &self,
        method: &Method,
        path: &str,
        authority: Option<&str>,
        headers: &HeaderMap,
    ) -> Response<Full<Bytes>> {
        if let Err(why) = self.judge(authority, headers) {
            return plain(StatusCode::FORBIDDEN, why);
        }
        let answer = match path {
            "/livez" => plain(StatusCode::OK, "live\n"),
            "/readyz" if self.is_ready() => plain(StatusCode::OK, "ready\n"),
            "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            "/metrics" => {
                let mut answer = respond(StatusCode::OK, Bytes::from(self.metrics.encode()));
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
                answer
            }
            _ => return plain(StatusCode::NOT_FOUND, "not found; there are /livez, /readyz and /metrics\n"),
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        answer
    }

    /// Refuses what a web page may have caused: a name that was pointed at this address (DNS rebinding), or a request
    /// across origins (Fetch, `Origin` and `Sec-Fetch-Site`).
    fn judge(&self, authority: Option<&str>, headers: &HeaderMap) -> Result<(), &'static str> {
        const HOST: &str = "this Host is not allowed; use an IP address, localhost or a listed name\n";
        let host = single(headers, &header::HOST).ok_or(HOST)?;
        for named in std::iter::once(host).chain(authority) {
            if !self.is_own(name_of(named).ok_or(HOST)?) {
                return Err(HOST);
            }
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = single(headers, &header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
            if !origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
                return Err("requests of other origins are not answered\n");
            }
        }
        if headers.contains_key("sec-fetch-site")
            && !matches!(single(headers, &HeaderName::from_static("sec-fetch-site")), Some("same-origin" | "none"))
        {
            return Err("requests of other sites are not answered\n");
        }
        Ok(())
    }

    /// A name that DNS cannot point at us from outside, or one that the operator listed.
    fn is_own(&self, name: &str) -> bool {
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let name = name.to_ascii_lowercase();
        name == "localhost" || bare.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }
}

/// The name of `name[:port]`, with the brackets of an IPv6 address; `None` if the port is not one.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok()).then_some(name)
}

/// The value of a field that is there exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = respond(status, Bytes::from_static(text.as_bytes()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Serves until dropped; its connections end with it.
///
/// When all places are held, the address that has most loses its oldest connection, be it the address that asks. A probe
/// is answered within a moment of its connection, so what is oldest is a client that does not send its request or does
/// not read the answer: half requests keep nobody out, not even another client of their own address.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let places = Arc::new(Shares::new(CONNECTIONS, Loses::Oldest));
    accept::each("admin", listener, |stream, peer| {
        let mut place = places.acquire(&[limit_key(peer.ip())])?;
        let admin = Arc::clone(&admin);
        Some(async move {
            tokio::select! {
                biased;
                _ = tokio::time::timeout(CONNECTION_TIMEOUT, one(stream, &admin)) => {}
                () = place.revoked() => {}
            }
        })
    })
    .await;
}

/// One connection, one request.
async fn one(stream: TcpStream, admin: &Arc<Admin>) {
    let service = service_fn(|request: Request<Incoming>| {
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let answer = admin.answer(request.method(), request.uri().path(), authority, request.headers());
        async move { Ok::<_, Infallible>(answer) }
    });
    // A peer that breaks HTTP or vanishes is its own affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .max_headers(64)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn ask(
        admin: &Admin,
        method: Method,
        path: &str,
        fields: &[(&'static str, &'static str)],
    ) -> Response<Full<Bytes>> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        admin.answer(&method, path, None, &headers)
    }

    fn admin() -> Admin {
        Admin::new(Metrics::new(), &["wssgate-admin.example".to_owned()])
    }

    fn status(fields: &[(&'static str, &'static str)]) -> u16 {
        ask(&admin(), Method::GET, "/livez", fields).status().as_u16()
    }

    #[test]
    fn only_names_that_nobody_else_can_point_here_are_answered() {
        for host in ["localhost", "LOCALHOST:9900", "127.0.0.1:9900", "10.1.2.3", "[::1]:9900", "[fe80::1]"] {
            assert_eq!(status(&[("host", host)]), 200, "{host}");
        }
        assert_eq!(status(&[("host", "Wssgate-Admin.example:9900")]), 200);
        for host in ["rebind.evil.test", "localhost.evil.test:9900", "127.0.0.1.evil.test", "", "localhost:x", "[::1"] {
            assert_eq!(status(&[("host", host)]), 403, "{host}");
        }
        assert_eq!(status(&[]), 403);
        assert_eq!(status(&[("host", "localhost"), ("host", "localhost")]), 403);
    }

    #[test]
    fn an_absolute_target_must_name_us_as_well() {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        let answer = |authority| admin().answer(&Method::GET, "/livez", Some(authority), &headers).status().as_u16();
        assert_eq!(answer("evil.test"), 403);
        assert_eq!(answer("localhost:9900"), 200);
    }

    #[test]
    fn a_page_of_another_origin_gets_nothing() {
        let host = ("host", "localhost:9900");
        assert_eq!(status(&[host, ("origin", "http://localhost:9900")]), 200);
        for origin in ["http://evil.test", "null", "http://localhost", "https://localhost:9900", ""] {
            assert_eq!(status(&[host, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(status(&[host, ("origin", "http://localhost:9900"), ("origin", "http://evil.test")]), 403);
        assert_eq!(status(&[host, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(status(&[host, ("sec-fetch-site", "same-site")]), 403);
        assert_eq!(status(&[host, ("sec-fetch-site", "none")]), 200);
    }

    #[test]
    fn readiness_is_what_was_set_and_liveness_is_not() {
        let admin = admin();
        let host = [("host", "localhost")];
        let code = |path| ask(&admin, Method::GET, path, &host).status().as_u16();
        assert_eq!((code("/readyz"), code("/livez")), (503, 200));
        admin.set_ready(true);
        assert_eq!((code("/readyz"), code("/livez")), (200, 200));
        admin.set_ready(false);
        assert_eq!((code("/readyz"), code("/livez")), (503, 200));
    }

    #[test]
    fn every_answer_has_the_secure_headers_and_other_methods_are_refused() {
        let host = [("host", "localhost")];
        for (method, path, expected) in [
            (Method::GET, "/metrics", 200),
            (Method::HEAD, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/metrics/", 404),
        ] {
            let answer = ask(&admin(), method, path, &host);
            assert_eq!(answer.status().as_u16(), expected, "{path}");
            for name in ["content-security-policy", "x-content-type-options", "x-frame-options", "cache-control"] {
                assert!(answer.headers().contains_key(name), "{name} of {path}");
            }
            assert_eq!(answer.headers().contains_key(header::ALLOW), expected == 405);
        }
    }

    #[tokio::test]
    async fn half_requests_of_any_number_keep_no_probe_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Admin::new(Metrics::new(), &[]))));
        let mut halves = Vec::new();
        for _ in 0..4 * CONNECTIONS {
            let mut half = TcpStream::connect(address).await.unwrap();
            half.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
            halves.push(half);
        }
        // Of the same address as all of them.
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), probe.read_to_string(&mut text)).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
        // The oldest went, without an answer.
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), halves[0].read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty());
        server.abort();
    }

    #[tokio::test]
    async fn metrics_are_served_over_a_socket_and_a_second_request_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new();
        metrics.refused(Reason::BadHost, None);
        let server = tokio::spawn(serve(listener, Arc::new(Admin::new(metrics, &[]))));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1, "{text}");
        assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(text.contains(r#"{route="none",outcome="refused",reason="bad_host"} 1"#));
        assert!(text.ends_with("# EOF\n"));
        server.abort();
    }
}
