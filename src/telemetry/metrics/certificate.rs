//! The certificates that are served.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::series::{Table, declare};

/// One certificate that is served, for [`Metrics::certificates`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// The hostname as the route writes it.
    pub host: String,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Served {
    secret: String,
    host: String,
}

#[derive(Debug)]
pub(super) struct Certificates {
    expiry: Table<Served>,
    last_good: Gauge,
}

impl Certificates {
    pub(super) fn declare(registry: &mut Registry) -> Self {
        Self {
            expiry: declare(
                registry,
                "certificate_expiry_timestamp_seconds",
                "When each served certificate expires, in seconds since the Unix epoch",
                Table::default(),
            ),
            last_good: declare(
                registry,
                "last_good_certificates",
                "Hosts that are served with their last good certificate because no Secret has one; the default certificate \
                 counts as a host",
                Gauge::default(),
            ),
        }
    }
}

impl Metrics {
    /// Replaces, whole, what is known of the certificates that are served.
    pub fn certificates(&self, certificates: Vec<Certificate>) {
        let mut table = BTreeMap::new();
        for Certificate { secret, host, not_after } in certificates {
            // Two series of the same labels would spoil the scrape: of several leaves the one that ends first counts.
            let ends = table.entry(Served { secret, host }).or_insert(not_after);
            *ends = not_after.min(*ends);
        }
        self.0.certificates.expiry.replace(table);
    }

    /// So many hosts are served with a certificate that stands in.
    pub fn last_good_certificates(&self, hosts: usize) {
        self.0.certificates.last_good.set(i64::try_from(hosts).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::has;
    use super::*;

    #[test]
    fn certificates_are_replaced_whole_and_never_twice() {
        let metrics = Metrics::new();
        let certificate =
            |secret: &str, not_after| Certificate { secret: secret.into(), host: "a.test".into(), not_after };
        metrics.certificates(vec![certificate("shop/a", 9), certificate("shop/a", 7), certificate("shop/b", 5)]);
        has(&metrics, r#"wssgate_certificate_expiry_timestamp_seconds{secret="shop/a",host="a.test"} 7"#);
        metrics.certificates(vec![certificate("shop/b", 6)]);
        assert!(!metrics.encode().contains("shop/a"));
        has(&metrics, r#"wssgate_certificate_expiry_timestamp_seconds{secret="shop/b",host="a.test"} 6"#);
    }
}
