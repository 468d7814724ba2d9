//! Group I, end to end: what messages say is judged by the schemas of a ConfigMap, in both directions.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Behaviour, Frame, Head, Manifests, Options, PATIENCE, Setup, json, manifests, until};

const SAY: &str = r#"{
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object", "required": ["type", "text"], "additionalProperties": false,
    "properties": {"type": {"const": "say"}, "text": {"$ref": "part.json#/definitions/text"}}
}"#;
const PART: &str = r#"{"definitions": {"text": {"type": "string", "maxLength": 5}}}"#;

fn schemas(say: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "chat-schemas", "namespace": "shop"},
        "data": {"say.json": say, "part.json": PART},
    })
}

fn spec(direction: &str, more: &Value) -> Value {
    let selector = json!([{"pointer": "/type", "value": "say"}]);
    let schema = json!({"name": "say", "ref": {"name": "chat-schemas", "key": "say.json"}, "selector": selector});
    let mut rules = json!({"schemas": [schema]});
    manifests::merge(&mut rules, more);
    json!({"messages": {direction: rules}})
}

async fn setup(behaviour: Behaviour, spec: &Value) -> Setup {
    let beside = |manifests: Manifests| manifests.with("schemas.yaml", &[schemas(SAY)]);
    Setup::beside(behaviour, spec, &Options::default(), beside).await
}

fn say(text: &str) -> Frame {
    Frame::text(format!(r#"{{"type":"say","text":"{text}"}}"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_message_that_the_schema_takes_goes_on_however_it_comes_and_another_ends_the_connection() {
    let setup = setup(Behaviour::Echo, &spec("fromClient", &json!({}))).await;
    let mut peer = setup.open().await;
    peer.echo(&say("hi")).await;
    let fragments = [Frame::text(r#"{"type":"s"#).more(), Frame::ping("?"), Frame::continuation(r#"ay","text":"a"}"#)];
    for frame in &fragments {
        assert!(peer.send(frame).await);
    }
    for frame in [Frame::pong("?"), fragments[0].clone(), fragments[2].clone()] {
        peer.expect(&frame).await;
    }
    // Binary messages are not JSON; `types` says whether they pass.
    peer.echo(&Frame::binary([0xff, 0])).await;
    for (case, message, code, reason) in [
        ("I4 too long", r#"{"type":"say","text":"secret"}"#, 1008, "message_invalid"),
        ("I5 twice", r#"{"type":"say","text":"a","text":"secret"}"#, 1007, "message_malformed"),
        ("I7 no JSON", "say: secret", 1007, "message_malformed"),
        ("another kind", r#"{"type":"shout","text":"a"}"#, 1008, "message_unmatched"),
    ] {
        let mut peer = setup.open().await;
        peer.echo(&say("hi")).await;
        assert!(peer.send(&Frame::text(message)).await, "{case}");
        assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(code), "{case}");
        let line = setup.gateway.access_line(case, |line| line["reason"] == reason).await;
        assert_eq!(line["messages_from_client"], 1, "{case}: {line}");
        if reason == "message_invalid" {
            let found = (&line["schema"], &line["pointer"], &line["keyword"]);
            assert_eq!(found, (&json!("say"), &json!("/text"), &json!("maxLength")));
        }
    }
    assert!(!setup.gateway.access_text().contains("secret"), "a value is in the log");
    peer.echo(&say("still")).await;
    let labels = [("route", "shop/chat"), ("direction", "from_client"), ("schema", "say"), ("verdict", "invalid")];
    assert_eq!(setup.gateway.metric("wssgate_documents_judged_total", &labels).await, 1.0);
    setup.gateway.metric_becomes("wssgate_held_message_bytes", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_says_is_judged_alike() {
    let setup = setup(Behaviour::Manual, &spec("fromBackend", &json!({}))).await;
    let (mut client, mut backend) = setup.pair().await;
    assert!(backend.send(&say("hi")).await);
    client.expect(&say("hi")).await;
    assert!(backend.send(&say("secret")).await);
    assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1011));
    setup.gateway.access_line("the end", |line| line["reason"] == "backend_message_invalid").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audit_tells_whether_it_could_be_enforced_and_then_it_is() {
    let mut audit = spec("fromClient", &json!({}));
    audit["messages"]["mode"] = json!("Audit");
    let setup = setup(Behaviour::Echo, &audit).await;
    let mut peer = setup.open().await;
    peer.echo(&say("secret")).await;
    peer.echo(&Frame::text("no JSON")).await;
    let line = setup.gateway.access_line("the audit", |line| line["event"] == "audited").await;
    assert_eq!((&line["reason"], &line["schema"]), (&json!("message_invalid"), &json!("say")));
    let labels = [("route", "shop/chat"), ("schema", "say"), ("verdict", "invalid")];
    assert_eq!(setup.gateway.metric("wssgate_documents_judged_total", &labels).await, 1.0);
    // The connection stays and is judged by the new mode.
    setup.respec(&spec("fromClient", &json!({}))).await;
    peer.echo(&say("hi")).await;
    assert!(peer.send(&say("secret")).await);
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_changes_judges_open_connections_and_one_that_breaks_or_goes_ends_nobody() {
    let setup = setup(Behaviour::Echo, &spec("fromClient", &json!({}))).await;
    let mut peer = setup.open().await;
    peer.echo(&say("hi")).await;
    let wider = SAY.replace("part.json#/definitions/text", "#/definitions/any").replacen(
        '{',
        r#"{"definitions": {"any": {}},"#,
        1,
    );
    setup.gateway.edit("schemas.yaml", &manifests::text(&[schemas(&wider)])).await;
    peer.echo(&say("longer than five")).await;
    for (case, reason, change) in [
        ("broken", "InvalidSchema", Some(SAY.replace("\"const\"", "\"enum\""))),
        (
            "costly",
            "InvalidSchema",
            Some(
                r##"{"anyOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]}"##
                    .to_owned(),
            ),
        ),
        ("gone", "RefNotFound", None),
    ] {
        match change {
            Some(text) => setup.gateway.write("schemas.yaml", &manifests::text(&[schemas(&text)])),
            None => std::fs::remove_file(setup.gateway.manifests().join("schemas.yaml")).unwrap(),
        }
        let line =
            setup.gateway.log_line(case, |line| line["fields"]["reason"] == reason || line["reason"] == reason).await;
        assert!(line.to_string().contains("its last good version stays in use"), "{case}: {line}");
        // What judged before judges still, the open connection and new ones.
        peer.echo(&say("longer than five")).await;
        setup.open().await.echo(&say("longer than five")).await;
    }
    setup.gateway.edit("schemas.yaml", &manifests::text(&[schemas(SAY)])).await;
    assert!(peer.send(&say("longer than five")).await);
    assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_whose_schema_was_never_there_takes_no_connection_until_it_is() {
    let setup = Setup::new(&spec("fromClient", &json!({}))).await;
    setup.refused("without a schema", &Head::upgrade("/"), &[503], &["route_unavailable"]).await;
    setup.gateway.write("schemas.yaml", &manifests::text(&[schemas(SAY)]));
    let mut peer = until(PATIENCE, "the schema", async || {
        let (answer, peer) = setup.client().ask(&Head::upgrade("/")).await;
        (answer.status() == 101).then_some(peer)
    })
    .await;
    assert!(peer.send(&say("secret")).await);
    assert_eq!(peer.close_within(Duration::from_secs(10)).await.map(|(code, _)| code), Some(1008));
}

#[test]
fn check_prints_what_judges_the_messages_of_each_route() {
    let directory = tempfile::tempdir().unwrap();
    let mut both = spec("fromClient", &json!({"format": "JSONRecords", "unmatched": "Allow"}));
    manifests::merge(&mut both, &json!({"messages": {"mode": "Audit", "fromBackend": {"format": "EngineIO"}}}));
    let objects = [
        manifests::route("chat", "chat.example.com", "chat-tls", "chat", &both),
        manifests::route("plain", "plain.example.com", "chat-tls", "chat", &json!({})),
        schemas(SAY),
    ];
    std::fs::write(directory.path().join("all.yaml"), manifests::text(&objects)).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_wssgate")).arg("check").arg(directory.path()).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    for line in [
        "shop/chat: text messages of clients are judged by format JSONRecords and schemas say; others pass, in Audit mode\n",
        "shop/chat: text messages of backends are judged by format EngineIO, in Audit mode\n",
        "shop/plain: text messages of clients are judged by size and type only\n",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}
