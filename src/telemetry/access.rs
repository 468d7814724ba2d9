//! The access log: one line when a connection opens and one when it ends, joined by an id; refusals sampled.
//!
//! A line is written into one buffer by whoever has something to say and handed to one writer thread over a bounded
//! queue: a reader of stdout that stalls costs lines, which are counted, never time of a connection. Everything that a
//! client can choose is escaped and cut. Never a query string.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::Line;
use super::{Format, Initiator, Metrics};
use crate::reason::Reason;

/// Lines that wait for the writer at most; of about 400 bytes each.
const QUEUE: usize = 8192;
/// Refusals of one reason that are written in one second at most.
const REFUSALS_PER_SECOND: u32 = 10;

/// The id that joins the two lines of a connection: 16 hexadecimal digits, the first half of them this process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A connection was admitted and answered with 101.
#[derive(Debug, Clone, Copy)]
pub struct Opened<'a> {
    /// Joins this line with that of the end.
    pub id: Id,
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// The client's address; port 0 where it is not known.
    pub client: SocketAddr,
    /// The trusted proxy that spoke for the client.
    pub proxy: Option<SocketAddr>,
    /// The host of the request.
    pub host: &'a str,
    /// The path of the request; anything from a `?` on is left out.
    pub path: &'a str,
    /// The Origin header; anything from a `?` on is left out.
    pub origin: Option<&'a str>,
    /// The subprotocol that was agreed, if the route lists it: any other may be a credential in disguise.
    pub subprotocol: Option<&'a str>,
    /// The TLS version, as `TLSv1.3`.
    pub tls: Option<&'a str>,
    /// The endpoint that serves it.
    pub backend: Option<SocketAddr>,
    /// What Enforce would have refused it for.
    pub audited: Option<Reason>,
}

/// A connection ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The id of the line when it opened.
    pub id: Id,
    /// `namespace/name` of the route.
    pub route: &'a str,
    /// How long it was open.
    pub duration: Duration,
    /// Why it ended.
    pub reason: Reason,
    /// The close code that was sent or received.
    pub code: Option<u16>,
    /// Who ended it.
    pub initiator: Initiator,
    /// Messages and payload bytes of the client.
    pub from_client: Volume,
    /// Messages and payload bytes of the backend.
    pub from_backend: Volume,
}

/// What went one way over one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// Whole data messages.
    pub messages: u64,
    /// Payload bytes of data frames.
    pub bytes: u64,
}

/// A handshake was refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Why.
    pub reason: Reason,
    /// The HTTP status of the answer; `None` where there is no answer.
    pub status: Option<u16>,
    /// The client's address; port 0 where it is not known.
    pub client: SocketAddr,
    /// The trusted proxy that spoke for the client.
    pub proxy: Option<SocketAddr>,
    /// The host of the request, if it came so far.
    pub host: Option<&'a str>,
    /// The path of the request, if it came so far; anything from a `?` on is left out.
    pub path: Option<&'a str>,
    /// `namespace/name` of the route, if one was found.
    pub route: Option<&'a str>,
    /// The endpoint that was asked, if it came so far.
    pub backend: Option<SocketAddr>,
}

/// Where lines go. Clones share the queue, the ids and the sampling.
#[derive(Clone)]
pub struct AccessLog(Arc<Inner>);

struct Inner {
    format: Format,
    /// `None`: switched off.
    queue: Option<SyncSender<Message>>,
    metrics: Metrics,
    prefix: u32,
    next: AtomicU32,
    started: Instant,
    refusals: Vec<Mutex<Window>>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The refusals of one reason in the second that is counted now.
#[derive(Default)]
struct Window {
    second: u64,
    written: u32,
    suppressed: u64,
}

impl Window {
    /// Whether one more may be written in this second, and how many were suppressed since the last that was.
    fn admit(&mut self, second: u64) -> Option<u64> {
        if self.second != second {
            self.second = second;
            self.written = 0;
        }
        if self.written < REFUSALS_PER_SECOND {
            self.written += 1;
            Some(std::mem::take(&mut self.suppressed))
        } else {
            self.suppressed += 1;
            None
        }
    }
}

impl AccessLog {
    /// Lines to stdout.
    ///
    /// # Errors
    /// The writer's thread cannot be started.
    pub fn stdout(format: Format, metrics: Metrics) -> io::Result<Self> {
        Self::to(format, metrics, io::stdout(), QUEUE)
    }

    /// Lines to nowhere; ids are still given out.
    pub fn off() -> Self {
        Self::with(Format::Json, Metrics::new(), None)
    }

    fn to(format: Format, metrics: Metrics, sink: impl Write + Send + 'static, queue: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let counted = metrics.clone();
        thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&receiver, sink, &counted))?;
        Ok(Self::with(format, metrics, Some(sender)))
    }

    fn with(format: Format, metrics: Metrics, queue: Option<SyncSender<Message>>) -> Self {
        // The half of a keyed hash: differs from process to process, and says nothing of the machine.
        let prefix = (RandomState::new().build_hasher().finish() >> 32) as u32;
        let refusals = Reason::ALL.iter().map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner {
            format,
            queue,
            metrics,
            prefix,
            next: AtomicU32::new(1),
            started: Instant::now(),
            refusals,
        }))
    }

    /// An id that no other connection of this process has, until 2^32 were given out.
    pub fn id(&self) -> Id {
        Id(u64::from(self.0.prefix) << 32 | u64::from(self.0.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Writes that a connection opened.
    pub fn opened(&self, opened: &Opened<'_>) {
        let Some(mut line) = self.line("opened") else { return };
        line.shown("connection_id", opened.id);
        line.text("route", opened.route);
        client(&mut line, opened.client, opened.proxy);
        line.text("host", opened.host);
        line.text("path", before_query(opened.path));
        line.maybe_text("origin", opened.origin.map(before_query));
        line.maybe_text("subprotocol", opened.subprotocol);
        line.maybe_text("tls", opened.tls);
        line.maybe_shown("backend", opened.backend);
        line.maybe_text("audit_violation", opened.audited.map(Reason::label));
        self.send(line);
    }

    /// Writes that a connection ended.
    pub fn ended(&self, ended: &Ended<'_>) {
        let Some(mut line) = self.line("closed") else { return };
        line.shown("connection_id", ended.id);
        line.text("route", ended.route);
        line.number("duration_ms", u64::try_from(ended.duration.as_millis()).unwrap_or(u64::MAX));
        line.text("reason", ended.reason.label());
        line.maybe_number("close_code", ended.code);
        line.text("initiator", ended.initiator.label());
        line.number("messages_from_client", ended.from_client.messages);
        line.number("bytes_from_client", ended.from_client.bytes);
        line.number("messages_from_backend", ended.from_backend.messages);
        line.number("bytes_from_backend", ended.from_backend.bytes);
        self.send(line);
    }

    /// Writes that a handshake was refused: of each reason a few in a second, the next one then says how many were
    /// suppressed.
    pub fn refused(&self, refused: &Refused<'_>) {
        self.refused_at(refused, self.0.started.elapsed().as_secs());
    }

    fn refused_at(&self, refused: &Refused<'_>, second: u64) {
        if self.0.queue.is_none() {
            return;
        }
        let window = self.0.refusals.get(refused.reason as usize);
        let admitted = window.map(|one| one.lock().unwrap_or_else(PoisonError::into_inner).admit(second));
        let Some(Some(suppressed)) = admitted else { return };
        let Some(mut line) = self.line("refused") else { return };
        line.text("reason", refused.reason.label());
        line.maybe_number("status", refused.status);
        client(&mut line, refused.client, refused.proxy);
        line.maybe_text("host", refused.host);
        line.maybe_text("path", refused.path.map(before_query));
        line.maybe_text("route", refused.route);
        line.maybe_shown("backend", refused.backend);
        if suppressed > 0 {
            line.number("suppressed", suppressed);
        }
        self.send(line);
    }

    /// Writes how many refusals were suppressed since the last line of their reason, and waits until everything is
    /// written, but not longer than `patience`. Blocks its thread: for the end of the process. Whether all was written.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(queue) = &self.0.queue else { return true };
        for (reason, window) in Reason::ALL.iter().zip(&self.0.refusals) {
            let suppressed = std::mem::take(&mut window.lock().unwrap_or_else(PoisonError::into_inner).suppressed);
            if suppressed > 0
                && let Some(mut line) = self.line("refused")
            {
                line.text("reason", reason.label());
                line.number("suppressed", suppressed);
                self.send(line);
            }
        }
        let deadline = Instant::now() + patience;
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(full) = queue.try_send(message) {
            message = match full {
                std::sync::mpsc::TrySendError::Full(message) if Instant::now() < deadline => message,
                _ => return false,
            };
            thread::sleep(Duration::from_millis(1));
        }
        !matches!(
            wait.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
        )
    }

    fn line(&self, event: &'static str) -> Option<Line> {
        self.0.queue.as_ref()?;
        Some(Line::new(self.0.format, event))
    }

    fn send(&self, line: Line) {
        let Some(queue) = &self.0.queue else { return };
        if queue.try_send(Message::Line(line.finish())).is_err() {
            self.0.metrics.access_log_line_dropped();
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("format", &self.0.format).finish_non_exhaustive()
    }
}

/// Writes lines until the last sender is gone; flushes whenever the queue is empty.
fn write_all(queue: &Receiver<Message>, sink: impl Write, metrics: &Metrics) {
    let mut sink = BufWriter::with_capacity(32 * 1024, sink);
    while let Ok(first) = queue.recv() {
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Message::Line(line)) => {
                    if sink.write_all(&line).is_err() {
                        metrics.access_log_line_dropped();
                    }
                }
                Ok(Message::Flush(done)) => {
                    let _ = sink.flush();
                    let _ = done.send(());
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            next = queue.try_recv();
        }
        let _ = sink.flush();
    }
}

/// The client and whoever spoke for it.
fn client(line: &mut Line, client: SocketAddr, proxy: Option<SocketAddr>) {
    match client.port() {
        0 => line.shown("client", client.ip()),
        _ => line.shown("client", client),
    }
    line.maybe_shown("proxy", proxy);
}

/// What stands before a query or a fragment.
fn before_query(value: &str) -> &str {
    value.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::line::VALUE;
    use super::*;
    use jiff::Timestamp;
    use serde_json::Value;

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
