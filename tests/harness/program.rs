//! Programs of `tests/messages_clients/`: each is a server and its clients, on either side of a gateway.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{packages, within};

/// How long a program may take for one case: it is slow to start where many tests run at once.
const PROGRAM: Duration = Duration::from_secs(60);

/// The folder of the programs.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messages_clients");

/// A program that runs.
pub struct Program {
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Where its server listens.
    pub port: u16,
}

impl Program {
    /// One in JavaScript: its server listens on loopback, and its clients find every host there. `authority` is the file
    /// of the authority that they trust.
    pub async fn node(name: &str, authority: &Path) -> Self {
        Self::start(Self::of_node(name, authority)).await
    }

    /// The charge point and the central system, in Python, the same way.
    pub async fn charge_point(version: &str, authority: &Path) -> Self {
        Self::start(Self::of_charge_point(version, authority)).await
    }

    /// Either of them, on other addresses: its server listens on `listen`, and its clients find every host at `gateway`.
    pub async fn elsewhere(name: &str, authority: &Path, listen: Ipv4Addr, gateway: Ipv4Addr) -> Self {
        let is_node = Path::new(name).extension().is_some_and(|extension| extension == "js");
        let make = if is_node { Self::of_node } else { Self::of_charge_point };
        let mut command = make(name, authority);
        command.env("LISTEN", listen.to_string()).env("GATEWAY", gateway.to_string());
        Self::start(command).await
    }

    fn of_node(name: &str, authority: &Path) -> Command {
        let mut command = Command::new("node");
        command.arg(Path::new(FOLDER).join(name));
        command.env("NODE_PATH", packages::node_modules()).env("NODE_EXTRA_CA_CERTS", authority);
        command
    }

    fn of_charge_point(version: &str, authority: &Path) -> Command {
        let mut command = Command::new(packages::python());
        command.arg(Path::new(FOLDER).join("charge_point.py")).arg(version).arg(authority);
        command
    }

    /// Another that keeps to the same lines.
    pub async fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut program = Self { _child: child, input, output: BufReader::new(output).lines(), port: 0 };
        let said = program.line().await.expect("the port of the program's server");
        program.port = said["port"].as_u64().unwrap().try_into().unwrap();
        program
    }

    async fn line(&mut self) -> Option<Value> {
        let line = within(PROGRAM, "the program", self.output.next_line()).await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
    }

    /// What came of each case, with the gateway that listens on `port` in between.
    pub async fn cases(&mut self, port: u16) -> BTreeMap<String, Value> {
        self.input.write_all(format!("{port}\n").as_bytes()).await.unwrap();
        let mut cases = BTreeMap::new();
        while let Some(case) = self.line().await {
            cases.insert(case["case"].as_str().unwrap().to_owned(), case);
        }
        cases
    }
}
