//! How many bytes the kernel keeps for one socket, client's and backend's alike. Without a bound of ours it lets one grow to
//! `tcp_wmem` and `tcp_rmem`, many MiB each, which no limit of the route counts.

use std::io;
use std::os::fd::AsFd;

use socket2::SockRef;

/// The bound on the kernel's buffers of one socket, by the bytes in flight that it leaves room for in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers(u32);

impl Default for SocketBuffers {
    /// 256 KiB: 20 Mbit/s over a round trip of 100 ms.
    fn default() -> Self {
        Self(256 * 1024)
    }
}

impl SocketBuffers {
    /// The least that can be asked for, in bytes: about a frame's worth of TLS records in each direction.
    pub const MIN: u32 = 32 * 1024;
    /// The most that can be asked for, in bytes.
    pub const MAX: u32 = 16 * 1024 * 1024;

    /// So many bytes in flight in each direction, brought within the least and the most.
    pub fn new(bytes: u64) -> Self {
        Self(u32::try_from(bytes).unwrap_or(Self::MAX).clamp(Self::MIN, Self::MAX))
    }

    /// What waits to be sent needs no more than its bytes and a quarter for the kernel's own records.
    fn send(self) -> u32 {
        self.0 + self.0 / 4
    }

    /// The kernel announces about half of what it may use for received bytes. It announces twice the bytes in flight, so that
    /// a sender goes on while as much waits to be read: with half of that, 16 messages of 64 KiB in flight cost a quarter more.
    fn receive(self) -> u32 {
        self.0 * 4
    }

    /// The most that one direction of a connection holds in the kernel, in bytes: received from one side, and not yet sent to
    /// the other.
    pub(crate) fn direction(self) -> u64 {
        u64::from(self.send()) + u64::from(self.receive())
    }

    /// Sets the bound on a socket, before it connects; or on a listener, from which accepted sockets have it. The kernel
    /// doubles what it is told (socket(7), `SO_SNDBUF`), and takes no more than `net.core.wmem_max` and `rmem_max`. It tunes
    /// a buffer that was set no more, so each is bounded from its beginning.
    ///
    /// # Errors
    /// The system does not know such an option.
    pub fn set(self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_send_buffer_size(self.send() as usize / 2)?;
        socket.set_recv_buffer_size(self.receive() as usize / 2)?;
        // To a peer whose window is shut the kernel takes no more than this.
        socket.set_tcp_notsent_lowat(self.0 / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// How many bytes go in until neither side takes more.
    fn filled(near: &mut TcpStream) -> usize {
        near.set_nonblocking(true).unwrap();
        let (chunk, mut sum) = ([7; 16 * 1024], 0);
        let mut refused = 0;
        while refused < 20 {
            match near.write(&chunk) {
                Ok(written) => {
                    sum += written;
                    refused = 0;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    refused += 1;
                }
            }
        }
        sum
    }

    #[test]
    fn an_accepted_socket_has_the_bound_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SocketBuffers::default().set(&listener).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut near, _) = listener.accept().unwrap();
        let socket = SockRef::from(&near);
        let sizes = (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap());
        assert!(sizes.0 <= 320 * 1024 && sizes.1 <= 1024 * 1024, "{sizes:?}");
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);
        // The other side's kernel takes what it likes; so this direction is judged by what is left of it here.
        let sum = filled(&mut client);
        assert!(sum > 0);
        let mut received = vec![0; 2 << 20];
        near.set_nonblocking(true).unwrap();
        let read = near.read(&mut received).unwrap();
        assert!((64 * 1024..=1024 * 1024).contains(&read), "{read} bytes were held");
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_a_bounded_number_of_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let small = SocketBuffers::new(64 * 1024);
        small.set(&listener).unwrap();
        let far = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        small.set(&far).unwrap();
        far.connect(&listener.local_addr().unwrap().into()).unwrap();
        let (mut near, _) = listener.accept().unwrap();
        let sum = filled(&mut near) as u64;
        assert!(sum > 64 * 1024 && sum <= small.direction(), "{sum} bytes");
    }

    #[test]
    fn a_bound_is_brought_within_the_least_and_the_most() {
        assert_eq!(SocketBuffers::new(1), SocketBuffers(SocketBuffers::MIN));
        assert_eq!(SocketBuffers::new(u64::MAX), SocketBuffers(SocketBuffers::MAX));
        assert_eq!(SocketBuffers::default().direction(), 1344 * 1024);
    }
}
