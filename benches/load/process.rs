//! What the kernel says about a process and its children: CPU time and resident memory.

use std::fs;
use std::process::Command;

use crate::Failure;

/// A gateway's processes: the one that was started and the children it has made.
#[derive(Clone, Default)]
pub(crate) struct Family {
    pids: Vec<u32>,
}

impl Family {
    /// `root` and every process below it, now.
    pub(crate) fn of(root: u32) -> Result<Self, Failure> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process that ended meanwhile is none of ours.
            if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok()) {
                parents.push((pid, parent));
            }
        }
        let mut pids = vec![root];
        let mut at = 0;
        while at < pids.len() {
            let known = pids[at];
            pids.extend(parents.iter().filter(|(_, parent)| *parent == known).map(|(pid, _)| *pid));
            at += 1;
        }
        Ok(Self { pids })
    }

    /// All pids, the root first.
    pub(crate) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// User and system time of all of them together, in seconds (a resolution of 10 ms).
    pub(crate) fn cpu(&self) -> Result<f64, Failure> {
        self.pids.iter().map(|pid| cpu(*pid)).sum()
    }

    /// Resident memory of all of them together, in KiB.
    pub(crate) fn resident(&self) -> Result<f64, Failure> {
        self.pids.iter().map(|pid| resident(*pid)).sum()
    }
}

/// User and system time of one process, all threads, in seconds.
pub(crate) fn cpu(pid: u32) -> Result<f64, Failure> {
    let fields = stat(pid).ok_or("a gateway process ended")?;
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    // Fields 14 and 15 of proc(5), in clock ticks: always 100 a second on Linux.
    let (user, system) = ticks(11).zip(ticks(12)).ok_or("/proc/PID/stat has another form")?;
    Ok((user + system) / 100.0)
}

/// The fields of /proc/PID/stat after the command's name, which may hold blanks.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn resident(pid: u32) -> Result<f64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).ok_or("no Rss in smaps_rollup")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// The soft limit of open files, which the start raised to the hard one.
pub(crate) fn open_files() -> usize {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    match line.and_then(|line| line.split_whitespace().nth(3)) {
        Some("unlimited") => usize::MAX,
        Some(soft) => soft.parse().unwrap_or(1024),
        None => 1024,
    }
}

/// One line that says what was measured on: processor, kernel, cores, load average.
pub(crate) fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{cores} cores of {}, Linux {}",
        model.map_or("an unnamed processor", |(_, model)| model.trim()),
        kernel.split('-').next().unwrap_or_default().trim()
    )
}

/// The load average of the last minute: above 0.5 at the start means that somebody else is at work too.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Ends processes by their ids.
pub(crate) fn end(pids: &[u32]) {
    // One that has ended already is what was wanted.
    let _ended = Command::new("kill")
        .arg("-KILL")
        .args(pids.iter().map(u32::to_string))
        .stderr(std::process::Stdio::null())
        .status();
}
