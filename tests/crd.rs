//! The CustomResourceDefinition: the committed file is what the binary prints, and the schema keeps its own rules.

use crate::drift;
use serde_json::Value;
use wssgate::api::crd;
use wssgate::api::route::RouteSpec;

const FILE: &str = "crds/wssgate.io_securewebsocketroutes.yaml";

/// Calls `visit` with the path and the schema of every property and every list entry.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            let path = format!("{path}.{name}");
            visit(&path, property);
            walk(&path, property, visit);
        }
    }
    if schema["items"].is_object() {
        let path = format!("{path}[]");
        visit(&path, &schema["items"]);
        walk(&path, &schema["items"], visit);
    }
}

/// Every property and list entry of spec and status that `wrong` finds fault with.
fn faults(wrong: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        walk(part, &crd::schema()["properties"][part], &mut |path, schema| {
            if wrong(schema) {
                found.push(path.to_owned());
            }
        });
    }
    found
}

#[test]
fn the_committed_definition_is_what_the_binary_prints() {
    drift(FILE, &crd::yaml());
}

#[test]
fn it_is_small_enough_for_client_side_apply() {
    // kubectl keeps the applied object in an annotation, and annotations hold 256 KiB.
    assert!(serde_json::to_string(&crd::definition()).unwrap().len() < 256 * 1024);
    assert!(crd::yaml().len() < 256 * 1024);
}

#[test]
fn the_yaml_reads_back_as_the_definition() {
    let read: Value = serde_saphyr::from_str(&crd::yaml()).unwrap();
    assert_eq!(read, crd::definition());
}

#[test]
fn names_columns_and_status_are_as_documented() {
    let crd = crd::definition();
    assert_eq!(crd["metadata"]["name"], "securewebsocketroutes.wssgate.io");
    assert_eq!(crd["spec"]["names"]["shortNames"][0], "swsr");
    assert_eq!(crd["spec"]["names"]["categories"][0], "wssgate");
    assert_eq!(crd["spec"]["scope"], "Namespaced");
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["name"], "v1alpha1");
    assert_eq!(version["selectableFields"][0]["jsonPath"], ".spec.ingressClassName");
    assert!(version["subresources"]["status"].is_object());
    let columns: Vec<(&str, i64)> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["priority"].as_i64().unwrap_or(0)))
        .collect();
    assert_eq!(columns, [("Hosts", 0), ("Auth", 0), ("Ready", 0), ("Age", 0), ("Secret", 1), ("Reason", 1)]);
    let conditions = &crd::schema()["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"][0], "type");
    assert_eq!(crd::schema()["properties"]["status"]["default"]["conditions"][0]["message"], "Waiting for controller");
}

#[test]
fn the_schema_hash_changes_with_the_schema_only() {
    let hash = crd::definition()["metadata"]["annotations"][crd::SCHEMA_HASH].clone();
    assert_eq!(hash.as_str().unwrap().len(), 16);
    assert_eq!(hash, crd::definition()["metadata"]["annotations"][crd::SCHEMA_HASH]);
}

#[test]
fn every_field_is_described() {
    let mut missing = Vec::new();
    for part in ["spec", "status"] {
        walk(part, &crd::schema()["properties"][part], &mut |path, schema| {
            if !path.ends_with("[]") && schema["description"].as_str().is_none_or(|d| d.len() < 5) {
                missing.push(path.to_owned());
            }
        });
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn no_description_speaks_rust() {
    let found = faults(|schema| schema["description"].as_str().is_some_and(|text| text.contains('`')));
    let found: Vec<_> = found.iter().filter(|path| !path.contains("conditions")).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_text_of_a_field_stands_before_that_of_its_type() {
    let text = |path: &str| crd::schema().pointer(path).unwrap()["description"].as_str().unwrap().to_owned();
    let spec = "/properties/spec/properties";
    assert!(text(&format!("{spec}/connection/properties/onCredentialExpiry")).contains("Close if absent"));
    assert!(text(&format!("{spec}/messages/properties/fromClient/properties/maxSize")).contains("64Ki if absent"));
    assert!(text(&format!("{spec}/tls/properties/minVersion")).contains("\"1.2\" if absent"));
}

#[test]
fn every_list_is_bounded_and_says_how_it_merges() {
    let found = faults(|schema| {
        schema["type"] == "array"
            && (!schema["maxItems"].is_u64()
                || !matches!(schema["x-kubernetes-list-type"].as_str(), Some("set" | "map" | "atomic")))
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn lists_by_key_have_keys_that_every_entry_carries() {
    let found = faults(|schema| {
        schema["x-kubernetes-list-type"] == "map"
            && !schema["x-kubernetes-list-map-keys"]
                .as_array()
                .is_some_and(|keys| keys.iter().all(|k| schema["items"]["required"].as_array().unwrap().contains(k)))
    });
    assert!(found.is_empty(), "{found:#?}");
}

/// `kubectl apply` and GitOps tools compare lists whole, and server-side apply does so for atomic ones: what the API server
/// adds to an entry is a difference for ever.
#[test]
fn nothing_below_a_list_has_a_schema_default() {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        walk(part, &crd::schema()["properties"][part], &mut |path, schema| {
            if path.contains("[]") && schema.get("default").is_some() {
                found.push(format!("{path}: {}", schema["default"]));
            }
        });
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The effective value stands in the code: what a list entry leaves out reads like what it writes out.
#[test]
fn what_a_list_entry_leaves_out_reads_as_its_default() {
    let read = |entries: [&str; 6]| -> RouteSpec {
        let [backend, path, secret, bundle, keys, service] = entries;
        let text = format!(
            "hostnames: [a.test]
tls:
  certificateRefs: [{{{secret}name: tls}}]
  clientValidation: {{caCertificateRefs: [{{{bundle}name: ca}}], crlRefs: [{{{bundle}name: crl}}]}}
rules:
- name: r
  matches: [{{path: {{{path}value: /}}}}]
  backendRefs: [{{{backend}name: chat, port: 80}}]
  backendTLS: {{hostname: chat.svc, caCertificateRefs: [{{{bundle}name: mesh}}]}}
handshake:
  authentication:
    mode: AnyOf
    methods:
    - {{name: a, type: JWT, jwt: {{issuer: i, audiences: [x], jwks: {{type: Local, local: {{ref: {{{keys}name: k, key: k}}}}}}}}}}
    - {{name: b, type: External, external: {{backendRef: {{{service}name: judge, port: 80}}, path: /}}}}
messages:
  fromClient: {{schemas: [{{name: m, ref: {{{bundle}name: schema, key: k}}}}]}}
"
        );
        serde_saphyr::from_str(&text).unwrap()
    };
    let whole = read([
        "group: '', kind: Service, ",
        "type: PathPrefix, ",
        "group: '', kind: Secret, ",
        "group: '', kind: ConfigMap, ",
        "group: '', kind: ConfigMap, ",
        "group: '', kind: Service, ",
    ]);
    assert_eq!(read([""; 6]), whole);
}

#[test]
fn every_text_is_bounded() {
    let found = faults(|schema| {
        schema["type"] == "string"
            && schema["format"] != "date-time"
            && !schema["maxLength"].is_u64()
            && !schema["enum"].is_array()
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_number_is_bounded_and_of_a_known_format() {
    let found = faults(|schema| {
        schema["type"] == "integer"
            && (!matches!(schema["format"].as_str(), Some("int32" | "int64"))
                || (schema["format"] == "int32" && !(schema["minimum"].is_i64() && schema["maximum"].is_i64())))
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_schema_is_structural() {
    // No unions, no nulls, no types that depend on values; but for the value of a selector, which may be of any type that
    // JSON has, so that the compile judges it.
    let any = |schema: &Value| schema["x-kubernetes-preserve-unknown-fields"] == true;
    assert_eq!(faults(any).len(), 2, "{:?}", faults(any));
    let found = faults(|schema| {
        if any(schema) {
            return false;
        }
        ["oneOf", "anyOf", "allOf", "not", "$ref", "nullable", "additionalProperties"]
            .iter()
            .any(|key| !schema[*key].is_null())
            || !(schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_union_and_every_cross_field_rule_is_checked_by_the_api_server() {
    let mut rules = 0;
    let mut silent = Vec::new();
    let mut count = |path: &str, schema: &Value| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            rules += 1;
            if rule["message"].as_str().is_none_or(|m| m.len() < 10) {
                silent.push(format!("{path}: {rule}"));
            }
        }
    };
    let schema = crd::schema();
    count("spec", &schema["properties"]["spec"]);
    walk("spec", &schema["properties"]["spec"], &mut count);
    assert!(silent.is_empty(), "{silent:#?}");
    // As many as the API's own page lists, at the least.
    assert!(rules >= 24, "{rules}");
}
