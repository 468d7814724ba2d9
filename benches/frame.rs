//! The frame codec alone, in memory: headers, masks, and the judge on streams that are there at once.
//!
//! A judge leaves a client's stream as a client's stream under another mask, so the same bytes are judged again and
//! again and nothing is copied for the sake of the measurement.

#![allow(missing_docs, reason = "a benchmark has no API")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start should say so loudly")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wssgate::telemetry::metrics::Direction;
use wssgate::telemetry::metrics::Metrics;
use wssgate::ws::frame::{self, Header, Opcode};
use wssgate::ws::message::{Judge, Limits, Step};

const LIMITS: Limits =
    Limits { text: true, binary: true, max_size: 1 << 20, max_fragments: 1024, ..Limits::CONTROL_ONLY };
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("header");
    for len in [64, 1024, 65_536] {
        let mut bytes = Vec::new();
        Header { fin: true, opcode: Opcode::Text, mask: Some(KEY), len }.write(&mut bytes);
        group.bench_function(format!("parse {len}"), |b| b.iter(|| Header::parse(black_box(&bytes), true)));
    }
}

fn masks(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    for len in [64, 1024, 65_536] {
        let mut bytes = vec![b'a'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |b| b.iter(|| frame::mask(black_box(&mut bytes), KEY, 1)));
    }
}

/// Judges a whole stream once; gives its messages, so that nothing is optimised away and nothing is refused unseen.
fn judge(bytes: &mut [u8], masked: bool, keys: &mut u32) -> usize {
    let mut judge = Judge::new(masked);
    let mut key = || {
        *keys = keys.wrapping_mul(0x9E37_79B1).wrapping_add(0x7F4A_7C15);
        keys.to_ne_bytes()
    };
    let (mut at, mut messages) = (0, 0);
    loop {
        match judge.next(&mut bytes[at..], &LIMITS, 0, &mut key).unwrap() {
            Step::NeedMore => return messages,
            Step::Data { len, message } => {
                at += len;
                messages += usize::from(message);
            }
            Step::Held { len, .. }
            | Step::Watched { len, .. }
            | Step::Dropped { len }
            | Step::Control { len, .. }
            | Step::Close { len, .. } => at += len,
            Step::First { .. } => judge.rule(false),
        }
    }
}

fn judges(c: &mut Criterion) {
    let ascii = |len: usize| "The quick brown fox, 0123456789. ".chars().cycle().take(len).collect::<String>();
    let mixed = |len: usize| {
        let mut text = "A long run of plain text with one letter beyond it, é, in each. ".repeat(len / 64 + 1);
        text.truncate((0..=len).rev().find(|&end| text.is_char_boundary(end)).unwrap());
        text
    };
    let kana = |len: usize| "かなだけ".repeat(len / 12 + 1)[..len / 3 * 3].to_owned();
    let cases: [(&str, Opcode, Vec<u8>, usize, bool); 9] = [
        ("64 B x16 text", Opcode::Text, ascii(64).into(), 16, true),
        ("64 B x16 text, not ASCII", Opcode::Text, kana(64).into(), 16, true),
        ("64 B x16 binary", Opcode::Binary, vec![7; 64], 16, true),
        ("1 KiB x16 text", Opcode::Text, ascii(1024).into(), 16, true),
        ("64 KiB text", Opcode::Text, ascii(65_536).into(), 1, true),
        ("64 KiB text, mixed", Opcode::Text, mixed(65_536).into(), 1, true),
        ("64 KiB text, not ASCII", Opcode::Text, kana(65_536).into(), 1, true),
        ("64 KiB binary", Opcode::Binary, vec![7; 65_536], 1, true),
        ("64 KiB text from a server", Opcode::Text, ascii(65_536).into(), 1, false),
    ];
    let mut group = c.benchmark_group("judge");
    for (name, opcode, payload, count, masked) in cases {
        let mut stream = Vec::new();
        for _ in 0..count {
            frame::write(&mut stream, opcode, &payload, masked.then_some(KEY));
        }
        let mut keys = 1;
        assert_eq!(judge(&mut stream, masked, &mut keys), count);
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |b| b.iter(|| judge(black_box(&mut stream), masked, &mut keys)));
    }
}

/// What the metrics cost for each message: the size goes into a histogram.
fn message_sizes(c: &mut Criterion) {
    let metrics = Metrics::new();
    let sizes = metrics.message_sizes();
    let mixed: Vec<u64> = (0_u64..1024).map(|n| n.wrapping_mul(0x9E37_79B9) % 70_000).collect();
    let mut group = c.benchmark_group("message size");
    group.throughput(Throughput::Elements(mixed.len() as u64));
    group.bench_function("record 1024", |b| {
        b.iter(|| mixed.iter().for_each(|len| sizes.record(Direction::FromClient, black_box(*len))));
    });
    group.finish();
    black_box(metrics.encode());
}

criterion_group!(benches, headers, masks, judges, message_sizes);
criterion_main!(benches);
