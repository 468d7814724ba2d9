//! The test command itself: what it lacks it names, with the way to get it, and nothing is left out in silence.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Runs it with every program of the machine but these, as somebody with this id; nothing is installed. Whether it went
/// well, and all it said.
fn run(without: &[&str], id: &str, tiers: &str) -> (bool, String) {
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
        // Where nothing is missing the tests would begin.
        stand_in("cargo", "[ \"$2\" = --version ] || { echo the tests begin; exit 1; }");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/test"))
        .env("PATH", folder.path())
        .env("WSSGATE_TEST_TIERS", tiers)
        .env_remove("WSSGATE_TEST_CLUSTER")
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
        let (ok, said) = run(without, id, tiers);
        assert!(!ok, "without {without:?}: {said}");
        for word in words {
            assert!(said.contains(word), "without {without:?}, {word} is not said: {said}");
        }
        assert!(said.contains("passed: nothing") && said.contains("FAILED: "), "{said}");
    }
}
