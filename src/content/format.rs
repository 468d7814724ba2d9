//! How JSON documents stand in a text message. A frame around them that is not read whole is refused.

use super::json::Malformed;

/// The end of a record (SignalR's JSON protocol; RFC 7464 has it before one).
const RECORD_END: u8 = 0x1E;

/// How JSON documents stand in a text message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// The message is one document.
    #[default]
    Json,
    /// Documents, each ended by 0x1E: SignalR.
    JsonRecords,
    /// An Engine.IO packet, and in it a Socket.IO packet: a digit each, number of attachments, namespace, acknowledgement,
    /// then a document or nothing.
    EngineIo,
}

impl Format {
    /// Gives each document of a message to `judge`, in their order, up to the first that it refuses.
    ///
    /// # Errors
    /// What `judge` says, or `malformed` of a message that is not in this format.
    pub fn documents<E>(
        self,
        message: &[u8],
        malformed: impl Fn(Malformed) -> E,
        mut judge: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Json => judge(message),
            Self::JsonRecords => {
                let Some((&RECORD_END, records)) = message.split_last() else {
                    return Err(malformed(Malformed::Syntax));
                };
                records.split(|byte| *byte == RECORD_END).try_for_each(judge)
            }
            Self::EngineIo => match engine_io(message).ok_or_else(|| malformed(Malformed::Syntax))? {
                [] => Ok(()),
                document => judge(document),
            },
        }
    }
}

/// The document of an Engine.IO packet (protocol 4) that is a text message; empty where the packet has none. `None`: it is
/// no such packet.
fn engine_io(message: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = message.split_first()?;
    match kind {
        // open: the server says how the session goes.
        b'0' => (!rest.is_empty()).then_some(rest),
        // close, upgrade, noop
        b'1' | b'5' | b'6' => rest.is_empty().then_some(rest),
        // ping and pong: the first pair asks whether the transport works.
        b'2' | b'3' => (rest.is_empty() || rest == b"probe").then_some(&[]),
        b'4' => socket_io(rest),
        _ => None,
    }
}

/// The document of a Socket.IO packet (protocol 5).
fn socket_io(packet: &[u8]) -> Option<&[u8]> {
    let (kind, mut rest) = packet.split_first()?;
    if !matches!(kind, b'0'..=b'6') {
        return None;
    }
    // BINARY_EVENT and BINARY_ACK say how many binary messages follow.
    if matches!(kind, b'5' | b'6') {
        let digits = digits(rest);
        rest = rest.get(digits..)?.strip_prefix(b"-").filter(|_| digits > 0)?;
    }
    if rest.starts_with(b"/") {
        rest = match rest.iter().position(|byte| *byte == b',') {
            Some(comma) => &rest[comma + 1..],
            // A namespace that ends the packet needs no comma.
            None => &[],
        };
    }
    rest = &rest[digits(rest)..];
    match (kind, rest.first()) {
        // CONNECT may have a document, DISCONNECT has none; the others must have one.
        (b'0', None | Some(b'{')) | (b'1', None) => Some(rest),
        (b'2' | b'3' | b'5' | b'6', Some(b'[')) => Some(rest),
        (b'4', Some(_)) => Some(rest),
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents of a message.
    fn documents(format: Format, message: &str) -> Result<Vec<String>, Malformed> {
        let mut found = Vec::new();
        let judge = |document: &[u8]| {
            found.push(String::from_utf8(document.to_vec()).unwrap());
            Ok(())
        };
        format.documents(message.as_bytes(), |why| why, judge).map(|()| found)
    }

    #[test]
    fn records_end_with_their_byte_every_one() {
        let read = |message| documents(Format::JsonRecords, message);
        assert_eq!(read("{\"type\":6}\u{1e}"), Ok(vec!["{\"type\":6}".into()]));
        assert_eq!(read("1\u{1e}2\u{1e}"), Ok(vec!["1".into(), "2".into()]));
        // An empty record reaches the reader, which refuses it.
        assert_eq!(read("1\u{1e}\u{1e}"), Ok(vec!["1".into(), String::new()]));
        for message in ["", "1", "1\u{1e}2"] {
            assert_eq!(read(message), Err(Malformed::Syntax), "{message:?}");
        }
    }

    #[test]
    fn the_packets_of_socket_io_are_read() {
        for (packet, document) in [
            ("0{\"sid\":\"a\"}", Some("{\"sid\":\"a\"}")),
            ("2", None),
            ("3", None),
            ("2probe", None),
            ("3probe", None),
            ("1", None),
            ("5", None),
            ("6", None),
            ("40", None),
            ("40/admin", None),
            ("40/admin,", None),
            ("40/admin,{\"token\":1}", Some("{\"token\":1}")),
            ("40{\"token\":1}", Some("{\"token\":1}")),
            ("41", None),
            ("41/admin,", None),
            ("42[\"say\",{}]", Some("[\"say\",{}]")),
            ("42/chat,17[\"say\"]", Some("[\"say\"]")),
            ("4217[\"say\"]", Some("[\"say\"]")),
            ("4317[]", Some("[]")),
            ("44{\"message\":\"no\"}", Some("{\"message\":\"no\"}")),
            ("451-[\"file\",{\"_placeholder\":true,\"num\":0}]", Some("[\"file\",{\"_placeholder\":true,\"num\":0}]")),
            ("462-/chat,3[]", Some("[]")),
        ] {
            let expected: Vec<String> = document.map(str::to_owned).into_iter().collect();
            assert_eq!(documents(Format::EngineIo, packet), Ok(expected), "{packet}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for packet in [
            "", "7", "x", "{}", "0", "1x", "2ping", "4", "47", "42", "42{}", "42\"a\"", "421", "45[]", "45-[]",
            "451[]", "41{}", "40[]", "44", "42/chat", "2probes", " 42[]", "42 []",
        ] {
            assert_eq!(documents(Format::EngineIo, packet), Err(Malformed::Syntax), "{packet}");
        }
    }
}
