use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// What is said of messages, the first of which may be undecided.
fn said(messages: &[&[u8]]) -> Verdict {
    let mut watch = Watch::default();
    let mut verdict = Verdict::Undecided;
    for message in messages {
        verdict = watch.read(message, true);
        if verdict != Verdict::Undecided {
            break;
        }
    }
    verdict
}

/// The same, byte by byte and with an empty frame at each message's end.
fn said_in_bytes(messages: &[&[u8]]) -> Verdict {
    let mut watch = Watch::default();
    for message in messages {
        for byte in *message {
            match watch.read(&[*byte], false) {
                Verdict::Undecided => {}
                verdict => return verdict,
            }
        }
        match watch.read(&[], true) {
            Verdict::Undecided => {}
            verdict => return verdict,
        }
    }
    Verdict::Undecided
}

fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(config.into(), "example.com".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// Beginnings of tunnels, in the messages that relays of TCP make of them.
fn tunnels() -> Vec<(Protocol, Vec<Vec<u8>>)> {
    let one = |protocol, bytes: &[u8]| (protocol, vec![bytes.to_vec()]);
    let wireguard = |kind: u8, length: usize| {
        let mut message = vec![kind, 0, 0, 0];
        message.extend((4..length - 16).map(|at| (at * 7 + 1) as u8));
        message.resize(length, 0);
        message
    };
    let mut openvpn = hex("000e 38 0102030405060708 00 00000000");
    let plain = openvpn.clone();
    openvpn = hex("002a 38 0102030405060708");
    openvpn.extend([0xAB; 20]);
    openvpn.extend(hex("00000001 65000000 00 00000000"));
    let mut length_and_wireguard = vec![0, 148];
    length_and_wireguard.extend(wireguard(1, 148));
    let mut mysql = hex("4a000000 0a");
    mysql.extend(b"8.0.36\0");
    mysql.extend(hex("0b000000 0102030405060708 00 ffff"));
    let mut response = hex("54000001 8da61f00 00000001 21");
    response.extend([0; 23]);
    response.extend(b"root\0");
    vec![
        one(Protocol::Ssh, b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n"),
        (Protocol::Ssh, vec![b"SSH-2".to_vec(), b".0-Go".to_vec(), b"\r\n".to_vec()]),
        one(Protocol::Tls, &client_hello()),
        one(Protocol::Tls, &hex("16 0303 007a 02 000076 0303 01020304")),
        one(Protocol::Http1, b"GET /admin HTTP/1.1\r\nHost: internal\r\n\r\n"),
        one(Protocol::Http1, b"CONNECT db:5432 HTTP/1.1\r\n\r\n"),
        one(Protocol::Http1, b"HTTP/1.1 200 OK\r\n"),
        one(Protocol::Http2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04"),
        one(Protocol::Http2, &hex("000012 04 00 00000000 0003 00000064 0004 00100000")),
        one(Protocol::Socks4, &hex("04 01 0050 5db8d822 00")),
        one(Protocol::Socks4, b"\x04\x01\x01\xbb\0\0\0\x07me\0example.com\0"),
        (Protocol::Socks5, vec![hex("05 01 00"), hex("05 01 00 01 0a000001 0050")]),
        (
            Protocol::Socks5,
            vec![hex("05 02 00 02"), hex("01 02 6d65 02 7077"), b"\x05\x01\0\x03\x02db\x15\x38".to_vec()],
        ),
        one(Protocol::Rdp, &hex("03 00 0013 0e e0 0000 0000 00 01 00 0800 03000000")),
        one(Protocol::Rdp, &hex("03 00 0013 0e d0 0000 1234 00 02 1f 0800 02000000")),
        one(Protocol::Rfb, b"RFB 003.008\n"),
        one(Protocol::Postgresql, &hex("00000008 04d2162f")),
        one(Protocol::Postgresql, b"\0\0\0\x24\0\x03\0\0user\0postgres\0database\0db\0\0"),
        one(Protocol::Mysql, &mysql),
        one(Protocol::Mysql, &response),
        one(Protocol::Mongodb, &hex("3b000000 01000000 00000000 dd070000 00000000 00 26000000 10")),
        one(Protocol::Mongodb, b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0\0\0\0\0admin.$cmd\0"),
        one(Protocol::Redis, b"*1\r\n$4\r\nPING\r\n"),
        one(Protocol::Redis, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n"),
        one(Protocol::Smb, &hex("00 0000d4 ff 534d42 72")),
        one(Protocol::Smb, &hex("00 0000d4 fe 534d42 4000")),
        one(Protocol::Amqp, b"AMQP\0\0\x09\x01"),
        one(Protocol::Amqp, b"AMQP\x03\x01\0\0"),
        one(Protocol::Smtp, b"220 mail.example.com ESMTP Postfix\r\n"),
        one(Protocol::Smtp, b"EHLO client.example.com\r\n"),
        one(Protocol::Smtp, b"ehlo [127.0.0.1]\r\n"),
        one(Protocol::Imap, b"* OK [CAPABILITY IMAP4rev1] Dovecot ready.\r\n"),
        one(Protocol::Pop3, b"+OK POP3 server ready\r\n"),
        one(Protocol::Ftp, b"220 (vsFTPd 3.0.3)\r\n"),
        one(Protocol::Yamux, &hex("00 01 0001 00000001 00040000")),
        one(Protocol::Yamux, &hex("00 02 0001 00000000 00000000")),
        one(Protocol::Smux, &hex("01 00 0000 03000000 01 02 0500 03000000 68656c6c6f")),
        (Protocol::Smux, vec![hex("01 00 0000 03000000"), hex("01 02 0500 03000000 68656c6c6f")]),
        (Protocol::Wireguard, vec![wireguard(1, 148)]),
        (Protocol::Wireguard, vec![wireguard(2, 92)]),
        (Protocol::Wireguard, vec![length_and_wireguard]),
        (Protocol::Openvpn, vec![plain]),
        (Protocol::Openvpn, vec![openvpn]),
    ]
}

#[test]
fn each_protocol_is_recognised_however_its_bytes_are_cut() {
    let mut left: Vec<Protocol> = Protocol::ALL.to_vec();
    for (protocol, messages) in tunnels() {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        assert_eq!(said(&messages), Verdict::Found(protocol), "{protocol}: {messages:x?}");
        assert_eq!(said_in_bytes(&messages), Verdict::Found(protocol), "{protocol} in bytes: {messages:x?}");
        // Cut into frames at any one place.
        for cut in 0..messages[0].len() {
            let mut watch = Watch::default();
            let first = watch.read(&messages[0][..cut], false);
            let mut rest = || {
                let mut verdict = watch.read(&messages[0][cut..], true);
                for message in &messages[1..] {
                    if verdict == Verdict::Undecided {
                        verdict = watch.read(message, true);
                    }
                }
                verdict
            };
            let verdict = if first == Verdict::Undecided { rest() } else { first };
            assert_eq!(verdict, Verdict::Found(protocol), "{protocol} cut at {cut}");
        }
        left.retain(|other| *other != protocol);
    }
    assert_eq!(left, []);
}

/// What applications send: the first messages of a direction.
fn harmless() -> Vec<Vec<Vec<u8>>> {
    let text = |text: &str| vec![text.as_bytes().to_vec()];
    let bytes = |digits: &str| vec![hex(digits)];
    let mut all = vec![
        // JSON, GraphQL, JSON-RPC, OCPP, LSP.
        text(r#"{"type":"say","text":"GET / HTTP/1.1"}"#),
        text(r#"[2,"19223201","BootNotification",{"chargePointVendor":"V"}]"#),
        text(r#"{"type":"connection_init","payload":{}}"#),
        text("Content-Length: 52\r\n\r\n{\"jsonrpc\":\"2.0\"}"),
        text("true"),
        // Socket.IO, Engine.IO, SignalR (JSON, MessagePack), Phoenix, Centrifugo, SockJS.
        text("0{\"sid\":\"x\",\"upgrades\":[]}"),
        text("40/admin,{\"token\":\"a\"}"),
        text("42[\"move\",{\"piece\":\"king\"}]"),
        text("{\"protocol\":\"json\",\"version\":1}\u{1e}"),
        text("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}"),
        bytes("1c 95 01 80 a1 31 a3 41 73 6b 92 07 a1 78"),
        text("[\"1\",\"1\",\"room:lobby\",\"phx_join\",{}]"),
        text("[\"\\u0000\"]"),
        // STOMP, WAMP, SIP (RFC 7118), XMPP (RFC 7395), MSRP, IRC, RTSP, Gemini-like lines.
        text("CONNECT\naccept-version:1.2\nhost:example.com\n\n\0"),
        text("STOMP\naccept-version:1.2\n\n\0"),
        text("[1,\"realm1\",{\"roles\":{}}]"),
        text("INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/WS x\r\n\r\n"),
        text("OPTIONS sip:bob@example.com SIP/2.0\r\n\r\n"),
        text("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>"),
        text("MSRP d93kswow SEND\r\n"),
        text("NICK alice\r\nUSER alice 0 * :Alice\r\n"),
        text("DESCRIBE rtsp://example.com/a RTSP/1.0\r\n"),
        text("OPTIONS rtsp://example.com/a RTSP/1.0\r\n\r\n"),
        // Chat that quotes protocols, and numbers.
        text("GET / is not a greeting"),
        text("GET /index.html\r\n"),
        text("220 items left\r\n"),
        text("HELO\r\n"),
        text("helo mr. smith\r\n"),
        text("* OK, then\r\n"),
        text("SSH-2.0 is what I mean"),
        text("*3 points\r\n"),
        text("+1"),
        text("HTTP/1.1 is old\r\n"),
        text("RFB 3.8"),
        text("AMQP or MQTT?"),
        text("ping"),
        text(""),
        // MQTT 3.1.1 and 5.
        bytes("10 10 0004 4d515454 04 02 003c 0004 74657374"),
        bytes("10 13 0004 4d515454 05 02 003c 00 0004 74657374"),
        bytes("20 02 00 00"),
        // MessagePack, CBOR, protobuf, FlatBuffers, BSON, Avro, Cap'n Proto.
        bytes("82 a4 74797065 a3 736179 a4 74657874 a2 6869"),
        bytes("04"),
        bytes("05"),
        bytes("05 01 00"),
        bytes("16 03 01"),
        bytes("93 01 02 03"),
        bytes("a2 64 74797065 63 736179"),
        bytes("08 96 01 12 07 74 65 73 74 69 6e 67"),
        bytes("0a 05 68 65 6c 6c 6f"),
        bytes("00 00 00 0a 08 01 12 06 61 62 63 64 65 66"),
        bytes("00 00 00 00 07 0a 05 68 65 6c 6c 6f"),
        bytes("10 00 00 00 00 00 0a 00 10 00 04 00"),
        bytes("16 00 00 00 02 68 65 6c 6c 6f 00 06 00 00 00 77 6f 72 6c 64 00 00"),
        bytes("00 00 00 00 02 00 00 00 00 00 00 00 00 00 01 00"),
        // Numbers in 16 and 32 bits of either order, floats.
        bytes("00 01 00 02 00 03 00 04 00 05 00 06"),
        bytes("00 00 00 01 00 00 00 01 00 00 00 05"),
        bytes("01 00 00 00 03 00 00 00 05 00 00 00 07 00 00 00"),
        bytes("01 00 00 00 02 00 00 00 00 00 80 3f 00 00 00 00"),
        bytes("02 00 00 00 00 00 00 00 00 00 00 00"),
        bytes("00 00 80 3f 00 00 00 40 00 00 40 40"),
        // Yjs: sync steps 1 and 2, an update, awareness; Automerge.
        bytes("00 00 01 00"),
        bytes("00 00 04 01 ab cd 01"),
        bytes("00 01 02 00 00"),
        bytes("00 01 08 01 01 e3 d3 01 00 04 01"),
        bytes("00 02 08 01 01 e3 d3 01 00 04 01"),
        bytes("01 10 01 f1 a1 02 01 0a 7b 7d"),
        bytes("85 6f 4a 83 b8 1a 95 44"),
        // Audio and video: Ogg, WebM, MP4, WAV, MP3, ADTS, FLV, H.264, Opus, JPEG, PNG, PCM.
        bytes("4f 67 67 53 00 02 00 00 00 00 00 00 00 00"),
        bytes("1a 45 df a3 9f 42 86 81 01"),
        bytes("00 00 00 18 66 74 79 70 69 73 6f 6d"),
        bytes("52 49 46 46 24 08 00 00 57 41 56 45"),
        bytes("49 44 33 03 00 00 00 00 0f 76"),
        bytes("ff fb 90 64 00"),
        bytes("ff f1 50 80 02 1f fc"),
        bytes("46 4c 56 01 05 00 00 00 09"),
        bytes("00 00 00 01 67 42 c0 1e d9 00"),
        bytes("00 00 01 09 10"),
        bytes("fc ff fe 78 1b"),
        bytes("ff d8 ff e0 00 10 4a 46"),
        bytes("89 50 4e 47 0d 0a 1a 0a"),
        vec![vec![0; 640]],
        vec![vec![0; 148]],
        vec![vec![1; 148]],
        vec![vec![0; 92]],
        // gzip, zstd, zlib.
        bytes("1f 8b 08 00 00 00 00 00"),
        bytes("28 b5 2f fd 04 00"),
        bytes("78 9c 4b 4c 4a"),
    ];
    // Lengths before what follows, and counters.
    for length in [2u16, 14, 16, 42, 54, 86] {
        let mut message = length.to_be_bytes().to_vec();
        message.extend((0..length).map(|at| b'8' + (at % 3) as u8));
        all.push(vec![message]);
    }
    all.push((0..20u32).map(|number| number.to_le_bytes().to_vec()).collect());
    all.push((0..20u32).map(|number| number.to_be_bytes().to_vec()).collect());
    all
}

#[test]
fn what_applications_send_is_no_tunnel() {
    for messages in harmless() {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        for verdict in [said(&messages), said_in_bytes(&messages)] {
            assert!(!matches!(verdict, Verdict::Found(_)), "{verdict:?}: {messages:x?}");
        }
    }
}

#[test]
fn json_is_over_within_three_bytes() {
    for first in ["{\"t", "[2,", "\"ab", "tru", "0{\"", "42["] {
        assert_eq!(Watch::default().read(first.as_bytes(), false), Verdict::Nothing, "{first}");
    }
}

#[test]
fn no_more_than_the_window_is_kept_or_looked_at() {
    let mut watch = Watch::default();
    let line = [b"GET /".to_vec(), vec![b'a'; 2 * WINDOW]].concat();
    assert_eq!(watch.read(&line, false), Verdict::Nothing);
    assert_eq!(watch.bytes.len(), WINDOW);
    let mut watch = Watch::default();
    let verdicts: Vec<_> = (0..MAX_MESSAGES).map(|_| watch.read(b"", true)).collect();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Undecided), "empty messages say nothing");
}

proptest::proptest! {
    #[test]
    fn where_frames_are_cut_changes_no_verdict(bytes: Vec<u8>, cuts: Vec<bool>, known in 0usize..40) {
        let mut bytes = bytes;
        if let Some((_, messages)) = tunnels().get(known) {
            bytes.splice(0..0, messages[0].iter().copied());
        }
        let whole = Watch::default().read(&bytes, true);
        let (mut watch, mut start, mut verdict) = (Watch::default(), 0, Verdict::Undecided);
        for end in 1..=bytes.len() {
            if verdict == Verdict::Undecided && (end == bytes.len() || cuts.get(end).copied().unwrap_or(false)) {
                verdict = watch.read(&bytes[start..end], end == bytes.len());
                start = end;
            }
        }
        if bytes.is_empty() {
            verdict = watch.read(&[], true);
        }
        proptest::prop_assert_eq!(verdict, whole);
    }
}
