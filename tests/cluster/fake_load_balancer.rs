//! What a cloud does for Services of type LoadBalancer: gives each an address and says so in its status. Packets to it reach
//! the node by themselves, since clients outside have no other way ([`super::sandbox::make_outside`]).

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::kubectl::Kubectl;
use super::programs;

/// The cloud; it ends when this is dropped.
pub struct FakeLoadBalancer {
    watch: Child,
}

impl FakeLoadBalancer {
    /// Begins to look after the Services of all namespaces.
    pub fn start(kubectl: &Kubectl) -> Self {
        let columns =
            "{.spec.type} {.metadata.namespace} {.metadata.name} {.status.loadBalancer.ingress[0].ip}{\"\\n\"}";
        let mut command = Command::new(programs::path("kubectl"));
        command.env("KUBECONFIG", kubectl.kubeconfig()).args(["get", "services", "--all-namespaces", "--watch"]);
        command.args(["-o", &format!("jsonpath={columns}")]);
        let mut watch = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kubectl");
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let kubectl = kubectl.clone();
        std::thread::spawn(move || {
            let mut given = 0;
            for line in lines.map_while(Result::ok) {
                // One that has no address yet: three words.
                let ["LoadBalancer", namespace, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                    continue;
                };
                given += 1;
                let status =
                    json!({"status": {"loadBalancer": {"ingress": [{"ip": Ipv4Addr::new(203, 0, 113, given)}]}}});
                let patch =
                    ["patch", "service", name, "--subresource=status", "--type=merge", "-p", &status.to_string()];
                kubectl.in_namespace(namespace).run(&patch);
            }
        });
        Self { watch }
    }
}

impl Drop for FakeLoadBalancer {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}
