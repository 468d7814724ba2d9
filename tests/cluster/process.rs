//! A program in the background, its log in a file, ended by its own id.
//!
//! Nothing that a test starts outlives the run: the kernel ends whatever is left in the sandbox when the runner does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in the folder `logs`, behind what an earlier one left there.
    pub fn start(name: &str, logs: &Path, command: &mut Command) -> Self {
        fs::create_dir_all(logs).unwrap();
        let log = logs.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        Self { name: name.to_owned(), child: Mutex::new(child), log }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Panics, with the end of its log, if it is no longer running.
    pub fn must_run(&self) {
        if let Some(status) = self.ended() {
            panic!("{} ended: {status}\n{}", self.name, self.tail(30));
        }
    }

    /// All it printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it printed.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// SIGTERM, and waits; SIGKILL when `limit` is over. How it ended.
    pub fn terminate(&self, limit: Duration) -> ExitStatus {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if start.elapsed() > limit {
                let mut child = self.child.lock().unwrap();
                let _ = child.kill();
                return child.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Polls until `check` gives a value; panics with `what` after `limit`.
pub fn until<T>(limit: Duration, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < limit, "after {limit:?} still waiting: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
