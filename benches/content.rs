//! What judging a message costs, and what reading a schema costs.
//!
//! ```text
//! cargo bench --bench content
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark fails by panicking")]

mod say;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use wssgate::content::format::Format;
use wssgate::content::json::{self, MAX_VALUES};
use wssgate::content::pointer::Pointer;
use wssgate::content::rules::{Literal, Rule, Rules};
use wssgate::content::schema::{Documents, Schema};
use wssgate::ws::deflate::{Codec, MAX_WINDOW};

fn read(schema: &Value) -> Arc<Schema> {
    let documents = Documents::from([("s".to_owned(), schema.to_string())]);
    Arc::new(Schema::read("s", &documents).unwrap())
}

fn judge(c: &mut Criterion) {
    let message = say::message(1_234_567_890_123);
    let rule = Rule {
        name: "say".into(),
        selector: vec![(Pointer::read("/type").unwrap(), Literal::String("say".into()))],
        payload: Pointer::read("").unwrap(),
        schema: read(&say::schema(0)),
    };
    let rules = Rules { format: Format::Json, rules: vec![rule], unmatched: false };
    let mut group = c.benchmark_group("1 KiB of JSON");
    group.throughput(Throughput::Bytes(message.len() as u64));
    group.bench_function("read", |b| {
        b.iter(|| json::read(black_box(message.as_bytes()), &mut MAX_VALUES.clone()).unwrap());
    });
    group.bench_function("read and judged by ten properties", |b| {
        b.iter(|| rules.judge(black_box(message.as_bytes()), |_| {}).unwrap());
    });
    group.finish();
}

/// The dearest message that the bounds let through: as many values as a schema of so many alternatives judges.
fn worst(c: &mut Criterion) {
    let mut group = c.benchmark_group("the most that a message may cost");
    group.sample_size(10);
    for (alternatives, values) in [(900, 1_000), (100, 9_000), (14, 65_000)] {
        let one = |n: usize| json!({"pattern": format!("^x{n}$")});
        let any = json!({"items": {"anyOf": (0..alternatives).map(one).collect::<Vec<_>>()}});
        let rule =
            Rule { name: "any".into(), selector: vec![], payload: Pointer::read("").unwrap(), schema: read(&any) };
        let rules = Rules { format: Format::Json, rules: vec![rule], unmatched: false };
        let text = json!(vec![format!("x{}", alternatives - 1); values]).to_string();
        group.bench_function(format!("{alternatives} alternatives, {values} values"), |b| {
            b.iter(|| rules.judge(black_box(text.as_bytes()), |_| {}).unwrap());
        });
    }
    // The longest string that this pattern judges; it holds 400 positions at a time.
    let rule = Rule {
        name: "long".into(),
        selector: vec![],
        payload: Pointer::read("").unwrap(),
        schema: read(&json!({"pattern": "[ab]*b[ab]{400}c"})),
    };
    let rules = Rules { format: Format::Json, rules: vec![rule], unmatched: false };
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { 'a' } else { 'b' }
    };
    let text = json!((0..4_900).map(|_| next()).collect::<String>() + "c").to_string();
    group.bench_function("a pattern of 403 positions, 4,903 bytes", |b| {
        b.iter(|| rules.judge(black_box(text.as_bytes()), |_| {}).is_ok());
    });
    group.finish();
}

fn schemas(c: &mut Criterion) {
    let mut group = c.benchmark_group("schemas");
    group.sample_size(10);
    let documents: Vec<Documents> =
        (0..1_000).map(|n| Documents::from([("s".to_owned(), say::schema(n).to_string())])).collect();
    group.bench_function("read 1000 of ten properties", |b| {
        b.iter(|| documents.iter().for_each(|documents| drop(black_box(Schema::read("s", documents).unwrap()))));
    });
    group.finish();
}

/// Lists of small records, as many interfaces send them.
fn compression(c: &mut Criterion) {
    let record = |n: u64| {
        let (id, at) = (n * 7919 % 100_003, 1_234_567_890_123 + n * 104_729);
        format!("{{\"id\":{id},\"user\":\"user {}\",\"room\":\"general\",\"at\":{at},\"read\":false}},", id % 97)
    };
    let all: String = (0..2_000).map(record).collect();
    let mut codec = Codec::default();
    for kib in [1, 16, 64] {
        let message = &all.as_bytes()[..kib << 10];
        let small = codec.deflate(message, MAX_WINDOW).unwrap();
        println!("{kib} KiB: {} bytes compressed", small.len());
        let mut group = c.benchmark_group(format!("compression of {kib} KiB of JSON"));
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function("deflate", |b| b.iter(|| codec.deflate(black_box(message), MAX_WINDOW)));
        group.bench_function("inflate", |b| b.iter(|| codec.inflate(black_box(&small), 64 << 10)));
        group.finish();
    }
}

criterion_group!(benches, judge, worst, schemas, compression);
criterion_main!(benches);
