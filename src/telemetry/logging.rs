//! The log of the gateway itself, on stderr: set once at start.
//!
//! Knows the form and the level; not what is logged. Callers never hand it credentials, query strings or payload, and
//! the panic hook leaves out the panic's text, because that may quote any of them.

use std::io;
use std::panic;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriter;

use crate::telemetry::format::Format;

/// The environment variable that sets the level: `info`, `debug`, `wssgate=debug,warn` ...
pub const LEVEL_VARIABLE: &str = "WSSGATE_LOG";

/// Starts logging to stderr and installs the panic hook.
///
/// `level` is what [`LEVEL_VARIABLE`] holds; `None` means `info`.
///
/// # Errors
/// A sentence for the user if the level does not parse or logging was started before.
pub fn init(format: Format, level: Option<&str>) -> Result<(), String> {
    start(format, filter(level)?, io::stderr)?;
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "task panicked; this is a bug, please report it");
    }));
    Ok(())
}

fn filter(level: Option<&str>) -> Result<EnvFilter, String> {
    let level = level.map(str::trim).filter(|level| !level.is_empty()).unwrap_or("info");
    // The client for the API server logs answers that it cannot read, whole, and they may hold Secrets. What went wrong
    // is logged by those who asked.
    EnvFilter::try_new(format!("{level},kube_client=off"))
        .map_err(|_| format!("{LEVEL_VARIABLE}: not a log level or a list of target=level; write for example `info`"))
}

fn start<W>(format: Format, filter: EnvFilter, writer: W) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let started = match format {
        Format::Json => tracing::subscriber::set_global_default(json(filter, writer)),
        Format::Text => tracing::subscriber::set_global_default(text(filter, writer)),
    };
    started.map_err(|_| "logging was started twice".to_owned())
}

fn json<W>(filter: EnvFilter, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

fn text<W>(filter: EnvFilter, writer: W) -> impl tracing::Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt().with_ansi(false).with_target(false).with_env_filter(filter).with_writer(writer).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn taken(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_flat_and_has_no_more_than_what_was_said() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = json(filter(None).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(listener = "wss", address = "127.0.0.1:1", "listening");
            tracing::debug!("not at this level");
        });
        let line: serde_json::Value = serde_json::from_str(sink.taken().trim()).unwrap();
        let mut object = line.as_object().unwrap().clone();
        assert!(object.remove("timestamp").is_some());
        assert_eq!(
            serde_json::Value::Object(object),
            serde_json::json!({"level": "INFO", "message": "listening", "listener": "wss", "address": "127.0.0.1:1"})
        );
    }

    #[test]
    fn a_text_line_cannot_be_forged_by_a_value() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = text(filter(Some("info")).unwrap(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(name = "a\n2026-01-01 ERROR forged \u{1b}[31m", "read");
        });
        let text = sink.taken();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_level_that_does_not_parse_is_an_error_that_names_the_variable() {
        assert!(filter(Some("wssgate=loudly")).unwrap_err().contains(LEVEL_VARIABLE));
        assert!(filter(Some("wssgate=debug,warn")).is_ok());
        assert!(filter(Some(" ")).is_ok());
    }
}
