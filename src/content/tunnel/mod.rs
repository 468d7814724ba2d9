//! Which raw protocol begins in the first bytes of a direction: a tunnel through a WebSocket.
//!
//! A [`Watch`] reads what messages carry from the beginning, over their borders, and is over as soon as no form fits any more:
//! for JSON that is within three bytes. What is encrypted, encoded (base64) or wrapped in messages of another protocol cannot be
//! seen.

mod binary;
mod form;
mod text;

use super::protocol::Protocol;
use form::{Fit, Seen, starts};

/// The most bytes of a direction that are looked at. The longest form is a line of greeting (512 bytes, RFC 5321 §4.5.3.1.5).
const WINDOW: usize = 512;
/// The most messages that the first bytes may lie in.
const MAX_MESSAGES: usize = 64;

/// What tells a protocol: how much of the bytes is enough to tell it from anything else. A form demands lengths that fit each
/// other, versions that exist and fields whose value is fixed, because applications send any bytes that they like.
type Form = fn(Seen<'_>) -> Fit;

/// Every form by the protocol that it shows.
const FORMS: &[(Protocol, Form)] = &[
    (Protocol::Amqp, binary::amqp),
    (Protocol::Ftp, |seen| text::greeting(seen, &[b"220 ", b"220-"], &["FTP"])),
    (Protocol::Http1, text::http_request),
    (Protocol::Http1, text::http_response),
    (Protocol::Http2, |seen| starts(seen, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    (Protocol::Http2, binary::http2_settings),
    (Protocol::Imap, |seen| text::greeting(seen, &[b"* OK ", b"* PREAUTH "], &["IMAP"])),
    (Protocol::Mongodb, binary::mongodb),
    (Protocol::Mysql, binary::mysql_greeting),
    (Protocol::Mysql, binary::mysql_response),
    (Protocol::Openvpn, binary::openvpn),
    (Protocol::Pop3, |seen| text::greeting(seen, &[b"+OK "], &["POP3", "POP server"])),
    (Protocol::Postgresql, binary::postgresql),
    (Protocol::Rdp, binary::rdp),
    (Protocol::Redis, text::redis),
    (Protocol::Rfb, text::rfb),
    (Protocol::Smb, binary::smb),
    (Protocol::Smtp, |seen| text::greeting(seen, &[b"220 ", b"220-"], &["SMTP"])),
    (Protocol::Smtp, text::smtp_hello),
    (Protocol::Smux, binary::smux),
    (Protocol::Socks4, binary::socks4),
    (Protocol::Socks5, binary::socks5),
    (Protocol::Ssh, text::ssh),
    (Protocol::Tls, binary::tls),
    (Protocol::Wireguard, binary::wireguard),
    (Protocol::Yamux, binary::yamux),
];

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A form fits as far as it goes.
    Undecided,
    /// A whole form fits.
    Found(Protocol),
    /// None fits: nothing that follows is looked at.
    Nothing,
}

/// The first bytes of one direction of a connection.
#[derive(Debug, Default)]
pub struct Watch {
    bytes: Vec<u8>,
    /// Where in them messages end.
    ends: Vec<usize>,
}

impl Watch {
    /// Reads the next payload; `ends`: a message ends with it. To be called until it gives another verdict than
    /// [`Verdict::Undecided`].
    pub fn read(&mut self, payload: &[u8], ends: bool) -> Verdict {
        let room = WINDOW - self.bytes.len();
        self.bytes.extend_from_slice(&payload[..payload.len().min(room)]);
        if payload.len() > room {
            return find(&self.bytes, &self.ends).filter_undecided();
        }
        if ends && self.ends.last() != Some(&self.bytes.len()) {
            self.ends.push(self.bytes.len());
        }
        let verdict = find(&self.bytes, &self.ends);
        if self.ends.len() >= MAX_MESSAGES || self.bytes.len() == WINDOW { verdict.filter_undecided() } else { verdict }
    }
}

impl Verdict {
    /// The verdict where nothing more is read.
    fn filter_undecided(self) -> Self {
        if self == Self::Undecided { Self::Nothing } else { self }
    }
}

/// The protocol whose form the bytes fit wholly; the first of the list, if several do.
fn find(bytes: &[u8], ends: &[usize]) -> Verdict {
    let seen = Seen { bytes, ends };
    let mut verdict = Verdict::Nothing;
    for (protocol, form) in FORMS {
        match form(seen) {
            Fit::No => {}
            Fit::SoFar => verdict = Verdict::Undecided,
            Fit::Whole => return Verdict::Found(*protocol),
        }
    }
    verdict
}

#[cfg(test)]
mod tests;
