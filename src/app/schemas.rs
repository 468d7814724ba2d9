//! Reads schemas of messages apart from the compile, so that one namespace's many or costly schemas delay no other's route.
//!
//! One thread with a stack of its own reads one schema after the other, of each namespace in turn. A schema that takes longer
//! than [`PATIENCE`] is refused, and another thread takes over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::compile::Compiled;
use crate::compile::guard::guarded;
use crate::compile::resolve::schema::UnreadSchema;
use crate::content::schema::{Digest, Documents, KnownSchemas, Schema};

/// How long one schema may take to be read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether one takes longer.
const LOOK: Duration = Duration::from_millis(250);
/// Schemas are read by recursion that the bounds of `content::cost` keep well within this.
const STACK: usize = 16 << 20;

/// How a schema is read: [`Schema::read`], but for tests.
type Read = fn(&str, &Documents) -> Result<Schema, String>;

/// Reads schemas. The thread ends with it.
pub(super) struct SchemaReader {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to read, or the reader ends.
    begun: Condvar,
    /// Something was read.
    done: Condvar,
    changed: watch::Sender<u64>,
    read: Read,
    patience: Duration,
}

#[derive(Default)]
struct State {
    known: Arc<KnownSchemas>,
    /// What waits, by namespace.
    waiting: BTreeMap<Box<str>, VecDeque<UnreadSchema>>,
    /// The namespace whose turn was last.
    last: Box<str>,
    /// What is being read, and since when.
    reading: Option<(Digest, Instant)>,
    /// The thread that reads; those before it ended or take too long.
    thread: u64,
    /// When it was last told that something was read.
    told: Option<Instant>,
    over: bool,
}

impl SchemaReader {
    /// A reader with its thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start() -> io::Result<Self> {
        Self::with(Schema::read, PATIENCE)
    }

    fn with(read: Read, patience: Duration) -> io::Result<Self> {
        let (sender, changed) = watch::channel(0);
        let shared = Shared {
            state: Mutex::default(),
            begun: Condvar::new(),
            done: Condvar::new(),
            changed: sender,
            read,
            patience,
        };
        let shared = Arc::new(shared);
        spawn(&shared, 0)?;
        Ok(Self { shared, changed })
    }

    /// Compiles with the schemas that were read. If others must be read first, and that takes no longer than `patience`, it
    /// compiles once more with them; else the next call has them. Blocks.
    ///
    /// # Errors
    /// That of `compile`.
    pub(super) fn compile<E>(
        &self,
        patience: Duration,
        mut compile: impl FnMut(Arc<KnownSchemas>) -> Result<Compiled, E>,
    ) -> Result<Compiled, E> {
        let compiled = compile(self.known())?;
        self.request(&compiled.unread_schemas, &compiled.schemas);
        if compiled.unread_schemas.is_empty() {
            return Ok(compiled);
        }
        self.wait(patience);
        let compiled = compile(self.known())?;
        self.request(&compiled.unread_schemas, &compiled.schemas);
        Ok(compiled)
    }

    /// Schemas that were read so far.
    fn known(&self) -> Arc<KnownSchemas> {
        Arc::clone(&self.shared.state().known)
    }

    /// Asks for schemas that must be read. `used` are all that are named: what is known of others is forgotten.
    fn request(&self, unread: &[UnreadSchema], used: &BTreeSet<Digest>) {
        let mut state = self.shared.state();
        if state.known.keys().any(|digest| !used.contains(digest)) {
            Arc::make_mut(&mut state.known).retain(|digest, _| used.contains(digest));
        }
        let reading = state.reading.map(|(digest, _)| digest);
        state.waiting.clear();
        for schema in unread.iter().filter(|schema| Some(schema.digest) != reading) {
            state.waiting.entry(schema.namespace.clone()).or_default().push_back(schema.clone());
        }
        drop(state);
        self.shared.begun.notify_all();
    }

    /// Waits until all that was asked for is read, but not longer than `limit`. Blocks.
    fn wait(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state();
        while !state.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.done.wait_timeout(state, left.min(LOOK));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.shared.give_up(&mut state);
        }
    }

    /// Waits until something was read since the last call.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                Ok(()) = self.changed.changed() => return,
                () = sleep(LOOK) => self.shared.give_up(&mut self.shared.state()),
            }
        }
    }
}

impl Drop for SchemaReader {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.begun.notify_all();
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.reading.is_none() && self.waiting.is_empty()
    }

    /// The next schema, of the namespace behind the one whose turn was last.
    fn next(&mut self) -> Option<UnreadSchema> {
        let behind = self.waiting.range(self.last.clone()..).find(|(namespace, _)| **namespace != self.last);
        let namespace = behind.or_else(|| self.waiting.iter().next()).map(|(namespace, _)| namespace.clone())?;
        let queue = self.waiting.get_mut(&namespace)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&namespace);
        }
        self.last = namespace;
        next
    }

    fn learn(&mut self, digest: Digest, read: Result<Arc<Schema>, String>) {
        self.reading = None;
        Arc::make_mut(&mut self.known).insert(digest, read);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what takes too long, and lets another thread go on.
    fn give_up(self: &Arc<Self>, state: &mut State) {
        let Some((digest, since)) = state.reading else { return };
        if since.elapsed() < self.patience {
            return;
        }
        state.learn(digest, Err(format!("takes longer than {} seconds to read; make it smaller", PATIENCE.as_secs())));
        state.thread += 1;
        if spawn(self, state.thread).is_err() {
            tracing::error!("no thread could be started to read schemas of messages; new ones are not read");
        }
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.done.notify_all();
    }
}

fn spawn(shared: &Arc<Shared>, thread: u64) -> io::Result<()> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("schemas".to_owned()).stack_size(STACK).spawn(move || run(&shared, thread))?;
    Ok(())
}

/// Reads until the reader ends, or another thread has taken over.
fn run(shared: &Arc<Shared>, thread: u64) {
    loop {
        let mut state = shared.state();
        let next = loop {
            if state.over || state.thread != thread {
                return;
            }
            match state.next() {
                Some(next) => break next,
                None => state = shared.begun.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        if state.known.contains_key(&next.digest) {
            continue;
        }
        state.reading = Some((next.digest, Instant::now()));
        drop(state);
        let read = guarded(str::to_owned, || (shared.read)(&next.key, &next.documents)).map(Arc::new);
        let mut state = shared.state();
        if state.thread != thread {
            return;
        }
        state.learn(next.digest, read);
        // All routes are compiled together: not for each of thousands of schemas, and not only when all of them are read.
        let namespace_done = !state.waiting.contains_key(&next.namespace);
        let due = namespace_done || state.told.is_none_or(|told| told.elapsed() >= LOOK);
        if due {
            state.told = Some(Instant::now());
        }
        drop(state);
        if due {
            shared.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// A schema of a namespace that nothing but its digest distinguishes.
    fn unread(namespace: &str, number: u32) -> UnreadSchema {
        let mut digest = Digest::default();
        digest[..4].copy_from_slice(&number.to_le_bytes());
        digest[4] = namespace.len() as u8;
        let documents = Documents::from([("s".to_owned(), "{}".to_owned())]);
        UnreadSchema { digest, namespace: namespace.into(), key: "s".to_owned(), documents: Arc::new(documents) }
    }

    fn digests(all: &[UnreadSchema]) -> BTreeSet<Digest> {
        all.iter().map(|schema| schema.digest).collect()
    }

    #[test]
    fn what_is_asked_for_is_read_and_what_is_no_longer_named_is_forgotten() {
        let reader = SchemaReader::start().unwrap();
        let mut broken = unread("shop", 2);
        broken.documents = Arc::new(Documents::from([("s".to_owned(), "{".to_owned())]));
        let all = [unread("shop", 1), broken];
        reader.request(&all, &digests(&all));
        reader.wait(Duration::from_secs(60));
        let known = reader.known();
        assert!(known[&all[0].digest].is_ok());
        assert_eq!(known[&all[1].digest].as_ref().unwrap_err(), "is not JSON (RFC 8259)");
        reader.request(&[], &digests(&all[..1]));
        assert_eq!(reader.known().keys().copied().collect::<BTreeSet<_>>(), digests(&all[..1]));
    }

    #[tokio::test]
    async fn one_namespace_does_not_delay_another() {
        let slow: Read = |key, documents| {
            thread::sleep(Duration::from_millis(20));
            Schema::read(key, documents)
        };
        let mut reader = SchemaReader::with(slow, PATIENCE).unwrap();
        let mut all: Vec<_> = (0..2_000).map(|number| unread("flood", number)).collect();
        all.push(unread("shop", 0));
        reader.request(&all, &digests(&all));
        while !reader.known().contains_key(&all[2_000].digest) {
            timeout(Duration::from_secs(60), reader.changed()).await.unwrap();
        }
        assert!(reader.known().len() < 100, "{}", reader.known().len());
    }

    #[test]
    fn a_schema_that_takes_too_long_is_refused_and_the_next_one_is_read() {
        let hangs: Read = |key, documents| {
            if documents["s"] == "hang" {
                loop {
                    thread::park();
                }
            }
            Schema::read(key, documents)
        };
        let reader = SchemaReader::with(hangs, Duration::from_millis(50)).unwrap();
        let mut first = unread("a", 1);
        first.documents = Arc::new(Documents::from([("s".to_owned(), "hang".to_owned())]));
        let all = [first, unread("b", 2)];
        reader.request(&all, &digests(&all));
        reader.wait(Duration::from_secs(60));
        let known = reader.known();
        assert!(known[&all[0].digest].as_ref().unwrap_err().contains("takes longer than"));
        assert!(known[&all[1].digest].is_ok());
    }
}
