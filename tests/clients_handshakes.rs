//! The handshakes of clients and the 101s of backends as they stand on the wire: header for header in the order and case of
//! each library. What a peer of the gateway would let in gets in.

use crate::harness::{Behaviour, Head, Setup, json};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/// Request line and fields, `\n` between them, as each library writes them.
const CLIENTS: &[(&str, &str)] = &[
    (
        "Chrome",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nConnection: Upgrade\nPragma: no-cache\nCache-Control: no-cache\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\nUpgrade: websocket\nOrigin: https://chat.example.com\nSec-WebSocket-Version: 13\nAccept-Encoding: gzip, deflate, br, zstd\nAccept-Language: en-US,en;q=0.9\nKEY\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ),
    (
        "Firefox",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0\nAccept: */*\nAccept-Language: en-US,en;q=0.5\nAccept-Encoding: gzip, deflate, br, zstd\nSec-WebSocket-Version: 13\nOrigin: https://chat.example.com\nSec-WebSocket-Extensions: permessage-deflate\nKEY\nConnection: keep-alive, Upgrade\nSec-Fetch-Dest: empty\nSec-Fetch-Mode: websocket\nSec-Fetch-Site: same-origin\nPragma: no-cache\nCache-Control: no-cache\nUpgrade: websocket",
    ),
    (
        "Safari",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nSec-Fetch-Site: same-origin\nPragma: no-cache\nSec-Fetch-Mode: websocket\nUser-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15\nSec-WebSocket-Version: 13\nSec-WebSocket-Extensions: permessage-deflate\nCache-Control: no-cache\nSec-Fetch-Dest: websocket\nOrigin: https://chat.example.com\nConnection: Upgrade\nUpgrade: websocket\nKEY",
    ),
    (
        "java.net.http",
        "GET /chat HTTP/1.1\nConnection: Upgrade\nContent-Length: 0\nHost: chat.example.com\nKEY\nSec-WebSocket-Version: 13\nUpgrade: websocket\nUser-Agent: Java-http-client/17.0.15",
    ),
    (
        "Dart",
        "GET /chat HTTP/1.1\nuser-agent: Dart/2.12 (dart:io)\nconnection: Upgrade\ncache-control: no-cache\naccept-encoding: gzip\ncontent-length: 0\nsec-websocket-version: 13\nhost: chat.example.com\nsec-websocket-extensions: permessage-deflate; client_max_window_bits\nKEY\nupgrade: websocket",
    ),
    (
        ".NET ClientWebSocket",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nKEY",
    ),
    (
        ".NET SignalR",
        "GET /hub?id=x1y2 HTTP/1.1\nHost: chat.example.com\nX-Requested-With: XMLHttpRequest\nUser-Agent: Microsoft SignalR/9.0 (9.0.0; Linux; .NET; .NET 9.0.0)\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nKEY",
    ),
    (
        "Node ws",
        "GET /chat HTTP/1.1\nSec-WebSocket-Version: 13\nKEY\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\nHost: chat.example.com",
    ),
    (
        "undici",
        "GET /chat HTTP/1.1\nhost: chat.example.com\nconnection: upgrade\nupgrade: websocket\nKEY\nsec-websocket-version: 13\nsec-websocket-extensions: permessage-deflate; client_max_window_bits\naccept: */*\naccept-language: *\nsec-fetch-mode: websocket\nuser-agent: node\npragma: no-cache\ncache-control: no-cache\naccept-encoding: gzip, deflate",
    ),
    (
        "socket.io",
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\nSec-WebSocket-Version: 13\nKEY\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\nHost: chat.example.com",
    ),
    (
        "Go gorilla",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUser-Agent: Go-http-client/1.1\nConnection: Upgrade\nKEY\nSec-WebSocket-Version: 13\nUpgrade: websocket",
    ),
    (
        "Go coder",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUser-Agent: Go-http-client/1.1\nConnection: Upgrade\nSec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-Websocket-Version: 13\nUpgrade: websocket",
    ),
    (
        "Python websockets",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUpgrade: websocket\nConnection: Upgrade\nKEY\nSec-WebSocket-Version: 13\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\nUser-Agent: Python/3.12 websockets/15.0",
    ),
    (
        "Python aiohttp",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nKEY\nAccept: */*\nAccept-Encoding: gzip, deflate\nUser-Agent: Python/3.12 aiohttp/3.11",
    ),
    (
        "Python websocket-client",
        "GET /chat HTTP/1.1\nUpgrade: websocket\nHost: chat.example.com\nOrigin: https://chat.example.com\nKEY\nSec-WebSocket-Version: 13\nConnection: Upgrade\n",
    ),
    (
        "Ruby faye",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUpgrade: websocket\nConnection: Upgrade\nKEY\nSec-WebSocket-Version: 13",
    ),
    (
        "PHP Textalk",
        "GET /chat HTTP/1.1\nhost: chat.example.com\nuser-agent: websocket-client-php\nconnection: Upgrade\nupgrade: websocket\nKEY\nsec-websocket-version: 13",
    ),
    (
        "Erlang gun",
        "GET /chat HTTP/1.1\nconnection: upgrade\nupgrade: websocket\nsec-websocket-version: 13\nKEY\nhost: chat.example.com",
    ),
    (
        "Mojolicious",
        "GET /chat HTTP/1.1\nAccept-Encoding: gzip\nConnection: Upgrade\nContent-Length: 0\nHost: chat.example.com\nKEY\nSec-WebSocket-Version: 13\nUpgrade: websocket\nUser-Agent: Mojolicious (Perl)",
    ),
    (
        "C libwebsockets",
        "GET /chat HTTP/1.1\nPragma: no-cache\nCache-Control: no-cache\nHost: chat.example.com\nUpgrade: websocket\nConnection: Upgrade\nKEY\nSec-WebSocket-Protocol: ocpp1.6\nSec-WebSocket-Extensions: \nSec-WebSocket-Version: 13",
    ),
    (
        "Arduino WebSockets",
        "GET /chat HTTP/1.1\nHost: chat.example.com:443\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nKEY\nSec-WebSocket-Protocol: arduino\nOrigin: https://chat.example.com\nUser-Agent: arduino-WebSocket-Client",
    ),
    (
        "MicroOcpp",
        "GET wss://chat.example.com/ocpp/CP001 HTTP/1.1\nHost: chat.example.com\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nKEY\nSec-WebSocket-Protocol: ocpp1.6",
    ),
    (
        "ESP-IDF",
        "GET /chat HTTP/1.1\nConnection: Upgrade\nHost: chat.example.com:443\nUser-Agent: ESP32 Websocket Client\nUpgrade: websocket\nSec-WebSocket-Version: 13\nKEY",
    ),
    (
        "Qt",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUpgrade: websocket\nConnection: Upgrade\nKEY\nOrigin: https://chat.example.com\nSec-WebSocket-Version: 13",
    ),
    (
        "okhttp",
        "GET /chat HTTP/1.1\nUpgrade: websocket\nConnection: Upgrade\nKEY\nSec-WebSocket-Version: 13\nSec-WebSocket-Extensions: permessage-deflate\nHost: chat.example.com\nAccept-Encoding: gzip\nUser-Agent: okhttp/4.12.0",
    ),
    (
        "Starscream",
        "GET /chat HTTP/1.1\nHost: chat.example.com:443\nUpgrade: websocket\nConnection: Upgrade\nKEY\nSec-WebSocket-Version: 13\nOrigin: https://chat.example.com\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=15",
    ),
    (
        "URLSession",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nSec-WebSocket-Extensions: permessage-deflate\nUpgrade: websocket\nSec-WebSocket-Protocol: \nKEY\nSec-WebSocket-Version: 13\nAccept: */*\nAccept-Language: en\nAccept-Encoding: gzip, deflate\nConnection: Upgrade\nUser-Agent: App/1 CFNetwork/1490 Darwin/23.2.0",
    ),
    (
        "a fully qualified name",
        "GET /chat HTTP/1.1\nHost: chat.example.com.\nUpgrade: websocket\nConnection: Upgrade\nKEY\nOrigin: https://chat.example.com.\nSec-WebSocket-Version: 13",
    ),
    (
        "empty elements of lists",
        "GET /chat HTTP/1.1\nHost: chat.example.com\nUpgrade: websocket,\nConnection: ,keep-alive,,Upgrade,\nKEY\nSec-WebSocket-Protocol: ,a,,b,\nSec-WebSocket-Version: 13",
    ),
];

fn head(text: &str) -> Head {
    let mut lines = text.trim_end().split('\n');
    let first = Head::request(lines.next().unwrap_or_default()).without("Host");
    lines.fold(first, |head, line| head.raw(if line == "KEY" { KEY } else { line }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_of_every_client_gets_in() {
    let setup = Setup::new(&json!({})).await;
    for (client, text) in CLIENTS {
        setup.admitted(client, &head(text)).await;
        let got = setup.recorder.last().head();
        // What is taken is written anew: none of these forms reaches the backend.
        let path = text.split(' ').nth(1).unwrap().trim_start_matches("wss://chat.example.com");
        assert_eq!(got.line, format!("GET {path} HTTP/1.1"), "{client}");
        assert_eq!((got.count("content-length"), got.count("host"), got.count("connection")), (0, 1, 1), "{client}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_101_of_every_backend_opens_the_connection() {
    let setup = Setup::new(&json!({})).await;
    for (backend, fields) in [
        ("plain", "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: ACCEPT"),
        ("a length of 0", "Upgrade: websocket\nConnection: Upgrade\nContent-Length: 0\nSec-WebSocket-Accept: ACCEPT"),
        ("lower case", "upgrade: WebSocket\nconnection: upgrade\nsec-websocket-accept: ACCEPT\nserver: uvicorn"),
        (
            "empty lists",
            "Upgrade: websocket\nConnection: keep-alive, , Upgrade\nSec-WebSocket-Accept: ACCEPT\nSec-WebSocket-Protocol:\nSec-WebSocket-Extensions: ",
        ),
        (
            "more than it needs",
            "Date: Tue, 03 Dec 2024 10:00:00 GMT\nServer: Kestrel\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: ACCEPT\nContent-Type: text/plain\nX-Powered-By: Express",
        ),
    ] {
        setup.recorder.behave(Behaviour::accepting(move |accept| {
            let fields = fields.replace("ACCEPT", accept).replace('\n', "\r\n");
            format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n")
        }));
        setup.admitted(backend, &Head::upgrade("/")).await;
    }
}
