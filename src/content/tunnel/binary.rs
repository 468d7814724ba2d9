//! Protocols that begin with bytes.

use super::form::Fit;
use super::form::{Seen, form, starts_with_one};

/// RFC 8446 §5.1 and §4: a record of a handshake that begins with a ClientHello or a ServerHello.
pub(super) fn tls(seen: Seen<'_>) -> Fit {
    let fits = || {
        let fixed = seen.has(&[(0, 0x16), (1, 3), (6, 0), (9, 3)]);
        if fixed == Some(false) || seen.bytes.get(2).is_some_and(|minor| *minor > 4) {
            return Some(false);
        }
        if seen.bytes.get(5).is_some_and(|kind| !matches!(kind, 1 | 2)) {
            return Some(false);
        }
        let (record, hello) = (seen.big::<2>(3)?, seen.big::<3>(6)?);
        // Version, random, a session identifier, a suite and a compression at least.
        let sound = (40..=16_384).contains(&hello) && (4..=16_384).contains(&record) && record <= hello + 4 + 16_384;
        if !sound {
            return Some(false);
        }
        Some(*seen.bytes.get(10)? <= 4 && fixed?)
    };
    form(fits())
}

/// RFC 9113 §3.4 and §6.5: the preface of a server is a SETTINGS frame on stream 0.
pub(super) fn http2_settings(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(0, 0), (1, 0), (3, 4), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0)]) == Some(false) {
            return Some(false);
        }
        let length = u64::from(*seen.bytes.get(2)?);
        if length == 0 || length % 6 != 0 {
            return Some(false);
        }
        Some((1..=9).contains(&seen.big::<2>(9)?))
    };
    form(fits())
}

/// SOCKS 4 and 4a: version, command, port, address, a user and in 4a a host, each ended by NUL, in one message.
pub(super) fn socks4(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(0, 4)]) == Some(false) || seen.bytes.get(1).is_some_and(|command| !matches!(command, 1 | 2)) {
            return Some(false);
        }
        let (port, address) = (seen.big::<2>(2)?, seen.big::<4>(4)?);
        if port == 0 {
            return Some(false);
        }
        let mut at = 8;
        for _ in 0..if (1..256).contains(&address) { 2 } else { 1 } {
            let text = &seen.bytes.get(at..)?;
            let end = text.iter().position(|byte| *byte == 0);
            if !text[..end.unwrap_or(text.len())].iter().all(u8::is_ascii_graphic) {
                return Some(false);
            }
            at += end? + 1;
        }
        seen.message_ends(at)
    };
    form(fits())
}

/// RFC 1928 §3 and §4: the methods, then (after RFC 1929 where it was chosen) a request.
pub(super) fn socks5(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(0, 5)]) == Some(false) {
            return Some(false);
        }
        let methods = usize::from(*seen.bytes.get(1)?);
        let known = |method: &u8| matches!(method, 0..=9 | 0x80..=0xFE);
        if !(1..=16).contains(&methods) || !seen.bytes[2..].iter().take(methods).all(known) {
            return Some(false);
        }
        let mut at = 2 + methods;
        if !seen.message_ends(at)? {
            return Some(false);
        }
        if *seen.bytes.get(at)? == 1 {
            let user = usize::from(*seen.bytes.get(at + 1)?);
            let password = usize::from(*seen.bytes.get(at + 2 + user)?);
            at += 3 + user + password;
        }
        let command = *seen.bytes.get(at + 1)?;
        if *seen.bytes.get(at)? != 5 || !(1..=3).contains(&command) || *seen.bytes.get(at + 2)? != 0 {
            return Some(false);
        }
        let address = match *seen.bytes.get(at + 3)? {
            1 => 4,
            3 => 1 + usize::from(*seen.bytes.get(at + 4)?),
            4 => 16,
            _ => return Some(false),
        };
        seen.message_ends(at + 4 + address + 2)
    };
    form(fits())
}

/// MS-RDPBCGR 2.2.1.1 and 2.2.1.2: TPKT (RFC 1006 §6) around an X.224 connection request or confirm.
pub(super) fn rdp(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(0, 3), (1, 0)]) == Some(false) {
            return Some(false);
        }
        let length = seen.big::<2>(2)?;
        if !(11..=512).contains(&length) || u64::from(*seen.bytes.get(4)?) + 5 != length {
            return Some(false);
        }
        match seen.bytes.get(5)? {
            0xD0 | 0xE0 => seen.has(&[(6, 0), (7, 0), (10, 0)]),
            _ => Some(false),
        }
    };
    form(fits())
}

/// PostgreSQL, "Message Formats": a startup message of protocol 3, or a request for TLS, GSSAPI or to cancel.
pub(super) fn postgresql(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(0, 0), (1, 0)]) == Some(false) {
            return Some(false);
        }
        let length = seen.big::<4>(0)?;
        match (seen.big::<4>(4)?, length) {
            (80_877_103 | 80_877_104, 8) | (80_877_102, 16) => Some(true),
            // 3.0 and 3.2; names and values follow, each ended by NUL.
            (196_608 | 196_610, 16..=10_000) => {
                let name = seen.bytes.get(8..)?;
                let end = name.iter().position(|byte| *byte == 0);
                let known = ["user", "database", "application_name", "client_encoding", "options", "replication"];
                let written = &name[..end.unwrap_or(name.len())];
                let fits = |known: &&str| match end {
                    Some(_) => known.as_bytes() == written,
                    None => known.as_bytes().starts_with(written),
                };
                if known.iter().any(fits) { end.map(|_| true) } else { Some(false) }
            }
            _ => Some(false),
        }
    };
    form(fits())
}

/// MySQL, "Protocol::HandshakeV10": a packet of number 0, version 10, the server's version, and a filler of 0.
pub(super) fn mysql_greeting(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(2, 0), (3, 0), (4, 10)]) == Some(false) {
            return Some(false);
        }
        let length = seen.little::<3>(0)?;
        if !(40..=512).contains(&length) {
            return Some(false);
        }
        let version = seen.bytes.get(5..)?;
        let end = version.iter().position(|byte| *byte == 0);
        let written = &version[..end.unwrap_or(version.len())];
        if written.len() > 64
            || !written.iter().all(u8::is_ascii_graphic)
            || !written.first().is_none_or(u8::is_ascii_digit)
        {
            return Some(false);
        }
        // Behind it the thread's number and the first eight bytes of the challenge.
        seen.has(&[(5 + end? + 1 + 4 + 8, 0)]).map(|filler| filler && end > Some(2))
    };
    form(fits())
}

/// MySQL, "Protocol::HandshakeResponse41" and "SSLRequest": a packet of number 1, protocol 4.1, and 23 zeros.
pub(super) fn mysql_response(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(2, 0), (3, 1)]) == Some(false) {
            return Some(false);
        }
        let (length, abilities) = (seen.little::<3>(0)?, seen.little::<4>(4)?);
        if length < 32 || abilities & 0x200 == 0 {
            return Some(false);
        }
        let zeros: Vec<(usize, u8)> = (13..36).map(|at| (at, 0)).collect();
        seen.has(&zeros)
    };
    form(fits())
}

/// MongoDB, "Wire Protocol": a header that answers nothing, OP_MSG or OP_QUERY, and a document or a name.
pub(super) fn mongodb(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(2, 0), (3, 0), (8, 0), (9, 0), (10, 0), (11, 0), (14, 0), (15, 0)]) == Some(false) {
            return Some(false);
        }
        let length = seen.little::<4>(0)?;
        match (seen.little::<4>(12)?, seen.little::<4>(16)?) {
            // Flags, a body of kind 0, and the length of its document.
            (2013, flags) if flags <= 3 => {
                Some(*seen.bytes.get(20)? == 0 && (5..length).contains(&seen.little::<4>(21)?))
            }
            // Flags, then `database.collection` ended by NUL.
            (2004, flags) if flags < 256 => {
                let name = seen.bytes.get(20..)?;
                let end = name.iter().position(|byte| *byte == 0);
                let written = &name[..end.unwrap_or(name.len())];
                if !written.iter().all(|byte| byte.is_ascii_graphic()) {
                    return Some(false);
                }
                Some(end? > 2 && written.contains(&b'.'))
            }
            _ => Some(false),
        }
    };
    form(fits())
}

/// MS-SMB2 2.1 and 2.2.1, MS-CIFS 2.2.3.1: a length behind a zero, then the signature.
pub(super) fn smb(seen: Seen<'_>) -> Fit {
    let fits = || {
        let fixed = [(0, 0), (5, b'S'), (6, b'M'), (7, b'B')];
        if seen.has(&fixed) == Some(false) || seen.bytes.get(4).is_some_and(|mark| !matches!(mark, 0xFE | 0xFF)) {
            return Some(false);
        }
        if seen.big::<3>(1)? < 32 {
            return Some(false);
        }
        seen.has(&fixed)
    };
    form(fits())
}

/// AMQP 0-9-1 §4.2.2, AMQP 0-10 and AMQP 1.0 §2.2: `AMQP` and a version.
pub(super) fn amqp(seen: Seen<'_>) -> Fit {
    let all: [&[u8]; 5] = [
        b"AMQP\x00\x00\x09\x01",
        b"AMQP\x01\x01\x00\x0a",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x02\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
    ];
    starts_with_one(seen, &all)
}

/// yamux, "Framing": the first frame opens a stream (a window update with SYN) or is a ping with SYN on none.
pub(super) fn yamux(seen: Seen<'_>) -> Fit {
    let fits = || {
        let update = seen.has(&[(0, 0), (1, 1), (2, 0), (3, 1), (4, 0), (5, 0), (6, 0)]);
        let ping = seen.has(&[(0, 0), (1, 2), (2, 0), (3, 1), (4, 0), (5, 0), (6, 0), (7, 0)]);
        if update == Some(false) && ping == Some(false) {
            return Some(false);
        }
        let length = seen.big::<4>(8)?;
        Some(ping == Some(true) || (matches!(seen.bytes.get(7)?, 1 | 2) && length <= 1 << 24))
    };
    form(fits())
}

/// smux, "Specification": SYN of the first stream (1 to 3), then data of the same stream.
pub(super) fn smux(seen: Seen<'_>) -> Fit {
    let fits = || {
        let fixed = [(1, 0), (2, 0), (3, 0), (5, 0), (6, 0), (7, 0), (9, 2), (13, 0), (14, 0), (15, 0)];
        if seen.has(&fixed) == Some(false) {
            return Some(false);
        }
        let version = *seen.bytes.first()?;
        if !matches!(version, 1 | 2) {
            return Some(false);
        }
        let stream = *seen.bytes.get(4)?;
        if !(1..=3).contains(&stream) || seen.bytes.get(8).is_some_and(|again| *again != version) {
            return Some(false);
        }
        Some(*seen.bytes.get(12)? == stream && seen.has(&fixed)? && seen.little::<2>(10)? > 0)
    };
    form(fits())
}

/// WireGuard, "Protocol & Cryptography": a message of its own that initiates (148 bytes) or answers (92) a handshake, with an
/// empty second code; a length may stand before it.
pub(super) fn wireguard(seen: Seen<'_>) -> Fit {
    let fits = |before: usize| {
        let fixed = [(before + 1, 0), (before + 2, 0), (before + 3, 0)];
        if before == 2 && seen.has(&[(0, 0)]) == Some(false) {
            return Some(false);
        }
        if seen.has(&fixed) == Some(false) {
            return Some(false);
        }
        let length = match seen.bytes.get(before)? {
            1 => 148,
            2 => 92,
            _ => return Some(false),
        };
        if before == 2 && seen.big::<2>(0)? != length as u64 {
            return Some(false);
        }
        if !seen.message_ends(before + length)? {
            return Some(false);
        }
        let zeros: Vec<(usize, u8)> = (before + length - 16..before + length).map(|at| (at, 0)).collect();
        seen.has(&zeros)
    };
    form(fits(0)).max(form(fits(2)))
}

/// OpenVPN over TCP: a length, then a reset of client or server that acknowledges nothing and is packet 0; where packets are
/// signed, a signature, the number 1 and the time stand in between.
pub(super) fn openvpn(seen: Seen<'_>) -> Fit {
    let fits = || {
        if seen.has(&[(0, 0)]) == Some(false) {
            return Some(false);
        }
        let length = usize::from(*seen.bytes.get(1)?);
        // Without a signature, or with one of SHA-1, SHA-256 or SHA-512.
        let signature = match length {
            14 => None,
            42 | 54 | 86 => Some(length - 22),
            _ => return Some(false),
        };
        // P_CONTROL_HARD_RESET_CLIENT_V2 and _SERVER_V2 of key 0.
        if !matches!(seen.bytes.get(2)?, 0x38 | 0x40) {
            return Some(false);
        }
        if !seen.message_ends(2 + length)? {
            return Some(false);
        }
        let mut fixed: Vec<(usize, u8)> = (length - 3..length + 2).map(|at| (at, 0)).collect();
        if let Some(signature) = signature {
            let number = 2 + 1 + 8 + signature;
            fixed.extend([(number, 0), (number + 1, 0), (number + 2, 0), (number + 3, 1)]);
        }
        seen.has(&fixed)
    };
    form(fits())
}
