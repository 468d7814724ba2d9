//! `tls.issuerRef`: the Certificates that the gateway manages for routes, as cert-manager is to find them.
//!
//! One Certificate per Secret, with the Secret's name. What belongs to another owner is never taken over, and what cannot
//! be judged stays as it is. A route that is being deleted wants none. Knows objects and hostnames; nothing is written here.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::certificate::{CERTIFICATE_NAME, Certificate, CertificateIssuer, CertificateSpec, PrivateKey};
use crate::api::objects::{Key, Objects};
use crate::api::route_id::{RouteId, RouteKind};
use crate::api::status::ConditionReason as Reason;
use crate::api::{self};
use crate::compile::options::Options;
use crate::compile::ownership::candidate::Candidate;
use crate::compile::ownership::host::Ownership;
use crate::compile::problem::{Problem, quote};
use crate::compile::resolve::reference::unread;
use crate::compile::tls::annotation::{self, DEFAULT_BITS};
use crate::compile::tls::progress::Secrets;

/// The label that says who manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value for what the gateway manages.
pub const GATEWAY: &str = "wssgate";
/// The kind that owns what the gateway manages.
const OWNER: &str = RouteKind::SecureWebSocketRoute.as_str();

/// The field of every wish.
const FIELD: &str = "spec.tls.issuerRef";

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Certificates as they are wanted.
    pub apply: BTreeMap<Key, Certificate>,
    /// Certificates of ours that no route wants any more. They stay until their routes go: the gateway has no right to
    /// delete anything. Those of routes that are being deleted are not among them: they go with their routes.
    pub unwanted: BTreeSet<Key>,
}

/// What became of a route's `issuerRef`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issue {
    /// The gateway manages a Certificate for it.
    Managed,
    /// It would, but the API server refuses the Certificate, with this message.
    Unwritten(String),
    /// It does not, and what exists stays as it is.
    Refused(Vec<Problem>),
    /// It cannot: there is no API server, or no cert-manager.
    Unavailable(&'static str),
    /// The route is being deleted: what exists stays as it is until the garbage collector takes it with the route.
    BeingDeleted,
}

/// One route's wish for a Secret.
struct Wish<'a> {
    candidate: &'a Candidate<'a>,
    issuer: &'a CertificateIssuer,
    hostnames: Vec<&'a str>,
}

/// Plans the Certificates of all routes.
struct Planner<'a, 'o> {
    objects: &'a Objects,
    options: &'o Options,
    candidates: &'a [Candidate<'a>],
    secrets: Secrets<'a>,
    wanted: Wanted,
    issues: BTreeMap<&'a RouteId, Issue>,
    /// Hostnames of routes that are being deleted, by the Secret that they name.
    leaving: BTreeMap<Key, Vec<&'a str>>,
    /// Certificates that stay as they are, because what their route wants cannot be read.
    left: BTreeSet<Key>,
}

/// The Certificates of all routes, and by route what became of its wish.
pub fn plan<'a>(
    objects: &'a Objects,
    options: &Options,
    candidates: &'a [Candidate<'a>],
    ownership: &Ownership<'_>,
) -> (Wanted, BTreeMap<&'a RouteId, Issue>) {
    let mut wishes: BTreeMap<Key, Vec<Wish<'_>>> = BTreeMap::new();
    let mut leaving: BTreeMap<Key, Vec<&str>> = BTreeMap::new();
    let mut issues = BTreeMap::new();
    for candidate in candidates {
        let Some((secret, issuer)) = wish(candidate) else { continue };
        let mut hostnames = hostnames(candidate, ownership);
        if candidate.is_being_deleted() {
            leaving.entry(secret).or_default().append(&mut hostnames);
            issues.insert(&candidate.id, Issue::BeingDeleted);
        } else if !hostnames.is_empty() {
            wishes.entry(secret).or_default().push(Wish { candidate, issuer, hostnames });
        }
        // A route that owns no hostname has nothing to be certified.
    }
    let (secrets, wanted, left) = (Secrets::new(objects), Wanted::default(), BTreeSet::new());
    let mut planner = Planner { objects, options, candidates, secrets, wanted, issues, leaving, left };
    for (secret, mut wishes) in wishes {
        wishes.sort_by_key(|wish| wish.candidate.claim().rank);
        planner.secret(&secret, &wishes);
    }
    planner.find_unwanted();
    (planner.wanted, planner.issues)
}

impl<'a> Planner<'a, '_> {
    /// Plans the Certificate of one Secret by the wishes for it, the oldest route first: its issuer counts.
    fn secret(&mut self, secret: &Key, wishes: &[Wish<'a>]) {
        let Some(first) = wishes.first() else { return };
        let (agreed, others): (Vec<_>, Vec<_>) = wishes.iter().partition(|wish| wish.issuer == first.issuer);
        for other in others {
            let text = format_args!(
                "{} {} issues Secret {secret} for the older route {}; use another Secret or the same issuer",
                first.issuer.kind.as_deref().unwrap_or_default(),
                quote(&first.issuer.name),
                first.candidate.id
            );
            let problem = Problem::new(Reason::CertificateConflict, FIELD, text);
            self.issues.insert(&other.candidate.id, Issue::Refused(vec![problem]));
        }
        let issue = self.issue(secret, &agreed, first);
        for wish in agreed {
            self.issues.insert(&wish.candidate.id, issue.clone());
        }
    }

    /// What becomes of the wishes for a Secret that agree on the issuer.
    fn issue(&mut self, secret: &Key, agreed: &[&Wish<'a>], first: &Wish<'a>) -> Issue {
        let certificate = match desired(secret, agreed, &self.kept_names(secret)) {
            Ok(certificate) => certificate,
            Err(problems) => {
                self.left.insert(secret.clone());
                return Issue::Refused(problems);
            }
        };
        if self.options.standalone {
            self.left.insert(secret.clone());
            return Issue::Unavailable("needs a cluster; nothing is issued for manifests in files");
        }
        if !self.objects.cert_manager {
            return Issue::Unavailable("needs cert-manager; the gateway cannot read Certificates in this cluster");
        }
        if first.candidate.effective().policy.is_none() {
            self.left.insert(secret.clone());
            return Issue::Managed;
        }
        if let Some(problem) = foreign(self.objects, &self.secrets, secret, self.candidates) {
            return Issue::Refused(vec![problem]);
        }
        self.wanted.apply.insert(secret.clone(), certificate);
        self.options.refused.get(secret).map_or(Issue::Managed, |why| Issue::Unwritten(why.clone()))
    }

    /// Hostnames of routes that are being deleted and that the Certificate has already. It keeps them for as long as other
    /// routes want it: a route is served until it is gone.
    fn kept_names(&self, secret: &Key) -> Vec<&'a str> {
        let (Some(names), Some(live)) = (self.leaving.get(secret), self.objects.certificates.get(secret)) else {
            return Vec::new();
        };
        let has = |name: &&&str| live.spec.dns_names.iter().any(|live| live == **name);
        names.iter().filter(has).copied().collect()
    }

    /// Finds the Certificates of ours that no route wants any more. Where they cannot be read now, nothing follows from
    /// that.
    fn find_unwanted(&mut self) {
        let known = self.objects.cert_manager || self.options.standalone;
        for (key, certificate) in self.objects.certificates.iter().filter(|_| known) {
            let stays = self.wanted.apply.contains_key(key) || self.left.contains(key);
            // One whose route is gone or being deleted is the garbage collector's; one of another gateway's route is not
            // ours to judge.
            let route = || owner(certificate).and_then(|owner| candidate(owner, key, self.candidates));
            let leaves = certificate.metadata.deletion_timestamp.is_some();
            if !stays && !leaves && route().is_some_and(|route| !route.is_being_deleted()) {
                self.wanted.unwanted.insert(key.clone());
            }
        }
    }
}

/// The Secret that a route wants to be issued, and by whom.
fn wish<'a>(candidate: &'a Candidate<'_>) -> Option<(Key, &'a CertificateIssuer)> {
    let tls = candidate.effective().tls.as_ref()?;
    let issuer = tls.issuer.as_ref()?;
    let secret = tls.certificates.first()?;
    Some((Key::new(&*candidate.id.namespace, secret.name.as_str()), issuer))
}

/// The hostnames whose TLS is the route's, sorted.
fn hostnames<'a>(candidate: &'a Candidate<'_>, ownership: &Ownership<'_>) -> Vec<&'a str> {
    let names = candidate.claim().hostnames.iter().map(|name| &**name);
    let mut names: Vec<_> =
        names.filter(|name| ownership.hosts.get(name).is_some_and(|host| host.owner == Some(&candidate.id))).collect();
    names.sort_unstable();
    names
}

/// The Certificate that these routes agree on, the oldest first. It keeps the names `kept` besides theirs.
fn desired(secret: &Key, wishes: &[&Wish<'_>], kept: &[&str]) -> Result<Certificate, Vec<Problem>> {
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
    let names = wishes.iter().flat_map(|wish| &wish.hostnames).chain(kept).map(|name| (*name).to_owned());
    certificate.spec.dns_names = names.collect::<BTreeSet<_>>().into_iter().collect();
    let mut owners = Vec::new();
    for (index, wish) in wishes.iter().enumerate() {
        let metadata = &wish.candidate.route.metadata;
        if index == 0 {
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
            controller: Some(index == 0),
            // Who deletes a route in the foreground does not wait for its Certificate.
            block_owner_deletion: Some(false),
        });
    }
    certificate.metadata.owner_references = Some(owners);
    Ok(certificate)
}

/// The problem of a Certificate or Secret of this name that is not ours.
fn foreign(objects: &Objects, secrets: &Secrets<'_>, secret: &Key, candidates: &[Candidate<'_>]) -> Option<Problem> {
    const FIX: &str = "choose another Secret in spec.tls.certificateRefs, or remove spec.tls.issuerRef to use it";
    let refuse =
        |text: String| Some(Problem::new(Reason::CertificateConflict, FIELD, format_args!("{text}, or {FIX}")));
    let choose = |text: String| Some(Problem::new(Reason::CertificateConflict, FIELD, format_args!("{text}; {FIX}")));
    if let Some((key, other)) = secrets.of(secret).iter().find(|(key, _)| *key != secret) {
        return choose(format!("Certificate {key}, {}, already fills Secret {secret}", whose(other)));
    }
    if let Some(certificate) = objects.certificates.get(secret) {
        // A route that was deleted leaves its Certificate to any route of ours that wants the same one.
        let ours = owner(certificate).is_some_and(|owner| {
            let route = Key::new(secret.namespace.as_str(), owner.name.as_str());
            let alive = objects.routes.get(&route).is_some_and(|route| route.metadata.uid.as_ref() == Some(&owner.uid));
            !alive || candidate(owner, secret, candidates).is_some()
        });
        return if ours {
            None
        } else {
            choose(format!("Certificate {secret}, {}, already exists", whose(certificate)))
        };
    }
    let Some(filled) = objects.secrets.get(secret) else {
        // It may be somebody's key, which cert-manager would replace.
        return unread(objects, FIELD, "Secret", secret);
    };
    let note = filled.metadata.annotations.as_ref().and_then(|notes| notes.get(CERTIFICATE_NAME));
    match note {
        Some(name) if *name == secret.name => None,
        Some(name) => refuse(format!("Secret {secret} was issued for Certificate {}; delete it", quote(name))),
        None => refuse(format!("Secret {secret} already exists and is not from cert-manager; delete it")),
    }
}

/// The route that controls a Certificate which the gateway manages.
fn owner(certificate: &Certificate) -> Option<&OwnerReference> {
    let label = certificate.metadata.labels.as_ref()?.get(MANAGED_BY)?;
    let owner = controller(certificate).filter(|_| label == GATEWAY)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    Some(owner).filter(|owner| group == api::GROUP && owner.kind == OWNER)
}

fn controller(certificate: &Certificate) -> Option<&OwnerReference> {
    certificate.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The route of ours that owns a Certificate.
fn candidate<'c, 'a>(
    owner: &OwnerReference,
    certificate: &Key,
    candidates: &'c [Candidate<'a>],
) -> Option<&'c Candidate<'a>> {
    candidates.iter().find(|candidate| {
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
