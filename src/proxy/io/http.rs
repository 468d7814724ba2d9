//! One request of our own and its answer, over a connection that is made for it and ends with it. What is asked, and what
//! counts as an answer, is the caller's to say; so is the time.

use std::convert::Infallible;
use std::future::pending;

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The most bytes of a head, and fields in it, of an answer from within the cluster.
const HEAD: (usize, usize) = (16 * 1024, 64);

/// For servers within the cluster, whose heads are small.
pub(crate) fn bounded() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD.0).max_headers(HEAD.1);
    builder
}

/// Asks, and reads the answer while the connection is driven.
///
/// # Errors
/// The connection cannot be begun. Whether there is an answer, `read` sees.
pub(crate) async fn exchange<T>(
    builder: http1::Builder,
    io: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
    read: impl AsyncFnOnce(hyper::Result<Response<Incoming>>) -> T,
) -> hyper::Result<T> {
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    let answer = async { read(sender.send_request(request).await).await };
    // A connection that is over may have left its last bytes to be read.
    let drive = async {
        let _ = connection.await;
        pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        never = drive => match never {},
    }
}
