//! Fetches a small document over https for the gateway itself. The address is checked after DNS, redirects are not
//! followed, size and time are bounded, not how many fetch at once. Knows nothing of what it fetches.

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
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::proxy::io::http::exchange;
use crate::snapshot::live::Live;

/// DNS, TCP, TLS, request and answer together.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);
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
    /// Knows which addresses are blocked now.
    live: Arc<Live>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    pub(crate) fn new(trust: Arc<rustls::ClientConfig>, live: Arc<Live>) -> Self {
        Self { trust, live }
    }

    /// The body of a 200 to a GET, at most `size` bytes.
    pub(crate) async fn get(&self, uri: &str, size: usize) -> Result<Bytes, Failed> {
        timeout(LIMIT, self.fetch(uri, size)).await.unwrap_or(Err(Failed("no answer within 3s")))
    }

    async fn fetch(&self, uri: &str, size: usize) -> Result<Bytes, Failed> {
        let uri: Uri = uri.parse().map_err(|_| Failed("not a URI"))?;
        let (Some(authority), true) = (uri.authority(), uri.scheme() == Some(&Scheme::HTTPS)) else {
            return Err(Failed("not an https URI"));
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tcp = self.connect(&host, authority.port_u16().unwrap_or(443)).await?;
        let name = ServerName::try_from(host).map_err(|_| Failed("its host is no DNS name or address"))?;
        let tls = TlsConnector::from(Arc::clone(&self.trust)).connect(name, tcp).await;
        let tls = tls.map_err(|_| Failed("the TLS handshake failed: is its certificate trusted?"))?;
        let request = Request::get(uri.path_and_query().map_or("/", |target| target.as_str()))
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("wssgate/", env!("CARGO_PKG_VERSION")))
            .header("cdn-loop", &*self.live.load().hop)
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

    /// Connects to the first address that is not blocked and answers.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Failed> {
        let found = lookup_host((host, port)).await.map_err(|_| Failed("its host cannot be resolved"))?;
        let snapshot = self.live.load();
        let allowed_address = |address: &SocketAddr| !snapshot.blocked.blocks_host(address.ip());
        let allowed: Vec<SocketAddr> = found.filter(allowed_address).take(ADDRESSES).collect();
        if allowed.is_empty() {
            return Err(Failed("its host has no address that the gateway may connect to"));
        }
        for address in allowed {
            if let Ok(tcp) = TcpStream::connect(address).await {
                return Ok(tcp);
            }
        }
        Err(Failed("its host cannot be reached"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::policy::blocked_addresses::BlockedAddresses;
    use crate::snapshot::Snapshot;
    use tokio::net::TcpListener;

    fn fetcher(allow_loopback: bool, denied: &[&str]) -> Fetcher {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let addresses = denied.iter().map(|address| address.parse().unwrap()).collect();
        let live = Arc::new(Live::default());
        let blocked = BlockedAddresses { allow_loopback, addresses, ..BlockedAddresses::default() };
        live.publish(Snapshot { blocked, ..Snapshot::default() });
        Fetcher::new(Arc::new(tls), live)
    }

    /// One that connects to loopback addresses and trusts nobody.
    pub(in crate::proxy::auth) fn open() -> Fetcher {
        fetcher(true, &[])
    }

    async fn asked(listener: &TcpListener) -> bool {
        timeout(Duration::from_millis(1), listener.accept()).await.is_ok()
    }

    #[tokio::test]
    async fn the_address_that_a_name_leads_to_is_judged_before_it_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = |host: &str| format!("https://{host}:{}/jwks", listener.local_addr().unwrap().port());
        let blocked = Failed("its host has no address that the gateway may connect to");
        // In a cluster; and where an address is the API server's or our own.
        for fetcher in [fetcher(false, &[]), fetcher(true, &["127.0.0.1", "::1"])] {
            for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
                assert_eq!(fetcher.get(&uri(host), 1024).await, Err(blocked), "{host}");
            }
            // Other spellings of 127.0.0.1, which not every resolver takes for one.
            for host in ["2130706433", "0x7f.1", "127.1", "localhost."] {
                assert!(fetcher.get(&uri(host), 1024).await.is_err(), "{host}");
            }
        }
        assert!(!asked(&listener).await, "a connection was made");
        // The same name where it is allowed: what fails is TLS, with a listener that does not speak it.
        let fetcher = fetcher(true, &[]);
        let uri = uri("localhost");
        let (failed, _) = tokio::join!(fetcher.get(&uri, 1024), async { drop(listener.accept().await.unwrap()) });
        assert_eq!(failed, Err(Failed("the TLS handshake failed: is its certificate trusted?")));
    }

    #[tokio::test]
    async fn nothing_but_https_is_fetched() {
        for uri in ["http://127.0.0.1/", "file:///etc/passwd", "ftp://a.test/", "/jwks", "a.test", ""] {
            let failed = fetcher(true, &[]).get(uri, 1024).await.unwrap_err();
            assert!(["not an https URI", "not a URI"].contains(&failed.0), "{uri}: {failed}");
        }
    }
}
