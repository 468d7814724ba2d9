//! The raw protocols that a tunnel can carry, by name.

use std::fmt;

macro_rules! protocols {
    ($($variant:ident $name:literal)*) => {
        /// A protocol that can be recognised.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Protocol {
            $(#[doc = $name] $variant,)*
        }

        impl Protocol {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in routes, logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

protocols! {
    Amqp "amqp"
    Ftp "ftp"
    Http1 "http1"
    Http2 "http2"
    Imap "imap"
    Mongodb "mongodb"
    Mysql "mysql"
    Openvpn "openvpn"
    Pop3 "pop3"
    Postgresql "postgresql"
    Rdp "rdp"
    Redis "redis"
    Rfb "rfb"
    Smb "smb"
    Smtp "smtp"
    Smux "smux"
    Socks4 "socks4"
    Socks5 "socks5"
    Ssh "ssh"
    Tls "tls"
    Wireguard "wireguard"
    Yamux "yamux"
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of protocols.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Protocols(u32);

impl Protocols {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub fn insert(&mut self, protocol: Protocol) {
        self.0 |= 1 << protocol as u32;
    }

    /// Whether it is in the set.
    pub const fn contains(self, protocol: Protocol) -> bool {
        self.0 & (1 << protocol as u32) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let mut set = Protocols::NONE;
        set.insert(Protocol::Rfb);
        let has: Vec<_> = Protocol::ALL.iter().filter(|protocol| set.contains(**protocol)).collect();
        assert_eq!(has, [&Protocol::Rfb]);
    }
}
