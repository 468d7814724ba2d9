//! The attacker's own process: each attack as fast as the load core lets it, bounded in what it holds and in time.
//!
//! It gets the gateway's certificate on standard input, and says on standard output how often it tried in a second.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::attack::{Attack, fixture};
use crate::client::{self, Dial, Message, Socket, Tally};
use crate::method::TICKETS;
use crate::tls::{Groups, HOST, OTHER_HOST, Source, client_config};

/// Where the attacker comes from, and the next addresses if it has several.
pub(crate) const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// What each address has under way at once where attempts have an end.
const AT_ONCE: usize = 64;
/// Connections that never read.
const UNREAD: usize = 60;
/// The most sockets that it takes, far beyond what the gateway of that row has.
const SOCKETS: usize = 1000;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long it waits between two connections once it holds all that it may.
const PACE: Duration = Duration::from_millis(2);

/// How an attack is made.
enum Way {
    /// So many addresses, each with so many attempts under way; the next follows at once.
    Attempts(u8, usize),
    /// So many addresses, each with so many connections that are held; the oldest goes for the next.
    Held(u8, usize),
    /// Connections that send and never read.
    Unread,
    /// All the sockets it gets.
    Sockets,
}

fn way(attack: Attack) -> Way {
    match attack {
        Attack::Crowd => Way::Attempts(8, AT_ONCE),
        // One handshake that comes back again and again is enough to take all sockets.
        Attack::Loop => Way::Attempts(1, 4),
        Attack::Three => Way::Held(3, 700),
        Attack::Eight => Way::Held(8, 300),
        Attack::Halves => Way::Held(2, 100),
        Attack::Plain => Way::Held(4, 150),
        Attack::Unread => Way::Unread,
        Attack::Sockets => Way::Sockets,
        _ => Way::Attempts(1, AT_ONCE),
    }
}

/// Attacks for so long; requests have these fields.
pub(crate) async fn run(attack: Attack, target: SocketAddr, time: Duration, fields: &str) -> Result<(), Failure> {
    let mut certificate = Vec::new();
    std::io::stdin().read_to_end(&mut certificate)?;
    let config = client_config(&CertificateDer::from(certificate), Groups::Classic, false, None)?;
    let mut dial = Dial { fields: fields.into(), ..Dial::new(target, config) };
    match attack {
        // Another key than the gateway's: the token is well-formed, and signed by nobody that it trusts.
        Attack::Guesses => dial.fields = fixture()?.fields.into(),
        Attack::Unread | Attack::Loop | Attack::Sockets | Attack::Refusals => dial.host = OTHER_HOST.into(),
        _ => {}
    }
    let first = match attack {
        Attack::Plain => Vec::new(),
        Attack::Halves => b"GET /livez HTTP/1.1\r\nHost: ".to_vec(),
        _ => {
            let mut hello = Vec::new();
            rustls::ClientConnection::new(dial.config.clone(), ServerName::try_from(HOST)?)?.write_tls(&mut hello)?;
            hello
        }
    };
    let (first, count) = (Rc::new(first), Rc::new(Cell::new(0u64)));
    let mut tasks = JoinSet::new();
    let at = |number: u8| {
        let [a, b, c, d] = ATTACKER.octets();
        // The kubelet asks from the node's own address, which is everybody's there.
        let address = if attack == Attack::Halves { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(a, b, c, d + number) };
        // A connection ends by RST, or the address is out of ports within seconds.
        Dial { source: Source { address: Some(address), reset: true, ..Source::default() }, ..dial.clone() }
    };
    match way(attack) {
        Way::Attempts(addresses, at_once) => {
            for number in (0..addresses).flat_map(|number| std::iter::repeat_n(number, at_once)) {
                let (dial, first, count) = (at(number), first.clone(), count.clone());
                tasks.spawn_local(async move {
                    loop {
                        // A gateway that cuts the attacker short does what it should: the next attempt follows at once.
                        let _refused = timeout(ATTEMPT, attempt(attack, &dial, &first)).await;
                        count.set(count.get() + 1);
                        tokio::task::yield_now().await;
                    }
                });
            }
        }
        Way::Held(addresses, most) => {
            for number in 0..addresses {
                let (dial, first, count) = (at(number), first.clone(), count.clone());
                tasks.spawn_local(async move { hold(&dial, &first, most, &count).await });
            }
        }
        Way::Unread => {
            for _ in 0..UNREAD {
                let (dial, count) = (at(0), count.clone());
                tasks.spawn_local(async move {
                    if let Ok(Ok(mut socket)) = timeout(ATTEMPT, Socket::open(&dial)).await {
                        count.set(count.get() + 1);
                        let _ended = socket.write_only(&Message::new(4096, 1), &Tally::default()).await;
                    }
                });
            }
        }
        Way::Sockets => {
            let (dial, count) = (at(0), count.clone());
            tasks.spawn_local(async move {
                let mut held = Vec::new();
                while let Ok(Ok(socket)) = timeout(ATTEMPT, Socket::open(&dial)).await {
                    count.set(count.get() + 1);
                    held.push(socket);
                    if held.len() == SOCKETS {
                        break;
                    }
                }
                // The rest it holds before TLS, and takes again what it loses.
                hold(&dial, &[], 60, &count).await;
            });
        }
    }
    sleep(time).await;
    println!("{:.0}", count.get() as f64 / time.as_secs_f64());
    Ok(())
}

async fn attempt(attack: Attack, dial: &Dial, hello: &[u8]) -> Result<(), Failure> {
    match attack {
        Attack::Hellos | Attack::Crowd => {
            let mut tcp = dial.source.connect(dial.address).await?;
            tcp.write_all(hello).await?;
            tcp.read_exact(&mut [0; 64]).await?;
        }
        Attack::Tickets => drop(client::ticket(dial, TICKETS).await?),
        _ => drop(client::ask(dial, &client::upgrade(dial), b"\r\n\r\n").await?),
    }
    Ok(())
}

/// Holds so many connections that sent `first`, without end.
async fn hold(dial: &Dial, first: &[u8], most: usize, count: &Cell<u64>) {
    let mut held = VecDeque::new();
    loop {
        if let Ok(Ok(mut tcp)) = timeout(ATTEMPT, dial.source.connect(dial.address)).await {
            // It may have been ended already.
            let _ended = tcp.write_all(first).await;
            held.push_back(tcp);
            count.set(count.get() + 1);
        } else {
            sleep(PACE).await;
        }
        if held.len() > most {
            held.pop_front();
            sleep(PACE).await;
        }
    }
}
