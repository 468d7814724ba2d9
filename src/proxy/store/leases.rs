//! The leases that this replica holds in the shared store, one for each connection of a subject with a limit.
//!
//! A **lease** is a member of the subject's sorted set whose score is the time at which it is over, by the store's clock. Its
//! replica renews it, so that a store which lost its memory learns of it again, and takes it away when the connection ends.
//! What a replica that died held is over after [`Options::lease`](super::Options::lease). Giving back and renewing say what
//! is, not how it changed: said twice, late, or out of order they do no harm.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use redis::Script;
use redis::aio::MultiplexedConnection;
use tokio::sync::mpsc;

use crate::api::route_id::RouteId;

/// Leases that wait to be given back; those beyond are over when their time is.
const QUEUE: usize = 64 * 1024;
/// Subjects whose leases are renewed at a time.
const RENEWING: usize = 64;

/// The store's clock in milliseconds.
const NOW: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
";
/// Takes a lease if fewer than so many are held: 1, or 0.
const TAKE: &str = r"
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
";
/// Renews leases, also those that the store does not know.
const RENEW: &str = r"
for at = 2, #ARGV do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[at]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
";

pub(super) struct Scripts {
    pub(super) take: Script,
    renew: Script,
}

pub(super) fn scripts() -> &'static Scripts {
    static SCRIPTS: std::sync::OnceLock<Scripts> = std::sync::OnceLock::new();
    SCRIPTS.get_or_init(|| {
        let script = |text: &str| Script::new(&format!("{NOW}{text}"));
        Scripts { take: script(TAKE), renew: script(RENEW) }
    })
}

/// A subject of a route, as the store knows it: a digest, from which nobody's name is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Subject([u8; 32]);

impl Subject {
    pub(super) fn new(route: &RouteId, identity: &str) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [route.kind.as_str(), &*route.namespace, &*route.name, identity] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(context.finish().as_ref().try_into().unwrap_or_default())
    }
}

/// One lease on its way back.
pub(super) type Returned = (Subject, u64);

/// What this replica holds.
pub(super) struct Leases {
    /// The name of this replica, by chance.
    replica: String,
    prefix: String,
    duration: Duration,
    pub(super) next: AtomicU64,
    held: Mutex<HashMap<Subject, Vec<u64>>>,
    back: mpsc::Sender<Returned>,
}

impl Leases {
    /// Nothing held; what is given back arrives at the receiver.
    pub(super) fn new(prefix: &str, duration: Duration) -> (Self, mpsc::Receiver<Returned>) {
        let (back, returned) = mpsc::channel(QUEUE);
        let mut random = [0; 12];
        // Without chance two replicas could share a name, and then their leases: better none at all.
        let replica = aws_lc_rs::rand::fill(&mut random)
            .map_or_else(|_| std::process::id().to_string(), |()| URL_SAFE_NO_PAD.encode(random));
        let leases = Self {
            replica,
            prefix: prefix.to_owned(),
            duration,
            next: AtomicU64::new(0),
            held: Mutex::default(),
            back,
        };
        (leases, returned)
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HashMap<Subject, Vec<u64>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn key(&self, subject: &Subject) -> String {
        format!("{}subject:{}", self.prefix, URL_SAFE_NO_PAD.encode(subject.0))
    }

    /// Where the pace of a subject's messages in a direction is kept.
    pub(super) fn pace_key(&self, subject: &Subject, direction: &str) -> String {
        format!("{}pace:{direction}:{}", self.prefix, URL_SAFE_NO_PAD.encode(subject.0))
    }

    pub(super) fn member(&self, lease: u64) -> String {
        format!("{}:{lease}", self.replica)
    }

    pub(super) fn millis(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }

    fn holds(&self, subject: &Subject, lease: u64) -> bool {
        self.held().get(subject).is_some_and(|leases| leases.contains(&lease))
    }

    pub(super) fn release(&self, subject: Subject, lease: u64) {
        {
            let mut held = self.held();
            if let Some(leases) = held.get_mut(&subject) {
                leases.retain(|one| *one != lease);
                if leases.is_empty() {
                    held.remove(&subject);
                }
            }
        }
        // A full queue forgets it: nobody renews it any more.
        let _ = self.back.try_send((subject, lease));
    }

    /// Renews everything that is held. What was not renewed is so with the next call.
    pub(super) async fn renew(&self, connection: &MultiplexedConnection) {
        let held: Vec<(Subject, Vec<u64>)> =
            self.held().iter().map(|(subject, leases)| (*subject, leases.clone())).collect();
        let each = held.into_iter().map(async |(subject, leases)| {
            let mut connection = connection.clone();
            let mut call = scripts().renew.key(self.key(&subject));
            call.arg(self.millis());
            for lease in &leases {
                call.arg(self.member(*lease));
            }
            let renewed = call.invoke_async::<u8>(&mut connection).await;
            // What ended meanwhile may have been given back before it was renewed.
            for lease in leases.into_iter().filter(|lease| !self.holds(&subject, *lease)) {
                let _ = self.back.try_send((subject, lease));
            }
            renewed
        });
        let mut renewals = std::pin::pin!(futures_util::stream::iter(each).buffer_unordered(RENEWING));
        while let Some(renewed) = renewals.next().await {
            // Where one gets no answer the others would each wait for theirs, and nobody would look for a better line.
            if renewed.is_err_and(|error| error.is_timeout() || error.is_unrecoverable_error()) {
                return;
            }
        }
    }
}
