//! Conditions as `status` of a route, with the times at which they changed. Knows no reason.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta, Time};

use crate::api::status::RouteStatus;
use crate::compile::status::condition::Condition;

/// The status of a route at `now` (seconds since the Unix epoch). A condition whose `status` is what it was keeps its
/// time, by what was said `before`.
pub fn of(
    metadata: &ObjectMeta,
    controller: &str,
    conditions: Vec<Condition>,
    before: Option<&RouteStatus>,
    now: i64,
) -> RouteStatus {
    let now = Timestamp::from_second(now).unwrap_or(Timestamp::UNIX_EPOCH);
    let before = before.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let conditions = conditions.into_iter().map(|own| {
        let (kind, status) = (own.kind.as_str(), own.status.as_str());
        let same = before.iter().find(|condition| condition.type_ == kind && condition.status == status);
        meta::Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: own.reason.as_str().to_owned(),
            message: own.message,
            observed_generation: metadata.generation,
            last_transition_time: same.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        }
    });
    RouteStatus {
        observed_generation: metadata.generation,
        controller_name: Some(controller.to_owned()),
        addresses: None,
        conditions: Some(conditions.collect()),
    }
}

/// Whether a route is accepted: its condition `Accepted` is `True`.
pub fn is_accepted(status: &RouteStatus) -> bool {
    condition(status, "Accepted").is_some_and(|condition| condition.status == "True")
}

/// The condition of a type.
pub fn condition<'a>(status: &'a RouteStatus, kind: &str) -> Option<&'a meta::Condition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// How many routes are accepted.
pub fn accepted<K>(statuses: &BTreeMap<K, RouteStatus>) -> usize {
    statuses.values().filter(|status| is_accepted(status)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
    use crate::compile::status::condition::State;

    fn accepted(status: State) -> Condition {
        Condition { kind: Type::Accepted, status, reason: Reason::Accepted, message: "m".into() }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let metadata = ObjectMeta { generation: Some(4), ..ObjectMeta::default() };
        let at = |status, before: Option<&RouteStatus>, now| of(&metadata, "c", vec![accepted(status)], before, now);
        let time = |status: &RouteStatus| condition(status, "Accepted").unwrap().last_transition_time.0.as_second();
        let first = at(State::True, None, 100);
        let second = at(State::True, Some(&first), 200);
        let third = at(State::False, Some(&second), 300);
        assert_eq!((time(&first), time(&second), time(&third)), (100, 100, 300));
        assert_eq!(third.observed_generation, Some(4));
        assert!(is_accepted(&second) && !is_accepted(&third));
    }
}
