//! Services that judge handshakes: where they are. A grant that is gone takes the route's authority to ask with it, so the
//! route refuses; a Service that is missing or has no endpoints makes handshakes 503 until there is one.

use crate::compile::resolve::reference::Grants;
use crate::compile::resolve::resolution::Resolution;
use crate::compile::resolve::rule::Resolver;
use crate::policy::Policy;
use crate::policy::authentication::Kind;

/// Resolves the services that the methods of a route in the namespace `home` name.
pub fn resolve(home: &str, policy: &Policy, grants: &Grants<'_>, resolver: &mut Resolver<'_>) -> Resolution {
    let mut resolution = Resolution::default();
    for (index, method) in policy.handshake.authentication.methods().iter().enumerate() {
        let Kind::External(external) = &method.kind else { continue };
        let field = format!("spec.handshake.authentication.methods[{index}].external.backendRef");
        match grants.resolve(&field, home, "Service", external.namespace.as_deref(), &external.service) {
            Err(problem) => resolution.refuse(problem),
            Ok(key) => match resolver.plain(&field, &key, external.port) {
                Err(problem) => resolution.unresolved_backend(problem),
                Ok(id) => resolution.notes.extend(resolver.notes(&id)),
            },
        }
    }
    resolution
}
