//! The routes by which Argo CD's script and kstatus are tested (`manifests/argocd/testdata`): their statuses are what the
//! compile says, word for word. `UPDATE=1` writes them anew. `created.yaml` is what the API server itself makes.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use crate::compile::cases::{Mint, NOW};
use crate::{drift, root};
use wssgate::api::objects::{Object, Objects};
use wssgate::api::route::SecureWebSocketRoute;
use wssgate::api::route_id::RouteId;
use wssgate::api::status::RouteStatus;
use wssgate::compile::{Options, compile};

const FOLDER: &str = "manifests/argocd/testdata";

/// What there is besides the route: what leads to which file is left out or added by it. `before`: what there was at first.
fn around(file: &str, before: bool) -> Objects {
    let mut objects = Objects { cert_manager: true, ..Objects::default() };
    let mut add = |object| objects.insert(object);
    let class = "{metadata: {name: wssgate}, spec: {controller: wssgate.io/ingress-controller}}";
    add(Object::IngressClass(Arc::new(serde_saphyr::from_str(class).unwrap())));
    let away = !before && matches!(file, "last-good" | "deleting");
    if file != "issuing" && !away {
        let secret = "{metadata: {name: chat-tls, namespace: shop, annotations: {make: chat.example.com}}, \
                      type: kubernetes.io/tls}";
        let secret = Mint::new().fill(&serde_saphyr::from_str(secret).unwrap()).unwrap();
        add(Object::Secret(Arc::new(secret)));
    }
    if file == "renewal-failing" {
        let certificate = "{metadata: {name: chat-tls, namespace: shop}, spec: {secretName: chat-tls}, status: {conditions: [\
                           {type: Ready, status: 'True', reason: Ready}, \
                           {type: Issuing, status: 'False', reason: Failed, message: 'refused by the CA'}]}}";
        add(Object::Certificate(Arc::new(serde_saphyr::from_str(certificate).unwrap())));
    }
    if file != "backend-missing" && !(away && file == "deleting") {
        let service = "{metadata: {name: chat, namespace: shop}, spec: {ports: [{port: 8080}]}}";
        add(Object::Service(Arc::new(serde_saphyr::from_str(service).unwrap())));
        let slice = "{metadata: {name: chat-1, namespace: shop, labels: {kubernetes.io/service-name: chat}}, \
                     addressType: IPv4, ports: [{port: 9001}], endpoints: [{addresses: [10.0.0.1]}]}";
        add(Object::EndpointSlice(Arc::new(serde_saphyr::from_str(slice).unwrap())));
    }
    if file == "conflict" {
        let (_, mut older) = route(file);
        older.metadata.namespace = Some("blog".into());
        older.metadata.creation_timestamp = serde_saphyr::from_str("2020-01-01T12:00:00Z").unwrap();
        add(Object::Route(Arc::new(older)));
    }
    objects
}

/// The file's text before its status, and the route that this is.
fn route(file: &str) -> (String, SecureWebSocketRoute) {
    let text = fs::read_to_string(root().join(FOLDER).join(format!("{file}.yaml"))).unwrap();
    let head = text.split("status:\n").next().unwrap().to_owned();
    let route = serde_saphyr::from_str(&head).unwrap();
    (head, route)
}

fn written(status: &RouteStatus) -> String {
    let mut text = String::from("status:\n");
    let _ = writeln!(text, "  observedGeneration: {}", status.observed_generation.unwrap());
    let _ = writeln!(text, "  controllerName: {}\n  conditions:", status.controller_name.as_ref().unwrap());
    for condition in status.conditions.iter().flatten() {
        let _ = writeln!(text, "  - type: {}\n    status: \"{}\"", condition.type_, condition.status);
        let _ = writeln!(text, "    reason: {}\n    message: {:?}", condition.reason, condition.message);
        let _ = writeln!(text, "    lastTransitionTime: \"{}\"", condition.last_transition_time.0);
        let _ = writeln!(text, "    observedGeneration: {}", condition.observed_generation.unwrap());
    }
    text
}

#[test]
fn health_is_tested_on_what_the_gateway_says() {
    let mut files = 0;
    for entry in fs::read_dir(root().join(FOLDER)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_stem().unwrap().to_str().unwrap();
        if file == "created" {
            continue;
        }
        let (head, mut route) = route(file);
        if file == "stale" {
            // Of the version before.
            route.metadata.generation = route.metadata.generation.map(|generation| generation - 1);
        }
        let route = Object::Route(Arc::new(route));
        let with = |before: bool| {
            let mut objects = around(file, before);
            objects.insert(route.clone());
            objects
        };
        let first = compile(&with(true), &Options::default(), NOW, None);
        let compiled = compile(&with(false), &Options::default(), NOW, Some(&first));
        let status = &compiled.statuses[&RouteId::secure_web_socket("shop", "chat")];
        drift(&format!("{FOLDER}/{file}.yaml"), &(head + &written(status)));
        files += 1;
    }
    assert_eq!(files, 10);
}
