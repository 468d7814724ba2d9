//! Asks a solver for the answer to an ACME challenge (RFC 8555 §8.3). The request is our own; of the client's only the
//! host and the path have a part in it, and those are the challenge's, byte for byte.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy::io::http::{bounded, exchange};
use crate::proxy::limits::permits::{Count, Permits};
use crate::snapshot::{BackendId, Snapshot};

/// How long a solver may take, from connecting to the last byte.
const TIME: Duration = Duration::from_secs(4);
/// The longest answer; a key authorization has less than 100 bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Requests to one solver at a time: one that hangs takes no one else's places.
const OF_SOLVER: u32 = 8;
/// Requests to all solvers at a time: a quarter of what the plain port answers.
const ALL: usize = 64;

/// Requests that wait for solvers.
#[derive(Debug, Default)]
pub(crate) struct Solvers {
    all: Arc<Count>,
    each: Arc<Permits<BackendId>>,
}

impl Solvers {
    /// The answer of a solver to the challenge at this host and path, or the status that stands in its place.
    pub(crate) async fn ask(
        self: &Rc<Self>,
        snapshot: &Snapshot,
        solver: &BackendId,
        host: &str,
        path: &str,
    ) -> Result<Bytes, StatusCode> {
        let permits = (self.all.acquire(ALL), self.each.acquire(solver.clone(), OF_SOLVER));
        let (Some(_all), Some(_own)) = permits else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
        let endpoint = snapshot.backends.get(solver).and_then(|backend| backend.endpoints.first());
        let Some(endpoint) = endpoint else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
        let exchange = async {
            let tcp = TcpStream::connect(endpoint).await.map_err(drop)?;
            ask(tcp, host, path).await
        };
        let answer = match timeout(TIME, exchange).await {
            Ok(Ok((StatusCode::OK, body))) => Ok(body),
            // The solver does not know the token, or no longer: that is its word on it.
            Ok(Ok((StatusCode::NOT_FOUND, _))) => Err(StatusCode::NOT_FOUND),
            Ok(_) => Err(StatusCode::BAD_GATEWAY),
            Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
        };
        let status = answer.as_ref().err().map_or(200, StatusCode::as_u16);
        tracing::debug!(host, %solver, %endpoint, status, "ACME challenge");
        answer
    }
}

/// One request, and its answer whole.
async fn ask(tcp: TcpStream, host: &str, path: &str) -> Result<(StatusCode, Bytes), ()> {
    let request = Request::get(path)
        .header(header::HOST, HeaderValue::from_str(host).map_err(drop)?)
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(Empty::<Bytes>::new())
        .map_err(drop)?;
    let answer = exchange(bounded(), tcp, request, async |answer| {
        let (parts, body) = answer.map_err(drop)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(drop)?;
        Ok((parts.status, body.to_bytes()))
    });
    answer.await.map_err(drop)?
}
