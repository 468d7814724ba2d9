//! `docs/absence.md`, row by row: what open connections, new handshakes and conditions make of an object that is deleted,
//! renamed, broken, replaced or being deleted.

mod cases;

use std::fs;
use std::process::Command;
use std::sync::Arc;

use cases::{Case, Told, World};

use crate::harness::issuer::{Key, bearer, claims};
use crate::harness::manifests::{secret, text};
use crate::harness::setup::{HOST, manifests};
use crate::harness::{
    Answer, Authority, Behaviour, Client, Frame, Gateway, Head, Options, PATIENCE, Peer, Recorder, SOON, json, until,
};
use crate::root;
use serde_json::Value;

/// Rows that need a cluster: object, what happened, open connections, new handshakes, condition, and the test that walks it.
const IN_A_CLUSTER: &[[&str; 6]] = &[
    [
        "Secret with a server certificate",
        "made by hand, and an `issuerRef` is added",
        "stay",
        "served",
        "`CertificateReady=False/CertificateConflict`",
        "cluster/hand_over::a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices",
    ],
    [
        "Certificate of cert-manager",
        "broken (its last attempt failed)",
        "stay",
        "served",
        "`CertificateReady=True/RenewalFailing`",
        "cluster/hand_over::a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices",
    ],
    [
        "Issuer or ClusterIssuer",
        "another one is named that does not exist",
        "stay",
        "served",
        "`CertificateReady=True/RenewalFailing`",
        "cluster/absence::an_issuer_that_fails_or_is_missing_ends_no_socket_and_is_told",
    ],
    [
        "Issuer or ClusterIssuer",
        "broken, and another Secret is named",
        "stay",
        "the last good certificate",
        "`CertificateReady=False/Issuing`",
        "cluster/absence::an_issuer_that_fails_or_is_missing_ends_no_socket_and_is_told",
    ],
    [
        "CustomResourceDefinitions of cert-manager",
        "deleted",
        "stay",
        "served",
        "`CertificateReady=True/Ready`",
        "cluster/hand_over::a_secret_is_handed_over_to_cert_manager_which_fails_and_goes_and_no_client_notices",
    ],
    [
        "Namespace",
        "being deleted",
        "closed with 1012",
        "served",
        "as before",
        "cluster/absence::a_namespace_that_is_deleted_ends_its_own_sockets_alone",
    ],
    [
        "CustomResourceDefinition of routes",
        "deleted",
        "closed with 1012",
        "the TLS alert `unrecognized_name`",
        "gone",
        "cluster/outage::the_definition_goes_under_500_sockets_and_no_pod_minds",
    ],
];
/// What an open connection sends before and after a change: JSON, which schemas of messages can judge.
const BEFORE: &str = r#""before""#;
const AFTER: &str = r#""after""#;

impl World {
    fn client(&self, gateway: &Gateway) -> Client {
        let config = self.partners.client_leaf("alice", 7, |_| {}).shown_by(self.authority.client());
        Client { address: gateway.wss, config: config.into(), name: HOST.to_owned() }
    }

    /// A handshake that every case lets in while nothing is missing.
    fn head(&self) -> Head {
        let token = self.key.sign(&claims(&json!({})));
        bearer(&token).add("Cookie", "sid=1").add("Origin", format!("https://{HOST}"))
    }

    /// Makes a change, and says what became of an open connection and of a new handshake.
    async fn observe(&self, recorder: &Recorder, case: &Case) -> (String, String) {
        let mut files = manifests(&self.authority, recorder, &case.spec);
        files = files.with("secret.yaml", &[secret("chat-tls", &self.pair)]);
        for (file, objects) in &case.files {
            files = files.with(file, objects);
        }
        let gateway = Gateway::start_with(&files, &Options::settings(&case.settings)).await;
        let (client, name) = (self.client(&gateway), format!("{}, {}", case.object, case.what));
        let mut open = client.open(&self.head()).await;
        open.echo(&Frame::text(BEFORE)).await;
        let shown = client.connect().await.certificate();
        for (file, objects) in &case.change {
            let before = looked(&gateway).await;
            match objects.as_slice() {
                [] => fs::remove_file(gateway.manifests().join(file)).unwrap(),
                objects => gateway.write(file, &text(objects)),
            }
            let what = format!("{name}: the change of {file} to be read");
            until(PATIENCE, &what, async || (looked(&gateway).await > before).then_some(())).await;
        }
        match case.told {
            Told::Logged(told) => {
                gateway.log_line(&format!("{name}: {told}"), |line| said(line) == Some(told.to_owned())).await;
            }
            Told::Shown(told) => {
                let all = conditions(&gateway);
                assert!(all.iter().any(|one| one == told), "{name}: {told} is not among {all:?}");
            }
            Told::Not => {}
        }
        if !matches!(case.told, Told::Logged(_)) {
            let lines = gateway.logs();
            let attention: Vec<_> = lines.iter().filter(|line| line["message"] == "route needs attention").collect();
            assert!(attention.is_empty(), "{name}: {attention:?}");
        }
        let new = match client.try_connect().await {
            Err(_) => "the TLS alert `unrecognized_name`".to_owned(),
            Ok(mut peer) => {
                assert_eq!(peer.certificate(), shown, "{name}");
                peer.write(&self.head().bytes()).await;
                match peer.head().await.map(|answer| answer.status()) {
                    Some(101) if matches!(case.told, Told::Logged(told) if told.starts_with("CertificateReady")) => {
                        "the last good certificate".to_owned()
                    }
                    Some(101) => "served".to_owned(),
                    Some(status) => status.to_string(),
                    None => panic!("{name}: no answer"),
                }
            }
        };
        (fate(&mut open).await, new)
    }
}

/// When the gateway last read and compiled everything.
async fn looked(gateway: &Gateway) -> f64 {
    gateway.metric("wssgate_snapshot_timestamp_seconds", &[]).await
}

/// The conditions of the only route of a directory, as `wssgate check` has them.
fn conditions(gateway: &Gateway) -> Vec<String> {
    let mut check = Command::new(env!("CARGO_BIN_EXE_wssgate"));
    let said = check.args(["check", "--output", "json"]).arg(gateway.manifests()).output().unwrap();
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let text = |condition: &Value, name: &str| condition[name].as_str().unwrap().to_owned();
    let all = said["items"][0]["status"]["conditions"].as_array().unwrap();
    all.iter().map(|one| format!("{}={}/{}", text(one, "type"), text(one, "status"), text(one, "reason"))).collect()
}

/// What became of an open connection.
async fn fate(peer: &mut Peer) -> String {
    peer.send(&Frame::text(AFTER)).await;
    match peer.frame_within(SOON).await {
        Some(frame) if frame.opcode == 8 => format!("closed with {}", frame.code().0),
        Some(frame) if frame.same(&Frame::text(AFTER)) => "stay".to_owned(),
        other => panic!("{other:?}"),
    }
}

/// The condition that a line of the log tells.
fn said(line: &Value) -> Option<String> {
    let text = |name: &str| line[name].as_str().map(str::to_owned);
    Some(format!("{}={}/{}", text("condition")?, text("status")?, text("reason")?))
}

/// The rows of the page: object, what happened, open connections, new handshakes, condition.
fn rows() -> Vec<[String; 5]> {
    let page = fs::read_to_string(root().join("docs/absence.md")).unwrap();
    let mut object = String::new();
    let lines = page.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            let mut cells: [String; 5] = cells.try_into().unwrap_or_else(|cells| panic!("{cells:?}"));
            if cells[0].is_empty() {
                cells[0].clone_from(&object);
            }
            object.clone_from(&cells[0]);
            cells
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_of_the_page_is_what_happens() {
    let authority = Authority::new();
    let pair = authority.leaf(&[HOST]);
    let world = World { authority, pair, partners: Authority::new(), key: Key::es256("one") };
    let recorder = Recorder::start(Behaviour::Echo).await;
    let wss = Recorder::start_tls(Behaviour::Echo, world.authority.leaf(&["backend.test"]).server()).await;
    let lets_in = Behaviour::Answer(Arc::new(|_: &Answer| {
        b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\n\r\n".to_vec()
    }));
    let asked = Recorder::start(lets_in).await;
    let mut cases = world.cases(recorder.port(), wss.port(), asked.port());
    let mut elsewhere = IN_A_CLUSTER.to_vec();
    let mut wrong = Vec::new();
    for [object, what, open, new, condition] in rows() {
        if let Some(at) = elsewhere.iter().position(|row| row[0] == object && row[1] == what) {
            let [_, _, fate, answer, told, test] = elsewhere.remove(at);
            let (file, name) = test.split_once("::").unwrap();
            let text = fs::read_to_string(root().join(format!("tests/{file}.rs"))).unwrap();
            assert!(text.contains(&format!("fn {name}(")), "{test} does not exist");
            if !open.starts_with(fate) || !new.starts_with(answer) || !condition.starts_with(told) {
                wrong.push(format!("{object}, {what}: {test} says {fate}; {answer}; {told}"));
            }
            continue;
        }
        let Some(at) = cases.iter().position(|case| case.object == object && case.what == what) else {
            wrong.push(format!("{object}, {what}: no case"));
            continue;
        };
        let case = cases.remove(at);
        let (fate, answer) = world.observe(&recorder, &case).await;
        if !open.starts_with(&fate) || !new.starts_with(&answer) {
            wrong.push(format!("{object}, {what}: open connections: {fate}; new handshakes: {answer}"));
        }
        let told = match case.told {
            Told::Logged(told) | Told::Shown(told) => format!("`{told}`"),
            Told::Not => String::new(),
        };
        if !condition.starts_with(&told) || (told.is_empty() && condition.starts_with('`')) {
            wrong.push(format!("{object}, {what}: {told:?} is told"));
        }
    }
    wrong.extend(cases.iter().map(|case| format!("{}, {}: not on the page", case.object, case.what)));
    wrong.extend(elsewhere.iter().map(|row| format!("{}, {}: not on the page", row[0], row[1])));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
