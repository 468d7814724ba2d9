//! A directory of manifests as the source, with real files: what is read, what is reported, what stays.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use wssgate::api::objects::Key;
use wssgate::source::Files;
use wssgate::source::loaded::Loaded;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n")
}

fn route(name: &str) -> String {
    format!(
        "apiVersion: wssgate.io/v1alpha1\nkind: SecureWebSocketRoute\nmetadata: {{name: {name}}}\nspec:\n  \
         hostnames: [{name}.example.com]\n  rules: [{{name: a, backendRefs: [{{name: a, port: 80}}]}}]\n  \
         handshake: {{authentication: {{mode: Anonymous}}}}\n"
    )
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn services(loaded: &Loaded) -> Vec<&str> {
    loaded.objects.services.keys().map(|key| key.name.as_str()).collect()
}

fn problems(loaded: &Loaded, dir: &Path) -> Vec<String> {
    loaded.problems.iter().map(|p| p.to_string().replace(&format!("{}/", dir.display()), "")).collect()
}

#[test]
fn every_kind_is_read_and_others_are_counted() {
    let dir = directory(&[
        ("route.yaml", &route("chat")),
        ("class.yml", "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: wssgate}\n"),
        (
            "nested/deep/core.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: shop}\ntype: kubernetes.io/tls\n\
             data: {tls.key: a2V5}\nstringData: {tls.crt: text}\n---\n\
             apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {ca.crt: text}\n---\n\
             # nothing\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: chat}\n",
        ),
        (
            "slice.json",
            r#"{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "chat-1"},
                "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": []}
               {"apiVersion": "v1", "kind": "List", "items": [
                 {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat"}},
                 {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}}]}"#,
        ),
        (
            "grants.yaml",
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: a}\n\
             spec: {from: [{group: wssgate.io, kind: SecureWebSocketRoute, namespace: shop}], to: [{kind: Service}]}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: b}\n\
             spec: {from: [], to: [{group: '', kind: Secret, name: tls}]}\n",
        ),
        ("README.md", "not a manifest"),
    ]);
    let loaded = Files::open(dir.path()).unwrap().load();
    assert_eq!(problems(&loaded, dir.path()), [""; 0]);
    let objects = &loaded.objects;
    assert!(objects.routes.contains_key(&key("chat")));
    assert!(objects.ingress_classes.contains_key(&Key::new("", "wssgate")));
    let secret = &objects.secrets[&Key::new("shop", "tls")];
    assert_eq!(secret.data.as_ref().unwrap()["tls.crt"].0, b"text");
    assert_eq!(secret.data.as_ref().unwrap()["tls.key"].0, b"key");
    assert!(objects.config_maps.contains_key(&key("ca")));
    assert_eq!(objects.endpoint_slices[&key("chat-1")].endpoints[0].addresses, ["127.0.0.1"]);
    assert!(objects.services.contains_key(&key("chat")));
    assert_eq!(objects.reference_grants[&key("a")].spec.from[0].namespace, "shop");
    assert_eq!(objects.reference_grants[&key("b")].spec.to[0].name.as_deref(), Some("tls"));
    assert_eq!((loaded.skipped, loaded.files), (2, 5));
}

#[test]
fn a_file_that_does_not_parse_is_reported_and_its_last_good_objects_stay() {
    let dir = directory(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]);
    let mut files = Files::open(dir.path()).unwrap();
    let first = files.load();
    fs::write(dir.path().join("a.yaml"), "apiVersion: v1\nkind: [\n").unwrap();
    let broken = files.load();
    assert_eq!(services(&broken), ["a", "b"]);
    assert!(Arc::ptr_eq(&first.objects.services[&key("a")], &broken.objects.services[&key("a")]));
    let found = problems(&broken, dir.path());
    assert!(found.len() == 1 && found[0].starts_with("a.yaml:"), "{found:?}");
    assert!(broken.problems[0].line >= 2, "{found:?}");

    fs::write(dir.path().join("a.yaml"), service("fixed")).unwrap();
    let fixed = files.load();
    assert_eq!(services(&fixed), ["b", "fixed"]);
    assert!(fixed.problems.is_empty());
}

#[test]
fn a_broken_document_costs_its_neighbours_nothing() {
    let text = |middle: &str| format!("{}---\n{middle}---\n{}", service("a"), service("c"));
    let dir = directory(&[("all.yaml", &text(&service("b")))]);
    let mut files = Files::open(dir.path()).unwrap();
    assert_eq!(services(&files.load()), ["a", "b", "c"]);
    // The neighbour c changes its name while b is broken: b stays, c goes.
    let broken = text(&service("b").replace("80", "eighty")).replace("name: c", "name: d");
    fs::write(dir.path().join("all.yaml"), broken).unwrap();
    let loaded = files.load();
    assert_eq!(services(&loaded), ["a", "b", "d"]);
    let found = problems(&loaded, dir.path());
    assert!(found.len() == 1 && found[0].starts_with("all.yaml:9:"), "{found:?}");
    assert!(found[0].contains("Service default/b: "), "{found:?}");
}

#[test]
fn a_broken_file_that_was_never_good_costs_the_others_nothing() {
    let dir = directory(&[("good.yaml", &service("good"))]);
    for index in 0..1000 {
        let text = match index % 4 {
            0 => "a: [\n".to_owned(),
            1 => service("x").replace("80", "eighty"),
            2 => route("x").replace("mode: Anonymous", "mode: Nobody"),
            _ => "\u{0}\u{1}".to_owned(),
        };
        fs::write(dir.path().join(format!("bad-{index}.yaml")), text).unwrap();
    }
    let loaded = Files::open(dir.path()).unwrap().load();
    assert_eq!((loaded.objects.len(), services(&loaded)), (1, vec!["good"]));
    assert_eq!((loaded.problems.len(), loaded.files), (1000, 1001));
}

#[test]
fn a_deleted_file_takes_its_objects_along() {
    let dir = directory(&[("a.yaml", &service("a")), ("sub/b.yaml", &service("b"))]);
    let mut files = Files::open(dir.path()).unwrap();
    assert_eq!(services(&files.load()), ["a", "b"]);
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    assert_eq!(services(&files.load()), ["a"]);
    // Even one that was broken last.
    fs::write(dir.path().join("a.yaml"), "a: [").unwrap();
    assert_eq!(services(&files.load()), ["a"]);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    let loaded = files.load();
    assert!(loaded.objects.is_empty() && loaded.problems.is_empty());
}

#[test]
fn a_directory_that_cannot_be_read_keeps_everything() {
    let parent = directory(&[("m/a.yaml", &service("a"))]);
    let root = parent.path().join("m");
    let mut files = Files::open(&root).unwrap();
    files.load();
    fs::rename(&root, parent.path().join("away")).unwrap();
    let loaded = files.load();
    assert_eq!(services(&loaded), ["a"]);
    assert_eq!(loaded.problems.len(), 1);
    fs::rename(parent.path().join("away"), &root).unwrap();
    let loaded = files.load();
    assert_eq!((services(&loaded), loaded.problems.len()), (vec!["a"], 0));
    assert!(Files::open(parent.path().join("absent")).is_err());
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let dir = directory(&[("a.yaml", &service("a")), ("two.yaml", &format!("{}---\n{}", service("b"), service("c")))]);
    let mut files = Files::open(dir.path()).unwrap();
    let first = files.load();
    let again = files.load();
    assert!(Arc::ptr_eq(&first.objects, &again.objects));
    // Touched, same bytes.
    fs::write(dir.path().join("a.yaml"), service("a")).unwrap();
    assert!(Arc::ptr_eq(&first.objects, &files.load().objects));
    // One document of two.
    fs::write(dir.path().join("two.yaml"), format!("{}---\n{}", service("b2"), service("c"))).unwrap();
    let changed = files.load();
    assert!(!Arc::ptr_eq(&first.objects, &changed.objects));
    for name in ["a", "c"] {
        assert!(Arc::ptr_eq(&first.objects.services[&key(name)], &changed.objects.services[&key(name)]), "{name}");
    }
}

#[test]
fn an_object_in_two_files_is_reported_and_the_first_wins() {
    let dir = directory(&[("a.yaml", &service("same")), ("b.yaml", &format!("# second\n{}", service("same")))]);
    let mut files = Files::open(dir.path()).unwrap();
    let loaded = files.load();
    assert_eq!(services(&loaded), ["same"]);
    let found = problems(&loaded, dir.path());
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("b.yaml:2:1: Service default/same is already in a.yaml:1"), "{found:?}");
    // An object that moved out of a file that broke at once is not two.
    fs::write(dir.path().join("a.yaml"), "a: [").unwrap();
    assert_eq!(files.load().problems.len(), 1);
}

#[test]
fn unknown_fields_of_a_route_stand_beside_it() {
    let bad = route("chat").replace("handshake: {", "handshake: {orgins: {allow: []}, ");
    let dir = directory(&[("chat.yaml", &bad), ("good.yaml", &route("good"))]);
    let loaded = Files::open(dir.path()).unwrap().load();
    assert_eq!(loaded.objects.routes.len(), 2);
    assert_eq!(loaded.objects.violations.len(), 1);
    assert_eq!(loaded.objects.violations[&key("chat")][0].field, "spec.handshake.orgins");
}

#[test]
fn what_is_too_large_or_no_text_is_reported_and_the_last_good_stays() {
    let dir = directory(&[("a.yaml", &service("a")), ("b.yaml", &service("b"))]);
    let mut files = Files::open(dir.path()).unwrap();
    files.load();
    fs::write(dir.path().join("a.yaml"), format!("# {}\n{}", "x".repeat(5 << 20), service("x"))).unwrap();
    fs::write(dir.path().join("b.yaml"), b"\xff\xfe\x00").unwrap();
    let loaded = files.load();
    assert_eq!(services(&loaded), ["a", "b"]);
    let found = problems(&loaded, dir.path());
    assert!(found[0].starts_with("a.yaml: is larger than 4 MiB"), "{found:?}");
    assert!(found[1].starts_with("b.yaml: is not UTF-8"), "{found:?}");
}

#[test]
fn namespaces_that_are_not_watched_are_passed_over() {
    let other = service("b").replace("name: b", "name: b, namespace: other");
    let class = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: wssgate}\n";
    let dir = directory(&[("a.yaml", &service("a")), ("b.yaml", &other), ("c.yaml", class)]);
    let loaded = Files::open(dir.path()).unwrap().namespaces(["default".to_owned()]).load();
    assert_eq!((services(&loaded), loaded.objects.ingress_classes.len(), loaded.skipped), (vec!["a"], 1, 1));
}

#[test]
fn no_problem_shows_the_content_of_a_secret() {
    let dir = directory(&[
        ("a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {k: 'hunter2!'}\n"),
        ("b.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: hunter2\n"),
        ("c.json", r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}, "data": "hunter2"}"#),
        ("d.json", r#"{"apiVersion": "v1", "kind": "Secret", "data": {"k": hunter2}}"#),
        ("e.yaml", "hunter2"),
    ]);
    let loaded = Files::open(dir.path()).unwrap().load();
    assert_eq!(loaded.problems.len(), 5);
    assert!(!format!("{loaded:?}").contains("hunter2"), "{loaded:?}");
}

#[cfg(unix)]
#[test]
fn a_mounted_config_map_is_read_once_and_swapped_whole() {
    use std::os::unix::fs::symlink;
    let dir = directory(&[("..2024_1/a.yaml", &service("a")), ("..2024_1/b.yaml", &service("b"))]);
    symlink("..2024_1", dir.path().join("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
    }
    let mut files = Files::open(dir.path()).unwrap();
    let loaded = files.load();
    assert_eq!((services(&loaded), loaded.problems.len()), (vec!["a", "b"], 0));

    fs::create_dir(dir.path().join("..2024_2")).unwrap();
    fs::write(dir.path().join("..2024_2/a.yaml"), service("a2")).unwrap();
    fs::write(dir.path().join("..2024_2/b.yaml"), service("b")).unwrap();
    symlink("..2024_2", dir.path().join("..data_tmp")).unwrap();
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    fs::remove_dir_all(dir.path().join("..2024_1")).unwrap();
    let loaded = files.load();
    assert_eq!((services(&loaded), loaded.problems.len()), (vec!["a2", "b"], 0));
}
