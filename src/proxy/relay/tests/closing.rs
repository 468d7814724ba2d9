//! Every way in which a connection ends: who closes first, who answers, what is cut, who is gone.

use super::fixture::{Fixture, Options, code, down, unfinished, up};
use crate::reason::Reason;
use crate::telemetry::initiator::Initiator;
use crate::ws::frame::Opcode::{self, Binary, Close, Continuation, Ping, Text};
use crate::ws::message::{Limits, MAX_CONTROL_PER_SECOND};

/// How both directions stand at the end: what was received, and whether the client got a close_notify.
#[track_caller]
fn ends(fixture: &Fixture, client: &[&str], notify: bool, backend: &[&str]) {
    let (client_got, backend_got) = fixture.frames();
    assert_eq!(client_got, client, "the client");
    assert_eq!(backend_got, backend, "the backend");
    assert_eq!(fixture.client.shut(), Some(notify), "FIN to the client, with close_notify");
    assert!(fixture.backend.shut().is_some(), "FIN to the backend");
}

/// The client takes what we said last and closes.
#[track_caller]
fn is_over_when_the_client_closes(mut fixture: Fixture) {
    assert!(!fixture.is_over(), "the client's FIN is awaited");
    fixture.client.ends();
    assert!(fixture.poll(), "the client closed and it is not over");
    assert_eq!(fixture.metrics.connections.get(), 0);
}

/// A frame of which only a part is there: its header says more than follows.
fn part(frame: Vec<u8>, missing: usize) -> Vec<u8> {
    frame[..frame.len() - missing].to_vec()
}

// Close handshakes.

#[test]
fn the_client_closes_and_the_backend_answers() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, code(1000)));
    fixture.poll();
    assert_eq!(fixture.frames(), (vec![], vec!["close 1000".to_owned()]));
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::ClientClosed, Some(1000), Initiator::Client)));
    ends(&fixture, &["close 1000"], true, &["close 1000"]);
    is_over_when_the_client_closes(fixture);
}

#[test]
fn the_backend_closes_and_the_client_answers() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(down(Close, code(4001)));
    fixture.poll();
    assert_eq!(fixture.client.shut(), None, "the client's answer is awaited");
    fixture.client.sends(up(Close, code(4001)));
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::BackendClosed, Some(4001), Initiator::Backend)));
    ends(&fixture, &["close 4001"], true, &["close 4001"]);
    is_over_when_the_client_closes(fixture);
}

#[test]
fn the_words_of_a_close_are_carried() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, b"\x0f\xa1bye"));
    fixture.poll();
    fixture.backend.sends(down(Close, b"\x0f\xa1until then"));
    fixture.poll();
    ends(&fixture, &["close 4001 until then"], true, &["close 4001 bye"]);
}

#[test]
fn a_close_without_a_code_is_carried_without_one() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, b""));
    fixture.poll();
    fixture.backend.sends(down(Close, b""));
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::ClientClosed, None, Initiator::Client)));
    ends(&fixture, &["close"], true, &["close"]);
}

#[test]
fn both_close_at_once() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, code(1000)));
    fixture.backend.sends(down(Close, code(1001)));
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::ClientClosed, Some(1000), Initiator::Client)));
    ends(&fixture, &["close 1001"], true, &["close 1000"]);
    is_over_when_the_client_closes(fixture);
}

#[test]
fn a_close_and_the_end_go_in_one_packet() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, code(1000)));
    fixture.poll();
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    assert_eq!((fixture.client.packets(), fixture.client.shut()), (1, Some(true)));
}

#[test]
fn a_backend_that_does_not_answer_a_close_has_five_seconds() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, code(1000)));
    fixture.poll();
    fixture.pass(4);
    assert_eq!(fixture.client.frames(), [""; 0]);
    fixture.pass(1);
    ends(&fixture, &["close 1000"], true, &["close 1000"]);
    is_over_when_the_client_closes(fixture);
}

#[test]
fn a_client_that_does_not_answer_a_close_has_five_seconds_and_one_to_take_the_end() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    fixture.pass(4);
    assert_eq!(fixture.client.shut(), None);
    fixture.pass(1);
    // The backend is answered for the client.
    ends(&fixture, &["close 1000"], true, &["close 1001"]);
    assert!(!fixture.is_over());
    fixture.pass(1);
    assert!(fixture.is_over());
}

#[test]
fn a_backend_that_goes_without_answering_a_close_is_answered_for() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, code(1000)));
    fixture.poll();
    fixture.backend.ends();
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::ClientClosed, Some(1000), Initiator::Client)));
    ends(&fixture, &["close 1000"], true, &["close 1000"]);
    is_over_when_the_client_closes(fixture);
}

#[test]
fn a_client_that_goes_without_answering_a_close_ends_it() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    fixture.client.ends();
    assert!(fixture.poll());
    assert_eq!(fixture.backend.frames(), ["close 1001"]);
    assert!(fixture.backend.shut().is_some());
}

#[test]
fn what_the_backend_sent_before_its_answer_is_still_delivered() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Close, code(1000)));
    fixture.poll();
    fixture.backend.sends(down(Text, "last"));
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    ends(&fixture, &["text last", "close 1000"], true, &["close 1000"]);
}

#[test]
fn what_follows_a_close_in_one_read_is_not_looked_at() {
    let mut fixture = Fixture::new();
    fixture.client.sends([up(Close, code(1000)), b"\xff\xff\xff".to_vec()].concat());
    fixture.poll();
    fixture.backend.sends([down(Close, code(1000)), down(Text, "late")].concat());
    fixture.poll();
    ends(&fixture, &["close 1000"], true, &["close 1000"]);
}

#[test]
fn a_close_within_a_fragmented_message_ends_it() {
    let mut fixture = Fixture::new();
    fixture.client.sends([unfinished(up(Text, "half")), up(Close, code(1001))].concat());
    fixture.poll();
    fixture.backend.sends(down(Close, code(1001)));
    fixture.poll();
    ends(&fixture, &["close 1001"], true, &["text+ half", "close 1001"]);
}

// The gateway ends.

#[test]
fn the_gateway_ends_and_the_client_answers() {
    let mut fixture = Fixture::new();
    fixture.end(Reason::Draining);
    assert_eq!(fixture.ending(), Some((Reason::Draining, Some(1001), Initiator::Gateway)));
    assert_eq!(fixture.client.shut(), None, "the client's answer is awaited");
    fixture.client.sends(up(Close, code(1001)));
    fixture.poll();
    ends(&fixture, &["close 1001"], true, &["close 1001"]);
    is_over_when_the_client_closes(fixture);
}

#[test]
fn the_gateway_ends_and_the_client_says_nothing() {
    let mut fixture = Fixture::new();
    fixture.end(Reason::AccessWithdrawn);
    fixture.pass(5);
    ends(&fixture, &["close 1008"], true, &["close 1001"]);
    fixture.pass(1);
    assert!(fixture.is_over());
}

#[test]
fn what_peers_send_after_the_gateways_close_goes_nowhere() {
    let mut fixture = Fixture::new();
    fixture.end(Reason::RouteRemoved);
    fixture.client.sends(up(Text, "late"));
    fixture.backend.sends(down(Text, "late"));
    fixture.poll();
    assert_eq!(fixture.frames(), (vec!["close 1012".to_owned()], vec!["close 1001".to_owned()]));
    fixture.client.sends(up(Close, code(1012)));
    fixture.poll();
    ends(&fixture, &["close 1012"], true, &["close 1001"]);
}

#[test]
fn the_first_reason_stands() {
    let mut fixture = Fixture::new();
    fixture.end(Reason::Draining);
    fixture.end(Reason::AccessWithdrawn);
    fixture.backend.ends();
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::Draining, Some(1001), Initiator::Gateway)));
}

#[test]
fn the_gateway_ends_within_a_frame_to_the_client() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(part(down(Binary, "half a frame"), 6));
    fixture.poll();
    fixture.end(Reason::Draining);
    // No Close within a frame, and no close_notify: it must not look like a whole message.
    ends(&fixture, &["binary half a..."], false, &["close 1001"]);
}

#[test]
fn the_gateway_ends_within_a_frame_to_the_backend() {
    let mut fixture = Fixture::new();
    fixture.client.sends(part(up(Binary, "half a frame"), 6));
    fixture.poll();
    fixture.end(Reason::Draining);
    assert_eq!(fixture.backend.shut(), None);
    // The rest of the frame completes it; what follows goes nowhere.
    let rest = up(Binary, "half a frame").split_off(6 + 6);
    fixture.client.sends([rest, up(Text, "more"), up(Close, code(1001))].concat());
    fixture.poll();
    ends(&fixture, &["close 1001"], true, &["binary half a frame", "close 1001"]);
}

#[test]
fn a_frame_to_the_backend_that_is_not_completed_after_the_gateways_end_is_cut() {
    let mut fixture = Fixture::new();
    fixture.client.sends(part(up(Binary, "half a frame"), 6));
    fixture.poll();
    fixture.end(Reason::AccessWithdrawn);
    fixture.pass(5);
    ends(&fixture, &["close 1008"], true, &["binary half a..."]);
}

#[test]
fn the_gateway_ends_within_frames_both_ways() {
    let mut fixture = Fixture::new();
    fixture.client.sends(part(up(Binary, "up"), 1));
    fixture.backend.sends(part(down(Binary, "down"), 1));
    fixture.poll();
    fixture.end(Reason::Draining);
    ends(&fixture, &["binary dow..."], false, &["binary u..."]);
}

#[test]
fn the_gateway_ends_between_the_frames_of_a_message() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(unfinished(down(Text, "half")));
    fixture.poll();
    fixture.end(Reason::Draining);
    fixture.client.sends(up(Close, code(1001)));
    fixture.poll();
    ends(&fixture, &["text+ half", "close 1001"], true, &["close 1001"]);
}

// A peer breaks a rule.

#[test]
fn a_client_that_breaks_a_rule_is_told_and_not_waited_for() {
    let fragments = || {
        let one = |opcode| unfinished(up(opcode, "x"));
        [one(Text), one(Continuation), one(Continuation), one(Continuation), one(Continuation)].concat()
    };
    let flood = up(Ping, "").repeat(usize::from(MAX_CONTROL_PER_SECOND) + 1);
    let cases: [(Vec<u8>, Reason, u16); 12] = [
        (b"\xc1\x80\0\0\0\0".to_vec(), Reason::ProtocolError, 1002),
        (b"\x83\x80\0\0\0\0".to_vec(), Reason::ProtocolError, 1002),
        (down(Text, "no mask"), Reason::ProtocolError, 1002),
        (unfinished(up(Ping, "")), Reason::ProtocolError, 1002),
        (up(Continuation, ""), Reason::ProtocolError, 1002),
        (up(Close, b"\x03"), Reason::ProtocolError, 1002),
        (up(Close, code(1005)), Reason::ProtocolError, 1002),
        (up(Text, b"\xff"), Reason::InvalidUtf8, 1007),
        (up(Close, b"\x03\xe8\xff"), Reason::InvalidUtf8, 1007),
        (up(Binary, [0; 1001]), Reason::MessageTooBig, 1009),
        (fragments(), Reason::TooManyFragments, 1008),
        (flood, Reason::ControlFlood, 1008),
    ];
    for (bytes, reason, code) in cases {
        let mut fixture = Fixture::new();
        fixture.client.sends(bytes);
        fixture.poll();
        assert_eq!(fixture.ending(), Some((reason, Some(code), Initiator::Gateway)));
        assert_eq!(fixture.client.frames(), [format!("close {code}")], "{reason:?}");
        assert_eq!(fixture.client.shut(), Some(true), "{reason:?}");
        assert_eq!(fixture.backend.frames().last().map(String::as_str), Some("close 1001"), "{reason:?}");
        assert!(fixture.backend.shut().is_some());
        is_over_when_the_client_closes(fixture);
    }
}

#[test]
fn a_type_that_the_route_does_not_allow_ends_it() {
    for (opcode, text, binary) in [(Text, false, true), (Binary, true, false)] {
        let limits = Limits { text, binary, max_size: 9, max_fragments: 9, ..Limits::CONTROL_ONLY };
        let mut fixture = Fixture::with(Options { from_client: limits, ..Options::default() });
        fixture.client.sends(up(opcode, "x"));
        fixture.poll();
        assert_eq!(fixture.ending(), Some((Reason::TypeNotAllowed, Some(1003), Initiator::Gateway)));
        ends(&fixture, &["close 1003"], true, &["close 1001"]);
    }
}

#[test]
fn what_came_before_a_broken_rule_has_gone_on() {
    let mut fixture = Fixture::new();
    fixture.client.sends([up(Text, "good"), up(Text, b"\xff")].concat());
    fixture.poll();
    ends(&fixture, &["close 1007"], true, &["text good", "close 1001"]);
    assert_eq!(fixture.metrics.from_client.messages.get(), 1);
}

#[test]
fn a_client_that_breaks_a_rule_within_a_frame_leaves_the_backend_without_a_close() {
    let mut fixture = Fixture::new();
    let frame = up(Text, b"good\xff");
    fixture.client.sends(frame[..9].to_vec());
    fixture.poll();
    fixture.client.sends(frame[9..].to_vec());
    fixture.poll();
    ends(&fixture, &["close 1007"], true, &["text goo..."]);
}

#[test]
fn a_client_that_breaks_a_rule_after_the_backends_close_is_not_waited_for() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(down(Close, code(1000)));
    fixture.poll();
    fixture.client.sends(b"\xc1\x80\0\0\0\0".to_vec());
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::BackendClosed, Some(1000), Initiator::Backend)));
    assert_eq!(fixture.client.shut(), Some(true));
}

#[test]
fn a_backend_that_breaks_a_rule_is_1011_for_the_client() {
    let cases: [(Vec<u8>, Reason); 5] = [
        (b"\x91\x00".to_vec(), Reason::BackendProtocolError),
        (up(Text, "masked"), Reason::BackendProtocolError),
        (down(Text, b"\xff"), Reason::BackendInvalidUtf8),
        (down(Close, code(1006)), Reason::BackendProtocolError),
        (down(Binary, [0; 1001]), Reason::BackendMessageTooBig),
    ];
    for (bytes, reason) in cases {
        let mut fixture = Fixture::new();
        fixture.backend.sends(bytes);
        fixture.poll();
        assert_eq!(fixture.ending(), Some((reason, Some(1011), Initiator::Gateway)));
        fixture.client.sends(up(Close, code(1011)));
        fixture.poll();
        ends(&fixture, &["close 1011"], true, &["close 1001"]);
        is_over_when_the_client_closes(fixture);
    }
}

#[test]
fn a_backend_that_breaks_a_rule_within_a_frame_leaves_the_client_without_a_close() {
    let mut fixture = Fixture::new();
    let frame = down(Text, b"good\xff");
    fixture.backend.sends(frame[..5].to_vec());
    fixture.poll();
    fixture.backend.sends(frame[5..].to_vec());
    fixture.poll();
    ends(&fixture, &["text goo..."], false, &["close 1001"]);
}

// A peer is gone.

#[test]
fn a_client_that_is_lost_is_1001_for_the_backend() {
    for reset in [false, true] {
        let mut fixture = Fixture::new();
        fixture.client.sends(up(Text, "last"));
        if reset {
            fixture.client.resets()
        } else {
            fixture.client.ends()
        }
        assert!(fixture.poll());
        assert_eq!(fixture.backend.frames(), ["text last", "close 1001"]);
        assert!(fixture.backend.shut().is_some());
        assert_eq!(fixture.metrics.connections.get(), 0);
    }
}

#[test]
fn a_client_that_is_lost_within_a_frame_leaves_the_backend_without_a_close() {
    let mut fixture = Fixture::new();
    fixture.client.sends(part(up(Binary, "half"), 2));
    fixture.client.ends();
    assert!(fixture.poll());
    assert_eq!(fixture.backend.frames(), ["binary ha..."]);
    assert!(fixture.backend.shut().is_some());
}

#[test]
fn a_client_that_cannot_be_written_to_is_lost() {
    let mut fixture = Fixture::new();
    fixture.client.set(|wire| wire.broken = true);
    fixture.backend.sends(down(Text, "lost"));
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::ClientLost, None, Initiator::Client)));
    assert_eq!(fixture.backend.frames(), ["close 1001"]);
}

#[test]
fn a_backend_that_is_lost_is_1011_for_the_client() {
    for reset in [false, true] {
        let mut fixture = Fixture::new();
        fixture.backend.sends(down(Text, "last"));
        if reset {
            fixture.backend.resets()
        } else {
            fixture.backend.ends()
        }
        fixture.poll();
        assert_eq!(fixture.ending(), Some((Reason::BackendLost, Some(1011), Initiator::Backend)));
        fixture.client.sends(up(Close, code(1011)));
        fixture.poll();
        assert_eq!(fixture.client.frames(), ["text last", "close 1011"]);
        assert_eq!(fixture.client.shut(), Some(true));
        is_over_when_the_client_closes(fixture);
    }
}

#[test]
fn a_backend_that_is_lost_within_a_frame_leaves_the_client_without_a_close() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(part(down(Binary, "half"), 2));
    fixture.backend.ends();
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["binary ha..."]);
    assert_eq!(fixture.client.shut(), Some(false), "FIN without close_notify");
}

#[test]
fn a_backend_that_cannot_be_written_to_is_lost_when_all_that_it_said_is_read() {
    let mut fixture = Fixture::new();
    fixture.backend.set(|wire| wire.broken = true);
    fixture.client.sends(up(Text, "into the void"));
    fixture.poll();
    assert_eq!(fixture.ending(), None);
    fixture.backend.sends(down(Text, "last words"));
    fixture.backend.resets();
    fixture.poll();
    assert_eq!(fixture.ending(), Some((Reason::BackendLost, Some(1011), Initiator::Backend)));
    assert_eq!(fixture.client.frames(), ["text last words", "close 1011"]);
}

#[test]
fn a_client_that_is_lost_after_the_gateways_close_ends_it_at_once() {
    let mut fixture = Fixture::new();
    fixture.end(Reason::Draining);
    fixture.client.ends();
    assert!(fixture.poll());
}

#[test]
fn a_task_that_is_dropped_is_counted_once() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.metrics.connections.get(), 1);
    drop(fixture.relay.take());
    assert_eq!(fixture.metrics.connections.get(), 0);
}

// What came with the handshake.

#[test]
fn frames_behind_the_request_are_judged_before_anything_is_read() {
    let mut fixture = Fixture::with(Options { client_early: up(Text, "early"), ..Options::default() });
    fixture.client.sends(up(Text, "late"));
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text early", "text late"]);
}

#[test]
fn what_is_no_frame_behind_the_request_ends_it() {
    let mut fixture = Fixture::with(Options { client_early: b"GET / HTTP/1.1\r\n\r\n".to_vec(), ..Options::default() });
    fixture.poll();
    ends(&fixture, &["close 1002"], true, &["close 1001"]);
}

#[test]
fn frames_behind_the_101_go_to_the_client_also_in_pieces() {
    let frame = down(Text, "early");
    let mut fixture = Fixture::with(Options { backend_early: frame[..1].to_vec(), ..Options::default() });
    fixture.poll();
    assert_eq!(fixture.client.frames(), [""; 0]);
    fixture.backend.sends(frame[1..].to_vec());
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["text early"]);
}

#[test]
fn pings_and_pongs_of_peers_are_passed_on() {
    let mut fixture = Fixture::new();
    fixture.client.sends([up(Ping, "a"), up(Opcode::Pong, "b")].concat());
    fixture.backend.sends([down(Ping, "c"), down(Opcode::Pong, "d")].concat());
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["ping c", "pong d"]);
    assert_eq!(fixture.backend.frames(), ["ping a", "pong b"]);
}
