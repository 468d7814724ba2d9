//! Request heads: whatever is accepted is accepted whole only, and goes to the backend as it was understood.

use std::net::{IpAddr, Ipv4Addr};

use wssgate::reason::Reason;
use wssgate::ws::upgrade::{
    Forwarded, MAX_FIELDS, MAX_HEAD, Request, check_path, fresh_key, parse_request, write_request,
};

/// Any bytes as a request head.
pub fn check(data: &[u8]) {
    match parse_request(data, MAX_HEAD) {
        Ok(None) => assert!(data.len() < MAX_HEAD, "it waits for more than it would read"),
        Ok(Some((request, size))) => check_good(data, &request, size),
        Err(error) => {
            let status = Reason::from(error).http_status();
            assert!(matches!(status, Some(400..=431)), "{error:?} is not the client's fault");
        }
    }
}

fn check_good(data: &[u8], request: &Request, size: usize) {
    let (head, _) = data.split_at(size);
    assert!(head.ends_with(b"\r\n\r\n") && size <= MAX_HEAD);
    for short in (0..size).step_by(size / 256 + 1) {
        assert_eq!(parse_request(&head[..short], MAX_HEAD), Ok(None), "cut at {short}");
    }
    assert_eq!(parse_request(head, MAX_HEAD), Ok(Some((request.clone(), size))), "what follows a head changed it");
    assert!(check_path(&request.path));
    assert!(!request.host.bytes().any(|b| b.is_ascii_uppercase() || b == b':' || b == b'@'));

    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let key = fresh_key([1; 16]);
    let mut out = Vec::new();
    write_request(&mut out, request, &key, &request.subprotocols, &Forwarded::of(request, client));
    // The path that was matched is the path that is forwarded, and both are the bytes that came.
    let target = |bytes: &[u8]| bytes.split(|&b| b == b' ').nth(1).map(<[u8]>::to_vec);
    let understood = match &request.query {
        Some(query) => format!("{}?{query}", request.path),
        None => request.path.to_string(),
    };
    assert_eq!(target(&out).as_deref(), Some(understood.as_bytes()));
    assert_eq!(target(head), target(&out));
    // What is written has no more lines than were meant, and nothing of the client's stands after ours.
    let lines = out.split(|&b| b == b'\n').count();
    let own = 5 + usize::from(!request.subprotocols.is_empty()) + 6;
    let origin = usize::from(request.origin != wssgate::ws::upgrade::Origin::Missing);
    let hops = usize::from(request.cdn_loop.is_some());
    assert_eq!(lines, 1 + own + origin + hops + request.headers.len() + 2);
    let keys = String::from_utf8_lossy(&out).matches("\r\nSec-WebSocket-Key: ").count();
    assert_eq!(keys, 1, "the field is ours alone");
    // What the gateway adds may take a head that was just small enough over our own bounds; backends have theirs.
    let fits = lines - 3 <= MAX_FIELDS && out.len() <= MAX_HEAD;
    assert!(!fits || parse_request(&out, MAX_HEAD).is_ok_and(|read| read.is_some_and(|(read, _)| *read.key == *key)));
}
