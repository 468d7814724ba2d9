//! The call that buys a ticket: a POST at the route's ticket path, with a credential of another method, judged as the
//! handshake would be; and the question of a browser whether a page may make it (the preflight of the Fetch standard).

use std::sync::Arc;
use std::time::Duration;

use crate::policy::authentication::{Authentication, Carrier, Kind, Ticket};
use crate::policy::network::limit_key;
use crate::policy::{ClientCertificate, Handshake, Origin, admit, credential};
use crate::proxy::auth::tickets::Record;
use crate::proxy::auth::verify;
use crate::proxy::handshake::answer;
use crate::proxy::handshake::connection::{Refusal, facts, screened};
use crate::proxy::{Drain, Shared};
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::ws::upgrade::{Call, Request};

/// Answers a call, or says why not.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    call: Call,
    name: Option<&str>,
    certificate: Option<Box<ClientCertificate>>,
    address: std::net::IpAddr,
    refusal: &mut Refusal,
) -> Result<Vec<u8>, Reason> {
    let Call { preflight, mut request } = call;
    let own = name == Some(&*request.host);
    let lease = own.then(|| shared.live.lease(&request.host, &request.path).ok()).flatten();
    // Everywhere but at a ticket's path these are methods that no handshake has.
    let lease = lease.ok_or(Reason::MethodNotAllowed)?;
    let route = Arc::clone(&lease.route);
    let RouteState::Serving(policy) = &route.state else { return Err(Reason::MethodNotAllowed) };
    let authentication = &policy.handshake.authentication;
    let ticket = authentication.ticket(&request.path).ok_or(Reason::MethodNotAllowed)?;
    refusal.route = Some(route.id.to_string().into());
    refusal.policy = Some(Arc::clone(policy));
    if *shared.drain.borrow() != Drain::Serving {
        return Err(Reason::Draining);
    }
    let presented = credential::take(authentication, &mut request);
    let mut facts = facts(&request, policy, address, certificate);
    // A call offers none; those of the handshake that redeems are judged.
    facts.subprotocols = policy.handshake.subprotocols.iter().map(|name| name.as_str().into()).collect();
    if preflight {
        policy.handshake.networks.judge(facts.address)?;
        policy.handshake.origins.judge(&facts)?;
        return Ok(answer::preflight(&policy.handshake, &cross_origin(&policy.handshake, &request, true)));
    }
    screened(shared, &route, policy, &facts, refusal)?;
    // Audit lets handshakes through; what is read by a page of another site is no handshake.
    policy.handshake.origins.judge(&facts)?;
    let verified = verify::verify(shared, &route.id, authentication, &presented, &facts, &mut request).await?;
    // A ticket buys no ticket: it would be worth more than the credential that bought it.
    if verified.ticket.is_some() {
        return Err(Reason::TicketInvalid);
    }
    facts.proof = verified.proof;
    let now = verify::now();
    admit(policy, &facts, now)?;
    let proof = facts.proof.ok_or(Reason::CredentialMissing)?;
    let ttl = lifetime(ticket, proof.expires, now).ok_or(Reason::CredentialExpired)?;
    let record = Record {
        route: route.id.clone(),
        origin: facts.origin,
        address: ticket.bind_address.then(|| limit_key(facts.address)),
        proof,
        headers: verified.headers,
    };
    let value = shared.tickets.issue(record, ttl).await?;
    shared.metrics.route(&route.id.to_string()).tickets_issued.inc();
    let body = format!("{{\"ticket\":\"{value}\",\"expiresIn\":{}}}\n", ttl.as_secs());
    Ok(answer::ticket(&policy.handshake, &cross_origin(&policy.handshake, &request, false), &body))
}

/// How long a ticket is good: no longer than what bought it, even where connections outlive that; `None`: that is over.
fn lifetime(ticket: &Ticket, expires: Option<i64>, now: i64) -> Option<Duration> {
    let Some(expires) = expires else { return Some(ticket.ttl) };
    let left = u64::try_from(expires.saturating_sub(now)).ok().filter(|left| *left > 0)?;
    Some(ticket.ttl.min(Duration::from_secs(left)))
}

/// What lets the page of an allowed origin read the answer; nothing for clients that name none.
fn cross_origin(handshake: &Handshake, request: &Request, preflight: bool) -> Vec<(&'static str, String)> {
    let Origin::One(origin) = &request.origin else { return Vec::new() };
    let mut fields = vec![("access-control-allow-origin", origin.to_string()), ("vary", "Origin".to_owned())];
    if handshake.authentication.is_ambient() {
        fields.push(("access-control-allow-credentials", "true".to_owned()));
    }
    if preflight {
        fields.push(("access-control-allow-methods", "POST".to_owned()));
        let headers = headers(&handshake.authentication);
        if !headers.is_empty() {
            fields.push(("access-control-allow-headers", headers.join(", ")));
        }
        fields.push(("access-control-max-age", "600".to_owned()));
    }
    fields
}

/// Headers that carry credentials of the route and that a script may set.
fn headers(authentication: &Authentication) -> Vec<&str> {
    let mut headers = Vec::new();
    for method in authentication.methods() {
        for place in method.kind.places() {
            if let Carrier::Header(name) = &place.carrier {
                headers.push(&**name);
            }
        }
        if let Kind::External(external) = &method.kind {
            headers.extend(external.headers.iter().map(|name| &**name).filter(|name| *name != "cookie"));
        }
    }
    headers.sort_unstable();
    headers.dedup();
    headers
}
