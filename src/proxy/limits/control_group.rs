//! The control group of this process: how much memory it may use, and how much of that is used. Reads the files of
//! version 1 and version 2, and decides nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// What is not limited reads `max`, or a number beyond all memory.
const UNLIMITED: u64 = 1 << 60;

/// A control group with a limit of memory, of its own or of a group above it.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    /// Its directory in the hierarchy that rules memory.
    directory: PathBuf,
    version: Version,
    /// The least limit in bytes of it and the groups above it.
    limit: u64,
}

/// What a control group uses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// All that counts for the limit and cannot be reclaimed at once, socket buffers included.
    pub(crate) memory: u64,
    /// Socket buffers among it; `None`: the kernel does not count them by group.
    pub(crate) sockets: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    fn limit(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::One => "memory.usage_in_bytes",
            Self::Two => "memory.current",
        }
    }
}

impl ControlGroup {
    /// The group of this process; `None`: its memory has no limit.
    pub(crate) fn own() -> Option<Self> {
        Self::find(Path::new("/sys/fs/cgroup"), &fs::read_to_string("/proc/self/cgroup").ok()?)
    }

    /// The group that `groups` names, which is `/proc/self/cgroup`, below `mount`. In a container the path may be one of the
    /// host, which is not there: then the root of the mount is the container's group.
    fn find(mount: &Path, groups: &str) -> Option<Self> {
        let group = |line: &str| {
            let (_, line) = line.split_once(':')?;
            let (controllers, path) = line.split_once(':')?;
            let (mount, version) = match controllers {
                "" => (mount.to_owned(), Version::Two),
                some if some.split(',').any(|one| one == "memory") => (mount.join("memory"), Version::One),
                _ => return None,
            };
            let above = || Path::new(path.trim_start_matches('/')).ancestors().map(|group| mount.join(group));
            let limits = above().filter_map(|group| number(&group, version.limit()));
            let limit = limits.filter(|limit| *limit < UNLIMITED).min()?;
            let directory = above().find(|group| group.join(version.limit()).exists())?;
            Some(Self { directory, version, limit })
        };
        groups.lines().filter_map(group).min_by_key(|group| group.limit)
    }

    /// The least limit in bytes of the group and those above it.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// What the group uses; `None`: its files cannot be read.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let used = number(&self.directory, self.version.usage())?;
        let stat = fs::read_to_string(self.directory.join("memory.stat")).unwrap_or_default();
        Some(match self.version {
            Version::Two => Usage {
                memory: used.saturating_sub(field(&stat, "inactive_file").unwrap_or(0)),
                sockets: field(&stat, "sock"),
            },
            // Socket buffers are an account of its own there, which runs once it was given a limit.
            Version::One => {
                let limited =
                    number(&self.directory, "memory.kmem.tcp.limit_in_bytes").is_some_and(|at| at < UNLIMITED);
                let sockets = number(&self.directory, "memory.kmem.tcp.usage_in_bytes");
                let sockets = sockets.filter(|bytes| limited || *bytes > 0);
                let memory = used.saturating_sub(field(&stat, "total_inactive_file").unwrap_or(0));
                Usage { memory: memory.saturating_add(sockets.unwrap_or(0)), sockets }
            }
        })
    }
}

/// A file of a group that has one number; `None` also for `max`.
fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// A field of `memory.stat`.
fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Mount(tempfile::TempDir);

    impl Mount {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let file = self.0.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn find(&self, groups: &str) -> Option<ControlGroup> {
            ControlGroup::find(self.0.path(), groups)
        }

        fn limit(&self, groups: &str) -> Option<u64> {
            self.find(groups).map(|group| group.limit())
        }
    }

    #[test]
    fn the_least_limit_of_the_control_groups_above_us_counts() {
        let mount = Mount::new();
        assert_eq!(mount.limit("0::/a/b\n"), None);
        mount.write("a/b/memory.max", "max\n");
        assert_eq!(mount.limit("0::/a/b\n"), None);
        mount.write("a/memory.max", "1073741824\n");
        assert_eq!(mount.limit("0::/a/b\n"), Some(1 << 30));
        mount.write("memory.max", "536870912\n");
        assert_eq!(mount.limit("0::/not/here\n"), Some(1 << 29));
        mount.write("memory/pod/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(mount.limit("5:cpu:/x\n4:memory:/pod\n"), None);
        mount.write("memory/pod/memory.limit_in_bytes", "1048576\n");
        assert_eq!(mount.limit("5:cpu:/x\n4:cpuset,memory:/pod\n"), Some(1 << 20));
    }

    #[test]
    fn version_2_counts_socket_buffers_and_leaves_out_what_can_be_reclaimed() {
        let mount = Mount::new();
        mount.write("a/memory.max", "1073741824\n");
        mount.write("a/b/memory.max", "max\n");
        let group = mount.find("0::/a/b\n").unwrap();
        assert_eq!(group.usage(), None);
        mount.write("a/b/memory.current", "500000000\n");
        mount.write("a/memory.current", "900000000\n");
        assert_eq!(group.usage(), Some(Usage { memory: 500_000_000, sockets: None }));
        let stat =
            "anon 30000000\nfile 120000000\nsock 304000000\nsocket 7\ninactive_file 100000000\nactive_file 20000000\n";
        mount.write("a/b/memory.stat", stat);
        assert_eq!(group.usage(), Some(Usage { memory: 400_000_000, sockets: Some(304_000_000) }));
    }

    #[test]
    fn version_1_adds_socket_buffers_where_they_are_counted() {
        let mount = Mount::new();
        mount.write("memory/pod/memory.limit_in_bytes", "1073741824\n");
        mount.write("memory/pod/memory.usage_in_bytes", "100000000\n");
        mount.write("memory/pod/memory.stat", "inactive_file 1\ntotal_inactive_file 40000000\n");
        let group = mount.find("4:memory:/pod\n").unwrap();
        assert_eq!(group.usage(), Some(Usage { memory: 60_000_000, sockets: None }));
        // Not switched on: 0 says nothing.
        mount.write("memory/pod/memory.kmem.tcp.limit_in_bytes", "9223372036854771712\n");
        mount.write("memory/pod/memory.kmem.tcp.usage_in_bytes", "0\n");
        assert_eq!(group.usage(), Some(Usage { memory: 60_000_000, sockets: None }));
        mount.write("memory/pod/memory.kmem.tcp.limit_in_bytes", "536870912\n");
        assert_eq!(group.usage(), Some(Usage { memory: 60_000_000, sockets: Some(0) }));
        mount.write("memory/pod/memory.kmem.tcp.usage_in_bytes", "5000000\n");
        assert_eq!(group.usage(), Some(Usage { memory: 65_000_000, sockets: Some(5_000_000) }));
    }
}
