//! Every credential that a test makes or sends is a canary: it is noted here, and no gateway may ever write it.
//!
//! At the end of each gateway its logs and its last metrics are looked through for all that was noted in the process, at
//! the end of each client's connection the answer that refused it. So the whole suite fails where one secret gets out,
//! whatever the test was about. What a test calls `canary-…` is found without being noted.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Shorter texts are no secrets worth the name, and would be found by chance.
const SHORTEST: usize = 12;
/// What marks a secret that nobody has noted.
const MARK: &str = "canary-";

static NOTED: LazyLock<Mutex<Canaries>> = LazyLock::new(Mutex::default);

/// Texts that must not be written.
#[derive(Default)]
pub struct Canaries {
    /// By their first bytes, so that a long log is read once.
    by_start: HashMap<[u8; SHORTEST], Vec<Box<[u8]>>>,
}

impl Canaries {
    /// Notes a secret. Of a token each part counts: claims or a signature alone would be a leak too.
    pub fn note(&mut self, secret: &str) {
        for part in secret.split('.').chain([secret]) {
            let Some(start) = part.as_bytes().first_chunk::<SHORTEST>() else { continue };
            let same = self.by_start.entry(*start).or_default();
            if !same.iter().any(|one| **one == *part.as_bytes()) {
                same.push(part.as_bytes().into());
            }
        }
    }

    /// The line of a text that holds a secret.
    pub fn found_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        let bytes = text.as_bytes();
        let noted = |at: usize| {
            let rest = &bytes[at..];
            let same = rest.first_chunk::<SHORTEST>().and_then(|start| self.by_start.get(start));
            same.is_some_and(|same| same.iter().any(|one| rest.starts_with(one)))
        };
        let at = text.find(MARK).or_else(|| (0..bytes.len()).find(|at| noted(*at)))?;
        let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
        let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |after| at + after);
        text.get(start..end)
    }
}

/// Notes a secret for the rest of the process.
pub fn note(secret: &str) {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).note(secret);
}

/// Notes a private key in PEM, line by line.
pub fn note_key(pem: &str) {
    pem.lines().filter(|line| !line.starts_with("-----")).for_each(note);
}

/// Notes what is secret in a request: its query, its cookies, its tokens and tickets.
pub fn note_request(head: &[u8]) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n\r\n").next().unwrap_or_default().split("\r\n");
    let target = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default();
    if let Some((_, query)) = target.split_once('?') {
        note(query);
        query.split('&').filter_map(|pair| pair.split_once('=')).for_each(|(_, value)| note(value));
    }
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "authorization" => note(value.trim().split_once(' ').map_or(value.trim(), |(_, credential)| credential)),
            "cookie" => value.split(';').filter_map(|pair| pair.split_once('=')).for_each(|(_, value)| note(value)),
            "sec-websocket-protocol" => {
                let secret = |item: &&str| item.starts_with("bearer.") || item.starts_with("ticket.");
                value.split(',').map(str::trim).filter(secret).for_each(note);
            }
            _ => {}
        }
    }
}

/// The line of a text that holds a secret that was noted, by whatever test.
pub fn found_in(text: &str) -> Option<&str> {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner).found_in(text)
}

/// The first bytes that a client hears; if they refuse it, they hold no secret, which is looked at in the end.
#[derive(Default)]
pub struct Early(Vec<u8>);

impl Early {
    /// More than an answer without a body has.
    const ENOUGH: usize = 8 * 1024;

    /// More of what was heard.
    pub fn hear(&mut self, bytes: &[u8]) {
        let room = Self::ENOUGH.saturating_sub(self.0.len());
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        let refused = super::Answer::parse(&self.0).is_some_and(|answer| answer.status() >= 400);
        if refused && !std::thread::panicking() {
            let text = String::from_utf8_lossy(&self.0);
            assert_eq!(found_in(&text), None, "the answer to a refused client holds a secret");
        }
    }
}
