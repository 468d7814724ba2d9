//! The PROXY protocol, version 2: what a load balancer says about the client before the client's first byte.
//!
//! Bytes in, verdict out. Only the binary version is read: the text of version 1 has no length, and two readers may see
//! its end in two places. Whom it is believed from is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What every header of version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// The most bytes of a header. Senders keep below 536 (the specification, §2.2); what else they know goes in there.
pub const MAX: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The proxy speaks for itself (a health check), or of a client whose family it does not know: the address is the
    /// socket's.
    Local,
    /// The client's address, IPv4 as such.
    Client(SocketAddr),
}

/// It is no header of version 2 for a TCP connection; where the client's bytes would begin is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// How many bytes more a header needs that begins with `bytes`; 0 when it is whole.
///
/// # Errors
/// [`Malformed`] as soon as nothing that follows could mend it.
pub fn wanted(bytes: &[u8]) -> Result<usize, Malformed> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(Malformed);
    }
    // The upper half of the byte is the version, which must be 2; the lower the command: 0 is LOCAL, 1 is PROXY.
    if bytes.get(12).is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Malformed);
    }
    let Some(length) = bytes.get(14..FIXED) else { return Ok(FIXED - bytes.len()) };
    let size = FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if size > MAX {
        return Err(Malformed);
    }
    Ok(size.saturating_sub(bytes.len()))
}

/// Reads a header from the start of `bytes`: what it says and the bytes it took, or `None` if it is not whole yet.
///
/// # Errors
/// [`Malformed`]: another version, command, family or transport, a length that does not fit, an address that no client
/// has, or further fields (TLVs) that do not fill the rest exactly.
pub fn parse(bytes: &[u8]) -> Result<Option<(ProxyHeader, usize)>, Malformed> {
    if wanted(bytes)? > 0 {
        return Ok(None);
    }
    let (Some(&[command, family]), Some(length)) =
        (bytes.get(12..14).and_then(<[u8]>::first_chunk), bytes.get(14..FIXED))
    else {
        return Err(Malformed);
    };
    let size = FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
    let body = bytes.get(FIXED..size).ok_or(Malformed)?;
    // §2.2: for LOCAL the receiver must take the real endpoints and skip what follows, whatever it is.
    if command == 0x20 {
        return Ok(Some((ProxyHeader::Local, size)));
    }
    let (header, fields) = match family {
        // AF_UNSPEC: skip the addresses as well; their size is not known, so neither are fields.
        0x00 => return Ok(Some((ProxyHeader::Local, size))),
        // TCP over IPv4: source, destination, ports.
        0x11 => {
            let (address, fields) = body.split_first_chunk::<12>().ok_or(Malformed)?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = *address;
            (client(Ipv4Addr::new(a, b, c, d).into(), [high, low])?, fields)
        }
        // TCP over IPv6.
        0x21 => {
            let (address, fields) = body.split_first_chunk::<36>().ok_or(Malformed)?;
            let source: [u8; 16] = *address.first_chunk().ok_or(Malformed)?;
            (client(Ipv6Addr::from(source).into(), [address[32], address[33]])?, fields)
        }
        // Datagrams and Unix sockets carry no wss.
        _ => return Err(Malformed),
    };
    skip(fields)?;
    Ok(Some((header, size)))
}

fn client(address: IpAddr, port: [u8; 2]) -> Result<ProxyHeader, Malformed> {
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(Malformed);
    }
    Ok(ProxyHeader::Client(SocketAddr::new(address, u16::from_be_bytes(port))))
}

/// Walks over type, length, value; nothing of them is used.
fn skip(mut fields: &[u8]) -> Result<(), Malformed> {
    while !fields.is_empty() {
        let (&[_, high, low], rest) = fields.split_first_chunk().ok_or(Malformed)?;
        fields = rest.get(usize::from(u16::from_be_bytes([high, low]))..).ok_or(Malformed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x9C, 0x40, 0x20, 0xFB];

    fn v6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [source.octets().as_slice(), &[0; 16], &[0, 80, 1, 187]].concat()
    }

    fn said(bytes: &[u8]) -> Result<ProxyHeader, Malformed> {
        parse(bytes).map(|read| read.unwrap().0)
    }

    #[test]
    fn addresses_of_both_families_are_read_and_what_follows_is_left() {
        let four = header(0x21, 0x11, &V4);
        let behind = [four.as_slice(), b"\x16\x03\x01"].concat();
        let client: SocketAddr = "203.0.113.7:40000".parse().unwrap();
        assert_eq!(parse(&behind), Ok(Some((ProxyHeader::Client(client), 28))));
        let client: SocketAddr = "[2001:db8::7]:80".parse().unwrap();
        assert_eq!(said(&header(0x21, 0x21, &v6("2001:db8::7"))), Ok(ProxyHeader::Client(client)));
        // An IPv4 client of a proxy that speaks IPv6 is the same client.
        let client: SocketAddr = "192.0.2.1:80".parse().unwrap();
        assert_eq!(said(&header(0x21, 0x21, &v6("::ffff:192.0.2.1"))), Ok(ProxyHeader::Client(client)));
    }

    #[test]
    fn the_proxys_own_connections_have_the_address_of_the_socket() {
        assert_eq!(said(&header(0x20, 0x00, &[])), Ok(ProxyHeader::Local));
        assert_eq!(said(&header(0x20, 0x11, &V4)), Ok(ProxyHeader::Local));
        assert_eq!(said(&header(0x20, 0xFF, b"anything at all")), Ok(ProxyHeader::Local));
        assert_eq!(said(&header(0x21, 0x00, b"\x01")), Ok(ProxyHeader::Local));
    }

    #[test]
    fn fields_are_skipped_and_must_fill_the_rest_exactly() {
        let with = |fields: &[u8]| said(&header(0x21, 0x11, &[V4.as_slice(), fields].concat()));
        for good in [&b""[..], b"\x04\x00\x00", b"\xEA\x00\x02ab\x04\x00\x01x", &[&[3, 1, 0][..], &[0; 256]].concat()] {
            assert!(with(good).is_ok(), "{good:?}");
        }
        for bad in [&b"\x04"[..], b"\x04\x00", b"\x04\x00\x01", b"\x04\xFF\xFF", b"\x04\x00\x00\x04\x00"] {
            assert_eq!(with(bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn everything_else_is_malformed() {
        let unspecified = [&[0; 4][..], &V4[4..]].concat();
        let multicast = [&[224, 0, 0, 1][..], &V4[4..]].concat();
        for (case, bytes) in [
            ("version 1", b"PROXY TCP4 203.0.113.7 10.0.0.1 40000 443\r\n".to_vec()),
            ("TLS", b"\x16\x03\x01\x02\x00\x01".to_vec()),
            ("version 1 in the byte", header(0x11, 0x11, &V4)),
            ("version 3", header(0x31, 0x11, &V4)),
            ("an unknown command", header(0x22, 0x11, &V4)),
            ("datagrams", header(0x21, 0x12, &V4)),
            ("a Unix socket", header(0x21, 0x31, &[0; 216])),
            ("an unknown family", header(0x21, 0x41, &V4)),
            ("too short for IPv4", header(0x21, 0x11, &V4[..11])),
            ("too short for IPv6", header(0x21, 0x21, &V4)),
            ("no address", header(0x21, 0x11, &unspecified)),
            ("a group's address", header(0x21, 0x11, &multicast)),
            ("too long", header(0x20, 0x00, &[0; 5000])),
        ] {
            assert_eq!(parse(&bytes), Err(Malformed), "{case}");
        }
    }

    #[test]
    fn a_header_in_pieces_wants_exactly_what_is_missing() {
        let whole = header(0x21, 0x11, &[V4.as_slice(), b"\x04\x00\x01x"].concat());
        for size in 0..whole.len() {
            assert_eq!(parse(&whole[..size]), Ok(None), "{size}");
            let wanted = wanted(&whole[..size]).unwrap();
            assert!(wanted > 0 && size + wanted <= whole.len(), "{size}: {wanted}");
        }
        assert_eq!(wanted(&whole), Ok(0));
    }
}
