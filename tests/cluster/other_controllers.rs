//! Several gateways side by side in one cluster: what one says of a route is never fought over by the other, and nothing
//! stays of what one said that speaks no longer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::Test;
use super::clusters::{Clusters, install_definition};
use super::fixture::{Fixture, LIMIT, run};

/// Puts a route into another class.
fn moves(fixture: &Fixture<'_>, route: &str, class: &str) {
    let patch = json!({"spec": {"ingressClassName": class}}).to_string();
    fixture.kubectl.must(&["patch", "swsr", route, "--type", "merge", "--patch", &patch]);
}

/// Waits until a route's status is of this controller and nobody else has a part of it.
fn speaks(fixture: &Fixture<'_>, route: &str, manager: &str, controller: &str) {
    let what = format!("to be spoken of by {manager} alone");
    fixture.kubectl.until(LIMIT, &["swsr", route, "--show-managed-fields"], &what, |route| {
        let managed = route["metadata"]["managedFields"].as_array()?;
        // Whoever took back what it said has no field of the status any more.
        let of_status = managed
            .iter()
            .filter(|entry| entry["subresource"] == "status" && entry["fieldsV1"]["f:status"] != json!({}));
        let managers: Vec<&Value> = of_status.map(|entry| &entry["manager"]).collect();
        (managers == [manager] && route["status"]["controllerName"] == controller).then_some(())
    });
}

fn gateways_that_may_not_read_classes_leave_each_others_routes_alone(clusters: &Clusters) {
    run(async {
        // One of its own: a gateway of another test that reads all namespaces would speak of these routes too, whose classes
        // are gone.
        let plane = clusters.another("classes");
        install_definition(&plane.kubectl());
        let (first, second) =
            (Fixture::new(&plane, "left", &json!({})).await, Fixture::new(&plane, "right", &json!({})).await);
        for fixture in [&first, &second] {
            fixture.home.must(&["delete", "ingressclass", fixture.class()]);
            fixture.confine(&json!([first.kubectl.namespace(), second.kubectl.namespace()]));
        }
        first.apply(&[
            first.route("own", "own.left.test", &json!({"tls": null})),
            first.route("other", "chat.example.com", &json!({"ingressClassName": second.class()})),
        ]);
        let one = first.gateway("wssgate-0").await;
        let two = second.gateway("wssgate-0").await;
        first.open(&two, "chat.example.com").await;
        first.kubectl.wait("swsr/other", "condition=Ready", LIMIT);
        first.condition("own", "CertificateReady", "False", "RefNotFound");
        // Nobody writes any more.
        let routes = || ["own", "other"].map(|name| first.kubectl.get(&["swsr", name, "--show-managed-fields"]));
        sleep(Duration::from_secs(2)).await;
        let before = routes();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(routes(), before, "a status is written again and again");

        // From one to the other, and to nobody.
        moves(&first, "other", first.class());
        first.open(&one, "chat.example.com").await;
        first.becomes(&two, "chat.example.com", 0).await;
        first.kubectl.wait("swsr/other", "condition=Ready", LIMIT);
        moves(&first, "other", "nobodys");
        first.becomes(&one, "chat.example.com", 0).await;
        first.kubectl.until(LIMIT, &["swsr", "other"], "to be spoken of by nobody", |route| {
            route["status"]["controllerName"].is_null().then_some(())
        });
    });
}

fn what_another_controller_said_does_not_stay(clusters: &Clusters) {
    run(async {
        let plane = clusters.control_plane();
        let ours = Fixture::new(plane, "ours", &json!({})).await;
        let theirs = Fixture::new(plane, "theirs", &json!({"controllerName": "example.com/theirs"})).await;
        ours.apply(&[ours.route("chat", "moving.example.com", &json!({}))]);
        let gateway = ours.gateway("wssgate-0").await;
        let other = theirs.gateway("wssgate-0").await;
        ours.open(&gateway, "moving.example.com").await;
        speaks(&ours, "chat", "wssgate", "wssgate.io/ingress-controller");
        moves(&ours, "chat", theirs.class());
        ours.open(&other, "moving.example.com").await;
        speaks(&ours, "chat", "example.com/theirs", "example.com/theirs");
        // While nobody is there to take it back: the controller has another name when it starts again.
        for gateway in [gateway, other] {
            gateway.sigterm();
            gateway.sigterm();
            gateway.exit(LIMIT).await;
        }
        theirs.home.must(&["delete", "ingressclass", theirs.class()]);
        theirs.install(&json!({"controllerName": "example.com/renamed"}));
        let other = theirs.gateway("wssgate-0").await;
        ours.open(&other, "moving.example.com").await;
        speaks(&ours, "chat", "example.com/renamed", "example.com/renamed");
    });
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        gateways_that_may_not_read_classes_leave_each_others_routes_alone,
        what_another_controller_said_does_not_stay,
    ]
}
