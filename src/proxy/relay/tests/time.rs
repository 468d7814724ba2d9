//! Who waits for whom, and for how long: back-pressure, slow frames, heartbeats, and the times that a route sets.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Fixture, NONCE, Options, down, up};
use crate::policy::Pacing;
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::telemetry::initiator::Initiator;
use crate::ws::frame::Opcode::{Binary, Ping, Pong, Text};
use crate::ws::message::Limits;

#[track_caller]
fn ended(fixture: &Fixture, reason: Reason) {
    assert_eq!(fixture.ending(), Some((reason, reason.close_code(), Initiator::Gateway)));
}

/// Puts a byte into the middle of `frame` each second, for so long.
fn trickle(fixture: &mut Fixture, seconds: u32, bytes_a_second: usize) {
    for _ in 0..seconds {
        fixture.client.sends(vec![b'x'; bytes_a_second]);
        fixture.poll();
        fixture.pass(1);
    }
}

// Back-pressure.

#[test]
fn nothing_is_read_from_the_backend_while_the_client_does_not_read() {
    let mut fixture = Fixture::new();
    fixture.client.set(|wire| wire.room = 3);
    for n in 0..3 {
        fixture.backend.sends(down(Text, format!("message {n}")));
    }
    fixture.poll();
    assert_eq!((fixture.backend.unread(), fixture.client.received().len()), (2, 3));
    fixture.client.set(|wire| wire.room = usize::MAX);
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["text message 0", "text message 1", "text message 2"]);
}

#[test]
fn nothing_is_read_from_the_client_while_the_backend_does_not_read() {
    let mut fixture = Fixture::new();
    fixture.backend.set(|wire| wire.room = 0);
    fixture.client.sends(up(Text, "one"));
    fixture.client.sends(up(Text, "two"));
    fixture.poll();
    assert_eq!((fixture.client.unread(), fixture.backend.received().len()), (1, 0));
    fixture.backend.set(|wire| wire.room = usize::MAX);
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text one", "text two"]);
}

#[test]
fn one_direction_that_waits_does_not_stop_the_other() {
    let mut fixture = Fixture::new();
    fixture.client.set(|wire| wire.room = 0);
    fixture.backend.sends(down(Text, "waits"));
    fixture.poll();
    fixture.client.sends(up(Text, "goes"));
    fixture.poll();
    assert_eq!(fixture.backend.frames(), ["text goes"]);
}

#[test]
fn a_client_that_does_not_read_for_half_a_minute_is_stalled() {
    let mut fixture = Fixture::new();
    fixture.client.set(|wire| wire.room = 1);
    fixture.backend.sends(down(Text, "waits"));
    fixture.poll();
    fixture.pass(29);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::ClientStalled);
    assert_eq!(fixture.backend.frames(), ["close 1001"]);
    // It still takes nothing: five seconds for the Close, one for the end.
    fixture.pass(6);
    assert!(fixture.is_over());
    assert_eq!(fixture.client.received().len(), 1);
}

#[test]
fn a_client_that_reads_again_in_time_is_not_stalled() {
    let mut fixture = Fixture::new();
    for _ in 0..3 {
        fixture.client.set(|wire| wire.room = 1);
        fixture.backend.sends(down(Text, "waits"));
        fixture.poll();
        fixture.pass(29);
        fixture.client.set(|wire| wire.room = usize::MAX);
        fixture.poll();
    }
    fixture.pass(60);
    assert_eq!(fixture.ending(), None);
}

/// A fixture whose backend may send large messages.
fn wide() -> Fixture {
    let options = Options::default();
    Fixture::with(Options { from_backend: Limits { max_size: 1 << 20, ..options.from_backend }, ..options })
}

#[test]
fn a_client_that_reads_slowly_gets_a_large_message_however_long_it_takes() {
    let mut fixture = wide();
    let message = "x".repeat(100_000);
    fixture.client.set(|wire| wire.room = 0);
    fixture.backend.sends(down(Text, &message));
    fixture.poll();
    // 2,000 bytes a second: 50 seconds.
    for _ in 0..45 {
        fixture.client.set(|wire| wire.room += 2000);
        fixture.poll();
        fixture.pass(1);
    }
    assert_eq!(fixture.ending(), None);
    fixture.client.set(|wire| wire.room = usize::MAX);
    fixture.poll();
    assert_eq!(fixture.client.frames(), [format!("text {message}")]);
}

#[test]
fn a_client_that_takes_a_few_bytes_now_and_then_is_stalled_all_the_same() {
    let mut fixture = wide();
    fixture.client.set(|wire| wire.room = 0);
    fixture.backend.sends(down(Text, "x".repeat(100_000)));
    fixture.poll();
    for _ in 0..29 {
        fixture.client.set(|wire| wire.room += 500);
        fixture.poll();
        fixture.pass(1);
    }
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::ClientStalled);
}

#[test]
fn a_backend_that_does_not_read_for_half_a_minute_is_stalled() {
    let mut fixture = Fixture::new();
    fixture.backend.set(|wire| wire.room = 0);
    fixture.client.sends(up(Text, "waits"));
    fixture.poll();
    fixture.pass(30);
    ended(&fixture, Reason::BackendStalled);
    assert_eq!(fixture.client.frames(), ["close 1011"]);
}

#[test]
fn while_memory_is_short_a_peer_that_makes_us_hold_bytes_must_go() {
    let mut fixture = Fixture::new();
    fixture.pass_under(3, true);
    assert_eq!(fixture.ending(), None, "nothing is held for it");
    fixture.client.set(|wire| wire.room = 0);
    fixture.backend.sends(down(Text, "held"));
    fixture.poll();
    fixture.pass_under(1, true);
    ended(&fixture, Reason::Overloaded);
}

// Slow frames.

#[test]
fn a_frame_that_stops_in_the_middle_is_too_slow_after_half_a_minute() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Binary, [0; 900])[..100].to_vec());
    fixture.poll();
    fixture.pass(30);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::MessageTimeout);
    assert_eq!(fixture.client.frames(), ["close 1008"]);
}

#[test]
fn a_header_that_is_not_whole_is_a_frame_that_was_begun() {
    let mut fixture = Fixture::new();
    fixture.client.sends(vec![0x82]);
    fixture.poll();
    fixture.pass(31);
    ended(&fixture, Reason::MessageTimeout);
}

#[test]
fn a_message_of_which_no_frame_follows_is_too_slow() {
    let mut fixture = Fixture::new();
    fixture.client.sends(super::fixture::unfinished(up(Text, "first")));
    fixture.poll();
    fixture.pass(31);
    ended(&fixture, Reason::MessageTimeout);
}

#[test]
fn a_frame_at_a_kilobyte_a_second_may_take_longer_and_a_slower_one_may_not() {
    let limits = Limits { binary: true, max_size: 1 << 20, max_fragments: 9, ..Limits::CONTROL_ONLY };
    for (pace, reason) in [(1100, None), (100, Some(Reason::MessageTimeout))] {
        let mut fixture = Fixture::with(Options { from_client: limits, ..Options::default() });
        fixture.client.sends(up(Binary, vec![0; 1 << 20])[..20].to_vec());
        fixture.poll();
        trickle(&mut fixture, 35, pace);
        assert_eq!(fixture.ending().map(|ending| ending.0), reason, "{pace} bytes a second");
    }
}

#[test]
fn whole_messages_at_any_pace_are_not_slow() {
    let mut fixture = Fixture::new();
    for _ in 0..40 {
        fixture.client.sends(up(Text, "x"));
        fixture.poll();
        fixture.pass(5);
    }
    assert_eq!(fixture.ending(), None);
}

#[test]
fn a_slow_frame_of_the_backend_is_the_backends_fault() {
    let mut fixture = Fixture::new();
    fixture.backend.sends(down(Binary, [0; 900])[..100].to_vec());
    fixture.poll();
    fixture.pass(31);
    ended(&fixture, Reason::BackendMessageTimeout);
}

#[test]
fn the_route_says_how_long_a_message_may_take() {
    for (client, backend, reason) in
        [(5, 60, Some(Reason::MessageTimeout)), (60, 5, Some(Reason::BackendMessageTimeout)), (60, 60, None)]
    {
        let pacing = |seconds| Pacing { message_timeout: Duration::from_secs(seconds), ..Pacing::default() };
        let options = Options { client_pacing: pacing(client), backend_pacing: pacing(backend), ..Options::default() };
        let mut fixture = Fixture::with(options);
        fixture.client.sends(up(Binary, [0; 900])[..100].to_vec());
        fixture.backend.sends(down(Binary, [0; 900])[..100].to_vec());
        fixture.poll();
        fixture.pass(5);
        assert_eq!(fixture.ending(), None);
        fixture.pass(1);
        assert_eq!(fixture.ending().map(|ending| ending.0), reason);
    }
}

#[test]
fn the_clock_of_a_frame_stands_while_its_sender_is_not_read() {
    let mut fixture = Fixture::new();
    let frame = up(Binary, [0; 900]);
    fixture.client.sends(frame[..100].to_vec());
    fixture.poll();
    // The backend does not read for less than it may, again and again.
    for _ in 0..4 {
        fixture.backend.set(|wire| wire.room = 0);
        fixture.client.sends(vec![0; 10]);
        fixture.poll();
        fixture.pass(25);
        fixture.backend.set(|wire| wire.room = usize::MAX);
        fixture.poll();
        fixture.pass(1);
    }
    assert_eq!(fixture.ending(), None);
}

// Heartbeats.

#[test]
fn a_silent_client_is_pinged_and_its_answer_is_not_passed_on() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 2, false));
    fixture.pass(9);
    assert_eq!(fixture.client.frames(), [""; 0]);
    fixture.pass(1);
    assert_eq!(fixture.client.frames(), ["ping nonce"]);
    fixture.client.sends(up(Pong, NONCE));
    fixture.poll();
    fixture.pass(9);
    assert_eq!(fixture.frames(), (vec!["ping nonce".to_owned()], vec![]));
}

#[test]
fn the_round_trip_of_a_heartbeat_is_measured() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 2, true));
    // Not an answer: nothing was asked.
    fixture.client.sends(up(Pong, NONCE));
    fixture.pass(11);
    fixture.client.sends(up(Pong, NONCE));
    fixture.backend.sends(down(Pong, NONCE));
    fixture.poll();
    let text = fixture.all.encode();
    for peer in ["client", "backend"] {
        let line = format!("wssgate_heartbeat_round_trip_seconds_count{{peer=\"{peer}\"}} 1\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_client_that_answers_no_ping_is_given_up() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 2, false));
    fixture.pass(29);
    assert_eq!(fixture.ending(), None);
    assert_eq!(fixture.client.frames(), ["ping nonce", "ping nonce"]);
    fixture.pass(1);
    ended(&fixture, Reason::HeartbeatMissed);
    assert_eq!(fixture.client.frames(), ["ping nonce", "ping nonce", "close 1001"]);
    fixture.pass(6);
    assert!(fixture.is_over());
}

#[test]
fn any_byte_proves_that_a_client_lives() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 1, false));
    for _ in 0..10 {
        fixture.pass(9);
        fixture.client.sends(up(Text, "x"));
        fixture.poll();
    }
    assert_eq!(fixture.client.frames(), [""; 0]);
}

#[test]
fn the_backend_is_pinged_where_the_route_says_so() {
    for (backend, frames) in [(false, vec![]), (true, vec!["ping nonce".to_owned()])] {
        let mut fixture = Fixture::with(Options::heartbeat(10, 2, backend));
        fixture.pass(10);
        assert_eq!(fixture.backend.frames(), frames);
    }
}

#[test]
fn a_backend_that_answers_no_ping_is_given_up() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 1, true));
    for _ in 0..20 {
        fixture.client.sends(up(Text, "x"));
        fixture.poll();
        fixture.pass(1);
    }
    ended(&fixture, Reason::BackendHeartbeatMissed);
    assert_eq!(fixture.client.frames(), ["close 1011"]);
}

#[test]
fn our_ping_waits_until_the_backends_frame_has_ended() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 2, false));
    let frame = down(Text, "a frame");
    fixture.backend.sends(frame[..4].to_vec());
    fixture.poll();
    fixture.pass(10);
    assert_eq!(fixture.client.frames(), ["text a ..."]);
    fixture.backend.sends(frame[4..].to_vec());
    fixture.poll();
    assert_eq!(fixture.client.frames(), ["text a frame", "ping nonce"]);
}

#[test]
fn while_a_ping_of_the_backend_is_unanswered_ours_waits() {
    let mut fixture = Fixture::with(Options::heartbeat(10, 3, false));
    fixture.backend.sends(down(Ping, "theirs"));
    fixture.poll();
    fixture.pass(15);
    assert_eq!(fixture.client.frames(), ["ping theirs"]);
    fixture.client.sends(up(Pong, "theirs"));
    fixture.poll();
    fixture.pass(10);
    assert_eq!(fixture.client.frames(), ["ping theirs", "ping nonce"]);
    assert_eq!(fixture.backend.frames(), ["pong theirs"]);
}

#[test]
fn the_heartbeat_stands_while_the_client_is_not_read() {
    let mut fixture = Fixture::with(Options::heartbeat(5, 1, false));
    fixture.backend.set(|wire| wire.room = 0);
    fixture.client.sends(up(Text, "waits"));
    fixture.poll();
    fixture.pass(29);
    assert_eq!(fixture.ending(), None, "the stall is what counts here");
    assert_eq!(fixture.client.frames(), [""; 0]);
    fixture.pass(1);
    ended(&fixture, Reason::BackendStalled);
}

// What a route sets.

#[test]
fn a_connection_without_data_is_idle_and_pings_are_no_data() {
    let mut options = Options::heartbeat(10, 9, false);
    options.connection.idle_timeout = Some(Duration::from_secs(60));
    let mut fixture = Fixture::with(options);
    fixture.pass(30);
    fixture.backend.sends(down(Text, "data"));
    fixture.poll();
    for _ in 0..59 {
        fixture.client.sends(up(Pong, NONCE));
        fixture.client.sends(up(Ping, "x"));
        fixture.poll();
        fixture.pass(1);
    }
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::IdleTimeout);
}

#[test]
fn a_connection_has_its_longest_time() {
    let mut options = Options::default();
    options.connection.max_duration = Some(Duration::from_secs(100));
    let mut fixture = Fixture::with(options);
    fixture.pass(99);
    assert_eq!(fixture.ending(), None);
    fixture.pass(1);
    ended(&fixture, Reason::MaxDuration);
}

#[test]
fn a_credential_that_expires_ends_the_connection_unless_the_route_keeps_it() {
    for (outlives, reason) in [(false, Some(Reason::CredentialExpired)), (true, None)] {
        let mut options = Options { expires: Some(50), ..Options::default() };
        options.connection.outlives_credential = outlives;
        let mut fixture = Fixture::with(options);
        fixture.pass(49);
        assert_eq!(fixture.ending(), None);
        fixture.pass(1);
        assert_eq!(fixture.ending().map(|ending| ending.0), reason);
    }
}

#[test]
fn other_limits_of_the_route_count_from_the_next_frame_on() {
    let mut fixture = Fixture::new();
    fixture.client.sends(up(Text, "four"));
    fixture.poll();
    let lease = fixture.live.lease("a.test", "/").unwrap();
    let RouteState::Serving(policy) = &lease.route.state else { panic!("it serves") };
    let mut policy = crate::policy::Policy::clone(policy);
    policy.from_client.max_size = 3;
    fixture.publish(Some(RouteState::Serving(Arc::new(policy))));
    assert_eq!(fixture.ending(), None);
    fixture.client.sends(up(Text, "four"));
    fixture.poll();
    ended(&fixture, Reason::MessageTooBig);
    assert_eq!(fixture.backend.frames(), ["text four", "close 1001"]);
}

#[test]
fn a_route_that_is_gone_or_refuses_ends_its_connections() {
    let refusing = RouteState::Refusing(Reason::RouteUnavailable);
    for (state, reason) in [(None, Reason::RouteRemoved), (Some(refusing), Reason::AccessWithdrawn)] {
        let mut fixture = Fixture::new();
        fixture.publish(state);
        ended(&fixture, reason);
    }
}

#[test]
fn a_drain_ends_connections_when_their_turn_has_come() {
    let fixture = Fixture::new();
    let begin = crate::proxy::clock::Tick::FIRST;
    fixture.session.drain(begin, Duration::from_secs(20), begin);
    assert_eq!(fixture.session.commands.get().end, Some(Reason::Draining), "the first of 256 goes at once");
}
