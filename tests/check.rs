//! `wssgate check`, the real binary, on one typical mistake for every field of a route and of the settings: what it says
//! names the object, the field and the fix, the exit code tells, and no other route of the directory notices.
//! `UPDATE=1` writes `tests/check/*.txt` anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::drift;
use crate::harness::manifests::{config_map, secret, service, service_as, text};
use crate::harness::{Authority, Pair, json};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

const MISTAKES: &str = include_str!("check/mistakes.yaml");
const SETTINGS: &str = include_str!("check/settings.yaml");

/// Mistakes in routes.
#[derive(Deserialize)]
struct Mistakes {
    /// A spec without any.
    route: Value,
    around: Vec<Around>,
    rows: Vec<Row>,
}

/// What rows below a field need.
#[derive(Deserialize)]
struct Around {
    below: String,
    at: String,
    write: Value,
}

/// One mistake.
#[derive(Deserialize)]
struct Row {
    at: String,
    write: Value,
    /// What has to stand elsewhere for it to be a mistake.
    #[serde(default)]
    besides: Option<Besides>,
    /// The exit code, were it the only mistake of the directory.
    #[serde(default = "one")]
    exit: i32,
}

#[derive(Deserialize)]
struct Besides {
    at: String,
    write: Value,
}

fn one() -> i32 {
    1
}

impl Mistakes {
    fn read() -> Self {
        serde_saphyr::from_str(MISTAKES).unwrap()
    }

    /// The spec with one mistake, on a host of its own.
    fn spec(&self, row: &Row, host: &str) -> Value {
        let mut spec = self.good(host);
        for around in &self.around {
            if row.at.len() > around.below.len() && row.at.starts_with(&around.below) {
                put(&mut spec, &around.at, around.write.clone());
            }
        }
        if let Some(besides) = &row.besides {
            put(&mut spec, &besides.at, besides.write.clone());
        }
        put(&mut spec, &row.at, row.write.clone());
        spec
    }

    fn good(&self, host: &str) -> Value {
        let mut spec = self.route.clone();
        spec["hostnames"] = json!([host]);
        spec
    }
}

/// The steps of a path such as `rules[0].name`.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '[']).map(|step| step.trim_end_matches(']'))
}

/// Writes at a path; what is missing on the way is made.
fn put(value: &mut Value, path: &str, new: Value) {
    let mut place = value;
    for step in steps(path) {
        place = match step.parse::<usize>() {
            Ok(index) => {
                if !place.is_array() {
                    *place = json!([]);
                }
                let items = place.as_array_mut().unwrap();
                while items.len() <= index {
                    items.push(Value::Null);
                }
                &mut items[index]
            }
            Err(_) => {
                if !place.is_object() {
                    *place = json!({});
                }
                place.as_object_mut().unwrap().entry(step).or_insert(Value::Null)
            }
        };
    }
    *place = new;
}

/// A path without its numbers: `rules[].name`.
fn shape(path: &str) -> String {
    let mut shape = String::new();
    for step in steps(path) {
        if step.parse::<usize>().is_ok() {
            shape.push_str("[]");
        } else {
            shape.push_str(if shape.is_empty() { "" } else { "." });
            shape.push_str(step);
        }
    }
    shape
}

fn route(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "wssgate.io/v1alpha1", "kind": "SecureWebSocketRoute",
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2025-01-01T00:00:00Z"}, "spec": spec,
    })
}

/// A directory with everything that the route without mistakes names, and ten of them.
fn directory(mistakes: &Mistakes) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let keys =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let mut objects = vec![
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "wssgate"},
            "spec": {"controller": "wssgate.io/ingress-controller"}}),
        secret("wildcard-tls", &authority.leaf(&["*.example.com"])),
        config_map("idp", "jwks.json", keys),
        config_map("partners-ca", "ca.crt", authority.pem()),
        config_map("partners-crl", "crl.pem", &authority.crl(&[], 2099)),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "sessions", "namespace": "shop"},
            "spec": {"ports": [{"port": 80}]}}),
    ];
    objects.extend(service("chat", &[9000]));
    objects.extend(service_as("secure", "kubernetes.io/wss", &[9001]));
    objects.extend((0..10).map(|n| route(&format!("good-{n}"), &mistakes.good(&format!("good-{n}.example.com")))));
    fs::write(directory.path().join("good.yaml"), text(&objects)).unwrap();
    directory
}

/// What `wssgate check` said of a directory: the exit code, what is wrong with files, and every route's conditions.
struct Said {
    exit: i32,
    files: Vec<String>,
    routes: BTreeMap<String, Vec<(String, String, String)>>,
}

fn run(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    let output = command.env_clear().arg("check").args(arguments).arg(directory).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn check(directory: &Path) -> Said {
    let (exit, stdout, stderr) = run(&["--output", "json"], directory);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    let mut routes = BTreeMap::new();
    for item in report["items"].as_array().unwrap() {
        let conditions = item["status"]["conditions"].as_array().unwrap().iter().map(|condition| {
            let text = |name: &str| condition[name].as_str().unwrap().to_owned();
            let status = format!("{}={} {}", text("type"), text("status"), text("reason"));
            (text("type"), status, text("message"))
        });
        routes.insert(item["metadata"]["name"].as_str().unwrap().to_owned(), conditions.collect());
    }
    let prefix = format!("{}/", directory.display());
    let files = stderr.lines().map(|line| line.replace(&prefix, "")).collect();
    Said { exit, files, routes }
}

#[test]
fn a_certificate_that_no_route_wants_is_named_with_the_command_that_deletes_it() {
    let objects = fs::read_to_string(crate::root().join("tests/compile/issuer_no_longer_wanted/objects.yaml")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("objects.yaml"), objects).unwrap();
    let (_, _, said) = run(&[], directory.path());
    let unwanted: Vec<&str> = said.lines().filter(|line| line.contains("kubectl delete certificate")).collect();
    let names = |name: &str| unwanted.iter().any(|line| line.ends_with(&format!("certificate -n shop {name}")));
    assert!(names("tls") && names("old-tls") && names("lost-tls") && unwanted.len() == 3, "{said}");
}

impl Said {
    fn is(&self, route: &str, condition: &str) -> bool {
        let conditions = self.routes.get(route).unwrap_or_else(|| panic!("{route} is not there"));
        conditions.iter().any(|(_, status, _)| status.starts_with(&format!("{condition}=True ")))
    }

    /// The ten without mistakes are served as they are written.
    fn spares_the_good(&self) {
        for n in 0..10 {
            let name = format!("good-{n}");
            assert!(self.is(&name, "Accepted") && self.is(&name, "Ready"), "{name}: {:?}", self.routes[&name]);
        }
    }

    /// What is wrong with one route, a line each.
    fn of(&self, name: &str) -> String {
        let mut said = String::new();
        for line in self.files.iter().filter(|line| line.starts_with(&format!("{name}.yaml:"))) {
            let _ = writeln!(said, "  {line}");
        }
        for (kind, status, message) in self.routes.get(name).into_iter().flatten() {
            let own = ["Accepted", "ResolvedRefs", "CertificateReady"].contains(&kind.as_str());
            if own && status.contains("=False ") {
                let _ = writeln!(said, "  {status}: {message}");
            }
        }
        said
    }
}

#[test]
fn a_mistake_in_any_field_is_named_with_its_fix_and_others_do_not_notice() {
    let mistakes = Mistakes::read();
    let directory = directory(&mistakes);
    for (number, row) in mistakes.rows.iter().enumerate() {
        let name = format!("r{number:03}");
        let spec = mistakes.spec(row, &format!("{name}.example.com"));
        fs::write(directory.path().join(format!("{name}.yaml")), format!("{:#}", route(&name, &spec))).unwrap();
    }
    let said = check(directory.path());
    assert_eq!(said.exit, 1);
    said.spares_the_good();
    let mut text = String::new();
    for (number, row) in mistakes.rows.iter().enumerate() {
        let name = format!("r{number:03}");
        let of_row = said.of(&name).replace(&name, "it");
        let accepted = said.routes.contains_key(&name) && said.is(&name, "Accepted");
        assert_eq!(accepted, row.exit == 0, "{} = {}:\n{of_row}", row.at, row.write);
        assert!(!of_row.is_empty(), "nothing is said of {} = {}", row.at, row.write);
        // The field, or the one above it where the two contradict each other.
        let above = row.at.rsplit_once('.').map_or(row.at.as_str(), |(above, _)| above);
        let above = above.rsplit_once('[').map_or(above, |(list, _)| list);
        assert!(of_row.contains(&format!("spec.{above}")), "{} is not named:\n{of_row}", row.at);
        assert!(!of_row.contains("u:secret"), "a password is shown:\n{of_row}");
        let _ = write!(text, "{} = {}\n{of_row}", row.at, row.write);
    }
    drift("tests/check/mistakes.txt", &text);
}

#[test]
fn the_exit_code_is_0_while_every_route_is_accepted_and_1_with_any_mistake_in_a_spec_or_a_file() {
    let mistakes = Mistakes::read();
    let directory = directory(&mistakes);
    let said = check(directory.path());
    assert_eq!((said.exit, said.files.len()), (0, 0), "{:?}", said.files);
    said.spares_the_good();
    // What another object may yet mend is told, and fails nothing.
    let row = mistakes.rows.iter().find(|row| row.exit == 0).unwrap();
    let file = directory.path().join("one.yaml");
    fs::write(&file, route("one", &mistakes.spec(row, "one.example.com")).to_string()).unwrap();
    let said = check(directory.path());
    assert!(said.exit == 0 && !said.of("one").is_empty(), "{}", said.of("one"));
    for (what, text) in [
        ("a mistake", route("one", &json!({"hostnames": ["one.example.com"]})).to_string()),
        ("no YAML", "apiVersion: [".to_owned()),
    ] {
        fs::write(&file, text).unwrap();
        let said = check(directory.path());
        assert_eq!(said.exit, 1, "{what}");
        said.spares_the_good();
    }
    let (exit, table, _) = run(&[], directory.path());
    assert!(exit == 1 && table.contains("shop/good-0 ") && table.ends_with("10 routes, 10 accepted\n"), "{table}");
    let (exit, _, stderr) = run(&[], &directory.path().join("absent"));
    assert!(exit == 2 && stderr.contains("absent: cannot be read"), "{exit}: {stderr}");
}

/// Every property below `schema` with its path, `[]` for entries of lists.
fn fields(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.push((path.clone(), property.clone()));
        fields(property, &path, found);
        fields(&property["items"], &format!("{path}[]"), found);
    }
}

fn schema() -> Vec<(String, Value)> {
    let schema = wssgate::api::crd::schema();
    let mut found = Vec::new();
    fields(&schema["properties"]["spec"], "", &mut found);
    assert!(found.len() > 120, "{}", found.len());
    found
}

#[test]
fn every_field_of_the_api_has_a_mistake_in_the_table() {
    let mistakes = Mistakes::read();
    let covered: BTreeSet<String> = mistakes.rows.iter().map(|row| shape(row.at.trim_end_matches("[0]"))).collect();
    let is_leaf = |property: &Value| property["properties"].is_null() && property["items"]["properties"].is_null();
    let missing: Vec<String> = schema()
        .into_iter()
        .filter(|(path, property)| is_leaf(property) && !covered.contains(path))
        .map(|(path, _)| path)
        .collect();
    assert!(missing.is_empty(), "tests/check/mistakes.yaml has no row for {missing:#?}");
}

#[test]
fn a_value_of_the_wrong_type_is_named_by_file_line_column_object_field_and_fix() {
    let mistakes = Mistakes::read();
    let directory = directory(&mistakes);
    let mut names = Vec::new();
    for (number, (path, property)) in schema().into_iter().enumerate() {
        let wrong = match property["type"].as_str() {
            Some("string" | "array") => json!({"a": "b"}),
            Some("object") => json!(["a"]),
            // The value of a selector: of any type that has no parts.
            None if property["x-kubernetes-preserve-unknown-fields"] == true => json!({"a": "b"}),
            _ => json!("many"),
        };
        let (name, at) = (format!("r{number:03}"), path.replace("[]", "[0]"));
        let row = Row { at: at.clone(), write: wrong, besides: None, exit: 1 };
        let spec = mistakes.spec(&row, &format!("{name}.example.com"));
        fs::write(directory.path().join(format!("{name}.yaml")), format!("{:#}", route(&name, &spec))).unwrap();
        names.push((name, at));
    }
    let said = check(directory.path());
    assert_eq!(said.exit, 1);
    said.spares_the_good();
    for (name, at) in names {
        let of_row = said.of(&name);
        let named = of_row.contains(&format!("spec.{at}: write "));
        assert!(named, "{at} is not named with its fix:\n{of_row}");
        // Where the route cannot be read at all there is a place, and it is the field's own.
        if !said.routes.contains_key(&name) {
            let place = of_row.trim_start().strip_prefix(&format!("{name}.yaml:")).unwrap();
            let line: usize = place.split(':').next().unwrap().parse().unwrap();
            let text = fs::read_to_string(directory.path().join(format!("{name}.yaml"))).unwrap();
            let key = steps(&at).filter(|step| step.parse::<usize>().is_err()).last().unwrap();
            let found = text.lines().nth(line - 1).unwrap();
            assert!(found.contains(&format!("\"{key}\"")), "{at} is not in line {line}: {found}\n{of_row}");
            assert!(of_row.contains(&format!("SecureWebSocketRoute shop/{name}: ")), "{of_row}");
        }
    }
}

#[test]
fn what_is_wrong_with_another_object_is_told_by_the_route_that_names_it() {
    let mistakes = Mistakes::read();
    let directory = directory(&mistakes);
    let authority = Authority::new();
    let (one, other) = (authority.leaf(&["*.example.com"]), authority.leaf(&["*.example.com"]));
    let wrong_key = secret("wrong-key", &Pair { chain: one.chain.clone(), key: other.key });
    let mut no_key = secret("no-key", &one);
    no_key["data"].as_object_mut().unwrap().remove("tls.key");
    let with_secret = |host: &str, name: &str| {
        let mut spec = mistakes.good(host);
        spec["tls"]["certificateRefs"][0]["name"] = json!(name);
        spec
    };
    let mut no_endpoints = mistakes.good("c.example.com");
    no_endpoints["rules"][0]["backendRefs"][0]["name"] = json!("empty");
    let mut second_tls = route("e", &mistakes.good("good-1.example.com"));
    let mut foreign = route("d", &mistakes.good("good-0.example.com"));
    foreign["metadata"]["namespace"] = json!("bank");
    // Younger than those whose names they want.
    for young in [&mut foreign, &mut second_tls] {
        young["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    let mut objects = vec![
        wrong_key,
        no_key,
        route("a", &with_secret("a.example.com", "wrong-key")),
        route("b", &with_secret("b.example.com", "no-key")),
        route("c", &no_endpoints),
        foreign,
        second_tls,
    ];
    objects.extend(service("empty", &[]));
    fs::write(directory.path().join("wrong.yaml"), text(&objects)).unwrap();
    let said = check(directory.path());
    said.spares_the_good();
    assert!(said.exit == 1 && said.files.is_empty(), "{:?}", said.files);
    for (name, status, words) in [
        ("a", "CertificateReady=False ", &["Secret shop/wrong-key", "key"][..]),
        ("b", "CertificateReady=False ", &["Secret shop/no-key", "tls.key"]),
        ("c", "ResolvedRefs=True NoEndpoints", &["Service shop/empty:8080", "503"]),
        ("d", "Accepted=False HostnameConflict", &["spec.hostnames", "good-0.example.com", "another namespace"]),
        ("e", "Accepted=False HostnameConflict", &["spec.tls", "good-1.example.com", "shop/good-1"]),
    ] {
        let found = said.routes[name].iter().find(|(_, found, _)| found.starts_with(status));
        let message = &found.unwrap_or_else(|| panic!("{name}: {:?}", said.routes[name])).2;
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
    }
}

/// Mistakes in the settings file.
#[derive(Deserialize)]
struct SettingsMistakes {
    settings: Value,
    rows: Vec<Row>,
}

#[test]
fn a_mistake_in_any_setting_ends_with_exit_code_2_and_is_named_with_its_fix() {
    let mistakes: SettingsMistakes = serde_saphyr::from_str(SETTINGS).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let manifests = directory.path().join("manifests");
    fs::create_dir(&manifests).unwrap();
    let good = Mistakes::read().good("good.shop.example.com");
    fs::write(manifests.join("route.yaml"), text(&[route("good", &good)])).unwrap();
    let file = directory.path().join("gateway.yaml");
    let said = |settings: &Value| {
        fs::write(&file, format!("{settings:#}")).unwrap();
        let (exit, _, stderr) = run(&["--config", file.to_str().unwrap()], &manifests);
        (exit, stderr.replace(&format!("{}/", directory.path().display()), ""))
    };
    assert_eq!(said(&mistakes.settings), (0, String::new()));
    let mut text = String::new();
    for row in &mistakes.rows {
        let mut settings = mistakes.settings.clone();
        put(&mut settings, &row.at, row.write.clone());
        let (exit, stderr) = said(&settings);
        assert_eq!(exit, 2, "{} = {}: {stderr}", row.at, row.write);
        assert!(stderr.starts_with("wssgate: gateway.yaml:") && stderr.lines().count() == 1, "{stderr}");
        let named = stderr.contains(&format!(": {}", row.at.trim_end_matches(|c: char| "[]0123456789".contains(c))));
        assert!(named, "{} is not named: {stderr}", row.at);
        let words =
            ["invalid type", "struct ", "expected mapping", "expected sequence", "scalar", "unknown variant", "`"];
        assert!(words.iter().all(|word| !stderr.contains(word)), "no fix: {stderr}");
        let _ = write!(text, "{} = {}\n  {stderr}", row.at, row.write);
    }
    drift("tests/check/settings.txt", &text);
    // Every key has a row: what the file above sets, and that is every key there is.
    let covered: BTreeSet<String> = mistakes.rows.iter().map(|row| shape(row.at.trim_end_matches("[0]"))).collect();
    let mut objects = vec![(String::new(), mistakes.settings.clone())];
    while let Some((path, object)) = objects.pop() {
        let mut settings = mistakes.settings.clone();
        put(&mut settings, &format!("{path}{}unheard", if path.is_empty() { "" } else { "." }), json!(1));
        let (_, stderr) = said(&settings);
        let known = stderr.split_once("unheard: unknown field; use one of ");
        let known = known.unwrap_or_else(|| panic!("{path}: {stderr}")).1;
        for name in known.trim_end().split(", ") {
            assert!(object.get(name).is_some(), "tests/check/settings.yaml does not set {path}.{name}");
        }
        for (name, value) in object.as_object().unwrap() {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            // Those are the route's own, and the namespaces of suffixes are anyone's.
            if ["defaults", "hostnameSuffixes"].contains(&below.as_str()) {
                continue;
            }
            match value {
                Value::Object(_) => objects.push((below, value.clone())),
                _ => assert!(covered.contains(&below), "tests/check/settings.yaml has no row for {below}"),
            }
        }
    }
}
