//! The load benchmark: wssgate beside nginx, HAProxy and Sozu, one core each, in one run on the loopback.
//!
//! `cargo bench --bench load` measures; `docs/performance.md` says how, and how to read the table.
//! The run starts itself again under `taskset` on core 1 with the limit of open files raised: the load generator and the
//! echo backend live in that one thread, and each gateway in turn has core 0.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to a terminal")]

mod attack;
mod attacker;
mod backend;
mod cell;
mod client;
mod frames;
mod gateway;
mod judgement;
mod method;
mod options;
mod process;
mod reliability;
mod report;
#[path = "../say/mod.rs"]
mod say;
mod shares;
mod tenants;
mod tls;

use std::process::{Command, ExitCode};

use clap::Parser as _;
use tokio::task::LocalSet;
use tokio::time::timeout;

use cell::{CELLS, Cell, Place, Scale};
use gateway::{Gateway, Identity, Kind};
use options::Options;
use report::Report;

/// Why something could not be measured, for the terminal.
type Failure = Box<dyn std::error::Error>;

/// Set in the run that is pinned already.
const PINNED: &str = "WSSGATE_LOAD_PINNED";

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("nothing was measured: run it with `cargo bench --bench load`");
        return ExitCode::SUCCESS;
    }
    let run = if std::env::var_os(PINNED).is_some() { measure(&options) } else { pin() };
    match run {
        Ok(code) => code,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again on core 1, with as many open files as it may have.
fn pin() -> Result<ExitCode, Failure> {
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("it takes two cores: one for the gateway, one for the load".into());
    }
    let script = "ulimit -n \"$(ulimit -Hn)\"; exec taskset -c 1 \"$@\"";
    let status = Command::new("sh")
        .args(["-c", script, "load"])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(PINNED, "yes")
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(options: &Options) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // Interrupted, the run is dropped here, and with it the gateway that it has started.
        tokio::select! {
            done = attack_or_measure(options) => done,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    })
}

async fn attack_or_measure(options: &Options) -> Result<ExitCode, Failure> {
    let (Some(attack), Some(target), Some(seconds)) = (options.attack, options.target, options.seconds) else {
        return run(options).await;
    };
    let time = std::time::Duration::try_from_secs_f64(seconds)?;
    attacker::run(attack, target, time, &options.fields).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run(options: &Options) -> Result<ExitCode, Failure> {
    if options.write
        && !options.only.is_empty()
        && !matches!(options.only.as_slice(), [one] if ["auth", "attack", "judged", "reliability"].contains(&one.as_str()))
    {
        return Err("--write needs all rows, or all those of --only auth, attack, judged or reliability".into());
    }
    let load_before = process::load_average();
    let repetitions = if options.quick { 1 } else { options.repetitions };
    let identity = Identity::new()?;
    let place = Place { identity: &identity, backend: backend::start()?, scale: Scale::new(options.quick) };
    if place.scale.idle < 5000 && !options.quick {
        println!("the limit of open files is low: {} idle connections in place of 5000", place.scale.idle);
    }
    let mut report = Report::default();
    let gateways = find(options, &place, &mut report).await;
    if gateways.is_empty() {
        return Err("there is nothing to measure".into());
    }
    for (name, cell) in CELLS {
        if !options.wants_row(name) {
            continue;
        }
        for repetition in 0..repetitions {
            for at in 0..gateways.len() {
                // Each repetition begins with another gateway.
                let gateway = &gateways[(at + usize::from(repetition)) % gateways.len()];
                if cell.is_own() && gateway.kind.is_peer() {
                    continue;
                }
                one(&place, gateway, name, cell, &mut report).await;
            }
        }
    }
    let sections = report.sections(&gateways, repetitions, load_before);
    for (_, tables) in &sections {
        println!("\n{tables}");
    }
    for failure in &report.failures {
        eprintln!("failed: {failure}");
    }
    if options.write {
        report::write_document(&sections)?;
        println!("the pages are written");
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The gateways that were asked for, are installed, and work.
async fn find(options: &Options, place: &Place<'_>, report: &mut Report) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for kind in Kind::ALL {
        let asked = kind != Kind::Against || options.against.is_some();
        if !asked || !options.wants_gateway(kind.name()) {
            continue;
        }
        let Some(gateway) = Gateway::find(kind, options.against.as_deref()) else {
            println!("{}: not installed", kind.name());
            report.missing.push((kind, "not installed".into()));
            continue;
        };
        match place.check(&gateway).await {
            Ok(()) => {
                println!("{} {}: works", kind.name(), gateway.version);
                gateways.push(gateway);
            }
            Err(error) => {
                println!("{} {}: {error}", kind.name(), gateway.version);
                // A peer may be absent; a gateway of ours that does not work is a failure of the run.
                if !kind.is_peer() {
                    report.failures.push(format!("{}: {error}", kind.name()));
                }
                report.missing.push((kind, error.to_string()));
            }
        }
    }
    gateways
}

async fn one(place: &Place<'_>, gateway: &Gateway, name: &'static str, cell: Cell, report: &mut Report) {
    let kind = gateway.kind;
    let limit = std::time::Duration::from_secs(180);
    let measured = match timeout(limit, place.measure(gateway, name, cell)).await {
        Ok(measured) => measured,
        Err(_) => Err("it took longer than three minutes".into()),
    };
    match measured {
        Ok(values) => {
            for value in values {
                let rate = if value.rate > 0.0 { format!("{:>9.0}/s  ", value.rate) } else { String::new() };
                println!("{:<18} {:<8} {:>9.3}  {rate}{}", value.row, kind.name(), value.value, value.note);
                report.add(kind, value);
            }
        }
        Err(error) => {
            println!("{name:<18} {:<8} failed: {error}", kind.name());
            report.failures.push(format!("{name} {}: {error}", kind.name()));
        }
    }
}
