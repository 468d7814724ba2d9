//! BYTES: the two ends of a connection, the buffers that they share, and one HTTP exchange of the gateway's own. Knows
//! sockets and TLS; not what the bytes mean.

pub(crate) mod backend;
pub(crate) mod buffers;
pub(crate) mod client_hello;
pub(crate) mod client_tls;
pub(crate) mod http;
pub(crate) mod socket_buffers;

use std::io;
use std::task::{Context, Poll};

use buffers::Buffers;

/// What the relay asks of either end of a connection.
pub(crate) trait Peer {
    /// Reads what is there into `buffers.plain`, from `at` on.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers, at: usize) -> Poll<io::Result<Fill>>;

    /// Sends what the peer takes and keeps the rest. Ready: nothing is left. With `more` nothing is sent yet, because
    /// another send, a flush or the shutdown follows at once and goes into the same packet.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], sealed: &mut [u8], more: bool) -> Poll<io::Result<()>>;

    /// Sends what is left. Ready: nothing is.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// How many bytes are left that the peer's side of the kernel has not taken.
    fn unsent(&self) -> usize;

    /// Sends what is left and ends our direction: with close_notify if `notify` says so and there is TLS. `notify` is
    /// cleared when that was done.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>, notify: &mut bool) -> Poll<io::Result<()>>;

    /// Reads and forgets until the peer ends its direction, so that what was sent last is not lost to a reset.
    fn poll_drain(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Poll<()>;
}

/// What [`Peer::poll_fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// So many bytes.
    Bytes(usize),
    /// The peer sends no more.
    End,
}
