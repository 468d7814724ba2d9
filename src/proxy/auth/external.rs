//! Services that judge handshakes: asked with a request of our own, for a bounded time, so many at a time. Whatever is no
//! plain yes is a no, and a service that cannot be asked refuses every handshake.
//!
//! A yes is remembered for a few seconds, so that a crowd that reconnects does not become a crowd at the service; a no is
//! not, so that who has just logged in gets in.
//!
//! A live connection is asked about again by the same request, in places of its own: a crowd of them takes none of a
//! handshake's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::route_id::RouteId;
use crate::policy::authentication::External;
use crate::policy::question::{KeptQuestion, Question, Verdict};
use crate::policy::token::is_clear;
use crate::policy::{Facts, Origin};
use crate::proxy::auth::calls::Calls;
use crate::proxy::dependency_health::DependencyHealth;
use crate::proxy::io::http::{bounded, exchange};
use crate::proxy::limits::round_robin::RoundRobin;
use crate::reason::Reason;
use crate::snapshot::BackendId;
use crate::snapshot::dependency::Dependency;
use crate::snapshot::live::Live;
use crate::ws::upgrade;

/// How long a yes counts.
const KEPT: Duration = Duration::from_secs(3);
/// Yess that are kept at the most; when there are more, the service is asked again.
const MAX_KEPT: usize = 8192;
/// Endpoints that are tried.
const ATTEMPTS: usize = 2;

/// What a yes gives the backend.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// Headers, by their lower-case names.
    pub(crate) headers: Vec<(Box<str>, Box<[u8]>)>,
    /// How many of those that the route lists cannot be passed on.
    pub(crate) left_out: usize,
}

impl Answered {
    /// Whom the service calls the client.
    pub(crate) fn subject(&self, external: &External) -> Option<&str> {
        let first = external.answers.first();
        let (_, subject) = self.headers.iter().find(|(name, _)| Some(name) == first)?;
        std::str::from_utf8(subject).ok()
    }
}

/// A yes, and until when it counts.
type Kept = (Arc<Answered>, Instant);

/// What is known of services between two handshakes.
#[derive(Debug)]
pub(crate) struct Externals {
    kept: Mutex<HashMap<[u8; 32], Kept>>,
    /// Handshakes that wait for a Service.
    calls: Arc<Calls>,
    /// Live connections that wait for one.
    rechecks: Arc<Calls>,
    /// Whose turn it is among the endpoints of a Service, by route. Were these counted with the turns of backends, each
    /// handshake that is judged would take two turns, and every other backend would get none.
    turns: RoundRobin,
    live: Arc<Live>,
    health: Arc<DependencyHealth>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Externals {
    /// Services whose endpoints are those of the snapshot.
    pub(crate) fn new(live: Arc<Live>, health: Arc<DependencyHealth>) -> Self {
        Self {
            kept: Mutex::default(),
            calls: Arc::default(),
            rechecks: Arc::default(),
            turns: RoundRobin::default(),
            live,
            health,
        }
    }

    fn known(&self, key: &[u8; 32], now: Instant) -> Option<Arc<Answered>> {
        let kept = held(&self.kept);
        kept.get(key).filter(|(_, until)| now < *until).map(|(headers, _)| Arc::clone(headers))
    }

    fn keep(&self, key: [u8; 32], headers: &Arc<Answered>, now: Instant) {
        let mut kept = held(&self.kept);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (_, until)| now < *until);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(key, (Arc::clone(headers), now + KEPT));
        }
    }

    /// Asks the service of a method about a handshake: the headers that it gives the backend.
    pub(crate) async fn ask(
        &self,
        route: &RouteId,
        external: &External,
        facts: &Facts,
        question: &Question<'_>,
    ) -> Result<Arc<Answered>, Reason> {
        self.ask_within(&self.calls, route, external, facts, question).await
    }

    /// Asks the service about a live connection that it once admitted, with what was kept of its handshake.
    pub(crate) async fn ask_again(
        &self,
        route: &RouteId,
        external: &External,
        facts: &Facts,
        kept: &KeptQuestion,
    ) -> Verdict {
        let Some(question) = kept.question(external) else { return Verdict::Unavailable };
        match self.ask_within(&self.rechecks, route, external, facts, &question).await {
            Ok(answered) => {
                // The backend was told of a subject, and limits count it: a yes to another one is none.
                let before = facts.proof.as_ref().and_then(|proof| proof.subject.as_deref());
                let same = before.is_none() || before == answered.subject(external);
                if same { Verdict::Admitted } else { Verdict::Denied }
            }
            Err(Reason::ExternalUnavailable) => Verdict::Unavailable,
            Err(_) => Verdict::Denied,
        }
    }

    async fn ask_within(
        &self,
        calls: &Arc<Calls>,
        route: &RouteId,
        external: &External,
        facts: &Facts,
        question: &Question<'_>,
    ) -> Result<Arc<Answered>, Reason> {
        let service = Dependency::service(&route.namespace, external);
        let key = digest(route, &service, external, facts, question);
        if let Some(headers) = self.known(&key, Instant::now()) {
            return Ok(headers);
        }
        // A Service that there is not is told by the route's own status; one without an endpoint gives no answer.
        let endpoints = self.live.load().backends.get(&service).map(|found| found.endpoints.clone());
        let (Some(endpoints), Some(mut call)) = (endpoints, calls.begin(route, &service)) else {
            return Err(Reason::ExternalUnavailable);
        };
        let answer = tokio::select! {
            answer = self.put(route, external, facts, question, &endpoints) => answer,
            () = call.gives_way() => return Err(Reason::ExternalUnavailable),
        };
        let outcome = answer.and_then(|answer| judge(external, answer));
        self.health.record(&Dependency::Service(service), outcome.as_ref().map(drop).map_err(|why| *why));
        let Yes { headers, keep } = outcome.map_err(|_| Reason::ExternalUnavailable)??;
        if keep {
            self.keep(key, &headers, Instant::now());
        }
        Ok(headers)
    }

    /// Puts the question to one of the endpoints. An error says why there is no answer.
    async fn put(
        &self,
        route: &RouteId,
        external: &External,
        facts: &Facts,
        question: &Question<'_>,
        endpoints: &[SocketAddr],
    ) -> Result<(StatusCode, HeaderMap), &'static str> {
        let turn = self.turns.next(route) % endpoints.len().max(1);
        let asked = async {
            for endpoint in endpoints.iter().cycle().skip(turn).take(ATTEMPTS.min(endpoints.len())) {
                if let Ok(tcp) = TcpStream::connect(endpoint).await {
                    let query = query(external, facts, question, &self.live.load().hop)
                        .map_err(|_| "the question cannot be put")?;
                    return answer(tcp, query).await.ok_or("no valid HTTP answer");
                }
            }
            Err("no endpoint can be reached")
        };
        timeout(external.timeout, asked).await.unwrap_or(Err("no answer in time"))
    }
}

/// A yes.
struct Yes {
    /// For the backend.
    headers: Arc<Answered>,
    /// Whether it may count for a while.
    keep: bool,
}

/// What an answer means: a yes, or a no with its reason. An error says why it is neither.
fn judge(
    external: &External,
    (status, answered): (StatusCode, HeaderMap),
) -> Result<Result<Yes, Reason>, &'static str> {
    match status.as_u16() {
        200..=299 => {}
        // A redirect leads to where one logs in, which is nothing for a handshake.
        401 | 300..=399 => return Ok(Err(Reason::ExternalUnauthorized)),
        100..=199 | 429 | 500.. => return Err("answered with a status that is no verdict"),
        _ => return Ok(Err(Reason::ExternalDenied)),
    }
    let headers = passed_on(external, &answered).ok_or("answered with a header that cannot be passed on")?;
    let control = answered.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let keep = !control.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-store"));
    Ok(Ok(Yes { headers: Arc::new(headers), keep }))
}

/// The headers of an answer that the backend gets: each once, and nothing that two readers could read differently. What is
/// not so is left out, except the first, which says whose connection limits count.
fn passed_on(external: &External, answered: &HeaderMap) -> Option<Answered> {
    let mut passed = Answered { headers: Vec::with_capacity(external.answers.len()), left_out: 0 };
    for (at, name) in external.answers.iter().enumerate() {
        let mut values = answered.get_all(&**name).iter();
        let Some(value) = values.next() else { continue };
        if values.next().is_none() && std::str::from_utf8(value.as_bytes()).is_ok_and(is_clear) {
            passed.headers.push((name.clone(), value.as_bytes().into()));
        } else if at == 0 {
            return None;
        } else if !value.is_empty() {
            tracing::debug!(header = &**name, "a header of an External service cannot be passed on and is left out");
            passed.left_out += 1;
        }
    }
    Some(passed)
}

/// The request for the service. It names the same host and path, byte for byte, that the backend would see; the query
/// stays here, for it may hold secrets that are none of the service's.
fn query(
    external: &External,
    facts: &Facts,
    question: &Question<'_>,
    hop: &str,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut asked = Request::get(&*external.path)
        .header(header::HOST, question.authority)
        .header(header::CONNECTION, "close")
        .header("x-forwarded-method", "GET")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", question.authority)
        .header("x-forwarded-uri", &*facts.path)
        .header("x-forwarded-for", facts.address.to_canonical().to_string())
        .header("cdn-loop", upgrade::hops::appended(question.hops, hop));
    if let Origin::One(origin) = &facts.origin {
        asked = asked.header(header::ORIGIN, &**origin);
    }
    for (name, value) in &question.headers {
        asked = asked.header(&**name, *value);
    }
    asked.body(Empty::new())
}

/// One request and the head of its answer; the body says nothing to us.
async fn answer(tcp: TcpStream, asked: Request<Empty<Bytes>>) -> Option<(StatusCode, HeaderMap)> {
    let head = async |answer: hyper::Result<Response<Incoming>>| {
        let (parts, _) = answer.ok()?.into_parts();
        Some((parts.status, parts.headers))
    };
    exchange(bounded(), tcp, asked, head).await.ok()?
}

/// Everything that the service is told, and what becomes of its answer: equal only where the verdict would be.
fn digest(
    route: &RouteId,
    service: &BackendId,
    external: &External,
    facts: &Facts,
    question: &Question<'_>,
) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    };
    let origin = match &facts.origin {
        Origin::One(origin) => origin,
        Origin::Missing | Origin::Several => "",
    };
    for part in [&route.to_string(), &service.to_string(), &*external.path, question.authority, &facts.path, origin] {
        add(part.as_bytes());
    }
    add(facts.address.to_string().as_bytes());
    for (name, value) in &question.headers {
        add(name.as_bytes());
        add(value);
    }
    // An answer's headers are named apart from a request's.
    add(b"");
    external.answers.iter().for_each(|name| add(name.as_bytes()));
    context.finish().as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn externals() -> Externals {
        let health = DependencyHealth::new(tokio::sync::watch::Sender::default(), Metrics::new());
        Externals::new(Arc::default(), Arc::new(health))
    }

    #[test]
    fn a_yes_counts_for_seconds_and_what_does_not_fit_is_asked_again() {
        let (externals, start) = (externals(), Instant::now());
        let headers = Arc::new(Answered::default());
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        for number in 0..=MAX_KEPT {
            externals.keep(key(number), &headers, start);
        }
        assert!(externals.known(&key(0), start).is_some() && externals.known(&key(MAX_KEPT), start).is_none());
        assert!(externals.known(&key(0), start + KEPT).is_none());
        externals.keep(key(MAX_KEPT), &headers, start + KEPT);
        assert_eq!(held(&externals.kept).len(), 1, "what is over makes room");
    }
}
