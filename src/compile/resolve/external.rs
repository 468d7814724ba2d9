//! Services that judge handshakes: where they are. A grant that is gone takes the route's authority to ask with it, so the
//! route refuses; a Service that is missing or has no endpoints makes handshakes 503 until there is one.

use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::Problem;
use crate::compile::resolve::reference::Grants;
use crate::compile::resolve::rule::Resolver;
use crate::policy::Policy;
use crate::policy::authentication::Kind;

/// What became of the services of a route.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What does not resolve.
    pub problems: Vec<Problem>,
    /// What resolves to nothing that could answer.
    pub notes: Vec<Problem>,
    /// Whether the route must refuse because of a problem.
    pub refuses: bool,
}

/// Resolves the services that the methods of a route in the namespace `home` name.
pub fn resolve(home: &str, policy: &Policy, grants: &Grants<'_>, resolver: &mut Resolver<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (place, method) in policy.handshake.authentication.methods().iter().enumerate() {
        let Kind::External(external) = &method.kind else { continue };
        let field = format!("spec.handshake.authentication.methods[{place}].external.backendRef");
        let found = grants
            .resolve(&field, home, "Service", external.namespace.as_deref(), &external.service)
            .map_err(|problem| (problem, true))
            .and_then(|key| {
                // What may yet come is answered with 503.
                let later = |problem: &Problem| problem.reason == Reason::BackendNotFound;
                resolver.plain(&field, &key, external.port).map_err(|problem| {
                    let refuses = !later(&problem);
                    (problem, refuses)
                })
            });
        match found {
            Ok(id) => outcome.notes.extend(resolver.notes(&id)),
            Err((problem, lost)) => {
                outcome.problems.push(problem);
                outcome.refuses |= lost;
            }
        }
    }
    outcome
}
