//! Where the clusters of the tests run: namespaces of their own for network, mounts and processes.
//!
//! The runner starts itself again inside, once for each tier, with `unshare`, and everything else it starts is inside with
//! it: the API server, gateways under test, pods, and the sockets of the tests. So nothing has to be cleaned up with care.
//! When the runner inside ends, however it does, the kernel ends all processes that it left, and interfaces, mounts and
//! rules go with them; when the runner outside is killed, the kernel kills the one inside. Ports are free, nothing can be
//! reached from elsewhere, and nothing routes out.
//!
//! Addresses inside:
//!
//! | address | what |
//! |---|---|
//! | 127.0.0.0/8 | loopback, of the sandbox's own |
//! | 10.89.0.1 | the node: API servers, kubelet, host ports |
//! | 10.89.1.0/24 | all of it on loopback: any process may bind any of them without more ado. EndpointSlices cannot hold 127.0.0.0/8, so backends that a gateway under test shall reach listen here ([`address`]) |
//! | 10.96.0.0/16, 10.244.0.0/16 | Services and pods, where a node runs |
//! | 10.89.0.2 | clients outside of the node, whose only way is by it ([`make_outside`]) |
//! | 203.0.113.0/24 | what a cloud gives Services ([`super::cloud`]) |

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Tier;

/// The address of the node.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);

/// The address of clients outside of the node.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 2);

/// The network that they are in.
const OUTSIDE: &str = "outside";

/// Inside: the folder of the run's state.
pub const STATE: &str = "WSSGATE_TEST_SANDBOX";

/// Before the names of folders and control groups; the runner's id follows.
const PREFIX: &str = "wssgate-cluster-";

/// The state folder, if this process is inside.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(STATE).map(PathBuf::from)
}

/// An address that a backend may listen on and an EndpointSlice may hold; another one each time, as long as there are.
pub fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    Ipv4Addr::new(10, 89, 1, NEXT.fetch_add(1, Ordering::Relaxed) % 254 + 1)
}

/// Runs this program again inside, with the same arguments, for one tier, and cleans up after it. Whether all went well.
///
/// # Errors
///
/// No namespaces to be had.
pub fn run(tier: Tier) -> Result<bool, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    sweep(target);
    let name = format!("{PREFIX}{}", std::process::id());
    let state = target.join(&name);
    fs::create_dir_all(state.join("home")).map_err(|error| format!("{}: {error}", state.display()))?;

    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]);
    command.arg(std::env::current_exe().map_err(|error| error.to_string())?).args(std::env::args_os().skip(1));
    // Neither settings of the gateway nor of the person who runs the tests reach what is tested.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("WSSGATE_") && !name.starts_with("WSSGATE_TEST_") && name != "WSSGATE_CLUSTER_CACHE" {
            command.env_remove(&*name);
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    command.env_remove("KUBECONFIG").env("HOME", state.join("home")).env(STATE, &state);
    command.env("WSSGATE_TEST_TIERS", tier.name());
    // There is memory enough, and few processors: Kubernetes' programs collect their garbage less often.
    command.env("GOGC", "400");
    command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", super::programs::cache().join("bin").display()));
    let status = command.status().map_err(|error| format!("setpriv: {error}"))?;

    remove_groups(&name);
    if !status.success() {
        // What the programs said outlives a failed run, until the next one.
        let logs = target.join("cluster-logs");
        let _ = fs::remove_dir_all(&logs);
        keep_logs(&state, &state, &logs);
        eprintln!("the programs' logs: {}", logs.display());
    }
    let _ = fs::remove_dir_all(&state);
    Ok(status.success())
}

/// Inside: makes addresses and private folders.
///
/// # Errors
///
/// The command that failed and what it said.
pub fn furnish() -> Result<(), String> {
    // Programs keep sockets and state in places that cannot be configured, and nothing of the machine's shall be seen.
    for folder in ["/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"] {
        if Path::new(folder).exists() {
            call(&["mount", "-t", "tmpfs", "none", folder])?;
        }
    }
    let node = format!("{NODE}/24");
    for line in [
        &["ip", "link", "set", "lo", "up"][..],
        &["ip", "address", "add", "10.89.1.0/24", "dev", "lo"],
        &["ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1"],
        &["ip", "address", "add", &node, "dev", "node0"],
        &["ip", "link", "set", "node0", "up"],
        &["ip", "link", "set", "node1", "up"],
        // The kubelet wants a default route; it leads nowhere.
        &["ip", "route", "add", "default", "dev", "node0"],
    ] {
        call(line)?;
    }
    Ok(())
}

/// Makes a network beside the node, with another end of its cable and no other way out: who is in it ([`step_outside`])
/// reaches Services as people do.
pub fn make_outside() {
    for line in [
        &["ip", "netns", "add", OUTSIDE][..],
        &["ip", "link", "set", "node1", "netns", OUTSIDE],
        &["ip", "-n", OUTSIDE, "address", "add", &format!("{CLIENT}/24"), "dev", "node1"],
        &["ip", "-n", OUTSIDE, "link", "set", "node1", "up"],
        &["ip", "-n", OUTSIDE, "route", "add", "default", "via", &NODE.to_string()],
    ] {
        call(line).unwrap();
    }
}

/// Takes the calling thread into that network: its sockets are made there from now on.
pub fn step_outside() {
    let network = fs::File::open(format!("/run/netns/{OUTSIDE}")).unwrap();
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Makes a control group for a node in every hierarchy of the machine; its path within them.
pub fn make_group() -> String {
    let name = inside().and_then(|state| state.file_name().map(|name| name.to_string_lossy().into_owned())).unwrap();
    for hierarchy in hierarchies() {
        fs::create_dir_all(hierarchy.join(&name)).unwrap();
    }
    format!("/{name}")
}

/// The roots of the control groups: one for each controller in version 1, one in all in version 2.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    // Links such as cpu -> cpu,cpuacct lead to the same.
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a run's control groups, deepest first; they are empty, because their processes are gone.
fn remove_groups(name: &str) {
    fn remove(group: &Path) {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
        let _ = fs::remove_dir(group);
    }
    for hierarchy in hierarchies() {
        remove(&hierarchy.join(name));
    }
}

/// Removes what runners left that were killed themselves.
fn sweep(target: &Path) {
    for entry in fs::read_dir(target).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let runner = name.strip_prefix(PREFIX).filter(|id| !Path::new("/proc").join(id).exists());
        if runner.is_some() {
            remove_groups(&name);
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Copies the logs below `folder`, with the way to them in their names.
fn keep_logs(state: &Path, folder: &Path, logs: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // The images' own files are none of ours.
            if entry.file_name() != "containerd" {
                keep_logs(state, &path, logs);
            }
        } else if path.extension().is_some_and(|extension| extension == "log")
            && let Ok(below) = path.strip_prefix(state)
        {
            let _ = fs::create_dir_all(logs);
            let _ = fs::copy(&path, logs.join(below.to_string_lossy().replace('/', "_")));
        }
    }
}

/// Runs a command that must succeed.
///
/// # Errors
///
/// The command and what it said.
pub fn call(line: &[&str]) -> Result<String, String> {
    let output = Command::new(line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", line[0]))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(out.into_owned()) } else { Err(format!("{}: {out}{err}", line.join(" "))) }
}
