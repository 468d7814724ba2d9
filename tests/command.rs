//! The test command itself: what it lacks it names, with the way to get it, and nothing is left out in silence.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A cargo that says that the tests begin, and ends.
const BEGINS: &str = "[ \"$2\" = --version ] || { echo the tests begin; exit 1; }";

/// Runs it with every program of the machine but these, as somebody with this id; nothing is installed, and cargo does no
/// more than this. Whether it went well, and all it said.
fn run(without: &[&str], id: &str, cargo: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    for path in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !["apt-get", "cargo", "id"].iter().chain(without).any(|one| name == *one) {
                let _ = symlink(entry.path(), folder.path().join(name));
            }
        }
    }
    let stand_in = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    stand_in("id", &format!("echo {id}"));
    if !without.contains(&"cargo") {
        stand_in("cargo", cargo);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/test"))
        .env("PATH", folder.path())
        .env_remove("WSSGATE_TEST_CLUSTER")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn what_is_missing_is_named_with_the_way_to_get_it() {
    for (without, id, tiers, words) in [
        (&["go"][..], "0", "files,api,node", &["Go is missing", "https://go.dev/dl", "WSSGATE_TEST_TIERS=files"][..]),
        (&["go"], "1000", "api", &["Go is missing"]),
        (&[], "1000", "node", &["a node needs root", "WSSGATE_TEST_TIERS=files,api scripts/test"]),
        (&["redis-server", "make"], "1000", "files", &["missing: make redis-server", "sudo apt-get install make"]),
        (&["cargo"], "0", "files", &["cargo is missing", "https://rustup.rs"]),
        (&[], "0", "files", &["the tests begin"]),
        (&[], "0", "file", &["WSSGATE_TEST_TIERS: file is no tier: files, api, node"]),
    ] {
        let (ok, said) = run(without, id, BEGINS, &[("WSSGATE_TEST_TIERS", tiers)]);
        assert!(!ok, "without {without:?}: {said}");
        for word in words {
            assert!(said.contains(word), "without {without:?}, {word} is not said: {said}");
        }
        assert!(said.contains("passed: nothing") && said.contains("FAILED: "), "{said}");
    }
}

#[test]
fn what_is_left_out_on_purpose_stands_in_the_last_lines() {
    // Tiers that need cargo alone.
    let variables = [("WSSGATE_TEST_TIERS", "api"), ("WSSGATE_TEST_CLUSTER", "existing")];
    let (ok, said) = run(&["go"], "1000", "exit 0", &variables);
    assert!(ok, "{said}");
    let last: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("passed: api (")).skip(1).collect();
    for (at, what) in ["left out: files: ", "left out: install: ", "left out: node: "].into_iter().enumerate() {
        assert!(last.get(at).is_some_and(|line| line.starts_with(what)), "{what} {said}");
    }
}
