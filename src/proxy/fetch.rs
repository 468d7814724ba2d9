//! Fetches a small document over https for the gateway itself. The address is checked after DNS, redirects are not
//! followed, size and time are bounded. Knows nothing of what it fetches.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::proxy::exchange::exchange;
use crate::snapshot::Live;

/// DNS, TCP, TLS, request and answer together.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
/// Fetches at a time; more wait within their limit of time.
const AT_A_TIME: usize = 16;
/// Addresses of a name that are tried.
const ADDRESSES: usize = 3;

/// Why a document was not fetched. The text holds nothing of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed(pub(crate) &'static str);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Fetches documents.
pub(crate) struct Fetcher {
    /// TLS toward https servers.
    trust: Arc<rustls::ClientConfig>,
    /// Knows which addresses are never dialled now.
    live: Arc<Live>,
    slots: Semaphore,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Fetcher {
    pub(crate) fn new(trust: Arc<rustls::ClientConfig>, live: Arc<Live>) -> Self {
        Self { trust, live, slots: Semaphore::new(AT_A_TIME) }
    }

    /// The body of a 200 to a GET, at most `size` bytes.
    pub(crate) async fn get(&self, uri: &str, size: usize) -> Result<Bytes, Failed> {
        let fetch = async {
            let _slot = self.slots.acquire().await.map_err(|_| Failed("the gateway is ending"))?;
            self.fetch(uri, size).await
        };
        timeout(LIMIT, fetch).await.unwrap_or(Err(Failed("no answer within 3s")))
    }

    async fn fetch(&self, uri: &str, size: usize) -> Result<Bytes, Failed> {
        let uri: Uri = uri.parse().map_err(|_| Failed("not a URI"))?;
        let (Some(authority), true) = (uri.authority(), uri.scheme() == Some(&Scheme::HTTPS)) else {
            return Err(Failed("not an https URI"));
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tcp = self.dial(&host, authority.port_u16().unwrap_or(443)).await?;
        let name = ServerName::try_from(host).map_err(|_| Failed("its host is no DNS name or address"))?;
        let tls = TlsConnector::from(Arc::clone(&self.trust)).connect(name, tcp).await;
        let tls = tls.map_err(|_| Failed("the TLS handshake failed: is its certificate trusted?"))?;
        let request = Request::get(uri.path_and_query().map_or("/", |target| target.as_str()))
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("wssgate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|_| Failed("not a URI that can be asked for"))?;
        let answer = exchange(http1::Builder::new(), tls, request, async |answer| {
            let answer = answer.map_err(|_| Failed("no valid HTTP answer"))?;
            if answer.status().is_redirection() {
                return Err(Failed("answered with a redirect, which is not followed"));
            }
            if answer.status() != StatusCode::OK {
                return Err(Failed("answered with a status other than 200"));
            }
            let body = Limited::new(answer.into_body(), size).collect().await;
            Ok(body.map_err(|_| Failed("the answer is too large or was cut off"))?.to_bytes())
        });
        answer.await.map_err(|_| Failed("not an HTTP server"))?
    }

    /// Connects to the first address that may be dialled and answers.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, Failed> {
        let found = lookup_host((host, port)).await.map_err(|_| Failed("its host cannot be resolved"))?;
        let snapshot = self.live.load();
        let may_dial = |address: &SocketAddr| !snapshot.fence.denies_host(address.ip());
        let allowed: Vec<SocketAddr> = found.filter(may_dial).take(ADDRESSES).collect();
        if allowed.is_empty() {
            return Err(Failed("its host has no address that the gateway may dial"));
        }
        for address in allowed {
            if let Ok(tcp) = TcpStream::connect(address).await {
                return Ok(tcp);
            }
        }
        Err(Failed("its host cannot be reached"))
    }
}
