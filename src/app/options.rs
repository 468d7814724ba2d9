//! Settings as each part takes them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::error::Error;
use crate::compile;
use crate::compile::resolve::backend_tls::{Roots, client};
use crate::policy::blocked_addresses::BlockedAddresses;
use crate::policy::client::{ForwardedFor, TrustedProxies};
use crate::proxy;
use crate::settings::Settings;
use crate::settings::store::SharedStore;
use crate::source::Files;

/// The CAs that the gateway itself trusts when it fetches over https: the public ones, or those of the file that
/// `SSL_CERT_FILE` names, as many programs read it.
///
/// # Errors
/// The file cannot be read.
pub(super) fn trust() -> Result<Arc<rustls::ClientConfig>, Error> {
    match std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) {
        None => client(Roots::System).map_err(Error::Start),
        Some(file) => trust_of(&format!("SSL_CERT_FILE {}", file.display()), Path::new(&file)),
    }
}

/// Trust in the CAs of a file, which messages call `name`.
fn trust_of(name: &str, file: &Path) -> Result<Arc<rustls::ClientConfig>, Error> {
    let pem = std::fs::read_to_string(file).map_err(|error| Error::Start(format!("{name}: {error}")))?;
    client(Roots::Bundles(&[(name.to_owned(), pem.as_bytes())])).map_err(Error::Start)
}

/// The store that replicas share. Its certificate is verified by the CAs of its file, or by those of [`trust`].
///
/// # Errors
/// The file cannot be read.
pub(super) fn store(shared: &SharedStore, trust: &Arc<rustls::ClientConfig>) -> Result<proxy::store::Options, Error> {
    let tls = match (&shared.ca_file, shared.url.tls) {
        (_, false) => None,
        (None, true) => Some(Arc::clone(trust)),
        (Some(file), true) => Some(trust_of(&format!("sharedStore.caFile {}", file.display()), file)?),
    };
    let tls = tls.map(|tls| {
        // It speaks no HTTP.
        let mut tls = rustls::ClientConfig::clone(&tls);
        tls.alpn_protocols.clear();
        Arc::new(tls)
    });
    Ok(proxy::store::Options {
        host: shared.url.host.clone(),
        port: shared.url.port,
        tls,
        username: shared.url.username.clone(),
        password_file: shared.password_file.clone(),
        database: shared.url.database,
        timeout: shared.timeout,
        prefix: shared.key_prefix.clone(),
        lease: shared.lease_duration,
    })
}

/// The proxies in front of the gateway, which say who the client is.
pub(super) fn proxies(settings: &Settings) -> TrustedProxies {
    let trusted = &settings.trusted_proxies;
    TrustedProxies {
        proxy_protocol: trusted.proxy_protocol.as_ref().map(|proxies| proxies.networks.clone()).unwrap_or_default(),
        forwarded_for: trusted
            .forwarded_for
            .as_ref()
            .map(|proxies| ForwardedFor { networks: proxies.networks.clone(), hops: usize::from(proxies.hops) }),
    }
}

/// The options of a compile of a directory: it is a source without an API server, so its routes may leave the class out,
/// and its backends may be on this machine.
pub(super) fn of_compile(settings: &Settings) -> compile::Options {
    compile::Options {
        dev: settings.dev,
        standalone: true,
        blocked: BlockedAddresses { allow_loopback: true, ..BlockedAddresses::default() },
        own_service: settings.cluster.publish_service.clone(),
        controller_name: settings.controller_name.clone(),
        ingress_class_name: settings.ingress_class_name.clone(),
        default_certificate: settings.default_certificate.clone(),
        certificate_grace: settings.certificate_grace,
        hostname_suffixes: settings.hostname_suffixes.clone(),
        defaults: settings.defaults.clone(),
        ceilings: settings.ceilings.clone(),
        hop: hop(),
        unshared: settings.replicas.filter(|replicas| replicas.get() > 1 && settings.shared_store.is_none()),
        ..compile::Options::default()
    }
}

/// The name of this process among those that a request came through: one that nobody else has, for as long as it runs.
fn hop() -> Arc<str> {
    static HOP: OnceLock<Arc<str>> = OnceLock::new();
    let new = || format!("wssgate-{:016x}", RandomState::new().build_hasher().finish()).into();
    Arc::clone(HOP.get_or_init(new))
}

/// A directory of manifests.
pub(super) fn files(settings: &Settings, manifests: &Path) -> std::io::Result<Files> {
    Ok(Files::open(manifests)?.namespaces(settings.watch_namespaces.iter().cloned()))
}
