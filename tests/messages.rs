//! Group I, end to end: what messages say is judged by the schemas of a ConfigMap, in both directions.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Authority, Behaviour, Frame, Head, Manifests, Options, PATIENCE, Peer, Recorder, Setup, json, manifests, setup,
    until,
};

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

async fn started(behaviour: Behaviour, spec: &Value) -> Setup {
    let beside = |manifests: Manifests| manifests.with("schemas.yaml", &[schemas(SAY)]);
    Setup::beside(behaviour, spec, &Options::default(), beside).await
}

fn say(text: &str) -> Frame {
    Frame::text(format!(r#"{{"type":"say","text":"{text}"}}"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_message_that_the_schema_takes_goes_on_however_it_comes_and_another_ends_the_connection() {
    let setup = started(Behaviour::Echo, &spec("fromClient", &json!({}))).await;
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
    let setup = started(Behaviour::Manual, &spec("fromBackend", &json!({}))).await;
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
    let setup = started(Behaviour::Echo, &audit).await;
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
    let setup = started(Behaviour::Echo, &spec("fromClient", &json!({}))).await;
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
            None => fs::remove_file(setup.gateway.manifests().join("schemas.yaml")).unwrap(),
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
    fs::write(directory.path().join("all.yaml"), manifests::text(&objects)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_wssgate")).arg("check").arg(directory.path()).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    for line in [
        "shop/chat: text messages of clients are judged by format JSONRecords and schemas say; others pass, in Audit mode\n",
        "shop/chat: text messages of backends are judged by format EngineIO, in Audit mode\n",
        "shop/plain: text messages of clients are judged by size and type only\n",
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

/// What `wssgate check` says of a route whose schema this is; under strace, where it is installed, with what it asked of
/// the kernel.
async fn checked(schema: &str) -> (String, Option<String>) {
    let (authority, recorder) = (Authority::new(), Recorder::start(Behaviour::Echo).await);
    let objects = setup::manifests(&authority, &recorder, &spec("fromClient", &json!({})));
    let objects = objects.with("schemas.yaml", &[schemas(schema)]);
    let folder = TempDir::new().unwrap();
    let (directory, trace) = (folder.path().join("manifests"), folder.path().join("trace"));
    fs::create_dir(&directory).unwrap();
    for (file, text) in &objects.files {
        fs::write(directory.join(file), text).unwrap();
    }
    let traces = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    let program = env!("CARGO_BIN_EXE_wssgate");
    let mut command = if traces { Command::new("strace") } else { Command::new(program) };
    if traces {
        command
            .args(["-f", "-e", "trace=open,openat,socket,connect,sendto", "-s", "200", "-o"])
            .arg(&trace)
            .arg(program);
    }
    let output = command.args(["check", "--output", "json"]).arg(&directory).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let conditions = said["items"][0]["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|one| one["type"] == "ResolvedRefs").unwrap();
    let words = format!("{}: {}", found["reason"].as_str().unwrap(), found["message"].as_str().unwrap());
    (words, traces.then(|| fs::read_to_string(&trace).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i3_what_a_schema_refers_to_elsewhere_is_never_fetched() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = TempDir::new().unwrap();
    let file = file.path().join("secret-schema");
    fs::write(&file, "{}").unwrap();
    let path = file.display();
    let missing = "nothing is fetched";
    for (case, schema, words) in [
        ("http", json!({"$ref": format!("http://127.0.0.1:{port}/s#/a")}), missing),
        ("https", json!({"$ref": format!("https://localhost:{port}/s")}), missing),
        ("a file", json!({"$ref": format!("file://{path}")}), missing),
        ("a path", json!({"$ref": path.to_string()}), missing),
        ("data", json!({"$ref": "data:application/json,%7B%7D"}), missing),
        ("a relative one below an $id", json!({"$id": format!("http://127.0.0.1:{port}/a/"), "$ref": "s"}), missing),
        (
            "an $id below an $id",
            json!({"$id": "urn:a", "properties": {"a": {"$id": format!("http://127.0.0.1:{port}/b/"), "$ref": "c"}}}),
            missing,
        ),
        ("a meta-schema", json!({"$schema": format!("http://127.0.0.1:{port}/meta")}), "is not a draft"),
        ("$dynamicRef", json!({"$dynamicRef": format!("http://127.0.0.1:{port}/s#a")}), ""),
    ] {
        let (said, trace) = checked(&schema.to_string()).await;
        assert!(said.starts_with("InvalidSchema: ") && said.contains(words), "{case}: {said}");
        for line in trace.iter().flat_map(|trace| trace.lines()) {
            assert!(!line.contains("AF_INET") && !line.contains("secret-schema"), "{case}: {line}");
        }
    }
    let accepted = listener.accept().map(|(_, from)| from);
    assert!(accepted.is_err(), "{accepted:?} came for a schema");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_schema_that_could_take_exponential_time_is_refused_and_its_place_is_named() {
    let ladder = |keyword: &str| {
        let ladder = (0..9).fold(json!({"type": "string"}), |inner, _| json!({keyword: [inner, inner]}));
        json!({"properties": {"a": ladder}}).to_string()
    };
    let twice = json!({"properties": {"next": {"$ref": "#"}}});
    for (schema, place) in [
        (ladder("anyOf"), "at #/properties/a: "),
        (ladder("oneOf"), "at #/properties/a: "),
        (ladder("allOf"), "at #/properties/a: "),
        (json!({"$id": "urn:a", "not": {"anyOf": [twice, twice]}}).to_string(), "at #"),
    ] {
        let (said, _) = checked(&schema).await;
        assert!(said.starts_with("InvalidSchema: ") && said.contains(place), "{said}");
        assert!(said.contains("more than 1000 subschemas to one value"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i4_messages_that_are_made_to_hurt_are_refused_before_they_take_memory() {
    let unique = json!({"messages": {"fromClient": {"maxSize": "4Mi", "schemas": [
        {"name": "unique", "ref": {"name": "chat-schemas", "key": "say.json"}},
    ]}}});
    let beside = |manifests: Manifests| manifests.with("schemas.yaml", &[schemas(r#"{"uniqueItems": true}"#)]);
    let setup = Setup::beside(Behaviour::Echo, &unique, &Options::default(), beside).await;
    let list = |items: usize, item: &dyn Fn(usize) -> String| {
        format!("[{}]", (0..items).map(item).collect::<Vec<_>>().join(","))
    };
    let mut peer = setup.open().await;
    // As many values as may be: no two of them alike, and each compared with the others in no more than linear time.
    peer.echo(&Frame::text(list(65_535, &|at| format!("\"{at}\"")))).await;
    peer.echo(&Frame::text("[1e308, 18446744073709551615, -9223372036854775808]")).await;
    let before = setup.gateway.resident();
    for (case, message, code, reason) in [
        ("depth", "[".repeat(1_000_000), 1009, "message_too_complex"),
        ("objects", r#"{"a":"#.repeat(500_000), 1009, "message_too_complex"),
        ("values", list(1_000_000, &|_| "0".to_owned()), 1009, "message_too_complex"),
        (
            "names",
            list(200_000, &|at| format!("\"{at}\":0")).replacen('[', "{", 1).replace(']', "}"),
            1009,
            "message_too_complex",
        ),
        ("a number", format!("[1{}]", "0".repeat(1_000_000)), 1007, "message_malformed"),
        ("twice at the end", list(60_000, &|at| format!("\"{}\"", at.min(59_998))), 1008, "message_invalid"),
    ] {
        let mut peer = setup.open().await;
        assert!(peer.send(&Frame::text(message)).await, "{case}");
        assert_eq!(peer.close_within(PATIENCE).await.map(|(code, _)| code), Some(code), "{case}");
        setup.gateway.access_line(case, |line| line["reason"] == reason).await;
    }
    peer.echo(&Frame::text("[1]")).await;
    let grown = setup.gateway.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_nothing_goes_around_the_schema_by_frames_by_type_or_after_a_close() {
    let setup = started(Behaviour::Manual, &spec("fromClient", &json!({"types": ["Text"]}))).await;
    // Byte by byte, with a ping between: not one of them reaches the backend before the verdict.
    let (mut client, mut backend) = setup.pair().await;
    let Frame { payload, .. } = say("secret");
    assert!(client.send(&Frame::text(&payload[..1]).more()).await);
    for byte in &payload[1..payload.len() - 1] {
        assert!(client.send(&Frame::continuation([*byte]).more()).await && client.send(&Frame::ping("?")).await);
    }
    assert!(client.send(&Frame::continuation(&payload[payload.len() - 1..])).await);
    assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1008));
    let seen = frames_until_close(&mut backend).await;
    assert!(seen.iter().all(|frame| frame.opcode == 9), "a frame of the message went on");

    let (mut client, mut backend) = setup.pair().await;
    assert!(client.send(&Frame::binary(&payload[..])).await);
    assert_eq!(client.close_code().await.map(|(code, _)| code), Some(1003));
    assert_eq!(frames_until_close(&mut backend).await, []);

    // A message that was begun before a Close frame is over with it, and what follows is not read.
    let (mut client, mut backend) = setup.pair().await;
    assert!(client.send(&Frame::text(&payload[..9]).more()).await);
    assert!(client.send(&Frame::close(1000, "")).await && client.send(&say("hi")).await);
    assert_eq!(frames_until_close(&mut backend).await, []);
}

/// What a peer is sent before a Close frame or the end.
async fn frames_until_close(peer: &mut Peer) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = peer.frame_within(PATIENCE).await.filter(|frame| frame.opcode != 8) {
        frames.push(frame);
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_nothing_of_a_message_is_in_a_log_or_a_close_reason() {
    for mode in ["Enforce", "Audit"] {
        let mut both = spec("fromClient", &json!({}));
        manifests::merge(&mut both, &spec("fromBackend", &json!({})));
        both["messages"]["mode"] = json!(mode);
        let setup = started(Behaviour::Manual, &both).await;
        for message in [
            r#"{"type":"say","text":"canary-a"}"#,
            r#"{"type":"say","text":"a","more":"canary-b"}"#,
            r#"{"type":"canary-c"}"#,
            r#"{"canary-d":1,"canary-d":1}"#,
            "canary-e",
        ] {
            for from_client in [true, false] {
                let (mut client, mut backend) = setup.pair().await;
                let (own, other) = if from_client { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
                assert!(own.send(&Frame::text(message)).await);
                if mode == "Audit" {
                    other.expect(&Frame::text(message)).await;
                    drop((client, backend));
                    continue;
                }
                let (code, text) = client.close_code().await.unwrap();
                assert!(matches!((from_client, code), (true, 1007 | 1008) | (false, 1011)), "{message}: {code}");
                assert!(!text.contains("canary"), "{message}: {text}");
            }
        }
        setup.gateway.access_line("the last", |line| line["reason"] == "backend_message_malformed").await;
        let written = setup.gateway.access_text() + &setup.gateway.log_text();
        assert!(!written.contains("canary"), "{mode}: {written}");
    }
}
