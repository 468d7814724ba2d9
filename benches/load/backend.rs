//! The echo backend: plain TCP, one upgrade, then every frame back unmasked, streamed. It shares the load generator's
//! thread, so that both wake up together and cost as little as they can.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::Failure;
use crate::frames::{self, Parser, Piece};

const READ_SIZE: usize = 256 * 1024;

#[derive(Default)]
struct Scratch {
    input: Vec<u8>,
    output: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Listens on a free loopback port and serves until the runtime ends.
pub(crate) fn start() -> Result<SocketAddr, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(4096)?;
    let address = listener.local_addr()?;
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A connection's failure is the gateway's end of it; the client's side counts it.
            tokio::task::spawn_local(async move { serve(tcp).await.ok() });
        }
    });
    Ok(address)
}

async fn serve(mut tcp: TcpStream) -> Result<(), Failure> {
    tcp.set_nodelay(true)?;
    let early = upgrade(&mut tcp).await?;
    let mut echo = Echo { tcp, parser: Parser::default(), unsent: Vec::new(), sent: 0, closing: false };
    let mut unsent = Vec::new();
    echo.answer(&early, &mut unsent);
    echo.unsent = unsent;
    poll_fn(|cx| echo.poll(cx)).await?;
    echo.tcp.shutdown().await?;
    Ok(())
}

/// Reads the request, answers 101, and gives back what came after the head.
async fn upgrade(tcp: &mut TcpStream) -> Result<Vec<u8>, Failure> {
    let mut head = Vec::with_capacity(2048);
    let end = loop {
        if let Some(at) = head.windows(4).position(|end| end == b"\r\n\r\n") {
            break at + 4;
        }
        if head.len() > 16 * 1024 || tcp.read_buf(&mut head).await? == 0 {
            return Err("not an upgrade".into());
        }
    };
    let rest = head.split_off(end);
    let text = String::from_utf8_lossy(&head);
    let key = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .ok_or("an upgrade without a key")?;
    let accept = derive_accept_key(key.1.trim().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    tcp.write_all(answer.as_bytes()).await?;
    Ok(rest)
}

struct Echo {
    tcp: TcpStream,
    parser: Parser,
    unsent: Vec<u8>,
    sent: usize,
    closing: bool,
}

impl Echo {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            while self.sent < self.unsent.len() {
                self.sent += ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.unsent[self.sent..]))?;
            }
            self.sent = 0;
            self.unsent = Vec::new();
            if self.closing {
                return Poll::Ready(Ok(()));
            }
            let ended = SCRATCH.with_borrow_mut(|scratch| self.turn(cx, scratch));
            if ready!(ended)? {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// One read and its answer; true at the end.
    fn turn(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Result<bool, Failure>> {
        scratch.input.resize(READ_SIZE, 0);
        let mut buffer = ReadBuf::new(&mut scratch.input);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(true));
        }
        scratch.output.clear();
        self.answer(buffer.filled(), &mut scratch.output);
        let mut rest = scratch.output.as_slice();
        while !rest.is_empty() {
            match Pin::new(&mut self.tcp).poll_write(cx, rest) {
                Poll::Ready(wrote) => rest = &rest[wrote?..],
                Poll::Pending => break,
            }
        }
        self.unsent.extend_from_slice(rest);
        Poll::Ready(Ok(false))
    }

    /// Appends what `input` asks to be answered; after a Close nothing more.
    fn answer(&mut self, input: &[u8], output: &mut Vec<u8>) {
        let closing = &mut self.closing;
        self.parser.feed(input, |piece| match piece {
            _ if *closing => {}
            Piece::Begin { opcode: frames::PONG, .. } | Piece::Payload { opcode: frames::PONG, .. } => {}
            Piece::Begin { fin, opcode, length } => {
                let at = output.len();
                let answer = if opcode == frames::PING { frames::PONG } else { opcode };
                frames::write_header(output, answer, length as usize, None);
                if !fin {
                    output[at] &= 0x7F;
                }
            }
            Piece::Payload { offset, mask, bytes, .. } => frames::write_xored(output, bytes, offset, mask),
            Piece::End { opcode } => *closing = opcode == frames::CLOSE,
        });
    }
}
