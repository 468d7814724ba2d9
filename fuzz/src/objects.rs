//! Manifests: any text is read, compiled and reported on, the same way each time, and nothing in it can forge a line of
//! a log.

use std::path::Path;

use tempfile::TempDir;
use wssgate::compile::{Options, compile};
use wssgate::policy::blocked_addresses::BlockedAddresses;
use wssgate::source::Files;

/// Any bytes as the one file of a directory: JSON if they begin like it, else YAML.
pub fn check(data: &[u8]) {
    let directory = TempDir::new();
    assert!(directory.is_ok_and(|directory| check_in(directory.path(), data)), "no directory to write to");
}

/// Whether the file could be written.
fn check_in(directory: &Path, data: &[u8]) -> bool {
    let name = if data.trim_ascii_start().first() == Some(&b'{') { "fuzz.json" } else { "fuzz.yaml" };
    if std::fs::write(directory.join(name), data).is_err() {
        return false;
    }
    let Ok(mut files) = Files::open(directory) else { return false };
    let loaded = files.load();
    for problem in &loaded.problems {
        assert!(!problem.message.contains(char::is_control), "{:?}", problem.message);
        assert!(problem.file.ends_with(name));
    }
    let options = Options {
        standalone: true,
        blocked: BlockedAddresses { allow_loopback: true, ..BlockedAddresses::default() },
        ..Options::default()
    };
    let now = 1_800_000_000;
    let first = compile(&loaded.objects, &options, now, None);
    let again = compile(&loaded.objects, &options, now, None);
    assert_eq!(first.statuses, again.statuses, "the same objects, another verdict");
    let next = compile(&loaded.objects, &options, now, Some(&first));
    assert_eq!(next.snapshot.version, first.snapshot.version, "nothing changed, but the snapshot did");
    assert_eq!(next.statuses, first.statuses);
    assert!(first.accepted() <= first.statuses.len());
    true
}
