//! cert-manager's Certificate (`cert-manager.io/v1`): the fields that the gateway reads or writes, and no others. What
//! is absent in an object is absent here: defaults are cert-manager's.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Serialize};

/// API group of cert-manager.
pub const GROUP: &str = "cert-manager.io";
/// Version of [`Certificate`].
pub const VERSION: &str = "v1";
/// On a Secret: the Certificate that cert-manager filled it for.
pub const CERTIFICATE_NAME: &str = "cert-manager.io/certificate-name";

/// A Certificate: what cert-manager is to issue, and into which Secret.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: CertificateSpec,
    /// How far cert-manager has come.
    #[serde(skip_serializing_if = "is_default")]
    pub status: CertificateStatus,
}

impl kube::Resource for Certificate {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Certificate".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "certificates".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Certificate {
    /// The condition of a type, such as `Ready` or `Issuing`.
    pub fn condition(&self, kind: &str) -> Option<&CertificateCondition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateSpec {
    /// The Secret that is filled, in the Certificate's namespace.
    pub secret_name: String,
    /// Who issues.
    pub issuer_ref: CertificateIssuer,
    /// DNS names of the subjectAltName.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_names: Vec<String>,
    /// Mail addresses of the subjectAltName.
    #[serde(skip_serializing_if = "is_default")]
    pub email_addresses: Vec<String>,
    /// Common name of the subject.
    #[serde(skip_serializing_if = "is_default")]
    pub common_name: Option<String>,
    /// The rest of the subject.
    #[serde(skip_serializing_if = "is_default")]
    pub subject: Option<Subject>,
    /// How long it is valid, as a Go duration.
    #[serde(skip_serializing_if = "is_default")]
    pub duration: Option<String>,
    /// How long before its end it is renewed, as a Go duration.
    #[serde(skip_serializing_if = "is_default")]
    pub renew_before: Option<String>,
    /// The same as a part of its duration.
    #[serde(skip_serializing_if = "is_default")]
    pub renew_before_percentage: Option<i32>,
    /// Its key.
    #[serde(skip_serializing_if = "is_default")]
    pub private_key: Option<PrivateKey>,
    /// Key usages and extended key usages in cert-manager's words.
    #[serde(skip_serializing_if = "is_default")]
    pub usages: Vec<String>,
    /// How many CertificateRequests are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub revision_history_limit: Option<i32>,
    /// Labels and annotations of the Secret.
    #[serde(skip_serializing_if = "is_default")]
    pub secret_template: Option<SecretTemplate>,
}

/// Who issues.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateIssuer {
    /// Name.
    pub name: String,
    /// Kind; cert-manager takes `Issuer` where it is absent.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: Option<String>,
    /// Group; cert-manager takes its own where it is absent.
    #[serde(skip_serializing_if = "is_default")]
    pub group: Option<String>,
}

/// The key of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrivateKey {
    /// RSA, ECDSA or Ed25519.
    #[serde(skip_serializing_if = "is_default")]
    pub algorithm: Option<String>,
    /// PKCS1 or PKCS8.
    #[serde(skip_serializing_if = "is_default")]
    pub encoding: Option<String>,
    /// Bits.
    #[serde(skip_serializing_if = "is_default")]
    pub size: Option<i32>,
    /// Whether a renewal brings a new key: Always or Never.
    #[serde(skip_serializing_if = "is_default")]
    pub rotation_policy: Option<String>,
}

/// Parts of a subject other than the common name (RFC 5280 §4.1.2.6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the fields are called as the attributes of X.520 are")]
pub struct Subject {
    #[serde(skip_serializing_if = "is_default")]
    pub organizations: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub organizational_units: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub countries: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub provinces: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub localities: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub postal_codes: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub street_addresses: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub serial_number: Option<String>,
}

/// Labels and annotations of a Certificate's Secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SecretTemplate {
    /// Labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// How far cert-manager has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// `Ready` and `Issuing`.
    #[serde(skip_serializing_if = "is_default")]
    pub conditions: Vec<CertificateCondition>,
    /// When the certificate that is there will be renewed.
    #[serde(skip_serializing_if = "is_default")]
    pub renewal_time: Option<Time>,
    /// Counts what was issued.
    #[serde(skip_serializing_if = "is_default")]
    pub revision: Option<i64>,
}

/// A condition of a Certificate; any of its texts may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateCondition {
    /// `Ready` or `Issuing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// When `status` last changed.
    #[serde(skip_serializing_if = "is_default")]
    pub last_transition_time: Option<Time>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
