//! THE ORDER OF JUDGEMENT, for handshakes and for the ticket endpoint alike: the connection serves the host, route, what
//! costs nothing (`screen`), the credential, `admit`; then, for a handshake, permits, the ticket, the backend.
//!
//! The form of the request was judged before, when it was read. What each step decides is `policy`'s; here they are put in
//! order and given what they need.

use std::sync::Arc;
use std::time::Instant;

use rustls_pki_types::UnixTime;

use crate::policy::credential::Presented;
use crate::policy::question::KeptQuestion;
use crate::policy::{Admission, Facts, Policy, admit, credential, screen};
use crate::proxy::clock::wall;
use crate::proxy::handshake::asked::{Asked, Serves};
use crate::proxy::handshake::backend::{self, Backend};
use crate::proxy::handshake::refusal::Refusal;
use crate::proxy::limits::connections::ConnectionPermits;
use crate::proxy::shared::Shared;
use crate::proxy::store::record::Redeemable;
use crate::proxy::store::subject::SubjectLease;
use crate::reason::Reason;
use crate::snapshot::live::Lease;
use crate::snapshot::{Route, RouteState};
use crate::telemetry::metrics::Stage;
use crate::ws::upgrade;

/// What a request is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A WebSocket.
    Handshake,
    /// A ticket for one.
    Ticket,
}

/// A request that has a route which serves.
pub(crate) struct Routed {
    pub(crate) lease: Lease,
    pub(crate) policy: Arc<Policy>,
}

impl Routed {
    /// The route.
    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.lease.route
    }

    fn refuse(&self, reason: Reason) -> Refusal {
        Refusal::by(self.route(), reason)
    }
}

/// Whether the connection serves the host of the request. A host that does not exist is one that no route has, which is
/// another refusal.
pub(crate) fn is_served(shared: &Shared, asked: &Asked) -> bool {
    let host = &*asked.request.host;
    match asked.serves {
        Serves::Named(ref name) => name == host,
        Serves::Unnamed { tls13 } => shared.live.load().host(host).is_none_or(|host| host.serves_unnamed(tls13)),
    }
}

/// Finds the route: the connection serves the host, nothing drains, a route matches and serves.
pub(crate) fn route(shared: &Shared, asked: &Asked) -> Result<Routed, Refusal> {
    let request = &asked.request;
    if !is_served(shared, asked) {
        return Err(Reason::Misdirected.into());
    }
    if shared.is_draining() {
        return Err(Reason::Draining.into());
    }
    let lease = shared.live.lease(&request.host, &request.path)?;
    if request.cdn_loop.as_ref().is_some_and(|list| upgrade::hops::names(list, &shared.live.load().hop)) {
        return Err(Refusal::by(&lease.route, Reason::LoopDetected));
    }
    let max_head = |policy: &Policy| policy.handshake.max_head_size;
    match &lease.route.state {
        // Its server name let a larger one be read: that of another route.
        RouteState::Serving(policy) if asked.head_size > max_head(policy) => {
            Err(Refusal::by(&lease.route, Reason::HeadTooLarge))
        }
        // A message that nothing can judge is not let in; connections that are open keep the rules that they have.
        RouteState::Serving(policy) if policy.content.incomplete => {
            Err(Refusal::by(&lease.route, Reason::RouteUnavailable))
        }
        RouteState::Serving(policy) => Ok(Routed { policy: Arc::clone(policy), lease }),
        RouteState::Refusing(reason) => Err(Refusal::by(&lease.route, *reason)),
    }
}

/// A client that is known and would be let in.
pub(crate) struct Identified {
    pub(crate) facts: Facts,
    pub(crate) admission: Admission,
    /// Headers of the credential for the backend; the request has them already.
    pub(crate) headers: Vec<(Box<str>, Box<[u8]>)>,
    /// What an External service is asked with again while the connection lives.
    kept: Option<KeptQuestion>,
    /// The ticket that the credential was, not redeemed yet.
    ticket: Option<Redeemable>,
    /// The credential came as a subprotocol.
    by_subprotocol: bool,
    /// What is answered where the client offered nothing but its credential.
    answer: Option<Box<str>>,
}

/// Judges who asks: networks, origin, rate, subprotocol, client certificate, credential, and what is proved by it.
pub(crate) async fn identify(
    shared: &Shared,
    routed: &Routed,
    asked: &mut Asked,
    purpose: Purpose,
) -> Result<Identified, Refusal> {
    let (policy, id) = (&routed.policy, &routed.route().id);
    let refuse = |reason| routed.refuse(reason);
    let authentication = &policy.handshake.authentication;
    // First of all: what passes is then judged, and taken out where it is a credential, as every header is.
    if !policy.handshake.request_headers.is_empty() {
        asked.request.let_pass(&policy.handshake.request_headers);
    }
    if tracing::enabled!(tracing::Level::DEBUG) && !asked.request.withheld.is_empty() {
        let headers: Vec<&str> = asked.request.withheld.iter().map(|(name, _)| &**name).collect();
        tracing::debug!(route = %id, ?headers, "request headers are withheld from the backend");
    }
    // Before anything is kept: facts hold no credential.
    let presented = credential::take(authentication, &mut asked.request);
    let mut facts = facts(asked, policy);
    if purpose == Purpose::Ticket {
        // A call offers none; those of the handshake that redeems are judged.
        facts.subprotocols = policy.handshake.subprotocols.iter().map(|name| name.as_str().into()).collect();
    }
    let mut retry_after = None;
    screen(policy, &facts, |limit| {
        let free = shared.handshake_rates.judge(id, facts.address, limit, Instant::now());
        free.map_err(|wait| {
            retry_after = Some(wait);
            Reason::HandshakeRateLimit
        })
    })
    .map_err(|reason| Refusal { retry_after, ..refuse(reason) })?;
    if purpose == Purpose::Ticket {
        // Audit lets handshakes through; what is read by a page of another site is no handshake.
        policy.handshake.origins.judge(&facts).map_err(refuse)?;
    }
    // Browsers take no answer without one of their offers, and a token is never answered.
    if presented.by_subprotocol && presented.answer.is_none() && facts.subprotocols.is_empty() {
        return Err(refuse(Reason::SubprotocolDenied));
    }
    // Before a key is looked up, so that no change falls between.
    let key_change = shared.auth.rotation.last();
    let verified = shared.auth.verify(id, authentication, &presented, &facts, &mut asked.request).await;
    let verified = verified.map_err(refuse)?;
    // No ticket is issued for a ticket: it would be worth more than the credential behind the first.
    if purpose == Purpose::Ticket && verified.ticket.is_some() {
        return Err(refuse(Reason::TicketInvalid));
    }
    if verified.left_out > 0 {
        shared.metrics.route(id.label()).headers_left_out.inc_by(verified.left_out as u64);
    }
    facts.proof = verified.proof.map(|mut proof| {
        // A ticket of this replica knows what counted when it was issued.
        if proof.key_change == 0 {
            proof.key_change = key_change;
        }
        proof
    });
    let admission = admit(policy, &facts, wall()).map_err(refuse)?;
    let (headers, kept, ticket) = (verified.headers, verified.kept, verified.ticket);
    let Presented { by_subprotocol, answer, .. } = presented;
    Ok(Identified { facts, admission, headers, kept, ticket, by_subprotocol, answer })
}

/// What counts of a request, its credential apart.
pub(crate) fn facts(asked: &mut Asked, policy: &Policy) -> Facts {
    let request = &asked.request;
    let facts = Facts {
        address: asked.address,
        host: request.host.clone(),
        port: request.port,
        path: request.path.clone(),
        origin: request.origin.clone(),
        subprotocols: request.subprotocols.clone(),
        client_certificate: asked.certificate.take(),
        proof: None,
    };
    // The policy may be newer than the TLS handshake.
    facts.renewed(policy.client_certificates.as_ref(), UnixTime::now()).unwrap_or(facts)
}

/// A handshake that passed every check and has a backend.
pub(crate) struct Admitted {
    pub(crate) lease: Lease,
    pub(crate) policy: Arc<Policy>,
    pub(crate) facts: Facts,
    /// What an External service is asked with again while the connection lives.
    pub(crate) kept: Option<KeptQuestion>,
    /// What would have been refused were the route not in Audit mode.
    pub(crate) audited: Option<Reason>,
    pub(crate) backend: Backend,
    /// What the connection holds against limits.
    pub(crate) permits: (ConnectionPermits, Option<SubjectLease>),
}

/// Judges a handshake, from the route to the backend's 101.
pub(crate) async fn handshake(shared: &Arc<Shared>, asked: &mut Asked) -> Result<Admitted, Refusal> {
    let routed = route(shared, asked)?;
    asked.deadline += routed.route().timeouts.beyond_default();
    let Identified { facts, admission, kept, ticket, by_subprotocol, answer, .. } =
        identify(shared, &routed, asked, Purpose::Handshake).await?;
    let permits = acquire(shared, &routed, &facts).await.map_err(|reason| routed.refuse(reason))?;
    // Last: a handshake that something else refuses costs no ticket.
    if let Some(ticket) = ticket {
        let id = &routed.route().id;
        shared.auth.tickets.redeem(&ticket, id).await.map_err(|reason| routed.refuse(reason))?;
        shared.metrics.route(id.label()).tickets_redeemed.inc();
    }
    let judged = Instant::now();
    shared.metrics.handshake_stage(Stage::Judgement, judged - asked.began);
    let passes = &routed.policy.handshake.from_backend;
    let mut backend = backend::connect(shared, routed.route(), asked, &facts, (&admission, passes)).await?;
    shared.metrics.handshake_stage(Stage::Backend, judged.elapsed());
    if by_subprotocol && backend.subprotocol.is_none() {
        backend.subprotocol = admission.offered().first().cloned().or(answer);
    }
    let Routed { lease, policy } = routed;
    Ok(Admitted { lease, policy, facts, kept, audited: admission.audited(), backend, permits })
}

/// What one connection holds against the limits of its route: on this replica, and for its subject on all replicas that
/// share a store.
async fn acquire(
    shared: &Shared,
    routed: &Routed,
    facts: &Facts,
) -> Result<(ConnectionPermits, Option<SubjectLease>), Reason> {
    let (limits, id) = (&routed.policy.connection, &routed.route().id);
    let sockets = shared.capacity.sockets();
    let of_namespace = routed.policy.ceilings.sockets;
    let (total, per_address) = (limits.total, limits.per_address);
    let mut permits = shared.connections.acquire(id, facts.address, total, per_address, of_namespace, sockets)?;
    let Some(identity) = facts.identity() else { return Ok((permits, None)) };
    shared.connections.acquire_subject(&mut permits, identity.clone(), limits.per_subject)?;
    let lease = match (&shared.store, limits.per_subject) {
        (Some(store), Some(limit)) => Some(store.acquire_subject(id, &identity, limit).await?),
        _ => None,
    };
    Ok((permits, lease))
}
