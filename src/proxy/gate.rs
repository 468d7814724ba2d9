//! TLS handshakes take turns: on each worker one at a time does its arithmetic, and between two of them whatever else is
//! ready goes first. So a flood of handshakes delays live connections by one handshake at a time, not by the flood.
//!
//! Nothing is held while a client is waited for: who stalls takes nobody's turn. Who waits for a first turn has a place
//! in a line of bounded length, of which one address has half; beyond it a ClientHello is not answered. The line is no
//! longer than what a worker does within the time-out of TLS, so that no handshake is done for a client that has gone.
//! Knows addresses and numbers, nothing of TLS.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

use crate::policy::network::limit_key;
use crate::reason::Reason;

/// Clients of one worker that may wait for their first turn, about a second's work.
const LINE: usize = 2048;
/// Those of them that may be of one address (IPv6: one /64).
const OF_ADDRESS: usize = LINE / 2;

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static WAITING: RefCell<Line> = RefCell::default();
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
            return Err(Reason::HandshakeLimit);
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
    _permit: Option<OwnedSemaphorePermit>,
}

/// A place for a client that has said all of its ClientHello.
///
/// # Errors
/// [`Reason::HandshakeLimit`]: too many wait, of everybody or of its address.
pub(crate) fn enter(address: IpAddr) -> Result<Place, Reason> {
    let address = limit_key(address);
    WAITING.with_borrow_mut(|line| line.enter(address))?;
    Ok(Place(address))
}

impl Place {
    /// Waits for the first turn; then the place is free.
    pub(crate) async fn turn(self) -> Turn {
        turn().await
    }
}

/// Waits for a turn, in the order of asking. What is ready besides goes first.
pub(crate) async fn turn() -> Turn {
    // The semaphore is never closed.
    let permit = TURN.with(Arc::clone).acquire_owned().await.ok();
    yield_now().await;
    Turn { _permit: permit }
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
        assert_eq!(enter(one).unwrap_err(), Reason::HandshakeLimit);
        places.extend((0..LINE - OF_ADDRESS).map(|_| enter(other).unwrap()));
        assert_eq!(enter(address("192.0.2.3")).unwrap_err(), Reason::HandshakeLimit);
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
                let _turn = turn().await;
                turns.set(turns.get() + 1);
            });
        }
        local.await;
        assert!(turns.get() == 20 && (1..=2).contains(&between.get()), "{} between two polls", between.get());
    }
}
