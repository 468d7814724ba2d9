//! docs/install.md on the node: a newcomer who copies every command of the page, in its order.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Test;
use super::clusters::{Clusters, install_definitions_of, state};
use super::image::{self, WSSGATE};
use super::kubectl::{Kubectl, Said};
use super::node::story;
use super::process::{Process, until};
use super::release::{condition, config_map};
use super::sandbox::call;

const PAGE: &str = include_str!("../../docs/install.md");
/// What the page calls the image once it is in a registry.
const PUSHED: &str = concat!("registry.example.com/wssgate:", env!("CARGO_PKG_VERSION"));
/// Where the page's port-forward listens.
const FORWARDED: &str = "127.0.0.1:8443";
const LIMIT: Duration = Duration::from_secs(60);

/// The blocks that a person types, one command or more in each: `sh` as a whole, and of `console` each command alone.
fn commands() -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            match line {
                "```sh" => found.push(block.join("\n")),
                "```console" => found.extend(block.join("\n").replace("\\\n", "").lines().map(str::to_owned)),
                _ => {}
            }
        }
    }
    found
}

/// What has to be true after the block with these words; `said` is what it printed.
struct After {
    words: &'static str,
    check: fn(&Kubectl, said: &str),
}

const AFTER: [After; 7] = [
    After {
        words: "get swsr echo\n",
        check: |kubectl, said| {
            let row = said.lines().find(|line| line.starts_with("echo ")).unwrap_or_else(|| panic!("no row: {said}"));
            let fields: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(fields[..4], ["echo", "[\"echo.example.com\"]", "Anonymous", "True"]);
            let lease = kubectl.in_namespace("wssgate").get(&["lease", "wssgate"]);
            assert!(lease["spec"]["holderIdentity"].as_str().unwrap().starts_with("wssgate-"), "{lease:#}");
        },
    },
    After {
        words: "curl --http1.1",
        check: |_, said| assert!(said.contains("HTTP/1.1 101 Switching Protocols"), "{said}"),
    },
    After {
        words: "kubectl explain swsr.spec.handshake",
        check: |_, said| assert!(said.contains("What the gateway checks of the HTTP upgrade"), "{said}"),
    },
    After {
        words: "apply -f manifests/samples/issuer.yaml",
        check: |kubectl, _| {
            let made = kubectl.in_namespace("apps").get(&["certificate", "live-tls"]);
            let owner = &made["metadata"]["ownerReferences"][0];
            assert_eq!((&owner["kind"], &owner["name"]), (&"SecureWebSocketRoute".into(), &"live".into()), "{made:#}");
            assert_eq!(made["spec"]["dnsNames"], serde_json::json!(["live.example.com"]));
        },
    },
    After {
        words: "helm rollback wssgate",
        check: |kubectl, _| {
            let settings = kubectl.in_namespace("wssgate").get(&["configmap", "wssgate"]);
            let text = settings["data"]["gateway.yaml"].as_str().unwrap();
            assert!(text.contains("perAddress: 100"), "not rolled back: {text}");
            let route = kubectl.in_namespace("demo").get(&["swsr", "echo"]);
            assert_eq!(condition(&route, "Ready").unwrap().0, "True", "{route:#}");
        },
    },
    After {
        words: "helm uninstall wssgate",
        check: |kubectl, _| assert!(!kubectl.run(&["get", "swsr", "-A"]).ok, "the definition is still there"),
    },
    After {
        words: "patch configmap argocd-cm",
        check: |kubectl, _| {
            let map = kubectl.in_namespace("argocd").get(&["configmap", "argocd-cm"]);
            let script = &map["data"]["resource.customizations.health.wssgate.io_SecureWebSocketRoute"];
            assert_eq!(script.as_str().unwrap().trim(), include_str!("../../manifests/argocd/health.lua").trim());
        },
    },
];

fn every_command_of_the_page_works_as_it_stands_there(clusters: &Clusters) {
    let node = clusters.node();
    let kubectl = node.kubectl();
    for project in ["cert-manager", "gateway-api"] {
        install_definitions_of(&kubectl, project);
    }
    // Argo CD's own settings are there before ours.
    kubectl.apply("{apiVersion: v1, kind: Namespace, metadata: {name: argocd}}");
    kubectl.in_namespace("argocd").apply(&config_map("argocd-cm", &[]));
    // As if the nodes had pulled it.
    node.tag(WSSGATE, PUSHED);
    let clone = state().join("clone");
    std::fs::create_dir_all(&clone).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["charts", "manifests"] {
        call(&["cp", "-R", &root.join(folder).display().to_string(), &clone.display().to_string()]).unwrap();
    }

    let mut forward = None;
    let mut checked = 0;
    for block in commands() {
        let began = Instant::now();
        let said = match block.split_whitespace().next().unwrap() {
            // A container engine and a registry, which are not here; scripts/image made the image that the node has.
            "docker" => continue,
            "scripts/image" => {
                std::fs::copy(image::archive(WSSGATE), clone.join("wssgate.tar")).unwrap();
                continue;
            }
            "kubectl" if block.contains(" port-forward ") => {
                let logs = node.plane().folder().join("logs");
                let process = Process::start("port-forward", &logs, &mut shell(&block, &clone, &kubectl));
                until(LIMIT, "the port to be forwarded", || {
                    process.must_run();
                    TcpStream::connect(FORWARDED).ok()
                });
                forward = Some(process);
                continue;
            }
            "curl" => {
                // It has no end but its own time-out: the socket stays open.
                let said = output(&mut shell(&block, &clone, &kubectl));
                let forward: Process = forward.take().expect("a port-forward before");
                forward.terminate(LIMIT);
                said.out
            }
            _ => {
                let said = output(&mut shell(&block, &clone, &kubectl));
                let pods = || ["wssgate", "demo"].map(|namespace| story(&kubectl.in_namespace(namespace))).concat();
                assert!(said.ok, "{block}\n{}{}\n{}", said.out, said.err, pods());
                said.out
            }
        };
        eprintln!("{block}\n{said}({:.1} s)", began.elapsed().as_secs_f32());
        for after in AFTER.iter().filter(|after| format!("{block}\n").contains(after.words)) {
            checked += 1;
            (after.check)(&kubectl, &said);
        }
    }
    assert_eq!(checked, AFTER.len(), "the page has other commands");
    // What the page leaves.
    kubectl.must(&["delete", "-k", &clone.join("overlay").display().to_string()]);
    kubectl.must(&["delete", "-k", &root.join("manifests/base").display().to_string()]);
    kubectl.must(&["delete", "namespace", "demo", "apps", "argocd", "--wait=false"]);
}

/// A shell in the clone, as an administrator has it; three minutes are the most that a block takes.
fn shell(block: &str, clone: &Path, kubectl: &Kubectl) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "180", "bash", "-euo", "pipefail", "-c", block]);
    command.current_dir(clone).env("KUBECONFIG", kubectl.kubeconfig());
    command
}

/// Runs it to its end.
fn output(command: &mut Command) -> Said {
    command.stdin(Stdio::null()).output().unwrap().into()
}

pub fn tests() -> Vec<Test> {
    crate::tests![node sandbox: every_command_of_the_page_works_as_it_stands_there]
}
