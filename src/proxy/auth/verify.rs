//! The credential of a handshake, verified once: chooses the method, gets its keys, and leaves the request as the backend
//! may see it. What counts as a credential and what verifies it is `policy`'s to say.

use std::sync::Arc;

use crate::api::route_id::RouteId;
use crate::policy::authentication::{Authentication, Jwt, KeySource, Kind, Method};
use crate::policy::credential::{self, Credential, Presented};
use crate::policy::keys::KeySet;
use crate::policy::question::{KeptQuestion, Question, Verdict};
use crate::policy::token::{self, Failure, Token};
use crate::policy::{Facts, Proof};
use crate::proxy::auth::{Auth, external};
use crate::proxy::clock::wall;
use crate::proxy::store::record::{Record, Redeemable};
use crate::reason::Reason;
use crate::snapshot::{Route, RouteState};
use crate::ws::upgrade::Request;

/// What became of a credential.
#[derive(Default)]
pub(crate) struct Verified {
    /// What is kept; `None`: the route authenticates nobody.
    pub(crate) proof: Option<Box<Proof>>,
    /// Headers that the request has by now, which nobody else can set.
    pub(crate) headers: Vec<(Box<str>, Box<[u8]>)>,
    /// How many headers the backend would have got if their values could be headers.
    pub(crate) left_out: usize,
    /// What an External service is asked with again; `None`: it is not.
    pub(crate) kept: Option<KeptQuestion>,
    /// The ticket that it was, to be redeemed when nothing else can refuse the handshake.
    pub(crate) ticket: Option<Redeemable>,
}

impl Auth {
    /// Verifies what was presented and makes the request one for the backend: without the credential unless the method
    /// forwards it, and with the headers of its claims, which nobody else can set.
    pub(crate) async fn verify(
        &self,
        route: &RouteId,
        authentication: &Authentication,
        presented: &Presented,
        facts: &Facts,
        request: &mut Request,
    ) -> Result<Verified, Reason> {
        let Authentication::AnyOf(methods) = authentication else { return Ok(Verified::default()) };
        let verified = match presented.candidates() {
            Ok(candidates) => {
                let (credential, judged) = self.the_valid_one(route, methods, candidates, facts).await?;
                admitted(route, authentication, credential, judged, request)
            }
            // What no other method looks for is for the first service that gets any of it.
            Err(Reason::CredentialMissing) => {
                let verified = self.asked(route, methods, facts, request).await?;
                credential::cleanse(authentication, None, request);
                verified
            }
            Err(reason) => return Err(reason),
        };
        request.headers.retain(|(name, _)| !authentication.headers().any(|own| own == &**name));
        request.headers.extend(verified.headers.iter().cloned());
        Ok(verified)
    }

    /// The one of these credentials that is valid, and what is known by it. Two valid ones are refused: the backend could
    /// take the other.
    async fn the_valid_one<'a>(
        &self,
        route: &RouteId,
        methods: &'a [Method],
        candidates: &'a [Credential],
        facts: &Facts,
    ) -> Result<(&'a Credential, Judged<'a>), Reason> {
        let (mut valid, mut refused) = (None, None);
        for credential in candidates {
            match self.judge(route, methods, credential, facts).await {
                Ok(_) if valid.is_some() => return Err(Reason::CredentialAmbiguous),
                Ok(judged) => valid = Some((credential, judged)),
                // Nobody knows whether this one is valid.
                Err(reason) if reason.http_status().is_some_and(|status| status >= 500) => return Err(reason),
                Err(reason) => refused = refused.or(Some(reason)),
            }
        }
        valid.ok_or(refused.unwrap_or(Reason::CredentialMissing))
    }

    /// Judges one credential, and changes nothing.
    async fn judge<'a>(
        &self,
        route: &RouteId,
        methods: &'a [Method],
        credential: &Credential,
        facts: &Facts,
    ) -> Result<Judged<'a>, Reason> {
        let mut reason = Reason::TokenMalformed;
        for (index, raw) in credential.takers() {
            let Some(method) = methods.get(index) else { continue };
            let jwt = match &method.kind {
                Kind::Jwt(jwt) => jwt,
                Kind::External(_) => continue,
                Kind::Ticket(_) => return Ok(Judged::Ticket(self.tickets.look(raw, route, facts).await?)),
            };
            let token = match Token::parse(raw) {
                Ok(token) => token,
                Err(fault) => {
                    reason = fault;
                    continue;
                }
            };
            reason = Reason::TokenClaims;
            if token.issuer() != Some(&*jwt.issuer) {
                continue;
            }
            // This method decides, and no other is asked.
            let verified = self.verify_token(route, &token, method, jwt).await?;
            return Ok(Judged::Token { method, jwt, verified });
        }
        Err(reason)
    }

    /// Asks the first service that gets a header of the handshake. What it judges stays here, as every credential does; the
    /// backend gets what the service answers.
    async fn asked(
        &self,
        route: &RouteId,
        methods: &[Method],
        facts: &Facts,
        request: &mut Request,
    ) -> Result<Verified, Reason> {
        for method in methods {
            let Kind::External(external) = &method.kind else { continue };
            let question = match Question::of(external, request) {
                Ok(question) => question,
                Err(Reason::CredentialMissing) => continue,
                Err(reason) => return Err(reason),
            };
            let answered = self.externals.ask(route, external, facts, &question).await?;
            let kept = external.recheck.map(|_| KeptQuestion::from(&question));
            let proof = Some(Box::new(external.proof(&method.name, answered.subject(external))));
            withhold(methods, request);
            let external::Answered { headers, left_out } = &*answered;
            return Ok(Verified { proof, headers: headers.clone(), left_out: *left_out, kept, ticket: None });
        }
        Err(Reason::CredentialMissing)
    }

    /// Asks the service that admitted a live connection whether it still does, under the policy that counts now.
    pub(crate) async fn ask_again(&self, route: &Route, facts: &Facts, kept: &KeptQuestion) -> Verdict {
        let external = match (&route.state, &facts.proof) {
            (RouteState::Serving(policy), Some(proof)) => policy.handshake.authentication.external(proof),
            _ => None,
        };
        // Of a route that says otherwise by now the connection is judged again anyway.
        let Some(external) = external else { return Verdict::Unavailable };
        self.externals.ask_again(&route.id, external, facts, kept).await
    }

    /// Whether the key that admitted a connection has left its set, where the route ends it for that.
    pub(crate) fn key_has_left(&self, route: &Route, facts: &Facts) -> bool {
        let (RouteState::Serving(policy), Some(proof)) = (&route.state, &facts.proof) else { return false };
        let bound = policy.handshake.authentication.bound_key(proof);
        bound.is_some_and(|(source, key)| {
            self.rotation.has_left(&source.within(&route.id.namespace), key, proof.key_change)
        })
    }

    async fn verify_token(
        &self,
        route: &RouteId,
        token: &Token<'_>,
        method: &Method,
        jwt: &Jwt,
    ) -> Result<token::Verified, Reason> {
        let refused = |failure| match failure {
            Failure::UnknownKey => Reason::TokenUntrusted,
            Failure::Refused(reason) => reason,
        };
        match &jwt.keys {
            KeySource::Local { .. } => {
                let keys = self.local(route, &jwt.keys).ok_or(Reason::KeysUnavailable)?;
                token.verify(method, jwt, &keys, wall()).map_err(refused)
            }
            KeySource::Remote(uri) => {
                let keys = self.keys.get(uri, &route.namespace).await.ok_or(Reason::KeysUnavailable)?;
                match token.verify(method, jwt, &keys, wall()) {
                    // The issuer may have new keys: asked at most once in a while, whoever sends what.
                    Err(Failure::UnknownKey) => {
                        let newer =
                            self.keys.renew(uri, &route.namespace, &keys).await.ok_or(Reason::TokenUntrusted)?;
                        token.verify(method, jwt, &newer, wall()).map_err(refused)
                    }
                    verified => verified.map_err(refused),
                }
            }
        }
    }

    /// Keys of the cluster's objects, as the snapshot of now has them.
    fn local(&self, route: &RouteId, source: &KeySource) -> Option<Arc<KeySet>> {
        let source = source.within(&route.namespace);
        self.live.load().keys.get(&source).cloned()
    }
}

/// What is known by a credential that is valid.
enum Judged<'a> {
    Token { method: &'a Method, jwt: &'a Jwt, verified: token::Verified },
    Ticket((Redeemable, Arc<Record>)),
}

/// Makes the request of a valid credential one for the backend.
fn admitted(
    route: &RouteId,
    authentication: &Authentication,
    credential: &Credential,
    judged: Judged<'_>,
    request: &mut Request,
) -> Verified {
    withhold(authentication.methods(), request);
    match judged {
        Judged::Ticket((ticket, record)) => {
            credential::cleanse(authentication, None, request);
            let (proof, headers) = (Some(record.proof.clone()), record.headers.clone());
            Verified { proof, headers, ticket: Some(ticket), ..Verified::default() }
        }
        Judged::Token { method, jwt, verified: token::Verified { proof, headers, left_out } } => {
            credential::cleanse(authentication, jwt.forward.then_some(credential), request);
            if jwt.forward {
                credential.keep(request);
            }
            for claim in &left_out {
                tracing::debug!(%route, method = &*method.name, %claim, "a claim cannot be a header and is left out");
            }
            let headers = headers.into_iter().map(|(name, value)| (name, value.into_boxed_bytes())).collect();
            Verified { proof: Some(Box::new(proof)), headers, left_out: left_out.len(), ..Verified::default() }
        }
    }
}

/// What services are asked with stays here, whichever method admits.
fn withhold(methods: &[Method], request: &mut Request) {
    for method in methods {
        if let Kind::External(external) = &method.kind {
            request.headers.retain(|(name, _)| !external.headers.contains(name));
        }
    }
}
