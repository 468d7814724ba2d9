//! The tests that need a real Kubernetes.
//!
//! A test is a function of [`Clusters`] in a file of `tests/cluster/`, listed at that file's end in `tests()`; its name
//! is a sentence. It asks for what it needs: `clusters.api()` (the API server with our CRD), `clusters.node()` (a whole
//! node with our image), `clusters.release()` (our chart on it), `clusters.another(..)` (a control plane to break). The
//! first that asks starts it. Each tier runs apart from the machine: [`sandbox`]. Sockets, certificates and gateways of
//! processes come from `tests/harness`.
//!
//! | variable | what |
//! |---|---|
//! | `WSSGATE_TEST_TIERS` | tiers to run, with commas, of `files`, `api`, `node`; all if absent. `files` is what the other test targets do |
//! | `WSSGATE_TEST_CLUSTER=existing` | run against the cluster of `KUBECONFIG` instead; tests that need the sandbox are left out, by name |
//! | `WSSGATE_CLUSTER_CACHE` | where the programs of Kubernetes are built; `target/cluster` if absent |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test fails by panicking, and says what its reader must know"
)]

#[path = "../harness/mod.rs"]
mod harness;

#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod cert_manager;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod clusters;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod control_plane;
mod fake_load_balancer;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod fixture;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod fleet;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod image;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod kubectl;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod node;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod pebble;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod process;
mod programs;
#[allow(dead_code, reason = "each test uses its own part of the harness")]
mod release;
mod sandbox;

mod absence;
mod api_server_failures;
mod certificates;
mod challenge;
mod crd_validation;
mod credentials;
mod definition;
mod dependency;
mod gitops;
mod hand_over;
mod install;
mod install_docs;
mod isolation;
mod messages;
mod other_controllers;
mod outage;
mod pods;
mod rights;
mod rolling;
mod samples;
mod scale;
mod self_test;
mod source;
mod status;
mod tenants;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use libtest_mimic::{Arguments, Trial};

use clusters::Clusters;

/// What a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// An API server.
    Api,
    /// A node that runs pods.
    Node,
}

impl Tier {
    const ALL: [Self; 2] = [Self::Api, Self::Node];

    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Node => "node",
        }
    }
}

/// A test: its name, what it needs, what it does.
pub struct Test {
    name: &'static str,
    tier: Tier,
    /// Whether it needs the sandbox, so that it cannot run against a cluster that exists.
    sandbox: bool,
    run: fn(&Clusters),
}

/// Lists tests: `tests![api anywhere: some_sentence, ..]`; `api sandbox` and `node sandbox` for those that need it.
#[macro_export]
macro_rules! tests {
    (api anywhere: $($name:ident),* $(,)?) => { $crate::tests!(@ Api, false, $($name)*) };
    (api sandbox: $($name:ident),* $(,)?) => { $crate::tests!(@ Api, true, $($name)*) };
    (node sandbox: $($name:ident),* $(,)?) => { $crate::tests!(@ Node, true, $($name)*) };
    (@ $tier:ident, $sandbox:literal, $($name:ident)*) => {
        vec![$($crate::Test { name: stringify!($name), tier: $crate::Tier::$tier, sandbox: $sandbox, run: $name }),*]
    };
}

fn all() -> Vec<Test> {
    // Several at once, the longest first, so that none of those is left at the end.
    let api = [
        scale::tests(),
        status::tests(),
        api_server_failures::tests(),
        source::tests(),
        certificates::tests(),
        hand_over::tests(),
        gitops::tests(),
        dependency::tests(),
        isolation::tests(),
        messages::tests(),
        other_controllers::tests(),
        rights::tests(),
        self_test::tests(),
        definition::tests(),
        crd_validation::tests(),
    ];
    // The page's own release comes and goes before the one that the others share, whose last test removes it.
    let node = [
        pods::tests(),
        install_docs::tests(),
        install::tests(),
        challenge::tests(),
        credentials::tests(),
        samples::tests(),
        tenants::tests(),
        rolling::tests(),
        absence::tests(),
        outage::tests(),
        install::life(),
        outage::last(),
    ];
    api.into_iter().chain(node).flatten().collect()
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, String> {
    let mut arguments = Arguments::from_args();
    let tiers = tiers(std::env::var("WSSGATE_TEST_TIERS").ok().as_deref())?;
    let existing = existing()?;
    let clusters = Arc::new(existing.clone().map_or_else(Clusters::own, Clusters::existing));

    let mut wanted = Vec::new();
    let mut left_out = Vec::new();
    let mut trials = Vec::new();
    for test in all() {
        let clusters = clusters.clone();
        let reason = if !tiers.contains(&test.tier) {
            Some("its tier")
        } else if existing.is_some() && test.sandbox {
            Some("it needs a cluster of its own")
        } else {
            None
        };
        let trial = Trial::test(test.name, move || {
            let began = Instant::now();
            (test.run)(&clusters);
            eprintln!("after {:.1} s: {}", began.elapsed().as_secs_f32(), test.name);
            Ok(())
        });
        let trial = trial.with_kind(test.tier.name()).with_ignored_flag(reason.is_some());
        if arguments.is_filtered_out(&trial) {
        } else if let Some(reason) = reason {
            left_out.push(format!("{}: {} ({reason})", test.tier.name(), test.name));
        } else if !wanted.contains(&test.tier) {
            wanted.push(test.tier);
        }
        trials.push(trial);
    }

    let own = existing.is_none() && !wanted.is_empty() && !arguments.list;
    if own && sandbox::inside().is_none() {
        programs::build()?;
        let mut code = ExitCode::SUCCESS;
        // One after the other: what a node's Pods are given to do in a second they shall have the processors for.
        for tier in Tier::ALL.into_iter().filter(|tier| wanted.contains(tier)) {
            programs::check(tier)?;
            if tier == Tier::Node {
                image::build_all()?;
                // Inside there is no way to where they are fetched.
                harness::packages::python();
                harness::packages::node_modules();
            }
            if !sandbox::run(tier)? {
                code = ExitCode::FAILURE;
            }
        }
        for test in left_out {
            eprintln!("left out: {test}");
        }
        return Ok(code);
    }
    if wanted.contains(&Tier::Node) {
        // The tests of the node share it and a release on it: one after the other, in their order.
        arguments.test_threads = Some(1);
    } else if arguments.test_threads.is_none() {
        // They wait for an API server and its clocks most of the time.
        arguments.test_threads = std::thread::available_parallelism().ok().map(|processors| 2 * processors.get());
    }
    if own {
        sandbox::furnish()?;
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(clusters);
    if !own {
        for test in left_out {
            eprintln!("left out: {test}");
        }
    }
    Ok(conclusion.exit_code())
}

/// The tiers that were asked for.
fn tiers(list: Option<&str>) -> Result<Vec<Tier>, String> {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(Tier::ALL.to_vec()) };
    let mut tiers = Vec::new();
    for word in list.split(',').map(str::trim).filter(|word| *word != "files") {
        let tier = Tier::ALL.into_iter().find(|tier| tier.name() == word);
        tiers.push(tier.ok_or_else(|| format!("WSSGATE_TEST_TIERS: {word} is no tier: files, api, node"))?);
    }
    Ok(tiers)
}

/// The kubeconfig of the cluster that the tests shall run against, if not their own.
fn existing() -> Result<Option<PathBuf>, String> {
    match std::env::var("WSSGATE_TEST_CLUSTER").ok().as_deref() {
        None | Some("" | "own") => Ok(None),
        Some("existing") => match std::env::var_os("KUBECONFIG") {
            Some(path) if !path.is_empty() => Ok(Some(path.into())),
            _ => Err("WSSGATE_TEST_CLUSTER=existing needs KUBECONFIG: the kubeconfig of that cluster".into()),
        },
        Some(other) => Err(format!("WSSGATE_TEST_CLUSTER: {other} is neither own nor existing")),
    }
}
