//! Where the programs of a real Kubernetes are, and what is missing for them.

use std::path::PathBuf;
use std::process::Command;

use super::Tier;

/// The cache that scripts/cluster-programs fills.
pub fn cache() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    // A relative path counts from the root of the repository, as in the script.
    root.join(std::env::var_os("WSSGATE_CLUSTER_CACHE").unwrap_or_else(|| "target/cluster".into()))
}

/// A program that was built; in an existing cluster's case kubectl and helm may also be those of the machine.
pub fn path(name: &str) -> PathBuf {
    let built = cache().join("bin").join(name);
    if built.exists() { built } else { name.into() }
}

/// The folder with the custom resource definitions of another project: `cert-manager`, `gateway-api` (v1 and v1beta1),
/// `gateway-api-v1beta1`.
pub fn definitions(project: &str) -> PathBuf {
    cache().join("crds").join(project)
}

/// Builds what is not built yet.
///
/// # Errors
///
/// The script failed; it has said why.
pub fn build() -> Result<(), String> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster-programs");
    let status = Command::new(&script).status().map_err(|error| format!("{}: {error}", script.display()))?;
    status.success().then_some(()).ok_or_else(|| "scripts/cluster-programs failed: see above".into())
}

/// Programs of the machine that a tier needs: program, Debian package.
fn needed(tier: Tier) -> &'static [(&'static str, &'static str)] {
    match tier {
        Tier::Api => &[("unshare", "util-linux"), ("setpriv", "util-linux"), ("ip", "iproute2"), ("mount", "mount")],
        Tier::Node => &[
            ("containerd", "containerd"),
            ("runc", "runc"),
            ("/usr/lib/cni/bridge", "containernetworking-plugins"),
            ("iptables", "iptables"),
            ("conntrack", "conntrack"),
            ("buildah", "buildah"),
            // The page's own.
            ("openssl", "openssl"),
            ("curl", "curl"),
        ],
    }
}

/// Checks what a tier needs of the machine.
///
/// # Errors
///
/// What is missing and how it is to be had.
pub fn check(tier: Tier) -> Result<(), String> {
    let found = |program: &str| {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        path.split(':').any(|folder| PathBuf::from(folder).join(program).exists())
    };
    let missing: Vec<&str> =
        needed(tier).iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        return Err(format!(
            "missing: {missing}. scripts/test installs it on Debian as root; else: sudo apt-get install {missing}"
        ));
    }
    if tier == Tier::Node && !rustix::process::geteuid().is_root() {
        return Err("a node needs root: run as root, or leave the tier out with WSSGATE_TEST_TIERS=files,api".into());
    }
    Ok(())
}
