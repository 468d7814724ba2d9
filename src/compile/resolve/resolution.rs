//! What became of references: of those of a rule, of the Services that judge handshakes, of key sets. Knows problems
//! only.

use crate::api::status::ConditionReason as Reason;
use crate::compile::problem::Problem;

/// What became of some references of a route.
#[derive(Debug, Default)]
pub struct Resolution {
    /// References that do not resolve.
    pub problems: Vec<Problem>,
    /// References that resolve to something that cannot serve now.
    pub notes: Vec<Problem>,
    /// Whether handshakes must be refused because of a problem, rather than answered when the object comes.
    pub refuses: bool,
}

impl Resolution {
    /// A reference does not resolve, so handshakes are refused.
    pub fn refuse(&mut self, problem: Problem) {
        self.refuses = true;
        self.problems.push(problem);
    }

    /// A backend does not resolve. Handshakes are refused, but for a Service or port that may yet come: that one is a
    /// backend without endpoints until then.
    pub fn unresolved_backend(&mut self, problem: Problem) {
        self.refuses |= problem.reason != Reason::BackendNotFound;
        self.problems.push(problem);
    }

    /// Adds what became of other references.
    pub fn add(&mut self, other: Self) {
        self.refuses |= other.refuses;
        self.problems.extend(other.problems);
        self.notes.extend(other.notes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_yet_come_refuses_nothing_and_what_is_lost_does() {
        let problem = |reason| Problem::new(reason, "spec.rules[0].backendRefs[0]", "x");
        let mut resolution = Resolution::default();
        resolution.unresolved_backend(problem(Reason::BackendNotFound));
        assert!(!resolution.refuses);
        let mut lost = Resolution::default();
        lost.unresolved_backend(problem(Reason::InvalidKind));
        assert!(lost.refuses);
        resolution.add(lost);
        assert!(resolution.refuses && resolution.problems.len() == 2);
        let mut revoked = Resolution::default();
        revoked.refuse(problem(Reason::RefNotPermitted));
        assert!(revoked.refuses);
    }
}
