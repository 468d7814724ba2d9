//! Schemas of messages in ConfigMaps of a real API server: they judge what is sent, an edit judges open connections, and a
//! ConfigMap that is deleted ends nobody.

use serde_json::{Value, json};

use super::Test;
use super::clusters::Clusters;
use super::fixture::{Fixture, LIMIT, run};
use super::harness::{Frame, Gateway, until};

const HOST: &str = "words.example.com";

/// Messages of at most so many characters.
fn schemas(fixture: &Fixture<'_>, most: usize) -> Value {
    let schema = json!({
        "type": "object", "required": ["text"], "additionalProperties": false,
        "properties": {"text": {"$ref": "parts.json#/definitions/text"}},
    });
    let parts = json!({"definitions": {"text": {"type": "string", "maxLength": most}}});
    fixture.here(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"},
        "data": {"say.json": schema.to_string(), "parts.json": parts.to_string()},
    }))
}

fn say(text: &str) -> Frame {
    Frame::text(json!({"text": text}).to_string())
}

/// Waits until a new connection that says this is answered (`None`), or closed with a code.
async fn judged(fixture: &Fixture<'_>, gateway: &Gateway, text: &str, code: Option<u16>) {
    until(LIMIT, &format!("{text:?} to end with {code:?}"), async || {
        let mut socket = fixture.open(gateway, HOST).await;
        assert!(socket.send(&say(text)).await);
        let frame = socket.frame().await?;
        let found = (frame.opcode == 8).then(|| frame.code().0);
        (found == code).then_some(())
    })
    .await;
}

fn a_schema_is_applied_edited_and_deleted_under_open_sockets(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "words", &json!({})).await;
        let gateway = fixture.gateway("wssgate-0").await;
        let rules = json!({"messages": {"fromClient": {"schemas": [
            {"name": "say", "ref": {"name": "words", "key": "say.json"}},
        ]}}});
        // The route comes first, as it may with `kubectl apply -f` of a folder.
        fixture.apply(&[fixture.route("words", HOST, &rules)]);
        fixture.condition("words", "ResolvedRefs", "False", "RefNotFound");
        fixture.becomes(&gateway, HOST, 503).await;
        fixture.apply(&[schemas(&fixture, 5)]);
        fixture.kubectl.wait("swsr/words", "condition=Ready", LIMIT);
        let mut open = fixture.open(&gateway, HOST).await;
        open.echo(&say("hi")).await;
        judged(&fixture, &gateway, "too long", Some(1008)).await;

        fixture.apply(&[schemas(&fixture, 20)]);
        judged(&fixture, &gateway, "no longer too long", None).await;
        open.echo(&say("no longer too long")).await;
        fixture.apply(&[schemas(&fixture, 2)]);
        judged(&fixture, &gateway, "three", Some(1008)).await;
        open.echo(&say("hi")).await;
        let mut other = fixture.open(&gateway, HOST).await;
        assert!(other.send(&say("three")).await);
        assert_eq!(other.close_code().await.map(|(code, _)| code), Some(1008));

        fixture.kubectl.must(&["delete", "configmap", "words"]);
        let message = fixture.condition("words", "ResolvedRefs", "False", "RefNotFound");
        assert!(message.contains("its last good version stays in use"), "{message}");
        open.echo(&say("hi")).await;
        judged(&fixture, &gateway, "hi", None).await;
        judged(&fixture, &gateway, "three", Some(1008)).await;
        // It comes back, and the socket of before the edits is judged by it.
        fixture.apply(&[schemas(&fixture, 3)]);
        fixture.kubectl.wait("swsr/words", "condition=Ready", LIMIT);
        judged(&fixture, &gateway, "yes", None).await;
        open.echo(&say("yes")).await;
        assert!(open.send(&say("three")).await);
        assert_eq!(open.close_code().await.map(|(code, _)| code), Some(1008));
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_schema_is_applied_edited_and_deleted_under_open_sockets,
    ]
}
