//! The chart's rights: no more than these, and none of them in vain. Every other test runs with them, too.

use std::collections::BTreeMap;

use serde_json::json;

use super::Test;
use super::clusters::Clusters;
use super::fixture::{Fixture, LIMIT, logged, run};
use super::process::until;

fn the_service_account_may_do_this_and_nothing_else(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "golden", &json!({})).await;
        let may = |namespace: &str| -> BTreeMap<String, String> {
            let list = fixture.account.in_namespace(namespace).must(&["auth", "can-i", "--list"]);
            let rows = list.lines().skip(1).filter(|line| !line.starts_with(' '));
            let own = rows.filter(|line| !line.starts_with("self"));
            let row = |line: &str| {
                let verbs = line.rsplit_once('[').unwrap().1.trim_end_matches(']').to_owned();
                let names = line.split('[').nth(2).unwrap().split(']').next().unwrap();
                let mut key = line.split_whitespace().next().unwrap().to_owned();
                if !names.is_empty() {
                    key += &format!(" {names}");
                }
                (key, verbs)
            };
            own.map(row).collect()
        };
        let read = "get list watch";
        let everywhere = [
            ("configmaps", read),
            ("customresourcedefinitions.apiextensions.k8s.io securewebsocketroutes.wssgate.io", "get"),
            ("endpointslices.discovery.k8s.io", read),
            ("events.events.k8s.io", "create patch"),
            ("ingressclasses.networking.k8s.io", read),
            ("ingresses.networking.k8s.io", read),
            ("referencegrants.gateway.networking.k8s.io", read),
            ("secrets", read),
            ("securewebsocketroutes.wssgate.io", read),
            ("securewebsocketroutes.wssgate.io/status", "patch"),
            ("services", read),
        ];
        let golden = |more: &[(&str, &str)]| -> BTreeMap<String, String> {
            let all = everywhere.iter().chain(more);
            all.map(|(resource, verbs)| ((*resource).to_owned(), (*verbs).to_owned())).collect()
        };
        assert_eq!(may(fixture.kubectl.namespace()), golden(&[]));
        let home = [
            ("leases.coordination.k8s.io", "create"),
            ("leases.coordination.k8s.io wssgate", "get update"),
            ("services wssgate", read),
        ];
        assert_eq!(may(fixture.home.namespace()), golden(&home));
    });
}

fn a_right_that_is_missing_is_named(clusters: &Clusters) {
    run(async {
        let fixture = Fixture::new(clusters.control_plane(), "missing", &json!({})).await;
        fixture.apply(&[fixture.route("chat", "missing.example.com", &json!({}))]);
        let read =
            |resource: &'static str| vec![format!("not allowed to list and watch {resource}"), "RBAC".to_owned()];
        let cluster = format!("{}-wssgate", fixture.home.namespace());
        let cases = [
            ("clusterrole", "securewebsocketroutes", "list", read("securewebsocketroutes.wssgate.io")),
            ("clusterrole", "services", "list", read("services")),
            ("clusterrole", "secrets", "list", read("secrets")),
            ("clusterrole", "endpointslices", "list", read("endpointslices.discovery.k8s.io")),
            ("clusterrole", "ingressclasses", "list", read("ingressclasses.networking.k8s.io")),
            ("clusterrole", "ingresses", "list", read("ingresses.networking.k8s.io")),
            (
                "clusterrole",
                "securewebsocketroutes/status",
                "patch",
                vec!["status could not be written".to_owned(), "securewebsocketroutes/status".to_owned()],
            ),
            (
                "clusterrole",
                "customresourcedefinitions",
                "get",
                vec!["not allowed to read".to_owned(), "customresourcedefinitions".to_owned()],
            ),
            ("role", "leases", "create", vec!["Lease could not be read or written".to_owned(), "leases".to_owned()]),
        ];
        for (kind, resource, verb, words) in cases {
            let role = if kind == "role" { "wssgate" } else { cluster.as_str() };
            let mut whole = fixture.home.get(&[kind, role]);
            whole["metadata"].as_object_mut().unwrap().remove("resourceVersion");
            let mut part = whole.clone();
            let rules = part["rules"].as_array_mut().unwrap();
            let before = rules.len();
            rules.retain(|rule| rule["resources"][0] != resource);
            assert!(rules.len() < before, "the chart grants nothing for {resource}");
            fixture.home.apply(&part.to_string());
            let account = fixture.account.in_namespace(fixture.home.namespace());
            let group = match resource.split('/').next().unwrap() {
                "securewebsocketroutes" => ".wssgate.io",
                _ => "",
            };
            let mut object = format!("{}{group}", resource.split('/').next().unwrap());
            if resource == "customresourcedefinitions" {
                object += "/securewebsocketroutes.wssgate.io";
            }
            let mut ask = vec!["auth", "can-i", verb, &object];
            ask.extend(resource.ends_with("/status").then_some("--subresource=status"));
            until(LIMIT, "the right to be gone", || (account.run(&ask).out.trim() == "no").then_some(()));
            let gateway = fixture.launch("wssgate-0", &[], &[]).await;
            logged(&gateway, &words.iter().map(String::as_str).collect::<Vec<_>>());
            drop(gateway);
            fixture.home.apply(&whole.to_string());
            // What was written meanwhile is to be written again.
            if resource == "secrets" {
                fixture.kubectl.must(&["delete", "swsr", "chat"]);
                fixture.apply(&[fixture.route("chat", "missing.example.com", &json!({}))]);
            }
        }
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox: the_service_account_may_do_this_and_nothing_else, a_right_that_is_missing_is_named]
}
