//! Handshakes that wait for External services: so many for one Service, of which the routes that ask it have equal parts,
//! and so many for one namespace, whatever Services its routes ask. Knows names and numbers, not what is asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::api::route_id::RouteId;
use crate::proxy::limits::permits::{Permit, Permits};
use crate::proxy::limits::places::{Places, Step};
use crate::snapshot::BackendId;

/// Handshakes that wait for one Service at a time. When there are more, a route with more than its part gives way.
const OF_SERVICE: usize = 256;
/// Handshakes of the routes of one namespace that wait for any Service at a time; more are refused at once.
const OF_NAMESPACE: u32 = 1024;

/// All handshakes that wait.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    services: Mutex<Services>,
    namespaces: Arc<Permits<Box<str>>>,
}

#[derive(Debug, Default)]
struct Services {
    /// Services that nobody waits for are not in it.
    waiting: HashMap<BackendId, Waiting>,
    /// The number of the last call.
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    places: Places<RouteId, u64>,
    /// Who is told that it gives way.
    calls: HashMap<u64, oneshot::Sender<()>>,
}

/// A handshake that waits for a Service, until it is dropped.
#[derive(Debug)]
pub(crate) struct Call {
    calls: Arc<Calls>,
    service: BackendId,
    number: u64,
    gives_way: oneshot::Receiver<()>,
    _namespace: Permit<Box<str>>,
}

impl Calls {
    /// A handshake of a route begins to wait; `None`: too many wait, and the route has its part.
    pub(crate) fn begin(self: &Arc<Self>, route: &RouteId, service: &BackendId) -> Option<Call> {
        let namespace = self.namespaces.acquire(route.namespace.clone(), OF_NAMESPACE)?;
        let mut services = self.services();
        services.last += 1;
        let number = services.last;
        let new = || Waiting { places: Places::new(OF_SERVICE), calls: HashMap::new() };
        let waiting = services.waiting.entry(service.clone()).or_insert_with(new);
        waiting.places.wait(&number, [route.clone()]);
        let mut begun = false;
        while let Some(step) = waiting.places.step() {
            match step {
                Step::Begin(_) => begun = true,
                Step::GiveWay(other) => {
                    // It does not wait for another place: its client has waited long enough.
                    waiting.places.remove(&other);
                    // One that has its answer meanwhile does not listen.
                    if let Some(call) = waiting.calls.remove(&other) {
                        let _ = call.send(());
                    }
                }
            }
        }
        if !begun {
            waiting.places.remove(&number);
            return None;
        }
        let (sender, gives_way) = oneshot::channel();
        waiting.calls.insert(number, sender);
        drop(services);
        Some(Call { calls: Arc::clone(self), service: service.clone(), number, gives_way, _namespace: namespace })
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    /// Waits until it gives way to another route.
    pub(crate) async fn gives_way(&mut self) {
        // The sender is kept until it has sent.
        let _ = (&mut self.gives_way).await;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut services = self.calls.services();
        if let Some(waiting) = services.waiting.get_mut(&self.service) {
            waiting.places.remove(&self.number);
            waiting.calls.remove(&self.number);
            if waiting.places.is_empty() {
                services.waiting.remove(&self.service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(namespace: &str, name: &str) -> RouteId {
        RouteId::secure_web_socket(namespace, name)
    }

    fn service(name: &str) -> BackendId {
        BackendId { namespace: "auth".into(), service: name.into(), port: 80 }
    }

    #[test]
    fn a_route_that_has_every_place_of_a_service_gives_way_to_another_up_to_its_part() {
        let calls = Arc::new(Calls::default());
        let sessions = service("sessions");
        let begin = |name: &str| calls.begin(&route("shop", name), &sessions);
        let mut greedy: Vec<Call> = (0..OF_SERVICE).map(|_| begin("greedy").unwrap()).collect();
        assert!(begin("greedy").is_none(), "it has all");
        let modest: Vec<Call> = (0..OF_SERVICE / 2).map(|_| begin("modest").unwrap()).collect();
        assert!(begin("modest").is_none() && begin("greedy").is_none(), "both have their parts");
        let gone = greedy.iter_mut().filter_map(|call| call.gives_way.try_recv().ok()).count();
        assert_eq!(gone, OF_SERVICE / 2);
        let newest = greedy.split_off(OF_SERVICE / 2);
        drop(newest);
        assert!(begin("modest").is_none(), "what gave way has no place left to return");
        drop(greedy.pop());
        assert!(begin("modest").is_some());
        drop((greedy, modest));
        assert!(calls.services().waiting.is_empty());
    }

    #[test]
    fn a_namespace_has_so_many_whatever_its_routes_ask_and_takes_none_of_another() {
        let calls = Arc::new(Calls::default());
        let mut waiting = Vec::new();
        for number in 0..20 {
            let (route, service) = (route("greedy", &format!("r{number}")), service(&format!("s{number}")));
            waiting.extend((0..OF_SERVICE).filter_map(|_| calls.begin(&route, &service)));
        }
        assert_eq!(waiting.len(), 1024);
        assert!(calls.begin(&route("shop", "chat"), &service("s0")).is_some());
        assert!(calls.begin(&route("greedy", "r0"), &service("other")).is_none());
        waiting.pop();
        assert!(calls.begin(&route("greedy", "r0"), &service("other")).is_some());
    }
}
