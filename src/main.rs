//! argv in, exit code out.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use wssgate::args::{Arguments, Check, Command, Echo, Output, Run};
use wssgate::compile::provider::provider;
use wssgate::settings::{GatewayConfiguration, Overrides, Settings, SettingsError};
use wssgate::telemetry::format::Format;
use wssgate::telemetry::logging;
use wssgate::{api, app};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// All is well.
const OK: u8 = 0;
/// A route was not accepted, or the gateway failed while it ran.
const FAILED: u8 = 1;
/// A flag, a setting or a file could not be read.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before anything touches TLS: two providers in one tree would leave rustls without a default.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(FAILED, "the TLS provider could not be installed");
    }
    // A binary that was built for the validated module runs with it or not at all.
    if cfg!(feature = "fips") && !provider().fips() {
        return fail(FAILED, "the cryptographic module is not in FIPS mode");
    }
    match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Crd => print(&api::crd::yaml()),
        Command::Echo(arguments) => echo(&arguments),
    }
}

fn run(arguments: &Run) -> ExitCode {
    let overrides = arguments.overrides();
    let settings = match settings(arguments.config.as_deref()) {
        Ok(file) => Settings::merge(overrides.clone(), file),
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    if let Err(error) = log(settings.log_format) {
        return fail(USAGE, &error);
    }
    match app::run(settings, arguments.config.clone().map(|file| (file, overrides))) {
        Ok(()) => ExitCode::from(OK),
        Err(app::error::Error::Start(error)) => fail(USAGE, &error),
        Err(app::error::Error::Run(error)) => fail(FAILED, &error.to_string()),
    }
}

fn check(arguments: &Check) -> ExitCode {
    let overrides = Overrides { dev: arguments.dev, ..Overrides::default() };
    let settings = match settings(arguments.config.as_deref()) {
        Ok(file) => Settings::merge(overrides, file),
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    let checked = match app::check(&settings, &arguments.manifests, arguments.strict) {
        Ok(checked) => checked,
        Err(error) => return fail(USAGE, &error.to_string()),
    };
    let text = match arguments.output {
        Output::Table => checked.table(),
        Output::Json => checked.json(),
        Output::Github => checked.github(),
        Output::Sarif => checked.sarif(),
        Output::Junit => checked.junit(),
    };
    for line in checked.lines() {
        let _ = writeln!(io::stderr(), "{line}");
    }
    if print(&text) == ExitCode::from(OK) && checked.passed() { ExitCode::from(OK) } else { ExitCode::from(FAILED) }
}

fn echo(arguments: &Echo) -> ExitCode {
    if let Err(error) = log(arguments.log_format.unwrap_or_default()) {
        return fail(USAGE, &error);
    }
    match app::echo(arguments.listen) {
        Ok(()) => ExitCode::from(OK),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

fn settings(file: Option<&Path>) -> Result<Option<GatewayConfiguration>, SettingsError> {
    file.map(GatewayConfiguration::read).transpose()
}

/// Starts the log at the level that the environment names.
fn log(format: Format) -> Result<(), String> {
    let level = std::env::var(logging::LEVEL_VARIABLE).ok();
    logging::init(format, level.as_deref())
}

/// Prints to standard output; a reader that went away is not an error worth words.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(OK),
        Err(_) => ExitCode::from(FAILED),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "wssgate: {message}");
    ExitCode::from(code)
}
