//! Properties of everything in `ws` and `content` that parses or judges: the functions that the fuzz targets run, on generated input here.

use std::cell::Cell;

use crate::root;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio_tungstenite::tungstenite::Message;
use wssgate::ws::frame::{Header, Opcode, mask};
use wssgate::ws::message::{Limits, Violation};
use wssgate::ws::utf8::Utf8;

#[expect(unreachable_pub, reason = "the fuzz crate exports them")]
#[path = "../fuzz/src/lib.rs"]
mod bodies;

use bodies::frame::{LIMITS, Run, check_cuts, frames, read};

/// One message or control frame, and how a peer might put it on the wire.
#[derive(Debug, Clone)]
enum Sent {
    Data { text: Option<String>, binary: Vec<u8>, cuts: Vec<prop::sample::Index>, ping: Option<Vec<u8>> },
    Control { pong: bool, payload: Vec<u8> },
}

impl Sent {
    fn messages(&self) -> Vec<Message> {
        match self {
            Self::Data { text, binary, cuts, ping } => {
                let data = match text {
                    Some(text) => Message::text(text.clone()),
                    None => Message::binary(binary.clone()),
                };
                // The ping stands between the fragments, so it is read before the message is whole.
                let ping = ping.clone().filter(|_| !cuts.is_empty()).map(|payload| Message::Ping(payload.into()));
                ping.into_iter().chain([data]).collect()
            }
            Self::Control { pong: true, payload } => vec![Message::Pong(payload.clone().into())],
            Self::Control { pong: false, payload } => vec![Message::Ping(payload.clone().into())],
        }
    }

    fn write(&self, out: &mut Vec<u8>, key: Option<[u8; 4]>) {
        match self {
            Self::Control { pong, payload } => {
                let opcode = if *pong { Opcode::Pong } else { Opcode::Ping };
                write(out, true, opcode, payload, key);
            }
            Self::Data { text, binary, cuts, ping } => {
                let payload = text.as_ref().map_or(&binary[..], |text| text.as_bytes());
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
                cuts.sort_unstable();
                let mut opcode = if text.is_some() { Opcode::Text } else { Opcode::Binary };
                let mut from = 0;
                for &cut in &cuts {
                    write(out, false, opcode, &payload[from..cut], key);
                    opcode = Opcode::Continuation;
                    from = cut;
                }
                if let Some(ping) = ping.as_ref().filter(|_| !cuts.is_empty()) {
                    write(out, true, Opcode::Ping, ping, key);
                }
                write(out, true, opcode, &payload[from..], key);
            }
        }
    }
}

/// A frame as RFC 6455 §5.2 draws it, not by the code under test but for the header.
fn write(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    Header { fin, opcode, mask: key, len: payload.len() as u64 }.write(out);
    let key = key.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |max: usize| vec(any::<u8>(), 0..max);
    let long = prop_oneof![8 => bytes(300), 1 => (65_530usize..65_545).prop_map(|len| vec![0xE9; len])];
    let text = prop_oneof![8 => any::<String>(), 1 => (8_000usize..17_000).prop_map(|len| "é€🦀".repeat(len / 9))];
    prop_oneof![
        3 => (prop::option::of(text), long, vec(any::<prop::sample::Index>(), 0..6), prop::option::of(bytes(126)))
            .prop_map(|(text, binary, cuts, ping)| Sent::Data { text, binary, cuts, ping }),
        1 => (any::<bool>(), bytes(126)).prop_map(|(pong, payload)| Sent::Control { pong, payload }),
    ]
}

/// A line that a head may have, good or bad.
fn line() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "Host: a.test",
        "Host: A.test:8443",
        "Upgrade: websocket",
        "Upgrade: h2c",
        "Connection: Upgrade",
        "Connection: keep-alive, Upgrade",
        "Connection: Cookie, X-A",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Version: 8",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat, a",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Origin: https://a.test",
        "Cookie: a=b",
        "X-A: 1",
        "X_A: 1",
        "X-Forwarded-For: 1.2.3.4",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        " folded",
        "",
    ]);
    prop_oneof![6 => known.prop_map(str::to_owned), 1 => "[!-~]{1,12}:[ -~\t]{0,20}", 1 => any::<String>()]
}

fn path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z0-9._~!$&'()*+,=:@-]{1,6}",
        2 => "%[0-9a-fA-F]{2}",
        1 => "%25[0-9a-f]{2}",
        1 => prop::sample::select(vec!["/", "//", ".", "..", ";", "\\", "%", "%2e", "%2f", "é", "?", "#", " "])
            .prop_map(str::to_owned),
        3 => Just("/".to_owned()),
    ];
    vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn good_head() -> impl Strategy<Value = String> {
    let extra = prop::sample::select(vec![
        "",
        "Cookie: caf=\u{e9}\r\n",
        "Origin: https://a.test\r\nUser-Agent: x\r\n",
        "Sec-WebSocket-Protocol: a, b\r\n",
        "X-Real-IP: 1.1.1.1\r\nConnection: x-a\r\nX-A: b\r\n",
        "Origin: https://a.test\r\nOrigin: https://b.test\r\n",
    ]);
    let query = prop::option::of("[!\"$-~]{0,20}");
    (vec("[a-z0-9%_-]{1,8}", 0..4), query, vec(extra, 0..3)).prop_filter_map("a good head", |(path, query, extra)| {
        let path = format!("/{}", path.join("/").replace('%', "%25"));
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        let head = format!(
            "GET {path}{query} HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            extra.concat()
        );
        (head.matches("Protocol").count() < 2).then_some(head)
    })
}

proptest! {
    #[test]
    fn any_bytes_are_judged_alike_in_any_cut(data in vec(any::<u8>(), 0..200)) {
        bodies::frame::check(&data);
    }

    #[test]
    fn headers_agree_with_tungstenite(first: u8, second: u8, rest in vec(any::<u8>(), 0..14), masked: bool) {
        let bytes = [&[first, second][..], &rest].concat();
        for len in 0..=bytes.len() {
            bodies::frame::check_header(&bytes[..len], masked);
        }
    }

    #[test]
    fn messages_arrive_as_they_were_sent(
        sent in vec(sent(), 0..6),
        key in prop::option::of(any::<[u8; 4]>()),
        pieces in vec(1usize..5_000, 1..6),
    ) {
        let mut stream = Vec::new();
        sent.iter().for_each(|sent| sent.write(&mut stream, key));
        let expected: Vec<Message> = sent.iter().flat_map(Sent::messages).collect();
        let run = Run::of(&stream, &[usize::MAX], key.is_some(), &LIMITS);
        prop_assert_eq!(run.violation, None);
        prop_assert_eq!(run.within, (false, false));
        prop_assert_eq!(run.messages, sent.iter().filter(|sent| matches!(sent, Sent::Data { .. })).count());
        prop_assert_eq!(run.out.len(), stream.len());
        prop_assert_eq!(read(&run.out, key.is_some()), (expected, "waits".to_owned()));
        check_cuts(&run, &stream, &pieces, key.is_some(), &LIMITS);
    }

    #[test]
    fn messages_arrive_as_they_were_sent_where_they_are_held(
        sent in vec(sent(), 0..6),
        key in prop::option::of(any::<[u8; 4]>()),
        pieces in vec(1usize..5_000, 1..6),
    ) {
        let mut stream = Vec::new();
        sent.iter().for_each(|sent| sent.write(&mut stream, key));
        let limits = Limits { hold_text: true, hold_binary: true, ..LIMITS };
        let run = Run::of(&stream, &pieces, key.is_some(), &limits);
        prop_assert_eq!(run.violation, None);
        prop_assert_eq!(run.out.len(), stream.len());
        prop_assert_eq!(frames(&run.out), frames(&stream));
    }

    #[test]
    fn a_good_stream_with_one_bad_byte_is_judged_alike_in_any_cut(
        sent in vec(sent(), 1..4),
        key in prop::option::of(any::<[u8; 4]>()),
        at: prop::sample::Index,
        flip in 1u8..,
        pieces in any::<[u8; 4]>(),
    ) {
        let mut stream = vec![u8::from(key.is_some())];
        stream.extend_from_slice(&pieces);
        sent.iter().for_each(|sent| sent.write(&mut stream, key));
        prop_assume!(stream.len() < 5_000);
        let len = stream.len();
        stream[5 + at.index(len - 5)] ^= flip;
        bodies::frame::check(&stream);
    }

    #[test]
    fn a_text_message_passes_where_std_calls_it_utf8(
        start: String,
        end in vec(prop_oneof![3 => 0x80u8..0xC0, 1 => any::<u8>(), 1 => Just(0xE2), 1 => Just(0xF0)], 0..4),
        cuts in vec(any::<prop::sample::Index>(), 0..4),
        key in prop::option::of(any::<[u8; 4]>()),
    ) {
        let binary = [start.as_bytes(), &end].concat();
        let expected = std::str::from_utf8(&binary).map(|_| ()).map_err(|_| Violation::Utf8);
        let mut stream = Vec::new();
        // Written as a text message whatever its bytes are: the first frame's opcode is the only difference.
        Sent::Data { text: None, binary, cuts, ping: None }.write(&mut stream, key);
        stream[0] ^= Opcode::Text.bits() ^ Opcode::Binary.bits();
        let run = Run::of(&stream, &[usize::MAX], key.is_some(), &LIMITS);
        prop_assert_eq!(run.violation.map_or(Ok(()), Err), expected);
        check_cuts(&run, &stream, &[1, 2], key.is_some(), &LIMITS);
    }

    #[test]
    fn text_in_pieces_is_utf8_where_std_says_so(bytes in vec(prop_oneof![3 => 0x80u8..0xC0, 1 => any::<u8>(), 1 => Just(0xE2), 1 => Just(0xF0)], 0..40),
        text: String, pieces in vec(1usize..9, 1..5)) {
        for candidate in [&bytes[..], text.as_bytes(), &[text.as_bytes(), &bytes].concat()] {
            let mut utf8 = Utf8::default();
            let mut sizes = pieces.iter().cycle();
            let mut fed = 0;
            let mut verdict = Ok(());
            while fed < candidate.len() && verdict.is_ok() {
                let end = candidate.len().min(fed + sizes.next().copied().unwrap_or(1));
                verdict = utf8.feed(&candidate[fed..end]);
                fed = end;
                // It fails exactly when no continuation could save the text.
                let hopeless = std::str::from_utf8(&candidate[..fed]).is_err_and(|e| e.error_len().is_some());
                prop_assert_eq!(verdict.is_err(), hopeless);
            }
            let verdict = verdict.and_then(|()| utf8.finish());
            prop_assert_eq!(verdict.is_ok(), std::str::from_utf8(candidate).is_ok());
        }
    }

    #[test]
    fn masking_is_xor_by_position(mut bytes in vec(any::<u8>(), 0..200), key: [u8; 4], offset in 0usize..1_000_000) {
        let expected: Vec<u8> = bytes.iter().enumerate().map(|(at, byte)| byte ^ key[(at + offset) % 4]).collect();
        mask(&mut bytes, key, offset);
        prop_assert_eq!(bytes, expected);
    }

    #[test]
    fn a_good_head_is_good_whole_only_and_goes_on_as_understood(head in good_head(), behind in vec(any::<u8>(), 0..9)) {
        let bytes = [head.as_bytes(), &behind].concat();
        let parsed = wssgate::ws::upgrade::parse_request(&bytes, wssgate::ws::upgrade::MAX_HEAD);
        prop_assert!(matches!(parsed, Ok(Some(_))), "{:?} for {}", parsed, head);
        bodies::handshake::check(&bytes);
    }

    #[test]
    fn heads_of_good_and_bad_lines_are_judged_soundly(first in path(), lines in vec(line(), 0..12), raw in vec(any::<u8>(), 0..60)) {
        bodies::handshake::check(format!("GET {first} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes());
        bodies::response::check(format!("HTTP/1.1 101 X\r\n{}\r\n\r\n", lines.join("\r\n")).as_bytes());
        bodies::handshake::check(&raw);
        bodies::response::check(&raw);
    }

    #[test]
    fn text_is_read_as_the_plain_reader_reads_it(flags: u8, text in r#"(4[0-6])?[0-9-]{0,2}(/a,)?[\[\]{}:,"a-c0-9eE.+\\\x1e -]{0,40}"#) {
        bodies::content::check(&[&[flags], text.as_bytes()].concat());
    }

    #[test]
    fn an_accepted_path_is_the_same_path_for_every_reader(path in path()) {
        bodies::path::check(path.as_bytes());
    }

    #[test]
    fn an_accepted_path_leads_every_reader_to_the_same_rule(
        path in vec(prop::sample::select(vec!["/", "/", "/", "a", "a", "b", "%61", ";", "%3B", "%3f", "%2F", ".", "%2e", "%25"]), 0..9),
        rules in vec(prop::sample::select(vec!["/", "/a", "/b", "/a/b", "/a/a", "=/", "=/a", "=/a/", "=/a/b", "=/a?b"]), 1..5),
    ) {
        let mut rules = rules;
        rules.sort_unstable();
        rules.dedup();
        bodies::path::check_match(&format!("/{}", path.concat()), &rules);
    }
}

#[test]
fn schemas_judge_as_another_validator_does() {
    let seen = Cell::new((0, 0));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(2_000));
    let judged = runner.run(&vec(any::<u8>(), 0..200), |data| {
        let (valid, invalid) = bodies::schema::judged(&data);
        seen.set((seen.get().0 + valid, seen.get().1 + invalid));
        Ok(())
    });
    judged.unwrap();
    let (valid, invalid) = seen.get();
    assert!(valid > 500 && invalid > 500, "{valid} documents were valid, {invalid} were not");
}

/// Runs every committed seed, and what a fuzzer once found, through its property.
#[test]
fn every_seed_of_the_corpus_holds() {
    type Body = fn(&[u8]);
    let targets: [(&str, Body); 10] = [
        ("frame", bodies::frame::check),
        ("handshake", bodies::handshake::check),
        ("response", bodies::response::check),
        ("path", bodies::path::check),
        ("proxy_protocol", bodies::proxy_protocol::check),
        ("objects", bodies::objects::check),
        ("content", bodies::content::check),
        ("deflate", bodies::deflate::check),
        ("schema", bodies::schema::check),
        ("tunnel", bodies::tunnel::check),
    ];
    for (target, check) in targets {
        let corpus = root().join("fuzz/corpus").join(target);
        let mut seeds = 0;
        for entry in std::fs::read_dir(&corpus).expect("a corpus for each target") {
            check(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
            seeds += 1;
        }
        assert!(seeds >= 5, "{target} has {seeds} seeds");
    }
}
