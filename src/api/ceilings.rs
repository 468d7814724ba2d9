//! Ceilings: the most that the settings of a gateway let namespaces and their routes have, whatever a route sets. Plain
//! data; which of them holds for a namespace is decided where routes are compiled.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::scalar::Size;

/// The most that a limit of connections can be.
const MOST: u32 = 10_000_000;
/// Outstanding tickets of one subject of a route, where there is no ceiling.
pub const TICKETS_PER_SUBJECT: u32 = 32;

/// The ceilings of all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ceilings {
    /// What holds where no entry of `namespaces` sets something else.
    #[serde(default)]
    pub default: CeilingLimits,
    /// What holds for some namespaces.
    #[serde(default)]
    pub namespaces: Vec<CeilingEntry>,
}

impl Ceilings {
    /// Whether labels of namespaces must be known.
    pub fn match_labels(&self) -> bool {
        self.namespaces.iter().any(|entry| !entry.match_labels.is_empty())
    }
}

/// The ceilings of some namespaces: of those that it names, or of those with its labels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CeilingEntry {
    /// Their names.
    #[serde(default)]
    pub names: Vec<String>,
    /// Labels that they all have, with these values.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// Their ceilings.
    #[serde(default)]
    pub limits: CeilingLimits,
}

/// Ceilings; what is absent is without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CeilingLimits {
    /// Of `connection.limits.total` of a route.
    #[serde(default, deserialize_with = "limit")]
    pub total: Option<u32>,
    /// Of `connection.limits.perAddress` of a route.
    #[serde(default, deserialize_with = "limit")]
    pub per_address: Option<u32>,
    /// Of `connection.limits.perSubject` of a route.
    #[serde(default, deserialize_with = "limit")]
    pub per_subject: Option<u32>,
    /// Of the outstanding tickets of one subject of a route.
    #[serde(default, deserialize_with = "tickets")]
    pub tickets_per_subject: Option<u32>,
    /// Of the connections of all routes of the namespace on one replica.
    #[serde(default, deserialize_with = "count")]
    pub sockets: Option<u32>,
    /// Of the routes of the namespace.
    #[serde(default, deserialize_with = "count")]
    pub routes: Option<u32>,
    /// Of the hostnames that the routes of the namespace name.
    #[serde(default, deserialize_with = "count")]
    pub hostnames: Option<u32>,
    /// Of the key sets that the routes of the namespace name.
    #[serde(default, deserialize_with = "count")]
    pub key_sets: Option<u32>,
    /// Of `maxSize` of a route.
    #[serde(default)]
    pub max_size: CeilingSizes,
}

/// Ceilings of the largest message in bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CeilingSizes {
    /// Of `messages.fromClient.maxSize` of a route.
    #[serde(default, deserialize_with = "size")]
    pub from_client: Option<u64>,
    /// Of `messages.fromBackend.maxSize` of a route.
    #[serde(default, deserialize_with = "size")]
    pub from_backend: Option<u64>,
}

/// What a route could set itself.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    number(deserializer, 1..=MOST)
}

/// What a namespace has; 0 lets it have none.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    number(deserializer, 0..=MOST)
}

fn tickets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    number(deserializer, 1..=TICKETS_PER_SUBJECT)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D, range: RangeInclusive<u32>) -> Result<Option<u32>, D::Error> {
    let refused = || D::Error::custom(format_args!("write a number from {} to {}", range.start(), range.end()));
    let number = Option::<u32>::deserialize(deserializer).map_err(|_| refused())?;
    match number {
        Some(number) if !range.contains(&number) => Err(refused()),
        number => Ok(number),
    }
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let refused = || D::Error::custom("write a size such as 65536 or 64Ki");
    let size = Option::<Size>::deserialize(deserializer).map_err(|_| refused())?;
    size.map(|size| size.bytes().map_err(D::Error::custom)).transpose()
}
