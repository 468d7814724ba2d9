//! The ClientHello, read before anything is answered: its name chooses the host's own configuration.

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::reason::Reason;

/// The most bytes of a ClientHello that are kept while it is not whole.
pub(crate) const MAX_HELLO: usize = 64 * 1024;
/// A fatal `unrecognized_name` alert (RFC 6066 §3) in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Reads the ClientHello: the bytes as received and the server name, lower case. Nothing is answered yet, but for the
/// alert if it is no ClientHello.
pub(crate) async fn read(tcp: &mut TcpStream) -> Result<(Vec<u8>, Option<String>), Reason> {
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    loop {
        let start = hello.len();
        hello.resize((start + 4096).min(MAX_HELLO), 0);
        let n = tcp.read(&mut hello[start..]).await.map_err(|_| Reason::TlsFailed)?;
        hello.truncate(start + n);
        if n == 0 {
            return Err(Reason::TlsFailed);
        }
        let mut fresh = &hello[start..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh).map_err(|_| Reason::TlsFailed)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    // RFC 6066 §3: without a final dot; some clients leave it there.
                    let name = accepted
                        .client_hello()
                        .server_name()
                        .map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
                    return Ok((hello, name));
                }
                Ok(None) => {}
                Err((_, mut alert)) => {
                    let mut bytes = Vec::new();
                    if alert.write_all(&mut bytes).is_ok() {
                        let _ = tcp.write_all(&bytes).await;
                    }
                    return Err(Reason::TlsFailed);
                }
            }
        }
    }
}

/// Refuses a ClientHello whose name no route serves.
pub(crate) async fn refuse_name(tcp: &mut TcpStream) {
    let _ = tcp.write_all(&UNRECOGNIZED_NAME).await;
}
