//! What is said of a route whose handshakes depend on something that the data plane cannot reach. Knows that it is so,
//! not why: a reason would tell whoever may write a route what listens where in the gateway's network.

use std::collections::BTreeSet;

use crate::api::status::{ConditionReason as Reason, ConditionType};
use crate::compile::problem::{Problem, quote};
use crate::policy::authentication::Authentication;
use crate::snapshot::dependency::Dependency;

/// The warnings of a route in the namespace `home`, where `out` cannot be reached. `counted`: the places of its subjects
/// are limited.
pub fn warnings(
    home: &str,
    authentication: &Authentication,
    counted: bool,
    out: &BTreeSet<Dependency>,
) -> Vec<(ConditionType, Problem)> {
    if out.is_empty() {
        return Vec::new();
    }
    let own = Dependency::of(home, authentication).filter(|(_, dependency)| out.contains(dependency));
    let methods = own.map(|(place, dependency)| {
        let field = format!("spec.handshake.authentication.methods[{place}]");
        let (reason, text) = match &dependency {
            Dependency::KeySet(_) => (
                Reason::KeysUnavailable,
                format!(
                    "{field}.jwt.jwks.remote.uri: {} cannot be fetched (the gateway's log says why); the keys of before \
                     serve for an hour, then its tokens get 503",
                    quote(&dependency.to_string())
                ),
            ),
            Dependency::Service(_) => (
                Reason::ServiceUnavailable,
                format!(
                    "{field}.external.backendRef: Service {dependency} gives no valid answer; whoever it has to judge \
                     gets 503"
                ),
            ),
            Dependency::Store => (
                Reason::StoreUnavailable,
                format!("{field}.ticket: the store of the gateway's replicas cannot be reached; tickets get 503"),
            ),
        };
        (reason, text)
    });
    let places = (counted && out.contains(&Dependency::Store)).then(|| {
        let text = "spec.connection.limits.perSubject: the store of the gateway's replicas cannot be reached; new \
                    connections of subjects get 503";
        (Reason::StoreUnavailable, text.to_owned())
    });
    methods.chain(places).map(|(reason, text)| (ConditionType::Degraded, Problem::new(reason, text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::authentication::{External, Kind, Method, Ticket};
    use std::time::Duration;

    #[test]
    fn a_route_is_told_of_its_own_dependencies_only() {
        let external = External {
            namespace: None,
            service: "sessions".into(),
            port: 80,
            path: "/check".into(),
            headers: vec![],
            answers: vec![],
            timeout: Duration::from_secs(2),
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
        let told = |out: &[Dependency]| -> Vec<(Reason, String)> {
            let told = warnings("shop", &authentication, true, &out.iter().cloned().collect());
            told.into_iter().map(|(_, problem)| (problem.reason, problem.message)).collect()
        };
        assert_eq!(told(&[]), []);
        assert_eq!(told(&[service("other"), Dependency::KeySet("https://idp.test/".into())]), []);
        let both = told(&[service("shop"), Dependency::Store]);
        assert_eq!((both[0].0, both[1].0), (Reason::ServiceUnavailable, Reason::StoreUnavailable));
        assert!(both[0].1.contains("methods[0]") && both[0].1.contains("Service shop/sessions:80"), "{both:?}");
        assert!(both[1].1.contains("methods[1].ticket"), "{both:?}");
        assert!(both[2].1.contains("limits.perSubject") && both[2].0 == Reason::StoreUnavailable, "{both:?}");
    }
}
