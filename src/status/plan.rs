//! Which statuses are written: those of a compile that differ from those that the API server has. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::route::SecureWebSocketRoute;
use crate::api::route_id::RouteId;
use crate::api::status::{Address, RouteStatus};

/// Routes and their statuses.
#[derive(Debug, Default)]
pub struct Report {
    /// Every route as the API server has it.
    pub routes: BTreeMap<RouteId, Arc<SecureWebSocketRoute>>,
    /// The statuses of those that are ours.
    pub statuses: BTreeMap<RouteId, RouteStatus>,
    /// The gateway's addresses.
    pub addresses: Vec<Address>,
    /// Names of the IngressClasses of our controller, also those of other gateways; `None`: they may not be read.
    pub classes: Option<BTreeSet<String>>,
    /// Whether one of those is the default: then a route that names no class is ours or another gateway's.
    pub defaulted: bool,
}

/// One write.
#[derive(Debug, Clone)]
pub(super) struct Write {
    /// The route.
    pub(super) id: RouteId,
    /// As the API server has it.
    pub(super) route: Arc<SecureWebSocketRoute>,
    /// Its next status; `None`: the status that this gateway wrote is removed.
    pub(super) status: Option<RouteStatus>,
}

/// Every write that is due, in the order of the routes. `ours` are routes that were ours a moment ago.
pub(super) fn plan(report: &Report, controller: &str, ours: &BTreeSet<RouteId>) -> Vec<Write> {
    let mut writes = Vec::new();
    for (id, route) in &report.routes {
        let live = route.status.as_ref();
        match report.statuses.get(id) {
            Some(status) => {
                let mut status = status.clone();
                status.addresses = Some(report.addresses.clone()).filter(|addresses| !addresses.is_empty());
                keep_times(&mut status, live);
                if live.is_none_or(|live| !is_said(&status, live)) {
                    writes.push(Write { id: id.clone(), route: Arc::clone(route), status: Some(status) });
                }
            }
            None => {
                let Some(written_by) = live.and_then(|live| live.controller_name.as_deref()) else { continue };
                let was_ours = ours.contains(id);
                let class = route.spec.ingress_class_name.as_ref();
                let remove = match &report.classes {
                    // Another gateway of our controller has that class, and writes the status itself.
                    Some(classes) if written_by == controller => {
                        !class.map_or(report.defaulted, |class| classes.contains(class))
                    }
                    // Another controller has written already, and conditions of ours that it does not set would stay; or it
                    // is unknown whose class it is. Only a status of ours is removed, and only once.
                    _ => was_ours,
                };
                if remove {
                    writes.push(Write { id: id.clone(), route: Arc::clone(route), status: None });
                }
            }
        }
    }
    writes
}

/// Conditions whose status is what the API server has keep the time that it has: replicas that saw a change at
/// different moments must not correct each other.
fn keep_times(status: &mut RouteStatus, live: Option<&RouteStatus>) {
    let live = live.and_then(|live| live.conditions.as_deref()).unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        let same = live.iter().find(|live| live.type_ == condition.type_ && live.status == condition.status);
        // The schema's default carries the beginning of time.
        if let Some(same) = same.filter(|same| same.last_transition_time.0.as_second() > 0) {
            condition.last_transition_time = same.last_transition_time.clone();
        }
    }
}

/// Whether the API server has all of a status and no condition besides. The order of conditions means nothing.
fn is_said(status: &RouteStatus, live: &RouteStatus) -> bool {
    let by_type = |status: &RouteStatus| -> BTreeMap<String, Condition> {
        status.conditions.iter().flatten().map(|condition| (condition.type_.clone(), condition.clone())).collect()
    };
    status.observed_generation == live.observed_generation
        && status.controller_name == live.controller_name
        && status.addresses == live.addresses
        && by_type(status) == by_type(live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn condition(kind: &str, status: &str, second: i64) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: "R".to_owned(),
            message: "m".to_owned(),
            observed_generation: Some(1),
            last_transition_time: Time(Timestamp::from_second(second).unwrap()),
        }
    }

    fn status(conditions: Vec<Condition>) -> RouteStatus {
        RouteStatus {
            observed_generation: Some(1),
            controller_name: Some("ours".to_owned()),
            addresses: None,
            conditions: Some(conditions),
        }
    }

    fn report(class: &str, live: Option<RouteStatus>, said: Option<RouteStatus>) -> Report {
        let text = format!("{{ingressClassName: {class}, hostnames: [a.test], rules: [], handshake: {{}}}}");
        let mut route = SecureWebSocketRoute::new("r", serde_saphyr::from_str(&text).unwrap());
        route.status = live;
        let id = RouteId::secure_web_socket("shop", "r");
        Report {
            routes: [(id.clone(), Arc::new(route))].into(),
            statuses: said.map(|said| (id, said)).into_iter().collect(),
            addresses: Vec::new(),
            classes: Some(["wssgate".to_owned(), "other".to_owned()].into()),
            defaulted: false,
        }
    }

    /// What is due to a gateway that remembers no route as its own.
    fn due(report: &Report) -> Vec<Write> {
        plan(report, "ours", &BTreeSet::new())
    }

    #[test]
    fn what_the_api_server_has_is_not_written_again() {
        let live = status(vec![condition("Ready", "True", 5), condition("Accepted", "True", 5)]);
        let said = status(vec![condition("Accepted", "True", 90), condition("Ready", "True", 91)]);
        assert!(due(&report("wssgate", Some(live.clone()), Some(said))).is_empty());
        for changed in [
            status(vec![condition("Accepted", "True", 5)]),
            status(vec![condition("Accepted", "True", 5), condition("Ready", "False", 9)]),
            RouteStatus { observed_generation: Some(2), ..live.clone() },
        ] {
            assert_eq!(due(&report("wssgate", Some(live.clone()), Some(changed))).len(), 1);
        }
    }

    #[test]
    fn a_condition_that_stays_keeps_its_time_and_one_that_changes_does_not() {
        let live = status(vec![condition("Accepted", "True", 5), condition("Ready", "Unknown", 0)]);
        let said = status(vec![condition("Accepted", "True", 90), condition("Ready", "True", 91)]);
        let writes = due(&report("wssgate", Some(live), Some(said)));
        let conditions = writes[0].status.clone().unwrap().conditions.unwrap();
        let times: Vec<i64> = conditions.iter().map(|c| c.last_transition_time.0.as_second()).collect();
        assert_eq!(times, [5, 91]);
    }

    #[test]
    fn the_gateways_addresses_are_part_of_every_status() {
        let live = status(vec![condition("Accepted", "True", 5)]);
        let mut report = report("wssgate", Some(live.clone()), Some(live));
        assert!(due(&report).is_empty());
        report.addresses =
            vec![Address { kind: crate::api::status::AddressKind::IpAddress, value: "192.0.2.1".to_owned() }];
        assert_eq!(due(&report)[0].status.clone().unwrap().addresses.unwrap().len(), 1);
    }

    #[test]
    fn a_route_that_left_loses_what_we_said_and_only_that() {
        let live = status(vec![condition("Accepted", "True", 5)]);
        let taken_back = |class: &str, live: Option<RouteStatus>| {
            due(&report(class, live, None)).iter().any(|write| write.status.is_none())
        };
        assert!(taken_back("nginx", Some(live.clone())));
        assert!(!taken_back("other", Some(live.clone())), "another gateway of the same controller speaks of it");
        assert!(!taken_back("nginx", None));
        // Without a class it is the default's, which another gateway of the same controller may be.
        let mut classless = report("null", Some(live.clone()), None);
        assert_eq!(due(&classless).len(), 1, "nobody's");
        classless.defaulted = true;
        assert!(due(&classless).is_empty());
        let theirs = RouteStatus { controller_name: Some("theirs".to_owned()), ..live };
        assert!(!taken_back("nginx", Some(theirs)));
    }

    #[test]
    fn what_was_ours_a_moment_ago_is_taken_back_whoever_spoke_since() {
        let live = status(vec![condition("Accepted", "True", 5)]);
        let theirs = RouteStatus { controller_name: Some("theirs".to_owned()), ..live.clone() };
        let mine = BTreeSet::from([RouteId::secure_web_socket("shop", "r")]);
        let taken_back = |report: &Report, ours: &BTreeSet<RouteId>| !plan(report, "ours", ours).is_empty();
        let other = report("nginx", Some(theirs), None);
        assert!(taken_back(&other, &mine) && !taken_back(&other, &BTreeSet::new()));
        // Another gateway of our controller replaces what we said with what it says.
        assert!(!taken_back(&report("other", Some(live.clone()), None), &mine));
        // Where classes cannot be read, a route of another class may be another gateway's of our controller.
        let mut blind = report("nginx", Some(live), None);
        blind.classes = None;
        assert!(taken_back(&blind, &mine) && !taken_back(&blind, &BTreeSet::new()));
        assert!(!taken_back(&Report { classes: None, ..report("nginx", None, None) }, &mine), "nothing is said");
    }
}
