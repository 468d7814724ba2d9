//! What the chart in `charts/wssgate` shares with the binary: the definition, the settings, the shape of a route's
//! defaults. What Helm makes of the chart is tested in `tests/install`.
//!
//! `UPDATE=1 cargo test --test files` writes what is generated anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::documentation::families;
use crate::{drift, root};
use serde_json::{Map, Value, json};
use wssgate::api::crd;
use wssgate::settings::{GatewayConfiguration, Overrides, Settings};

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_chart_brings_the_definition_that_the_binary_prints() {
    drift("charts/wssgate/files/crd.yaml", &crd::yaml());
}

#[test]
fn the_chart_the_image_and_the_binary_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let chart: Value = serde_saphyr::from_str(&text("charts/wssgate/Chart.yaml")).unwrap();
    assert_eq!(chart["appVersion"], version);
    assert_eq!(chart["version"], version);
    for overlay in ["default", "namespaced", "high-availability"] {
        let path = format!("manifests/{overlay}/kustomization.yaml");
        let kustomization: Value = serde_saphyr::from_str(&text(&path)).unwrap();
        assert_eq!(kustomization["images"][0]["newTag"], version, "{path}");
    }
}

/// The Dockerfile builds without our script: what both say stays the same.
#[test]
fn the_image_for_people_is_built_alike_by_the_dockerfile_and_the_script() {
    let (dockerfile, script) = (text("Dockerfile"), text("scripts/image"));
    for said in [
        "RUSTFLAGS=\"-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs\"",
        "cargo auditable build",
        " --locked --profile",
        "--target \"$target\" --bin wssgate",
        "rustc -vV | sed -n 's/^host: //p'",
        "25000000",
    ] {
        assert!(dockerfile.contains(said), "the Dockerfile does not say {said}");
        assert!(script.contains(said), "scripts/image does not say {said}");
    }
    assert!(dockerfile.contains("--profile image") && script.contains("\nprofile=image\n"));
    // Only its last stage is in the image, and it is that which the tests build.
    assert_eq!(dockerfile.matches("\nFROM ").count(), 2);
    assert!(dockerfile.contains("\nFROM scratch\n") && script.contains("--build-context \"build=$work/build\""));
}

/// The documents of a file.
fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|part| part.lines().any(|l| !l.is_empty() && !l.starts_with(['#', '-'])));
    parts.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e}\n{part}"))).collect()
}

/// What `wssgate check` says of a directory.
fn check(folder: &Path, settings: Option<&Path>) -> (bool, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    command.args(["check", "--output", "json"]).arg(folder);
    if let Some(settings) = settings {
        command.arg("--config").arg(settings);
    }
    let said = command.env_clear().output().unwrap();
    let errors = String::from_utf8_lossy(&said.stderr).into_owned();
    let report = serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"));
    (said.status.success(), report, errors)
}

#[test]
fn every_sample_is_accepted_and_lacks_nothing_but_what_only_a_cluster_has() {
    let files: Vec<PathBuf> =
        fs::read_dir(root().join("manifests/samples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 15, "{files:?}");
    let folder = tempfile::tempdir().unwrap();
    // The class and the settings are those of the chart as it is installed without values.
    let rendered = documents(&text("tests/install/golden/default.yaml"));
    let settings = folder.path().join("gateway.yaml");
    let written = rendered.iter().find(|d| d["kind"] == "ConfigMap").unwrap()["data"]["gateway.yaml"].as_str().unwrap();
    fs::write(&settings, written).unwrap();
    for file in &files {
        let name = file.file_name().unwrap();
        let alone = folder.path().join(name).with_extension("");
        fs::create_dir(&alone).unwrap();
        fs::copy(file, alone.join(name)).unwrap();
        let (accepted, report, errors) = check(&alone, Some(&settings));
        assert!(accepted, "{}: {errors}{report:#}", file.display());
        let routes = report["items"].as_array().unwrap();
        assert!(!routes.is_empty(), "{}: no route", file.display());
        // What brings schemas judges both directions.
        let judged = fs::read_to_string(file).unwrap().contains("schemas:");
        for condition in routes.iter().flat_map(|route| route["status"]["conditions"].as_array().unwrap()) {
            assert!(!judged || condition["type"] != "MessagesUnvalidated", "{}: {condition}", file.display());
            // Secrets and bundles are the reader's own; all else a sample brings along.
            if condition["type"] == "ResolvedRefs" && condition["status"] == "False" {
                for part in condition["message"].as_str().unwrap().split("; spec.") {
                    let missing = ["Secret ", "ConfigMap "].iter().any(|kind| part.contains(&format!(": {kind}")));
                    assert!(missing && part.contains("does not exist"), "{}: {part}", file.display());
                }
            }
        }
    }
    // A sample that is wrong is found: this is no test that cannot fail.
    let wrong = folder.path().join("wrong");
    fs::create_dir(&wrong).unwrap();
    let sample = text("manifests/samples/chat.yaml").replace("{name: chat, port: 8080}]", "{name: chta, port: 8080}]");
    fs::write(wrong.join("chat.yaml"), sample).unwrap();
    let (_, report, _) = check(&wrong, None);
    assert!(report.to_string().contains("Service shop/chta"), "{report:#}");
}

/// Every file with rendered manifests.
fn rendered() -> Vec<String> {
    let golden = fs::read_dir(root().join("tests/install/golden")).unwrap();
    let mut files: Vec<_> =
        golden.map(|e| format!("tests/install/golden/{}", e.unwrap().file_name().display())).collect();
    files.extend(["default", "namespaced", "high-availability"].map(|o| format!("manifests/{o}/wssgate.yaml")));
    files.sort();
    files
}

#[test]
fn the_gateway_takes_the_settings_and_arguments_of_every_rendering() {
    let files = rendered();
    assert!(files.len() >= 10, "{files:?}");
    for file in &files {
        let documents = documents(&text(file));
        let of =
            |kind: &str| documents.iter().find(|d| d["kind"] == kind).unwrap_or_else(|| panic!("{file}: no {kind}"));
        let written = of("ConfigMap")["data"]["gateway.yaml"].as_str().unwrap();
        let settings = GatewayConfiguration::parse(file, written).unwrap_or_else(|e| panic!("{e}\n{written}"));
        let drain = Settings::merge(Overrides::default(), Some(settings)).drain;
        // What a Pod is given must be what the gateway takes, and ten seconds.
        let pod = &of("Deployment")["spec"]["template"]["spec"];
        let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
        let needed = drain.accept_grace + drain.window + drain.deadline + Duration::from_secs(10);
        assert!(grace >= needed && grace < needed + Duration::from_secs(1), "{file}: {grace:?}, needed {needed:?}");
        let container = &pod["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
        let line = std::iter::once("wssgate".to_owned()).chain(arguments);
        let run = <wssgate::args::Arguments as clap::Parser>::try_parse_from(line).unwrap_or_else(|e| panic!("{e}"));
        let wssgate::args::Command::Run(run) = run.command else { panic!("{file}: not run") };
        let ports: Vec<_> =
            container["ports"].as_array().unwrap().iter().map(|p| p["containerPort"].as_u64()).collect();
        let listens = [run.listen, run.listen_http, run.admin].map(|l| l.map(|l| u64::from(l.port())));
        assert_eq!(ports, listens, "{file}");
        // The kubelet asks the Pod's address.
        assert!(run.admin.is_some_and(|admin| admin.ip().is_unspecified()), "{file}");
        let mount = &container["volumeMounts"][0];
        assert!(run.config.unwrap().starts_with(mount["mountPath"].as_str().unwrap()), "{file}");
        assert!(mount["subPath"].is_null(), "{file}: a subPath does not follow the ConfigMap");
    }
}

#[test]
fn the_limit_per_address_comes_with_a_service_that_keeps_addresses() {
    let limit = |file: &str| {
        let documents = documents(&text(&format!("tests/install/golden/{file}.yaml")));
        let service = documents.iter().find(|d| d["kind"] == "Service").unwrap();
        let map = documents.iter().find(|d| d["kind"] == "ConfigMap").unwrap();
        let settings: Value = serde_saphyr::from_str(map["data"]["gateway.yaml"].as_str().unwrap()).unwrap();
        let policy = service["spec"]["externalTrafficPolicy"].as_str().map(ToOwned::to_owned);
        (policy, settings["defaults"]["connection"]["limits"]["perAddress"].as_u64())
    };
    assert_eq!(limit("default"), (Some("Local".to_owned()), Some(100)));
    assert_eq!(limit("minimal"), (None, None));
    // Written by the user: it stands.
    assert_eq!(limit("everything"), (Some("Cluster".to_owned()), Some(50)));
}

#[test]
fn alerts_and_scaling_ask_for_metrics_and_labels_that_exist() {
    let documents = documents(&text("tests/install/golden/everything.yaml"));
    let of = |kind: &str| documents.iter().find(|d| d["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"));
    let words = |text: &str| -> Vec<String> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c| !word(c)).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let mut expressions: Vec<String> = Vec::new();
    for rule in of("PrometheusRule")["spec"]["groups"][0]["rules"].as_array().unwrap() {
        expressions.push(rule["expr"].as_str().unwrap().to_owned());
    }
    assert!(expressions.len() >= 5);
    for metric in of("HorizontalPodAutoscaler")["spec"]["metrics"].as_array().unwrap() {
        expressions.push(metric["pods"]["metric"]["name"].as_str().unwrap().to_owned());
    }
    let families = families();
    for expression in &expressions {
        let used: Vec<_> = words(expression).into_iter().filter(|w| w.starts_with("wssgate_")).collect();
        // What Prometheus adds to every sample.
        let mut labels = vec!["namespace", "job", "pod"];
        for name in &used {
            let found = families.iter().find(|family| family.name == *name);
            let found = found.unwrap_or_else(|| panic!("{name} is no metric: {expression}"));
            labels.extend(found.labels.iter().map(String::as_str));
        }
        let selectors = expression.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        let selected = selectors.flat_map(|s| s.split(',')).map(|one| one.split(['=', '!']).next().unwrap().trim());
        let grouped = expression.split("by (").skip(1).map(|rest| rest.split(')').next().unwrap());
        for label in selected.chain(grouped.flat_map(|list| list.split(',')).map(str::trim)) {
            assert!(labels.contains(&label), "{label} is no label: {expression}");
        }
    }
}

/// A part of the definition as strict JSON Schema: nothing but what is described.
fn strict(schema: &Value) -> Value {
    let Value::Object(members) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (key, value) in members {
        match key.as_str() {
            "properties" => {
                let all = value.as_object().unwrap().iter().map(|(name, schema)| (name.clone(), strict(schema)));
                out.insert(key.clone(), Value::Object(all.collect()));
                out.insert("additionalProperties".to_owned(), json!(false));
            }
            "items" => drop(out.insert(key.clone(), strict(value))),
            "type" | "enum" | "minimum" | "maximum" | "minLength" | "maxLength" | "maxItems" | "minItems"
            | "required" | "pattern" => drop(out.insert(key.clone(), value.clone())),
            "x-kubernetes-int-or-string" => drop(out.insert("type".to_owned(), json!(["integer", "string"]))),
            // Descriptions are in the definition; defaults and merge rules mean nothing to Helm.
            _ => {}
        }
    }
    Value::Object(out)
}

#[test]
fn the_values_schema_knows_the_fields_of_a_routes_defaults() {
    let path = "charts/wssgate/values.schema.json";
    let mut schema: Value = serde_json::from_str(&text(path)).unwrap();
    for part in ["handshake", "connection", "messages"] {
        let mut definition = strict(&crd::schema()["properties"]["spec"]["properties"][part]);
        if part == "handshake" {
            // Never a default: each route says it.
            definition["properties"].as_object_mut().unwrap().remove("authentication").unwrap();
        }
        // A default is a part of what a route has to say.
        definition.as_object_mut().unwrap().remove("required");
        schema["$defs"][part] = definition;
    }
    drift(path, &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
}

/// Every object of the values schema that lets in keys that it does not name.
fn open(path: &str, schema: &Value, found: &mut Vec<String>) {
    if schema["properties"].is_object() {
        if schema["additionalProperties"] != false {
            found.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().unwrap() {
            open(&format!("{path}.{name}"), property, found);
        }
    }
    if schema["items"].is_object() {
        open(&format!("{path}[]"), &schema["items"], found);
    }
}

#[test]
fn the_values_schema_names_exactly_the_values() {
    let schema: Value = serde_json::from_str(&text("charts/wssgate/values.schema.json")).unwrap();
    let mut found = Vec::new();
    open("", &schema, &mut found);
    for part in ["handshake", "connection", "messages"] {
        open(part, &schema["$defs"][part], &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
    let values: Value = serde_saphyr::from_str(&text("charts/wssgate/values.yaml")).unwrap();
    let mut wrong = Vec::new();
    same(&values, &schema, "", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Values that the schema does not name, and names without a value.
fn same(values: &Value, schema: &Value, path: &str, wrong: &mut Vec<String>) {
    let (Some(values), Some(named)) = (values.as_object(), schema["properties"].as_object()) else { return };
    if values.is_empty() {
        return;
    }
    for name in values.keys().chain(named.keys()) {
        // Helm's own, for subcharts.
        if (path.is_empty() && name == "global") || [".resources", ".affinity"].contains(&path) {
            continue;
        }
        if !(values.contains_key(name) && named.contains_key(name)) {
            wrong.push(format!("{path}.{name}"));
        }
    }
    for (name, value) in values {
        same(value, &named[name], &format!("{path}.{name}"), wrong);
    }
}

/// The values with their comments, in the order in which they stand: path and meaning.
fn commented(text: &str) -> Vec<(String, String)> {
    let (mut found, mut comment, mut above) = (Vec::new(), String::new(), Vec::<(usize, String)>::new());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(more) = line.trim().strip_prefix("# ") {
            comment = format!("{comment} {more}").trim().to_owned();
            continue;
        }
        let key = line.trim().split_once(':').map(|(key, _)| key).filter(|k| !k.starts_with('-') && !k.is_empty());
        if let Some(key) = key {
            above.retain(|(depth, _)| *depth < indent);
            let path = above.iter().fold(String::new(), |path, (_, name)| path + name + ".") + key;
            above.push((indent, key.to_owned()));
            if !comment.is_empty() {
                found.push((path, comment.clone()));
            }
        }
        comment.clear();
    }
    found
}

/// What a value is unless it is set.
fn default(values: &Value, path: &str) -> Value {
    path.split('.').fold(values.clone(), |value, key| value[key].clone())
}

#[test]
fn the_page_of_values_is_what_the_values_say() {
    let source = text("charts/wssgate/values.yaml");
    let values: Value = serde_saphyr::from_str(&source).unwrap();
    let commented = commented(&source);
    let mut page = String::from(
        "# The wssgate chart\n\n\
         Installs wssgate, the WebSocket security gateway, on Kubernetes 1.33 or later.\n\n\
         ```sh\n\
         helm install wssgate charts/wssgate --namespace wssgate --create-namespace\n\
         ```\n\n\
         docs/install.md of the repository describes installation, GitOps, upgrade and removal. Helm refuses unknown\n\
         values and values that contradict each other, and names the problem.\n\n\
         ## Values\n\n\
         This page is generated from `values.yaml`; `UPDATE=1 cargo test --test files` writes it anew.\n\n\
         | value | default | meaning |\n|---|---|---|\n",
    );
    for (path, meaning) in &commented {
        let inside = format!("{path}.");
        let group = commented.iter().any(|(other, _)| other.starts_with(&inside));
        let default = if group { String::new() } else { format!("`{}`", default(&values, path)) };
        writeln!(page, "| `{path}` | {} | {} |", default.replace('|', "\\|"), meaning.replace('|', "\\|")).unwrap();
    }
    drift("charts/wssgate/README.md", &page);
}

#[test]
fn every_value_has_a_comment() {
    let source = text("charts/wssgate/values.yaml");
    let values: Value = serde_saphyr::from_str(&source).unwrap();
    let commented: Vec<String> = commented(&source).into_iter().map(|(path, _)| path).collect();
    let mut silent = Vec::new();
    let mut todo: Vec<(String, &Value)> = values.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v)).collect();
    while let Some((path, value)) = todo.pop() {
        if !commented.contains(&path) {
            silent.push(path.clone());
        }
        // Free maps are explained as a whole.
        if path != "resources"
            && let Some(members) = value.as_object()
        {
            todo.extend(members.iter().map(|(key, value)| (format!("{path}.{key}"), value)));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn comments_are_found_with_their_values() {
    let text = "# A page.\n\n# One\n# line.\na:\n  # Two.\n  b: 1\n  c: 2\n# Three.\nd: [x]\n";
    let found = commented(text);
    let found: Vec<_> = found.iter().map(|(path, meaning)| (path.as_str(), meaning.as_str())).collect();
    assert_eq!(found, [("a", "One line."), ("a.b", "Two."), ("d", "Three.")]);
}
