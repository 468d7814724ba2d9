//! What the tests stand on, proved: accounts with no more rights than they were given, addresses that endpoints can
//! have, an API server that can be killed.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::Test;
use super::clusters::Clusters;
use super::kubectl::{Said, TEST_NAMESPACES};
use super::sandbox;

fn a_service_account_can_do_what_its_role_says_and_no_more(clusters: &Clusters) {
    let plane = clusters.control_plane();
    let admin = clusters.api().make_namespace("account");
    admin.apply(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [wssgate.io], resources: [securewebsocketroutes], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
",
    );
    let namespace = admin.namespace();
    let reader = plane.service_account(namespace, "reader").in_namespace(namespace);
    let user = reader.must(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    assert_eq!(user, format!("system:serviceaccount:{namespace}:reader"));
    reader.must(&["get", "swsr"]);
    for forbidden in [&["get", "secrets"][..], &["get", "swsr", "--all-namespaces"], &["delete", "swsr", "any"]] {
        let said = reader.run(forbidden);
        assert!(!said.ok && said.err.contains("forbidden"), "{forbidden:?}: {said:?}");
    }
}

fn endpoints_live_on_addresses_of_the_sandbox_not_on_loopback(clusters: &Clusters) {
    let kubectl = clusters.api().make_namespace("endpoints");
    let slice = |address: &str, port: u16| {
        format!(
            "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: backend, labels: {{kubernetes.io/service-name: backend}}}}
addressType: IPv4
ports: [{{name: ws, port: {port}}}]
endpoints: [{{addresses: [{address}]}}]
"
        )
    };
    assert!(kubectl.refused(&slice("127.0.0.1", 80)).contains("may not be in the loopback range"));
    let (one, other) = (sandbox::address(), sandbox::address());
    assert_ne!(one, other);
    let listener = TcpListener::bind((one, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    kubectl.apply(&slice(&one.to_string(), port));
    let kept = kubectl.get(&["endpointslice", "backend"]);
    let kept = kept["endpoints"][0]["addresses"][0].as_str().unwrap();
    TcpStream::connect((kept, port)).unwrap();
    assert!(TcpStream::connect((other, port)).is_err());
}

fn a_killed_api_server_refuses_and_comes_back_with_what_it_knew(clusters: &Clusters) {
    let plane = clusters.another("killed");
    let kubectl = plane.kubectl().make_namespace("kept");
    plane.kill_api_server();
    let said = kubectl.run(&["get", "namespaces", "--request-timeout=5s"]);
    assert!(!said.ok && said.err.contains("refused"), "{said:?}");
    plane.start_api_server();
    kubectl.must(&["get", "namespace", kubectl.namespace()]);
}

/// As with `WSSGATE_TEST_CLUSTER=existing` and the kubeconfig of a cluster of one's own: what can run there does, and the
/// rest is named.
fn a_cluster_that_exists_can_be_tested_and_is_left_tidy(clusters: &Clusters) {
    let plane = clusters.another("visited");
    let said: Said = Command::new(std::env::current_exe().unwrap())
        .env_remove(sandbox::STATE)
        .env("WSSGATE_TEST_CLUSTER", "existing")
        .env("KUBECONFIG", plane.kubeconfig("admin"))
        .output()
        .unwrap()
        .into();
    assert!(said.ok, "{}{}", said.out, said.err);
    let ran = said.out.lines().filter(|line| line.starts_with("test [api] ") && line.ends_with(" ok")).count();
    assert!(ran >= 10, "{ran} tests ran: {}", said.out);
    let left_out =
        "left out: api: a_killed_api_server_refuses_and_comes_back_with_what_it_knew (it needs a cluster of its own)";
    assert!(said.err.contains(left_out), "{}", said.err);
    // Nobody but a controller could end the namespaces; here there is none.
    let kubectl = plane.kubectl();
    let made = kubectl.get(&["namespaces", "--selector", TEST_NAMESPACES]);
    let made = made["items"].as_array().unwrap();
    assert!(!made.is_empty() && made.iter().all(|one| one["status"]["phase"] == "Terminating"), "{made:?}");
}

pub fn tests() -> Vec<Test> {
    crate::tests![api sandbox:
        a_service_account_can_do_what_its_role_says_and_no_more,
        endpoints_live_on_addresses_of_the_sandbox_not_on_loopback,
        a_killed_api_server_refuses_and_comes_back_with_what_it_knew,
        a_cluster_that_exists_can_be_tested_and_is_left_tidy,
    ]
}
