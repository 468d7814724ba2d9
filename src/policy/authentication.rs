//! Who a client is: the methods of a route, and the proof that one of them was met.
//!
//! A credential is found and verified once, before the 101; what stays is the proof. Judging again looks at the proof
//! and never at a credential, a key or a clock of its own.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::claims::Claims;
use crate::reason::Reason;

/// Whether and how a route authenticates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// Nobody is authenticated by the gateway.
    #[default]
    Anonymous,
    /// Any one of these methods admits.
    AnyOf(Vec<Method>),
}

/// One method of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Its name within the route.
    pub name: Box<str>,
    /// What it demands.
    pub kind: Kind,
}

/// Kinds of methods. A further kind brings its own places of credentials and its own judgement of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A JSON Web Token.
    Jwt(Jwt),
    /// A service that is asked.
    External(External),
    /// A ticket that was issued for a credential of another method.
    Ticket(Ticket),
}

/// Tickets of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The path at which they are issued, byte for byte.
    pub path: Box<str>,
    /// How long they can be redeemed.
    pub ttl: Duration,
    /// Whether only the address (IPv6: its /64) that requested one can redeem it.
    pub bind_address: bool,
    /// Where the handshake may have one.
    pub places: Vec<Place>,
}

impl Kind {
    /// Where a credential of this kind may be.
    pub fn places(&self) -> &[Place] {
        match self {
            Self::Jwt(jwt) => &jwt.places,
            // What the service judges is not looked at here.
            Self::External(_) => &[],
            Self::Ticket(ticket) => &ticket.places,
        }
    }

    /// Whether its proofs can say who a client is.
    pub fn names_subjects(&self) -> bool {
        match self {
            // A ticket stands for the proof for which it was issued.
            Self::Jwt(_) | Self::Ticket(_) => true,
            Self::External(external) => !external.answers.is_empty(),
        }
    }
}

/// A service that judges a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Namespace of the Service; `None`: the route's own.
    pub namespace: Option<Box<str>>,
    /// Name of the Service.
    pub service: Box<str>,
    /// Its port.
    pub port: u16,
    /// The path that is asked.
    pub path: Box<str>,
    /// Headers of the handshake that it gets, lower case. Without any of them it is not asked.
    pub headers: Vec<Box<str>>,
    /// Headers of its answer that the backend gets, lower case; the first one names the subject.
    pub answers: Vec<Box<str>>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How often it is asked again about a live connection; `None`: never.
    pub recheck: Option<Duration>,
}

impl External {
    /// The proof that the service admitted a client, whom it calls `subject`.
    pub fn proof(&self, method: &str, subject: Option<&str>) -> Proof {
        // The service itself stands for its proofs as an issuer does.
        let verdict = self.verdict();
        Proof::new(method, &verdict, subject, None, &verdict)
    }

    /// Whose verdict it is: kept with the proof, so that it counts only for as long as the route asks the
    /// same service at the same port and path.
    fn verdict(&self) -> Box<str> {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{namespace}/{}:{}{}", self.service, self.port, self.path).into()
    }
}

/// What a JSON Web Token must be (RFC 7519, RFC 8725).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// `iss`, byte for byte.
    pub issuer: Box<str>,
    /// One of them must be among `aud`.
    pub audiences: Vec<Box<str>>,
    /// Where the keys come from. The keys themselves are no part of the policy: their rotation changes no route.
    pub keys: KeySource,
    /// Values of `typ` that are taken beside `JWT` and `at+jwt`, lower case, without `application/`.
    pub types: Vec<Box<str>>,
    /// Where the token may be.
    pub places: Vec<Place>,
    /// Claims that must be there besides.
    pub required: Vec<Required>,
    /// Claims that the backend gets as headers.
    pub headers: Vec<ClaimHeader>,
    /// How far clocks may differ.
    pub skew: Duration,
    /// Whether the backend gets the token too.
    pub forward: bool,
    /// Whether a connection ends when the key that verified its token leaves its set.
    pub binds_key: bool,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeySource {
    /// An entry of an object of the cluster.
    Local {
        /// Namespace of the object; `None`: the route's own.
        namespace: Option<Box<str>>,
        /// Name of the object.
        name: Box<str>,
        /// The entry.
        key: Box<str>,
        /// Whether it is a Secret, not a ConfigMap.
        secret: bool,
    },
    /// An https URI.
    Remote(Box<str>),
}

impl KeySource {
    /// The same source, named in full by a route in the namespace `home`.
    pub fn within(&self, home: &str) -> Self {
        match self {
            Self::Local { namespace, name, key, secret } => Self::Local {
                namespace: Some(namespace.as_deref().unwrap_or(home).into()),
                name: name.clone(),
                key: key.clone(),
                secret: *secret,
            },
            Self::Remote(uri) => Self::Remote(uri.clone()),
        }
    }
}

/// Where a credential may be, and what stands before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub carrier: Carrier,
    /// What must stand before the credential, and is cut off.
    pub prefix: Box<str>,
}

/// A part of the request that can carry a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// A header, by its lower-case name.
    Header(Box<str>),
    /// A parameter of the query, by its decoded name.
    Query(Box<str>),
    /// A cookie, by its name.
    Cookie(Box<str>),
    /// An offered subprotocol.
    Subprotocol,
    /// The offered subprotocol after the one of this name.
    SubprotocolPair(Box<str>),
}

/// A claim that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    /// Its name.
    pub name: Box<str>,
    /// What it must contain; `None`: anything but null.
    pub contains: Option<Box<str>>,
}

/// A claim that becomes a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Name of the claim, or a JSON pointer (RFC 6901) if it begins with `/`.
    pub claim: Box<str>,
    /// Name of the header, lower case.
    pub header: Box<str>,
    /// Whether a token without a value that can be a header is refused.
    pub required: bool,
}

/// The proof that a method was met. Holds what was proved, never the credential. Made by verification, and read again where
/// a ticket that was issued for it is redeemed at another replica.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The method's name.
    pub method: Box<str>,
    /// Who vouches for the subject.
    pub issuer: Box<str>,
    /// Who the client is, as the issuer calls it.
    pub subject: Option<Box<str>>,
    /// When the credential's time is over, seconds since the Unix epoch; `None`: never.
    pub expires: Option<i64>,
    /// The thumbprint (RFC 7638) of the key that verified the token; `None`: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<str>>,
    /// The last change of key sets that this replica knew of when the handshake began.
    #[serde(skip)]
    pub key_change: u64,
    /// The claims, as JSON text: one allocation for as long as the connection lives.
    claims: Box<str>,
}

impl fmt::Debug for Proof {
    /// Without claims: they are personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("method", &self.method)
            .field("issuer", &self.issuer)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Proof {
    /// A proof, of verification.
    pub(in crate::policy) fn new(
        method: &str,
        issuer: &str,
        subject: Option<&str>,
        expires: Option<i64>,
        claims: &str,
    ) -> Self {
        Self {
            method: method.into(),
            issuer: issuer.into(),
            subject: subject.map(Into::into),
            expires,
            key: None,
            key_change: 0,
            claims: claims.into(),
        }
    }

    /// The bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        let subject = self.subject.as_ref().map_or(0, |subject| subject.len());
        let key = self.key.as_ref().map_or(0, |key| key.len());
        self.method.len() + self.issuer.len() + subject + key + self.claims.len() + size_of::<Self>()
    }

    /// The identity that limits count: the subject with its issuer, which alone would be anyone's.
    pub fn identity(&self) -> Option<Box<str>> {
        let subject = self.subject.as_deref()?;
        // The length keeps the two apart whatever they contain.
        Some(format!("{}:{}{subject}", self.issuer.len(), self.issuer).into())
    }
}

impl Authentication {
    /// Judges what was proved: the method must still be there and the proof must still be good enough for it.
    ///
    /// # Errors
    /// [`Reason::CredentialMissing`], or why the proof is not good enough.
    pub fn judge(&self, proof: Option<&Proof>) -> Result<(), Reason> {
        if *self == Self::Anonymous {
            return Ok(());
        }
        let proof = proof.ok_or(Reason::CredentialMissing)?;
        match self.kind_of(proof).ok_or(Reason::TokenClaims)? {
            Kind::Jwt(jwt) => {
                let claims = Claims::parse(proof.claims.as_bytes()).unwrap_or_default();
                jwt.judge(&claims)
            }
            // The verdict of another service, or of this one at another path, is none.
            Kind::External(external) if proof.claims == external.verdict() => Ok(()),
            Kind::External(_) => Err(Reason::ExternalDenied),
            // A proof is of the method of the credential for which the ticket was issued.
            Kind::Ticket(_) => Err(Reason::TicketInvalid),
        }
    }

    /// The methods.
    pub fn methods(&self) -> &[Method] {
        match self {
            Self::Anonymous => &[],
            Self::AnyOf(methods) => methods,
        }
    }

    /// What the method by which a proof was made is by now; `None`: there is none of its name.
    fn kind_of(&self, proof: &Proof) -> Option<&Kind> {
        self.methods().iter().find(|method| method.name == proof.method).map(|method| &method.kind)
    }

    /// The set, and the thumbprint in it, without which a proof ends: of a method that says so.
    pub fn bound_key<'a>(&'a self, proof: &'a Proof) -> Option<(&'a KeySource, &'a str)> {
        match self.kind_of(proof)? {
            Kind::Jwt(jwt) if jwt.binds_key => Some((&jwt.keys, proof.key.as_deref()?)),
            _ => None,
        }
    }

    /// The service by whose word a proof was made, if the method of this name asks one.
    pub fn external(&self, proof: &Proof) -> Option<&External> {
        match self.kind_of(proof)? {
            Kind::External(external) => Some(external),
            Kind::Jwt(_) | Kind::Ticket(_) => None,
        }
    }

    /// The tickets that are issued at a path.
    pub fn ticket(&self, path: &str) -> Option<&Ticket> {
        self.methods().iter().find_map(|method| match &method.kind {
            Kind::Ticket(ticket) if *ticket.path == *path => Some(ticket),
            _ => None,
        })
    }

    /// Headers that only the gateway may set for the backend, whichever method admits.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.methods().iter().flat_map(|method| {
            let (claims, answers) = match &method.kind {
                Kind::Jwt(jwt) => (&jwt.headers[..], &[][..]),
                Kind::External(external) => (&[][..], &external.answers[..]),
                Kind::Ticket(_) => (&[][..], &[][..]),
            };
            claims.iter().map(|one| &*one.header).chain(answers.iter().map(|name| &**name))
        })
    }

    /// Whether a cookie authenticates: a credential that browsers attach by themselves, for whichever page asks.
    pub fn is_ambient(&self) -> bool {
        self.methods().iter().any(|method| {
            let asked =
                matches!(&method.kind, Kind::External(external) if external.headers.iter().any(|h| **h == *"cookie"));
            asked || method.kind.places().iter().any(|place| matches!(place.carrier, Carrier::Cookie(_)))
        })
    }
}

impl Jwt {
    /// Judges claims that are verified, apart from their times.
    ///
    /// # Errors
    /// [`Reason::TokenClaims`] or [`Reason::ClaimsNotMet`].
    pub fn judge(&self, claims: &Claims) -> Result<(), Reason> {
        let audience = self.audiences.iter().any(|audience| claims.lists("aud", audience));
        if claims.text("iss") != Ok(Some(&*self.issuer)) || !audience {
            return Err(Reason::TokenClaims);
        }
        let met = |required: &Required| match &required.contains {
            None => claims.get(&required.name).is_some(),
            Some(wanted) => claims.contains(&required.name, wanted),
        };
        if self.required.iter().all(met) { Ok(()) } else { Err(Reason::ClaimsNotMet) }
    }
}

#[cfg(test)]
pub(in crate::policy) mod tests {
    use super::*;

    pub(in crate::policy) fn jwt(issuer: &str) -> Jwt {
        Jwt {
            issuer: issuer.into(),
            audiences: vec!["chat".into()],
            keys: KeySource::Remote("https://idp.test/jwks".into()),
            types: vec![],
            places: vec![Place { carrier: Carrier::Header("authorization".into()), prefix: "Bearer ".into() }],
            required: vec![],
            headers: vec![],
            skew: Duration::from_secs(30),
            forward: false,
            binds_key: false,
        }
    }

    pub(in crate::policy) fn any_of(methods: Vec<(&str, Jwt)>) -> Authentication {
        let method = |(name, jwt): (&str, Jwt)| Method { name: name.into(), kind: Kind::Jwt(jwt) };
        Authentication::AnyOf(methods.into_iter().map(method).collect())
    }

    fn proof(method: &str, issuer: &str) -> Proof {
        let claims = format!(r#"{{"iss":"{issuer}","aud":["chat","x"],"scope":"chat read"}}"#);
        Proof::new(method, issuer, Some("ada"), None, &claims)
    }

    #[test]
    fn a_proof_is_judged_by_the_policy_of_now() {
        let proof = proof("idp", "https://idp.test");
        let judge = |change: fn(&mut Jwt)| {
            let mut jwt = jwt("https://idp.test");
            change(&mut jwt);
            any_of(vec![("idp", jwt)]).judge(Some(&proof))
        };
        assert_eq!(judge(|_| {}), Ok(()));
        assert_eq!(judge(|jwt| jwt.keys = KeySource::Remote("https://idp.test/next".into())), Ok(()));
        assert_eq!(judge(|jwt| jwt.issuer = "https://idp.test/".into()), Err(Reason::TokenClaims));
        assert_eq!(judge(|jwt| jwt.audiences = vec!["cha".into()]), Err(Reason::TokenClaims));
        let scope = |contains: &str| Required { name: "scope".into(), contains: Some(contains.into()) };
        assert_eq!(Authentication::Anonymous.judge(None), Ok(()));
        let mut strict = jwt("https://idp.test");
        strict.required = vec![scope("read")];
        assert_eq!(any_of(vec![("idp", strict.clone())]).judge(Some(&proof)), Ok(()));
        strict.required = vec![scope("write")];
        assert_eq!(any_of(vec![("idp", strict)]).judge(Some(&proof)), Err(Reason::ClaimsNotMet));
    }

    #[test]
    fn a_method_that_is_gone_or_a_proof_that_was_never_made_admits_nobody() {
        let both = any_of(vec![("idp", jwt("https://idp.test")), ("other", jwt("https://other.test"))]);
        assert_eq!(both.judge(None), Err(Reason::CredentialMissing));
        assert_eq!(both.judge(Some(&proof("other", "https://idp.test"))), Err(Reason::TokenClaims));
        assert_eq!(both.judge(Some(&proof("gone", "https://idp.test"))), Err(Reason::TokenClaims));
    }

    #[test]
    fn a_subject_is_one_only_with_its_issuer() {
        let identity = |issuer: &str, subject: &str| Proof::new("m", issuer, Some(subject), None, "{}").identity();
        assert_ne!(identity("a", "bc"), identity("ab", "c"));
        assert_eq!(identity("a", "b"), identity("a", "b"));
        assert!(!format!("{:?}", proof("idp", "i")).contains("ada"));
    }
}
