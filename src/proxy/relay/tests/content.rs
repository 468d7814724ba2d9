//! The stage for content: messages that are held until they are whole, beside those that stream.

use super::fixture::{Fixture, Options, code, down, unfinished, up};
use crate::reason::Reason;
use crate::ws::frame::Opcode::{Binary, Close, Continuation, Ping, Text};
use crate::ws::message::Limits;

fn holding(text: bool, binary: bool) -> Fixture {
    let options = Options::default();
    let limits = Limits { hold_text: text, hold_binary: binary, ..options.from_client };
    Fixture::with(Options { from_client: limits, from_backend: limits, ..options })
}

#[test]
fn a_held_message_goes_on_when_it_is_whole_in_the_frames_in_which_it_came() {
    let mut fixture = holding(true, false);
    fixture.client.sends(unfinished(up(Text, "He")));
    fixture.client.sends(unfinished(up(Continuation, "")));
    fixture.poll();
    assert_eq!((fixture.backend.received().len(), fixture.held.get()), (0, 2));
    fixture.client.sends(up(Continuation, "llo"));
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text+ He", "more+", "more llo"]);
    assert_eq!((fixture.held.get(), fixture.metrics.from_client.messages.get()), (0, 1));
    assert_eq!(fixture.metrics.from_client.bytes.get(), 5);
}

#[test]
fn a_held_message_that_comes_byte_by_byte_is_released_once() {
    let mut fixture = holding(true, true);
    for byte in up(Binary, "message") {
        fixture.client.sends(vec![byte]);
        fixture.poll();
    }
    assert_eq!((fixture.backend.frames(), fixture.backend.packets()), (vec!["binary message".to_owned()], 1));
}

#[test]
fn the_sizes_of_messages_are_counted_whether_they_are_held_or_not() {
    let mut fixture = holding(true, false);
    fixture.client.sends([unfinished(up(Text, [b'a'; 10])), up(Continuation, [b'a'; 10]), up(Binary, [0; 5])].concat());
    fixture.backend.sends(down(Binary, [0; 70]));
    fixture.poll();
    let text = fixture.all.encode();
    for line in [
        "wssgate_message_size_bytes_sum{direction=\"from_client\"} 25.0\n",
        "wssgate_message_size_bytes_count{direction=\"from_client\"} 2\n",
        "wssgate_message_size_bytes_bucket{le=\"16.0\",direction=\"from_client\"} 1\n",
        "wssgate_message_size_bytes_bucket{le=\"64.0\",direction=\"from_client\"} 2\n",
        "wssgate_message_size_bytes_sum{direction=\"from_backend\"} 70.0\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn held_and_plain_messages_keep_their_order() {
    let mut fixture = holding(true, false);
    let sent = [up(Binary, "1"), up(Text, "2"), up(Binary, "3"), up(Text, "4"), up(Text, "5"), up(Binary, "6")];
    fixture.client.sends(sent.concat());
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["binary 1", "text 2", "binary 3", "text 4", "text 5", "binary 6"]);
}

#[test]
fn the_same_holds_from_the_backend() {
    let mut fixture = holding(true, false);
    fixture.backend.sends([down(Binary, "1"), down(Text, "2"), down(Ping, "?"), down(Binary, "3")].concat());
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["binary 1", "text 2", "ping ?", "binary 3"]);
}

#[test]
fn control_frames_pass_a_message_that_is_held() {
    let mut fixture = holding(true, false);
    fixture.client.sends([unfinished(up(Text, "a")), up(Ping, "?"), up(Continuation, "b")].concat());
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["ping ?", "text+ a", "more b"]);
}

#[test]
fn nothing_of_a_held_message_that_is_refused_goes_on() {
    let first = || unfinished(up(Text, vec![b'a'; 600]));
    let cases = [
        (up(Continuation, vec![b'a'; 401]), Reason::MessageTooBig),
        (up(Continuation, b"\xff"), Reason::InvalidUtf8),
        (up(Text, "another"), Reason::ProtocolError),
    ];
    for (second, reason) in cases {
        let mut fixture = holding(true, false);
        fixture.client.sends([first(), second].concat());
        fixture.poll();
        assert_eq!(fixture.ending().map(|ending| ending.0), Some(reason));
        assert_eq!(fixture.backend.frames(), ["close 1001"]);
    }
}

#[test]
fn the_gateways_close_may_stand_where_a_held_message_is_not_whole() {
    let mut fixture = holding(true, false);
    fixture.client.sends(up(Text, "half")[..8].to_vec());
    fixture.poll();
    fixture.end(Reason::Draining);
    assert_eq!(fixture.backend.frames(), ["close 1001"], "nothing of the frame was sent");
}

#[test]
fn a_peers_close_leaves_behind_what_is_held() {
    let mut fixture = holding(true, false);
    fixture.client.sends([unfinished(up(Text, "half")), up(Close, code(1000))].concat());
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["close 1000"]);
}

#[test]
fn what_is_held_is_returned_when_the_connection_ends() {
    let mut fixture = holding(true, false);
    fixture.client.sends(unfinished(up(Text, "held")));
    fixture.poll();
    assert_eq!(fixture.held.get(), 4);
    fixture.client.ends();
    assert!(fixture.poll());
    assert_eq!(fixture.held.get(), 0);
}

#[test]
fn a_released_message_waits_for_a_backend_that_does_not_read() {
    let mut fixture = holding(true, false);
    fixture.backend.set(|wire| wire.room = 3);
    fixture.client.sends(up(Text, "first"));
    fixture.client.sends(up(Text, "second"));
    fixture.poll();
    assert_eq!((fixture.client.unread(), fixture.backend.received().len()), (1, 3));
    fixture.backend.set(|wire| wire.room = usize::MAX);
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text first", "text second"]);
}
