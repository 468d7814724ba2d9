//! Compression between client and gateway (RFC 7692): what is inflated is judged like any other message.

use std::time::Duration;

use super::fixture::{Fixture, KEY, Options, code, down, unfinished, up};
use super::judged;
use crate::policy::Rate;
use crate::policy::message_rate::{ByteRate, MessageRate, OnExceeded, Pacing, Scope};
use crate::reason::Reason;
use crate::ws::deflate::{Codec, MAX, MAX_WINDOW, MIN, RSV1};
use crate::ws::frame::Header;
use crate::ws::frame::Opcode::{Binary, Close, Continuation, Ping, Text};
use crate::ws::message::Limits;

fn fixture(options: Options) -> Fixture {
    let wide = Limits { max_size: 2 << 20, ..options.from_backend };
    Fixture::with(Options { deflate: Some(MAX_WINDOW), from_backend: wide, ..options })
}

fn deflated(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Codec::default().deflate(payload.as_ref(), MAX_WINDOW).unwrap()
}

/// A frame with RSV1.
fn rsv1(mut frame: Vec<u8>) -> Vec<u8> {
    frame[0] |= RSV1;
    frame
}

/// A compressed message of the client in one frame.
fn small(text: &str) -> Vec<u8> {
    rsv1(up(Text, deflated(text)))
}

fn ending(fixture: &Fixture) -> Option<Reason> {
    fixture.ending().map(|ending| ending.0)
}

const LONG: &str = "a message that repeats itself, a message that repeats itself, a message that repeats itself";

#[test]
fn a_compressed_message_reaches_the_backend_inflated_however_it_is_cut() {
    let (bytes, text) = (deflated(LONG), format!("text {LONG}"));
    for cut in 0..=bytes.len() {
        let mut fixture = fixture(Options::default());
        fixture.client.sends(rsv1(unfinished(up(Text, &bytes[..cut]))));
        fixture.poll();
        fixture.client.sends(up(Ping, "?"));
        fixture.client.sends(up(Continuation, &bytes[cut..]));
        fixture.client.sends(up(Text, "plain"));
        fixture.poll();
        assert_eq!(fixture.backend.frames(), ["ping ?", &text, "text plain"], "{cut}");
    }
    let mut fixture = fixture(Options::default());
    for byte in small(LONG) {
        fixture.client.sends(vec![byte]);
        fixture.poll();
    }
    assert_eq!((fixture.backend.frames(), fixture.backend.packets()), (vec![text], 1));
    assert_ne!(&fixture.backend.received()[2..6], KEY, "the mask is fresh");
    assert_eq!(fixture.held.get(), 0);
    let traffic = &fixture.metrics.from_client;
    let counts = (traffic.messages.get(), traffic.bytes.get(), traffic.compressed.get());
    assert_eq!(counts, (1, LONG.len() as u64, 1), "what is counted is what the backend receives");
    let size = format!("wssgate_message_size_bytes_sum{{direction=\"from_client\"}} {}.0\n", LONG.len());
    assert!(fixture.all.encode().contains(&size));
}

#[test]
fn what_a_message_inflates_to_is_judged() {
    let cases: [(Vec<u8>, Reason, u16); 7] = [
        (small(&"a".repeat(1001)), Reason::MessageTooBig, 1009),
        // A bomb: a hundred thousand bytes in a few hundred.
        (rsv1(up(Binary, deflated(vec![0; 100_000]))), Reason::MessageTooBig, 1009),
        (rsv1(up(Text, deflated([&[0xFF][..], &[b'a'; 99]].concat()))), Reason::InvalidUtf8, 1007),
        (rsv1(up(Text, "Hello")), Reason::CompressionInvalid, 1007),
        (rsv1(up(Text, "")), Reason::CompressionInvalid, 1007),
        (rsv1(up(Text, &deflated(LONG)[..9])), Reason::CompressionInvalid, 1007),
        // More on the wire than the largest message could need.
        (rsv1(up(Binary, vec![0; 1127])), Reason::MessageTooBig, 1009),
    ];
    for (bytes, reason, close) in cases {
        for audits in [false, true] {
            let mut fixture = fixture(Options { audits, ..Options::default() });
            fixture.client.sends([up(Text, "before"), bytes.clone(), up(Text, "behind")].concat());
            fixture.poll();
            assert_eq!(ending(&fixture), Some(reason));
            let (client, backend) = fixture.frames();
            assert_eq!(backend, ["text before", "close 1001"], "{reason:?}");
            assert_eq!(client, [format!("close {close}")]);
            let traffic = &fixture.metrics.from_client;
            assert_eq!((traffic.messages.get(), fixture.held.get()), (1, 0), "{reason:?}");
        }
    }
    // Exactly what is allowed passes.
    let mut fixture = fixture(Options::default());
    fixture.client.sends(small(&"a".repeat(1000)));
    fixture.poll();
    assert_eq!((ending(&fixture), fixture.backend.frames().len()), (None, 1));
}

#[test]
fn a_dense_message_is_refused_by_its_ratio() {
    let options = Options::default();
    let limits = Limits { max_size: 16 << 20, ..options.from_client };
    let mut fixture = fixture(Options { from_client: limits, ..options });
    fixture.client.sends(rsv1(up(Binary, deflated(vec![0; 1 << 20]))));
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| (ending.0, ending.1)), Some((Reason::CompressionRatio, Some(1009))));
}

#[test]
fn rsv1_is_refused_where_rfc_7692_does_not_allow_it() {
    let misused = [
        rsv1(up(Ping, "")),
        rsv1(up(Close, code(1000))),
        [unfinished(up(Text, "a")), rsv1(up(Continuation, "b"))].concat(),
        [rsv1(unfinished(up(Text, "a"))), rsv1(up(Continuation, "b"))].concat(),
        [rsv1(unfinished(up(Text, "a"))), rsv1(up(Text, "b"))].concat(),
    ];
    for bytes in misused {
        let mut fixture = fixture(Options::default());
        fixture.client.sends(bytes);
        fixture.poll();
        assert_eq!(fixture.ending().map(|ending| (ending.0, ending.1)), Some((Reason::ProtocolError, Some(1002))));
    }
    // Without compression, and from a backend always.
    let mut fixture = Fixture::new();
    fixture.client.sends(small(LONG));
    fixture.poll();
    assert_eq!(ending(&fixture), Some(Reason::ProtocolError));
    let mut fixture = self::fixture(Options::default());
    fixture.backend.sends(rsv1(down(Text, deflated(LONG))));
    fixture.poll();
    assert_eq!(ending(&fixture), Some(Reason::BackendProtocolError));
}

#[test]
fn a_schema_judges_what_a_message_inflates_to() {
    let say = |text: &str| format!(r#"{{"type":"say","text":"{text}"{:80}}}"#, "");
    let refused = || small(&say("too long"));
    let mut fixture = fixture(judged::options(5));
    fixture.client.sends([small(&say("hi")), refused()].concat());
    fixture.poll();
    assert_eq!(ending(&fixture), Some(Reason::MessageInvalid));
    assert_eq!(fixture.backend.frames(), [format!("text {}", say("hi")), "close 1001".to_owned()]);
    assert_eq!(fixture.held.get(), 0);

    let mut fixture = self::fixture(Options { audits: true, ..judged::options(5) });
    fixture.client.sends(refused());
    fixture.poll();
    assert_eq!((ending(&fixture), fixture.backend.frames().len()), (None, 1));
    assert!(
        fixture.all.encode().contains("audit_violations_total{route=\"shop/chat\",reason=\"message_invalid\"} 1\n")
    );
}

#[test]
fn types_and_rates_judge_a_compressed_message_by_its_header() {
    let options = Options::default();
    let text_only = Limits { binary: false, ..options.from_client };
    let mut fixture = fixture(Options { from_client: text_only, ..options });
    fixture.client.sends(rsv1(up(Binary, deflated(LONG))));
    fixture.poll();
    assert_eq!(ending(&fixture), Some(Reason::TypeNotAllowed));

    let rate = Rate { count: 1, interval: Duration::from_secs(1), burst: 1 };
    let messages = MessageRate { rate, scope: Scope::Connection, on_exceeded: OnExceeded::Drop };
    let client_pacing = Pacing { messages: Some(messages), ..Pacing::default() };
    let mut fixture = self::fixture(Options { client_pacing, ..Options::default() });
    // What is left out is not even inflated.
    fixture.client.sends([small(LONG), small(LONG), rsv1(up(Text, "not deflated"))].concat());
    fixture.poll();
    assert_eq!((ending(&fixture), fixture.backend.frames()), (None, vec![format!("text {LONG}")]));

    // Bytes are those that the backend receives: 800 at once, 10 a second.
    let bytes = ByteRate { size: 10, interval: rate.interval, burst: 800, on_exceeded: OnExceeded::Throttle };
    let client_pacing = Pacing { bytes: Some(bytes), ..Pacing::default() };
    let mut fixture = self::fixture(Options { client_pacing, ..Options::default() });
    fixture.client.sends(small(&"a".repeat(1000)));
    fixture.client.sends(up(Text, "later"));
    fixture.poll();
    assert_eq!((fixture.client.unread(), fixture.backend.frames().len()), (1, 1));
    fixture.pass(30);
    assert_eq!((fixture.client.unread(), fixture.backend.frames().len()), (0, 2));
}

/// The bytes of the first frame that the client received: whether it is compressed, and its payload as it was sent.
fn received(fixture: &Fixture) -> (bool, Vec<u8>) {
    let bytes = fixture.client.received();
    let (header, size) = Header::parse_with(&bytes, false, true).unwrap().unwrap();
    assert_eq!(bytes.len() as u64, size as u64 + header.len);
    let payload = bytes[size..].to_vec();
    match bytes[0] & RSV1 != 0 {
        true => (true, Codec::default().inflate(&payload, u64::MAX).unwrap()),
        false => (false, payload),
    }
}

#[test]
fn a_message_of_the_backend_is_compressed_from_a_size_on_if_that_makes_it_smaller() {
    let numbers: String = (0..200_000).map(|number| format!("{number}, ")).collect();
    let text = |len: usize| numbers.as_bytes()[..len].to_vec();
    let mut noise = vec![0; 4096];
    aws_lc_rs::rand::fill(&mut noise).unwrap();
    let (min, max) = (usize::try_from(MIN).unwrap(), usize::try_from(MAX).unwrap());
    for (payload, compressed) in
        [(text(min - 1), false), (text(min), true), (text(max), true), (text(max + 1), false), (noise, false)]
    {
        let mut fixture = fixture(Options::default());
        for piece in down(Binary, &payload).chunks(100_000) {
            fixture.backend.sends(piece);
        }
        while fixture.backend.unread() > 0 {
            fixture.poll();
        }
        assert_eq!(received(&fixture), (compressed, payload.clone()), "{}", payload.len());
        assert_eq!(fixture.metrics.from_backend.compressed.get(), u64::from(compressed));
        assert_eq!((fixture.metrics.from_backend.bytes.get(), fixture.held.get()), (payload.len() as u64, 0));
    }
    // A message in several frames streams as it comes.
    let mut fixture = fixture(Options::default());
    fixture.backend.sends(unfinished(down(Text, text(2000))));
    fixture.poll();
    assert_eq!(fixture.client.received(), unfinished(down(Text, text(2000))));
}

#[test]
fn messages_keep_their_order_whether_they_are_compressed_or_not() {
    let long = "abc".repeat(500);
    let mut fixture = fixture(Options::default());
    fixture.client.sends([up(Text, "1"), small(LONG), up(Text, "2"), small(LONG), up(Text, "3")].concat());
    fixture.backend.sends([down(Text, "1"), down(Text, &long), down(Ping, "?"), down(Text, "2")].concat());
    fixture.poll();
    let inflated = format!("text {LONG}");
    assert_eq!(fixture.backend.frames(), ["text 1", &inflated, "text 2", &inflated, "text 3"]);
    let compressed = rsv1(down(Text, deflated(&long)));
    assert_eq!(fixture.client.received(), [down(Text, "1"), compressed, down(Ping, "?"), down(Text, "2")].concat());
}

#[test]
fn a_tunnel_is_recognised_in_what_a_message_inflates_to() {
    let options = super::tunnels::watched(super::tunnels::DENY);
    let mut fixture = fixture(options);
    fixture.client.sends(rsv1(up(Binary, deflated(format!("SSH-2.0-OpenSSH_9.9\r\n{:200}", "")))));
    fixture.poll();
    assert_eq!((ending(&fixture), fixture.backend.frames().len()), (Some(Reason::TunnelDetected), 1));
}

#[test]
fn a_route_that_no_longer_compresses_keeps_what_a_connection_negotiated() {
    let mut fixture = fixture(Options::default());
    judged::publish(&mut fixture, Options::default());
    fixture.client.sends(small(LONG));
    fixture.poll();
    assert_eq!((ending(&fixture), fixture.backend.frames()), (None, vec![format!("text {LONG}")]));
}

#[test]
fn while_memory_is_short_no_compressed_message_is_begun() {
    let mut fixture = fixture(Options::default());
    fixture.held.set_short(true);
    fixture.client.sends(small(LONG));
    fixture.poll();
    assert_eq!((fixture.client.unread(), fixture.backend.frames().len()), (1, 0));
    fixture.held.set_short(false);
    fixture.pass(1);
    assert_eq!(fixture.backend.frames().len(), 1);
}
