//! The access log: one line when a connection opens and one when it ends, joined by an id; refusals sampled.
//!
//! A line is written into one buffer by whoever has something to say and handed to one writer thread over a bounded
//! queue: a reader of stdout that stalls costs lines, which are counted, never time of a connection. Everything that a
//! client can choose is escaped and cut. Never a query string.

mod fields;
mod line;
mod sampling;
mod writer;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{Format, Metrics};
pub use fields::{Ended, Id, Opened, Refused, Volume};
use line::Line;
use sampling::Sampling;
use writer::Writer;

/// Where lines go. Clones share the queue, the ids and the sampling.
#[derive(Clone)]
pub struct AccessLog(Arc<Inner>);

struct Inner {
    format: Format,
    /// `None`: switched off.
    writer: Option<Writer>,
    prefix: u32,
    next: AtomicU32,
    started: Instant,
    refusals: Sampling,
}

impl AccessLog {
    /// Lines to stdout.
    ///
    /// # Errors
    /// The writer's thread cannot be started.
    pub fn stdout(format: Format, metrics: Metrics) -> io::Result<Self> {
        Self::to(format, metrics, io::stdout(), writer::QUEUE)
    }

    /// Lines to nowhere; ids are still given out.
    pub fn off() -> Self {
        Self::with(Format::Json, None)
    }

    fn to(format: Format, metrics: Metrics, sink: impl Write + Send + 'static, queue: usize) -> io::Result<Self> {
        Ok(Self::with(format, Some(Writer::start(sink, queue, metrics)?)))
    }

    fn with(format: Format, writer: Option<Writer>) -> Self {
        // The half of a keyed hash: differs from process to process, and says nothing of the machine.
        let prefix = (RandomState::new().build_hasher().finish() >> 32) as u32;
        let (next, started, refusals) = (AtomicU32::new(1), Instant::now(), Sampling::new());
        Self(Arc::new(Inner { format, writer, prefix, next, started, refusals }))
    }

    /// An id that no other connection of this process has, until 2^32 were given out.
    pub fn id(&self) -> Id {
        Id(u64::from(self.0.prefix) << 32 | u64::from(self.0.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes that a connection opened.
    pub fn opened(&self, opened: &Opened<'_>) {
        self.write(Opened::EVENT, |line| opened.write(line));
    }

    /// Writes that a connection ended.
    pub fn ended(&self, ended: &Ended<'_>) {
        self.write(Ended::EVENT, |line| ended.write(line));
    }

    /// Writes that a handshake was refused: of each reason a few in a second, the next one then says how many were
    /// suppressed.
    pub fn refused(&self, refused: &Refused<'_>) {
        self.refused_at(refused, self.0.started.elapsed().as_secs());
    }

    fn refused_at(&self, refused: &Refused<'_>, second: u64) {
        if self.0.writer.is_none() {
            return;
        }
        if let Some(suppressed) = self.0.refusals.admit(refused.reason, second) {
            self.write(Refused::EVENT, |line| refused.write(line, suppressed));
        }
    }

    /// Writes how many refusals were suppressed since the last line of their reason, and waits until everything is
    /// written, but not longer than `patience`. Blocks its thread: for the end of the process. Whether all was written.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(writer) = &self.0.writer else { return true };
        for (reason, suppressed) in self.0.refusals.take_suppressed() {
            self.write(Refused::EVENT, |line| fields::write_suppressed(line, reason, suppressed));
        }
        writer.flush(patience)
    }

    /// One line, unless the log is off.
    fn write(&self, event: &'static str, fields: impl FnOnce(&mut Line)) {
        let Some(writer) = &self.0.writer else { return };
        let mut line = Line::new(self.0.format, event);
        fields(&mut line);
        writer.send(line.finish());
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.0.format).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;
    use serde_json::Value;

    use super::line::VALUE;
    use super::*;
    use crate::reason::Reason;
    use crate::telemetry::Initiator;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, say: impl FnOnce(&AccessLog)) -> String {
        let sink = Sink::default();
        let log = AccessLog::to(format, Metrics::new(), sink.clone(), 64).unwrap();
        say(&log);
        assert!(log.flush(Duration::from_secs(10)));
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn json(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    fn opened(id: Id) -> Opened<'static> {
        Opened {
            id,
            route: "shop/chat",
            client: "203.0.113.7:51000".parse().unwrap(),
            proxy: None,
            host: "chat.example.com",
            path: "/chat?token=SECRET",
            origin: Some("https://evil.test/?token=SECRET"),
            subprotocol: None,
            tls: Some("TLSv1.3"),
            backend: Some("[2001:db8::1]:80".parse().unwrap()),
            audited: None,
        }
    }

    fn refused(reason: Reason) -> Refused<'static> {
        Refused {
            reason,
            status: reason.http_status(),
            client: "203.0.113.7:51000".parse().unwrap(),
            proxy: None,
            host: None,
            path: None,
            route: None,
            backend: None,
        }
    }

    #[test]
    fn the_lines_of_a_connection_are_joined_by_its_id_and_hold_no_query() {
        let text = written(Format::Json, |log| {
            let id = log.id();
            log.opened(&opened(id));
            log.ended(&Ended {
                id,
                route: "shop/chat",
                duration: Duration::from_millis(1500),
                reason: Reason::MessageTooBig,
                code: Some(1009),
                initiator: Initiator::Gateway,
                from_client: Volume { messages: 1, bytes: 2 },
                from_backend: Volume { messages: 3, bytes: 4 },
            });
        });
        assert!(!text.contains("SECRET") && !text.contains('?'), "{text}");
        let lines = json(&text);
        assert_eq!((&lines[0]["event"], &lines[1]["event"]), (&"opened".into(), &"closed".into()));
        assert_eq!(lines[0]["connection_id"], lines[1]["connection_id"]);
        assert_eq!(lines[0]["connection_id"].as_str().unwrap().len(), 16);
        assert_eq!(lines[0]["backend"], "[2001:db8::1]:80");
        assert_eq!(lines[0].get("subprotocol"), None);
        assert_eq!(lines[1]["close_code"], 1009);
        assert_eq!(lines[1]["duration_ms"], 1500);
        assert_eq!(lines[1]["bytes_from_backend"], 4);
        let stamp = lines[0]["timestamp"].as_str().unwrap();
        assert!(stamp.parse::<Timestamp>().is_ok() && stamp.len() == "2026-01-01T00:00:00.000Z".len(), "{stamp}");
    }

    #[test]
    fn ids_differ() {
        let log = AccessLog::off();
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| log.id()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn a_value_of_a_client_can_neither_forge_a_line_nor_make_it_long() {
        let long = "ä".repeat(10_000);
        for format in [Format::Json, Format::Text] {
            let text = written(format, |log| {
                let path = "/a\n{\"event\":\"opened\"} \" \\ \u{202e}\u{1b}[31m";
                log.opened(&Opened { path, host: &long, origin: Some(""), ..opened(log.id()) });
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.is_ascii() && text.bytes().all(|b| b == b'\n' || !b.is_ascii_control()), "{text}");
            assert!(text.len() < 2500, "{}", text.len());
            if format == Format::Json {
                let line = &json(&text)[0];
                assert_eq!(line["path"], "/a\n{\"event\":\"opened\"} \" \\ \u{202e}\u{1b}[31m");
                assert_eq!(line["host"].as_str().unwrap().len(), VALUE);
            }
        }
    }

    #[test]
    fn text_lines_read_well() {
        let text = written(Format::Text, |log| log.opened(&opened(log.id())));
        assert!(text.contains(" event=opened ") && text.contains(" client=203.0.113.7:51000 host=chat.example.com"));
    }

    #[test]
    fn a_flood_of_refusals_costs_a_few_lines_and_is_counted_in_the_next() {
        let text = written(Format::Json, |log| {
            for _ in 0..1000 {
                log.refused_at(&refused(Reason::OriginDenied), 5);
            }
            log.refused_at(&refused(Reason::BadHost), 5);
            log.refused_at(&refused(Reason::OriginDenied), 6);
            log.refused_at(&refused(Reason::OriginDenied), 6);
        });
        let lines = json(&text);
        let of = |reason: &str| lines.iter().filter(|l| l["reason"] == reason).collect::<Vec<_>>();
        assert_eq!(of("bad_host").len(), 1);
        let denied = of("origin_denied");
        assert_eq!(denied.len(), 12);
        assert_eq!(denied[0]["status"], 403);
        assert_eq!(denied[10]["suppressed"], 990);
        assert_eq!(denied[11].get("suppressed"), None);
    }

    #[test]
    fn what_was_suppressed_is_said_at_the_end() {
        let text = written(Format::Json, |log| {
            for _ in 0..15 {
                log.refused_at(&refused(Reason::OriginDenied), 1);
            }
        });
        assert_eq!(json(&text).last().unwrap()["suppressed"], 5);
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_that_are_counted_and_blocks_nobody() {
        struct Stuck(Arc<Mutex<()>>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                drop(self.0.lock());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap();
        let metrics = Metrics::new();
        let log = AccessLog::to(Format::Json, metrics.clone(), Stuck(Arc::clone(&gate)), 4).unwrap();
        for _ in 0..1000 {
            log.opened(&opened(log.id()));
        }
        assert!(!log.flush(Duration::from_millis(10)));
        let text = metrics.encode();
        let dropped = text.lines().find_map(|l| l.strip_prefix("wssgate_access_log_lines_dropped_total ")).unwrap();
        assert!(dropped.parse::<u64>().unwrap() > 500, "{dropped}");
        drop(held);
        assert!(log.flush(Duration::from_secs(10)));
    }
}
