//! What messages say: judged whole, in both directions, before a byte of them goes on.

use std::sync::Arc;

use super::fixture::{Fixture, Options, down, unfinished, up};
use crate::content::format::Format;
use crate::content::pointer::Pointer;
use crate::content::rules::{Literal, Rule, Rules};
use crate::content::schema::{Documents, Schema};
use crate::policy::{Content, Policy};
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::telemetry::access::fields::Detail;
use crate::ws::frame::Opcode::{Binary, Continuation, Ping, Text};
use crate::ws::message::Limits;

/// Messages `{"type": "say", "text": ...}` of at most so many characters.
fn rules(most: usize) -> Arc<Rules> {
    let text = format!(r#"{{"properties": {{"text": {{"maxLength": {most}}}}}, "required": ["text"]}}"#);
    let schema = Schema::read("s", &Documents::from([("s".to_owned(), text)])).unwrap();
    let rule = Rule {
        name: "say".into(),
        selector: vec![(Pointer::read("/type").unwrap(), Literal::String("say".into()))],
        payload: Pointer::read("").unwrap(),
        schema: Arc::new(schema),
    };
    Arc::new(Rules { format: Format::Json, rules: vec![rule], unmatched: false })
}

pub(super) fn options(most: usize) -> Options {
    let options = Options::default();
    let limits = Limits { hold_text: true, ..options.from_client };
    let content = Content { from_client: Some(rules(most)), from_backend: Some(rules(most)), incomplete: false };
    Options { from_client: limits, from_backend: limits, content, ..options }
}

fn say(text: &str) -> String {
    format!(r#"{{"type":"say","text":"{text}"}}"#)
}

const REFUSED: [(&str, Reason, Reason); 4] = [
    ("{", Reason::MessageMalformed, Reason::BackendMessageMalformed),
    (r#"{"type":"say","type":"say","text":"a"}"#, Reason::MessageMalformed, Reason::BackendMessageMalformed),
    (r#"{"type":"say","text":"secret"}"#, Reason::MessageInvalid, Reason::BackendMessageInvalid),
    (r#"{"type":"shout"}"#, Reason::MessageUnmatched, Reason::BackendMessageUnmatched),
];

#[test]
fn a_message_that_its_schema_takes_goes_on_as_it_came() {
    let mut fixture = Fixture::with(options(5));
    let text = " { \"type\" : \"say\", \"text\":\"\\u0068i\" } ";
    fixture.client.sends([unfinished(up(Text, &text[..9])), up(Ping, "?"), up(Continuation, &text[9..])].concat());
    fixture.backend.sends([down(Text, say("hi")), down(Binary, [0xff])].concat());
    fixture.poll();
    let frames = [format!("text+ {}", &text[..9]), format!("more {}", &text[9..])];
    assert_eq!(fixture.backend.frames()[1..], [frames[0].trim_end().to_owned(), frames[1].trim_end().to_owned()]);
    assert_eq!(fixture.client.frames(), [format!("text {}", say("hi")), "binary \u{fffd}".to_owned()]);
    assert_eq!((fixture.ending(), fixture.held.get()), (None, 0));
}

#[test]
fn whole_messages_of_one_read_go_on_together_and_hold_nothing() {
    let mut fixture = Fixture::with(options(5));
    fixture.client.sends([up(Text, say("one")), up(Binary, "plain"), up(Text, say("two"))].concat());
    fixture.backend.sends([down(Text, say("three")), down(Text, say("four"))].concat());
    fixture.poll();
    let sent = [format!("text {}", say("one")), "binary plain".to_owned(), format!("text {}", say("two"))];
    assert_eq!((fixture.backend.frames(), fixture.backend.packets()), (sent.to_vec(), 1));
    assert_eq!(fixture.client.frames(), [format!("text {}", say("three")), format!("text {}", say("four"))]);
    assert_eq!((fixture.client.packets(), fixture.ending(), fixture.held.get()), (1, None, 0));
}

#[test]
fn a_client_whose_message_is_refused_is_closed_and_no_byte_of_it_goes_on() {
    for (message, reason, _) in REFUSED {
        let mut fixture = Fixture::with(options(5));
        // What came before it in the same read goes on.
        fixture.client.sends([up(Text, say("hi")), up(Text, message), up(Text, say("late"))].concat());
        fixture.poll();
        assert_eq!(fixture.ending().map(|(reason, code, _)| (reason, code)), Some((reason, reason.close_code())));
        assert_eq!(fixture.backend.frames(), [format!("text {}", say("hi")), "close 1001".to_owned()], "{message}");
        assert_eq!(fixture.metrics.from_client.messages.get(), 1);
        assert_eq!((fixture.metrics.from_client.bytes.get(), fixture.held.get()), (say("hi").len() as u64, 0));
    }
}

#[test]
fn a_backend_whose_message_is_refused_ends_the_connection_with_1011() {
    for (message, _, reason) in REFUSED {
        let mut fixture = Fixture::with(options(5));
        fixture.backend.sends([down(Text, say("hi")), down(Text, message), down(Text, say("late"))].concat());
        fixture.poll();
        assert_eq!(fixture.ending().map(|(reason, code, _)| (reason, code)), Some((reason, Some(1011))));
        assert_eq!(fixture.client.frames(), [format!("text {}", say("hi")), "close 1011".to_owned()], "{message}");
    }
}

#[test]
fn the_log_names_the_schema_the_place_and_the_keyword_and_no_value() {
    let detail = |message: &str| {
        let mut fixture = Fixture::with(options(5));
        fixture.client.sends(up(Text, message));
        fixture.poll();
        fixture.detail()
    };
    let invalid = Detail {
        schema: Some("say".into()),
        pointer: Some("/text".to_owned()),
        keyword: Some("maxLength".to_owned()),
        ..Detail::default()
    };
    assert_eq!(detail(&say("secret")), Some(invalid));
    assert_eq!(detail(r#"{"type":"shout"}"#), Some(Detail::default()));
    let malformed = Detail { malformed: Some("duplicate_name"), ..Detail::default() };
    assert_eq!(detail(r#"{"a":1,"a":1}"#), Some(malformed));
}

#[test]
fn audit_counts_and_lets_through() {
    let mut fixture = Fixture::with(Options { audits: true, ..options(5) });
    for (message, ..) in REFUSED {
        fixture.client.sends(up(Text, message));
        fixture.backend.sends(down(Text, message));
    }
    fixture.client.sends(up(Text, say("hi")));
    fixture.poll();
    let messages: Vec<_> = REFUSED.iter().map(|(message, ..)| format!("text {message}")).collect();
    assert_eq!(fixture.client.frames(), messages);
    assert_eq!(fixture.backend.frames()[..4], messages);
    assert_eq!(fixture.ending(), None);
    let scrape = fixture.all.encode();
    for line in [
        "wssgate_audit_violations_total{route=\"shop/chat\",reason=\"message_malformed\"} 2\n",
        "wssgate_audit_violations_total{route=\"shop/chat\",reason=\"backend_message_invalid\"} 1\n",
        "wssgate_documents_judged_total{route=\"shop/chat\",direction=\"from_client\",schema=\"say\",verdict=\"matched\"} 1\n",
        "wssgate_documents_judged_total{route=\"shop/chat\",direction=\"from_client\",schema=\"say\",verdict=\"invalid\"} 1\n",
        "wssgate_documents_judged_total{route=\"shop/chat\",direction=\"from_client\",schema=\"none\",verdict=\"unmatched\"} 1\n",
        "wssgate_documents_judged_total{route=\"shop/chat\",direction=\"from_client\",schema=\"none\",verdict=\"malformed\"} 2\n",
    ] {
        assert!(scrape.contains(line), "{line} is not in\n{scrape}");
    }
    // What every message must be is enforced all the same.
    fixture.client.sends(up(Text, b"\xff"));
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::InvalidUtf8));
}

pub(super) fn publish(fixture: &mut Fixture, options: Options) {
    let lease = fixture.session.lease.borrow().route.clone();
    let RouteState::Serving(policy) = &lease.state else { unreachable!() };
    let policy = Policy {
        from_client: options.from_client,
        from_backend: options.from_backend,
        content: options.content,
        ..Policy::clone(policy)
    };
    fixture.publish(Some(RouteState::Serving(Arc::new(policy))));
}

#[test]
fn a_message_is_judged_by_the_rules_at_its_beginning() {
    let mut fixture = Fixture::with(options(5));
    let text = say("long text");
    fixture.client.sends(unfinished(up(Text, &text[..10])));
    fixture.poll();
    publish(&mut fixture, options(100));
    fixture.client.sends(up(Continuation, &text[10..]));
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::MessageInvalid));

    let mut fixture = Fixture::with(options(5));
    publish(&mut fixture, options(100));
    fixture.client.sends(up(Text, &text));
    fixture.poll();
    assert_eq!((fixture.ending(), fixture.backend.frames().len()), (None, 1));
    // Without rules messages stream again.
    publish(&mut fixture, Options::default());
    fixture.client.sends(unfinished(up(Text, "{")));
    fixture.poll();
    assert_eq!(fixture.backend.frames()[1], "text+ {");
}

#[test]
fn where_a_schema_cannot_be_had_the_rules_of_an_open_connection_stay() {
    let mut fixture = Fixture::with(options(5));
    let incomplete = Content { incomplete: true, ..Content::default() };
    publish(&mut fixture, Options { content: incomplete, ..Options::default() });
    fixture.client.sends(up(Text, say("hi")));
    fixture.poll();
    assert_eq!((fixture.ending(), fixture.backend.frames().len()), (None, 1));
    fixture.client.sends(up(Text, say("secret")));
    fixture.poll();
    assert_eq!(fixture.ending().map(|ending| ending.0), Some(Reason::MessageInvalid));
}

#[test]
fn while_memory_is_short_no_message_is_begun_and_one_that_was_begun_ends() {
    let mut fixture = Fixture::with(options(5));
    let text = say("hi");
    fixture.client.sends(unfinished(up(Text, &text[..9])));
    fixture.poll();
    fixture.held.set_short(true);
    fixture.client.sends(up(Continuation, &text[9..]));
    fixture.client.sends(up(Text, say("next")));
    fixture.backend.sends(down(Text, say("down")));
    fixture.poll();
    assert_eq!((fixture.backend.frames().len(), fixture.held.get()), (2, 0), "what was begun went on");
    assert_eq!((fixture.client.unread(), fixture.backend.unread(), fixture.client.frames().len()), (1, 1, 0));
    assert!(fixture.all.encode().contains("wssgate_throttles_total{route=\"shop/chat\",reason=\"overloaded\"} 2\n"));
    // Who is not read is neither idle nor slow nor dead.
    fixture.pass(120);
    assert_eq!(fixture.ending(), None);
    fixture.held.set_short(false);
    fixture.pass(1);
    assert_eq!((fixture.backend.frames().len(), fixture.client.frames().len()), (3, 1));
}
