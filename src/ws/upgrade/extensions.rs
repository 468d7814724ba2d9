//! The offers of `Sec-WebSocket-Extensions` (RFC 6455 §9.1) and which of them is accepted (RFC 7692 §5, §7.1).

use super::head;
use crate::ws::deflate::{MAX_WINDOW, MIN_WINDOW};

/// permessage-deflate as it was negotiated. Neither side takes over context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// What the client's offer said of the window of what is sent to it, as its logarithm.
    asked: Option<u8>,
}

impl Deflate {
    /// The window of what is sent to the client, as its logarithm, from [`MIN_WINDOW`] to [`MAX_WINDOW`].
    pub fn window(self) -> u8 {
        self.asked.unwrap_or(MAX_WINDOW)
    }

    /// The value of `Sec-WebSocket-Extensions` in the 101. RFC 7692 §7.1.1.2: a server may ask the client not to take over
    /// context whatever the offer says. §7.1.2.1: a window that the offer names is answered.
    pub fn answer(self) -> String {
        let window = self.asked.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
        format!("permessage-deflate; server_no_context_takeover; client_no_context_takeover{window}")
    }
}

/// The first offer that can be kept to, of the client's list in its order of preference; `None`: all are declined. An
/// offer with a parameter that is unknown, stands twice or has a wrong value is declined (RFC 7692 §7.1), and so is one that
/// asks for a window of 8 bits, to which zlib cannot keep. A list with a quote that does not end has no offers.
pub fn negotiate(offers: &[u8]) -> Option<Deflate> {
    split(offers, b',')?.into_iter().find_map(offer)
}

fn offer(element: &[u8]) -> Option<Deflate> {
    let mut parts = split(element, b';')?.into_iter();
    if head::trim(parts.next()?) != b"permessage-deflate" {
        return None;
    }
    let (mut seen, mut asked) = (Vec::new(), None);
    for part in parts {
        let (name, value) = parameter(part)?;
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
        match (name, value.as_deref()) {
            ("server_no_context_takeover" | "client_no_context_takeover" | "client_max_window_bits", None) => {}
            // The client's promise; any window can be inflated.
            ("client_max_window_bits", Some(value)) => drop(bits(value)?),
            ("server_max_window_bits", Some(value)) => asked = Some(bits(value).filter(|bits| *bits >= MIN_WINDOW)?),
            _ => return None,
        }
    }
    Some(Deflate { asked })
}

/// The name of a parameter, and its value without quotes.
fn parameter(part: &[u8]) -> Option<(&str, Option<String>)> {
    let mut halves = part.splitn(2, |byte| *byte == b'=');
    let name = head::token(head::trim(halves.next()?))?;
    let Some(value) = halves.next().map(head::trim) else { return Some((name, None)) };
    let value = match value {
        [b'"', quoted @ .., b'"'] => unquoted(quoted)?,
        token => token.to_vec(),
    };
    // RFC 6455 §9.1: what is within quotes must be a token too.
    head::token(&value).map(|value| (name, Some(value.to_owned())))
}

/// What stands between two quotes (RFC 9110 §5.6.4).
fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut value) = (quoted.iter(), Vec::with_capacity(quoted.len()));
    while let Some(&byte) = bytes.next() {
        value.push(match byte {
            b'\\' => *bytes.next()?,
            b'"' => return None,
            byte => byte,
        });
    }
    Some(value)
}

/// RFC 7692 §7.1.2: a decimal number from 8 to 15 without leading zeroes.
fn bits(value: &str) -> Option<u8> {
    (8..=MAX_WINDOW).find(|bits| bits.to_string() == value)
}

/// The pieces between separators that stand outside of quotes; `None`: a quote does not end.
fn split(list: &[u8], by: u8) -> Option<Vec<&[u8]>> {
    let (mut pieces, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, &byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if byte == by && !quoted => {
                pieces.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&list[start..]);
    (!quoted).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(offers: &str) -> Option<String> {
        negotiate(offers.as_bytes()).map(Deflate::answer)
    }

    #[test]
    fn offers_of_real_clients_are_answered_byte_for_byte() {
        for offers in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=15",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            "\tpermessage-deflate ;\tclient_max_window_bits = \"10\" ",
            "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
            ", permessage-bzip2; a=\"1,2;3\", permessage-deflate",
        ] {
            assert_eq!(answer(offers).as_deref(), Some(ANSWER), "{offers}");
        }
    }

    #[test]
    fn a_window_that_is_asked_for_is_answered() {
        for bits in 9..=15 {
            for written in [format!("{bits}"), format!("\"{bits}\"")] {
                let offer = format!("permessage-deflate; server_max_window_bits={written}; client_max_window_bits");
                assert_eq!(answer(&offer), Some(format!("{ANSWER}; server_max_window_bits={bits}")), "{offer}");
                assert_eq!(negotiate(offer.as_bytes()).map(Deflate::window), Some(bits));
            }
        }
        assert_eq!(negotiate(b"permessage-deflate").map(Deflate::window), Some(15));
    }

    #[test]
    fn an_offer_that_is_malformed_or_cannot_be_kept_to_is_declined_and_the_next_is_tried() {
        for parameters in [
            "server_max_window_bits=7",
            "server_max_window_bits=8",
            "server_max_window_bits=16",
            "server_max_window_bits=a",
            "server_max_window_bits=09",
            "server_max_window_bits=+9",
            "server_max_window_bits=",
            "server_max_window_bits=\"\"",
            "server_max_window_bits=\"9",
            "server_max_window_bits=\"9\"\"",
            "server_max_window_bits=99999999999999999999",
            "server_max_window_bits",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "client_max_window_bits=a",
            "client_max_window_bits=1 0",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits",
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=10; client_max_window_bits",
            "unknown",
            "Server_no_context_takeover",
            "",
            ";",
            "=",
            "\u{e9}",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(answer(&offer), None, "{offer}");
            if !parameters.contains('"') || parameters.ends_with("\"\"") && !parameters.contains("9\"\"") {
                assert_eq!(answer(&format!("{offer}, permessage-deflate")).as_deref(), Some(ANSWER), "{offer}");
            }
        }
        for other in
            ["", ",", "permessage-deflat", "permessage-deflate-x", "Permessage-Deflate", "\"permessage-deflate\""]
        {
            assert_eq!(answer(other), None, "{other}");
        }
    }
}
