//! A WebSocket backend that sends back what it gets, for trying the gateway out and for tests.
//!
//! Plain `ws`, any host and path. Knows nothing of the gateway: it is one more backend.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use crate::accept;

/// Connections at a time; more wait in the backlog.
const CONNECTIONS: usize = 50_000;
/// The largest message in bytes; a larger one ends its connection with 1009 or a reset.
const MESSAGE: usize = 16 << 20;
/// Time for the WebSocket handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until dropped; its connections end with it.
pub async fn serve(listener: TcpListener) {
    accept::bounded("echo", listener, CONNECTIONS, |stream| async move {
        let _ = stream.set_nodelay(true);
        // A peer that breaks the protocol or vanishes is its own affair.
        let handshake = accept_hdr_async_with_config(stream, choose_first, Some(config()));
        if let Ok(Ok(socket)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            let _ = echo(socket).await;
        }
    })
    .await;
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(64 * 1024)
        .max_write_buffer_size(2 * MESSAGE + 64 * 1024)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE))
}

/// Agrees to the first subprotocol that is offered (RFC 6455 §4.2.2).
#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn choose_first(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    let first = offered.and_then(|list| list.split(',').map(str::trim).find(|name| !name.is_empty()));
    if let Some(value) = first.and_then(|name| HeaderValue::from_str(name).ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(response)
}

/// Echoes data messages until the peer closes; pings and closes are answered by the library.
async fn echo(mut socket: WebSocketStream<TcpStream>) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        feed(&mut socket, message?).await?;
        // What has arrived already goes back in the same write.
        while let Some(Some(message)) = socket.next().now_or_never() {
            feed(&mut socket, message?).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn feed(socket: &mut WebSocketStream<TcpStream>, message: Message) -> Result<(), Error> {
    match message {
        Message::Text(_) | Message::Binary(_) => socket.feed(message).await,
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::client_async;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    async fn started() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), tokio::spawn(serve(listener)))
    }

    async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Result<Message, Error>> {
        tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_sent_comes_back_and_a_close_is_answered() {
        let (address, server) = started().await;
        let mut request = format!("ws://{address}/any").into_client_request().unwrap();
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("b, a"));
        let (mut socket, response) = client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
        assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "b");
        for size in [0, 1, 200_000] {
            socket.send(Message::binary(vec![7; size])).await.unwrap();
            assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::binary(vec![7; size]));
        }
        for text in ["one", "two", "three"] {
            socket.feed(Message::text(text)).await.unwrap();
        }
        socket.flush().await.unwrap();
        for text in ["one", "two", "three"] {
            assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::text(text));
        }
        let close = CloseFrame { code: CloseCode::Library(4001), reason: "enough".into() };
        socket.close(Some(close.clone())).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap().unwrap(), Message::Close(Some(close)));
        assert!(next(&mut socket).await.is_none_or(|end| end.is_err()));
        server.abort();
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_does_not_come_back() {
        let (address, server) = started().await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut socket, _) = client_async(format!("ws://{address}/"), stream).await.unwrap();
        let _ = socket.send(Message::binary(vec![0; MESSAGE + 1])).await;
        assert!(!matches!(next(&mut socket).await, Some(Ok(Message::Binary(_)))));
        server.abort();
    }
}
