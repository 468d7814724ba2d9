//! Which Certificates are written: those that routes want and that differ from what exists. One that is being deleted is
//! left alone, and made anew when it is gone. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::certificate::Certificate;
use crate::api::objects::Key;

/// The Certificates that routes want, and those that exist.
#[derive(Debug, Default)]
pub struct Report {
    /// Certificates as they are wanted.
    pub apply: BTreeMap<Key, Certificate>,
    /// Every Certificate as the API server has it.
    pub live: BTreeMap<Key, Arc<Certificate>>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    /// The Certificate.
    pub(super) key: Key,
    /// As the API server has it.
    pub(super) live: Option<Arc<Certificate>>,
    /// As it is wanted.
    pub(super) wanted: Certificate,
}

impl Write {
    /// Whether it asks for the same of the same: then doing it twice changes nothing.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let shape = |write: &Self| write.live.as_deref().map(shape);
        self.wanted == other.wanted && shape(self) == shape(other)
    }
}

/// Every write that is due, in the order of the keys.
pub(super) fn plan(report: &Report) -> Vec<Write> {
    let writes = report.apply.iter().filter_map(|(key, wanted)| {
        let live = report.live.get(key);
        let differs = live.is_none_or(|live| live.metadata.deletion_timestamp.is_none() && !is_as_wanted(live, wanted));
        differs.then(|| Write { key: key.clone(), live: live.map(Arc::clone), wanted: wanted.clone() })
    });
    writes.collect()
}

/// All of a Certificate that a write could change.
fn shape(certificate: &Certificate) -> Certificate {
    let ObjectMeta { uid, labels, annotations, owner_references, .. } = certificate.metadata.clone();
    let metadata = ObjectMeta { uid, labels, annotations, owner_references, ..ObjectMeta::default() };
    Certificate { metadata, spec: certificate.spec.clone(), ..Certificate::default() }
}

fn is_as_wanted(live: &Certificate, wanted: &Certificate) -> bool {
    let labels = live.metadata.labels.as_ref();
    let has = |(name, value): (&String, &String)| labels.and_then(|labels| labels.get(name)) == Some(value);
    let annotations = |metadata: &ObjectMeta| metadata.annotations.clone().unwrap_or_default();
    live.spec == wanted.spec
        && wanted.metadata.labels.iter().flatten().all(has)
        && annotations(&live.metadata) == annotations(&wanted.metadata)
        && owners(live) == owners(wanted)
}

/// By `uid`, because the order of owners means nothing.
fn owners(certificate: &Certificate) -> BTreeMap<&str, &OwnerReference> {
    let owners = certificate.metadata.owner_references.iter().flatten();
    owners.map(|owner| (owner.uid.as_str(), owner)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], more: &str) -> Certificate {
        let text = format!("{{spec: {{secretName: tls, dnsNames: {names:?}}}, metadata: {{{more}}}}}");
        serde_saphyr::from_str(&text).unwrap()
    }

    fn report(wanted: Certificate, live: Option<Certificate>) -> Report {
        let key = Key::new("shop", "tls");
        Report {
            apply: [(key.clone(), wanted)].into(),
            live: live.map(|live| (key, Arc::new(live))).into_iter().collect(),
        }
    }

    #[test]
    fn what_is_as_wanted_is_not_written() {
        let owners = |first: &str, second: &str| {
            let owner = |uid: &str| format!("{{apiVersion: v, kind: K, name: n, uid: {uid}}}");
            format!("labels: {{a: b}}, ownerReferences: [{}, {}]", owner(first), owner(second))
        };
        let wanted = certificate(&["a.test"], &owners("1", "2"));
        let mut live = certificate(&["a.test"], &owners("2", "1"));
        live.metadata.labels.get_or_insert_default().insert("theirs".into(), "x".into());
        live.status.revision = Some(3);
        assert_eq!(plan(&report(wanted.clone(), Some(live))), []);
        for other in [
            certificate(&["b.test"], &owners("1", "2")),
            certificate(&["a.test"], &owners("1", "3")),
            certificate(&["a.test"], &owners("1", "2").replace("a: b", "a: c")),
            certificate(&["a.test"], &format!("{}, annotations: {{cert-manager.io/x: 'y'}}", owners("1", "2"))),
        ] {
            assert_eq!(plan(&report(wanted.clone(), Some(other))).len(), 1);
        }
        assert_eq!(plan(&report(wanted, None)).len(), 1);
    }

    #[test]
    fn a_certificate_that_is_being_deleted_is_left_alone_and_made_anew_when_it_is_gone() {
        let wanted = certificate(&["a.test"], "");
        let leaving = "deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [example.com/f]";
        assert_eq!(plan(&report(wanted.clone(), Some(certificate(&["b.test"], leaving)))), []);
        assert_eq!(plan(&report(wanted, None)).len(), 1);
    }

    #[test]
    fn a_certificate_that_blocks_the_deletion_of_its_route_is_corrected() {
        let owner = |more: &str| format!("ownerReferences: [{{apiVersion: v, kind: K, name: n, uid: u{more}}}]");
        let of = |blocks: &str| certificate(&["a.test"], &owner(&format!(", blockOwnerDeletion: {blocks}")));
        assert_eq!(plan(&report(of("false"), Some(of("true")))).len(), 1);
        assert_eq!(plan(&report(of("false"), Some(of("false")))), []);
    }

    #[test]
    fn a_write_is_the_same_whatever_the_status_says() {
        let write = |live: Certificate| Write {
            key: Key::new("shop", "tls"),
            live: Some(Arc::new(live)),
            wanted: Certificate::default(),
        };
        let live = certificate(&["a.test"], "uid: '7'");
        let mut issued = live.clone();
        issued.status.revision = Some(1);
        assert!(write(live.clone()).is_same(&write(issued)));
        assert!(!write(live).is_same(&write(certificate(&["a.test"], "uid: '8'"))));
    }
}
