//! The CustomResourceDefinition as the API server and kubectl show it.

use serde_json::Value;

use super::Test;
use super::clusters::{Clusters, install_definition, wssgate};
use super::crd_validation::COMPLETE;

/// A route that says no more than it must.
const SMALL: &str = "
apiVersion: wssgate.io/v1alpha1
kind: SecureWebSocketRoute
metadata: {name: small}
spec:
  hostnames: [small.example.com]
  rules: [{name: all, backendRefs: [{name: echo, port: 80}]}]
  handshake: {authentication: {mode: Anonymous}}
";

fn crd(clusters: &Clusters) -> Value {
    clusters.api().get(&["crd", "securewebsocketroutes.wssgate.io"])
}

fn the_printed_definition_is_established_by_kubectl_apply(clusters: &Clusters) {
    let crd = crd(clusters);
    let conditions = crd["status"]["conditions"].as_array().unwrap();
    for kind in ["Established", "NamesAccepted"] {
        assert!(conditions.iter().any(|c| c["type"] == kind && c["status"] == "True"), "{conditions:#?}");
    }
    assert!(!conditions.iter().any(|c| c["type"] == "NonStructuralSchema"), "{conditions:#?}");
    // Applied again, it is what is there already: the printed text is the API server's own form.
    let said = install_definition(clusters.api());
    assert!(said.contains("unchanged"), "{said}");
}

fn the_definition_fits_into_the_annotation_of_a_client_side_apply(clusters: &Clusters) {
    let crd = crd(clusters);
    let kept = crd["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert!(kept.contains("perSubject"), "not the whole definition");
    // 256 KiB for all annotations together; room for those of other tools.
    assert!(kept.len() < 200 * 1024, "{} bytes", kept.len());
}

fn kubectl_explain_reads_well(clusters: &Clusters) {
    let explain =
        |field: &str| clusters.api().must(&["explain", field]).split_whitespace().collect::<Vec<_>>().join(" ");
    for (field, phrases) in [
        ("swsr", &["KIND: SecureWebSocketRoute", "VERSION: v1alpha1", "spec <Object> -required-"][..]),
        (
            "swsr.spec",
            &[
                "Hostnames that clients name in TLS (SNI) and in Host: exact, or with a star in place of the first label.",
                "hostnames <[]string> -required-",
                "handshake <Object> -required-",
                "What the gateway checks while a connection is open.",
            ],
        ),
        (
            "swsr.spec.handshake",
            &[
                "What the gateway checks of the HTTP upgrade, before a connection is opened.",
                "authentication <Object> -required-",
                "rateLimit <Object>",
                "origins <Object>",
            ],
        ),
        (
            "swsr.spec.handshake.origins",
            &[
                "Whether a handshake without an Origin header, which no browser sends, is let through: Allow or Deny.",
                "enum: Allow, Deny",
            ],
        ),
        ("swsr.spec.connection.onCredentialExpiry", &["Close if absent", "ENUM: Close Keep"]),
        ("swsr.spec.messages.fromClient.maxSize", &["64Ki if absent"]),
        ("swsr.status.conditions", &["type <string> -required-", "observedGeneration <integer>"]),
    ] {
        let text = explain(field);
        for phrase in phrases {
            assert!(text.contains(phrase), "kubectl explain {field} does not say {phrase:?}:\n{text}");
        }
        assert!(!text.contains('`') && !text.contains("<empty>"), "{text}");
    }
}

fn a_new_route_waits_for_its_controller(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("waiting");
    kubectl.apply(SMALL);
    let route = kubectl.get(&["swsr", "small"]);
    let conditions = route["status"]["conditions"].as_array().unwrap();
    assert!(!conditions.is_empty());
    for condition in conditions {
        assert_eq!(condition["status"], "Unknown", "{condition}");
        assert_eq!(condition["message"], "Waiting for controller", "{condition}");
    }
    // So that `kubectl wait --for=condition=Ready` neither ends at once nor fails.
    assert!(conditions.iter().any(|c| c["type"] == "Ready"), "{conditions:#?}");
}

fn no_policy_number_is_written_into_a_route_by_the_api_server(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("defaults");
    kubectl.apply(SMALL);
    let spec = kubectl.get(&["swsr", "small"])["spec"].clone();
    let expected = serde_json::json!({
        "hostnames": ["small.example.com"],
        "rules": [{"name": "all", "backendRefs": [{"name": "echo", "port": 80}]}],
        "handshake": {"authentication": {"mode": "Anonymous"}},
    });
    assert_eq!(spec, expected);
}

fn kubectl_get_shows_what_a_person_needs(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("columns");
    kubectl.apply(&COMPLETE.replace("namespace: shop", &format!("namespace: {}", kubectl.namespace())));
    let table = |arguments: &[&str]| -> Vec<Vec<String>> {
        let text = kubectl.must(arguments);
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let short = table(&["get", "swsr"]);
    assert_eq!(short[0], ["NAME", "HOSTS", "AUTH", "READY", "AGE"]);
    assert_eq!(short[1][..4], ["chat", "[\"chat.example.com\"]", "AnyOf", "Unknown"]);
    let wide = table(&["get", "swsr", "-o", "wide"]);
    assert_eq!(wide[0], ["NAME", "HOSTS", "AUTH", "READY", "AGE", "SECRET", "REASON"]);
    assert_eq!(wide[1][5..], ["chat-tls", "Pending"]);
    // By category too, and by class.
    assert!(kubectl.must(&["get", "wssgate", "-o", "name"]).contains("securewebsocketroute.wssgate.io/chat"));
    let of = |class: &str| {
        kubectl.must(&["get", "swsr", "-o", "name", "--field-selector", &format!("spec.ingressClassName={class}")])
    };
    assert!(of("wssgate").contains("/chat"));
    assert_eq!(of("other"), "");
}

fn the_quickstart_is_accepted(clusters: &Clusters) {
    // The quickstart makes its namespace itself; a dry run of one call does not see what it would have made.
    clusters.api().apply("{apiVersion: v1, kind: Namespace, metadata: {name: quickstart}}");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/quickstart");
    let said = clusters.api().run(&["apply", "--dry-run=server", "--recursive", "-f", folder]);
    assert!(said.out.contains("securewebsocketroute.wssgate.io/"), "{said:?}");
    // Without a cluster its backend is on loopback, which no cluster takes as an endpoint.
    let other: Vec<&str> = said.err.lines().filter(|line| !line.contains("may not be in the loopback range")).collect();
    assert!(other.is_empty(), "{other:#?}");
}

fn the_binary_and_the_committed_file_are_the_same_to_the_api_server(clusters: &Clusters) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/wssgate.io_securewebsocketroutes.yaml");
    let printed = String::from_utf8(wssgate().arg("crd").output().unwrap().stdout).unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), printed);
    let said = clusters.api().run(&["diff", "-f", file]);
    assert!(said.ok, "{}{}", said.out, said.err);
}

pub fn tests() -> Vec<Test> {
    crate::tests![api anywhere:
        the_printed_definition_is_established_by_kubectl_apply,
        the_definition_fits_into_the_annotation_of_a_client_side_apply,
        kubectl_explain_reads_well,
        a_new_route_waits_for_its_controller,
        no_policy_number_is_written_into_a_route_by_the_api_server,
        kubectl_get_shows_what_a_person_needs,
        the_quickstart_is_accepted,
        the_binary_and_the_committed_file_are_the_same_to_the_api_server,
    ]
}
