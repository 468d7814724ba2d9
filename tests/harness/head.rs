//! Request heads, right or wrong, and the answers to them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The key of every handshake that does not say otherwise (the example of RFC 6455 §1.3).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    STANDARD.encode(digest.as_ref())
}

/// A request as raw lines, so that anything can be sent.
#[derive(Clone)]
pub struct Head {
    line: Vec<u8>,
    fields: Vec<Vec<u8>>,
    tail: Vec<u8>,
}

impl Head {
    /// A correct handshake for a path of chat.example.com.
    pub fn upgrade(path: &str) -> Self {
        Self { line: format!("GET {path} HTTP/1.1").into_bytes(), fields: vec![], tail: vec![] }
            .add("Host", super::HOST)
            .add("Upgrade", "websocket")
            .add("Connection", "Upgrade")
            .add("Sec-WebSocket-Key", KEY)
            .add("Sec-WebSocket-Version", "13")
    }

    /// A plain request.
    pub fn request(line: &str) -> Self {
        Self { line: line.into(), fields: vec![], tail: vec![] }.add("Host", super::HOST)
    }

    /// Another request line.
    pub fn line(mut self, line: impl Into<Vec<u8>>) -> Self {
        self.line = line.into();
        self
    }

    /// One more field.
    pub fn add(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push([name.as_bytes(), b": ", value.as_ref()].concat());
        self
    }

    /// One more line, raw.
    pub fn raw(mut self, line: impl Into<Vec<u8>>) -> Self {
        self.fields.push(line.into());
        self
    }

    /// One more line, raw, before all others.
    pub fn raw_first(mut self, line: impl Into<Vec<u8>>) -> Self {
        self.fields.insert(0, line.into());
        self
    }

    /// Without the fields of a name.
    pub fn without(mut self, name: &str) -> Self {
        let prefix = format!("{}:", name.to_ascii_lowercase());
        self.fields.retain(|line| !line.to_ascii_lowercase().starts_with(prefix.as_bytes()));
        self
    }

    /// One value in place of those that are there.
    pub fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).add(name, value)
    }

    /// Bytes after the head, in the same write.
    pub fn then(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.tail.extend(bytes.into());
        self
    }

    /// What goes on the wire. What is secret in it no gateway may write.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.line.clone();
        out.extend_from_slice(b"\r\n");
        for field in &self.fields {
            out.extend_from_slice(field);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        super::canary::note_request(&out);
        out.extend_from_slice(&self.tail);
        out
    }
}

/// A head that was received, with what came after it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The first line.
    pub line: String,
    /// Names in lower case and values, in order.
    pub fields: Vec<(String, String)>,
    /// The bytes after the head, up to the end of the connection where it ended.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads a head; the rest is the body.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next()?.to_owned();
        let fields = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Some(Self { line, fields, body: bytes[end + 4..].to_vec() })
    }

    /// The status of an answer; 0 where the line is none.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// The values of a name, joined by `, `; `None` where there is none.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    /// How often a name occurs.
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n == name).count()
    }
}
