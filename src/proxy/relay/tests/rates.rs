//! Rates of messages and bytes: what passes at the border, what happens to the one too many, and which clocks stand while
//! a peer is not read.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fake, Fixture, NONCE, Options, code, down, unfinished, up};
use crate::policy::message_rate::{ByteRate, MessageRate, OnExceeded, Pacing, Scope};
use crate::policy::{Policy, Rate};
use crate::proxy::limits::borrowed::Answer;
use crate::proxy::limits::subject_rate::{SubjectRate, SubjectRates};
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::telemetry::initiator::Initiator;
use crate::ws::frame::Opcode::{self, Binary, Close, Continuation, Ping, Pong, Text};
use crate::ws::message::Limits;

const SECOND: Duration = Duration::from_secs(1);

/// Messages: one a second, so many at once.
fn messages(burst: u32, on_exceeded: OnExceeded) -> Pacing {
    let rate = Rate { count: 1, interval: SECOND, burst };
    Pacing { messages: Some(MessageRate { rate, scope: Scope::Connection, on_exceeded }), ..Pacing::default() }
}

/// Bytes: ten a second, so many at once.
fn bytes(burst: u64, on_exceeded: OnExceeded) -> Pacing {
    Pacing { bytes: Some(ByteRate { size: 10, interval: SECOND, burst, on_exceeded }), ..Pacing::default() }
}

/// A direction: who sends, who receives, and how frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Backend,
}

impl From {
    const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    fn fixture(self, pacing: Pacing) -> Fixture {
        Fixture::with(self.paced(pacing, Options::default()))
    }

    fn paced(self, pacing: Pacing, options: Options) -> Options {
        match self {
            Self::Client => Options { client_pacing: pacing, ..options },
            Self::Backend => Options { backend_pacing: pacing, ..options },
        }
    }

    fn frame(self, opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
        match self {
            Self::Client => up(opcode, payload),
            Self::Backend => down(opcode, payload),
        }
    }

    /// The sender, then the receiver.
    fn peers(self, fixture: &Fixture) -> (Fake, Fake) {
        let (client, backend) = (fixture.client.clone(), fixture.backend.clone());
        match self {
            Self::Client => (client, backend),
            Self::Backend => (backend, client),
        }
    }

    fn reason(self, messages: bool) -> Reason {
        match (self, messages) {
            (Self::Client, true) => Reason::MessageRateExceeded,
            (Self::Client, false) => Reason::ByteRateExceeded,
            (Self::Backend, true) => Reason::BackendMessageRateExceeded,
            (Self::Backend, false) => Reason::BackendByteRateExceeded,
        }
    }

    fn code(self) -> u16 {
        match self {
            Self::Client => 1008,
            Self::Backend => 1011,
        }
    }
}

fn texts(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|n| format!("text {n}")).collect()
}

#[track_caller]
fn counted(fixture: &Fixture, metric: &str, reason: Reason, count: u32) {
    let (label, text) = (reason.label(), fixture.all.encode());
    let line = format!("wssgate_{metric}_total{{route=\"shop/chat\",reason=\"{label}\"}} {count}\n");
    assert!(text.contains(&line), "{line} is not in\n{text}");
}

// F20: the border of a burst.

#[test]
fn exactly_the_burst_of_messages_passes_and_nothing_of_one_more() {
    for from in From::BOTH {
        for at_once in [true, false] {
            let mut fixture = from.fixture(messages(3, OnExceeded::Close));
            let (sender, receiver) = from.peers(&fixture);
            let sent = (1..=4).map(|n| from.frame(Text, n.to_string()));
            if at_once {
                sender.sends(sent.collect::<Vec<_>>().concat());
            } else {
                sent.for_each(|frame| sender.sends(frame));
            }
            fixture.poll();
            assert_eq!(fixture.ending(), Some((from.reason(true), Some(from.code()), Initiator::Gateway)));
            assert_eq!(receiver.frames()[..3], texts(1..=3), "{from:?}");
            assert!(receiver.frames()[3].starts_with("close"), "{from:?}: {:?}", receiver.frames());
            assert_eq!(fixture.client.frames().last().unwrap(), &format!("close {}", from.code()));
        }
    }
}

#[test]
fn exactly_the_burst_of_bytes_passes_and_not_one_more() {
    for from in From::BOTH {
        for (last, passes) in [(20, true), (21, false)] {
            let mut fixture = from.fixture(bytes(100, OnExceeded::Close));
            let (sender, receiver) = from.peers(&fixture);
            sender.sends([from.frame(Binary, [b'a'; 80]), from.frame(Binary, vec![b'b'; last])].concat());
            fixture.poll();
            let reason = (!passes).then_some((from.reason(false), Some(from.code()), Initiator::Gateway));
            assert_eq!(fixture.ending(), reason, "{from:?}");
            let got = receiver.frames().iter().filter(|frame| frame.starts_with("binary")).count();
            assert_eq!(got, if passes { 2 } else { 1 });
        }
    }
}

#[test]
fn time_gives_messages_and_bytes_back_at_the_pace_of_the_limit() {
    for pacing in [messages(2, OnExceeded::Close), bytes(20, OnExceeded::Close)] {
        let mut fixture = From::Client.fixture(pacing);
        let message = || up(Text, [b'a'; 10]);
        fixture.client.sends([message(), message()].concat());
        fixture.poll();
        for _ in 0..5 {
            fixture.pass(1);
            fixture.client.sends(message());
            fixture.poll();
            assert_eq!(fixture.ending(), None);
        }
        fixture.pass(9);
        fixture.client.sends([message(), message()].concat());
        fixture.poll();
        assert_eq!((fixture.ending(), fixture.backend.frames().len()), (None, 9));
        fixture.client.sends(message());
        fixture.poll();
        assert!(fixture.ending().is_some(), "a quiet time gives back no more than a burst");
    }
}

#[test]
fn a_rate_counts_messages_and_not_their_frames_and_control_frames_not_at_all() {
    for from in From::BOTH {
        let mut fixture = from.fixture(messages(2, OnExceeded::Close));
        let (sender, receiver) = from.peers(&fixture);
        let fragmented = [
            unfinished(from.frame(Text, "a")),
            unfinished(from.frame(Continuation, "")),
            from.frame(Ping, "?"),
            from.frame(Continuation, "b"),
        ];
        sender.sends([&fragmented[..], &[from.frame(Pong, "!"), from.frame(Text, "c")]].concat().concat());
        fixture.poll();
        assert_eq!(receiver.frames(), ["text+ a", "more+", "ping ?", "more b", "pong !", "text c"]);
        assert_eq!(fixture.ending(), None);
    }
}

#[test]
fn a_message_that_breaks_another_rule_is_refused_for_that() {
    let mut fixture = From::Client.fixture(messages(1, OnExceeded::Throttle));
    fixture.client.sends([up(Text, "a"), up(Text, [b'a'; 1001])].concat());
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::MessageTooBig));
}

// Drop.

#[test]
fn a_message_too_many_is_left_out_in_all_its_frames_and_counted() {
    for from in From::BOTH {
        for (by_messages, pacing) in [(true, messages(1, OnExceeded::Drop)), (false, bytes(2, OnExceeded::Drop))] {
            let mut fixture = from.fixture(pacing);
            let (sender, receiver) = from.peers(&fixture);
            sender.sends(from.frame(Text, "in"));
            sender.sends(unfinished(from.frame(Text, "o")));
            sender.sends([from.frame(Ping, "?"), from.frame(Continuation, "ut")[..3].to_vec()].concat());
            sender.sends(from.frame(Continuation, "ut")[3..].to_vec());
            sender.sends(from.frame(Binary, "out too"));
            fixture.poll();
            assert_eq!(receiver.frames(), ["text in", "ping ?"], "{from:?}");
            fixture.pass(1);
            sender.sends(from.frame(Text, "2"));
            fixture.poll();
            assert_eq!(receiver.frames(), ["text in", "ping ?", "text 2"]);
            assert_eq!(fixture.ending(), None);
            counted(&fixture, "messages_dropped", from.reason(by_messages), 2);
            let relay = fixture.relay.as_ref().unwrap();
            let (volume, traffic) = match from {
                From::Client => (relay.report.from_client, &fixture.metrics.from_client),
                From::Backend => (relay.report.from_backend, &fixture.metrics.from_backend),
            };
            assert_eq!((volume.messages, volume.bytes, volume.dropped, volume.throttled), (2, 3, 2, 0));
            assert_eq!((traffic.messages.get(), traffic.bytes.get()), (2, 3), "what is left out is not relayed");
        }
    }
}

#[test]
fn a_message_that_is_left_out_is_judged_like_any_other() {
    for (second, reason) in [
        (up(Continuation, b"\xff"), Reason::InvalidUtf8),
        (up(Continuation, [b'a'; 1000]), Reason::MessageTooBig),
        (up(Text, "another"), Reason::ProtocolError),
    ] {
        let mut fixture = From::Client.fixture(messages(1, OnExceeded::Drop));
        fixture.client.sends([up(Text, "1"), unfinished(up(Text, "2")), second].concat());
        fixture.poll();
        assert_eq!(fixture.ending().map(|ending| ending.0), Some(reason));
        assert_eq!(fixture.backend.frames(), ["text 1", "close 1001"]);
    }
}

#[test]
fn messages_that_are_left_out_stand_between_held_ones_without_a_trace() {
    let limits = Limits { hold_text: true, ..Options::default().from_client };
    let options = Options { from_client: limits, ..Options::default() };
    let mut fixture = Fixture::with(From::Client.paced(messages(2, OnExceeded::Drop), options));
    fixture.client.sends([up(Text, "1"), up(Binary, "2"), up(Text, "3")].concat());
    fixture.poll();
    assert_eq!((fixture.backend.frames(), fixture.held.get()), (vec!["text 1".into(), "binary 2".into()], 0));
}

#[test]
fn what_is_left_out_does_not_count_against_the_rate() {
    let mut fixture = From::Client.fixture(messages(1, OnExceeded::Drop));
    for _ in 0..40 {
        fixture.client.sends(up(Text, "x"));
        fixture.poll();
        fixture.tick(1);
    }
    // Ten seconds at one a second, however often it was tried.
    assert_eq!(fixture.backend.frames().len(), 10);
}

// Throttle.

#[test]
fn a_message_too_many_waits_for_its_time_and_nothing_is_read_meanwhile() {
    for from in From::BOTH {
        for (by_messages, pacing) in
            [(true, messages(2, OnExceeded::Throttle)), (false, bytes(20, OnExceeded::Throttle))]
        {
            let mut fixture = from.fixture(pacing);
            let (sender, receiver) = from.peers(&fixture);
            let message = |n: u32| from.frame(Text, format!("{n:010}"));
            sender.sends([message(1), message(2), message(3), message(4)].concat());
            sender.sends(message(5));
            fixture.poll();
            assert_eq!((receiver.frames().len(), sender.unread()), (2, 1), "{from:?}");
            fixture.tick(3);
            assert_eq!(receiver.frames().len(), 2);
            for (passed, unread) in [(3, 1), (4, 0), (5, 0)] {
                fixture.tick(if passed == 3 { 1 } else { 4 });
                assert_eq!((receiver.frames().len(), sender.unread()), (passed, unread), "{from:?}");
            }
            let expected: Vec<String> = (1..=5).map(|n| format!("text {n:010}")).collect();
            assert_eq!((receiver.frames(), fixture.ending()), (expected, None));
            counted(&fixture, "throttles", from.reason(by_messages), 3);
        }
    }
}

#[test]
fn a_large_message_is_read_at_the_pace_of_the_limit() {
    for from in From::BOTH {
        let mut fixture = from.fixture(bytes(100, OnExceeded::Throttle));
        let (sender, receiver) = from.peers(&fixture);
        let frame = from.frame(Binary, [b'a'; 600]);
        for piece in frame.chunks(150) {
            sender.sends(piece);
        }
        fixture.poll();
        // The whole burst was free, and what is owed beyond it is waited for before more is read.
        assert_eq!(sender.unread(), 4);
        let mut read = Vec::new();
        for _ in 0..60 {
            read.push(receiver.received().len());
            fixture.pass(1);
        }
        assert!(read.is_sorted() && *read.last().unwrap() == frame.len(), "{read:?}");
        for (second, read) in read.iter().enumerate() {
            assert!(*read <= 150 + 150 + second * 10 + 10, "{read} after {second} s");
        }
        assert_eq!((receiver.frames().len(), fixture.ending()), (1, None));
    }
}

#[test]
fn a_message_larger_than_the_burst_passes_when_all_is_free_and_is_paid_for() {
    let mut fixture = From::Client.fixture(bytes(10, OnExceeded::Throttle));
    fixture.client.sends([up(Text, [b'a'; 30]), up(Text, "x")].concat());
    fixture.poll();
    assert_eq!(fixture.backend.frames().len(), 1);
    fixture.pass(2);
    assert_eq!(fixture.backend.frames().len(), 1);
    fixture.pass(1);
    assert_eq!((fixture.backend.frames().len(), fixture.ending()), (2, None));
}

#[test]
fn a_sender_that_waits_does_not_keep_the_other_waiting() {
    for from in From::BOTH {
        let mut fixture = from.fixture(messages(1, OnExceeded::Throttle));
        let (sender, receiver) = from.peers(&fixture);
        sender.sends([from.frame(Text, "1"), from.frame(Text, "2")].concat());
        fixture.poll();
        let other = From::BOTH.into_iter().find(|other| *other != from).unwrap();
        receiver.sends([other.frame(Text, "free"), other.frame(Ping, "?")].concat());
        fixture.poll();
        assert_eq!(sender.frames(), ["text free", "ping ?"], "{from:?}");
        assert_eq!(receiver.frames(), ["text 1"]);
    }
}

#[test]
fn our_close_passes_a_throttle_and_the_answer_to_it_is_read() {
    for from in From::BOTH {
        let mut fixture = from.fixture(messages(1, OnExceeded::Throttle));
        let (sender, receiver) = from.peers(&fixture);
        sender.sends([from.frame(Text, "1"), from.frame(Text, "2")].concat());
        fixture.poll();
        fixture.end(Reason::Draining);
        assert_eq!(fixture.client.frames().last().unwrap(), "close 1001");
        assert_eq!(fixture.backend.frames().last().unwrap(), "close 1001");
        fixture.client.sends(up(Close, code(1001)));
        fixture.poll();
        assert_eq!(fixture.client.shut(), Some(true), "{from:?}: the client's answer was read");
        fixture.client.ends();
        assert!(fixture.poll());
        assert_eq!(receiver.frames().iter().filter(|frame| frame.starts_with("text")).count(), 1);
        drop(sender);
    }
}

#[test]
fn a_close_of_the_other_side_ends_a_throttle() {
    let mut fixture = From::Client.fixture(messages(1, OnExceeded::Throttle));
    fixture.client.sends([up(Text, "1"), up(Text, "2")].concat());
    fixture.poll();
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    fixture.client.sends(up(Close, code(1000)));
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["close 1000"]);
    assert!(fixture.client.shut().is_some(), "the answer was read at once");
}

#[test]
fn a_client_that_is_gone_is_noticed_when_it_is_read_again() {
    let mut fixture = From::Client.fixture(messages(1, OnExceeded::Throttle));
    fixture.client.sends([up(Text, "1"), up(Text, "2")].concat());
    fixture.client.ends();
    fixture.poll();
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    assert!(fixture.is_over());
    assert_eq!(fixture.backend.frames(), ["text 1", "text 2", "close 1001"]);
}

#[test]
fn while_memory_is_short_a_throttled_connection_must_go() {
    let mut fixture = From::Client.fixture(messages(1, OnExceeded::Throttle));
    fixture.client.sends([up(Text, "1"), up(Text, "2")].concat());
    fixture.poll();
    fixture.session.sweep(true, crate::proxy::clock::Tick::at(1), 0);
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::Overloaded));
}

// What resets which clock.

/// A client that is throttled for good: one message an hour.
fn throttled(mut options: Options) -> Fixture {
    let rate = Rate { count: 1, interval: Duration::from_secs(3600), burst: 1 };
    let messages = MessageRate { rate, scope: Scope::Connection, on_exceeded: OnExceeded::Throttle };
    options.client_pacing = Pacing { messages: Some(messages), ..options.client_pacing };
    let mut fixture = Fixture::with(options);
    fixture.client.sends([up(Text, "1"), up(Text, "2")].concat());
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text 1"]);
    fixture
}

#[test]
fn a_throttled_client_is_neither_pinged_nor_given_up_nor_idle() {
    let mut options = Options::heartbeat(5, 1, false);
    options.connection.idle_timeout = Some(Duration::from_secs(10));
    let mut fixture = throttled(options);
    fixture.pass(600);
    assert_eq!((fixture.ending(), fixture.client.frames()), (None, vec![]));
}

#[test]
fn a_throttled_client_need_not_read_and_its_clock_goes_on_when_it_is_read() {
    let mut fixture = throttled(Options::default());
    fixture.client.set(|wire| wire.room = 0);
    fixture.backend.sends(down(Text, "for the client"));
    fixture.poll();
    fixture.pass(600);
    assert_eq!(fixture.ending(), None);
    // The limit goes away: half a minute from now.
    unlimited(&mut fixture);
    fixture.pass(29);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::ClientStalled));
}

#[test]
fn a_throttled_client_does_not_stop_the_clocks_of_the_backend() {
    let mut fixture = throttled(Options::heartbeat(10, 1, true));
    fixture.backend.sends(down(Binary, [0; 900])[..100].to_vec());
    fixture.poll();
    fixture.pass(19);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::BackendHeartbeatMissed));
}

#[test]
fn a_message_is_not_late_because_of_a_throttle_in_its_middle() {
    let pacing = Pacing { message_timeout: Duration::from_secs(2), ..bytes(50, OnExceeded::Throttle) };
    let mut fixture = From::Client.fixture(pacing);
    let frame = up(Binary, [0; 900]);
    for piece in frame.chunks(100) {
        fixture.client.sends(piece);
    }
    fixture.poll();
    fixture.pass(84);
    assert_eq!(fixture.ending(), None);
    fixture.pass(6);
    assert_eq!((fixture.ending(), fixture.backend.received().len()), (None, frame.len()));
    // Nor is a message late that waits whole; one that then stops is.
    let mut fixture =
        From::Client.fixture(Pacing { message_timeout: Duration::from_secs(2), ..messages(1, OnExceeded::Throttle) });
    fixture
        .client
        .sends([up(Text, "1"), up(Text, "2"), up(Text, "3"), up(Text, "4"), up(Text, "5")[..5].to_vec()].concat());
    fixture.poll();
    fixture.pass(4);
    assert_eq!((fixture.ending(), fixture.backend.frames().len()), (None, 4));
    fixture.pass(2);
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::MessageTimeout));
}

#[test]
fn a_message_that_is_left_out_proves_life_and_is_no_data() {
    let mut options = Options::heartbeat(5, 1, false);
    options.connection.idle_timeout = Some(Duration::from_secs(20));
    let rate = Rate { count: 1, interval: Duration::from_secs(3600), burst: 1 };
    let messages = MessageRate { rate, scope: Scope::Connection, on_exceeded: OnExceeded::Drop };
    options.client_pacing = Pacing { messages: Some(messages), ..Pacing::default() };
    let mut fixture = Fixture::with(options);
    for _ in 0..20 {
        fixture.client.sends(up(Text, "x"));
        fixture.poll();
        assert_eq!(fixture.ending(), None);
        fixture.pass(1);
    }
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::IdleTimeout));
    assert_eq!(fixture.client.frames(), ["close 1001"], "it was never pinged");
}

#[test]
fn the_answer_to_a_ping_waits_behind_a_throttle_and_counts_when_it_is_read() {
    let mut options = Options::heartbeat(2, 1, false);
    options.client_pacing = messages(1, OnExceeded::Throttle);
    let mut fixture = Fixture::with(options);
    fixture.pass(2);
    assert_eq!(fixture.client.frames(), ["ping nonce"]);
    fixture.client.sends([up(Text, "1"), up(Text, "2"), up(Text, "3"), up(Pong, NONCE)].concat());
    fixture.poll();
    fixture.pass(3);
    assert_eq!((fixture.ending(), fixture.client.frames().len()), (None, 1));
    assert_eq!(fixture.backend.frames(), ["text 1", "text 2", "text 3"]);
}

// Routes that change.

fn republish(fixture: &mut Fixture, change: impl FnOnce(&mut Policy)) {
    let lease = fixture.live.lease("a.test", "/").unwrap();
    let RouteState::Serving(policy) = &lease.route.state else { panic!("it serves") };
    let mut policy = Policy::clone(policy);
    change(&mut policy);
    drop(lease);
    fixture.publish(Some(RouteState::Serving(Arc::new(policy))));
}

fn unlimited(fixture: &mut Fixture) {
    republish(fixture, |policy| policy.client_pacing = Pacing::default());
}

#[test]
fn a_limit_that_goes_away_or_is_wider_lets_go_at_once() {
    let mut fixture = throttled(Options::default());
    unlimited(&mut fixture);
    assert_eq!(fixture.backend.frames(), ["text 1", "text 2"]);
    let mut fixture = throttled(Options::default());
    republish(&mut fixture, |policy| policy.client_pacing = messages(5, OnExceeded::Throttle));
    fixture.pass(1);
    assert_eq!(fixture.backend.frames(), ["text 1", "text 2"]);
    let mut fixture = From::Client.fixture(bytes(10, OnExceeded::Throttle));
    fixture.client.sends([up(Text, [b'a'; 900]), up(Text, "x")].concat());
    fixture.poll();
    republish(&mut fixture, |policy| policy.client_pacing.bytes.as_mut().unwrap().size = 1000);
    fixture.pass(2);
    assert_eq!(fixture.backend.frames().len(), 2, "what is owed is owed at the new pace");
}

#[test]
fn a_limit_that_comes_counts_from_the_next_message_and_an_edit_forgets_nothing() {
    let mut fixture = Fixture::new();
    fixture.client.sends([up(Text, "1"), up(Text, "2")].concat());
    fixture.poll();
    republish(&mut fixture, |policy| policy.client_pacing = messages(1, OnExceeded::Close));
    fixture.client.sends(up(Text, "3"));
    fixture.poll();
    republish(&mut fixture, |policy| policy.connection.total = 8);
    assert_eq!(fixture.ending(), None);
    fixture.client.sends(up(Text, "4"));
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::MessageRateExceeded));
    assert_eq!(fixture.backend.frames(), ["text 1", "text 2", "text 3", "close 1001"]);
}

// Subjects.

#[test]
fn the_connections_of_a_subject_share_a_limit() {
    for from in From::BOTH {
        let rates = Arc::new(SubjectRates::default());
        let fixture = |expires| {
            let mut pacing = messages(3, OnExceeded::Drop);
            pacing.messages.as_mut().unwrap().scope = Scope::Subject;
            let options = Options { expires, subject_rates: Arc::clone(&rates), ..Options::default() };
            Fixture::with(from.paced(pacing, options))
        };
        let send = |fixture: &mut Fixture| {
            let (sender, receiver) = from.peers(fixture);
            let before = receiver.frames().len();
            sender.sends([from.frame(Text, "a"), from.frame(Text, "b")].concat());
            fixture.poll();
            receiver.frames().len() - before
        };
        let (mut one, mut other) = (fixture(Some(99)), fixture(Some(99)));
        assert_eq!((send(&mut one), send(&mut other), send(&mut one)), (2, 1, 0), "{from:?}");
        // Coming again gives nothing back.
        drop((one, other));
        assert_eq!(send(&mut fixture(Some(99))), 0);
        // Who has no subject counts alone.
        let (mut one, mut other) = (fixture(None), fixture(None));
        assert_eq!((send(&mut one), send(&mut one), send(&mut other)), (2, 1, 2));
    }
}

/// A connection of a subject whose rate is the store's, and what the store is asked.
fn lent(on_exceeded: OnExceeded) -> (Fixture, impl FnMut() -> Arc<SubjectRate>) {
    let (rates, mut asked) = SubjectRates::shared();
    let mut pacing = messages(80, on_exceeded);
    pacing.messages.as_mut().unwrap().scope = Scope::Subject;
    let options = Options { expires: Some(9999), subject_rates: Arc::new(rates), ..Options::heartbeat(5, 1, false) };
    let fixture = Fixture::with(From::Client.paced(pacing, options));
    (fixture, move || asked.try_recv().expect("the store is asked"))
}

#[test]
fn a_message_waits_unread_for_the_answer_of_the_store_and_then_passes() {
    let (mut fixture, mut asked) = lent(OnExceeded::Close);
    fixture.client.sends([up(Text, "1"), up(Text, "2")].concat());
    fixture.client.sends(up(Text, "3"));
    fixture.poll();
    assert_eq!((fixture.backend.frames().len(), fixture.client.unread()), (0, 1));
    let rate = asked();
    fixture.pass(60);
    assert_eq!((fixture.ending(), fixture.client.frames().len()), (None, 0), "its clocks stand");
    rate.answered(Some(Answer { granted: 2, wait: 0 }), Duration::from_secs(60));
    fixture.poll();
    assert_eq!(fixture.backend.frames(), texts(1..=2));
    asked().answered(Some(Answer { granted: 1, wait: 0 }), Duration::ZERO);
    fixture.poll();
    assert_eq!(fixture.backend.frames(), texts(1..=3));
    let throttled = fixture.relay.as_ref().unwrap().report.from_client.throttled;
    assert_eq!((fixture.ending(), throttled), (None, 0), "to ask is no throttle");
    // Its clocks go on.
    fixture.pass(5);
    assert_eq!(fixture.client.frames(), ["ping nonce"]);
}

#[test]
fn what_the_store_denies_is_too_much() {
    for (on_exceeded, reason, frames) in [
        (OnExceeded::Close, Some(Reason::MessageRateExceeded), vec!["close 1001"]),
        (OnExceeded::Throttle, None, vec![]),
        (OnExceeded::Drop, None, vec!["ping ?"]),
    ] {
        let (mut fixture, mut asked) = lent(on_exceeded);
        fixture.client.sends([up(Text, "1"), up(Ping, "?")].concat());
        fixture.poll();
        asked().answered(Some(Answer { granted: 0, wait: 2_000_000_000 }), Duration::ZERO);
        fixture.poll();
        assert_eq!(
            (fixture.ending().map(|ending| ending.0), fixture.backend.frames()),
            (reason, frames.iter().map(ToString::to_string).collect())
        );
        if on_exceeded == OnExceeded::Throttle {
            fixture.pass(2);
            asked().answered(Some(Answer { granted: 1, wait: 0 }), Duration::ZERO);
            fixture.poll();
            assert_eq!(fixture.backend.frames(), ["text 1", "ping ?"]);
        }
    }
}

#[test]
fn a_store_that_gives_no_answer_ends_nobody_and_a_close_does_not_wait_for_it() {
    let (mut fixture, mut asked) = lent(OnExceeded::Close);
    fixture.client.sends(up(Text, "1"));
    fixture.poll();
    asked().answered(None, Duration::ZERO);
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text 1"]);
    let (mut fixture, _asked) = lent(OnExceeded::Close);
    fixture.client.sends(up(Text, "1"));
    fixture.poll();
    fixture.end(Reason::Draining);
    fixture.client.sends(up(Close, code(1001)));
    fixture.poll();
    assert_eq!(fixture.frames(), (vec!["close 1001".to_owned()], vec!["close 1001".to_owned()]));
    assert!(fixture.client.shut().is_some());
}

#[test]
fn audit_counts_what_exceeds_a_rate_and_lets_it_through_at_once() {
    for from in From::BOTH {
        for on_exceeded in [OnExceeded::Close, OnExceeded::Throttle, OnExceeded::Drop] {
            for (pacing, by_messages) in [(messages(1, on_exceeded), true), (bytes(1, on_exceeded), false)] {
                let mut fixture = Fixture::with(from.paced(pacing, Options { audits: true, ..Options::default() }));
                let (sender, receiver) = from.peers(&fixture);
                sender.sends([from.frame(Text, "1"), from.frame(Text, "2"), from.frame(Binary, "3")].concat());
                fixture.poll();
                assert_eq!(receiver.frames(), ["text 1", "text 2", "binary 3"], "{from:?} {on_exceeded:?}");
                assert_eq!(fixture.ending(), None);
                let reason = from.reason(by_messages).label();
                let line = format!("wssgate_audit_violations_total{{route=\"shop/chat\",reason=\"{reason}\"}} 2\n");
                let scrape = fixture.all.encode();
                assert!(scrape.contains(&line), "{line} is not in\n{scrape}");
                assert!(
                    !scrape.contains("wssgate_throttles_total{") && !scrape.contains("wssgate_messages_dropped_total{")
                );
            }
        }
    }
}
