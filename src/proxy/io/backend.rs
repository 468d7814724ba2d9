//! The backend's side of a connection: TCP, or TLS over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::proxy::io::buffers::{BACKEND_READ, Buffers};
use crate::proxy::io::{Fill, Peer};

/// The bytes to and from a backend.
pub(crate) enum BackendIo {
    /// `kubernetes.io/ws`, or a Service without appProtocol.
    Plain(TcpStream),
    /// `kubernetes.io/wss`.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for BackendIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for BackendIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// A backend with what it has not taken yet. Never more than one wake-up's bytes: while any wait, nothing is read
/// from the client.
pub(crate) struct BackendPeer {
    io: BackendIo,
    unsent: Vec<u8>,
    sent: usize,
}

impl BackendPeer {
    /// A backend that has switched protocols.
    pub(crate) fn new(io: BackendIo) -> Self {
        Self { io, unsent: Vec::new(), sent: 0 }
    }

    fn poll_write_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Peer for BackendPeer {
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers, at: usize) -> Poll<io::Result<Fill>> {
        let mut buf = ReadBuf::new(&mut buffers.plain[at..at + BACKEND_READ]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(match buf.filled().len() {
            0 => Fill::End,
            n => Fill::Bytes(n),
        }))
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
        _sealed: &mut [u8],
        more: bool,
    ) -> Poll<io::Result<()>> {
        while !more && self.unsent.is_empty() && !bytes.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => bytes = &bytes[n..],
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(bytes);
        if more { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    /// A backend that takes nothing any more leaves nothing unsent: what comes after it would be kept behind it, without
    /// end.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = ready!(self.poll_write_unsent(cx));
        self.unsent = Vec::new();
        self.sent = 0;
        written?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn unsent(&self) -> usize {
        self.unsent.len() - self.sent
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, notify: &mut bool) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        *notify = false;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<()> {
        loop {
            match ready!(self.poll_fill(cx, buffers, 0)) {
                Ok(Fill::Bytes(_)) => {}
                Ok(Fill::End) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn nothing_is_kept_for_a_backend_that_has_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let mut side = BackendPeer::new(BackendIo::Plain(near));
        let batch = vec![0; 1 << 16];
        let mut send = async || poll_fn(|cx| Poll::Ready(side.poll_send(cx, &batch, &mut [], false))).await;
        // Until the far end takes no more; it goes with bytes unread, which is a reset.
        while send().await.is_ready() {}
        drop(far);
        tokio::time::timeout(std::time::Duration::from_secs(5), async {
            while send().await.is_pending() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a reset is an error of the next write");
        for _ in 0..10 {
            assert!(matches!(send().await, Poll::Ready(Err(_))));
        }
        assert!(side.unsent.is_empty());
    }
}
