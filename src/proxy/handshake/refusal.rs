//! A refusal: why a handshake goes no further, with what is known of it by then, and how it is counted and written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::Handshake;
use crate::proxy::handshake::answer;
use crate::proxy::worker::Worker;
use crate::reason::{self, Reason};
use crate::snapshot::{Route, RouteState};
use crate::telemetry::access::fields::Refused;
use crate::ws::upgrade::BackendRefusal;

/// Why a handshake or a call is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// The route, if it came so far.
    pub(crate) route: Option<Arc<Route>>,
    /// What the backend refused with.
    pub(crate) answered: Option<Box<BackendRefusal>>,
    /// What was wrong with the backend's answer, of a closed set.
    pub(crate) detail: Option<&'static str>,
    /// The endpoint that was asked last, if it came so far.
    pub(crate) endpoint: Option<SocketAddr>,
    /// When the next handshake is free, where that is known.
    pub(crate) retry_after: Option<Duration>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, route: None, answered: None, detail: None, endpoint: None, retry_after: None }
    }
}

impl Refusal {
    /// A refusal by a route.
    pub(crate) fn by(route: &Arc<Route>, reason: Reason) -> Self {
        Self { route: Some(Arc::clone(route)), ..reason.into() }
    }

    /// The HTTP status of the answer; `None` where there is none.
    fn status(&self) -> Option<u16> {
        self.passed_on().map(|answered| answered.status).or(self.reason.http_status())
    }

    /// The backend's own refusal, where it reaches the client.
    fn passed_on(&self) -> Option<&BackendRefusal> {
        let answered = self.answered.as_deref().filter(|_| self.reason == Reason::BackendRefused);
        answered.filter(|answered| reason::passes_on(answered.status))
    }

    fn policy(&self) -> Option<&Handshake> {
        match &self.route.as_ref()?.state {
            RouteState::Serving(policy) => Some(&policy.handshake),
            RouteState::Refusing(_) => None,
        }
    }

    /// The answer for the client; `None` where there is none. `chance` spreads clients that are told to come again.
    pub(crate) fn answer(&self, chance: u8) -> Option<Vec<u8>> {
        if let Some(answered) = self.passed_on() {
            return Some(answer::of_backend(answered, self.policy(), u64::from(1 + chance % 5)));
        }
        let status = self.status()?;
        // Whole seconds (RFC 9110 §10.2.3), never too early; where nothing is known, spread a little.
        let retry_after = match self.retry_after {
            Some(wait) => wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
            None => u64::from(1 + chance % 5),
        };
        Some(answer::refusal(status, self.reason.challenge(), self.policy(), retry_after))
    }
}

/// Whose socket it is, and who is behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress {
    /// The client, as far as it is known; port 0 where it is not.
    pub(crate) client: SocketAddr,
    /// The trusted proxy whose socket it is, where it spoke for the client.
    pub(crate) proxy: Option<SocketAddr>,
}

impl ClientAddress {
    /// The address of a socket.
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Self { client: SocketAddr::new(peer.ip().to_canonical(), peer.port()), proxy: None }
    }

    /// A trusted proxy says who the client is.
    pub(crate) fn stands_for(&mut self, client: SocketAddr) {
        if client != self.client {
            self.proxy.get_or_insert(self.client);
            self.client = client;
        }
    }
}

/// What a request asked for, once its head was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
}

/// Counts a refusal and writes it down.
pub(crate) fn record(worker: &Worker, address: ClientAddress, target: Option<Target<'_>>, refusal: &Refusal) {
    let route = refusal.route.as_ref().map(|route| route.id.label());
    worker.shared.metrics.refused(refusal.reason, route);
    worker.log.refused(&Refused {
        reason: refusal.reason,
        status: refusal.status(),
        client: address.client,
        proxy: address.proxy,
        host: target.map(|target| target.host),
        path: target.map(|target| target.path),
        route,
        backend: refusal.endpoint,
        backend_status: refusal.answered.as_ref().map(|answered| answered.status),
        detail: refusal.detail,
    });
}

/// Counts and writes down a connection that was ended before its first byte was read as TLS or HTTP.
pub(crate) fn turned_away(worker: &Worker, reason: Reason, peer: SocketAddr) {
    record(worker, ClientAddress::new(peer), None, &reason.into());
}
