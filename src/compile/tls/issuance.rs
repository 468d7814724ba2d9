//! `tls.issuerRef`: the Certificates that the gateway keeps for routes, as cert-manager shall find them.
//!
//! One Certificate per Secret, called as the Secret is. What belongs to someone else is never taken over, and what
//! cannot be judged stays as it is. Knows objects and hostnames; nothing is written here.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::certificate::{CERTIFICATE_NAME, Certificate, CertificateIssuer, CertificateSpec, PrivateKey};
use crate::api::objects::{Key, Objects};
use crate::api::route_id::{RouteId, RouteKind};
use crate::api::status::ConditionReason as Reason;
use crate::api::{self};
use crate::compile::options::Options;
use crate::compile::ownership::candidate::Candidate;
use crate::compile::ownership::host::Holdings;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::reference::unread;
use crate::compile::tls::annotation::{self, DEFAULT_BITS};
use crate::compile::tls::progress::Secrets;

/// Says who keeps an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value for what the gateway keeps.
pub const GATEWAY: &str = "wssgate";
/// The kind that owns what the gateway keeps.
const OWNER: &str = RouteKind::SecureWebSocketRoute.as_str();

/// What shall be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Certificates as they shall be.
    pub apply: BTreeMap<Key, Certificate>,
    /// Certificates of ours that no route wants any more. They stay until their routes go: the gateway has no right to
    /// delete anything.
    pub unwanted: BTreeSet<Key>,
}

/// What became of a route's `issuerRef`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issue {
    /// The gateway keeps a Certificate for it.
    Kept,
    /// It would, but the API server refuses to have it as it is wanted, in these words.
    Unwritten(String),
    /// It does not, and whatever there is stays as it is.
    Refused(Vec<Problem>),
    /// It cannot: there is no API server, or no cert-manager.
    Unavailable(&'static str),
}

/// One route's wish for a Secret.
struct Wish<'a> {
    candidate: &'a Candidate<'a>,
    issuer: &'a CertificateIssuer,
    hostnames: Vec<&'a str>,
}

/// The Certificates of all routes, and by route what became of its wish.
pub fn plan<'a>(
    objects: &'a Objects,
    options: &Options,
    candidates: &'a [Candidate<'a>],
    holdings: &Holdings<'_>,
) -> (Wanted, BTreeMap<&'a RouteId, Issue>) {
    let mut wishes: BTreeMap<Key, Vec<Wish<'_>>> = BTreeMap::new();
    for candidate in candidates {
        if let Some((secret, issuer)) = wish(candidate) {
            let hostnames = hostnames(candidate, holdings);
            wishes.entry(secret).or_default().push(Wish { candidate, issuer, hostnames });
        }
    }
    let secrets = Secrets::new(objects);
    let (mut wanted, mut issues) = (Wanted::default(), BTreeMap::new());
    // Certificates that stay as they are, because what a route wants cannot be told.
    let mut left: Vec<Key> = Vec::new();
    for (secret, mut wishes) in wishes {
        // Who holds no hostname has nothing to be certified.
        wishes.retain(|wish| !wish.hostnames.is_empty());
        wishes.sort_by_key(|wish| wish.candidate.claim().rank);
        let Some(first) = wishes.first() else { continue };
        let (owner, issuer) = (&first.candidate.id, first.issuer);
        let (agreed, others): (Vec<_>, Vec<_>) = wishes.iter().partition(|wish| wish.issuer == issuer);
        for other in others {
            let text = format!(
                "spec.tls.issuerRef: Secret {secret} is issued by {} {} for the older route {owner}; use another Secret or \
                 the same issuer",
                issuer.kind.as_deref().unwrap_or_default(),
                quote(&issuer.name)
            );
            let problem = Problem::new(Reason::CertificateConflict, text);
            issues.insert(&other.candidate.id, Issue::Refused(vec![problem]));
        }
        let issue = match desired(&secret, &agreed) {
            Err(problems) => {
                left.push(secret.clone());
                Issue::Refused(problems)
            }
            Ok(_) if options.standalone => Issue::Unavailable("needs a cluster: nothing is issued for files"),
            Ok(_) if !objects.cert_manager => Issue::Unavailable(
                "needs cert-manager: there are no Certificates in this cluster that the gateway may read",
            ),
            Ok(_) if first.candidate.effective().policy.is_none() => {
                left.push(secret.clone());
                Issue::Kept
            }
            Ok(certificate) => match foreign(objects, &secrets, &secret, candidates) {
                Some(problem) => Issue::Refused(vec![problem]),
                None => {
                    wanted.apply.insert(secret.clone(), certificate);
                    options.refused.get(&secret).map_or(Issue::Kept, |why| Issue::Unwritten(why.clone()))
                }
            },
        };
        for wish in agreed {
            issues.insert(&wish.candidate.id, issue.clone());
        }
    }
    // Where they cannot be read now, nothing follows from that.
    for (key, certificate) in objects.certificates.iter().filter(|_| objects.cert_manager) {
        let stays = wanted.apply.contains_key(key) || left.contains(key);
        // One whose route is gone is the garbage collector's; one of another gateway's route is not ours to judge.
        if !stays && owner(certificate).is_some_and(|owner| is_candidate(owner, key, candidates)) {
            wanted.unwanted.insert(key.clone());
        }
    }
    (wanted, issues)
}

/// The Secret that a route wants to be issued, and by whom.
fn wish<'a>(candidate: &'a Candidate<'_>) -> Option<(Key, &'a CertificateIssuer)> {
    let tls = candidate.effective().tls.as_ref()?;
    let issuer = tls.issuer.as_ref()?;
    let secret = tls.certificates.first()?;
    Some((Key::new(&*candidate.id.namespace, secret.name.as_str()), issuer))
}

/// The hostnames whose TLS is the route's, sorted.
fn hostnames<'a>(candidate: &'a Candidate<'_>, holdings: &Holdings<'_>) -> Vec<&'a str> {
    let names = candidate.claim().hostnames.iter().map(|name| &**name);
    let mut names: Vec<_> = names
        .filter(|name| holdings.hosts.get(name).is_some_and(|holding| holding.owner == Some(&candidate.id)))
        .collect();
    names.sort_unstable();
    names
}

/// The Certificate that these routes agree on, the oldest first.
fn desired(secret: &Key, wishes: &[&Wish<'_>]) -> Result<Certificate, Vec<Problem>> {
    let mut certificate = Certificate {
        metadata: ObjectMeta {
            name: Some(secret.name.clone()),
            namespace: Some(secret.namespace.clone()),
            labels: Some([(MANAGED_BY.to_owned(), GATEWAY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: CertificateSpec {
            secret_name: secret.name.clone(),
            private_key: Some(PrivateKey {
                algorithm: Some("ECDSA".to_owned()),
                size: Some(DEFAULT_BITS),
                rotation_policy: Some("Always".to_owned()),
                encoding: None,
            }),
            usages: vec!["digital signature".to_owned(), "server auth".to_owned()],
            ..CertificateSpec::default()
        },
        ..Certificate::default()
    };
    let names = wishes.iter().flat_map(|wish| &wish.hostnames).map(|name| (*name).to_owned());
    certificate.spec.dns_names = names.collect::<BTreeSet<_>>().into_iter().collect();
    let mut owners = Vec::new();
    for (place, wish) in wishes.iter().enumerate() {
        let metadata = &wish.candidate.route.metadata;
        if place == 0 {
            certificate.spec.issuer_ref = wish.issuer.clone();
            let problems = metadata.annotations.as_ref().map(|all| annotation::carry(all, &mut certificate));
            match problems {
                Some(problems) if !problems.is_empty() => return Err(problems),
                _ => {}
            }
        }
        owners.push(OwnerReference {
            api_version: format!("{}/{}", api::GROUP, api::VERSION),
            kind: wish.candidate.id.kind.as_str().to_owned(),
            name: wish.candidate.id.name.to_string(),
            uid: metadata.uid.clone().unwrap_or_default(),
            // One owner may be the controller; the Certificate goes when all owners are gone.
            controller: Some(place == 0),
            block_owner_deletion: Some(true),
        });
    }
    certificate.metadata.owner_references = Some(owners);
    Ok(certificate)
}

/// Whose the Certificate or the Secret of this name is, if not ours.
fn foreign(objects: &Objects, secrets: &Secrets<'_>, secret: &Key, candidates: &[Candidate<'_>]) -> Option<Problem> {
    let refuse = |text: String| Some(Problem::new(Reason::CertificateConflict, text));
    const FIX: &str = "choose another Secret in spec.tls.certificateRefs, or remove spec.tls.issuerRef to use it";
    if let Some(other) = secrets.of(secret).iter().find(|(key, _)| *key != secret) {
        let (key, certificate) = other;
        return refuse(format!("Secret {secret} is filled by Certificate {key}, {}; {FIX}", whose(certificate)));
    }
    if let Some(certificate) = objects.certificates.get(secret) {
        // A route that was deleted leaves its Certificate to whoever of ours wants the same one.
        let ours = owner(certificate).is_some_and(|owner| {
            let route = Key::new(secret.namespace.as_str(), owner.name.as_str());
            let alive = objects.routes.get(&route).is_some_and(|route| route.metadata.uid.as_ref() == Some(&owner.uid));
            !alive || is_candidate(owner, secret, candidates)
        });
        return if ours {
            None
        } else {
            refuse(format!("Certificate {secret} exists already, {}; {FIX}", whose(certificate)))
        };
    }
    let Some(filled) = objects.secrets.get(secret) else {
        // It may be somebody's key, which cert-manager would replace.
        return unread(objects, "spec.tls.issuerRef", "Secret", secret);
    };
    let note = filled.metadata.annotations.as_ref().and_then(|notes| notes.get(CERTIFICATE_NAME));
    match note {
        Some(name) if *name == secret.name => None,
        Some(name) => {
            refuse(format!("Secret {secret} was filled for Certificate {}; delete it, or {FIX}", quote(name)))
        }
        None => refuse(format!("Secret {secret} exists already and is not of cert-manager; delete it, or {FIX}")),
    }
}

/// The route that controls a Certificate which the gateway keeps.
fn owner(certificate: &Certificate) -> Option<&OwnerReference> {
    let label = certificate.metadata.labels.as_ref()?.get(MANAGED_BY)?;
    let owner = controller(certificate).filter(|_| label == GATEWAY)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    Some(owner).filter(|owner| group == api::GROUP && owner.kind == OWNER)
}

fn controller(certificate: &Certificate) -> Option<&OwnerReference> {
    certificate.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn is_candidate(owner: &OwnerReference, certificate: &Key, candidates: &[Candidate<'_>]) -> bool {
    candidates.iter().any(|candidate| {
        *candidate.id.namespace == *certificate.namespace
            && *candidate.id.name == *owner.name
            && candidate.route.metadata.uid.as_deref() == Some(owner.uid.as_str())
    })
}

fn whose(certificate: &Certificate) -> String {
    let label = certificate.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    match (controller(certificate), label) {
        (Some(owner), _) => format!("which belongs to {} {}", owner.kind, quote(&owner.name)),
        (None, Some(label)) => format!("which is managed by {}", quote(label)),
        (None, None) => "which wssgate did not create".to_owned(),
    }
}
