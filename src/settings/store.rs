//! The store that replicas share: the member `sharedStore` of the settings file. Without it each replica has its own
//! tickets and its own limits per subject.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::api::scalar;

/// How long one answer of the store may take.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// How long the connections of a replica that died are counted.
const LEASES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(600));
/// The most bytes of a prefix.
const MAX_PREFIX: usize = 64;
/// The port where the URL has none, with TLS and without.
const PORT: u16 = 6379;

/// The member `sharedStore`: as written and effective, since nothing of it has a flag.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SharedStore {
    /// Where the store is: `redis://HOST:PORT/DATABASE`, or `rediss://` with TLS. Never with a password.
    #[serde(deserialize_with = "url")]
    pub url: StoreUrl,
    /// File with the password; read again at every connection, so that a Secret can change. White space at its end does
    /// not count.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// File with the CAs (PEM) that may sign for the store; the public ones if absent. Read at the start.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How long one answer may take.
    #[serde(default = "timeout_default", deserialize_with = "timeout")]
    pub timeout: Duration,
    /// What stands before every key, so that several gateways can use one store.
    #[serde(default = "prefix_default", deserialize_with = "prefix")]
    pub key_prefix: String,
    /// How long the connections of a replica that died, or that cannot reach the store, are still counted.
    #[serde(default = "lease_default", deserialize_with = "lease")]
    pub lease_duration: Duration,
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// Whether it is spoken to with TLS.
    pub tls: bool,
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user; `None`: the default one.
    pub username: Option<String>,
    /// The number of the database.
    pub database: u16,
}

fn timeout_default() -> Duration {
    Duration::from_secs(1)
}

fn lease_default() -> Duration {
    Duration::from_secs(30)
}

fn prefix_default() -> String {
    "wssgate:".to_owned()
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StoreUrl, D::Error> {
    let text = String::deserialize(deserializer)?;
    read_url(&text).map_err(D::Error::custom)
}

/// Errors never repeat the text: there may be a password in it.
fn read_url(text: &str) -> Result<StoreUrl, &'static str> {
    const FIX: &str = "must be a URL such as rediss://store.example.com:6379/0 or redis://10.0.0.7:6379";
    let uri: Uri = text.parse().map_err(|_| FIX)?;
    let tls = match uri.scheme_str() {
        Some("rediss") => true,
        Some("redis") => false,
        _ => return Err(FIX),
    };
    let (authority, host) = (uri.authority().ok_or(FIX)?, uri.host().ok_or(FIX)?);
    let username = authority.as_str().rsplit_once('@').map(|(user, _)| user);
    if username.is_some_and(|user| user.contains(':')) {
        return Err("must not have a password; write it to a file and set passwordFile");
    }
    let plain = |user: &str| !user.is_empty() && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if username.is_some_and(|user| !plain(user)) {
        return Err("must have a user name of letters, digits, '-', '_' and '.' only");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = match authority.port() {
        None if authority.as_str().ends_with(':') => return Err(FIX),
        None => PORT,
        Some(port) => port.as_str().parse().ok().filter(|port| *port != 0).ok_or(FIX)?,
    };
    let database = match uri.path().trim_start_matches('/') {
        "" => 0,
        number => number.parse().map_err(|_| FIX)?,
    };
    if host.is_empty() || uri.query().is_some() {
        return Err(FIX);
    }
    Ok(StoreUrl { tls, host: host.to_owned(), port, username: username.map(Into::into), database })
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    bounds: (Duration, Duration),
    fix: &str,
) -> Result<Duration, D::Error> {
    let text = scalar::Duration::deserialize(deserializer)?;
    let duration: Duration = text.parse().map_err(D::Error::custom)?;
    if (bounds.0..=bounds.1).contains(&duration) { Ok(duration) } else { Err(D::Error::custom(fix)) }
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, TIMEOUTS, "must be from 50ms to 10s")
}

fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    within(deserializer, LEASES, "must be from 3s to 10m")
}

fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_./".contains(&b));
    if plain && (1..=MAX_PREFIX).contains(&text.len()) {
        Ok(text)
    } else {
        Err(D::Error::custom("must have from 1 to 64 letters, digits, ':', '-', '_', '.' or '/'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_the_store_is_and_nothing_secret() {
        let at = |host: &str, port, tls, username: Option<&str>, database| {
            Ok(StoreUrl { tls, host: host.into(), port, username: username.map(Into::into), database })
        };
        assert_eq!(read_url("redis://store"), at("store", 6379, false, None, 0));
        assert_eq!(
            read_url("rediss://gate@store.example.com:7000/3"),
            at("store.example.com", 7000, true, Some("gate"), 3)
        );
        assert_eq!(read_url("redis://[::1]:7000/"), at("::1", 7000, false, None, 0));
        for bad in [
            "",
            "store:6379",
            "http://store",
            "redis://",
            "redis://store:0",
            "redis://store:",
            "redis://store/x",
            "redis://store/-1",
            "redis://store/0?x=1",
            "unix:///run/redis.sock",
            "redis://a b",
        ] {
            assert!(read_url(bad).is_err(), "{bad}");
        }
        for secret in ["redis://:hunter2@store", "redis://gate:hunter2@store", "redis://gate:hunter2@"] {
            let error = read_url(secret).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(read_url("redis://gate:hunter2@store").unwrap_err().contains("passwordFile"));
    }
}
