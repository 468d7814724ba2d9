//! Response heads: a 101 is accepted only if it answers our key, whole, without anything we did not offer.

use wssgate::ws::upgrade::{MAX_HEAD, Response, accept_key, parse_response};

/// The key that the seeds answer.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Any bytes as the answer to a handshake that offered `a` and `chat`.
pub fn check(data: &[u8]) {
    let offered: [Box<str>; 2] = ["a".into(), "chat".into()];
    match parse_response(data, KEY, &offered) {
        Ok(None) => assert!(data.len() < MAX_HEAD, "it waits for more than it would read"),
        Ok(Some((response, size))) => {
            let head = &data[..size];
            for short in (0..size).step_by(size / 256 + 1) {
                assert_eq!(parse_response(&head[..short], KEY, &offered), Ok(None), "cut at {short}");
            }
            match response {
                Response::Refused { status } => assert!((200..=599).contains(&status)),
                Response::Switching { subprotocol } => {
                    assert!(subprotocol.is_none_or(|chosen| offered.contains(&chosen)));
                    let text = String::from_utf8_lossy(head);
                    assert!(text.starts_with("HTTP/1.1 101") && text.contains(&accept_key(KEY)));
                    let lower = text.to_ascii_lowercase();
                    for name in ["\r\ncontent-length:", "\r\ntransfer-encoding:", "\r\nsec-websocket-extensions:"] {
                        assert!(!lower.contains(name), "{name}");
                    }
                    // The answer to another key is no answer.
                    assert!(parse_response(data, "AAAAAAAAAAAAAAAAAAAAAA==", &offered).is_err());
                }
            }
        }
        Err(_) => {}
    }
}
