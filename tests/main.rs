//! Every test that needs no Kubernetes, one file for each behaviour, in one program: what they stand on is compiled and
//! linked once, and a test that waits leaves the processors to others. `cargo test --test files tls::` runs those of
//! `tests/tls.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and what its case cannot do without may be unwrapped"
)]

mod harness;

mod absence;
mod acme;
mod admin;
mod authentication;
mod backend;
mod balance;
mod browser;
mod canary;
mod capacity;
mod ceilings;
mod chart;
mod check;
mod check_pipeline;
mod client_certificates;
mod clients;
mod clients_handshakes;
mod command;
mod compile;
mod compression;
mod crd;
mod credential_life;
mod credentials;
mod dependencies;
mod documentation;
mod drain;
mod external;
mod files_source;
mod files_source_watch;
mod frames;
mod handshake_deadline;
mod handshake_fields;
mod hanging;
mod health;
mod key_removal;
mod key_sets;
mod layers;
mod limits;
mod load_balancers;
mod loops;
mod message_rate;
mod messages;
mod messages_clients;
mod messages_injection;
mod numbers;
mod origin;
mod path;
mod places;
mod plain_port;
mod quickstart;
mod rate_limit;
mod readers;
mod recheck;
mod refusals;
mod relay;
mod reload;
mod schema_suite;
mod served_certificates;
mod settings;
mod shared_store;
mod shares;
mod slow_clients;
mod socket_memory;
mod supply_chain;
mod swap;
mod tickets;
mod tls;
mod troubleshooting;
mod trusted_proxies;
mod tunnels;
mod upgrade;
mod words;
mod ws_properties;
mod ws_upgrade;

use std::fs;
use std::path::Path;

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a file of the repository with what it shall be, or writes it where `UPDATE` is set.
fn drift(path: &str, expected: &str) {
    let file = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let new: Vec<_> = expected.lines().filter(|line| !found.lines().any(|known| known == *line)).collect();
    assert!(
        found == expected,
        "{path} is stale; run UPDATE=1 cargo test --test files and commit it. New lines:\n{}",
        new.join("\n")
    );
}

#[test]
fn no_file_of_tests_is_left_out() {
    let program = fs::read_to_string(root().join("tests/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("main.rs") {
            let line = format!("\nmod {};\n", path.file_stem().unwrap().display());
            assert!(program.contains(&line), "tests/main.rs does not say{line}");
        }
    }
}
