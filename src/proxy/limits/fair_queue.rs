//! TLS handshakes take turns: on each worker one at a time computes, and between two of them whatever else is ready goes
//! first. So a flood of handshakes delays live connections by one handshake at a time, not by the flood. Addresses take
//! turns as well: however many handshakes one of them has begun, another address waits for one of them.
//!
//! Nobody holds a permit while a client is waited for: a client that stalls delays nobody. A client that waits for its
//! first permit has a place in a queue of bounded length, whose places addresses share: when the queue is full, the
//! address with most loses its newest place to one with less, and a ClientHello without a place is not answered. The queue is no longer than what a worker does within the time-out of TLS, so that no handshake is done for
//! a client that has gone. Knows addresses and numbers, nothing of TLS.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::policy::network::limit_key;
use crate::proxy::limits::turns::Turns;
use crate::reason::Reason;
use crate::shares::{Loses, Share, Shares};

/// Clients of one worker that may wait for their first permit, about a second's work.
const QUEUE: usize = 2048;

/// The queue of one worker. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct FairQueue(Rc<State>);

#[derive(Debug)]
struct State {
    order: RefCell<Order>,
    /// Places of those that wait for their first permit, by address (IPv6: by /64).
    places: Arc<Shares<IpAddr, 1>>,
}

impl Default for FairQueue {
    fn default() -> Self {
        let places = Arc::new(Shares::new(QUEUE, Loses::Newest));
        Self(Rc::new(State { order: RefCell::default(), places }))
    }
}

/// Whether the permit is out, and who gets it next.
#[derive(Debug, Default)]
struct Order {
    taken: bool,
    /// What each address waits with: first what is begun, then in the order of asking. A waiter that has gone is passed
    /// over when it would be its turn.
    waiting: Turns<IpAddr, oneshot::Sender<Permit>>,
}

impl Order {
    /// Waits for the permit. What is begun goes first: were it to wait behind everything that is not, a long queue would
    /// complete no handshake in time, and have paid for each.
    fn wait(&mut self, address: IpAddr, begun: bool) -> oneshot::Receiver<Permit> {
        let (sender, receiver) = oneshot::channel();
        let own = self.waiting.count(&address);
        if own >= QUEUE && own.is_power_of_two() {
            // Places are lost faster than turns come: those who have gone are not kept until it would be theirs.
            self.waiting.remove(&address, |waiter| waiter.is_closed());
        }
        if begun {
            self.waiting.push_front(address, sender);
        } else {
            self.waiting.push_back(address, sender);
        }
        receiver
    }
}

/// A place in the queue, until it is dropped or has its first permit.
#[derive(Debug)]
pub(crate) struct Queued {
    queue: FairQueue,
    address: IpAddr,
    place: Share<IpAddr, 1>,
}

/// The right to compute a step of a handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// Where it goes back to; `None`: it is not passed on.
    queue: Option<FairQueue>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        loop {
            let next = {
                let mut turns = queue.0.order.borrow_mut();
                let next = turns.waiting.next();
                turns.taken = next.is_some();
                next
            };
            let Some(next) = next else { return };
            match next.send(Self { queue: Some(queue.clone()) }) {
                Ok(()) => return,
                // That waiter has gone: the permit comes back, and the next waiter gets it.
                Err(mut back) => back.queue = None,
            }
        }
    }
}

impl FairQueue {
    /// A place for a client whose ClientHello is whole.
    ///
    /// # Errors
    /// [`Reason::TlsQueueFull`]: too many wait, and no address has more of them than its part.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Queued, Reason> {
        let address = limit_key(address);
        let place = self.0.places.acquire(&[address]).ok_or(Reason::TlsQueueFull)?;
        Ok(Queued { queue: self.clone(), address, place })
    }

    /// Waits for the permit: addresses in turn, and those of one address in the order of asking, but what is begun
    /// first. Whatever else is ready goes before.
    async fn acquire(&self, address: IpAddr, begun: bool) -> Permit {
        let waiting = {
            let mut turns = self.0.order.borrow_mut();
            std::mem::replace(&mut turns.taken, true).then(|| turns.wait(address, begun))
        };
        let permit = match waiting {
            None => Permit { queue: Some(self.clone()) },
            // The sender is kept until it has sent.
            Some(receiver) => receiver.await.unwrap_or(Permit { queue: None }),
        };
        yield_now().await;
        permit
    }
}

impl Queued {
    /// Waits for the first permit of a handshake; then the place is free. What comes back queues again for the next.
    ///
    /// # Errors
    /// [`Reason::TlsQueueFull`]: the place was lost to an address with fewer.
    pub(crate) async fn first(self) -> Result<(Permit, Begun), Reason> {
        let Self { queue, address, mut place } = self;
        let permit = tokio::select! {
            biased;
            permit = queue.acquire(address, false) => permit,
            () = place.revoked() => return Err(Reason::TlsQueueFull),
        };
        Ok((permit, Begun { queue, address }))
    }
}

/// A handshake that had its first permit.
#[derive(Debug)]
pub(crate) struct Begun {
    queue: FairQueue,
    address: IpAddr,
}

impl Begun {
    /// Waits for another permit.
    pub(crate) async fn rejoin(&self) -> Permit {
        self.queue.acquire(self.address, true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_full_queue_takes_a_place_from_the_address_with_most() {
        let (many, few) = (address("2001:db8::1"), address("192.0.2.3"));
        let queue = FairQueue::default();
        let taken = queue.acquire(address("198.51.100.1"), false).await;
        let mut places: Vec<Queued> = (0..QUEUE).map(|_| queue.enter(many).unwrap()).collect();
        // Of the same /64.
        assert_eq!(queue.enter(address("2001:db8::ffff:1")).unwrap_err(), Reason::TlsQueueFull);
        let newcomer = queue.enter(few).unwrap();
        assert_eq!(places.pop().unwrap().first().await.unwrap_err(), Reason::TlsQueueFull);
        assert!(!places[0].place.is_revoked() && !newcomer.place.is_revoked());
        drop((places, newcomer, taken));
        assert_eq!(queue.0.places.held(), 0);
    }

    #[tokio::test]
    async fn addresses_that_ask_without_end_refuse_no_newcomer() {
        for attackers in [1, 3, 8] {
            let queue = FairQueue::default();
            let mut held = Vec::new();
            let attack = |held: &mut Vec<Queued>| {
                for number in 0..attackers {
                    held.extend((0..QUEUE).filter_map(|_| queue.enter(address(&format!("192.0.2.{number}"))).ok()));
                    held.retain(|queued| !queued.place.is_revoked());
                }
            };
            let mut newcomers = Vec::new();
            for number in 0..18 {
                attack(&mut held);
                newcomers.push(queue.enter(address(&format!("198.51.100.{number}"))).unwrap());
            }
            attack(&mut held);
            assert!(newcomers.iter().all(|newcomer| !newcomer.place.is_revoked()), "{attackers} attackers");
            assert_eq!(queue.0.places.held(), QUEUE);
        }
    }

    #[tokio::test]
    async fn everything_else_that_is_ready_goes_between_two_turns() {
        use std::cell::Cell;
        let queue = FairQueue::default();
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
            let (turns, queue) = (Rc::clone(&turns), queue.clone());
            local.spawn_local(async move {
                let _permit = queue.acquire(address("192.0.2.1"), false).await;
                turns.set(turns.get() + 1);
            });
        }
        local.await;
        assert!(turns.get() == 20 && (1..=2).contains(&between.get()), "{} between two polls", between.get());
    }

    /// Who got a turn, in order: each task asks once, for its address.
    async fn served(asking: &[&'static str], gone: &[usize]) -> Vec<&'static str> {
        let queue = FairQueue::default();
        let local = tokio::task::LocalSet::new();
        let served = Rc::new(RefCell::new(Vec::new()));
        local
            .run_until(async {
                let first = queue.acquire(address("198.51.100.1"), false).await;
                let tasks: Vec<_> = asking
                    .iter()
                    .copied()
                    .map(|asker| {
                        let (served, queue) = (Rc::clone(&served), queue.clone());
                        tokio::task::spawn_local(async move {
                            let _permit = queue.acquire(address(asker), false).await;
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
        let turns = queue.0.order.borrow();
        assert!(!turns.taken && turns.waiting.is_empty(), "{turns:?}");
        served.take()
    }

    #[tokio::test]
    async fn one_address_with_many_is_as_one_with_one() {
        let (many, one, other) = ("192.0.2.1", "192.0.2.2", "192.0.2.3");
        let order = served(&[many, many, many, many, one, other, one], &[]).await;
        assert_eq!(order, [many, one, other, many, one, many, many]);
    }

    #[tokio::test]
    async fn a_newcomer_waits_for_one_turn_of_each_address_that_asks_without_end() {
        const ATTACKERS: [&str; 8] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8"];
        let newcomer = "203.0.113.1";
        for attackers in [1, 3, 8] {
            // All ask before the first is served: tokio polls no more than 61 tasks at a time.
            let mut asking = ATTACKERS[..attackers].repeat(48 / attackers);
            asking.push(newcomer);
            let order = served(&asking, &[]).await;
            assert_eq!(order.iter().position(|address| *address == newcomer), Some(attackers), "{attackers} attackers");
            assert_eq!(order.len(), asking.len());
        }
    }

    #[tokio::test]
    async fn what_is_begun_goes_before_what_is_not() {
        let (queue, address) = (FairQueue::default(), address("192.0.2.1"));
        let held = queue.acquire(address, false).await;
        let served = RefCell::new(Vec::new());
        let ask = async |name: &'static str, begun: bool| {
            let _permit = queue.acquire(address, begun).await;
            served.borrow_mut().push(name);
        };
        let release = async { drop(held) };
        tokio::join!(ask("first", false), ask("other", false), ask("begun", true), release);
        assert_eq!(served.into_inner(), ["begun", "first", "other"]);
    }

    #[tokio::test]
    async fn a_waiter_that_has_gone_is_passed_over() {
        let (many, one) = ("192.0.2.1", "192.0.2.2");
        assert_eq!(served(&[many, many, one, many], &[0, 2]).await, [many, many]);
        assert_eq!(served(&[many, one], &[0, 1]).await, [""; 0]);
    }

    #[tokio::test]
    async fn a_permit_that_nobody_takes_any_more_goes_to_the_next() {
        let queue = FairQueue::default();
        let first = queue.acquire(address("192.0.2.1"), false).await;
        let mut left = Box::pin(queue.acquire(address("192.0.2.1"), false));
        let mut waits = Box::pin(queue.acquire(address("192.0.2.2"), false));
        for asks in [&mut left, &mut waits] {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(asks.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        // It has been given the permit, and leaves before it takes it.
        drop(first);
        drop(left);
        tokio::time::timeout(std::time::Duration::from_secs(5), waits).await.unwrap();
    }
}
