//! A relay between two fake peers, and a clock that the test moves.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::route_id::RouteId;
use crate::policy::authentication::{Authentication, External, Kind, Method};
use crate::policy::question::KeptQuestion;
use crate::policy::{Connection, Content, Facts, Handshake, Heartbeat, Origin, Pacing, Policy, Tunnels};
use crate::proxy::clock::{TICKS, Tick};
use crate::proxy::io::buffers::Buffers;
use crate::proxy::io::{Fill, Peer};
use crate::proxy::limits::subject_rate::SubjectRates;
use crate::proxy::relay::report::Report;
use crate::proxy::relay::session::Session;
use crate::proxy::relay::stage::HeldBytes;
use crate::proxy::relay::{Parts, Relay};
use crate::reason::Reason;
use crate::snapshot::live::Live;
use crate::snapshot::{Balance, Host, HostTls, PathMatch, Route, RouteState, Snapshot, Timeouts};
use crate::telemetry::access::fields::Detail;
use crate::telemetry::access::log::AccessLog;
use crate::telemetry::access::worker::WorkerLog;
use crate::telemetry::initiator::Initiator;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::{MessageSizes, RouteMetrics};
use crate::ws::close;
use crate::ws::frame::{Header, Opcode, mask, write};
use crate::ws::message::Limits;

/// The key under which the fake client masks.
pub(super) const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
/// The wall clock when a test begins.
pub(super) const WALL: i64 = 1_800_000_000;

/// One end of a fake connection, as its far side sees it.
#[derive(Debug)]
pub(super) struct Wire {
    /// What the far side sent, read by read.
    incoming: VecDeque<Vec<u8>>,
    /// What comes behind it: nothing yet, FIN, or a reset.
    end: Option<Result<(), io::ErrorKind>>,
    /// What the far side has received.
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// How much more the far side takes.
    pub(super) room: usize,
    /// Writes fail from now on.
    pub(super) broken: bool,
    /// How often something was sent.
    pub(super) packets: usize,
    /// Our direction ended; whether with close_notify.
    pub(super) shut: Option<bool>,
}

/// A fake peer of the relay. Clones are the same peer.
#[derive(Debug, Clone)]
pub(super) struct Fake(Rc<RefCell<Wire>>);

impl Fake {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(Wire {
            incoming: VecDeque::new(),
            end: None,
            received: Vec::new(),
            unsent: Vec::new(),
            room: usize::MAX,
            broken: false,
            packets: 0,
            shut: None,
        })))
    }

    pub(super) fn sends(&self, bytes: impl Into<Vec<u8>>) {
        self.0.borrow_mut().incoming.push_back(bytes.into());
    }

    /// FIN, without a Close frame.
    pub(super) fn ends(&self) {
        self.0.borrow_mut().end = Some(Ok(()));
    }

    pub(super) fn resets(&self) {
        self.0.borrow_mut().end = Some(Err(io::ErrorKind::ConnectionReset));
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Wire)) {
        change(&mut self.0.borrow_mut());
    }

    /// Reads of the far side that nobody has made yet.
    pub(super) fn unread(&self) -> usize {
        self.0.borrow().incoming.len()
    }

    pub(super) fn packets(&self) -> usize {
        self.0.borrow().packets
    }

    pub(super) fn shut(&self) -> Option<bool> {
        self.0.borrow().shut
    }

    pub(super) fn received(&self) -> Vec<u8> {
        self.0.borrow().received.clone()
    }

    /// What the far side has received, frame by frame, in words; the rest of a frame that is not whole as `...`.
    pub(super) fn frames(&self) -> Vec<String> {
        let bytes = self.received();
        let masked = bytes.get(1).is_some_and(|byte| byte & 0x80 != 0);
        let (mut at, mut words) = (0, Vec::new());
        while at < bytes.len() {
            let Ok(Some((header, size))) = Header::parse(&bytes[at..], masked) else {
                words.push("...".to_owned());
                break;
            };
            let end = at + size + usize::try_from(header.len).unwrap();
            let whole = end <= bytes.len();
            let mut payload = bytes[at + size..end.min(bytes.len())].to_vec();
            if let Some(key) = header.mask {
                mask(&mut payload, key, 0);
            }
            words.push(word(&header, &payload, whole));
            at = end;
        }
        words
    }
}

fn word(header: &Header, payload: &[u8], whole: bool) -> String {
    let name = match header.opcode {
        Opcode::Continuation => "more",
        Opcode::Text => "text",
        Opcode::Binary => "binary",
        Opcode::Ping => "ping",
        Opcode::Pong => "pong",
        Opcode::Close => {
            return match payload.split_first_chunk::<2>() {
                Some((code, reason)) => {
                    let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
                    format!("close {code} {reason}").trim_end().to_owned()
                }
                None => "close".to_owned(),
            };
        }
    };
    let fin = if header.fin { "" } else { "+" };
    let rest = if whole { "" } else { "..." };
    // Our own pings carry a nonce that says nothing.
    let payload = if payload == NONCE { "nonce".into() } else { String::from_utf8_lossy(payload) };
    format!("{name}{fin} {payload}{rest}").trim_end().to_owned()
}

impl Peer for Fake {
    fn poll_fill(&mut self, _: &mut Context<'_>, buffers: &mut Buffers, at: usize) -> Poll<io::Result<Fill>> {
        let mut wire = self.0.borrow_mut();
        match (wire.incoming.pop_front(), wire.end) {
            (Some(bytes), _) => {
                buffers.plain[at..at + bytes.len()].copy_from_slice(&bytes);
                Poll::Ready(Ok(Fill::Bytes(bytes.len())))
            }
            (None, Some(Ok(()))) => Poll::Ready(Ok(Fill::End)),
            (None, Some(Err(kind))) => Poll::Ready(Err(kind.into())),
            (None, None) => Poll::Pending,
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8], _: &mut [u8], more: bool) -> Poll<io::Result<()>> {
        assert!(self.0.borrow().shut.is_none(), "written after FIN");
        self.0.borrow_mut().unsent.extend_from_slice(bytes);
        if more { Poll::Ready(Ok(())) } else { self.poll_flush(cx) }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        if wire.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if wire.broken {
            wire.unsent.clear();
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = wire.room.min(wire.unsent.len());
        wire.packets += usize::from(taken > 0);
        wire.room -= taken;
        wire.received.extend(wire.unsent.drain(..taken));
        if wire.unsent.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn unsent(&self) -> usize {
        self.0.borrow().unsent.len()
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>, notify: &mut bool) -> Poll<io::Result<()>> {
        if self.0.borrow().shut.is_none() && *notify {
            // The alert would take a place behind what is unsent.
            self.0.borrow_mut().shut = Some(true);
            *notify = false;
        }
        match self.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.0.borrow_mut().shut.get_or_insert(false);
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }

    fn poll_drain(&mut self, _: &mut Context<'_>, _: &mut Buffers) -> Poll<()> {
        let mut wire = self.0.borrow_mut();
        wire.incoming.clear();
        if wire.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The payload of our pings in tests.
pub(super) const NONCE: [u8; 8] = *b"\x01\x02\x03\x04\x05\x06\x07\x08";

/// What the test may set before a connection begins.
pub(super) struct Options {
    pub(super) from_client: Limits,
    pub(super) from_backend: Limits,
    pub(super) client_pacing: Pacing,
    pub(super) backend_pacing: Pacing,
    pub(super) connection: Connection,
    pub(super) content: Content,
    pub(super) tunnels: Tunnels,
    pub(super) audits: bool,
    /// The window that was negotiated with compression.
    pub(super) deflate: Option<u8>,
    pub(super) client_early: Vec<u8>,
    pub(super) backend_early: Vec<u8>,
    /// When the credential expires, seconds after the beginning.
    pub(super) expires: Option<i64>,
    /// The proof of an External service, and how its method judges it.
    pub(super) external: Option<External>,
    /// What the service is asked with again.
    pub(super) kept: Option<KeptQuestion>,
    /// What the connections of a subject share.
    pub(super) subject_rates: Arc<SubjectRates>,
}

impl Default for Options {
    fn default() -> Self {
        let limits = Limits { text: true, binary: true, max_size: 1000, max_fragments: 4, ..Limits::CONTROL_ONLY };
        Self {
            from_client: limits,
            from_backend: limits,
            client_pacing: Pacing::default(),
            backend_pacing: Pacing::default(),
            connection: Connection {
                requires_subject: false,
                total: 9,
                per_address: None,
                per_subject: None,
                outlives_credential: false,
                idle_timeout: None,
                heartbeat: None,
                max_duration: None,
            },
            content: Content::default(),
            tunnels: Tunnels::default(),
            audits: false,
            deflate: None,
            client_early: Vec::new(),
            backend_early: Vec::new(),
            expires: None,
            external: None,
            kept: None,
            subject_rates: Arc::default(),
        }
    }
}

impl Options {
    /// With pings after so many seconds of silence, and so many that may be missed.
    pub(super) fn heartbeat(interval: u64, missed: u32, backend: bool) -> Self {
        let mut options = Self::default();
        options.connection.heartbeat = Some(Heartbeat { interval: Duration::from_secs(interval), missed, backend });
        options
    }
}

/// A live connection between two fakes.
pub(super) struct Fixture {
    pub(super) relay: Option<Relay<Fake, Fake>>,
    pub(super) client: Fake,
    pub(super) backend: Fake,
    pub(super) session: Rc<Session>,
    pub(super) all: Metrics,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) held: Arc<HeldBytes>,
    pub(super) live: Live,
    now: Tick,
    buffers: Buffers,
    sizes: MessageSizes,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(super) fn with(options: Options) -> Self {
        let policy = Policy {
            handshake: Handshake { authentication: authentication(options.external.clone()), ..Handshake::default() },
            connection: options.connection,
            from_client: options.from_client,
            from_backend: options.from_backend,
            client_pacing: options.client_pacing,
            backend_pacing: options.backend_pacing,
            content: options.content,
            tunnels: options.tunnels,
            audits_messages: options.audits,
            compresses: options.deflate.is_some(),
            client_certificates: None,
            ceilings: crate::policy::Ceilings::default(),
        };
        let live = Live::default();
        live.publish(snapshot(Some(RouteState::Serving(Arc::new(policy)))));
        let lease = live.lease("a.test", "/").unwrap();
        let proof = options.expires.map(|after| {
            let (method, expires) = ("idp", WALL + after);
            let proof = json!({"method": method, "issuer": "i", "subject": "s", "expires": expires, "claims": "{}"});
            serde_json::from_value(proof).unwrap()
        });
        let proof = proof.or(options.external.map(|external| Box::new(external.proof("sessions", Some("ada")))));
        let facts = Facts {
            address: IpAddr::from([192, 0, 2, 1]),
            host: "a.test".into(),
            port: None,
            path: "/".into(),
            origin: Origin::Missing,
            subprotocols: Box::default(),
            client_certificate: None,
            proof,
        };
        let session = Session::new(facts, options.kept, lease, 0, Tick::FIRST, WALL);
        let (client, backend) = (Fake::new(), Fake::new());
        let log = WorkerLog::new(AccessLog::off());
        let all = Metrics::new();
        let metrics = all.route("shop/chat");
        let report = Report::new(
            log.id(),
            RouteId::secure_web_socket("shop", "chat"),
            Instant::now(),
            Arc::clone(&metrics),
            log,
        );
        let held = Arc::new(HeldBytes::default());
        let relay = Relay::new(Parts {
            client: client.clone(),
            backend: backend.clone(),
            client_early: options.client_early,
            backend_early: options.backend_early,
            session: Rc::clone(&session),
            report,
            nonce: NONCE,
            held: Arc::clone(&held),
            subject_rates: options.subject_rates,
            deflate: options.deflate,
            permits: Box::new(()),
        });
        let (now, buffers, sizes) = (Tick::FIRST, Buffers::new(), all.message_sizes());
        Self { relay: Some(relay), client, backend, session, all, metrics, held, live, now, buffers, sizes }
    }

    /// Polls the connection until nothing moves; true when it is over.
    pub(super) fn poll(&mut self) -> bool {
        let Some(relay) = &mut self.relay else { return true };
        let mut cx = Context::from_waker(Waker::noop());
        // Each poll goes round a few times; what is ready after that wakes the task.
        for _ in 0..4 {
            if relay.poll(&mut cx, &mut self.buffers, &self.sizes, self.now).is_ready() {
                self.relay = None;
                return true;
            }
        }
        false
    }

    /// Lets time pass, second by second, as the sweeper does.
    pub(super) fn pass(&mut self, seconds: u32) {
        self.pass_under(seconds, false);
    }

    /// The same while memory is short.
    pub(super) fn pass_under(&mut self, seconds: u32, pressed: bool) {
        for _ in 0..seconds {
            self.now = self.now.after(TICKS);
            self.session.sweep(pressed, self.now, WALL + i64::from(self.now.second()));
            self.poll();
        }
    }

    /// Lets ticks pass that no sweep sees.
    pub(super) fn tick(&mut self, ticks: u32) {
        self.now = self.now.after(ticks);
        self.poll();
    }

    /// The route becomes another one; `None`: it is gone.
    pub(super) fn publish(&mut self, state: Option<RouteState>) {
        self.live.publish(snapshot(state));
        self.session.rejudge(&self.live, self.now, WALL);
        self.poll();
    }

    /// The moment by the worker's clock.
    pub(super) fn now(&self) -> Tick {
        self.now
    }

    /// Ends the connection as the gateway.
    pub(super) fn end(&mut self, reason: Reason) {
        self.session.end(reason);
        self.poll();
    }

    pub(super) fn is_over(&self) -> bool {
        self.relay.is_none()
    }

    /// Why the connection ends, with the close code and who ended it; of one that is not over.
    pub(super) fn ending(&self) -> Option<(Reason, Option<u16>, Initiator)> {
        let ending = self.relay.as_ref()?.report.ending?;
        Some((ending.reason, ending.code, ending.initiator))
    }

    /// What the log will say of the message that ended the connection.
    pub(super) fn detail(&self) -> Option<Detail> {
        self.relay.as_ref()?.report.detail.as_deref().cloned()
    }

    /// What both sides have received.
    pub(super) fn frames(&self) -> (Vec<String>, Vec<String>) {
        (self.client.frames(), self.backend.frames())
    }
}

/// The method of an External service, where there is one.
pub(super) fn authentication(external: Option<External>) -> Authentication {
    external.map_or(Authentication::Anonymous, |external| {
        Authentication::AnyOf(vec![Method { name: "sessions".into(), kind: Kind::External(external) }])
    })
}

fn snapshot(state: Option<RouteState>) -> Snapshot {
    let routes = state.into_iter().map(|state| {
        Arc::new(Route {
            id: RouteId::secure_web_socket("shop", "chat"),
            path: PathMatch::Prefix("/".into()),
            state,
            backends: vec![],
            balance: Balance::default(),
            backend_tls: None,
            timeouts: Timeouts::default(),
            rule: 0,
        })
    });
    let host = Host { name: "a.test".into(), tls: HostTls::Default, routes: routes.collect() };
    Snapshot { exact: [("a.test".into(), Arc::new(host))].into(), ..Snapshot::default() }
}

/// A frame as the client sends it.
pub(super) fn up(opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, opcode, payload.as_ref(), Some(KEY));
    bytes
}

/// A frame as the backend sends it.
pub(super) fn down(opcode: Opcode, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, opcode, payload.as_ref(), None);
    bytes
}

/// The same frame without FIN.
pub(super) fn unfinished(mut frame: Vec<u8>) -> Vec<u8> {
    frame[0] &= 0x7F;
    frame
}

/// The payload of a Close frame.
pub(super) fn code(code: u16) -> Vec<u8> {
    close::payload(code, "")
}
