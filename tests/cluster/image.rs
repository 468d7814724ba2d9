//! The images of the node: ours, as the last stage of its Dockerfile makes it, and small ones of the cache's
//! programs. No registry is asked; each comes as an archive.

use std::fs;
use std::path::{Path, PathBuf};

use super::programs;
use super::sandbox::call;

/// Our image.
pub const WSSGATE: &str = concat!("localhost/wssgate:", env!("CARGO_PKG_VERSION"));
/// Holds a pod's namespaces open.
pub const PAUSE: &str = "localhost/pause:1";
/// cert-manager's HTTP-01 solver.
pub const ACME_SOLVER: &str = "localhost/acme-solver:1";
/// A service that judges sessions and a web site, for pods beside the gateway.
pub const SITE: &str = "localhost/site:1";

/// Every image that a node has.
pub const ALL: [&str; 4] = [PAUSE, ACME_SOLVER, SITE, WSSGATE];

/// The archive of an image, once [`build_all`] has run.
pub fn archive(image: &str) -> PathBuf {
    let name = image.trim_start_matches("localhost/").replace(':', "-");
    programs::cache().join("images").join(format!("{name}.tar"))
}

/// Builds what is not built yet. Runs outside of the sandbox, where cargo may fetch.
///
/// # Errors
///
/// The command that failed and what it said.
pub fn build_all() -> Result<(), String> {
    fs::create_dir_all(programs::cache().join("images")).map_err(|error| error.to_string())?;
    build_small(PAUSE, "pause")?;
    build_small(ACME_SOLVER, "acme-solver")?;
    build_small(SITE, "site")?;
    eprintln!("{WSSGATE} is built: minutes the first time, one after a change");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image").display().to_string();
    call(&[&script, "--profile", "trial", &archive(WSSGATE).display().to_string()]).map(drop)
}

/// An image of one static binary of the cache and nothing else.
fn build_small(image: &str, program: &str) -> Result<(), String> {
    let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let binary = programs::path(program).canonicalize().map_err(|error| format!("{program}: {error}"))?;
    let archive = archive(image);
    // The binary's path has the hash of what it was built from.
    let note = archive.with_extension("from");
    let key = binary.display().to_string();
    if archive.exists() && fs::read_to_string(&note).is_ok_and(|text| text == key) {
        return Ok(());
    }
    let folder = archive.with_extension("build");
    let _ = fs::remove_dir_all(&folder);
    let context = folder.join("context");
    fs::create_dir_all(&context).map_err(|error| wrong(&context, error))?;
    fs::copy(&binary, context.join(program)).map_err(|error| wrong(&binary, error))?;
    let text = format!("FROM scratch\nCOPY {program} /{program}\nUSER 65532:65532\nENTRYPOINT [\"/{program}\"]\n");
    fs::write(context.join("Dockerfile"), text).map_err(|error| wrong(&context, error))?;

    // Storage of its own: nothing is left in the machine's.
    let [storage, run, context] = ["storage", "run", "context"].map(|name| folder.join(name).display().to_string());
    let buildah = ["buildah", "--storage-driver", "vfs", "--root", &storage, "--runroot", &run];
    call(&[&buildah[..], &["bud", "--isolation", "chroot", "--layers=false", "--tag", image, &context]].concat())?;
    let _ = fs::remove_file(&archive);
    let destination = format!("docker-archive:{}:{image}", archive.display());
    call(&[&buildah[..], &["push", image, &destination]].concat())?;
    let _ = fs::remove_dir_all(&folder);
    fs::write(&note, key).map_err(|error| wrong(&note, error))
}
