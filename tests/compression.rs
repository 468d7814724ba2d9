//! permessage-deflate (RFC 7692), end to end: with clients of other people, and with frames that no honest client sends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::process::Command;
use wssgate::ws::deflate::{Codec, MAX_WINDOW, MIN};

use crate::harness::{Behaviour, Frame, HOST, Head, Options, Peer, Setup, json, packages, within};
use crate::root;

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// RSV1.
const COMPRESSED: u8 = 0b100;

fn spec(more: Value) -> Value {
    let mut spec =
        json!({"messages": {"compression": {"mode": "PermessageDeflate"}, "fromClient": {"maxSize": "128Ki"}}});
    crate::harness::manifests::merge(&mut spec, &more);
    spec
}

fn offering(offer: &str) -> Head {
    Head::upgrade("/").add("Sec-WebSocket-Extensions", offer)
}

async fn open(setup: &Setup) -> Peer {
    let (answer, peer) = setup.client().ask(&offering("permessage-deflate; client_max_window_bits")).await;
    assert_eq!(answer.field("sec-websocket-extensions").as_deref(), Some(ANSWER));
    peer
}

fn deflated(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Codec::default().deflate(payload.as_ref(), MAX_WINDOW).unwrap()
}

fn numbers(len: usize) -> String {
    let mut text: String = (0..len / 6 + 1).map(|number| format!("{:5},", number * 7919 % 100_003)).collect();
    text.truncate(len);
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f12_an_offer_is_answered_or_declined_and_the_backend_sees_none() {
    let setup = Setup::new(&spec(json!({}))).await;
    for (offer, expected) in [
        ("permessage-deflate", Some(ANSWER.to_owned())),
        ("permessage-deflate; server_max_window_bits=10", Some(format!("{ANSWER}; server_max_window_bits=10"))),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=a", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("x-unknown; a=b", None),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", Some(ANSWER.to_owned())),
    ] {
        let (answer, mut peer) = setup.client().ask(&offering(offer)).await;
        assert_eq!((answer.status(), answer.field("sec-websocket-extensions")), (101, expected), "{offer}");
        assert_eq!(setup.recorder.last().head().field("sec-websocket-extensions"), None, "F14 {offer}");
        peer.echo(&Frame::text("plain")).await;
    }
    // Several lines are one list.
    let head = offering("permessage-deflate; x").add("Sec-WebSocket-Extensions", "permessage-deflate");
    let (answer, _peer) = setup.client().ask(&head).await;
    assert_eq!(answer.field("sec-websocket-extensions").as_deref(), Some(ANSWER));
    // Without an offer there is no answer, and no bit is allowed.
    let mut plain = setup.open().await;
    plain.send(&Frame::text(deflated(numbers(99))).rsv(COMPRESSED)).await;
    assert_eq!(plain.close_code().await.map(|(code, _)| code), Some(1002));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_the_backend_gets_plain_messages_and_the_client_compressed_ones() {
    let setup = Setup::with(Behaviour::Manual, &spec(json!({})), &Options::default()).await;
    let (mut peer, mut backend) = tokio::join!(open(&setup), setup.recorder.peer());
    let mut codec = Codec::default();
    for size in [0, 126, 1023, 1024, 65_536, 131_072] {
        let text = numbers(size);
        // An empty message is an empty block (RFC 7692 §7.2.3.6).
        let small = if size == 0 { vec![0] } else { deflated(&text) };
        // In one frame, and in as many as there are bytes up to a hundred.
        for pieces in [1, small.len().min(100)] {
            let chunks: Vec<&[u8]> = small.chunks(small.len().div_ceil(pieces)).collect();
            for (at, chunk) in chunks.iter().enumerate() {
                let frame = if at == 0 { Frame::text(*chunk).rsv(COMPRESSED) } else { Frame::continuation(*chunk) };
                peer.send(&if at + 1 == chunks.len() { frame } else { frame.more() }).await;
            }
            backend.expect(&Frame::text(&*text)).await;
        }
        backend.send(&Frame::text(&*text)).await;
        if (size as u64) < MIN {
            peer.expect(&Frame::text(&*text)).await;
        } else {
            let frame = peer.frame().await.unwrap();
            assert!(frame.payload.len() < size / 2, "{size}");
            assert!(frame.same(&Frame::text(&*small).rsv(COMPRESSED)), "{size}");
            assert_eq!(codec.inflate(&frame.payload, size as u64).unwrap(), text.as_bytes());
        }
    }
    let direction = |direction| [("direction", direction)];
    setup.gateway.metric_becomes("wssgate_compressed_messages_total", &direction("from_client"), 12.0).await;
    setup.gateway.metric_becomes("wssgate_compressed_messages_total", &direction("from_backend"), 3.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_f19_what_a_message_inflates_to_is_bounded_and_judged() {
    let setup = Setup::new(&spec(
        json!({"messages": {"fromClient": {"types": ["Text"], "maxSize": "64Ki", "format": "JSON"}}}),
    ))
    .await;
    let json = |len: usize| format!("\"{}\"", numbers(len - 2));
    let mut bystander = open(&setup).await;
    let mut peer = open(&setup).await;
    peer.send(&Frame::text(deflated(json(65_536))).rsv(COMPRESSED)).await;
    assert!(peer.frame().await.unwrap().same(&Frame::text(deflated(json(65_536))).rsv(COMPRESSED)));
    // A bomb: 64 MiB in 64 KiB and less.
    let bomb = deflated(vec![b' '; 64 << 20]);
    let nested = deflated(&bomb);
    assert!(bomb.len() <= 65_536 && nested.len() < 1_000, "{} {}", bomb.len(), nested.len());
    let (wire, frames) = (65_536 + 65_536 / 16 + 64, |bytes: &[u8]| Frame::text(bytes).rsv(COMPRESSED));
    for (case, frame, code, reason) in [
        ("one byte more", frames(&deflated(json(65_537))), 1009, "message_too_big"),
        ("a bomb of 64 MiB", frames(&bomb), 1009, "message_too_big"),
        // It is inflated once: what is in it is a text that is not UTF-8.
        ("a nested bomb", frames(&nested), 1007, "invalid_utf8"),
        ("more on the wire", frames(&vec![0; wire + 1]), 1009, "message_too_big"),
        ("not UTF-8", frames(&deflated([0xFF; 99])), 1007, "invalid_utf8"),
        ("not JSON", frames(&deflated(numbers(99))), 1007, "message_malformed"),
        ("not deflated", frames(b"Hello"), 1007, "compression_invalid"),
        ("a stream that is cut", frames(&deflated(json(999))[..99]), 1007, "compression_invalid"),
        ("another type", Frame::binary(deflated(numbers(99))).rsv(COMPRESSED), 1003, "type_not_allowed"),
        ("RSV1 on a ping", Frame::ping("").rsv(COMPRESSED), 1002, "protocol_error"),
        ("RSV2", Frame::text("a").rsv(0b010), 1002, "protocol_error"),
    ] {
        let mut peer = open(&setup).await;
        let labels = [("reason", reason)];
        let before = setup.gateway.metric("wssgate_connections_closed_total", &labels).await;
        peer.send(&frame).await;
        assert_eq!(peer.close_code().await.map(|(code, _)| code), Some(code), "{case}");
        setup.gateway.metric_becomes("wssgate_connections_closed_total", &labels, before + 1.0).await;
        assert!(setup.recorder.frames_of_last(case).await.iter().all(|frame| frame.opcode == 8), "{case}");
    }
    bystander.echo(&Frame::text("\"still here\"")).await;
    assert_eq!(setup.gateway.metric("wssgate_held_message_bytes", &[]).await, 0.0);
}

/// What a program of `tests/messages_clients` says that it sent and got back.
async fn walked(setup: &Setup, mut command: Command, program: &str, arguments: &[&str]) -> u64 {
    let port = setup.gateway.wss.port().to_string();
    command.arg(root().join("tests/messages_clients").join(program)).args([HOST, &port]).args(arguments);
    command.kill_on_drop(true);
    let said = within(Duration::from_secs(120), program, command.output()).await.unwrap();
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{program}: {errors}");
    serde_json::from_slice::<Value>(&said.stdout).unwrap()["messages"].as_u64().unwrap()
}

/// A gateway that compresses before an echo, and its authority as a file.
async fn compressing() -> (Setup, NamedTempFile) {
    let setup = Setup::new(&spec(json!({}))).await;
    let authority = NamedTempFile::new().unwrap();
    fs::write(authority.path(), setup.authority.pem()).unwrap();
    (setup, authority)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_walks_the_parameters_of_autobahn() {
    let (setup, authority) = compressing().await;
    let python: PathBuf = packages::python();
    let file = authority.path().to_str().unwrap();
    // Ten offers, eleven sizes, text and binary, whole and in fragments.
    assert_eq!(walked(&setup, Command::new(python), "compression.py", &[file]).await, 10 * 11 * 2 * 2);
    let direction = |direction| [("direction", direction)];
    setup.gateway.metric_becomes("wssgate_compressed_messages_total", &direction("from_client"), 440.0).await;
    // Seven of the sizes are at least 1 KiB.
    setup.gateway.metric_becomes("wssgate_compressed_messages_total", &direction("from_backend"), 280.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_node_gets_back_what_it_sends() {
    let (setup, authority) = compressing().await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", packages::node_modules()).env("NODE_EXTRA_CA_CERTS", authority.path());
    assert_eq!(walked(&setup, node, "compression.js", &[]).await, 5 * 7 * 2);
    setup.gateway.metric_becomes("wssgate_compressed_messages_total", &[("direction", "from_backend")], 40.0).await;
}
