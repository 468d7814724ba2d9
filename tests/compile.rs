//! The compile from outside: golden cases (`tests/compile/<case>/`, manifests in, statuses and snapshot out), and what
//! must hold whatever the objects are. `UPDATE=1` writes the golden files anew.

pub(crate) mod cases;
mod text;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::root;
use cases::{Mint, NOW, load, steps};
use proptest::prelude::*;
use text::Names;
use wssgate::api::objects::{Key, Object, Objects};
use wssgate::api::route::{RouteSpec, SecureWebSocketRoute};
use wssgate::api::route_id::RouteId;
use wssgate::api::status::RouteStatus;
use wssgate::compile::status::route;
use wssgate::compile::{Compiled, Options, compile};
use wssgate::policy::Policy;
use wssgate::snapshot::{Host, RouteState};

/// A route of namespace `shop` as its YAML spec less what all have.
fn route(name: &str, rest: &str) -> SecureWebSocketRoute {
    let spec: RouteSpec = serde_saphyr::from_str(&format!(
        "rules: [{{name: chat, backendRefs: [{{name: chat, port: 8080}}]}}]
handshake: {{authentication: {{mode: Anonymous}}}}
{rest}"
    ))
    .unwrap();
    let mut route = SecureWebSocketRoute::new(name, spec);
    route.metadata.namespace = Some("shop".into());
    route
}

fn add(objects: &mut Objects, route: SecureWebSocketRoute) {
    objects.insert(Object::Route(Arc::new(route)));
}

/// The Secret and Service that all cases share.
fn base(mint: &mut Mint) -> Objects {
    load(&root().join("tests/compile").join("shared"), mint).0
}

fn standalone() -> Options {
    Options { standalone: true, ..Options::default() }
}

fn built_in() -> Policy {
    let mut objects = Objects::default();
    add(&mut objects, route("plain", "hostnames: [a.test]"));
    let options = Options { dev: true, ..standalone() };
    let compiled = compile(&objects, &options, NOW, None);
    let RouteState::Serving(policy) = &compiled.snapshot.exact["a.test"].routes[0].state else {
        panic!("a plain route serves")
    };
    Policy::clone(policy)
}

#[test]
fn every_case_compiles_to_its_golden_text() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(root().join("tests/compile")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir() && !path.ends_with("shared"));
    cases.sort();
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let (mut mint, mut names) = (Mint::new(), Names::new(built_in()));
        let mut text = String::new();
        let mut before: Option<Compiled> = None;
        for step in steps(&case) {
            let (objects, options) = load(&step, &mut mint);
            let compiled = compile(&objects, &options, NOW, before.as_ref());
            if step != case {
                let _ = writeln!(text, "--- {}", step.file_name().unwrap().to_string_lossy());
            }
            text.push_str(&names.render(&compiled, before.as_ref()));
            before = Some(compiled);
        }
        let file = case.join("expected.txt");
        if update {
            std::fs::write(&file, &text).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if expected != text {
            let _ = writeln!(wrong, "=== {}\n{text}", case.display());
        }
    }
    assert!(wrong.is_empty(), "these differ from their expected.txt:\n{wrong}");
}

#[test]
fn every_case_compiled_again_is_the_very_same_snapshot() {
    for case in std::fs::read_dir(root().join("tests/compile"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        let mut mint = Mint::new();
        for step in steps(&case) {
            let (objects, options) = load(&step, &mut mint);
            let first = compile(&objects, &options, NOW, None);
            // Other objects with the same content, as a source that reads its files anew may give them; and later.
            let (copies, _) = load(&step, &mut mint);
            let again = compile(&copies, &options, NOW + 60, Some(&first));
            assert_eq!(first.snapshot.version, again.snapshot.version, "{}", step.display());
            assert_eq!(first.statuses, again.statuses, "{}", step.display());
        }
    }
}

fn host<'a>(compiled: &'a Compiled, name: &str) -> &'a Arc<Host> {
    &compiled.snapshot.exact[name]
}

/// Ten good routes, each on a host of its own.
fn ten_good(mint: &mut Mint) -> Objects {
    let mut objects = base(mint);
    for n in 0..10 {
        let rest = format!("hostnames: [good{n}.example.com]\ntls: {{certificateRefs: [{{name: tls}}]}}");
        add(&mut objects, route(&format!("good{n}"), &rest));
    }
    objects
}

#[test]
fn a_thousand_invalid_routes_leave_the_good_ones_as_they_are() {
    let mut objects = ten_good(&mut Mint::new());
    let options = standalone();
    let before = compile(&objects, &options, NOW, None);
    let sorts = [
        "hostnames: [good0.example.com]\nconnection: {limits: {total: 0}}",
        "hostnames: [good1.example.com]\nmessages: {fromClient: {maxSize: 1Gi}}",
        "hostnames: [good2.example.com]\ntls: {issuerRef: {name: x}}",
        "hostnames: [UPPER.example.com]",
        "hostnames: [good3.example.com]\ntls: {certificateRefs: [{name: nothing}]}\nconnection: {maxDuration: x}",
    ];
    for n in 0..1000 {
        // They sort before the good ones, and some ask for their hosts.
        add(&mut objects, route(&format!("bad{n:04}"), sorts[n % sorts.len()]));
    }
    let after = compile(&objects, &options, NOW, Some(&before));
    let fresh = compile(&objects, &options, NOW, None);
    for n in 0..10 {
        let name = format!("good{n}.example.com");
        let id = RouteId::secure_web_socket("shop", &format!("good{n}"));
        assert_eq!(before.statuses[&id], after.statuses[&id], "{name}");
        assert!(Arc::ptr_eq(host(&before, &name), host(&after, &name)), "{name}");
        assert_eq!(host(&fresh, &name).routes, host(&before, &name).routes, "{name}");
    }
    assert_eq!(after.accepted(), 10);
    assert_eq!(after.statuses.len(), 1010);
}

#[test]
fn a_change_of_one_route_keeps_everything_else() {
    let mut objects = ten_good(&mut Mint::new());
    let options = standalone();
    let before = compile(&objects, &options, NOW, None);
    let same = compile(&objects, &options, NOW + 5, Some(&before));
    assert_eq!((before.snapshot.version, same.snapshot.version), (1, 1));
    assert_eq!(before.statuses, same.statuses);
    let rest = "hostnames: [good3.example.com]\ntls: {certificateRefs: [{name: tls}]}\nconnection: {idleTimeout: 5s}";
    add(&mut objects, route("good3", rest));
    let after = compile(&objects, &options, NOW + 10, Some(&same));
    assert_eq!(after.snapshot.version, 2);
    for n in 0..10 {
        let name = format!("good{n}.example.com");
        let (old, new) = (host(&before, &name), host(&after, &name));
        assert_eq!(Arc::ptr_eq(old, new), n != 3, "{name}");
        assert!(Arc::ptr_eq(old.tls.own().unwrap(), new.tls.own().unwrap()), "{name}");
    }
}

#[test]
fn endpoint_churn_changes_no_route() {
    let mut objects = ten_good(&mut Mint::new());
    let before = compile(&objects, &standalone(), NOW, None);
    let key = Key::new("shop", "chat-1");
    let mut slice = (*objects.endpoint_slices[&key]).clone();
    slice.endpoints[0].addresses = vec!["10.0.0.9".into()];
    objects.endpoint_slices.insert(key, Arc::new(slice));
    let after = compile(&objects, &standalone(), NOW, Some(&before));
    assert_eq!(after.snapshot.version, 2);
    assert!(before.snapshot.exact.iter().all(|(name, host)| Arc::ptr_eq(host, &after.snapshot.exact[name])));
    let addresses: Vec<String> =
        after.snapshot.backends.values().flat_map(|b| &b.endpoints).map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.9:9001"]);
}

#[test]
fn a_secret_that_comes_again_as_another_object_is_not_parsed_again() {
    let mut objects = ten_good(&mut Mint::new());
    let before = compile(&objects, &standalone(), NOW, None);
    for secret in objects.secrets.values_mut() {
        *secret = Arc::new((**secret).clone());
    }
    let after = compile(&objects, &standalone(), NOW, Some(&before));
    assert_eq!(after.snapshot.version, before.snapshot.version);
}

#[test]
fn a_rotation_keeps_the_session_tickets_of_every_host() {
    let mut mint = Mint::new();
    let mut objects = ten_good(&mut mint);
    let before = compile(&objects, &standalone(), NOW, None);
    let key = Key::new("shop", "tls");
    let mut secret = (*objects.secrets[&key]).clone();
    secret.metadata.annotations.get_or_insert_default().insert("serial".into(), "2".into());
    objects.secrets.insert(key, Arc::new(mint.fill(&secret).unwrap()));
    let after = compile(&objects, &standalone(), NOW, Some(&before));
    for (name, old) in &before.snapshot.exact {
        let (old, new) = (old.tls.own().unwrap(), after.snapshot.exact[name].tls.own().unwrap());
        assert_ne!(old.certificates, new.certificates, "{name}");
        assert!(Arc::ptr_eq(&old.config.get().ticketer, &new.config.get().ticketer), "{name}");
    }
    let old = &before.snapshot.exact["good0.example.com"].tls.own().unwrap().config.get().ticketer;
    let new = &after.snapshot.exact["good1.example.com"].tls.own().unwrap().config.get().ticketer;
    assert!(!Arc::ptr_eq(old, new), "every host has tickets of its own");
}

/// The leaves that a host is served with.
fn leaves(compiled: &Compiled, name: &str) -> Vec<String> {
    let own = host(compiled, name).tls.own();
    own.map(|tls| tls.certificates.iter().map(|facts| facts.fingerprint.clone()).collect()).unwrap_or_default()
}

fn ready(compiled: &Compiled, name: &str) -> (String, String) {
    let status = &compiled.statuses[&RouteId::secure_web_socket("shop", name)];
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == "CertificateReady").unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn the_last_good_certificate_stands_in_for_a_bounded_time_and_no_open_connection_notices() {
    const DAY: i64 = 86_400;
    let mut objects = ten_good(&mut Mint::new());
    let name = "good3.example.com";
    let served = compile(&objects, &standalone(), NOW, None);
    let good = leaves(&served, name);
    let key = Key::new("shop", "tls");
    let secret = objects.secrets.remove(&key).unwrap();
    let away = compile(&objects, &standalone(), NOW + 60, Some(&served));
    assert_eq!(leaves(&away, name), good);
    assert_eq!(ready(&away, "good3"), ("False".into(), "LastGood".into()));
    assert_eq!((away.last_good_certificates(), away.due), (10, Some(NOW + 60 + DAY)));
    // Nothing that a live connection is judged by has changed.
    assert_eq!(away.snapshot.version, served.snapshot.version);
    // It counts from the moment at which the Secret went.
    let later = compile(&objects, &standalone(), NOW + DAY, Some(&away));
    assert_eq!((leaves(&later, name), later.due), (good.clone(), Some(NOW + 60 + DAY)));
    let over = compile(&objects, &standalone(), NOW + 60 + DAY, Some(&later));
    assert_eq!((leaves(&over, name), over.last_good_certificates()), (vec![], 0));
    assert!(host(&over, name).routes.iter().all(|route| matches!(route.state, RouteState::Serving(_))));
    assert!(over.snapshot.tls(name).is_err());
    objects.secrets.insert(key, secret);
    let back = compile(&objects, &standalone(), NOW + 2 * DAY, Some(&over));
    assert_eq!((leaves(&back, name), ready(&back, "good3").0), (good, "True".into()));
}

#[test]
fn a_certificate_stands_in_for_no_other_route_and_for_none_that_may_not_name_it() {
    let tls = |reference: &str| format!("hostnames: [a.test]\ntls: {{certificateRefs: [{reference}]}}");
    let mut mint = Mint::new();
    let mut objects = base(&mut mint);
    let mut shared = (*objects.secrets[&Key::new("shop", "tls")]).clone();
    shared.metadata.namespace = Some("infra".into());
    objects.insert(Object::Secret(Arc::new(shared)));
    let grant = "{metadata: {name: shop, namespace: infra}, spec: {from: [{group: wssgate.io, kind: SecureWebSocketRoute, \
                 namespace: shop}], to: [{group: '', kind: Secret}]}}";
    let grant: wssgate::api::objects::ReferenceGrant = serde_saphyr::from_str(grant).unwrap();
    objects.insert(Object::ReferenceGrant(Arc::new(grant)));
    add(&mut objects, route("one", &tls("{name: tls, namespace: infra}")));
    let served = compile(&objects, &standalone(), NOW, None);
    let good = leaves(&served, "a.test");
    assert_eq!(good.len(), 1);
    // Another reference, not there yet: what the route may still name stands in.
    add(&mut objects, route("one", &tls("{name: new}")));
    let renamed = compile(&objects, &standalone(), NOW, Some(&served));
    assert_eq!(leaves(&renamed, "a.test"), good);
    let mut without = objects.clone();
    without.reference_grants.clear();
    assert!(leaves(&compile(&without, &standalone(), NOW, Some(&renamed)), "a.test").is_empty());
    // The host has gone to another route.
    objects.routes.clear();
    add(&mut objects, route("two", &tls("{name: new}")));
    assert!(leaves(&compile(&objects, &standalone(), NOW, Some(&renamed)), "a.test").is_empty());
    let none = Options { certificate_grace: std::time::Duration::ZERO, ..standalone() };
    add(&mut objects, route("two", &tls("{name: tls}")));
    let served = compile(&objects, &none, NOW, None);
    objects.secrets.clear();
    assert!(leaves(&compile(&objects, &none, NOW, Some(&served)), "a.test").is_empty());
}

#[test]
fn a_route_that_leaves_our_class_is_gone_with_its_status() {
    let mut objects = ten_good(&mut Mint::new());
    let before = compile(&objects, &standalone(), NOW, None);
    let class = serde_saphyr::from_str(
        "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: nginx}, spec: {controller: a/b}}",
    );
    objects.insert(Object::IngressClass(Arc::new(class.unwrap())));
    let rest = "ingressClassName: nginx\nhostnames: [good3.example.com]\ntls: {certificateRefs: [{name: tls}]}";
    add(&mut objects, route("good3", rest));
    let after = compile(&objects, &standalone(), NOW, Some(&before));
    assert!(!after.snapshot.exact.contains_key("good3.example.com"));
    assert!(!after.statuses.contains_key(&RouteId::secure_web_socket("shop", "good3")));
}

#[test]
fn last_good_ends_where_a_route_was_deleted_and_made_anew() {
    let mut objects = base(&mut Mint::new());
    let rest = "hostnames: [chat.example.com]\ntls: {certificateRefs: [{name: tls}]}";
    let mut good = route("chat", rest);
    good.metadata.uid = Some("first".into());
    add(&mut objects, good);
    let first = compile(&objects, &standalone(), NOW, None);
    let mut broken = route("chat", &format!("{rest}\nconnection: {{limits: {{total: 0}}}}"));
    let serves = |broken: &SecureWebSocketRoute| {
        let mut objects = objects.clone();
        add(&mut objects, broken.clone());
        let after = compile(&objects, &standalone(), NOW, Some(&first));
        matches!(host(&after, "chat.example.com").routes[0].state, RouteState::Serving(_))
    };
    broken.metadata.uid = Some("first".into());
    assert!(serves(&broken));
    broken.metadata.uid = Some("second".into());
    assert!(!serves(&broken));
}

#[test]
fn nothing_that_is_printed_has_a_key_in_it() {
    let mut mint = Mint::new();
    let objects = ten_good(&mut mint);
    let compiled = compile(&objects, &standalone(), NOW, None);
    let printed = format!("{compiled:?} {objects:?}");
    let secret = &objects.secrets[&Key::new("shop", "tls")];
    let key = String::from_utf8(secret.data.as_ref().unwrap()["tls.key"].0.clone()).unwrap();
    assert!(!printed.contains(key.lines().nth(1).unwrap()));
}

/// Statuses without times, and the snapshot as text.
fn outcome(objects: &Objects, before: Option<&Compiled>) -> (String, Compiled) {
    let compiled = compile(objects, &standalone(), NOW, before);
    (Names::default().render(&compiled, None), compiled)
}

fn any_route() -> impl Strategy<Value = (u8, u8, u8, u8, bool, i64)> {
    (0..6u8, 0..4u8, 0..3u8, 0..3u8, any::<bool>(), 0..3i64)
}

fn many(routes: &[(u8, u8, u8, u8, bool, i64)], mint: &mut Mint) -> Objects {
    let mut objects = base(mint);
    for (name, host, path, sort, tls, created) in routes {
        let tls = if *tls { "tls: {certificateRefs: [{name: tls}]}\n" } else { "" };
        let sort =
            ["", "connection: {limits: {total: 0}}", "messages: {fromClient: {maxSize: 1Gi}}"][usize::from(*sort)];
        let mut route = route(&format!("r{name}"), &format!("hostnames: [h{host}.example.com]\n{tls}{sort}"));
        route.spec.rules[0].matches = serde_saphyr::from_str(&format!("[{{path: {{value: /p{path}}}}}]")).unwrap();
        route.metadata.namespace = Some(if name % 2 == 0 { "shop" } else { "other" }.into());
        let time = jiff::Timestamp::from_second(*created).unwrap();
        route.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time));
        add(&mut objects, route);
    }
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_objects_give_the_same_outcome_with_or_without_a_compile_before(
        routes in proptest::collection::vec(any_route(), 0..12),
    ) {
        let objects = many(&routes, &mut Mint::new());
        let (first, compiled) = outcome(&objects, None);
        let (second, _) = outcome(&objects.clone(), None);
        let (third, again) = outcome(&objects, Some(&compiled));
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(&first, &third);
        prop_assert_eq!(compiled.snapshot.version, again.snapshot.version);
        prop_assert!(compiled.snapshot.exact.iter().all(|(name, host)| Arc::ptr_eq(host, &again.snapshot.exact[name])));
    }

    #[test]
    fn every_host_has_one_namespace_and_every_path_one_route(
        routes in proptest::collection::vec(any_route(), 0..12),
    ) {
        let compiled = compile(&many(&routes, &mut Mint::new()), &standalone(), NOW, None);
        let mut served: BTreeMap<RouteId, usize> = BTreeMap::new();
        for host in compiled.snapshot.exact.values() {
            let namespaces: std::collections::BTreeSet<_> = host.routes.iter().map(|r| &r.id.namespace).collect();
            prop_assert!(namespaces.len() <= 1);
            let paths: std::collections::BTreeSet<_> = host.routes.iter().map(|r| &r.path).collect();
            prop_assert_eq!(paths.len(), host.routes.len());
            for route in host.routes.iter().filter(|route| matches!(route.state, RouteState::Serving(_))) {
                *served.entry(route.id.clone()).or_default() += 1;
            }
        }
        for (id, status) in &compiled.statuses {
            let programmed = route::condition(status, "Programmed").is_some_and(|c| c.status == "True");
            prop_assert!(!programmed || served.contains_key(id), "{}", id);
            prop_assert_eq!(bounded(status), Ok(()));
        }
    }
}

/// What the API server asks of conditions.
fn bounded(status: &RouteStatus) -> Result<(), String> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let types: std::collections::BTreeSet<_> = conditions.iter().map(|c| &c.type_).collect();
    let fits = conditions.len() <= 16
        && types.len() == conditions.len()
        && conditions.iter().all(|c| c.message.len() <= 512 && !c.reason.is_empty());
    if fits { Ok(()) } else { Err(format!("{conditions:?}")) }
}
