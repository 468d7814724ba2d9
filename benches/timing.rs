//! Whether the time of a refusal tells how much of a symmetric signature was right: two classes of wrong tokens, one with
//! the first byte of the signature changed and one with the last, in random order, and Welch's t of their times (the
//! method of dudect: |t| under 4.5 says that no difference was seen). A comparison that ends at the first difference is
//! measured beside it, to show that the measurement would see one.
//!
//! `cargo bench --bench timing`; nothing else should run.

#![allow(missing_docs, reason = "a benchmark has no API")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start should say so loudly")]
#![allow(clippy::print_stdout, reason = "a benchmark talks to a terminal")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;
use wssgate::policy::authentication::{Jwt, KeySource, Kind, Method};
use wssgate::policy::keys::KeySet;
use wssgate::policy::token::Token;

const SAMPLES: usize = 400_000;
const SECRET: &[u8; 32] = b"a secret of a benchmark, 32 byte";

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing was measured: run it with `cargo bench --bench timing`");
        return;
    }
    let jwt = Jwt {
        issuer: "https://idp.example.com".into(),
        audiences: vec!["load".into()],
        keys: KeySource::Local { namespace: None, name: "idp".into(), key: "jwks.json".into(), secret: true },
        types: vec![],
        places: Vec::new(),
        required: Vec::new(),
        headers: Vec::new(),
        skew: Duration::ZERO,
        forward: false,
        binds_key: false,
    };
    let method = Method { name: "idp".into(), kind: Kind::Jwt(jwt.clone()) };
    let set = json!({"keys": [{"kty": "oct", "kid": "one", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(SECRET)}]});
    let keys = KeySet::parse(set.to_string().as_bytes(), true).unwrap();
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed =
        format!("{}.{}", encode(json!({"alg": "HS256", "kid": "one"})), encode(json!({"exp": 4_000_000_000_u64})));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256);
    let signature = URL_SAFE_NO_PAD.decode(signature.unwrap()).unwrap();
    let wrong = |at: usize| {
        let mut bytes = signature.clone();
        bytes[at] ^= 0x80;
        bytes
    };
    let classes = [wrong(0), wrong(signature.len() - 1)];
    let tokens = classes.clone().map(|bytes| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes)));

    let product = t(|class| {
        let token = Token::parse(tokens[class].as_bytes()).unwrap();
        assert!(token.verify(&method, &jwt, &keys, 0).is_err());
    });
    println!("HS256, first byte wrong against last byte wrong: t = {product:.1} (|t| < 4.5: no difference seen)");
    let control = t(|class| {
        let token = Token::parse(tokens[class].as_bytes()).unwrap();
        let verified = token.verify(&method, &jwt, &keys, 0);
        let same = classes[class].iter().zip(&signature).position(|(one, other)| black_box(one) != black_box(other));
        assert!(black_box(same).is_some() && verified.is_err());
    });
    println!("control, with a comparison that ends at the first difference: t = {control:.1}");
}

/// Welch's t of the times of the two classes, without the slowest tenth of all: interrupts, not arithmetic.
fn t(run: impl Fn(usize)) -> f64 {
    let mut times = [Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES)];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..2 * SAMPLES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let class = (state >> 40) as usize & 1;
        let began = Instant::now();
        run(black_box(class));
        times[class].push(began.elapsed().as_nanos() as f64);
    }
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let limit = all[all.len() * 9 / 10];
    let [one, other] = times.map(|times| {
        let kept: Vec<f64> = times.into_iter().filter(|time| *time <= limit).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (one.0 - other.0) / (one.1 + other.1).sqrt()
}
