//! What tools compare that apply what stands in Git, as Argo CD and Flux do: the files and the live objects, after the
//! gateway has written its statuses and Certificates.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Test;
use super::certificates::Fixture;
use super::clusters::{Clusters, install_definitions_of};
use super::crd_validation::COMPLETE;
use super::fixture::LIMIT;
use super::kubectl::Kubectl;

/// By these Argo CD finds again what it has applied.
const LABEL: &str = "app.kubernetes.io/instance";
const TRACKING: &str = "argocd.argoproj.io/tracking-id";

/// The objects of all samples, and the route that has every field.
fn objects() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let mut objects = Vec::new();
    // A sample has the complete route's name.
    for text in files.chain([COMPLETE.replace("name: chat, namespace: shop", "name: complete, namespace: shop")]) {
        for document in text.split("\n---\n").filter(|document| document.contains("kind:")) {
            let mut object: Value = serde_saphyr::from_str(document).unwrap();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            object["metadata"]["labels"][LABEL] = "samples".into();
            object["metadata"]["annotations"][TRACKING] = format!("samples:{name}").into();
            objects.push(object);
        }
    }
    assert!(objects.len() > 20, "{} objects", objects.len());
    objects
}

/// The arguments that name an object.
fn named(object: &Value) -> [String; 4] {
    let of = |value: &Value| value.as_str().unwrap_or("default").to_owned();
    let (kind, metadata) = (of(&object["kind"]), &object["metadata"]);
    let kind =
        if kind == "ReferenceGrant" { "referencegrants.v1beta1.gateway.networking.k8s.io".to_owned() } else { kind };
    ["--namespace".to_owned(), of(&metadata["namespace"]), kind, of(&metadata["name"])]
}

fn get(kubectl: &Kubectl, object: &Value) -> Value {
    kubectl.get(&named(object).each_ref().map(String::as_str))
}

/// An object as Argo CD compares it: without its status and what only the API server writes.
fn normalized(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("status");
    let metadata = object["metadata"].as_object_mut().unwrap();
    for written in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        metadata.remove(written);
    }
    let annotations = metadata["annotations"].as_object_mut().unwrap();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    object
}

fn what_is_in_git_and_what_is_live_stay_the_same_while_the_gateway_writes(clusters: &Clusters) {
    let fixture = Fixture::start(clusters, "gitops");
    let admin = fixture.plane.kubectl();
    for project in ["cert-manager", "gateway-api"] {
        install_definitions_of(&admin, project);
    }
    let objects = objects();
    for object in &objects {
        if let Some(namespace) = object["metadata"]["namespace"].as_str() {
            admin.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"));
        }
    }
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    let text = text.join("\n---\n");
    admin.apply(&text);

    let routes: Vec<&Value> = objects.iter().filter(|object| object["kind"] == "SecureWebSocketRoute").collect();
    for route in &routes {
        let live = named(route);
        admin.until(LIMIT, &live.each_ref().map(String::as_str), "to have a status of the gateway", |live| {
            live["status"]["observedGeneration"].is_i64().then_some(())
        });
        let live = get(&admin, route);
        assert_eq!(normalized(&live), normalized(route));
        assert_eq!(live["metadata"]["generation"], 1, "{live:#}");
    }
    // The gateway's own Certificates are children of the routes, and claim to be nothing that stands in Git.
    let issued = routes.iter().find(|route| route["metadata"]["name"] == "live").unwrap();
    let namespace = issued["metadata"]["namespace"].as_str().unwrap();
    let secret = issued["spec"]["tls"]["certificateRefs"][0]["name"].as_str().unwrap();
    let certificate = ["certificate", secret, "--namespace", namespace];
    let certificate = admin.until(LIMIT, &certificate, "to exist", |found| Some(found.clone()));
    assert_eq!(certificate["metadata"]["ownerReferences"][0]["name"], issued["metadata"]["name"]);
    assert!(certificate["metadata"]["labels"].get(LABEL).is_none(), "{certificate:#}");
    assert!(certificate["metadata"]["annotations"].get(TRACKING).is_none(), "{certificate:#}");

    // As the tools compare and apply: client-side, and server-side by two managers that force nothing.
    let diff = admin.run_with(&["diff", "-f", "-"], &text);
    assert!(diff.ok, "{}{}", diff.out, diff.err);
    let again = admin.apply(&text);
    let changed: Vec<&str> = again.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(changed.is_empty(), "{changed:?}");
    for manager in ["argocd-controller", "kustomize-controller"] {
        let manager = format!("--field-manager={manager}");
        let applied = admin.run_with(&["apply", "--server-side", &manager, "-f", "-"], &text);
        assert!(applied.ok, "{manager}: {}", applied.err);
        let diff = admin.run_with(&["diff", "--server-side", &manager, "-f", "-"], &text);
        assert!(diff.ok, "{manager}: {}{}", diff.out, diff.err);
    }
    for route in routes {
        let live = get(&admin, route);
        assert_eq!(normalized(&live), normalized(route));
        assert_eq!(live["metadata"]["generation"], 1, "{live:#}");
    }
    fixture.gateway.must_run();
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox: what_is_in_git_and_what_is_live_stay_the_same_while_the_gateway_writes]
}
