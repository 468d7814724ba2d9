//! The images of the node: ours, as its Dockerfile builds it, and two small ones.
//!
//! No registry is asked. Our Dockerfile's build stage needs one, so buildah puts a folder with the binary that cargo
//! built here in that stage's place and builds the final stage alone. The archives are kept by the hash of what is in
//! them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs;
use super::sandbox::call;

/// Our image.
pub const WSSGATE: &str = "localhost/wssgate:test";
/// Holds a pod's namespaces open.
pub const PAUSE: &str = "localhost/pause:1";
/// cert-manager's HTTP-01 solver.
pub const ACME_SOLVER: &str = "localhost/acme-solver:test";

/// The target that the static binary is built for: glibc's, because it is there with every toolchain.
const TARGET: &str = "x86_64-unknown-linux-gnu";

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binary = build_binary(root)?;
    let stage = programs::cache().join("stage");
    build(WSSGATE, &binary, &root.join(DOCKERFILE), Some(&stage))?;
    build_small(PAUSE, "pause")?;
    build_small(ACME_SOLVER, "acme-solver")
}

/// Our Dockerfile, and where its build stage has the binary.
const DOCKERFILE: &str = "tests/cluster/Dockerfile";
const STAGED: &str = "wssgate";

/// The static release binary. It has a target folder of its own, because its flags differ from all other builds'.
fn build_binary(root: &Path) -> Result<PathBuf, String> {
    let target = root.join("target/static");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--release", "--bin", "wssgate", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err("the static binary of the image does not build: see above".into());
    }
    Ok(target.join(TARGET).join("release/wssgate"))
}

/// An image of one static binary of the cache and nothing else.
fn build_small(image: &str, program: &str) -> Result<(), String> {
    let folder = programs::cache().join("images").join(program);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let file = folder.join("Dockerfile");
    let text = format!("FROM scratch\nCOPY {program} /{program}\nUSER 65532:65532\nENTRYPOINT [\"/{program}\"]\n");
    fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    build(image, &programs::path(program), &file, None)
}

/// Builds `file` with `binary` in its context, or in the folder of its stage `build`.
fn build(image: &str, binary: &Path, file: &Path, stage: Option<&Path>) -> Result<(), String> {
    let archive = archive(image);
    let contents = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let key = format!(
        "{:?}",
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[contents(binary)?, contents(file)?].concat())
    );
    let note = archive.with_extension("key");
    if archive.exists() && fs::read_to_string(&note).is_ok_and(|text| text == key) {
        return Ok(());
    }
    let context = file.parent().unwrap_or(file);
    let place = stage.map_or_else(|| context.join(binary.file_name().unwrap_or_default()), |stage| stage.join(STAGED));
    let wrong = |error| format!("{}: {error}", place.display());
    fs::create_dir_all(place.parent().unwrap_or(context)).map_err(wrong)?;
    fs::copy(binary, &place).map_err(wrong)?;

    // Its own storage: nothing is left in the machine's.
    let storage = programs::cache().join("buildah");
    let [root, runroot] = ["root", "run"].map(|name| storage.join(name).display().to_string());
    let buildah = ["buildah", "--storage-driver", "vfs", "--root", &root, "--runroot", &runroot];
    let file = file.display().to_string();
    let context = context.display().to_string();
    let stage = stage.map(|stage| format!("build={}", stage.display()));
    let mut line = buildah.to_vec();
    line.extend(["bud", "--isolation", "chroot", "--timestamp", "0", "--tag", image, "--file", &file]);
    if let Some(stage) = &stage {
        line.extend(["--build-context", stage]);
    }
    line.push(&context);
    call(&line)?;
    let _ = fs::remove_file(&archive);
    let destination = format!("docker-archive:{}:{image}", archive.display());
    call(&[&buildah[..], &["push", image, &destination]].concat())?;
    let _ = fs::remove_dir_all(&storage);
    fs::write(&note, key).map_err(|error| format!("{}: {error}", note.display()))
}
