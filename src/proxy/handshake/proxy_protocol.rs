//! Reads the PROXY header of connections that have one, and not a byte more.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::policy::client::TrustedProxies;
use crate::reason::Reason;
use crate::ws::proxy_protocol::{self, ProxyHeader};

/// How long a proxy may take for its header, which it sends before anything else.
const TIME: Duration = Duration::from_secs(3);

/// The client behind `peer`: what its PROXY header says if it is a trusted proxy, else `peer` itself.
///
/// # Errors
/// [`Reason::ProxyHeaderInvalid`] or [`Reason::ProxyHeaderTimeout`]; where the client's bytes would begin is not known.
pub(crate) async fn read(
    proxies: &TrustedProxies,
    tcp: &mut TcpStream,
    peer: SocketAddr,
) -> Result<SocketAddr, Reason> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if !proxies.expects_header(peer.ip()) {
        return Ok(peer);
    }
    match timeout(TIME, header(tcp)).await {
        Ok(Ok(ProxyHeader::Client(client))) => Ok(client),
        Ok(Ok(ProxyHeader::Local)) => Ok(peer),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(Reason::ProxyHeaderTimeout),
    }
}

async fn header(tcp: &mut TcpStream) -> Result<ProxyHeader, Reason> {
    let mut bytes = Vec::with_capacity(64);
    loop {
        let wanted = proxy_protocol::wanted(&bytes).map_err(|_| Reason::ProxyHeaderInvalid)?;
        if wanted == 0 {
            let read = proxy_protocol::parse(&bytes).map_err(|_| Reason::ProxyHeaderInvalid)?;
            return read.map(|(header, _)| header).ok_or(Reason::ProxyHeaderInvalid);
        }
        let read = (&mut *tcp).take(wanted as u64).read_buf(&mut bytes).await;
        if !matches!(read, Ok(1..)) {
            return Err(Reason::ProxyHeaderInvalid);
        }
    }
}
