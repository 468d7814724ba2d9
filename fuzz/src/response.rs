//! Response heads: a 101 is accepted only if it answers our key, whole, without anything we did not offer.

use wssgate::ws::upgrade::{MAX_HEAD, Response, accept_key, parse_response};

/// The key that the seeds answer.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Any bytes as the answer to a handshake that offered `a` and `chat`.
pub fn check(data: &[u8]) {
    let offered: [Box<str>; 2] = ["a".into(), "chat".into()];
    let passes: [Box<str>; 1] = ["set-cookie".into()];
    match parse_response(data, KEY, &offered, &passes) {
        Ok(None) => assert!(data.len() < MAX_HEAD, "it waits for more than it would read"),
        Ok(Some((response, size))) => {
            let head = &data[..size];
            for short in (0..size).step_by(size / 256 + 1) {
                assert_eq!(parse_response(&head[..short], KEY, &offered, &passes), Ok(None), "cut at {short}");
            }
            match response {
                Response::Refused(refusal) => {
                    assert!((200..=599).contains(&refusal.status));
                    let kept = refusal.challenges.iter().chain(&refusal.retry_after);
                    assert!(kept.clone().count() <= 5);
                    for value in kept {
                        assert!(value.len() <= 1024 && value.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')));
                    }
                }
                Response::Switching { subprotocol, passed } => {
                    for (name, value) in &passed {
                        assert!(**name == *"set-cookie" && !value.iter().any(|b| b.is_ascii_control() && *b != b'\t'));
                    }
                    assert!(subprotocol.is_none_or(|chosen| offered.contains(&chosen)));
                    let text = String::from_utf8_lossy(head);
                    assert!(text.starts_with("HTTP/1.1 101") && text.contains(&accept_key(KEY)));
                    let lower = text.to_ascii_lowercase();
                    assert!(!lower.contains("\r\ntransfer-encoding:"));
                    let values = |name: &str| {
                        let lines = lower.split("\r\n").filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                        lines.map(|value| value.trim_matches([' ', '\t']).to_owned()).collect::<Vec<_>>()
                    };
                    // A length of 0 announces no body, and a list of nothing no extension.
                    assert!(
                        matches!(&values("content-length")[..], [] | [_])
                            && values("content-length").iter().all(|v| v == "0")
                    );
                    let extensions = values("sec-websocket-extensions");
                    assert!(extensions.iter().all(|list| list.bytes().all(|byte| b", \t".contains(&byte))));
                    // The answer to another key is no answer.
                    assert!(parse_response(data, "AAAAAAAAAAAAAAAAAAAAAA==", &offered, &passes).is_err());
                }
            }
        }
        Err(_) => {}
    }
}
