//! The ticket endpoint: a POST at the route's ticket path, with a credential of another method, judged as the handshake
//! would be; and a browser's question whether a page may make it (the preflight of the Fetch standard).

use std::sync::Arc;
use std::time::Duration;

use crate::policy::Handshake;
use crate::policy::authentication::{Authentication, Carrier, Kind, Ticket};
use crate::policy::network::limit_key;
use crate::proxy::clock::wall;
use crate::proxy::handshake::answer;
use crate::proxy::handshake::asked::Asked;
use crate::proxy::handshake::judge::{Identified, Purpose, Routed, facts, identify, is_served, route};
use crate::proxy::handshake::refusal::Refusal;
use crate::proxy::shared::Shared;
use crate::proxy::store::record::{Holder, OF_ADDRESS, OF_SUBJECT, Record};
use crate::reason::Reason;
use crate::snapshot::RouteState;
use crate::ws::upgrade::{Origin, Request};

/// Answers a call. `preflight`: it is a browser's question.
pub(crate) async fn answer(shared: &Arc<Shared>, asked: &mut Asked, preflight: bool) -> Result<Vec<u8>, Refusal> {
    // Everywhere but at a ticket's path these are methods that no handshake has.
    if !is_ticket_path(shared, asked) {
        return Err(Reason::MethodNotAllowed.into());
    }
    let routed = route(shared, asked)?;
    let handshake = &routed.policy.handshake;
    let ticket = handshake.authentication.ticket(&asked.request.path).ok_or(Reason::MethodNotAllowed)?;
    if preflight {
        let facts = facts(asked, &routed.policy);
        let judged = handshake.networks.judge(facts.address).and_then(|()| handshake.origins.judge(&facts));
        judged.map_err(|reason| Refusal::by(routed.route(), reason))?;
        return Ok(answer::preflight(handshake, &cross_origin(handshake, &asked.request, true)));
    }
    let identified = identify(shared, &routed, asked, Purpose::Ticket).await?;
    let issued = issue(shared, &routed, ticket, identified).await;
    let body = issued.map_err(|reason| Refusal::by(routed.route(), reason))?;
    Ok(answer::ticket(handshake, &cross_origin(handshake, &asked.request, false), &body))
}

fn is_ticket_path(shared: &Shared, asked: &Asked) -> bool {
    let request = &asked.request;
    let lease = is_served(shared, asked).then(|| shared.live.lease(&request.host, &request.path).ok()).flatten();
    lease.is_some_and(|lease| match &lease.route.state {
        RouteState::Serving(policy) => policy.handshake.authentication.ticket(&request.path).is_some(),
        RouteState::Refusing(_) => false,
    })
}

/// A new ticket, as the body of the answer.
async fn issue(shared: &Shared, routed: &Routed, ticket: &Ticket, identified: Identified) -> Result<String, Reason> {
    let Identified { facts, headers, .. } = identified;
    // A credential that names nobody is one of its address.
    let address = || format!("address {}", limit_key(facts.address));
    let of_subject = routed.policy.ceilings.tickets_per_subject.map_or(OF_SUBJECT, |ceiling| ceiling.min(OF_SUBJECT));
    let (identity, most) = facts.identity().map_or_else(|| (address().into(), OF_ADDRESS), |one| (one, of_subject));
    let proof = facts.proof.ok_or(Reason::CredentialMissing)?;
    let ttl = lifetime(ticket, proof.expires, wall()).ok_or(Reason::CredentialExpired)?;
    let id = &routed.route().id;
    let record = Record {
        route: id.clone(),
        origin: facts.origin,
        address: ticket.bind_address.then(|| limit_key(facts.address)),
        proof,
        headers,
        holder: Holder::new(id, &identity),
    };
    let value = shared.auth.tickets.issue(record, ttl, most).await?;
    shared.metrics.route(id.label()).tickets_issued.inc();
    Ok(format!("{{\"ticket\":\"{value}\",\"expiresIn\":{}}}\n", ttl.as_secs()))
}

/// How long a ticket is good: no longer than the credential for which it was issued, even where connections outlive
/// that; `None`: the credential has expired.
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
