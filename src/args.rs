//! The command line: commands, flags, help. No behaviour; what is given is handed on.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::objects::Key;
use crate::settings::Overrides;
use crate::settings::cluster::ClusterOverrides;
use crate::telemetry::format::Format;

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  a route was not accepted (check), or the gateway failed while it ran
  2  a flag, a setting or a file could not be read; the message names it";

/// The version, and whether the cryptography is the FIPS module.
const VERSION: &str =
    if cfg!(feature = "fips") { concat!(env!("CARGO_PKG_VERSION"), " (FIPS)") } else { env!("CARGO_PKG_VERSION") };

/// The WebSocket security gateway for Kubernetes.
///
/// Terminates wss, checks every handshake and every frame, and relays to your Services. Reads SecureWebSocketRoute
/// objects and everything they name from a cluster, or from manifests in a directory, and follows every change without
/// closing a socket.
#[derive(Debug, Parser)]
#[command(name = "wssgate", version = VERSION, max_term_width = 100, subcommand_required = true, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `wssgate` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Check manifests without serving them: print each route's conditions as a cluster would show them.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Print the CustomResourceDefinition of SecureWebSocketRoute.
    #[command(after_help = CRD_EXAMPLES)]
    Crd,
    /// Run a WebSocket backend that sends back every message, to try the gateway with.
    #[command(after_help = ECHO_EXAMPLES)]
    Echo(Echo),
}

const RUN_EXAMPLES: &str = "\
Examples:
  In a Pod, with its service account
    wssgate run --config /etc/wssgate/gateway.yaml

  Beside a cluster, with your own rights
    wssgate run --kubeconfig ~/.kube/config

  Try it: the quickstart's manifests, a certificate made on the spot, and a backend that echoes
    wssgate run --manifests manifests/quickstart --dev --echo 127.0.0.1:9000

  Serve manifests with their own certificates, on the usual ports
    wssgate run --manifests /etc/wssgate/manifests --listen [::]:443 --listen-http [::]:80

Flags win over the environment, the environment over the settings file. SIGTERM or Ctrl-C drains and ends with 0; a
second one ends at once.

Exit codes:
  0  stopped by a signal
  1  the gateway failed while it ran
  2  a flag, a setting or a file could not be read; the message names it";

const CHECK_EXAMPLES: &str = "\
Examples:
  A directory, as a cluster would judge it
    wssgate check manifests/production

  In a pipeline: what a chart renders, each route must be Ready, findings as annotations
    helm template chat ./chart | wssgate check --strict --output github -

  The quickstart, whose certificate is made on the spot
    wssgate check --dev --strict manifests/quickstart

Exit codes:
  0  every route is accepted; with --strict every route is Ready
  1  a route is not accepted (with --strict: not Ready), or a document does not parse
  2  the input could not be read, or has no route";

const CRD_EXAMPLES: &str = "\
Example:
  wssgate crd | kubectl apply -f -";

const ECHO_EXAMPLES: &str = "\
Example:
  wssgate echo --listen 127.0.0.1:9000";

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Settings file (GatewayConfiguration, YAML or JSON).
    #[arg(long, value_name = "FILE", env = "WSSGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Directory of Kubernetes manifests to serve, searched recursively and followed as it changes. Without it the
    /// objects come from a cluster.
    #[arg(long, value_name = "DIR", env = "WSSGATE_MANIFESTS")]
    pub manifests: Option<PathBuf>,
    /// The cluster to read. [default: KUBECONFIG, ~/.kube/config, or the service account of the Pod]
    #[arg(long, value_name = "FILE", env = "WSSGATE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces to read, with commas between them. [default: all]
    #[arg(long, value_name = "NAMES", env = "WSSGATE_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// The gateway's own Service; its addresses are shown in the status of routes.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "WSSGATE_PUBLISH_SERVICE", value_parser = service)]
    pub publish_service: Option<Key>,
    /// Whether one of several replicas is elected to write statuses; without an election this one does. [default: true]
    #[arg(long, value_name = "BOOL", env = "WSSGATE_LEADER_ELECTION")]
    pub leader_election: Option<bool>,
    /// For development: make self-signed certificates for Secrets that are missing. Never in production.
    #[arg(long, env = "WSSGATE_DEV", value_parser = clap::builder::FalseyValueParser::new())]
    pub dev: bool,
    /// Also run a WebSocket echo backend on this address.
    #[arg(long, value_name = "ADDR", env = "WSSGATE_ECHO")]
    pub echo: Option<SocketAddr>,
    /// Where clients connect with wss. [default: [::]:8443]
    #[arg(long, value_name = "ADDR", env = "WSSGATE_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Plain port: redirects to https and serves ACME challenges, never a WebSocket. [default: [::]:8080]
    #[arg(long, value_name = "ADDR", env = "WSSGATE_LISTEN_HTTP")]
    pub listen_http: Option<SocketAddr>,
    /// Health and metrics: /livez, /readyz, /metrics. [default: 127.0.0.1:9900]
    #[arg(long, value_name = "ADDR", env = "WSSGATE_ADMIN")]
    pub admin: Option<SocketAddr>,
    /// Threads that move bytes. [default: one per core]
    #[arg(long, value_name = "COUNT", env = "WSSGATE_WORKERS")]
    pub workers: Option<NonZeroUsize>,
    /// Form of the log (on stderr) and the access log (on stdout). [default: json]
    #[arg(long, value_name = "FORMAT", env = "WSSGATE_LOG_FORMAT")]
    pub log_format: Option<Format>,
}

impl Run {
    /// What the flags and the environment say, for [`crate::settings::Settings::merge`].
    pub fn overrides(&self) -> Overrides {
        Overrides {
            manifests: self.manifests.clone(),
            listen: self.listen,
            listen_http: self.listen_http,
            admin: self.admin,
            echo: self.echo,
            dev: self.dev,
            workers: self.workers,
            log_format: self.log_format,
            cluster: ClusterOverrides {
                kubeconfig: self.kubeconfig.clone(),
                watch_namespaces: self.watch_namespaces.clone(),
                publish_service: self.publish_service.clone(),
                leader_election: self.leader_election,
            },
        }
    }
}

fn service(text: &str) -> Result<Key, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Key::new(namespace, name))
        }
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

/// Flags of `check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Directories and files of Kubernetes manifests; `-` is standard input.
    #[arg(value_name = "PATH", required = true)]
    pub manifests: Vec<PathBuf>,
    /// How to print: a table for people, JSON, or findings for a pipeline.
    #[arg(long, value_name = "FORMAT", env = "WSSGATE_OUTPUT", default_value = "table")]
    pub output: Output,
    /// Demand that every route is Ready: exit code 1 also where a Secret, a Service or a certificate is missing.
    #[arg(long, env = "WSSGATE_STRICT", value_parser = clap::builder::FalseyValueParser::new())]
    pub strict: bool,
    /// Judge as `run --dev` does: Secrets that are missing get self-signed certificates.
    #[arg(long, env = "WSSGATE_DEV", value_parser = clap::builder::FalseyValueParser::new())]
    pub dev: bool,
    /// Settings file whose defaults, class and hostname suffixes the check uses.
    #[arg(long, value_name = "FILE", env = "WSSGATE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Flags of `echo`.
#[derive(Debug, Clone, Args)]
pub struct Echo {
    /// Where to listen, without TLS.
    #[arg(long, value_name = "ADDR", env = "WSSGATE_LISTEN", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// Form of the log, on stderr. [default: json]
    #[arg(long, value_name = "FORMAT", env = "WSSGATE_LOG_FORMAT")]
    pub log_format: Option<Format>,
}

/// How `check` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table.
    Table,
    /// A List of the routes with their status.
    Json,
    /// Annotations of GitHub Actions, a line each.
    Github,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit XML, a test case for each route.
    Junit,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_of_run_reaches_the_settings() {
        let line = "wssgate run --manifests m --dev --echo 127.0.0.1:1 --listen [::]:2 --listen-http [::]:3 --admin \
                    127.0.0.1:4 --workers 5 --log-format text --kubeconfig k --watch-namespaces a,b --publish-service \
                    c/d --leader-election false";
        let Command::Run(run) = parse(line).unwrap().command else { panic!("not run") };
        let expected = Overrides {
            manifests: Some("m".into()),
            listen: Some("[::]:2".parse().unwrap()),
            listen_http: Some("[::]:3".parse().unwrap()),
            admin: Some("127.0.0.1:4".parse().unwrap()),
            echo: Some("127.0.0.1:1".parse().unwrap()),
            dev: true,
            workers: NonZeroUsize::new(5),
            log_format: Some(Format::Text),
            cluster: ClusterOverrides {
                kubeconfig: Some("k".into()),
                watch_namespaces: vec!["a".into(), "b".into()],
                publish_service: Some(Key::new("c", "d")),
                leader_election: Some(false),
            },
        };
        assert_eq!(run.overrides(), expected);
    }

    #[test]
    fn a_wrong_flag_ends_with_exit_code_2() {
        for line in [
            "wssgate",
            "wssgate run --listen 8443",
            "wssgate run --bogus",
            "wssgate run --publish-service a",
            "wssgate check",
            "wssgate fly",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("wssgate --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn every_flag_has_help_and_its_own_variable() {
        for command in Arguments::command().get_subcommands() {
            for argument in command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
                let Some(long) = argument.get_long() else { continue };
                let expected = format!("WSSGATE_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(argument.get_env().and_then(|e| e.to_str()), Some(expected.as_str()));
            }
        }
    }

    #[test]
    fn help_names_the_exit_codes_and_shows_examples() {
        let mut command = Arguments::command();
        assert!(command.render_help().to_string().contains("Exit codes"));
        let run = command.find_subcommand_mut("run").unwrap().render_long_help().to_string();
        assert!(
            run.contains("Exit codes") && run.contains("--echo 127.0.0.1:9000") && run.contains("[::]:8443"),
            "{run}"
        );
    }
}
