//! What one peer of a live connection does, as stamps: when it was read, since when it does not read, since when a frame
//! of it is unfinished, which pings it owes an answer to. Knows ticks; no socket and no policy.

use std::cell::Cell;
use std::time::Duration;

use crate::proxy::clock::{TICKS, Tick};

/// The slowest pace of a frame or message that takes longer, in bytes a second.
const FRAME_PACE: u64 = 1024;
/// The slowest pace at which a peer takes bytes that wait for it, in bytes a second.
const READ_PACE: u64 = 1024;

/// One peer's signs of life.
#[derive(Debug)]
pub(crate) struct PeerActivity {
    /// When bytes of it arrived last.
    read: Cell<Tick>,
    /// Since when bytes for it wait, or since when it has taken them too slowly.
    blocked: Cell<Option<Tick>>,
    /// How many bytes waited then.
    left: Cell<usize>,
    /// Since when a frame or message of it is unfinished.
    begun: Cell<Option<Tick>>,
    /// Bytes of that frame or message so far.
    progress: Cell<u64>,
    /// Since when a rate keeps us from reading it.
    paused: Cell<Option<Tick>>,
    /// Ticks in which it was not read, of pauses that are over.
    stood: Cell<u32>,
    /// Our pings without an answer.
    pings: Cell<u32>,
    /// When the last of them was sent.
    pinged: Cell<Option<Tick>>,
    /// The other peer's ping was passed on and not answered yet: ours waits.
    forwarded: Cell<bool>,
    /// When our last ping went out that is not answered yet, in microseconds of a clock that wraps.
    ping_sent: Cell<Option<u32>>,
}

/// What the heartbeat asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// Nothing yet.
    Quiet,
    /// A ping.
    Ping,
    /// The peer answered none of the last pings.
    Missed,
}

impl PeerActivity {
    /// A peer that was read at `now`.
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            read: Cell::new(now),
            blocked: Cell::new(None),
            left: Cell::new(0),
            begun: Cell::new(None),
            progress: Cell::new(0),
            paused: Cell::new(None),
            stood: Cell::new(0),
            pings: Cell::new(0),
            pinged: Cell::new(None),
            forwarded: Cell::new(false),
            ping_sent: Cell::new(None),
        }
    }

    /// Bytes arrived: the peer lives.
    pub(crate) fn record_read(&self, now: Tick) {
        self.read.set(now);
        self.pings.set(0);
    }

    /// So many bytes wait for the peer from now on, or still do. One that has taken enough of those that waited begins anew:
    /// it reads, however much is left.
    pub(crate) fn record_blocked(&self, unsent: usize, now: Tick) {
        let keeps_up = |since: Tick| {
            let taken = self.left.get().saturating_sub(unsent) as u64;
            taken > 0 && taken * u64::from(TICKS) >= READ_PACE * u64::from(now.since(since))
        };
        if self.blocked.get().is_none_or(keeps_up) {
            self.blocked.set(Some(now));
            self.left.set(unsent);
        } else if unsent > self.left.get() {
            self.left.set(unsent);
        }
    }

    /// Nothing waits for the peer.
    pub(crate) fn record_flushed(&self) {
        self.blocked.set(None);
    }

    /// Whether bytes wait for the peer.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get().is_some()
    }

    /// Whether bytes have waited for the peer so long, of which it has not taken enough.
    pub(crate) fn is_blocked_for(&self, ticks: u32, now: Tick) -> bool {
        self.blocked.get().is_some_and(|since| now.since(since) >= ticks)
    }

    /// The peer sent so many bytes and all its frames and messages are whole.
    pub(crate) fn record_whole(&self) {
        self.begun.set(None);
    }

    /// The peer sent so many bytes, which end within a frame or message; `another`: one that began with them.
    pub(crate) fn record_part(&self, bytes: usize, another: bool, now: Tick) {
        if another || self.begun.get().is_none() {
            self.begun.set(Some(now));
            self.progress.set(0);
        } else {
            self.progress.set(self.progress.get() + bytes as u64);
        }
    }

    /// A ping of the other peer was passed on, and is answered or not yet.
    pub(crate) fn record_forwarded_ping(&self, unanswered: bool) {
        self.forwarded.set(unanswered);
    }

    /// Our ping went out, so long after the connection began.
    pub(crate) fn record_ping(&self, elapsed: Duration) {
        self.ping_sent.set(Some(elapsed.as_micros() as u32));
    }

    /// Our ping was answered, so long after the connection began: how long that took. `None`: none was out.
    pub(crate) fn record_pong(&self, elapsed: Duration) -> Option<Duration> {
        let took = (elapsed.as_micros() as u32).wrapping_sub(self.ping_sent.take()?);
        Some(Duration::from_micros(took.into()))
    }

    /// The peer was not read for a second: that is not time that it took.
    pub(crate) fn pause(&self, now: Tick) {
        if let Some(begun) = self.begun.get() {
            self.begun.set(Some(now.min(begun.after(TICKS))));
        }
    }

    /// A rate keeps us from reading the peer from now on.
    pub(crate) fn record_paused(&self, now: Tick) {
        if self.paused.get().is_none() {
            self.paused.set(Some(now));
        }
    }

    /// The peer is read again, if it was not.
    pub(crate) fn record_resumed(&self, now: Tick) {
        if let Some(since) = self.paused.take() {
            self.stood.set(self.stood.get() + now.since(since));
        }
    }

    /// Moves all clocks of the peer on by the time in which a rate kept us from reading it since this was asked last: how
    /// many ticks that is.
    pub(crate) fn stand_still(&self, now: Tick) -> u32 {
        let mut stood = self.stood.take();
        if let Some(since) = self.paused.get() {
            stood += now.since(since);
            self.paused.set(Some(now));
        }
        if stood > 0 {
            let later = |tick: Tick| now.min(tick.after(stood));
            self.read.set(later(self.read.get()));
            for stamp in [&self.blocked, &self.begun, &self.pinged] {
                stamp.set(stamp.get().map(later));
            }
        }
        stood
    }

    /// Whether we hold bytes because of the peer: it does not read, or what it sent may not go on yet.
    pub(crate) fn makes_us_hold(&self) -> bool {
        self.is_blocked() || self.paused.get().is_some()
    }

    /// Whether a frame or message of the peer takes longer than so many ticks, and those that its size gives it.
    pub(crate) fn is_too_slow(&self, ticks: u32, now: Tick) -> bool {
        let Some(since) = self.begun.get() else { return false };
        let allowed = u64::from(ticks) + self.progress.get() * u64::from(TICKS) / FRAME_PACE;
        u64::from(now.since(since)) > allowed
    }

    /// Judges the heartbeat, with an interval in ticks.
    pub(crate) fn heartbeat(&self, interval: u32, missed: u32, now: Tick) -> Heartbeat {
        let last = self.pinged.get().map_or(self.read.get(), |pinged| pinged.max(self.read.get()));
        if now.since(last) < interval {
            return Heartbeat::Quiet;
        }
        if self.pings.get() >= missed {
            return Heartbeat::Missed;
        }
        self.pings.set(self.pings.get() + 1);
        self.pinged.set(Some(now));
        if self.forwarded.get() { Heartbeat::Quiet } else { Heartbeat::Ping }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a minute.
    const LONG: u32 = 30 * TICKS;

    #[test]
    fn time_in_which_a_peer_is_not_read_is_not_its_slowness() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.record_part(1, true, Tick::FIRST);
        // A second of reading, then the other peer takes nothing for as long as it may.
        let mut now = Tick::FIRST;
        for second in 1..30 {
            now = Tick::at((1 + second) * TICKS);
            peer.pause(now);
        }
        assert!(!peer.is_too_slow(LONG, now.after(5 * TICKS)));
        assert!(peer.is_too_slow(LONG, now.after(35 * TICKS)));
    }

    #[test]
    fn no_clock_moves_while_a_rate_keeps_us_from_reading() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.record_part(1, true, Tick::FIRST);
        peer.record_blocked(9, Tick::FIRST);
        peer.record_paused(Tick::at(10));
        peer.record_paused(Tick::at(11));
        assert_eq!((peer.stand_still(Tick::at(500)), peer.stand_still(Tick::at(500))), (490, 0));
        peer.record_resumed(Tick::at(510));
        peer.record_resumed(Tick::at(511));
        peer.record_paused(Tick::at(515));
        // Two pauses, one of them over.
        assert_eq!(peer.stand_still(Tick::at(520)), 15);
        peer.record_resumed(Tick::at(520));
        let now = |own: u32| Tick::at(505 + own);
        assert!(peer.is_blocked_for(100, now(100)) && !peer.is_blocked_for(100, now(99)));
        assert!(peer.is_too_slow(LONG, now(LONG + 1)) && !peer.is_too_slow(LONG, now(LONG)));
        assert_eq!(peer.heartbeat(100, 2, now(99)), Heartbeat::Quiet);
        assert_eq!(peer.heartbeat(100, 2, now(100)), Heartbeat::Ping);
        // Nothing was begun or blocked that would begin by it.
        peer.record_whole();
        peer.record_flushed();
        peer.record_paused(now(100));
        assert_eq!(peer.stand_still(now(110)), 10);
        assert!(!peer.is_blocked() && !peer.is_too_slow(0, now(999)));
    }

    #[test]
    fn nothing_begun_stays_nothing_begun() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.pause(Tick::at(9));
        assert!(!peer.is_too_slow(LONG, Tick::at(1000)));
    }

    #[test]
    fn a_slow_message_has_half_a_minute_and_then_a_kilobyte_a_second() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.record_part(100, true, Tick::FIRST);
        assert!(!peer.is_too_slow(LONG, Tick::at(LONG)) && peer.is_too_slow(LONG, Tick::at(LONG + 1)));
        peer.record_part(10 * 1024, false, Tick::at(8));
        assert!(!peer.is_too_slow(LONG, Tick::at(LONG + 10 * TICKS)));
        assert!(peer.is_too_slow(LONG, Tick::at(LONG + 10 * TICKS + 1)));
        peer.record_whole();
        assert!(!peer.is_too_slow(LONG, Tick::at(9999)));
    }

    #[test]
    fn a_silent_peer_is_pinged_at_each_interval_and_then_given_up() {
        let peer = PeerActivity::new(Tick::FIRST);
        let at = |tick: u32| peer.heartbeat(10, 2, Tick::at(tick));
        assert_eq!(
            [at(9), at(10), at(19), at(20)],
            [Heartbeat::Quiet, Heartbeat::Ping, Heartbeat::Quiet, Heartbeat::Ping]
        );
        assert_eq!(at(30), Heartbeat::Missed);
        peer.record_read(Tick::at(31));
        assert_eq!([at(40), at(41)], [Heartbeat::Quiet, Heartbeat::Ping]);
    }

    #[test]
    fn our_ping_waits_while_one_of_the_other_peer_is_unanswered_but_counts() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.record_forwarded_ping(true);
        let at = |tick: u32| peer.heartbeat(10, 2, Tick::at(tick));
        assert_eq!([at(10), at(20), at(30)], [Heartbeat::Quiet, Heartbeat::Quiet, Heartbeat::Missed]);
        peer.record_read(Tick::at(31));
        peer.record_forwarded_ping(false);
        assert_eq!(at(41), Heartbeat::Ping);
    }

    #[test]
    fn the_answer_to_a_ping_is_timed_once_also_where_the_clock_wraps() {
        let peer = PeerActivity::new(Tick::FIRST);
        let wraps = Duration::from_micros(1 << 32);
        assert_eq!(peer.record_pong(wraps), None);
        peer.record_ping(wraps - Duration::from_millis(1));
        assert_eq!(peer.record_pong(wraps + Duration::from_millis(2)), Some(Duration::from_millis(3)));
        assert_eq!(peer.record_pong(wraps), None);
    }

    #[test]
    fn a_peer_is_blocked_from_the_first_byte_that_waits() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.record_blocked(9, Tick::at(1));
        peer.record_blocked(9, Tick::at(5));
        assert!(peer.is_blocked() && peer.is_blocked_for(5, Tick::at(6)) && !peer.is_blocked_for(5, Tick::at(5)));
        peer.record_flushed();
        assert!(!peer.is_blocked() && !peer.is_blocked_for(0, Tick::at(9)));
    }

    #[test]
    fn a_peer_that_takes_a_kilobyte_a_second_is_not_blocked_and_one_that_takes_less_is() {
        let blocked_after = |pace: usize, seconds: u32| {
            let peer = PeerActivity::new(Tick::FIRST);
            let mut left = 1 << 20;
            peer.record_blocked(left, Tick::FIRST);
            for second in 1..=seconds {
                // It makes room every four seconds only, as a kernel does.
                left -= if second % 4 == 0 { 4 * pace } else { 0 };
                peer.record_blocked(left, Tick::at(second * TICKS));
            }
            peer.is_blocked_for(LONG, Tick::at(seconds * TICKS))
        };
        assert!(!blocked_after(20_000, 48) && !blocked_after(1024, 400));
        assert!(blocked_after(1000, 30) && blocked_after(1, 30) && blocked_after(0, 30));
    }

    #[test]
    fn what_is_added_to_what_waits_is_no_progress_and_takes_none() {
        let peer = PeerActivity::new(Tick::FIRST);
        peer.record_blocked(1000, Tick::FIRST);
        peer.record_blocked(100_000, Tick::at(TICKS));
        assert!(peer.is_blocked_for(LONG, Tick::at(LONG)));
        peer.record_blocked(100_000 - 64 * 1024, Tick::at(LONG));
        assert!(!peer.is_blocked_for(LONG, Tick::at(LONG + LONG - 1)));
        // What it took at once does not last for ever.
        assert!(peer.is_blocked_for(LONG, Tick::at(LONG + LONG)));
    }
}
