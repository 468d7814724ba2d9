//! `wssgate check`: compiles manifests without serving them.

mod finding;
mod formats;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::schemas::SchemaReader;
use super::{clock, options};
use crate::compile::{self, Compiled};
use crate::settings::Settings;
use crate::source::Files;
use crate::source::loaded::Loaded;
use finding::Finding;

/// How long the check waits for all schemas of messages to be read.
const READ: Duration = Duration::from_secs(600);

/// What `check` found.
pub struct Checked {
    loaded: Loaded,
    compiled: Compiled,
    strict: bool,
}

/// Compiles manifests without serving them. `inputs` are directories, files, and `-` for standard input. With `strict` every
/// route must be Ready, without it every route must be accepted.
///
/// # Errors
/// An input cannot be read, or none of them has a route.
pub fn check(settings: &Settings, inputs: &[PathBuf], strict: bool) -> io::Result<Checked> {
    let loaded = Files::once(inputs, settings.watch_namespaces.iter().cloned())?;
    if loaded.places.is_empty() && loaded.problems.is_empty() {
        let names: Vec<String> = inputs.iter().map(|input| input.display().to_string()).collect();
        let text = format!(
            "{}: no SecureWebSocketRoute in {} files of manifests (*.yaml, *.yml, *.json); is it the right path?",
            names.join(", "),
            loaded.files
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let mut compiling = options::of_compile(settings);
    let Ok(compiled) = SchemaReader::start()?.compile(READ, |known| {
        compiling.schemas = known;
        Ok::<_, Infallible>(compile::compile(&loaded.objects, &compiling, clock::now(), None))
    });
    Ok(Checked { loaded, compiled, strict })
}

impl Checked {
    /// Whether the manifests are as they must be.
    pub fn passed(&self) -> bool {
        self.findings().iter().all(|finding| finding.level != finding::Level::Error)
    }

    /// What is wrong with documents, and what to know of objects that have no status of ours, such as a Certificate that no
    /// route wants: a line each.
    pub fn lines(&self) -> Vec<String> {
        let problems = self.loaded.problems.iter().map(ToString::to_string);
        problems.chain(self.compiled.remarks.iter().map(|(object, text)| format!("{object}: {text}"))).collect()
    }

    /// The conditions for people.
    pub fn table(&self) -> String {
        compile::status::report::table(&self.compiled.statuses, &self.compiled.snapshot)
    }

    /// The conditions as a List of routes.
    pub fn json(&self) -> String {
        compile::status::report::json(&self.compiled.statuses).to_string()
    }

    /// The findings as annotations of GitHub Actions.
    pub fn github(&self) -> String {
        formats::github(&self.findings())
    }

    /// The findings as SARIF 2.1.0.
    pub fn sarif(&self) -> String {
        formats::sarif(&self.findings())
    }

    /// The routes as test cases of JUnit.
    pub fn junit(&self) -> String {
        let routes = self.compiled.statuses.keys().map(ToString::to_string).collect();
        formats::junit(routes, &self.findings())
    }

    fn findings(&self) -> Vec<Finding> {
        finding::of(&self.loaded, &self.compiled.statuses, self.strict)
    }
}
