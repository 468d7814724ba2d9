//! TLS handshakes take turns: on each worker one at a time does its arithmetic, and between two of them whatever else is
//! ready goes first. So a flood of handshakes delays live connections by one handshake at a time, not by the flood.
//! Addresses take turns as well: however many handshakes one of them has begun, another address waits for one of them.
//!
//! Nothing is held while a client is waited for: who stalls takes nobody's turn. Who waits for a first turn has a place
//! in a line of bounded length, of which one address has half; beyond it a ClientHello is not answered. The line is no
//! longer than what a worker does within the time-out of TLS, so that no handshake is done for a client that has gone.
//! Knows addresses and numbers, nothing of TLS.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::policy::network::limit_key;
use crate::reason::Reason;

/// Clients of one worker that may wait for their first turn, about a second's work.
const LINE: usize = 2048;
/// Those of them that may be of one address (IPv6: one /64).
const OF_ADDRESS: usize = LINE / 2;

thread_local! {
    static TURNS: RefCell<Turns> = RefCell::default();
    static WAITING: RefCell<Line> = RefCell::default();
}

/// Whose turn it is on this worker, and whose it will be.
#[derive(Debug, Default)]
struct Turns {
    taken: bool,
    /// The addresses that wait, in the order in which they come.
    order: VecDeque<IpAddr>,
    /// What each of them waits with: first what is begun, then in the order of asking. Who has gone is passed over when it
    /// would be his turn.
    waiting: HashMap<IpAddr, VecDeque<oneshot::Sender<Turn>>>,
}

impl Turns {
    /// Asks for a turn. Were what is begun to wait behind everything that is not, a long line would end no handshake in time,
    /// and have paid for each.
    fn ask(&mut self, address: IpAddr, begun: bool) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let own = self.waiting.entry(address).or_default();
        if own.is_empty() {
            self.order.push_back(address);
        }
        if begun {
            own.push_front(sender)
        } else {
            own.push_back(sender)
        }
        receiver
    }

    /// Whoever is next, if anybody waits.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let address = self.order.pop_front()?;
        let own = self.waiting.get_mut(&address)?;
        let next = own.pop_front();
        if own.is_empty() {
            self.waiting.remove(&address);
            if self.waiting.is_empty() {
                // After a flood the memory goes back.
                self.waiting.shrink_to_fit();
                self.order.shrink_to_fit();
            }
        } else {
            self.order.push_back(address);
        }
        next
    }
}

/// Who waits on this worker.
#[derive(Debug, Default)]
struct Line {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Line {
    fn enter(&mut self, address: IpAddr) -> Result<(), Reason> {
        let own = self.by_address.get(&address).copied().unwrap_or(0);
        if self.all >= LINE || own >= OF_ADDRESS {
            return Err(Reason::TlsQueueFull);
        }
        self.all += 1;
        self.by_address.insert(address, own + 1);
        Ok(())
    }

    fn leave(&mut self, address: IpAddr) {
        self.all -= 1;
        match self.by_address.get_mut(&address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(self.by_address.remove(&address)),
        }
        if self.all == 0 {
            // After a flood the line gives its memory back.
            self.by_address.shrink_to_fit();
        }
    }
}

/// A place in the line of this worker; dropping gives it back.
#[derive(Debug)]
pub(crate) struct Place(IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.with_borrow_mut(|line| line.leave(self.0));
    }
}

/// The right to do a step of a handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Whether it goes to whoever is next.
    passes_on: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.passes_on {
            return;
        }
        loop {
            let next = TURNS.with_borrow_mut(|turns| {
                let next = turns.next();
                turns.taken = next.is_some();
                next
            });
            let Some(next) = next else { return };
            match next.send(Self { passes_on: true }) {
                Ok(()) => return,
                // Has gone: the turn comes back, and the next one gets it.
                Err(mut back) => back.passes_on = false,
            }
        }
    }
}

/// A place for a client that has said all of its ClientHello.
///
/// # Errors
/// [`Reason::TlsQueueFull`]: too many wait, of everybody or of its address.
pub(crate) fn enter(address: IpAddr) -> Result<Place, Reason> {
    let address = limit_key(address);
    WAITING.with_borrow_mut(|line| line.enter(address))?;
    Ok(Place(address))
}

impl Place {
    /// Whose it is, as limits see it.
    pub(crate) fn address(&self) -> IpAddr {
        self.0
    }

    /// Waits for the first turn; then the place is free.
    pub(crate) async fn turn(self) -> Turn {
        turn(self.0).await
    }
}

/// Waits for the first turn of a handshake.
async fn turn(address: IpAddr) -> Turn {
    take(address, false).await
}

/// Waits for the next turn of a handshake that has had one.
pub(crate) async fn again(address: IpAddr) -> Turn {
    take(address, true).await
}

/// Waits for a turn: addresses in turn, and those of one address in the order of asking, but what is begun first. What is
/// ready besides goes before.
async fn take(address: IpAddr, begun: bool) -> Turn {
    let asked = TURNS.with_borrow_mut(|turns| {
        if std::mem::replace(&mut turns.taken, true) {
            Err(turns.ask(address, begun))
        } else {
            Ok(Turn { passes_on: true })
        }
    });
    let turn = match asked {
        Ok(turn) => turn,
        // The sender is kept until it has sent.
        Err(receiver) => receiver.await.unwrap_or(Turn { passes_on: false }),
    };
    yield_now().await;
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_half_of_the_line_and_all_together_the_whole() {
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut places: Vec<Place> = (0..OF_ADDRESS).map(|_| enter(one).unwrap()).collect();
        assert_eq!(enter(one).unwrap_err(), Reason::TlsQueueFull);
        places.extend((0..LINE - OF_ADDRESS).map(|_| enter(other).unwrap()));
        assert_eq!(enter(address("192.0.2.3")).unwrap_err(), Reason::TlsQueueFull);
        places.pop();
        assert!(enter(address("192.0.2.3")).is_ok());
        drop(places);
        WAITING.with_borrow(|line| assert!(line.all == 0 && line.by_address.is_empty(), "{line:?}"));
    }

    #[test]
    fn an_ipv6_64_is_one_address() {
        let places: Vec<Place> =
            (0..OF_ADDRESS).map(|n| enter(address(&format!("2001:db8::{n:x}"))).unwrap()).collect();
        assert!(enter(address("2001:db8::ffff:1")).is_err() && enter(address("2001:db8:0:1::1")).is_ok());
        drop(places);
    }

    #[tokio::test]
    async fn everything_else_that_is_ready_goes_between_two_turns() {
        use std::cell::Cell;
        use std::rc::Rc;
        let local = tokio::task::LocalSet::new();
        let (turns, between) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        // A live connection that is always ready sees one step between two of its polls, two where one ends and the next
        // begins, and never the crowd.
        let (seen, counted) = (Rc::clone(&turns), Rc::clone(&between));
        local.spawn_local(async move {
            while seen.get() < 20 {
                let before = seen.get();
                yield_now().await;
                counted.set(counted.get().max(seen.get() - before));
            }
        });
        for _ in 0..20 {
            let turns = Rc::clone(&turns);
            local.spawn_local(async move {
                let _turn = turn(address("192.0.2.1")).await;
                turns.set(turns.get() + 1);
            });
        }
        local.await;
        assert!(turns.get() == 20 && (1..=2).contains(&between.get()), "{} between two polls", between.get());
    }

    /// Who got a turn, in order: each task asks once, for its address.
    async fn served(asking: &[&'static str], gone: &[usize]) -> Vec<&'static str> {
        use std::rc::Rc;
        let local = tokio::task::LocalSet::new();
        let served = Rc::new(RefCell::new(Vec::new()));
        local
            .run_until(async {
                let first = turn(address("198.51.100.1")).await;
                let tasks: Vec<_> = asking
                    .iter()
                    .copied()
                    .map(|asker| {
                        let served = Rc::clone(&served);
                        tokio::task::spawn_local(async move {
                            let _turn = turn(address(asker)).await;
                            served.borrow_mut().push(asker);
                        })
                    })
                    .collect();
                yield_now().await;
                for at in gone {
                    tasks[*at].abort();
                }
                yield_now().await;
                drop(first);
                for task in tasks {
                    let _gone = task.await;
                }
            })
            .await;
        TURNS.with_borrow(|turns| {
            assert!(!turns.taken && turns.order.is_empty() && turns.waiting.is_empty(), "{turns:?}");
        });
        served.take()
    }

    #[tokio::test]
    async fn one_address_with_many_is_as_one_with_one() {
        let (many, one, other) = ("192.0.2.1", "192.0.2.2", "192.0.2.3");
        let order = served(&[many, many, many, many, one, other, one], &[]).await;
        assert_eq!(order, [many, one, other, many, one, many, many]);
    }

    #[tokio::test]
    async fn what_is_begun_goes_before_what_is_not() {
        let address = address("192.0.2.1");
        let held = turn(address).await;
        let served = RefCell::new(Vec::new());
        let ask = async |name: &'static str, begun: bool| {
            let _turn = take(address, begun).await;
            served.borrow_mut().push(name);
        };
        let release = async { drop(held) };
        tokio::join!(ask("first", false), ask("other", false), ask("begun", true), release);
        assert_eq!(served.into_inner(), ["begun", "first", "other"]);
    }

    #[tokio::test]
    async fn who_has_gone_is_passed_over() {
        let (many, one) = ("192.0.2.1", "192.0.2.2");
        assert_eq!(served(&[many, many, one, many], &[0, 2]).await, [many, many]);
        assert_eq!(served(&[many, one], &[0, 1]).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_any_more_goes_to_the_next() {
        let first = turn(address("192.0.2.1")).await;
        let mut left = Box::pin(turn(address("192.0.2.1")));
        let mut waits = Box::pin(turn(address("192.0.2.2")));
        for asks in [&mut left, &mut waits] {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(asks.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        // It has been given the turn, and leaves before it takes it.
        drop(first);
        drop(left);
        tokio::time::timeout(std::time::Duration::from_secs(5), waits).await.unwrap();
    }
}
