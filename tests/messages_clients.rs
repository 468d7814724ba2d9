//! Real clients and servers on either side of a gateway that judges what both say: a normal session
//! passes, and of a mangled message the other side never hears. The programs are in `tests/messages_clients/`, what they
//! stand on comes from PyPI and npm.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::documentation::files_below;
use crate::harness::manifests::{route, sample, secret, service};
use crate::harness::{Authority, Gateway, HOST, Manifests, Program, json, packages};

/// An authority, and its certificate as a file for programs.
fn authority() -> (Authority, NamedTempFile) {
    let (authority, file) = (Authority::new(), NamedTempFile::new().unwrap());
    fs::write(file.path(), authority.pem()).unwrap();
    (authority, file)
}

/// A gateway with a sample between both ends of a program in JavaScript: what came of each case.
async fn through(sample_of: &str, program: &str) -> (BTreeMap<String, Value>, Gateway) {
    let (authority, file) = authority();
    let mut program = Program::node(program, file.path()).await;
    let manifests = Manifests::default().with("sample.yaml", &sample(sample_of, &authority, program.port));
    let gateway = Gateway::start(&manifests).await;
    (program.cases(gateway.wss.port()).await, gateway)
}

/// The end of a message that is refused: why, by which schema and where.
async fn ends(gateway: &Gateway, reason: &str, schema: &str, pointer: &str) {
    let case = format!("{reason} {schema} {pointer}");
    let same = |line: &Value, name: &str, value: &str| line[name].as_str().unwrap_or_default() == value;
    gateway
        .access_line(&case, |line| {
            same(line, "reason", reason) && same(line, "schema", schema) && same(line, "pointer", pointer)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_io_passes_the_sample_and_what_is_mangled_does_not() {
    let (cases, gateway) = through("socket-io.yaml", "socket_io.js").await;
    let king = json!({"piece": "king", "to": "e4"});
    assert_eq!(cases["good"]["client"], json!([[king], {"ok": true}]));
    assert_eq!(cases["good"]["seen"], json!([["move", king]]));
    for case in ["place", "member", "event"] {
        assert_eq!((&cases[case]["client"], &cases[case]["seen"]), (&json!(1008), &json!([])), "{case}");
    }
    ends(&gateway, "message_invalid", "move", "/1/to").await;
    ends(&gateway, "message_invalid", "move", "/1").await;
    // What is no event that a selector names must be what a connect packet has.
    ends(&gateway, "message_invalid", "auth", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signalr_passes_the_sample_and_what_is_mangled_does_not() {
    let (cases, gateway) = through("signalr.yaml", "signalr.js").await;
    assert_eq!(cases["good"]["client"], json!([["Have you tried it?"], 1]));
    assert_eq!(cases["good"]["seen"], json!([["Ask", 7, "How do I log in?"]]));
    for case in ["text", "type", "more", "method"] {
        let said = cases[case]["client"].as_str().unwrap();
        assert!(said.contains("1008"), "{case}: {said}");
        assert_eq!(cases[case]["seen"], json!([]), "{case}");
    }
    for pointer in ["/arguments/1", "/arguments/0", "/arguments/2"] {
        ends(&gateway, "message_invalid", "ask", pointer).await;
    }
    ends(&gateway, "message_unmatched", "", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graphql_passes_the_sample_and_what_is_mangled_does_not() {
    let (cases, gateway) = through("graphql.yaml", "graphql.js").await;
    assert_eq!(cases["subscription"]["client"], json!([{"prices": 1.5}, {"prices": 2}]));
    assert_eq!(cases["query"]["client"], json!([{"items": ["tea"]}]));
    for case in ["introspection", "variable", "more"] {
        assert_eq!(cases[case]["client"], 1008, "{case}");
        assert_eq!(cases[case]["seen"], json!([]), "{case}");
    }
    for pointer in ["/payload/query", "/payload/variables/item", "/payload/variables"] {
        ends(&gateway, "message_invalid", "subscribe", pointer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mcp_passes_the_sample_and_what_is_mangled_does_not() {
    let (cases, gateway) = through("json-rpc.yaml", "mcp.js").await;
    assert_eq!(cases["good"]["client"], json!([["search", "weather"], "found green tea"]));
    assert_eq!(cases["good"]["seen"], json!([["search", {"query": "green tea", "limit": 5}]]));
    for case in ["query", "more", "tool"] {
        assert_eq!((&cases[case]["client"], &cases[case]["seen"]), (&json!(1008), &json!([])), "{case}");
    }
    for pointer in ["/params/arguments/query", "/params/arguments"] {
        ends(&gateway, "message_invalid", "search", pointer).await;
    }
    ends(&gateway, "message_invalid", "other", "/method").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_passes_a_route_of_binary_messages() {
    let (authority, file) = authority();
    let mut program = Program::node("mqtt.js", file.path()).await;
    let spec = json!({
        "handshake": {"subprotocols": ["mqtt"]},
        "messages": {"fromClient": {"types": ["Binary"]}, "fromBackend": {"types": ["Binary"]}},
    });
    let manifests = Manifests::default()
        .with("secret.yaml", &[secret("chat-tls", &authority.leaf(&[HOST]))])
        .with("service.yaml", &service("chat", &[program.port]))
        .with("route.yaml", &[route("chat", HOST, "chat-tls", "chat", &spec)]);
    let gateway = Gateway::start(&manifests).await;
    let cases = program.cases(gateway.wss.port()).await;
    assert_eq!((&cases["good"]["client"], &cases["good"]["seen"]), (&json!(["lamp", "on"]), &json!(["lamp"])));
}

/// What a charge point of each version says; the central system says the rest.
const OF_CHARGE_POINTS: [(&str, &str, &[&str]); 2] = [
    (
        "ocpp1.6",
        "v16",
        &[
            "Authorize",
            "BootNotification",
            "DataTransfer",
            "DiagnosticsStatusNotification",
            "FirmwareStatusNotification",
            "Heartbeat",
            "LogStatusNotification",
            "MeterValues",
            "SecurityEventNotification",
            "SignCertificate",
            "SignedFirmwareStatusNotification",
            "StartTransaction",
            "StatusNotification",
            "StopTransaction",
        ],
    ),
    (
        "ocpp2.0.1",
        "v201",
        &[
            "Authorize",
            "BootNotification",
            "ClearedChargingLimit",
            "DataTransfer",
            "FirmwareStatusNotification",
            "Get15118EVCertificate",
            "GetCertificateStatus",
            "Heartbeat",
            "LogStatusNotification",
            "MeterValues",
            "NotifyChargingLimit",
            "NotifyCustomerInformation",
            "NotifyDisplayMessages",
            "NotifyEVChargingNeeds",
            "NotifyEVChargingSchedule",
            "NotifyEvent",
            "NotifyMonitoringReport",
            "NotifyReport",
            "PublishFirmwareStatusNotification",
            "ReportChargingProfiles",
            "ReservationStatusUpdate",
            "SecurityEventNotification",
            "SignCertificate",
            "StatusNotification",
            "TransactionEvent",
        ],
    ),
];

/// The sample of OCPP with the schemas of the Python package in place of its own: one for each action, and one for all
/// answers, which do not say what they answer.
fn published(mut objects: Vec<Value>, subprotocol: &str, folder: &str, of_charge_points: &[&str]) -> Vec<Value> {
    let packages = packages::python().ancestors().nth(2).unwrap().join("lib");
    let mut schemas = files_below(&packages);
    schemas.retain(|file| file.parent().unwrap().ends_with(format!("ocpp/{folder}/schemas")));
    let mut data: BTreeMap<String, String> = BTreeMap::new();
    for file in schemas.iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        data.insert(file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(file).unwrap());
    }
    let entry = |name: &str, pointer: &str, value: Value, payload: &str, key: &str| {
        json!({
            "name": name, "selector": [{"pointer": pointer, "value": value}], "payload": payload,
            "ref": {"name": "ocpp", "key": key},
        })
    };
    let (mut stations, mut central, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for key in data.keys() {
        let action = key.trim_end_matches(".json");
        if action.ends_with("Response") {
            answers.push(json!({"$ref": key}));
            continue;
        }
        let action = action.trim_end_matches("Request");
        let call = entry(&action.to_lowercase(), "/2", action.into(), "/3", key);
        let of_charge_point = of_charge_points.contains(&action);
        if of_charge_point {
            stations.push(call.clone());
        }
        if !of_charge_point || action == "DataTransfer" {
            central.push(call);
        }
    }
    assert_eq!(stations.len(), of_charge_points.len());
    assert!(central.len() > 20 && answers.len() > 35, "{} {}", central.len(), answers.len());
    data.insert("answer.json".to_owned(), json!({"anyOf": answers}).to_string());
    for list in [&mut stations, &mut central] {
        list.push(entry("answer", "/0", 3.into(), "/2", "answer.json"));
    }
    for object in &mut objects {
        match object["kind"].as_str() {
            Some("ConfigMap") => object["data"] = json!(data),
            Some("SecureWebSocketRoute") => {
                object["spec"]["handshake"]["subprotocols"] = json!([subprotocol]);
                object["spec"]["messages"]["fromClient"]["schemas"] = json!(stations);
                object["spec"]["messages"]["fromBackend"]["schemas"] = json!(central);
            }
            _ => {}
        }
    }
    objects
}

/// A charge point's session passes; at each step a call or an answer that is mangled ends it, and the other side does not
/// hear of it.
async fn charge(subprotocol: &str, last: &str, manifests: impl FnOnce(Vec<Value>) -> Vec<Value>) {
    let (authority, file) = authority();
    let mut program = Program::charge_point(subprotocol, file.path()).await;
    let objects = manifests(sample("ocpp.yaml", &authority, program.port));
    let gateway = Gateway::start(&Manifests::default().with("sample.yaml", &objects)).await;
    let mut cases = program.cases(gateway.wss.port()).await;
    let good = cases.remove("good").unwrap();
    let heard = good["heard"].as_array().unwrap();
    assert_eq!((heard.len(), &good["answered"], &good["code"]), (7, &json!(7), &Value::Null), "{good}");
    assert_eq!((heard[0].as_str(), heard[6].as_str()), (Some("BootNotification"), Some(last)));
    // Three ways and a mangled answer for each of seven steps, but for two ways that a heartbeat does not have.
    assert_eq!(cases.len(), 7 * 4 - 2);
    for (name, case) in &cases {
        let (step, way) = name.split_once(' ').unwrap();
        let step: usize = step.parse().unwrap();
        let (code, heard_of) = if way == "answer" { (1011, step) } else { (1008, step - 1) };
        assert_eq!((&case["code"], &case["answered"]), (&json!(code), &json!(step - 1)), "{name}: {case}");
        assert_eq!(case["heard"].as_array().unwrap()[..], heard[..heard_of], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_point_passes_the_sample_and_what_is_mangled_does_not() {
    charge("ocpp1.6", "StopTransaction", |objects| objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_point_passes_the_published_schemas_and_what_is_mangled_does_not() {
    for ((subprotocol, folder, actions), last) in
        OF_CHARGE_POINTS.into_iter().zip(["StopTransaction", "TransactionEvent"])
    {
        charge(subprotocol, last, |objects| published(objects, subprotocol, folder, actions)).await;
    }
}
