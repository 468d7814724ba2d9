//! Events: one for each condition of a route that becomes bad, and one when it is good again. They are made when a status
//! is written, from what the API server had before, so that neither a restart nor a change of leader repeats one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::events::EventType;

use super::plan::Write;
use crate::api::route::SecureWebSocketRoute;
use crate::api::status::{CAUSES, ConditionReason, ConditionType, RouteStatus};
use crate::writer::Events;

/// Reason and note of the event when `Degraded`, which exists only while something is wrong, is gone.
const RECOVERED: (&str, &str) = ("Recovered", "every dependency of handshakes can be reached again");

/// Publishes the transitions of this write.
pub(super) async fn publish(events: &Events, write: &Write) {
    let reference = write.route.object_ref(&());
    for Transition { kind, bad, reason, note } in transitions(&write.route, write.status.as_ref()) {
        // A certificate that cert-manager is issuing needs no attention.
        let warning = bad && reason != ConditionReason::Issuing.as_str();
        let type_ = if warning { EventType::Warning } else { EventType::Normal };
        events.publish(&reference, type_, &reason, kind.as_str(), note).await;
    }
}

/// A condition that became bad, or good again.
#[derive(Debug, PartialEq, Eq)]
struct Transition {
    kind: ConditionType,
    bad: bool,
    reason: String,
    note: String,
}

/// The conditions that became bad, or bad for another reason, and those that became good again. A new route whose
/// conditions are good has none, and neither has one that is being deleted.
fn transitions(route: &SecureWebSocketRoute, next: Option<&RouteStatus>) -> Vec<Transition> {
    let of = |status: Option<&RouteStatus>, kind: ConditionType| {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().find(|condition| condition.type_ == kind.as_str()).cloned()
    };
    let mut transitions = Vec::new();
    if route.metadata.deletion_timestamp.is_some() {
        return transitions;
    }
    for (kind, wrong) in CAUSES {
        let before = of(route.status.as_ref(), kind);
        // A certificate that expires soon is still served, but somebody has to renew it.
        let is_bad = |one: &Condition| {
            one.status == wrong
                || one.reason == ConditionReason::Expiring.as_str()
                || one.reason == ConditionReason::RenewalFailing.as_str()
        };
        let was_bad = before.as_ref().is_some_and(is_bad);
        let Some(next) = of(next, kind) else {
            if was_bad && next.is_some() && kind == ConditionType::Degraded {
                let (reason, note) = (RECOVERED.0.to_owned(), RECOVERED.1.to_owned());
                transitions.push(Transition { kind, bad: false, reason, note });
            }
            continue;
        };
        let bad = is_bad(&next);
        let another = before.as_ref().is_none_or(|before| before.reason != next.reason);
        if (bad && (!was_bad || another)) || (!bad && was_bad && next.status == "True") {
            transitions.push(Transition { kind, bad, reason: next.reason, note: next.message });
        }
    }
    transitions
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn status((status, reason): (&str, &str)) -> RouteStatus {
        of_kind("Accepted", status, reason)
    }

    fn of_kind(kind: &str, status: &str, reason: &str) -> RouteStatus {
        let condition = Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "m".to_owned(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        RouteStatus { conditions: Some(vec![condition]), ..RouteStatus::default() }
    }

    #[test]
    fn only_a_condition_that_changes_is_an_event() {
        let spec = serde_saphyr::from_str("{hostnames: [a.test], rules: [], handshake: {}}").unwrap();
        let mut route = SecureWebSocketRoute::new("r", spec);
        let mut event_after = |before: Option<(&str, &str)>, next: (&str, &str)| {
            route.status = before.map(status);
            transitions(&route, Some(&status(next))).first().map(|transition| transition.bad)
        };
        assert_eq!(event_after(None, ("True", "Accepted")), None);
        assert_eq!(event_after(Some(("Unknown", "Pending")), ("True", "Accepted")), None);
        assert_eq!(event_after(Some(("Unknown", "Pending")), ("False", "HostnameConflict")), Some(true));
        assert_eq!(event_after(Some(("False", "HostnameConflict")), ("False", "HostnameConflict")), None);
        assert_eq!(event_after(Some(("False", "HostnameConflict")), ("False", "Invalid")), Some(true));
        assert_eq!(event_after(Some(("False", "HostnameConflict")), ("True", "Accepted")), Some(false));
        assert_eq!(event_after(Some(("False", "HostnameConflict")), ("Unknown", "Pending")), None);
        assert_eq!(transitions(&route, None), []);
        // A certificate that nobody renews, though it is served.
        let certificate = |reason| of_kind("CertificateReady", "True", reason);
        route.status = Some(certificate("Ready"));
        let bad: Vec<bool> =
            transitions(&route, Some(&certificate("Expiring"))).iter().map(|transition| transition.bad).collect();
        assert_eq!(bad, [true]);
        route.status = Some(certificate("Expiring"));
        assert_eq!(transitions(&route, Some(&certificate("Expiring"))), []);
        let renewed: Vec<bool> =
            transitions(&route, Some(&certificate("Ready"))).iter().map(|transition| transition.bad).collect();
        assert_eq!(renewed, [false]);
        // What is there only while something is wrong.
        let degraded = of_kind("Degraded", "True", "KeysUnavailable");
        route.status = Some(status(("True", "Accepted")));
        let bad: Vec<bool> = transitions(&route, Some(&degraded)).iter().map(|transition| transition.bad).collect();
        assert_eq!(bad, [true]);
        route.status = Some(degraded.clone());
        assert_eq!(transitions(&route, Some(&degraded)), []);
        let over = transitions(&route, Some(&status(("True", "Accepted"))));
        assert!(over.len() == 1 && !over[0].bad && over[0].reason == "Recovered", "{over:?}");
        assert_eq!(transitions(&route, None), [], "a route that leaves is no news");
        route.status = Some(status(("True", "Accepted")));
        let bad = status(("False", "HostnameConflict"));
        assert_eq!(transitions(&route, Some(&bad)).len(), 1);
        route.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(transitions(&route, Some(&bad)), [], "nor is one that is being deleted");
    }
}
