//! Places of subjects in the shared store: a subject has so many over all replicas.
//!
//! Each connection holds a **lease**: a member of the subject's sorted set whose score is the time at which it is over, by
//! the store's clock. Its replica renews it, so that a store which lost its memory learns of it again, and takes it away
//! when the connection ends. What a replica that died held is over after [`Options::lease`]. Giving back and renewing say
//! what is, not how it changed: said twice, late, or out of order they do no harm.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use redis::Script;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::api::route_id::RouteId;
use crate::proxy::store::{Line, Options, Store};
use crate::reason::Reason;

/// Leases that wait to be given back; those beyond are over when their time is.
const QUEUE: usize = 64 * 1024;
/// Leases that are given back with one message.
const BATCH: usize = 256;
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

struct Scripts {
    take: Script,
    renew: Script,
}

fn scripts() -> &'static Scripts {
    static SCRIPTS: std::sync::OnceLock<Scripts> = std::sync::OnceLock::new();
    SCRIPTS.get_or_init(|| {
        let script = |text: &str| Script::new(&format!("{NOW}{text}"));
        Scripts { take: script(TAKE), renew: script(RENEW) }
    })
}

/// A subject of a route, as the store knows it: a digest, from which nobody's name is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subject([u8; 32]);

impl Subject {
    fn new(route: &RouteId, identity: &str) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [route.kind.as_str(), &*route.namespace, &*route.name, identity] {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(context.finish().as_ref().try_into().unwrap_or_default())
    }
}

/// One lease on its way back.
pub(crate) type Returned = (Subject, u64);

/// What this replica holds.
pub(crate) struct Leases {
    /// The name of this replica, by chance.
    replica: String,
    prefix: String,
    duration: Duration,
    next: AtomicU64,
    held: Mutex<HashMap<Subject, Vec<u64>>>,
    back: mpsc::Sender<Returned>,
}

impl Leases {
    /// Nothing held; what is given back arrives at the receiver.
    pub(crate) fn new(options: &Options) -> (Self, mpsc::Receiver<Returned>) {
        let (back, returned) = mpsc::channel(QUEUE);
        let mut random = [0; 12];
        // Without chance two replicas could share a name, and then their leases: better none at all.
        let replica = aws_lc_rs::rand::fill(&mut random)
            .map_or_else(|_| std::process::id().to_string(), |()| URL_SAFE_NO_PAD.encode(random));
        let leases = Self {
            replica,
            prefix: options.prefix.clone(),
            duration: options.lease,
            next: AtomicU64::new(0),
            held: Mutex::default(),
            back,
        };
        (leases, returned)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Subject, Vec<u64>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, subject: &Subject) -> String {
        format!("{}subject:{}", self.prefix, URL_SAFE_NO_PAD.encode(subject.0))
    }

    fn member(&self, lease: u64) -> String {
        format!("{}:{lease}", self.replica)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX)
    }

    fn holds(&self, subject: &Subject, lease: u64) -> bool {
        self.held().get(subject).is_some_and(|leases| leases.contains(&lease))
    }

    fn release(&self, subject: Subject, lease: u64) {
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
    pub(super) async fn renew(&self, line: &Line) {
        let held: Vec<(Subject, Vec<u64>)> =
            self.held().iter().map(|(subject, leases)| (*subject, leases.clone())).collect();
        let each = held.into_iter().map(async |(subject, leases)| {
            let mut connection = line.connection.clone();
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

/// Gives leases back as they come, until there is nobody left to hold one.
pub(super) async fn give_back(store: Arc<Store>, mut returned: mpsc::Receiver<Returned>) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        batch.clear();
        if returned.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let Some(mut connection) = store.line.load().as_ref().map(|line| line.connection.clone()) else { continue };
        let mut call = redis::pipe();
        for (subject, lease) in &batch {
            let (key, member) = (store.leases.key(subject), store.leases.member(*lease));
            call.cmd("ZREM").arg(key).arg(member).ignore();
        }
        let _ = timeout(store.options.timeout, call.query_async::<()>(&mut connection)).await;
    }
}

/// A connection's lease among those of its subject over all replicas, until it is dropped.
pub(crate) struct SubjectLease {
    store: Arc<Store>,
    subject: Subject,
    lease: u64,
    /// The store may know of it.
    told: bool,
}

impl fmt::Debug for SubjectLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectLease").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Drop for SubjectLease {
    fn drop(&mut self) {
        if self.told {
            self.store.leases.release(self.subject, self.lease);
        }
    }
}

impl Store {
    /// One of `limit` leases of a subject (with its issuer) of a route.
    ///
    /// # Errors
    /// [`Reason::SubjectLimit`]: all are taken; [`Reason::StoreUnavailable`]: nobody knows.
    pub(crate) async fn acquire_subject(
        self: &Arc<Self>,
        route: &RouteId,
        identity: &str,
        limit: u32,
    ) -> Result<SubjectLease, Reason> {
        let leases = &self.leases;
        let subject = Subject::new(route, identity);
        let number = leases.next.fetch_add(1, Ordering::Relaxed);
        // From now on: whoever gives up waiting leaves a question behind that may still be answered.
        let mut lease = SubjectLease { store: Arc::clone(self), subject, lease: number, told: true };
        let mut call = scripts().take.key(leases.key(&subject));
        call.arg(leases.member(number)).arg(leases.millis()).arg(limit);
        let taken: u8 = self.ask(route, &call).await?;
        if taken != 1 {
            lease.told = false;
            return Err(Reason::SubjectLimit);
        }
        leases.held().entry(subject).or_default().push(number);
        Ok(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_id::RouteKind;

    #[test]
    fn routes_of_two_kinds_and_one_name_have_keys_of_their_own() {
        let own = RouteId::secure_web_socket("shop", "chat");
        let other = RouteId::new(RouteKind::HttpRoute, "shop", "chat");
        assert!(Subject::new(&own, "1:aada") == Subject::new(&own, "1:aada"));
        assert!(Subject::new(&own, "1:aada") != Subject::new(&other, "1:aada"));
    }
}
