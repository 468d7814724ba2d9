//! Warnings of routes whose handshakes depend on something that the data plane cannot reach. Knows that it is so, not
//! why: a reason would tell everyone who may write a route what listens where in the gateway's network.

use std::collections::BTreeSet;

use crate::api::route_id::RouteId;
use crate::api::status::{ConditionReason as Reason, ConditionType};
use crate::compile::problem::{Problem, quote};
use crate::policy::authentication::Authentication;
use crate::snapshot::dependency::Dependency;

/// The warnings of a route, where the data plane cannot reach `failing`. `counted`: connections
/// of its subjects are limited.
pub fn warnings(
    id: &RouteId,
    authentication: &Authentication,
    counted: bool,
    failing: &BTreeSet<Dependency>,
) -> Vec<(ConditionType, Problem)> {
    if failing.is_empty() {
        return Vec::new();
    }
    let looped = failing.contains(&Dependency::Loop(id.clone())).then(|| {
        let text = "a backend leads back to the gateway; its handshakes get 508: correct the endpoints of the Service";
        Problem::new(Reason::LoopDetected, "spec.rules", text)
    });
    let own = Dependency::of(&id.namespace, authentication).filter(|(_, dependency)| failing.contains(dependency));
    let methods = own.filter_map(|(index, dependency)| {
        let method = format!("spec.handshake.authentication.methods[{index}]");
        Some(match &dependency {
            Dependency::KeySet(_) => Problem::new(
                Reason::KeysUnavailable,
                format_args!("{method}.jwt.jwks.remote.uri"),
                format_args!(
                    "{} cannot be fetched (see the log of the gateway); the last fetched keys are used for an hour, \
                     then tokens get 503",
                    quote(&dependency.to_string())
                ),
            ),
            Dependency::Service(_) => Problem::new(
                Reason::ServiceUnavailable,
                format_args!("{method}.external.backendRef"),
                format_args!("Service {dependency} gives no valid answer; handshakes that it has to judge get 503"),
            ),
            Dependency::Store => Problem::new(
                Reason::StoreUnavailable,
                format_args!("{method}.ticket"),
                "the shared store cannot be reached; tickets get 503",
            ),
            // Of the route, and of none of its methods.
            Dependency::Loop(_) => return None,
        })
    });
    let subjects = (counted && failing.contains(&Dependency::Store)).then(|| {
        let text = "the shared store cannot be reached; new connections of authenticated clients get 503";
        Problem::new(Reason::StoreUnavailable, "spec.connection.limits.perSubject", text)
    });
    methods.chain(subjects).chain(looped).map(|problem| (ConditionType::Degraded, problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::authentication::{External, Kind, Method, Ticket};
    use std::time::Duration;

    #[test]
    fn a_route_reports_its_own_dependencies_only() {
        let external = External {
            namespace: None,
            service: "sessions".into(),
            port: 80,
            path: "/check".into(),
            headers: vec![],
            answers: vec![],
            timeout: Duration::from_secs(2),
            recheck: None,
        };
        let ticket =
            Ticket { path: "/ticket".into(), ttl: Duration::from_secs(30), bind_address: false, places: vec![] };
        let methods = [Kind::External(external), Kind::Ticket(ticket)];
        let methods = methods.into_iter().map(|kind| Method { name: "m".into(), kind }).collect();
        let authentication = Authentication::AnyOf(methods);
        let service = |namespace: &str| {
            let external = match &authentication.methods()[0].kind {
                Kind::External(external) => external,
                other => panic!("{other:?}"),
            };
            Dependency::Service(Dependency::service(namespace, external))
        };
        let own = RouteId::secure_web_socket("shop", "chat");
        let reported = |failing: &[Dependency]| -> Vec<(Reason, String)> {
            let warnings = warnings(&own, &authentication, true, &failing.iter().cloned().collect());
            warnings.into_iter().map(|(_, problem)| (problem.reason, problem.to_string())).collect()
        };
        assert_eq!(reported(&[]), []);
        let looped = Dependency::Loop(own.clone());
        assert_eq!(reported(&[Dependency::Loop(RouteId::secure_web_socket("shop", "other"))]), []);
        assert!(matches!(&*reported(&[looped]), [(Reason::LoopDetected, text)] if text.contains("spec.rules")));
        assert_eq!(reported(&[service("other"), Dependency::KeySet("https://idp.test/".into())]), []);
        let both = reported(&[service("shop"), Dependency::Store]);
        assert_eq!((both[0].0, both[1].0), (Reason::ServiceUnavailable, Reason::StoreUnavailable));
        assert!(both[0].1.contains("methods[0]") && both[0].1.contains("Service shop/sessions:80"), "{both:?}");
        assert!(both[1].1.contains("methods[1].ticket"), "{both:?}");
        assert!(both[2].1.contains("limits.perSubject") && both[2].0 == Reason::StoreUnavailable, "{both:?}");
    }
}
