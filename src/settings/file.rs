//! The settings file, `GatewayConfiguration`: versioned and strict. An unknown field is an error with its place, because it
//! may be a security setting.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::ceilings;
use super::cluster::{self, ClusterFile};
use super::object_name::ObjectName;
use super::proxies::TrustedProxies;
use super::store::SharedStore;
use crate::api::ceilings::Ceilings;
use crate::api::route::Defaults;
use crate::api::scalar::{self, is_lower_dns_name};
use crate::api::violation;
use crate::api::yaml::{self, Fault, FaultKind, Tree};
use crate::telemetry::format::Format;

/// `apiVersion` of the settings file.
pub const API_VERSION: &str = "config.wssgate.io/v1alpha1";
/// `kind` of the settings file.
pub const KIND: &str = "GatewayConfiguration";

/// The largest settings file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// What the bound on the buffers of a socket may be, in bytes.
const SOCKET_BUFFERS_RANGE: RangeInclusive<u64> = 32 << 10..=16 << 20;

/// Why settings cannot be read. Its `Display` is one line with file, place, field and fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// The file as the user named it.
    file: String,
    /// Line and column, from 1; `None`: it is about the whole file.
    place: Option<(u64, u64)>,
    /// The path of the field, such as `listeners.wss`; empty: none.
    field: String,
    /// What is wrong, and the fix.
    text: String,
}

impl SettingsError {
    fn whole(file: &str, text: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, field: String::new(), text: text.into() }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.text)
    }
}

impl std::error::Error for SettingsError {}

/// The settings file as written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayConfiguration {
    /// `config.wssgate.io/v1alpha1`
    pub api_version: String,
    /// `GatewayConfiguration`
    pub kind: String,
    /// Addresses on which the gateway listens. A change needs a restart.
    #[serde(default)]
    pub listeners: ListenersFile,
    /// Directory of manifests.
    #[serde(default)]
    pub manifests: Option<PathBuf>,
    /// The cluster, where there are no manifests.
    #[serde(default)]
    pub cluster: ClusterFile,
    /// Address of an echo backend.
    #[serde(default, deserialize_with = "address")]
    pub echo: Option<SocketAddr>,
    /// `spec.controller` of our IngressClasses.
    #[serde(default)]
    pub controller_name: Option<String>,
    /// The one IngressClass that is ours.
    #[serde(default)]
    pub ingress_class_name: Option<String>,
    /// Namespaces whose objects are read; all if empty.
    #[serde(default)]
    pub watch_namespaces: Vec<String>,
    /// Secret with the default certificate.
    #[serde(default)]
    pub default_certificate: Option<ObjectName>,
    /// How long the last good certificate of a host stands in while no Secret has one; 0s: not at all.
    #[serde(default, deserialize_with = "duration")]
    pub certificate_grace: Option<Duration>,
    /// The times of a shutdown.
    #[serde(default)]
    pub drain: DrainFile,
    /// Suffixes of hostnames by namespace: reserved for it, and the only ones that it may use.
    #[serde(default)]
    pub hostname_suffixes: BTreeMap<String, Vec<String>>,
    /// Defaults of routes.
    #[serde(default)]
    pub defaults: Defaults,
    /// Ceilings of routes and namespaces.
    #[serde(default)]
    pub ceilings: Ceilings,
    /// Bytes in flight that the kernel's buffers of one socket leave room for in each direction. A change needs a restart.
    #[serde(default, deserialize_with = "socket_buffers")]
    pub socket_buffers: Option<u64>,
    /// Memory in use in bytes above which new connections are refused.
    #[serde(default, deserialize_with = "size")]
    pub memory_budget: Option<u64>,
    /// Proxies in front of the gateway, which say who the client is.
    #[serde(default)]
    pub trusted_proxies: TrustedProxies,
    /// The store that replicas share. A change needs a restart.
    #[serde(default)]
    pub shared_store: Option<SharedStore>,
    /// The most replicas of the gateway that run, if it is known.
    #[serde(default, deserialize_with = "replicas")]
    pub replicas: Option<NonZeroUsize>,
    /// Threads that move bytes.
    #[serde(default, deserialize_with = "threads")]
    pub workers: Option<NonZeroUsize>,
    /// `json` or `text`.
    #[serde(default)]
    pub log_format: Option<Format>,
}

/// Addresses as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenersFile {
    /// TLS.
    #[serde(default, deserialize_with = "address")]
    pub wss: Option<SocketAddr>,
    /// Plain.
    #[serde(default, deserialize_with = "address")]
    pub http: Option<SocketAddr>,
    /// Health and metrics.
    #[serde(default, deserialize_with = "address")]
    pub admin: Option<SocketAddr>,
}

/// Times of a shutdown as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainFile {
    /// How long connections are still accepted.
    #[serde(default, deserialize_with = "duration")]
    pub accept_grace: Option<Duration>,
    /// How long the closes are spread over.
    #[serde(default, deserialize_with = "duration")]
    pub window: Option<Duration>,
    /// How long the last ones may take after that.
    #[serde(default, deserialize_with = "duration")]
    pub deadline: Option<Duration>,
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        D::Error::custom(format_args!(
            "{text:?} is not an address with a port such as \"[::]:8443\" or \"127.0.0.1:8443\""
        ))
    })
}

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroUsize>, D::Error> {
    let refused = || D::Error::custom("write the number of threads, from 1 to 1024");
    let count = Option::<u16>::deserialize(deserializer).map_err(|_| refused())?;
    match count {
        None => Ok(None),
        Some(1..=1024) => Ok(count.map(usize::from).and_then(NonZeroUsize::new)),
        Some(_) => Err(refused()),
    }
}

fn replicas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroUsize>, D::Error> {
    let refused = || D::Error::custom("write the number of replicas, 1 or more");
    let count = Option::<u32>::deserialize(deserializer).map_err(|_| refused())?;
    count.map(|count| NonZeroUsize::new(count as usize).ok_or_else(refused)).transpose()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<scalar::Duration>::deserialize(deserializer)? else { return Ok(None) };
    text.parse().map(Some).map_err(D::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(size) = Option::<scalar::Size>::deserialize(deserializer)? else { return Ok(None) };
    size.bytes().map(Some).map_err(D::Error::custom)
}

fn socket_buffers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let bytes = size(deserializer)?;
    match bytes {
        Some(bytes) if !SOCKET_BUFFERS_RANGE.contains(&bytes) => {
            Err(D::Error::custom("write a size from 32Ki to 16Mi, such as 256Ki"))
        }
        bytes => Ok(bytes),
    }
}

impl GatewayConfiguration {
    /// Reads a settings file.
    ///
    /// # Errors
    /// The file cannot be read or is larger than 1 MiB, or what [`GatewayConfiguration::parse`] finds.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let name = path.display().to_string();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SIZE + 1).read_to_string(&mut text))
            .map_err(|error| SettingsError::whole(&name, format!("cannot read the settings file: {error}")))?;
        if text.len() as u64 > MAX_SIZE {
            return Err(SettingsError::whole(&name, "is larger than 1 MiB, so it is not a settings file"));
        }
        Self::parse(&name, &text)
    }

    /// Reads settings, YAML or JSON, from text that came from the file `name`.
    ///
    /// # Errors
    /// The text is not YAML, has an unknown field, or a value that does not fit. The error names file, line, column, field
    /// and fix.
    pub fn parse(name: &str, text: &str) -> Result<Self, SettingsError> {
        let error = |fault: &Fault, field: String| SettingsError {
            file: name.to_owned(),
            place: Some((fault.line, fault.column)),
            field,
            text: fault.kind.to_string(),
        };
        let tree = Tree::read(text).map_err(|fault| error(&fault, String::new()))?;
        let at = |path: &str, text: String| SettingsError {
            file: name.to_owned(),
            place: Some(tree.locate(path)),
            field: path.to_owned(),
            text,
        };
        let keyed = |fault: Fault| {
            // What is missing has no place: the error is at the object, or at the member beside it.
            let missing = matches!(fault.kind, FaultKind::MissingField(_));
            let path = if missing { Tree::object_at } else { Tree::path_at };
            error(&fault, path(&tree, fault.line, fault.column))
        };
        // Before unknown fields: a manifest given by mistake gets an error that says so.
        let head: Head = yaml::read(text).map_err(keyed)?;
        for (key, value, wanted) in [("apiVersion", head.api_version, API_VERSION), ("kind", head.kind, KIND)] {
            if value.as_deref() != Some(wanted) {
                return Err(at(key, format!("must be {wanted} in a settings file")));
            }
        }
        // Before types, which know neither names nor fixes of the route's fields.
        for (part, value) in &head.defaults {
            if let Some(violation) = violation::of_part(&format!("defaults.{part}"), part, value).first() {
                return Err(at(&violation.field, violation.kind.to_string()));
            }
        }
        let settings: Self = yaml::read(text).map_err(keyed)?;
        settings.check(&at)?;
        Ok(settings)
    }

    /// What types alone do not say.
    fn check(&self, at: &impl Fn(&str, String) -> SettingsError) -> Result<(), SettingsError> {
        if self.defaults.handshake.as_ref().is_some_and(|handshake| handshake.authentication.is_some()) {
            let fix = "cannot be a default, because each route must set it; move it to the routes";
            return Err(at("defaults.handshake.authentication", fix.to_owned()));
        }
        if self.controller_name.as_deref().is_some_and(|name| !is_controller_name(name)) {
            let fix = "write a domain, a slash and a name of at most 63 letters, digits, -, _ and ., such as \
                       example.com/gateway; 128 characters in all";
            return Err(at("controllerName", fix.to_owned()));
        }
        if let Some((key, fix)) = cluster::check(&self.cluster) {
            return Err(at(&format!("cluster.{key}"), fix.to_owned()));
        }
        if let Some((key, fix)) = ceilings::check(&self.ceilings) {
            return Err(at(&format!("ceilings.{key}"), fix));
        }
        for (namespace, suffixes) in &self.hostname_suffixes {
            for (index, suffix) in suffixes.iter().enumerate() {
                let plain = suffix.strip_prefix('.').unwrap_or(suffix);
                if !is_lower_dns_name(plain) {
                    return Err(at(
                        &format!("hostnameSuffixes.{namespace}[{index}]"),
                        "write a domain in lower case without star, such as shop.example.com".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether the API server takes a name as `spec.controller` of an IngressClass, as `reportingController` of an event (a
/// qualified name) and as field manager (at most 128 characters).
fn is_controller_name(text: &str) -> bool {
    let Some((domain, name)) = text.split_once('/') else { return false };
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    is_lower_dns_name(domain)
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && name.len() <= 63
        && text.len() <= 128
}

/// What is read before the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    defaults: BTreeMap<String, Value>,
}
