//! The access log: one line when a connection opens and one when it ends, joined by an id; refusals sampled.
//!
//! Each worker writes lines into a buffer of its own ([`WorkerLog`]) and hands them in batches to one writer thread, over a
//! bounded queue: a reader of stdout that stalls costs lines, which are counted, never time of a connection. Everything that
//! a client can choose is escaped and cut. Never a query string.

pub mod fields;
mod line;
pub mod log;
mod sampling;
pub mod worker;
mod writer;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use jiff::Timestamp;
    use serde_json::Value;

    use std::io::{self, Write};
    use std::sync::Arc;
    use std::time::Duration;

    use super::fields::{Ended, Id, Opened, Refused, Volume};
    use super::line::VALUE;
    use super::log::AccessLog;
    use super::worker::WorkerLog;
    use crate::reason::Reason;
    use crate::telemetry::format::Format;
    use crate::telemetry::initiator::Initiator;
    use crate::telemetry::metrics::Metrics;

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

    fn written(format: Format, say: impl FnOnce(&WorkerLog)) -> String {
        let sink = Sink::default();
        let log = AccessLog::to(format, Metrics::new(), sink.clone(), 64).unwrap();
        say(&WorkerLog::new(log.clone()));
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
            backend_status: None,
            detail: None,
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
                detail: None,
                from_client: Volume { messages: 1, bytes: 2, dropped: 5, ..Volume::default() },
                from_backend: Volume { messages: 3, bytes: 4, throttled: 6, ..Volume::default() },
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
        assert_eq!((&lines[1]["dropped_from_client"], &lines[1]["throttled_from_backend"]), (&5.into(), &6.into()));
        assert_eq!((lines[1].get("throttled_from_client"), lines[1].get("dropped_from_backend")), (None, None));
        let stamp = lines[0]["timestamp"].as_str().unwrap();
        assert!(stamp.parse::<Timestamp>().is_ok() && stamp.len() == "2026-01-01T00:00:00.000Z".len(), "{stamp}");
    }

    #[test]
    fn ids_differ() {
        let log = WorkerLog::new(AccessLog::off());
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
        let worker = WorkerLog::new(log.clone());
        for _ in 0..10_000 {
            worker.opened(&opened(worker.id()));
        }
        assert!(!log.flush(Duration::from_millis(10)));
        let text = metrics.encode();
        let dropped = text.lines().find_map(|l| l.strip_prefix("wssgate_access_log_lines_dropped_total ")).unwrap();
        // What fits: one batch in the writer's hands, four in the queue, and what the worker keeps.
        assert!((5000..9900).contains(&dropped.parse::<u64>().unwrap()), "{dropped}");
        drop(held);
        drop(worker);
        assert!(log.flush(Duration::from_secs(10)));
    }

    /// Counts how often it was written to.
    #[derive(Clone, Default)]
    struct Calls(Arc<Mutex<Vec<String>>>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn many_lines_are_written_at_once_and_none_is_lost_when_the_worker_ends() {
        let calls = Calls::default();
        let log = AccessLog::to(Format::Json, Metrics::new(), calls.clone(), 64).unwrap();
        let worker = WorkerLog::new(log.clone());
        for _ in 0..1000 {
            worker.opened(&opened(worker.id()));
        }
        drop(worker);
        assert!(log.flush(Duration::from_secs(10)));
        let calls = calls.0.lock().unwrap();
        let lines: usize = calls.iter().map(|call| json(call).len()).sum();
        assert_eq!(lines, 1000, "whole lines, all of them");
        assert!(calls.len() < 20, "{} calls", calls.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_handed_over_before_it_is_late() {
        let calls = Calls::default();
        let log = AccessLog::to(Format::Json, Metrics::new(), calls.clone(), 64).unwrap();
        let worker = WorkerLog::new(log.clone());
        let local = tokio::task::LocalSet::new();
        local.spawn_local(worker.clone().hand_over_in_time());
        let written = async || {
            assert!(log.flush(Duration::from_secs(10)));
            calls.0.lock().unwrap().len()
        };
        local
            .run_until(async {
                for round in 0..3 {
                    worker.opened(&opened(worker.id()));
                    worker.opened(&opened(worker.id()));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    assert_eq!(written().await, round, "not before its time");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    assert_eq!(written().await, round + 1, "both in one call");
                }
            })
            .await;
    }
}
