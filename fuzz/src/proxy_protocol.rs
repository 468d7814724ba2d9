//! The PROXY header: it is whole exactly when nothing more is wanted, and never takes a byte of what follows it.

use wssgate::ws::proxy_protocol::{MAX, ProxyHeader, SIGNATURE, parse, wanted};

/// Any bytes as the start of a connection.
pub fn check(data: &[u8]) {
    match parse(data) {
        Err(_) => {}
        Ok(None) => {
            let missing = wanted(data).unwrap_or_default();
            assert!(missing > 0 && data.len() + missing <= MAX, "it waits for more than it would read");
        }
        Ok(Some((said, size))) => {
            assert!(data.starts_with(&SIGNATURE) && (16..=MAX).contains(&size) && size <= data.len());
            let header = &data[..size];
            // What comes after makes no difference, and each prefix wants some of what is missing and no more.
            assert_eq!(parse(header), Ok(Some((said, size))));
            for short in (0..size).step_by(size / 64 + 1) {
                assert_eq!(parse(&header[..short]), Ok(None), "cut at {short}");
                let missing = wanted(&header[..short]).unwrap_or_default();
                assert!(missing > 0 && short + missing <= size, "cut at {short}: {missing}");
            }
            if let ProxyHeader::Client(client) = said {
                assert_eq!(client.ip(), client.ip().to_canonical());
                assert!(!client.ip().is_unspecified());
            }
        }
    }
}
