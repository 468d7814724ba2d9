//! The compile of a large cluster: 10,000 routes on as many hosts, 100 Secrets, 1,000 Services with ten endpoints
//! each. Cold is a gateway that starts; the others are what it does all day. Aim: under a second on one core.

#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rcgen::{CertificateParams, KeyPair};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wssgate::api::objects::{Key, Object, Objects};
use wssgate::api::route::SecureWebSocketRoute;
use wssgate::compile::{Options, compile};

const ROUTES: usize = 10_000;
const SECRETS: usize = 100;
const SERVICES: usize = 1_000;
/// Within the validity that `rcgen` gives by itself.
const NOW: i64 = 1_800_000_000;

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap_or_else(|error| unreachable!("the benchmark's own object: {error}")))
}

fn route(n: usize, idle: &str) -> Arc<SecureWebSocketRoute> {
    let secret = n % SECRETS;
    read(json!({
        "apiVersion": "wssgate.io/v1alpha1",
        "kind": "SecureWebSocketRoute",
        "metadata": {"namespace": format!("ns{secret}"), "name": format!("route{n}"), "generation": 1},
        "spec": {
            "hostnames": [format!("h{n}.team{secret}.example.com")],
            "tls": {"certificateRefs": [{"name": "tls"}]},
            "rules": [
                {
                    "name": "chat",
                    "matches": [{"path": {"type": "PathPrefix", "value": "/chat"}}],
                    "backendRefs": [{"name": format!("svc{}", n / SECRETS % (SERVICES / SECRETS)), "port": 80}]
                },
                {
                    "name": "events",
                    "matches": [{"path": {"type": "Exact", "value": "/events"}}],
                    "backendRefs": [{"name": format!("svc{}", n / SECRETS % (SERVICES / SECRETS)), "port": 80}]
                }
            ],
            "handshake": {
                "authentication": {"mode": "Anonymous"},
                "origins": {"allow": [format!("https://app.team{secret}.example.com")]},
                "networks": {"deny": ["192.0.2.0/24"]}
            },
            "connection": {"idleTimeout": idle, "limits": {"total": 500}},
            "messages": {"fromClient": {"types": ["Text"], "maxSize": "32Ki"}}
        }
    }))
}

fn objects() -> Objects {
    let mut objects = Objects::default();
    for n in 0..ROUTES {
        objects.insert(Object::Route(route(n, "10m")));
    }
    for n in 0..SECRETS {
        let names = vec![format!("*.team{n}.example.com")];
        let made = KeyPair::generate().and_then(|key| {
            let certificate = CertificateParams::new(names)?.self_signed(&key)?;
            Ok((certificate.pem(), key.serialize_pem()))
        });
        let (crt, key) = made.unwrap_or_else(|error| unreachable!("a certificate of the benchmark: {error}"));
        let mut secret: Secret = Secret { type_: Some("kubernetes.io/tls".into()), ..Secret::default() };
        secret.metadata.namespace = Some(format!("ns{n}"));
        secret.metadata.name = Some("tls".into());
        let data =
            [("tls.crt", crt), ("tls.key", key)].map(|(name, pem)| (name.to_owned(), ByteString(pem.into_bytes())));
        secret.data = Some(data.into());
        objects.insert(Object::Secret(Arc::new(secret)));
        for s in 0..SERVICES / SECRETS {
            let namespace = format!("ns{n}");
            let service: Arc<Service> = read(json!({
                "metadata": {"namespace": namespace, "name": format!("svc{s}")},
                "spec": {"ports": [{"name": "ws", "port": 80}]}
            }));
            let endpoints: Vec<Value> = (1..=10)
                .map(|e| json!({"addresses": [format!("10.{n}.{s}.{e}")], "conditions": {"ready": true}}))
                .collect();
            let slice: Arc<EndpointSlice> = read(json!({
                "metadata": {
                    "namespace": namespace,
                    "name": format!("svc{s}-1"),
                    "labels": {"kubernetes.io/service-name": format!("svc{s}")}
                },
                "addressType": "IPv4",
                "ports": [{"name": "ws", "port": 8080}],
                "endpoints": endpoints
            }));
            objects.insert(Object::Service(service));
            objects.insert(Object::EndpointSlice(slice));
        }
    }
    objects
}

fn ten_thousand_routes(criterion: &mut Criterion) {
    let options = Options { standalone: true, ..Options::default() };
    let objects = objects();
    let before = compile(&objects, &options, NOW, None);
    assert_eq!((before.accepted(), before.snapshot.exact.len()), (ROUTES, ROUTES));
    let mut changed = objects.clone();
    changed.insert(Object::Route(route(7, "5m")));
    let mut churned = objects.clone();
    let key = Key::new("ns7", "svc3-1");
    if let Some(slice) = churned.endpoint_slices.get_mut(&key) {
        Arc::make_mut(slice).endpoints.truncate(9);
    }

    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    group.bench_function("10000 routes, cold", |bencher| {
        bencher.iter_batched(|| (), |()| black_box(compile(&objects, &options, NOW, None)), BatchSize::PerIteration);
    });
    for (name, objects) in
        [("nothing changed", &objects), ("one route changed", &changed), ("one endpoint gone", &churned)]
    {
        group.bench_function(format!("10000 routes, {name}"), |bencher| {
            bencher.iter_batched(
                || (),
                |()| black_box(compile(objects, &options, NOW, Some(&before))),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, ten_thousand_routes);
criterion_main!(benches);
